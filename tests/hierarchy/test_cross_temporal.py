"""Cross-temporal hierarchies against dense algebra, one direction at a time, and profits."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from hierarchy.structures import dense_gls, dense_summing, h7
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.hierarchy import OLS, WLS, BottomUp, Hierarchy, MinT, reconcile, reconcile_means
from jaxfc.hierarchy.alternating import Alternating, alternate
from jaxfc.hierarchy.cross_temporal import cross_temporal, split_pairs, stack_pairs
from jaxfc.hierarchy.direction_maps import step_of
from jaxfc.hierarchy.profits import (
    profits,
    profits_of,
    returns_from_profits,
    returns_of,
    second_order_gap,
)
from jaxfc.hierarchy.proportions import TopDown
from jaxfc.hierarchy.quantities import QUANTITIES, check_additive
from jaxfc.hierarchy.temporal import temporal_hierarchy
from jaxfc.hierarchy.temporal_cov import TemporalGLS
from jaxfc.hierarchy.two_directions import Separable, TwoStep
from jaxfc.results import RESULTS, SUCCESSFUL

pytestmark = pytest.mark.slow

WEIGHTS = np.array([0.4, 0.1, 0.3, -0.2])


@pytest.fixture(scope="module")
def across():
    """Total, two groups, four series with weights."""
    return h7().with_weights(WEIGHTS)


@pytest.fixture(scope="module")
def over_time():
    return temporal_hierarchy({"year": 4, "half": 2, "quarter": 1})


@pytest.fixture(scope="module")
def pairs(across, over_time):
    return cross_temporal(across, over_time, quantity="profit")


@pytest.fixture(scope="module")
def tables():
    """Errors of 60 cycles as tables (cycles, 7 series, 7 periods), some missing."""
    rng = np.random.default_rng(6)
    size = np.exp(rng.normal(scale=0.5, size=(7, 7)))
    errors = rng.normal(size=(60, 7, 7)) * size + 0.5 * rng.normal(size=(60, 1, 1))
    errors[rng.random(errors.shape) < 0.05] = np.nan
    return errors


@pytest.fixture(scope="module")
def residuals(across, over_time, tables):
    return np.asarray(stack_pairs(across, over_time, jnp.asarray(tables)))


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(7).normal(size=(2, 7, 7))


def reconciled(base, across, over_time, method, residuals=None):
    """Tables reconciled by the ordinary entry point."""
    pairs = cross_temporal(across, over_time, quantity="profit")
    nodes = stack_pairs(across, over_time, jnp.asarray(base))
    found = reconcile_means(nodes, pairs, method, residuals=residuals)
    return np.asarray(split_pairs(across, over_time, found))


def optimal(base, across, over_time, cov):
    """Dense GLS on vec of the tables, series by series, with S = S_cs (x) S_te."""
    summing = np.kron(dense_summing(across), dense_summing(over_time))
    moved = base.reshape(len(base), -1) @ dense_gls(summing, cov).T
    return moved.reshape(base.shape)


def test_pairs_are_the_product_of_both(across, over_time, pairs, base):
    summing = np.kron(dense_summing(across), dense_summing(over_time))
    rows = np.asarray(stack_pairs(across, over_time, jnp.asarray(summing.T.reshape(16, 7, 7)))).T
    np.testing.assert_allclose(dense_summing(pairs), rows, atol=1e-15)
    assert pairs.names[0] == "total @ year 1" and pairs.bottom[0] == "AA @ quarter 1"
    assert pairs.labels.levels[8] == "group @ half"
    assert pairs.summing.groups.shape == (8, 16) and not pairs.is_tree
    nodes = stack_pairs(across, over_time, jnp.asarray(base))
    position = pairs.names.index("B @ half 2")
    np.testing.assert_array_equal(nodes[:, position], base[:, 2, 2])
    np.testing.assert_array_equal(split_pairs(across, over_time, nodes), base)


@pytest.mark.parametrize("how", ["mean", "last"])
def test_other_aggregates_over_time_have_weights_too(how, across):
    """Orders 6, 3, 2 and 1, not nested, averaged or at their last period."""
    over_time = temporal_hierarchy(6, how=how)
    pairs = cross_temporal(across, over_time, quantity="flow")
    summing = np.kron(dense_summing(across), dense_summing(over_time))
    rows = stack_pairs(across, over_time, jnp.asarray(summing.T.reshape(24, 7, -1)))
    np.testing.assert_allclose(dense_summing(pairs), rows.T, atol=1e-15)


def test_constraints_of_both_directions_say_the_same(across, over_time, pairs):
    """[C_cs (x) I; I (x) C_te] has the null space of the pairs and 9 rows too many."""
    upper = [dense_summing(one)[: len(one.aggregates)] for one in (across, over_time)]
    c_cs, c_te = (np.hstack([np.eye(len(a)), -a]) for a in upper)
    both = np.vstack([np.kron(c_cs, np.eye(7)), np.kron(np.eye(7), c_te)])
    rank = np.linalg.matrix_rank(both)
    assert rank == len(pairs.aggregates) == len(both) - 9
    tables = jnp.asarray(both.reshape(-1, 7, 7))
    rows = np.asarray(stack_pairs(across, over_time, tables))
    np.testing.assert_allclose(rows @ dense_summing(pairs), 0.0, atol=1e-14)


COVS = [
    np.diag([3.0, 2, 2, 1, 1, 1, 2]) + 0.5,
    np.diag([4.0, 2, 1.5, 1, 1, 1, 1]) + 0.3 * np.outer(np.arange(7), np.arange(7)) / 7,
]


def test_a_kronecker_covariance_needs_two_small_reconciliations(across, over_time, base):
    """One direction after the other, in either order, equals the dense optimum of all pairs."""
    expected = optimal(base, across, over_time, np.kron(*COVS))
    method = Separable(
        across,
        over_time,
        across_method=MinT(jnp.asarray(COVS[0])),
        over_time_method=MinT(jnp.asarray(COVS[1])),
    )
    found = reconciled(base, across, over_time, method)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    m_cs, m_te = (
        dense_gls(dense_summing(one), cov)
        for one, cov in zip((across, over_time), COVS, strict=True)
    )
    np.testing.assert_allclose((m_cs @ base) @ m_te.T, expected, atol=1e-12)
    np.testing.assert_allclose(m_cs @ (base @ m_te.T), expected, atol=1e-12)
    # Two steps with fixed covariances are the same thing.
    for first in ("time", "series"):
        two = TwoStep(
            across,
            over_time,
            across_method=MinT(jnp.asarray(COVS[0])),
            over_time_method=MinT(jnp.asarray(COVS[1])),
            first=first,
        )
        np.testing.assert_allclose(
            reconciled(base, across, over_time, two), expected, rtol=1e-10, atol=1e-12
        )


def test_structural_weights_are_separable(across, over_time, base):
    """diag(S S') of pairs is the Kronecker product of both."""
    method = Separable(across, over_time, across_method=WLS(), over_time_method=WLS())
    found = reconciled(base, across, over_time, method)
    np.testing.assert_allclose(found, reconciled(base, across, over_time, WLS()), atol=1e-12)


def test_separable_covariances_from_residuals(across, over_time, base, tables, residuals):
    """Over series: errors of base periods; over time: of all series by their own size."""
    method = Separable(
        across, over_time, across_method=WLS("variance"), over_time_method=TemporalGLS("order_ar1")
    )
    finest = np.swapaxes(tables[:, :, 3:], 1, 2).reshape(-1, 7)
    variances = np.nanmean(finest**2, axis=0)
    scaled = (tables / np.sqrt(variances)[:, None]).reshape(-1, 7)
    own = TemporalGLS("order_ar1").error_cov(step_of(over_time, jnp.asarray(scaled))).dense()
    expected = optimal(base, across, over_time, np.kron(np.diag(variances), own))
    found = reconciled(base, across, over_time, method, residuals)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def order_variances(tables):
    """Mean squares by series and order, for every pair."""
    parts = [tables[:, :, :1], tables[:, :, 1:3], tables[:, :, 3:]]
    own = [np.nanmean(part**2, axis=(0, 2), keepdims=True)[0] for part in parts]
    return np.hstack([np.repeat(v, k, axis=1) for v, k in zip(own, (1, 2, 4), strict=True)])


def pair_cov(method, pairs, across, over_time, residuals):
    """W of a method on the pairs, in the order of vec of tables."""
    cov = method.error_cov(step_of(pairs, jnp.asarray(residuals))).dense()
    rows = np.asarray(split_pairs(across, over_time, cov)).reshape(49, 49)
    return np.asarray(split_pairs(across, over_time, jnp.asarray(rows.T))).reshape(49, 49).T


@pytest.mark.parametrize("kind", ["position", "order", "blocks", "shrink"])
def test_optimal_combination_of_all_pairs(kind, pairs, across, over_time, base, tables, residuals):
    method = {
        "position": WLS("variance"),
        "order": TemporalGLS("order_variance"),
        "blocks": TemporalGLS("order_blocks"),
        "shrink": MinT("shrink"),
    }[kind]
    cov = pair_cov(method, pairs, across, over_time, residuals)
    if kind in ("position", "order"):
        own = np.nanmean(tables**2, axis=0) if kind == "position" else order_variances(tables)
        np.testing.assert_allclose(cov, np.diag(own.ravel()), rtol=1e-12)
    if kind == "blocks":  # a series and an order by itself
        block = cov.reshape(7, 7, 7, 7)[2, 3:, 2, 3:]
        assert np.abs(block[0, 1]) > 0
        outside = cov.reshape(7, 7, 7, 7).copy()
        for i in range(7):
            for order in (slice(0, 1), slice(1, 3), slice(3, 7)):
                outside[i, order, i, order] = 0.0
        assert np.all(outside == 0.0)
    found = reconciled(base, across, over_time, method, residuals)
    expected = optimal(base, across, over_time, cov)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("first", ["time", "series"])
def test_two_steps_against_loops(first, across, over_time, base, tables, residuals):
    """Maps of each series and each order from their own errors, the second ones averaged."""
    method = TwoStep(
        across,
        over_time,
        across_method=WLS("variance"),
        over_time_method=TemporalGLS("order_variance"),
        first=first,
    )
    orders = [slice(0, 1), slice(1, 3), slice(3, 7)]
    own = order_variances(tables)
    m_te = [dense_gls(dense_summing(over_time), np.diag(own[i])) for i in range(7)]
    m_cs = []
    for order in orders:
        squares = np.nanmean(tables[:, :, order] ** 2, axis=(0, 2))
        m_cs.append(dense_gls(dense_summing(across), np.diag(squares)))
    expected = np.empty_like(base)
    for cycle, table in enumerate(base):
        if first == "time":
            rows = np.stack([m_te[i] @ table[i] for i in range(7)])
            expected[cycle] = np.mean(m_cs, axis=0) @ rows
        else:
            columns = [m_cs[k] @ table[:, order] for k, order in enumerate(orders)]
            expected[cycle] = np.hstack(columns) @ np.mean(m_te, axis=0).T
    found = reconciled(base, across, over_time, method, residuals)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("pooling", ["order", "position"])
def test_alternating_projections_come_to_the_optimum(
    pooling, pairs, across, over_time, base, tables, residuals
):
    over_time_method = TemporalGLS() if pooling == "order" else WLS("variance")
    own = order_variances(tables) if pooling == "order" else np.nanmean(tables**2, axis=0)
    method = Alternating(
        across,
        over_time,
        across_method=WLS("variance"),
        over_time_method=over_time_method,
        num_steps=200,
        pooling=pooling,
    )
    expected = optimal(base, across, over_time, np.diag(own.ravel()))
    found = reconciled(base, across, over_time, method, residuals)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    nodes = stack_pairs(across, over_time, jnp.asarray(base))
    run = jax.jit(lambda rtol: alternate(nodes, pairs, method, residuals=residuals, rtol=rtol))
    report = run(1e-6)
    assert 3 < int(report.num_steps) < 200
    assert report.result == SUCCESSFUL and float(report.gap) <= 1e-6
    assert int(run(1e-9).num_steps) > int(report.num_steps)
    np.testing.assert_allclose(split_pairs(across, over_time, report.mean), expected, atol=1e-4)
    never = run(0.0)
    assert int(never.num_steps) == 200
    assert never.result == RESULTS.nonlinear_max_steps_reached
    np.testing.assert_allclose(pairs.incoherence(never.mean), 0.0, atol=1e-13)


def test_alternating_other_metrics_are_coherent_but_not_optimal(across, over_time, base, residuals):
    method = Alternating(
        across, over_time, across_method=MinT("shrink"), over_time_method=MinT("shrink")
    )
    pairs = cross_temporal(across, over_time, quantity="profit")
    found = reconciled(base, across, over_time, method, residuals)
    nodes = stack_pairs(across, over_time, jnp.asarray(found))
    np.testing.assert_allclose(pairs.incoherence(nodes), 0.0, atol=1e-12)
    again = reconciled(found, across, over_time, method, residuals)
    np.testing.assert_allclose(again, found, atol=1e-11)


def test_immutable_and_missing_pairs(pairs, across, over_time, base, residuals):
    """A view on a quarter of the total, and no monthly forecasts of one series."""
    nodes = np.array(stack_pairs(across, over_time, jnp.asarray(base)))
    gone = pairs.names.index("BA @ quarter 2")
    nodes[:, gone] = np.nan
    fixed = pairs.names.index("total @ half 1")
    found = reconcile_means(
        jnp.asarray(nodes),
        pairs,
        WLS("variance"),
        residuals=residuals,
        immutable=("total @ half 1",),
    )
    np.testing.assert_allclose(found[:, fixed], nodes[:, fixed], rtol=1e-10)
    np.testing.assert_allclose(pairs.incoherence(found), 0.0, atol=1e-13)
    # The oracle: weighted least squares without both rows, and the fixed one as a constraint.
    kept = np.delete(np.arange(49), [gone, fixed])
    summing = dense_summing(pairs)
    variances = np.nanmean(np.asarray(residuals) ** 2, axis=0)
    inverse = summing[kept].T / variances[kept]
    bound = summing[[fixed]]
    system = np.block([[inverse @ summing[kept], bound.T], [bound, np.zeros((1, 1))]])
    target = np.vstack([inverse @ nodes[:, kept].T, nodes[:, [fixed]].T])
    bottom = np.linalg.solve(system, target)[:16]
    np.testing.assert_allclose(found, (summing @ bottom).T, rtol=1e-9, atol=1e-11)


def test_draws_add_up_one_by_one(pairs, across, over_time, residuals):
    draws = jnp.asarray(np.random.default_rng(1).normal(size=(20, 1, 49)))
    method = TwoStep(
        across, over_time, across_method=OLS(), over_time_method=TemporalGLS("order_ar1")
    )
    found = reconcile(SampleForecast(draws), pairs, method, residuals=residuals)
    assert isinstance(found, SampleForecast)
    np.testing.assert_allclose(pairs.incoherence(found.draws), 0.0, atol=1e-12)


def test_weights_of_every_period(over_time):
    """Portfolio weights that move from quarter to quarter: the sums by loops."""
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(4), size=4)
    across = h7().with_weights(weights)
    pairs = cross_temporal(across, over_time, quantity="profit", weights_per="period")
    assert pairs.num_steps is None
    bottom = rng.normal(size=(4, 4))  # series, quarters
    table = np.zeros((7, 7))
    groups = [[0, 1, 2, 3], [0, 1], [2, 3]]
    spans = [[0, 1, 2, 3], [0, 1], [2, 3], [0], [1], [2], [3]]
    for t, span in enumerate(spans):
        for i, members in enumerate(groups):
            table[i, t] = sum(weights[s, j] * bottom[j, s] for s in span for j in members)
        table[3:, t] = bottom[:, span].sum(axis=1)
    found = pairs.aggregate(jnp.asarray(bottom.reshape(1, 16)))
    np.testing.assert_allclose(split_pairs(across, over_time, found)[0], table, rtol=1e-13)
    by_cycle = cross_temporal(across, over_time, quantity="profit")
    assert by_cycle.num_steps == 4
    np.testing.assert_allclose(
        by_cycle.step(2).summing.matrix(),
        cross_temporal(across.step(2), over_time, quantity="profit").summing.matrix(),
    )


