"""Products of matrices along a chain: in logarithms that may be -inf, and within blocks of rows.

The law of the states up to row t is a row vector times t matrices. Their products may be taken in
any order: in blocks of sqrt(T) rows side by side, then from block to block.
"""

import jax
import jax.numpy as jnp
from jax import Array

# Ratios of probabilities beyond e^700 leave the range of float64, beyond e^80 that of float32.
LARGEST_EXPONENT = {"float64": 700.0, "float32": 80.0}


def safe_log(probabilities: Array) -> Array:
    """ln p, -inf at zero with derivative zero there."""
    positive = probabilities > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, probabilities, 1.0)), -jnp.inf)


def finite_max(values: Array, axis) -> Array:
    """The largest entry, zero where all are -inf; without derivative: it only scales."""
    top = jax.lax.stop_gradient(jnp.max(values, axis=axis))
    return jnp.where(top > -jnp.inf, top, 0.0)


def weighted_log_sum(logs: Array, weights: Array) -> Array:
    """ln sum_i exp(logs_i) weights_ij for each j, with weights that may be zero: each sum is scaled
    by its largest term whose weight is not."""
    top = finite_max(jnp.where(weights > 0, logs[:, None], -jnp.inf), 0)
    exponent = jnp.minimum(logs[:, None] - top, LARGEST_EXPONENT[str(logs.dtype)])
    return top + safe_log(jnp.sum(jnp.exp(exponent) * weights, axis=0))


def log_product(left: Array, right: Array) -> Array:
    """ln(exp(left) exp(right)), batches of square matrices."""
    terms = left[..., :, :, None] + right[..., None, :, :]
    top = finite_max(terms, -2)
    return top + safe_log(jnp.sum(jnp.exp(terms - top[..., None, :]), axis=-2))


def scaled_product(left: Array, right: Array) -> Array:
    """`log_product` less its largest entry, which the law of the states does not need."""
    product = log_product(left, right)
    return product - finite_max(product, (-2, -1))[..., None, None]


def log_row_product(rows: Array, matrices: Array) -> Array:
    """ln(exp(row) exp(matrix)): rows (K, batch), matrices (K, K, batch)."""
    terms = rows[:, None] + matrices
    top = finite_max(terms, 0)
    return top + safe_log(jnp.sum(jnp.exp(terms - top), axis=0))


def in_blocks(matrices: Array, filler: Array) -> Array:
    """(T, K, K) as (steps, K, K, blocks), about as many blocks as steps, filled up with `filler`;
    blocks last, so that arrays of one step are contiguous."""
    num_times = matrices.shape[0]
    num_steps = max(1, round(num_times**0.5))
    missing = -num_times % num_steps
    filled = jnp.concatenate([matrices, jnp.broadcast_to(filler, (missing, *filler.shape))])
    return jnp.transpose(filled.reshape(-1, num_steps, *filler.shape), (1, 2, 3, 0))


def blocked_joint(first: Array, matrices: Array) -> Array:
    """Rows first, first M_1, first M_1 M_2, ... in logarithms, each up to a number of its own."""
    size, num_times = first.shape[0], matrices.shape[0]
    if num_times == 0:
        return first[None]
    blocks = in_blocks(matrices, safe_log(jnp.eye(size, dtype=first.dtype)))

    def within(product: Array, matrix: Array) -> tuple[Array, Array]:
        terms = product[:, :, None] + matrix
        top = finite_max(terms, 1)
        product = top + safe_log(jnp.sum(jnp.exp(terms - top[:, None]), axis=1))
        product = product - finite_max(product, (0, 1))
        return product, product

    _, later = jax.lax.scan(within, blocks[0], blocks[1:])
    prefixes = jnp.concatenate([blocks[:1], later])

    def across(row: Array, matrix: Array) -> tuple[Array, Array]:
        moved = log_row_product(row[:, None], matrix[..., None])[:, 0]
        return moved - finite_max(moved, 0), row

    _, starts = jax.lax.scan(across, first, jnp.moveaxis(prefixes[-1], -1, 0))
    joint = jax.vmap(log_row_product, (None, 0))(starts.T, prefixes)
    rows = jnp.transpose(joint, (2, 0, 1)).reshape(-1, size)[:num_times]
    return jnp.concatenate([first[None], rows])


def blocked_smoother(last: Array, reversed_steps: Array) -> Array:
    """B_t B_{t+1} ... a_T: products within blocks, then from the last block to the first."""
    size, num_times = last.shape[0], reversed_steps.shape[0]
    if num_times == 0:
        return last[None]
    # Backwards in time, so that a block's first step is its last row.
    blocks = in_blocks(reversed_steps[::-1], jnp.eye(size, dtype=last.dtype))

    def within(product: Array, matrix: Array) -> tuple[Array, Array]:
        product = jnp.sum(matrix[:, :, None] * product, axis=1)
        return product, product

    _, earlier = jax.lax.scan(within, blocks[0], blocks[1:])
    suffixes = jnp.concatenate([blocks[:1], earlier])

    def across(later: Array, matrix: Array) -> tuple[Array, Array]:
        return jnp.sum(matrix * later, axis=1), later

    _, starts = jax.lax.scan(across, last, jnp.moveaxis(suffixes[-1], -1, 0))
    smoothed = jnp.sum(suffixes * starts.T, axis=2)
    rows = jnp.transpose(smoothed, (2, 0, 1)).reshape(-1, size)[:num_times]
    return jnp.concatenate([rows[::-1], last[None]])
