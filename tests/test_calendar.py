"""Calendars against pandas periods, aggregation rows against definitions written out in loops."""

import numpy as np
import pandas as pd
import pytest

from jaxfc import calendar

DATES = pd.DatetimeIndex(
    np.datetime64("1968-01-01") + np.sort(np.random.default_rng(0).choice(20000, 300, False))
)
PERIODS = {
    "D": "D",
    "W-FRI": "W-FRI",
    "W-SUN": "W-SUN",
    "W-WED": "W-WED",
    "M": "M",
    "Q": "Q-DEC",
    "Q-JAN": "Q-JAN",
    "Q-FEB": "Q-FEB",
    "A": "Y-DEC",
    "A-JUN": "Y-JUN",
}


@pytest.mark.parametrize(("ours", "pandas"), PERIODS.items())
def test_period_ends_and_shifts_are_those_of_pandas_periods(ours, pandas):
    periods = DATES.to_period(pandas)
    ends = calendar.period_ends(DATES, ours)
    assert (ends == periods.to_timestamp(how="end").normalize()).all()
    steps = np.arange(-7, 8)
    shifted = calendar.shift_periods(ends[11], ours, steps)
    expected = [(periods[11] + int(s)).to_timestamp(how="end").normalize() for s in steps]
    assert list(shifted) == expected
    between = calendar.calendar_between(ends[3], ends[9], ours)
    assert list(between) == list(
        pd.period_range(periods[3], periods[9], freq=pandas).to_timestamp(how="end").normalize()
    )


def test_business_days_are_weekdays():
    ends = calendar.period_ends(DATES, "B")
    assert list(ends) == [pd.offsets.BDay(0).rollforward(day) for day in DATES]
    friday = pd.Timestamp("2024-03-01")
    after = calendar.continue_calendar(pd.DatetimeIndex([friday]), "B", 6)
    assert list(after) == list(pd.bdate_range("2024-03-04", periods=6))
    assert calendar.shift_period(friday, "B", -5) == pd.Timestamp("2024-02-23")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("W", "W-FRI"),
        ("w-wed", "W-WED"),
        ("ME", "M"),
        ("Q-DEC", "Q"),
        ("Y", "A"),
        ("YE-JUN", "A-JUN"),
    ],
)
def test_aliases(alias, name):
    assert calendar.parse_frequency(alias) == name


@pytest.mark.parametrize("alias", ["h", "W-FOO", "M-JAN", "", "quarterly"])
def test_unknown_frequency_lists_the_known_ones(alias):
    with pytest.raises(ValueError, match=r"unknown frequency .* use one of 'D', 'B'"):
        calendar.parse_frequency(alias)


@pytest.mark.parametrize(
    ("dates", "frequency"),
    [
        (pd.date_range("2001-02-03", periods=9, freq="D"), "D"),
        (pd.bdate_range("2001-02-05", periods=30), "B"),
        (pd.bdate_range("2001-02-05", periods=30).delete([4, 11, 12]), "B"),
        (pd.date_range("2001-02-02", periods=5, freq="W-FRI"), "W-FRI"),
        (pd.date_range("2001-02-06", periods=5, freq="W-TUE"), "W-TUE"),
        (pd.date_range("2001-01-01", periods=5, freq="MS"), "M"),
        (pd.date_range("2000-12-31", periods=2, freq="ME"), "M"),
        (pd.date_range("2001-01-01", periods=5, freq="QS"), "Q"),
        (pd.date_range("2001-12-31", periods=4, freq="YE"), "A"),
    ],
)
def test_the_calendar_is_read_off_the_dates(dates, frequency):
    assert calendar.infer_frequency(dates) == frequency


def test_a_holiday_week_stays_weekly():
    dates = pd.date_range("2001-02-02", periods=8, freq="W-FRI")
    moved = dates[:3].append(pd.DatetimeIndex([dates[3] - pd.Timedelta(days=1)])).append(dates[4:])
    assert calendar.infer_frequency(moved) == "W-FRI"


def test_dates_that_skip_a_period_are_refused_with_the_place():
    dates = pd.date_range("2001-01-31", periods=9, freq="ME").delete(4)
    with pytest.raises(ValueError, match=r"2001-04-30 is followed by 2001-06-30.*pass frequency"):
        calendar.infer_frequency(dates)
    with pytest.raises(ValueError, match="one row does not tell"):
        calendar.infer_frequency(dates[:1])
    with pytest.raises(ValueError, match="closer than a day"):
        calendar.infer_frequency(pd.date_range("2005-01-01", periods=30, freq="h"))


def dense(pattern):
    """Q as a matrix, from the compact rows."""
    num_times = len(pattern.own_row)
    matrix = np.zeros((num_times + 1, num_times))
    for t in range(num_times):
        matrix[pattern.own_row[t], t] += pattern.own_weight[t]
        matrix[pattern.next_row[t], t] += pattern.next_weight[t]
    assert np.all(matrix[-1] == 0.0)
    return matrix[:-1]


