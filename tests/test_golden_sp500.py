"""Published numbers that depend on the S&P 500 alone: Defend, Min, Portelli, Ramsauer, Sandrini and
Zagst (2021), Forecasting 3(1), 56-90, table A10 and the text of section 6.

Data: Friday closes of `jaxfc.datasets.sp500()`, 527 weekly log returns from 30 December 2005 to 5
February 2016 after 364 weeks of estimation (15 January 1999 to 30 December 2005). Tolerance: half a
unit of the last printed digit. Conventions that give the printed numbers: no cash rate, no costs,
weekly rebalancing, a floor that is a fixed share of the initial wealth; volatility and Omega (at
zero) of log returns; drawdowns at Friday closes; an exposure is dated by the end of its week.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc import datasets, trading
from jaxfc.evaluation.benchmarks import FirstOrder
from jaxfc.evaluation.performance import performance
from jaxfc.evaluation.scores import rmse

pytestmark = pytest.mark.slow

WINDOW, WEEKS = 364, 527


def agrees(found, printed, digits):
    """Whether a number rounds to what is printed."""
    return abs(float(found) - printed) <= 0.5 * 10.0**-digits


@pytest.fixture(scope="module")
def log_returns():
    """891 weekly log returns; that of 15 January 1999 starts from the close of 8 January."""
    closes = datasets.weekly_closes(datasets.sp500())["Close"].loc["1999-01-08":"2016-02-05"]
    returns = np.log(closes).diff().dropna()
    assert not closes.isna().any() and len(returns) == WINDOW + WEEKS
    assert returns.index[0] == pd.Timestamp("1999-01-15")
    assert returns.index[WINDOW - 1] == pd.Timestamp("2005-12-30")
    return returns


@pytest.fixture(scope="module")
def realised(log_returns):
    return log_returns.iloc[WINDOW:]


@pytest.fixture(scope="module")
def paths(realised):
    strategies = {
        "index": trading.BuyAndHold(1.0),
        "CPPI 2/80": trading.CPPI(2.0, 0.8),
        "CPPI 3/60": trading.CPPI(3.0, 0.6),
        "mix 50": trading.ConstantMix(0.5),
    }
    return trading.run_strategies(strategies, realised.to_numpy())


@pytest.fixture(scope="module")
def measures(paths):
    measure = jax.jit(performance)
    return {name: measure(jnp.asarray(path.log_returns)) for name, path in paths.items()}


def test_drawdown_of_the_index(measures):
    assert agrees(100 * measures["index"].max_drawdown, -56.24, 2)


def test_cppi_2_80(measures):
    assert agrees(100 * measures["CPPI 2/80"].volatility, 0.93, 2)
    assert agrees(100 * measures["CPPI 2/80"].max_drawdown, -23.18, 2)
    assert min(measures, key=lambda name: measures[name].volatility) == "CPPI 2/80"


def test_cppi_3_60(measures):
    assert agrees(100 * measures["CPPI 3/60"].max_drawdown, -48.43, 2)


def test_range_of_omega_over_the_benchmarks(measures):
    """Printed: 103.86 % to 111.16 %. The lower end is CPPI 3/60; the upper end is the constant mix
    with an exposure of 50 %. (The paper's mixes take the mean exposures of its prediction level
    strategies, 51 % for the level 50 %, which would give 111.12 %.)"""
    omega = {name: 100 * float(measure.omega) for name, measure in measures.items()}
    assert agrees(omega["CPPI 3/60"], 103.86, 2) and min(omega, key=omega.get) == "CPPI 3/60"
    assert agrees(omega["mix 50"], 111.16, 2) and max(omega, key=omega.get) == "mix 50"


def test_exposure_for_the_week_to_13_march_2009(paths, realised):
    """Printed: 21 %. It is decided at the close of 6 March, the lowest of the crisis, and held over
    the week that ends on 13 March."""
    table = trading.paths_frame(paths, realised.index, "exposure")
    assert agrees(100 * table.loc["2009-03-13", "CPPI 3/60"], 21, 0)
    assert table["CPPI 3/60"].idxmin() == pd.Timestamp("2009-03-13")


def test_errors_of_the_simple_forecasts(log_returns):
    """Printed: constant 0.0259, random walk 0.0380, random walk with drift 0.0379.

    Windows of 364 returns give 0.0259 for the mean (and for zero), 0.0379 for the random walk and
    0.0380 for the random walk with drift (0.03790 and 0.03795): both printed figures, but the other
    way round. With a drift (and mean) over all returns so far, the two printed with an estimate
    come out, 0.0379 and 0.0259. The random walk without drift has no free choice: 0.03790, where
    0.0380 is printed; that figure is not reproduced.
    """
    values = log_returns.to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(values[:-1], WINDOW)
    after = jnp.asarray(values[WINDOW:])
    assert windows.shape == (WEEKS, WINDOW)

    @jax.jit
    def errors(windows):
        def forecasts(window):
            column = window[:, None]
            observed = jnp.ones_like(column, dtype=bool)
            walks = [
                FirstOrder(drift, "one").estimate(column, observed).forecast(1).mean[0, 0]
                for drift in ("zero", "estimated")
            ]
            return jnp.stack([jnp.zeros(()), jnp.mean(window), *walks])

        return rmse(jax.vmap(forecasts)(windows), jnp.tile(after[:, None], (1, 4)))

    zero, mean, walk, walk_with_drift = errors(jnp.asarray(windows))
    assert agrees(zero, 0.0259, 4) and agrees(mean, 0.0259, 4)
    assert agrees(walk, 0.0379, 4) and agrees(walk_with_drift, 0.0380, 4)
    so_far = np.array([values[:row].mean() for row in range(WINDOW, WINDOW + WEEKS)])
    drift = np.array([np.diff(values[:row]).mean() for row in range(WINDOW, WINDOW + WEEKS)])
    assert agrees(rmse(jnp.asarray(so_far), after), 0.0259, 4)
    assert agrees(rmse(jnp.asarray(values[WINDOW - 1 : -1] + drift), after), 0.0379, 4)
