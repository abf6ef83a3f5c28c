"""Inverses of small symmetric positive definite matrices, unrolled for compilers that fuse.

A library factorisation of a 2 x 2 matrix costs a call; inside a scan over time the calls, not the
arithmetic, are the cost. Unrolled elimination turns into straight-line code that XLA fuses with
what surrounds it, on CPU and GPU alike. All functions take leading batch axes.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

# Above this size the unrolled code compiles slowly and the library call wins.
MAX_UNROLLED = 12
# Up to this size the elimination is unrolled down to scalars.
MAX_SCALAR = 3


def matmul(a: Array, b: Array) -> Array:
    """a @ b as a broadcast product and sum, which XLA fuses; for sizes up to `MAX_UNROLLED`."""
    if max(a.shape[-2:] + b.shape[-2:]) > MAX_UNROLLED:
        return a @ b
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def inverse_by_scalars(matrix: Array) -> tuple[Array, Array]:
    """Gauss-Jordan inverse and pivots, every entry a scalar; 2 m^3 flops."""
    size = matrix.shape[-1]
    a = [[matrix[..., i, j] for j in range(size)] for i in range(size)]
    pivots = []
    for k in range(size):
        pivot = a[k][k]
        pivots.append(pivot)
        row = [a[k][j] / pivot for j in range(size)]
        column = [a[i][k] for i in range(size)]
        for i in range(size):
            for j in range(size):
                if i != k and j != k:
                    a[i][j] = a[i][j] - column[i] * row[j]
        for i in range(size):
            a[i][k] = -column[i] / pivot
            a[k][i] = row[i]
        a[k][k] = 1.0 / pivot
    rows = [jnp.stack(entries, axis=-1) for entries in a]
    return jnp.stack(rows, axis=-2), jnp.stack(pivots, axis=-1)


def inverse_by_sweeps(matrix: Array) -> tuple[Array, Array]:
    """Sweep-operator inverse and pivots, row by row; 2 m^3 flops.

    Sweeping pivot k maps A to A - a_k a_k' / d with row and column k replaced by a_k / d and the
    pivot by -1 / d; after all sweeps the matrix is -A^{-1} (Goodnight 1979).
    """
    size = matrix.shape[-1]
    unit = np.eye(size, dtype=bool)
    pivots = []
    for k in range(size):
        pivot = matrix[..., k, k]
        pivots.append(pivot)
        row = matrix[..., k, :] / pivot[..., None]
        swept = matrix - matrix[..., :, k, None] * row[..., None, :]
        swept = jnp.where(unit[k][:, None], row[..., None, :], swept)
        swept = jnp.where(unit[k][None, :], row[..., :, None], swept)
        matrix = jnp.where(np.outer(unit[k], unit[k]), -1.0 / pivot[..., None, None], swept)
    return -matrix, jnp.stack(pivots, axis=-1)


def inverse_by_cholesky(matrix: Array) -> tuple[Array, Array]:
    """Inverse through the library's Cholesky factor, and the squared diagonal of the factor."""
    chol = jnp.linalg.cholesky(matrix)
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    half = solve_triangular(chol, identity, lower=True)
    return jnp.swapaxes(half, -1, -2) @ half, jnp.diagonal(chol, axis1=-2, axis2=-1) ** 2


def spd_inverse(matrix: Array, implementation: str) -> tuple[Array, Array]:
    """Inverse of a symmetric positive definite matrix, and pivots whose product is its determinant.

    `implementation` is "gauss_jordan" (unrolled) or "cholesky" (library).
    """
    if implementation == "cholesky":
        return inverse_by_cholesky(matrix)
    if implementation != "gauss_jordan":
        raise ValueError(
            f"unknown implementation {implementation!r}; use 'gauss_jordan' or 'cholesky'."
        )
    if matrix.shape[-1] <= MAX_SCALAR:
        return inverse_by_scalars(matrix)
    return inverse_by_sweeps(matrix)


def fastest_implementation(size: int) -> str:
    """The implementation that is faster for matrices of this size (see kernels/README.md)."""
    return "gauss_jordan" if size <= MAX_UNROLLED else "cholesky"
