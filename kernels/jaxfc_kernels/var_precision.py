"""Precision of a Gaussian VAR(p) path, in super-blocks of p periods.

With G_s = (F_{sp+1}, ..., F_{(s+1)p}) in ascending time, F_t = sum_l A_l F_{t-l} + u_t reads
B0 G_s = B1 G_{s-1} + (u), B0 unit lower triangular, so the precision of the path is block
tridiagonal with blocks of size m = pK. Against a companion state this saves a factor p in flops and
in depth, keeps the innovation covariance regular and yields Cov[F_t, F_{t-l} | .] for all l <= p.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.lyapunov import companion, stationary_cov
from jaxfc_kernels.small_matrix import MAX_UNROLLED_ONCE, spd_inverse


class PathPrecision(NamedTuple):
    """`diagonal`, `lower` (blocks, m, m) as in block_tridiagonal; `linear` (m,) is S_0^{-1} a for
    the first block's law N(a, S_0); `log_det` is that of the precision."""

    diagonal: Array
    lower: Array
    linear: Array
    log_det: Array


def inverse_and_log_det(matrix: Array) -> tuple[Array, Array]:
    """Inverse and log-determinant of one small symmetric positive definite matrix.

    Outside a loop a library call costs nothing and compiles faster than unrolled code.
    """
    size = matrix.shape[-1]
    inverse, pivots = spd_inverse(
        matrix, "gauss_jordan" if size <= MAX_UNROLLED_ONCE else "cholesky"
    )
    return inverse, jnp.sum(jnp.log(pivots), axis=-1)


def path_precision(
    transition: Array,
    innovation_cov: Array,
    initial_mean: Array,
    initial_cov: Array,
    num_blocks: int,
) -> PathPrecision:
    """Blocks of the precision of `num_blocks` * lags periods.

    `transition` (lags, factors, factors), lags >= 1; `initial_mean` (m,), `initial_cov` (m, m): the
    law of the first `lags` periods in ascending time.
    """
    num_lags, num_factors, _ = transition.shape
    size = num_lags * num_factors
    innovation_precision, innovation_log_det = inverse_and_log_det(innovation_cov)
    initial_precision, initial_log_det = inverse_and_log_det(initial_cov)
    residual = residual_map(transition)
    weighted = jnp.kron(jnp.eye(num_lags, dtype=transition.dtype), innovation_precision) @ residual
    product = residual.T @ weighted
    before, after, coupling = product[:size, :size], product[size:, size:], product[size:, :size]

    is_first = (jnp.arange(num_blocks) == 0)[:, None, None]
    is_last = (jnp.arange(num_blocks) == num_blocks - 1)[:, None, None]
    diagonal = jnp.where(is_first, initial_precision, after) + jnp.where(is_last, 0.0, before)
    return PathPrecision(
        diagonal=diagonal,
        lower=jnp.broadcast_to(coupling, (num_blocks, size, size)),
        linear=initial_precision @ initial_mean,
        log_det=-(initial_log_det + (num_blocks - 1) * num_lags * innovation_log_det),
    )


def residual_map(transition: Array) -> Array:
    """[-B1, B0]: maps two neighbouring super-blocks to the innovations of the second, (m, 2m)."""
    num_lags, num_factors, _ = transition.shape
    identity = jnp.eye(num_factors, dtype=transition.dtype)
    zero = jnp.zeros_like(identity)
    rows = []
    for i in range(num_lags):
        row = [zero] * (2 * num_lags)
        row[num_lags + i] = identity
        for lag in range(1, num_lags + 1):
            row[num_lags + i - lag] = -transition[lag - 1]
        rows.append(row)
    return jnp.block(rows)


def stationary_block_cov(transition: Array, innovation_cov: Array) -> Array:
    """Covariance (m, m) of p consecutive periods of the stationary VAR, ascending time."""
    num_lags, num_factors, _ = transition.shape
    size = num_lags * num_factors
    noise = jnp.zeros((size, size), transition.dtype)
    noise = noise.at[:num_factors, :num_factors].set(innovation_cov)
    cov = stationary_cov(companion(transition), noise)
    blocks = cov.reshape(num_lags, num_factors, num_lags, num_factors)
    return blocks[::-1, :, ::-1, :].reshape(size, size)
