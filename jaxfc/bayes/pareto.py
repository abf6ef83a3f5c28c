"""Importance weights with a smoothed tail, and the tail's index k, which says if they can be used.

Draws of an approximation q represent the posterior p when weighted by p/q. The largest weights
follow a generalised Pareto law whose index k says how many moments the weights have: below 0.5
their variance is finite, up to 0.7 weighting works with a usable number of draws, above it q misses
a part of p (Vehtari, Simpson, Gelman, Yao and Gabry 2024, Journal of Machine Learning Research 25).
Pure functions, equal to ArviZ's `psislw`; a batch is a `vmap`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxfc.typing import Array, Bool, Float, Int

FEWEST_IN_TAIL = 5
# Zhang and Stephens (2009): 30 + sqrt(n) points of the profile likelihood on the scale of thrice
# the first quartile; the index is drawn to 1/2 as by ten further observations (Vehtari et al.).
POINTS, QUARTILE_SHARE, PRIOR_WEIGHT, PRIOR_INDEX = 30, 3, 10, 0.5


class Tail(NamedTuple):
    """The largest weights: `order` their places, smallest first, `inside` which of them are above
    the cut-off `log_cutoff`, `excesses` their differences from it (relative to the largest)."""

    order: Int[Array, " tail"]
    inside: Bool[Array, " tail"]
    excesses: Float[Array, " tail"]
    log_cutoff: Float[Array, ""]


def pareto_k(
    log_ratios: Float[Array, " draws"], relative_efficiency: float = 1.0
) -> Float[Array, ""]:
    """The index k of the tail of importance ratios.

    **Arguments:** `log_ratios` ln p - ln q of draws of q, up to a constant, which must be finite;
    `relative_efficiency` of dependent draws, their effective sample size over their number.

    **Returns:** k; infinity if fewer than five ratios are in the tail (25 draws are needed), minus
    infinity if all ratios are the same, NaN if one is not finite.

    **Raises:** `ValueError` if `relative_efficiency` is not positive.
    """
    return smoothed(log_ratios, relative_efficiency)[1]


def pareto_smoothed(
    log_weights: Float[Array, " draws"], relative_efficiency: float = 1.0
) -> tuple[Float[Array, " draws"], Float[Array, ""]]:
    """Log weights, summing to one, whose tail is replaced by quantiles of its Pareto law, and k.

        w_(j) = u + F^-1((j - 1/2)/M; k, sigma),   j = 1..M,   u the largest weight outside the tail

    No weight becomes larger than the largest was. Arguments as of `pareto_k`.

    **Raises:** `ValueError` if `relative_efficiency` is not positive.
    """
    log_weights, k = smoothed(log_weights, relative_efficiency)
    return log_weights - logsumexp(log_weights), k


def effective_share(log_weights: Float[Array, " draws"]) -> Float[Array, ""]:
    """(sum w)² / (n sum w²): the share of draws that weighting leaves."""
    log_share = 2 * logsumexp(log_weights) - logsumexp(2 * log_weights)
    return jnp.exp(log_share) / log_weights.size


def smoothed(
    log_weights: Float[Array, " draws"], relative_efficiency: float
) -> tuple[Float[Array, " draws"], Float[Array, ""]]:
    """Log weights relative to the largest with a smoothed tail, and its index."""
    if not relative_efficiency > 0:
        raise ValueError(f"relative_efficiency must be positive, got {relative_efficiency}.")
    relative = log_weights - jnp.max(log_weights)
    size = relative.size
    length = math.ceil(min(size / 5, 3 * math.sqrt(size / relative_efficiency)))
    finite = jnp.all(jnp.isfinite(log_weights))
    if length < FEWEST_IN_TAIL or length >= size:
        return relative, jnp.where(finite, jnp.inf, jnp.nan)
    tail = largest(relative, length)
    k, scale = fitted_pareto(tail.excesses, tail.inside)
    count = jnp.sum(tail.inside)
    place = jnp.arange(length) - (length - count)
    levels = jnp.clip((place + 0.5) / jnp.maximum(count, 1), 0.0, 1.0)
    quantiles = jnp.log(pareto_quantiles(levels, k, scale) + jnp.exp(tail.log_cutoff))
    enough = count >= FEWEST_IN_TAIL
    replace = tail.inside & enough & jnp.isfinite(k)
    values = jnp.where(replace, jnp.minimum(quantiles, 0.0), relative[tail.order])
    constant = jnp.min(relative) == 0
    k = jnp.where(enough, k, jnp.where(constant, -jnp.inf, jnp.inf))
    return relative.at[tail.order].set(values), jnp.where(finite, k, jnp.nan)


def largest(relative: Float[Array, " draws"], length: int) -> Tail:
    """The `length` largest weights, of which those count that are above the next smaller one."""
    order = jnp.argsort(relative)
    smallest = math.log(float(jnp.finfo(relative.dtype).tiny))
    cutoff = jnp.maximum(relative[order[-length - 1]], smallest)
    places = order[-length:]
    excesses = jnp.exp(relative[places]) - jnp.exp(cutoff)
    return Tail(places, relative[places] > cutoff, excesses, cutoff)


def fitted_pareto(
    excesses: Float[Array, " tail"], inside: Bool[Array, " tail"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Index and scale of the generalised Pareto law of the increasing `excesses` that are `inside`.

    The mean of b = -k/sigma under its profile likelihood on a grid (Zhang and Stephens 2009,
    Technometrics 51), with a weak prior of the index towards 1/2. Negative indices are bounded
    tails.
    """
    length = excesses.size
    count = jnp.sum(inside)
    quartile = excesses[length - count + (count / 4 + 0.5).astype(int) - 1]
    num_points = POINTS + jnp.sqrt(count).astype(int)
    points = jnp.arange(1, POINTS + math.isqrt(length) + 1)
    used = points <= num_points
    grid = 1 - jnp.sqrt(num_points / (points - 0.5))
    grid = grid / (QUARTILE_SHARE * quartile) + 1 / excesses[-1]

    def index(b: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.sum(jnp.where(inside, jnp.log1p(-b * excesses), 0)) / count

    indices = jax.vmap(index)(grid)
    profile = count * (jnp.log(-grid / indices) - indices - 1)
    weights = jax.nn.softmax(jnp.where(used, profile, -jnp.inf))
    weights = jnp.where(weights >= 10 * jnp.finfo(weights.dtype).eps, weights, 0)
    b = jnp.sum(jnp.where(used, grid, 0) * weights) / jnp.sum(weights)
    k = index(b)
    shrunk = (count * k + PRIOR_WEIGHT * PRIOR_INDEX) / (count + PRIOR_WEIGHT)
    return shrunk, -k / b


def pareto_quantiles(
    levels: Float[Array, " tail"], k: Float[Array, ""], scale: Float[Array, ""]
) -> Float[Array, " tail"]:
    """sigma ((1 - p)^-k - 1)/k, and the exponential law's -sigma ln(1 - p) for k = 0."""
    log_upper = jnp.log1p(-levels)
    near_zero = jnp.abs(k) < jnp.finfo(k.dtype).eps
    bounded = jnp.where(near_zero, 1.0, k)
    return scale * jnp.where(near_zero, -log_upper, jnp.expm1(-bounded * log_upper) / bounded)
