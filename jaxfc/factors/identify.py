"""Identification: factors are unique only up to an invertible transformation F -> R F.

Three normalisations, each with E[f_t f_t' | panel] = I on average over the sample for a dynamic
model; a static model keeps its prior N(0, I), so that only orthogonal R are applied there.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import FactorPosterior
from jaxfc.typing import Array, Float, Int

if TYPE_CHECKING:
    from jaxfc.factors.model import FittedFactorModel

Identification = Literal["principal_components", "lower_triangular", "varimax"]
MAX_VARIMAX_STEPS = 1000


def identify(
    fitted: "FittedFactorModel",
    how: Identification,
    *,
    series: Sequence[int] | None = None,
    normalise_rows: bool = True,
) -> "FittedFactorModel":
    """The same fitted model with its factors transformed to R F; pure.

        W -> W R^{-1},   A_l -> R A_l R^{-1},   Q -> R Q R',   f_t -> R f_t

    Likelihood, common component and forecasts do not change; parameters, factors and their
    covariances do, together. In all three the sample second moment of the factors is I (dynamic
    models; a static model keeps its prior N(0, I)), and

    - "principal_components": W'W is diagonal, descending; every column of W sums to >= 0;
    - "lower_triangular": the rows of W that belong to `series` (default: the first K) are lower
      triangular with positive diagonal, so that factor k moves these series from the k-th on;
    - "varimax": the orthogonal rotation of the first that maximises the variance of the squared
      loadings, sum_k [mean_i w_ik^4 - (mean_i w_ik^2)^2], each row of W first divided by its length
      if `normalise_rows` (Kaiser's "normal" criterion) or not ("raw"); factors by explained
      variance, descending; columns sum to >= 0.

    **Raises:** `ValueError` for an unknown name, for `series` with another identification, and if
    they are not K different positions.

    Source: Kaiser (1958); Bai and Wang (2015) for the triangular form.
    """
    loadings, num_factors = fitted.parameters.loadings, fitted.parameters.num_factors
    if series is not None and how != "lower_triangular":
        raise ValueError(f"`series` belongs to 'lower_triangular', not to {how!r}; leave it out.")
    if how not in ("principal_components", "lower_triangular", "varimax"):
        raise ValueError(
            f"unknown identification {how!r}; use 'principal_components', 'lower_triangular' or "
            "'varimax'."
        )
    moment = fitted.factors.T @ fitted.factors + jnp.sum(fitted.factor_covs, axis=0)
    scale = unit_scale(fitted.parameters, moment / fitted.factors.shape[0])
    loadings = loadings @ scale
    if how == "lower_triangular":
        rows = tuple(range(num_factors)) if series is None else tuple(series)
        check_rows(rows, *loadings.shape)
        rotation = triangular_rotation(loadings[jnp.asarray(rows)])
    else:
        rotation = principal_vectors(loadings)
        if how == "varimax":
            loadings = loadings @ rotation
            rotation = rotation @ varimax_rotation(loadings, normalise_rows=normalise_rows)
    return rotate_fitted(fitted, transform(scale, rotation))


def check_rows(rows: tuple[int, ...], num_series: int, num_factors: int) -> None:
    """Raise `ValueError` unless the rows are K different series."""
    inside = all(0 <= row < num_series for row in rows)
    if len(rows) != num_factors or len(set(rows)) != num_factors or not inside:
        raise ValueError(
            f"series must be {num_factors} different positions from 0 to {num_series - 1}, one for "
            f"each factor, got {rows}."
        )


def rotate_parameters(
    parameters: FactorParameters,
    matrix: Float[Array, "factors factors"],
    inverse: Float[Array, "factors factors"] | None = None,
) -> FactorParameters:
    """Parameters of R F: (W R^{-1}, R A_l R^{-1}, R Q R'), the same law of the panel."""
    inverse = jnp.linalg.inv(matrix) if inverse is None else inverse
    wide = over_lags(matrix, parameters.num_lags)
    return dataclasses.replace(
        parameters,
        loadings=parameters.loadings @ inverse,
        transition=matrix @ parameters.transition @ inverse,
        innovation_cov=matrix @ parameters.innovation_cov @ matrix.T,
        initial_mean=wide @ parameters.initial_mean,
        initial_cov=wide @ parameters.initial_cov @ wide.T,
    )


def over_lags(matrix: Float[Array, "factors factors"], num_lags: int) -> Array:
    """I_p kron R: the transformation of p stacked periods (of one if p = 0)."""
    return jnp.kron(jnp.eye(max(num_lags, 1), dtype=matrix.dtype), matrix)


def rotate_posterior(
    posterior: FactorPosterior, matrix: Float[Array, "factors factors"]
) -> FactorPosterior:
    """Moments of R F."""
    return FactorPosterior(
        posterior.means @ matrix.T,
        matrix @ posterior.lag_covs @ matrix.T,
        posterior.evidence,
    )


def rotate_fitted(
    fitted: "FittedFactorModel", matrix: Float[Array, "factors factors"]
) -> "FittedFactorModel":
    """The fitted model of R F. For p = 0, R must be orthogonal: the prior N(0, I) is part of it."""
    wide = over_lags(matrix, fitted.model.memory)
    changed = (
        rotate_parameters(fitted.parameters, matrix),
        fitted.factors @ matrix.T,
        matrix @ fitted.factor_covs @ matrix.T,
        wide @ fitted.last_mean,
        wide @ fitted.last_cov @ wide.T,
    )
    return eqx.tree_at(
        lambda f: (f.parameters, f.factors, f.factor_covs, f.last_mean, f.last_cov), fitted, changed
    )


def second_moment(
    posterior: FactorPosterior, end: Int[Array, ""] | None = None
) -> Float[Array, "factors factors"]:
    """E[F_t F_t' | x], averaged over the periods before `end` (all): defined for unit roots too."""
    means, covs = posterior.means, posterior.covs
    if end is None:
        return (means.T @ means + jnp.sum(covs, axis=0)) / means.shape[0]
    used = (jnp.arange(means.shape[0]) < end).astype(means.dtype)
    means = used[:, None] * means
    return (means.T @ means + jnp.einsum("t,tij->ij", used, covs)) / end


def sign_of(loadings: Float[Array, "series factors"]) -> Float[Array, " factors"]:
    """+1 or -1 such that every column's sum times it is not negative."""
    return jnp.where(jnp.sum(loadings, axis=0) < 0, -1.0, 1.0).astype(loadings.dtype)


def unit_scale(
    parameters: FactorParameters, moment: Float[Array, "factors factors"]
) -> Float[Array, "factors factors"]:
    """L with L^{-1} F of unit second moment; I for a static model, which has N(0, I) already."""
    if parameters.num_lags == 0:
        return jnp.eye(parameters.num_factors, dtype=moment.dtype)
    return jnp.linalg.cholesky(moment)


def transform(
    scale: Float[Array, "factors factors"], rotation: Float[Array, "factors factors"]
) -> Float[Array, "factors factors"]:
    """R = V' L^{-1}, which turns loadings W into W L V."""
    return jax.scipy.linalg.solve_triangular(scale, rotation, lower=True, trans=1).T


def principal_vectors(
    loadings: Float[Array, "series factors"],
) -> Float[Array, "factors factors"]:
    """Orthogonal V with V'W'WV diagonal, descending, and columns of W V that sum to >= 0."""
    _, vectors = jnp.linalg.eigh(loadings.T @ loadings)
    vectors = vectors[:, ::-1]
    return vectors * sign_of(loadings @ vectors)


def principal_rotation(
    parameters: FactorParameters, posterior: FactorPosterior, end: Int[Array, ""] | None = None
) -> Float[Array, "factors factors"]:
    """R with E[FF'] = I over the sample (before period `end`) and W'W diagonal, descending;
    loadings sum to >= 0.

    The static model keeps its prior N(0, I), so only the orthogonal part applies there.
    """
    scale = unit_scale(parameters, second_moment(posterior, end))
    return transform(scale, principal_vectors(parameters.loadings @ scale))


def triangular_rotation(
    block: Float[Array, "factors factors"],
) -> Float[Array, "factors factors"]:
    """Orthogonal V with B V lower triangular, positive diagonal: B' = V U, so B V = U'."""
    rotation, upper = jnp.linalg.qr(block.T)
    return rotation * jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0).astype(block.dtype)


def varimax_rotation(
    loadings: Float[Array, "series factors"], *, normalise_rows: bool = True
) -> Float[Array, "factors factors"]:
    """Orthogonal V that maximises the varimax criterion of W V, ordered and signed.

    Ascends by V <- polar factor of W'(Y^3 - Y diag(mean_i y_ik^2)), Y = W V, until the singular
    values' sum, which never falls, has settled to rounding, or after `MAX_VARIMAX_STEPS`; each step
    is 4 N K^2 flops and one K x K singular value decomposition. The maximum is a local one.
    """
    rows = loadings
    if normalise_rows:
        lengths = jnp.linalg.norm(loadings, axis=1, keepdims=True)
        rows = loadings / jnp.where(lengths > 0, lengths, 1.0)
    num_factors = loadings.shape[1]
    tolerance = 4.0 * jnp.finfo(loadings.dtype).eps

    def unsettled(state):
        count, _, size, previous = state
        return (count < MAX_VARIMAX_STEPS) & (size > previous * (1.0 + tolerance))

    def ascend(state):
        count, rotation, size, _ = state
        rotated = rows @ rotation
        gradient = rows.T @ (rotated**3 - rotated * jnp.mean(rotated**2, axis=0))
        left, values, right = jnp.linalg.svd(gradient)
        return count + 1, left @ right, jnp.sum(values), size

    identity = jnp.eye(num_factors, dtype=loadings.dtype)
    zero = jnp.zeros((), loadings.dtype)
    start = ascend((jnp.asarray(0), identity, zero, zero))
    _, rotation, _, _ = jax.lax.while_loop(unsettled, ascend, start)
    rotated = loadings @ rotation
    order = jnp.argsort(-jnp.sum(rotated**2, axis=0))
    return rotation[:, order] * sign_of(rotated[:, order])
