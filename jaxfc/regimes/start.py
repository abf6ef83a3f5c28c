"""Where EM starts: probabilities of the regimes that rows are given before anything is known."""

import jax
import jax.numpy as jnp

from jaxfc.regimes.masked import Rows
from jaxfc.typing import Array, Float, PRNGKeyArray

# Rows on each side whose squares say how turbulent a row is.
REACH = 10
# Rows of a random start that share one draw.
BLOCK = 20
# Probability that a start by turbulence gives to the regime of its rank.
CERTAINTY = 0.9


def turbulence_start(
    rows: Rows, mean: Float[Array, " series"], variances: Float[Array, " series"], num_regimes: int
) -> Float[Array, "time regimes"]:
    """Rows ranked by mean squares around them, cut into equal groups, calmest first."""
    squares = rows.seen * (rows.values - mean) ** 2 / variances
    return ranked_start(jnp.sum(squares, axis=1), rows.counts, num_regimes)


def comovement_start(
    rows: Rows, corr: Float[Array, "series series"], num_regimes: int
) -> Float[Array, "time regimes"]:
    """Rows of unit variances ranked by how much they move together, as `corr` says, around them."""
    off_diagonal = corr - jnp.diag(jnp.diagonal(corr))
    products = jnp.sum((rows.values @ off_diagonal) * rows.values, axis=1)
    return ranked_start(products, rows.counts * (rows.counts - 1.0), num_regimes)


def ranked_start(
    signal: Float[Array, " time"], counts: Float[Array, " time"], num_regimes: int
) -> Float[Array, "time regimes"]:
    """Rows ranked by `signal` over `counts` in a window around them, cut into equal groups."""
    window = jnp.ones(2 * REACH + 1, signal.dtype)
    total = jnp.convolve(signal, window, mode="full")[REACH:-REACH]
    count = jnp.convolve(counts, window, mode="full")[REACH:-REACH]
    level = jnp.where(count > 0, total / jnp.maximum(count, 1.0), jnp.sum(signal) / jnp.sum(counts))
    num_times = level.size
    ranks = jnp.zeros(num_times, int).at[jnp.argsort(level)].set(jnp.arange(num_times))
    chosen = jax.nn.one_hot(ranks * num_regimes // num_times, num_regimes, dtype=signal.dtype)
    if num_regimes == 1:
        return chosen
    others = (1.0 - CERTAINTY) / (num_regimes - 1)
    return others + (CERTAINTY - others) * chosen


def random_starts(
    num_starts: int, num_times: int, num_regimes: int, dtype, *, key: PRNGKeyArray
) -> Float[Array, "starts time regimes"]:
    """Blocks of rows with probabilities drawn from a Dirichlet law of parameter 1/2."""
    num_blocks = -(-num_times // BLOCK)
    half = jnp.full(num_regimes, 0.5, dtype)
    drawn = jax.random.dirichlet(key, half, (num_starts, num_blocks), dtype)
    return jnp.repeat(drawn, BLOCK, axis=1)[:, :num_times]
