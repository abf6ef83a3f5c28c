"""The law of the whole panel given any of its cells: what nowcasts, news and scenarios ask for.

Parameters are held fixed. Rows may lie beyond the sample that was fitted (a forecast is a row
without data) and the mask may be any mask: vintages, scenarios and histories are all the same
question. Given the factors, each series is its common component plus its errors given what was
observed of them: at single dates (`expected_errors`) or in sums (`errors_in_sums`;
`reconstruct_series` where they have no memory).
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.condition import panel_data
from jaxfc.factors.em import PanelData
from jaxfc.factors.error_paths import draw_errors, errors_in_sums, expected_errors
from jaxfc.factors.errors import AutoregressiveErrors, longest_gap
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.paths import collapsed_panel, path_draws, path_mean
from jaxfc.factors.reconstruct import observe, reconstruct_jointly, reconstruct_series
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows


def covering(fitted: FittedFactorModel, *masks: np.ndarray) -> FittedFactorModel:
    """The fitted model with an exact law on panels of these masks (host side).

    AR(1) errors remember as far as the longest gap of the panel that was fitted; another vintage
    may have a longer one. Parameters stay. Nothing changes for errors without memory.
    """
    errors = fitted.model.errors
    if not isinstance(errors, AutoregressiveErrors) or errors.longest_gap is None:
        return fitted
    # Gaps between the figures of flows are no gaps: their errors are tied within their rows.
    flows = () if fitted.model.flows is None else fitted.model.flows.columns
    gaps = (longest_gap(np.delete(np.asarray(mask), flows, axis=1)) for mask in masks)
    return remembering(fitted, max(errors.longest_gap, *gaps))


def remembering(fitted: FittedFactorModel, longest: int | None) -> FittedFactorModel:
    """The fitted model with AR(1) errors that remember across `longest` periods; others, or None:
    as it is."""
    errors = fitted.model.errors
    if longest is None or not isinstance(errors, AutoregressiveErrors):
        return fitted
    if longest == errors.longest_gap:
        return fitted
    wider = dataclasses.replace(errors, longest_gap=longest)
    return eqx.tree_at(lambda f: f.model.errors, fitted, wider)


def expected_panel(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None = None,
) -> Float[Array, "time series"]:
    """E[x | observed cells] at the panel's own frequency, in data units; pure.

    Affine in `values` given `observed`, so that its derivative with respect to them is the weight
    of every cell. A cell that was observed by itself keeps its value.
    """
    data = panel_data(fitted, values, observed, aggregation)
    parameters = fitted.parameters
    factors = path_mean(fitted, collapsed_panel(fitted, data))
    common = parameters.intercept + factors @ parameters.loadings.T
    return fitted.scaling.restore(completed(fitted, data, common, aggregation))


def completed(
    fitted: FittedFactorModel,
    data: PanelData,
    common: Float[Array, "time series"],
    aggregation: AggregationRows | None,
) -> Float[Array, "time series"]:
    """Standardised series nearest to `common` that have the observed cells: the mean given the
    common component, or, with `common` a draw of the series, a conditional draw."""
    parameters, observed = fitted.parameters, data.observed
    if fitted.model.idiosyncratic == "full":
        cov = parameters.idiosyncratic_cov
        return reconstruct_jointly(aggregation, data.values, observed, common, cov)
    series = reconstruct_series(aggregation, data.values, observed, common)
    if parameters.idiosyncratic_ar is None:
        return series
    ar, coupling = parameters.idiosyncratic_ar, data.coupling
    stocks = 1.0 if coupling is None else coupling.stocks
    errors = expected_errors(data.values - common, observed * stocks, ar * stocks)
    series = jnp.where(jnp.asarray(stocks) > 0, common + errors, series)
    if coupling is None or coupling.pattern is None:
        return series
    assert coupling.plan is not None and aggregation is not None
    columns = coupling.plan.columns
    chosen = jnp.asarray(columns)
    known = (data.values - observe(aggregation, observed, common))[:, chosen]
    errors = errors_in_sums(known, observed[:, chosen], ar[chosen], aggregation, columns)
    return series.at[:, chosen].set(common[:, chosen] + errors)


def sample_panel(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    num_draws: int,
    *,
    key: PRNGKeyArray,
    aggregation: AggregationRows | None = None,
) -> Float[Array, "draws time series"]:
    """Joint draws of x given the observed cells, parameters fixed; memory draws x time x series.

    Factors from their exact law; then an unconditional draw of each series is moved to what was
    observed, which has the conditional law (conditioning by kriging, Journel and Huijbregts 1978).
    """
    data = panel_data(fitted, values, observed, aggregation)
    parameters = fitted.parameters
    factor_key, error_key = jax.random.split(key)
    factors = path_draws(fitted, collapsed_panel(fitted, data), num_draws, key=factor_key)
    common = parameters.intercept + factors @ parameters.loadings.T
    if fitted.model.idiosyncratic == "full":
        noise = jax.random.normal(error_key, common.shape, common.dtype)
        errors = noise @ jnp.linalg.cholesky(parameters.idiosyncratic_cov).T
    else:
        errors = draw_errors(
            parameters.variances,
            parameters.idiosyncratic_ar,
            values.shape[0],
            num_draws,
            key=error_key,
        )

    def conditioned(drawn: Array) -> Array:
        return completed(fitted, data, drawn, aggregation)

    return fitted.scaling.restore(jax.vmap(conditioned)(common + errors))
