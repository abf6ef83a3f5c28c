"""The Kalman update by one row of observations, in its implementations.

Every implementation reduces the row to its score u = Z' S^{-1} v and information G = Z' S^{-1} Z,
with v = y - d - Z m the prediction error and S = Z P Z' + R its covariance. Then the filtered mean
is m + P u, and the smoother needs nothing else of the row. Rows of `design` and entries of `errors`
must be zero where not `observed`. `errors` is v, (series,); `cov` is P, (states, states).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from jaxfc_kernels.constants import LOG_2PI


class Measurement(NamedTuple):
    """What one row of observations says about the state."""

    score: Array
    information: Array
    filtered_cov: Array
    loglik: Array


def symmetrize(matrix: Array) -> Array:
    """(A + A') / 2 over the last two axes."""
    return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))


def joint_measurement(
    cov: Array, design: Array, errors: Array, observed: Array, observation_cov: Array
) -> Measurement:
    """All observed series at once: one Cholesky factor of S, N^3 / 3 + O(N^2 m) flops.

    The covariance is updated in Joseph's form (I - K Z) P (I - K Z)' + K R K': a sum of positive
    semi-definite terms stays one in float32, and an error in the gain K enters only squared.
    """
    if observation_cov.ndim == 1:
        observation_cov = jnp.diag(observation_cov)
    pairs = observed[:, None] & observed
    missing = jnp.diag(jnp.where(observed, 0.0, 1.0).astype(cov.dtype))
    observation_cov = jnp.where(pairs, observation_cov, 0.0) + missing
    error_chol = jnp.linalg.cholesky(design @ cov @ design.T + observation_cov)
    stacked = jnp.concatenate([design, errors[:, None]], axis=1)
    whitened = solve_triangular(error_chol, stacked, lower=True)
    whitened_design, whitened_errors = whitened[:, :-1], whitened[:, -1]
    information = whitened_design.T @ whitened_design
    # gain transposed = weights P, weights = S^{-1} Z
    weights = solve_triangular(error_chol, whitened_design, lower=True, trans="T")
    keep = jnp.eye(cov.shape[0], dtype=cov.dtype) - cov @ information
    noise = cov @ (weights.T @ observation_cov @ weights) @ cov
    quadratic = jnp.sum(whitened_errors**2)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(error_chol)))
    return Measurement(
        score=whitened_design.T @ whitened_errors,
        information=information,
        filtered_cov=symmetrize(keep @ cov @ keep.T + noise),
        loglik=-0.5 * (jnp.sum(observed) * LOG_2PI + log_det + quadratic),
    )


def univariate_measurement(
    cov: Array, design: Array, errors: Array, observed: Array, observation_cov: Array
) -> Measurement:
    """One series after the other (Koopman and Durbin 2000): diagonal R, no factorisation, O(N m^2).

    With w = z - G P z the part of z that the earlier series have not used, its variance is
    f = z' P w + r, and u += w e / f, G += w w' / f, where e is the error given the earlier series.
    Valid for r = 0 as long as f > 0.
    """
    variances = jnp.where(observed, observation_cov, 1.0)

    def see_series(carry, inputs):
        score, information, loglik = carry
        z, error, is_observed, variance = inputs
        projected = cov @ z
        unused = z - information @ projected
        error_variance = projected @ unused + variance
        surprise = error - projected @ score
        score = score + unused * (surprise / error_variance)
        information = information + jnp.outer(unused, unused) / error_variance
        term = LOG_2PI + jnp.log(error_variance) + surprise**2 / error_variance
        return (score, information, loglik - jnp.where(is_observed, 0.5 * term, 0.0)), None

    start = (jnp.zeros_like(cov[0]), jnp.zeros_like(cov), jnp.zeros((), cov.dtype))
    (score, information, loglik), _ = jax.lax.scan(
        see_series, start, (design, errors, observed, variances)
    )
    filtered_cov = symmetrize(cov - cov @ information @ cov)
    return Measurement(score, information, filtered_cov, loglik)
