"""Fewer shocks than factors: their number (Bai and Ng 2007) and the factor model that has so many.

Static factors that are lags of one another share shocks: the innovations of their VAR are
u_t = H eta_t, eta_t of dimension q < r, and Q = H H' has rank q.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from jaxfc.factors.condition import condition, fitted_data
from jaxfc.factors.model import FittedFactorModel
from jaxfc.typing import Array, Float, Int, as_scalar
from jaxfc_kernels.var_precision import stationary_block_cov


class ShockCriteria(eqx.Module):
    """`first` and `second` (factors,) are D_1 and D_2 for k = 1..r shocks, `bound` what they have
    to fall below, `num_shocks` the smallest such k by either (r if none)."""

    first: Float[Array, " factors"]
    second: Float[Array, " factors"]
    bound: Float[Array, ""]
    num_shocks_first: Int[Array, ""]
    num_shocks_second: Int[Array, ""]


def shock_criteria(
    innovation_cov: Float[Array, "factors factors"],
    num_times: int,
    num_series: int,
    *,
    scale: float = 1.0,
    rate: float = 0.1,
) -> ShockCriteria:
    """How many shocks drive the innovations of r factors; pure.

        D_1(k) = (c_{k+1}^2 / sum_j c_j^2)^{1/2},   D_2(k) = (sum_{j>k} c_j^2 / sum_j c_j^2)^{1/2}

    with c_1 >= ... >= c_r the eigenvalues of `innovation_cov`; the number of shocks is the smallest
    k with D(k) < `scale` / min(N^{1/2 - rate}, T^{1/2 - rate}).

    **Arguments:** the innovation covariance of factors normalised to unit second moments; the size
    of the panel they come from; `scale` m > 0 and `rate` in (0, 1/2), which the theory leaves open.

    **Raises:** `ValueError` for a rate outside (0, 1/2) or a scale that is not positive.

    Source: Bai and Ng (2007), equations 10 to 12.
    """
    if not 0 < rate < 0.5 or scale <= 0:
        raise ValueError(
            f"rate must lie in (0, 1/2) and scale be positive, got {rate} and {scale}."
        )
    eigenvalues = jnp.linalg.eigvalsh(innovation_cov)[::-1]
    squares = eigenvalues**2
    total = jnp.sum(squares)
    following = jnp.concatenate([squares[1:], jnp.zeros_like(squares[:1])])
    rest = jnp.cumsum(following[::-1])[::-1]
    first, second = jnp.sqrt(following / total), jnp.sqrt(rest / total)
    bound = as_scalar(scale / min(num_series, num_times) ** (0.5 - rate))
    return ShockCriteria(
        first, second, bound, 1 + jnp.argmax(first < bound), 1 + jnp.argmax(second < bound)
    )


def with_num_shocks(
    fitted: FittedFactorModel, num_shocks: int, *, floor: float = 1e-6
) -> FittedFactorModel:
    """The fitted model with innovations driven by `num_shocks` < r shocks; pure.

    Q becomes its best approximation of rank q, U_q D_q U_q', plus `floor` times its mean eigenvalue
    on the diagonal (the precision of the path needs a regular Q); factors, forecasts and the
    likelihood are those of the new parameters. A second step as in Doz, Giannone and Reichlin
    (2011): EM itself cannot turn a singular Q, so it is not iterated further.

    **Raises:** `ValueError` for a number outside 1..r, a static model, principal components, and
    blocks whose innovations are restricted.
    """
    parameters = fitted.parameters
    num_factors = parameters.num_factors
    if not 1 <= num_shocks <= num_factors:
        raise ValueError(f"num_shocks must be 1 to {num_factors}, got {num_shocks}.")
    if parameters.num_lags == 0:
        raise ValueError("a static model (num_lags=0) has no innovations; use num_lags >= 1.")
    rules = fitted.model.rules
    if rules is not None and rules.innovations is not None:
        raise ValueError(
            "the innovations of factor blocks are restricted; reduce the number of factors of a "
            "block instead of its shocks."
        )
    loadings = shock_loadings(parameters.innovation_cov, num_shocks)
    mean_variance = jnp.trace(parameters.innovation_cov) / num_factors
    regular = floor * mean_variance * jnp.eye(num_factors, dtype=loadings.dtype)
    innovation_cov = loadings @ loadings.T + regular
    initial_cov = parameters.initial_cov
    if fitted.model.initial == "stationary":
        initial_cov = stationary_block_cov(parameters.transition, innovation_cov)
    reduced = dataclasses.replace(
        parameters, innovation_cov=innovation_cov, initial_cov=initial_cov
    )
    return condition(dataclasses.replace(fitted, parameters=reduced), fitted_data(fitted))


def shock_loadings(
    innovation_cov: Float[Array, "factors factors"], num_shocks: int
) -> Float[Array, "factors shocks"]:
    """H = U_q D_q^{1/2}: u_t = H eta_t with eta_t ~ N(0, I), columns that sum to >= 0."""
    eigenvalues, vectors = jnp.linalg.eigh(innovation_cov)
    leading = vectors[:, ::-1][:, :num_shocks]
    roots = jnp.sqrt(jnp.maximum(eigenvalues[::-1][:num_shocks], 0.0))
    signs = jnp.where(jnp.sum(leading, axis=0) < 0, -1.0, 1.0)
    return leading * (signs * roots)
