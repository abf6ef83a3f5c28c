"""The tracker against a loop over vintages, one fit and one decomposition at a time."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from dense_panel import dense_law, dense_moments
from jaxfc.factors import EM, PCA, DynamicFactorModel
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.news import news
from jaxfc.factors.predict import predict
from jaxfc.panel import Panel
from jaxfc.running.tracker import reaching_all, resolved_for_all, target_days, track
from jaxfc.running.tracker_arrays import Plan, Vintages, track_arrays
from jaxfc.vintages import VintageStore, pseudo_vintages

NUM_TIMES = 60
NAMES = [*"abcdef", "q"]
DATES = pd.to_datetime(["2019-10-31", "2019-11-30", "2019-12-31", "2020-01-31"])
DELAYS = {"a": "0D", "b": "5D", "c": "15D", "d": "20D", "e": "33D", "f": "40D", "q": "29D"}
GROUPS = {**dict.fromkeys("abc", "early"), **dict.fromkeys("def", "late"), "q": "output"}
TRACES: list[tuple[int, ...]] = []
# Rounding of a batch against a loop after tens of EM steps, as in `test_contract`.
BATCH = 1e-8


class CountingEM(EM):
    """Counts how often an estimation is traced."""

    def run(self, model, data, rows, start, candidate):
        TRACES.append(data.values.shape)
        return super().run(model, data, rows, start, candidate)


# Flows that forget: what the tracker does with errors does not depend on it, compilation does.
MODEL = DynamicFactorModel(
    1,
    1,
    method=CountingEM(rtol=1e-5, max_steps=60),
    errors=AutoregressiveErrors(of_flows=False),
)


def draw_store():
    """Four vintages of six monthly series and a quarterly growth rate: the third revises a value,
    and in the fourth one has vanished."""
    rng = np.random.default_rng(0)
    factor = np.zeros(NUM_TIMES)
    for t in range(1, NUM_TIMES):
        factor[t] = 0.8 * factor[t - 1] + rng.normal()
    values = factor[:, None] * rng.normal(size=7) + 0.6 * rng.normal(size=(NUM_TIMES, 7))
    index = pd.date_range("2015-03-31", periods=NUM_TIMES, freq="ME")
    frame = pd.DataFrame(2.0 + 3.0 * values, index=index, columns=NAMES)
    frame["q"] = frame["q"].where(index.month % 3 == 0)
    panel = Panel.from_frame(frame, kinds={"q": "change_in_flow"}, delays=DELAYS)
    store = pseudo_vintages(panel, DATES)
    changed = list(store.panels)
    before = panel.values.copy()
    before[50, 1] += 2.0
    changed[:2] = [dataclasses.replace(old, values=before) for old in changed[:2]]
    without = changed[3].observed.copy()
    without[40, 2] = False
    changed[3] = dataclasses.replace(changed[3], observed=without)
    # As far as the first quarter of 2020: a fit of a panel that stops within a quarter starts from
    # other figures for that quarter.
    return VintageStore(DATES, tuple(changed)).extend(1)


@pytest.fixture(scope="module")
def store():
    return draw_store()


@pytest.fixture(scope="module")
def done(store):
    return track(MODEL, store, target="q", warm=False, removed="revise", batch_size=2)


@pytest.fixture(scope="module")
def fits(store):
    model = resolved_for_all(MODEL, store)
    assert isinstance(model.errors, AutoregressiveErrors) and model.errors.longest_gap == 2
    return [model.fit(panel, throw=False) for panel in store.panels]


def test_it_equals_a_loop_of_fits_and_decompositions(store, done, fits):
    assert list(done.periods) == list(pd.to_datetime([*["2019-12-31"] * 3, "2020-03-31"]))
    assert list(done.num_steps) == [int(fitted.num_steps) for fitted in fits]
    np.testing.assert_allclose(done.loglik, [fitted.loglik for fitted in fits], rtol=1e-12)
    for v in range(1, 4):
        alone = news(
            fits[v - 1],
            *store.pairs()[v - 1],
            target="q",
            period=done.periods[v],
            removed="revise",
            refitted=fits[v],
        )
        by_series = alone.by_series()
        np.testing.assert_allclose(done.nowcasts[v], alone.new_nowcast, rtol=BATCH)
        np.testing.assert_allclose(done.previous[v - 1], alone.old_nowcast, rtol=BATCH)
        for name, part in (
            ("news", done.news),
            ("revision", done.revisions),
            ("removal", done.removals),
        ):
            np.testing.assert_allclose(part[v - 1], by_series[name], atol=BATCH)
        np.testing.assert_allclose(done.reestimation[v - 1], alone.reestimation_impact, atol=1e-8)
    assert (np.count_nonzero(done.revisions, axis=1) == [0, 1, 0]).all()
    assert (np.count_nonzero(done.removals, axis=1) == [0, 0, 1]).all()


def test_it_adds_up_to_nowcasts_that_are_computed_apart(store, done, fits):
    table = done.to_frame()
    parts = table[["previous", "revisions", "removals", "news", "re-estimation"]].sum(axis=1)
    np.testing.assert_allclose(parts.iloc[1:], table["nowcast"].iloc[1:], atol=1e-11)
    for v, panel in enumerate(store.panels):
        apart = predict(fits[v], panel).native()["Q"]["q"]
        np.testing.assert_allclose(done.nowcasts[v], apart[done.periods[v]], rtol=BATCH)
        if v < 3:
            earlier = apart[done.periods[v + 1]]
            np.testing.assert_allclose(done.previous[v], earlier, rtol=BATCH)
    assert list(table.index) == list(DATES) and table["result"].eq("").all()
    assert table.iloc[0][["previous", "news", "re-estimation"]].isna().all()
    assert "4 vintages 2019-10-31..2020-01-31, 0 estimations failed" in repr(done)


def test_standard_deviations_are_those_of_the_dense_law(store, done, fits):
    for v in (0, 3):
        panel = store.panels[v]
        row = panel.index.get_loc(done.periods[v])
        _, stds = dense_moments(dense_law(fits[v], panel), panel.values, panel.observed)
        np.testing.assert_allclose(done.stds[v], stds[row, -1], rtol=1e-7)


def test_news_by_series_and_group(done):
    by_series, by_group = done.news_by_series(), done.news_by_group(GROUPS)
    assert list(by_series.columns) == NAMES and list(by_series.index) == list(DATES[1:])
    assert list(by_group.columns) == ["early", "late", "output"]
    np.testing.assert_allclose(by_group["late"], by_series[list("def")].sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(by_group.sum(axis=1), done.to_frame()["news"].iloc[1:], atol=1e-12)
    with pytest.raises(ValueError, match="'q' have no group"):
        done.news_by_group({name: "all" for name in "abcdef"})


def test_a_fixed_period_and_weights(store, done):
    """The same program: no shape differs."""
    fixed = track(
        MODEL,
        store,
        target={"q": -2.0},
        period="2020-02-15",
        warm=False,
        removed="revise",
        batch_size=2,
    )
    np.testing.assert_allclose(fixed.nowcasts[3], -2.0 * done.nowcasts[3], rtol=1e-12)
    np.testing.assert_allclose(fixed.stds[3], 2.0 * done.stds[3], rtol=1e-12)
    np.testing.assert_allclose(fixed.previous, fixed.nowcasts[:-1], rtol=1e-12)
    assert (np.diff(fixed.stds[:3]) < 0).all()


def test_a_failed_vintage_is_counted_and_spoils_no_other(store, done):
    panels = list(store.panels)
    values = panels[1].values.copy()
    values[10:13, 1] = 1.7e308  # finite, but their sum is not
    panels[1] = dataclasses.replace(panels[1], values=values)
    broken = VintageStore(DATES, tuple(panels))
    result = track(MODEL, broken, target="q", warm=False, removed="revise", batch_size=2)
    assert list(result.okay) == [True, False, True, True] and result.num_failed == 1
    assert result.to_frame()["result"].str.contains("became NaN").tolist() == [0, 1, 0, 0]
    others = [0, 2, 3]
    np.testing.assert_array_equal(result.nowcasts[others], done.nowcasts[others])
    np.testing.assert_array_equal(result.news[2], done.news[2])
    assert np.isnan(result.nowcasts[1]) and np.isnan(result.reestimation[:2]).all()


@pytest.mark.slow
def test_warm_starts_equal_a_loop_and_trace_once(store, fits):
    TRACES.clear()
    options = {"target": "q", "removed": "revise"}
    result = track(MODEL, store, **options)
    again = track(MODEL, store.map(lambda panel: scaled(panel, 2.0)), **options)
    assert TRACES == [(NUM_TIMES + 6, 7)]
    np.testing.assert_allclose(again.nowcasts, 2.0 * result.nowcasts, rtol=1e-9)
    fitted, nowcasts = fits[0], []
    estimate = eqx.filter_jit(resolved_for_all(MODEL, store).estimate_from)
    for v, panel in enumerate(store.panels):
        if v:
            data = {"aggregation": panel.aggregation, "start": fitted.parameters}
            fitted = estimate(*panel.arrays(), **data)
        nowcasts.append(predict(fitted, panel).native()["Q"]["q"][result.periods[v]])
    np.testing.assert_allclose(result.nowcasts, nowcasts, rtol=1e-8)
    assert (result.num_steps[1:] < result.num_steps[0]).all()
    parts = result.to_frame()[["previous", "revisions", "removals", "news", "re-estimation"]]
    np.testing.assert_allclose(parts.sum(axis=1).iloc[1:], result.nowcasts[1:], atol=1e-11)


def scaled(panel, factor):
    return dataclasses.replace(panel, values=factor * panel.values)


def test_a_failed_vintage_hands_on_the_start_it_was_given(store):
    panels = list(store.panels)
    values = panels[0].values.copy()
    values[10:13, 1] = 1.7e308
    panels[0] = dataclasses.replace(panels[0], values=values)
    values = panels[2].values.copy()
    values[10:13, 1] = 1.7e308
    panels[2] = dataclasses.replace(panels[2], values=values)
    whole = track(MODEL, store, target="q", removed="revise")
    result = track(MODEL, VintageStore(DATES, tuple(panels)), target="q", removed="revise")
    assert list(result.okay) == [False, True, False, True]
    np.testing.assert_allclose(result.nowcasts[[1, 3]], whole.nowcasts[[1, 3]], rtol=0.02)


def test_periods_move_with_the_vintages(store):
    ends = pd.to_datetime([*["2019-09-30"] * 3, "2019-12-31"])
    assert target_days(store, ["q"], -1, None) == list(ends)
    assert target_days(store, ["a"], 1, None)[0] == pd.Timestamp("2019-11-30")
    longer = reaching_all(store, ["q"], pd.Timestamp("2020-06-30"))
    assert {panel.index[-1] for panel in longer.panels} == {pd.Timestamp("2020-06-30")}


def test_the_program_lowers_for_cuda(store):
    model = resolved_for_all(MODEL, store)
    plan = Plan(True, False, 6, None, 1)
    rows = store.panels[0].aggregation
    given = Vintages(*store.arrays(), jnp.full(4, NUM_TIMES))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), given)

    def program(vintages):
        return track_arrays(model, vintages, jnp.eye(7)[6], rows, plan).nowcasts

    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(shapes)
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "gdp"}, "gdp"),
        ({"target": {}}, "no series"),
        ({"target": "q", "removed": "keep"}, "must be 'error' or 'revise'"),
        ({"target": "q", "ahead": 1, "period": "2020-03-31"}, "not both"),
        ({"target": "q"}, "vintage of 2020-01-31: 1 values of the old vintage"),
        ({"target": "q", "period": "2010-03-31"}, "not, or not completely, in the calendar"),
    ],
)
def test_bad_arguments_are_named(store, options, text):
    with pytest.raises(ValueError, match=text):
        track(MODEL, store, **options)


def test_bad_models_and_stores_are_named(store):
    with pytest.raises(ValueError, match="at least two"):
        track(MODEL, store.between(stop="2019-10-31"), target="q")
    with pytest.raises(ValueError, match=r"PCA\(\) cannot start"):
        track(DynamicFactorModel(1, 1, method=PCA()), store, target="q")
    with pytest.raises(ValueError, match="correlated errors"):
        track(DynamicFactorModel(1, 1, idiosyncratic="full"), store, target="q")
    with pytest.raises(ValueError, match="vintage of 2019-10-31 cannot be estimated"):
        track(DynamicFactorModel(7, 1, method=EM()), store.between(stop="2019-12-31"), target="q")
