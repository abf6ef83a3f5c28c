"""Cholesky factors of matrices that may be singular."""

import jax
import jax.numpy as jnp
from jax import Array


def semidefinite_chol(cov: Array) -> Array:
    """Lower L with L L' = cov for a symmetric positive semi-definite `cov` (states, states).

    Column by column; a pivot below rounding level gives a zero column, which is exact for a
    semi-definite matrix. Differentiable where the rank does not change. O(m^3), m steps.
    """
    size = cov.shape[0]
    tolerance = 4 * size * jnp.finfo(cov.dtype).eps * jnp.diagonal(cov)

    def eliminate(index, carry):
        rest, chol = carry
        pivot = rest[index, index]
        is_positive = pivot > tolerance[index]
        root = jnp.sqrt(jnp.where(is_positive, pivot, 1.0))
        column = jnp.where(is_positive, rest[:, index] / root, 0.0)
        column = jnp.where(jnp.arange(size) >= index, column, 0.0)
        return rest - jnp.outer(column, column), chol.at[:, index].set(column)

    return jax.lax.fori_loop(0, size, eliminate, (cov, jnp.zeros_like(cov)))[1]
