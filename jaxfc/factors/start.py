"""Where an iteration starts: principal components, and what of them restrictions and flows
leave."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxfc.factors.candidate import Candidate
from jaxfc.factors.components import (
    FactorParameters,
    pairwise_cov,
    ppca_loadings,
    static_factors,
    with_dynamics,
    yule_walker,
)
from jaxfc.factors.em import PanelData, rows_with_data
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.identify import rotate_parameters
from jaxfc.factors.reconstruct import interpolate_constant
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.var_precision import stationary_block_cov

if TYPE_CHECKING:
    from jaxfc.factors.model import DynamicFactorModel

# Largest starting value of an error's AR coefficient.
LARGEST_START = 0.9
# That of a flow, whose errors sums do not show.
FLOW_START = 0.1


def starting_values(
    model: "DynamicFactorModel",
    data: PanelData,
    rows: AggregationRows | None,
    candidate: Candidate,
) -> FactorParameters:
    """Start of the one-step EM: flows spread evenly over their periods, then principal components
    (factor by factor where loadings are restricted), errors' coefficients from the residuals."""
    if model.flows is not None:
        data = spread_flows(model.flows.columns, data, rows)
    if model.restrictions is None:
        parameters = ppca_start(model, data, candidate)
    else:
        parameters = restricted_start(model, data)
    if model.weighting is not None:
        parameters = dataclasses.replace(parameters, error_weights=jnp.ones_like(data.values))
    if not isinstance(model.errors, AutoregressiveErrors):
        return parameters
    loadings, variances = parameters.loadings, parameters.variances
    factors = static_factors(data.values, data.observed, loadings, variances)
    residuals = data.values - data.observed * (factors @ loadings.T)
    ar = first_autocorr(residuals, data.observed)
    if model.flows is not None:
        of_flows = FLOW_START if model.errors.of_flows else 0.0
        ar = ar.at[jnp.asarray(model.flows.columns)].set(of_flows)
    return dataclasses.replace(parameters, idiosyncratic_ar=ar)


def spread_flows(
    columns: tuple[int, ...], data: PanelData, rows: AggregationRows | None
) -> PanelData:
    """The panel with its flows filled up by constants over their periods."""
    filled = interpolate_constant(rows, data.values, data.observed)
    seen = jnp.broadcast_to(rows_with_data(data.observed)[:, None], data.observed.shape)
    is_flow = jnp.zeros(data.observed.shape[1], bool).at[jnp.asarray(columns)].set(True)
    observed = jnp.where(is_flow, seen, data.observed)
    return PanelData(observed * jnp.where(is_flow, filled, data.values), observed)


def first_autocorr(
    residuals: Float[Array, "time series"], observed: Float[Array, "time series"]
) -> Float[Array, " series"]:
    """Autocorrelation over neighbouring observed dates, within the bounds of a start."""
    pairs = observed[1:] * observed[:-1]
    products = jnp.sum(pairs * residuals[1:] * residuals[:-1], axis=0)
    squares = jnp.sum(pairs * residuals[:-1] ** 2, axis=0)
    ratio = products / jnp.maximum(squares, jnp.finfo(residuals.dtype).tiny)
    return jnp.clip(ratio, -LARGEST_START, LARGEST_START)


