"""Made-up order flow in the forms that exchanges publish: orders, or levels and trades."""

import jax
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.microstructure.events import NANOSECONDS, EventKind, EventLog, EventRow, event_log
from jaxfc.typing import PRNGKeyArray

FIRST_PRICE = 10_000
# Orders rest this far from the best opposite price, in ticks, at most.
FARTHEST = 12
LARGEST_ORDER = 9
# Events a second.
RATE = 20.0


def synthetic_orders(num_events: int, *, key: PRNGKeyArray) -> EventLog:
    """Orders, cancellations and executions around a price of 10,000 ticks, from an empty book.

    Half of the rows bring an order (1 to 9 lots, 1 to 12 ticks from the best opposite price), the
    others hit or cancel what rests; the book never crosses and the clock is a Poisson process of
    20 a second from 9:30. Host side: for tests of parsers and books, not a model of a market.
    """
    check_counts(num_events=num_events)
    draws = np.asarray(jax.random.uniform(key, (num_events, 6)), np.float64)
    book: dict[int, dict[int, int]] = {1: {}, -1: {}}
    clock = 34_200 * NANOSECONDS
    rows: list[EventRow] = []
    for i, draw in enumerate(draws):
        clock += round(-np.log1p(-draw[0]) / RATE * NANOSECONDS)
        side = 1 if draw[1] < 0.5 else -1
        own, other = book[side], book[-side]
        if draw[2] < 0.5 or len(own) < 3:
            kind, size = EventKind.ADD, 1 + int(draw[3] * LARGEST_ORDER)
            best = side * min(side * price for price in other) if other else FIRST_PRICE
            price = best - side * (1 + int(draw[4] * FARTHEST))
        elif draw[2] < 0.75:
            kind, price = EventKind.EXECUTE, side * max(side * price for price in own)
            size = min(own[price], 1 + int(draw[3] * LARGEST_ORDER))
        else:
            price = sorted(own)[int(draw[4] * len(own))]
            size = min(own[price], 1 + int(draw[3] * LARGEST_ORDER))
            kind = EventKind.DELETE if size == own[price] else EventKind.REDUCE
        own[price] = own.get(price, 0) + (size if kind == EventKind.ADD else -size)
        if own[price] == 0:
            del own[price]
        rows.append((clock, i + 1, 0, int(kind), side, price, size, True))
    return event_log(rows, "synthetic orders", tick_size=0.01, lot_size=1.0)


def level_changes(log: EventLog, *, rows_a_message: int = 1) -> EventLog:
    """The same flow as changed levels and trades, after a snapshot of the empty book.

    Every `rows_a_message` orders make one message of the levels that changed, received with the
    last of them; trades are received at once. Messages and trades are numbered from 1.
    """
    check_counts(rows_a_message=rows_a_message)
    events = log.events
    columns = (events.kind, events.side, events.price, events.size)
    table = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    held: dict[tuple[int, int], int] = {}
    changed: dict[tuple[int, int], int] = {}
    update, trade = 1, 0
    clear = int(EventKind.CLEAR)
    rows: list[EventRow] = [(int(log.time[0]), 1, update, clear, 0, 0, 0, True)]
    for i, (kind, side, price, size) in enumerate(table):
        time = int(log.time[i])
        if kind == EventKind.EXECUTE:
            trade += 1
            rows.append((time, i + 1, trade, int(EventKind.TRADE), side, price, size, True))
        held[side, price] = held.get((side, price), 0) + (size if kind == EventKind.ADD else -size)
        changed[side, price] = held[side, price]
        if (i + 1) % rows_a_message == 0:
            update += 1
            # Bids before asks, as exchanges write them.
            ordered = sorted(changed.items(), key=lambda item: -item[0][0])
            for j, ((own, level), left) in enumerate(ordered):
                last = j + 1 == len(ordered)
                rows.append((time, i + 1, update, int(EventKind.SET), own, level, left, last))
            changed = {}
    return event_log(rows, "synthetic levels", tick_size=log.tick_size, lot_size=log.lot_size)
