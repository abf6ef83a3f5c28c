"""The numbers of own lags and factor lags, by an AIC that knows that factors are estimated.

With z_t the regressors, zh_t = E[z_t | panel] and V_t = Cov[z_t | panel] (nonzero for factors),

    theta = (sum_t zh_t zh_t' + V_t)^{-1} sum_t zh_t r_t
    v     = (1/n) sum_t { (r_t - zh_t' theta)^2 + theta' V_t theta }
    AIC   = n ln v + 2 (number of coefficients),

least squares on the expected moments: what the factors' uncertainty adds to the variance of the
error counts against them. All candidates are compared on one sample, that of the largest.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.compose.regression import (
    Sizes,
    active_columns,
    factor_columns,
    own_columns,
    row_weights,
    solve_normal_equations,
)
from jaxfc.lags import lagged
from jaxfc.typing import Array, Bool, Float, Int


class LagChoice(eqx.Module):
    """The chosen numbers and the table they were chosen from; infinite where a candidate is not
    admitted. Rows: own lags 0..q; columns: factor lags 0..s."""

    num_own_lags: Int[Array, ""]
    num_factor_lags: Int[Array, ""]
    aic: Float[Array, "own_lags factor_lags"]


class ExpectedMoments(eqx.Module):
    """Sums over the usable rows: E[z z' | panel], E[z | panel] r, r^2, and their number."""

    gram: Float[Array, "regressors regressors"]
    cross: Float[Array, " regressors"]
    square: Float[Array, ""]
    count: Float[Array, ""]


def expected_moments(
    returns: Float[Array, " time"],
    weights: Float[Array, " time"],
    means: Float[Array, "time factors"],
    lag_covs: Float[Array, "orders time factors factors"],
    max_own_lags: int,
    max_factor_lags: int,
) -> ExpectedMoments:
    """Moments of the largest model; lag_covs[l, t] = Cov[f_t, f_{t-l} | panel]."""
    columns = jnp.concatenate(
        [own_columns(returns, max_own_lags), factor_columns(means, max_factor_lags)], axis=1
    )
    weighted = weights[:, None] * columns
    gram = weighted.T @ columns
    num_factors, first = means.shape[1], 1 + max_own_lags
    for i in range(1, max_factor_lags + 1):
        for j in range(i, max_factor_lags + 1):
            spread = jnp.einsum("t,tab->ab", weights, lagged(lag_covs[j - i], i))
            rows = slice(first + (i - 1) * num_factors, first + i * num_factors)
            cols = slice(first + (j - 1) * num_factors, first + j * num_factors)
            gram = gram.at[rows, cols].add(spread)
            if j > i:
                gram = gram.at[cols, rows].add(spread.T)
    return ExpectedMoments(
        gram, weighted.T @ returns, jnp.sum(weights * returns**2), jnp.sum(weights)
    )


def expected_variance(
    moments: ExpectedMoments, active: Bool[Array, " regressors"]
) -> Float[Array, ""]:
    """v, at least squares on the expected moments."""
    coefficients, _ = solve_normal_equations(moments.gram, moments.cross, active)
    # At the solution the expected sum of squares is r'r - theta' sum zh r.
    return (moments.square - coefficients @ moments.cross) / moments.count


def adjusted_aic(moments: ExpectedMoments, active: Bool[Array, " regressors"]) -> Float[Array, ""]:
    """n ln v + 2 (number of coefficients)."""
    variance = expected_variance(moments, active)
    return moments.count * jnp.log(variance) + 2.0 * jnp.sum(active)


def choose_lags(
    returns: Float[Array, " time"],
    seen: Bool[Array, " time"],
    means: Float[Array, "time factors"],
    lag_covs: Float[Array, "orders time factors factors"],
    sizes: Sizes,
    max_own_lags: int,
    max_factor_lags: int,
    min_own_lags: int,
    min_factor_lags: int,
) -> LagChoice:
    """The smallest adjusted AIC among q in min..max own lags and s in min..max factor lags, s no
    larger than the lags p of the factors' VAR (or than 1 where p = 0). Pure."""
    weights = row_weights(seen, max_own_lags, max_factor_lags, max_own_lags, returns.dtype)
    moments = expected_moments(returns, weights, means, lag_covs, max_own_lags, max_factor_lags)
    shape = (max_own_lags + 1, max_factor_lags + 1)
    numbers = jnp.asarray(np.indices(shape).reshape(2, -1).T)

    def value(candidate: Int[Array, " two"]) -> Float[Array, ""]:
        own, lags = candidate
        tried = Sizes(sizes.num_factors, sizes.num_lags, own, lags)
        active = active_columns(tried, means.shape[1], max_own_lags, max_factor_lags)
        admitted = (own >= min_own_lags) & (lags >= min_factor_lags)
        admitted = admitted & (lags <= jnp.maximum(sizes.num_lags, 1))
        aic = adjusted_aic(moments, active)
        return jnp.where(admitted & jnp.isfinite(aic), aic, jnp.inf)

    aic = jax.vmap(value)(numbers).reshape(shape)
    own, lags = jnp.unravel_index(jnp.argmin(aic), shape)
    return LagChoice(own, lags, aic)