def restricted_start(model: "DynamicFactorModel", data: PanelData) -> FactorParameters:
    """Loadings factor by factor, observed factors first: the first principal component of what the
    factors before left of the series that may load on it; then a VAR with the coefficients that are
    not free set to zero."""
    rules = model.rules
    assert rules is not None
    num_series = data.values.shape[1]
    allowed = jnp.ones((num_series, model.num_factors), bool)
    if rules.loadings is not None:
        allowed = rules.loadings
    left, columns = data.values, [jnp.zeros(num_series)] * model.num_factors
    ones = jnp.ones(num_series, left.dtype)
    own = {factor: row for row, factor in rules.observed_factors}
    for k in sorted(range(model.num_factors), key=lambda k: k not in own):
        cov = pairwise_cov(left, data.observed) * (allowed[:, k, None] & allowed[:, k])
        if k in own:
            column, factor = cov[own[k]] / cov[own[k], own[k]], data.values[:, own[k], None]
        else:
            values, vectors = jnp.linalg.eigh(cov)
            column = vectors[:, -1] * jnp.sqrt(jnp.maximum(values[-1], 0.0))
            column = column * jnp.where(jnp.sum(column) < 0, -1.0, 1.0)
            factor = static_factors(left, data.observed, column[:, None], ones, 1e-3)
        left = left - data.observed * (factor @ column[None])
        columns[k] = column
    loadings = rules.with_unit_rows(jnp.stack(columns, axis=1))
    counts = jnp.maximum(jnp.sum(data.observed, axis=0), 1.0)
    variances = jnp.maximum(jnp.sum(left**2, axis=0) / counts, 0.05)
    factors = static_factors(data.values, data.observed, loadings, variances)
    parameters = with_dynamics(loadings, variances, factors, model.num_lags)
    if model.num_lags == 0:
        return parameters
    transition, innovation_cov = own_dynamics(factors, model.num_lags)
    if rules.transition is not None:
        transition = jnp.where(rules.transition, transition, 0.0)
    parameters = dataclasses.replace(
        parameters,
        transition=transition,
        innovation_cov=innovation_cov,
        initial_cov=stationary_block_cov(transition, innovation_cov),
    )
    if rules.penalty is None:
        return parameters
    scale = jnp.sqrt(jnp.diagonal(innovation_cov))
    return rotate_parameters(parameters, jnp.diag(1.0 / scale), jnp.diag(scale))


def own_dynamics(
    factors: Float[Array, "time factors"], num_lags: int
) -> tuple[Float[Array, "lags factors factors"], Float[Array, "factors factors"]]:
    """Every factor an autoregression of its own: no zero that a restriction may ask for is lost."""
    coefficients, variances = jax.vmap(
        lambda factor: yule_walker(factor[:, None], num_lags), in_axes=1
    )(factors)
    diagonal = jax.vmap(jnp.diag, in_axes=1)(coefficients[:, :, 0, 0])
    return diagonal, jnp.diag(variances[:, 0, 0])


def ppca_start(
    model: "DynamicFactorModel", data: PanelData, candidate: Candidate
) -> FactorParameters:
    """Probabilistic principal components with isotropic noise, and a Yule-Walker VAR on them.

    The noise starts isotropic on purpose: the principal components' residual covariance is singular
    along the loadings and would freeze a full-covariance EM where it stands.
    """
    active = candidate.factors
    loadings, noise = ppca_loadings(data.values, data.observed, model.num_factors, active)
    num_series = loadings.shape[0]
    variances = jnp.full(num_series, noise)
    factors = static_factors(data.values, data.observed, loadings, variances)
    cov = jnp.diag(variances) if model.idiosyncratic == "full" else variances
    parameters = with_dynamics(loadings, cov, factors, model.num_lags, candidate.lags, active)
    return switch_off(parameters, active)


def switch_off(
    parameters: FactorParameters, active: Bool[Array, " factors"] | None
) -> FactorParameters:
    """Inactive factors become independent white noise that loads on nothing."""
    if active is None or parameters.num_lags == 0:
        return parameters
    both = active[:, None] & active
    identity = jnp.eye(active.size, dtype=parameters.loadings.dtype)
    states = jnp.tile(active, parameters.num_lags)
    pairs = states[:, None] & states
    return dataclasses.replace(
        parameters,
        transition=jnp.where(both, parameters.transition, 0.0),
        innovation_cov=jnp.where(both, parameters.innovation_cov, identity),
        initial_cov=jnp.where(
            pairs, parameters.initial_cov, jnp.eye(states.size, dtype=identity.dtype)
        ),
    )
