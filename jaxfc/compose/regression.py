"""Least squares of a series on its own lags and on lags of factors, some of them switched off.

    r_t = alpha + sum_{i=1..q} beta_i r_{t-i} + sum_{i=1..s} gamma_i' f_{t-i} + e_t,  e_t ~ N(0, v)

Columns of the regressors: 1, r_{t-1}, ..., r_{t-q}, f_{t-1}, ..., f_{t-s}. Models of several sizes
stand in arrays of the largest; `active` columns are estimated, the others' coefficient is zero.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from jaxfc.lags import lagged
from jaxfc.typing import Array, Bool, Float, Int


class Sizes(eqx.Module):
    """Numbers of factors K, of lags p of their VAR, of own lags q and of factor lags s."""

    num_factors: Int[Array, ""]
    num_lags: Int[Array, ""]
    num_own_lags: Int[Array, ""]
    num_factor_lags: Int[Array, ""]


class Regression(eqx.Module):
    """Coefficients by least squares, `chol` the lower Cholesky factor of the Gram matrix (unit rows
    where a column is off), `variance` = RSS / (n - number of coefficients), residuals (zero in rows
    that are not used)."""

    coefficients: Float[Array, " regressors"]
    chol: Float[Array, "regressors regressors"]
    variance: Float[Array, ""]
    residuals: Float[Array, " time"]

    def draw(self, noise: Float[Array, " regressors"]) -> Float[Array, " regressors"]:
        """A draw from N(coefficients, variance (Z'Z)^{-1}) by standard normal `noise`; columns that
        are off stay zero if their noise is."""
        deviation = solve_triangular(self.chol, noise, lower=True, trans=1)
        return self.coefficients + jnp.sqrt(self.variance) * deviation


def own_columns(returns: Float[Array, " time"], num_lags: int) -> Float[Array, "time columns"]:
    """1, r_{t-1}, ..., r_{t-q}."""
    lags = [lagged(returns, lag) for lag in range(1, num_lags + 1)]
    return jnp.stack([jnp.ones_like(returns), *lags], axis=1)


def factor_columns(
    factors: Float[Array, "time factors"], num_lags: int
) -> Float[Array, "time columns"]:
    """f_{t-1}', ..., f_{t-s}', lag by lag."""
    lags = [lagged(factors, lag) for lag in range(1, num_lags + 1)]
    return jnp.concatenate(lags, axis=1) if lags else factors[:, :0]


def active_columns(
    sizes: Sizes, max_factors: int, max_own_lags: int, max_factor_lags: int
) -> Bool[Array, " regressors"]:
    """Which columns of the largest model a model of these sizes has."""
    own = jnp.arange(max_own_lags + 1) <= sizes.num_own_lags
    factors = jnp.arange(max_factors) < sizes.num_factors
    lags = jnp.arange(1, max_factor_lags + 1) <= sizes.num_factor_lags
    return jnp.concatenate([own, (lags[:, None] & factors).reshape(-1)])


def row_weights(
    seen: Bool[Array, " time"],
    num_own_lags: Int[Array, ""] | int,
    num_factor_lags: Int[Array, ""] | int,
    max_own_lags: int,
    dtype: Any = float,
) -> Float[Array, " time"]:
    """1.0 in rows whose return and own lags are observed and whose factor lags lie in the window:
    nothing before the first row is used."""
    usable = seen & (jnp.arange(seen.size) >= num_factor_lags)
    for lag in range(1, max_own_lags + 1):
        usable = usable & (lagged(seen, lag) | (lag > num_own_lags))
    return usable.astype(dtype)


def solve_normal_equations(
    gram: Float[Array, "regressors regressors"],
    cross: Float[Array, " regressors"],
    active: Bool[Array, " regressors"],
) -> tuple[Float[Array, " regressors"], Float[Array, "regressors regressors"]]:
    """Coefficients and Cholesky factor; NaN if the active columns are collinear."""
    both = active[:, None] & active
    chol = jnp.linalg.cholesky(jnp.where(both, gram, jnp.eye(active.size, dtype=gram.dtype)))
    return cho_solve((chol, True), jnp.where(active, cross, 0.0)), chol


def regress(
    columns: Float[Array, "time regressors"],
    returns: Float[Array, " time"],
    weights: Float[Array, " time"],
    active: Bool[Array, " regressors"],
) -> Regression:
    """Ordinary least squares over the rows of weight one. O(time regressors^2)."""
    weighted = weights[:, None] * columns
    coefficients, chol = solve_normal_equations(weighted.T @ columns, weighted.T @ returns, active)
    residuals = weights * (returns - columns @ coefficients)
    free = jnp.sum(weights) - jnp.sum(active)
    variance = jnp.where(free > 0, jnp.sum(residuals**2) / free, jnp.nan)
    return Regression(coefficients, chol, variance, residuals)
