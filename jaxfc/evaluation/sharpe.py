"""Whether two strategies differ in their Sharpe ratios.

Sharpe ratios are per step, mean over standard deviation of excess returns with divisor n (as in the
papers cited; `sharpe_ratio` divides by n - 1). Steps at which either return is NaN are not counted:
they enter sums as zeros, so the distances between the others stay what they are.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import ndtr

from jaxfc.batching import map_in_batches
from jaxfc.evaluation.kernel_cov import Kernel, kernel_cov, prewhitened_cov
from jaxfc.typing import Array, Float, Int

Steps = Float[Array, " steps"]


class SharpeDifference(eqx.Module):
    """Difference of two Sharpe ratios (first minus second), its standard error, their ratio, and
    the two-sided p-value of equality."""

    difference: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]
    statistic: Float[Array, "*batch"]
    p_value: Float[Array, "*batch"]


def jobson_korkie(returns: Steps, benchmark: Steps) -> SharpeDifference:
    """The test of Jobson and Korkie (1981) as corrected by Memmel (2003): independent Gaussian
    returns.

        Var(S_1 - S_2) = (1/n) [2 (1 - rho) + (S_1^2 + S_2^2 - 2 S_1 S_2 rho^2) / 2]

    It rejects too often for returns with fat tails or changing volatility. NaN if a standard
    deviation is zero or one series is a multiple of the other.
    """
    moments, counted = joint_moments(returns, benchmark)
    count = jnp.sum(counted)
    first, second = sharpes(moments)
    rows = deviations(returns, benchmark, moments, counted)
    products = rows[:, :2].T @ rows[:, :2]
    rho = products[0, 1] / jnp.sqrt(products[0, 0] * products[1, 1])
    squares = 0.5 * (first**2 + second**2 - 2.0 * first * second * rho**2)
    return answer(first - second, standard_error(2.0 * (1.0 - rho) + squares, count))


def sharpe_difference(
    returns: Steps,
    benchmark: Steps,
    *,
    kernel: Kernel = "quadratic_spectral",
    prewhiten: bool = True,
) -> SharpeDifference:
    """The delta-method test of Ledoit and Wolf (2008, section 3.1), for dependent returns.

        se^2 = (1/n) g' Psi g,   g = gradient of a / sqrt(c - a^2) - b / sqrt(d - b^2)

    at the means (a, b) and mean squares (c, d) of the returns; Psi is n / (n - 4) times the
    long-run covariance of (r_1, r_2, r_1^2, r_2^2), by `prewhitened_cov` or, with prewhiten=False,
    `kernel_cov`, both with Andrews' automatic bandwidth. The normal p-value is too small in short
    samples; `bootstrap_sharpe_difference` is the remedy. NaN if a standard deviation is zero or one
    series is a multiple of the other.
    """
    moments, counted = joint_moments(returns, benchmark)
    first, second = sharpes(moments)
    error = kernel_error(returns, benchmark, moments, counted, kernel, prewhiten)
    return answer(first - second, error)


def bootstrap_sharpe_difference(
    returns: Steps,
    benchmark: Steps,
    indices: Int[Array, "draws steps"],
    block_length: int,
    *,
    kernel: Kernel = "quadratic_spectral",
    prewhiten: bool = True,
    batch_size: int | None = None,
) -> SharpeDifference:
    """The studentised circular block bootstrap of Ledoit and Wolf (2008, section 3.2).

        p = (#{d* >= d} + 1) / (M + 1),  d = |D| / se,  d* = |D* - D| / se*

    with D the difference of the Sharpe ratios, se by kernel as in `sharpe_difference`, and se* from
    the sums over the blocks of the redrawn moments (Goetze and Kuensch 1996). `indices` are those
    of a circular block bootstrap: row m is made of blocks of `block_length` consecutive places, one
    after the other from column 0. `batch_size`: draws side by side, None for all.

    **Raises:** `ValueError` for a block length below 1 or such that there are fewer than 2 blocks,
    and for indices of another length than the returns.
    """
    num_steps = returns.shape[0]
    num_blocks = num_steps // block_length if block_length >= 1 else 0
    if num_blocks < 2:
        raise ValueError(
            f"block_length must be between 1 and half of the {num_steps} steps, got {block_length}."
        )
    if indices.ndim != 2 or indices.shape[1] != num_steps:
        raise ValueError(
            f"indices of shape {indices.shape} for {num_steps} steps; give (draws, {num_steps})."
        )
    moments, counted = joint_moments(returns, benchmark)
    first, second = sharpes(moments)
    difference = first - second
    error = kernel_error(returns, benchmark, moments, counted, kernel, prewhiten)

    def one_draw(places):
        redrawn, again = returns[places], benchmark[places]
        their_moments, present = joint_moments(redrawn, again)
        theirs = sharpes(their_moments)
        rows = deviations(redrawn, again, their_moments, present)
        blocks = rows[: num_blocks * block_length].reshape(num_blocks, block_length, 4)
        sums = jnp.sum(blocks, axis=1) @ sharpe_gradient(their_moments)
        num_counted = jnp.sum(present[: num_blocks * block_length])
        variance = jnp.sum(sums**2) / num_counted / jnp.sum(present)
        return jnp.abs(theirs[0] - theirs[1] - difference) / jnp.sqrt(variance)

    studentised = map_in_batches(one_draw, indices, batch_size)
    plain = answer(difference, error)
    exceed = jnp.sum(studentised >= jnp.abs(plain.statistic))
    p_value = (exceed + 1.0) / (indices.shape[0] + 1.0)
    p_value = jnp.where(jnp.isnan(plain.statistic), jnp.nan, p_value)
    return SharpeDifference(difference, error, plain.statistic, p_value)


def joint_moments(
    returns: Steps, benchmark: Steps
) -> tuple[Float[Array, "4"], Float[Array, " steps"]]:
    """Means and mean squares (a, b, c, d) over the steps at which both are known, and which those
    are (1 or 0)."""
    known = ~(jnp.isnan(returns) | jnp.isnan(benchmark))
    pair = jnp.stack([jnp.where(known, returns, 0.0), jnp.where(known, benchmark, 0.0)])
    sums = jnp.concatenate([jnp.sum(pair, axis=1), jnp.sum(pair**2, axis=1)])
    return sums / jnp.sum(known), known.astype(returns.dtype)


def sharpes(moments: Float[Array, "4"]) -> Float[Array, "2"]:
    """The two Sharpe ratios; NaN if a standard deviation is zero."""
    variance = moments[2:] - moments[:2] ** 2
    # Equal returns leave only the rounding of their square.
    positive = variance > 8.0 * jnp.finfo(moments.dtype).eps * moments[2:]
    return moments[:2] / jnp.sqrt(jnp.where(positive, variance, jnp.nan))


def sharpe_gradient(moments: Float[Array, "4"]) -> Float[Array, "4"]:
    """Gradient of the difference of the Sharpe ratios in (a, b, c, d)."""
    mean, square = moments[:2], moments[2:]
    cubed = (square - mean**2) ** 1.5
    sign = jnp.asarray([1.0, -1.0], dtype=moments.dtype)
    return jnp.concatenate([sign * square / cubed, -0.5 * sign * mean / cubed])


def deviations(
    returns: Steps, benchmark: Steps, moments: Float[Array, "4"], counted: Float[Array, " steps"]
) -> Float[Array, "steps 4"]:
    """(r_1, r_2, r_1^2, r_2^2) less their means, zero where not counted."""
    rows = jnp.stack([returns, benchmark, returns**2, benchmark**2], axis=1) - moments
    return jnp.where(counted[:, None] > 0.0, rows, 0.0)


def kernel_error(
    returns: Steps,
    benchmark: Steps,
    moments: Float[Array, "4"],
    counted: Float[Array, " steps"],
    kernel: Kernel,
    prewhiten: bool,
) -> Float[Array, ""]:
    """Standard error of the difference by the delta method."""
    rows = deviations(returns, benchmark, moments, counted)
    count = jnp.sum(counted)
    long_run = prewhitened_cov(rows, kernel) if prewhiten else kernel_cov(rows, kernel)
    # The long-run covariance is a mean over all rows; those that are not counted are zeros.
    psi = long_run * rows.shape[0] / (count - 4.0)
    gradient = sharpe_gradient(moments)
    return standard_error(gradient @ psi @ gradient, count)


def standard_error(variance: Array, count: Array) -> Float[Array, ""]:
    """Root of variance / n, NaN where the variance is nothing but rounding: that of a single Sharpe
    ratio is 1 or so, that of series that are multiples of each other is 0."""
    positive = variance > 64.0 * jnp.finfo(variance.dtype).eps
    return jnp.sqrt(jnp.where(positive, variance, jnp.nan) / count)


def answer(difference: Array, error: Array) -> SharpeDifference:
    """Statistic and two-sided normal p-value."""
    statistic = difference / error
    return SharpeDifference(difference, error, statistic, 2.0 * ndtr(-jnp.abs(statistic)))
