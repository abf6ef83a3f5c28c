"""LOBSTER's message and book files (NASDAQ limit order books).

Message file: seconds after midnight, type 1..7, order, size (shares), price (dollars x 10,000),
direction of the resting order (1 bid, -1 ask). Book file: for each level ask price, ask size, bid
price, bid size, after the message of the same line; empty levels have size 0.
"""

import decimal
import math
import pathlib

import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.microstructure.book import BookFault, BookStates
from jaxfc.microstructure.events import (
    NANOSECONDS,
    EventKind,
    EventLog,
    EventRow,
    event_log,
)
from jaxfc.microstructure.faults import (
    FaultRecord,
    FaultyLine,
    Policy,
    numbered_lines,
    readable,
    whole_number,
    whole_units,
)

TICK_SIZE = 1e-4
CHANGES = (EventKind.ADD, EventKind.REDUCE, EventKind.DELETE, EventKind.EXECUTE)
NUM_COLUMNS = 6
SECONDS_OF_A_DAY = 86_400


def read_lobster_messages(path: str | pathlib.Path, *, faults: Policy = "raise") -> EventLog:
    """The events of a LOBSTER message file (`.csv`, gzipped or not).

    Ticks are 1e-4 dollars, lots are shares, the clock counts from midnight of the trading day.
    Order numbers are not kept: a book of levels does not need them.

    **Raises:** `FileNotFoundError`; `ValueError` with file and line for a wrong number of columns,
    no numbers, an unknown type or direction, a negative size, a clock that goes backwards, a cut
    file (`faults="quarantine"`: the line is set aside, listed in `faults`, and a `GAP` row stands
    in its place).

    Source: lobsterdata.com, output structure of message files.
    """
    path = pathlib.Path(path)
    record = FaultRecord(str(path), faults)
    rows: list[EventRow] = []
    clock = 0
    for number, text in numbered_lines(path):
        try:
            row = message_row(readable(text).split(","), number, clock)
        except FaultyLine as fault:
            record.report(number, str(fault))
            row = (clock, number, 0, int(EventKind.GAP), 0, 0, 0, True)
        clock = row[0]
        rows.append(row)
    return event_log(rows, record.source, tick_size=TICK_SIZE, lot_size=1.0, faults=record.found)


def message_row(fields: list[str], number: int, clock: int) -> EventRow:
    """One line of a message file; `clock` is the time of the line before, in nanoseconds."""
    if len(fields) != NUM_COLUMNS:
        raise FaultyLine(f"{len(fields)} columns, expected {NUM_COLUMNS}; is the file cut?")
    time = nanoseconds(fields[0])
    kind = whole_number(fields[1], "the type")
    if not EventKind.ADD <= kind <= EventKind.HALT:
        raise FaultyLine(f"unknown event type {kind}, expected 1 to 7.")
    size = whole_units(fields[3], 1.0, "the size")
    side = whole_number(fields[5], "the direction")
    if side not in (1, -1):
        raise FaultyLine(f"the direction is {side}, expected 1 (bid) or -1 (ask).")
    if time < clock:
        raise FaultyLine(
            f"the clock goes backwards, from {clock / NANOSECONDS} to {fields[0]} s; sort the "
            "file as it was written."
        )
    if kind == EventKind.HALT:  # its price is a code of the halt
        return time, number, 0, kind, 0, 0, 0, True
    price = whole_units(fields[4], 1.0, "the price")
    if kind in CHANGES and size == 0:
        raise FaultyLine("the size is 0, expected shares.")
    return time, number, 0, kind, side, price, size, True


