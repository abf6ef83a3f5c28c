"""The path of the factors given the panel as mean plus deviation: what trajectories of a regression
on factors are made of."""

from typing import NamedTuple

import jax

from jaxfc.factors.condition import expectation, refuse_regressed_factors
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.em import PanelData
from jaxfc.factors.methods import EM, Candidate
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
    parameters = fitted.parameters
    centred = centred_values(data.values, data.observed, parameters.intercept, data.coupling)
    return EM().step(fitted.model, Candidate()).collapse(parameters, data, centred)


def path_mean(fitted: FittedFactorModel, collapsed: Collapsed) -> Float[Array, "time factors"]:
    """E[F | panel] in the rows of the panel."""
    presample = fitted.model.presample
    means = factor_means(fitted.parameters, collapsed, presample=presample)
    return means[presample:, : fitted.parameters.num_factors]


def path_draws(
    fitted: FittedFactorModel, collapsed: Collapsed, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, "draws time factors"]:
    """Exact joint draws of F given the panel, in its rows."""
    presample = fitted.model.presample
    draws = sample_factors(fitted.parameters, collapsed, num_draws, key=key, presample=presample)
    return draws[:, presample:, : fitted.parameters.num_factors]


def mean_path(fitted: FittedFactorModel, data: PanelData) -> Float[Array, "time factors"]:
    """E[F | panel], affine in the panel's values."""
    refuse_regressed_factors(fitted)
    return path_mean(fitted, collapsed_panel(fitted, data))


def factor_paths(
    fitted: FittedFactorModel, data: PanelData, num_draws: int, *, key: PRNGKeyArray
) -> FactorPaths:
    """`num_draws` joint draws of the path, of the cost of one elimination and `num_draws`
    substitutions."""
    refuse_regressed_factors(fitted)
    collapsed = collapsed_panel(fitted, data)
    mean = path_mean(fitted, collapsed)
    draws = path_draws(fitted, jax.lax.stop_gradient(collapsed), num_draws, key=key)
    return FactorPaths(mean, draws - jax.lax.stop_gradient(mean))


def path_moments(fitted: FittedFactorModel, data: PanelData) -> FactorPosterior:
    """Means and covariances up to lag p of the factors given the panel, in its rows."""
    return expectation(fitted, data).posterior.after(fitted.model.presample)
