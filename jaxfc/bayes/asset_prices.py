"""From daily prices of an asset to what a panel says of its periods; what prices must satisfy."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import cast

import numpy as np
import pandas as pd

from jaxfc.calendar import Date, as_days, day_at
from jaxfc.panel_checks import checked_frame, checked_index, quoted
from jaxfc.typing import Float

# A standard deviation of daily returns below this is rounding: the price did not move.
SMALLEST_STD = 1e-9

Earnings = pd.DataFrame | Mapping[str, Sequence[Date] | pd.DatetimeIndex]
Table = Float[np.ndarray, "rows assets"]


def asset_columns(
    prices: np.ndarray,
    dates: pd.DatetimeIndex,
    ends: pd.DatetimeIndex,
    recent_days: int,
    longest_hole: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, recent returns and log recent volatilities of one asset, one per period."""
    seen = ~np.isnan(prices)
    dates, closes = dates[seen], prices[seen]
    # Position of the last price at or before each end; -1 before the listing.
    last = dates.searchsorted(ends, side="right") - 1
    days, end_days = as_days(dates), as_days(ends)
    age = end_days - days[np.maximum(last, 0)]
    fresh = (last >= 0) & (age <= np.timedelta64(longest_hole, "D"))
    at_end = np.where(fresh, closes[np.maximum(last, 0)], np.nan)
    returns = at_end[1:] / at_end[:-1] - 1.0
    recent = np.full(len(ends) - 1, np.nan)
    std = recent.copy()
    for row, stop in enumerate(last[1:]):
        first = stop - recent_days
        if fresh[row + 1] and first >= 0 and days[first + 1] > end_days[row]:
            window = closes[first : stop + 1]
            recent[row] = window[-1] / window[0] - 1.0
            std[row] = np.std(window[1:] / window[:-1] - 1.0, ddof=1)
    return returns, recent, log_std(std)


def log_std(std: np.ndarray) -> np.ndarray:
    """The log of standard deviations, missing where nothing moved."""
    moved = std > SMALLEST_STD
    return np.where(moved, np.log(np.where(moved, std, 1.0)), np.nan)


def reports_ahead(
    earnings: Earnings, assets: list[str], ends: pd.DatetimeIndex, after: pd.Timestamp
) -> Table:
    """1 where a report falls after an end and not after the next one."""
    found = np.zeros((len(ends), len(assets)))
    next_ends = ends[1:].append(pd.DatetimeIndex([after]))
    for asset, dates in reports_by_asset(earnings, assets).items():
        before = dates.searchsorted(ends, side="right")
        found[:, assets.index(asset)] = dates.searchsorted(next_ends, side="right") > before
    return found


def reports_by_asset(earnings: Earnings, assets: list[str]) -> dict[str, pd.DatetimeIndex]:
    """Sorted report dates of the assets that have any.

    **Raises:** `ValueError` for a frame without the columns, missing dates and unknown assets.
    """
    if isinstance(earnings, pd.DataFrame):
        if not {"ticker", "date"} <= set(earnings.columns):
            raise ValueError(
                f"earnings need the columns 'ticker' and 'date', got {quoted(list(earnings))}; "
                "rename them, or give a mapping of assets to dates."
            )
        groups = earnings.groupby("ticker", dropna=False)["date"]
        by_asset = {ticker: pd.DatetimeIndex(dates) for ticker, dates in groups}
    else:
        by_asset = {ticker: pd.DatetimeIndex(dates) for ticker, dates in earnings.items()}
    found = {}
    for ticker, index in by_asset.items():
        if ticker not in assets:
            raise ValueError(
                f"earnings name asset {ticker!r}, which has no prices{near(str(ticker), assets)}; "
                "drop it or rename it."
            )
        if index.hasnans or index.tz is not None:
            raise ValueError(
                f"a report date of {ticker!r} is missing or in a time zone; drop it, and zones "
                "with .tz_localize(None)."
            )
        found[ticker] = index.normalize().sort_values()
    return found


