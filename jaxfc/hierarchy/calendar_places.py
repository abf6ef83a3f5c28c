"""Places of days in the cycles of a calendar, and which sums they belong to; host side."""

import numpy as np
import pandas as pd

from jaxfc.calendar import WEEKDAYS, as_days, as_index, period_ends

Key = tuple[int, ...]


def keys_of(
    dates: pd.DatetimeIndex, names: list[str], weeks: str
) -> tuple[pd.DatetimeIndex, list[list[Key | None]]]:
    """The end of the cycle of each day, and its place in the cycle at every level and as a day."""
    by_week = names[-1].startswith("W")
    week_ends = period_ends(dates, names[-1]) if by_week else dates
    anchors = week_ends if weeks == "whole" and by_week else dates
    cycle_ends = period_ends(anchors, names[0])
    nested = [period_ends(anchors, name) for name in (names[:-1] if by_week else names)]
    nested = nested or [cycle_ends]
    paths = [ordinals([*nested[: depth + 1]]) for depth in range(len(nested))]
    paths = [[key[1:] if len(key) > 1 else (1,) for key in path] for path in paths]
    keys: list[list[Key | None]] = [list(path) for path in paths]
    if not by_week:
        inner = ordinals([*nested, dates])
        days: list[Key | None] = [key[1:] for key in inner]
        return cycle_ends, [*keys, days]
    above = nested if weeks != "cross" else [cycle_ends]
    inner = [key[1:] for key in ordinals([*above, week_ends])]
    own: list[Key | None] = list(inner)
    if weeks == "cross":
        first, last = as_days(week_ends) - 6, as_days(week_ends)
        first = np.busday_offset(first, 0, roll="forward")
        last = np.busday_offset(last, 0, roll="backward")
        sides = [as_days(period_ends(as_index(day), names[0])) for day in (first, last)]
        straddles = sides[0] != sides[1]
        own = [None if gone else key for gone, key in zip(straddles, inner, strict=True)]
    days = [(*key, int(day)) for key, day in zip(inner, dates.day_of_week, strict=True)]
    if len(names) > 1:
        keys.append(own)
    return cycle_ends, [*keys, days]


def ordinals(ends: list[pd.DatetimeIndex]) -> list[Key]:
    """The path of each day: the rank of its period among those of the period above, from 1."""
    paths: list[Key] = [()] * len(dates_of(ends[0]))
    for column in ends:
        seen: dict[Key, dict[object, int]] = {}
        longer = []
        for path, day in zip(paths, dates_of(column), strict=True):
            # The first rank is over all cycles and is cut off later; those below start anew.
            inside = seen.setdefault(path, {})
            longer.append((*path, inside.setdefault(day, len(inside) + 1)))
        paths = longer
    return paths


def dates_of(index: pd.DatetimeIndex) -> list[int]:
    """Days as integers."""
    return as_days(index).astype(np.int64).tolist()


def last_dates(
    dates: pd.DatetimeIndex, cycle: np.ndarray, cells: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The last date of each period of each cycle; later days overwrite earlier ones."""
    ends = np.full(shape, np.datetime64("NaT"), dtype="datetime64[ns]")
    for row in cells:
        there = row >= 0
        ends[cycle[there], row[there]] = dates.to_numpy()[there]
    return ends


def memberships(
    dates: pd.DatetimeIndex,
    cycle: np.ndarray,
    cells: np.ndarray,
    ends: np.ndarray,
    split: int,
    how: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Aggregates of each position (rows, bottom) and their weights (cycles, rows, bottom).

    A position may be in other aggregates in other cycles (a week that crosses months): it has a row
    for each, and weight in the one of the cycle.
    """
    bottom, num_bottom = cells[-1] - split, ends.shape[1] - split
    rows, weights = [], []
    for level in cells[:-1]:
        options: list[dict[int, int]] = [{} for _ in range(num_bottom)]
        layer = np.zeros(len(bottom), dtype=np.int64)
        for day, (slot, node) in enumerate(zip(bottom, level, strict=True)):
            if node >= 0:
                layer[day] = options[slot].setdefault(node, len(options[slot]))
        there = level >= 0
        if how == "last":
            there &= ends[cycle, level] == dates.to_numpy()
        count = np.zeros(ends.shape)
        np.add.at(count, (cycle[there], level[there]), 1.0)
        value = np.ones(len(bottom)) if how == "sum" else 1.0 / np.maximum(count[cycle, level], 1)
        depth = max(max(map(len, options)), 1)
        group = np.full((depth, num_bottom), split, dtype=np.int64)
        for slot, found in enumerate(options):
            group[: len(found), slot] = list(found)
        weight = np.zeros((len(ends), depth, num_bottom))
        weight[cycle[there], layer[there], bottom[there]] = value[there]
        rows.append(group)
        weights.append(weight)
    return np.concatenate(rows), np.concatenate(weights, axis=1)


def written(key: Key, *, weekday: bool) -> str:
    """A place in words: 2-3, or 2-TUE for a day of the second week."""
    parts = [str(part) for part in key]
    if weekday:
        parts[-1] = WEEKDAYS[key[-1]]
    return "-".join(parts)
