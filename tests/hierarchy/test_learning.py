"""Reconciliation learnt: the intensity of shrinkage by the energy score, through `reconcile`; and
gradients of the score by covariance, weights and base forecasts against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from jaxfc.forecast import SampleForecast
from jaxfc.hierarchy import Hierarchy, MinT, reconcile

pytestmark = pytest.mark.slow

MATRIX = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])


def energy_score(draws, outcome):
    """mean |X - y| - mean |X - X'| / 2, the distance between different draws."""
    count = draws.shape[0]
    near = jnp.mean(jnp.linalg.norm(draws - outcome, axis=-1))
    gaps = draws[:, None] - draws[None]
    apart = jnp.arange(count)[:, None] != jnp.arange(count)[None]
    # The norm has no slope at zero: equal draws are left out before the root.
    squares = jnp.where(apart, jnp.sum(gaps**2, axis=-1), 1.0)
    spread = jnp.sum(jnp.where(apart, jnp.sqrt(squares), 0.0)) / (count * (count - 1))
    return near - 0.5 * spread


@pytest.fixture(scope="module")
def world():
    """Twelve dates of correlated residuals, and forecasts of 60 dates that were held out."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(MATRIX, index=["total", "A", "B"], columns=["a", "b", "c", "d"])
    hierarchy = Hierarchy.from_matrix(frame)
    common = np.array([2.0, 1.0, 1.0, 1.0, 0.5, 0.8, 0.1])
    root = np.concatenate([common[:, None], np.diag(rng.uniform(0.3, 1.0, 7))], axis=1)
    residuals = rng.normal(size=(12, 8)) @ root.T
    outcomes = rng.normal(size=(60, 4)) @ np.vstack([MATRIX, np.eye(4)]).T
    means = outcomes - rng.normal(size=(60, 8)) @ root.T
    noise = rng.normal(size=(20, 1, 8)) @ root.T
    return hierarchy, *map(jnp.asarray, (residuals, outcomes, means, noise))


@pytest.fixture(scope="module")
def loss(world):
    """The mean score as a function of the logit of the intensity."""
    hierarchy, residuals, outcomes, means, noise = world

    @jax.jit
    def mean_score(logit):
        method = MinT("shrink", intensity=jax.nn.sigmoid(logit))

        def score(mean, outcome):
            base = SampleForecast(mean + noise)
            law = reconcile(base, hierarchy, method, residuals=residuals, missing=())
            assert isinstance(law, SampleForecast)
            return energy_score(law.draws[:, 0], outcome)

        return jnp.mean(jax.vmap(score)(means, outcomes))

    return mean_score


@pytest.fixture(scope="module")
def slope(loss):
    return jax.jit(jax.value_and_grad(loss))


def test_the_intensity_is_learnt(loss, slope):
    """Gradient steps end at the minimum over a grid of intensities."""
    optimiser = optax.adam(0.3)
    logit = jnp.asarray(4.0)
    state = optimiser.init(logit)
    scores = []
    for _ in range(60):
        value, gradient = slope(logit)
        scores.append(float(value))
        update, state = optimiser.update(gradient, state)
        logit = optax.apply_updates(logit, update)
    grid = jnp.linspace(-6.0, 6.0, 121)
    along = jax.jit(jax.vmap(loss))(grid)
    best = int(jnp.argmin(along))
    assert 5 < best < 115
    assert scores[0] - scores[-1] > 0.01
    assert scores[-1] == pytest.approx(float(along[best]), abs=1e-4)
    assert abs(float(logit - grid[best])) < 0.3


def test_slope_by_the_intensity(loss, slope):
    step = 1e-5
    for logit in (-2.0, 0.5, 3.0):
        numeric = float(loss(logit + step) - loss(logit - step)) / (2 * step)
        assert float(slope(jnp.asarray(logit))[1]) == pytest.approx(numeric, rel=1e-6, abs=1e-9)


def test_slopes_by_covariance_weights_and_base_forecasts(world):
    hierarchy, _, outcomes, means, noise = world
    rng = np.random.default_rng(1)

    def score(root, weights, mean):
        method = MinT(root @ root.T + jnp.eye(7))
        law = reconcile(
            SampleForecast(mean + noise), hierarchy.with_weights(weights), method, missing=()
        )
        assert isinstance(law, SampleForecast)
        return energy_score(law.draws[:, 0], outcomes[0])

    args = (
        jnp.asarray(rng.normal(size=(7, 7))),
        jnp.asarray(rng.uniform(0.2, 1.0, size=4)),
        means[:1],
    )
    value, slopes = jax.jit(score), jax.jit(jax.grad(score, argnums=(0, 1, 2)))(*args)
    for index, slope in enumerate(slopes):
        way, step = jnp.asarray(rng.normal(size=slope.shape)), 1e-5

        def moved(size, index=index, way=way):
            return value(*(a + size * way if i == index else a for i, a in enumerate(args)))

        numeric = float(moved(step) - moved(-step)) / (2 * step)
        assert abs(numeric) > 1e-3
        assert float(jnp.sum(slope * way)) == pytest.approx(numeric, rel=1e-6)
