"""The page of a backtest: its numbers are those of the backtest, whatever it lacks it says."""

import dataclasses
import re

import equinox as eqx
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from backtest_pages import example, gaussian_backtest
from jaxfc.cli import app
from jaxfc.report import html, write_backtest_report
from jaxfc.report.backtest_data import bins_for, driver_table, one_step
from jaxfc.report.backtest_figures import enlarged
from jaxfc.report.backtest_tables import accuracy_table, benchmark_table
from jaxfc.report.backtest_words import comparison_sentence, coverage_sentence, sharpe_sentence
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


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures are made but not drawn, which takes most of the time of a page."""
    monkeypatch.setattr(html, "png", lambda figure: b"\x89PNG")


def test_the_page_is_whole(folder):
    page = (folder / "report.html").read_text()
    for name in ("intervals", "drivers", "spreads", "sizes", "errors", "wealth", "exposure"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in page
    assert page.count("<img ") == 7 and page.count("<source ") == 7
    assert not re.search(r'(src|href)="https?://', page)
    assert "A title" in page and "What we found." in page
    assert "1 estimation failed" in page and "became NaN" in page
    alts = re.findall(r'<img alt="([^"]+)"', page)
    captions = re.findall(r"<figcaption>(.+?) \(<a", page)
    # A text for readers who cannot see a picture says what it shows, with numbers.
    pairs = list(zip(alts, captions, strict=True))
    assert len(pairs) == 7 and all(alt.startswith(f"{caption}. ") for alt, caption in pairs)
    assert all(re.search(r"\d", alt.removeprefix(caption)) for alt, caption in pairs)
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


def test_accuracy_is_that_of_the_usable_forecasts(done, folder):
    kept = [i for i in range(40) if i not in (3, 5)]
    outcome, draws = done.realised[kept, 0, 0], done.draws[kept, :, 0, 0]
    errors = outcome - draws.mean(axis=1)
    row = pd.read_csv(folder / "accuracy.csv").iloc[0]
    assert row["forecasts"] == 38
    assert row["RMSE"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert row["MAE"] == pytest.approx(np.abs(errors).mean())
    pairs = np.abs(draws[:, :, None] - draws[:, None]).sum(axis=(1, 2)) / (40 * 39)
    crps = np.abs(draws - outcome[:, None]).mean(axis=1) - 0.5 * pairs
    assert row["CRPS"] == pytest.approx(crps.mean())


def test_benchmarks_against_textbook_formulas(done):
    rng = np.random.default_rng(5)
    losses = 0.0006 * rng.chisquare(1, size=40)
    losses[7] = np.nan
    step = one_step(done, None)
    table = benchmark_table(step, {"other": losses}).set_index("benchmark")
    assert list(table.index) == ["zero", "other"] and list(table["forecasts"]) == [38, 37]
    for name, theirs in (("zero", done.realised[:, 0, 0] ** 2), ("other", losses)):
        own = (done.realised[:, 0, 0] - done.mean[:, 0, 0]) ** 2
        own[3] = np.nan
        gap = own - theirs
        both = np.isfinite(gap)
        row = table.loc[name]
        assert row["its RMSE"] == pytest.approx(np.sqrt(theirs[both].mean()))
        expected = np.sqrt(own[both].mean() / theirs[both].mean())
        assert row["RMSE ratio"] == pytest.approx(expected)
        # One step ahead the corrected statistic of Diebold and Mariano is the t statistic.
        peer = stats.ttest_1samp(gap[both], 0.0)
        assert row["t (Diebold-Mariano)"] == pytest.approx(peer.statistic)
        assert row["p (Diebold-Mariano)"] == pytest.approx(peer.pvalue)
        # Giacomini and White: n times the uncentred R^2 of one on (d_t, d_t d_{t-1}).
        rows = np.column_stack([gap[1:], gap[1:] * gap[:-1]])
        rows = rows[np.isfinite(rows).all(axis=1)]
        fitted = rows @ np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
        assert row["p (Giacomini-White)"] == pytest.approx(stats.chi2(2).sf(fitted @ fitted))
    short = benchmark_table(one_step(example(5), None), {}).iloc[0]
    assert np.isnan(short["p (Diebold-Mariano)"]) and short["RMSE ratio"] > 0


def test_tests_of_sharpe_ratios_are_of_simple_returns(done, folder):
    table = pd.read_csv(folder / "sharpe_tests.csv", index_col="strategy")
    wealth = pd.read_csv(folder / "wealth.csv", index_col="date")
    simple = wealth.pct_change().iloc[1:]
    simple = simple[np.isfinite(done.realised[:, 0, 0])]  # the week without a return is left out
    sharpe = simple.mean() / simple.std(ddof=0) * np.sqrt(52)
    for name in ("PL 90%", "CPPI 2/80"):
        expected = sharpe[name] - sharpe["buy and hold"]
        assert table.loc[name, "difference a year"] == pytest.approx(expected)
    assert np.isnan(table.loc["mix as PL 50%", "p (Ledoit-Wolf)"])


def test_chosen_sizes_are_those_of_the_usable_estimations(done, folder):
    table = pd.read_csv(folder / "sizes.csv", index_col="origin")
    assert list(table.columns) == ["K, factors", "p, lags of the factors' law"]
    expected = np.array(done.details["num_factors"], float)
    expected[3] = np.nan
    np.testing.assert_array_equal(table["K, factors"], expected)


def test_what_a_backtest_lacks_is_said(tmp_path):
    plain = write_backtest_report(gaussian_backtest(12), tmp_path / "plain", strategies={})
    page = plain.read_text()
    assert "do not come in parts" in page and "chooses nothing" in page
    assert "No strategies were asked for" in page
    none = example(12, missing=range(12))
    page = write_backtest_report(none, tmp_path / "none").read_text()
    assert "coverage says nothing" in page and "need realised returns" in page
    failed = write_backtest_report(example(12, failed=range(12)), tmp_path / "failed").read_text()
    assert "12 estimations failed" in failed and "no usable forecast to take apart" in failed
    assert "No estimation is usable" in failed


def test_own_strategies_are_run_beside_buy_and_hold(tmp_path, no_pictures):
    own = {"half": ConstantMix(0.5), "PL 75": PredictionLevel(0.75)}
    write_backtest_report(example(12), tmp_path / "own", strategies=own, cost=0.001)
    table = pd.read_csv(tmp_path / "own" / "strategies.csv", index_col="strategy")
    assert list(table.index) == ["half", "PL 75", "buy and hold"]


def test_one_origin_has_a_page(tmp_path):
    one = example(1)
    page = write_backtest_report(one, tmp_path).read_text()
    assert "Fewer than two errors" in page and "need 30 returns" in page
    wealth = pd.read_csv(tmp_path / "wealth.csv")["buy and hold"]
    assert list(wealth) == pytest.approx([1.0, np.exp(one.realised[0, 0, 0])])


def test_origins_that_stopped_are_used_and_gaps_refuse_strategies(tmp_path, no_pictures):
    done = example(12, failed=(2,), stopped=(4,))
    step = one_step(done, "index")
    assert list(np.flatnonzero(~step.usable)) == [2] and list(np.flatnonzero(step.stopped)) == [4]
    assert accuracy_table(done, step)["forecasts"].item() == 11
    gaps = dataclasses.replace(done, origins=done.origins - pd.Timedelta("7D"))
    page = write_backtest_report(gaps, tmp_path / "gaps").read_text()
    assert "1 estimation stopped at the bound" in page and "do not follow on the" in page
    assert "became NaN" in page and "maximum number of" not in page
    percent = dataclasses.replace(done, realised=100.0 * np.asarray(done.realised))
    page = write_backtest_report(percent, tmp_path / "percent").read_text()
    assert "give scale=0.01" in page


def test_refusals(tmp_path):
    done = example(12)
    done.save(tmp_path / "kept")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="holds a saved backtest"):
        write_backtest_report(done, tmp_path / "kept")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        write_backtest_report(done, tmp_path / "file")
    with pytest.raises(ValueError, match="no forecast of 'gold'; there are index"):
        write_backtest_report(done, tmp_path / "new", target="gold")
    with pytest.raises(ValueError, match="exactly once; check credit, gold, oil"):
        write_backtest_report(done, tmp_path / "new", groups={"a": ["rates", "gold"]})
    with pytest.raises(ValueError, match=r"benchmark_losses\['x'\] has shape \(2,\)"):
        write_backtest_report(done, tmp_path / "new", benchmark_losses={"x": np.zeros(2)})
    assert not (tmp_path / "new").exists()


def test_many_series_are_one_driver_and_long_backtests_have_a_part_shown_larger():
    done = example(12)
    step = one_step(done, None)
    table = driver_table(done, step, None)
    assert table is not None and list(table.columns[:4]) == ["AR nature", "rates", "credit", "oil"]
    wide = np.repeat(np.asarray(done.forecast.impact_by_series), 3, axis=2) / 3
    law = eqx.tree_at(lambda f: f.impact_by_series, done.forecast, wide)
    many = dataclasses.replace(done, forecast=law, series=tuple(f"s{i}" for i in range(12)))
    pooled = driver_table(many, step, None)
    assert pooled is not None and list(pooled.columns[:2]) == ["AR nature", "panel"]
    np.testing.assert_allclose(pooled["panel"], table[["rates", "credit", "oil"]].sum(axis=1))
    assert enlarged(step.dates) is None
    crisis = enlarged(pd.date_range("2006-01-06", periods=527, freq="W-FRI"))
    assert crisis is not None and crisis[1].sum() == 52
    later = enlarged(pd.date_range("2010-01-01", periods=200, freq="W-FRI"))
    assert later is not None and 52 <= later[1].sum() <= 53 and later[1][-1]


@pytest.mark.parametrize(("draws", "bins"), [(None, 10), (99, 10), (1000, 11), (20, 7), (40, 10)])
def test_bins_divide_the_ranks(draws, bins):
    assert bins_for(draws) == bins


@pytest.mark.parametrize(
    ("ratio", "p", "said"),
    [
        (0.9, 0.01, "10.00% below that of the forecast zero (0.02): more than chance"),
        (1.1, 0.4, "10.00% above that of the forecast zero (0.02): no more than chance"),
        (1.1, np.nan, "10.00% above that of the forecast zero (0.02)."),
        (np.nan, np.nan, "no ratio to that of zero"),
    ],
)
def test_comparisons_in_words(ratio, p, said):
    row = {"benchmark": "zero", "its RMSE": 0.02, "RMSE ratio": ratio, "p (Diebold-Mariano)": p}
    assert said in comparison_sentence(row)


def test_coverage_in_words(done):
    step = one_step(done, None)
    never = dataclasses.replace(step, lower=step.lower - 1.0, upper=step.upper + 1.0)
    said = coverage_sentence(never)
    assert "0.0% of 38 realised values lie outside the 90% intervals where 10% should" in said
    assert "a gap beyond chance" in said
    assert "Right coverage is rejected at 50%, 60%, 70%, 80%, 90%." in said
    evenly = (np.random.default_rng(0).permutation(40) + 0.5) / 40
    tails = np.tile([0.25, 0.2, 0.15, 0.1, 0.05], (40, 1))
    usable = np.ones(40, bool)
    right = dataclasses.replace(step, lower=tails, upper=1 - tails, outcome=evenly, usable=usable)
    said = coverage_sentence(right)
    assert "10.0% of 40 realised values" in said and "chance may bring (Kupiec, p = 1.000)" in said
    assert said.count("is rejected at no level") == 2


def test_sharpe_ratios_in_words():
    table = pd.DataFrame(
        {
            "strategy": ["a", "b", "c", "nearly a multiple"],
            "difference a year": [0.4, -0.5, 0.3, -0.002],
            "p (Ledoit-Wolf)": [0.01, 0.02, np.nan, 0.0],
        }
    )
    assert sharpe_sentence(table).endswith("that of buy and hold: higher for a; lower for b.")
    table["p (bootstrap)"] = 0.2
    assert "No strategy has a Sharpe ratio that differs" in sharpe_sentence(table)


def test_the_command(tmp_path, no_pictures):
    example(12).save(tmp_path / "kept")
    groups = tmp_path / "groups.toml"
    groups.write_text('bonds = ["rates", "credit"]\noil = ["oil"]\n')
    run = CliRunner()
    options = ["--out", str(tmp_path / "out"), "--groups", str(groups), "--title", "Mine"]
    options += ["--periods-per-year", "12"]
    answer = run.invoke(app, ["report", str(tmp_path / "kept"), *options])
    assert answer.exit_code == 0, answer.output
    assert "Mine" in (tmp_path / "out" / "report.html").read_text()
    assert "bonds" in pd.read_csv(tmp_path / "out" / "drivers.csv").columns
    tests = pd.read_csv(tmp_path / "out" / "strategies.csv", index_col="strategy")
    np.testing.assert_allclose(tests["annual_mean"], 12 * tests["mean"])
    odd = run.invoke(app, ["report", str(tmp_path)])
    assert isinstance(odd.exception, FileNotFoundError) and "no backtest" in str(odd.exception)
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--target", "gold"])
    assert isinstance(odd.exception, ValueError) and "no forecast of 'gold'" in str(odd.exception)
    groups.write_text('bonds = ["rates"]\n')
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--groups", str(groups)])
    assert "exactly once" in str(odd.exception)
    groups.write_text("bonds = [1]")
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--groups", str(groups)])
    assert "bonds must be a list of series, got [1]" in str(odd.exception)
    groups.write_text("bonds = ")
    odd = run.invoke(app, ["report", str(tmp_path / "kept"), "--groups", str(groups)])
    assert "is no TOML file" in str(odd.exception)


def test_the_demo_of_returns(tmp_path):
    answer = CliRunner().invoke(app, ["demo", "--returns", "--quick", "--out", str(tmp_path / "d")])
    assert answer.exit_code == 0, answer.output
    table = pd.read_csv(tmp_path / "d" / "forecasts.csv", parse_dates=["date"])
    rmse = np.sqrt(((table["mean"] - table["realised"]) ** 2).mean())
    assert f"RMSE {rmse:.4f}" in answer.output and len(table) == 16
    assert table["date"].iloc[-1] == pd.Timestamp("2016-02-05")
    drivers = pd.read_csv(tmp_path / "d" / "drivers.csv")
    assert {"Equity", "Oil"} <= set(drivers.columns)
