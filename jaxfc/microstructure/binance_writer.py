"""A stream in Binance's format, written from a log: for tests and examples."""

import decimal
import json
import pathlib

import numpy as np

from jaxfc.microstructure.events import EventKind, EventLog

STREAM_NAMES = {EventKind.SET: "depth@100ms", EventKind.TRADE: "trade"}


def write_binance(log: EventLog, path: str | pathlib.Path, *, symbol: str = "TEST") -> None:
    """One line for each message of a log of `CLEAR`, `SET`, `EDGE` and `TRADE` rows.

    A message that begins with `CLEAR` becomes a snapshot; updates take their numbers from
    `sequence`. `EDGE` rows are not written: a reader finds them in the snapshot.

    **Raises:** `ValueError` for a row of another type.
    """
    rows = log.events
    columns = (rows.kind, rows.side, rows.price, rows.size, rows.last)
    table = list(zip(*(np.asarray(column).tolist() for column in columns), strict=True))
    begin, update = 0, 0
    with pathlib.Path(path).open("w") as file:
        for i, row in enumerate(table):
            if not row[-1]:
                continue
            number = int(log.sequence[i])
            content = message_of(table[begin : i + 1], log, number, update, symbol)
            if "u" in content or "lastUpdateId" in content:
                update = number
            stamp = int(log.time[i])
            if "e" in content:
                content["E"] = stamp // 1_000_000
                stream = STREAM_NAMES[EventKind(row[0])]
                content = {"stream": f"{symbol.lower()}@{stream}", "data": content}
            file.write(f"{stamp} {json.dumps(content, separators=(',', ':'))}\n")
            begin = i + 1


def message_of(table: list, log: EventLog, number: int, update: int, symbol: str) -> dict:
    """The content of one message; `update` is the number of the last update before it."""

    def price(row) -> str:
        return str(row[2] * decimal.Decimal(str(log.tick_size)))

    def size(row) -> str:
        return str(row[3] * decimal.Decimal(str(log.lot_size)))

    known = (EventKind.CLEAR, EventKind.SET, EventKind.EDGE, EventKind.TRADE)
    other = [row[0] for row in table if row[0] not in known]
    if other:
        raise ValueError(f"a {EventKind(other[0]).name} row has no message in Binance's format.")
    kind, side = table[0][:2]
    if kind == EventKind.TRADE:
        row = table[0]
        trade = {"e": "trade", "s": symbol, "t": number, "p": price(row), "q": size(row)}
        return {**trade, "m": side == 1}
    levels = [row for row in table if row[0] == EventKind.SET]
    bids, asks = ([[price(row), size(row)] for row in levels if row[1] == own] for own in (1, -1))
    if kind == EventKind.CLEAR:
        return {"lastUpdateId": number, "bids": bids, "asks": asks}
    first = update + 1
    return {"e": "depthUpdate", "s": symbol, "U": first, "u": number, "b": bids, "a": asks}
