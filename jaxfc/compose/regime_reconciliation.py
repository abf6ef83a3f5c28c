"""Mixtures over regimes made to add up, each regime by itself: the law stays a mixture."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import Hierarchy, Method, MinT, reconcile
from jaxfc.regimes import RegimeForecast
from jaxfc.typing import Array


def reconcile_regimes(
    forecast: RegimeForecast, hierarchy: Hierarchy, method: Method | None = None
) -> RegimeForecast:
    """A coherent mixture: rows of regime k become M_k y, so that mu~_k = M_k mu_k,
    V~_k = M_k V_k M_k'.

    With MinT("forecast"), the default, M_k is the projection in the metric of V_k, the best map
    while regime k rules; a method with one covariance (`MinT(cov)`, `WLS(variances)`, `BottomUp()`)
    gives one map for all. Means, covariances, running sums and draws add up (draws to the root of
    rounding, as their covariance is singular), and moments, quantiles and draws stay the exact ones
    of a mixture; `reconcile` keeps the moments alone, and takes quantiles as if the law were
    normal.

    Probabilities of the regimes stay those of the base forecast: that a regime makes the base
    forecasts of groups and series contradict each other is not held against it.

    **Arguments:** `forecast` of the nodes in the order of `hierarchy.names`, or running sums of
    one, in the units in which nodes add up.

    **Raises:** `ValueError` for a forecast that was shifted by `affine` (reconcile before), and
    what `reconcile` raises.

    Source: Hamilton (1994), chapter 22; Wickramasuriya, Athanasopoulos and Hyndman (2019).
    """
    if not isinstance(forecast.shift, Tracer) and np.any(np.asarray(forecast.shift)):
        raise ValueError(
            "the forecast was shifted by affine(scale, shift), so that its regimes do not lie "
            "where the hierarchy adds up; reconcile first, then change the units."
        )
    how = MinT("forecast") if method is None else method

    def one(mean: Array, cov: Array) -> tuple[Array, Array]:
        law = reconcile(
            GaussianForecast(mean[None], cov[None, :, None]), hierarchy, how, missing=()
        )
        return law.mean[0], law.cov[0, :, 0]

    means, covs = jax.vmap(one)(forecast.means, forecast.regime_covs)
    factor = forecast.tails.cov_factor.astype(covs.dtype)
    scatters = 0.5 * (covs + jnp.swapaxes(covs, 1, 2)) / factor
    return forecast.changed(means=means, scatters=scatters)
