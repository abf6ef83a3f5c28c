"""Order books rebuilt from their changes, and the faults of a book.

A side is a list of levels sorted best first, of fixed capacity. What lies beyond its edge (the end
of a snapshot, or levels that did not fit) is not known, and no row reports it as if it were.
"""

import enum
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.microstructure.events import BookEvents, EventKind
from jaxfc.typing import Array, Bool, Float, Int

MOVES = (EventKind.ADD, EventKind.REDUCE, EventKind.DELETE, EventKind.EXECUTE)
# Levels are sorted by price times minus side, ascending; this stands where there is none.
NO_LEVEL = 2**31 - 1


class BookFault(enum.IntEnum):
    """What is wrong with the book of a row, the gravest first where several hold."""

    NONE = 0
    UNKNOWN = 1  # no snapshot yet, or none since messages were missing
    NEGATIVE = 2  # more was taken from a level than it held, since the book was last cleared
    CROSSED = 3  # the best bid is not below the best ask
    EMPTY = 4  # a side has no level
    SHALLOW = 5  # the levels asked for reach beyond what is known


class Book(eqx.Module):
    """Both sides of a book: bids first, levels best first.

    `order` is price times minus side (ticks; `NO_LEVEL` where there is none), `size` in lots.
    Levels are complete up to `edge`, in units of `order`. `known` is false before a snapshot and
    after missing messages; `negative` records a level that fell below zero.
    """

    order: Int[Array, "sides capacity"]
    size: Int[Array, "sides capacity"]
    edge: Int[Array, " sides"]
    known: Bool[Array, ""]
    negative: Bool[Array, ""]


class BookStates(eqx.Module):
    """The best levels of a book in every row, best first; the size of a missing level is 0.

    Prices in ticks, sizes in lots; `fault` holds codes of `BookFault`. Within a message the row
    repeats the last complete book.
    """

    bid_price: Int[Array, "time levels"]
    bid_size: Int[Array, "time levels"]
    ask_price: Int[Array, "time levels"]
    ask_size: Int[Array, "time levels"]
    fault: Int[Array, " time"]

    @property
    def valid(self) -> Bool[Array, " time"]:
        """Where the book is known, two-sided, not crossed and complete to the last level."""
        return self.fault == int(BookFault.NONE)

    @property
    def continued(self) -> Bool[Array, " time"]:
        """Where this row and the one before are valid: where changes have a meaning."""
        valid = self.valid
        return valid & jnp.concatenate([jnp.zeros(1, bool), valid[:-1]])

    @property
    def mid(self) -> Float[Array, " time"]:
        """(best bid + best ask) / 2 in ticks; NaN where the book is not valid."""
        # The bid and half of an exact difference: their sum may need more digits than a float has.
        bid = self.bid_price[:, 0]
        return where_valid(self, bid + 0.5 * (self.ask_price[:, 0] - bid))

    @property
    def spread(self) -> Float[Array, " time"]:
        """Best ask - best bid in ticks; NaN where the book is not valid."""
        return where_valid(self, self.ask_price[:, 0] - self.bid_price[:, 0])


def where_valid(states: BookStates, values: Array) -> Array:
    """`values` as floats, NaN in rows whose book is not valid."""
    valid = states.valid.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(valid, values.astype(jnp.result_type(float)), jnp.nan)


def empty_book(capacity: int, *, known: bool) -> Book:
    """A book without levels: `known` to be empty, or not known before the first `CLEAR` row.

    **Raises:** `ValueError` for a capacity below one.
    """
    check_counts(capacity=capacity)
    return Book(
        order=jnp.full((2, capacity), NO_LEVEL, jnp.int32),
        size=jnp.zeros((2, capacity), jnp.int32),
        edge=jnp.full((2,), NO_LEVEL, jnp.int32),
        known=jnp.asarray(known),
        negative=jnp.asarray(False),
    )


class Row(NamedTuple):
    """One event (of `BookEvents`, without its gap)."""

    kind: Array
    side: Array
    price: Array
    size: Array
    last: Array


def is_one_of(kind: Array, *kinds: EventKind) -> Array:
    """Whether a code is one of `kinds`."""
    return jnp.isin(kind, jnp.asarray([int(other) for other in kinds], kind.dtype))


