"""The path of the factors given the panel as mean plus deviation: what trajectories of a regression
on factors are made of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.factors.coupled import centred_values
from jaxfc.factors.em import PanelData
from jaxfc.factors.methods import EM, PCA, Candidate
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.moments import FactorPosterior, factor_means, sample_factors
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.collapse import Collapsed


class FactorPaths(NamedTuple):
    """F^c = mean + deviations[c], an exact draw from the law of the whole path given the panel. The
    deviations depend on what is observed, not on its values."""

    mean: Float[Array, "time factors"]
    deviations: Float[Array, "draws time factors"]


def collapsed_panel(fitted: FittedFactorModel, data: PanelData) -> Collapsed:
    """Sufficient statistics of a standardised panel at the fitted parameters."""
    if isinstance(fitted.model.method, PCA):
        raise ValueError(
            "the factors of PCA() are least-squares regressions without a law given the data; use "
            "PPCA() or EM()."
        )
    parameters = fitted.parameters
    centred = centred_values(data.values, data.observed, parameters.intercept, data.coupling)
    return EM().step(fitted.model, Candidate()).collapse(parameters, data, centred)


def mean_path(fitted: FittedFactorModel, data: PanelData) -> Float[Array, "time factors"]:
    """E[F | panel], affine in the panel's values; in the rows of the panel."""
    presample = fitted.model.presample
    collapsed = collapsed_panel(fitted, data)
    means = factor_means(fitted.parameters, collapsed, presample=presample)
    return means[presample:, : fitted.parameters.num_factors]


def factor_paths(
    fitted: FittedFactorModel, data: PanelData, num_draws: int, *, key: PRNGKeyArray
) -> FactorPaths:
    """`num_draws` joint draws of the path, of the cost of one elimination and `num_draws`
    substitutions."""
    presample, num_factors = fitted.model.presample, fitted.parameters.num_factors
    mean = mean_path(fitted, data)
    fixed = jax.lax.stop_gradient(collapsed_panel(fitted, data))
    draws = sample_factors(fitted.parameters, fixed, num_draws, key=key, presample=presample)
    draws = draws[:, presample:, :num_factors]
    return FactorPaths(mean, draws - jax.lax.stop_gradient(mean))


def path_moments(fitted: FittedFactorModel, data: PanelData) -> FactorPosterior:
    """Means and covariances up to lag p of the factors given the panel, in its rows."""
    expectation = EM().step(fitted.model, Candidate()).expect(fitted.parameters, data)
    return expectation.posterior.after(fitted.model.presample)


def extended_path(
    transition: Float[Array, "lags factors factors"],
    path: Float[Array, "time factors"],
    innovations: Float[Array, "steps factors"],
) -> Float[Array, "extended factors"]:
    """The path and what follows from it: f_t = sum_l A_l f_{t-l} + u_t for the given innovations
    (with no lags, the innovations are the factors)."""
    num_lags = transition.shape[0]
    if innovations.shape[0] == 0:
        return path
    if num_lags == 0:
        return jnp.concatenate([path, innovations])

    def advance(history, innovation):
        # history (lags, factors), newest last
        new = innovation + jnp.einsum("lij,lj->i", transition, history[::-1])
        return jnp.concatenate([history[1:], new[None]]), new

    _, future = jax.lax.scan(advance, path[-num_lags:], innovations)
    return jnp.concatenate([path, future])
