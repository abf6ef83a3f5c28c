"""Identification: factors are unique only up to an invertible transformation F -> R F."""

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import FactorPosterior
from jaxfc.typing import Array, Float


def rotate_parameters(
    parameters: FactorParameters, matrix: Float[Array, "factors factors"]
) -> FactorParameters:
    """Parameters of R F: (W R^{-1}, R A_l R^{-1}, R Q R'), the same law of the panel."""
    inverse = jnp.linalg.inv(matrix)
    blocks = max(parameters.num_lags, 1)
    wide = jnp.kron(jnp.eye(blocks, dtype=matrix.dtype), matrix)
    return FactorParameters(
        loadings=parameters.loadings @ inverse,
        intercept=parameters.intercept,
        idiosyncratic_cov=parameters.idiosyncratic_cov,
        transition=matrix @ parameters.transition @ inverse,
        innovation_cov=matrix @ parameters.innovation_cov @ matrix.T,
        initial_mean=wide @ parameters.initial_mean,
        initial_cov=wide @ parameters.initial_cov @ wide.T,
    )


def rotate_posterior(
    posterior: FactorPosterior, matrix: Float[Array, "factors factors"]
) -> FactorPosterior:
    """Moments of R F."""
    return FactorPosterior(
        posterior.means @ matrix.T,
        matrix @ posterior.lag_covs @ matrix.T,
        posterior.evidence,
    )


def second_moment(posterior: FactorPosterior) -> Float[Array, "factors factors"]:
    """E[F_t F_t' | x], averaged over time: defined for unit roots too."""
    means = posterior.means
    return (means.T @ means + jnp.sum(posterior.covs, axis=0)) / means.shape[0]


def sign_of(loadings: Float[Array, "series factors"]) -> Float[Array, " factors"]:
    """+1 or -1 such that every column's sum times it is not negative."""
    return jnp.where(jnp.sum(loadings, axis=0) < 0, -1.0, 1.0).astype(loadings.dtype)


def principal_rotation(
    parameters: FactorParameters, posterior: FactorPosterior
) -> Float[Array, "factors factors"]:
    """R with E[FF'] = I over the sample and W'W diagonal, descending; loadings sum to >= 0.

    The static model keeps its prior N(0, I), so only the orthogonal part applies there.
    """
    num_factors = parameters.num_factors
    if parameters.num_lags == 0:
        scale = jnp.eye(num_factors, dtype=parameters.loadings.dtype)
    else:
        scale = jnp.linalg.cholesky(second_moment(posterior))
    loadings = parameters.loadings @ scale
    _, vectors = jnp.linalg.eigh(loadings.T @ loadings)
    vectors = vectors[:, ::-1]
    vectors = vectors * sign_of(loadings @ vectors)
    return jnp.linalg.solve(scale.T, vectors).T
