"""Stationary covariance of a VAR(1): the discrete Lyapunov equation P = A P A' + Q."""

import jax
import jax.numpy as jnp
from jax import Array

MAX_DOUBLINGS = 40


def doubling(transition: Array, constant: Array) -> Array:
    """sum_i A^i C A'^i by doubling: S <- S + A S A', A <- A A, until A has vanished.

    k doublings sum 2^k terms, so a root of modulus 1 - d needs about log2(36 / d) of them in
    float64. An explosive A gives NaN, which the caller reports.
    """
    tolerance = jnp.finfo(transition.dtype).eps

    def unfinished(state):
        count, power, _ = state
        size = jnp.max(jnp.abs(power))
        return (count < MAX_DOUBLINGS) & (size > tolerance) & (size < 1.0 / tolerance)

    def double(state):
        count, power, total = state
        return count + 1, power @ power, total + power @ total @ power.T

    start = (jnp.asarray(0), transition, constant)
    _, power, total = jax.lax.while_loop(unfinished, double, start)
    converged = jnp.max(jnp.abs(power)) <= tolerance
    return jnp.where(converged, total, jnp.nan)


def stationary_cov(transition: Array, innovation_cov: Array) -> Array:
    """P with P = A P A' + Q, of shape (states, states); NaN if A is not stable.

    Cost O(m^3 log(1 / (1 - spectral radius))), no eigenvalues, no m^2 x m^2 system. Differentiable:
    P is linear in Q, and dP = A P dA' + dA P A' + A dP A' + dQ is the same equation again, so both
    directions of differentiation are one more solve (`custom_linear_solve`).
    """

    def residual(cov: Array) -> Array:
        return cov - transition @ cov @ transition.T

    cov = jax.lax.custom_linear_solve(
        residual,
        innovation_cov,
        solve=lambda _, constant: doubling(transition, constant),
        transpose_solve=lambda _, constant: doubling(transition.T, constant),
    )
    return 0.5 * (cov + cov.T)


def companion(transition: Array) -> Array:
    """Companion matrix (states, states) of VAR coefficients (lags, factors, factors).

    State order: newest first, (F_t, F_{t-1}, ..., F_{t-p+1}).
    """
    num_lags, num_factors, _ = transition.shape
    top = jnp.concatenate(list(transition), axis=1)
    shift = jnp.eye((num_lags - 1) * num_factors, num_lags * num_factors, dtype=transition.dtype)
    return jnp.concatenate([top, shift], axis=0)
