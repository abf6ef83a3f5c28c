"""Properties of panels that hold for any data: what goes in comes out, verbs commute, as_of is what
a loop over cells says."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxfc.calendar import infer_frequency
from jaxfc.panel import Panel

PANDAS = {"D": "D", "B": "B", "W-WED": "W-WED", "M": "ME", "Q": "QE-DEC", "A": "YE-DEC"}
NAMES = ("a", "b b", "c<d>", "é$")
START = pd.Timestamp("1999-11-17")


def numbers():
    """Any finite number, small integers often, so that ties occur."""
    return st.one_of(
        st.integers(-3, 3).map(float), st.floats(allow_nan=False, allow_infinity=False)
    )


@st.composite
def frames(draw, frequency=None, min_rows=1, max_rows=14):
    """A frame on a full calendar, about a third of its cells missing, and its frequency."""
    frequency = frequency or draw(st.sampled_from(list(PANDAS)))
    num_rows = draw(st.integers(min_rows, max_rows))
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    start = START + pd.Timedelta(days=draw(st.integers(0, 400)))
    index = pd.date_range(start, periods=num_rows, freq=PANDAS[frequency])
    cell = st.one_of(numbers(), numbers(), st.just(np.nan))
    values = draw(st.lists(cell, min_size=num_rows * len(names), max_size=num_rows * len(names)))
    frame = pd.DataFrame(np.reshape(values, (num_rows, -1)), index=index, columns=list(names))
    assume(frame.notna().any().all())
    return frame, frequency


def made(frame, frequency, **options):
    """The panel of a frame; gaps that look like a lower frequency are another test's matter."""
    try:
        return Panel.from_frame(
            frame,
            frequency=frequency,
            kinds=dict.fromkeys(frame.columns, "stock"),
            allow_constant=True,
            **options,
        )
    except ValueError as error:
        assume("frequency" not in str(error) and "mixed frequencies" not in str(error))
        raise


def assert_same_panel(first, second):
    """Every field of two panels."""
    for name in ("names", "kinds", "frequencies", "frequency", "delays", "units"):
        assert getattr(first, name) == getattr(second, name)
    assert first.index.equals(second.index)
    np.testing.assert_array_equal(first.observed, second.observed)
    np.testing.assert_array_equal(first.values, second.values)


def assert_same_frame(first, second):
    """Values to the bit, dates, names."""
    assert list(first.columns) == list(second.columns)
    assert list(first.index) == list(second.index)
    np.testing.assert_array_equal(first.to_numpy(float), second.to_numpy(float))


@given(frames())
def test_a_frame_comes_back(drawn):
    frame, frequency = drawn
    panel = made(frame, frequency)
    assert_same_frame(panel.to_frame(), frame)
    assert panel.observed.sum() == frame.notna().to_numpy().sum()
    assert not panel.values[~panel.observed].any()


@given(frames())
def test_rows_that_are_left_out_are_rows_not_observed(drawn):
    frame, frequency = drawn
    assume(frequency != "B")  # a trading calendar has the days it has
    kept = frame.dropna(how="all")
    panel = made(kept, frequency)
    assert_same_frame(panel.to_frame(), frame.loc[kept.index[0] : kept.index[-1]])


@pytest.mark.parametrize("frequency", list(PANDAS))
@given(offset=st.integers(0, 1000), num_rows=st.integers(12, 40))
def test_a_calendar_is_read_off_its_dates(frequency, offset, num_rows):
    start = START + pd.Timedelta(days=offset)
    assert infer_frequency(pd.date_range(start, periods=num_rows, freq=PANDAS[frequency])) == (
        frequency
    )


@given(frames(), st.integers(0, 5), st.integers(0, 5))
def test_extensions_add_up_and_are_cut_again(drawn, first, second):
    panel = made(*drawn)
    longer = panel.extend(first).extend(second)
    assert_same_panel(longer, panel.extend(first + second))
    assert_same_panel(longer.window(0, panel.num_times), panel)
    assert not longer.observed[panel.num_times :].any()
    ends = pd.date_range(panel.index[0], periods=len(longer.index), freq=PANDAS[panel.frequency])
    assert longer.index.equals(ends)