def test_every_direction_exports_and_is_differentiable(pairs, across, over_time, residuals):
    """Derivatives of a node by base forecasts of one cycle: rows of the map, zero elsewhere."""
    how = {"across_method": WLS("variance"), "over_time_method": TemporalGLS()}
    methods = [
        Separable(across, over_time, **how),
        TwoStep(across, over_time, **how),
        Alternating(across, over_time, num_steps=5, **how),
    ]

    def all_of(nodes, errors):
        found = [reconcile_means(nodes, pairs, m, residuals=errors) for m in methods]
        return jnp.stack(found)

    nodes = jnp.asarray(np.random.default_rng(3).normal(size=(2, 49)))
    slope = jax.jit(jax.grad(lambda n, e: jnp.sum(all_of(n, e)[:, 0, 0])))(nodes, residuals)
    assert np.all(slope[1] == 0.0) and np.all(slope[0] != 0.0)
    up, down = (all_of(nodes.at[0, 5].add(h), residuals)[:, 0, 0].sum() for h in (1.0, -1.0))
    np.testing.assert_allclose(slope[0, 5], (up - down) / 2, rtol=1e-10)
    hidden = np.isnan(residuals)
    slope = jax.jit(jax.grad(lambda e: jnp.sum(all_of(nodes, e)[:, 0, 0])))(jnp.asarray(residuals))
    assert np.all(np.asarray(slope)[hidden] == 0.0) and np.all(np.isfinite(slope))
    exported = jax.export.export(jax.jit(all_of), platforms=["cuda"])(nodes, residuals)
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize(
    ("quantity", "series", "time"),
    [
        ("flow", True, True),
        ("profit", True, True),
        ("simple_return", True, False),
        ("log_return", False, True),
        ("variance", False, True),
        ("level", True, False),
    ],
)
def test_what_adds_up(quantity, series, time, across, over_time):
    assert quantity in QUANTITIES
    for over_series, in_time, right in ((True, False, series), (False, True, time)):
        if right:
            check_additive(quantity, over_series=over_series, over_time=in_time)
        else:
            with pytest.raises(ValueError, match=quantity):
                check_additive(quantity, over_series=over_series, over_time=in_time)
    if not (series and time):
        with pytest.raises(ValueError, match=quantity):
            cross_temporal(across, over_time, quantity=quantity)


