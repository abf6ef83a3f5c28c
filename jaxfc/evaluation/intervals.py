"""Scores of intervals and densities, and probability integral transforms.

Cases are the leading axis. A case whose realised value is NaN is not counted (NaN case by case);
one whose forecast is NaN makes a mean NaN, since a failed forecast is not a missing outcome.
Several levels are a last axis of the bounds. Of scores, lower is better.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.evaluation.scores import check_draws, known, mean_over_cases
from jaxfc.typing import Array, Float, PRNGKeyArray

Outcomes = Float[Array, "cases *outcome"] | Float[np.ndarray, "cases *outcome"]
Bounds = Float[Array, "cases *rest"] | Float[np.ndarray, "cases *rest"]
Draws = Float[Array, "draws cases *outcome"] | Float[np.ndarray, "draws cases *outcome"]
Level = float | Float[Array, "*levels"] | Float[np.ndarray, "*levels"]


def outliers(lower: Bounds, upper: Bounds, realised: Outcomes) -> Float[Array, "cases *rest"]:
    """1 where the realised value is outside [lower, upper], 0 inside; NaN where one is missing."""
    return outside(jnp.asarray(lower), jnp.asarray(upper), beside(realised, lower))


def interval_outliers(lower: Bounds, upper: Bounds, realised: Outcomes) -> Float[Array, "*rest"]:
    """Share of realised values outside [lower, upper]; the target is 1 - level."""
    return mean_over_cases(outliers(lower, upper, realised), beside(realised, lower))


def interval_score(
    lower: Bounds, upper: Bounds, realised: Outcomes, level: Level
) -> Float[Array, "cases *rest"]:
    """Interval score of central intervals, case by case, in the units of the data.

        (u - l) + (2/a) (l - r) 1{r < l} + (2/a) (r - u) 1{r > u},  a = 1 - level

    (Winkler 1972; Gneiting and Raftery 2007, equation 43). It is smallest in expectation for the
    quantiles a/2 and 1 - a/2. An infinite bound has an infinite score.

    **Arguments:** bounds (cases, ...), `realised` of the same shape or without the last axis, which
    is then that of the levels; `level`: a number in (0, 1), or one for each.

    **Raises:** `ValueError` for a level outside (0, 1) or shapes that do not fit.
    """
    low, high, realised = jnp.asarray(lower), jnp.asarray(upper), beside(realised, lower)
    alpha = 1.0 - level_beside(level, low)
    value = known(realised)
    # scoringrules' score drops axes of length 1, and 0 times an infinite bound is NaN there.
    miss = jnp.maximum(low - value, 0.0) + jnp.maximum(value - high, 0.0)
    score = (high - low) + 2.0 / alpha * miss
    return jnp.where(jnp.isfinite(realised), score, jnp.nan)


def mean_interval_score(
    lower: Bounds, upper: Bounds, realised: Outcomes, level: Level
) -> Float[Array, "*rest"]:
    """Mean of `interval_score` over the cases, in the units of the data."""
    return mean_over_cases(interval_score(lower, upper, realised, level), beside(realised, lower))


def log_score_gaussian(
    mean: Outcomes, std: Outcomes, realised: Outcomes
) -> Float[Array, "cases *outcome"]:
    """- log density of N(mean, std^2) at the realised value, case by case.

        log s + z^2 / 2 + log(2 pi) / 2,  z = (y - mean) / s

    (Good 1952). Finite however far the value is, where the logarithm of a density underflows.
    """
    z = (known(realised) - mean) / std
    score = jnp.log(std) + 0.5 * z**2 + 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.where(jnp.isfinite(realised), score, jnp.nan)


def log_score_draws(
    draws: Draws, realised: Outcomes, *, bandwidth: float | int | Array | None = None
) -> Float[Array, "cases *outcome"]:
    """- log of the Gaussian kernel density of an ensemble at the realised value, case by case.

        - log (1/M) sum_i phi((y - x_i) / b) / b,  b = 1.06 min(s, IQR / 1.34) M^{-1/5}

    where `bandwidth` b is not given (Silverman 1986, section 3.4.2; s with divisor M - 1, s
    alone where half of the draws are equal). Draws that are all equal score infinity. The tails
    are those of the kernel: of a few draws the score punishes outliers harder than the law would.

    **Raises:** `ValueError` for fewer than 2 draws.
    """
    draws = jnp.asarray(draws)
    check_draws(draws)
    if bandwidth is None:
        spread = jnp.std(draws, axis=0, ddof=1)
        quartiles = jnp.quantile(draws, jnp.asarray([0.25, 0.75], dtype=draws.dtype), axis=0)
        middle = (quartiles[1] - quartiles[0]) / 1.34
        narrow = jnp.where(middle > 0.0, jnp.minimum(spread, middle), spread)
        bandwidth = 1.06 * narrow * draws.shape[0] ** -0.2
    width = jnp.asarray(bandwidth, dtype=draws.dtype)
    safe = jnp.where(width > 0.0, width, 1.0)
    z = (known(realised) - draws) / safe
    log_kernel = -0.5 * z**2 - 0.5 * jnp.log(2.0 * jnp.pi) - jnp.log(safe)
    score = jnp.log(1.0 * draws.shape[0]) - jax.nn.logsumexp(log_kernel, axis=0)
    return jnp.where(jnp.isfinite(realised), jnp.where(width > 0.0, score, jnp.inf), jnp.nan)


def pit_gaussian(
    mean: Outcomes, std: Outcomes, realised: Outcomes
) -> Float[Array, "cases *outcome"]:
    """Probability integral transform Phi((y - mean) / std): uniform if the forecast is right."""
    transform = jax.scipy.special.ndtr((known(realised) - mean) / std)
    return jnp.where(jnp.isfinite(realised), transform, jnp.nan)


def pit_draws(
    draws: Draws, realised: Outcomes, *, key: PRNGKeyArray | None = None
) -> Float[Array, "cases *outcome"]:
    """Probability integral transform of an ensemble, strictly inside (0, 1).

        (#{x_i < y} + u (#{x_i = y} + 1)) / (M + 1)

    With a `key` u is uniform, and so is the transform, exactly and with ties, if the value is
    exchangeable with the draws (Czado, Gneiting and Held 2009);
    without one u = 1/2, the middle of the rank, which takes M + 1 values only.

    **Raises:** `ValueError` for fewer than 2 draws.
    """
    draws = jnp.asarray(draws)
    check_draws(draws)
    value = known(realised)
    below = jnp.sum(draws < value, axis=0)
    ties = jnp.sum(draws == value, axis=0)
    place = 0.5 if key is None else jax.random.uniform(key, value.shape, draws.dtype)
    transform = (below + place * (ties + 1)) / (draws.shape[0] + 1)
    return jnp.where(jnp.isfinite(realised), transform.astype(draws.dtype), jnp.nan)


def outside(low: Array, high: Array, value: Array) -> Array:
    """1 where the value is not in [low, high], 0 where it is; NaN where one of them is missing."""
    unknown = ~jnp.isfinite(value) | jnp.isnan(low) | jnp.isnan(high)
    return jnp.where(unknown, jnp.nan, ((value < low) | (value > high)).astype(low.dtype))


def beside(realised: Outcomes, bounds: Bounds) -> Float[Array, "cases *rest"]:
    """Realised values in the shape of the bounds, which may have an axis of levels more."""
    value = jnp.asarray(realised)
    if value.ndim + 1 == bounds.ndim and value.shape == bounds.shape[:-1]:
        value = value[..., None]
    elif value.shape != bounds.shape:
        raise ValueError(
            f"realised has shape {value.shape}, the bounds {bounds.shape}; give one realised value "
            "for each bound, or leave out the last axis of the bounds where it is that of levels."
        )
    return jnp.broadcast_to(value, bounds.shape)


def level_beside(level: Level, bounds: Bounds) -> Float[Array, "*one_case"]:
    """Levels in the shape of the bounds of one case; known ones outside (0, 1) are refused."""
    values = level if isinstance(level, Tracer) else np.asarray(level)
    # The value of a level in a traced function cannot be looked at.
    if isinstance(values, np.ndarray) and not np.all((values > 0.0) & (values < 1.0)):
        raise ValueError(f"a level is a probability in (0, 1), such as 0.9 for 90 %; got {level}.")
    if values.ndim > 1 or (values.ndim == 1 and values.shape[0] != bounds.shape[-1]):
        raise ValueError(
            f"levels of shape {values.shape} for bounds of shape {bounds.shape}; give one number, "
            "or one level for each entry of the last axis of the bounds."
        )
    if values.ndim == 1 and bounds.ndim == 1:
        raise ValueError("several levels need bounds with a last axis for them; got one of cases.")
    return jnp.broadcast_to(jnp.asarray(values, dtype=jnp.result_type(bounds)), bounds.shape[1:])
