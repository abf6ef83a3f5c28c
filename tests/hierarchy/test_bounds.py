"""Reconciliation within bounds: published numbers, enumeration of all active sets, least squares
with bounds by scipy, conditions of optimality, gradients, contradictions."""

import itertools

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.hierarchy import (
    OLS,
    WLS,
    Bounded,
    Hierarchy,
    MinT,
    reconcile,
    reconcile_means,
)
from jaxfc.hierarchy.box import Box, nearest_in_box
from jaxfc.hierarchy.error_cov import DenseCov, StructuredCov
from jaxfc.hierarchy.held import compressed, metric_of

pytestmark = pytest.mark.slow

H7 = pd.DataFrame(
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]],
    index=["total", "A", "B"],
    columns=["AA", "AB", "BA", "BB"],
)
SUMMING = np.vstack([H7.to_numpy(), np.eye(4)])
INFINITE = np.full(7, np.inf)


@pytest.fixture(scope="module")
def tree():
    return Hierarchy.from_matrix(H7)


@pytest.fixture(scope="module")
def wide():
    """Overlapping aggregates with real weights over 12 series."""
    rng = np.random.default_rng(0)
    member = np.arange(12)
    rows = [
        rng.uniform(0.2, 1.0, 12),
        (member < 5) * 1.0,
        (member >= 5) * rng.normal(size=12),
        (member % 2 == 0) * 1.0,
    ]
    columns = [f"b{i}" for i in member]
    return Hierarchy.from_matrix(pd.DataFrame(rows, index=list("PQRS"), columns=columns))


def nearest_by_enumeration(summing, weight, base, lower, upper):
    """The feasible point of least distance over all choices of nodes held at a bound."""
    inverse, best, nearest = np.linalg.inv(weight), np.inf, None
    num_bottom = summing.shape[1]
    sides = [
        [0] + [1] * int(np.isfinite(low)) + [2] * int(np.isfinite(high))
        for low, high in zip(lower, upper, strict=True)
    ]
    hessian, right = summing.T @ inverse @ summing, summing.T @ inverse @ base
    for choice in itertools.product(*sides):
        held = np.flatnonzero(choice)
        if len(held) > num_bottom:
            continue
        bound = np.where(np.array(choice)[held] == 1, lower[held], upper[held])
        rows = summing[held]
        zeros = np.zeros((len(held), len(held)))
        system = np.block([[hessian, rows.T], [rows, zeros]])
        answer = np.linalg.lstsq(system, np.concatenate([right, bound]), rcond=None)[0]
        point = summing @ answer[:num_bottom]
        if np.all(point >= lower - 1e-9) and np.all(point <= upper + 1e-9):
            gap = point - base
            if gap @ inverse @ gap < best - 1e-12:
                best, nearest = gap @ inverse @ gap, point
    return nearest


def random_cov(kind, rng, size):
    """A covariance of one kind, and its matrix."""
    variances, factors = np.exp(1.5 * rng.normal(size=size)), rng.normal(size=(size, 30)) / 4
    if kind == "diagonal":
        return StructuredCov(jnp.asarray(variances)), np.diag(variances)
    dense = np.diag(0.1 * variances) + 0.7 * factors @ factors.T
    if kind == "factors":
        cov = StructuredCov(jnp.asarray(0.1 * variances), jnp.asarray(factors), jnp.asarray(0.7))
        return cov, dense
    return DenseCov(jnp.asarray(dense)), dense


def solver(hierarchy, num_active=20, num_interior=100):
    """Compiled, with bounds on the numbers of steps of either kind."""

    @jax.jit
    def solve(cov, base, lower, upper):
        metric = metric_of(hierarchy.summing, cov)
        box = Box(lower, upper)
        return nearest_in_box(metric, compressed(metric), base, box, num_active, num_interior)

    return solve


def test_non_negative_ols(tree):
    base = jnp.array([[1.0, 2.0, -1.0, 3.0, -2.0, 1.0, -1.0]])
    free = reconcile_means(base, tree, OLS())
    np.testing.assert_allclose(free[0], [1, 5 / 3, -2 / 3, 10 / 3, -5 / 3, 2 / 3, -4 / 3])
    bounded = reconcile_means(base, tree, Bounded(OLS(), lower=0.0))
    np.testing.assert_allclose(bounded[0], [2, 2, 0, 2, 0, 0, 0], atol=1e-14)


