"""Standard errors of a second step that count what the first step and the target add."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float
from jaxfc.volatility.dcc import FittedCorrelationModel
from jaxfc.volatility.inference import row_scores


def correlation_cov(
    fitted: FittedCorrelationModel, *, target_uncertainty: bool = True
) -> Float[Array, "p p"]:
    """Covariance of the second step's parameters theta, robust to the law of the innovations.

    With the sums over rows L2(theta, phi, S) of the second step's log-densities, phi the parameters
    of the margins and S the target, the estimate's influence function gives every row the score

        s*_t = s2_t - (d s2 / d phi) H1^{-1} s1_t + (d s2 / d S) g_t
        V = H^{-1} (sum_t s*_t s*_t') H^{-1}

    s1, H1 score and Hessian of the margins (block diagonal), H that of L2 in theta, d / d phi total
    (S moves with phi), and (d s2 / d S) g_t the derivative with respect to the weight of row t in
    the target. This is the sandwich of the stacked moment conditions (Newey and McFadden 1994,
    section 6), whose matrices are never formed: one reverse pass for each of theta. Without
    `target_uncertainty` S is held fixed (Engle and Sheppard 2001; rmgarch, multiarch).

    **Raises:** `ValueError` for margins with targeting.
    """
    model, margins = fitted.model, fitted.margins
    first, first_hessians = row_scores(margins)

    def densities(theta: Array, phi: Array, weights: Array) -> Array:
        data = dataclasses.replace(margins, parameters=phi).filtered().standardised
        targets = fitted.targets
        if target_uncertainty:
            targets = model.targets(theta, data, weights)
        return model.log_densities(theta, data, targets)

    def total_score(theta: Array, phi: Array, weights: Array) -> Array:
        return jax.jacfwd(lambda vector: jnp.sum(densities(vector, phi, weights)))(theta)

    theta, phi = fitted.parameters, margins.parameters
    ones = jnp.ones(margins.values.shape[0], theta.dtype)
    hessian = jax.jacfwd(total_score)(theta, phi, ones)
    scores = jax.jacfwd(densities)(theta, phi, ones)
    to_margins, to_target = jax.jacrev(total_score, argnums=(1, 2))(theta, phi, ones)
    moved = jnp.linalg.solve(first_hessians, jnp.moveaxis(first, 0, -1))
    influence = scores - jnp.einsum("knp,npt->tk", to_margins, moved)
    if target_uncertainty:
        influence = influence + to_target.T
    inverse = jnp.linalg.inv(hessian)
    return inverse @ (influence.T @ influence) @ inverse.T


def correlation_standard_errors(
    fitted: FittedCorrelationModel, *, target_uncertainty: bool = True
) -> Float[Array, " p"]:
    """Square roots of the diagonal of `correlation_cov`."""
    return jnp.sqrt(jnp.diagonal(correlation_cov(fitted, target_uncertainty=target_uncertainty)))
