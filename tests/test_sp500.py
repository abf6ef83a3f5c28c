"""The study of the S&P 500 in its quick form: what it says follows from its tables."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import sp500
from experiments.sp500_answers import write_answers
from experiments.sp500_tables import calibrated
from jaxfc.running import Backtest, load_backtest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("sp500")
    config = dataclasses.replace(sp500.QUICK, num_origins=8, num_draws=30, out=str(out))
    done = sp500.run_backtest(config, "complete")
    every: dict[str, Backtest] = {name: done for name in sp500.BACKTESTS}
    data = sp500.panel_of(config, "all")
    return out, done, write_answers(every, data, out, window=config.window, seed=0)


def test_losses_are_squared_errors(study):
    _, done, results = study
    realised = done.realised[:, 0, 0]
    losses = results.losses
    np.testing.assert_allclose(losses["all"], (done.mean[:, 0, 0] - realised) ** 2)
    np.testing.assert_allclose(losses["zero"], realised**2)
    np.testing.assert_allclose(losses["random walk"].iloc[1:], np.diff(realised) ** 2)
    assert list(losses.index) == list(pd.DatetimeIndex(done.dates[:, 0]))


def test_findings_follow_from_the_tables(study):
    out, _, results = study
    found = pd.read_csv(out / "findings.csv").set_index("statement")
    rmse = results.losses.mean() ** 0.5
    row = found.loc["ARX with all series has a lower RMSE than the random walk"]
    assert row["ours"] == f"{rmse['all']:.4f} against {rmse['random walk']:.4f}"
    assert (str(row["holds"]) == "True") == (rmse["all"] < rmse["random walk"])
    total = results.measures["all"]["total_log_return"]
    row = found.loc["PL 50 earns more than the constant mix of its mean exposure"]
    assert f"{total['PL 50%']:.2%} against {total['mix of PL 50%']:.2%}" in row["ours"]
    judged = found["holds"].dropna().astype(str)
    text = (out / "answers.md").read_text()
    assert f"{(judged == 'True').sum()} of {len(judged)} statements hold" in text
    assert text.count("| **no** |") == (judged == "False").sum()


def test_intervals_before_and_after(study):
    out, done, _ = study
    table = pd.read_csv(out / "intervals.csv").set_index(["intervals", "period", "level"])
    lower, upper = done.interval(0.5)
    outside = (done.realised < lower) | (done.realised > upper)
    assert table.loc[("all", "all weeks", 0.5), "outside"] == pytest.approx(outside.mean())
    # Too short for a calibration: the given intervals are kept.
    kept = calibrated(done, scaled=True)
    np.testing.assert_allclose(kept[0][:, 0], lower[:, 0, 0])


def test_the_backtest_is_kept(study):
    out, done, _ = study
    again = load_backtest(out / "complete" / "backtest")
    np.testing.assert_array_equal(again.mean, done.mean)
    assert (out / "report_all" / "report.html").is_file()
