"""Inverses of small symmetric positive definite matrices, unrolled for compilers that fuse.

A library factorisation of a 2 x 2 matrix costs a call; inside a scan over time the calls, not the
arithmetic, are the cost. Unrolled elimination turns into straight-line code that XLA fuses with
what surrounds it, on CPU and GPU alike. All functions take leading batch axes.
"""

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

# Above this size the unrolled code compiles slowly and the library call wins.
MAX_UNROLLED = 12
# The same outside a loop, where the library call is made once and compile time weighs more.
MAX_UNROLLED_ONCE = 4
# Up to this size products of whole batches outside a loop are broadcast.
MAX_BROADCAST_BATCH = 4
# Up to this size the elimination is unrolled down to scalars.
MAX_SCALAR = 2


def matmul(a: Array, b: Array) -> Array:
    """a @ b as a broadcast product and sum, which XLA fuses; for sizes up to `MAX_UNROLLED`."""
    if max(a.shape[-2:] + b.shape[-2:]) > MAX_UNROLLED:
        return a @ b
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def batch_matmul(a: Array, b: Array) -> Array:
    """a @ b for long batches outside a loop, where the library product wins at smaller sizes.

    "highest" keeps all digits of float32 on machines whose products would round their operands.
    """
    if max(a.shape[-2:] + b.shape[-2:]) > MAX_BROADCAST_BATCH:
        return jnp.matmul(a, b, precision="highest")
    return matmul(a, b)


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


def inverse_by_blocks(matrix: Array) -> tuple[Array, Array]:
    """Inverse and pivots by halves, down to `MAX_SCALAR`; about 4 m^3 / 3 flops.

    With [[A, B'], [B, C]], G = B A^{-1} and the Schur complement S = C - G B':

        inverse = [[A^{-1} + G' S^{-1} G, -G' S^{-1}], [-S^{-1} G, S^{-1}]],  pivots of A, then of S

    A few products of half the size, which a compiler vectorises, instead of m dependent sweeps over
    the whole matrix: 1.3 to 1.8 times faster and quicker to compile (see kernels/README.md).
    """
    size = matrix.shape[-1]
    if size <= MAX_SCALAR:
        return inverse_by_scalars(matrix)
    half = size // 2
    below = matrix[..., half:, :half]
    top_inverse, top_pivots = inverse_by_blocks(matrix[..., :half, :half])
    gain = matmul(below, top_inverse)
    complement = matrix[..., half:, half:] - matmul(gain, jnp.swapaxes(below, -1, -2))
    low_inverse, low_pivots = inverse_by_blocks(complement)
    corner = -matmul(low_inverse, gain)
    top = top_inverse - matmul(jnp.swapaxes(gain, -1, -2), corner)
    rows = [
        jnp.concatenate([top, jnp.swapaxes(corner, -1, -2)], axis=-1),
        jnp.concatenate([corner, low_inverse], axis=-1),
    ]
    return jnp.concatenate(rows, axis=-2), jnp.concatenate([top_pivots, low_pivots], axis=-1)


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
    return inverse_by_blocks(matrix)


def fastest_implementation(size: int) -> str:
    """The implementation that is faster for matrices of this size (see kernels/README.md)."""
    return "gauss_jordan" if size <= MAX_UNROLLED else "cholesky"
