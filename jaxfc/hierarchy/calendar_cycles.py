"""Temporal hierarchies of a calendar: months of 19 to 23 trading days, weeks of 4 or 5 days.

Cycles of unequal length share one `Hierarchy`: every position that occurs in any cycle (the Tuesday
of the second week of the month) is a bottom series, and the weights of a cycle are zero where it
has no such day. So all cycles are one batch with weights per step, compiled once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import (
    LONGEST_CLOSURE,
    as_days,
    day_at,
    parse_frequency,
    period_end,
    period_ends,
    rank,
    shift_period,
)
from jaxfc.hierarchy.build import Parts
from jaxfc.hierarchy.calendar_places import keys_of, last_dates, memberships, written
from jaxfc.hierarchy.labels import shown
from jaxfc.hierarchy.methods import GLS
from jaxfc.hierarchy.quantities import Quantity
from jaxfc.hierarchy.structure import Hierarchy, labels_of
from jaxfc.hierarchy.summing import Summing
from jaxfc.hierarchy.temporal import How, check_how
from jaxfc.hierarchy.temporal_cov import OfPresent

Weeks = Literal["split", "whole", "cross"]
LEVELS = {"W": "week", "M": "month", "Q": "quarter", "A": "year"}


@dataclasses.dataclass(frozen=True, eq=False)
class CalendarCycles:
    """Cycles of a calendar: their common hierarchy, and which date each node of each cycle is.

    `ends` (cycles, nodes) is the last date of each period, NaT where a cycle has none; `cycles` are
    the ends of the cycles by the calendar. `hierarchy` has weights per cycle (none where all
    cycles are alike), so that a forecast of it has the cycles as its steps. Reconcile it by
    `method(MinT("shrink"))`, which leaves out the periods that a cycle lacks.
    """

    hierarchy: Hierarchy
    cycles: pd.DatetimeIndex
    ends: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(cycles, nodes): whether the cycle has this period."""
        return ~np.isnat(self.ends)

    def method(self, method: GLS) -> OfPresent:
        """A projection for these cycles, in which periods that a cycle lacks play no part."""
        return OfPresent(method, jnp.asarray(self.present))

    def periods(self, level: str) -> pd.DatetimeIndex:
        """Last dates of all periods of a level, in time."""
        chosen = self.ends[:, list(self.hierarchy.labels.at_level(level))]
        return pd.DatetimeIndex(np.sort(chosen[~np.isnat(chosen)]))

    def rows(self, start: int, stop: int) -> "CalendarCycles":
        """Some of the cycles, with the same nodes."""
        hierarchy = self.hierarchy
        if hierarchy.num_steps is not None:
            summing = hierarchy.summing
            cut = Summing(summing.groups, summing.weights[start:stop], summing.num_aggregates)
            hierarchy = Hierarchy(cut, hierarchy.labels, hierarchy.average)
        return CalendarCycles(hierarchy, self.cycles[start:stop], self.ends[start:stop])

    def stack(self, values: Mapping[str, pd.Series], *, absent: float = np.nan) -> np.ndarray:
        """Series of every level, by the last date of the period, as (cycles, nodes).

        `absent` stands where a cycle has no such period: NaN for residuals, 0 for forecasts. Dates
        that a series does not have are NaN.

        **Raises:** `ValueError` for missing levels, and a series without any date of its level.
        """
        labels = self.hierarchy.labels
        wrong = sorted(set(labels.level_names) ^ set(values))
        if wrong:
            raise ValueError(
                f"levels are {shown(labels.level_names)}, values are given for {shown(values)}."
            )
        stacked = np.full(self.ends.shape, np.nan)
        for level in labels.level_names:
            columns = np.array(labels.at_level(level))
            dates = pd.DatetimeIndex(self.ends[:, columns].ravel())
            found = values[level].reindex(dates).to_numpy(dtype=np.float64)
            if not dates.intersection(pd.DatetimeIndex(values[level].index)).size:
                raise ValueError(
                    f"the series of level {level!r} has none of its dates "
                    f"{shown(str(day)[:10] for day in self.periods(level)[:3])}; index it by the "
                    f"last trading day of each period, as .periods({level!r})."
                )
            stacked[:, columns] = found.reshape(-1, len(columns))
        return np.where(self.present, stacked, absent)

    def unstack(self, nodes: np.ndarray) -> dict[str, pd.Series]:
        """(cycles, nodes) as series of every level in time; undoes `stack`."""
        values, found = np.asarray(nodes), {}
        for level in self.hierarchy.labels.level_names:
            columns = np.array(self.hierarchy.labels.at_level(level))
            dates, cells = self.ends[:, columns].ravel(), values[:, columns].ravel()
            there = ~np.isnat(dates)
            one = pd.Series(cells[there], index=pd.DatetimeIndex(dates[there]), name=level)
            found[level] = one.sort_index()
        return found

    def aggregate(self, base: pd.Series) -> dict[str, pd.Series]:
        """Series of every level from that of the base periods; NaN where a day is missing."""
        labels = self.hierarchy.labels
        split = labels.num_aggregates
        dates = pd.DatetimeIndex(self.ends[:, split:].ravel())
        bottom = base.reindex(dates).to_numpy(dtype=np.float64).reshape(-1, labels.num_bottom)
        bottom = np.where(self.present[:, split:], bottom, 0.0)
        return self.unstack(np.asarray(self.hierarchy.aggregate(jnp.asarray(bottom))))


