"""ALFRED-like tables against a plain loop over their rows, and their refusals."""

import numpy as np
import pandas as pd
import pytest

from jaxfc.vintages import VintageStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table():
    """A monthly and a quarterly series, dated by first days, with revisions and a withdrawal."""
    rng = np.random.default_rng(3)
    rows = []
    for name, frequency, count, lag in (("m", "MS", 12, 45), ("q", "QS", 4, 120)):
        for period in pd.date_range("2020-01-01", periods=count, freq=frequency):
            first = period + pd.Timedelta(days=lag)
            for k in range(3):
                start = first + pd.Timedelta(days=30 * k)
                rows.append((name, period, rng.normal(), start))
    table = pd.DataFrame(rows, columns=["series", "period", "value", "realtime_start"])
    table.loc[7, "value"] = np.nan
    return table.sample(frac=1.0, random_state=0)


def known(table, date):
    """What was valid on a day: the last row of every series and period, by a plain loop."""
    cells = {}
    for row in table.sort_values("realtime_start").itertuples(index=False):
        if row.realtime_start <= date:
            end = getattr(row, "realtime_end", pd.NaT)
            alive = pd.isna(end) or date <= end
            cells[row.series, row.period] = row.value if alive else np.nan
    return {cell: value for cell, value in cells.items() if not np.isnan(value)}


def cells_of(panel):
    """The observed cells by series and first day of the period."""
    found = {}
    for row, i in np.argwhere(panel.observed):
        first = panel.index[row] - pd.offsets.MonthBegin(3 if panel.names[i] == "q" else 1)
        found[panel.names[i], first] = panel.values[row, i]
    return found


def test_every_vintage_is_what_was_valid_that_day(table):
    store = VintageStore.from_realtime(table, {"m": "M", "q": "Q"}, kinds={"q": "flow_sum"})
    assert len(store) == table["realtime_start"].nunique()
    for date, panel in zip(store.dates, store.panels, strict=True):
        assert cells_of(panel) == known(table, date)
    assert store.panels[-1].frequencies == ("M", "Q")


def test_ends_of_validity_and_chosen_dates(table):
    ended = table.sort_values(["series", "period", "realtime_start"]).reset_index(drop=True)
    following = ended.groupby(["series", "period"])["realtime_start"].shift(-1)
    ended["realtime_end"] = following - pd.Timedelta(days=1)
    ended.loc[2, "realtime_end"] = pd.Timestamp("2020-09-30")
    texts = ended.assign(realtime_end=ended["realtime_end"].dt.strftime("%Y-%m-%d"))
    texts["realtime_end"] = texts["realtime_end"].fillna("9999-12-31")
    dates = ["2020-10-15", "2020-06-30", "2021-03-01"]
    for given in (ended, texts):
        store = VintageStore.from_realtime(
            given, {"m": "M", "q": "Q"}, dates=dates, kinds={"q": "flow_sum"}
        )
        assert [f"{d:%Y-%m-%d}" for d in store.dates] == sorted(dates)
        for date, panel in zip(store.dates, store.panels, strict=True):
            assert cells_of(panel) == known(ended, date)
    assert ("m", pd.Timestamp("2020-01-01")) not in cells_of(store.as_of("2020-10-15"))


def test_renaming_and_vanishing(table):
    monthly = table[table["series"] == "m"].copy()
    late = monthly["realtime_start"] > "2020-08-01"
    monthly.loc[late, "series"] = "m2"
    store = VintageStore.from_realtime(monthly, "M", rename={"m2": "m"})
    assert store.names == ("m",)
    ended = monthly.assign(realtime_end=pd.NaT)
    ended.loc[ended["series"] == "m", "realtime_end"] = pd.Timestamp("2020-08-20")
    ended = ended[(ended["series"] == "m2") | (ended["realtime_start"] < "2020-08-01")]
    ended = ended.drop_duplicates(["series", "period"])
    with pytest.raises(ValueError, match="2020-08-21 has no series 'm', which the vintage of"):
        VintageStore.from_realtime(ended, "M")
    assert len(VintageStore.from_realtime(ended, "M", on_change="revise")) > 3


def row(**changes):
    base = {"series": "m", "period": "2020-01-01", "value": 1.0, "realtime_start": "2020-02-15"}
    return {**base, **changes}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(value=2.0)], "two values are valid from the same day for series 'm', period"),
        (
            [row(realtime_end="2020-03-31"), row(realtime_start="2020-03-01", realtime_end=None)],
            "real-time periods of two values overlap for series 'm', period 2020-01-01",
        ),
        (
            [row(), row(period="2020-01-15", realtime_start="2020-03-01")],
            "'m' has two observations in the period that ends 2020-01-31",
        ),
        ([row(realtime_end="2020-02-01")], "realtime_end lies before realtime_start"),
        ([row(value="many")], "'m' in row 0 of the real-time table is 'many'"),
        ([row(value=".")], "'m' never has a value"),
        ([row(period=None)], "column 'period' of the real-time table has no date in row 0"),
        ([row(period="soon")], "column 'period' of the real-time table"),
        ([row(series="x")], "frequencies say nothing of series 'x'"),
    ],
)
def test_refusals(rows, message):
    with pytest.raises(ValueError, match=message):
        VintageStore.from_realtime(pd.DataFrame(rows), {"m": "M"})


def test_a_table_without_a_column_is_refused():
    with pytest.raises(ValueError, match="no column 'value'; it needs"):
        VintageStore.from_realtime(pd.DataFrame([row()]).drop(columns="value"), "M")
    with pytest.raises(ValueError, match="is empty"):
        VintageStore.from_realtime(pd.DataFrame([row()]).iloc[:0], "M")