def test_bad_input_is_refused(pairs, across, over_time):
    how = {"across_method": OLS(), "over_time_method": OLS()}
    moving = across.with_weights(np.ones((3, 4)))
    with pytest.raises(ValueError, match="weights per period need 4 steps"):
        cross_temporal(moving, over_time, quantity="flow", weights_per="period")
    with pytest.raises(ValueError, match="same for all steps"):
        Separable(moving, over_time, **how)
    with pytest.raises(ValueError, match="TopDown depends on the base forecast"):
        TwoStep(
            across,
            over_time,
            across_method=TopDown("forecast_proportions"),
            over_time_method=OLS(),
        )
    with pytest.raises(ValueError, match=r"is not cross_temporal"):
        reconcile_means(jnp.zeros((1, 7)), across, Separable(across, over_time, **how))
    method = Separable(across, over_time, across_method=WLS("variance"), over_time_method=OLS())
    with pytest.raises(ValueError, match="give residuals"):
        reconcile_means(jnp.zeros((1, 49)), pairs, method)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        Alternating(across, over_time, num_steps=0, **how)


# Profits.

RETURNS = np.array([[0.10, -0.05], [-0.20, 0.02], [0.05, 0.03]])
VALUES = jnp.array([200.0, -100.0])


def test_profits_of_a_path_by_hand():
    """200 in the first asset becomes 220, 176, 184.8; short 100 becomes -95, -96.9, -99.807."""
    expected = [[20.0, 5.0], [-44.0, -1.9], [8.8, -2.907]]
    found = profits_of(jnp.asarray(RETURNS), VALUES, kind="simple")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    logs = jnp.log1p(jnp.asarray(RETURNS))
    np.testing.assert_allclose(profits_of(logs, VALUES, kind="log"), expected, rtol=1e-12)
    np.testing.assert_allclose(returns_of(found, VALUES, kind="simple"), RETURNS, rtol=1e-12)
    long = jnp.abs(VALUES)
    again = returns_of(profits_of(logs, long, kind="log"), long, kind="log")
    np.testing.assert_allclose(again, logs, rtol=1e-12)
    # Over time simple returns compound: the sum of profits is not 200 times their sum.
    assert float(found[:, 0].sum()) == pytest.approx(200 * (1.1 * 0.8 * 1.05 - 1))


