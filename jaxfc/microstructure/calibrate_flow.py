"""Order flow out of changed levels: what came, what was cancelled and what was traded."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxfc.arguments import check_positive
from jaxfc.counts import check_counts
from jaxfc.microstructure.events import NANOSECONDS, EventKind, EventLog, EventRow, event_log

LEVEL_KINDS = tuple(
    int(kind)
    for kind in (
        EventKind.NOTHING,
        EventKind.SET,
        EventKind.TRADE,
        EventKind.CLEAR,
        EventKind.EDGE,
        EventKind.GAP,
    )
)


class LevelFlow(NamedTuple):
    """Orders, cancellations and executions, and how many lots were traded in all and `explained`
    by a level that changed afterwards."""

    log: EventLog
    traded: int
    explained: int


def level_flow(log: EventLog, *, grid: int = 1, patience: float = 1.0) -> LevelFlow:
    """The events behind a log of levels and trades, on prices of `grid` ticks each.

        size after - size before = added - cancelled - traded

    For every changed level: what was traded there since it changed last, at most `patience` seconds
    ago, is executed; the rest of the change is one order or one cancellation. Snapshots stay
    snapshots, and gaps gaps, so that `replay` of the answer gives the book of the log. On a coarser
    grid bids count at the price below and asks at the one above: a book never crosses by it.

    Host side. What came and went between two messages of the exchange is not seen, so that rates
    from feeds of 100 ms are lower bounds.

    **Raises:** `ValueError` for events that are not of levels (`LOBSTER` logs are orders already).
    """
    check_counts(grid=grid)
    check_positive(patience=patience)
    events = log.events
    kinds = np.asarray(events.kind)
    strangers = np.flatnonzero(~np.isin(kinds, LEVEL_KINDS))
    if len(strangers):
        row = int(strangers[0])
        raise ValueError(
            f"{log.source}, line {log.line[row]}: {EventKind(int(kinds[row])).name} rows are "
            "orders already; level_flow takes logs of changed levels."
        )
    columns = (events.kind, events.side, events.price, events.size, events.last)
    table = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    levels = Levels(grid, round(patience * NANOSECONDS))
    rows: list[EventRow] = []
    message: list[EventRow] = []
    for i, (kind, side, price, size, last) in enumerate(table):
        time, line, number = int(log.time[i]), int(log.line[i]), int(log.sequence[i])
        for own_kind, own_price, own_size in levels.step(time, kind, side, price, size):
            message.append((time, line, number, own_kind, side, own_price, own_size, False))
        if last:
            levels.in_snapshot = False
            if message:
                rows += [*message[:-1], (*message[-1][:7], True)]
                message = []
    tick_size = grid * log.tick_size
    found = event_log(
        rows, log.source, tick_size=tick_size, lot_size=log.lot_size, faults=log.faults
    )
    return LevelFlow(found, levels.traded, levels.explained)


@dataclasses.dataclass
class Levels:
    """Sizes of all levels as the exchange last said, and trades that no change has explained."""

    grid: int
    patience: int
    held: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    coarse: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    waiting: dict[tuple[int, int], list[tuple[int, int]]] = dataclasses.field(default_factory=dict)
    in_snapshot: bool = False
    traded: int = 0
    explained: int = 0

    def step(
        self, time: int, kind: int, side: int, price: int, size: int
    ) -> list[tuple[int, int, int]]:
        """Kind, price and size of the events that one row stands for."""
        if kind == EventKind.TRADE:
            self.traded += size
            self.waiting.setdefault((side, price), []).append((time, size))
            return []
        if kind in (EventKind.CLEAR, EventKind.GAP):
            self.held, self.coarse, self.waiting = {}, {}, {}
            self.in_snapshot = kind == EventKind.CLEAR
            return [(kind, 0, 0)]
        if kind == EventKind.EDGE:
            return [(kind, self.edge(side, price), 0)]
        if kind == EventKind.NOTHING:
            return []
        return self.changed(time, side, price, size)

    def changed(self, time: int, side: int, price: int, size: int) -> list[tuple[int, int, int]]:
        """The events of a level that has `size` from now on."""
        place = self.place(side, price)
        before = self.held.get((side, price), 0)
        self.held[side, price] = size
        if self.in_snapshot:
            total = self.coarse.get((side, place), 0) + size - before
            self.coarse[side, place] = total
            return [(int(EventKind.SET), place, total)]
        recent = self.waiting.pop((side, price), [])
        executed = sum(lots for when, lots in recent if time - when <= self.patience)
        self.explained += executed
        rest = size - before + executed
        events = []
        # Orders before executions: a level never holds less than nothing.
        if rest:
            kind = EventKind.ADD if rest > 0 else EventKind.DELETE
            events.append((int(kind), place, abs(rest)))
        if executed:
            events.append((int(EventKind.EXECUTE), place, executed))
        return events

    def place(self, side: int, price: int) -> int:
        """The price on the grid: bids below, asks above."""
        return price // self.grid if side > 0 else -(-price // self.grid)

    def edge(self, side: int, price: int) -> int:
        """The last price on the grid all of whose ticks are known."""
        return -(-price // self.grid) if side > 0 else price // self.grid
