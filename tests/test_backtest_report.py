"""The page of a backtest: its numbers are those of the backtest, whatever it lacks it says."""

import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from backtest_pages import example, gaussian_backtest
from jaxfc.cli import app
from jaxfc.report import write_backtest_report
from jaxfc.trading import ConstantMix, PredictionLevel


@pytest.fixture(scope="module")
def done():
    return example(40, failed=(3,), missing=(5,))


@pytest.fixture(scope="module")
def folder(done, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    groups = {"bonds": ["rates", "credit"], "oil": ["oil"], "own": ["index"]}
    write_backtest_report(done, folder, groups=groups, title="A title", text=["What we found."])
    return folder


def test_the_page_is_whole(folder):
    page = (folder / "report.html").read_text()
    for name in ("intervals", "drivers", "spreads", "sizes", "errors", "wealth", "exposure"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in page
    assert page.count("<img ") == 7 and page.count("<source ") == 7
    assert not re.search(r'(src|href)="https?://', page)
    assert "A title" in page and "What we found." in page
    assert "1 estimations failed" in page and "became NaN" in page
    alts = re.findall(r'<img alt="([^"]+)"', page)
    assert len(alts) == 7 and all(len(alt) > 20 for alt in alts)
    assert page.count('scope="col"') > 20 and page.count('scope="row"') > 20


def test_coverage_counts_what_can_be_used(done, folder):
    table = pd.read_csv(folder / "coverage.csv").set_index("level")
    lower, upper = done.interval(0.8)
    realised = done.realised[:, 0, 0]
    kept = [i for i in range(40) if i not in (3, 5)]
    outside = (realised < lower[:, 0, 0]) | (realised > upper[:, 0, 0])
    assert table.loc[0.8, "outside"] == pytest.approx(outside[kept].mean())
    score = upper - lower
    missed = np.maximum(lower - done.realised, 0) + np.maximum(done.realised - upper, 0)
    score = (score + 2.0 / 0.2 * missed)[kept].mean()
    assert table.loc[0.8, "mean interval score"] == pytest.approx(score)


def test_drivers_add_up_by_group(done, folder):
    table = pd.read_csv(folder / "drivers.csv", index_col="date")
    assert table.iloc[3].isna().all()
    table = table.dropna()
    parts = table.drop(columns="forecast")
    np.testing.assert_allclose(parts.sum(axis=1), table["forecast"], atol=1e-15)
    by_series = np.asarray(done.forecast.impact_by_series)[:, 0]
    np.testing.assert_allclose(table["bonds"].iloc[0], by_series[0, :2].sum())


def test_wealth_is_that_of_the_strategies(done, folder):
    wealth = pd.read_csv(folder / "wealth.csv", index_col="date")
    held = np.exp(np.nansum(done.realised))
    assert wealth["buy and hold"].iloc[-1] == pytest.approx(held)
    lower, upper = done.interval(0.5)
    exposure = pd.read_csv(folder / "exposure.csv", index_col="date")["PL 50%"]
    share = np.clip(upper / (upper - lower), 0, 1)[:, 0, 0]
    assert exposure.iloc[0] == pytest.approx(share[0])


def test_what_a_backtest_lacks_is_said(tmp_path):
    page = write_backtest_report(gaussian_backtest(), tmp_path / "plain").read_text()
    assert "do not come in parts" in page and "chooses nothing" in page
    one = write_backtest_report(example(1), tmp_path / "one", strategies={}).read_text()
    assert "No strategies were asked for" in one and "Fewer than two errors" in one
    none = example(5, missing=range(5))
    page = write_backtest_report(none, tmp_path / "none").read_text()
    assert "coverage says nothing" in page and "need realised returns" in page
    own = {"half": ConstantMix(0.5), "PL 75": PredictionLevel(0.75)}
    write_backtest_report(example(12), tmp_path / "own", strategies=own, cost=0.001)
    table = pd.read_csv(tmp_path / "own" / "strategies.csv", index_col="strategy")
    assert list(table.index) == ["half", "PL 75", "buy and hold"]


def test_the_command(tmp_path):
    example(12).save(tmp_path / "kept")
    groups = tmp_path / "groups.toml"
    groups.write_text('bonds = ["rates", "credit"]\noil = ["oil"]\n')
    run = CliRunner()
    options = ["--out", str(tmp_path / "out"), "--groups", str(groups), "--title", "Mine"]
    answer = run.invoke(app, ["report", str(tmp_path / "kept"), *options])
    assert answer.exit_code == 0, answer.output
    assert "Mine" in (tmp_path / "out" / "report.html").read_text()
    assert "bonds" in pd.read_csv(tmp_path / "out" / "drivers.csv").columns
    odd = run.invoke(app, ["report", str(tmp_path)])
    assert isinstance(odd.exception, FileNotFoundError) and "no backtest" in str(odd.exception)
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--target", "gold"])
    assert isinstance(odd.exception, ValueError) and "no forecast of 'gold'" in str(odd.exception)
    groups.write_text('bonds = ["rates"]\n')
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--groups", str(groups)])
    assert "exactly once" in str(odd.exception)


def test_the_demo_of_returns(tmp_path):
    answer = CliRunner().invoke(app, ["demo", "--returns", "--quick", "--out", str(tmp_path / "d")])
    assert answer.exit_code == 0, answer.output
    table = pd.read_csv(tmp_path / "d" / "forecasts.csv", parse_dates=["date"])
    rmse = np.sqrt(((table["mean"] - table["realised"]) ** 2).mean())
    assert f"RMSE {rmse:.4f}" in answer.output and len(table) == 16
    assert table["date"].iloc[-1] == pd.Timestamp("2016-02-05")
    drivers = pd.read_csv(tmp_path / "d" / "drivers.csv")
    assert {"Equity", "Oil"} <= set(drivers.columns)
