"""From data frames to the rows of a panel: which calendar, which row, which kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxfc.calendar import (
    KINDS,
    LONGEST_CLOSURE,
    as_days,
    as_index,
    calendar_between,
    day_at,
    infer_frequency,
    low_frequency_blocks,
    parse_frequency,
    period_end,
    period_ends,
    rank,
    shift_period,
)
from jaxfc.panel_checks import (
    check_kinds,
    check_names,
    checked_frame,
    quoted,
    visible_frequency,
)
from jaxfc.typing import Bool, Float


class Column(NamedTuple):
    """The observations of one series: their values and the last days of their periods."""

    name: str
    frequency: str
    kind: str
    ends: pd.DatetimeIndex
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """What a panel is made of."""

    values: Float[np.ndarray, "time series"]
    observed: Bool[np.ndarray, "time series"]
    index: pd.DatetimeIndex
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    frequencies: tuple[str, ...]
    frequency: str


def table_from_frame(frame: object, kinds: Mapping[str, str], frequency: str | None) -> Table:
    """One frame on one calendar; series that visibly live at a lower frequency need a kind."""
    label = "the frame"
    checked = checked_frame(frame, label)
    dates = pd.DatetimeIndex(checked.index)
    base = infer_frequency(dates) if frequency is None else parse_frequency(frequency)
    ends = base_ends(dates, base, label)
    index = ends if base == "B" else calendar_between(day_at(ends, 0), day_at(ends, -1), base)
    check_kinds(kinds, list(checked.columns))
    columns = []
    for name, column in checked.items():
        seen = column.notna().to_numpy()
        on_calendar = pd.Series(seen, ends).reindex(index, fill_value=False).to_numpy()
        own = own_frequency(str(name), on_calendar, index, base, kinds)
        values = column.to_numpy()[seen]
        seen_ends = ends[seen] if own == base else period_ends(ends[seen], own)
        columns.append(Column(str(name), own, kinds.get(str(name), "stock"), seen_ends, values))
    return assemble(columns, spanning_calendar(columns, index, base), base)


def own_frequency(
    name: str,
    observed: Bool[np.ndarray, " time"],
    index: pd.DatetimeIndex,
    base: str,
    kinds: Mapping[str, str],
) -> str:
    """The frequency at which a column of a frame lives."""
    visible = visible_frequency(observed, index, base)
    if visible is None:
        sparse = not np.any(observed[1:] & observed[:-1]) and observed.sum() < 3
        if kinds.get(name, "stock") != "stock" and sparse and len(index) > 1:
            raise ValueError(
                f"series {name!r} has too few observations to tell its frequency; pass it in a "
                "frame of its own to Panel.from_frames."
            )
        return base
    frequency, at_end = visible
    if not at_end:
        raise ValueError(
            f"mixed frequencies: series {name!r} is observed in the first row of each {frequency} "
            f"period of a {base} calendar; a value stands in the row in which its period ends: "
            f"pass it as Panel.from_frames({{'{base}': ..., '{frequency}': ...}}), which takes "
            "period starts."
        )
    if name not in kinds:
        raise ValueError(
            f"mixed frequencies without kinds: series {name!r} is observed in the last row of "
            f"each {frequency} period of a {base} calendar only; say what its values are with "
            f"kinds={{{name!r}: ...}}, one of {quoted(KINDS)}."
        )
    return frequency


def base_ends(dates: pd.DatetimeIndex, base: str, label: str) -> pd.DatetimeIndex:
    """Period ends of the rows of a frame at the base frequency, distinct."""
    ends = period_ends(dates, base)
    if base == "B":
        days = as_days(dates)
        weekend = np.flatnonzero(~np.is_busday(days))
        if len(weekend):
            raise ValueError(
                f"{label}: {dates[weekend[0]]:%Y-%m-%d} is a weekend, which a business-day "
                "calendar does not have; use frequency 'D'."
            )
        gaps = np.diff(days).astype(np.int64)
        if len(gaps) and gaps.max() > LONGEST_CLOSURE:
            row = int(gaps.argmax())
            raise ValueError(
                f"{label}: the business days {dates[row]:%Y-%m-%d} and {dates[row + 1]:%Y-%m-%d} "
                f"are {gaps[row]} days apart; add the missing days as rows of NaN."
            )
    check_one_a_period(dates, ends, base, label)
    return ends


def check_one_a_period(
    dates: pd.DatetimeIndex, ends: pd.DatetimeIndex, frequency: str, what: str
) -> None:
    """No two dates of a series lie in one period."""
    twice = np.flatnonzero(ends[1:] == ends[:-1])
    if len(twice):
        row = int(twice[0])
        raise ValueError(
            f"{what} has two observations in the {frequency} period that ends "
            f"{ends[row]:%Y-%m-%d} ({dates[row]} and {dates[row + 1]}); aggregate them first, or "
            "give a higher frequency."
        )


def table_from_frames(
    frames: Mapping[str, pd.DataFrame], kinds: Mapping[str, str], base: str | None
) -> Table:
    """Frames at their own frequencies on the calendar of the highest, nothing lost."""
    if not frames:
        raise ValueError("from_frames got no frame; give at least one, for example {'M': df}.")
    labels = {key: f"frames[{key!r}]" for key in frames}
    checked = {key: checked_frame(frame, labels[key]) for key, frame in frames.items()}
    frequencies = {key: parse_frequency(key) for key in frames}
    base = checked_base(frequencies, base)
    names = [str(name) for frame in checked.values() for name in frame.columns]
    check_names(names, "frames")
    check_kinds(kinds, names)
    columns, own_index = [], None
    for key, frame in checked.items():
        frequency = frequencies[key]
        if frequency == base:
            own_index = base_ends(pd.DatetimeIndex(frame.index), base, labels[key])
        for name, column in frame.items():
            columns.append(low_column(str(name), column.dropna(), frequency, base, kinds))
    index = spanning_calendar(columns, own_index, base)
    return assemble(columns, index, base)


def checked_base(frequencies: Mapping[str, str], base: str | None) -> str:
    """The base frequency: given or the highest, with one calendar at its rank."""
    found = list(frequencies.values())
    if len(set(found)) < len(found):
        raise ValueError(f"two frames have the same frequency: keys {quoted(list(frequencies))}.")
    chosen = min(found, key=rank) if base is None else parse_frequency(base)
    for frequency in found:
        if frequency != chosen and rank(frequency) <= rank(chosen):
            raise ValueError(
                f"the frame at {frequency!r} cannot be placed on the base calendar {chosen!r}: the "
                "base must have the highest frequency and be the only calendar of that kind."
            )
    return chosen


def low_column(
    name: str, column: pd.Series, frequency: str, base: str, kinds: Mapping[str, str]
) -> Column:
    """Observations of a series given by any date inside their periods."""
    if frequency != base and name not in kinds:
        raise ValueError(
            f"mixed frequencies without kinds: series {name!r} is at frequency {frequency!r} in a "
            f"panel at {base!r}; say what its values are with kinds={{{name!r}: ...}}, one of "
            f"{quoted(KINDS)}."
        )
    dates = pd.DatetimeIndex(column.index)
    ends = period_ends(dates, frequency)
    check_one_a_period(dates, ends, frequency, f"series {name!r}")
    return Column(name, frequency, kinds.get(name, "stock"), ends, column.to_numpy())


def spanning_calendar(
    columns: Sequence[Column], own_index: pd.DatetimeIndex | None, base: str
) -> pd.DatetimeIndex:
    """The base calendar with every block that an observation needs, two for a change in flow."""
    firsts = [] if own_index is None else [day_at(own_index, 0)]
    lasts = [] if own_index is None else [day_at(own_index, -1)]
    for column in columns:
        if column.frequency == base or not len(column.ends):
            continue
        lasts.append(last_base_period(day_at(column.ends, -1), base))
        if column.kind == "stock":
            firsts.append(last_base_period(day_at(column.ends, 0), base))
        else:
            num_blocks = 2 if column.kind == "change_in_flow" else 1
            before = shift_period(day_at(column.ends, 0), column.frequency, -num_blocks)
            firsts.append(
                day_at(period_ends(as_index(as_days(pd.DatetimeIndex([before])) + 1), base), 0)
            )
    if not firsts:
        raise ValueError("the frames have no observation at all.")
    if own_index is None or base != "B":
        return calendar_between(min(firsts), max(lasts), base)
    earlier = calendar_between(min(firsts), day_at(own_index, 0), base)[:-1]
    later = calendar_between(day_at(own_index, -1), max(lasts), base)[1:]
    return as_index(np.concatenate([as_days(part) for part in (earlier, own_index, later)]))


def last_base_period(end: pd.Timestamp, base: str) -> pd.Timestamp:
    """End of the last base period that lies in the low-frequency period ending at `end`."""
    own = period_end(end, base)
    return own if own <= end else shift_period(own, base, -1)


def assemble(columns: Sequence[Column], index: pd.DatetimeIndex, base: str) -> Table:
    """Put every observation in the row of the last base period of its own period."""
    values = np.zeros((len(index), len(columns)))
    observed = np.zeros(values.shape, bool)
    for i, column in enumerate(columns):
        rows = np.arange(len(index))
        ends = index
        if column.frequency != base:
            blocks = low_frequency_blocks(index, base, column.frequency)
            rows, ends = blocks.last_row, blocks.ends
        place = ends.get_indexer(column.ends)
        if np.any(place < 0):
            lost = column.ends[np.flatnonzero(place < 0)[0]]
            raise ValueError(
                f"series {column.name!r} is observed for the {column.frequency} period that ends "
                f"{lost:%Y-%m-%d}, in which the base calendar has no row; add the missing rows "
                f"to the {base} frame."
            )
        values[rows[place], i] = column.values
        observed[rows[place], i] = True
    return Table(
        values,
        observed,
        index,
        tuple(c.name for c in columns),
        tuple(c.kind for c in columns),
        tuple(c.frequency for c in columns),
        base,
    )
