"""What happens to an order book: rows as a structure of arrays, and the file they came from.

Prices are whole ticks and sizes whole lots, so that books are exact in every precision; clock times
stay whole nanoseconds on the host, and traced code sees the seconds between rows.
"""

import dataclasses
import enum
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.microstructure.faults import Fault
from jaxfc.typing import Array, Bool, Float, Int

NANOSECONDS = 1_000_000_000


class EventKind(enum.IntEnum):
    """What a row does to the book; 1 to 7 are LOBSTER's own codes."""

    NOTHING = 0  # padding
    ADD = 1  # a limit order comes: size is added to its level
    REDUCE = 2  # a part of an order is cancelled
    DELETE = 3  # the rest of an order is cancelled
    EXECUTE = 4  # a resting order is hit: size leaves its level
    HIDDEN = 5  # a trade against a hidden order: the book does not change
    CROSS = 6  # an auction: the book does not change
    HALT = 7  # trading stops or resumes
    SET = 8  # a level has this size from now on; zero removes it
    TRADE = 9  # a trade that is reported beside the changes of levels
    CLEAR = 10  # the book is empty; the rows that follow are all of it
    EDGE = 11  # a snapshot ends here: nothing is known of worse prices
    GAP = 12  # messages are missing: the book is unknown until it is cleared


class BookEvents(eqx.Module):
    """Changes of one book and its trades, one a row, in the order in which they were received.

    `gap` is the time since the row before (seconds; 0 in the first row), `kind` an `EventKind`,
    `side` the side of the book (1 bids, -1 asks, 0 both; of a trade, that of the resting order),
    `price` in ticks, `size` in lots, `last` where a message ends: only there is a book complete.
    """

    gap: Float[Array, " events"]
    kind: Int[Array, " events"]
    side: Int[Array, " events"]
    price: Int[Array, " events"]
    size: Int[Array, " events"]
    last: Bool[Array, " events"]

    def padded(self, num_events: int) -> "BookEvents":
        """The same rows with rows that do nothing after them: one shape, one compiled program.

        **Raises:** `ValueError` if there are more rows than `num_events`.
        """
        missing = num_events - self.kind.shape[0]
        if missing < 0:
            raise ValueError(
                f"{self.kind.shape[0]} events do not fit into num_events={num_events}; pad to "
                "more, or cut the log first."
            )
        return jax.tree.map(lambda part: jnp.pad(part, (0, missing)), self)


@dataclasses.dataclass(frozen=True)
class EventLog:
    """Events with what only the host knows: clock, place in the file, units, quarantined lines.

    `time` in nanoseconds (never decreasing), `line` in the file (from 1), `sequence` the
    exchange's number of the message or trade (0 where the format has none), `tick_size` and
    `lot_size` the price and the quantity of one unit.
    """

    events: BookEvents
    time: Int[np.ndarray, " events"]
    line: Int[np.ndarray, " events"]
    sequence: Int[np.ndarray, " events"]
    source: str
    tick_size: float
    lot_size: float
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def window(self, start: int, stop: int) -> "EventLog":
        """Rows `start` to `stop` (not included), all quarantined lines kept."""
        cut = slice(start, stop)
        rows = jax.tree.map(lambda part: part[cut], self.events)
        return dataclasses.replace(
            self,
            events=dataclasses.replace(rows, gap=rows.gap.at[:1].set(0.0)),
            time=self.time[cut],
            line=self.line[cut],
            sequence=self.sequence[cut],
        )


# time (ns), line, sequence, kind, side, price (ticks), size (lots), whether a message ends
EventRow = tuple[int, int, int, int, int, int, int, bool]


def event_log(
    rows: Sequence[EventRow],
    source: str,
    *,
    tick_size: float,
    lot_size: float,
    faults: Sequence[Fault] = (),
) -> EventLog:
    """A log from checked rows (host side): gaps are differences of whole nanoseconds.

    **Raises:** `ValueError` if there are no rows.
    """
    if not rows:
        raise ValueError(f"{source}: no event was read; is the file empty, or of another format?")
    time, line, sequence, kind, side, price, size = (
        np.array(column, np.int64) for column in list(zip(*rows, strict=True))[:7]
    )
    gap = np.diff(time, prepend=time[0]) / NANOSECONDS
    events = BookEvents(
        gap=jnp.asarray(gap, jnp.result_type(float)),
        kind=jnp.asarray(kind, jnp.int32),
        side=jnp.asarray(side, jnp.int32),
        price=jnp.asarray(price, jnp.int32),
        size=jnp.asarray(size, jnp.int32),
        last=jnp.asarray([row[7] for row in rows]),
    )
    return EventLog(events, time, line, sequence, source, tick_size, lot_size, tuple(faults))
