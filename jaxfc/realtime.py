"""From a long table of published values (ALFRED) to what was known at each date."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from jaxfc.calendar import Date, as_index, naive, parse_frequency, period_ends
from jaxfc.native_rows import check_places, period_rows
from jaxfc.panel import Panel
from jaxfc.panel_checks import quoted
from jaxfc.vintage_alignment import check_rename

COLUMNS = ("series", "period", "value", "realtime_start")
MISSING = (".", "")


class Published(NamedTuple):
    """Published values, one an entry: all arrays (entries,); dates are days, NaT where unknown.

    `period` is the date as given, `end` the last day of the period it lies in; the value is the
    valid one from `start` up to, not including, `stop`.
    """

    series: np.ndarray
    period: np.ndarray
    end: np.ndarray
    value: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def realtime_panels(
    table: pd.DataFrame,
    frequencies: str | Mapping[str, str],
    dates: Iterable[Date] | None,
    rename: Mapping[str, str],
    options: Mapping[str, Any],
) -> tuple[list[pd.Timestamp], list[Panel]]:
    """Dates and panels of the vintages, all on one calendar."""
    published = checked_table(table, rename)
    own = own_frequencies(published.series, frequencies)
    ends = published.end.copy()
    for name, frequency in own.items():
        of_series = published.series == name
        periods = as_index(published.period[of_series])
        ends[of_series] = period_ends(periods, frequency).to_numpy().astype("datetime64[D]")
    published = with_stops(published._replace(end=ends))
    known = entries(published, ~np.isnan(published.value))
    panel = shape_of(known, own, options)
    rows, columns = places_of(known, panel)
    stamps = days_of_change(published) if dates is None else sorted(naive(d) for d in dates)
    panels = []
    for stamp in stamps:
        day = np.datetime64(stamp, "D")
        valid = (known.start <= day) & (np.isnat(known.stop) | (day < known.stop))
        values, observed = np.zeros(panel.values.shape), np.zeros(panel.observed.shape, bool)
        values[rows[valid], columns[valid]] = known.value[valid]
        observed[rows[valid], columns[valid]] = True
        panels.append(dataclasses.replace(panel, values=values, observed=observed))
    return stamps, panels


def entries(published: Published, which: np.ndarray) -> Published:
    """Some of the entries, or all in another order."""
    return Published(*(field[which] for field in published))


def checked_table(table: pd.DataFrame, rename: Mapping[str, str]) -> Published:
    """The columns that are needed, as text, days and numbers."""
    lacking = [column for column in COLUMNS if column not in table.columns]
    if lacking:
        raise ValueError(
            f"the real-time table has no column {quoted(lacking)}; it needs {quoted(COLUMNS)} and "
            f"may have 'realtime_end', got {quoted(list(map(str, table.columns)))}."
        )
    if not len(table):
        raise ValueError("the real-time table is empty.")
    columns = {str(name): list(column) for name, column in table.items()}
    series = [str(name) for name in columns["series"]]
    check_rename(rename, set(series))
    nothing = [None] * len(series)
    ends = [
        None if str(day).startswith("9999") else day for day in columns.get("realtime_end", nothing)
    ]
    last_day = as_days_of(ends, "realtime_end", may_lack=True)
    start = as_days_of(columns["realtime_start"], "realtime_start")
    period = as_days_of(columns["period"], "period")
    published = Published(
        series=np.array([rename.get(name, name) for name in series], dtype=object),
        period=period,
        end=period,
        value=as_numbers(columns["value"], series),
        start=start,
        stop=last_day + np.timedelta64(1, "D"),
    )
    refuse(published, last_day < start, "realtime_end lies before realtime_start for")
    return published


def as_days_of(column: list, name: str, may_lack: bool = False) -> np.ndarray:
    """A column of dates without time zone, as NumPy days."""
    try:
        index = pd.DatetimeIndex(pd.to_datetime(pd.Index(column)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {name!r} of the real-time table: {error}.") from error
    if index.tz is not None:
        raise ValueError(f"column {name!r} has a time zone; drop it with .dt.tz_localize(None).")
    days = index.to_numpy().astype("datetime64[D]")
    if not may_lack and np.isnat(days).any():
        row = int(np.flatnonzero(np.isnat(days))[0])
        raise ValueError(f"column {name!r} of the real-time table has no date in row {row}.")
    return days


def as_numbers(column: list, series: list[str]) -> np.ndarray:
    """Values as floats; '.' and empty cells are missing, as in ALFRED's files."""
    numbers = np.full(len(column), np.nan)
    for row, cell in enumerate(column):
        if cell is None or cell is pd.NA or str(cell).strip() in MISSING:
            continue
        try:
            numbers[row] = float(cell)
        except (TypeError, ValueError):
            numbers[row] = np.inf
        if np.isinf(numbers[row]):
            raise ValueError(
                f"the value of series {series[row]!r} in row {row} of the real-time table is "
                f"{cell!r}, no finite number; leave it empty if the value is missing."
            )
    return numbers


