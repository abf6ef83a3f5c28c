"""Gaussian laws given by a block-tridiagonal precision: one sequential elimination, then moments.

With blocks s = 0..S-1 of size m, precision blocks D_s = `diagonal`[s] and E_s = `lower`[s] in
position (s, s-1) (`lower`[0] is never read), and linear term h:

    forward    J_s = E_s L_{s-1}^{-1},  L_s = D_s - J_s E_s',  g_s = h_s - J_s g_{s-1}
    mean       x_s = L_s^{-1} g_s - J_{s+1}' x_{s+1}
    inverse    V_s = L_s^{-1} + J_{s+1}' V_{s+1} J_{s+1},  V_{s+1,s} = -V_{s+1} J_{s+1}
    log det    sum_s log det L_s

Cost about 9 S m^3 flops, sequential depth 2 S, memory O(S m^2). The precision is never inverted as
a whole: only the blocks inside the band of its inverse are formed (Takahashi's equations). Unlike a
covariance recursion it subtracts nothing that grows with the state's persistence, which is why it
keeps its digits in float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.small_matrix import fastest_implementation, matmul, spd_inverse


class Factorisation(NamedTuple):
    """Result of the forward elimination: all that means, covariances and draws need.

    `pivot_inverses` (blocks, m, m) are L_s^{-1}; `gains` (blocks, m, m) are J_s; `reduced`
    (blocks, m) is g; `log_det` the log-determinant of the precision.
    """

    pivot_inverses: Array
    gains: Array
    reduced: Array
    log_det: Array


class Moments(NamedTuple):
    """Means (blocks, m), covariances (blocks, m, m), and cross_covs[s] = Cov[x_s, x_{s-1}]."""

    means: Array
    covs: Array
    cross_covs: Array


def factorise(
    diagonal: Array, lower: Array, linear: Array, *, implementation: str | None = None
) -> Factorisation:
    """Eliminate forward in time. `implementation`: "gauss_jordan", "cholesky" or None (by size)."""
    size = diagonal.shape[-1]
    chosen = implementation or fastest_implementation(size)

    def step(pivot_inverse, block):
        diagonal_block, lower_block = block
        gain = matmul(lower_block, pivot_inverse)
        pivot = diagonal_block - matmul(gain, lower_block.T)
        pivot_inverse, pivots = spd_inverse(pivot, chosen)
        return pivot_inverse, (pivot_inverse, gain, pivots)

    # A zero pivot inverse in front of the first block makes its gain zero: lower[0] drops out.
    start = jnp.zeros_like(diagonal[0])
    _, (inverses, gains, pivots) = jax.lax.scan(step, start, (diagonal, lower))
    # The linear term in a loop of its own: XLA then runs the body of either as one small program,
    # which for m = 2 is four times faster than one loop for both.
    return Factorisation(inverses, gains, reduce_forward(gains, linear), jnp.sum(jnp.log(pivots)))


def reduce_forward(gains: Array, linear: Array) -> Array:
    """g_s = h_s - J_s g_{s-1}."""

    def forward(reduced, block):
        gain, linear_block = block
        reduced = linear_block - jnp.sum(gain * reduced, axis=1)
        return reduced, reduced

    return jax.lax.scan(forward, jnp.zeros_like(linear[0]), (gains, linear))[1]


def moments(factorisation: Factorisation) -> Moments:
    """Mean and the band of the covariance, backward in time (selected inversion)."""
    inverses, gains, reduced, _ = factorisation
    own_means = matvec(inverses, reduced)
    next_gains = shift_up(gains)

    def step(carry, block):
        cov, mean = carry
        pivot_inverse, next_gain, own_mean = block
        weighted = matmul(next_gain.T, cov)
        cross = -weighted.T
        cov = pivot_inverse + matmul(weighted, next_gain)
        mean = own_mean - jnp.sum(next_gain * mean[:, None], axis=0)
        return (cov, mean), (cov, mean, cross)

    start = (jnp.zeros_like(inverses[0]), jnp.zeros_like(reduced[0]))
    _, (covs, means, crosses) = jax.lax.scan(
        step, start, (inverses, next_gains, own_means), reverse=True
    )
    # The step at s emits Cov[x_{s+1}, x_s]; file it under s + 1.
    cross_covs = jnp.concatenate([jnp.zeros_like(crosses[:1]), crosses[:-1]])
    return Moments(means, 0.5 * (covs + jnp.swapaxes(covs, -1, -2)), cross_covs)


def solve(factorisation: Factorisation, linear: Array) -> Array:
    """The mean for another linear term (blocks, m), with the same factorisation."""
    inverses, gains, _, _ = factorisation
    return back_substitute(gains, matvec(inverses, reduce_forward(gains, linear)))


def sample(factorisation: Factorisation, noise: Array) -> Array:
    """Exact joint draw x ~ N(mean, precision^{-1}) from standard normal `noise` (blocks, m)."""
    return sample_many(factorisation, noise[..., None])[..., 0]


def sample_many(factorisation: Factorisation, noise: Array) -> Array:
    """Exact joint draws from standard normal `noise` (blocks, m, draws), in that shape.

    Backward: x_s = L_s^{-1} g_s + chol(L_s^{-1}) z_s - J_{s+1}' x_{s+1}. Draws come last: every
    step is two products of (m, m) with (m, draws), and what is made of the noise element by element
    runs along a long axis.
    """
    inverses, gains, reduced, _ = factorisation

    def backward(later, block):
        next_gain, own_mean, chol, units = block
        current = own_mean[:, None] + chol @ units - next_gain.T @ later
        return current, current

    blocks = (shift_up(gains), matvec(inverses, reduced), jnp.linalg.cholesky(inverses), noise)
    return jax.lax.scan(backward, jnp.zeros_like(noise[0]), blocks, reverse=True)[1]


def back_substitute(gains: Array, own: Array) -> Array:
    """x_s = own_s - J_{s+1}' x_{s+1}."""

    def backward(later, block):
        next_gain, own_block = block
        current = own_block - jnp.sum(next_gain * later[:, None], axis=0)
        return current, current

    _, values = jax.lax.scan(backward, jnp.zeros_like(own[0]), (shift_up(gains), own), reverse=True)
    return values


def shift_up(blocks: Array) -> Array:
    """blocks[s + 1] at s, zero at the end."""
    return jnp.concatenate([blocks[1:], jnp.zeros_like(blocks[:1])])


def matvec(matrices: Array, vectors: Array) -> Array:
    """Batched matrix-vector product."""
    return jnp.einsum("...ij,...j->...i", matrices, vectors)
