"""Odd-even (cyclic) reduction of a block-tridiagonal precision: 2 log2(S) stages, not 2 S steps.

The same law as in `block_tridiagonal`: precision blocks D_s = `diagonal`[s] and E_s = `lower`[s] in
position (s, s-1), linear term h. Given its neighbours, an odd block depends on no other block,

    x_s | x_{s-1}, x_{s+1} ~ N(P_s h_s - A_s x_{s-1} - C_s x_{s+1}, P_s),
    P_s = D_s^{-1},  A_s = P_s E_s,  C_s = P_s E_{s+1}'          (C_s = 0 for the last block)

so all odd blocks are eliminated at once. What is left is block tridiagonal in the even blocks
(Schur complements; both neighbours of an even block are odd):

    D_s <- D_s - E_s C_{s-1} - E_{s+1}' A_{s+1},   h_s <- h_s - C_{s-1}' h_{s-1} - A_{s+1}' h_{s+1}
    E_{s+2, s} <- -E_{s+2} A_{s+1},                log det <- log det + sum_{odd} log det D_s

Repeated until a few blocks are left, which `block_tridiagonal` finishes. On the way back the band
of the inverse over the even blocks (V_s, and X_s = V_{s+1,s-1}) gives that of the odd ones (law of
total covariance; selected inversion):

    x_s = P_s h_s - A_s x_{s-1} - C_s x_{s+1}
    V_{s,s-1} = -A_s V_{s-1} - C_s X_s,  V_{s,s+1} = -A_s X_s' - C_s V_{s+1}
    V_s = P_s - V_{s,s-1} A_s' - V_{s,s+1} C_s'

Every stage is a few batched products of m x m matrices. A block costs 34 m^3 / 3 flops forward and
12 m^3 backward, so about 23 S m^3 altogether, two and a half times the sequential engine; memory
O(S m^2). Pivots are Schur complements of a positive definite matrix, as in the sequential engine.

Source: Heller (1976); selected inversion as in Gargir and Toledo (2025).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxfc_kernels import block_tridiagonal
from jaxfc_kernels.block_tridiagonal import Factorisation, Moments, matvec
from jaxfc_kernels.small_matrix import batch_matmul, fastest_implementation, spd_inverse

# Blocks left to the sequential engine: halving fewer saves no depth.
SEQUENTIAL_BLOCKS = 4


class Level(NamedTuple):
    """The odd blocks of one stage given their neighbours.

    `inverses` (odd, m, m) are P_s, `left_gains` A_s, `right_gains` C_s; `own_means` (odd, m) are
    P_s h_s.
    """

    inverses: Array
    left_gains: Array
    right_gains: Array
    own_means: Array


class Reduction(NamedTuple):
    """All stages, finest first, the factorisation of the blocks left, and the log-determinant."""

    levels: tuple[Level, ...]
    remainder: Factorisation
    log_det: Array


def factorise(
    diagonal: Array,
    lower: Array,
    linear: Array,
    *,
    implementation: str | None = None,
    sequential_blocks: int = SEQUENTIAL_BLOCKS,
) -> Reduction:
    """Eliminate odd blocks until at most `sequential_blocks` (static, at least 1) are left.

    `diagonal`, `lower` (blocks, m, m), `linear` (blocks, m) and `implementation` as in
    `block_tridiagonal.factorise`; `lower`[0] is never read.
    """
    if sequential_blocks < 1:
        raise ValueError(f"sequential_blocks must be at least 1, got {sequential_blocks}.")
    chosen = implementation or fastest_implementation(diagonal.shape[-1])
    levels, log_det = [], jnp.zeros((), diagonal.dtype)
    while diagonal.shape[0] > sequential_blocks:
        (diagonal, lower, linear), level, pivots = eliminate(diagonal, lower, linear, chosen)
        levels.append(level)
        log_det = log_det + jnp.sum(jnp.log(pivots))
    remainder = block_tridiagonal.factorise(diagonal, lower, linear, implementation=chosen)
    return Reduction(tuple(levels), remainder, log_det + remainder.log_det)


def eliminate(
    diagonal: Array, lower: Array, linear: Array, implementation: str
) -> tuple[tuple[Array, Array, Array], Level, Array]:
    """One stage: the precision and linear term of the even blocks, the odd ones, their pivots."""
    num_even, num_odd = (diagonal.shape[0] + 1) // 2, diagonal.shape[0] // 2
    inverses, pivots = spd_inverse(diagonal[1::2], implementation)
    left = lower[1::2]
    right = fit_length(lower[2::2], num_odd)
    left_gains = batch_matmul(inverses, left)
    right_gains = batch_matmul(inverses, transpose(right))
    reduced_diagonal = (
        diagonal[0::2]
        - fit_length(batch_matmul(transpose(left), left_gains), num_even)
        - shift_down(batch_matmul(right, right_gains), num_even)
    )
    reduced_lower = -shift_down(batch_matmul(right, left_gains), num_even)
    level = Level(inverses, left_gains, right_gains, matvec(inverses, linear[1::2]))
    reduced = reduced_diagonal, reduced_lower, reduce_linear(level, linear)
    return reduced, level, pivots


def reduce_linear(level: Level, linear: Array) -> Array:
    """h_s - C_{s-1}' h_{s-1} - A_{s+1}' h_{s+1} at the even blocks."""
    num_even, odd = (linear.shape[0] + 1) // 2, linear[1::2]
    from_right = fit_length(matvec(transpose(level.left_gains), odd), num_even)
    from_left = shift_down(matvec(transpose(level.right_gains), odd), num_even)
    return linear[0::2] - from_right - from_left


def moments(reduction: Reduction) -> Moments:
    """Mean and the band of the covariance, from the coarsest stage to the finest."""
    known = block_tridiagonal.moments(reduction.remainder)
    for level in reversed(reduction.levels):
        known = refine(level, known)
    return known


def refine(level: Level, even: Moments) -> Moments:
    """Moments of all blocks of one stage from those of its even blocks."""
    inverses, left_gains, right_gains, own_means = level
    num_odd = inverses.shape[0]
    means = neighbours_mean(level, own_means, even.means)
    left_covs = even.covs[:num_odd]
    right_covs = fit_length(even.covs[1:], num_odd)
    across = fit_length(even.cross_covs[1:], num_odd)
    with_left = -batch_matmul(left_gains, left_covs) - batch_matmul(right_gains, across)
    with_right = -batch_matmul(left_gains, transpose(across)) - batch_matmul(
        right_gains, right_covs
    )
    covs = (
        inverses
        - batch_matmul(with_left, transpose(left_gains))
        - batch_matmul(with_right, transpose(right_gains))
    )
    covs = 0.5 * (covs + transpose(covs))
    cross_even = shift_down(transpose(with_right), even.covs.shape[0])
    return Moments(
        interleave(even.means, means),
        interleave(even.covs, covs),
        interleave(cross_even, with_left),
    )


def solve(reduction: Reduction, linear: Array) -> Array:
    """The mean for another linear term (blocks, m), with the same reduction."""
    own = []
    for level in reduction.levels:
        own.append(matvec(level.inverses, linear[1::2]))
        linear = reduce_linear(level, linear)
    values = block_tridiagonal.solve(reduction.remainder, linear)
    return fill_in(reduction.levels, own, values)


def sample(reduction: Reduction, noise: Array) -> Array:
    """Exact joint draw x ~ N(mean, precision^{-1}) from standard normal `noise` (blocks, m).

    Odd blocks given their neighbours, P_s h_s - A_s x_{s-1} - C_s x_{s+1} + chol(P_s) z_s. The law
    is that of `block_tridiagonal.sample`; the draw for the same noise is another one.
    """
    own = []
    for level in reduction.levels:
        scattered = matvec(jnp.linalg.cholesky(level.inverses), noise[1::2])
        own.append(level.own_means + scattered)
        noise = noise[0::2]
    values = block_tridiagonal.sample(reduction.remainder, noise)
    return fill_in(reduction.levels, own, values)


def fill_in(levels: tuple[Level, ...], own: list[Array], values: Array) -> Array:
    """x_s = own_s - A_s x_{s-1} - C_s x_{s+1} stage by stage, from the blocks left to all."""
    for level, own_values in zip(reversed(levels), reversed(own), strict=True):
        values = interleave(values, neighbours_mean(level, own_values, values))
    return values


def neighbours_mean(level: Level, own: Array, even: Array) -> Array:
    """own_s - A_s x_{s-1} - C_s x_{s+1} at the odd blocks."""
    num_odd = own.shape[0]
    from_left = matvec(level.left_gains, even[:num_odd])
    return own - from_left - matvec(level.right_gains, fit_length(even[1:], num_odd))


def fit_length(blocks: Array, length: int) -> Array:
    """`blocks`, or with one zero block at the end if that makes `length`."""
    return zero_padded(blocks, 0, length - blocks.shape[0])


def shift_down(blocks: Array, length: int) -> Array:
    """blocks[s - 1] at s, zero at the start, `length` of them."""
    return zero_padded(blocks[: length - 1], 1, 0)


def zero_padded(blocks: Array, before: int, after: int) -> Array:
    """`blocks` with zero blocks before and after them."""
    return jnp.pad(blocks, ((before, after), *[(0, 0)] * (blocks.ndim - 1)))


def interleave(even: Array, odd: Array) -> Array:
    """even[0], odd[0], even[1], ...; the last block may be even."""
    num_blocks = even.shape[0] + odd.shape[0]
    pairs = jnp.stack([even, fit_length(odd, even.shape[0])], axis=1)
    return pairs.reshape(-1, *even.shape[1:])[:num_blocks]


def transpose(blocks: Array) -> Array:
    """Transposed blocks."""
    return jnp.swapaxes(blocks, -1, -2)
