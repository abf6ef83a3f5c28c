"""M-step of loadings and errors where the panel couples periods: stocks, then flows, column by
column."""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import centred_values, errors_ar, residuals_of
from jaxfc.factors.error_step import (
    autoregression_step,
    concentrated,
    lagged_regression,
    loadings_moments,
    pair_sums,
    precision_of,
)
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.flow_step import flow_moments, flow_variances
from jaxfc.factors.regression import Regression
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.factors.em import EMStep, Expectation, PanelData

Measurement = tuple[
    Float[Array, "series factors"],
    Float[Array, " series"],
    Float[Array, " series"],
    Float[Array, " series"] | None,
]


def coupled_step(
    step: "EMStep",
    parameters: FactorParameters,
    data: "PanelData",
    regression: Regression,
    expectation: "Expectation",
) -> Measurement:
    """Loadings, intercept, variances and (where errors are AR(1)) their coefficients.

    `data` as handed over by the E-step: less the intercept where that is not estimated.
    """
    coupling, states = data.coupling, expectation.states
    assert coupling is not None and states is not None
    num_factors, presample = parameters.num_factors, step.presample
    seen = data.observed * coupling.stocks
    values = data.values * coupling.stocks
    window = 1 if coupling.flows is None else coupling.flows.bands.shape[0]
    lagged = lagged_regression(
        regression, expectation.posterior, presample, max(coupling.longest, window - 1)
    )
    ar = errors_ar(parameters)
    precision = precision_of(ar, parameters.variances, coupling.gaps, seen, data.weights)
    stock_lags = lagged._replace(seconds=lagged.seconds[: coupling.longest])
    moments, cross = loadings_moments(stock_lags, precision, coupling.gaps, values, data.weights)
    if coupling.flows is not None and coupling.plan is not None:
        columns = jnp.asarray(coupling.plan.columns)
        after_start = states.after(presample)
        ours, theirs = flow_moments(
            lagged, coupling, after_start, num_factors, data.values[:, columns]
        )
        variances = parameters.variances[columns]
        moments = moments.at[columns].set(ours / variances[:, None, None])
        cross = cross.at[columns].set(theirs / variances[:, None])
    unseen = jnp.sum(data.observed, axis=0) == 0
    identity = jnp.eye(moments.shape[-1], dtype=moments.dtype)
    moments = jnp.where(unseen[:, None, None], identity, moments)
    new = regression.solve(moments, cross)
    loadings, intercept = regression.split(new, parameters.intercept)
    sums = pair_sums(lagged, new, coupling.gaps, values, seen, data.weights)
    if isinstance(step.errors, AutoregressiveErrors):
        ar, variances = autoregression_step(ar, sums, step.errors.largest.astype(ar.dtype))
    else:
        variances = concentrated(ar, sums)[1]
    if coupling.flows is not None and coupling.plan is not None:
        columns = jnp.asarray(coupling.plan.columns)
        after_start = states.after(presample)
        updated = FactorParameters(
            loadings,
            intercept,
            parameters.idiosyncratic_cov,
            parameters.transition,
            parameters.innovation_cov,
            parameters.initial_mean,
            parameters.initial_cov,
        )
        left = intercept if step.estimate_intercept else jnp.zeros_like(intercept)
        centred = centred_values(data.values, data.observed, left, coupling)
        residuals = residuals_of(updated, coupling, centred, data.observed, after_start.means)
        of_flows = flow_variances(
            lagged, coupling, after_start, num_factors, new[columns], residuals
        )
        variances = variances.at[columns].set(of_flows)
    variances = jnp.where(unseen, parameters.variances, variances)
    variances = jnp.maximum(variances, step.variance_floor.astype(variances.dtype))
    if step.idiosyncratic == "isotropic":
        counts = jnp.sum(data.observed, axis=0)
        pooled = jnp.sum(counts * variances) / jnp.sum(counts)
        variances = jnp.full_like(variances, pooled)
    return loadings, intercept, variances, ar if parameters.idiosyncratic_ar is not None else None
