"""The panel: what is built from frames, its verbs, and what it refuses by name."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.forecast import GaussianForecast
from jaxfc.panel import Panel
from jaxfc.panel_checks import checked_frame


def frame(index, **columns):
    return pd.DataFrame(columns, index=index)


def draws(num, seed=0):
    return np.random.default_rng(seed).normal(size=num)


WEEKS = pd.date_range("2005-01-07", "2005-12-30", freq="W-FRI")
MONTHS = pd.date_range("2005-01-31", periods=24, freq="ME")
KINDS = {"cpi": "change_in_flow", "jobs": "stock", "gdp": "flow_average"}
DELAYS = {"cpi": "15D", "gdp": pd.offsets.BDay(20)}


@pytest.fixture(scope="module")
def mixed():
    weekly = frame(WEEKS, sp=draws(52), oil=draws(52, 1))
    weekly.iloc[3, 1] = np.nan
    monthly = frame(pd.date_range("2005-01-01", periods=12, freq="MS"), cpi=draws(12, 2))
    monthly["jobs"] = draws(12, 3)
    quarterly = frame(pd.period_range("2005Q1", periods=4, freq="Q"), gdp=draws(4, 4))
    frames = {"W": weekly, "M": monthly, "Q": quarterly}
    return frames, Panel.from_frames(frames, kinds=KINDS, delays=DELAYS)


def test_one_frame_keeps_values_and_mask():
    df = frame(pd.date_range("2005-01-01", periods=24, freq="MS"), a=draws(24), b=draws(24, 1))
    df.iloc[[0, 7], 1] = np.nan
    panel = Panel.from_frame(df)
    assert panel.frequencies == ("M", "M") and panel.kinds == ("stock", "stock")
    assert list(panel.index) == list(MONTHS)
    assert panel.aggregation is None
    np.testing.assert_array_equal(panel.to_frame().to_numpy(), df.to_numpy())
    assert np.array_equal(panel.observed, df.notna().to_numpy())
    assert np.all(panel.values[~panel.observed] == 0.0)
    values, observed = panel.arrays()
    assert values.dtype == jnp.result_type(float) and observed.dtype == bool
    assert not panel.values.flags.writeable
    with pytest.raises(AttributeError):
        panel.names = ("x",)  # pyright: ignore


def test_a_given_calendar_makes_rows_for_skipped_periods():
    df = frame(MONTHS.delete([3, 4]), a=draws(22))
    panel = Panel.from_frame(df, frequency="M")
    assert list(panel.index) == list(MONTHS)
    assert list(np.flatnonzero(~panel.observed[:, 0])) == [3, 4]


def test_a_trading_calendar_is_kept():
    days = pd.bdate_range("2005-01-03", periods=30).delete([9, 17])
    panel = Panel.from_frame(frame(days, a=draws(28)))
    assert panel.frequency == "B" and list(panel.index) == list(days)
    assert list(panel.extend(2).index[-2:]) == list(pd.bdate_range(days[-1], periods=3)[1:])


def test_mixed_frequencies_stand_at_the_last_week_of_their_period(mixed):
    frames, panel = mixed
    assert panel.names == ("sp", "oil", "cpi", "jobs", "gdp")
    assert panel.frequencies == ("W-FRI", "W-FRI", "M", "M", "Q")
    last_fridays = pd.Series(WEEKS, WEEKS).groupby([WEEKS.year, WEEKS.month]).max()
    table = panel.to_frame()
    for name in ("cpi", "jobs"):
        seen = table[name].dropna()
        assert list(seen.index) == list(last_fridays)
        np.testing.assert_array_equal(seen.to_numpy(), frames["M"][name].to_numpy())
    assert list(table["gdp"].dropna().index) == list(last_fridays.iloc[2::3])
    np.testing.assert_array_equal(table.loc[WEEKS, "sp"].to_numpy(), frames["W"]["sp"].to_numpy())
    # The first change of cpi, January 2005, needs the weeks of December 2004 as well.
    assert panel.index[0] == pd.Timestamp("2004-12-03")
    assert panel.index[-1] == WEEKS[-1]


def test_the_calendar_is_extended_both_ways_and_nothing_is_lost():
    weekly = frame(pd.date_range("2005-03-04", "2005-08-05", freq="W-FRI"), a=draws(23))
    quarterly = frame(pd.to_datetime(["2005-01-01", "2005-04-01", "2005-07-01"]), q=draws(3))
    panel = Panel.from_frames({"W": weekly, "Q": quarterly}, kinds={"q": "flow_sum"})
    assert panel.index[0] == pd.Timestamp("2005-01-07")
    assert panel.index[-1] == pd.Timestamp("2005-09-30")
    assert panel.observed.sum(axis=0).tolist() == [23, 3]
    stock = Panel.from_frames({"W": weekly, "Q": quarterly}, kinds={"q": "stock"})
    assert stock.index[0] == weekly.index[0] and stock.aggregation is None


def test_a_base_above_every_frame():
    monthly = frame(MONTHS, a=draws(24))
    panel = Panel.from_frames({"M": monthly}, kinds={"a": "flow_average"}, base="W-FRI")
    assert panel.frequency == "W-FRI" and panel.observed.sum() == 24
    assert panel.index[0] == pd.Timestamp("2005-01-07")


def test_business_days_with_holidays_and_months():
    days = pd.bdate_range("2005-01-03", "2005-03-24").delete([10])  # no Good Friday, no month end
    monthly = frame(pd.period_range("2005-01", periods=3, freq="M"), m=draws(3))
    panel = Panel.from_frames(
        {"B": frame(days, p=draws(len(days))), "M": monthly}, kinds={"m": "flow_average"}
    )
    assert panel.observed.sum(axis=0).tolist() == [len(days), 3]
    assert panel.index[-1] == pd.Timestamp("2005-03-31")
    assert days[9] + pd.offsets.BDay(1) not in panel.index


def test_a_frame_with_low_frequency_columns_is_the_same_as_frames():
    values = draws(8, 5)
    df = frame(MONTHS, a=draws(24), gdp=np.nan)
    df.loc[MONTHS[2::3], "gdp"] = values
    one = Panel.from_frame(df, kinds={"gdp": "flow_average"})
    quarterly = frame(MONTHS[2::3], gdp=values)
    two = Panel.from_frames({"M": df[["a"]], "Q": quarterly}, kinds={"gdp": "flow_average"})
    assert one.frequencies == two.frequencies == ("M", "Q")
    np.testing.assert_array_equal(one.values, two.values)
    for ours, theirs in zip(one.aggregation, two.aggregation, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "first"),
    [("stock", "2005-02-28"), ("flow_sum", "2005-01-31"), ("change_in_flow", "2004-10-31")],
)
def test_a_frame_that_begins_within_a_quarter_is_extended(kind, first):
    df = frame(MONTHS[1:], a=draws(23), gdp=np.nan)
    df.loc[MONTHS[2::3], "gdp"] = draws(8, 5)
    panel = Panel.from_frame(df, kinds={"gdp": kind})
    assert panel.index[0] == pd.Timestamp(first) and panel.index[-1] == MONTHS[-1]
    assert panel.observed.sum(axis=0).tolist() == [23, 8]


def test_a_flow_at_the_base_frequency_is_the_identity():
    assert Panel.from_frame(frame(MONTHS, a=draws(24)), kinds={"a": "flow_sum"}).aggregation is None


def test_aggregation_enters_jit_as_arrays(mixed):
    _, panel = mixed
    traces = []

    @jax.jit
    def total(values, observed, rows):
        traces.append(1)
        return jnp.where(observed, values, 0.0).sum() + rows.own_weight.sum()

    first = total(*panel.arrays(), panel.aggregation)
    later = panel.as_of("2005-06-01")
    second = total(*later.arrays(), later.aggregation)
    assert len(traces) == 1
    assert float(first - second) == pytest.approx((panel.values - later.values).sum())


def test_a_vintage_hides_exactly_what_was_published_later(mixed):
    _, panel = mixed
    day = pd.Timestamp("2005-05-13")
    vintage = panel.as_of(str(day.date()))
    assert vintage.values.shape == panel.values.shape
    for t, row in enumerate(panel.index):
        ends = {
            "sp": row,
            "cpi": row + pd.offsets.MonthEnd(0) + pd.Timedelta(days=15),
            "jobs": row + pd.offsets.MonthEnd(0),
            "gdp": row + pd.offsets.QuarterEnd(0, startingMonth=3) + pd.offsets.BDay(20),
        }
        for name, published in ends.items():
            i = panel.names.index(name)
            assert vintage.observed[t, i] == (panel.observed[t, i] and published <= day)
    assert np.all(vintage.values[~vintage.observed] == 0.0)
    april, march = pd.Timestamp("2005-04-29"), pd.Timestamp("2005-03-25")
    table = vintage.to_frame()
    assert np.isnan(table.loc[april, "cpi"]) and not np.isnan(table.loc[april, "jobs"])
    assert not np.isnan(table.loc[march, "gdp"])
    assert panel.as_of("2007-01-01").observed.sum() == panel.observed.sum()


def test_a_window_by_dates_is_a_window_by_positions():
    panel = Panel.from_frame(frame(MONTHS, a=draws(24), b=draws(24, 1)))
    by_date = panel.window("2005-03", "2006-02-28")
    by_place = panel.window(2, 14)
    assert list(by_date.index) == list(by_place.index) == list(MONTHS[2:14])
    np.testing.assert_array_equal(by_date.values, panel.values[2:14])
    assert panel.window(stop="2005-06").num_times == 6
    assert panel.window(-5).num_times == 5
    with pytest.raises(ValueError, match="two dates or two positions"):
        panel.window(3, "2005-06")
    with pytest.raises(ValueError, match=r"has no row of 2005-01-31..2006-12-31"):
        panel.window("2010-01-01", None)


def test_a_window_names_the_aggregates_it_cuts(mixed):
    _, panel = mixed
    with pytest.warns(UserWarning) as caught:
        window = panel.window("2005-02-10", "2005-09-10")
    text = str(caught[0].message)
    assert "'cpi' at 2005-02-25, 2005-03-25" in text and "'gdp' at 2005-03-25" in text
    assert "jobs" not in text and len(caught) == 1
    table = window.to_frame()
    assert table["cpi"].count() == 5 and table["gdp"].count() == 1 and table["jobs"].count() == 7
    place = int(np.flatnonzero(window.index == pd.Timestamp("2005-04-29"))[0])
    rows = window.aggregation
    own = rows.own_weight[rows.group[2]][rows.own_row[rows.group[2]] == place]
    np.testing.assert_allclose(own, [1.0, 0.8, 0.6, 0.4, 0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = panel.select(["sp", "gdp"]).window("2005-01-01", "2005-09-30")  # 3 quarters
        assert whole.observed[:, 1].sum() == 3


def test_extension_completes_the_last_blocks(mixed):
    _, panel = mixed
    longer = panel.extend(13)
    assert longer.num_times == panel.num_times + 13
    assert list(longer.index[-13:]) == list(pd.date_range("2006-01-06", periods=13, freq="W-FRI"))
    assert not longer.observed[-13:].any()
    rows = longer.aggregation
    gdp = rows.group[panel.names.index("gdp")]
    np.testing.assert_allclose(rows.own_weight[gdp][-13:], 1 / 13)
    partial = panel.extend(5).aggregation
    assert np.all(partial.own_weight[gdp][-5:] == 0.0)
    assert np.all(partial.own_row[gdp][-5:] == panel.num_times + 5)
    assert panel.extend(0).num_times == panel.num_times


def test_selection_keeps_order_and_patterns(mixed):
    _, panel = mixed
    part = panel.select(["gdp", "sp"])
    assert part.names == ("gdp", "sp") and part.delays[0] == pd.offsets.BDay(20)
    assert list(part.aggregation.group) == [1, 0]
    np.testing.assert_array_equal(part.values, panel.values[:, [4, 0]])
    with pytest.raises(ValueError, match="select names series 'xyz'"):
        panel.select(["xyz"])
    with pytest.raises(ValueError, match="distinct series names"):
        panel.select(["sp", "sp"])


def test_native_values_are_averages_of_weeks(mixed):
    _, panel = mixed
    values = np.random.default_rng(3).normal(size=panel.values.shape)
    native = panel.native(values)
    gdp = pd.Series(values[:, 4], panel.index).groupby(panel.index.to_period("Q")).mean()
    np.testing.assert_allclose(native["gdp"].dropna().to_numpy(), gdp.to_numpy()[1:], atol=1e-14)
    np.testing.assert_array_equal(native["sp"].to_numpy(), values[:, 0])


def test_labels(mixed):
    _, panel = mixed
    mean = jnp.arange(15.0).reshape(3, 5)
    law = GaussianForecast(mean, 4.0 * jnp.eye(15).reshape(3, 5, 3, 5))
    table = panel.label(law)
    assert list(table.columns) == list(panel.names)
    assert list(table.index) == list(pd.date_range("2006-01-06", periods=3, freq="W-FRI"))
    np.testing.assert_array_equal(table.to_numpy(), np.arange(15.0).reshape(3, 5))
    bands = panel.label(law, quantiles=(0.05, 0.5))
    assert list(bands["gdp"].columns) == ["mean", "std", "q0.05", "q0.5"]
    np.testing.assert_allclose(bands["gdp", "q0.05"], table["gdp"] - 2 * 1.6448536269514722)
    np.testing.assert_allclose(bands["sp", "std"], 2.0)
    with pytest.raises(ValueError, match="forecast has 1 series, the panel 5"):
        panel.label(law.marginal(0))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        panel.label(law, quantiles=(0.0,))


def test_repr_is_short_and_says_what_is_there(mixed):
    text = repr(mixed[1])
    assert "5 series x 57 rows" in text and "2004-12-03..2005-12-30" in text
    assert "2 W-FRI, 2 M, 1 Q" in text and "% observed" in text and len(text) < 160


def test_the_examples_of_the_documentation_run():
    text = (Path(__file__).parents[1] / "docs" / "panel.md").read_text()
    blocks = text.split("```python\n")[1:]
    names: dict = {}
    with pytest.warns(UserWarning, match="the window cuts the periods"):
        exec("\n".join(block.split("```")[0] for block in blocks), names)
    assert names["vintage"].observed.sum() < names["panel"].observed.sum()
    assert names["levels"].shape == (3, 2) and (names["levels"]["price"] > 0).all()


def bad_frames():
    good = frame(MONTHS, a=draws(24), b=draws(24, 1))
    quarter = good.assign(gdp=np.where(np.arange(24) % 3 == 2, draws(24, 2), np.nan))
    first = good.assign(gdp=np.where(np.arange(24) % 3 == 0, draws(24, 2), np.nan))
    order = [1, 0, *range(2, 24)]
    paris = good.tz_localize("Europe/Paris")
    zones = pd.Index([pd.Timestamp("2005-01-31", tz="UTC"), pd.Timestamp("2005-02-28")], object)
    return {
        "infinite": (
            good.replace({"b": {good.b.iloc[5]: np.inf}}),
            "'b' is infinite at 2005-06-30",
        ),
        "never": (good.assign(c=np.nan), "'c' has no observation in 2005-01-31..2006-12-31; drop"),
        "constant": (good.assign(c=3.0), "'c' is constant .*allow_constant=True"),
        "once": (good.assign(c=[1.0] + [np.nan] * 23), "'c' has one observation only"),
        "twice": (pd.concat([good, good.iloc[-1:]]), "date 2006-12-31 .* appears twice; keep one"),
        "unsorted": (good.iloc[order], "not sorted .2005-01-31 follows 2005-02-28.*sort_index"),
        "mixed": (quarter, "mixed frequencies without kinds: series 'gdp' .* kinds={'gdp'"),
        "starts": (first, "series 'gdp' is observed in the first row of each Q .*from_frames"),
        "object": (good.assign(c=["x"] * 24), "'c' is not numeric.*'x' at 2005-01-31.*to_numeric"),
        "boolean": (good.assign(c=[True, False] * 12), "'c' is not numeric, dtype bool"),
        "zone": (paris, "time zone Europe/Paris.*tz_localize.None"),
        "zones": (frame(zones, a=[1.0, 2.0]), "mix time zones .None, UTC.*tz_localize"),
        "no rows": (good.iloc[:0], "is empty: 0 rows, 2 columns"),
        "no columns": (good[[]], "is empty: 24 rows, 0 columns"),
        "columns": (good.rename(columns={"b": "a"}), "series 'a' appear twice; rename or drop"),
        "number": (good.rename(columns={"b": 7}), "names must be text, got 7; .*map.str"),
        "no dates": (good.reset_index(drop=True), "needs a DatetimeIndex.*RangeIndex.*to_datetime"),
        "NaT": (good.set_axis(MONTHS[:-1].append(pd.DatetimeIndex([pd.NaT]))), "row 23 is missing"),
    }


@pytest.mark.parametrize("case", bad_frames())
def test_bad_frames_are_refused_by_name(case):
    df, message = bad_frames()[case]
    with pytest.raises(ValueError, match=message):
        Panel.from_frame(df)


def test_bad_options_are_refused_by_name():
    df = frame(MONTHS, a=draws(24), b=draws(24, 1))
    with pytest.raises(ValueError, match="'a' has unknown kind 'flow'; the kinds are 'stock'"):
        Panel.from_frame(df, kinds={"a": "flow"})
    with pytest.raises(ValueError, match="kinds names series 'c', which the panel does not have"):
        Panel.from_frame(df, kinds={"c": "stock"})
    with pytest.raises(ValueError, match="delays names series 'c'"):
        Panel.from_frame(df, delays={"c": "3D"})
    for delay in ("-1D", pd.offsets.BDay(-2)):
        with pytest.raises(ValueError, match=r"delay of series 'a' is .*before its period ends"):
            Panel.from_frame(df, delays={"a": delay})
    with pytest.raises(ValueError, match="delay of series 'a' is 'soon', which is no duration"):
        Panel.from_frame(df, delays={"a": "soon"})
    panel = Panel.from_frame(df)
    for verb in (panel.as_of, panel.window):
        with pytest.raises(ValueError, match="has a time zone"):
            verb(pd.Timestamp("2005-06-30", tz="UTC"))
    with pytest.raises(ValueError, match="window edge of 'soon', None is no date"):
        panel.window("soon")
    with pytest.raises(ValueError, match="the date is missing"):
        panel.as_of("NaT")
    with pytest.raises(ValueError, match="horizon must be zero or more, got -1"):
        panel.extend(-1)
    with pytest.raises(ValueError, match="units names series 'c'"):
        Panel.from_frame(df, units={"c": "percent"})
    with pytest.raises(TypeError, match="must be a pandas DataFrame"):
        checked_frame(df["a"], "the frame")
    assert Panel.from_frame(df.assign(c=1.0), allow_constant=True).num_series == 3
    assert Panel.from_frame(df, delays="10D").delays == (pd.Timedelta("10D"),) * 2


def test_bad_collections_of_frames_are_refused_by_name():
    monthly, weekly = frame(MONTHS, a=draws(24)), frame(WEEKS, w=draws(52))
    with pytest.raises(
        ValueError,
        match=r"'a' is at frequency 'M'.*'stock', 'flow_sum', 'flow_average', 'change_in_flow'",
    ):
        Panel.from_frames({"W": weekly, "M": monthly})
    with pytest.raises(ValueError, match="series 'a' appear twice"):
        Panel.from_frames({"W": weekly.rename(columns={"w": "a"}), "M": monthly})
    with pytest.raises(
        ValueError, match=r"series 'a' has two observations in the Q period.*2005-03"
    ):
        Panel.from_frames({"W": weekly, "Q": monthly}, kinds={"a": "stock"})
    with pytest.raises(ValueError, match="two frames have the same frequency"):
        Panel.from_frames({"W": weekly, "W-FRI": weekly})
    with pytest.raises(ValueError, match="'W-FRI' cannot be placed on the base calendar 'M'"):
        Panel.from_frames({"W": weekly, "M": monthly}, base="M")
    with pytest.raises(ValueError, match="got no frame"):
        Panel.from_frames({})
    with pytest.raises(ValueError, match=r"frames\['W'\] has two observations in the W-FRI period"):
        Panel.from_frames({"W": frame(pd.date_range("2005-01-01", periods=9), w=draws(9))})
    with pytest.raises(ValueError, match="is a weekend"):
        Panel.from_frames({"B": frame(pd.date_range("2005-01-01", periods=9), w=draws(9))})
