"""Covariances and variances as unconstrained numbers without units, seen from a base point."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.hierarchy.levels import product
from jaxfc.typing import Array, Float


def to_free(spreads: dict[str, Array], base: dict[str, Array]) -> dict[str, Array]:
    """Logarithms: of variances v / v_0, and of matrices L^{-1} A L^{-T} with A_0 = L L'.

    A linear map of the coefficients turns the latter by an orthogonal matrix and leaves sizes.
    """
    return {
        name: log_from(value, base[name]) if name != "variances" else jnp.log(value / base[name])
        for name, value in spreads.items()
    }


def from_free(free: dict[str, Array], base: dict[str, Array]) -> dict[str, Array]:
    """The inverse of `to_free`."""
    return {
        name: exp_from(value, base[name]) if name != "variances" else jnp.exp(value) * base[name]
        for name, value in free.items()
    }


def log_from(
    cov: Float[Array, "*batch q q"], base: Float[Array, "*batch q q"]
) -> Float[Array, "*batch q q"]:
    """log(L^{-1} cov L^{-T}), base = L L'."""
    chol = jnp.linalg.cholesky(base)
    half = solve_triangular(chol, cov, lower=True)
    seen = solve_triangular(chol, jnp.swapaxes(half, -1, -2), lower=True)
    values, vectors = jnp.linalg.eigh(0.5 * (seen + jnp.swapaxes(seen, -1, -2)))
    return product("...ab,...b,...cb->...ac", vectors, jnp.log(values), vectors)


def exp_from(
    free: Float[Array, "*batch q q"], base: Float[Array, "*batch q q"]
) -> Float[Array, "*batch q q"]:
    """L exp(free) L', base = L L'."""
    values, vectors = jnp.linalg.eigh(0.5 * (free + jnp.swapaxes(free, -1, -2)))
    roots = product("...ab,...b->...ab", vectors, jnp.exp(0.5 * values))
    roots = product("...ab,...bc->...ac", jnp.linalg.cholesky(base), roots)
    return product("...ab,...cb->...ac", roots, roots)
