"""Backtests against a plain loop over windows, and what a forecaster may not see."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.batching import map_in_batches
from jaxfc.evaluation.benchmarks import FirstOrder
from jaxfc.factors import EM, PPCA, DynamicFactorModel, TwoStepEM
from jaxfc.panel import Panel
from jaxfc.running.backtest import (
    Rolling,
    backtest,
    forecast_windows,
    stack_windows,
    window_panel,
)

NUM_WEEKS = 70
MIXED = DynamicFactorModel(
    1, 1, method=TwoStepEM(restart=False, conditional_cov=True, max_steps=6, inner=EM(max_steps=3))
)


def mixed_panel(weekly=None, seed=3):
    """Four weekly series and the monthly sum of a fifth, published 20 days after its month."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=NUM_WEEKS)
    series = factor[:, None] + 0.6 * rng.normal(size=(NUM_WEEKS, 5))
    dates = pd.date_range("2015-01-02", periods=NUM_WEEKS, freq="W-FRI")
    frame = pd.DataFrame(series[:, :4], index=dates, columns=list("abcd"))
    frame = frame if weekly is None else weekly(frame)
    monthly = pd.DataFrame({"m": pd.Series(series[:, 4], index=dates).resample("ME").sum()})
    return Panel.from_frames(
        {"W": frame, "M": monthly.iloc[:-1]}, kinds={"m": "flow_sum"}, delays={"m": "20D"}
    )


ORIGINS = Rolling(window=40, step=2, num_origins=5)


@pytest.fixture(scope="module")
def panel():
    return mixed_panel()


@pytest.fixture(scope="module")
def done(panel):
    return backtest(MIXED, panel, ORIGINS, horizon=2, batch_size=2)


