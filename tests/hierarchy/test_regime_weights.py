"""Projections whose weights move: a regime's covariances, a mixture's, and those of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierarchy.structures import dense_gls, dense_summing, equities
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.hierarchy import MinT, RegimeMinT, reconcile, reconcile_means
from jaxfc.regimes import GaussianTails, RegimeForecast

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(8)
NODES, HORIZON = 11, 3
ROOTS = RNG.normal(size=(2, NODES, NODES))
COVS = jnp.asarray(ROOTS @ ROOTS.transpose(0, 2, 1) + 0.1 * np.eye(NODES))
STATE, TRANSITION = jnp.array([0.7, 0.3]), jnp.array([[0.9, 0.1], [0.2, 0.8]])
MEANS = jnp.asarray(RNG.normal(size=(2, NODES)))


def mixture() -> RegimeForecast:
    return RegimeForecast.ahead(
        state=STATE,
        transition=TRANSITION,
        means=MEANS,
        scatters=COVS,
        tails=GaussianTails(),
        horizon=HORIZON,
    )


def test_maps_of_regimes_are_averaged_by_predictive_probabilities():
    base = mixture()
    law = [STATE]
    for _ in range(HORIZON):
        law.append(TRANSITION.T @ law[-1])
    probabilities = jnp.stack(law[1:])
    result = reconcile_means(base.mean, equities(), RegimeMinT(COVS, probabilities))
    matrices = [dense_gls(dense_summing(equities()), np.asarray(cov)) for cov in COVS]
    for step in range(HORIZON):
        matrix = sum(p * m for p, m in zip(probabilities[step], matrices, strict=True))
        np.testing.assert_allclose(result[step], matrix @ base.mean[step], rtol=1e-8)
    np.testing.assert_allclose(equities().incoherence(result), 0.0, atol=1e-13)
    fixed = reconcile_means(
        base.mean, equities(), RegimeMinT(COVS, probabilities), immutable=("M",)
    )
    np.testing.assert_allclose(fixed[:, 0], base.mean[:, 0], rtol=1e-10)
    with pytest.raises(ValueError, match="2 covariances for 3 regimes"):
        RegimeMinT(COVS, jnp.ones((HORIZON, 3)) / 3)


def test_the_covariance_of_a_mixture_is_the_weight_of_each_step():
    base = mixture()
    law = reconcile(base, equities(), MinT("forecast"))
    dense = reconcile(GaussianForecast(base.mean, base.cov), equities(), MinT("forecast"))
    np.testing.assert_allclose(law.mean, dense.mean, rtol=1e-9)
    np.testing.assert_allclose(law.cov, dense.cov, rtol=1e-8, atol=1e-9)
    steps = [np.asarray(base.cov[h, :, h]) for h in range(HORIZON)]
    assert np.max(np.abs(steps[0] - steps[2])) > 0.1  # the weights do move
    given = reconcile_means(base.mean, equities(), MinT(jnp.asarray(np.stack(steps))))
    np.testing.assert_allclose(law.mean, given, rtol=1e-9)
    draws = law.sample(20, key=jax.random.key(0))
    np.testing.assert_allclose(equities().incoherence(draws), 0.0, atol=1e-13)
    kept = reconcile(SampleForecast(draws), equities(), MinT(jnp.asarray(np.stack(steps))))
    np.testing.assert_allclose(kept.mean, jnp.mean(draws, axis=0), rtol=1e-8, atol=1e-10)