@given(frames(), st.randoms(use_true_random=False), st.data())
def test_selections_commute_with_everything(drawn, random, data):
    panel = made(*drawn)
    names = list(panel.names)
    random.shuffle(names)
    chosen = panel.select(names)
    assert_same_panel(chosen.select(list(panel.names)), panel)
    assert_same_frame(chosen.to_frame(), panel.to_frame()[names])
    start = data.draw(st.integers(0, panel.num_times - 1))
    assert_same_panel(chosen.window(start).extend(2), panel.window(start).extend(2).select(names))
    date = data.draw(st.sampled_from(list(panel.index)))
    assert_same_panel(chosen.as_of(date), panel.as_of(date).select(names))


@given(frames(min_rows=2), st.data())
def test_windows_of_windows_and_by_dates(drawn, data):
    panel = made(*drawn)
    start = data.draw(st.integers(0, panel.num_times - 1))
    stop = data.draw(st.integers(start + 1, panel.num_times))
    inner = data.draw(st.integers(0, stop - start - 1))
    cut = panel.window(start, stop)
    assert_same_panel(cut.window(inner), panel.window(start + inner, stop))
    assert_same_panel(cut, panel.window(panel.index[start], panel.index[stop - 1]))
    assert_same_frame(cut.to_frame(), panel.to_frame().iloc[start:stop])


DELAYS = (None, "0D", "1D", "15D", "36h", pd.offsets.BDay(3), pd.offsets.MonthEnd(1))


@given(frames(), st.lists(st.sampled_from(DELAYS), min_size=4, max_size=4), st.data())
def test_a_vintage_is_what_a_loop_over_cells_says(drawn, delays, data):
    frame, frequency = drawn
    given_delays = {n: d for n, d in zip(frame.columns, delays, strict=False) if d is not None}
    panel = made(frame, frequency, delays=given_delays)
    days = st.integers(-40, 40).map(lambda n: frame.index[-1] + pd.Timedelta(days=n))
    early, late = sorted(data.draw(st.tuples(days, days)))
    vintage = panel.as_of(early)
    for i, end in enumerate(frame.index):
        for j, name in enumerate(frame.columns):
            delay = given_delays.get(name, "0D")
            delay = pd.Timedelta(delay) if isinstance(delay, str) else delay
            known = pd.notna(frame.iloc[i, j]) and end + delay <= early
            assert vintage.observed[i, j] == known
    assert_same_panel(vintage.as_of(early), vintage)
    assert_same_panel(panel.as_of(late).as_of(early), vintage)
    assert not np.any(vintage.observed & ~panel.as_of(late).observed)
    assert_same_panel(panel.as_of(frame.index[-1] + pd.DateOffset(years=1)), panel)


BASES = {"D": 100, "B": 80, "W-WED": 40, "M": 14}


@pytest.mark.parametrize("base", list(BASES))
@given(low=st.sampled_from(("M", "Q", "A")), offset=st.integers(0, 300), seed=st.integers(0, 99))
def test_native_values_are_sums_of_pandas_groups(base, low, offset, seed):
    """Of every complete period; the sums of a period that is cut are nowhere."""
    assume(low != base)
    num_rows = BASES[base] * (5 if low == "A" else 3 if low == "Q" else 1)
    rng = np.random.default_rng(seed)
    index = pd.date_range(START + pd.Timedelta(days=offset), periods=num_rows, freq=PANDAS[base])
    periods = index.to_period({"M": "M", "Q": "Q-DEC", "A": "Y-DEC"}[low])
    x = rng.normal(size=num_rows)
    groups = pd.Series(x).groupby(periods)
    inner = list(groups.groups)[1:-1]
    assume(len(inner) > 1)
    starts = pd.PeriodIndex(inner).to_timestamp()
    high = pd.DataFrame({"x": x}, index=index)
    lows = pd.DataFrame({n: np.arange(len(inner)) * 1.0 for n in ("sum", "mean")}, index=starts)
    panel = Panel.from_frames(
        {base: high, low: lows}, kinds={"sum": "flow_sum", "mean": "flow_average"}
    )
    assert panel.index.equals(index)
    native = panel.native(np.repeat(x[:, None], 3, axis=1))
    last = pd.Series(np.arange(num_rows)).groupby(periods).last()
    for name, totals in (("sum", groups.sum()), ("mean", groups.mean())):
        column = native[name].to_numpy()
        np.testing.assert_allclose(column[last[inner]], totals[inner], rtol=1e-12, atol=1e-12)
        rest = np.delete(column, last.to_numpy())
        assert np.isnan(rest).all()
        np.testing.assert_array_equal(
            panel.observed[:, panel.names.index(name)].nonzero()[0], last[inner]
        )
    np.testing.assert_array_equal(native["x"], x)