def changed_side(
    order: Array, size: Array, edge: Array, row: Row
) -> tuple[Array, Array, Array, Array]:
    """One side (levels, sizes, edge) after a row, and whether its level fell below zero.

    Costs O(capacity): the levels behind the changed one move by one place.
    """
    place = jnp.arange(order.shape[0])
    key = -row.side * row.price
    here = order == key
    held = jnp.sum(jnp.where(here, size, 0), dtype=size.dtype)
    is_set = row.kind == int(EventKind.SET)
    step = jnp.where(row.kind == int(EventKind.ADD), row.size, -row.size)
    wanted = jnp.where(is_set, row.size, held + step)
    # Orders beyond the edge are not all known, so additions and cancellations there say nothing.
    heard = is_set | (is_one_of(row.kind, *MOVES) & (key <= edge))
    negative = heard & (wanted < 0)
    wanted = jnp.maximum(wanted, 0)
    found, first = jnp.any(here), jnp.sum(order < key)
    inserts = heard & ~found & (wanted > 0)
    removes = heard & found & (wanted == 0)

    def shifted(levels: Array, new: Array, none: int) -> Array:
        end = jnp.full((1,), none, levels.dtype)
        nearer = jnp.concatenate([levels[1:], end])
        farther = jnp.concatenate([end, levels[:-1]])
        inserted = jnp.where(place == first, new, jnp.where(place > first, farther, levels))
        removed = jnp.where(place >= first, nearer, levels)
        return jnp.where(inserts, inserted, jnp.where(removes, removed, levels))

    new_order = shifted(order, key, NO_LEVEL)
    new_size = shifted(jnp.where(here & heard, wanted, size), wanted, 0)
    # A full side loses its worst level, so from now on it is complete to the one that stays.
    lost = inserts & (order[-1] != NO_LEVEL)
    ends = row.kind == int(EventKind.EDGE)
    edge = jnp.where(lost, jnp.minimum(edge, new_order[-1]), edge)
    return new_order, new_size, jnp.where(ends, jnp.minimum(edge, key), edge), negative


def changed_book(book: Book, row: Row) -> Book:
    """The book after one row."""
    side = jnp.where(row.side < 0, 1, 0)
    order, size, edge, negative = changed_side(
        book.order[side], book.size[side], book.edge[side], row
    )
    clears, gap = row.kind == int(EventKind.CLEAR), row.kind == int(EventKind.GAP)
    return Book(
        order=jnp.where(clears, NO_LEVEL, book.order.at[side].set(order)),
        size=jnp.where(clears, 0, book.size.at[side].set(size)),
        edge=jnp.where(clears, NO_LEVEL, book.edge.at[side].set(edge)),
        known=(book.known | clears) & ~gap,
        negative=(book.negative | negative) & ~clears,
    )


def fault_of(book: Book, num_levels: int) -> Int[Array, ""]:
    """The gravest fault of a complete book."""
    bid, ask = book.order[:, 0]
    limited = book.edge != NO_LEVEL
    missing = book.order[:, 0] == NO_LEVEL
    # A side whose known levels are gone is empty only if nothing lies beyond its edge.
    empty = jnp.any(missing & ~limited)
    crossed = ~jnp.any(missing) & (ask <= -bid)
    shallow = jnp.any(limited & (book.order[:, num_levels - 1] > book.edge))
    code = jnp.where(shallow, int(BookFault.SHALLOW), int(BookFault.NONE))
    code = jnp.where(empty, int(BookFault.EMPTY), code)
    code = jnp.where(crossed, int(BookFault.CROSSED), code)
    code = jnp.where(book.negative, int(BookFault.NEGATIVE), code)
    return jnp.where(book.known, code, int(BookFault.UNKNOWN)).astype(jnp.int32)


def reconstruct(events: BookEvents, start: Book, num_levels: int) -> tuple[Book, BookStates]:
    """The book after every row, and its best `num_levels` levels as a trader knew them then.

    Pure: a scan of O(capacity) a row, for `jit` and `vmap`. Row t depends on rows 0..t alone.

    **Raises:** `ValueError` if `num_levels` is below one or above the capacity of `start`.
    """
    check_counts(num_levels=num_levels)
    if num_levels > start.order.shape[1]:
        raise ValueError(
            f"num_levels={num_levels} exceeds the capacity {start.order.shape[1]} of the book; "
            "give the book a larger capacity."
        )

    def step(carry: tuple[Book, Array, Array, Array], row: Row):
        book, order, size, fault = carry
        book = changed_book(book, row)
        order = jnp.where(row.last, book.order[:, :num_levels], order)
        size = jnp.where(row.last, book.size[:, :num_levels], size)
        fault = jnp.where(row.last, fault_of(book, num_levels), fault)
        return (book, order, size, fault), (order, size, fault)

    shown = start.order[:, :num_levels], start.size[:, :num_levels], fault_of(start, num_levels)
    rows = Row(
        kind=events.kind.astype(jnp.int32),
        side=events.side.astype(jnp.int32),
        price=events.price.astype(jnp.int32),
        size=events.size.astype(jnp.int32),
        last=events.last,
    )
    (book, *_), (order, size, fault) = jax.lax.scan(step, (start, *shown), rows)
    price = jnp.where(order == NO_LEVEL, 0, order * jnp.array([-1, 1], order.dtype)[:, None])
    states = BookStates(
        bid_price=price[:, 0],
        bid_size=size[:, 0],
        ask_price=price[:, 1],
        ask_size=size[:, 1],
        fault=fault,
    )
    return book, states
