"""The panel: values, what is observed of them, and the calendar; a host object, never traced."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import (
    Date,
    aggregation_pattern,
    aggregation_rows,
    continue_calendar,
    day_at,
    naive,
    period_ends,
    row_slice,
)
from jaxfc.forecast import Forecast
from jaxfc.panel_build import Table, table_from_frame, table_from_frames
from jaxfc.panel_checks import (
    Delay,
    DelayLike,
    check_known,
    check_series,
    checked_delays,
    without_cut_periods,
)
from jaxfc.panel_tables import aggregated, forecast_table
from jaxfc.transform_rules import Transform
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.aggregation import AggregationRows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """A panel of time series on one base calendar; the mask is the information set.

    `values` (time, series) is 0 where not `observed`. `index` (time,) holds the last day of every
    base period; a low-frequency observation stands in the row of the last base period of its own
    period. `kinds`, `frequencies` and `delays` say per series what a value is, how often it comes
    and how long after the end of its period it is published. `aggregation` says which entries are
    sums or averages over several rows (`None`: none is). A transformed panel keeps the panel of
    `levels` and the fitted `transforms` by which `invert` finds the way back.

    Build it with `from_frame` or `from_frames`; every verb returns a new panel.
    """

    values: Float[np.ndarray, "time series"]
    observed: Bool[np.ndarray, "time series"]
    index: pd.DatetimeIndex
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    frequencies: tuple[str, ...]
    frequency: str
    delays: tuple[Delay, ...]
    units: tuple[str, ...] | None = None
    levels: "Panel | None" = None
    transforms: tuple[Transform, ...] = ()
    aggregation: AggregationRows | None = dataclasses.field(init=False)

    def __post_init__(self):
        for what in ("kinds", "frequencies", "delays", "units"):
            given = getattr(self, what)
            if given is not None and len(given) != len(self.names):
                raise ValueError(f"{len(given)} {what} for {len(self.names)} series.")
        if self.values.shape != (len(self.index), len(self.names)):
            raise ValueError(
                f"values have shape {self.values.shape}; {len(self.index)} dates and "
                f"{len(self.names)} names need {(len(self.index), len(self.names))}."
            )
        observed = self.observed.copy()
        values = np.where(observed, self.values, 0.0)
        if not np.all(np.isfinite(values)):
            raise ValueError("an observed value is NaN or infinite; mark it as not observed.")
        values.flags.writeable = observed.flags.writeable = False
        rows = aggregation_rows(self.index, self.frequency, self.frequencies, self.kinds)
        for name, value in (("values", values), ("observed", observed), ("aggregation", rows)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        kinds: Mapping[str, str] | None = None,
        delays: Mapping[str, DelayLike] | DelayLike | None = None,
        frequency: str | None = None,
        units: Mapping[str, str] | None = None,
        allow_constant: bool = False,
    ) -> "Panel":
        """A panel from one frame, dates x series, NaN where not observed.

        Without `frequency` the calendar is read off the dates, which must then skip no period; with
        it, skipped periods become unobserved rows. A series seen in every last row of a longer
        period only needs an entry in `kinds`. `delays`: from the end of a period to its
        publication, one for all or by series, e.g. `"15D"` or `pd.offsets.BDay(3)`.

        **Raises:** `ValueError` naming the culprit for an empty frame, dates that are no dates, in
        a time zone, unsorted or repeated, columns that are repeated, not numeric, infinite, never
        observed, or constant (unless `allow_constant`), mixed frequencies without kinds, unknown
        kinds, negative delays; `TypeError` if `df` is no DataFrame.
        """
        table = table_from_frame(df, {} if kinds is None else kinds, frequency)
        return cls.from_table(table, delays, units, allow_constant)

    @classmethod
    def from_frames(
        cls,
        frames: Mapping[str, pd.DataFrame],
        *,
        kinds: Mapping[str, str] | None = None,
        delays: Mapping[str, DelayLike] | DelayLike | None = None,
        base: str | None = None,
        units: Mapping[str, str] | None = None,
        allow_constant: bool = False,
    ) -> "Panel":
        """A panel from one frame per frequency: `{"W": weekly, "M": monthly, "Q": quarterly}`.

        Keys are `"D"`, `"B"`, `"W"` (weeks ending on Friday; `"W-WED"` etc. otherwise), `"M"`,
        `"Q"`, `"A"`. The base calendar is the highest of them, or `base`. Low-frequency dates
        may be any day of their period (start, end, PeriodIndex). The calendar is extended, with
        unobserved rows, until every low-frequency observation has the complete periods it is
        made of.

        **Raises:** as `from_frame`; also for a low-frequency series without kind, two observations
        in one period, and a name that stands in two frames.
        """
        table = table_from_frames(frames, {} if kinds is None else kinds, base)
        return cls.from_table(table, delays, units, allow_constant)

    @classmethod
    def from_table(
        cls,
        table: Table,
        delays: Mapping[str, DelayLike] | DelayLike | None,
        units: Mapping[str, str] | None,
        allow_constant: bool,
    ) -> "Panel":
        """The panel of a table whose rows are settled; checks the series and the delays."""
        check_series(table.values, table.observed, table.names, table.index, allow_constant)
        parsed = checked_delays(delays, table.names, day_at(table.index, 0))
        check_known({} if units is None else units, table.names, "units")
        named = None if units is None else tuple(units.get(name, "") for name in table.names)
        return cls(
            table.values,
            table.observed,
            table.index,
            table.names,
            table.kinds,
            table.frequencies,
            table.frequency,
            parsed,
            named,
        )

    @property
    def num_times(self) -> int:
        """Number of rows."""
        return len(self.index)

    @property
    def num_series(self) -> int:
        """Number of series."""
        return len(self.names)

    def __repr__(self) -> str:
        counts = {f: self.frequencies.count(f) for f in dict.fromkeys(self.frequencies)}
        mix = ", ".join(f"{count} {frequency}" for frequency, count in counts.items())
        shown = ", ".join(self.names[:4]) + (", ..." if self.num_series > 4 else "")
        return (
            f"Panel({self.num_series} series x {self.num_times} rows, {self.frequency} "
            f"{self.index[0]:%Y-%m-%d}..{self.index[-1]:%Y-%m-%d}, "
            f"{100 * self.observed.mean():.1f}% observed; {mix}; {shown})"
        )

    def arrays(self) -> tuple[Float[Array, "time series"], Bool[Array, "time series"]]:
        """`values` (in the default float dtype of JAX) and `observed`, for the pure functions."""
        return jnp.asarray(self.values, jnp.result_type(float)), jnp.asarray(self.observed)

    def to_frame(self) -> pd.DataFrame:
        """Dates x series, NaN where not observed."""
        values = np.where(self.observed, self.values, np.nan)
        return pd.DataFrame(values, index=self.index, columns=list(self.names))

    @functools.cached_property
    def publication_dates(self) -> np.ndarray:
        """(time, series): the end of the series' own period at each row plus its delay."""
        columns: dict[tuple[str, Delay], np.ndarray] = {}
        for key in zip(self.frequencies, self.delays, strict=True):
            if key not in columns:
                frequency, delay = key
                own = frequency == self.frequency
                ends = self.index if own else period_ends(self.index, frequency)
                published = pd.DatetimeIndex([end + delay for end in ends])
                columns[key] = published.to_numpy().astype("datetime64[ns]")
        keys = zip(self.frequencies, self.delays, strict=True)
        return np.stack([columns[key] for key in keys], axis=1)

    def as_of(self, date: Date) -> "Panel":
        """The vintage of `date`: what is published later (end + delay > date) is not observed.

        The shape stays, so all vintages share one compiled program. Values that were revised later
        are not undone: this is a pseudo real-time vintage.
        """
        published = self.publication_dates <= naive(date).to_datetime64()
        levels = None if self.levels is None else self.levels.as_of(date)
        return dataclasses.replace(self, observed=self.observed & published, levels=levels)

    def window(self, start: Date | int | None = None, stop: Date | int | None = None) -> "Panel":
        """The rows from `start` to `stop`: dates (both included) or positions (`stop` excluded).

        An aggregate whose periods are cut by the window cannot be explained by the rows that are
        left; it becomes unobserved, and a `UserWarning` names it.
        """
        rows = self.index[row_slice(self.index, start, stop)]
        if not len(rows):
            raise ValueError(
                f"the window {start}..{stop} has no row of {self.index[0]:%Y-%m-%d}.."
                f"{self.index[-1]:%Y-%m-%d}."
            )
        first = int(self.index.get_loc(rows[0]))  # pyright: ignore[reportArgumentType]
        kept = slice(first, first + len(rows))
        where = (rows, self.frequency, self.frequencies, self.kinds, self.names)
        observed = without_cut_periods(self.observed[kept], *where, cause="the window cuts")
        levels = self.levels
        if levels is not None:  # starting values of the inverse: kept even where periods are cut
            levels = dataclasses.replace(
                levels, values=levels.values[kept], observed=levels.observed[kept], index=rows
            )
        return dataclasses.replace(
            self, values=self.values[kept], observed=observed, index=rows, levels=levels
        )

    def extend(self, horizon: int) -> "Panel":
        """The panel with `horizon` unobserved rows at its end; calendar and aggregation go on."""
        if horizon < 0:
            raise ValueError(f"horizon must be zero or more, got {horizon}.")
        index = self.index.append(continue_calendar(self.index, self.frequency, horizon))
        pad = ((0, horizon), (0, 0))
        return dataclasses.replace(
            self,
            values=np.pad(self.values, pad),
            observed=np.pad(self.observed, pad),
            index=index,
            levels=None if self.levels is None else self.levels.extend(horizon),
        )

    def select(self, names: Sequence[str]) -> "Panel":
        """The panel of the series `names`, in that order, on the same calendar."""
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise ValueError(f"select takes a list of distinct series names, got {names!r}.")
        check_known(names, self.names, "select")
        places = [self.names.index(name) for name in names]

        def pick(items: tuple) -> tuple:
            return tuple(items[i] for i in places)

        return dataclasses.replace(
            self,
            values=self.values[:, places],
            observed=self.observed[:, places],
            names=pick(self.names),
            kinds=pick(self.kinds),
            frequencies=pick(self.frequencies),
            delays=pick(self.delays),
            units=None if self.units is None else pick(self.units),
            levels=None if self.levels is None else self.levels.select(names),
            transforms=pick(self.transforms) if self.transforms else (),
        )

    def label(
        self, forecast: Forecast, *, quantiles: Sequence[float] | None = None
    ) -> pd.DataFrame:
        """A forecast from the last row of this panel with its dates and names.

        Without `quantiles` the mean, one column a series; with them the columns are (series,
        statistic), the statistics `"mean"`, `"std"`, `"q0.05"`, ...
        """
        dates = continue_calendar(self.index, self.frequency, forecast.mean.shape[0])
        return forecast_table(forecast, dates, self.names, quantiles)

    def native(
        self, values: Float[Array, "time series"] | Float[np.ndarray, "time series"]
    ) -> pd.DataFrame:
        """High-frequency `values` as each series reports them: a frame, NaN in all other rows.

        y_i = Q_i x_i in the rows in which a complete period of series i ends.
        """
        if values.shape != self.values.shape:
            raise ValueError(f"values have shape {values.shape}, the panel {self.values.shape}.")
        columns = {}
        for i, name in enumerate(self.names):
            pattern = aggregation_pattern(
                self.index, self.frequency, self.frequencies[i], self.kinds[i]
            )
            columns[name] = aggregated(np.asarray(values[:, i]), pattern)
        return pd.DataFrame(columns, index=self.index)
