"""Information matrices of the factor model: observed (Hessian) and outer product of scores.

    H = -d^2 ln p(x; theta) / d theta d theta',       J = sum_t s_t s_t',
    s_t = d/dtheta ln p(x_t | x_0, ..., x_{t-1}; theta)

H by Hessian-vector products of the Fisher score (one linearised E-step each), J from the terms of
the prediction-error decomposition.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.em import PanelData
from jaxfc.factors.free_parameters import FreeParameters
from jaxfc.factors.likelihood import loglik
from jaxfc.state_space import StateSpace
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.lyapunov import companion


def observed_information(
    free: FreeParameters,
    vector: Float[Array, " parameters"],
    template: FactorParameters,
    data: PanelData,
    batch_size: int | None = None,
) -> tuple[Float[Array, " parameters"], Float[Array, "parameters parameters"]]:
    """Score and H at `vector`, `batch_size` columns of H at a time (None: all)."""

    def value(vector: Float[Array, " parameters"]) -> Float[Array, ""]:
        return loglik(free.unpack(vector, template), data, initial=free.initial)

    score, product = jax.linearize(jax.grad(value), vector)
    columns = map_in_batches(product, jnp.eye(vector.size, dtype=vector.dtype), batch_size)
    return score, -0.5 * (columns + columns.T)


def score_terms(
    free: FreeParameters,
    vector: Float[Array, " parameters"],
    template: FactorParameters,
    data: PanelData,
    batch_size: int | None = None,
) -> Float[Array, "time parameters"]:
    """s_t for each row, forward through the filter, `batch_size` parameters at a time."""

    def terms(vector: Float[Array, " parameters"]) -> Float[Array, " time"]:
        space = companion_space(free.unpack(vector, template), free.initial)
        observed = data.observed > 0
        return space.filter(data.values, observed, implementation="collapsed").loglik_terms

    _, product = jax.linearize(terms, vector)
    return map_in_batches(product, jnp.eye(vector.size, dtype=vector.dtype), batch_size).T


def companion_space(parameters: FactorParameters, initial: str) -> StateSpace:
    """The standardised model as a state space; states (f_t, ..., f_{t-p+1}), newest first.

    An estimated initial law is that of the p periods before the panel, one step before row 0.
    """
    num_lags, num_factors = max(parameters.num_lags, 1), parameters.num_factors
    size, dtype = num_lags * num_factors, parameters.loadings.dtype
    noise = jnp.zeros((size, size), dtype)
    noise = noise.at[:num_factors, :num_factors].set(parameters.innovation_cov)
    transition = jnp.zeros((size, size), dtype)
    if parameters.num_lags:
        transition = companion(parameters.transition)
    newest_first = jnp.arange(size).reshape(num_lags, num_factors)[::-1].reshape(-1)
    mean = parameters.initial_mean[newest_first]
    cov = parameters.initial_cov[newest_first][:, newest_first]
    if initial == "estimated" and parameters.num_lags:
        mean, cov = transition @ mean, transition @ cov @ transition.T + noise
    return StateSpace(
        initial_mean=mean,
        initial_cov=cov,
        transition=transition,
        offset=jnp.zeros(size, dtype),
        innovation_cov=noise,
        design=jnp.pad(parameters.loadings, ((0, 0), (0, size - num_factors))),
        observation_offset=parameters.intercept,
        observation_cov=parameters.idiosyncratic_cov,
    )


class Spectrum(NamedTuple):
    """Eigenvalues (ascending) and vectors of an information matrix scaled to unit diagonal.

    M = D C D with D = diag(M)^{1/2}; `scales` is D. `positive_definite` also asks that the smallest
    eigenvalue of C stands above rounding, eps times the number of parameters; `tolerance` is that.
    """

    eigenvalues: Float[Array, " parameters"]
    vectors: Float[Array, "parameters parameters"]
    scales: Float[Array, " parameters"]
    tolerance: Float[Array, ""]
    positive_definite: Bool[Array, ""]

    def root(self) -> Float[Array, "parameters parameters"]:
        """B with B B' = M^{-1}; NaN unless M is positive definite (never a pseudo-inverse)."""
        safe = jnp.where(self.positive_definite, self.eigenvalues, jnp.nan)
        return self.vectors / jnp.sqrt(safe) / self.scales[:, None]


def spectrum(matrix: Float[Array, "parameters parameters"]) -> Spectrum:
    """The eigenvalues that say whether an information matrix can be inverted."""
    diagonal = jnp.abs(jnp.diagonal(matrix))
    scales = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    eigenvalues, vectors = jnp.linalg.eigh(matrix / scales[:, None] / scales)
    tolerance = jnp.finfo(matrix.dtype).eps * matrix.shape[0] * jnp.max(jnp.abs(eigenvalues))
    return Spectrum(eigenvalues, vectors, scales, tolerance, jnp.min(eigenvalues) > tolerance)
