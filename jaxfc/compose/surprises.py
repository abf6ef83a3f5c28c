"""What each row of a panel brings that the rows before did not say: of the factors, of the series
alone, and how likely it was."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.factors import FittedFactorModel
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse

# A row that says less of a factor's innovation, measured by a row without holes, has not observed
# it; and errors are brought up from no less.
LEAST_SHARE = 0.5


class Surprises(eqx.Module):
    """Innovations of the factors and errors of the series as the filter sees them, row by row.

    With P_t = Cov(f_t | rows before) and P+_t = Cov(f_t | rows up to t) of the factor model,

        u_t = E[f_t | to t] - E[f_t | before],   Var u_t = P_t - P+_t
        e_t = x_t - mu - L E[f_t | to t],        Var e_it = S_i - (L P+_t L')_ii

    are too small by what the row leaves open. `innovations` are u_t times (Q_kk / Var u_kt)^{1/2}
    where the row says at least half as much of f_k as a row without holes (`known`; else zero);
    `errors` are e_t times (S_i / Var e_it)^{1/2}, at most 2^{1/2}, in data units.
    `prediction_errors` are x_t - E[x_t | before], unscaled, zero where not observed. `uncertainty`
    is P_t - Q: what of P_t is not the row's own innovation. `last_factors` (ascending) and
    `last_cov` (newest first) are the law of the last p factors given all rows.
    """

    innovations: Float[Array, "time factors"]
    known: Bool[Array, "time factors"]
    errors: Float[Array, "time series"]
    prediction_errors: Float[Array, "time series"]
    uncertainty: Float[Array, "time factors factors"]
    last_factors: Float[Array, "lags factors"]
    last_cov: Float[Array, "states states"]


def read_surprises(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
) -> Surprises:
    """Surprises of any panel at the fitted parameters: those of a row depend on no later one.
    O(time series K^2)."""
    space, num_factors = fitted.state_space(), fitted.parameters.num_factors
    loadings = fitted.scaling.scale[:, None] * fitted.parameters.loadings
    variances = fitted.scaling.scale**2 * fitted.parameters.variances
    moments = space.filter(values, observed, implementation="collapsed")
    before = moments.predicted_covs[:, :num_factors, :num_factors]
    after = moments.filtered_covs[:, :num_factors, :num_factors]
    moved = (moments.filtered_means - moments.predicted_means)[:, :num_factors]

    prior = jnp.diagonal(before, axis1=1, axis2=2)
    gained = prior - jnp.diagonal(after, axis1=1, axis2=2)
    innovation_cov = fitted.parameters.innovation_cov
    known = gained >= LEAST_SHARE * whole_shares(loadings, variances, innovation_cov) * prior
    stretch = jnp.sqrt(jnp.diagonal(innovation_cov) / jnp.where(known, gained, prior))

    open_still = jnp.einsum("ia,tab,ib->ti", loadings, after, loadings)
    share = jnp.maximum(1.0 - open_still / variances, LEAST_SHARE)
    errors = (moments.prediction_errors - moved @ loadings.T) / jnp.sqrt(share)
    return Surprises(
        innovations=jnp.where(known, stretch * moved, 0.0),
        known=known,
        errors=jnp.where(observed, errors, 0.0),
        prediction_errors=moments.prediction_errors,
        uncertainty=before - innovation_cov,
        last_factors=moments.filtered_means[-1].reshape(-1, num_factors)[::-1],
        last_cov=moments.filtered_covs[-1],
    )


def whole_shares(
    loadings: Float[Array, "series factors"],
    variances: Float[Array, " series"],
    innovation_cov: Float[Array, "factors factors"],
) -> Float[Array, " factors"]:
    """How much of the variance of each innovation a row without holes says: one less the diagonal
    of (Q^{-1} + L' S^{-1} L)^{-1} in units of Q's."""
    how = fastest_implementation(loadings.shape[1])
    information = (loadings.T / variances) @ loadings
    left = spd_inverse(spd_inverse(innovation_cov, how)[0] + information, how)[0]
    return 1.0 - jnp.diagonal(left) / jnp.diagonal(innovation_cov)


def gaussian_densities(
    errors: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    loadings: Float[Array, "series factors"],
    factor_covs: Float[Array, "time factors factors"],
    variances: Float[Array, "time series"],
) -> Float[Array, " time"]:
    """ln N(v_t; 0, L F_t L' + diag(s_t)) of the known block of every row, by

        det(L F L' + D) = det D det F det J,      J = F^{-1} + L' D^{-1} L
        (L F L' + D)^{-1} = D^{-1} - D^{-1} L J^{-1} L' D^{-1}

    O(time (series K^2 + K^3)). Source: Woodbury (1950).
    """
    how = fastest_implementation(loadings.shape[1])
    weights = jnp.where(known, 1.0 / variances, 0.0)
    information = jnp.einsum("ti,ia,ib->tab", weights, loadings, loadings)
    vectors = (weights * errors) @ loadings
    precision, pivots = spd_inverse(factor_covs, how)
    posterior, more = spd_inverse(precision + information, how)
    log_det = jnp.sum(jnp.where(known, jnp.log(2.0 * jnp.pi * variances), 0.0), axis=1)
    log_det = log_det + jnp.sum(jnp.log(pivots) + jnp.log(more), axis=1)
    square = jnp.sum(weights * errors**2, axis=1)
    square = square - jnp.einsum("ta,tab,tb->t", vectors, posterior, vectors)
    return -0.5 * (log_det + square)
