"""What each series, and each cell, adds to a forecast: the forecast is affine in the data."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.factors.condition import check_fitted_panel, condition, fitted_data
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.em import PanelData
from jaxfc.factors.model import FittedFactorModel
from jaxfc.impact import Contributions
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def contributions(
    fitted: FittedFactorModel,
    panel: "Panel",
    horizon: int = 1,
    *,
    target: str | Sequence[float],
) -> Contributions:
    """The forecast of a series, or of a linear combination of series, split by cells of the panel.

        E[w' x_{T+h} | panel] = base_h + sum_{t, i} (d E[w' x_{T+h}] / d x_ti) (x_ti - mean_i)

    exact, because the mean is affine in the data given the parameters (which are held fixed, and
    with them centre and scale of the series). `target` is the name of a series, or a weight w_i for
    each series, in data units. One reverse pass for each step ahead, of the cost of a smoother.

    With two-step methods the data are the panel that the estimation rebuilt (`fitted.completed`),
    as in the source: cells between low-frequency observations then have contributions of their own.

    **Raises:** `ValueError` if `panel` is not the one that was fitted, if the target is unknown,
    for a horizon below 1, and for principal components, whose factors are not moments of the model.

    Source: Defend et al. (2021), section 5, the factor impact; by differentiation.
    """
    check_fitted_panel(fitted, panel)
    check_counts(horizon=horizon)
    if isinstance(target, str):
        if target not in panel.names:
            raise ValueError(f"there is no series {target!r} in the panel.")
        weights = np.eye(len(panel.names))[panel.names.index(target)]
    else:
        weights = np.asarray(target, float)
        if weights.shape != (len(panel.names),) or not np.all(np.isfinite(weights)):
            raise ValueError(
                f"target must be a name or {len(panel.names)} finite weights, got {target!r}."
            )
    return jitted_contributions(fitted, jnp.asarray(weights), horizon)


def data_contributions(
    fitted: FittedFactorModel, weights: Float[Array, " series"], horizon: int
) -> Contributions:
    """`contributions` on arrays: pure."""
    data = fitted_data(fitted)
    intercept = fitted.parameters.intercept
    deviations = centred_values(data.values, data.observed, intercept, data.coupling)
    means = data.values - deviations
    weights = weights.astype(data.values.dtype)

    def forecast(values: Array) -> Float[Array, " horizon"]:
        return conditional_forecast(fitted, data, values, weights, horizon)

    mean, pullback = jax.vjp(forecast, data.values)
    (slopes,) = jax.vmap(pullback)(jnp.eye(horizon, dtype=mean.dtype))
    cells = jnp.where(data.observed > 0, slopes * deviations, 0.0)
    return Contributions(base=forecast(means), cells=cells, forecast=mean)


jitted_contributions = eqx.filter_jit(data_contributions)


def conditional_forecast(
    fitted: FittedFactorModel,
    data: PanelData,
    values: Float[Array, "time series"],
    weights: Float[Array, " series"],
    horizon: int,
) -> Float[Array, " horizon"]:
    """Forecast means of w'x as a function of the standardised panel."""
    given = condition(fitted, dataclasses.replace(data, values=values))
    factors, _ = given.forecast_factors(horizon)
    standardised = fitted.parameters.intercept + factors @ fitted.parameters.loadings.T
    return fitted.scaling.restore(standardised) @ weights
