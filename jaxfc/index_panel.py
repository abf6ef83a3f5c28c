"""The S&P 500 by week with explaining series that ship inside packages (extra `data`)."""

from typing import NamedTuple

import pandas as pd

from jaxfc.datasets import (
    core_cpi,
    corporate_yields,
    log_growth,
    nasdaq,
    sp500,
    us_stocks,
    weekly_closes,
    wti,
)
from jaxfc.panel import Panel

TARGET = "SP500"
FIRST, LAST = "1999-01-15", "2016-02-05"  # the 891 weeks of Defend et al. (2021), section 6


class IndexPanel(NamedTuple):
    """A panel with the weekly log return of the index, and the series by group of drivers."""

    panel: Panel
    groups: dict[str, list[str]]


def log_changes(levels: pd.DataFrame, column: str) -> pd.Series:
    """log y_t - log y_{t-1}."""
    return log_growth(levels, column) / 100.0


def index_panel(*, incomplete: bool = True) -> IndexPanel:
    """Fridays 1999-01-15 to 2016-02-05: log returns of the S&P 500, NASDAQ, oil and two stocks, and
    by month changes of Moody's Aaa yield, the spread of Baa over it (percentage points) and the log
    change of core consumer prices, published after 1, 1 and 16 days.

    Small: for examples and the demo, no substitute for a panel of the economy. Without `incomplete`
    the weekly series only. Stocks are chosen with hindsight (both survived).

    Source: as shipped by arch and skfolio (`jaxfc.datasets`).
    """
    stocks = weekly_closes(us_stocks())
    weekly = pd.DataFrame(
        {
            TARGET: log_changes(weekly_closes(sp500()), "Close"),
            "NASDAQ": log_changes(weekly_closes(nasdaq()), "Close"),
            "OIL": log_changes(weekly_closes(wti()), "WTI"),
            "EXXON": log_changes(stocks, "XOM"),
            "JPMORGAN": log_changes(stocks, "JPM"),
        }
    ).loc[FIRST:LAST]
    groups = {"Equity": ["NASDAQ", "EXXON", "JPMORGAN"], "Oil": ["OIL"], "Own": [TARGET]}
    if not incomplete:
        return IndexPanel(Panel.from_frames({"W-FRI": weekly}), groups)
    yields = corporate_yields()
    monthly = pd.DataFrame(
        {
            "AAA": yields["AAA"].diff(),
            "BAA_AAA": yields["BAA"] - yields["AAA"],
            "CORE_CPI": log_changes(core_cpi(), "CPILFESL"),
        }
    ).loc["1999-03-31":"2016-01-31"]
    kinds = dict.fromkeys(("AAA", "CORE_CPI"), "change_in_flow") | {"BAA_AAA": "flow_average"}
    delays = {"AAA": "1D", "BAA_AAA": "1D", "CORE_CPI": "16D"}
    panel = Panel.from_frames({"W-FRI": weekly, "M": monthly}, kinds=kinds, delays=delays)
    groups |= {"Corporates": ["AAA", "BAA_AAA"], "Inflation": ["CORE_CPI"]}
    return IndexPanel(panel, groups)
