"""The data behind the golden numbers, read in place: nothing of it is part of this repository."""

import importlib.util
import pathlib

import numpy as np
import pandas as pd
import pytest

EXCEL_DAY_OF_2000 = 36526


def statsmodels_file(*parts):
    """Path of a file inside the statsmodels wheel; skips the test where it is not installed."""
    spec = importlib.util.find_spec("statsmodels")
    if spec is None or spec.origin is None:
        pytest.skip("needs statsmodels (extra 'data')")
    return pathlib.Path(spec.origin).parent.joinpath(*parts)


def statsmodels_results(*parts):
    """Path of one of the stored outputs of other programs in the statsmodels wheel."""
    return statsmodels_file("tsa", "statespace", "tests", "results", *parts)


def attribute(node, name):
    """One attribute of a parsed R object; repeated symbols are stored as references."""
    while node is not None:
        symbol = node.tag.referenced_object if node.tag.value is None else node.tag
        if symbol.value.value == name.encode():
            return np.asarray(node.value[0].value)
        node = node.value[1]
    raise KeyError(name)


def read_xts(path) -> tuple[np.ndarray, np.ndarray]:
    """Values (time, series) and seconds since 1970 of the one xts matrix in an R data file."""
    rdata = pytest.importorskip("rdata", reason="needs rdata (extra 'dev')")
    matrix = rdata.parser.parse_file(path).object.value[0]
    num_times, num_series = attribute(matrix.attributes, "dim")
    values = np.asarray(matrix.value).reshape((num_times, num_series), order="F")
    return values, attribute(matrix.attributes, "index")


def bm14_growth(folder):
    """Growth rates of the Banbura-Modugno panel (357 months, 101 series) and its series table.

    Quarterly values stand in the last month of their quarter. Log where the table says so, then
    differences over one month, or over three months for quarterly series.
    """
    rdata = pytest.importorskip("rdata", reason="needs rdata (extra 'dev')")
    monthly, months = read_xts(folder / "BM14_M.rda")
    quarterly, quarters = read_xts(folder / "BM14_Q.rda")
    table = rdata.read_rda(folder / "BM14_Models.rda")["BM14_Models"]
    assert np.isin(quarters, months).all()
    spread = np.full((len(months), quarterly.shape[1]), np.nan)
    spread[np.searchsorted(months, quarters)] = quarterly
    levels = np.hstack([monthly, spread])
    levels[np.isnan(levels)] = np.nan  # R's NA is a signalling NaN
    logged = table["log_trans"].to_numpy(bool)
    levels[:, logged] = np.log(levels[:, logged])
    growth = np.full_like(levels, np.nan)
    num_monthly = monthly.shape[1]
    growth[1:, :num_monthly] = levels[1:, :num_monthly] - levels[:-1, :num_monthly]
    growth[3:, num_monthly:] = levels[3:, num_monthly:] - levels[:-3, num_monthly:]
    return growth, table


def lutkepohl_growth():
    """Log differences of West German investment, income and consumption, 1960Q2-1982Q4 (91, 3).

    Logarithms in single precision, as Stata's data set appears to hold them: with double precision
    the log-likelihood differs from Stata's in the seventh digit, with single in the tenth.
    """
    pytest.importorskip("statsmodels", reason="needs statsmodels (extra 'data')")
    from statsmodels.tsa.statespace.tests.results.results_varmax import lutkepohl_data

    logs = np.log(np.asarray(lutkepohl_data, dtype=float)).astype(np.float32)
    return np.diff(logs, axis=0).astype(float)


def stata_forecasts(name):
    """Out-of-sample forecasts 1979Q1-1982Q4 (16, 3) of one Stata model at its parameters."""
    table = pd.read_csv(statsmodels_results("results_dynamic_factor_stata.csv"))
    return table[[f"predict_{name}_{i}" for i in (1, 2, 3)]].to_numpy()[76:]


