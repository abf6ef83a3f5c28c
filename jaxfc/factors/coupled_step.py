"""M-step of loadings and errors where the panel couples periods: stocks, then flows, by columns."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import Coupling, centred_values, errors_ar
from jaxfc.factors.error_step import (
    LaggedRegression,
    autoregression_step,
    concentrated,
    lagged_regression,
    loadings_moments,
    pair_sums,
    precision_of,
    residual_moments,
)
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.flow_memory_step import flow_autoregression
from jaxfc.factors.flow_step import flow_moments, flow_variances, moments_of_flows
from jaxfc.factors.moments import FactorPosterior
from jaxfc.factors.regression import Regression
from jaxfc.factors.shrinkage import shrunk_variances
from jaxfc.factors.weighting import expected_squares, weights_on
from jaxfc.typing import Array
from jaxfc_kernels.autoregressive_errors import gap_tables

if TYPE_CHECKING:
    from jaxfc.factors.em import EMStep, Expectation, PanelData


def coupled_step(
    step: "EMStep",
    parameters: FactorParameters,
    data: "PanelData",
    regression: Regression,
    expectation: "Expectation",
) -> FactorParameters:
    """The parameters with new loadings, intercept, errors and weights.

    `data` as handed over by the E-step: less the intercept where that is not estimated.
    """
    coupling = data.coupling
    assert coupling is not None
    states = expectation.states.after(step.presample)
    window = 1 if coupling.flows is None else coupling.flows.bands.shape[0]
    lagged = lagged_regression(
        regression, expectation.posterior, step.presample, max(coupling.longest, window - 1)
    )
    moments, cross = normal_equations(parameters, data, coupling, lagged, states)
    unseen = jnp.sum(data.observed, axis=0) == 0
    identity = jnp.eye(moments.shape[-1], dtype=moments.dtype)
    moments = jnp.where(unseen[:, None, None], identity, moments)
    new = regression.solve(moments, cross)
    loadings, intercept = regression.split(new, parameters.intercept)
    updated = dataclasses.replace(parameters, loadings=loadings, intercept=intercept)
    updated = error_step(step, updated, data, coupling, lagged, new)
    if coupling.flows is not None:
        updated = flow_step(step, updated, data, coupling, lagged, states, new)
    variances = updated.idiosyncratic_cov
    variances = jnp.where(unseen, parameters.variances, variances)
    variances = jnp.maximum(variances, step.variance_floor.astype(variances.dtype))
    if step.idiosyncratic == "isotropic":
        counts = jnp.sum(data.observed, axis=0)
        pooled = jnp.sum(counts * variances) / jnp.sum(counts)
        variances = jnp.full_like(variances, pooled)
    if step.idiosyncratic == "shrunk":
        assert data.units is not None
        counts, size = jnp.sum(data.observed, axis=0), new.shape[1]
        variances = shrunk_variances(variances, counts, size, data.units.log_variance)
    return dataclasses.replace(updated, idiosyncratic_cov=variances)


def normal_equations(
    parameters: FactorParameters,
    data: "PanelData",
    coupling: Coupling,
    lagged: LaggedRegression,
    states: FactorPosterior,
) -> tuple[Array, Array]:
    """Of the loadings of all series, divided by the error variances."""
    seen, values = data.observed * coupling.stocks, data.values * coupling.stocks
    weights = weights_on(parameters.error_weights, values.shape[0])
    ar, variances = errors_ar(parameters), parameters.variances
    precision = precision_of(ar, variances, coupling.gaps, seen, weights)
    of_stocks = lagged._replace(seconds=lagged.seconds[: coupling.longest])
    moments, cross = loadings_moments(of_stocks, precision, coupling.gaps, values, weights)
    if coupling.flows is None or coupling.plan is None:
        return moments, cross
    columns = jnp.asarray(coupling.plan.columns)
    flows = coupling.flows_at(parameters)
    own_moments, own_cross = flow_moments(
        lagged, flows, states, parameters.num_factors, data.values[:, columns]
    )
    scale = variances[columns]
    moments = moments.at[columns].set(own_moments / scale[:, None, None])
    return moments, cross.at[columns].set(own_cross / scale[:, None])


def error_step(
    step: "EMStep",
    parameters: FactorParameters,
    data: "PanelData",
    coupling: Coupling,
    lagged: LaggedRegression,
    coefficients: Array,
) -> FactorParameters:
    """Variances and coefficients of the errors given the loadings, then weights given those."""
    seen, values = data.observed * coupling.stocks, data.values * coupling.stocks
    weights = weights_on(parameters.error_weights, values.shape[0])
    moments = residual_moments(lagged, coefficients, values, seen)
    sums = pair_sums(moments, coupling.gaps, weights)
    ar = errors_ar(parameters)
    if isinstance(step.errors, AutoregressiveErrors):
        ar, variances = autoregression_step(ar, sums, step.errors.largest.astype(ar.dtype))
    else:
        variances = concentrated(ar, sums)[1]
    variances = jnp.maximum(variances, step.variance_floor.astype(variances.dtype))
    has_memory = parameters.idiosyncratic_ar is not None
    parameters = dataclasses.replace(
        parameters, idiosyncratic_cov=variances, idiosyncratic_ar=ar if has_memory else None
    )
    if step.weighting is None:
        return parameters
    tables = gap_tables(ar, variances, coupling.longest)
    squares = expected_squares(*moments, coupling.gaps.at, *tables)
    return dataclasses.replace(parameters, error_weights=step.weighting.weights(squares, seen))


def flow_step(
    step: "EMStep",
    parameters: FactorParameters,
    data: "PanelData",
    coupling: Coupling,
    lagged: LaggedRegression,
    states: FactorPosterior,
    coefficients: Array,
) -> FactorParameters:
    """Variances, and coefficients where they have memory, of the flows' errors given the
    loadings."""
    plan, pattern = coupling.plan, coupling.pattern
    assert coupling.flows is not None and plan is not None
    columns = jnp.asarray(plan.columns)
    level = parameters.intercept
    level = level if step.estimate_intercept else jnp.zeros_like(level)
    centred = centred_values(data.values, data.observed, level, coupling)[:, columns]
    flows = coupling.flows_at(parameters)
    moments = moments_of_flows(lagged, flows, states, coefficients[columns], centred)
    if pattern is None:
        own = flow_variances(flows, moments)
    else:
        ar, errors = errors_ar(parameters), step.errors
        largest = None
        if isinstance(errors, AutoregressiveErrors):
            largest = errors.largest.astype(ar.dtype)
        of_flows, own = flow_autoregression(ar[columns], flows, pattern, moments, largest)
        if parameters.idiosyncratic_ar is not None:
            ar = ar.at[columns].set(of_flows)
            parameters = dataclasses.replace(parameters, idiosyncratic_ar=ar)
    variances = parameters.variances.at[columns].set(own)
    return dataclasses.replace(parameters, idiosyncratic_cov=variances)
