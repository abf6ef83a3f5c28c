"""Queues whose rates depend on their size, around a reference price that moves when they empty."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.arguments import check_not_negative
from jaxfc.counts import check_counts
from jaxfc.microstructure.events import BookEvents, EventKind
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar

KINDS = (EventKind.ADD, EventKind.DELETE, EventKind.EXECUTE)
KIND_CODES = np.array(KINDS, np.int32)


class QueueReactive(eqx.Module):
    """Model I and III of Huang, Lehalle and Rosenbaum: independent queues, and a moving reference.

    The i-th queue of either side, i = 1 .. D from the reference price, gains an order at rate
    limit[i, q] and loses one at rates cancel[i, q] and market[i, q], where q = 0 .. S is its size
    in average orders. When an event moves the mid price and leaves the first queue on that side
    empty, the reference follows by a tick with probability `move`; then, with probability `redraw`,
    all queues are drawn anew from the law of unmoved ones, else they keep their prices and the
    queue that comes into view is drawn from it.

    **Raises:** `ValueError` for negative rates, probabilities outside [0, 1], and tables that take
    from an empty queue or add to one of size S.

    Source: Huang, Lehalle and Rosenbaum (2015), sections 2.3 and 3.
    """

    limit: Float[Array, "distances sizes"]
    cancel: Float[Array, "distances sizes"]
    market: Float[Array, "distances sizes"]
    move: Float[Array, ""] = eqx.field(converter=as_scalar)
    redraw: Float[Array, ""] = eqx.field(converter=as_scalar)

    def __check_init__(self):
        check_not_negative(limit=self.limit, cancel=self.cancel, market=self.market)
        check_not_negative(move=self.move, redraw=self.redraw)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            return
        if np.any(np.asarray(self.limit)[:, -1] > 0):
            raise ValueError("limit must be zero at the largest size, beyond which no rate is.")
        if np.any(np.asarray(self.cancel)[:, 0] > 0) or np.any(np.asarray(self.market)[:, 0] > 0):
            raise ValueError("cancel and market must be zero at size 0: nothing is there to take.")
        if max(float(self.move), float(self.redraw)) > 1.0:
            raise ValueError(
                f"move and redraw are probabilities, got {self.move} and {self.redraw}."
            )

    @property
    def stationary(self) -> Float[Array, "distances sizes"]:
        """Law of the size of each queue while the reference stays: pi(q) proportional to
        prod_{j <= q} limit(j - 1) / (cancel(j) + market(j))."""
        leaving = (self.cancel + self.market)[:, 1:]
        steps = jnp.log(self.limit[:, :-1]) - jnp.log(leaving)
        first = jnp.zeros((len(steps), 1), steps.dtype)
        return jax.nn.softmax(jnp.concatenate([first, jnp.cumsum(steps, axis=1)], axis=1), axis=1)


class Queues(NamedTuple):
    """Sizes by side (bids, asks) and distance; the best possible ask is at `reference` ticks, the
    best possible bid one below."""

    sizes: Int[Array, "sides distances"]
    reference: Int[Array, ""]


class SimulatedQueues(eqx.Module):
    """Where the queues ended, the events, and sizes and reference before each of them.

    Queues drawn anew change without an event: `events` alone do not rebuild the book.
    """

    last: Queues
    events: BookEvents
    before: Queues


def draw_queues(law: QueueReactive, *, key: PRNGKeyArray) -> Queues:
    """Queues from the law of unmoved ones, the reference at zero."""
    places = jax.random.uniform(key, (2, law.limit.shape[0]), law.limit.dtype)
    return Queues(inverse_law(law.stationary, places), jnp.asarray(0, jnp.int32))


def inverse_law(
    law: Float[Array, "distances sizes"], places: Float[Array, "*batch distances"]
) -> Int[Array, "*batch distances"]:
    """Sizes at quantiles `places`."""
    bounds = jnp.cumsum(law, axis=1)[:, :-1]
    return jnp.sum(bounds <= places[..., None], axis=-1).astype(jnp.int32)


def simulate_queue_reactive(
    law: QueueReactive, queues: Queues, num_events: int, *, key: PRNGKeyArray
) -> SimulatedQueues:
    """The next `num_events` events: an exact draw of the jump process, for `vmap` over books.

    **Raises:** `ValueError` for no event.
    """
    check_counts(num_events=num_events)
    num_distances = law.limit.shape[0]
    dtype = law.limit.dtype
    place_key, time_key, fresh_key = jax.random.split(key, 3)
    places = jax.random.uniform(place_key, (num_events, 3), dtype)
    waits = jax.random.exponential(time_key, (num_events,), dtype)
    fresh = jax.random.uniform(fresh_key, (num_events, 2, num_distances), dtype)
    tables = jnp.stack([law.limit, law.cancel, law.market], axis=-1)
    stationary = law.stationary

    def advance(queues: Queues, draw: tuple[Array, Array, Array]):
        place, wait, fresh = draw
        rates = tables[jnp.arange(num_distances), queues.sizes].reshape(-1)
        running = jnp.cumsum(rates)
        chosen = (running > place[0] * running[-1]) & (rates > 0)
        cell = jnp.min(jnp.where(chosen, jnp.arange(len(rates), dtype=jnp.int32), len(rates) - 1))
        which, distance = cell % 3, (cell // 3) % num_distances
        is_ask = cell // (3 * num_distances)
        at = jnp.arange(len(rates) // 3).reshape(queues.sizes.shape) == cell // 3
        sizes = queues.sizes + jnp.where(which == 0, 1, -1) * at
        drawn = inverse_law(stationary, fresh)
        moves = place[1] < law.move
        new = followed(queues, sizes, drawn, moves, place[2] < law.redraw)
        price = queues.reference + jnp.where(is_ask == 1, distance, -1 - distance)
        kind = jnp.sum(jnp.where(which == jnp.arange(3), KIND_CODES, 0)).astype(jnp.int32)
        return new, (wait / running[-1], kind, 1 - 2 * is_ask, price, queues)

    last, rows = jax.lax.scan(advance, queues, (places, waits, fresh))
    gap, kind, side, price, before = rows
    size, ends = jnp.ones(num_events, jnp.int32), jnp.ones(num_events, bool)
    return SimulatedQueues(last, BookEvents(gap, kind, side, price, size, ends), before)


def followed(
    queues: Queues,
    sizes: Int[Array, "sides distances"],
    drawn: Int[Array, "sides distances"],
    moves: Bool[Array, ""],
    redraws: Bool[Array, ""],
) -> Queues:
    """The queues after an event led to `sizes`, the reference moved where it has to."""
    change = doubled_mid(sizes) - doubled_mid(queues.sizes)
    up = moves & (change > 0) & (sizes[1, 0] == 0)
    down = moves & (change < 0) & (sizes[0, 0] == 0)
    # One tick up: what was the first ask price, empty, is the first bid price.
    empty = jnp.zeros(1, sizes.dtype)
    nearer = [jnp.concatenate([sizes[i, 1:], drawn[i, -1:]]) for i in range(2)]
    further = [jnp.concatenate([empty, sizes[i, :-1]]) for i in range(2)]
    raised = jnp.stack([further[0], nearer[1]])
    lowered = jnp.stack([nearer[0], further[1]])
    shifted = jnp.where(up, raised, jnp.where(down, lowered, sizes))
    moved = up | down
    return Queues(
        jnp.where(moved & redraws, drawn, shifted),
        queues.reference + up.astype(jnp.int32) - down.astype(jnp.int32),
    )


def doubled_mid(sizes: Int[Array, "sides distances"]) -> Int[Array, ""]:
    """Twice the mid price over the reference, in ticks; a side without orders counts as just
    beyond what is seen."""
    seen = jnp.sum(jnp.cumprod(sizes == 0, axis=1), axis=1)
    return seen[1] - seen[0]


class QueueRates(NamedTuple):
    """Estimated tables, both sides pooled, and the time that queues spent at each size."""

    limit: Float[Array, "distances sizes"]
    cancel: Float[Array, "distances sizes"]
    market: Float[Array, "distances sizes"]
    exposure: Float[Array, "distances sizes"]


def estimate_queue_rates(events: BookEvents, before: Queues, *, num_sizes: int) -> QueueRates:
    """Maximum likelihood tables: events of a kind at a distance and size over the time spent there.

    Zero where no time was spent (`exposure` 0: nothing is known). Sizes of `num_sizes` - 1 and more
    share the last column.

    **Arguments:** `events` and, `before` each of them, the queues of both sides and the reference.

    Source: Huang, Lehalle and Rosenbaum (2015), section 2.3.
    """
    check_counts(num_sizes=num_sizes)
    num_distances = before.sizes.shape[2]
    sizes = jnp.minimum(before.sizes, num_sizes - 1)
    is_size = (sizes[..., None] == jnp.arange(num_sizes)).astype(events.gap.dtype)
    exposure = jnp.einsum("t,tsdq->dq", events.gap, is_size)
    offset = events.price - before.reference
    distance = jnp.where(events.side > 0, -1 - offset, offset)
    is_side = (events.side[:, None] > 0) == jnp.array([True, False])
    here = is_side[..., None] & (distance[:, None, None] == jnp.arange(num_distances))

    def rate(kind: EventKind) -> Array:
        weights = (here & (events.kind == kind)[:, None, None]).astype(is_size.dtype)
        counts = jnp.einsum("tsd,tsdq->dq", weights, is_size)
        return jnp.where(exposure > 0, counts / jnp.where(exposure > 0, exposure, 1.0), 0.0)

    limit, cancel, market = (rate(kind) for kind in KINDS)
    return QueueRates(limit, cancel, market, exposure)
