"""M-step for the errors of flows with memory: (r, S) given the loadings.

With the notation of `flow_memory`, the row at the end of block b leaves the residual

    y_b - (Q w'z)_b - g_P a_b - (h_P + g_N) a_{b-1} - h_N a_{b-2} - k_P s_b - k_N s_{b-1}

of variance S K_b, and the ends leave a_b - r^n a_{b-1} of variance S (1 - r^2n). All coefficients
and K are functions of r, so that with the posterior moments of (y_b - (Q w'z)_b, s_b, s_{b-1}, a_b,
a_{b-1}, a_{b-2}) held fixed, at the best S for each r, the criterion is a function of r alone,
which safeguarded Newton steps lower (ECM, Meng and Rubin 1993).
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.factors.error_step import lower_criterion
from jaxfc.factors.flow_step import FlowMoments
from jaxfc.typing import Array, Float
from jaxfc_kernels.flow_memory import (
    FlowPattern,
    at_previous,
    block_law,
    link_coefficients,
)
from jaxfc_kernels.flow_rows import FlowRows, behind, row_values

# What a row depends on besides factors: how many ends back, and which scalar (1: s, 2: a).
ENDS_BACK = (0, 1, 0, 1, 2)
SLOTS = (1, 1, 2, 2, 2)


class RowMoments(NamedTuple):
    """Posterior mean (6, time, J) and covariance (6, 6, time, J) of (y - Q w'z, s_b, s_{b-1}, a_b,
    a_{b-1}, a_{b-2}) at every end of a block, whatever stands elsewhere."""

    mean: Array
    cov: Array


def row_moments(flows: FlowRows, pattern: FlowPattern, moments: FlowMoments) -> RowMoments:
    """Moments by row out of those by lag."""
    num_times, num_flows = pattern.end.shape
    window = moments.covs.shape[0]
    times, each = jnp.arange(num_times)[:, None], jnp.arange(num_flows)
    before = jnp.minimum(pattern.previous, times)
    ends = jnp.stack([jnp.broadcast_to(times, before.shape), before, before[before, each]])
    places, slots = ends[jnp.asarray(ENDS_BACK)], jnp.asarray(SLOTS)[:, None, None]

    def cov_at(place: Array, slot: Array, other: Array, other_slot: Array) -> Array:
        """Cov of two scalars at any two periods less than a window apart."""
        later, order = jnp.maximum(place, other), jnp.abs(place - other)
        first, second = (
            jnp.where(place >= other, one, two)
            for one, two in ((slot, other_slot), (other_slot, slot))
        )
        order = jnp.minimum(order, window - 1)
        return moments.covs[order, jnp.maximum(later, 0), first, second, each]

    scalars = cov_at(places[:, None], slots[:, None], places[None], slots[None])
    lags = jnp.arange(window)
    weights = flows.entering[jnp.maximum(times - lags, 0), lags, 0] * (times >= lags)[..., None]
    # (5, time, window, J): of what enters the row l periods back, with each scalar.
    entering = (times - lags)[..., None]
    cross = cov_at(entering, jnp.zeros_like(slots)[..., None], places[:, :, None], slots[..., None])
    cross = -jnp.sum(weights * cross, axis=2)
    own = jnp.zeros_like(moments.common)
    for order in range(window):
        pairs = weights[:, : window - order] * weights[:, order:]
        lagged = behind(moments.covs[order, :, 0, 0], window)[:, : window - order]
        own = own + (1.0 if order == 0 else 2.0) * jnp.sum(pairs * lagged, axis=1)
    top = jnp.concatenate([own[None], cross])[None]
    cov = jnp.concatenate([top, jnp.concatenate([cross[:, None], scalars], axis=1)])
    left = moments.centred - row_values(flows, moments.common, jnp.zeros_like(moments.scalars))
    known = moments.scalars[places, slots - 1, each]
    return RowMoments(jnp.concatenate([left[None], known]), cov)


def concentrated_flows(
    ar: Float[Array, " flows"], flows: FlowRows, pattern: FlowPattern, moments: RowMoments
) -> tuple[Float[Array, " flows"], Float[Array, " flows"]]:
    """The criterion at the best S for each r, and that S."""
    window, seen = flows.entering.shape[1], flows.observed
    law = block_law(pattern, ar, window)
    coefficients = jnp.stack(
        [
            jnp.ones_like(law.own_end),
            -law.own_shared,
            -at_previous(pattern, law.next_shared),
            -law.own_end,
            -law.own_previous - at_previous(pattern, law.next_end),
            -at_previous(pattern, law.next_previous),
        ]
    )
    noise = jnp.where(seen > 0, law.own_noise + at_previous(pattern, law.next_noise), 1.0)
    squares = jnp.sum(coefficients * moments.mean, axis=0) ** 2
    spread = jnp.sum(coefficients[:, None] * coefficients * moments.cov, axis=(0, 1))
    total = jnp.sum(seen * (squares + spread) / noise, axis=0)
    shared = moments.mean[1] ** 2 + moments.cov[1, 1]
    total = total + jnp.sum(pattern.shares * shared, axis=0)
    link = link_coefficients(pattern, ar, window)
    variance = 1.0 - link**2
    innovation = (moments.mean[3] - link * moments.mean[4]) ** 2 + moments.cov[3, 3]
    innovation = innovation - 2.0 * link * moments.cov[3, 4] + link**2 * moments.cov[4, 4]
    total = total + jnp.sum(pattern.counted * innovation / variance, axis=0)
    counts = jnp.sum(seen + pattern.shares + pattern.counted, axis=0)
    counts = jnp.maximum(counts, 1.0)
    logs = jnp.sum(seen * jnp.log(noise) + pattern.counted * jnp.log(variance), axis=0)
    best = total / counts
    return counts * jnp.log(best) + logs, best


def flow_autoregression(
    ar: Float[Array, " flows"],
    flows: FlowRows,
    pattern: FlowPattern,
    moments: FlowMoments,
    largest: Float[Array, ""] | None,
) -> tuple[Float[Array, " flows"], Float[Array, " flows"]]:
    """Better (or equal) r of each flow (`largest` None: r as it is) and its S."""
    by_row = row_moments(flows, pattern, moments)
    if largest is not None:
        counts = jnp.sum(flows.observed, axis=0)
        ar = lower_criterion(
            lambda r: concentrated_flows(r, flows, pattern, by_row)[0], ar, counts, largest
        )
    return ar, concentrated_flows(ar, flows, pattern, by_row)[1]
