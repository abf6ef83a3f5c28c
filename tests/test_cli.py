"""The command line on tiny files: what works, and every way to be told what is wrong."""

import json
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from cli_runs import run_command as run
from jaxfc import cli
from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.frames import read_table
from jaxfc.panel import Panel

NUM_WEEKS = 60


@pytest.fixture(autouse=True)
def same_settings(monkeypatch):
    """The command line sets JAX up for its own process; this one is set up already."""
    assert jax.config.read("jax_enable_x64")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    series = rng.normal(size=(NUM_WEEKS, 1)) + 0.5 * rng.normal(size=(NUM_WEEKS, 5))
    dates = pd.date_range("2015-01-02", periods=NUM_WEEKS, freq="W-FRI")
    weekly = pd.DataFrame(series[:, :4], index=dates, columns=list("abcd"))
    weekly.iloc[3:6, 1] = np.nan
    weekly.to_csv(folder / "weekly.csv", index_label="date")
    weekly.to_parquet(folder / "weekly.parquet")
    monthly = pd.Series(series[:, 4], index=dates).resample("ME").sum().iloc[:-1].to_frame("m")
    monthly.to_csv(folder / "monthly.csv", index_label="date")
    (folder / "text.csv").write_text("date,a,b\n2020-01-03,1,x\n2020-01-10,2,3\n")
    (folder / "fake.parquet").write_text("date,a\n2020-01-03,1\n")
    return folder