def test_foreco_across_series():
    """FoReco, csrec(comb = "wls", nn = TRUE), Z = X + Y."""
    hierarchy = Hierarchy.from_matrix(pd.DataFrame([[1, 1]], index=["Z"], columns=["X", "Y"]))
    base = jnp.array([[19.439524, 9.769823, -11.558708], [20.070508, 10.129288, 11.715065]])
    method = WLS(jnp.array([0.567134, 0.953743, 0.999872]))
    got = reconcile_means(base, hierarchy, Bounded(method, lower=0.0))
    want = [[15.833701, 15.833701, 0.0], [20.469599, 9.458141, 11.011458]]
    np.testing.assert_allclose(got, want, atol=3e-6)
    got = reconcile_means(base.at[0, 2].multiply(-1), hierarchy, Bounded(method, lower=0.0))
    np.testing.assert_allclose(got[0], [19.864525, 9.055103, 10.809421], atol=2e-6)


def test_foreco_over_time():
    """FoReco, terec(comb = "wlsv", nn = TRUE), a year of two halves and four quarters."""
    hierarchy = Hierarchy.from_matrix(H7)
    base = [19.439524, 9.769823, 11.558708, 5.070508, 5.129288, 6.715065, -5.460916]
    method = WLS(jnp.array([0.782134504] + [0.874026113] * 2 + [0.865489263] * 4))
    got = reconcile_means(jnp.array([base]), hierarchy, Bounded(method, lower=0.0))
    want = [19.265312, 10.043448, 9.221864, 4.992334, 5.051114, 9.221864, 0.0]
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    base[-1] = -base[-1]
    got = reconcile_means(jnp.array([base]), hierarchy, Bounded(method, lower=0.0))
    want = [20.341048, 9.244660, 11.096388, 4.592940, 4.651720, 6.175268, 4.921120]
    np.testing.assert_allclose(got[0], want, atol=1e-6)


@pytest.mark.parametrize("kind", ["diagonal", "factors", "dense"])
def test_bounds_on_any_node_by_enumeration(tree, kind):
    rng, solve, held = np.random.default_rng(1), solver(tree), 0
    for _ in range(5):
        cov, dense = random_cov(kind, rng, 7)
        base = 2.0 * rng.normal(size=7)
        lower, upper = -INFINITE, INFINITE.copy()
        lower[rng.permutation(7)[:4]] = -0.5
        upper[rng.permutation(7)[:3]] = 0.8
        want = nearest_by_enumeration(SUMMING, dense, base, lower, upper)
        got = np.asarray(solve(cov, jnp.asarray(base), jnp.asarray(lower), jnp.asarray(upper)))
        np.testing.assert_allclose(got, want, atol=1e-9)
        held += np.sum((got == lower) | (got == upper))
    assert held >= 5


@pytest.mark.parametrize("kind", ["diagonal", "factors", "dense"])
def test_bounds_of_series_by_scipy(wide, kind):
    rng, solve = np.random.default_rng(2), solver(wide)
    summing = np.vstack([np.asarray(wide.summing.matrix()), np.eye(12)])
    for case in range(8):
        cov, dense = random_cov(kind, rng, 16)
        root = np.linalg.cholesky(np.linalg.inv(dense)).T
        base = 3.0 * rng.normal(size=16) - 1.0
        lower, upper = np.full(12, -1.0), rng.uniform(-0.5, 1.0, 12)
        if case % 2:
            upper[:] = np.inf
        want = scipy.optimize.lsq_linear(
            root @ summing, root @ base, bounds=(lower, upper), method="bvls", tol=1e-14
        )
        none = jnp.full(4, jnp.inf)
        bounds = jnp.concatenate([-none, lower]), jnp.concatenate([none, upper])
        got = solve(cov, jnp.asarray(base), *bounds)
        np.testing.assert_allclose(got[4:], want.x, atol=1e-7)
        assert np.any(np.asarray(got[4:]) == lower)


@pytest.fixture(scope="module")
def hard(wide):
    """Problems with bounds on most nodes, some of which make active sets cycle."""
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(40):
        variances = np.exp(1.5 * rng.normal(size=16))
        base = 3.0 * rng.normal(size=16) - 1.0
        lower = np.where(rng.random(16) < 0.6, -1.0, -np.inf)
        upper = np.where(rng.random(16) < 0.6, rng.uniform(-0.5, 1.0, 16), np.inf)
        cases.append((variances, base, lower, upper))
    arrays = [jnp.asarray(np.stack(part)) for part in zip(*cases, strict=True)]

    def run(num_active, num_interior):
        solve = solver(wide, num_active, num_interior)
        return jax.vmap(lambda v, a, lo, up: solve(StructuredCov(v), a, lo, up))(*arrays)

    return arrays, run


