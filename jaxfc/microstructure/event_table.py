"""Events in Parquet files of any layout: which column is what, which code is which event."""

import pathlib
from collections.abc import Hashable, Mapping
from typing import Literal

import numpy as np

from jaxfc.arguments import check_positive
from jaxfc.microstructure.events import NANOSECONDS, EventKind, EventLog, EventRow, event_log
from jaxfc.microstructure.faults import (
    FaultRecord,
    FaultyLine,
    Policy,
    whole_number,
    whole_units,
)

REQUIRED = ("time", "kind", "side", "price", "size")
OPTIONAL = ("sequence",)
SIDED = (
    EventKind.ADD,
    EventKind.REDUCE,
    EventKind.DELETE,
    EventKind.EXECUTE,
    EventKind.SET,
    EventKind.EDGE,
)
TICKS_OF_THE_CLOCK = {"s": NANOSECONDS, "ms": 1_000_000, "us": 1_000, "ns": 1}


def read_event_table(
    path: str | pathlib.Path,
    columns: Mapping[str, str],
    *,
    kinds: Mapping[Hashable, EventKind],
    sides: Mapping[Hashable, int],
    tick_size: float,
    lot_size: float,
    time_unit: Literal["s", "ms", "us", "ns"] = "ns",
    faults: Policy = "raise",
) -> EventLog:
    """The events of a Parquet file, one a row.

    `columns` maps `time`, `kind`, `side`, `price`, `size` and, if there is one, `sequence` to the
    file's names; `kinds` and `sides` map its codes to an `EventKind` and to 1 (bids), -1 (asks) or
    0 (both). `time` holds timestamps, or whole numbers of `time_unit`. Rows with one `sequence`
    are one message, and the next message has the next number; without it every row is a message.

    **Raises:** `FileNotFoundError`; `ValueError` for a column that is not in the file or a part
    that is not mapped, and with file and row (from 1, as `line`) for an unknown code, a missing
    value or NaN, a negative size, a clock that goes backwards, a hole in `sequence`
    (`faults="quarantine"`: the row is listed in `faults` and a `GAP` row stands in its place).
    """
    check_positive(tick_size=tick_size, lot_size=lot_size)
    path = pathlib.Path(path)
    table = table_columns(path, columns, time_unit)
    record = FaultRecord(str(path), faults)
    rows: list[EventRow] = []
    clock, sequence = None, None
    gap = int(EventKind.GAP)
    for i in range(len(table["time"])):
        cells = {name: values[i] for name, values in table.items()}
        try:
            row = table_row(cells, i + 1, kinds, sides, (tick_size, lot_size))
            if clock is not None and row[0] < clock:
                raise FaultyLine(f"the clock goes backwards, from {clock} to {row[0]} ns.")
        except FaultyLine as fault:
            record.report(i + 1, str(fault))
            rows.append((clock or 0, i + 1, sequence or 0, gap, 0, 0, 0, True))
            continue
        if sequence is not None and row[2] - sequence not in (0, 1):
            record.report(i + 1, f"number {row[2]} follows {sequence}: rows are missing.")
            rows.append((row[0], i + 1, row[2], gap, 0, 0, 0, True))
        clock = row[0]
        sequence = row[2] if "sequence" in table else None
        rows.append(row)
    if "sequence" in table:
        rows = [
            (*row[:7], i + 1 == len(rows) or rows[i + 1][2] != row[2] or row[3] == gap)
            for i, row in enumerate(rows)
        ]
    return event_log(
        rows, record.source, tick_size=tick_size, lot_size=lot_size, faults=record.found
    )


def table_columns(
    path: pathlib.Path, columns: Mapping[str, str], time_unit: str
) -> dict[str, list[object]]:
    """The mapped columns of a file as lists, `time` in nanoseconds."""
    import pyarrow  # loaded on first use
    import pyarrow.parquet as parquet

    if time_unit not in TICKS_OF_THE_CLOCK:
        raise ValueError(f"time_unit must be s, ms, us or ns, got {time_unit!r}.")
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown:
        raise ValueError(
            f"columns must map {', '.join(REQUIRED)} and may map {', '.join(OPTIONAL)}; missing "
            f"{missing}, unknown {unknown}."
        )
    found: dict[str, list[object]] = {}
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file; check the path.")
    try:
        held = parquet.read_schema(path).names
        wanted = [name for name in dict.fromkeys(columns.values()) if name in held]
        table = parquet.read_table(path, columns=wanted)
        for name, column in columns.items():
            if name == "time" and column in held:
                found[name] = clock_values(table[column], time_unit)
            elif column in held:
                found[name] = table[column].to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is a broken Parquet file ({error}); write it again.") from error
    absent = [name for name in columns.values() if name not in held]
    if absent:
        raise ValueError(f"{path} has no column {absent}; it has {held}.")
    return found


def clock_values(column, time_unit: str) -> list[object]:
    """Timestamps or whole numbers as nanoseconds, `None` where missing."""
    import pyarrow

    scale = TICKS_OF_THE_CLOCK[time_unit]
    if pyarrow.types.is_timestamp(column.type):
        scale = TICKS_OF_THE_CLOCK[column.type.unit]
        column = column.cast(pyarrow.int64())
    return [
        value * scale if isinstance(value, int) else value  # others are refused with their row
        for value in column.to_pylist()
    ]


def table_row(
    cells: Mapping[str, object],
    number: int,
    kinds: Mapping[Hashable, EventKind],
    sides: Mapping[Hashable, int],
    units: tuple[float, float],
) -> EventRow:
    """One row of a table."""
    kind, side = cells["kind"], cells["side"]
    if not isinstance(kind, Hashable) or kind not in kinds:
        raise FaultyLine(f"unknown event type {kind!r}, expected one of {list(kinds)}.")
    if not isinstance(side, Hashable) or side not in sides or sides[side] not in (-1, 0, 1):
        raise FaultyLine(f"unknown side {side!r}, expected one of {list(sides)} as -1, 0 or 1.")
    if sides[side] == 0 and kinds[kind] in SIDED:
        raise FaultyLine(f"{kinds[kind].name} needs a side, got {side!r}.")
    time = whole_number(cells["time"], "the time")
    sequence = whole_number(cells.get("sequence", 0), "the sequence number")
    price = whole_units(cells["price"], units[0], "the price")
    size = whole_units(cells["size"], units[1], "the size")
    return time, number, sequence, int(kinds[kind]), sides[side], price, size, True


def write_event_table(log: EventLog, path: str | pathlib.Path) -> None:
    """A Parquet file of a log: columns `time` (ns), `sequence`, `kind` (names), `side` (bid, ask,
    both), `price`, `size` in the units of the instrument."""
    import pyarrow
    import pyarrow.parquet as parquet

    rows = log.events
    kinds = [EventKind(kind).name for kind in np.asarray(rows.kind).tolist()]
    sides = [{1: "bid", -1: "ask", 0: "both"}[side] for side in np.asarray(rows.side).tolist()]
    table = pyarrow.table(
        {
            "time": pyarrow.array(log.time, pyarrow.timestamp("ns")),
            "sequence": pyarrow.array(log.sequence),
            "kind": pyarrow.array(kinds),
            "side": pyarrow.array(sides),
            "price": pyarrow.array(np.asarray(rows.price, np.float64) * log.tick_size),
            "size": pyarrow.array(np.asarray(rows.size, np.float64) * log.lot_size),
        }
    )
    parquet.write_table(table, path)