def calendar_cycles(
    dates: pd.DatetimeIndex,
    frequencies: Sequence[str] = ("M", "W-FRI"),
    *,
    weeks: Weeks = "split",
    how: How = "sum",
    quantity: Quantity = "flow",
    base: str = "day",
) -> CalendarCycles:
    """The cycles of a trading calendar as one hierarchy with weights per cycle.

    **Arguments:** `dates`: all base periods (trading days, or weeks) of whole cycles.
    `frequencies` from the cycle down, of 'A', 'Q', 'M', 'W-FRI' (any weekday). Weeks straddle
    months; by name:

    - "split": a week ends at the end of the month, which makes two nodes of it;
    - "whole": a week belongs to the month of its last day, months are 4 or 5 whole weeks;
    - "cross": weeks are nodes beside the months, days are in both (no tree); weeks that straddle
      the end of the cycle are no nodes.

    `how` aggregates: "sum", "mean" (over the days there are) or "last". Nodes are named by their
    place in the cycle: "month 1", "week 2", "day 2-TUE" (second week), or without weeks "day 5".

    **Raises:** `ValueError` for dates that are not sorted and unique, cycles (or whole weeks) that
    are cut off at the ends, frequencies out of order, and what `temporal_hierarchy` refuses.
    """
    check_how(how, quantity)
    names = [parse_frequency(alias) for alias in frequencies]
    check_dates(dates, names, weeks)
    cycle_ends, keys = keys_of(dates, names, weeks)
    levels = [LEVELS[name.partition("-")[0]] for name in names] + [base]
    cycles, cycle = np.unique(as_days(cycle_ends), return_inverse=True)
    nodes = [sorted({key for key in column if key is not None}) for column in keys]
    starts = np.cumsum([0, *(len(found) for found in nodes)])
    places = [
        {key: i + start for i, key in enumerate(found)}
        for found, start in zip(nodes, starts, strict=False)
    ]
    cells = np.array(
        [
            [-1 if key is None else place[key] for key in column]
            for column, place in zip(keys, places, strict=True)
        ]
    )
    ends = last_dates(dates, cycle, cells, (len(cycles), int(starts[-1])))
    groups, weights = memberships(dates, cycle, cells, ends, int(starts[-2]), how)
    by_week = names[-1].startswith("W")
    labels = [
        f"{level} {written(key, weekday=by_week and level == base)}"
        for level, found in zip(levels, nodes, strict=True)
        for key in found
    ]
    upper = [level for level, found in zip(levels[:-1], nodes, strict=False) for _ in found]
    split = int(starts[-2])
    parts = Parts(tuple(labels[:split]), tuple(upper), tuple(labels[split:]), base, groups)
    alike = np.all(weights == weights[:1])
    summing = Summing(
        jnp.asarray(groups, dtype=jnp.int32), jnp.asarray(weights[0] if alike else weights), split
    )
    hierarchy = Hierarchy(summing=summing, labels=labels_of(parts), average=False)
    return CalendarCycles(hierarchy, pd.DatetimeIndex(cycles.astype("datetime64[ns]")), ends)


def check_dates(dates: pd.DatetimeIndex, names: list[str], weeks: str) -> None:
    """Refuses disorder, cut cycles, and levels out of order."""
    if weeks not in ("split", "whole", "cross"):
        raise ValueError(f"weeks is 'split', 'whole' or 'cross', got {weeks!r}.")
    ranks = [rank(name) for name in names]
    if not names or ranks != sorted(set(ranks), reverse=True) or ranks[-1] < rank("W-FRI"):
        raise ValueError(
            f"frequencies go from the cycle down, each once, of 'A', 'Q', 'M', 'W-FRI'; got "
            f"{shown(names)}. Base periods are the dates themselves."
        )
    if not len(dates) or not dates.is_unique or not dates.is_monotonic_increasing:
        raise ValueError("dates must be sorted and unique, and there must be some.")
    anchors = dates
    if weeks == "whole" and ranks[-1] == rank("W-FRI"):
        anchors = period_ends(dates, names[-1])
        check_whole_weeks(as_days(dates), as_days(anchors))
    first, last = day_at(anchors, 0), day_at(anchors, -1)
    start = shift_period(period_end(first, names[0]), names[0], -1)
    stop = period_end(last, names[0])
    limit = pd.Timedelta(days=LONGEST_CLOSURE)  # holidays at the turn of a cycle
    for cut, what in ((first - start > limit, first), (stop - last > limit, last)):
        if cut:
            raise ValueError(
                f"the dates cut a cycle ({names[0]}) at {what:%Y-%m-%d}; give whole cycles, from "
                f"the first day of one to the last day of another."
            )


def check_whole_weeks(days: np.ndarray, week_ends: np.ndarray) -> None:
    """Refuses a first or last week that lacks more than one weekday, a holiday."""
    before = np.busday_count(week_ends[0] - 6, days[0])
    after = np.busday_count(days[-1] + 1, week_ends[-1] + 1)
    for missing, day in ((before, days[0]), (after, days[-1])):
        if missing > 1:
            raise ValueError(
                f"the dates cut a week at {day}, {missing} weekdays are missing; in "
                f"weeks='whole' months are whole weeks: begin and end with one."
            )
