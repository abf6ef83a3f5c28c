"""M-step for low-frequency flows in one step: loadings and variances from their rows over a window.

Given the factors and the shared scalars s the rows are independent (`flow_rows`), so with the bands
U = [Q A]' K^{-1} [Q A] of each flow

    (sum_{t,d} U_FF[t,t-d] E[z_t z_{t-d}']) w = (Q'K^{-1}y)' E[z] - sum_{t,d} U_Fs[t,t-d] E[z_t
    s_{t-d}]

and the variance is the mean, over rows and active scalars, of E(y - w'Qz - A s)^2 / K and E s^2.
"""

import jax.numpy as jnp

from jaxfc.factors.coupled import CoupledResiduals, Coupling
from jaxfc.factors.error_step import LaggedRegression
from jaxfc.factors.moments import FactorPosterior
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import packed_indices, unpack
from jaxfc_kernels.flow_rows import row_transpose


def shared_products(
    lagged: LaggedRegression, states: FactorPosterior, num_factors: int, window: int
) -> tuple[
    Float[Array, "window time regressors flows"], Float[Array, "window time regressors flows"]
]:
    """E[z_t s_{t-d}'] and E[z_{t-d} s_t'] for d = 0..window - 1 (zero where t < d)."""
    regressors = lagged.regression.regressors
    shared = states.means[:, num_factors:]
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
        earlier_shared = jnp.pad(shared[: num_times - order], pad)
        earlier = jnp.pad(regressors[: num_times - order], pad)
        forward.append(regressors[:, :, None] * earlier_shared[:, None, :])
        backward.append(earlier[:, :, None] * shared[:, None, :])
    return ahead + jnp.stack(forward), back + jnp.stack(backward)


def flow_moments(
    lagged: LaggedRegression,
    coupling: Coupling,
    states: FactorPosterior,
    num_factors: int,
    values: Float[Array, "time flows"],
) -> tuple[Float[Array, "flows regressors regressors"], Float[Array, "flows regressors"]]:
    """Normal equations of the flows' loadings (`values`: their rows, zero where not observed)."""
    flows = coupling.flows
    assert flows is not None
    window = flows.bands.shape[0]
    regressors = lagged.regression.regressors
    size = regressors.shape[1]
    rows, columns, _ = packed_indices(size)
    own = lagged.regression.packed_covs + regressors[:, rows] * regressors[:, columns]
    moments = flows.bands[0, :, 0, 0].T @ own
    for order in range(1, window):
        moments = moments + flows.bands[order, :, 0, 0].T @ lagged.seconds[order - 1]
    forward, backward = shared_products(lagged, states, num_factors, window)
    cross = row_transpose(flows, values)[:, 0].T @ regressors
    cross = cross - jnp.einsum("dtj,dtkj->jk", flows.bands[:, :, 0, 1], forward)
    cross = cross - jnp.einsum("dtj,dtkj->jk", flows.bands[1:, :, 1, 0], backward[1:])
    return unpack(moments, size), cross


def flow_variances(
    lagged: LaggedRegression,
    coupling: Coupling,
    states: FactorPosterior,
    num_factors: int,
    coefficients: Float[Array, "flows regressors"],
    residuals: CoupledResiduals,
) -> Float[Array, " flows"]:
    """Variances given the new coefficients and the residuals they leave at posterior means."""
    flows = coupling.flows
    assert flows is not None
    window = flows.bands.shape[0]
    size = coefficients.shape[1]
    rows, columns, _ = packed_indices(size)
    outer = (coefficients[:, rows] * coefficients[:, columns]).T
    doubled = jnp.where(jnp.asarray(rows == columns)[:, None], outer, 2.0 * outer)
    common = [lagged.regression.packed_covs @ doubled]
    common += [lagged.covs[order - 1] @ doubled for order in range(1, window)]
    weights = coefficients[:, :num_factors]
    covs = states.lag_covs[:window]
    ahead = jnp.einsum("dtkj,jk->dtj", covs[:, :, :num_factors, num_factors:], weights)
    back = jnp.einsum("dtjk,jk->dtj", covs[:, :, num_factors:, :num_factors], weights)
    shared = jnp.einsum("dtjj->dtj", covs[:, :, num_factors:, num_factors:])
    bands = flows.bands
    spread = bands[:, :, 0, 0] * jnp.stack(common) + bands[:, :, 0, 1] * ahead
    spread = spread + bands[:, :, 1, 0] * back + bands[:, :, 1, 1] * shared
    twice = jnp.where(jnp.arange(window) == 0, 1.0, 2.0)[:, None, None]
    squares = jnp.sum(twice * spread, axis=(0, 1))
    squares = squares + jnp.sum(residuals.rows**2 / flows.noise, axis=0)
    of_shared = residuals.shared**2 + shared[0]
    squares = squares + jnp.sum(flows.active * of_shared, axis=0)
    counts = jnp.sum(flows.observed, axis=0) + jnp.sum(flows.active, axis=0)
    return squares / jnp.maximum(counts, 1.0)
