"""Simulators fitted to recorded order flow: rates by distance, and rates by distance and size."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.microstructure.book import BookFault, BookStates
from jaxfc.microstructure.events import BookEvents, EventKind
from jaxfc.microstructure.queue_reactive import (
    KINDS,
    QueueRates,
    QueueReactive,
    Queues,
    estimate_queue_rates,
)
from jaxfc.microstructure.simulate_rates import FlowEstimate, OrderFlow, estimate_flow
from jaxfc.typing import Array, Bool, Float, Int


def books_before(states: BookStates) -> BookStates:
    """The book before each row: that of the row above; unknown before the first."""
    moved = jax.tree.map(lambda part: jnp.concatenate([part[:1], part[:-1]]), states)
    unknown = jnp.asarray(int(BookFault.UNKNOWN), moved.fault.dtype)
    return BookStates(
        moved.bid_price,
        moved.bid_size,
        moved.ask_price,
        moved.ask_size,
        moved.fault.at[0].set(unknown),
    )


def distances_of(events: BookEvents, before: BookStates) -> Int[Array, " time"]:
    """Ticks from the price of each row to the other side's best price; orders that came beyond it
    (it had moved within the message) count as one tick away."""
    bid, ask = before.bid_price[:, 0], before.ask_price[:, 0]
    return jnp.maximum(jnp.where(events.side > 0, ask - events.price, events.price - bid), 1)


def depth_by_distance(
    states: BookStates, num_distances: int
) -> Float[Array, "time sides distances"]:
    """Lots at 1 .. `num_distances` ticks from the other side's best price: bids, asks."""
    bids = states.ask_price[:, :1] - states.bid_price
    asks = states.ask_price - states.bid_price[:, :1]
    return depth_at(states, bids, asks, 1 + np.arange(num_distances))


def depth_at(
    states: BookStates, bids: Array, asks: Array, places: np.ndarray
) -> Float[Array, "time sides distances"]:
    """Lots of the levels whose `bids` and `asks` (a number for each level) are `places`."""
    dtype = jnp.result_type(float)
    sides = []
    for level, size in ((bids, states.bid_size), (asks, states.ask_size)):
        lots = jnp.where(states.valid[:, None], size, 0).astype(dtype)
        sides.append(jnp.sum(lots[:, :, None] * (level[:, :, None] == places), axis=1))
    return jnp.stack(sides, axis=1)


def check_levels(states: BookStates, num_distances: int) -> None:
    """Refuses states that may end before the last distance."""
    check_counts(num_distances=num_distances)
    num_levels = states.bid_size.shape[1]
    if num_levels < num_distances:
        raise ValueError(
            f"the states have {num_levels} levels, which may end before num_distances="
            f"{num_distances}; replay the log with as many."
        )


class CalibratedFlow(NamedTuple):
    """Rates of orders of `unit` lots each, the average limit order."""

    estimate: FlowEstimate
    unit: Float[Array, ""]


def calibrate_flow(events: BookEvents, states: BookStates, *, num_distances: int) -> CalibratedFlow:
    """The zero-intelligence flow of orders of one size that moves as many lots as the recorded one.

        lambda(i) = N_limit(i) / 2T,  mu = N_market / 2T * S_market / S_limit,
        theta(i) = N_cancel(i) / int Q_i dt * S_cancel / S_limit

    with S the average sizes, Q_i the orders of S_limit lots at distance i, T the time in which the
    book was known. Standard errors are those of the counts.

    **Arguments:** `events` of `level_flow` and the `states` after each of them (`replay`), with at
    least `num_distances` levels. Rows before which the book is not valid are left out.

    **Raises:** `ValueError` for too few levels.

    Source: Cont, Stoikov and Talreja (2010), section 3.2.
    """
    check_levels(states, num_distances)
    return flow_estimate(events, states, num_distances)


@eqx.filter_jit
def flow_estimate(events: BookEvents, states: BookStates, num_distances: int) -> CalibratedFlow:
    """`calibrate_flow` under one module-level `jit`."""
    before = books_before(states)
    usable = before.valid
    distance = distances_of(events, before)
    near = usable & (distance <= num_distances)
    unit, gone, traded = (
        mean_size(events, near if kind != EventKind.EXECUTE else usable, kind)
        for kind in (EventKind.ADD, EventKind.DELETE, EventKind.EXECUTE)
    )
    found = estimate_flow(
        jnp.where(usable, events.gap, 0.0),
        jnp.where(usable, events.kind, int(EventKind.NOTHING)),
        distance,
        jnp.sum(depth_by_distance(before, num_distances), axis=1) / unit,
        jnp.full(events.gap.shape, 2.0, events.gap.dtype),
    )
    gone, traded = gone / unit, traded / unit
    flow = OrderFlow(found.flow.limit, found.flow.cancel * gone, found.flow.market * traded)
    errors = found.limit_error, found.cancel_error * gone, found.market_error * traded
    return CalibratedFlow(FlowEstimate(flow, *errors), unit)


def mean_size(events: BookEvents, rows: Bool[Array, " time"], kind: EventKind) -> Array:
    """Average lots of the rows of a kind; one where there is none."""
    here = rows & (events.kind == int(kind))
    lots = jnp.sum(jnp.where(here, events.size, 0).astype(events.gap.dtype))
    count = jnp.sum(here)
    return jnp.where(count > 0, lots / jnp.maximum(count, 1), 1.0)