def kfas_table():
    """KFAS output for `macro_with_gaps`, one row per quarter."""
    return pd.read_csv(statsmodels_results("results_smoothing_R.csv"))


def macro_with_gaps():
    """Differences of US real GDP, consumption and investment, 1959Q2-2009Q3 (202, 3).

    The gaps are those of the KFAS script: whole stretches of one, two and three series.
    """
    table = pd.read_csv(statsmodels_file("datasets", "macrodata", "macrodata.csv"))
    changes = np.diff(table[["realgdp", "realcons", "realinv"]].to_numpy(), axis=0)
    for series, start, stop in [(0, 0, 50), (1, 19, 70), (2, 39, 90), (0, 119, 130), (2, 119, 130)]:
        changes[start:stop, series] = np.nan
    return changes


def frbny_changes(
    monthly_names, quarterly_names=("GDPC1", "ULCNFB"), vintage="2016-06-29"
) -> pd.DataFrame:
    """A NY Fed vintage from 2000 on, transformed: one row per month.

    Monthly: percent change, or change for rates and counts; quarterly: annualised percent change,
    in the last month of the quarter.
    """
    path = ("frbny_nowcast", "Nowcasting", "data", "US", f"{vintage}.csv")
    table = pd.read_csv(statsmodels_results(*path), index_col="Date")
    columns = {}
    for name in monthly_names:
        series = table[name]
        if name in ("UNRATE", "PAYEMS", "TCU"):
            columns[name] = series - series.shift(1)
        else:
            columns[name] = 100.0 * (series / series.shift(1) - 1.0)
    for name in quarterly_names:
        columns[name] = 100.0 * ((table[name] / table[name].shift(3)) ** 4 - 1.0)
    growth = pd.DataFrame(columns)
    growth.index = pd.to_datetime(growth.index, format="%m/%d/%y")
    return growth.loc["2000-01-01":]


def frbny_growth(monthly_names, quarterly_names=("GDPC1", "ULCNFB")):
    """`frbny_changes` of the vintage of 2016-06-29, standardised: (198, series)."""
    growth = frbny_changes(monthly_names, quarterly_names)
    return ((growth - growth.mean()) / growth.std()).to_numpy()


def read_sheet(path) -> pd.DataFrame:
    """The first sheet of an Excel 97 file, its first row as names; empty cells are NaN."""
    xlrd = pytest.importorskip("xlrd", reason="needs xlrd (extra 'dev')")
    sheet = xlrd.open_workbook(path).sheet_by_index(0)
    rows = [
        [np.nan if value == "" else value for value in sheet.row_values(i)]
        for i in range(1, sheet.nrows)
    ]
    return pd.DataFrame(rows, columns=sheet.row_values(0))


def frbny_full_panel(folder, vintage="2016-06-29") -> tuple[pd.DataFrame, np.ndarray]:
    """A vintage of the NY Fed's own example, months from 2000 on of 25 series, and its blocks.

    Monthly series first; transformations as its specification says.
    """
    table = read_sheet(folder / "Spec_US_example.xls")
    table = table[table["Model"] == 1]
    table = table.iloc[np.argsort(table["Frequency"] == "q", kind="stable")]
    levels = read_sheet(folder / f"{vintage}.xls").set_index("Date").astype(float)
    columns = {}
    for series in table.itertuples():
        level = levels[series.SeriesID]
        before = level.shift(3 if series.Frequency == "q" else 1)
        columns[series.SeriesID] = {
            "lin": level,
            "chg": level - before,
            "pch": 100.0 * (level / before - 1.0),
            "pca": 100.0 * ((level / before) ** 4 - 1.0),
        }[str(series.Transformation)]
    days = np.asarray(levels.index) - EXCEL_DAY_OF_2000
    growth = pd.DataFrame(columns)[days >= 0]
    in_block = table.filter(like="Block").fillna(0).to_numpy(bool)
    return growth, in_block
