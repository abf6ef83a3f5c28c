"""Features of assets against pandas by hand, against themselves from prices that end earlier, and
what is refused."""

import itertools

import numpy as np
import pandas as pd
import pytest

from jaxfc.bayes.asset_features import (
    EARNINGS_AHEAD,
    RECENT_RETURN,
    RECENT_VOLATILITY,
    asset_panel,
    asset_panel_from_periods,
    feature_columns,
    period_ends,
)

DAYS = pd.bdate_range("2020-01-03", "2020-12-31")
ENDS = period_ends("2020-01-03", "2020-12-31")
REPORTS = {"A": ["2020-02-10", "2020-05-22", "2020-11-09"], "D": ["2020-06-01"]}


def simulated_prices() -> pd.DataFrame:
    """A: complete; B: listed in May; C: holes of some days; D: delisted in August."""
    rng = np.random.default_rng(3)
    moves = 0.01 * rng.standard_normal((len(DAYS), 4))
    prices = pd.DataFrame(50.0 * np.exp(np.cumsum(moves, axis=0)), DAYS, list("ABCD"))
    prices.loc[:"2020-05-04", "B"] = np.nan
    prices.loc[DAYS[rng.uniform(size=len(DAYS)) < 0.1], "C"] = np.nan
    prices.loc[ENDS[4], "C"] = np.nan  # on the last day of a period
    prices.loc["2020-08-05":, "D"] = np.nan
    return prices


PRICES = simulated_prices()
PANEL = asset_panel(PRICES, ENDS, earnings=REPORTS)
FRAME = PANEL.to_frame()


def test_ends_of_periods():
    assert list(period_ends("2022-02-04", "2022-04-29")) == list(
        pd.DatetimeIndex(["2022-02-04", "2022-03-04", "2022-04-01", "2022-04-29"])
    )
    assert len(period_ends("2022-02-04", "2022-03-03", weeks=1)) == 4
    with pytest.raises(ValueError, match="no whole period of 4 weeks"):
        period_ends("2022-02-04", "2022-03-03")
    with pytest.raises(ValueError, match="weeks must be at least 1"):
        period_ends("2022-02-04", "2022-03-03", weeks=0)


def test_rows_stand_at_the_ends_of_periods():
    suffixes = ("", RECENT_RETURN, RECENT_VOLATILITY, EARNINGS_AHEAD)
    assert PANEL.names == tuple(f"{a}{s}" for s in suffixes for a in "ABCD")
    assert list(PANEL.index) == list(ENDS[1:])


def test_returns_are_those_between_ends():
    carried = PRICES.ffill()
    carried.loc["2020-08-05":, "D"] = np.nan
    at_end = carried.loc[ENDS]
    expected = (at_end / at_end.shift(1) - 1.0).iloc[1:]
    # D is priced until 2020-08-04; the period ends ten days later, on the 14th.
    expected.loc["2020-08-14", "D"] = PRICES["D"].dropna().iloc[-1] / at_end["D"]["2020-07-17"] - 1
    pd.testing.assert_frame_equal(FRAME[list("ABCD")], expected, check_freq=False, rtol=1e-13)
    assert FRAME.loc["2020-08-14":, "D"].notna().sum() == 1
    assert np.isnan(FRAME.loc["2020-05-22", "B"]) and FRAME.loc["2020-06-19":, "B"].notna().all()


@pytest.mark.parametrize("asset", list("ABCD"))
def test_recent_features_are_of_the_last_five_days_of_the_row(asset):
    for start, end in itertools.pairwise(ENDS):
        known = PRICES[asset].loc[:end].dropna()
        daily = known.pct_change().loc[start + pd.Timedelta(days=1) :].dropna().iloc[-5:]
        stale = len(known) == 0 or (end - known.index[-1]).days > 10
        recent, volatility = FRAME.loc[end, [asset + RECENT_RETURN, asset + RECENT_VOLATILITY]]
        if stale or len(daily) < 5:
            assert np.isnan(recent) and np.isnan(volatility)
        else:
            np.testing.assert_allclose(recent, (1.0 + daily).prod() - 1.0, rtol=1e-11)
            np.testing.assert_allclose(volatility, np.log(daily.std()), rtol=1e-11)


def test_other_numbers_of_days():
    frame = asset_panel(PRICES, ENDS, recent_days=3).to_frame()
    expected = PRICES["A"].pct_change().rolling(3).std().loc[ENDS[1:]]
    np.testing.assert_allclose(frame["A recent volatility"], np.log(expected), rtol=1e-11)
    # A week has five daily returns only if all of its days are priced.
    weekly = asset_panel(PRICES, period_ends("2020-01-03", "2020-12-31", 1)).to_frame()
    assert weekly["A recent return"].notna().all()
    np.testing.assert_allclose(weekly["A recent return"], weekly["A"], rtol=1e-11)
    assert 0.0 < weekly["C recent return"].isna().mean() < 1.0


