"""Backtests against a plain loop over windows, and what a forecaster may not see."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.batching import map_in_batches
from jaxfc.compose import DecomposedForecast, FactorARX, SizeSelection, Trajectories
from jaxfc.evaluation.benchmarks import FirstOrder
from jaxfc.factors import EM, PPCA, DynamicFactorModel, TwoStepEM
from jaxfc.panel import Panel
from jaxfc.running import store as store_module
from jaxfc.running.backtest import backtest
from jaxfc.running.backtest_result import load_backtest
from jaxfc.running.origins import Expanding, Rolling, window_panel
from jaxfc.running.windows import one_case, stack_windows

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


@eqx.filter_jit
def ahead(fitted, horizon, key=None):
    """One program, where each operation of `forecast` by itself would be one."""
    return fitted.forecast(horizon, key=key)


@eqx.filter_jit
def given(fitted, values, observed):
    return fitted.given(values, observed)


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
        alone = ahead(fitted, 2)
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
    assert seen[list("abcd")].notna().to_numpy().all()
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
    windows = stack_windows(model, stocks, rows, Rolling(window=30), None)

    def total(values):
        moved = eqx.tree_at(lambda w: w.values, windows, values)
        fits = jax.vmap(lambda w: one_case(w, model, 1, None))(moved)
        return jnp.sum(fits.forecast.mean**2)

    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(windows.values)))[:, 0]
    seen = np.asarray(windows.observed)[:, 0]
    assert not seen[:, -3:, 3].any() and seen[:, -4, 3].all()
    assert np.all(gradient[~seen] == 0.0)
    assert np.all(gradient[:, -1, :3] != 0.0)


def test_expanding_windows_equal_the_loop(panel):
    weekly = panel.select(list("abcd"))
    origins = Expanding(window=20, step=7, num_origins=4)
    model = FirstOrder("estimated", "estimated")
    done = backtest(model, weekly, origins, horizon=2)
    rows = origins.rows(weekly.index, 2)
    for i, row in enumerate(rows):
        alone = ahead(model.fit(weekly.window(0, int(row) + 1)), 2)
        np.testing.assert_allclose(done.mean[i], alone.mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(done.std[i], alone.std, rtol=1e-12)
    # A factor model reads the unobserved rows before the data as they are.
    model = DynamicFactorModel(1, 1, method=EM(rtol=1e-4))
    done = backtest(model, weekly, origins)
    rows = origins.rows(weekly.index, 1)
    first = origins.panel_at(weekly, int(rows[0]), int(rows[-1]) + 1)
    assert first.num_times == rows[-1] + 1 and not first.observed[: rows[-1] - rows[0]].any()
    np.testing.assert_allclose(done.mean[0], ahead(model.fit(first), 1).mean, atol=1e-10)


def test_what_would_fill_the_rows_before_the_data_is_refused(panel):
    """Expanding windows begin with unobserved rows."""
    origins = Expanding(window=40, step=5, num_origins=3)
    with pytest.raises(ValueError, match=r"begins with 10 rows .* TwoStepEM would fill"):
        backtest(MIXED, panel, origins)
    choosing = dataclasses.replace(RETURNS, selection=SizeSelection())
    choosing = dataclasses.replace(choosing, factors=DynamicFactorModel(2, 1))
    frame = panel.to_frame()[list("abcd")]
    wide = Panel.from_frame(frame.assign(f=frame["b"] ** 2, g=frame["c"] ** 2))
    with pytest.raises(ValueError, match=r"begins with 10 rows .* a selection"):
        backtest(choosing, wide, origins, key=jax.random.key(0))


def test_parameters_stay_between_estimations(panel):
    weekly = panel.select(list("abcd"))
    origins = Rolling(window=30, num_origins=5, refit=3)
    model = DynamicFactorModel(1, 1, method=EM(rtol=1e-3))
    done = backtest(model, weekly, origins)
    rows = origins.rows(weekly.index, 1)
    assert len(done.mean) == len(rows) == 5
    for i, row in enumerate(rows):
        first = window_panel(weekly, int(rows[i - i % 3]), 30)
        now = window_panel(weekly, int(row), 30)
        fitted = model.fit(first, throw=False)
        again = fitted if i % 3 == 0 else given(fitted, *now.arrays())
        np.testing.assert_allclose(done.mean[i], ahead(again, 1).mean, rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="TwoStepEM conditions its factors on the panel"):
        backtest(MIXED, panel, origins)


RETURNS = FactorARX("a", DynamicFactorModel(1, 1, method=EM(rtol=1e-3)), intervals=Trajectories(20))


@pytest.fixture(scope="module")
def drawn(panel):
    weekly, key = panel.select(list("abcd")), jax.random.key(3)
    return backtest(RETURNS, weekly, ORIGINS, horizon=2, batch_size=2, key=key)


def test_draws_of_an_origin_depend_on_its_number(panel, drawn):
    assert drawn.names == ("a",) and drawn.mean.shape == (5, 2, 1)
    weekly = panel.select(list("abcd"))
    row = int(ORIGINS.rows(weekly.index, 2)[3])
    key = jax.random.split(jax.random.fold_in(jax.random.key(3), 3))[1]
    alone = ahead(RETURNS.fit(window_panel(weekly, row, 40)), 2, key)
    assert isinstance(alone, DecomposedForecast)
    np.testing.assert_allclose(drawn.draws[3], alone.draws, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(drawn.details["num_factors"], np.ones(5))


def test_scores_are_those_of_the_frame(drawn):
    table = drawn.to_frame(quantiles=[0.1, 0.9])
    one = table[table.horizon == 2]
    scores = drawn.scores(levels=(0.8,)).loc[("a", 2)]
    error = one["mean"] - one["realised"]
    np.testing.assert_allclose(scores["rmse"], np.sqrt((error**2).mean()))
    outside = (one["realised"] < one["q0.1"]) | (one["realised"] > one["q0.9"])
    np.testing.assert_allclose(scores["outside 80%"], outside.mean())
    assert scores["num_cases"] == 5
    normal = backtest(FirstOrder("zero", "zero"), mixed_panel().select(["a"]), ORIGINS)
    assert np.isfinite(normal.scores().to_numpy()).all()


def test_save_and_load(drawn, tmp_path):
    drawn.save(tmp_path / "kept")
    again = load_backtest(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.to_frame(), drawn.to_frame())
    np.testing.assert_array_equal(again.draws, drawn.draws)
    leaves = (jax.tree.leaves(done.forecast) for done in (again, drawn))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.series == drawn.series and list(again.okay) == list(drawn.okay)
    with pytest.raises(FileNotFoundError, match="no backtest"):
        load_backtest(tmp_path)
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'kept'"):
        drawn.save(tmp_path)


def test_a_stopped_backtest_goes_on(panel, drawn, tmp_path, monkeypatch):
    weekly, options = panel.select(list("abcd")), {"batch_size": 2, "key": jax.random.key(3)}
    original, written = store_module.ResultStore.write, []

    def stopping(self, cell, chunk, table, notes=None):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(chunk)
        return original(self, cell, chunk, table, notes)

    monkeypatch.setattr(store_module.ResultStore, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        backtest(RETURNS, weekly, ORIGINS, 2, store=tmp_path / "store", **options)
    monkeypatch.undo()
    done = backtest(RETURNS, weekly, ORIGINS, 2, store=tmp_path / "store", **options)
    np.testing.assert_array_equal(done.draws, drawn.draws)
    assert len(list((tmp_path / "store").glob("cell*.parquet"))) == 3 and len(written) == 2
    # Chunks of another size would be other windows under the same numbers.
    with pytest.raises(ValueError, match=r"another configuration: windows_per_chunk differ"):
        backtest(
            RETURNS, weekly, ORIGINS, 2, store=tmp_path / "store", batch_size=3, key=options["key"]
        )
    with pytest.raises(ValueError, match=r"another configuration: origins differ"):
        backtest(
            RETURNS,
            weekly,
            dataclasses.replace(ORIGINS, step=1),
            2,
            store=tmp_path / "store",
            **options,
        )


def test_delays_hide_what_is_not_yet_published(panel):
    weekly = panel.select(["a", "b"])
    model = FirstOrder("zero", "one")
    late = backtest(model, weekly, ORIGINS, delays={"b": "10D"})
    rows = ORIGINS.rows(weekly.index, 1)
    np.testing.assert_array_equal(late.mean[:, 0, 0], weekly.values[rows, 0])
    np.testing.assert_array_equal(late.mean[:, 0, 1], weekly.values[rows - 2, 1])


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
        ({"window": 4, "start": "2020-01-04"}, 2, [3, 4, 5, 6, 7]),
    ],
)
def test_rows_of_origins(options, horizon, expected):
    index = pd.date_range("2020-01-01", periods=10, freq="D")
    assert list(Rolling(**options).rows(index, horizon)) == expected


def test_refusals(panel):
    with pytest.raises(ValueError, match="window, step and refit must be at least 1"):
        Rolling(window=0)
    with pytest.raises(ValueError, match="not both"):
        Rolling(window=5, start="2020-01-01", num_origins=3)
    with pytest.raises(ValueError, match="num_origins must be at least 1"):
        Rolling(window=5, num_origins=0)
    with pytest.raises(ValueError, match=r"has 2 rows up to it .* start at 2020-01-04"):
        Rolling(window=4, start="2020-01-02").rows(pd.date_range("2020-01-01", periods=9), 1)
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
