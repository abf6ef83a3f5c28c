"""Small panels and programs of asset returns for the tests of the M6 model."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxfc
from jaxfc.bayes.asset_returns import AssetFactorProgram, AssetRows
from jaxfc.bayes.factor_dynamics import FirstOrder
from jaxfc.bayes.factor_scales import ConstantScale
from jaxfc.bayes.loading_priors import LearnedScale

FEATURES = ("return_effect", "volatility_effect", "earnings_effect")


def small_program(
    *,
    num_rows=9,
    num_series=4,
    num_factors=2,
    dynamics=None,
    loading_prior=None,
    factor_scale=None,
    features=FEATURES,
    equal_weights=False,
    seed=0,
):
    """A program on arbitrary data with missing cells and fractional weights."""
    rng = np.random.default_rng(seed)
    shape = num_rows, num_series
    weights = np.ones(shape) if equal_weights else rng.uniform(0.3, 1.0, shape)
    weights[rng.random(shape) < 0.15] = 0.0
    recent = rng.normal(size=shape), rng.normal(size=shape)
    due = (rng.random(shape) < 0.3) * 1.0
    signal = rng.normal(size=num_rows)
    arrays = (rng.normal(size=shape) * (weights > 0), weights, *recent, due, signal)
    return AssetFactorProgram(
        rows=AssetRows(*(jnp.asarray(a) for a in arrays)),
        classes=jnp.asarray([0] * (num_series // 2) + [1] * (num_series - num_series // 2)),
        dynamics=FirstOrder() if dynamics is None else dynamics,
        loading_prior=LearnedScale() if loading_prior is None else loading_prior,
        factor_scale=ConstantScale() if factor_scale is None else factor_scale,
        num_classes=2,
        num_factors=num_factors,
        features=features,
    )


def asset_frame(num_rows=40, seed=0):
    """Returns of six assets of two classes with their features; one listed late, one hole."""
    rng = np.random.default_rng(seed)
    names = list("ABCDEF")
    market = rng.normal(size=(num_rows, 1)) * rng.uniform(0.5, 1.0, len(names))
    returns = 0.05 * (market + rng.standard_t(5, size=(num_rows, len(names))))
    returns[:10, 2], returns[20, 3] = np.nan, np.nan
    index = pd.date_range("2010-01-31", periods=num_rows, freq="ME")
    frame = pd.DataFrame(returns, index, names)
    for name in names:
        frame[f"{name} recent return"] = 0.02 * rng.normal(size=num_rows)
        frame[f"{name} recent volatility"] = 0.3 * rng.normal(size=num_rows) - 4.0
    for name in names[:3]:
        frame[f"{name} earnings ahead"] = (np.arange(num_rows) % 3 == 0) * 1.0
    return frame


CLASSES = dict(zip("ABCDEF", ["stock"] * 3 + ["etf"] * 3, strict=True))


def asset_panel_of(frame):
    return jaxfc.Panel.from_frame(frame)


def prior_and_data(program, key):
    """Parameters from the prior and the same program on data drawn given them."""
    first, second = jax.random.split(key)
    parameters = program.sample_prior(key=first)
    return parameters, program.simulated(parameters, key=second)
