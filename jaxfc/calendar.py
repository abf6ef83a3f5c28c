"""Calendars on the host: period ends, low-frequency blocks, aggregation rows.

A row of a panel is one period of the base calendar, named by its last day. A base period belongs to
the low-frequency period that contains this last day, so a month has 4 or 5 weeks and a quarter 12
to 14. Everything here is pure NumPy and pandas and runs before anything is traced.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from jaxfc.typing import Bool, Float, Int
from jaxfc_kernels.aggregation import AggregationRows

KINDS = ("stock", "flow_sum", "flow_average", "change_in_flow")
RANKS = {"D": 0, "B": 1, "W": 2, "M": 3, "Q": 4, "A": 5}
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
FREQUENCY_HELP = (
    "'D', 'B', 'W-FRI' (any weekday), 'M', 'Q' (or 'Q-JAN', ...), 'A' (or 'A-JUN', ...)"
)
Date = str | pd.Timestamp
LONGEST_CLOSURE = 10  # days without a row that a business-day calendar may have (holidays)


def parse_frequency(alias: str) -> str:
    """The canonical name of a period frequency.

    `'W'` is a week that ends on Friday (`'W-FRI'`), the custom of financial data; `'Q'` and `'A'`
    end in December. `'Y'` and pandas' `'ME'`, `'QE'`, `'YE'` are read as `'M'`, `'Q'`, `'A'`.

    **Raises:** `ValueError` for anything else.
    """
    head, _, anchor = alias.upper().partition("-")
    head = {"ME": "M", "QE": "Q", "Y": "A", "YE": "A"}.get(head, head)
    default = {"W": "FRI", "Q": "DEC", "A": "DEC"}.get(head)
    anchors = {"W": WEEKDAYS, "Q": MONTHS, "A": MONTHS}.get(head, ())
    if head not in RANKS or (anchor and anchor not in anchors):
        raise ValueError(f"unknown frequency {alias!r}; use one of {FREQUENCY_HELP}.")
    anchor = anchor or default or ""
    return f"{head}-{anchor}" if head == "W" or (anchor and anchor != "DEC") else head


def rank(frequency: str) -> int:
    """Place of a frequency in the order from days (0) to years (5)."""
    return RANKS[frequency.partition("-")[0]]


def month_grid(frequency: str) -> tuple[int, int]:
    """(months in a period, month number of the last month) of a frequency of months or slower."""
    head, _, anchor = frequency.partition("-")
    length = {"M": 1, "Q": 3, "A": 12}[head]
    return length, MONTHS.index(anchor or "DEC")


def as_days(dates: pd.DatetimeIndex) -> np.ndarray:
    """Dates as NumPy days; the time of the day is cut off."""
    return dates.to_numpy().astype("datetime64[D]")


def as_index(days: np.ndarray) -> pd.DatetimeIndex:
    """NumPy days as a pandas index (nanoseconds, as pandas 2 and 3 both compare them)."""
    return pd.DatetimeIndex(days.astype("datetime64[ns]"))


def last_day_of_month(months: np.ndarray) -> np.ndarray:
    """Last day of months that are counted from January 1970."""
    return (months + 1).astype("datetime64[M]").astype("datetime64[D]") - 1


def period_ends(dates: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Last day of the period of each date; a weekend belongs to the next business day."""
    days = as_days(dates)
    head, _, anchor = frequency.partition("-")
    if head == "D":
        return as_index(days)
    if head == "B":
        return as_index(np.busday_offset(days, 0, roll="forward"))
    if head == "W":
        weekday = (days.astype(np.int64) + 3) % 7  # 1 January 1970 was a Thursday
        return as_index(days + (WEEKDAYS.index(anchor) - weekday) % 7)
    length, last_month = month_grid(frequency)
    months = days.astype("datetime64[M]").astype(np.int64)
    return as_index(last_day_of_month(months + (last_month - months % 12) % length))


def day_at(index: pd.DatetimeIndex, position: int) -> pd.Timestamp:
    """One date of an index that has no missing dates."""
    return cast(pd.Timestamp, index[position])


def period_end(date: pd.Timestamp, frequency: str) -> pd.Timestamp:
    """Last day of the period that contains `date`."""
    return day_at(period_ends(pd.DatetimeIndex([date]), frequency), 0)


def shift_periods(end: pd.Timestamp, frequency: str, steps: np.ndarray) -> pd.DatetimeIndex:
    """Ends of the periods that lie `steps` (negative: before) after the one that ends at `end`."""
    day = np.datetime64(end, "D")
    head = frequency.partition("-")[0]
    if head == "D":
        return as_index(day + steps)
    if head == "B":
        return as_index(np.busday_offset(day, steps, roll="forward"))
    if head == "W":
        return as_index(day + 7 * steps)
    length, _ = month_grid(frequency)
    return as_index(
        last_day_of_month(day.astype("datetime64[M]").astype(np.int64) + length * steps)
    )


