"""News against the dense joint Gaussian law, against statsmodels, and against their own sums."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from dense_panel import dense_gain, dense_law, dense_moments
from golden.cases import factor_parameters, statsmodels_case
from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.news import news
from jaxfc.factors.news_arrays import news_arrays, news_batch
from jaxfc.factors.panel_law import expected_panel
from jaxfc.factors.scaling import Scaling
from jaxfc.panel import Panel
from jaxfc.release_calendar import ReleaseCalendar
from jaxfc.vintages import VintageStore, pseudo_vintages

NAMES = [*"abcd", "q"]
NUM_TIMES = 24
GROUPS = {"a": "real", "b": "real", "c": "prices", "d": "prices", "q": "output"}


def draw_frame():
    """Four monthly stocks and one quarterly, with holes."""
    rng = np.random.default_rng(5)
    factors = np.zeros((NUM_TIMES, 2))
    for t in range(NUM_TIMES):
        factors[t] = 0.6 * factors[t - 1] + rng.normal(size=2)
    values = factors @ rng.normal(size=(2, 5)) + 0.7 * rng.normal(size=(NUM_TIMES, 5))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[np.arange(NUM_TIMES) % 3 != 2, 4] = np.nan
    index = pd.date_range("2020-01-31", periods=NUM_TIMES, freq="ME")
    return pd.DataFrame(10.0 + 3.0 * values, index=index, columns=NAMES)


def panel_of(frame, kind="stock"):
    return Panel.from_frame(frame, kinds={"q": kind}, frequency="M")


def draw_vintages(kind="stock"):
    """Old and new: five releases (a quarterly one among them) and three revisions."""
    frame = draw_frame()
    new, old = frame.copy(), frame.copy()
    new.iloc[-1, [1, 3]] = np.nan
    new.iloc[-1, [0, 2]] = 9.0, 14.0
    new.iloc[-2, 1:4] = 8.0, 11.0, 10.5
    new.iloc[-1, 4] = 12.5
    old.iloc[-1] = np.nan
    old.iloc[-2, 1:3] = np.nan
    old.iloc[-2, 3] = 10.5
    old.iloc[[-8, -6, -5], 0] = new.iloc[[-8, -6, -5], 0] = 10.0, 9.0, 11.0
    old.iloc[[-8, -6, -5], 0] += [0.5, -1.5, 0.1]
    return panel_of(old, kind), panel_of(new, kind)


@pytest.fixture(scope="module")
def vintages():
    return draw_vintages()


def fit(panel, num_lags=1, **options):
    model = DynamicFactorModel(2, num_lags, method=EM(max_steps=4), **options)
    return model.fit(panel, throw=False)


@pytest.fixture(scope="module")
def fitted(vintages):
    return fit(vintages[0])


CASES = {
    "one lag": ("stock", 1, {}, "d"),
    "two lags": ("stock", 2, {"initial": "estimated"}, "d"),
    "flows, errors with memory": ("flow_sum", 1, {"errors": AutoregressiveErrors()}, "q"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_number_is_that_of_the_dense_law(name):
    kind, num_lags, options, target = CASES[name]
    old, new = draw_vintages(kind)
    fitted = fit(old, num_lags, **options)
    result = news(fitted, old, new, target=target, period="2022-03-10")
    old, new = result.old, result.new
    assert new.num_times == NUM_TIMES + 3 and result.row == NUM_TIMES + 2
    law, shape = dense_law(fitted, new), new.values.shape
    both, released = old.observed & new.observed, new.observed & ~old.observed
    revised = np.where(both, new.values, old.values)
    cell = result.row * shape[1] + NAMES.index(target)
    before, _ = dense_moments(law, revised, old.observed)
    old_mean = dense_moments(law, old.values, old.observed)[0].ravel()[cell]
    new_mean = dense_moments(law, new.values, new.observed)[0].ravel()[cell]
    np.testing.assert_allclose(result.old_nowcast, old_mean, rtol=1e-11)
    np.testing.assert_allclose(result.new_nowcast, new_mean, rtol=1e-11)
    arrays = result.arrays
    weights = dense_gain(law, new.observed)[cell].reshape(shape)
    np.testing.assert_allclose(arrays.weights, weights, atol=1e-11)
    old_weights = dense_gain(law, old.observed)[cell].reshape(shape)
    np.testing.assert_allclose(arrays.old_weights, old_weights, atol=1e-11)
    surprise = np.where(released, new.values - before, 0.0)
    np.testing.assert_allclose(arrays.news, surprise, atol=1e-10)
    np.testing.assert_allclose(arrays.news_impacts, weights * surprise, atol=1e-10)
    revisions = np.where(both, new.values - old.values, 0.0)
    np.testing.assert_allclose(arrays.revision_impacts, old_weights * revisions, atol=1e-10)
    assert np.count_nonzero(arrays.news) == 5 and np.count_nonzero(revisions) == 3


def direct_nowcast(fitted, panel, row, weights):
    return float(np.asarray(expected_panel(fitted, *panel.arrays()))[row] @ weights)


def test_it_adds_up_to_two_nowcasts_computed_apart(fitted, vintages):
    old, new = vintages
    refitted = fit(new)
    target = {"a": 0.25, "d": -2.0}
    result = news(fitted, old, new, target=target, period="2021-12-31", refitted=refitted)
    weights = np.array([0.25, 0.0, 0.0, -2.0, 0.0])
    before = direct_nowcast(fitted, result.old, result.row, weights)
    after = direct_nowcast(refitted, result.new, result.row, weights)
    table = result.to_frame()
    assert abs(result.reestimation_impact) > 1e-3
    np.testing.assert_allclose(result.old_nowcast, before, rtol=1e-13)
    np.testing.assert_allclose(result.new_nowcast, after, rtol=1e-13)
    np.testing.assert_allclose(table["impact"].sum(), after - before, atol=1e-12)
    summary = result.summary()
    np.testing.assert_allclose(summary.iloc[:-1].sum(), summary.iloc[-1], rtol=1e-13)
    assert f"{result.new_nowcast:.4g}" in repr(result)


def test_tables_name_what_happened_and_keep_the_sums(fitted, vintages):
    result = news(fitted, *vintages, target="q", period="2022-03-31")
    table = result.to_frame()
    kinds = table["kind"].value_counts()
    assert kinds["news"] == 5 and kinds["revision"] == 3 and "removal" not in kinds
    quarterly = table[(table["series"] == "q") & (table["kind"] == "news")].iloc[0]
    assert quarterly["period"] == pd.Timestamp("2021-12-31") and quarterly["observed"] == 12.5
    np.testing.assert_allclose(table["observed"] - table["forecast"], table["news"], atol=1e-12)
    np.testing.assert_allclose(table["weight"] * table["news"], table["impact"], atol=1e-12)
    change = result.new_nowcast - result.old_nowcast
    by_series, by_group = result.by_series(), result.by_group(GROUPS)
    assert list(by_group.index) == ["real", "prices", "output"]
    np.testing.assert_allclose(by_series["total"].sum(), change, atol=1e-12)
    np.testing.assert_allclose(by_group["total"].sum(), change, atol=1e-12)
    np.testing.assert_allclose(
        by_group.loc["real", "news"], by_series.loc[["a", "b"], "news"].sum(), atol=1e-13
    )
    with pytest.raises(ValueError, match="'q' have no group"):
        result.by_group({name: "x" for name in "abcd"})


def test_news_by_release_date(fitted, vintages):
    result = news(fitted, *vintages, target="a", period="2022-01-31")
    delays = {"a": "10D", "b": "40D", "c": "10D", "d": "40D", "q": "30D"}
    panel = Panel.from_frame(draw_frame(), kinds={"q": "stock"}, delays=delays, frequency="M")
    by_date = result.by_release_date(ReleaseCalendar.from_delays(panel))
    assert by_date["num_releases"].sum() == 5
    np.testing.assert_allclose(by_date["impact"].sum(), result.totals()["news"], atol=1e-12)
    cells = result.to_frame().iloc[:5].set_index(["series", "period"])["impact"]
    first = cells["c", "2021-11-30"]
    assert by_date.index[0] == pd.Timestamp("2021-12-10")
    np.testing.assert_allclose(by_date["impact"].iloc[0], first)
    store = pseudo_vintages(panel, ["2021-12-01", "2022-03-01"])
    late = ReleaseCalendar.from_vintages(store)
    with pytest.raises(ValueError, match="no release of series 'x'"):
        late.dates_of(["x"], pd.DatetimeIndex(["2021-12-31"]))


def test_a_value_that_vanishes_is_refused_or_an_impact_of_its_own(fitted, vintages):
    old, new = vintages
    observed = new.observed.copy()
    observed[[-4, -3], [2, 1]] = False
    short = dataclasses.replace(new, observed=observed)
    with pytest.raises(ValueError, match="not in the new one \\('c' 2021-09-30, 'b' 2021-10-31"):
        news(fitted, old, short, target="d", period="2021-12-31")
    result = news(fitted, old, short, target="d", period="2021-12-31", removed="revise")
    weights = np.eye(5)[3]
    before = direct_nowcast(fitted, old, result.row, weights)
    after = direct_nowcast(fitted, short, result.row, weights)
    np.testing.assert_allclose(result.old_nowcast, before, rtol=1e-13)
    np.testing.assert_allclose(result.to_frame()["impact"].sum(), after - before, atol=1e-12)
    # Losing values without news or revisions is the news of them, undone.
    masked = dataclasses.replace(old, observed=old.observed & observed)
    loss = news(fitted, old, masked, target="d", period="2021-12-31", removed="revise")
    gain = news(fitted, masked, old, target="d", period="2021-12-31")
    np.testing.assert_allclose(
        loss.by_series()["removal"], -gain.by_series()["news"], rtol=1e-9, atol=1e-13
    )


def test_a_target_that_is_released_takes_its_value(fitted, vintages):
    result = news(fitted, *vintages, target="a", period="2021-12-31")
    assert result.new_nowcast == 9.0
    table = result.to_frame().query("kind == 'news' and weight != 0")
    assert list(table["series"]) == ["a"] and table["weight"].iloc[0] == 1.0


def test_nothing_unobserved_has_a_weight(fitted, vintages):
    result = news(fitted, *vintages, target="d", period="2021-12-31")
    assert np.all(np.asarray(result.arrays.weights)[~result.new.observed] == 0.0)
    assert np.all(np.asarray(result.arrays.old_weights)[~result.old.observed] == 0.0)
    assert np.count_nonzero(result.arrays.weights) == result.new.observed.sum()


def test_a_batch_is_the_loop_and_one_program(fitted):
    panel = Panel.from_frame(draw_frame(), kinds={"q": "stock"}, delays="20D", frequency="M")
    dates = pd.date_range("2021-06-25", periods=6, freq="31D")
    store = pseudo_vintages(panel, dates)
    values, observed = store.arrays()
    rows = jnp.array([17, 18, 19, 20, 21])
    traces = []

    @eqx.filter_jit
    def batch(values, observed, rows):
        traces.append(1)
        old, new = (values[:-1], observed[:-1]), (values[1:], observed[1:])
        return news_batch(fitted, old, new, rows, jnp.eye(5)[3], batch_size=2)

    one = eqx.filter_jit(news_arrays)
    result = batch(values, observed, rows)
    batch(values, observed, rows + 1)
    assert len(traces) == 1
    pairs = (values[:-1], observed[:-1]), (values[1:], observed[1:])
    kept = news_batch(
        fitted, *pairs, rows, jnp.eye(5)[3], summary=lambda arrays: arrays.news_impacts.sum(axis=0)
    )
    np.testing.assert_allclose(kept, result.news_impacts.sum(axis=1), atol=1e-12)
    for i, (old, new) in enumerate(store.pairs()):
        alone = one(fitted, *old.arrays(), *new.arrays(), rows[i], jnp.eye(5)[3])
        for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[i], theirs, atol=1e-11)
        total = float(jnp.sum(result.news_impacts[i] + result.revision_impacts[i]))
        change = float(result.new_nowcast[i] - result.old_nowcast[i])
        np.testing.assert_allclose(total, change, atol=1e-12)
        assert np.count_nonzero(result.news[i]) == new.observed.sum() - old.observed.sum()


@pytest.mark.parametrize("num_lags", [1, 2])
def test_statsmodels_finds_the_same(num_lags):
    model, read = statsmodels_case(num_lags, True)
    rng = np.random.default_rng(0)
    numbers = model.start_params
    theirs_params = read(numbers)
    centre, scale = np.asarray(model._endog_mean), np.asarray(model._endog_std)
    ours = dataclasses.replace(
        fit_any(num_lags),
        parameters=factor_parameters(theirs_params),
        scaling=Scaling(jnp.asarray(centre), jnp.asarray(scale)),
    )
    frame = pd.DataFrame(model.data.orig_endog)
    new, old = frame.copy(), frame.copy()
    new.iloc[-1, 4:] = np.nan
    old.iloc[-1] = np.nan
    old.iloc[-2, ::3] = np.nan
    revised = old.iloc[-9:-3, :4].notna().to_numpy()
    old.iloc[-9:-3, :4] += np.where(revised, rng.normal(size=(6, 4)), 0.0)
    results = model.smooth(numbers)
    before, after = (results.apply(table, retain_standardization=True) for table in (old, new))
    theirs = after.news(
        before,
        impact_date="2003-06",
        impacted_variable="h",
        comparison_type="previous",
        revisions_details_start=True,
    )
    panels = [Panel.from_frame(table, frequency="M") for table in (old, new)]
    result = news(ours, *panels, target="h", period="2003-06-30")
    table = result.to_frame()
    table["period"] = pd.PeriodIndex(table["period"], freq="M")
    releases = table[table["kind"] == "news"].set_index(["period", "series"])
    details = theirs.details_by_impact.reset_index()
    details = details.set_index(["update date", "updated variable"])
    assert len(details) == len(releases) == 4
    for column, their_column in (
        ("observed", "observed"),
        ("forecast", "forecast (prev)"),
        ("news", "news"),
        ("weight", "weight"),
        ("impact", "impact"),
    ):
        expected = details[their_column].reindex(releases.index).to_numpy(float)
        np.testing.assert_allclose(releases[column], expected, rtol=1e-8, atol=1e-9)
    revisions = table[table["kind"] == "revision"].set_index(["period", "series"])
    expected = theirs.revision_details_by_impact.reset_index()
    expected = expected.set_index(["revision date", "revised variable"])["impact"]
    assert len(expected) == len(revisions) == revised.sum()
    np.testing.assert_allclose(
        revisions["impact"], expected.reindex(revisions.index).to_numpy(float), atol=1e-9
    )
    total = float(theirs.total_impacts["h"].iloc[0])
    np.testing.assert_allclose(result.new_nowcast - result.old_nowcast, total, atol=1e-9)
    np.testing.assert_allclose(
        result.totals()["revision"], float(theirs.revision_impacts["h"].iloc[0]), atol=1e-9
    )


def fit_any(num_lags):
    """A fitted model of eight series, whose parameters are put in place later."""
    rng = np.random.default_rng(1)
    values = jnp.asarray(rng.normal(size=(20, 8)))
    model = DynamicFactorModel(2, num_lags, method=EM(max_steps=1))
    return model.estimate(values, jnp.ones(values.shape, bool))


def test_refusals(fitted, vintages):
    old, new = vintages
    for options, message in (
        ({"target": "z"}, "the target names series 'z'"),
        ({"target": {}}, "target has no series"),
        ({"period": "2019-12-31"}, "not, or not completely, in the calendar"),
        ({"removed": "ignore"}, "removed must be"),
        ({"target": {"a": 1.0, "q": 1.0}, "period": "2021-11-30"}, "end in different rows"),
    ):
        with pytest.raises(ValueError, match=message):
            news(fitted, old, new, **{"target": "a", "period": "2021-12-31", **options})
    fewer = [panel.select(NAMES[:4]) for panel in vintages]
    with pytest.raises(ValueError, match="the model was fitted to 5"):
        news(fitted, *fewer, target="a", period="2021-12-31")
    full = dataclasses.replace(
        fitted, model=DynamicFactorModel(2, 1, idiosyncratic="full", variance_floor=1e-2)
    )
    with pytest.raises(ValueError, match="correlated errors"):
        news(full, old, new, target="a", period="2021-12-31")


def test_a_batch_lowers_for_cuda(fitted, vintages):
    old, new = (tuple(array[None] for array in panel.arrays()) for panel in vintages)

    def program(old, new, row):
        return news_batch(fitted, old, new, row, jnp.eye(5)[3])

    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (old, new, jnp.zeros(1, int))
    )
    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(*given)
    assert exported.platforms == ("cuda",)


def test_no_change_is_no_news(fitted, vintages):
    old, _ = vintages
    result = news(fitted, old, old, target="d", period="2021-12-31")
    assert result.old_nowcast == result.new_nowcast and not len(result.to_frame())
    assert list(result.to_frame().columns[:3]) == ["kind", "period", "series"]


def test_a_store_and_its_pairs_give_the_same_news(fitted, vintages):
    old, new = vintages
    store = VintageStore.from_frames({"2022-01-20": new, "2021-12-20": old})
    (pair,) = store.pairs()
    alone = news(fitted, old, new, target="d", period="2021-12-31")
    stored = news(fitted, *pair, target="d", period="2021-12-31")
    assert alone.new_nowcast == stored.new_nowcast
    pd.testing.assert_frame_equal(alone.to_frame(), stored.to_frame())