class CalibratedQueues(NamedTuple):
    """Tables of queues in orders of `unit` lots, and what they were estimated from."""

    rates: QueueRates
    tables: QueueRates
    unit: Float[Array, ""]

    def law(self, move: float | Array, redraw: float | Array) -> QueueReactive:
        """The model with these odds of a moved reference."""
        return QueueReactive(
            self.tables.limit,
            self.tables.cancel,
            self.tables.market,
            jnp.asarray(move, self.tables.limit.dtype),
            jnp.asarray(redraw, self.tables.limit.dtype),
        )


def calibrate_queues(
    events: BookEvents, states: BookStates, *, num_distances: int, num_sizes: int
) -> CalibratedQueues:
    """Tables of the queue-reactive model from recorded order flow.

    A queue holds q = ceil(lots / unit) orders, `unit` the average order, cancellation or execution
    within `num_distances` of the reference price. `rates` are counts over exposures; `tables` are
    their posterior means under a Gamma law of one event at the average rate r of the distance,

        (N + 1) / (E + 1 / r),

    so that sizes that were seldom seen have rates, too; limit is zero at the last size.

    **Arguments:** as in `calibrate_flow`; `num_sizes` sizes 0 .. `num_sizes` - 1, the last for all
    larger ones.

    **Raises:** `ValueError` for too few levels or sizes, and for a distance at which nothing comes
    or nothing is cancelled.

    Source: Huang, Lehalle and Rosenbaum (2015), section 2.3.
    """
    check_levels(states, num_distances)
    if num_sizes < 2:
        raise ValueError(f"num_sizes must be at least 2, got {num_sizes}.")
    rates, unit = queue_estimate(events, states, num_distances, num_sizes)
    return CalibratedQueues(rates, shrunk_tables(rates), unit)


@eqx.filter_jit
def queue_estimate(
    events: BookEvents, states: BookStates, num_distances: int, num_sizes: int
) -> tuple[QueueRates, Float[Array, ""]]:
    """Tables before they are shrunk, and the unit, under one module-level `jit`."""
    before = books_before(states)
    usable = before.valid
    reference = reference_prices(before)
    offset = events.price - reference
    place = jnp.where(events.side > 0, -1 - offset, offset)
    near = usable & (place >= 0) & (place < num_distances)
    kinds = jnp.asarray([int(kind) for kind in KINDS], events.kind.dtype)
    near &= jnp.isin(events.kind, kinds)
    lots = jnp.sum(jnp.where(near, events.size, 0).astype(events.gap.dtype))
    unit = lots / jnp.maximum(jnp.sum(near), 1)
    bids = reference[:, None] - 1 - before.bid_price
    asks = before.ask_price - reference[:, None]
    depth = depth_at(before, bids, asks, np.arange(num_distances))
    sizes = jnp.ceil(depth / unit).astype(jnp.int32)
    seen = BookEvents(
        gap=jnp.where(usable, events.gap, 0.0),
        kind=jnp.where(near, events.kind, int(EventKind.NOTHING)),
        side=events.side,
        price=events.price,
        size=events.size,
        last=events.last,
    )
    return estimate_queue_rates(seen, Queues(sizes, reference), num_sizes=num_sizes), unit


def shrunk_tables(rates: QueueRates) -> QueueRates:
    """Posterior means of the tables, zero where no event can be; host side."""
    exposures = np.asarray(rates.exposure)
    sizes = np.arange(exposures.shape[1])
    tables = []
    # Nothing is taken from a queue of size zero, whatever netted messages say.
    for name, smallest in (("limit", 0), ("cancel", 1), ("market", 1)):
        exposure = np.where(sizes >= smallest, exposures, 0.0)
        counts = np.asarray(getattr(rates, name)) * exposure
        total = counts.sum(axis=1, keepdims=True)
        empty = np.flatnonzero(total[:, 0] == 0)
        if len(empty) and name != "market":
            raise ValueError(
                f"no {name} event {empty[0] + 1} ticks from the reference price; use fewer "
                "num_distances or a coarser grid."
            )
        seen = total > 0
        wait = exposure.sum(axis=1, keepdims=True) / np.where(seen, total, 1.0)
        table = (counts + 1.0) / (exposure + np.where(seen, wait, 1.0))
        tables.append(jnp.asarray(np.where(seen & (sizes >= smallest), table, 0.0), counts.dtype))
    limit, cancel, market = tables
    return QueueRates(limit.at[:, -1].set(0.0), cancel, market, rates.exposure)


def reference_prices(states: BookStates) -> Int[Array, " time"]:
    """The price such that the best ask is possible at it and the best bid one below, in ticks.

    The middle of an odd spread; of an even one, of the two prices beside its middle that is taken
    which is nearer to the last reference. Rows that are not valid keep the last one.

    Source: Huang, Lehalle and Rosenbaum (2015), section 2.2.
    """

    def step(last: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        bid, ask, valid = row
        lower = (bid + ask + 1) >> 1
        upper = lower + ((ask - bid + 1) & 1)
        new = jnp.where(valid, jnp.clip(last, lower, upper), last)
        return new, new

    rows = states.bid_price[:, 0], states.ask_price[:, 0], states.valid
    first = jnp.argmax(states.valid)
    start = (states.bid_price[first, 0] + states.ask_price[first, 0] + 1) >> 1
    return jax.lax.scan(step, start, rows)[1]
