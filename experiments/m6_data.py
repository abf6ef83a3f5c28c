"""Assets in four-week periods, with what was known at the end of each: M6's and 20 stocks.

M6: returns and daily volatilities of 100 assets 2005-2023 as the winner of the forecasting track
prepared them (`m6_author`); from 2022-03-04 on, both are those of the organisers' own prices
(`m6`). Known only with hindsight, and left in: prices are adjusted with dividends that came later
(returns do not notice), and a report of earnings counts for the period it came in, although its
date was announced a few weeks before at best.

Not taken over: the author's `_z`, `_mu`, `_std`, which are of the whole sample, and the level of
`d5_r`, an adjusted price over an unadjusted one (see `recent_returns`).
"""

import dataclasses

import numpy as np
import pandas as pd

from experiments.shared_data import shared_folder
from experiments.temporal_returns import SECTORS
from jaxfc.bayes.asset_features import (
    RECENT_RETURN,
    RECENT_VOLATILITY,
    asset_panel,
    asset_panel_from_periods,
    period_ends,
)
from jaxfc.datasets import us_stocks
from jaxfc.panel import Panel

ROUND_ENDS = pd.DatetimeIndex(
    "2022-02-04 2022-03-04 2022-04-01 2022-04-29 2022-05-27 2022-06-24 2022-07-22 2022-08-19 "
    "2022-09-16 2022-10-14 2022-11-11 2022-12-09 2023-01-06 2023-02-03".split()
)  # the first round of two dates is the pilot
DELISTED = {"DRE": pd.Timestamp("2022-10-03")}  # taken over; the last price stands from then on
RENAMED = {"FB": "META", "EG": "RE"}  # the names of the organisers' prices
CLASSES = ("stock", "ETF", "bond ETF")
WEEKS = 4  # in a period
LEVEL_PERIODS, LEVEL_LEAST = 13, 4
LARGEST_MOVE = 0.3  # of a week, in logs; a split moves an unadjusted price by 0.4 or more
SUFFIXES = {"recent_returns": RECENT_RETURN, "recent_volatility": RECENT_VOLATILITY}


@dataclasses.dataclass(frozen=True)
class Assets:
    """Four-week periods x assets, NaN where not known; row t holds what its last day knew.

    `returns` simple, of the period; `recent_returns` of the last week; `recent_volatility` the
    standard deviation of the last week's daily returns; `reports`: ticker and date of all reports
    of earnings, or None. `classes` (of `CLASSES`) and `sectors` by asset.
    """

    returns: pd.DataFrame
    recent_returns: pd.DataFrame
    recent_volatility: pd.DataFrame
    reports: pd.DataFrame | None
    classes: dict[str, str]
    sectors: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The assets, in the order of all tables."""
        return list(self.returns.columns)

    @property
    def ends(self) -> pd.DatetimeIndex:
        """Last days of the periods."""
        return pd.DatetimeIndex(self.returns.index)

    def known_at(self, origin: pd.Timestamp) -> "Assets":
        """The periods up to `origin`."""
        tables = ("returns", "recent_returns", "recent_volatility")
        return dataclasses.replace(self, **{t: getattr(self, t).loc[:origin] for t in tables})

    def seasoned(self, origin: pd.Timestamp, least: int, window: int) -> list[str]:
        """Assets with `least` returns in the last `window` periods, one in the last three."""
        past = self.returns.loc[:origin].iloc[-window:].notna()
        kept = (past.sum() >= least) & past.iloc[-3:].any()
        return [str(name) for name in past.columns[kept]]

    def panel(self, names: list[str], window: int | None = None) -> Panel:
        """Returns and features of the last `window` periods, whether a report comes in the period
        after each of them among the features."""
        rows = slice(None) if window is None else slice(-window, None)
        parts = self.returns, self.recent_returns, self.recent_volatility
        returns, recent, volatility = (part[names].iloc[rows] for part in parts)
        reports = self.reports
        if reports is not None:
            reports = reports[reports["ticker"].isin(names)]
        return asset_panel_from_periods(returns, recent, volatility, earnings=reports)


def universe(folder: str | None) -> pd.DataFrame:
    """Class and sector of the 100 assets, by symbol, in the organisers' order."""
    table = pd.read_csv(shared_folder(folder, "m6") / "M6_Universe.csv", encoding="utf-8-sig")
    kind = table["GICS_sector/ETF_type"]
    own = np.where(kind == "Fixed Income", "bond ETF", "ETF")
    stock_like = (table["class"] == "Stock") | (kind == "Volatility")
    found = pd.DataFrame({"class": np.where(stock_like, "stock", own), "sector": kind})
    return found.set_index(pd.Index(table["symbol"].replace(RENAMED), name="symbol"))


