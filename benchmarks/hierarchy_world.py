"""A market of sectors and assets with values, base forecasts and errors, for the benchmarks."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.hierarchy import Hierarchy

HORIZON, NUM_TIMES, NUM_SECTORS = 12, 500, 11


def world(num_bottom: int) -> tuple[Hierarchy, pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Levels, values and base forecasts in sample, base forecasts ahead; daily returns."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(NUM_SECTORS, 2.0))
    sectors = np.sort(rng.choice(NUM_SECTORS, num_bottom, p=share))
    frame = pd.DataFrame(
        {
            "market": "market",
            "sector": [f"s{i:02d}" for i in sectors],
            "asset": [f"a{i:06d}" for i in range(num_bottom)],
        }
    )
    hierarchy = Hierarchy.from_levels(frame)
    common = 0.01 * rng.normal(size=(NUM_TIMES, 1))
    bottom = common + 0.02 * rng.normal(size=(NUM_TIMES, num_bottom))
    values = np.asarray(hierarchy.aggregate(bottom))
    size = np.sqrt(np.maximum(values.var(axis=0), 1e-12))
    fitted = 0.3 * size * rng.normal(size=values.shape) + 1e-3 * size
    base = 0.3 * size * rng.normal(size=(HORIZON, values.shape[1]))
    return hierarchy, frame, values, fitted, base


def rolling_world(num_origins: int, num_bottom: int) -> tuple[Hierarchy, jax.Array, jax.Array]:
    """Base forecasts of all origins, and one run of errors of which each sees a window."""
    hierarchy, _, values, fitted, base = world(num_bottom)
    rng = np.random.default_rng(1)
    total = NUM_TIMES + num_origins - 1
    scale = rng.uniform(0.5, 1.5, (total, 1))
    errors = np.resize(values - fitted, (total, values.shape[1])) * scale
    means = base[None] * rng.uniform(0.5, 1.5, (num_origins, 1, 1))
    return hierarchy, jnp.asarray(means), jnp.asarray(errors)


def long_frames(hierarchy: Hierarchy, values, fitted, base) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Base forecasts and values in sample as hierarchicalforecast takes them."""
    names = np.array(hierarchy.names)
    dates = pd.date_range("2020-01-01", periods=NUM_TIMES + HORIZON, freq="D")
    past = pd.DataFrame(
        {
            "unique_id": np.repeat(names, NUM_TIMES),
            "ds": np.tile(dates[:NUM_TIMES], len(names)),
            "y": values.T.ravel(),
            "model": fitted.T.ravel(),
        }
    )
    ahead = pd.DataFrame(
        {
            "unique_id": np.repeat(names, HORIZON),
            "ds": np.tile(dates[NUM_TIMES:], len(names)),
            "model": base.T.ravel(),
        }
    )
    return ahead, past
