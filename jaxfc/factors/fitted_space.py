"""A fitted factor model as a state space in data units."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.augmented import ar_error_space
from jaxfc.state_space import StateSpace
from jaxfc_kernels.lyapunov import companion, stationary_cov

if TYPE_CHECKING:
    from jaxfc.factors.model import FittedFactorModel


def data_space(fitted: "FittedFactorModel") -> StateSpace:
    """The model at the panel's own frequency, started from its stationary law."""
    parameters, scale = fitted.parameters, fitted.scaling.scale
    level = fitted.scaling.restore(parameters.intercept)
    if parameters.idiosyncratic_ar is not None:
        space = ar_error_space(parameters)
        return dataclasses.replace(
            space, design=scale[:, None] * jnp.asarray(space.design), observation_offset=level
        )
    cov = parameters.idiosyncratic_cov
    num_factors, dtype = parameters.num_factors, scale.dtype
    transition = jnp.zeros((num_factors, num_factors), dtype)
    if parameters.num_lags:
        transition = companion(parameters.transition)
    size = transition.shape[0]
    noise = jnp.zeros((size, size), dtype)
    noise = noise.at[:num_factors, :num_factors].set(parameters.innovation_cov)
    loadings = scale[:, None] * parameters.loadings
    return StateSpace(
        initial_mean=jnp.zeros(size, dtype),
        initial_cov=stationary_cov(transition, noise),
        transition=transition,
        offset=jnp.zeros(size, dtype),
        innovation_cov=noise,
        design=jnp.pad(loadings, ((0, 0), (0, size - num_factors))),
        observation_offset=level,
        observation_cov=scale**2 * cov if cov.ndim == 1 else scale[:, None] * cov * scale,
    )
