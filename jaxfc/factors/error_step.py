"""M-step of a factor model with AR(1) errors: conditional maximisation over (W, mu), then (r, S).

Given the errors' precision P_i (at the old r_i, S_i), the loadings are a generalised least squares
regression on the factors' posterior moments,

    (sum_{t,s} P_i[t,s] E[z_t z_s']) w_i = sum_t (P_i x_i)_t E[z_t],   z_t = (F_t', 1)'

and given the loadings, with E the expected products of residuals e = x - w'z over the pairs (s, t)
of consecutive observed dates at gap g,

    (r_i, S_i) = argmin sum_pairs [ln S (1 - r^2g) + E(e_t - r^g e_s)^2 / (S (1 - r^2g))]
                        + sum_starts [ln S + E e_t^2 / S]

in which S has a closed form and r is one number, moved by safeguarded Newton steps. Both raise the
expected likelihood, so the iteration is monotone (ECM, Meng and Rubin 1993).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.factors.moments import FactorPosterior
from jaxfc.factors.regression import Regression
from jaxfc.typing import Array, Float
from jaxfc_kernels.autoregressive_errors import (
    ErrorPrecision,
    Gaps,
    apply_precision,
    coupling_entries,
    error_precision,
    gap_tables,
)
from jaxfc_kernels.collapse import packed_indices, unpack

NUM_NEWTON_STEPS = 3


class LaggedRegression(NamedTuple):
    """`regression` and, for each lag d = 1..longest, E[z_t z_{t-d}'] + its transpose, packed, and
    half of what of it is covariance: (longest, time, packed)."""

    regression: Regression
    seconds: Float[Array, "orders time packed"]
    covs: Float[Array, "orders time packed"]


def lagged_regression(
    regression: Regression, posterior: FactorPosterior, presample: int, longest: int
) -> LaggedRegression:
    """Moments of the regressors up to `longest` periods apart."""
    regressors = regression.regressors
    num_times, size = regressors.shape
    rows, columns, _ = packed_indices(size)
    lag_covs = posterior.lag_covs[1 : longest + 1, presample:]
    if regression.with_intercept:
        lag_covs = jnp.pad(lag_covs, ((0, 0), (0, 0), (0, 1), (0, 1)))
    covs = lag_covs[..., rows, columns] + lag_covs[..., columns, rows]
    products = []
    for lag in range(1, longest + 1):
        earlier = jnp.pad(regressors[: num_times - lag], ((lag, 0), (0, 0)))
        product = regressors[:, rows] * earlier[:, columns]
        products.append(product + regressors[:, columns] * earlier[:, rows])
    stacked = jnp.stack(products) if products else jnp.zeros_like(covs)
    return LaggedRegression(regression, covs + stacked, 0.5 * covs)


def loadings_moments(
    lagged: LaggedRegression,
    precision: ErrorPrecision,
    gaps: Gaps,
    values: Float[Array, "time series"],
    weights: Float[Array, "time series"] | None,
) -> tuple[Float[Array, "series regressors regressors"], Float[Array, "series regressors"]]:
    """Normal equations of the loadings of every series."""
    regressors = lagged.regression.regressors
    size = regressors.shape[1]
    rows, columns, _ = packed_indices(size)
    own = lagged.regression.packed_covs + regressors[:, rows] * regressors[:, columns]
    moments = precision.diagonal.T @ own
    entries = coupling_entries(precision, gaps, weights)
    length = entries.shape[0] * values.shape[0]
    flat = entries.reshape(length, values.shape[1])
    moments = moments - flat.T @ lagged.seconds.reshape(length, rows.size)
    return unpack(moments, size), apply_precision(precision, gaps, values, weights).T @ regressors


class PairSums(NamedTuple):
    """Sums over the pairs of each gap and series, (longest + 1, series): E e_t^2, E e_t e_{t-g},
    E e_{t-g}^2 (gap 0: the starts), and the number of pairs."""

    later: Array
    cross: Array
    earlier: Array
    counts: Array


class ResidualMoments(NamedTuple):
    """Residuals at the posterior means, (time, series), and what the factors' uncertainty adds to
    E e_t^2, (time, series), and to E e_t e_{t-d}, (orders, time, series)."""

    residuals: Array
    spread: Array
    lagged_spread: Array


def residual_moments(
    lagged: LaggedRegression,
    coefficients: Float[Array, "series regressors"],
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
) -> ResidualMoments:
    """Residuals are formed, not expanded, so that close fits lose no digits."""
    rows, columns, _ = packed_indices(coefficients.shape[1])
    outer = (coefficients[:, rows] * coefficients[:, columns]).T
    doubled = jnp.where(jnp.asarray(rows == columns)[:, None], outer, 2.0 * outer)
    residuals = values - observed * (lagged.regression.regressors @ coefficients.T)
    spread = observed * (lagged.regression.packed_covs @ doubled)
    return ResidualMoments(residuals, spread, lagged.covs @ doubled)


def pair_sums(
    moments: ResidualMoments, gaps: Gaps, weights: Float[Array, "time series"] | None
) -> PairSums:
    """Expected products of residuals, summed by gap."""
    residuals, spread, products = moments
    longest, num_times = gaps.at.shape[0] - 1, residuals.shape[0]
    squares = residuals**2 + spread
    at = gaps.at if weights is None else gaps.at * weights
    cross, earlier = [jnp.zeros_like(squares[0])], [jnp.zeros_like(squares[0])]
    for gap in range(1, longest + 1):
        pairs, stop = at[gap, gap:], num_times - gap
        product = residuals[gap:] * residuals[:stop] + products[gap - 1, gap:]
        cross.append(jnp.sum(pairs * product, axis=0))
        earlier.append(jnp.sum(pairs * squares[:stop], axis=0))
    later = jnp.sum(at * squares, axis=1)
    return PairSums(later, jnp.stack(cross), jnp.stack(earlier), gaps.counts)


def concentrated(
    ar: Float[Array, " series"], sums: PairSums
) -> tuple[Float[Array, " series"], Float[Array, " series"]]:
    """The criterion at the best S for each r, and that S."""
    tables = gap_tables(ar, jnp.ones_like(ar), sums.later.shape[0] - 1)
    power, variance = tables.coefficients, tables.variances
    squares = sums.later - 2.0 * power * sums.cross + power**2 * sums.earlier
    count = jnp.maximum(jnp.sum(sums.counts, axis=0), 1.0)
    best = jnp.sum(squares / variance, axis=0) / count
    return count * jnp.log(best) + jnp.sum(sums.counts * jnp.log(variance), axis=0), best


def autoregression_step(
    ar: Float[Array, " series"], sums: PairSums, largest: Float[Array, ""]
) -> tuple[Float[Array, " series"], Float[Array, " series"]]:
    """Better (or equal) r_i and its S_i: Newton steps on the criterion, shortened until it
    falls."""

    def criterion(r: Array) -> Array:
        return concentrated(r, sums)[0]

    ar = lower_criterion(criterion, ar, jnp.sum(sums.counts, axis=0), largest)
    return ar, concentrated(ar, sums)[1]


def lower_criterion(
    criterion: Callable[[Array], Array],
    ar: Float[Array, " series"],
    counts: Float[Array, " series"],
    largest: Float[Array, ""],
) -> Float[Array, " series"]:
    """Newton steps on a criterion of each series' own coefficient, shortened until it falls;
    `counts`: what each criterion sums over."""

    def slope(r: Array) -> Array:
        # Each criterion depends on its own coefficient alone: one direction has all slopes.
        return jax.jvp(criterion, (r,), (jnp.ones_like(r),))[1]

    def newton(r: Array, _) -> tuple[Array, None]:
        first, second = jax.jvp(slope, (r,), (jnp.ones_like(r),))
        curvature = jnp.maximum(jnp.abs(second), 1e-6 * counts + 1e-12)
        # A series without pairs (a flow, or one that is never observed) has a flat criterion.
        step = jnp.nan_to_num(first / curvature)
        shares = jnp.array([1.0, 0.25, 0.0625, 0.0], ar.dtype)[:, None]
        tried = jnp.clip(r - shares * step, -largest, largest)
        values = jax.vmap(criterion)(tried)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        return jnp.take_along_axis(tried, jnp.argmin(values, axis=0)[None], axis=0)[0], None

    return jax.lax.scan(newton, ar, None, length=NUM_NEWTON_STEPS)[0]


def precision_of(
    ar: Array, variances: Array, gaps: Gaps, observed: Array, weights: Array | None
) -> ErrorPrecision:
    """Precision of the errors at these parameters."""
    tables = gap_tables(ar, variances, gaps.at.shape[0] - 1)
    return error_precision(observed, gaps, tables, weights)
