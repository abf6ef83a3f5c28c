"""Whether violations of a value at risk come without memory: the times between them."""

import jax
import jax.numpy as jnp

from jaxfc.evaluation.calibration import Cases, Probability
from jaxfc.evaluation.tail_calibration import lower_share
from jaxfc.hypothesis import HypothesisTest
from jaxfc.lags import lagged
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray

# Bisection for the shape of Weibull's law: its ratio of likelihoods is flat at the largest one.
SMALLEST_SHAPE, LARGEST_SHAPE, NUM_HALVINGS = 1e-3, 1e2, 34


def christoffersen_pelletier(
    violations: Cases,
    probability: Probability,
    *,
    key: PRNGKeyArray,
    num_draws: int = 999,
) -> HypothesisTest:
    """Likelihood ratio of durations between violations without memory, in Weibull's law.

        f(d) = a^b b d^{b-1} exp(-(a d)^b);  b = 1;  LR = 2 [log L(a, b) - log L(a_1, 1)]

    Violations in clusters have b < 1. Durations are numbers of cases, missing ones not counted;
    those before the first violation and after the last one are censored. As durations are whole,
    LR is not chi-squared: of 250 violations with p = 0.05 that law rejects 29 % for 5 %. The
    p-value is that of a Monte Carlo test, exact for independent violations of probability p:

        (1 + #{LR* >= LR}) / (1 + M)

    over M = `num_draws` simulated series (`fold_in(key, i)`). The larger p, the less short
    durations say about clusters. `num_cases` is the number of durations between violations; without
    any LR is NaN. Costs M times 70 sums over the cases.

    Source: Christoffersen and Pelletier (2004).
    """
    violations = jnp.asarray(violations)
    statistic, count = duration_ratio(violations)

    def simulate(index: Array) -> Array:
        uniform = jax.random.uniform(
            jax.random.fold_in(key, index), violations.shape, violations.dtype
        )
        drawn = (uniform < jnp.asarray(probability)).astype(violations.dtype)
        return duration_ratio(jnp.where(jnp.isnan(violations), jnp.nan, drawn))[0]

    simulated = jax.lax.map(simulate, jnp.arange(num_draws))
    return HypothesisTest(
        statistic=statistic,
        p_value=lower_share(-simulated, -statistic),
        degrees=jnp.full_like(statistic, jnp.nan),
        num_cases=count,
    )


def duration_ratio(
    violations: Float[Array, "cases *rest"],
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """LR, NaN without a complete duration, and how many are complete."""
    durations, complete = censored_durations(violations)
    count = jnp.sum(complete, axis=0).astype(durations.dtype)
    some = durations > 0.0
    # In units of the longest one, so that no power overflows.
    longest = jnp.maximum(jnp.max(durations, axis=0), 1.0)
    logs = jnp.where(some, jnp.log(jnp.where(some, durations, longest) / longest), 0.0)
    complete_logs = jnp.sum(jnp.where(complete, logs, 0.0), axis=0)

    def powers(shape: Array) -> Array:
        return jnp.where(some, jnp.exp(shape * logs), 0.0)

    def halve(_, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        shape = jnp.exp(middle)
        power = powers(shape)
        mean_log = jnp.sum(power * logs, axis=0) / jnp.sum(power, axis=0)
        # The derivative of the best log-likelihood given the shape, which falls with it.
        rising = count / shape + complete_logs > count * mean_log
        return jnp.where(rising, middle, low), jnp.where(rising, high, middle)

    def loglik(shape: Array) -> Array:
        scale = jnp.log(shape) - jnp.log(jnp.sum(powers(shape), axis=0))
        return count * scale + (shape - 1.0) * complete_logs

    low, high = (jnp.full_like(count, jnp.log(end)) for end in (SMALLEST_SHAPE, LARGEST_SHAPE))
    low, high = jax.lax.fori_loop(0, NUM_HALVINGS, halve, (low, high))
    ratio = 2.0 * (loglik(jnp.exp(0.5 * (low + high))) - loglik(jnp.ones_like(count)))
    return jnp.where(count > 0.0, jnp.maximum(ratio, 0.0), jnp.nan), count


def censored_durations(
    violations: Float[Array, "cases *rest"],
) -> tuple[Float[Array, "durations *rest"], Bool[Array, "durations *rest"]]:
    """Durations in the rows of the violations that end them, the open one last, zero for none; and
    which are complete."""
    hits = violations == 1.0
    position = jnp.cumsum(~jnp.isnan(violations), axis=0)
    latest = jax.lax.cummax(jnp.where(hits, position, 0), axis=0)
    before = lagged(latest.astype(violations.dtype), 1)
    complete = hits & (before > 0)
    # A first case that is a violation ends no duration; a last one that is begins none.
    begun = hits & (before == 0) & (position > 1)
    ended = jnp.where(complete | begun, position - before, 0.0)
    ended = ended.astype(violations.dtype)
    open_one = (position[-1] - latest[-1]).astype(ended.dtype)
    durations = jnp.concatenate([ended, open_one[None]])
    return durations, jnp.concatenate([complete, jnp.zeros_like(complete[:1])])
