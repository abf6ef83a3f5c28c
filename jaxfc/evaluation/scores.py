"""Scores of forecasts against what was realised, column by column.

Cases are the leading axis; a case whose realised value is NaN is not counted. Every function is
pure; lower is better except for coverage, which should equal the nominal level.
"""

import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float

Cases = Float[Array, "cases *rest"] | Float[np.ndarray, "cases *rest"]


def mean_over_cases(losses: Cases, realised: Cases) -> Float[Array, "*rest"]:
    """Mean of the losses over the cases with a realised value (NaN if there is none)."""
    counted = jnp.isfinite(realised)
    return jnp.sum(jnp.where(counted, losses, 0.0), axis=0) / jnp.sum(counted, axis=0)


def num_cases(realised: Cases) -> Array:
    """How many cases are counted."""
    return jnp.sum(jnp.isfinite(realised), axis=0)


def rmse(mean: Cases, realised: Cases) -> Float[Array, "*rest"]:
    """Root mean squared error, in the units of the data."""
    return jnp.sqrt(mean_over_cases((known(realised) - mean) ** 2, realised))


def mae(mean: Cases, realised: Cases) -> Float[Array, "*rest"]:
    """Mean absolute error, in the units of the data."""
    return mean_over_cases(jnp.abs(known(realised) - mean), realised)


def crps_gaussian(
    mean: Cases,
    std: Cases,
    realised: Cases,
) -> Float[Array, "cases *rest"]:
    """Continuous ranked probability score of N(mean, std^2), case by case; NaN where not realised.

        s [ z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi) ],  z = (y - mean) / s

    (Gneiting and Raftery 2007, equation 21), in the units of the data.
    """
    import scoringrules

    scores = scoringrules.crps_normal(known(realised), mean, std, backend="jax")
    return jnp.where(jnp.isfinite(realised), jnp.asarray(scores), jnp.nan)


def crps_draws(
    draws: Float[Array, "draws cases *rest"] | Float[np.ndarray, "draws cases *rest"],
    realised: Cases,
) -> Float[Array, "cases *rest"]:
    """Continuous ranked probability score of an ensemble, E|X - y| - E|X - X'| / 2 with the fair
    divisor draws (draws - 1); case by case, NaN where not realised.

    **Raises:** `ValueError` for fewer than 2 draws.
    """
    check_draws(draws)
    num_draws = draws.shape[0]
    error = jnp.mean(jnp.abs(draws - known(realised)), axis=0)
    # sum_{i<j} |x_i - x_j| from the sorted draws: O(draws log draws) instead of draws^2.
    ordered = jnp.sort(draws, axis=0)
    weights = 2.0 * jnp.arange(1, num_draws + 1) - num_draws - 1.0
    spread = jnp.tensordot(weights.astype(draws.dtype), ordered, axes=1)
    score = error - spread / (num_draws * (num_draws - 1))
    return jnp.where(jnp.isfinite(realised), score, jnp.nan)


def coverage(
    lower: Cases,
    upper: Cases,
    realised: Cases,
) -> Float[Array, "*rest"]:
    """Share of realised values inside [lower, upper]."""
    value = known(realised)
    return mean_over_cases(((lower <= value) & (value <= upper)).astype(lower.dtype), realised)


def difference_t_statistic(losses: Cases, benchmark_losses: Cases) -> Float[Array, "*rest"]:
    """t statistic of the mean loss difference to a benchmark; negative: the benchmark loses more.

    sqrt(n) d / s with mean d and standard deviation s of the differences: the statistic of Diebold
    and Mariano (1995) for one-step forecasts, whose loss differences are taken as uncorrelated.
    Cases in which either loss is NaN are not counted.
    """
    differences = losses - benchmark_losses
    counted = jnp.isfinite(differences)
    count = jnp.sum(counted, axis=0)
    differences = jnp.where(counted, differences, 0.0)
    mean = jnp.sum(differences, axis=0) / count
    squares = jnp.sum(jnp.where(counted, (differences - mean) ** 2, 0.0), axis=0)
    return mean / jnp.sqrt(squares / (count - 1) / count)


def check_draws(draws: Array | np.ndarray) -> None:
    """Refuses an ensemble of one."""
    if draws.shape[0] < 2:
        raise ValueError(f"an ensemble needs at least 2 draws, got {draws.shape[0]}.")


def known(realised: Cases) -> Float[Array, "cases *rest"]:
    """Realised values with a harmless number where there is none: NaN would spoil derivatives."""
    return jnp.where(jnp.isfinite(realised), realised, 0.0)