def nanoseconds(text: str) -> int:
    """Seconds after midnight as whole nanoseconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < SECONDS_OF_A_DAY:
        raise FaultyLine(f"the time is {text!r}, expected seconds after midnight.")
    return round(seconds * NANOSECONDS)


def read_lobster_book(path: str | pathlib.Path) -> BookStates:
    """The books of a LOBSTER book file, one row for each message of its message file.

    Ticks are 1e-4 dollars, lots are shares. All levels of the file are kept; rows with an empty
    side are not `valid`.

    **Raises:** `FileNotFoundError`; `ValueError` with file and line for a number of columns that
    differs or is no multiple of 4, no numbers, a negative size, prices out of order, a crossed
    book, a cut file.

    Source: lobsterdata.com, output structure of book files.
    """
    path = pathlib.Path(path)
    record = FaultRecord(str(path), "raise")
    rows: list[list[int]] = []
    for number, text in numbered_lines(path):
        try:
            fields = readable(text).split(",")
            if len(fields) % 4 or (rows and len(fields) != len(rows[0])):
                expected = len(rows[0]) if rows else "a multiple of 4"
                raise FaultyLine(f"{len(fields)} columns, expected {expected}; is the file cut?")
            rows.append([whole_number(field, "a price or size") for field in fields])
        except FaultyLine as fault:
            record.report(number, str(fault))
    if not rows:
        raise ValueError(f"{path}: no book was read; the file is empty.")
    return checked_books(np.array(rows).reshape(len(rows), -1, 4), record)


def checked_books(table: np.ndarray, record: FaultRecord) -> BookStates:
    """Books from a table (rows, levels, (ask price, ask size, bid price, bid size))."""
    size = table[:, :, [3, 1]].transpose(2, 0, 1)
    held = size > 0
    price = np.where(held, table[:, :, [2, 0]].transpose(2, 0, 1), 0)

    def refuse(wrong: np.ndarray | np.bool, reason: str) -> None:
        if wrong.any():
            record.report(int(np.argmax(wrong)) + 1, reason)

    order = np.where(held, price * np.array([-1, 1])[:, None, None], np.iinfo(np.int64).max)
    refuse((size < 0).any(axis=(0, 2)), "a size is negative.")
    refuse((size >= 2**31).any(axis=(0, 2)), "a size is beyond 32 bits.")
    refuse((price < 0).any(axis=(0, 2)) | (price >= 2**31).any(axis=(0, 2)), "a price is no price.")
    ascending = np.diff(np.minimum(order, 2**40), axis=2) <= 0
    refuse((ascending & held[:, :, 1:]).any(axis=(0, 2)), "prices of a side are not in order.")
    empty = ~held[:, :, 0].all(axis=0)
    refuse(~empty & (price[0, :, 0] >= price[1, :, 0]), "the book is crossed.")
    fault = np.where(empty, int(BookFault.EMPTY), int(BookFault.NONE))
    return BookStates(
        bid_price=jnp.asarray(price[0], jnp.int32),
        bid_size=jnp.asarray(size[0], jnp.int32),
        ask_price=jnp.asarray(price[1], jnp.int32),
        ask_size=jnp.asarray(size[1], jnp.int32),
        fault=jnp.asarray(fault, jnp.int32),
    )


def read_lobster(
    message_path: str | pathlib.Path, book_path: str | pathlib.Path
) -> tuple[EventLog, BookStates]:
    """Messages and books of one day, row by row.

    A book file of N levels has only the messages that touch these, so a book rebuilt from them
    does not know what comes into view; this file does.

    **Raises:** what its readers raise; `ValueError` if the files differ in length.
    """
    log, states = read_lobster_messages(message_path), read_lobster_book(book_path)
    num_books = states.fault.shape[0]
    if num_books != len(log):
        raise ValueError(
            f"{message_path} has {len(log)} messages and {book_path} {num_books} books; one of "
            "them is cut, or they are of different days."
        )
    return log, states


def write_lobster_messages(log: EventLog, path: str | pathlib.Path) -> None:
    """A message file of a log whose rows are of LOBSTER's types; orders are numbered by row.

    **Raises:** `ValueError` for a row of another type.
    """
    rows = log.events
    columns = (rows.kind, rows.size, rows.price, rows.side)
    kinds, sizes, prices, sides = (np.asarray(column).tolist() for column in columns)
    with pathlib.Path(path).open("w") as file:
        for i, kind in enumerate(kinds):
            if not EventKind.ADD <= kind <= EventKind.HALT:
                raise ValueError(
                    f"row {i} is {EventKind(kind).name}, which LOBSTER has no type for."
                )
            seconds = decimal.Decimal(int(log.time[i])) / NANOSECONDS
            side = sides[i] or -1
            file.write(f"{seconds:.9f},{kind},{i + 1},{sizes[i]},{prices[i]},{side}\n")


def write_lobster_book(states: BookStates, path: str | pathlib.Path) -> None:
    """A book file; missing levels get LOBSTER's dummy prices and size 0."""
    check_counts(num_rows=states.fault.shape[0])
    parts = (states.ask_price, states.ask_size, states.bid_price, states.bid_size)
    ask, ask_size, bid, bid_size = (np.asarray(part, np.int64) for part in parts)
    ask = np.where(ask_size > 0, ask, 9_999_999_999)
    bid = np.where(bid_size > 0, bid, -9_999_999_999)
    table = np.stack([ask, ask_size, bid, bid_size], axis=2).reshape(len(ask), -1)
    np.savetxt(path, table, fmt="%d", delimiter=",")