@pytest.mark.parametrize("cut", range(2, len(ENDS)))
def test_no_row_depends_on_later_prices(cut):
    known = PRICES.loc[: ENDS[cut]].dropna(axis=1, how="all")  # B is not listed yet
    shorter = asset_panel(known, ENDS[: cut + 1], earnings=REPORTS)
    pd.testing.assert_frame_equal(
        shorter.to_frame(), FRAME.loc[: ENDS[cut], list(shorter.names)], check_exact=True
    )


def test_earnings_ahead_is_of_the_next_period():
    due = FRAME[["A" + EARNINGS_AHEAD, "D" + EARNINGS_AHEAD]]
    # Periods end 01-31, 02-28, ..., 05-22, 06-19, ..., 10-09, 11-06, 12-04.
    assert list(due.index[due["A earnings ahead"] == 1.0].strftime("%m-%d")) == [
        "01-31",
        "04-24",  # the report of 05-22 is of the period that ends on this day
        "11-06",
    ]
    assert list(due.index[due["D earnings ahead"] == 1.0].strftime("%m-%d")) == ["05-22"]
    assert (FRAME[["B earnings ahead", "C earnings ahead"]] == 0.0).all().all()
    table = pd.DataFrame([(a, d) for a, dates in REPORTS.items() for d in dates])
    table.columns = ["ticker", "date"]
    again = asset_panel(PRICES, ENDS, earnings=table.assign(date=pd.to_datetime(table["date"])))
    pd.testing.assert_frame_equal(again.to_frame(), FRAME)


def test_the_last_row_looks_one_period_of_equal_length_ahead():
    prices, ends = PRICES[["A"]], ENDS[:4]
    within = {"A": [ends[-1] + pd.Timedelta(days=28)]}
    beyond = {"A": [ends[-1] + pd.Timedelta(days=29)]}
    last = "A earnings ahead"
    assert asset_panel(prices, ends, earnings=within).to_frame()[last].iloc[-1] == 1.0
    assert asset_panel(prices, ends, earnings=beyond).to_frame()[last].iloc[-1] == 0.0
    longer = asset_panel(prices, ends, earnings=beyond, next_end=beyond["A"][0])
    assert longer.to_frame()[last].iloc[-1] == 1.0
    with pytest.raises(ValueError, match=r"next_end .* is not after"):
        asset_panel(prices, ends, earnings=beyond, next_end=ends[-1])
    with pytest.raises(ValueError, match="give next_end"):
        asset_panel_from_periods(FRAME[["A"]].iloc[:1], earnings=within)


def test_a_price_that_stands_still_has_a_return_but_no_volatility():
    prices = PRICES[["A"]].assign(S=7.3)
    frame = asset_panel(prices, ENDS).to_frame()
    assert (frame["S"] == 0.0).all() and (frame["S recent return"] == 0.0).all()
    assert frame["S recent volatility"].isna().all()
    growing = prices.assign(S=7.3 * 1.001 ** np.arange(len(prices)))
    frame = asset_panel(growing, ENDS).to_frame()
    np.testing.assert_allclose(frame["S recent return"], 1.001**5 - 1.0, rtol=1e-10)
    assert frame["S recent volatility"].isna().all()


def test_holes_are_carried_for_a_limited_time():
    prices = PRICES[["A"]].copy()
    prices.loc[ENDS[3] - pd.Timedelta(days=8) : ENDS[3], "A"] = np.nan
    frame = asset_panel(prices, ENDS).to_frame()
    before = PRICES["A"].loc[: ENDS[3] - pd.Timedelta(days=9)].iloc[-1]
    np.testing.assert_allclose(frame["A"].iloc[2], before / PRICES["A"][ENDS[2]] - 1.0, rtol=1e-13)
    np.testing.assert_allclose(frame["A"].iloc[3], PRICES["A"][ENDS[4]] / before - 1.0, rtol=1e-13)
    strict = asset_panel(prices, ENDS, longest_hole=3).to_frame()
    assert strict["A"].iloc[[2, 3]].isna().all() and strict["A"].notna().sum() == len(ENDS) - 3


def test_days_with_a_time_are_days():
    stamped = PRICES.set_axis(PRICES.index + pd.Timedelta(hours=16))
    pd.testing.assert_frame_equal(asset_panel(stamped, ENDS, earnings=REPORTS).to_frame(), FRAME)


