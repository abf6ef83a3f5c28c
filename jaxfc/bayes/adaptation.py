"""What a warm-up learns: a step size by dual averaging, variances by pooled moments."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.typing import Array, Float, Int

# Constants of Hoffman and Gelman (2014), section 3.2.1.
SHRINKAGE, OFFSET, FORGETTING = 0.05, 10.0, 0.75
# Draws that the prior guess of a variance counts for, and that guess (Stan).
GUESS_COUNT, GUESS = 5.0, 1e-3


class DualAverage(NamedTuple):
    """Nesterov's dual averaging of the log step size."""

    log_step: Float[Array, ""]
    log_average: Float[Array, ""]
    error: Float[Array, ""]
    centre: Float[Array, ""]
    num_updates: Int[Array, ""]


class PooledMoments(NamedTuple):
    """Count, mean and centred sum of squares of draws of all chains (Welford)."""

    num_draws: Float[Array, ""]
    mean: Float[Array, " size"]
    squares: Float[Array, " size"]


def start_average(step_size: Float[Array, ""], drawn_to: float = 10.0) -> DualAverage:
    """Before the first transition at `step_size`; it is drawn towards `drawn_to` times of it, large
    steps being cheap to try."""
    log_step = jnp.log(step_size)
    zero = jnp.zeros_like(log_step)
    return DualAverage(log_step, log_step, zero, jnp.log(drawn_to) + log_step, jnp.asarray(0))


def update_average(
    average: DualAverage, acceptance: Float[Array, ""], target: float | Array
) -> DualAverage:
    """After a transition that accepted with `acceptance`."""
    count = average.num_updates + 1
    share = 1.0 / (count + OFFSET)
    error = (1.0 - share) * average.error + share * (target - acceptance)
    log_step = average.centre - jnp.sqrt(count) / SHRINKAGE * error
    weight = count ** (-FORGETTING)
    log_average = weight * log_step + (1.0 - weight) * average.log_average
    return DualAverage(log_step, log_average, error, average.centre, count)


def averaged_step(average: DualAverage) -> Float[Array, ""]:
    """The step size to keep after the warm-up."""
    return jnp.exp(average.log_average)


def no_moments(like: Float[Array, " size"]) -> PooledMoments:
    """Moments of no draws yet."""
    zero = jnp.zeros_like(like)
    return PooledMoments(jnp.zeros((), like.dtype), zero, zero)


def add_draws(moments: PooledMoments, draws: Float[Array, "chains size"]) -> PooledMoments:
    """Moments after one more draw of every chain."""
    number = draws.shape[0]
    mean = jnp.mean(draws, axis=0)
    squares = jnp.sum((draws - mean) ** 2, axis=0)
    count = moments.num_draws + number
    gap = mean - moments.mean
    share = number / count
    return PooledMoments(
        count,
        moments.mean + gap * share,
        moments.squares + squares + gap**2 * moments.num_draws * share,
    )


def regularised_variance(moments: PooledMoments) -> Float[Array, " size"]:
    """n / (n + 5) s^2 + 5 / (n + 5) 1e-3: away from zero where draws are few."""
    count = moments.num_draws
    variance = moments.squares / jnp.maximum(count - 1.0, 1.0)
    return (count * variance + GUESS_COUNT * GUESS) / (count + GUESS_COUNT)
