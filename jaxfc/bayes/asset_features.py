"""Panels of assets for hierarchical models: returns by period, and what is known at its end.

Row t of a panel holds the simple returns of period t and features that are known when it ends, so a
model that explains row t + 1 by the features of row t does not look ahead. All of it is computed
from one table of adjusted daily closes; adjusted and unadjusted prices are never mixed.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from jaxfc.bayes.asset_prices import (
    Earnings,
    Table,
    asset_columns,
    checked_ends,
    checked_prices,
    checked_table,
    length_after,
    log_std,
    near,
    reports_ahead,
)
from jaxfc.calendar import WEEKDAYS, Date
from jaxfc.counts import check_counts
from jaxfc.panel import Panel
from jaxfc.panel_checks import Delay, checked_frame

RECENT_RETURN = " recent return"
RECENT_VOLATILITY = " recent volatility"
EARNINGS_AHEAD = " earnings ahead"


def period_ends(start: Date, stop: Date, weeks: int = 4) -> pd.DatetimeIndex:
    """Every `weeks` weeks from `start` (included) to `stop`: the last days of periods.

    **Raises:** `ValueError` for fewer than 1 week or fewer than two ends.
    """
    check_counts(weeks=weeks)
    ends = pd.date_range(pd.Timestamp(start), pd.Timestamp(stop), freq=pd.Timedelta(weeks=weeks))
    if len(ends) < 2:
        raise ValueError(f"{start}..{stop} has no whole period of {weeks} weeks.")
    return ends


def asset_panel(
    prices: pd.DataFrame,
    ends: pd.DatetimeIndex | Sequence[Date],
    *,
    earnings: Earnings | None = None,
    recent_days: int = 5,
    longest_hole: int = 10,
    next_end: Date | None = None,
) -> Panel:
    """The panel of returns and features of assets from their daily prices.

    For each asset and each period from one end (excluded) to the next (included):

    - `"<asset>"`: P(end) / P(last end) - 1, the simple return;
    - `"<asset> recent return"`: P(d) / P(d - n) - 1 of its last n = `recent_days` priced days;
    - `"<asset> recent volatility"`: ln of the standard deviation (n - 1) of these n daily returns;
    - `"<asset> earnings ahead"` (if `earnings` are given): 1 if a report falls into the next
      period, else 0, also for assets that never report.

    **Arguments:** `prices`: adjusted closes, dates x assets, NaN where there is none. `ends`: last
    days of periods; the first is only where the first period starts from. `earnings`: report dates,
    a frame with the columns ticker and date, or by asset; they count as known one period ahead.
    `longest_hole`: days that a price is carried forward; an asset without price for longer, before
    its listing or after its delisting is missing. `next_end`: end of the period after the last;
    by default as long after the last as this is after the one before.

    Volatilities are missing where prices did not move, all recent features where fewer than n daily
    returns lie in the period. Dates that `Panel.extend` and `Panel.label` give to rows ahead are a
    week apart, whatever the periods.

    **Raises:** `ValueError` naming the culprit for prices that are not positive, infinite or never
    there, dates that are repeated or unsorted, ends after the last date of the prices, periods
    without a date, fewer than 2 recent days, earnings of unknown assets.
    """
    checked = checked_prices(prices)
    dates = pd.DatetimeIndex(checked.index)
    ends = checked_ends(ends, dates)
    check_counts(longest_hole=longest_hole)
    if recent_days < 2:
        raise ValueError(f"recent_days must be at least 2 for a volatility, got {recent_days}.")
    assets = [str(name) for name in checked.columns]
    columns = [
        asset_columns(values, dates, ends, recent_days, longest_hole)
        for values in checked.to_numpy().T
    ]
    returns, recent, volatility = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    tables = {"": returns, RECENT_RETURN: recent, RECENT_VOLATILITY: volatility}
    if earnings is not None:
        tables[EARNINGS_AHEAD] = reports_ahead(
            earnings, assets, ends[1:], length_after(ends, next_end)
        )
    return assembled(tables, assets, ends[1:])


def asset_panel_from_periods(
    returns: pd.DataFrame,
    recent_returns: pd.DataFrame | None = None,
    recent_volatility: pd.DataFrame | None = None,
    *,
    earnings: Earnings | None = None,
    next_end: Date | None = None,
) -> Panel:
    """The panel of `asset_panel` from data that already come by period.

    **Arguments:** frames of ends of periods x assets, NaN where not known, row t as known at its
    end: simple returns of the period, returns of its last days, and the standard deviation (not its
    log, which is taken here) of daily returns of its last days, missing where it is zero.
    `earnings`, `next_end`: as `asset_panel`.

    **Raises:** `ValueError` for infinite numbers, returns of -1 or less, negative standard
    deviations, frames with other rows or assets than `returns`, unknown assets in `earnings`.
    """
    base = checked_frame(returns, "returns")
    assets, ends = [str(name) for name in base.columns], pd.DatetimeIndex(base.index)
    tables = {"": checked_table(base, base, "returns", least=-1.0)}
    if recent_returns is not None:
        tables[RECENT_RETURN] = checked_table(recent_returns, base, "recent_returns", least=-1.0)
    if recent_volatility is not None:
        std = checked_table(recent_volatility, base, "recent_volatility", least=0.0)
        tables[RECENT_VOLATILITY] = log_std(std)
    if earnings is not None:
        after = length_after(ends, next_end)
        tables[EARNINGS_AHEAD] = reports_ahead(earnings, assets, ends, after)
    return assembled(tables, assets, ends)


class FeatureColumns(NamedTuple):
    """Columns of a panel by asset, (assets,) each; -1 where there is no such column."""

    returns: np.ndarray
    recent_return: np.ndarray
    recent_volatility: np.ndarray
    earnings_ahead: np.ndarray


def feature_columns(names: Sequence[str], assets: Sequence[str]) -> FeatureColumns:
    """Where the returns and features of `assets` stand among the `names` of a panel.

    **Raises:** `ValueError` for an asset without returns.
    """
    place = {name: i for i, name in enumerate(names)}
    for asset in assets:
        if asset not in place:
            raise ValueError(f"the panel has no column {asset!r}{near(asset, names)}.")
    suffixes = ("", RECENT_RETURN, RECENT_VOLATILITY, EARNINGS_AHEAD)
    found = [np.array([place.get(f"{a}{suffix}", -1) for a in assets]) for suffix in suffixes]
    return FeatureColumns(*found)


def assembled(tables: dict[str, Table], assets: list[str], ends: pd.DatetimeIndex) -> Panel:
    """One panel of the tables, the columns of each named by asset and suffix."""
    values = np.concatenate(list(tables.values()), axis=1)
    names = tuple(f"{asset}{suffix}" for suffix in tables for asset in assets)
    if len(set(names)) < len(names):
        raise ValueError("an asset has the name of another one's feature; rename it.")
    # Periods of some weeks are no frequency of the calendar: rows stand at the ends themselves.
    weekday = WEEKDAYS[int(np.bincount(ends.day_of_week).argmax())]
    number, frequency = len(names), f"W-{weekday}"
    return Panel(
        values=values,
        observed=np.isfinite(values),
        index=ends,
        names=names,
        kinds=("stock",) * number,
        frequencies=(frequency,) * number,
        frequency=frequency,
        delays=(cast(Delay, pd.Timedelta(0)),) * number,
    )