def shift_period(end: pd.Timestamp, frequency: str, steps: int) -> pd.Timestamp:
    """End of the period that lies `steps` after the one that ends at `end`."""
    return day_at(shift_periods(end, frequency, np.array([steps])), 0)


def continue_calendar(index: pd.DatetimeIndex, frequency: str, num_rows: int) -> pd.DatetimeIndex:
    """The next `num_rows` period ends after `index` (business days: weekdays, holidays unknown)."""
    return shift_periods(day_at(index, -1), frequency, np.arange(1, num_rows + 1))


def calendar_between(first: pd.Timestamp, last: pd.Timestamp, frequency: str) -> pd.DatetimeIndex:
    """All period ends from `first` to `last`, which are period ends themselves."""
    days = int((last - first).days)
    shortest = (1, 1, 7, 28, 90, 365)[rank(frequency)]
    ends = shift_periods(first, frequency, np.arange(days // shortest + 2))
    return ends[ends <= last]


def infer_frequency(dates: pd.DatetimeIndex) -> str:
    """The finest calendar of which sorted `dates` hit every period from the first to the last.

    Weeks are anchored at the most frequent weekday. Weekdays with gaps of at most 10 days are
    business days (a trading calendar with holidays).

    **Raises:** `ValueError` if no calendar fits or there is one date only.
    """
    remedy = f"pass frequency=..., one of {FREQUENCY_HELP}"
    if len(dates) < 2:
        raise ValueError(f"one row does not tell the calendar; {remedy}.")
    if not pd.Index(as_days(dates)).is_unique:
        raise ValueError(
            "the rows are closer than a day, the shortest period of a panel; aggregate them to "
            "days first, for example df.resample('D').last()."
        )
    weekday = WEEKDAYS[int(np.bincount(dates.day_of_week).argmax())]
    for frequency in ("D", "B", f"W-{weekday}", "M", "Q", "A"):
        ends = period_ends(dates, frequency)
        if frequency == "B" and not is_trading_calendar(dates):
            continue
        contiguous = calendar_between(day_at(ends, 0), day_at(ends, -1), frequency)
        if frequency == "B" or (len(contiguous) == len(ends) and ends.is_unique):
            return frequency
    widest = int(np.diff(as_days(dates)).argmax())
    raise ValueError(
        f"the dates follow no calendar without gaps (for example {dates[widest]:%Y-%m-%d} is "
        f"followed by {dates[widest + 1]:%Y-%m-%d}); {remedy}: periods without a row then become "
        "unobserved rows."
    )


def is_trading_calendar(dates: pd.DatetimeIndex) -> bool:
    """Whether dates are distinct weekdays, several a week, without a gap of more than 10 days."""
    days = as_days(dates)
    gaps = np.diff(days).astype(np.int64)
    return bool(
        np.all(np.is_busday(days))
        and np.all((gaps >= 1) & (gaps <= LONGEST_CLOSURE))
        and np.median(gaps) <= 2
    )


class Blocks(NamedTuple):
    """The low-frequency periods that the rows of a calendar fall into.

    `block` (time,) numbers the period of each row; per period: its last day `ends`, its rows
    `first_row` .. `last_row`, and whether its first (`begun`) and its last (`ended`) base period
    are rows of the calendar.
    """

    block: Int[np.ndarray, " time"]
    ends: pd.DatetimeIndex
    first_row: Int[np.ndarray, " blocks"]
    last_row: Int[np.ndarray, " blocks"]
    begun: Bool[np.ndarray, " blocks"]
    ended: Bool[np.ndarray, " blocks"]


def low_frequency_blocks(index: pd.DatetimeIndex, base: str, frequency: str) -> Blocks:
    """The blocks of `frequency` in a calendar `index` of the frequency `base`."""
    row_ends = period_ends(index, frequency)
    starts = np.flatnonzero(np.r_[True, row_ends[1:] != row_ends[:-1]])
    last_row = np.r_[starts[1:], len(index)] - 1
    ends = row_ends[starts]
    begun, ended = np.ones((2, len(starts)), bool)
    before = shift_period(day_at(index, 0), base, -1)
    after = shift_period(day_at(index, -1), base, 1)
    begun[0] = period_end(before, frequency) != ends[0]
    ended[-1] = period_end(after, frequency) != ends[-1]
    block = np.repeat(np.arange(len(starts)), last_row - starts + 1)
    return Blocks(block, ends, starts, last_row, begun, ended)


class Pattern(NamedTuple):
    """One aggregation pattern and which rows (time,) it can answer for."""

    own_row: Int[np.ndarray, " time"]
    own_weight: Float[np.ndarray, " time"]
    next_row: Int[np.ndarray, " time"]
    next_weight: Float[np.ndarray, " time"]
    answered: Bool[np.ndarray, " time"]


def aggregation_pattern(index: pd.DatetimeIndex, base: str, frequency: str, kind: str) -> Pattern:
    """Weights of every base period in the low-frequency observations of one kind.

    With k = 1..o_j the place of a base period in block j of length o_j:

        stock            1 at the last row of block j
        flow_sum         1 on block j
        flow_average     1 / o_j on block j
        change_in_flow   (o_j - k + 1) / o_j on block j, and (k - 1) / o_j in the row of block j + 1

    The last is the change of the average over a block when the base values are differences
    (Mariano and Murasawa 2003, for blocks of unequal length). A row whose blocks are not complete
    does not exist: weight 0, row index = number of rows.
    """
    if frequency == base:
        return identity_pattern(len(index))
    return block_pattern(low_frequency_blocks(index, base, frequency), kind)


def identity_pattern(num_times: int) -> Pattern:
    """Every row stands for itself."""
    every, none = np.ones(num_times), np.full(num_times, num_times)
    return Pattern(np.arange(num_times), every, none, np.zeros(num_times), every > 0)


def block_pattern(blocks: Blocks, kind: str) -> Pattern:
    """The pattern of any blocks of consecutive rows (`aggregation_pattern`)."""
    num_times = blocks.block.size
    rows = np.arange(num_times)
    none = np.full(num_times, num_times)
    zero = np.zeros(num_times)
    is_last = np.isin(rows, blocks.last_row)
    if kind == "stock":
        ends_here = is_last & blocks.ended[blocks.block]
        return Pattern(rows, np.ones(num_times), none, zero, ends_here)
    length = (blocks.last_row - blocks.first_row + 1)[blocks.block]
    place = rows - blocks.first_row[blocks.block]  # k - 1
    usable = blocks.begun & blocks.ended
    following = np.zeros_like(usable)
    if kind == "change_in_flow":
        following = np.r_[usable[:-1] & usable[1:], False]
        usable = np.r_[False, following[:-1]]
        own = (length - place) / length
    else:
        own = 1.0 / length if kind == "flow_average" else np.ones(num_times)
    here, onward = usable[blocks.block], following[blocks.block]
    next_last = np.r_[blocks.last_row[1:], num_times][blocks.block]
    return Pattern(
        own_row=np.where(here, blocks.last_row[blocks.block], num_times),
        own_weight=np.where(here, own, 0.0),
        next_row=np.where(onward, next_last, num_times),
        next_weight=np.where(onward, place / length, 0.0),
        answered=is_last & here,
    )


def aggregation_rows(
    index: pd.DatetimeIndex, base: str, frequencies: tuple[str, ...], kinds: tuple[str, ...]
) -> AggregationRows | None:
    """Aggregation patterns of a panel, O(patterns x time); `None` if every entry is a stock.

    Pattern 0 is the identity: stocks, and every series at the base frequency whatever its kind.
    """
    wanted = [
        (base, "stock") if kind == "stock" or frequency == base else (frequency, kind)
        for frequency, kind in zip(frequencies, kinds, strict=True)
    ]
    distinct = [(base, "stock"), *dict.fromkeys(w for w in wanted if w != (base, "stock"))]
    if len(distinct) == 1:
        return None
    patterns = [aggregation_pattern(index, base, *pattern) for pattern in distinct]
    return stack_patterns(patterns, np.array([distinct.index(w) for w in wanted]))


def stack_patterns(
    patterns: Sequence[Pattern], group: Int[np.ndarray, " series"]
) -> AggregationRows:
    """The patterns of a panel whose series i follows pattern `group`[i]."""
    own_row, own_weight, next_row, next_weight = (
        np.stack(column) for column in zip(*(p[:4] for p in patterns), strict=True)
    )
    # NumPy arrays, not JAX's: the panel stays a host object, and `jit` converts them.
    fields: list[Any] = [
        group.astype(np.int32),
        own_row.astype(np.int32),
        own_weight,
        next_row.astype(np.int32),
        next_weight,
    ]
    return AggregationRows(*fields)


def naive(date: Date) -> pd.Timestamp:
    """A date without time zone."""
    stamp = cast(pd.Timestamp, pd.Timestamp(date))
    if stamp is pd.NaT:
        raise ValueError("the date is missing (NaT); give one, for example '2020-03-31'.")
    if stamp.tzinfo is not None:
        raise ValueError(f"{date} has a time zone; panel dates have none: use .tz_localize(None).")
    return stamp


def row_slice(index: pd.DatetimeIndex, start: Date | int | None, stop: Date | int | None) -> slice:
    """Positions of a window given by dates (both included) or by positions, not by a mixture."""
    given = [edge for edge in (start, stop) if edge is not None]
    if all(isinstance(edge, int) for edge in given):
        return slice(start, stop)
    if any(isinstance(edge, int) for edge in given):
        raise ValueError(f"a window takes two dates or two positions, got {start!r}, {stop!r}.")
    edges: list[Any] = [naive(e) if isinstance(e, pd.Timestamp) else e for e in (start, stop)]
    try:
        return cast(slice, index.slice_indexer(*edges))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a window edge of {start!r}, {stop!r} is no date.") from error
