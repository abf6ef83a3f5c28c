"""The weekly S&P 500 with a US panel of several frequencies, as near to the source's as data allow.

Against Defend et al. (2021), section 6 (22 weekly series in four groups, 11 monthly or quarterly
ones in three): Treasury yields, commercial paper and the euro are theirs in kind; corporate yields
are monthly averages (weekly ones belong to their vendors), commercial paper stands for LIBOR, oil
for gold. 14 series are complete, 12 are not. Figures are revised ones of one vintage, published
with the typical delays below, so a backtest is pseudo-real-time. H.15 publishes a week's average on
the Monday after its Friday.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import jaxfc
from experiments.shared_data import shared_folder
from jaxfc.datasets import (
    fred_md_gdp,
    sp500,
    weekly_closes,
    wti,
)
from jaxfc.index_panel import FIRST, LAST, TARGET, IndexPanel, log_changes

WINDOW = 364
TREASURIES = ("3MO", "6MO", "1YR", "2YR", "3YR", "5YR", "7YR", "10YR", "20YR")
PAPER = ("1M", "2M", "3M")
H15_DELAY = "3D"
# name: (code of FRED-MD, change, kind, delay in days, group); "log": growth, "level": difference,
# "spread": the level itself. A month's average is an average of weeks, so its change is a change of
# averages; payrolls are counted once a month, so their growth is the sum of the weeks'.
MONTHLY = {
    "AAA": ("AAA", "level", "change_in_flow", 1, "Corporates"),
    "BAA_AAA": ("BAA-AAA", "spread", "flow_average", 1, "Corporates"),
    "RETAIL": ("RETAILx", "log", "change_in_flow", 14, "Demand"),
    "HOUSING": ("HOUST", "log", "change_in_flow", 18, "Demand"),
    "SENTIMENT": ("UMCSENTx", "level", "change_in_flow", 1, "Demand"),
    "PRODUCTION": ("INDPRO", "log", "change_in_flow", 16, "Supply"),
    "PAYROLLS": ("PAYEMS", "log", "flow_sum", 7, "Supply"),
    "UNEMPLOYMENT": ("UNRATE", "level", "change_in_flow", 7, "Supply"),
    "CPI": ("CPIAUCSL", "log", "change_in_flow", 16, "Inflation"),
    "PPI": ("PPIFGS", "log", "change_in_flow", 14, "Inflation"),
    "M2": ("M2SL", "log", "change_in_flow", 11, "Inflation"),
}


def read_h15(path: Path) -> pd.Series:
    """A weekly series of the Federal Reserve's H.15 as FRED writes it: percent, a dot for none."""
    lines = path.read_text(encoding="latin-1").splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["DATE", "VALUE"]) + 1
    rows = [line.split() for line in lines[start:] if line.strip()]
    values = pd.Series([np.nan if cell == "." else float(cell) for _, cell in rows])
    values.index = pd.DatetimeIndex([day for day, _ in rows])
    return values


def weekly_series(folder: Path) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Fridays: changes of yields (percentage points), log changes of euro, oil and index."""
    columns = {TARGET: log_changes(weekly_closes(sp500()), "Close")}
    groups: dict[str, list[str]] = {"Treasuries": [], "Money market": []}
    for tenor in TREASURIES:
        columns[f"T{tenor}"] = read_h15(folder / f"WGS{tenor}.txt").diff()
        groups["Treasuries"].append(f"T{tenor}")
    for tenor in PAPER:
        columns[f"CP{tenor}"] = read_h15(folder / f"WCPF{tenor}.txt").diff()
        groups["Money market"].append(f"CP{tenor}")
    euro = pd.read_csv(folder / "DEXUSEU.csv", index_col=0, parse_dates=True, na_values=["."])
    columns["EURUSD"] = log_changes(weekly_closes(euro), "DEXUSEU")
    columns["OIL"] = log_changes(weekly_closes(wti()), "WTI")
    groups["FX and oil"] = ["EURUSD", "OIL"]
    return pd.DataFrame(columns).loc[FIRST:LAST], groups


def monthly_series(folder: Path) -> pd.DataFrame:
    """Months of FRED-MD as published in February 2016, by period end."""
    levels, _ = jaxfc.read_fredmd(folder / "2016-02.csv.gz")
    levels.index = levels.index + pd.offsets.MonthEnd(0)
    columns = {}
    for name, (code, change, *_) in MONTHLY.items():
        if change == "spread":
            columns[name] = levels["BAA"] - levels["AAA"]
        elif change == "log":
            columns[name] = log_changes(levels, code)
        else:
            columns[name] = levels[code].diff()
    return pd.DataFrame(columns).loc["1999-03-31":"2016-01-31"]


def returns_panel(data: str | None, *, incomplete: bool = True) -> IndexPanel:
    """The panel of the study; without `incomplete` only the weekly series without gaps.

    **Raises:** `FileNotFoundError` where the shared data or a package with data is missing.
    """
    weekly, groups = weekly_series(shared_folder(data, "us_rates_weekly"))
    averages = groups["Treasuries"] + groups["Money market"]
    delays = dict.fromkeys(averages, H15_DELAY)
    if not incomplete:
        panel = jaxfc.Panel.from_frames({"W-FRI": weekly}, delays=delays)
        return IndexPanel(panel, groups | {"Own": [TARGET]})
    monthly = monthly_series(shared_folder(data, "fredmd_vintages"))
    gdp = log_changes(fred_md_gdp().quarterly.dropna(), "GDPC1").loc["1999-09-30":"2015-12-31"]
    kinds, delays["GDP"] = {"GDP": "change_in_flow"}, "30D"
    for name, (_, _, kind, delay, group) in MONTHLY.items():
        kinds[name], delays[name] = kind, f"{delay}D"
        groups.setdefault(group, []).append(name)
    groups["Demand"].append("GDP")
    frames = {"W-FRI": weekly, "M": monthly, "Q": gdp.to_frame("GDP")}
    panel = jaxfc.Panel.from_frames(frames, kinds=kinds, delays=delays)
    return IndexPanel(panel, groups | {"Own": [TARGET]})
