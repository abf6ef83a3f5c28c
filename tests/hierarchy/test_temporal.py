"""Temporal hierarchies: structure, calendars, covariances by order, published and exact numbers."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from hierarchy.structures import dense_gls, dense_summing
from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import WLS, MinT, reconcile, reconcile_means
from jaxfc.hierarchy.calendar_cycles import calendar_cycles, check_dates
from jaxfc.hierarchy.method import Sample, Step
from jaxfc.hierarchy.temporal import check_how, split_orders, stack_orders, temporal_hierarchy
from jaxfc.hierarchy.temporal_cov import KINDS, TemporalGLS

QUARTERS = {"year": 4, "half": 2, "quarter": 1}
DAYS = pd.bdate_range("2019-01-01", "2021-12-31").drop(pd.to_datetime(["2020-01-01", "2021-05-31"]))


def step_of(hierarchy, residuals):
    errors = jnp.asarray(residuals)
    sample = Sample(errors, None)
    mean = jnp.zeros(len(hierarchy.names))
    return Step(hierarchy.summing, mean, None, sample, None, None, hierarchy.labels)


@pytest.fixture(scope="module")
def quarters():
    return temporal_hierarchy(QUARTERS)


@pytest.fixture(scope="module")
def residuals():
    """40 years of errors with memory at each order, some missing; (cycles, 7 nodes)."""
    rng = np.random.default_rng(3)
    errors = rng.normal(size=(40, 7)) * [3.0, 2.0, 1.5, 1.0, 0.8, 1.2, 0.9]
    errors[:, 4] += 0.6 * errors[:, 3]
    errors[:, 5] += 0.5 * errors[:, 4]
    errors[rng.random(errors.shape) < 0.1] = np.nan
    return errors


def test_structure_of_quarters(quarters):
    expected = np.vstack([np.ones((1, 4)), np.kron(np.eye(2), np.ones((1, 2))), np.eye(4)])
    np.testing.assert_array_equal(dense_summing(quarters), expected)
    assert quarters.names[:4] == ("year 1", "half 1", "half 2", "quarter 1")
    assert quarters.labels.level_names == ("year", "half", "quarter")
    assert quarters.is_tree
    assert temporal_hierarchy(dict(reversed(QUARTERS.items()))).names == quarters.names


@pytest.mark.parametrize("how", ["sum", "mean", "last"])
def test_twelve_months_with_all_divisors(how):
    """Orders 4 and 6 are not nested; rows are I (x) 1', its mean, or its last column."""
    row = {
        "sum": lambda k: np.ones((1, k)),
        "mean": lambda k: np.full((1, k), 1 / k),
        "last": lambda k: np.eye(k)[-1:],
    }[how]
    blocks = [np.kron(np.eye(12 // k), row(k)) for k in (12, 6, 4, 3, 2, 1)]
    hierarchy = temporal_hierarchy(12, how=how)
    np.testing.assert_allclose(dense_summing(hierarchy), np.vstack(blocks), rtol=1e-15)
    assert not hierarchy.is_tree
    assert hierarchy.summing.groups.shape == (5, 12)


def test_orders_are_stacked_by_cycle_and_back(quarters):
    values = {
        "quarter": jnp.arange(16.0).reshape(2, 8),
        "year": 100 + jnp.arange(4.0).reshape(2, 2),
        "half": 50 + jnp.arange(8.0).reshape(2, 4),
    }
    nodes = stack_orders(quarters, values)
    assert nodes.shape == (2, 2, 7)
    np.testing.assert_array_equal(nodes[0, 1], [101, 52, 53, 4, 5, 6, 7])
    back = split_orders(quarters, nodes)
    for level, series in values.items():
        np.testing.assert_array_equal(back[level], series)


def test_published_reconciliation_by_order_variances(quarters):
    """FoReco terec, wlsv, m = 4, unconstrained; mean squares by order given."""
    base = [[19.439524, 9.769823, 11.558708, 5.070508, 5.129288, 6.715065, 5.460916]]
    expected = [20.341048, 9.244660, 11.096388, 4.592940, 4.651720, 6.175268, 4.921120]
    order = np.array([0.782134504, 0.874026113, 0.865489263])
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    series = {
        level: jnp.asarray(np.sqrt(v) * signs) for level, v in zip(QUARTERS, order, strict=True)
    }
    method = TemporalGLS("order_variance", series=series)
    found = reconcile_means(jnp.asarray(base), quarters, method)
    np.testing.assert_allclose(found[0], expected, atol=6e-7)
    # The same from stacked residuals, and with variances handed over.
    stacked = np.sqrt(np.repeat(order, [1, 2, 4])) * np.resize([[1.0], [-1.0]], (6, 1))
    again = reconcile_means(jnp.asarray(base), quarters, TemporalGLS(), residuals=stacked)
    np.testing.assert_allclose(again, found, rtol=1e-13)


def test_exact_structural_reconciliation(quarters):
    base = jnp.array([[20.0, 9, 12, 4, 6, 5, 6]])
    expected = [62 / 3, 28 / 3, 34 / 3, 11 / 3, 17 / 3, 31 / 6, 37 / 6]
    found = reconcile_means(base, quarters, WLS())
    np.testing.assert_allclose(found[0], expected, rtol=1e-14)


def by_loops(kind, hierarchy, errors):
    """W from loops over orders, positions and cycles."""
    order = np.array([0, 1, 1, 2, 2, 2, 2])
    squares = dense_summing(hierarchy).sum(axis=1)
    cov = np.zeros((7, 7))
    for k in range(3):
        nodes = np.flatnonzero(order == k)
        series = errors[:, nodes].ravel()
        seen = series[~np.isnan(series)]
        centre = seen.mean()
        pairs = [
            (a - centre) * (b - centre)
            for a, b in itertools.pairwise(series)
            if not (np.isnan(a) or np.isnan(b))
        ]
        spread = np.sum((seen - centre) ** 2) / (len(seen) - 1)
        rho = np.mean(pairs) / spread
        for i in nodes:
            for j in nodes:
                own = [np.nanmean(errors[:, n] ** 2) for n in (i, j)]
                scale = {
                    "structural_ar1": [squares[i], squares[j]],
                    "order_ar1": [np.mean(seen**2)] * 2,
                    "position_ar1": own,
                }
                if kind in scale:
                    cov[i, j] = np.sqrt(np.prod(scale[kind])) * rho ** abs(i - j)
                elif kind == "order_variance":
                    cov[i, j] = np.mean(seen**2) if i == j else 0.0
                else:
                    both = ~np.isnan(errors[:, i]) & ~np.isnan(errors[:, j])
                    counts = [np.sum(~np.isnan(errors[:, n])) for n in (i, j)]
                    cov[i, j] = np.sum((errors[:, i] * errors[:, j])[both])
                    cov[i, j] /= np.sqrt(np.prod(counts))
    return cov


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_by_order_against_loops(kind, quarters, residuals):
    expected = by_loops(kind, quarters, residuals)
    found = TemporalGLS(kind).error_cov(step_of(quarters, residuals)).dense()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert np.linalg.eigvalsh(expected).min() > 0
    base = np.random.default_rng(0).normal(size=(2, 7))
    moved = reconcile_means(jnp.asarray(base), quarters, TemporalGLS(kind), residuals=residuals)
    oracle = base @ dense_gls(dense_summing(quarters), expected).T
    np.testing.assert_allclose(moved, oracle, rtol=1e-11, atol=1e-13)


def test_series_by_order_are_the_stacked_residuals(quarters, residuals):
    """Pairs across the end of a cycle count too, so that both give the same numbers."""
    series = split_orders(quarters, jnp.asarray(residuals))
    step = step_of(quarters, residuals)
    for centred in (False, True):
        for kind in ("order_variance", "structural_ar1", "order_ar1"):
            one = TemporalGLS(kind, series=series, centred=centred).error_cov(step)
            other = TemporalGLS(kind, centred=centred).error_cov(step)
            np.testing.assert_allclose(one.dense(), other.dense(), rtol=1e-12)


def test_centred_variances_divide_by_one_less(quarters, residuals):
    found = TemporalGLS("order_variance", centred=True).error_cov(step_of(quarters, residuals))
    halves = residuals[:, 1:3]
    np.testing.assert_allclose(found.diagonal()[1], np.nanvar(halves, ddof=1), rtol=1e-12)


def test_several_cycles_and_their_law(quarters, residuals):
    """Two years at once: the law is mapped year by year, also across years."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(14, 14))
    forecast = GaussianForecast(
        jnp.asarray(rng.normal(size=(2, 7))), jnp.asarray((root @ root.T).reshape(2, 7, 2, 7))
    )
    found = reconcile(forecast, quarters, TemporalGLS("order_ar1"), residuals=residuals)
    one = dense_gls(dense_summing(quarters), by_loops("order_ar1", quarters, residuals))
    whole = np.kron(np.eye(2), one)
    expected = (whole @ root @ root.T @ whole.T).reshape(2, 7, 2, 7)
    np.testing.assert_allclose(found.cov, expected, rtol=1e-9, atol=1e-11)


def test_hidden_residuals_do_not_matter_and_gradients_are_finite(quarters, residuals):
    """Derivatives by residuals: zero at hidden cells, finite differences elsewhere."""
    base = jnp.arange(7.0)
    hidden = np.isnan(residuals)
    known = jnp.asarray(~hidden)

    @jax.jit
    def first(errors):
        sample = Sample(jnp.where(known, errors, jnp.nan), None)
        total = 0.0
        for weight, kind in enumerate(KINDS, start=1):
            labels, summing = quarters.labels, quarters.summing
            step = Step(summing, base, None, sample, None, None, labels)
            total = total + weight * TemporalGLS(kind).mapping(step).apply(base)[3]
        return total

    filled = jnp.where(known, jnp.asarray(residuals), 1e6)
    np.testing.assert_allclose(first(filled), first(jnp.asarray(residuals)), rtol=1e-13)
    slope = np.asarray(jax.jit(jax.grad(first))(filled))
    assert np.all(slope[hidden] == 0.0) and np.all(slope[~hidden] != 0.0)
    direction = np.random.default_rng(1).normal(size=filled.shape) * ~hidden
    ahead, behind = first(filled + 1e-5 * direction), first(filled - 1e-5 * direction)
    np.testing.assert_allclose(np.sum(slope * direction), (ahead - behind) / 2e-5, rtol=1e-6)
    exported = jax.export.export(jax.jit(first), platforms=["cuda"])(filled)
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale, quarters, residuals):
    base = jnp.asarray(np.random.default_rng(2).normal(size=(1, 7)))
    for kind in ("order_blocks", "position_ar1"):
        one = reconcile_means(base, quarters, TemporalGLS(kind), residuals=residuals)
        other = reconcile_means(
            scale * base, quarters, TemporalGLS(kind), residuals=scale * residuals
        )
        np.testing.assert_allclose(other, scale * one, rtol=1e-11)


# Calendars: what pandas says of every day, against the weights of the hierarchy.


def expected_weights(cycles, dates, labels, how):
    """Weights of every cycle from the labels of days, {level: label of each day}, by loops."""
    nodes = cycles.hierarchy.labels
    split = nodes.num_aggregates
    found = np.zeros((len(cycles.cycles), split, nodes.num_bottom))
    ends = cycles.ends.astype("datetime64[D]").astype(str)
    position = {day: place for place, day in np.ndenumerate(ends[:, split:])}
    for level, of_day in labels.items():
        for _, days in pd.Series(dates.astype(str)).groupby(np.asarray(of_day)):
            last = days.iloc[-1]
            cycle = position[last][0]
            row = [i for i in nodes.at_level(level) if ends[cycle, i] == last]
            for day in days if row else ():
                value = {"sum": 1.0, "mean": 1 / len(days), "last": day == last}[how]
                found[cycle, row[0], position[day][1]] = value
    return found


@pytest.mark.parametrize(
    ("weeks", "how"), [("split", "sum"), ("whole", "mean"), ("cross", "last"), ("cross", "sum")]
)
def test_months_and_weeks_of_trading_days(weeks, how):
    frequencies = ("Q", "M", "W")
    dates = DAYS[DAYS >= "2019-01-01"]
    if weeks == "whole":
        dates = pd.bdate_range("2018-12-31", "2021-12-31").drop("2020-01-01")
    cycles = calendar_cycles(dates, frequencies, weeks=weeks, how=how)
    assert cycles.hierarchy.num_steps == 12
    week = (dates + pd.to_timedelta((4 - dates.day_of_week) % 7, "D")).to_numpy()
    anchor = pd.DatetimeIndex(week) if weeks == "whole" else dates
    months, quarters = anchor.to_period("M").astype(str), anchor.to_period("Q").astype(str)
    if weeks == "split":
        week = [f"{month} {end}" for month, end in zip(months, week, strict=True)]
    labels = {"quarter": quarters, "month": months, "week": week}
    if weeks == "cross":  # no nodes for weeks of two quarters
        first = pd.DatetimeIndex(week) - pd.Timedelta(days=4)
        inside = first.to_period("Q") == pd.DatetimeIndex(week).to_period("Q")
        labels["week"] = np.where(inside, week.astype("int64"), -1)
    summing = cycles.hierarchy.summing
    split = summing.num_aggregates
    expected = expected_weights(cycles, dates, labels, how)
    if weeks == "cross":
        outside = dates[~inside]
        assert len(outside) > 0
        assert not np.isin(cycles.periods("week"), outside).any()
    for cycle in range(12):
        found = cycles.hierarchy.step(cycle).summing.matrix()
        np.testing.assert_allclose(found, expected[cycle], rtol=1e-15)
    assert cycles.present[:, split:].sum() == len(dates)
    assert np.all(cycles.present[:, :split].sum(axis=1) >= 14)
    sizes = pd.Series(1, index=dates).groupby(np.asarray(months)).sum()
    assert set(sizes) <= ({19, 20, 24, 25} if weeks == "whole" else set(range(19, 24)))


def test_days_of_months_without_weeks_are_counted():
    cycles = calendar_cycles(DAYS, ("M",))
    assert cycles.hierarchy.names == ("month 1", *(f"day {i}" for i in range(1, 24)))
    assert cycles.hierarchy.is_tree
    counts = pd.Series(1, index=DAYS).groupby(DAYS.to_period("M")).sum()
    np.testing.assert_array_equal(cycles.present.sum(axis=1) - 1, counts)
    assert [str(day)[:10] for day in cycles.ends[16, [0, 1, -1]]] == [
        "2020-05-29",
        "2020-05-01",
        "NaT",
    ]


def test_equal_cycles_have_one_set_of_weights():
    weeks = calendar_cycles(pd.bdate_range("2019-12-30", "2020-03-27"), ("W",))
    assert weeks.hierarchy.num_steps is None and len(weeks.cycles) == 13
    assert weeks.hierarchy.bottom[1] == "day 1-TUE"


def test_series_of_a_calendar_are_stacked_and_back():
    cycles = calendar_cycles(DAYS, ("M", "W"))
    daily = pd.Series(np.random.default_rng(0).normal(size=len(DAYS)), DAYS)
    levels = cycles.aggregate(daily)
    monthly = daily.groupby(DAYS.to_period("M")).sum()
    np.testing.assert_allclose(levels["month"], monthly, rtol=1e-12)
    week = DAYS.to_period("W-FRI").astype(str) + DAYS.to_period("M").astype(str)
    weekly = daily.groupby(np.asarray(week)).sum()
    assert len(levels["week"]) == len(weekly)
    np.testing.assert_allclose(np.sort(levels["week"]), np.sort(weekly), rtol=1e-10)
    stacked = cycles.stack(levels, absent=0.0)
    assert np.abs(cycles.hierarchy.incoherence(jnp.asarray(stacked))).max() < 1e-12
    for level, series in cycles.unstack(stacked).items():
        pd.testing.assert_series_equal(series, levels[level], check_names=False)
    levels["week"] = levels["week"].iloc[1:]
    assert np.isnan(cycles.stack(levels, absent=0.0)).sum() == 1
    some = cycles.rows(3, 5)
    assert some.hierarchy.num_steps == 2 and len(some.periods("day")) == 22 + 23


@pytest.mark.parametrize("kind", [*KINDS, "structural", "variance", "shrink"])
def test_unequal_months_in_one_batch_are_months_by_themselves(kind):
    """The padded batch equals dense GLS of the nodes that each month has."""
    cycles = calendar_cycles(DAYS, ("M", "W"))
    rng = np.random.default_rng(4)
    present = cycles.present
    errors = np.where(present, rng.normal(size=present.shape), np.nan)
    method = {"structural": WLS(), "variance": WLS("variance"), "shrink": MinT("shrink")}.get(
        kind, None
    ) or TemporalGLS(kind)
    some = cycles.rows(14, 18)
    base = np.where(some.present, rng.normal(size=some.present.shape), 0.0)
    found = np.asarray(
        reconcile_means(jnp.asarray(base), some.hierarchy, some.method(method), residuals=errors)
    )
    assert np.all(found[~some.present] == 0.0)
    for cycle, there in enumerate(some.present):
        one = some.hierarchy.step(cycle)
        cov = np.asarray(method.error_cov(step_of(one, errors)).dense())
        upper = there[: len(one.aggregates)]
        summing = dense_summing(one)[there][:, there[len(one.aggregates) :]]
        assert summing.shape[0] - summing.shape[1] == upper.sum()
        oracle = dense_gls(summing, cov[np.ix_(there, there)]) @ base[cycle][there]
        np.testing.assert_allclose(found[cycle][there], oracle, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: temporal_hierarchy({"month": 22, "week": 5, "day": 1}), "'week'.*calendar_cycles"),
        (lambda: temporal_hierarchy({"year": 4, "half": 2}), "one level must be the base"),
        (lambda: temporal_hierarchy(1), "at least two base periods"),
        (lambda: check_how("product", "flow"), "how is one of"),
        (lambda: temporal_hierarchy(4, quantity="simple_return"), "compound over time"),
        (lambda: temporal_hierarchy(4, quantity="level"), "use how='last'"),
        (lambda: calendar_cycles(DAYS, quantity="simple_return"), "compound over time"),
        (lambda: calendar_cycles(DAYS, ("W", "M")), "from the cycle down"),
        (lambda: check_dates(DAYS, ["M"], "half"), "'split', 'whole' or 'cross'"),
        (lambda: calendar_cycles(DAYS[::-1]), "sorted and unique"),
        (lambda: calendar_cycles(DAYS[40:], ("Q",)), "cut a cycle .Q. at 2019-02-26"),
        (lambda: calendar_cycles(DAYS[1:], weeks="whole"), "cut a week at 2019-01-02, 2 weekdays"),
        (lambda: TemporalGLS("wlsv"), "TemporalGLS takes one of"),
        (lambda: TemporalGLS("order_blocks", series={}), "by position in the cycle"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_values_are_refused(quarters):
    with pytest.raises(ValueError, match="levels are 'year', 'half', 'quarter'"):
        stack_orders(quarters, {"year": jnp.zeros(2)})
    values = {"year": jnp.zeros(2), "half": jnp.zeros(4), "quarter": jnp.zeros(7)}
    with pytest.raises(ValueError, match="whole number of cycles"):
        stack_orders(quarters, values)
    method = TemporalGLS(series={"year": jnp.ones(3)})
    with pytest.raises(ValueError, match="no errors of 'half', 'quarter'"):
        reconcile_means(jnp.zeros((1, 7)), quarters, method)
    with pytest.raises(ValueError, match=r"TemporalGLS.*give residuals"):
        reconcile_means(jnp.zeros((1, 7)), quarters, TemporalGLS())
    month = calendar_cycles(DAYS, ("M", "W")).rows(25, 26)  # 4 weeks
    errors = np.ones((3, month.ends.shape[1]))
    for how in (TemporalGLS("order_ar1"), TemporalGLS("order_blocks")):
        with pytest.raises(ValueError, match="some cycles lack periods"):
            reconcile_means(jnp.asarray(errors[:1]), month.hierarchy, how, residuals=errors)
    cycles = calendar_cycles(DAYS, ("M",))
    values = {"month": pd.Series(1.0, cycles.cycles[:0]), "day": pd.Series(1.0, DAYS)}
    with pytest.raises(ValueError, match="'month' has none of its dates '2019-01-31'"):
        cycles.stack(values)
