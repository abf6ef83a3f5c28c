"""Precisions of a path whose band is wider than the lags of its VAR, period by period.

H_{t,t-d}, d = 0..B, of shape (orders, periods, factors, factors), is the form in which the prior of
the path and whatever couples a period with earlier ones (errors with memory, sums over a window)
add up; super-blocks of B periods then make it block tridiagonal for `block_tridiagonal`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfc_kernels.var_precision import inverse_and_log_det


class PathBands(NamedTuple):
    """`bands` (lags + 1, periods, factors, factors) of the precision of a VAR path, its linear term
    `linear` (periods, factors) and the log-determinant."""

    bands: Array
    linear: Array
    log_det: Array


def var_bands(
    transition: Array,
    innovation_cov: Array,
    initial_mean: Array,
    initial_cov: Array,
    num_periods: int,
) -> PathBands:
    """Bands of the precision of a VAR(p) path of `num_periods` >= p periods.

    With A_0 = -I the innovation of period s is -sum_l A_l F_{s-l}, so it adds A_l' Q^{-1} A_m to
    the block (s - l, s - m): H_{t,t-d} = sum_l A_l' Q^{-1} A_{l+d} over the l with an innovation at
    t + l. `initial_mean` (p * factors,) and `initial_cov`: law of the first p periods, ascending.
    """
    num_lags, num_factors, _ = transition.shape
    identity = jnp.eye(num_factors, dtype=transition.dtype)
    maps = jnp.concatenate([-identity[None], transition])
    precision, log_det = inverse_and_log_det(innovation_cov)
    initial_precision, initial_log_det = inverse_and_log_det(initial_cov)
    period = np.arange(num_periods)
    bands = []
    for order in range(num_lags + 1):
        total = jnp.zeros((num_periods, num_factors, num_factors), transition.dtype)
        for lag in range(num_lags - order + 1):
            has_innovation = (period + lag >= num_lags) & (period + lag < num_periods)
            term = maps[lag].T @ precision @ maps[lag + order]
            total = total + jnp.where(has_innovation[:, None, None], term, 0.0)
        bands.append(total)
    first = initial_precision.reshape(num_lags, num_factors, num_lags, num_factors)
    for order in range(num_lags):
        block = jnp.stack([first[t, :, t - order, :] for t in range(order, num_lags)])
        bands[order] = bands[order].at[order:num_lags].add(block)
    linear = jnp.zeros((num_periods, num_factors), transition.dtype)
    start = (initial_precision @ initial_mean).reshape(num_lags, num_factors)
    return PathBands(
        bands=jnp.stack(bands),
        linear=linear.at[:num_lags].set(start),
        log_det=-(initial_log_det + (num_periods - num_lags) * log_det),
    )


def add_bands(left: Array, right: Array) -> Array:
    """Sum of two stacks of bands, the narrower filled up with zeros."""
    orders = max(left.shape[0], right.shape[0])

    def widened(bands: Array) -> Array:
        return jnp.pad(bands, ((0, orders - bands.shape[0]), (0, 0), (0, 0), (0, 0)))

    return widened(left) + widened(right)


def super_blocks(bands: Array, block_length: int) -> tuple[Array, Array]:
    """`diagonal` and `lower` (blocks, m, m), m = block_length * factors, of `block_tridiagonal`.

    The number of periods must be a multiple of `block_length`, which must reach as far as the band.
    """
    num_orders, num_periods, num_factors, _ = bands.shape
    if num_orders > block_length + 1 or num_periods % block_length:
        raise ValueError(
            f"a band of {num_orders - 1} periods over {num_periods} periods does not fit blocks of "
            f"{block_length}."
        )
    num_blocks = num_periods // block_length
    # One band of zeros at the end stands for what lies outside the band.
    padded = jnp.concatenate([bands, jnp.zeros_like(bands[:1])])
    row, column = np.indices((block_length, block_length))
    start = block_length * np.arange(num_blocks)[:, None, None]

    def gather(order: np.ndarray) -> Array:
        inside = (order >= 0) & (order < num_orders)
        picked = padded[np.where(inside, order, num_orders), start + row]
        size = block_length * num_factors
        return jnp.swapaxes(picked, 2, 3).reshape(num_blocks, size, size)

    below = gather(np.where(row > column, row - column, -1))
    own = gather(np.where(row == column, 0, -1))
    diagonal = own + below + jnp.swapaxes(below, 1, 2)
    lower = gather(block_length + row - column)
    return diagonal, lower


def band_product(bands: Array, vectors: Array) -> Array:
    """H f of the symmetric matrix with these bands, (periods, factors)."""
    total = jnp.einsum("tij,tj->ti", bands[0], vectors)
    for order in range(1, bands.shape[0]):
        below = bands[order, order:]
        total = total.at[order:].add(jnp.einsum("tij,tj->ti", below, vectors[:-order]))
        total = total.at[:-order].add(jnp.einsum("tij,ti->tj", below, vectors[order:]))
    return total
