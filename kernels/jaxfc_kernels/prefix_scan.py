"""Prefix scans for a block-tridiagonal precision: elimination and moments as associative products.

The same law as in `block_tridiagonal`: precision blocks D_s = `diagonal`[s] and E_s = `lower`[s] in
position (s, s-1), linear term h. Blocks a..b with their couplings E_a..E_b, all but the last
integrated out, are a Gaussian message from x = x_{a-1} to y = x_b; its logarithm, up to a constant:

    -1/2 (x' U x + 2 y' W x + y' L y) + u' x + g' y

One block alone is (U, W, L, u, g) = (0, E_s, D_s, 0, h_s). Let 1 mark an earlier message, 2 the one
that follows it. The block that they share has conditional precision M = L1 + U2, and integrating it
out gives the message over both:

    U = U1 - W1' M^{-1} W1,         W = -W2 M^{-1} W1,    L = L2 - W2 M^{-1} W2'
    u = u1 - W1' M^{-1} (g1 + u2),                        g = g2 - W2 M^{-1} (g1 + u2)

This product is associative, because integrals may be done in any order. With E_0 = 0 the product
over blocks 0..s has L = L_s and g = g_s of the forward elimination; log det = sum_s log det L_s.
Every M is a Schur complement of the precision, hence positive definite.

The backward recursion is affine with G_s = -L_s^{-1} E_{s+1}',

    x_s = L_s^{-1} g_s + G_s x_{s+1},  V_s = L_s^{-1} + G_s V_{s+1} G_s',  V_{s+1,s} = V_{s+1} G_s'

and affine maps compose associatively: (G1, C1, c1) after (G2, C2, c2) is
(G1 G2, C1 + G1 C2 G1', c1 + G1 c2). Suffix products give the moments. Depth 4 log2(S) stages, about
40 S m^3 flops, memory O(S m^2).

Source: Särkkä and García-Fernández (2021), here in information form.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.block_tridiagonal import Factorisation, Moments, matvec, shift_up
from jaxfc_kernels.small_matrix import batch_matmul, fastest_implementation, spd_inverse


class Message(NamedTuple):
    """U, W, L (blocks, m, m) and u, g (blocks, m) of the module's docstring."""

    before: Array
    coupling: Array
    after: Array
    before_linear: Array
    after_linear: Array


class AffineMap(NamedTuple):
    """(mean, cov) -> (matrix mean + shift, matrix cov matrix' + spread)."""

    matrix: Array
    spread: Array
    shift: Array


def factorise(
    diagonal: Array, lower: Array, linear: Array, *, implementation: str | None = None
) -> Factorisation:
    """The factorisation of `block_tridiagonal.factorise` by a scan over messages.

    `diagonal`, `lower` (blocks, m, m), `linear` (blocks, m) and `implementation` as there;
    `lower`[0] is never read.
    """
    chosen = implementation or fastest_implementation(diagonal.shape[-1])
    lower = jnp.concatenate([jnp.zeros_like(lower[:1]), lower[1:]])
    single = Message(jnp.zeros_like(diagonal), lower, diagonal, jnp.zeros_like(linear), linear)
    prefixes = jax.lax.associative_scan(lambda earlier, later: join(earlier, later, chosen), single)
    inverses, pivots = spd_inverse(prefixes.after, chosen)
    previous = jnp.concatenate([jnp.zeros_like(inverses[:1]), inverses[:-1]])
    gains = batch_matmul(lower, previous)
    return Factorisation(inverses, gains, prefixes.after_linear, jnp.sum(jnp.log(pivots)))


def join(earlier: Message, later: Message, implementation: str) -> Message:
    """The message over both stretches: the block between them is integrated out."""
    inverse, _ = spd_inverse(earlier.after + later.before, implementation)
    from_before = batch_matmul(inverse, earlier.coupling)
    from_after = batch_matmul(inverse, transpose(later.coupling))
    linear = earlier.after_linear + later.before_linear
    return Message(
        earlier.before - batch_matmul(transpose(earlier.coupling), from_before),
        -batch_matmul(later.coupling, from_before),
        later.after - batch_matmul(later.coupling, from_after),
        earlier.before_linear - matvec(transpose(from_before), linear),
        later.after_linear - matvec(transpose(from_after), linear),
    )


def moments(factorisation: Factorisation) -> Moments:
    """Mean and the band of the covariance by a scan over affine maps, last block first."""
    inverses, gains, reduced, _ = factorisation
    matrices = -transpose(shift_up(gains))
    maps = AffineMap(matrices, inverses, matvec(inverses, reduced))
    suffixes = jax.lax.associative_scan(compose, maps, reverse=True)
    covs = 0.5 * (suffixes.spread + transpose(suffixes.spread))
    crosses = batch_matmul(covs[1:], transpose(matrices[:-1]))
    cross_covs = jnp.concatenate([jnp.zeros_like(covs[:1]), crosses])
    return Moments(suffixes.shift, covs, cross_covs)


def compose(later: AffineMap, earlier: AffineMap) -> AffineMap:
    """`earlier` applied to what `later` gives."""
    matrix, spread, shift = earlier
    carried = batch_matmul(batch_matmul(matrix, later.spread), transpose(matrix))
    return AffineMap(
        batch_matmul(matrix, later.matrix), spread + carried, shift + matvec(matrix, later.shift)
    )


def transpose(blocks: Array) -> Array:
    """Transposed blocks."""
    return jnp.swapaxes(blocks, -1, -2)
