"""Returns out of prices, joined to a panel; what is refused by name and date."""

import numpy as np
import pandas as pd
import pytest

import jaxfc


def prices():
    dates = pd.date_range("2020-01-03", periods=6, freq="W-FRI")
    return pd.Series([100.0, 101.0, 99.0, np.nan, 102.0, 103.0], dates, name="index")


def panel(periods=6):
    rng = np.random.default_rng(0)
    dates = pd.date_range("2020-01-03", periods=periods, freq="W-FRI")
    frame = pd.DataFrame(rng.normal(size=(periods, 2)), dates, ["a", "b"])
    return jaxfc.Panel.from_frame(frame)


def test_log_returns():
    found = jaxfc.log_returns(prices())
    expected = [np.log(1.01), np.log(99 / 101), np.nan, np.nan, np.log(103 / 102)]
    np.testing.assert_allclose(found["index"], expected)
    assert list(found.index) == list(prices().index[1:])


def test_with_returns():
    joined = jaxfc.with_returns(panel(), jaxfc.log_returns(prices())["index"])
    assert joined.names == ("a", "b", "index")
    np.testing.assert_array_equal(joined.observed[:, 2], [0, 1, 1, 0, 0, 1])
    frame = joined.to_frame()
    np.testing.assert_allclose(frame["index"].iloc[1], np.log(1.01))
    pd.testing.assert_frame_equal(frame[["a", "b"]], panel().to_frame())


def test_refusals():
    bad = prices()
    bad.iloc[[1, 4]] = [0.0, -3.0]
    with pytest.raises(ValueError, match=r"'index' has prices .* on 2020-01-10, 2020-01-31;"):
        jaxfc.log_returns(bad)
    with pytest.raises(ValueError, match="unsorted or repeated"):
        jaxfc.log_returns(prices()[::-1])
    with pytest.raises(TypeError, match="indexed by dates, got Series"):
        jaxfc.log_returns(prices().reset_index(drop=True))
    returns = jaxfc.log_returns(prices())["index"]
    with pytest.raises(ValueError, match="has a series 'a' already"):
        jaxfc.with_returns(panel(), returns.rename("a"))
    with pytest.raises(ValueError, match="need a name, got None"):
        jaxfc.with_returns(panel(), returns.rename(None))
    daily = pd.Series(0.1, pd.date_range("2020-01-06", periods=9), name="r")
    with pytest.raises(ValueError, match=r"'r' has dates .* 2020-01-06, 2020-01-07, 2020-01-08, "):
        jaxfc.with_returns(panel(), daily)
    with pytest.raises(ValueError, match="'index' is infinite on 2020-01-10"):
        jaxfc.with_returns(panel(), returns.where(returns.index != "2020-01-10", np.inf))
