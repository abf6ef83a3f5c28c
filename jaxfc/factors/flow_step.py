"""M-step for low-frequency flows in one step: loadings and errors from their rows over a window.

Given the factors and the scalars s (one or two a period) the rows are independent (`flow_rows`,
`flow_memory`), so with the bands U = [Q A]' K^{-1} [Q A] of each flow

    (sum_{t,d} U_FF[t,t-d] E[z_t z_{t-d}']) w = (Q'K^{-1}y)' E[z] - sum_{t,d} U_Fs[t,t-d] E[z_t
    s_{t-d}]

and the variance S is the mean, over rows and active scalars, of E(y - w'Qz - A s)^2 / K and E s^2
(with AR(1) errors: `flow_memory_step`).
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.factors.error_step import LaggedRegression
from jaxfc.factors.moments import FactorPosterior
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import packed_indices, unpack
from jaxfc_kernels.flow_rows import FlowRows, row_transpose, row_values


def scalar_products(
    lagged: LaggedRegression, states: FactorPosterior, num_factors: int, window: int
) -> tuple[
    Float[Array, "window time regressors scalars"], Float[Array, "window time regressors scalars"]
]:
    """E[z_t s_{t-d}'] and E[z_{t-d} s_t'] for d = 0..window - 1 (zero where t < d)."""
    regressors = lagged.regression.regressors
    scalars = states.means[:, num_factors:]
    covs = states.lag_covs[:window]
    ahead, back = covs[:, :, :num_factors, num_factors:], covs[:, :, num_factors:, :num_factors]
    back = jnp.swapaxes(back, 2, 3)
    if lagged.regression.with_intercept:
        extra = ((0, 0), (0, 0), (0, 1), (0, 0))
        ahead, back = jnp.pad(ahead, extra), jnp.pad(back, extra)
    num_times = regressors.shape[0]
    forward, backward = [], []
    for order in range(window):
        pad = ((order, 0), (0, 0))
        earlier_scalars = jnp.pad(scalars[: num_times - order], pad)
        earlier = jnp.pad(regressors[: num_times - order], pad)
        forward.append(regressors[:, :, None] * earlier_scalars[:, None, :])
        backward.append(earlier[:, :, None] * scalars[:, None, :])
    return ahead + jnp.stack(forward), back + jnp.stack(backward)


def flow_moments(
    lagged: LaggedRegression,
    flows: FlowRows,
    states: FactorPosterior,
    num_factors: int,
    values: Float[Array, "time flows"],
) -> tuple[Float[Array, "flows regressors regressors"], Float[Array, "flows regressors"]]:
    """Normal equations of the flows' loadings (`values`: their rows, zero where not observed)."""
    window = flows.bands.shape[0]
    regressors = lagged.regression.regressors
    size = regressors.shape[1]
    rows, columns, _ = packed_indices(size)
    own = lagged.regression.packed_covs + regressors[:, rows] * regressors[:, columns]
    moments = flows.bands[0, :, 0, 0].T @ own
    for order in range(1, window):
        moments = moments + flows.bands[order, :, 0, 0].T @ lagged.seconds[order - 1]
    forward, backward = (
        products.reshape(*products.shape[:3], *flows.active.shape[1:])
        for products in scalar_products(lagged, states, num_factors, window)
    )
    cross = row_transpose(flows, values)[:, 0].T @ regressors
    cross = cross - jnp.einsum("dtaj,dtkaj->jk", flows.bands[:, :, 0, 1:], forward)
    cross = cross - jnp.einsum("dtaj,dtkaj->jk", flows.bands[1:, :, 1:, 0], backward[1:])
    return unpack(moments, size), cross


class FlowMoments(NamedTuple):
    """Moments of u_t = (w'z_t, scalars) of each flow under the posterior, w the new loadings:
    `centred` rows (time, J), means `common` (time, J) and `scalars` (time, A, J), and `covs`
    (window, time, 1 + A, 1 + A, J) of u_t and u_{t-d}."""

    centred: Array
    common: Array
    scalars: Array
    covs: Array


def moments_of_flows(
    lagged: LaggedRegression,
    flows: FlowRows,
    states: FactorPosterior,
    coefficients: Float[Array, "flows regressors"],
    centred: Float[Array, "time flows"],
) -> FlowMoments:
    """Moments of what enters the rows; `centred` less a level that is no factor."""
    window, num_flows = flows.bands.shape[0], coefficients.shape[0]
    num_factors = states.means.shape[1] - flows.active[0].size
    rows, columns, _ = packed_indices(coefficients.shape[1])
    outer = (coefficients[:, rows] * coefficients[:, columns]).T
    doubled = jnp.where(jnp.asarray(rows == columns)[:, None], outer, 2.0 * outer)
    common = [lagged.regression.packed_covs @ doubled]
    common += [lagged.covs[order - 1] @ doubled for order in range(1, window)]
    weights = coefficients[:, :num_factors]
    covs = states.lag_covs[:window]
    slots = (*covs.shape[:2], -1, num_flows)

    def of_factors(block: Array) -> Array:
        """w_j' Cov[F, s_aj] from (window, time, factors, scalars)."""
        return jnp.einsum(
            "dtkaj,jk->dtaj", block.reshape(*slots[:2], num_factors, *slots[2:]), weights
        )

    ahead = of_factors(covs[:, :, :num_factors, num_factors:])
    back = of_factors(jnp.swapaxes(covs[:, :, num_factors:, :num_factors], 2, 3))
    scalars = covs[:, :, num_factors:, num_factors:]
    scalars = scalars.reshape(*slots[:2], ahead.shape[2], num_flows, ahead.shape[2], num_flows)
    scalars = jnp.einsum("dtajbj->dtabj", scalars)
    top = jnp.concatenate([jnp.stack(common)[:, :, None, None], ahead[:, :, None]], axis=3)
    below = jnp.concatenate([back[:, :, :, None], scalars], axis=3)
    return FlowMoments(
        centred,
        states.means[:, :num_factors] @ weights.T,
        states.means[:, num_factors:].reshape(flows.active.shape),
        jnp.concatenate([top, below], axis=2),
    )


def flow_variances(flows: FlowRows, moments: FlowMoments) -> Float[Array, " flows"]:
    """The best variance of each flow, errors independent over time, given the rest."""
    residuals = moments.centred - row_values(flows, moments.common, moments.scalars)
    twice = jnp.where(jnp.arange(flows.bands.shape[0]) == 0, 1.0, 2.0)[:, None, None]
    spread = jnp.sum(flows.bands * moments.covs, axis=(2, 3))
    squares = jnp.sum(twice * spread, axis=(0, 1))
    squares = squares + jnp.sum(flows.observed * residuals**2 / flows.noise, axis=0)
    of_scalars = moments.scalars[:, 0] ** 2 + moments.covs[0, :, 1, 1]
    squares = squares + jnp.sum(flows.active[:, 0] * of_scalars, axis=0)
    counts = jnp.sum(flows.observed, axis=0) + jnp.sum(flows.active, axis=(0, 1))
    return squares / jnp.maximum(counts, 1.0)
