"""Vintages: what was known of a panel at several dates, on one calendar."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import Date, naive
from jaxfc.frames import read_table
from jaxfc.panel import Panel
from jaxfc.realtime import realtime_panels
from jaxfc.typing import Array, Bool, Float
from jaxfc.vintage_alignment import (
    aligned,
    check_no_series_lost,
    check_rename,
    renamed,
)

Vintage = Panel | pd.DataFrame | Mapping[str, pd.DataFrame]
ENDINGS = (".csv", ".csv.gz", ".parquet", ".pq", ".xls", ".xlsx")
DAY_IN_NAME = re.compile(r"(?<!\d)(\d{4})-?(\d{2})(?:-?(\d{2}))?(?!\d)")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class VintageStore:
    """Panels by the date at which they were known, on one calendar with one list of series.

    `dates` ascend; `panels` share index, names, kinds and frequencies, so that all of them run
    through one compiled program and their arrays stack. Rows that a vintage does not reach, and
    series that it does not have yet, are not observed in it.

    Build it with `from_frames`, `from_folder`, `from_realtime` or `pseudo_vintages`.
    """

    dates: pd.DatetimeIndex
    panels: tuple[Panel, ...]

    def __post_init__(self):
        if not len(self.dates) or len(self.dates) != len(self.panels):
            raise ValueError(f"{len(self.panels)} vintages for {len(self.dates)} dates.")
        if not (self.dates.is_monotonic_increasing and self.dates.is_unique):
            raise ValueError("the dates of the vintages must ascend and differ.")

    @classmethod
    def from_frames(
        cls,
        vintages: Mapping[Date, Vintage],
        *,
        on_change: str = "error",
        rename: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "VintageStore":
        """Vintages from `{date: panel, frame or frames by frequency}`.

        A frame becomes a panel by `Panel.from_frame(frame, **options)`, frames by frequency
        `{"M": ..., "Q": ...}` by `Panel.from_frames`. `rename`: old names of series to new ones.
        `on_change="revise"`: a series that a later vintage does not have is unobserved there; by
        default that is an error, because it is as often an accident.

        **Raises:** `ValueError` as the panels do, with the date of the vintage; for a series that a
        vintage loses or renames, one whose kind or frequency changes, and dates given twice.
        """
        if not vintages:
            raise ValueError("there is no vintage; give at least one, {date: frame}.")
        stamps = [naive(date) for date in vintages]
        order = sorted(range(len(stamps)), key=lambda i: stamps[i])
        dates = checked_dates([stamps[i] for i in order])
        given = list(vintages.values())
        labels = [f"the vintage of {date:%Y-%m-%d}" for date in dates]
        made = [
            made_panel(given[i], label, options) for i, label in zip(order, labels, strict=True)
        ]
        rename = {} if rename is None else rename
        check_rename(rename, {name for panel in made for name in panel.names})
        made = [renamed(panel, rename, label) for panel, label in zip(made, labels, strict=True)]
        check_no_series_lost([panel.names for panel in made], dates, on_change)
        return cls(dates, tuple(aligned(made, labels)))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        pattern: str = "*",
        read: Callable[[Path], Vintage] | None = None,
        on_change: str = "error",
        rename: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "VintageStore":
        """Vintages from files that carry their date in their name: `2016-12-23.xls`.

        Files that match `pattern` and end in .csv, .csv.gz, .parquet, .xls or .xlsx are read, by
        `read` or as dates x series with the dates in the first column (Excel: of the first sheet).
        A name with year and month only stands for the last day of the month.

        **Raises:** as `from_frames`; `FileNotFoundError` if no file is found; `ValueError` for a
        file without a date in its name.
        """
        paths = [
            path
            for path in sorted(Path(folder).glob(pattern))
            if path.is_file() and path.name.lower().endswith(ENDINGS)
        ]
        if not paths:
            raise FileNotFoundError(f"{folder} has no file {pattern!r} that ends in {ENDINGS}.")
        found: dict[Date, Path] = {}
        for path in paths:
            date = date_in_name(path)
            if date in found:
                raise ValueError(f"{path} and {found[date]} are both of {date:%Y-%m-%d}.")
            found[date] = path
        reader = read_vintage if read is None else read
        vintages = {date: reader(path) for date, path in found.items()}
        return cls.from_frames(vintages, on_change=on_change, rename=rename, **options)

    @classmethod
    def from_realtime(
        cls,
        table: pd.DataFrame,
        frequencies: str | Mapping[str, str],
        *,
        dates: Iterable[Date] | None = None,
        on_change: str = "error",
        rename: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "VintageStore":
        """Vintages from a long table in the manner of ALFRED, one row for each published value.

        **Arguments:** columns `series`, `period` (any day of it), `value`, `realtime_start` (first
        day on which the value was the valid one) and, if known, `realtime_end` (last such day;
        empty or in the year 9999: still valid). A value holds until its end or the next one for the
        same period. `frequencies`: one for all, or by series. `dates`: of the vintages, by default
        every day on which something changes. `options` go to `Panel.from_frames`.

        **Raises:** `ValueError` naming the series and the period for two values of one period on
        one day, real-time periods that overlap, two different days given for one period, values
        that are not numbers, and series that vanish (`on_change`, as in `from_frames`).
        """
        rename = {} if rename is None else rename
        stamps, panels = realtime_panels(table, frequencies, dates, rename, options)
        index = checked_dates(stamps)
        present = [
            [name for i, name in enumerate(panel.names) if panel.observed[:, i].any()]
            for panel in panels
        ]
        check_no_series_lost(present, index, on_change)
        return cls(index, tuple(panels))

    def __len__(self) -> int:
        return len(self.panels)

    def __repr__(self) -> str:
        return (
            f"VintageStore({len(self)} vintages {self.dates[0]:%Y-%m-%d}.."
            f"{self.dates[-1]:%Y-%m-%d} of {self.panels[-1]!r})"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the series, the same in all vintages."""
        return self.panels[0].names

    @property
    def index(self) -> pd.DatetimeIndex:
        """The calendar of all vintages."""
        return self.panels[0].index

    def as_of(self, date: Date) -> Panel:
        """The last vintage of `date` or before: what was known then."""
        place = int(np.sum(self.dates <= naive(date))) - 1
        if place < 0:
            raise ValueError(
                f"nothing is known as of {naive(date):%Y-%m-%d}: the first vintage is of "
                f"{self.dates[0]:%Y-%m-%d}."
            )
        return self.panels[place]

    def pairs(self) -> list[tuple[Panel, Panel]]:
        """Consecutive vintages (old, new); pair i leads to the vintage of `dates[i + 1]`."""
        return list(zip(self.panels[:-1], self.panels[1:], strict=True))

    def arrays(
        self,
    ) -> tuple[Float[Array, "vintages time series"], Bool[Array, "vintages time series"]]:
        """Values (in the default float dtype of JAX) and masks of all vintages, stacked."""
        values = np.stack([panel.values for panel in self.panels])
        observed = np.stack([panel.observed for panel in self.panels])
        return jnp.asarray(values, jnp.result_type(float)), jnp.asarray(observed)

    def extend(self, horizon: int) -> "VintageStore":
        """All vintages with `horizon` unobserved rows at the end of the calendar."""
        return dataclasses.replace(self, panels=tuple(p.extend(horizon) for p in self.panels))

    def between(self, start: Date | None = None, stop: Date | None = None) -> "VintageStore":
        """The vintages from `start` to `stop`, both included."""
        first = 0 if start is None else int(np.sum(self.dates < naive(start)))
        last = len(self) if stop is None else int(np.sum(self.dates <= naive(stop)))
        if first >= last:
            raise ValueError(f"no vintage lies in {start}..{stop}.")
        return VintageStore(self.dates[first:last], self.panels[first:last])

    def map(self, function: Callable[[Panel], Panel]) -> "VintageStore":
        """`function` (a transform, a window, a selection) of every vintage, aligned again."""
        labels = [f"the vintage of {date:%Y-%m-%d}" for date in self.dates]
        return VintageStore(self.dates, tuple(aligned([function(p) for p in self.panels], labels)))