def test_the_interior_method_solves_where_active_sets_cycle(hard):
    _, run = hard
    both, active, interior = run(20, 100), run(20, 0), run(0, 100)
    solved = ~np.isnan(np.asarray(active)).any(axis=1)
    assert 20 <= np.sum(solved) < 40
    assert np.all(np.isfinite(both))
    np.testing.assert_allclose(np.asarray(active)[solved], np.asarray(both)[solved], atol=1e-11)
    np.testing.assert_allclose(interior, both, atol=1e-11)


def test_conditions_of_optimality(wide, hard):
    """W^-1 (y - a) + C' l = mu, with mu >= 0 at lower, <= 0 at upper bounds, zero between."""
    (variances, bases, lowers, uppers), run = hard
    constraints = np.hstack([np.eye(4), -np.asarray(wide.summing.matrix())])
    answers = np.asarray(run(20, 100))
    for variance, base, lower, upper, point in zip(
        *map(np.asarray, (variances, bases, lowers, uppers)), answers, strict=True
    ):
        np.testing.assert_allclose(constraints @ point, 0.0, atol=1e-13)
        assert np.all(point >= lower - 1e-12) and np.all(point <= upper + 1e-12)
        low, high = np.abs(point - lower) < 1e-10, np.abs(point - upper) < 1e-10
        slope = (point - base) / variance
        between = ~(low | high)
        # Multipliers of the sums from the nodes between bounds and signs of the others.
        program = scipy.optimize.linprog(
            np.zeros(4),
            A_ub=np.vstack([-constraints.T[low], constraints.T[high]]),
            b_ub=np.concatenate([slope[low], -slope[high]]) + 1e-8,
            A_eq=constraints.T[between],
            b_eq=-slope[between],
            bounds=[(None, None)] * 4,
        )
        assert program.status == 0


def test_draws_are_coherent_and_within(wide):
    rng = np.random.default_rng(3)
    draws = SampleForecast(jnp.asarray(0.8 * rng.normal(size=(50, 2, 16))))
    residuals = rng.normal(size=(40, 16))
    free = reconcile(draws, wide, MinT("shrink"), residuals=residuals)
    got = reconcile(draws, wide, Bounded(MinT("shrink"), lower=-1.0), residuals=residuals)
    assert isinstance(free, SampleForecast) and isinstance(got, SampleForecast)
    assert float(jnp.max(jnp.abs(wide.incoherence(got.draws)))) < 1e-13
    assert float(jnp.min(got.draws[..., 4:])) == -1.0
    inside = np.asarray(jnp.all(free.draws[..., 4:] >= -1.0, axis=-1))
    assert 0 < np.sum(inside) < inside.size
    np.testing.assert_allclose(
        np.asarray(got.draws)[inside], np.asarray(free.draws)[inside], atol=1e-12
    )
    single = reconcile_means(
        draws.draws[7], wide, Bounded(MinT("shrink"), lower=-1.0), residuals=residuals
    )
    np.testing.assert_allclose(got.draws[7], single, atol=1e-13)
    with pytest.raises(ValueError, match="reconcile draws"):
        law = GaussianForecast(draws.mean, draws.cov)
        reconcile(law, wide, Bounded(OLS(), lower=-1.0))


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_scale(tree, size):
    rng = np.random.default_rng(4)
    base, residuals = rng.normal(size=(3, 7)), rng.normal(size=(30, 7))
    method = Bounded(MinT("shrink"), lower={"AA": -0.2, "B": -0.1}, upper={"total": 0.3})
    scaled = Bounded(
        MinT("shrink"), lower={"AA": -0.2 * size, "B": -0.1 * size}, upper={"total": 0.3 * size}
    )
    one = reconcile_means(jnp.asarray(base), tree, method, residuals=residuals)
    two = reconcile_means(jnp.asarray(size * base), tree, scaled, residuals=size * residuals)
    np.testing.assert_allclose(two / size, one, atol=1e-10)
    assert np.any(np.isclose(one[:, 0], 0.3)) and np.any(np.isclose(one[:, 2], -0.1))


