"""How far a Sharpe ratio can be trusted, alone and as the best of many trials.

Sharpe ratios are per step, not annualised; `kurtosis` is 3 for a normal law. All functions are of
numbers, or of arrays element by element.
"""

import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from jaxfc.typing import Array, Float

Numbers = Float[Array, "*batch"] | float
EULER = 0.5772156649015329


def probabilistic_sharpe(
    sharpe: Numbers,
    num_steps: Numbers | Array | int,
    skewness: Numbers = 0.0,
    kurtosis: Numbers = 3.0,
    *,
    benchmark: Numbers = 0.0,
) -> Float[Array, "*batch"]:
    """Probability that the true Sharpe ratio exceeds a benchmark, given an estimate from n steps.

        Phi((S - S_0) sqrt(n - 1) / sqrt(1 - g_3 S + (g_4 - 1) / 4 S^2))

    with skewness g_3 and kurtosis g_4 (Bailey and Lopez de Prado 2012, equation 5; independent
    returns).
    """
    error = jnp.sqrt(sharpe_variance(sharpe, skewness, kurtosis) / (jnp.asarray(num_steps) - 1.0))
    return ndtr((sharpe - benchmark) / error)


def minimum_track_record(
    sharpe: Numbers,
    skewness: Numbers = 0.0,
    kurtosis: Numbers = 3.0,
    *,
    benchmark: Numbers = 0.0,
    confidence: Numbers = 0.95,
) -> Float[Array, "*batch"]:
    """Steps after which `probabilistic_sharpe` reaches a confidence; infinite if S <= S_0.

        1 + (1 - g_3 S + (g_4 - 1) / 4 S^2) (z / (S - S_0))^2

    (Bailey and Lopez de Prado 2012, equation 7).
    """
    gap = jnp.asarray(sharpe - benchmark)
    above = gap > 0.0
    score = ndtri(jnp.asarray(confidence)) / jnp.where(above, gap, 1.0)
    length = 1.0 + sharpe_variance(sharpe, skewness, kurtosis) * score**2
    return jnp.where(above, length, jnp.inf)


def expected_maximum_sharpe(
    variance: Numbers, num_trials: Numbers | Array | int
) -> Float[Array, "*batch"]:
    """Expected best Sharpe ratio of N independent trials without skill, in units of `variance`'s
    root; 0 for one trial.

        sqrt(V) [(1 - e) Phi^{-1}(1 - 1 / N) + e Phi^{-1}(1 - 1 / (N exp(1)))]

    with V the variance of the Sharpe ratios across trials and e = 0.5772... (Bailey and Lopez de
    Prado 2014, equation 1: an approximation of extreme value theory, good for N above 10 or so).
    """
    trials = jnp.asarray(num_trials, dtype=jnp.result_type(float))
    many = jnp.where(trials > 1.0, trials, 2.0)
    best = (1.0 - EULER) * ndtri(1.0 - 1.0 / many) + EULER * ndtri(1.0 - jnp.exp(-1.0) / many)
    return jnp.sqrt(jnp.asarray(variance)) * jnp.where(trials > 1.0, best, 0.0)


def deflated_sharpe(
    sharpe: Numbers,
    num_steps: Numbers | Array | int,
    skewness: Numbers = 0.0,
    kurtosis: Numbers = 3.0,
    *,
    variance: Numbers,
    num_trials: Numbers | Array | int,
) -> Float[Array, "*batch"]:
    """Probability that the best of N trials has skill: `probabilistic_sharpe` with the benchmark
    `expected_maximum_sharpe(variance, num_trials)` (Bailey and Lopez de Prado 2014, equation 2).
    """
    benchmark = expected_maximum_sharpe(variance, num_trials)
    return probabilistic_sharpe(sharpe, num_steps, skewness, kurtosis, benchmark=benchmark)


def sharpe_variance(
    sharpe: Numbers, skewness: Numbers, kurtosis: Numbers
) -> Float[Array, "*batch"]:
    """n times the variance of an estimated Sharpe ratio of independent returns (Mertens 2002)."""
    sharpe = jnp.asarray(sharpe)
    return 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
