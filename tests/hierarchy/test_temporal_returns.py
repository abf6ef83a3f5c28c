"""The study of months, weeks and days: base forecasts by plain regressions, and a small run."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("skfolio", reason="the stocks are shipped by skfolio")

from experiments import temporal_returns
from experiments.temporal_base import base_forecasts
from experiments.temporal_returns import QUICK, closes_of, whole_months

pytestmark = pytest.mark.slow

WINDOW = 24


@pytest.fixture(scope="module")
def squares():
    config = dataclasses.replace(QUICK, num_stocks=2, num_months=3, window=WINDOW)
    return np.log(closes_of(config)).diff().iloc[1:] ** 2


def test_base_forecasts_are_plain_regressions_on_the_past(squares):
    """A week of one month by least squares in a loop; days that come later do not matter."""
    cycles = whole_months(squares.index)
    level = squares.rolling(250).mean()
    base = base_forecasts(squares, level, cycles, WINDOW)
    month = len(cycles.cycles) - 2
    week = squares.index.to_period("W-FRI").astype(str)
    rows, targets, sizes = [], [], []
    for end in cycles.cycles[month - WINDOW : month + 1]:
        inside = np.flatnonzero(squares.index.to_period("M") == end.to_period("M"))
        first, stock = inside[0], squares.iloc[:, 1]
        scale = stock.iloc[first - 250 : first].mean()
        past = [stock.iloc[first - span : first].mean() / scale for span in (5, 22, 66)]
        second = pd.unique(week[inside])[1]
        days = stock.iloc[inside][week[inside] == second]
        rows.append([1.0, *past])
        targets.append(days.sum() / scale)
        sizes.append(len(days))
    rows, targets, sizes = map(np.asarray, (rows, targets, sizes))
    beta = np.linalg.lstsq(rows[:-1], (targets / sizes)[:-1], rcond=None)[0]
    node = cycles.hierarchy.names.index("week 2")
    assert base.totals[month, 1, node] == pytest.approx(targets[-1], rel=1e-10)
    expected = rows[-1] @ beta * sizes[-1]
    assert base.forecasts[month, 1, node] == pytest.approx(expected, rel=1e-5)
    errors = targets[:-1] - rows[:-1] @ beta * sizes[:-1]
    np.testing.assert_allclose(base.residuals(month)[:, 1, node], errors, atol=1e-5)
    later = squares.copy()
    later[later.index > cycles.cycles[month - 1]] *= 7.0
    again = base_forecasts(later, level, cycles, WINDOW)
    np.testing.assert_array_equal(again.forecasts[month], base.forecasts[month])
    assert np.any(again.forecasts[month + 1] != base.forecasts[month + 1])


def test_a_quick_run_writes_its_tables(tmp_path):
    config = dataclasses.replace(
        QUICK, num_months=4, window=36, over_time=("bottom-up", "structural"), out=str(tmp_path)
    )
    table = temporal_returns.run(config)
    assert len(table) == 3 * 4 * 3 + 3 * 3  # methods, losses, orders; methods, orders
    own = table.set_index(["part", "loss", "order", "method"]).sort_index()
    # Bottom-up leaves days as they are; base against base is no comparison.
    days = own.loc["variance", "mse", "day"]
    assert days.loc["bottom-up", "mean"] == pytest.approx(days.loc["base", "mean"], rel=1e-9)
    assert np.isnan(days.loc["base", "dm"])
    assert own.loc["variance", "mse", "month"].loc["structural", "change"] != 0.0
    assert (table["months"] == 4).all()
    written = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(written["mean"], table["mean"], rtol=1e-4)
    text = (tmp_path / "answers.md").read_text()
    change = own.loc["profit", "mse", "week"].loc["zero", "change"]
    assert f"{change:+.2f} (DM" in text and "the same" in text
