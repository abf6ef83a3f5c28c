"""Backtests made of numbers, for the tests of their page: nothing is estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.compose import DecomposedForecast
from jaxfc.forecast import GaussianForecast
from jaxfc.results import RESULTS
from jaxfc.running import Backtest

SERIES = ("rates", "credit", "oil", "index")


def results(num_origins, failed=(), stopped=()):
    """Result codes, some of them failed, some stopped at the bound on steps."""
    codes = [RESULTS.diverged if i in failed else RESULTS.successful for i in range(num_origins)]
    for i in stopped:
        codes[i] = RESULTS.nonlinear_max_steps_reached
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *codes)


def gaussian_backtest(num_origins=24):
    """Normal forecasts, which come in no parts, of a model that chooses nothing."""
    rng = np.random.default_rng(1)
    mean = jnp.asarray(0.001 * rng.normal(size=(num_origins, 1, 1)))
    cov = jnp.full((num_origins, 1, 1, 1, 1), 0.02**2)
    return dated(batched(GaussianForecast, mean, cov), num_origins, {}, (), ())


def batched(kind, *leaves):
    """A law whose leaves are led by the origins."""
    return jax.vmap(kind)(*leaves)


def dated(forecast, num_origins, details, failed, missing, seed=0, stopped=()):
    """The backtest around the forecasts."""
    rng = np.random.default_rng(seed + 100)
    dates = pd.date_range("2008-01-04", periods=num_origins + 1, freq="W-FRI")
    realised = 0.025 * rng.normal(size=(num_origins, 1, 1))
    realised[list(missing)] = np.nan
    return Backtest(
        forecast=forecast,
        result=results(num_origins, failed, stopped),
        num_steps=np.full(num_origins, 7),
        loglik=np.zeros(num_origins),
        details=details,
        origins=dates[:-1],
        dates=dates.to_numpy()[1:, None],
        names=("index",),
        realised=realised,
        series=SERIES,
    )


def example(num_origins=24, *, failed=(), missing=(), stopped=(), num_draws=40, seed=0):
    """A backtest with everything that the page can show."""
    rng = np.random.default_rng(seed)
    shape = (num_origins, num_draws, 1, 1)
    by_series = 0.002 * rng.normal(size=(num_origins, 1, 4))
    by_series[..., 3] = 0.0
    impact = np.broadcast_to(by_series.sum(axis=2)[:, None, :, None], shape)
    law = batched(
        DecomposedForecast,
        jnp.full(shape, 0.001),
        jnp.asarray(impact),
        jnp.asarray(0.002 * rng.normal(size=shape)),
        jnp.asarray(0.02 * rng.normal(size=shape)),
        jnp.asarray(by_series),
        jnp.zeros((num_origins, 1)),
    )
    details = {"num_factors": rng.integers(1, 4, num_origins), "num_lags": np.ones(num_origins)}
    return dated(law, num_origins, details, failed, missing, seed, stopped)
