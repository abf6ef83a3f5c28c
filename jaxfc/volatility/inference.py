"""Standard errors of variance models, by differentiation of the likelihood."""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float
from jaxfc.volatility.likelihood import Series
from jaxfc.volatility.univariate import FittedVarianceModel

KINDS = ("sandwich", "hessian", "opg")


def parameter_cov(
    fitted: FittedVarianceModel, kind: str = "sandwich"
) -> Float[Array, "series p p"]:
    """Covariance of the estimated parameters of every series, in the units of the data.

    With H the Hessian of the log-likelihood at the estimate and S the scores of the rows:

    - "sandwich": H^{-1} S'S H^{-1}, right under any law of the innovations (Bollerslev and
      Wooldridge 1992);
    - "hessian": -H^{-1};
    - "opg": (S'S)^{-1}.

    What the estimate makes of the data before the first row (see `Specification`) is differentiated
    too. Costs p forward passes through p, whatever T.

    **Raises:** `ValueError` for an unknown kind, and with `targeting`, whose omega is no parameter
    of the likelihood.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
    scores, hessians = row_scores(fitted)
    outer = jnp.einsum("tnp,tnq->npq", scores, scores)
    if kind == "opg":
        return jnp.linalg.inv(outer)
    inverse = jnp.linalg.inv(-hessians)
    return inverse if kind == "hessian" else inverse @ outer @ inverse


def row_scores(
    fitted: FittedVarianceModel,
) -> tuple[Float[Array, "time series p"], Float[Array, "series p p"]]:
    """Score of every row and Hessian of the log-likelihood of every series.

    **Raises:** `ValueError` with `targeting`.
    """
    if fitted.model.targeting:
        raise ValueError("the likelihood has no free omega under targeting=True; fit without it.")
    how = fitted.model.specification

    def one(
        parameters: Float[Array, " p"], series: Series
    ) -> tuple[Float[Array, "time p"], Float[Array, "p p"]]:
        def densities(vector: Array) -> Array:
            return how.log_densities(vector, series)

        hessian = jax.jacfwd(jax.jacfwd(lambda vector: jnp.sum(densities(vector))))(parameters)
        return jax.jacfwd(densities)(parameters), hessian

    return fitted.each_series(one, out_axes=(1, 0))


def standard_errors(
    fitted: FittedVarianceModel, kind: str = "sandwich"
) -> Float[Array, "series p"]:
    """Square roots of the diagonals of `parameter_cov`."""
    cov = parameter_cov(fitted, kind)
    return jnp.sqrt(jnp.diagonal(cov, axis1=-2, axis2=-1))