def dense_by_definition(index, period, kind):
    """Rows of the table of temporal aggregation, for calendars that begin and end with a block."""
    labels = index.to_period(period)
    blocks = [np.flatnonzero(labels == label) for label in labels.unique()]
    matrix = np.zeros((len(index), len(index)))
    for j, block in enumerate(blocks):
        row, length = block[-1], len(block)
        if kind == "stock":
            matrix[row, row] = 1.0
        elif kind == "flow_sum":
            matrix[row, block] = 1.0
        elif kind == "flow_average":
            matrix[row, block] = 1.0 / length
        elif j > 0:
            before = blocks[j - 1]
            for k, t in enumerate(block, start=1):
                matrix[row, t] = (length - k + 1) / length
            for k, t in enumerate(before, start=1):
                matrix[row, t] = (k - 1) / len(before)
    return matrix


WHOLE_CALENDARS = {
    "weeks in months": (pd.date_range("2004-01-02", "2005-12-30", freq="W-FRI"), "W-FRI", "M"),
    "weeks in quarters": (pd.date_range("2004-01-02", "2005-12-30", freq="W-FRI"), "W-FRI", "Q"),
    "business days in months": (pd.bdate_range("2004-01-01", "2004-06-30"), "B", "M"),
    "business days in weeks": (pd.bdate_range("2004-01-05", "2004-02-27"), "B", "W-FRI"),
    "months in quarters": (pd.date_range("2004-01-31", "2005-12-31", freq="ME"), "M", "Q"),
    "quarters in years": (pd.date_range("2004-03-31", "2007-12-31", freq="QE"), "Q", "A"),
}


@pytest.mark.parametrize("kind", calendar.KINDS)
@pytest.mark.parametrize("name", WHOLE_CALENDARS)
def test_patterns_are_the_definition(name, kind):
    index, base, low = WHOLE_CALENDARS[name]
    pattern = calendar.aggregation_pattern(index, base, low, kind)
    expected = dense_by_definition(index, PERIODS.get(low, low), kind)
    found = dense(pattern)
    ends = np.flatnonzero(pattern.answered)
    np.testing.assert_allclose(found[ends], expected[ends], rtol=0, atol=1e-15)
    assert np.array_equal(pattern.answered, expected.any(axis=1))


def test_weeks_come_in_fours_and_fives_and_thirteens():
    index = pd.date_range("1999-01-01", "2015-12-25", freq="W-FRI")
    months = calendar.low_frequency_blocks(index, "W-FRI", "M")
    quarters = calendar.low_frequency_blocks(index, "W-FRI", "Q")
    assert set(months.last_row - months.first_row + 1) == {4, 5}
    assert set(quarters.last_row - quarters.first_row + 1) == {12, 13, 14}


def test_change_in_flow_of_differences_is_the_change_of_the_average():
    index, base, low = WHOLE_CALENDARS["weeks in months"]
    levels = np.cumsum(np.random.default_rng(1).normal(size=len(index)))
    change = calendar.aggregation_pattern(index, base, low, "change_in_flow")
    average = calendar.aggregation_pattern(index, base, low, "flow_average")
    ends = np.flatnonzero(average.answered)
    means = dense(average)[ends] @ levels
    found = dense(change)[ends[1:]] @ np.diff(levels, prepend=0.0)
    np.testing.assert_allclose(found, np.diff(means), rtol=0, atol=1e-14)


def test_regular_quarters_have_the_mariano_murasawa_weights():
    index, base, low = WHOLE_CALENDARS["months in quarters"]
    row = dense(calendar.aggregation_pattern(index, base, low, "change_in_flow"))[8]
    np.testing.assert_allclose(row[3:9], np.array([0, 1, 2, 3, 2, 1]) / 3, atol=1e-16)


def test_cut_blocks_have_no_row():
    index = pd.date_range("2004-02-29", "2004-11-30", freq="ME")
    rows = {
        kind: calendar.aggregation_pattern(index, "M", "Q", kind).answered
        for kind in calendar.KINDS
    }
    march, june, september = 1, 4, 7
    assert list(np.flatnonzero(rows["stock"])) == [march, june, september]
    assert list(np.flatnonzero(rows["flow_sum"])) == [june, september]
    assert list(np.flatnonzero(rows["change_in_flow"])) == [september]


def test_series_of_one_calendar_and_kind_share_a_pattern():
    index = WHOLE_CALENDARS["weeks in months"][0]
    rows = calendar.aggregation_rows(
        index,
        "W-FRI",
        ("W-FRI", "M", "M", "Q", "M", "W-FRI"),
        ("flow_sum", "flow_sum", "flow_sum", "flow_sum", "stock", "stock"),
    )
    assert rows is not None
    assert list(rows.group) == [0, 1, 1, 2, 0, 0]
    assert rows.own_weight.shape == rows.next_row.shape == (3, len(index))
    assert np.array_equal(rows.own_row[0], np.arange(len(index)))
    assert calendar.aggregation_rows(index, "W-FRI", ("M",), ("stock",)) is None
