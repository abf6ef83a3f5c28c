"""What a data frame must satisfy before it becomes a panel: every refusal names the culprit."""

import datetime
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from jaxfc.calendar import KINDS, aggregation_pattern, low_frequency_blocks, rank
from jaxfc.typing import Bool, Float

Delay = pd.Timedelta | pd.offsets.BaseOffset
DelayLike = datetime.timedelta | pd.offsets.BaseOffset | str
LAST_YEAR = 9999  # that Python's dates know


def checked_frame(frame: object, label: str) -> pd.DataFrame:
    """`frame` as float64 with text columns and a sorted, naive, duplicate-free DatetimeIndex."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{label} must be a pandas DataFrame (dates x series), got {type(frame).__name__}; "
            "a Series becomes one with .to_frame()."
        )
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise ValueError(f"{label} is empty: {frame.shape[0]} rows, {frame.shape[1]} columns.")
    check_names(list(frame.columns), label)
    index = checked_index(frame.index, label)
    columns = {str(name): checked_column(column, index, label) for name, column in frame.items()}
    return pd.DataFrame(columns, index=index)


def check_names(names: Sequence[object], label: str) -> None:
    """Names are text and distinct."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"{label}: series names must be text, got {name!r}; "
                "use df.columns = df.columns.map(str)."
            )
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{label}: series {quoted(repeated)} appear twice; rename or drop one.")


def checked_index(index: pd.Index, label: str) -> pd.DatetimeIndex:
    """A naive DatetimeIndex without gaps in order; a PeriodIndex is named by its last days."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp(how="end").normalize()
    if not isinstance(index, pd.DatetimeIndex):
        zones = {str(d.tzinfo) for d in index if isinstance(d, datetime.datetime)}
        if len(zones) > 1:
            raise ValueError(
                f"{label}: the dates mix time zones ({', '.join(sorted(zones))}); bring them to "
                "one local time and drop the zone with .tz_localize(None)."
            )
        raise ValueError(
            f"{label} needs a DatetimeIndex or PeriodIndex, got {type(index).__name__} of dtype "
            f"{index.dtype}; use df.index = pd.to_datetime(df.index) or df.set_index('date')."
        )
    if index.tz is not None:
        raise ValueError(
            f"{label}: the dates are in time zone {index.tz}; a panel row is a calendar period "
            "without zone: use df.index = df.index.tz_localize(None)."
        )
    if index.hasnans:
        row = int(np.flatnonzero(index.isna())[0])
        raise ValueError(f"{label}: the date of row {row} is missing (NaT); set or drop it.")
    years = np.asarray(index.year)
    odd = years[(years < 1) | (years > LAST_YEAR)]
    if len(odd):
        raise ValueError(f"{label}: a date lies in the year {odd[0]}, not in 1 to {LAST_YEAR}.")
    repeated = index[index.duplicated()]
    if len(repeated):
        raise ValueError(
            f"{label}: date {repeated[0]:%Y-%m-%d %H:%M} appears twice; keep one row a date, for "
            "example df[~df.index.duplicated(keep='last')]."
        )
    if not index.is_monotonic_increasing:
        row = int(np.flatnonzero(np.diff(index.to_numpy()) < np.timedelta64(0))[0])
        raise ValueError(
            f"{label}: dates are not sorted ({index[row + 1]:%Y-%m-%d} follows "
            f"{index[row]:%Y-%m-%d}); use df.sort_index()."
        )
    return index


def checked_column(column: pd.Series, index: pd.DatetimeIndex, label: str) -> np.ndarray:
    """A numeric column as float64 with NaN where missing and nothing infinite."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not numeric or pd.api.types.is_complex_dtype(column):
        text = [(d, v) for d, v in zip(index, column, strict=True) if isinstance(v, str)]
        where = f" ({text[0][1]!r} at {text[0][0]:%Y-%m-%d})" if text else ""
        raise ValueError(
            f"{label}: series {column.name!r} is not numeric, dtype {column.dtype}{where}; convert "
            "it with pd.to_numeric or drop it."
        )
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise ValueError(
            f"{label}: series {column.name!r} is infinite at {index[infinite[0]]:%Y-%m-%d}; write "
            "NaN where the value is missing."
        )
    return values