def pseudo_vintages(panel: Panel, dates: Iterable[Date]) -> VintageStore:
    """Pseudo real-time vintages of one panel: at each date what its delays say was published.

    Values that were revised later are the revised ones. **Raises:** `ValueError` for no dates, or
    dates that repeat.
    """
    stamps = checked_dates(sorted(naive(date) for date in dates))
    return VintageStore(stamps, tuple(panel.as_of(date) for date in stamps))


def checked_dates(dates: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
    """Sorted dates of vintages, at least one, none twice."""
    index = pd.DatetimeIndex(dates)
    if not len(index):
        raise ValueError("there is no date of a vintage; give at least one.")
    twice = index[index.duplicated()]
    if len(twice):
        raise ValueError(f"two vintages have the date {twice[0]:%Y-%m-%d %H:%M}; keep one.")
    return index


def made_panel(vintage: Vintage, label: str, options: Mapping[str, Any]) -> Panel:
    """A panel from whatever a vintage is given as; errors name the vintage."""
    if isinstance(vintage, Panel):
        if options:
            raise ValueError(
                f"{label} is a panel, which has its options already; {sorted(options)} only apply "
                "to frames."
            )
        return vintage
    try:
        if isinstance(vintage, pd.DataFrame):
            return Panel.from_frame(vintage, **options)
        return Panel.from_frames(vintage, **options)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def date_in_name(path: Path) -> pd.Timestamp:
    """The date in a file name, yyyy-mm-dd or yyyymmdd; yyyy-mm is the last day of the month."""
    found = DAY_IN_NAME.findall(path.name)
    if len(found) == 1:
        year, month, day = found[0]
        try:
            if day:
                return naive(f"{year}-{month}-{day}")
            return naive(f"{year}-{month}-01") + pd.offsets.MonthEnd(0)
        except ValueError:
            pass
    raise ValueError(
        f"{path} has no date (yyyy-mm-dd) in its name, or several; leave it out with pattern=... "
        "or rename it."
    )


def read_vintage(path: Path) -> pd.DataFrame:
    """Dates x series from a table file; of an Excel file the first sheet, dates first."""
    if path.suffix.lower() not in (".xls", ".xlsx"):
        return read_table(path)
    try:
        return pd.read_excel(path, index_col=0)
    except ImportError:  # of the package that reads Excel files; it says which
        raise
    except Exception as error:  # its readers raise whatever their parts do
        raise ValueError(f"{path} is no Excel file, or a broken one ({error}).") from error
