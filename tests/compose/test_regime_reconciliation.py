"""Switching factors of all nodes, reconciled regime by regime: dense algebra, draws, sums."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from jaxfc.compose.regime_reconciliation import reconcile_regimes
from jaxfc.forecast import Forecast
from jaxfc.hierarchy import Hierarchy, MinT, reconcile
from jaxfc.regimes import GaussianTails, MarketSectorCovariance, RegimeForecast, RegimeModel
from jaxfc.typing import Array

MATRIX = np.array([[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
SUMMING = np.vstack([MATRIX, np.eye(4)])
HIERARCHY = Hierarchy.from_matrix(
    pd.DataFrame(MATRIX, index=["market", "A", "B"], columns=["a", "b", "c", "d"])
)
HORIZON = 3


COV = np.diag([0.3, 0.2, 0.2, 0.5, 0.4, 0.6, 0.7])


class Answers(NamedTuple):
    """The base mixture, and what is asked of the reconciled one."""

    base: RegimeForecast
    coherent: RegimeForecast
    cov: Array
    quantiles: Array
    draws: Array
    sums: RegimeForecast
    sum_quantiles: Array
    normal_quantiles: Array
    one_map: RegimeForecast
    one_map_cov: Array
    one_map_sums_cov: Array
    moments: Forecast
    moments_cov: Array
    moments_sums_cov: Array


def mixture():
    """Calm and crisis: the market as a factor of all nodes, which have errors of their own, so that
    base forecasts contradict each other."""
    rng = np.random.default_rng(0)
    loads = SUMMING @ np.array([1.0, 0.8, 1.2, 0.9])
    own = rng.uniform(0.2, 0.8, (2, 7))
    shapes = [np.outer(loads, loads) + np.diag(variances) for variances in own]
    return {
        "state": jnp.asarray([0.7, 0.3]),
        "transition": jnp.asarray([[0.97, 0.03], [0.08, 0.92]]),
        "means": jnp.asarray(rng.normal(size=(2, 7))),
        "scatters": jnp.asarray([0.3 * shapes[0], 4.0 * shapes[1]]),
    }


@pytest.fixture(scope="module")
def answers():
    @jax.jit
    def run(parts):
        base = RegimeForecast.ahead(**parts, tails=GaussianTails(), horizon=HORIZON)
        coherent = reconcile_regimes(base, HIERARCHY)
        own = MinT(jnp.asarray(COV))
        sums, one_map = coherent.cumulative(), reconcile_regimes(base, HIERARCHY, own)
        moments = reconcile(base, HIERARCHY, own, missing=())
        normal = reconcile(base, HIERARCHY, MinT("forecast"), missing=())
        return Answers(
            base=base,
            coherent=coherent,
            cov=coherent.cov,
            quantiles=coherent.quantile(0.01),
            draws=coherent.sample(50, key=jax.random.key(0)),
            sums=sums,
            sum_quantiles=sums.quantile(0.05),
            normal_quantiles=normal.quantile(0.01),
            one_map=one_map,
            one_map_cov=one_map.cov,
            one_map_sums_cov=reconcile_regimes(base.cumulative(), HIERARCHY, own).cov,
            moments=moments,
            moments_cov=moments.cov,
            moments_sums_cov=moments.cumulative().cov,
        )

    return run(mixture())


def dense_map(cov):
    """S (S' W^-1 S)^-1 S' W^-1."""
    inverse = np.linalg.inv(cov)
    return SUMMING @ np.linalg.solve(SUMMING.T @ inverse @ SUMMING, SUMMING.T @ inverse)


def test_every_regime_has_the_projection_of_its_covariance(answers):
    base, coherent = answers.base, answers.coherent
    maps = []
    for k in range(2):
        cov = np.asarray(base.regime_covs[k])
        maps.append(dense_map(cov))
        np.testing.assert_allclose(coherent.means[k], maps[k] @ base.means[k], atol=1e-12)
        np.testing.assert_allclose(coherent.regime_covs[k], maps[k] @ cov @ maps[k].T, atol=1e-12)
    # The maps differ: what is best in the crisis is not in calm times.
    assert np.abs(maps[0] - maps[1]).max() > 1e-2


def test_moments_and_quantiles_are_those_of_the_mixture(answers):
    law = np.asarray(answers.base.probabilities)
    means, covs = np.asarray(answers.coherent.means), np.asarray(answers.coherent.regime_covs)
    for h in range(HORIZON):
        mean = law[h] @ means
        second = np.einsum("k,kij->ij", law[h], covs + means[:, :, None] * means[:, None, :])
        np.testing.assert_allclose(answers.coherent.mean[h], mean, atol=1e-12)
        np.testing.assert_allclose(answers.cov[h, :, h], second - np.outer(mean, mean), atol=1e-12)
    stds = np.sqrt(covs[:, 0, 0])
    exact = optimize.brentq(lambda x: law[0] @ stats.norm.cdf(x, means[:, 0], stds) - 0.01, -20, 0)
    assert float(answers.quantiles[0, 0]) == pytest.approx(exact, abs=1e-9)
    # Moments with quantiles of a normal law miss the tail.
    assert abs(float(answers.normal_quantiles[0, 0]) - exact) > 0.2


def test_draws_and_sums_add_up(answers):
    """Draws to the root of rounding: a covariance that adds up has no better factor."""
    draws = np.asarray(answers.draws)
    np.testing.assert_allclose(draws[..., :3], draws[..., 3:] @ MATRIX.T, atol=1e-6)
    mean = np.asarray(answers.sums.mean)
    np.testing.assert_allclose(mean[:, :3], mean[:, 3:] @ MATRIX.T, atol=1e-12)
    assert np.all(np.diff(np.asarray(answers.sum_quantiles)[:, 0]) < 0)


def test_one_covariance_gives_the_moments_of_reconcile(answers):
    """With one map for all regimes both ways have the same means and covariances."""
    np.testing.assert_allclose(answers.one_map.mean, answers.moments.mean, atol=1e-12)
    np.testing.assert_allclose(answers.one_map_cov, answers.moments_cov, atol=1e-11)
    np.testing.assert_allclose(answers.one_map_sums_cov, answers.moments_sums_cov, atol=1e-11)


def test_a_shifted_forecast_is_refused(answers):
    shifted = answers.base.changed(shift=jnp.ones((HORIZON, 7)))
    with pytest.raises(ValueError, match="reconcile first"):
        reconcile_regimes(shifted, HIERARCHY)


@pytest.mark.slow
def test_an_estimated_switching_factor_model_adds_up():
    rng = np.random.default_rng(0)
    loads, rows, regime = np.array([1.0, 0.8, 1.2, 0.9]), [], 0
    for _ in range(400):
        regime = rng.choice(2, p=[[0.97, 0.03], [0.08, 0.92]][regime])
        size = (0.5, 2.0)[regime]
        assets = (0.1, -0.3)[regime] + size * (loads * rng.normal() + 0.6 * rng.normal(size=4))
        rows.append(SUMMING @ assets + 0.1 * size * rng.normal(size=7))
    model = RegimeModel(2, MarketSectorCovariance(), max_steps=60)

    @jax.jit
    def ahead(values):
        fitted = model.estimate(values, jnp.ones(values.shape, bool))
        return reconcile_regimes(fitted.forecast(HORIZON), HIERARCHY)

    coherent = ahead(jnp.asarray(rows))
    means, covs = np.asarray(coherent.means), np.asarray(coherent.regime_covs)
    np.testing.assert_allclose(means[:, :3], means[:, 3:] @ MATRIX.T, atol=1e-12)
    bottom = covs[:, 3:, 3:]
    np.testing.assert_allclose(covs, SUMMING @ bottom @ SUMMING.T, atol=1e-12)
    assert np.all(np.diagonal(bottom[1]) > 3 * np.diagonal(bottom[0]))
