"""What is not known about the parameters, from the curvature of the likelihood."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.factors.bootstrap import BootstrapDraws, aligned, all_finite
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.free_parameters import (
    check_inference,
    free_parameters,
    identification_matrix,
    identified,
    separate_rows,
)
from jaxfc.factors.identify import rotate_parameters
from jaxfc.factors.information import observed_information, spectrum
from jaxfc.factors.model import FittedFactorModel
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def hessian_draws(
    fitted: FittedFactorModel,
    panel: "Panel",
    num_draws: int,
    *,
    key: PRNGKeyArray,
    batch_size: int | None = None,
) -> BootstrapDraws:
    """Draws of the parameters from the normal approximation to the law of their estimator.

        theta_i ~ N(theta_hat, H^{-1}),     H = -d^2 ln p(x) / d theta d theta'

    theta: free loadings (Q = I, triangular for series that the estimate separates well), intercept,
    logarithms of the variances, transition, and inverse hyperbolic tangents of AR(1) coefficients
    of errors; so variances stay positive. Each draw is taken back to
    the units and the rotation of the fitted model, as those of `bootstrap` are; draw i uses
    `fold_in(key, i)`. The intercept is a parameter also where the fit took the sample mean; an
    estimated initial law is held fixed. Costs one Hessian, `batch_size` columns at a time, whatever
    `num_draws` is.

    Draws whose factor VAR is not stationary (where the model's initial law is the stationary one)
    keep their place with the result code that says so; they are not drawn again, because that would
    cut the law off. If H is not positive definite, no draw is usable; `standard_errors` names why.

    **Raises:** `ValueError` for fewer than 1 draw, and as `standard_errors` for fits without a
    likelihood to differentiate.

    Source: Hamilton (1986) for state-space models.
    """
    check_counts(num_draws=num_draws)
    check_inference(fitted, panel)
    rows = separate_rows(np.asarray(fitted.parameters.loadings))
    return jitted_hessian_parameters(fitted, rows, num_draws, key=key, batch_size=batch_size)


def hessian_parameters(
    fitted: FittedFactorModel,
    rows: tuple[int, ...],
    num_draws: int,
    *,
    key: PRNGKeyArray,
    batch_size: int | None = None,
) -> BootstrapDraws:
    """`hessian_draws` on arrays, triangular loadings of the series `rows`: pure."""
    free = free_parameters(fitted, rows, intercept=True, unconstrained=True)
    matrix = identification_matrix(fitted.parameters, rows)
    inverse = jnp.linalg.inv(matrix)
    centre = identified(fitted.parameters, rows)
    vector = free.pack(centre)
    _, information = observed_information(free, vector, centre, fitted_data(fitted), batch_size)
    root = spectrum(information).root()

    def draw(index: Array) -> tuple[FactorParameters, Bool[Array, ""]]:
        noise = jax.random.normal(jax.random.fold_in(key, index), vector.shape, vector.dtype)
        drawn = free.unpack(vector + root @ noise, centre)
        stationary = jnp.all(jnp.isfinite(drawn.initial_cov))
        turned = rotate_parameters(drawn, inverse, matrix)
        return aligned(turned, fitted.parameters.loadings), stationary

    parameters, stationary = jax.vmap(draw)(jnp.arange(num_draws))
    finite = all_finite((parameters.loadings, parameters.idiosyncratic_cov))
    result = jax.vmap(result_of)(finite, stationary)
    return BootstrapDraws(parameters, jnp.zeros(num_draws, int), result)


def result_of(finite: Bool[Array, ""], stationary: Bool[Array, ""]) -> RESULTS:
    """No curvature to draw from, no stationary law, or a usable draw."""
    code = select(stationary, SUCCESSFUL, RESULTS.nonstationary)  # pyright: ignore
    return select(finite, code, RESULTS.diverged)  # pyright: ignore


jitted_hessian_parameters = eqx.filter_jit(hessian_parameters)
