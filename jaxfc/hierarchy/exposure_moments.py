"""Moments of given factors, and what they make of exposures ahead."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.hierarchy.levels import product
from jaxfc.state_forecast import StateForecast
from jaxfc.typing import Array, Bool, Float


class FactorMoments(NamedTuple):
    """Mean and covariance of the factors of a row, in their units."""

    mean: Float[Array, " factors"]
    cov: Float[Array, "factors factors"]


def factor_moments(
    factors: Float[Array, "time factors"],
    observed: Bool[Array, "time factors"],
    half_life: Float[Array, ""] | None = None,
) -> FactorMoments:
    """Mean and covariance over the rows in which all factors are observed.

        mean = sum_t w_t f_t,     cov = sum_t w_t (f_t - mean)(f_t - mean)' / (1 - sum_t w_t^2)

    with equal w_t, for which this is the sample covariance, or (`half_life` in rows) w_t halved
    with each half-life of age; weights add up to one.
    """
    complete = jnp.all(observed, axis=1)
    factors = jnp.where(complete[:, None], factors, 0.0)
    weights = complete.astype(factors.dtype)
    if half_life is not None:
        ages = jnp.arange(len(factors) - 1, -1, -1)
        weights = weights * 0.5 ** (ages / half_life)
    weights = weights / jnp.sum(weights)
    mean = weights @ factors
    centred = jnp.where(complete[:, None], factors - mean, 0.0)
    cov = product("t,ta,tb->ab", weights, centred, centred)
    return FactorMoments(mean, cov / (1.0 - jnp.sum(weights**2)))


def with_constant(factors: Float[Array, "time factors"]) -> Float[Array, "time coefficients"]:
    """A column of ones before the factors: the coefficients are (alpha, beta')."""
    return jnp.concatenate([jnp.ones_like(factors[:, :1]), factors], axis=1)


def exposure_forecast(
    means: Float[Array, "horizon series coefficients"],
    covs: Float[Array, "series horizon coefficients horizon coefficients"],
    variances: Float[Array, " series"],
    factors: FactorMoments,
) -> StateForecast:
    """The moments of R_ih = alpha_ih + beta_ih' f_h + e_ih with exposures that are not known.

    `means`, `covs` are those of (alpha, beta')' over the horizon, independent of the factors, which
    are independent over time, and between assets. Then, with x = (1, f')',

        Cov(R_ih, R_ik) = E x' Cov(b_ih, b_ik) E x
                          + 1{h = k} (E b_ih' Cov(x) E b_ih + tr(Cov(b_ih) Cov(x)) + v_i)
        Cov(R_ih, R_jh) = E b_ih' Cov(x) E b_jh

    Means and covariances are exact; a product of normal laws is not normal, so quantiles and draws
    are those of a normal law with these moments.
    """
    horizon, num_series, _ = means.shape
    num_factors = len(factors.mean)
    row = jnp.concatenate([jnp.ones_like(factors.mean[:1]), factors.mean])
    at_steps = jnp.eye(horizon, dtype=means.dtype)
    loadings = means[:, :, 1:]
    design = product("hk,hia->hika", at_steps, loadings)
    state_cov = product("hk,ab->hakb", at_steps, factors.cov)
    size = horizon * num_factors
    over_time = product("a,ihakb,b->ihk", row, covs, row)
    same_step = product("ihahb->ihab", covs)[:, :, 1:, 1:]
    products = product("ihab,ab->ih", same_step, factors.cov)
    own = products + variances[:, None]
    return StateForecast(
        mean=means @ row,
        design=design.reshape(horizon, num_series, size),
        state_cov=state_cov.reshape(size, size),
        noise_cov=over_time + product("ih,hk->ihk", own, at_steps),
    )
