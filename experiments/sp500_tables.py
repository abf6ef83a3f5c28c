"""What the S&P 500 study measures: losses, intervals before and after calibration, strategies."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxfc
from jaxfc.evaluation import (
    AdaptiveConformal,
    coverage_table,
    ewma_volatility,
)
from jaxfc.report.backtest_data import LEVELS, bounds_of
from jaxfc.running import Backtest
from jaxfc.trading import (
    CPPI,
    BuyAndHold,
    ConstantMix,
    LeveragedLevel,
    PredictionLevel,
    WealthPath,
    run_strategies,
    views_of,
)

CRISIS = ("2008-01-01", "2009-12-31")


def loss_series(
    done: Mapping[str, Backtest],
    autoregression: Backtest,
    alone: jaxfc.Panel,
    origins: jaxfc.Rolling,
) -> pd.DataFrame:
    """Squared errors of the backtests, AR(3), the window's mean, zero, and the random walk."""
    first = done["all"]
    realised = first.realised[:, 0, 0]
    returns = alone.values[:, 0]
    rows = origins.rows(alone.index, 1)
    means = [returns[row + 1 - origins.window : row + 1].mean() for row in rows]
    forecasts = {name: each.mean[:, 0, 0] for name, each in done.items()}
    forecasts |= {
        "AR(3)": autoregression.mean[:, 0, 0],
        "constant": np.array(means),
        "zero": np.zeros(len(rows)),
        "random walk": returns[rows],
    }
    errors = {name: (values - realised) ** 2 for name, values in forecasts.items()}
    return pd.DataFrame(errors, pd.DatetimeIndex(first.dates[:, 0]))


def bounds(done: Backtest) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Lower and upper ends, weeks x levels."""
    lower, upper = bounds_of(done, 0, LEVELS)
    return jnp.asarray(lower), jnp.asarray(upper)


def calibrated(done: Backtest, *, scaled: bool) -> tuple[jnp.ndarray, jnp.ndarray]:
    """The intervals after adaptive conformal inference; `scaled`: scores in units of the volatility
    known before each week."""
    lower, upper = bounds(done)
    realised = jnp.asarray(done.realised[:, 0, 0])
    scale = jnp.ones_like(realised)
    if scaled:
        scale = ewma_volatility(realised - jnp.asarray(done.mean[:, 0, 0]))
    return AdaptiveConformal(step=0.02).calibrate(
        lower, upper, realised, jnp.asarray(LEVELS), scale=scale
    )


def interval_table(done: Mapping[str, Backtest]) -> pd.DataFrame:
    """Share outside, its target, mean interval score and coverage tests by level and period."""
    every = {name: bounds(each) for name, each in done.items()}
    every["all, conformal"] = calibrated(done["all"], scaled=False)
    every["all, conformal, volatility"] = calibrated(done["all"], scaled=True)
    realised = done["all"].realised[:, 0, 0]
    dates = pd.DatetimeIndex(done["all"].dates[:, 0])
    crisis = (dates >= CRISIS[0]) & (dates <= CRISIS[1])
    periods = {"all weeks": np.ones(len(dates), bool), "2008 and 2009": crisis}
    tables = [
        coverage_table(lower, upper, np.where(weeks, realised, np.nan), LEVELS).assign(
            intervals=name, period=period
        )
        for name, (lower, upper) in every.items()
        for period, weeks in periods.items()
    ]
    order = ["intervals", "period", "level", "outside", "target", "MIS"]
    columns = [*order, "kupiec_p", "christoffersen_p"]
    return pd.DataFrame(pd.concat(tables, ignore_index=True)[columns])


def strategy_paths(done: Backtest) -> dict[str, WealthPath]:
    """Strategies without costs and interest, as in the source; the mixes have the mean exposures of
    the prediction levels."""
    quantiles = sorted({q for level in LEVELS for q in ((1 - level) / 2, (1 + level) / 2)})
    values = done.quantile(jnp.asarray(quantiles))[:, :, 0, 0]
    view = views_of(jnp.asarray(values), jnp.asarray(quantiles))
    returns = done.realised[:, 0, 0]
    levels = {f"PL {level:.0%}": PredictionLevel(level) for level in LEVELS}
    active = levels | {
        "L&S 2/1/0": LeveragedLevel(0.5, 2.0, 1.0, 0.0),
        "L&S 2/1/-1": LeveragedLevel(0.5, 2.0, 1.0, -1.0),
        "L&S 1.5/1/-0.5": LeveragedLevel(0.5, 1.5, 1.0, -0.5),
    }
    paths = run_strategies(active, returns, view)
    mixes = {f"mix of {name}": ConstantMix(float(paths[name].exposure.mean())) for name in levels}
    passive = mixes | {
        "CPPI 2/80": CPPI(2.0, 0.8),
        "CPPI 3/60": CPPI(3.0, 0.6),
        "buy and hold": BuyAndHold(),
    }
    return paths | run_strategies(passive, returns, view)
