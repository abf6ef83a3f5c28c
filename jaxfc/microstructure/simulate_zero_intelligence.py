"""Books of zero-intelligence order flow, event by event: one book, to be put under `vmap`.

A book is a fixed number of levels around its mid price, each the queue at one price. The price p
stands in slot p mod levels, so that nothing moves when the mid does: prices that leave the window
give their slots to prices that enter, which are empty. Each event is a handful of elementwise
operations and three reductions over the levels.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.microstructure.events import BookEvents, EventKind
from jaxfc.microstructure.simulate_rates import OrderFlow
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

# Below any price, for maxima over no price.
NOWHERE = -(2**30)
# The share of the weights of cancellations up to which a draw can lie, for rounding.
WITHIN = 1.0 - 1e-5


class QueueBook(NamedTuple):
    """Orders at the prices around the mid: `depth` of price p in slot p mod levels.

    A side without orders keeps its last best price, as a reference for orders to come.
    """

    depth: Int[Array, " levels"]
    bid: Int[Array, ""]
    ask: Int[Array, ""]
    has_bid: Bool[Array, ""]
    has_ask: Bool[Array, ""]

    @property
    def first_price(self) -> Int[Array, ""]:
        """The lowest price of the window."""
        return ((self.bid + self.ask) >> 1) - self.depth.shape[-1] // 2 + 1

    @property
    def prices(self) -> Int[Array, " levels"]:
        """Price (ticks) of each slot."""
        num_levels, first = self.depth.shape[-1], self.first_price
        return first + ((jnp.arange(num_levels, dtype=jnp.int32) - first) & (num_levels - 1))

    @property
    def distances(self) -> Int[Array, " levels"]:
        """Ticks from each slot to the other side's best price; not positive inside the spread."""
        prices = self.prices
        return jnp.where(prices <= self.bid, self.ask - prices, prices - self.bid)


class SimulatedBook(eqx.Module):
    """Where a book ended, its events (one lot, prices in ticks) and, after each, its quotes."""

    last: QueueBook
    events: BookEvents
    bid: Int[Array, " events"]
    ask: Int[Array, " events"]


def queue_book(
    bids: Int[Array, " depths"],
    asks: Int[Array, " depths"],
    *,
    spread: int = 1,
    num_levels: int = 32,
) -> QueueBook:
    """A book with the best bid at tick zero: `bids` down from it, `asks` up from `spread`.

    **Arguments:** orders at each price, the best first and at least one there; `num_levels` a power
    of two. Orders further than half of them from the mid are dropped as it moves.

    **Raises:** `ValueError` for a number of levels that is no power of two or too small, and for a
    spread below one.
    """
    check_counts(spread=spread)
    needed = 2 * len(bids) + spread
    if num_levels < needed or num_levels & (num_levels - 1):
        raise ValueError(
            f"num_levels must be a power of two of at least {needed} for these depths, "
            f"got {num_levels}."
        )
    places = jnp.arange(len(bids))
    depth = jnp.zeros(num_levels, jnp.int32)
    depth = depth.at[-places & (num_levels - 1)].set(bids.astype(jnp.int32))
    depth = depth.at[(spread + places) & (num_levels - 1)].set(asks.astype(jnp.int32))
    bid, ask = jnp.asarray(0, jnp.int32), jnp.asarray(spread, jnp.int32)
    return QueueBook(depth, bid, ask, bids[0] > 0, asks[0] > 0)


def simulate_zero_intelligence(
    flow: OrderFlow, book: QueueBook, num_events: int, *, key: PRNGKeyArray
) -> SimulatedBook:
    """The next `num_events` events of a book: an exact (Gillespie) draw of the jump process.

    Under `vmap` over books and keys the cost is linear in their number. `gap` of the first event is
    the time since the start.

    **Raises:** `ValueError` for no event, or a window too small for the distances of the flow.

    Source: Cont, Stoikov and Talreja (2010), section 2.
    """
    check_counts(num_events=num_events)
    num_levels = book.depth.shape[-1]
    if num_levels < 4 * flow.num_distances:
        raise ValueError(
            f"{num_levels} levels are too few for orders {flow.num_distances} ticks away; use at "
            f"least {4 * flow.num_distances}."
        )
    place_key, time_key = jax.random.split(key)
    dtype = flow.limit.dtype
    places = jax.random.uniform(place_key, (num_events,), dtype)
    waits = jax.random.exponential(time_key, (num_events,), dtype)

    def advance(book: QueueBook, draw: tuple[Array, Array]):
        kind, is_bid, price, total = drawn_event(flow, book, draw[0])
        book = applied(book, kind == EventKind.ADD, is_bid, price)
        side = jnp.where(is_bid, 1, -1).astype(jnp.int32)
        return book, (draw[1] / total, kind, side, price, book.bid, book.ask)

    last, (gap, kind, side, price, bid, ask) = jax.lax.scan(advance, book, (places, waits))
    size, ends = jnp.ones(num_events, jnp.int32), jnp.ones(num_events, bool)
    return SimulatedBook(last, BookEvents(gap, kind, side, price, size, ends), bid, ask)


