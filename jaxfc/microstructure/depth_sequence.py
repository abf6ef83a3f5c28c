"""Which differences of a book follow which snapshot: Binance's numbers of updates."""

import dataclasses
from typing import NamedTuple

from jaxfc.microstructure.events import EventKind, EventRow

# side (1 bids, -1 asks), price (ticks), size (lots)
Level = tuple[int, int, int]


class Difference(NamedTuple):
    """Levels that changed with updates `previous` + 1 to `final`."""

    line: int
    previous: int
    final: int
    levels: list[Level]


class Step(NamedTuple):
    """Rows that a message adds to the log, and the fault (line, reason) if it is out of step."""

    rows: list[EventRow]
    fault: tuple[int, str] | None = None


@dataclasses.dataclass
class DepthSequence:
    """The place in the stream: `final` is the last update in the book, `None` while it is unknown.

    Differences wait until there is a snapshot to apply them to, and then take the snapshot's time:
    nobody could have had the book earlier.
    """

    final: int | None = None
    waiting: list[Difference] = dataclasses.field(default_factory=list)
    # Until the first difference after a snapshot, updates that it holds already may come again.
    fresh: bool = False

    def add(self, time: int, new: Difference) -> Step:
        """A difference: its rows if it is the next one, else a gap."""
        if self.final is None:
            self.waiting.append(new)
            return Step([])
        if self.fresh and new.final <= self.final:
            return Step([])
        if new.previous == self.final or (self.fresh and new.previous < self.final):
            self.final, self.fresh = new.final, False
            return Step(message(time, new.line, new.final, EventKind.SET, new.levels))
        reason = (
            f"update {new.previous} should come before this one, but the last one was "
            f"{self.final}: depth messages are missing or out of order."
        )
        gap = (time, new.line, new.previous, int(EventKind.GAP), 0, 0, 0, True)
        self.final, self.waiting = None, [new]
        return Step([gap], (new.line, reason))

    def restart(self, time: int, line: int, final: int, levels: list[Level]) -> Step:
        """A snapshot that holds all updates to `final`, and the differences that waited for it.

        One that is older than the book says nothing new.
        """
        if self.final is not None and final < self.final:
            return Step([])
        waiting, self.waiting = self.waiting, []
        self.final, self.fresh = final, True
        rows: list[EventRow] = [(time, line, final, int(EventKind.CLEAR), 0, 0, 0, False)]
        rows += message(time, line, final, EventKind.SET, levels)
        rows += message(time, line, final, EventKind.EDGE, worst_levels(levels))
        # The snapshot ends with its last row only.
        rows = [(*row[:7], False) for row in rows[:-1]] + [(*rows[-1][:7], True)]
        fault = None
        for difference in waiting:
            step = self.add(time, difference)
            rows += step.rows
            fault = fault or step.fault
        return Step(rows, fault)


def message(
    time: int, line: int, number: int, kind: EventKind, levels: list[Level]
) -> list[EventRow]:
    """Rows of one message, one a level."""
    last = len(levels) - 1
    return [
        (time, line, number, int(kind), side, price, size, i == last)
        for i, (side, price, size) in enumerate(levels)
    ]


def worst_levels(levels: list[Level]) -> list[Level]:
    """The last level of each side that has one."""
    worst = []
    for side in (1, -1):
        prices = [price for own, price, size in levels if own == side and size > 0]
        if prices:
            worst.append((side, min(prices) if side == 1 else max(prices), 0))
    return worst