@pytest.fixture(scope="module")
def fit_folder(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "one"
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", str(files / "weekly.csv"), "--factors", "1", "--out", str(out)])
    assert ended.value.code == 0
    return out


def test_fit_writes_what_it_promises(files, fit_folder):
    wanted = {"model.jaxfc", "labels.json", "factors.csv", "loadings.csv", "nowcasts.csv"}
    assert {path.name for path in fit_folder.iterdir()} == {*wanted, "summary.json"}
    panel = Panel.from_frame(read_table(files / "weekly.csv"))
    fitted = DynamicFactorModel(1, 1, method=EM()).fit(panel)
    factors = pd.read_csv(fit_folder / "factors.csv", index_col="date", parse_dates=True)
    np.testing.assert_allclose(factors["factor_1"], np.asarray(fitted.factors)[:, 0], rtol=1e-9)
    assert list(factors.index) == list(panel.index)
    summary = json.loads((fit_folder / "summary.json").read_text())
    assert summary["status"] == "converged" and summary["num_steps"] == int(fitted.num_steps)
    assert summary["software"]["precision"] == "float64"
    nowcasts = pd.read_csv(fit_folder / "nowcasts.csv")
    missing = nowcasts[nowcasts.observed.isna()]
    assert list(missing.series.unique()) == ["b"] and missing["std"].gt(0).all()


def test_forecast_of_a_saved_fit_is_that_of_the_model(capsys, files, fit_folder, tmp_path):
    out = tmp_path / "forecast.csv"
    code, _, _ = run(capsys, "forecast", fit_folder, "--horizon", 3, "--out", out)
    assert code == 0
    table = pd.read_csv(out, parse_dates=["date"])
    panel = Panel.from_frame(read_table(files / "weekly.csv"))
    labelled = panel.label(DynamicFactorModel(1, 1).fit(panel).forecast(3), quantiles=[0.05, 0.95])
    assert list(table.date.unique()) == list(labelled.index)
    for name in "abcd":
        rows = table[table.series == name]
        for statistic in ("mean", "std", "q0.05", "q0.95"):
            np.testing.assert_allclose(rows[statistic], labelled[name][statistic], rtol=1e-9)
    code, printed, _ = run(capsys, "forecast", fit_folder, "--horizon", 3)
    assert code == 0 and printed == out.read_text()


def test_two_frequencies(capsys, files, tmp_path):
    arguments = ["--kinds", "m=flow_sum", "--delays", "m=20D", "--factors", 1, "--out", tmp_path]
    weekly, monthly = files / "weekly.parquet", files / "monthly.csv"
    code, printed, _ = run(capsys, "fit", f"W-FRI={weekly}", f"M={monthly}", *arguments)
    assert code == 0 and "TwoStepEM" in printed
    code, printed, _ = run(capsys, "forecast", tmp_path, "--horizon", 1)
    assert code == 0 and printed.splitlines()[-1].startswith("2016-02-26,m,")


def test_fredmd_is_recognised_and_transformed(capsys, tmp_path):
    rng = np.random.default_rng(1)
    growth = 0.01 * rng.normal(size=(40, 1)) + 0.002 * rng.normal(size=(40, 3))
    levels = np.exp(np.cumsum(growth, axis=0))
    months = pd.date_range("2010-01-01", periods=40, freq="MS")
    lines = ["sasdate,X,Y,Z", "Transform:,5,5,5"]
    for month, row in zip(months, levels, strict=True):
        day = f"{month.month}/1/{month.year}"
        lines.append(",".join([day, *(f"{value:.12f}" for value in row)]))
    (tmp_path / "2013-04.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "fit"
    arguments = ["--factors", 1, "--method", "ppca", "--out", out]
    code, printed, _ = run(capsys, "fit", tmp_path / "2013-04.csv", *arguments)
    assert code == 0 and "PPCA" in printed
    assert json.loads((out / "labels.json").read_text())["transformed"] is True
    seen = pd.read_csv(out / "nowcasts.csv").pivot(
        index="date", columns="series", values="observed"
    )
    np.testing.assert_allclose(seen["Y"].to_numpy()[1:], growth[1:, 1], atol=1e-9)


def test_select_chooses_the_size(capsys, files, tmp_path):
    code, printed, _ = run(
        capsys,
        *("fit", files / "weekly.csv", "--select", "--max-factors", 2, "--max-lags", 1),
        *("--method", "em", "--out", tmp_path),
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert code == 0 and "converged" in printed
    assert summary["num_factors"] in (1, 2) and summary["num_lags"] in (0, 1)
    loadings = pd.read_csv(tmp_path / "loadings.csv", index_col="series")
    assert f"factor_{summary['num_factors']}" in loadings
    assert f"factor_{summary['num_factors'] + 1}" not in loadings


def wrong_fits(files):
    """Arguments of fit, exit code and what the message says."""
    weekly = files / "weekly.csv"
    one = ["--factors", "1"]
    return {
        "missing file": ([files / "none.csv", *one], 1, "does not exist"),
        "false ending": ([files / "fake.parquet", *one], 1, "is not Parquet"),
        "text column": ([files / "text.csv", *one], 1, "'b'"),
        "K >= N": ([weekly, "--factors", "4"], 1, "num_factors = 4 needs more than 4 series"),
        "no size": ([weekly], 2, "either --factors K or --select"),
        "two sizes": ([weekly, *one, "--select"], 2, "either --factors K or --select"),
        "unknown option": ([weekly, *one, "--speed", "9"], 2, "--speed"),
        "unknown method": ([weekly, *one, "--method", "magic"], 2, "magic"),
        "malformed kind": ([weekly, *one, "--kinds", "a"], 2, "NAME=VALUE"),
        "kind twice": ([weekly, *one, "--kinds", "a=stock", "--kinds", "a=stock"], 2, "twice"),
        "unknown kind": ([weekly, *one, "--kinds", "a=liquid"], 1, "unknown kind 'liquid'"),
        "unknown series": ([weekly, *one, "--kinds", "z=stock"], 1, "'z'"),
        "kind missing": ([weekly, files / "monthly.csv", *one], 1, "series 'm' is at frequency"),
        "same frequency": ([weekly, files / "weekly.parquet", *one], 1, "of another file"),
        "unknown frequency": ([f"X={weekly}", *one], 1, "unknown frequency 'X'"),
        "no FRED-MD": ([weekly, *one, "--fredmd"], 1, "is no FRED-MD file"),
    }


@pytest.mark.parametrize("case", wrong_fits(Path()))
def test_fit_refuses_with_one_message(capsys, files, tmp_path, case):
    arguments, expected, message = wrong_fits(files)[case]
    code, _, error = run(capsys, "fit", *arguments, "--out", tmp_path / "out")
    assert code == expected
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys, files):
    code, _, error = run(
        capsys, "fit", files / "weekly.csv", "--factors", 1, "--out", files / "text.csv"
    )
    assert code == 1 and "is a file, not a folder" in error


@pytest.mark.parametrize("damage", ["model", "labels", "other names", "no labels", "no folder"])
def test_forecast_says_which_file_is_damaged(capsys, fit_folder, tmp_path, damage):
    folder = tmp_path / "fit"
    folder.mkdir()
    for name in ("model.jaxfc", "labels.json"):
        (folder / name).write_bytes((fit_folder / name).read_bytes())
    if damage == "model":
        content = bytearray((folder / "model.jaxfc").read_bytes())
        content[-20] ^= 1
        (folder / "model.jaxfc").write_bytes(content)
    elif damage == "labels":
        (folder / "labels.json").write_text("{")
    elif damage == "other names":
        labels = json.loads((folder / "labels.json").read_text())
        (folder / "labels.json").write_text(json.dumps({**labels, "names": ["a"]}))
    elif damage == "no labels":
        (folder / "labels.json").unlink()
    else:
        folder = tmp_path / "nowhere"
    code, _, error = run(capsys, "forecast", folder, "--horizon", 2)
    message = {
        "model": "model.jaxfc' is damaged",
        "labels": "labels.json is damaged",
        "other names": "of different fits",
        "no labels": "has no labels.json",
        "no folder": "is no folder",
    }[damage]
    assert code == 1 and message in error and "Traceback" not in error


def test_horizon_below_one_is_a_usage_error(capsys, fit_folder):
    code, _, error = run(capsys, "forecast", fit_folder, "--horizon", 0)
    assert code == 2 and "--horizon" in error


def test_debug_shows_the_traceback(files):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        cli.main(["--debug", "fit", str(files / "none.csv"), "--factors", "1", "--out", "x"])


def test_version_and_help(capsys):
    code, printed, _ = run(capsys, "--version")
    assert code == 0 and printed.startswith("jaxfc 0.")
    for command in ("demo", "fit", "forecast"):
        code, printed, _ = run(capsys, command, "--help")
        assert code == 0 and f"jaxfc {command}" in printed and "Example" in printed


def test_quick_demo_writes_the_report(capsys, tmp_path):
    pytest.importorskip("arch")
    code, printed, _ = run(capsys, "demo", "--quick", "--out", tmp_path)
    assert code == 0 and "float64" in printed and "Report:" in printed
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    chapters = ["In short", "Data", "Size and estimation", "Factors", "Nowcasts", "Forecast"]
    for title in [*chapters, "Evaluation", "Where the numbers come from"]:
        assert f">{title}</h2>" in page
    for name in ("factors", "loadings", "nowcasts", "forecast", "contributions", "evaluation"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert page.count("data:image/png;base64,") == 7
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores.model) >= {"factor model", "zero", "random walk", "AR(1)"}
    assert scores.rmse.gt(0).all() and scores.coverage_90.between(0, 1).all()
    parts = pd.read_csv(tmp_path / "contributions.csv", index_col="horizon")
    total = parts.drop(columns="forecast").sum(axis=1)
    forecast = pd.read_csv(tmp_path / "forecast.csv")
    np.testing.assert_allclose(total, forecast["mean"], atol=1e-8)
