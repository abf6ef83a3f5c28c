"""Benchmark models against least squares by NumPy and a loop over horizons."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jaxtyping import TypeCheckError

from jaxfc.evaluation.benchmarks import FirstOrder, benchmark_models
from jaxfc.panel import Panel

RNG = np.random.default_rng(5)
VALUES = RNG.normal(size=(25, 2)).cumsum(axis=0) * 0.3 + 0.2
OBSERVED = RNG.random((25, 2)) > 0.15
OBSERVED[-1] = [True, False]
OBSERVED[-2] = True


def by_hand(name, column, horizon):
    """Coefficients by lstsq, the mean and variance of the forecast by recursion."""
    y, seen = VALUES[:, column], OBSERVED[:, column]
    pairs = seen[1:] & seen[:-1]
    before, after = y[:-1][pairs], y[1:][pairs]
    if name == "AR(1)":
        design = np.column_stack([np.ones(len(before)), before])
        c, phi = np.linalg.lstsq(design, after, rcond=None)[0]
    else:
        c = after.mean() if name == "historical mean" else 0.0
        phi = 1.0 if name == "random walk" else 0.0
    variance = np.mean((after - c - phi * before) ** 2)
    last = np.flatnonzero(seen)[-1]
    mean, var, out = y[last], 0.0, []
    for row in range(last + 1, len(y) + horizon):
        mean, var = c + phi * mean, phi**2 * var + variance
        if row >= len(y):
            out.append((mean, np.sqrt(var)))
    return np.array(out)


@pytest.mark.parametrize("name", ["zero", "random walk", "historical mean", "AR(1)"])
def test_forecasts_by_hand(name):
    fitted = benchmark_models()[name].estimate(jnp.asarray(VALUES), jnp.asarray(OBSERVED))
    forecast = fitted.forecast(3)
    for column in range(2):
        expected = by_hand(name, column, 3)
        np.testing.assert_allclose(forecast.mean[:, column], expected[:, 0], atol=1e-12)
        np.testing.assert_allclose(forecast.std[:, column], expected[:, 1], rtol=1e-10)
    cross = np.asarray(forecast.cov)[:, 0, :, 1]
    assert np.all(cross == 0.0)


def test_sum_of_a_random_walk_has_the_variance_of_its_paths():
    fitted = FirstOrder("zero", "one").estimate(jnp.asarray(VALUES), jnp.asarray(OBSERVED))
    variance = float(fitted.variance[0])
    # y1 + y2 = 2 y0 + 2 e1 + e2.
    assert float(fitted.forecast(2).cumulative().std[1, 0]) == pytest.approx(
        np.sqrt(5 * variance), rel=1e-12
    )


def test_simulated_paths_have_the_law_of_the_model():
    stationary = jnp.asarray(np.diff(VALUES, axis=0))
    fitted = FirstOrder("estimated", "estimated").estimate(
        stationary, jnp.ones(stationary.shape, bool)
    )
    path = np.asarray(fitted.simulate(20_000, key=jax.random.key(1)))
    phi, c = np.asarray(fitted.slope), np.asarray(fitted.intercept)
    errors = path[1:] - c - phi * path[:-1]
    np.testing.assert_allclose(errors.var(axis=0), fitted.variance, rtol=0.05)


def test_refusals():
    dates = pd.date_range("2020-01-03", periods=25, freq="W-FRI")
    thin = pd.DataFrame(VALUES, index=dates, columns=["a", "b"])
    thin.loc[dates[3:], "b"] = np.nan
    with pytest.raises(ValueError, match="'b' has 2 pairs"):
        FirstOrder("zero", "zero").fit(Panel.from_frame(thin))
    # The annotation refuses first where annotations are enforced, as in the test run.
    with pytest.raises((ValueError, TypeCheckError), match="intercept"):
        FirstOrder("none", "zero")
    with pytest.raises((ValueError, TypeCheckError), match="slope"):
        FirstOrder("zero", "two")
    fitted = FirstOrder("zero", "zero").estimate(jnp.asarray(VALUES), jnp.asarray(OBSERVED))
    with pytest.raises(ValueError, match="horizon"):
        fitted.forecast(0)
    with pytest.raises(ValueError, match="omit `key`"):
        fitted.forecast(1, key=jax.random.key(0))
