"""Collapse of a panel under a mask to sufficient statistics of the dimension of the factors.

For x_t = W f_t + e_t, e_t ~ N(0, S), and o the observed set at t, the law of f | x needs only

    C_t = W_o' S_oo^{-1} W_o,   b_t = W_o' S_oo^{-1} x_o,   q = sum_t x_o' S_oo^{-1} x_o,
    l = sum_t (n_t ln 2 pi + ln det S_oo)

(Jungbacker and Koopman 2015). The number of series enters nowhere else. Missing cells hold zeros
and are multiplied by a zero mask: no NaN arithmetic, so derivatives stay finite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular

from jaxfc_kernels.constants import LOG_2PI


class Collapsed(NamedTuple):
    """`information` C (time, factors, factors), `vectors` b (time, factors), q and l as above.

    `lagged_information` (orders, time, factors, factors), if there is any, couples the factors of t
    with those of t - d, d = 1, 2, ... (errors with memory, sums over a window).
    """

    information: Array
    vectors: Array
    quadratic: Array
    log_normaliser: Array
    lagged_information: Array | None = None


def packed_indices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the lower triangle, and the position of (i, j) in it, (size, size)."""
    rows, columns = np.tril_indices(size)
    position = np.zeros((size, size), dtype=np.int32)
    position[rows, columns] = np.arange(rows.size)
    position[columns, rows] = np.arange(rows.size)
    return rows, columns, position


def packed_outer(vectors: Array) -> Array:
    """Lower triangle of v v', packed on the last axis."""
    rows, columns, _ = packed_indices(vectors.shape[-1])
    return vectors[..., rows] * vectors[..., columns]


def unpack(packed: Array, size: int) -> Array:
    """Symmetric matrices from packed lower triangles."""
    _, _, position = packed_indices(size)
    return packed[..., position]


def collapse_diagonal(
    values: Array, observed: Array, loadings: Array, variances: Array
) -> Collapsed:
    """S diagonal; two matrix products, about T N K (K + 3) flops.

    `values` (time, series), zero where `observed` (the same shape, 0.0 or 1.0) is zero.
    """
    num_factors = loadings.shape[1]
    weighted = loadings / variances[:, None]
    rows, columns, _ = packed_indices(num_factors)
    information = unpack(observed @ (weighted[:, rows] * loadings[:, columns]), num_factors)
    counts = jnp.sum(observed, axis=0)
    return Collapsed(
        information=information,
        vectors=values @ weighted,
        quadratic=jnp.sum(jnp.sum(values**2, axis=0) / variances),
        log_normaliser=jnp.sum(counts * (LOG_2PI + jnp.log(variances))),
    )


def collapse_complete(values: Array, rows: Array, loadings: Array, cov: Array) -> Collapsed:
    """S full, rows observed whole or not at all; one Cholesky factor, N^3/3 + T N^2 + 2 T N K.

    `rows` (time,) is 1.0 where a row is observed, else 0.0, and so are the `values` of that row.
    """
    num_series = values.shape[1]
    chol = jnp.linalg.cholesky(cov)
    half_loadings = solve_triangular(chol, loadings, lower=True)
    half_values = solve_triangular(chol, values.T, lower=True)
    information = half_loadings.T @ half_loadings
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
    return Collapsed(
        information=rows[:, None, None] * information,
        vectors=half_values.T @ half_loadings,
        quadratic=jnp.sum(half_values**2),
        log_normaliser=jnp.sum(rows) * (num_series * LOG_2PI + log_det),
    )


def collapse_full(values: Array, observed: Array, loadings: Array, cov: Array) -> Collapsed:
    """S full, cells missing anywhere: one Cholesky factor per time, T (N^3/3 + N^2 K) flops.

    Rows and columns of missing cells are replaced by those of the identity, which leaves S_oo^{-1},
    its determinant and all products with zeroed loadings unchanged. Runs over time in sequence, so
    memory stays O(N^2 + T K^2).
    """
    identity = jnp.eye(cov.shape[0], dtype=cov.dtype)

    def one_time(row):
        x, o = row
        masked_loadings = o[:, None] * loadings
        chol = jnp.linalg.cholesky(jnp.where(o[:, None] * o > 0, cov, identity))
        solved = cho_solve((chol, True), jnp.concatenate([masked_loadings, x[:, None]], axis=1))
        stacked = jnp.concatenate([masked_loadings, x[:, None]], axis=1).T @ solved
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
        return stacked, jnp.sum(o) * LOG_2PI + log_det

    products, log_normalisers = jax.lax.map(one_time, (values, observed))
    information = products[:, :-1, :-1]
    return Collapsed(
        information=0.5 * (information + jnp.swapaxes(information, 1, 2)),
        vectors=products[:, :-1, -1],
        quadratic=jnp.sum(products[:, -1, -1]),
        log_normaliser=jnp.sum(log_normalisers),
    )