def test_covariances_and_weights_of_each_step(tree):
    rng = np.random.default_rng(5)
    roots = rng.normal(size=(2, 7, 9))
    covs = np.einsum("hik,hjk->hij", roots, roots) / 9
    base = jnp.asarray(rng.normal(size=(2, 7)))
    shares = jnp.asarray(rng.uniform(0.5, 1.5, size=(2, 4)))
    moving = tree.with_weights(shares)
    got = reconcile_means(base, moving, Bounded(MinT(jnp.asarray(covs)), lower=-0.1))
    for step in range(2):
        matrix = np.vstack([np.asarray(moving.step(step).summing.matrix()), np.eye(4)])
        lower = np.concatenate([-INFINITE[:3], np.full(4, -0.1)])
        want = nearest_by_enumeration(matrix, covs[step], np.asarray(base[step]), lower, INFINITE)
        np.testing.assert_allclose(got[step], want, atol=1e-10)
    law = SampleForecast(jnp.asarray(rng.normal(size=(40, 2, 7))))
    bounded = reconcile(law, moving, Bounded(MinT("forecast"), lower=-0.5))
    assert isinstance(bounded, SampleForecast)
    cov = np.cov(np.asarray(law.draws[:, 1]).T)
    lower = np.concatenate([-INFINITE[:3], np.full(4, -0.5)])
    want = nearest_by_enumeration(matrix, cov, np.asarray(law.draws[3, 1]), lower, INFINITE)
    np.testing.assert_allclose(bounded.draws[3, 1], want, atol=1e-10)


def test_sample_covariance_and_nodes_without_errors(tree):
    rng = np.random.default_rng(6)
    base, residuals = jnp.asarray(rng.normal(size=(1, 7))), rng.normal(size=(20, 7))
    got = reconcile_means(base, tree, Bounded(MinT("sample"), lower=0.0), residuals=residuals)
    lower = np.concatenate([-INFINITE[:3], np.zeros(4)])
    cov = residuals.T @ residuals / 20
    want = nearest_by_enumeration(SUMMING, cov, np.asarray(base[0]), lower, INFINITE)
    np.testing.assert_allclose(got[0], want, atol=1e-10)
    with pytest.raises(ValueError, match="no finite forecast"):
        method = Bounded(MinT("sample"), lower=0.0)
        reconcile_means(base, tree, method, residuals=residuals[:6])
    # A series without errors stays at its base forecast, or at the bound next to it.
    exact = WLS(jnp.array([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]))
    base = jnp.array([[1.0, 2.0, -1.0, 3.0, -2.0, 1.0, 0.7]])
    got = reconcile_means(base, tree, Bounded(exact, lower=0.0))
    np.testing.assert_allclose(got[0, jnp.array([4, 6])], [0.0, 0.7], atol=1e-9)


def test_immutable_nodes(tree):
    base = jnp.array([[1.0, 2.0, -1.0, 3.0, -2.0, 1.0, -1.0]])
    got = reconcile_means(base, tree, Bounded(OLS(), lower=0.0), immutable=("total",))
    np.testing.assert_allclose(got[0], [1, 1, 0, 1, 0, 0, 0], atol=1e-12)
    equal = reconcile_means(
        base,
        tree,
        Bounded(
            OLS(), lower={**dict.fromkeys(H7.columns, 0.0), "total": 1.0}, upper={"total": 1.0}
        ),
    )
    np.testing.assert_allclose(equal, got, atol=1e-12)
    with pytest.raises(ValueError, match="no finite forecast"):
        reconcile_means(-base, tree, Bounded(OLS(), lower=0.0), immutable=("total",))


@pytest.mark.parametrize("immutable", [("total",), ("AA",), ("total", "A", "BB")])
def test_immutable_nodes_with_correlated_errors(tree, immutable):
    """Where no bound binds it is the projection with the same nodes immutable."""
    rng = np.random.default_rng(8)
    residuals = rng.normal(size=(30, 7)) @ rng.normal(size=(7, 7))
    base = jnp.asarray(rng.normal(size=(2, 7)))
    for method in (MinT(jnp.asarray(residuals.T @ residuals)), MinT()):
        free = reconcile_means(base, tree, method, residuals=residuals, immutable=immutable)
        loose = Bounded(method, lower=-1e3, upper=1e3)
        got = reconcile_means(base, tree, loose, residuals=residuals, immutable=immutable)
        np.testing.assert_allclose(got, free, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["diagonal", "factors", "dense"])