def checked_prices(prices: pd.DataFrame) -> pd.DataFrame:
    """The prices as floats, all positive, every asset seen, rows named by their days.

    **Raises:** `ValueError` naming asset and date.
    """
    checked = checked_frame(prices, "prices")
    checked.index = checked_index(pd.DatetimeIndex(checked.index).normalize(), "prices")
    for name, column in checked.items():
        wrong = np.flatnonzero(column.to_numpy() <= 0.0)
        if wrong.size:
            raise ValueError(
                f"the price of {name!r} on {checked.index[wrong[0]]:%Y-%m-%d} is "
                f"{column.iloc[wrong[0]]:g}; prices are positive, write NaN where there is none."
            )
        if column.isna().all():
            raise ValueError(f"asset {name!r} has no price; drop it.")
    return checked


def checked_ends(
    ends: pd.DatetimeIndex | Sequence[Date], dates: pd.DatetimeIndex
) -> pd.DatetimeIndex:
    """The ends of periods, sorted and distinct, each period with dates of the prices.

    **Raises:** `ValueError` naming the period.
    """
    ends = checked_index(pd.DatetimeIndex(ends), "the ends of periods").normalize()
    if len(ends) < 2:
        raise ValueError(f"a period needs two ends, got {len(ends)}.")
    last_end, last_date = day_at(ends, -1), day_at(dates, -1)
    if last_end > last_date:
        raise ValueError(
            f"the period that ends {last_end:%Y-%m-%d} is not over on {last_date:%Y-%m-%d}, the "
            "last date of the prices; drop this end, or if it is a holiday add a row of NaN."
        )
    places = dates.searchsorted(ends, side="right")
    empty = np.flatnonzero(places[1:] == places[:-1])
    if empty.size:
        row = int(empty[0])
        raise ValueError(
            f"no date of the prices lies in the period {ends[row]:%Y-%m-%d}.."
            f"{ends[row + 1]:%Y-%m-%d}; choose ends within {dates[0]:%Y-%m-%d}.."
            f"{last_date:%Y-%m-%d}."
        )
    return ends


def checked_table(frame: pd.DataFrame, base: pd.DataFrame, what: str, *, least: float) -> Table:
    """The values of a frame of the same rows and assets as `base`, none at or below -1 or below 0.

    **Raises:** `ValueError` naming what differs.
    """
    checked = checked_frame(frame, what)
    if not checked.index.equals(base.index) or list(checked.columns) != list(base.columns):
        raise ValueError(
            f"{what} has other rows or assets than returns; align it with "
            "frame.reindex(index=returns.index, columns=returns.columns)."
        )
    values = checked.to_numpy()
    wrong = np.argwhere(values < least if least == 0.0 else values <= least)
    if wrong.size:
        row, column = wrong[0]
        remedy = (
            "give standard deviations, not their logs" if least == 0.0 else "give simple returns"
        )
        raise ValueError(
            f"{what} of {checked.columns[column]!r} on {checked.index[row]:%Y-%m-%d} is "
            f"{values[row, column]:g}; {remedy}."
        )
    return values


def length_after(ends: pd.DatetimeIndex, next_end: Date | None) -> pd.Timestamp:
    """The end of the period after the last.

    **Raises:** `ValueError` if it is not after the last one, or cannot be told from one end.
    """
    last = day_at(ends, -1)
    if next_end is None:
        if len(ends) < 2:
            raise ValueError("one period does not tell when the next one ends; give next_end.")
        return last + (last - day_at(ends, -2))
    after = cast(pd.Timestamp, pd.Timestamp(next_end))
    if not after > last:
        raise ValueError(f"next_end {next_end} is not after {last:%Y-%m-%d}.")
    return after


def near(name: str, known: Sequence[str]) -> str:
    """A hint at names that look alike."""
    close = get_close_matches(name, known, 3)
    return f" (near: {', '.join(close)})" if close else ""