def official_prices(folder: str | None) -> pd.DataFrame:
    """Adjusted closes, days x assets, by the organisers; NaN where an exchange was closed."""
    table = pd.read_csv(shared_folder(folder, "m6") / "assets_m6.csv")
    table["date"] = pd.to_datetime(table["date"], format="%Y/%m/%d")
    return table.pivot(index="date", columns="symbol", values="price")


def m6_assets(folder: str | None = None) -> Assets:
    """The 100 assets of M6 in 235 periods to 2023-02-03."""
    known = universe(folder)
    names = list(known.index)
    path = shared_folder(folder, "m6_author")
    table = pd.read_csv(path / "periods.csv.gz", parse_dates=["period_end"])
    table["symbol"] = table["symbol"].replace(RENAMED)

    def by_period(column: str) -> pd.DataFrame:
        return table.pivot(index="period_end", columns="symbol", values=column)[names]

    made = {"returns": by_period("d20_r"), "recent_returns": recent_returns(by_period("d5_r"))}
    made["recent_volatility"] = by_period("d5_std")
    exact = of_prices(official_prices(folder)[names], ROUND_ENDS)
    for what, frame in made.items():
        frame.loc[ROUND_ENDS[1:]] = exact[what]
        for name, day in DELISTED.items():
            frame.loc[frame.index - pd.Timedelta(weeks=WEEKS) >= day, name] = np.nan
    reports = pd.read_csv(path / "earnings_dates.csv.gz", parse_dates=["report_date"])
    reports["ticker"] = reports["ticker"].replace(RENAMED)
    reports = reports.rename(columns={"report_date": "date"})
    return Assets(
        **made, reports=reports, classes=known["class"].to_dict(), sectors=known["sector"].to_dict()
    )


def stock_assets() -> Assets:
    """20 US stocks of `jaxfc.datasets`, all that a user without the M6 data has; 1990-2022."""
    days = us_stocks()
    first = days.index[0] + pd.offsets.Week(1, weekday=4)
    made = of_prices(days, period_ends(first, days.index[-1], WEEKS))
    sectors = {name: sector for sector, held in SECTORS.items() for name in held}
    classes = dict.fromkeys(days.columns, CLASSES[0])
    return Assets(**made, reports=None, classes=classes, sectors=sectors)


def of_prices(days: pd.DataFrame, ends: pd.DatetimeIndex) -> dict[str, pd.DataFrame]:
    """The tables of `Assets` from daily closes; the first end is where the first period starts."""
    table = asset_panel(days, ends).to_frame()
    tables = {}
    for what, suffix in (("returns", ""), *SUFFIXES.items()):
        own = table[[f"{name}{suffix}" for name in days.columns]]
        tables[what] = own.set_axis(days.columns, axis=1)
    tables["recent_volatility"] = np.exp(tables["recent_volatility"])
    return tables


def recent_returns(mixed: pd.DataFrame) -> pd.DataFrame:
    """Returns of the last week from those of an adjusted close over an unadjusted open.

        ln(1 + x_t) = r_t + a_t,    a_t = ln(adjusted / unadjusted), which moves with dividends and
        splits only; r_t is taken as the distance of the left side to its median over the last 13
        periods, of which 4 must be known

    The median of a quarter's dividends lags by about half a percent, against a standard deviation
    of a week of 4. A distance beyond `LARGEST_MOVE` is not known; the second in a row to the same
    side is a split, and the median starts again from the first of the two. Nothing after t enters:
    later dividends and splits move both sides alike.
    """
    logs = np.log1p(mixed)
    found = {name: without_level(logs[name].to_numpy()) for name in logs}
    return np.expm1(pd.DataFrame(found, mixed.index))


def without_level(values: np.ndarray) -> np.ndarray:
    """One asset's distances to the median of what stands since the last split."""
    found = np.full(values.shape, np.nan)
    level: list[float] = []
    outside: list[float] = []
    for t, value in enumerate(values):
        if np.isnan(value):
            continue
        gap = value - np.median(level) if level else 0.0
        if abs(gap) > LARGEST_MOVE:
            if outside and (outside[-1] > 0.0) == (gap > 0.0):
                level, outside = [value - gap + outside[-1], value], []
            else:
                outside = [gap]
            continue
        outside = []
        level = [*level, value][-LEVEL_PERIODS:]
        if len(level) >= LEVEL_LEAST:
            found[t] = value - np.median(level)
    return found
