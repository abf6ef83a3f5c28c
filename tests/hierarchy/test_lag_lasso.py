"""Penalised lags: another solver's minima, the proximal maps, paths, validation, holes, units."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from jaxfc.hierarchy.lag_lasso import LagLassoVAR
from jaxfc.hierarchy.lag_penalties import (
    STRUCTURES,
    Problem,
    largest_penalty,
    penalty_of,
    penalty_path,
    proximal,
    split_intercept,
)
from jaxfc.results import RESULTS, is_okay

pytestmark = pytest.mark.slow

NUM, LAGS, TIMES = 3, 3, 120


def norms(structure, coefficients, norm, join):
    """The penalty by its definition: `coefficients[i][l][j]`, for numbers or another solver."""
    total = 0
    for i in range(NUM):
        rows = coefficients[i]
        tails = [[rows[k][j] for k in range(lag, LAGS) for j in range(NUM)] for lag in range(LAGS)]
        for lag in range(LAGS):
            if structure == "element":
                for j in range(NUM):
                    total += norm(join([rows[k][j] for k in range(lag, LAGS)]))
                continue
            total += norm(join(tails[lag]))
            if structure == "own_other":
                others = [rows[lag][j] for j in range(NUM) if j != i]
                later = tails[lag + 1] if lag + 1 < LAGS else []
                total += norm(join(others + later))
    return total


def by_cvxpy(structure, loss, size, shape):
    """The minimum of loss(matrix of (equations, 1 + lags * series)) + size * penalty."""
    cvxpy = pytest.importorskip("cvxpy")
    found = cvxpy.Variable(shape)
    offset = shape[1] - NUM * LAGS
    entries = [
        [[found[i, offset + lag * NUM + j] for j in range(NUM)] for lag in range(LAGS)]
        for i in range(NUM)
    ]
    penalty = norms(structure, entries, lambda x: cvxpy.norm(x, 2), cvxpy.hstack)
    problem = cvxpy.Problem(cvxpy.Minimize(loss(cvxpy, found) + size * penalty))
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return found.value, problem.value


@pytest.mark.parametrize("structure", STRUCTURES)
def test_proximal_maps_are_those_of_another_solver(structure):
    values = np.random.default_rng(0).normal(size=(NUM, LAGS, NUM))
    found = jax.jit(proximal, static_argnums=0)(structure, jnp.asarray(values), jnp.asarray(0.8))
    flat = values.reshape(NUM, -1)
    other, _ = by_cvxpy(
        structure, lambda cvxpy, x: 0.5 * cvxpy.sum_squares(x - flat), 0.8, flat.shape
    )
    mine = np.asarray(found)

    def value(x):
        penalty = norms(structure, x.tolist(), np.linalg.norm, np.array)
        return 0.5 * np.sum((x - values) ** 2) + 0.8 * penalty

    # The distance to the minimum is at most the root of twice the gap, 1e-10 of the solver's.
    assert value(mine) <= value(other.reshape(mine.shape)) + 1e-13
    assert_allclose(mine.reshape(other.shape), other, atol=2e-5)
    zeros = np.asarray(found) == 0.0
    assert 0 < zeros.sum() < zeros.size
    # a lag that is out takes all later ones with it
    kept = ~zeros if structure == "element" else (~zeros).any(axis=2)
    assert np.all(np.diff(kept.astype(int), axis=1) <= 0)
    by_hand = norms(structure, values.tolist(), np.linalg.norm, np.array)
    assert float(penalty_of(structure, jnp.asarray(values))) == pytest.approx(by_hand, rel=1e-12)


@pytest.fixture(scope="module")
def world():
    """Own lags of two, one series led by another, a few cells missing."""
    rng = np.random.default_rng(6)
    path = np.zeros((TIMES + 50, NUM))
    for t in range(3, len(path)):
        path[t] = 0.4 * path[t - 1] - 0.25 * path[t - 2] + rng.normal(size=NUM)
        path[t, 0] += 0.5 * path[t - 1, 1]
    observed = np.ones((TIMES, NUM), bool)
    observed[[20, 70], [0, 2]] = False
    observed[-1, 1] = False
    return jnp.asarray(3.0 + path[50:] * np.array([1.0, 5.0, 0.2])), jnp.asarray(observed)


@pytest.fixture(scope="module")
def problem(world):
    values, observed = map(np.asarray, world)
    units = (values - values.mean(0)) / values.std(0)
    columns = np.ones((TIMES, 1 + NUM * LAGS))
    known = observed.copy()
    known[:LAGS] = False
    for t in range(LAGS, TIMES):
        columns[t, 1:] = np.concatenate([units[t - lag] for lag in range(1, LAGS + 1)])
        known[t] &= observed[t - LAGS : t].all()
    return Problem(*map(jnp.asarray, (columns, units, known)))


solved = jax.jit(penalty_path, static_argnums=(1, 4))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_minima_are_those_of_another_solver(problem, structure):
    sizes = jnp.array([0.2, 0.05])
    path, found = solved(problem, structure, sizes, jnp.asarray(1e-12), 20_000)
    assert np.all(found.converged)
    columns, targets, known = map(np.asarray, problem)
    rows = known.any(axis=1).sum()

    def loss(cvxpy, x):
        errors = cvxpy.multiply(known, targets - columns @ x.T)
        return cvxpy.sum_squares(errors) / (2 * rows)

    for size, coefficients in zip(sizes, path, strict=True):
        other, least = by_cvxpy(structure, loss, float(size), coefficients.shape)
        mine = np.where(known, targets - columns @ np.asarray(coefficients).T, 0.0)
        lags = split_intercept(coefficients)[1]
        value = np.sum(mine**2) / (2 * rows) + float(size * penalty_of(structure, lags))
        assert value == pytest.approx(least, rel=1e-8)
        assert_allclose(coefficients, other, atol=2e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_largest_penalty_is_the_first_without_lags(problem, structure):
    largest = jax.jit(largest_penalty, static_argnums=1)(problem, structure)
    sizes = largest * jnp.array([1.0001, 0.98])
    path, _ = solved(problem, structure, sizes, jnp.asarray(1e-12), 20_000)
    lags = np.asarray(path)[:, :, 1:]
    assert np.all(lags[0] == 0.0) and np.any(lags[1] != 0.0)
    known = np.asarray(problem.known)
    means = np.sum(np.where(known, problem.targets, 0.0), 0) / known.sum(0)
    assert_allclose(path[0, :, 0], means, atol=1e-10)


estimated = eqx.filter_jit(lambda model, values, observed: model.estimate(values, observed))
MODEL = LagLassoVAR(LAGS, num_penalties=8, num_folds=2)


@pytest.fixture(scope="module")
def fitted(world):
    return estimated(MODEL, *world)


def test_it_finds_the_lags(fitted):
    assert bool(is_okay(fitted.result))
    assert 0.0 < float(fitted.spectral_radius) < 1.0
    lags = np.asarray(fitted.law.lags)
    last = np.asarray(fitted.last_lags)
    assert np.all(np.diag(last) >= 2) and last[0, 1] >= 1
    assert lags[0, 0, 1] * 5.0 > 0.25 and abs(lags[0, 1, 0]) < 0.4
    assert np.argmin(fitted.scores) == np.flatnonzero(fitted.penalties == fitted.penalty)[0]
    assert 0 < np.argmin(fitted.scores)


def test_scores_are_errors_of_forecasts_of_the_rows_before(world, fitted):
    """Each fold again, by a fit at the given penalty on the rows before it."""
    values, observed = world
    edges = MODEL.folds(TIMES)
    place = int(np.argmin(fitted.scores))
    fixed = dataclasses.replace(MODEL, penalty=fitted.penalties[place], tolerance=jnp.asarray(1e-9))
    seen = np.asarray(observed)
    scale = np.array([np.asarray(values)[seen[:, i], i].std() for i in range(NUM)])
    total, count = 0.0, 0
    for first, last in itertools.pairwise(edges):
        law = estimated(fixed, values, observed & (jnp.arange(TIMES) < first)[:, None]).law
        for t in range(first, last):
            if not seen[t - LAGS : t].all():
                continue
            mean = law.intercepts + sum(law.lags[k] @ values[t - 1 - k] for k in range(LAGS))
            errors = (np.asarray(values[t] - mean) / scale)[seen[t]]
            total, count = total + np.sum(errors**2), count + errors.size
    assert float(fitted.scores[place]) == pytest.approx(total / count, rel=1e-4)


def test_the_law_ahead(fitted):
    law, (intercepts, lags) = (
        fitted.forecast(3),
        (fitted.law.intercepts, np.asarray(fitted.law.lags)),
    )
    history = list(np.asarray(fitted.history))
    for h in range(3):
        row = np.asarray(intercepts) + sum(lags[k] @ history[k] for k in range(LAGS))
        assert_allclose(law.mean[h], row, rtol=1e-10)
        history = [row, *history]
    assert_allclose(law.responses[1], lags[0], atol=1e-14)
    assert_allclose(law.responses[2], lags[0] @ lags[0] + lags[1], atol=1e-13)
    sigma = np.asarray(fitted.errors.loadings @ fitted.errors.loadings.T)
    sigma = sigma + np.diag(fitted.errors.variances)
    assert_allclose(law.cov[0, :, 0], sigma, rtol=1e-10)
    assert_allclose(law.cov[1, :, 0], lags[0] @ sigma, rtol=1e-9, atol=1e-12)
    companion = np.block([[lags[0], lags[1], lags[2]], [np.eye(2 * NUM), np.zeros((2 * NUM, NUM))]])
    root = np.abs(np.linalg.eigvals(companion)).max()
    assert float(fitted.spectral_radius) == pytest.approx(root, rel=1e-6)


def test_hidden_and_later_cells_are_never_read_and_slopes_are_right(world):
    values, observed = world
    early = observed & (jnp.arange(TIMES) < 100)[:, None]
    model = dataclasses.replace(
        MODEL, penalty=jnp.asarray(0.05), tolerance=jnp.asarray(1e-12), max_steps=20_000
    )

    @jax.jit
    def read(values):
        return jnp.sum(model.estimate(values, early).forecast(1).mean)

    slopes = np.asarray(jax.jit(jax.grad(read))(jnp.where(early, values, jnp.nan)))
    assert np.isfinite(slopes).all() and np.all(slopes[~np.asarray(early)] == 0.0)
    for cell in [(99, 1), (40, 0)]:
        step = jnp.zeros_like(values).at[cell].set(1e-4)
        numeric = (read(values + step) - read(values - step)) / 2e-4
        assert slopes[cell] == pytest.approx(float(numeric), rel=1e-4)


def test_units_do_not_matter(world, fitted):
    values, observed = world
    scale = jnp.array([1e-6, 10.0, 1e4])
    other = estimated(MODEL, scale * values, observed)
    assert_allclose(other.forecast(2).mean, scale * fitted.forecast(2).mean, rtol=1e-8)
    assert_allclose(other.forecast(2).std, scale * fitted.forecast(2).std, rtol=1e-8)
    assert_allclose(other.penalty, fitted.penalty, rtol=1e-9)


def test_a_missing_value_stands_at_its_expectation(world, fitted):
    values, observed = world
    before = fitted.given(values[:-1], observed[:-1]).forecast(1).mean[0]
    assert_allclose(fitted.history[0, 1], before[1], rtol=1e-10)
    assert_allclose(fitted.history[0, 0], values[-1, 0])


def test_bounds_on_steps_are_reported(world):
    few = dataclasses.replace(MODEL, penalty=jnp.asarray(0.01), max_steps=3)
    assert bool(estimated(few, *world).result == RESULTS.nonlinear_max_steps_reached)


def test_fits_a_panel_and_refuses_bad_ones(world):
    values, observed = map(np.asarray, world)
    index = pd.bdate_range("2020-01-01", periods=TIMES)
    frame = pd.DataFrame(np.where(observed, values, np.nan), index, list("abc"))
    fitted = MODEL.fit(jaxfc.Panel.from_frame(frame))
    path = fitted.simulate(20, key=jax.random.key(0))
    assert path.shape == (20, 3) and np.isfinite(path).all()
    with pytest.raises(ValueError, match="takes no key"):
        fitted.forecast(1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="series 'a' has 6 of the first 9 rows"):
        MODEL.fit(jaxfc.Panel.from_frame(frame.iloc[1:14]))
    with pytest.raises(ValueError, match="structure must be one of"):
        LagLassoVAR(structure="lag")
    with pytest.raises(ValueError, match="validation_share must be in"):
        LagLassoVAR(validation_share=1.0)


def test_lowers_for_cuda(world):
    @jax.jit
    def ahead(values, observed):
        return MODEL.estimate(values, observed).forecast(2).std

    exported = jax.export.export(ahead, platforms=["cuda"])(*world)
    assert exported.platforms == ("cuda",)
