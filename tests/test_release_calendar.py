"""Release calendars from delays, announcements and vintages."""

import numpy as np
import pandas as pd
import pytest

from jaxfc.native_rows import native_tables, reaching, row_of_period
from jaxfc.panel import Panel
from jaxfc.release_calendar import ReleaseCalendar
from jaxfc.vintages import pseudo_vintages


@pytest.fixture(scope="module")
def panel():
    """Two monthly series and a quarterly flow."""
    rng = np.random.default_rng(0)
    months = pd.date_range("2020-01-31", periods=12, freq="ME")
    monthly = pd.DataFrame(rng.normal(size=(12, 2)), months, list("ab"))
    quarterly = pd.DataFrame({"q": rng.normal(size=4)}, months[2::3])
    return Panel.from_frames(
        {"M": monthly, "Q": quarterly},
        kinds={"q": "flow_sum"},
        delays={"a": "5D", "b": "20D", "q": "30D"},
    )


def test_delays_date_every_period(panel):
    calendar = ReleaseCalendar.from_delays(panel)
    assert len(calendar.table) == 12 + 12 + 4 and "28 releases" in repr(calendar)
    dates = calendar.dates_of(["q", "a"], pd.DatetimeIndex(["2020-06-30", "2020-02-29"]))
    assert list(dates) == [pd.Timestamp("2020-07-30"), pd.Timestamp("2020-03-05")]
    assert calendar.table["date"].is_monotonic_increasing


def test_releases_between_are_what_the_vintages_gain(panel):
    calendar = ReleaseCalendar.from_delays(panel)
    store = pseudo_vintages(panel, pd.date_range("2020-03-02", "2021-02-01", freq="15D"))
    for i, (old, new) in enumerate(store.pairs()):
        between = calendar.releases_between(store.dates[i], store.dates[i + 1])
        gained = np.argwhere(new.observed & ~old.observed)
        names = sorted((panel.names[k], panel.index[row]) for row, k in gained)
        assert names == sorted(zip(between["series"], between["period"], strict=True))
    assert len(calendar.releases_between("2019-01-01", "2019-12-31")) == 0
    with pytest.raises(ValueError, match="lies before"):
        calendar.releases_between("2020-02-01", "2020-01-01")


def test_vintages_date_what_they_bring(panel):
    store = pseudo_vintages(panel, pd.date_range("2020-03-02", "2021-02-01", freq="15D"))
    calendar = ReleaseCalendar.from_vintages(store)
    truth = ReleaseCalendar.from_delays(panel)
    table = calendar.table
    exact = truth.dates_of(list(table["series"]), pd.DatetimeIndex(table["period"]))
    waiting = pd.DatetimeIndex(table["date"]) - exact
    assert waiting.min() >= pd.Timedelta(0) and waiting.max() < pd.Timedelta(days=15)
    assert len(table) == (store.panels[-1].observed & ~store.panels[0].observed).sum()


def test_announced_dates_and_their_refusals(panel):
    calendar = ReleaseCalendar.from_dates(
        {"q": {"2020-04-01": "2020-07-28"}, "a": {"2020-06-15": "2020-06-30"}}, panel
    )
    assert list(calendar.table["period"]) == [pd.Timestamp("2020-06-30")] * 2
    with pytest.raises(
        ValueError, match="'q' has two releases for the period that ends 2020-06-30"
    ):
        ReleaseCalendar.from_dates(
            {"q": {"2020-04-01": "2020-07-28", "2020-06-30": "2020-08-28"}}, panel
        )
    with pytest.raises(ValueError, match=r"'a'.*cannot be published on 2020-05-31"):
        ReleaseCalendar.from_dates({"a": {"2020-06-15": "2020-05-31"}}, panel)
    with pytest.raises(ValueError, match="the calendar names series 'z'"):
        ReleaseCalendar.from_dates({"z": {"2020-06-15": "2020-05-31"}}, panel)
    with pytest.raises(ValueError, match="the calendar has no series"):
        ReleaseCalendar.from_dates({}, panel)


def test_rows_of_periods(panel):
    assert row_of_period(panel, ["a", "q"], "2020-06-30") == 5
    assert row_of_period(panel, ["q"], "2020-04-02") == 5
    longer = reaching(panel, ["q"], "2021-02-10")
    assert longer.num_times == 15 and row_of_period(longer, ["q"], "2021-02-10") == 14
    assert reaching(panel, ["a"], "2020-05-05") is panel
    with pytest.raises(ValueError, match="is not, or not completely, in the calendar"):
        row_of_period(panel, ["q"], "2021-02-10")
    with pytest.raises(ValueError, match="end in different rows"):
        row_of_period(panel, ["a", "q"], "2020-05-31")


def test_tables_by_frequency(panel):
    tables = native_tables(panel, {"mean": panel.values})
    assert list(tables) == ["M", "Q"] and tables["M"].shape == (12, 2)
    np.testing.assert_array_equal(tables["Q"]["q"], panel.values[2::3, 2])
    both = native_tables(panel, {"mean": panel.values, "std": 0.0 * panel.values})
    assert both["Q"].columns.tolist() == [("q", "mean"), ("q", "std")]
