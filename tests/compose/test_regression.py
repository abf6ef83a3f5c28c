"""The regression and the choice of its lags against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.compose.lag_selection import choose_lags
from jaxfc.compose.regression import (
    Sizes,
    active_columns,
    factor_columns,
    own_columns,
    regress,
    row_weights,
)
from jaxfc.compose.residuals import EmpiricalResiduals, NormalResiduals, VolatilityScaled
from jaxfc.compose.trajectories import carry_ahead, lag_rows

NUM_TIMES, NUM_FACTORS, MAX_OWN, MAX_LAGS = 40, 2, 3, 2


def sizes(num_factors, num_own_lags, num_factor_lags, num_lags=2):
    return Sizes(*map(jnp.asarray, (num_factors, num_lags, num_own_lags, num_factor_lags)))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    returns = rng.normal(size=NUM_TIMES)
    seen = np.ones(NUM_TIMES, bool)
    seen[[7, 20]] = False
    return np.where(seen, returns, 0.0), seen, rng.normal(size=(NUM_TIMES, NUM_FACTORS))


def loop_regression(returns, seen, factors, num_factors, q, s):
    """Least squares row by row, as a textbook has it."""
    rows, targets, used = [], [], []
    for t in range(max(q, s), len(returns)):
        if not seen[t] or not all(seen[t - i] for i in range(1, q + 1)):
            continue
        own = [returns[t - i] for i in range(1, q + 1)]
        lags = [factors[t - i, k] for i in range(1, s + 1) for k in range(num_factors)]
        rows.append([1.0, *own, *lags])
        targets.append(returns[t])
        used.append(t)
    columns, target = np.array(rows), np.array(targets)
    coefficients = np.linalg.lstsq(columns, target, rcond=None)[0]
    residuals = target - columns @ coefficients
    variance = residuals @ residuals / (len(target) - columns.shape[1])
    return columns, coefficients, variance, used, residuals


@jax.jit
def masked_regression(returns, seen, factors, chosen):
    columns = jnp.concatenate(
        [own_columns(returns, MAX_OWN), factor_columns(factors, MAX_LAGS)], axis=1
    )
    active = active_columns(chosen, NUM_FACTORS, MAX_OWN, MAX_LAGS)
    weights = row_weights(seen, chosen.num_own_lags, chosen.num_factor_lags, MAX_OWN)
    return regress(columns, returns, weights, active), active, weights


@pytest.mark.parametrize(("k", "q", "s"), [(2, 3, 2), (2, 0, 1), (1, 2, 2), (1, 1, 0)])
def test_regression_of_any_size_in_the_largest_arrays(data, k, q, s):
    returns, seen, factors = data
    columns, coefficients, variance, used, residuals = loop_regression(*data, k, q, s)
    found, active, weights = masked_regression(returns, seen, factors, sizes(k, q, s))
    np.testing.assert_array_equal(np.flatnonzero(weights), used)
    np.testing.assert_allclose(found.coefficients[active], coefficients, atol=1e-12)
    assert np.all(np.asarray(found.coefficients)[~np.asarray(active)] == 0.0)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(found.residuals)[used], residuals, atol=1e-12)
    # The law of a draw: deviations by unit noise are a root of the covariance.
    units = jnp.where(active[:, None], jnp.eye(active.size), 0.0)
    deviations = jax.vmap(found.draw, in_axes=1)(units) - found.coefficients
    cov = np.asarray(deviations.T @ deviations)[np.ix_(active, active)]
    np.testing.assert_allclose(cov, variance * np.linalg.inv(columns.T @ columns), atol=1e-12)


def test_lags_by_the_adjusted_aic(data):
    """Against the formula row by row, with a covariance of the factors that is not zero."""
    returns, seen, factors = data
    rng = np.random.default_rng(3)
    root = rng.normal(size=(NUM_TIMES * NUM_FACTORS, 90)) / 12.0
    joint = (root @ root.T).reshape(NUM_TIMES, NUM_FACTORS, NUM_TIMES, NUM_FACTORS)
    lag_covs = np.zeros((2, NUM_TIMES, NUM_FACTORS, NUM_FACTORS))
    for lag in range(2):
        for t in range(lag, NUM_TIMES):
            lag_covs[lag, t] = joint[t, :, t - lag]
    expected = np.full((MAX_OWN + 1, MAX_LAGS + 1), np.inf)
    first = max(MAX_OWN, MAX_LAGS)
    for q in range(MAX_OWN + 1):
        for s in range(1, MAX_LAGS + 1):
            gram, cross, square, count = 0.0, 0.0, 0.0, 0
            rows = []
            for t in range(first, NUM_TIMES):
                if not seen[t] or not all(seen[t - i] for i in range(1, MAX_OWN + 1)):
                    continue
                own = [returns[t - i] for i in range(1, q + 1)]
                mean = np.concatenate([[1.0], own, *(factors[t - i] for i in range(1, s + 1))])
                spread = np.zeros((mean.size, mean.size))
                for i in range(1, s + 1):
                    for j in range(1, s + 1):
                        a, b = 1 + q + (i - 1) * 2, 1 + q + (j - 1) * 2
                        spread[a : a + 2, b : b + 2] = joint[t - i, :, t - j]
                rows.append((mean, spread, returns[t]))
            gram = sum(np.outer(z, z) + v for z, v, _ in rows)
            cross = sum(z * r for z, _, r in rows)
            theta = np.linalg.solve(gram, cross)
            square = sum((r - z @ theta) ** 2 + theta @ v @ theta for z, v, r in rows)
            count = len(rows)
            expected[q, s] = count * np.log(square / count) + 2 * theta.size
    choose = jax.jit(choose_lags, static_argnums=(5, 6, 7, 8))
    args = returns, seen, factors, lag_covs
    choice = choose(*args, sizes(2, 0, 0), MAX_OWN, MAX_LAGS, 0, 1)
    np.testing.assert_allclose(choice.aic, expected, rtol=1e-10)
    best = np.unravel_index(np.argmin(expected), expected.shape)
    assert (int(choice.num_own_lags), int(choice.num_factor_lags)) == best
    # No more lags of the factors than their VAR has.
    short = choose(*args, sizes(2, 0, 0, num_lags=1), MAX_OWN, MAX_LAGS, 0, 1)
    assert np.all(np.isinf(short.aic[:, 2])) and int(short.num_factor_lags) == 1


def test_carrying_ahead_is_the_recursion():
    rng = np.random.default_rng(0)
    shapes = (3, 2), (3, 4), (2,)
    own, inputs, last = (jnp.asarray(0.4 * rng.normal(size=shape)) for shape in shapes)
    path = carry_ahead(own, inputs, last)
    for c in range(3):
        history = list(last[::-1])
        for h in range(4):
            history.append(inputs[c, h] + own[c, 0] * history[-1] + own[c, 1] * history[-2])
        np.testing.assert_allclose(path[c], history[2:], atol=1e-14)


def test_regressors_of_the_steps_ahead():
    path = jnp.arange(12.0).reshape(6, 2)  # ends with f_{T+1}: two steps ahead
    rows = lag_rows(path, 2, 2)
    np.testing.assert_array_equal(rows, [[8, 9, 6, 7], [10, 11, 8, 9]])


@pytest.fixture(scope="module")
def regression(data):
    returns, seen, factors = data
    found, _, weights = masked_regression(returns, seen, factors, sizes(2, 1, 1))
    return found, weights


def ewma(residuals, weights, decay):
    """Exponentially weighted mean square after every row, rows of weight zero left out."""
    kept = [e for e, w in zip(residuals, weights, strict=True) if w]
    powers = decay ** np.arange(len(kept))[::-1]
    return powers @ np.square(kept) / powers.sum()


def test_residuals_have_the_scale_they_should(regression):
    found, weights = regression
    keys = jax.random.split(jax.random.key(0), 20_000)
    recent = ewma(np.asarray(found.residuals), np.asarray(weights), 0.9)
    # The variance of the regression allows for its coefficients, a mean of squares does not.
    recent *= float(found.variance * weights.sum() / jnp.sum(found.residuals**2))
    cases = [
        (NormalResiduals(), found.variance),
        (EmpiricalResiduals(), found.variance),
        (VolatilityScaled(0.9), recent),
        (VolatilityScaled(0.9, empirical=True), recent),
    ]
    for law, variance in cases:
        draws = np.asarray(jax.vmap(lambda k, law=law: law.draw(found, weights, 2, key=k))(keys))
        kurtosis = np.mean(draws**4) / np.mean(draws**2) ** 2
        error = np.sqrt((kurtosis - 1.0) / draws.size)
        assert abs(np.mean(draws**2) / variance - 1.0) < 5 * error
        assert abs(draws.mean()) < 5 * np.sqrt(variance / draws.size)
    values = np.asarray(jax.vmap(lambda k: cases[1][0].draw(found, weights, 2, key=k))(keys))
    assert len(np.unique(values)) <= int(weights.sum())