def test_profits_add_over_assets_and_time_where_returns_do_not():
    book = Hierarchy.from_paths(["book/long", "book/short"])
    quarters = temporal_hierarchy({"half": 2, "quarter": 1})
    pairs = cross_temporal(book, quarters, quantity="profit")
    path = jnp.asarray(RETURNS[:2])
    gains = profits_of(path, VALUES, kind="simple")
    nodes = pairs.aggregate(gains.T.reshape(1, 4))
    table = split_pairs(book, quarters, nodes)[0]
    total = 200 * 1.1 * 0.8 - 100 * 0.95 * 1.02 - 100
    np.testing.assert_allclose(table[0, 0], total, rtol=1e-12)
    # The return of the book over the half year, from its profit and its value at the start.
    start = book.aggregate(VALUES[None])[0]
    half = returns_of(table[:, :1].T, start, kind="simple")[0]
    np.testing.assert_allclose(half[1], 1.1 * 0.8 - 1, rtol=1e-12)
    np.testing.assert_allclose(half[0], total / 100, rtol=1e-12)


@pytest.mark.parametrize("kind", ["simple", "log"])
def test_first_order_and_its_gap(kind):
    """Gaussian returns: the second-order gap is what draws say, up to third order."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6)) * 0.004
    cov = jnp.asarray((root @ root.T).reshape(3, 2, 3, 2))
    law = GaussianForecast(jnp.asarray(RETURNS * 0.05), cov)
    first = profits(law, VALUES, kind=kind)
    np.testing.assert_allclose(first.mean, VALUES * law.mean, rtol=1e-14)
    np.testing.assert_allclose(first.std, np.abs(VALUES) * law.std, rtol=1e-12)
    gap = second_order_gap(law, VALUES, kind=kind)
    # An exact law of third order: antithetic draws have the mean and no odd moments about it.
    half = law.sample(200_000, key=jax.random.key(0)) - law.mean
    draws = SampleForecast(jnp.concatenate([law.mean + half, law.mean - half]))
    exact = profits(draws, VALUES, kind=kind)
    np.testing.assert_allclose(
        exact.mean - first.mean, gap, atol=4e-3 * np.abs(VALUES).max() * 0.01
    )
    assert np.abs(gap).max() > 10 * 4e-5
    np.testing.assert_allclose(
        second_order_gap(draws, VALUES, kind=kind), exact.mean - VALUES * draws.mean, rtol=1e-10
    )
    back = returns_from_profits(exact, jnp.abs(VALUES), kind="simple")
    assert isinstance(back, SampleForecast)
    linear = returns_from_profits(first, VALUES, kind=kind)
    np.testing.assert_allclose(linear.mean, law.mean, rtol=1e-13)
    np.testing.assert_allclose(linear.cov, law.cov, rtol=1e-12)


def test_bad_profits_are_refused():
    law = GaussianForecast(jnp.zeros((1, 2)), jnp.eye(2).reshape(1, 2, 1, 2))
    with pytest.raises(ValueError, match="3 values for 2 series"):
        profits(law, jnp.ones(3), kind="simple")
    with pytest.raises(ValueError, match="values at 1 are not finite"):
        profits(law, jnp.array([1.0, jnp.nan]), kind="simple")
    with pytest.raises(ValueError, match="nodes 0 have the value zero"):
        returns_from_profits(law, jnp.array([0.0, 1.0]), kind="simple")
    ruined = returns_of(jnp.array([[-1.0], [0.5]]), jnp.array([1.0]), kind="log")
    assert np.isnan(ruined).all()


def test_bottom_up_over_time_is_a_direction_too(across, over_time, base):
    """Bottom-up both ways keeps base forecasts of the bottom series in base periods."""
    method = Separable(across, over_time, across_method=BottomUp(), over_time_method=BottomUp())
    found = reconciled(base, across, over_time, method)
    np.testing.assert_allclose(found[:, 3:, 3:], base[:, 3:, 3:], rtol=1e-14)
