"""When each value of a panel is published."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxfc.calendar import Date, naive, period_ends
from jaxfc.native_rows import answered_rows, own_periods
from jaxfc.panel import Panel
from jaxfc.panel_checks import check_known
from jaxfc.vintages import VintageStore


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ReleaseCalendar:
    """Releases in order of their dates: `table` has the columns date, series and period.

    A period is named by its last day at the series' own frequency, as in `Panel.native`. Build it
    with `from_delays`, `from_dates` or `from_vintages`.
    """

    table: pd.DataFrame

    def __post_init__(self):
        columns = {name: self.table[name].to_numpy() for name in ("date", "series", "period")}
        order = np.lexsort((columns["period"], columns["series"].astype(str), columns["date"]))
        ordered = pd.DataFrame({name: column[order] for name, column in columns.items()})
        seen: dict[tuple, pd.Timestamp] = {}
        for date, name, period in ordered.itertuples(index=False):
            if (name, period) in seen:
                raise ValueError(
                    f"series {name!r} has two releases for the period that ends "
                    f"{period:%Y-%m-%d} ({seen[name, period]:%Y-%m-%d} and {date:%Y-%m-%d}); keep "
                    "the first one: later values are revisions."
                )
            seen[name, period] = date
        object.__setattr__(self, "table", ordered)

    def __repr__(self) -> str:
        if not len(self.table):
            return "ReleaseCalendar(no release)"
        first, last = self.table["date"].iloc[0], self.table["date"].iloc[-1]
        return f"ReleaseCalendar({len(self.table)} releases {first:%Y-%m-%d}..{last:%Y-%m-%d})"

    @classmethod
    def from_delays(cls, panel: Panel) -> "ReleaseCalendar":
        """Every period of every series of the panel, published as its delays say.

        For releases still to come give `panel.extend(horizon)`.
        """
        return cls(release_table(panel, answered_rows(panel), panel.publication_dates))

    @classmethod
    def from_dates(
        cls, releases: Mapping[str, Mapping[Date, Date]], panel: Panel
    ) -> "ReleaseCalendar":
        """A calendar of announced dates, `{series: {period: date}}`, any day of the period.

        **Raises:** `ValueError` for series that the panel does not have, two releases for one
        period (periods that overlap), and a release before its period begins.
        """
        check_known(releases, panel.names, "the calendar")
        parts = []
        for name, of_series in releases.items():
            own = panel.frequencies[panel.names.index(name)]
            days = pd.DatetimeIndex([naive(period) for period in of_series])
            ends = period_ends(days, own)
            dates = pd.DatetimeIndex([naive(date) for date in of_series.values()])
            check_not_too_early(name, own, days, dates)
            parts.append(pd.DataFrame({"date": dates, "series": name, "period": ends}))
        if not parts:
            raise ValueError("the calendar has no series; give {series: {period: date}}.")
        return cls(pd.concat(parts, ignore_index=True))

    @classmethod
    def from_vintages(cls, store: VintageStore) -> "ReleaseCalendar":
        """The first vintage in which each value stands; those of the first vintage are left out,
        because they were published at unknown dates before it."""
        _, observed = store.arrays()
        seen = np.asarray(observed)
        first = seen.argmax(axis=0)
        dates = store.dates.to_numpy()[first]
        return cls(release_table(store.panels[0], seen.any(axis=0) & (first > 0), dates))

    def releases_between(self, after: Date, until: Date) -> pd.DataFrame:
        """What is published after one date, until another one (included)."""
        begin, end = naive(after), naive(until)
        if end < begin:
            raise ValueError(f"{until} lies before {after}.")
        dates = pd.DatetimeIndex(self.table["date"])
        first, last = int(np.sum(dates <= begin)), int(np.sum(dates <= end))
        return self.table.iloc[first:last].reset_index(drop=True)

    def dates_of(self, series: Sequence[str], periods: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """The dates of releases, given by series and last day of the period.

        **Raises:** `ValueError` naming the first one that the calendar does not have.
        """
        known = {(name, period): date for date, name, period in self.table.itertuples(index=False)}
        dates = []
        for release in zip(series, periods, strict=True):
            if release not in known:
                raise ValueError(
                    f"the calendar has no release of series {release[0]!r} for the period that "
                    f"ends {release[1]:%Y-%m-%d}; add it."
                )
            dates.append(known[release])
        return pd.DatetimeIndex(dates)


def release_table(panel: Panel, cells: np.ndarray, dates: np.ndarray) -> pd.DataFrame:
    """The marked cells of a panel as a table of releases; `dates` (time, series)."""
    rows, columns = np.nonzero(cells)
    periods = own_periods(panel)
    ends = np.stack([periods[own].to_numpy() for own in panel.frequencies], axis=1)
    return pd.DataFrame(
        {
            "date": pd.DatetimeIndex(dates[rows, columns]),
            "series": [panel.names[i] for i in columns],
            "period": pd.DatetimeIndex(ends[rows, columns]),
        }
    )


def check_not_too_early(
    name: str, frequency: str, periods: pd.DatetimeIndex, dates: pd.DatetimeIndex
) -> None:
    """Nothing is published before its period begins."""
    ends = period_ends(periods, frequency)
    early = np.flatnonzero(period_ends(dates, frequency) < ends)
    if len(early):
        raise ValueError(
            f"series {name!r}: the value of the {frequency} period that ends "
            f"{ends[early[0]]:%Y-%m-%d} cannot be published on {dates[early[0]]:%Y-%m-%d}, before "
            "that period begins."
        )
