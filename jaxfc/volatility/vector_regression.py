"""A vector regressed on its own past with holes: least squares, moving averages by likelihood."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.lags import lagged, push
from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.horizon import product, symmetric
from jaxfc.volatility.search import Minimum, minimise
from jaxfc_kernels.lyapunov import companion, stationary_cov
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse


class Rows(NamedTuple):
    """What the equations read: regressors 1, r_{t-1}', ..., r_{t-p}', x_{t-1}' (zero where not
    observed), r_t, and the cells whose value and regressors are all observed."""

    columns: Float[Array, "time columns"]
    targets: Float[Array, "time series"]
    known: Bool[Array, "time series"]


def rows_of(
    values: Float[Array, "time all"],
    observed: Bool[Array, "time all"],
    num_exogenous: int,
    lags: int,
) -> Rows:
    """Rows of a panel whose last `num_exogenous` columns are x. Nothing precedes the first row."""
    num_series = values.shape[1] - num_exogenous
    values = jnp.where(observed, values, 0.0)
    returns, given = values[:, :num_series], values[:, num_series:]
    columns = [jnp.ones_like(returns[:, :1])]
    columns.extend(lagged(returns, lag) for lag in range(1, lags + 1))
    columns.append(lagged(given, 1))
    known = known_cells(observed, num_exogenous, lags)
    return Rows(jnp.concatenate(columns, axis=1), returns, known)


def known_cells(
    observed: Bool[Array, "time all"], num_exogenous: int, lags: int
) -> Bool[Array, "time series"]:
    """Cells whose value and regressors are observed."""
    num_series = observed.shape[1] - num_exogenous
    returns, given = observed[:, :num_series], observed[:, num_series:]
    known = returns
    for lag in range(1, lags + 1):
        known = known & lagged(jnp.all(returns, axis=1), lag)[:, None]
    if num_exogenous:
        known = known & lagged(jnp.all(given, axis=1), 1)[:, None]
    return known


def least_squares(rows: Rows) -> Float[Array, "series columns"]:
    """Coefficients of every equation over its own known rows; NaN where columns are collinear.
    O(time series columns^2)."""
    weights = rows.known.astype(rows.columns.dtype)
    grams = product("ti,ta,tb->iab", weights, rows.columns, rows.columns)
    cross = product("ti,ta->ia", weights * rows.targets, rows.columns)

    def solve(gram: Array, moments: Array) -> Array:
        chol = jnp.linalg.cholesky(gram)
        rounding = len(gram) * jnp.finfo(gram.dtype).eps * jnp.diagonal(gram)
        independent = jnp.all(jnp.diagonal(chol) ** 2 > rounding)
        found = jax.scipy.linalg.cho_solve((chol, True), moments)
        return jnp.where(independent, found, jnp.nan)

    return jax.vmap(solve)(grams, cross)


def residuals_of(
    coefficients: Float[Array, "series regressors"], rows: Rows
) -> Float[Array, "time series"]:
    """e_t = r_t - (columns' part) - sum_k B_k e_{t-k}, zero where not known and before the first
    row. The last coefficients, if more than the columns, are B_1, ..., B_q."""
    columns, targets, known = rows
    num_columns, size = columns.shape[1], targets.shape[1]
    plain = targets - product("ta,ia->ti", columns, coefficients[:, :num_columns])
    plain = jnp.where(known, plain, 0.0)
    if coefficients.shape[1] == num_columns:
        return plain
    moving = jnp.moveaxis(coefficients[:, num_columns:].reshape(size, -1, size), 1, 0)

    def step(before, row):
        value, seen = row
        value = jnp.where(seen, value - product("kab,kb->a", moving, before), 0.0)
        return push(before, value), value

    before = jnp.zeros(moving.shape[:2], plain.dtype)
    return jax.lax.scan(step, before, (plain, known))[1]


def hannan_rissanen(
    values: Float[Array, "time all"],
    observed: Bool[Array, "time all"],
    num_exogenous: int,
    lags: int,
    num_ma: int,
) -> Float[Array, "series regressors"]:
    """Coefficients with q lagged residuals of a long autoregression as further regressors.

    Source: Hannan and Rissanen (1982).
    """
    num_rows, size = values.shape[0], values.shape[1] - num_exogenous
    # The autoregression may spend a quarter of its rows on coefficients.
    longest = num_rows // (4 * size)
    many = max(1, min(lags + num_ma + math.ceil(math.log(num_rows)), longest))
    long_rows = rows_of(values, observed, num_exogenous, many)
    before = residuals_of(least_squares(long_rows), long_rows)
    rows, seen = rows_of(values, observed, num_exogenous, lags), long_rows.known
    columns, known = [rows.columns], rows.known
    for lag in range(1, num_ma + 1):
        columns.append(lagged(before, lag))
        known = known & lagged(jnp.all(seen, axis=1), lag)[:, None]
    return least_squares(Rows(jnp.concatenate(columns, axis=1), rows.targets, known))


def residual_cov(
    residuals: Float[Array, "time series"], known: Bool[Array, "time series"]
) -> Float[Array, "series series"]:
    """Mean products over the rows in which both are known."""
    weights = known.astype(residuals.dtype)
    counts = product("ti,tj->ij", weights, weights)
    total = product("ti,tj->ij", residuals, residuals)
    return symmetric(total / jnp.maximum(counts, 1.0))


def known_blocks(
    cov: Float[Array, "series series"], known: Bool[Array, "time series"]
) -> Float[Array, "time series series"]:
    """The covariance of what is known of every row; the others stand apart with unit variance."""
    both = known[:, :, None] & known[:, None, :]
    return jnp.where(both, cov, jnp.eye(cov.shape[0], dtype=cov.dtype))


def row_losses(free: Float[Array, " p"], rows: Rows) -> Float[Array, " time"]:
    """(ln det S_t + e_t' S_t^{-1} e_t) / 2 of the known block S_t of S, the mean of e e' at these
    coefficients. With all known, their sum is that of the concentrated likelihood, n / 2 ln det S,
    and a constant."""
    residuals = residuals_of(free.reshape(rows.targets.shape[1], -1), rows)
    blocks = known_blocks(residual_cov(residuals, rows.known), rows.known)
    inverses, pivots = spd_inverse(blocks, fastest_implementation(blocks.shape[1]))
    squares = product("ti,tij,tj->t", residuals, inverses, residuals)
    return 0.5 * (jnp.sum(jnp.log(pivots), axis=1) + squares)


def conditional_likelihood(
    rows: Rows,
    starts: Float[Array, "starts series regressors"],
    tolerance: Float[Array, ""],
    max_steps: int,
) -> Minimum:
    """Coefficients (as one vector) at the maximum of the Gaussian likelihood given e = 0 before
    the first known row, from the best of the starts."""
    vectors = starts.reshape(len(starts), -1)
    return minimise(row_losses, vectors, rows, tolerance, max_steps)


def is_stable(lags: Float[Array, "lags series series"]) -> Bool[Array, ""]:
    """Whether x_t = sum_j L_j x_{t-j} dies out, without eigenvalues (see `stationary_cov`)."""
    if lags.shape[0] == 0:
        return jnp.asarray(True)
    transition = jax.lax.stop_gradient(companion(lags))
    identity = jnp.eye(len(transition), dtype=transition.dtype)
    return jnp.all(jnp.isfinite(stationary_cov(transition, identity)))
