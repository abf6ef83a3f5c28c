"""Value at risk and expected shortfall of a forecast, and scores of both.

Convention: both keep the sign and the units of the returns, as in `performance`: a loss of 2 % is
-0.02 and a shortfall lies below its value at risk. `probability` p is that of the tail: 0.05 for a
confidence of 95 %. The tail is the lower one; a short position is a portfolio of weight -1.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import ndtri

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.evaluation.intervals import (
    Bounds,
    Level,
    Outcomes,
    beside,
    level_beside,
    outside,
)
from jaxfc.evaluation.scores import known
from jaxfc.forecast import Forecast, Levels, SampleForecast
from jaxfc.lognormal import ExponentialForecast
from jaxfc.typing import Array, Float


def value_at_risk(
    forecast: Forecast, probability: Levels
) -> Float[Array, "*probabilities horizon series"]:
    """The quantile of the returns at the probability p of the tail: `forecast.quantile(p)`.

    Of a portfolio: `value_at_risk(forecast.aggregate(weights), p)`; of the return over h steps: the
    last row of that of `forecast.cumulative()`. A law given by moments (a `VolatilityForecast`) is
    taken as normal, which the law of returns and of their sums is not: draws have the model's own.

    **Raises:** `ValueError` for a probability outside (0, 0.5].
    """
    check_probability(probability)
    return forecast.quantile(probability)


def expected_shortfall(
    forecast: Forecast, probability: Levels
) -> Float[Array, "*probabilities horizon series"]:
    """The mean of the returns in the tail: the mean quantile up to the probability p.

        (1/p) int_0^p Q(u) du
        mean - std phi(z_p) / p,  z_p = Phi^{-1}(p)                         (a law given by moments)
        (x_(1) + ... + x_(k) + (M p - k) x_(k+1)) / (M p),  k = floor(M p)  (M draws)

    What is said of `value_at_risk` holds here, too. Draws count with their own law: M p of them
    should be enough for a mean.

    Source: Acerbi and Tasche (2002).

    **Raises:** `ValueError` for a probability outside (0, 0.5], `TypeError` for a log-normal law.
    """
    check_probability(probability)
    if isinstance(forecast, ExponentialForecast):
        raise TypeError(
            "the shortfall of log-normals is that of draws: take forecast.as_draws(num_draws, "
            "key=key)."
        )
    mean = forecast.mean
    levels = jnp.asarray(probability, dtype=mean.dtype)
    if isinstance(forecast, SampleForecast | DecomposedForecast):
        return tail_mean(forecast.draws, levels)
    return mean - forecast.std * normal_tail(levels).reshape(levels.shape + (1,) * mean.ndim)


def tail_violations(value_at_risk: Bounds, realised: Outcomes) -> Float[Array, "cases *rest"]:
    """1 where the realised value is below the value at risk, 0 elsewhere; NaN where one is missing:
    what the tests of coverage take (`unconditional_coverage`, `engle_manganelli`, ...)."""
    bound = jnp.asarray(value_at_risk)
    return outside(bound, jnp.full_like(bound, jnp.inf), beside(realised, value_at_risk))


def quantile_score(
    quantile: Bounds, realised: Outcomes, probability: Level
) -> Float[Array, "cases *rest"]:
    """Tick loss of a quantile, case by case, in the units of the data; NaN where not realised.

        (1{y < q} - p) (q - y)

    Smallest in expectation for the quantile at p (Koenker and Bassett 1978). The interval score of
    a central interval is 2 / (1 - level) times the sum of the tick losses of its bounds.

    **Arguments:** quantiles (cases, ...), `realised` of the same shape or without the last axis,
    which is then that of the probabilities: a number in (0, 1), or one for each.

    **Raises:** `ValueError` for a probability outside (0, 1) or shapes that do not fit.
    """
    bound, realised = jnp.asarray(quantile), beside(realised, quantile)
    p = level_beside(probability, bound)
    gap = bound - known(realised)
    score = jnp.where(gap > 0.0, (1.0 - p) * gap, -p * gap)
    return jnp.where(jnp.isfinite(realised), score, jnp.nan)


def joint_tail_score(
    value_at_risk: Bounds, expected_shortfall: Bounds, realised: Outcomes, probability: Level
) -> Float[Array, "cases *rest"]:
    """Joint score of value at risk v and expected shortfall e, case by case.

        FZ0 = - 1{y <= v} (v - y) / (p e) + v / e + log(-e) - 1

    Smallest in expectation for the quantile and the mean below it (Fissler and Ziegel 2016); of
    all such scores the one whose differences do not depend on the units of the returns (Patton,
    Ziegel and Chen 2019, equation 6). NaN where not realised, and for shortfalls that are not
    negative.

    **Arguments:** as in `quantile_score`.

    **Raises:** `ValueError` for a probability outside (0, 1) or shapes that do not fit.
    """
    quantile, realised = jnp.asarray(value_at_risk), beside(realised, value_at_risk)
    p = level_beside(probability, quantile)
    loss = jnp.asarray(expected_shortfall)
    proper = loss < 0.0
    size = jnp.where(proper, -loss, 1.0)
    excess = jnp.maximum(quantile - known(realised), 0.0)
    score = (excess / p - quantile) / size + jnp.log(size) - 1.0
    return jnp.where(jnp.isfinite(realised) & proper, score, jnp.nan)


def tail_mean(
    draws: Float[Array, "draws *rest"], levels: Float[Array, "*levels"]
) -> Float[Array, "..."]:
    """Mean quantile up to each level of the empirical law of the draws; the axes of levels lead."""
    num_draws = draws.shape[0]
    ordered = jnp.sort(draws, axis=0)
    number = levels.reshape(-1, 1) * num_draws
    weights = jnp.clip(number - jnp.arange(num_draws, dtype=draws.dtype), 0.0, 1.0) / number
    means = jnp.tensordot(weights, ordered, axes=1, precision="highest")
    return means.reshape(levels.shape + draws.shape[1:])


def normal_tail(levels: Float[Array, "*levels"]) -> Float[Array, "*levels"]:
    """- E[z | z < z_p] of a standard normal variable: phi(z_p) / p."""
    return jnp.exp(-0.5 * ndtri(levels) ** 2) / (jnp.sqrt(2.0 * jnp.pi) * levels)


def check_probability(probability: Levels) -> None:
    """Refuses what is not the probability of a lower tail; traced values cannot be looked at."""
    if isinstance(probability, Tracer):
        return
    values = np.asarray(probability)
    if not np.all((values > 0.0) & (values <= 0.5)):
        raise ValueError(
            "probability is that of the tail, in (0, 0.5]: 0.05 for a confidence of 95 %; got "
            f"{probability}."
        )
