"""Exact simulation of Hawkes processes with exponential kernels, one event a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.microstructure.hawkes_law import HawkesLaw
from jaxfc.typing import Array, Float, Int, PRNGKeyArray


class HawkesPath(NamedTuple):
    """Events of a path, and the excitation after the last of them, from which it can go on."""

    gap: Float[Array, " events"]
    kind: Int[Array, " events"]
    excitation: Float[Array, "types types"]


def simulate_hawkes(
    law: HawkesLaw,
    num_events: int,
    *,
    key: PRNGKeyArray,
    excitation: Float[Array, "types types"] | None = None,
) -> HawkesPath:
    """The next `num_events` events, from no past or from the `excitation` of one.

    The next event is the first of independent clocks: one at each constant rate mu_i, and one at
    each decaying rate r_ij exp(-beta_ij t), which rings at -ln(1 - beta_ij E / r_ij) / beta_ij or,
    where the logarithm does not exist, never; E are standard exponentials. Nothing is rejected, so
    each step of the scan yields an event of every path of a `vmap`.

    **Raises:** `ValueError` for no event.

    Source: Dassios and Zhao (2013), for one type.
    """
    check_counts(num_events=num_events)
    num_types = len(law.baseline)
    dtype = law.baseline.dtype
    if excitation is None:
        excitation = jnp.zeros((num_types, num_types), dtype)
    draws = jax.random.exponential(key, (num_events, num_types, num_types + 1), dtype)

    def advance(excitation: Array, draw: Array):
        steady = jnp.where(law.baseline > 0, draw[:, 0] / law.baseline, jnp.inf)
        needed = law.decay * draw[:, 1:]
        rings = needed < excitation
        share = needed / jnp.where(rings, excitation, 1.0)
        waits = -jnp.log1p(-jnp.where(rings, share, 0.5)) / law.decay
        first = jnp.minimum(steady, jnp.min(jnp.where(rings, waits, jnp.inf), axis=1))
        gap = jnp.min(first)
        kind = jnp.sum(jnp.cumprod(first > gap)).astype(jnp.int32)
        excitation, _ = law.after_gap(excitation, gap)
        return law.after_event(excitation, kind), (gap, kind)

    last, (gap, kind) = jax.lax.scan(advance, excitation, draws)
    return HawkesPath(gap, kind, last)
