"""A few fits of several families on data of a seed, as numbers: what tests of repetition, precision
and leaks look at. Also a program: it prints the numbers and a checksum of their bits."""

import hashlib
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.hierarchy import Hierarchy, MinT, reconcile_means
from jaxfc.panel import Panel
from jaxfc.regimes import RegimeModel
from jaxfc.running import Rolling, backtest
from jaxfc.volatility import VarianceModel

NUM_WEEKS = 60


def frame_of(seed: int) -> pd.DataFrame:
    """Five series with one factor, calm and turbulent by turns, a tenth of the cells missing."""
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(NUM_WEEKS) % 30 < 20, 0.5, 2.0)[:, None]
    factor = np.convolve(rng.normal(size=NUM_WEEKS + 9), 0.7 ** np.arange(10), "valid")
    values = spread * (factor[:, None] + 0.7 * rng.normal(size=(NUM_WEEKS, 5)))
    index = pd.date_range("2015-01-02", periods=NUM_WEEKS, freq="W-FRI")
    frame = pd.DataFrame(values, index=index, columns=list("abcde"))
    return frame.mask(rng.random(frame.shape) < 0.1)


FACTORS = DynamicFactorModel(1, 1, method=EM(max_steps=8))
REGIMES = RegimeModel(2, max_steps=15)
VARIANCES = VarianceModel(max_steps=40)


def draws(forecast, key: jax.Array) -> jax.Array:
    return forecast.sample(3, key=key)


def numbers(seed: int, *, whole: bool = True) -> dict[str, jax.Array]:
    """Log-likelihoods, forecasts and draws of a few models; `whole`: also the slower ones."""
    panel, key = Panel.from_frame(frame_of(seed)), jax.random.key(seed)
    factors = FACTORS.fit(panel, throw=False)
    forecast = factors.forecast(2)
    found = {
        "factor loglik": factors.loglik,
        "factor mean": forecast.mean,
        "factor std": forecast.std,
        "factor draws": eqx.filter_jit(draws)(forecast, key),
    }
    hierarchy = Hierarchy.from_paths([f"all/{name}" for name in "abcde"])
    residuals = jnp.asarray(np.random.default_rng(seed).normal(size=(40, 6)))
    mean = jnp.concatenate([forecast.mean.sum(axis=1, keepdims=True) + 1.0, forecast.mean], axis=1)
    found["coherent mean"] = reconcile_means(mean, hierarchy, MinT("shrink"), residuals=residuals)
    if whole:
        regimes = REGIMES.fit(panel, throw=False)
        variances = VARIANCES.fit(panel, throw=False)
        done = backtest(
            FACTORS, panel, Rolling(window=40, num_origins=4), batch_size=2, progress=False
        )
        found |= {
            "regime loglik": regimes.loglik,
            "variance loglik": variances.loglik,
            "backtest mean": jnp.asarray(done.mean),
            "backtest loglik": jnp.asarray(done.loglik),
        }
    return found


def checksum(found: dict[str, jax.Array]) -> str:
    """Of names, types and bits."""
    digest = hashlib.sha256()
    for name, value in found.items():
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def main() -> None:
    jax.config.update("jax_enable_x64", sys.argv[1] == "64")
    found = numbers(int(sys.argv[2]))
    values = {name: np.asarray(value, float).ravel().tolist() for name, value in found.items()}
    dtypes = sorted({str(value.dtype) for value in found.values()})
    print(json.dumps({"checksum": checksum(found), "dtypes": dtypes, "values": values}))


if __name__ == "__main__":
    main()