def check_series(
    values: Float[np.ndarray, "time series"],
    observed: Bool[np.ndarray, "time series"],
    names: Sequence[str],
    index: pd.DatetimeIndex,
    allow_constant: bool,
) -> None:
    """Every series has an observation and, unless `allow_constant`, two different ones."""
    span = f"{index[0]:%Y-%m-%d}..{index[-1]:%Y-%m-%d}"
    for i, name in enumerate(names):
        seen = values[observed[:, i], i]
        if not len(seen):
            raise ValueError(f"series {name!r} has no observation in {span}; drop it.")
        if not allow_constant and np.all(seen == seen[0]):
            what = "has one observation only" if len(seen) == 1 else "is constant"
            raise ValueError(
                f"series {name!r} {what} in {span}: it has no variance to model; drop it, or pass "
                "allow_constant=True if the model can use it."
            )


def check_known(names: Collection[str], known: Collection[str], what: str) -> None:
    """Options are only given for series that exist."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{what} names series {quoted(unknown)}, which the panel does not have; its series "
            f"are {quoted(list(known)[:8])}{', ...' if len(known) > 8 else ''}."
        )


def check_kinds(kinds: Mapping[str, str], names: Collection[str]) -> None:
    """Kinds are known words for known series."""
    check_known(kinds, names, "kinds")
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise ValueError(
                f"series {name!r} has unknown kind {kind!r}; the kinds are {quoted(KINDS)}."
            )


def checked_delays(
    delays: Mapping[str, DelayLike] | DelayLike | None, names: Sequence[str], day: pd.Timestamp
) -> tuple[Delay, ...]:
    """One publication delay a series, zero where none is given."""
    if delays is None:
        delays = {}
    if not isinstance(delays, Mapping):
        delays = dict.fromkeys(names, delays)
    check_known(delays, names, "delays")
    parsed: dict[str, Delay] = {}
    for name, delay in delays.items():
        offset = parsed_delay(name, delay)
        if offset is pd.NaT or day + offset < day:
            raise ValueError(
                f"the delay of series {name!r} is {delay!r}; a value cannot be published before "
                "its period ends: give a delay of zero or more."
            )
        parsed[name] = offset
    none = cast(pd.Timedelta, pd.Timedelta(0))
    return tuple(parsed.get(name, none) for name in names)


def parsed_delay(name: str, delay: DelayLike) -> Delay:
    """A delay as pandas adds it to dates."""
    if isinstance(delay, pd.offsets.BaseOffset):
        return delay
    try:
        return cast(pd.Timedelta, pd.Timedelta(delay))
    except ValueError as error:
        raise ValueError(
            f"the delay of series {name!r} is {delay!r}, which is no duration; write '15D' or "
            "give a pandas Timedelta or offset."
        ) from error


def visible_frequency(
    observed: Bool[np.ndarray, " time"], index: pd.DatetimeIndex, base: str
) -> tuple[str, bool] | None:
    """The lower frequency at which a series visibly lives, and whether it stands at period ends.

    A series lives at a lower frequency if it has at least 3 observations, at most one a period, and
    all of them in the last (`True`) or all in the first (`False`) row of their periods. `None`: it
    lives at the base frequency.
    """
    rows = np.flatnonzero(observed)
    if len(rows) < 3 or len(rows) == len(index):
        return None
    for frequency in ("A", "Q", "M", "W-FRI"):
        if rank(frequency) <= rank(base):
            break
        blocks = low_frequency_blocks(index, base, frequency)
        for at_end, edge in ((True, blocks.last_row), (False, blocks.first_row)):
            if np.all(np.isin(rows, edge)):
                return frequency, at_end
    return None


def without_cut_periods(
    observed: Bool[np.ndarray, "time series"],
    index: pd.DatetimeIndex,
    base: str,
    frequencies: Sequence[str],
    kinds: Sequence[str],
    names: Sequence[str],
    *,
    cause: str,
) -> Bool[np.ndarray, "time series"]:
    """The mask without sums, averages and changes whose periods are not all rows; warns of them."""
    kept = observed.copy()
    cut = []
    for i, (frequency, kind) in enumerate(zip(frequencies, kinds, strict=True)):
        if frequency == base or kind == "stock":
            continue
        pattern = aggregation_pattern(index, base, frequency, kind)
        lost = kept[:, i] & ~pattern.answered
        kept[:, i] &= pattern.answered
        if lost.any():
            dates = ", ".join(f"{day:%Y-%m-%d}" for day in index[lost])
            cut.append(f"{names[i]!r} at {dates}")
    if cut:
        warnings.warn(
            f"{cause} the periods of {'; '.join(cut)}: not observed in the result.",
            UserWarning,
            stacklevel=3,
        )
    return kept


def quoted(names: Collection[str]) -> str:
    """Names in quotes, comma separated."""
    return ", ".join(repr(name) for name in names)
