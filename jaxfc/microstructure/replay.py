"""Books of a log, on the host: faults become errors that name the line, or are kept as codes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.microstructure.book import (
    NO_LEVEL,
    Book,
    BookFault,
    BookStates,
    empty_book,
    reconstruct,
)
from jaxfc.microstructure.events import EventLog
from jaxfc.microstructure.faults import Policy

REASONS = {
    BookFault.UNKNOWN: "messages are missing here, and no snapshot has come since the last ones",
    BookFault.NEGATIVE: "more is taken from a level than it holds; a message before is missing or "
    "wrong, or the book did not start empty (pass start=)",
    BookFault.CROSSED: "the best bid is not below the best ask; a message before is missing",
}


@eqx.filter_jit
def jitted_reconstruct(events, start: Book, num_levels: int) -> tuple[Book, BookStates]:
    """`reconstruct` under one module-level `jit`: one compilation per shape."""
    return reconstruct(events, start, num_levels)


def replay(
    log: EventLog,
    num_levels: int,
    *,
    capacity: int = 1000,
    start: Book | None = None,
    faults: Policy = "raise",
) -> BookStates:
    """The best `num_levels` levels of the book of a log, one row for each of its rows.

    The book is unknown before the first snapshot, unless `start` (of its own capacity) is given:
    `empty_book(capacity, known=True)` or `book_at(states, row, capacity)`. Rows before a snapshot,
    with an empty side, or whose levels reach beyond what is known carry their `BookFault` code and
    are not `valid`; they are no errors.

    **Raises:** `ValueError` that names file and line where messages are missing, a level falls
    below zero or the book is crossed (`faults="quarantine"`: these rows carry their code, and
    after the first two all rows until the next snapshot); or if no row has a valid book.
    """
    if faults not in ("raise", "quarantine"):
        raise ValueError(f"faults must be 'raise' or 'quarantine', got {faults!r}.")
    book = empty_book(capacity, known=False) if start is None else start
    _, states = jitted_reconstruct(log.events, book, num_levels)
    codes = np.asarray(states.fault)
    known = np.maximum.accumulate(codes != BookFault.UNKNOWN)
    wrong = (codes == BookFault.NEGATIVE) | (codes == BookFault.CROSSED)
    wrong |= (codes == BookFault.UNKNOWN) & known
    if faults == "raise" and wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{log.source}, line {log.line[row]}: {REASONS[BookFault(codes[row])]} "
            "(faults='quarantine' keeps such rows with their code)"
        )
    if not (codes == BookFault.NONE).any():
        counts = ", ".join(
            f"{np.sum(codes == code)} {code.name}" for code in BookFault if (codes == code).any()
        )
        raise ValueError(
            f"{log.source}: no row has a valid book ({counts}); is there a snapshot (else pass "
            f"start=), and does it hold num_levels={num_levels} levels a side?"
        )
    return states


def book_at(states: BookStates, row: int, capacity: int) -> Book:
    """The book of one row, known to its last level, to go on from with the rows that follow.

    A side with fewer levels than columns is taken as complete.

    **Raises:** `ValueError` if the levels exceed `capacity`, or the row is invalid for another
    reason than an empty side.
    """
    fault = BookFault(int(states.fault[row]))
    if fault not in (BookFault.NONE, BookFault.EMPTY):
        raise ValueError(f"the book of row {row} is {fault.name}; start from a valid row.")
    num_levels = states.bid_price.shape[1]
    if num_levels > capacity:
        raise ValueError(f"{num_levels} levels do not fit into capacity={capacity}.")
    size = jnp.stack([states.bid_size[row], states.ask_size[row]])
    order = jnp.stack([-states.bid_price[row], states.ask_price[row]])
    order = jnp.where(size > 0, order, NO_LEVEL)
    rest = ((0, 0), (0, capacity - num_levels))
    return Book(
        order=jnp.pad(order, rest, constant_values=NO_LEVEL),
        size=jnp.pad(size, rest),
        edge=order[:, -1],
        known=jnp.asarray(True),
        negative=jnp.asarray(False),
    )
