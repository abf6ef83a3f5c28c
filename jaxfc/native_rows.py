"""Which row of a panel is which period of a series, and tables at every series' own frequency."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxfc.calendar import (
    Date,
    aggregation_pattern,
    calendar_between,
    day_at,
    low_frequency_blocks,
    naive,
    period_end,
    period_ends,
)
from jaxfc.panel import Panel
from jaxfc.panel_checks import check_known, quoted
from jaxfc.typing import Bool, Int


def answered_rows(panel: Panel) -> Bool[np.ndarray, "time series"]:
    """The rows in which a complete period of each series ends: the cells it can be observed in."""
    patterns: dict[tuple[str, str], np.ndarray] = {}
    for key in zip(panel.frequencies, panel.kinds, strict=True):
        if key not in patterns:
            patterns[key] = aggregation_pattern(panel.index, panel.frequency, *key).answered
    keys = zip(panel.frequencies, panel.kinds, strict=True)
    return np.stack([patterns[key] for key in keys], axis=1)


def own_periods(panel: Panel) -> dict[str, pd.DatetimeIndex]:
    """By frequency of the panel: the last day of the period in which each row lies."""
    return {
        frequency: panel.index
        if frequency == panel.frequency
        else period_ends(panel.index, frequency)
        for frequency in dict.fromkeys(panel.frequencies)
    }


def reaching(panel: Panel, names: Collection[str], date: Date) -> Panel:
    """The panel, extended if need be until the periods of `names` that contain `date` are over."""
    check_known(names, panel.names, "the target")
    frequencies = {panel.frequencies[panel.names.index(name)] for name in names}
    end = max(period_end(naive(date), frequency) for frequency in frequencies)
    last = day_at(panel.index, -1)
    if end <= last:
        return panel
    return panel.extend(len(calendar_between(last, end, panel.frequency)) - 1)


def row_of_period(panel: Panel, names: Sequence[str], date: Date) -> int:
    """The row in which the periods of `names` that contain `date` end, the same for all.

    **Raises:** `ValueError` for unknown names, a period that the calendar does not have or has only
    in part, or series whose periods end in different rows.
    """
    check_known(names, panel.names, "the target")
    answered, rows = answered_rows(panel), {}
    for name in names:
        i = panel.names.index(name)
        row = int(period_rows(panel, name, pd.DatetimeIndex([naive(date)]))[0])
        if row < 0 or not answered[row, i]:
            raise ValueError(
                f"the {panel.frequencies[i]} period of series {name!r} that contains "
                f"{naive(date):%Y-%m-%d} is not, or not completely, in the calendar "
                f"{panel.index[0]:%Y-%m-%d}..{panel.index[-1]:%Y-%m-%d}; choose another period or "
                "extend the panel."
            )
        rows[name] = row
    if len(set(rows.values())) != 1:
        ends = ", ".join(f"{name!r} {panel.index[row]:%Y-%m-%d}" for name, row in rows.items())
        raise ValueError(
            f"the periods that contain {naive(date):%Y-%m-%d} end in different rows ({ends}); a "
            "target is one row: give series of one frequency, or a date at the end of all periods."
        )
    return next(iter(rows.values()))


def period_rows(panel: Panel, name: str, dates: pd.DatetimeIndex) -> Int[np.ndarray, " periods"]:
    """The row of the period of series `name` that contains each date; -1 where there is none."""
    own = panel.frequencies[panel.names.index(name)]
    ends = period_ends(dates, own)
    if own == panel.frequency:
        return panel.index.get_indexer(ends)
    blocks = low_frequency_blocks(panel.index, panel.frequency, own)
    place = blocks.ends.get_indexer(ends)
    return np.where((place >= 0) & blocks.ended[place], blocks.last_row[place], -1)


def native_tables(panel: Panel, statistics: Mapping[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """Arrays (time, series) in the series' own units, as one table for each frequency.

    Rows are the ends of complete periods, columns (series, statistic); a single statistic has plain
    series columns. `statistics` hold one array of the panel's shape for each name.
    """
    answered, tables = answered_rows(panel), {}
    for frequency, ends in own_periods(panel).items():
        places = [i for i, own in enumerate(panel.frequencies) if own == frequency]
        rows = answered[:, places].any(axis=1)
        names = [panel.names[i] for i in places]
        cut = [
            np.where(answered[:, places], array[:, places], np.nan)[rows]
            for array in statistics.values()
        ]
        columns = pd.Index(names)
        if len(statistics) > 1:
            columns = pd.MultiIndex.from_product([names, statistics], names=["series", "statistic"])
        table = np.stack(cut, axis=2).reshape(int(rows.sum()), -1)
        tables[frequency] = pd.DataFrame(table, index=ends[rows], columns=columns)
    return tables


def check_quantiles(quantiles: Sequence[float]) -> None:
    """Levels lie strictly between 0 and 1 and differ."""
    if any(not 0 < q < 1 for q in quantiles) or len(set(quantiles)) < len(quantiles):
        raise ValueError(
            f"quantile levels lie strictly between 0 and 1 and differ, got {tuple(quantiles)!r}."
        )


def check_places(rows: np.ndarray, dates: pd.DatetimeIndex, panel: Panel, name: str) -> None:
    """Every period of a series has its row."""
    lost = np.flatnonzero(rows < 0)
    if len(lost):
        raise ValueError(
            f"the period of series {name!r} that contains {dates[lost[0]]:%Y-%m-%d} does not end "
            f"in the calendar {panel.index[0]:%Y-%m-%d}..{panel.index[-1]:%Y-%m-%d} of the panel "
            f"with series {quoted(panel.names[:3])}, ...; extend the panel."
        )
