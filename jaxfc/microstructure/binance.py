"""Recorded streams of Binance: depth differences, snapshots, trades and best quotes, JSON lines.

Each line is the local receive time in nanoseconds and a message, `1723161253937085768 {...}`; the
message is of a combined stream (`{"stream": ..., "data": {...}}`) or bare.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfc.arguments import check_positive
from jaxfc.microstructure.book import BookFault, BookStates
from jaxfc.microstructure.depth_sequence import DepthSequence, Difference, Level, Step
from jaxfc.microstructure.events import EventKind, EventLog, EventRow, event_log
from jaxfc.microstructure.faults import (
    FaultRecord,
    FaultyLine,
    Policy,
    numbered_lines,
    readable,
    shortened,
    whole_number,
    whole_units,
)


class Message(NamedTuple):
    """One line: its number, when it was received (ns), what it is, and its content."""

    line: int
    time: int
    what: str
    content: dict[str, Any]


class Units(NamedTuple):
    """Price and quantity of one tick and one lot."""

    tick: float
    lot: float


def messages(path: pathlib.Path, record: FaultRecord) -> Iterator[Message]:
    """Recognised messages in the order of the file, whose clock never goes backwards."""
    clock, symbol = 0, ""
    for number, text in numbered_lines(path):
        try:
            message = decoded(number, readable(text))
            if message.time < clock:
                raise FaultyLine(
                    f"the clock goes backwards, from {clock} to {message.time} ns; sort the file "
                    "as it was received."
                )
            own = str(message.content.get("s", symbol))
            if symbol and own != symbol:
                raise FaultyLine(f"a message of {own} among those of {symbol}; split the file.")
        except FaultyLine as fault:
            record.report(number, str(fault))
            continue
        clock, symbol = message.time, own
        yield message


def decoded(number: int, text: str) -> Message:
    """One line as a message."""
    stamp, _, body = text.partition(" ")
    time = whole_number(stamp, "the receive time")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits
        raise FaultyLine(f"the message is no JSON ({error}); is the line cut?") from None
    if isinstance(content, dict):
        content = content.get("data", content)
    if not isinstance(content, dict):
        raise FaultyLine(f"the message is a {type(content).__name__}, expected an object.")
    what = str(content.get("e", ""))
    if "lastUpdateId" in content:
        what = "snapshot"
    elif not what and {"u", "b", "B", "a", "A"} <= content.keys():
        what = "bookTicker"  # that of the spot market does not say what it is
    if what not in ("depthUpdate", "trade", "bookTicker", "snapshot"):
        raise FaultyLine(
            f"unknown event type {what or sorted(content)!r}, expected depthUpdate, trade, "
            "bookTicker or a snapshot."
        )
    return Message(number, time, what, content)


def field(message: Message, name: str) -> Any:
    """One field of a message."""
    try:
        return message.content[name]
    except KeyError:
        raise FaultyLine(f"{message.what} has no field {name!r}.") from None


def levels_of(message: Message, bids: str, asks: str, units: Units) -> list[Level]:
    """The levels of a message, bids first."""
    levels = []
    for side, name in ((1, bids), (-1, asks)):
        pairs = field(message, name)
        if not isinstance(pairs, list):
            raise FaultyLine(f"field {name!r} is {shortened(pairs)}, expected a list of levels.")
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise FaultyLine(f"a level is {shortened(pair)}, expected [price, size].")
            price = whole_units(pair[0], units.tick, "a price")
            levels.append((side, price, whole_units(pair[1], units.lot, "a size")))
    return levels


def depth_step(message: Message, sequence: DepthSequence, units: Units) -> Step:
    """What a difference or a snapshot adds."""
    if message.what == "snapshot":
        final = whole_number(field(message, "lastUpdateId"), "lastUpdateId")
        levels = levels_of(message, "bids", "asks", units)
        return sequence.restart(message.time, message.line, final, levels)
    first, final = (whole_number(field(message, name), name) for name in ("U", "u"))
    # Futures name the message before; on the spot market updates are numbered without holes.
    previous = whole_number(message.content.get("pu", first - 1), "pu")
    if not previous < first <= final:
        raise FaultyLine(f"updates {first} to {final} after {previous} are out of order.")
    levels = levels_of(message, "b", "a", units)
    return sequence.add(message.time, Difference(message.line, previous, final, levels))


def trade_row(message: Message, units: Units) -> EventRow:
    """A trade; its side is that of the resting order (buyer is maker: a bid)."""
    maker_buys = field(message, "m")
    if not isinstance(maker_buys, bool):
        raise FaultyLine(f"field 'm' is {maker_buys!r}, expected true or false.")
    number = whole_number(field(message, "t"), "the trade number")
    price = whole_units(field(message, "p"), units.tick, "the price")
    size = whole_units(field(message, "q"), units.lot, "the quantity")
    side, kind = (1 if maker_buys else -1), int(EventKind.TRADE)
    return message.time, message.line, number, kind, side, price, size, True


def read_binance(
    path: str | pathlib.Path, *, tick_size: float, lot_size: float, faults: Policy = "raise"
) -> EventLog:
    """Depth and trades of one symbol from a recorded stream (gzipped or not), by receive time.

    Differences that came before the snapshot they continue are applied with it. Best quotes
    (`bookTicker`) do not change a book: see `read_binance_quotes`. `tick_size` and `lot_size` are
    the price step (quote currency) and the quantity step (base currency, or contracts).

    **Raises:** `FileNotFoundError`; `ValueError` with file and line for an unknown event type, no
    JSON, a missing field, a negative size, a price or size that is no multiple of its step, a
    clock that goes backwards, another symbol, a missing update or trade, a cut file
    (`faults="quarantine"`: the line is listed in `faults`; after missing updates a `GAP` row makes
    the book unknown until the next snapshot).

    Source: Binance API documentation, how to manage a local order book.
    """
    check_positive(tick_size=tick_size, lot_size=lot_size)
    path, units = pathlib.Path(path), Units(tick_size, lot_size)
    record, sequence = FaultRecord(str(path), faults), DepthSequence()
    rows: list[EventRow] = []
    last_trade = None
    for message in messages(path, record):
        try:
            if message.what == "trade":
                row = trade_row(message, units)
                if last_trade is not None and row[2] != last_trade + 1:
                    record.report(
                        message.line,
                        f"trade {row[2]} follows trade {last_trade}: trades are missing or out of "
                        "order.",
                    )
                last_trade = row[2]
                rows.append(row)
            elif message.what != "bookTicker":
                step = depth_step(message, sequence, units)
                rows += step.rows
                if step.fault is not None:
                    record.report(*step.fault)
        except FaultyLine as fault:
            record.report(message.line, str(fault))
    return event_log(
        rows, record.source, tick_size=tick_size, lot_size=lot_size, faults=record.found
    )


def read_binance_quotes(
    path: str | pathlib.Path, *, tick_size: float, lot_size: float
) -> tuple[EventLog, BookStates]:
    """Best quotes (`bookTicker`) of a recorded stream: rows that do nothing, and their books.

    `sequence` is the number of the update, which finds the same book in that of `read_binance`.

    **Raises:** as `read_binance`; `ValueError` for a crossed quote.
    """
    check_positive(tick_size=tick_size, lot_size=lot_size)
    path = pathlib.Path(path)
    record, kind = FaultRecord(str(path), "raise"), int(EventKind.NOTHING)
    rows: list[EventRow] = []
    quotes: list[tuple[int, ...]] = []
    for message in messages(path, record):
        if message.what != "bookTicker":
            continue
        try:
            number = whole_number(field(message, "u"), "u")
            price = [whole_units(field(message, name), tick_size, "a price") for name in "ba"]
            size = [whole_units(field(message, name), lot_size, "a size") for name in "BA"]
            if min(size) > 0 and price[0] >= price[1]:
                raise FaultyLine("the quote is crossed: its bid is not below its ask.")
            rows.append((message.time, message.line, number, kind, 0, 0, 0, True))
            quotes.append((*price, *size))
        except FaultyLine as fault:
            record.report(message.line, str(fault))
    log = event_log(rows, record.source, tick_size=tick_size, lot_size=lot_size)
    bid, ask, bid_size, ask_size = jnp.asarray(np.array(quotes), jnp.int32).T[:, :, None]
    two_sided = jnp.minimum(bid_size, ask_size)[:, 0] > 0
    fault = jnp.where(two_sided, int(BookFault.NONE), int(BookFault.EMPTY)).astype(jnp.int32)
    return log, BookStates(bid, bid_size, ask, ask_size, fault)