def test_data_by_period_make_the_same_panel():
    def table(suffix):
        return FRAME[[a + suffix for a in "ABCD"]].set_axis(list("ABCD"), axis=1)

    std = np.exp(table(RECENT_VOLATILITY))
    panel = asset_panel_from_periods(table(""), table(RECENT_RETURN), std, earnings=REPORTS)
    pd.testing.assert_frame_equal(panel.to_frame(), FRAME, rtol=1e-13)
    bare = asset_panel_from_periods(table(""))
    pd.testing.assert_frame_equal(bare.to_frame(), table(""))
    std.iloc[3, 0] = 0.0
    panel = asset_panel_from_periods(table(""), None, std)
    assert np.isnan(panel.to_frame()["A recent volatility"].iloc[3])
    with pytest.raises(ValueError, match=r"'A' on 2020-01-31 .* not their logs"):
        asset_panel_from_periods(table(""), None, table(RECENT_VOLATILITY))
    with pytest.raises(
        ValueError, match=r"returns of 'B' on 2020-02-28 is -1; give simple returns"
    ):
        asset_panel_from_periods(table("").iloc[1:].assign(B=-1.0))
    with pytest.raises(ValueError, match="recent_returns has other rows or assets"):
        asset_panel_from_periods(table(""), table("").iloc[1:])
    with pytest.raises(ValueError, match="recent_returns has other rows or assets"):
        asset_panel_from_periods(table(""), table("")[list("ABDC")])


def test_columns_of_features():
    found = feature_columns(PANEL.names, ["C", "A"])
    assert [list(part) for part in found] == [[2, 0], [6, 4], [10, 8], [14, 12]]
    some = feature_columns(("A", "B", "B recent return"), ["A", "B"])
    assert [list(part) for part in some] == [[0, 1], [-1, 2], [-1, -1], [-1, -1]]
    with pytest.raises(ValueError, match=r"no column 'AAPLE' \(near: AAPL\)"):
        feature_columns(("AAPL", "B"), ["AAPLE"])


def swapped(prices):
    order = np.arange(len(prices))
    order[[5, 6]] = order[[6, 5]]
    return prices.iloc[order]


@pytest.mark.parametrize(
    "change, message",
    [
        (swapped, "not sorted"),
        (lambda p: pd.concat([p, p.iloc[-1:]]), "2020-12-31 00:00 appears twice"),
        (lambda p: p.replace(p.iloc[9, 0], np.inf), "series 'A' is infinite at 2020-01-16"),
        (lambda p: p.replace(p.iloc[9, 0], 0.0), "price of 'A' on 2020-01-16 is 0; prices are pos"),
        (lambda p: p.replace(p.iloc[9, 0], -2.0), "price of 'A' on 2020-01-16 is -2"),
        (lambda p: p.assign(E=np.nan), "asset 'E' has no price; drop it"),
        (lambda p: p.loc[:"2020-12-01"], "ends 2020-12-04 is not over on 2020-12-01"),
        (lambda p: p.loc["2020-03-01":], "no date of the prices lies in the period 2020-01-03"),
        (lambda p: p.rename(columns={"B": "A"}), "'A' appear twice"),
        (lambda p: p.rename(columns={"B": "A recent return"}), "name of another one's feature"),
        (lambda p: p.astype(str), "series 'A' is not numeric"),
        (lambda p: p.tz_localize("UTC"), "time zone UTC"),
    ],
)
def test_bad_prices_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        asset_panel(change(PRICES), ENDS)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"earnings": {"AA": ["2020-02-10"]}}, r"earnings name asset 'AA'.*near: A"),
        ({"earnings": {"Q9": ["2020-02-10"]}}, "earnings name asset 'Q9', which has no prices;"),
        ({"earnings": {"A": pd.DatetimeIndex([pd.NaT])}}, "report date of 'A' is missing"),
        ({"earnings": pd.DataFrame({"symbol": ["A"]})}, "columns 'ticker' and 'date'"),
        ({"recent_days": 1}, "recent_days must be at least 2"),
        ({"longest_hole": 0}, "longest_hole must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        asset_panel(PRICES, ENDS, **options)


@pytest.mark.parametrize(
    "ends, message",
    [
        (["2020-01-31"], "a period needs two ends"),
        (["2020-02-28", "2020-01-31"], "not sorted"),
        (["2020-01-31", "2020-01-31"], "appears twice"),
        (["2020-02-08", "2020-02-09"], "no date of the prices lies in the period 2020-02-08"),
    ],
)
def test_bad_ends_are_refused(ends, message):
    with pytest.raises(ValueError, match=message):
        asset_panel(PRICES, ends)


def test_the_official_prices_of_m6(shared_data):
    table = pd.read_csv(shared_data / "m6" / "assets_m6.csv", parse_dates=["date"])
    prices = table.pivot(index="date", columns="symbol", values="price")
    ends = period_ends("2022-02-04", "2023-02-03")
    panel = asset_panel(prices, ends)
    frame = panel.to_frame()
    carried = prices.ffill().loc[ends]
    expected = (carried / carried.shift(1) - 1.0).iloc[1:]
    # DRE was taken over in October 2022: its prices stand still and end on 2022-11-28.
    names = [name for name in prices.columns if name != "DRE"]
    np.testing.assert_allclose(frame[names], expected[names], rtol=1e-12)
    assert (frame.loc["2022-11-11":"2022-11-11", "DRE"] == 0.0).all()
    assert frame.loc["2023-01-06":, "DRE"].isna().all()
    assert frame.loc["2022-11-11":, "DRE recent volatility"].isna().all()
    assert frame[[f"{n}{RECENT_VOLATILITY}" for n in names]].notna().all().all()
