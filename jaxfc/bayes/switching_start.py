"""Where chains of a regime-switching hierarchy start: rows ranked by the turbulence around them."""

import jax.numpy as jnp

from jaxfc.bayes.program import Parameters
from jaxfc.typing import Array, Bool, Float, Int

# Rows on either side that tell how turbulent a row's surroundings are.
NEIGHBOURS = 5
# Regimes that follow one another are at least so far apart on the log scale.
SMALLEST_RISE = 0.2


def start_rows(
    values: Float[Array, "time series"], observed: Bool[Array, "time series"], num_regimes: int
) -> Int[Array, " time"]:
    """Regimes of equal numbers of rows by the mean square of the rows around each."""
    counts = jnp.sum(observed, axis=1)
    squares = jnp.sum(jnp.where(observed, values, 0.0) ** 2, axis=1)
    near = around(squares) / jnp.maximum(around(counts.astype(values.dtype)), 1.0)
    ranks = jnp.argsort(jnp.argsort(near))
    return ranks * num_regimes // len(ranks)


def around(terms: Float[Array, " time"]) -> Float[Array, " time"]:
    """Sums over a row and its neighbours on either side."""
    window = jnp.ones(2 * NEIGHBOURS + 1, terms.dtype)
    return jnp.convolve(terms, window)[NEIGHBOURS : NEIGHBOURS + len(terms)]


def start_values(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    regimes: Int[Array, " time"],
    num_regimes: int,
) -> Parameters:
    """Market parameters of every regime as its rows have them, all loads one.

    The factor of a row is the mean of its observed cells, errors are what it leaves.
    """
    seen = observed.astype(values.dtype)
    filled = jnp.where(observed, values, 0.0)
    picks = (regimes[:, None] == jnp.arange(num_regimes)).astype(values.dtype)
    totals = jnp.maximum(jnp.sum(picks, axis=0), 1.0)
    common = jnp.sum(filled, axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1.0)
    means = common @ picks / totals
    volatilities = jnp.log(jnp.sqrt((common**2 @ picks) / totals - means**2) + 1e-3)
    rises = jnp.maximum(jnp.diff(volatilities), SMALLEST_RISE)
    residuals = seen * (filled - common[:, None])
    own = jnp.sum(residuals**2, axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1.0)
    by_regime = jnp.sum(residuals**2, axis=1) @ picks / jnp.maximum(jnp.sum(seen, 1) @ picks, 1.0)
    levels = 0.5 * jnp.log(by_regime + 1e-6)
    log_noise = 0.5 * jnp.log(own + 1e-6)
    log_noise = log_noise - jnp.mean(log_noise) + levels[0]
    stays: Array = jnp.where(jnp.eye(num_regimes, dtype=bool), 0.95, 0.05 / (num_regimes - 1))
    return {
        "transition": stays.astype(values.dtype),
        "calm": volatilities[0],
        "rises": rises,
        "mean_market": means,
        "noise_level": jnp.mean(log_noise),
        "log_noise": log_noise,
        "noise_rise": levels[1:] - levels[0],
    }
