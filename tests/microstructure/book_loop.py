"""A book as two plain dictionaries, row by row: the oracle of the scan."""

import numpy as np

from jaxfc.microstructure import EventKind, EventLog

COMES = {EventKind.ADD}
GOES = {EventKind.REDUCE, EventKind.DELETE, EventKind.EXECUTE}


def dictionary_books(log: EventLog, num_levels: int, known: bool):
    """Best levels (rows, levels, (bid, bid size, ask, ask size)) after the last complete message,
    and whether the book was known; sizes 0 and prices 0 where there is no level."""
    rows = log.events
    columns = (rows.kind, rows.side, rows.price, rows.size, rows.last)
    book: dict[int, dict[int, int]] = {1: {}, -1: {}}
    shown, shown_known = np.zeros((num_levels, 4), int), known
    tables, knowns = [], []
    for kind, side, price, size, last in zip(
        *(np.asarray(c).tolist() for c in columns), strict=True
    ):
        if kind == EventKind.CLEAR:
            book, known = {1: {}, -1: {}}, True
        elif kind == EventKind.GAP:
            known = False
        elif kind == EventKind.SET:
            book[side][price] = size
        elif kind in COMES:
            book[side][price] = book[side].get(price, 0) + size
        elif kind in GOES:
            book[side][price] = book[side].get(price, 0) - size
        if side and book[side].get(price) == 0:
            del book[side][price]
        if last:
            shown, shown_known = np.zeros((num_levels, 4), int), known
            for column, own, best_first in ((0, 1, True), (2, -1, False)):
                prices = sorted(book[own], reverse=best_first)[:num_levels]
                for level, best in enumerate(prices):
                    shown[level, column : column + 2] = best, book[own][best]
        tables.append(shown)
        knowns.append(shown_known)
    return np.array(tables), np.array(knowns)


def table_of(states) -> np.ndarray:
    """The same layout from `BookStates`."""
    parts = (states.bid_price, states.bid_size, states.ask_price, states.ask_size)
    return np.stack([np.asarray(part) for part in parts], axis=2)