def drawn_event(
    flow: OrderFlow, book: QueueBook, place: Float[Array, ""]
) -> tuple[Int[Array, ""], Bool[Array, ""], Int[Array, ""], Float[Array, ""]]:
    """What happens next (kind, whether on the bid side, price) and the sum of all rates; `place`
    is uniform on [0, 1)."""
    prices, distances = book.prices, book.distances
    leaving = jnp.zeros(prices.shape, flow.cancel.dtype)
    for i in range(flow.num_distances):
        leaving = jnp.where(distances == i + 1, flow.cancel[i], leaving)
    weights = leaving * book.depth
    running = jnp.cumsum(weights)
    arrivals = jnp.cumsum(flow.limit)
    sold, bought = flow.market * book.has_bid, flow.market * book.has_ask
    # Limit orders last: their rate is never zero, so that rounding cannot choose what is not there.
    bounds = jnp.cumsum(jnp.stack([sold, bought, running[-1], arrivals[-1], arrivals[-1]]))
    point = place * bounds[-1]
    into_cancels = jnp.minimum(point - bounds[1], WITHIN * running[-1])
    chosen = (running > into_cancels) & (weights > 0)
    slot = jnp.min(jnp.where(chosen, jnp.arange(len(prices), dtype=jnp.int32), len(prices) - 1))
    first = book.first_price
    cancelled = first + ((slot - first) & (len(prices) - 1))
    is_sale, is_trade, is_gone = point < bounds[0], point < bounds[1], point < bounds[2]
    is_buyer = point < bounds[3]
    into_limits = point - jnp.where(is_buyer, bounds[2], bounds[3])
    distance = 1 + jnp.sum(arrivals[:-1] <= into_limits, dtype=jnp.int32)
    kind = jnp.where(
        is_trade,
        int(EventKind.EXECUTE),
        jnp.where(is_gone, int(EventKind.DELETE), int(EventKind.ADD)),
    )
    price = jnp.where(
        is_trade,
        jnp.where(is_sale, book.bid, book.ask),
        jnp.where(
            is_gone, cancelled, jnp.where(is_buyer, book.ask - distance, book.bid + distance)
        ),
    )
    is_bid = jnp.where(is_trade, is_sale, jnp.where(is_gone, cancelled <= book.bid, is_buyer))
    return kind.astype(jnp.int32), is_bid, price, bounds[-1]


def applied(
    book: QueueBook, comes: Bool[Array, ""], is_bid: Bool[Array, ""], price: Int[Array, ""]
) -> QueueBook:
    """The book after one order came to, or went from, `price` on one side."""
    prices = book.prices
    change = jnp.where(comes, 1, -1).astype(jnp.int32)
    depth = book.depth + jnp.where(prices == price, change, 0)
    # Asks are bids in the mirror: one maximum serves both sides.
    sign = jnp.where(is_bid, 1, -1).astype(jnp.int32)
    old = jnp.where(is_bid, book.bid, book.ask)
    reach = jnp.maximum(sign * old, sign * price)
    theirs = (depth > 0) & (sign * prices <= reach)
    best = jnp.max(jnp.where(theirs, sign * prices, NOWHERE))
    found = best > NOWHERE
    new = jnp.where(found, sign * best, old)
    moved = QueueBook(
        depth,
        jnp.where(is_bid, new, book.bid),
        jnp.where(is_bid, book.ask, new),
        jnp.where(is_bid, found, book.has_bid),
        jnp.where(is_bid, book.has_ask, found),
    )
    return moved._replace(depth=jnp.where(moved.prices == prices, depth, 0))


class FlowExposures(NamedTuple):
    """Columns for `estimate_flow`: see there."""

    distance: Int[Array, " events"]
    depth: Float[Array, "events distances"]
    num_sides: Float[Array, " events"]


def exposures(book: QueueBook, events: BookEvents, num_distances: int) -> FlowExposures:
    """What stood in the book before each of its `events`, by replaying them from its start."""
    check_counts(num_distances=num_distances)
    dtype = events.gap.dtype

    def advance(book: QueueBook, event: tuple[Array, Array, Array]):
        comes, is_bid, price = event
        distance = jnp.where(is_bid, book.ask - price, price - book.bid)
        at = book.distances == 1 + jnp.arange(num_distances)[:, None]
        depth = jnp.sum(at * book.depth, axis=1).astype(dtype)
        sides = book.has_bid.astype(dtype) + book.has_ask
        return applied(book, comes, is_bid, price), FlowExposures(distance, depth, sides)

    rows = events.kind == EventKind.ADD, events.side > 0, events.price
    return jax.lax.scan(advance, book, rows)[1]