def own_frequencies(series: np.ndarray, frequencies: str | Mapping[str, str]) -> dict[str, str]:
    """The frequency of every series of the table."""
    names = list(dict.fromkeys(series))
    if isinstance(frequencies, str):
        return dict.fromkeys(names, parse_frequency(frequencies))
    lacking = [name for name in names if name not in frequencies]
    if lacking:
        raise ValueError(
            f"frequencies say nothing of series {quoted(lacking)}; give one for all or one each."
        )
    return {name: parse_frequency(frequencies[name]) for name in names}


def with_stops(published: Published) -> Published:
    """Sorted by series, period and real time; a value without an end holds until the next one."""
    codes = np.unique(published.series.astype(str), return_inverse=True)[1]
    table = entries(published, np.lexsort((published.start, published.end, codes)))
    same = np.r_[(table.series[:-1] == table.series[1:]) & (table.end[:-1] == table.end[1:]), False]
    next_start, next_period = np.roll(table.start, -1), np.roll(table.period, -1)
    two_days = np.flatnonzero(same & (table.period != next_period))
    if len(two_days):
        row = int(two_days[0])
        raise ValueError(
            f"series {table.series[row]!r} has two observations in the period that ends "
            f"{table.end[row]} ({table.period[row]} and {next_period[row]}); aggregate them first, "
            "or give a higher frequency."
        )
    refuse(table, same & (table.start == next_start), "two values are valid from the same day for")
    refuse(
        table, same & (table.stop > next_start), "the real-time periods of two values overlap for"
    )
    stop = np.where(np.isnat(table.stop) & same, next_start, table.stop)
    return table._replace(stop=stop)


def refuse(published: Published, bad: np.ndarray, what: str) -> None:
    """An error that names the first of some entries."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{what} series {published.series[row]!r}, period {published.period[row]}, published "
            f"{published.start[row]}; every value needs real-time days of its own."
        )


def shape_of(known: Published, own: Mapping[str, str], options: Mapping[str, Any]) -> Panel:
    """A panel with every cell that ever had a value: its calendar and series are those of all."""
    frames = {}
    for frequency in dict.fromkeys(own.values()):
        columns = {}
        for name in (name for name, of in own.items() if of == frequency):
            of_series = known.series == name
            if not of_series.any():
                raise ValueError(f"series {name!r} never has a value; drop it.")
            values = pd.Series(known.value[of_series], as_index(known.end[of_series]))
            columns[name] = values[~values.index.duplicated(keep="last")]
        frames[frequency] = pd.DataFrame(columns).sort_index()
    return Panel.from_frames(frames, **options)


def places_of(known: Published, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every entry."""
    rows, columns = np.zeros((2, len(known.series)), int)
    for i, name in enumerate(panel.names):
        of_series = known.series == name
        ends = as_index(known.end[of_series])
        rows[of_series], columns[of_series] = period_rows(panel, name, ends), i
        check_places(rows[of_series], ends, panel, name)
    return rows, columns


def days_of_change(published: Published) -> list[pd.Timestamp]:
    """Every day on which a value appears, changes or is withdrawn."""
    days = np.concatenate([published.start, published.stop])
    return [cast(pd.Timestamp, pd.Timestamp(day)) for day in np.unique(days[~np.isnat(days)])]