def test_gradients(tree, kind):
    rng = np.random.default_rng(7)
    cov, _ = random_cov(kind, rng, 7)
    base = jnp.asarray([1.0, 2.0, -1.0, 3.0, -2.0, 1.0, -1.0])
    lower = jnp.asarray([-jnp.inf] * 3 + [-0.1] * 4)
    upper = jnp.asarray([1.3, *[jnp.inf] * 6])
    direction = jnp.asarray(rng.normal(size=7))

    @jax.jit
    def loss(cov, base, weights, bounds):
        low, high = bounds
        summing = tree.with_weights(weights).summing
        metric = metric_of(summing, cov)
        box = Box(lower.at[3:].set(low), upper.at[0].set(high))
        return jnp.sum(direction * nearest_in_box(metric, compressed(metric), base, box))

    args = (cov, base, jnp.ones(4), (jnp.full(4, -0.1), jnp.asarray(1.3)))
    point = solver(tree)(cov, base, lower, upper)
    assert 1 <= int(jnp.sum(point[3:] == -0.1)) <= 3
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*args)
    leaves, structure = jax.tree.flatten(args)
    step = 1e-6
    for index, slope in enumerate(jax.tree.leaves(slopes)):
        # A covariance matrix is only meant to move as a symmetric one.
        way = jnp.asarray(rng.normal(size=slope.shape)) * jnp.abs(leaves[index])
        way = way + way.T if way.ndim == 2 and way.shape[0] == way.shape[1] else way

        def moved(size, index=index, way=way):
            changed = list(leaves)
            changed[index] = leaves[index] + size * way
            return loss(*jax.tree.unflatten(structure, changed))

        numeric = (moved(step) - moved(-step)) / (2 * step)
        assert float(jnp.sum(slope * way)) == pytest.approx(float(numeric), rel=1e-6, abs=1e-8)


def test_contradictions_name_the_nodes(tree, wide):
    base = jnp.ones((1, 7))
    with pytest.raises(ValueError, match="'AB' has lower 2 and upper 1"):
        reconcile_means(base, tree, Bounded(OLS(), lower={"AB": 2.0}, upper={"AB": 1.0}))
    with pytest.raises(ValueError, match="aggregates 'A' cannot be met"):
        reconcile_means(base, tree, Bounded(OLS(), lower=1.0, upper={"A": 1.5, "B": 2.5}))
    # Each alone could be met.
    with pytest.raises(ValueError, match=r"aggregates '(total|A|B)'.* cannot be met"):
        reconcile_means(
            base, tree, Bounded(OLS(), lower={"A": 2.0, "B": 2.0}, upper={"total": 3.0})
        )
    with pytest.raises(ValueError, match="no node 'AC'"):
        reconcile_means(base, tree, Bounded(OLS(), lower={"AC": 2.0}))
    with pytest.raises(ValueError, match="'A' are NaN"):
        reconcile_means(base, tree, Bounded(OLS(), lower={"A": np.nan}))
    with pytest.raises(ValueError, match="got shape"):
        reconcile_means(base, tree, Bounded(OLS(), lower=jnp.zeros(5)))
    with pytest.raises(ValueError, match="missing ones"):
        reconcile_means(base.at[0, 1].set(jnp.nan), tree, Bounded(OLS(), lower=0.0))
    none = jnp.full(3, jnp.inf)
    lower = jnp.concatenate([jnp.array([-jnp.inf, 2.0, 2.0]), jnp.full(4, -jnp.inf)])
    upper = jnp.concatenate([jnp.array([3.0]), none, none])
    traced = solver(tree)(StructuredCov(jnp.ones(7)), jnp.ones(7), lower, upper)
    assert np.all(np.isnan(traced))


def test_batches_and_export(tree):
    """Many origins in one program, which lowers for CUDA."""
    rng = np.random.default_rng(8)
    bases, residuals = jnp.asarray(rng.normal(size=(3, 2, 7))), jnp.asarray(rng.normal(size=(9, 7)))

    def one(base, lower):
        method = Bounded(MinT("shrink"), lower=lower)
        return reconcile_means(base, tree, method, residuals=residuals, missing=())

    lowers = jnp.array([-0.3, 0.0, 0.1])
    many = eqx.filter_jit(jax.vmap(one))(bases, lowers)
    for index in range(3):
        alone = one(bases[index], float(lowers[index]))
        np.testing.assert_allclose(many[index], alone, atol=1e-13)
    exported = jax.export.export(jax.jit(one), platforms=["cuda"])(bases[0], lowers[0])
    assert "callback" not in exported.mlir_module()
