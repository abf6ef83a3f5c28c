"""The rows of low-frequency flows as bands of the posterior precision of factors and scalars.

With z_t = (F_t, s_t) per period, s_t the flows' scalars slot by slot (`flow_rows`, `flow_memory`),
a row y = w'Q F + A s + noise adds w w' (x) Q'K^{-1}Q, w (x) Q'K^{-1}A and A'K^{-1}A, over S.
"""

import jax.numpy as jnp

from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import Collapsed, packed_indices, unpack
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.flow_rows import FlowRows, row_transpose


def add_flows(
    collapsed: Collapsed,
    flows: FlowRows,
    loadings: Float[Array, "flows factors"],
    variances: Float[Array, " flows"],
    values: Float[Array, "time flows"],
) -> Collapsed:
    """What stocks add to the posterior precision of F, with the rows `values` of the flows and the
    prior of their scalars."""
    assert collapsed.lagged_information is not None
    num_factors = loadings.shape[1]
    num_times, num_scalars = flows.active.shape[0], flows.active[0].size
    scaled = loadings / variances[:, None]
    rows, cols, _ = packed_indices(num_factors)
    outer = scaled[:, rows] * loadings[:, cols]
    bands = flows.bands
    own = unpack(bands[:, :, 0, 0] @ outer, num_factors)
    # Scalars stand slot by slot, in each flow by flow.
    shape = (bands.shape[0], num_times, num_scalars)
    right = (bands[:, :, 0, 1:, :, None] * scaled).reshape(*shape, num_factors)
    below = (bands[:, :, 1:, 0, :, None] * scaled).reshape(*shape, num_factors)
    identity = jnp.eye(len(variances), dtype=scaled.dtype)
    corner = (bands[:, :, 1:, 1:] / variances)[..., None] * identity
    corner = jnp.swapaxes(corner, 3, 4).reshape(*shape, num_scalars)
    prior = (flows.prior / variances).reshape(-1, num_times, num_scalars)
    corner = corner.at[: prior.shape[0]].add(
        prior[..., None] * jnp.eye(num_scalars, dtype=scaled.dtype)
    )
    right = jnp.swapaxes(right, 2, 3)
    from_flows = jnp.concatenate(
        [jnp.concatenate([own, right], axis=3), jnp.concatenate([below, corner], axis=3)], axis=2
    )
    extra = ((0, 0), (0, 0), (0, num_scalars), (0, num_scalars))
    stocks = jnp.concatenate([collapsed.information[None], collapsed.lagged_information])
    orders = max(stocks.shape[0], from_flows.shape[0])
    stocks = jnp.pad(stocks, ((0, orders - stocks.shape[0]), *extra[1:]))
    total = stocks + jnp.pad(
        from_flows, ((0, orders - from_flows.shape[0]), (0, 0), (0, 0), (0, 0))
    )
    linear = row_transpose(flows, values)
    of_scalars = (linear[:, 1:] / variances).reshape(num_times, num_scalars)
    vectors = [collapsed.vectors + linear[:, 0] @ scaled, of_scalars]
    counts = jnp.sum(flows.observed, axis=0)
    logs = jnp.sum(flows.observed * (LOG_2PI + jnp.log(flows.noise)))
    counts = counts + num_times * flows.active.shape[1]
    logs = logs + jnp.sum(counts * jnp.log(variances)) + jnp.sum(jnp.log(flows.prior_variance))
    quadratic = jnp.sum(flows.observed * values**2 / (flows.noise * variances))
    return Collapsed(
        information=total[0],
        vectors=jnp.concatenate(vectors, axis=1),
        quadratic=collapsed.quadratic + quadratic,
        log_normaliser=collapsed.log_normaliser + logs,
        lagged_information=total[1:],
    )


def chain_squares(
    bands: Float[Array, "orders time slots flows"], scalars: Float[Array, "time slots flows"]
) -> Float[Array, " flows"]:
    """Quadratic form of the scalars in (a part of) their prior precision."""
    num_times = scalars.shape[0]
    total = bands[0] * scalars**2
    for order in range(1, bands.shape[0]):
        products = scalars[order:] * scalars[: num_times - order]
        total = total.at[order:].add(2.0 * bands[order, order:] * products)
    return jnp.sum(total, axis=(0, 1))