def test_batch_equals_a_loop_over_windows(panel, done):
    rows = ORIGINS.rows(panel.index, 2)
    assert list(rows) == [panel.num_times - 3 - 2 * i for i in range(4, -1, -1)]
    for i, row in enumerate(rows):
        fitted = MIXED.fit(window_panel(panel, int(row), 40), throw=False)
        alone = fitted.forecast(2)
        np.testing.assert_allclose(done.mean[i], alone.mean, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(done.std[i], alone.std, rtol=1e-10, atol=1e-10)
        assert done.num_steps[i] == fitted.num_steps


def test_labels(panel, done):
    table = done.to_frame(quantiles=[0.05, 0.95])
    rows = ORIGINS.rows(panel.index, 2)
    assert len(table) == 5 * 2 * 5
    one = table[(table.series == "b") & (table.horizon == 2)]
    assert list(one.origin) == list(panel.index[rows])
    assert list(one.date) == list(panel.index[rows + 2])
    np.testing.assert_array_equal(one.realised, panel.to_frame()["b"].to_numpy()[rows + 2])
    z = 1.6448536269514722
    np.testing.assert_allclose(one["q0.05"], one["mean"] - z * one["std"], rtol=1e-9)
    # A monthly sum stands in a weekly row, but is no weekly value to compare with.
    assert table[table.series == "m"].realised.isna().all()


def test_a_window_shows_what_was_published(panel):
    row = int(np.flatnonzero(panel.index == pd.Timestamp("2015-12-18"))[0])
    seen = window_panel(panel, row, 40).to_frame()
    months = seen["m"].dropna().index
    # October ended on the 31st and came out on 20 November; November comes out on 20 December.
    assert months[-1] == pd.Timestamp("2015-10-30")
    assert seen[list("abcd")].notna().all().all()
    # The window starts within a month, whose sum its rows cannot explain.
    assert months[0] == pd.Timestamp("2015-04-24")


def test_data_after_the_origin_change_nothing(panel, done):
    last_origin = done.origins[-1]

    def spoil(frame):
        spoiled = frame.copy()
        spoiled.loc[spoiled.index > last_origin] = 1e6
        return spoiled

    later = backtest(MIXED, mixed_panel(spoil), ORIGINS, horizon=2, batch_size=2)
    np.testing.assert_array_equal(later.mean, done.mean)
    np.testing.assert_array_equal(later.std, done.std)
    assert later.realised[-1, 0, 0] == 1e6


def test_derivative_with_respect_to_unpublished_values_is_exactly_zero(panel):
    model = DynamicFactorModel(1, 1, method=PPCA())
    stocks = Panel.from_frame(panel.to_frame()[list("abcd")], delays={"d": "16D"})
    rows = np.array([50, 60])
    windows = stack_windows(model, stocks, rows, 30, None)

    def total(values):
        moved = eqx.tree_at(lambda w: w.values, windows, values)
        return jnp.sum(forecast_windows(model, moved, 1, None).forecast.mean ** 2)

    gradient = np.asarray(jax.grad(total)(windows.values))
    seen = np.asarray(windows.observed)
    assert not seen[:, -3:, 3].any() and seen[:, -4, 3].all()
    assert np.all(gradient[~seen] == 0.0)
    assert np.all(gradient[:, -1, :3] != 0.0)


class Counting(FirstOrder):
    """Counts how often it is traced."""

    def estimate(self, values, observed, *, aggregation=None, key=None):
        TRACES.append(values.shape)
        return super().estimate(values, observed, aggregation=aggregation, key=key)


TRACES: list[tuple[int, ...]] = []


def test_one_trace_for_all_origins_and_all_data(panel):
    weekly = panel.select(["a", "b"])
    model = Counting("estimated", "zero")
    for factor in (1.0, 2.0):
        scaled = Panel.from_frame(factor * weekly.to_frame())
        result = backtest(model, scaled, Rolling(window=20, num_origins=7), batch_size=3)
        expected = [
            scaled.to_frame().iloc[row - 18 : row + 1].mean().to_numpy()
            for row in Rolling(window=20, num_origins=7).rows(scaled.index, 1)
        ]
        np.testing.assert_allclose(result.mean[:, 0], expected, rtol=1e-12)
    assert TRACES == [(20, 2)]


def test_a_failed_origin_is_marked_and_spoils_no_other(panel):
    frame = panel.to_frame()[["a", "b"]].iloc[:30].copy()
    frame.loc[frame.index[5:15], "a"] = 1.0  # all one-step targets of one window: variance 0
    model = FirstOrder("estimated", "zero")
    result = backtest(model, Panel.from_frame(frame), Rolling(window=11, start=frame.index[13]))
    assert (
        list(result.okay[:3]) == [True, False, True] and result.okay.sum() == len(result.okay) - 1
    )
    assert np.isfinite(result.mean[result.okay]).all() and np.all(result.std[result.okay] > 0)
    table = result.to_frame()
    failed = table[table.result != ""]
    assert set(failed.origin) == {frame.index[14]} and "became NaN" in failed.result.iloc[0]


@pytest.mark.parametrize(
    ("options", "horizon", "expected"),
    [
        ({"window": 4}, 1, [3, 4, 5, 6, 7, 8]),
        ({"window": 4, "step": 2}, 1, [4, 6, 8]),
        ({"window": 4, "num_origins": 2}, 3, [5, 6]),
        ({"window": 4, "step": 3, "start": "2020-01-06"}, 1, [5, 8]),
        ({"window": 4, "start": "2020-01-02"}, 2, [3, 4, 5, 6, 7]),
    ],
)
def test_rows_of_origins(options, horizon, expected):
    index = pd.date_range("2020-01-01", periods=10, freq="D")
    assert list(Rolling(**options).rows(index, horizon)) == expected


def test_refusals(panel):
    with pytest.raises(ValueError, match="window and step must be at least 1"):
        Rolling(window=0)
    with pytest.raises(ValueError, match="not both"):
        Rolling(window=5, start="2020-01-01", num_origins=3)
    with pytest.raises(ValueError, match="num_origins must be at least 1"):
        Rolling(window=5, num_origins=0)
    with pytest.raises(ValueError, match="shorten the window"):
        backtest(MIXED, panel, Rolling(window=NUM_WEEKS + 9))
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        backtest(MIXED, panel, ORIGINS, horizon=0)
    late = panel.to_frame()[["a", "b", "c"]]
    late.loc[late.index < late.index[-10], "c"] = np.nan
    with pytest.raises(ValueError, match=r"the window .* 'c' has no observation"):
        backtest(DynamicFactorModel(1, 1), Panel.from_frame(late), Rolling(window=20))
    with pytest.raises(ValueError, match="batch_size"):
        map_in_batches(lambda x: x, jnp.zeros(4), 0)
    with pytest.raises(ValueError, match="one leading axis"):
        map_in_batches(lambda x: x, (jnp.zeros(4), jnp.zeros(3)))
