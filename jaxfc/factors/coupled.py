"""The panel's say on the factors where it couples periods: AR(1) errors, sums over a window,
weights.

Series by series the errors are integrated out into a banded precision (`autoregressive_errors`),
and low-frequency flows into rows over a window with one shared scalar per period (`flow_rows`);
both add to the bands of the posterior precision of the path (F_t, s_t), s_t of length J for J
flows.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.errors import Errors
from jaxfc.factors.moments import FactorPosterior
from jaxfc.factors.weighting import weights_on
from jaxfc.typing import Array, Float
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.autoregressive_errors import (
    Gaps,
    apply_precision,
    collapse_autoregressive,
    error_precision,
    find_gaps,
    gap_tables,
)
from jaxfc_kernels.collapse import LOG_2PI, Collapsed, packed_indices, unpack
from jaxfc_kernels.flow_rows import FlowRows, flow_rows, row_transpose, row_values


class FlowPlan(eqx.Module):
    """Which columns of a panel are low-frequency flows, and how many periods enter a row at
    most."""

    columns: tuple[int, ...] = eqx.field(static=True)
    window: int = eqx.field(static=True)


def plan_flows(rows: AggregationRows | None) -> FlowPlan | None:
    """The plan of a panel's aggregation rows (host side); None: no series is aggregated."""
    if rows is None:
        return None
    own, following = np.asarray(rows.own_row), np.asarray(rows.next_row)
    num_times = own.shape[1]
    times = np.arange(num_times)
    plain = (own == times).all(axis=1) & (np.asarray(rows.own_weight) == 1.0).all(axis=1)
    columns = tuple(int(i) for i in np.flatnonzero(~plain[np.asarray(rows.group)]))
    if not columns:
        return None
    entering = (own < num_times) & (np.asarray(rows.own_weight) != 0)
    following_enters = (following < num_times) & (np.asarray(rows.next_weight) != 0)
    # The scalar that two rows share stands at the end of the earlier period.
    following_enters |= (following < num_times) & (own == times)
    reach = [
        np.where(entering, own - times, 0).max(),
        np.where(following_enters, following - times, 0).max(),
    ]
    return FlowPlan(columns, int(max(reach)) + 1)


class Coupling(eqx.Module):
    """What of the coupling depends on the mask and the calendar alone, made once for a panel.

    `gaps` are those of the series that are no flows; `stocks` (series,) is 0.0 for flows.
    """

    gaps: Gaps
    stocks: Float[Array, " series"]
    flows: FlowRows | None
    plan: FlowPlan | None

    @property
    def longest(self) -> int:
        """The longest gap that errors remember."""
        return self.gaps.at.shape[0] - 1


def make_coupling(
    errors: Errors,
    plan: FlowPlan | None,
    observed: Float[Array, "time series"],
    rows: AggregationRows | None,
    weighted: bool = False,
) -> Coupling | None:
    """None where nothing couples periods and (not `weighted`) all errors count alike."""
    stocks = jnp.ones(observed.shape[1], observed.dtype)
    if plan is None or rows is None:
        gaps = errors.gaps(observed)
        if gaps is None and weighted:
            gaps = find_gaps(observed, 0)
        return None if gaps is None else Coupling(gaps, stocks, None, None)
    stocks = stocks.at[jnp.asarray(plan.columns)].set(0.0)
    gaps = errors.gaps(observed * stocks)
    gaps = find_gaps(observed * stocks, 0) if gaps is None else gaps
    return Coupling(gaps, stocks, flow_rows(rows, plan.columns, observed, plan.window), plan)


def errors_ar(parameters: FactorParameters) -> Float[Array, " series"]:
    """r_i, zero for independent errors."""
    ar = parameters.idiosyncratic_ar
    return jnp.zeros_like(parameters.intercept) if ar is None else ar


def row_totals(coupling: Coupling) -> Float[Array, "time flows"]:
    """Sum of the weights of each row."""
    assert coupling.flows is not None
    ones = jnp.ones_like(coupling.flows.noise)
    return row_values(coupling.flows, ones, jnp.zeros_like(ones))


def centred_values(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    intercept: Float[Array, " series"],
    coupling: Coupling | None,
) -> Float[Array, "time series"]:
    """Data less the intercept, at the observed cells; a row of a flow holds a sum of intercepts."""
    centred = values - observed * intercept
    if coupling is None or coupling.plan is None:
        return centred
    columns = jnp.asarray(coupling.plan.columns)
    totals = row_totals(coupling) * intercept[columns]
    return centred.at[:, columns].set(observed[:, columns] * (values[:, columns] - totals))


def collapse_coupled(
    parameters: FactorParameters,
    coupling: Coupling,
    centred: Float[Array, "time series"],
    observed: Float[Array, "time series"],
) -> Collapsed:
    """Bands of what the panel adds to the posterior precision, and the linear term."""
    seen = observed * coupling.stocks
    weights = weights_on(parameters.error_weights, seen.shape[0])
    tables = gap_tables(errors_ar(parameters), parameters.variances, coupling.longest)
    collapsed = collapse_autoregressive(
        centred * coupling.stocks, seen, coupling.gaps, parameters.loadings, tables, weights
    )
    if coupling.flows is None:
        return collapsed
    return add_flows(collapsed, parameters, coupling, centred)


def add_flows(
    collapsed: Collapsed,
    parameters: FactorParameters,
    coupling: Coupling,
    centred: Float[Array, "time series"],
) -> Collapsed:
    """The same with the rows of the flows and the prior of their shared scalars."""
    flows, plan = coupling.flows, coupling.plan
    assert flows is not None and plan is not None and collapsed.lagged_information is not None
    columns = jnp.asarray(plan.columns)
    loadings, variances = parameters.loadings[columns], parameters.variances[columns]
    values = centred[:, columns]
    num_flows, num_factors = loadings.shape
    scaled = loadings / variances[:, None]
    rows, cols, _ = packed_indices(num_factors)
    outer = scaled[:, rows] * loadings[:, cols]
    bands = flows.bands
    own = unpack(bands[:, :, 0, 0] @ outer, num_factors)
    right = bands[:, :, 0, 1, None, :] * scaled.T
    below = bands[:, :, 1, 0, :, None] * scaled
    identity = jnp.eye(num_flows, dtype=scaled.dtype)
    corner = (bands[:, :, 1, 1] / variances)[..., None] * identity
    corner = corner.at[0].add(identity / variances)
    from_flows = jnp.concatenate(
        [jnp.concatenate([own, right], axis=3), jnp.concatenate([below, corner], axis=3)], axis=2
    )
    extra = ((0, 0), (0, 0), (0, num_flows), (0, num_flows))
    stocks = jnp.concatenate([collapsed.information[None], collapsed.lagged_information])
    orders = max(stocks.shape[0], from_flows.shape[0])
    stocks = jnp.pad(stocks, ((0, orders - stocks.shape[0]), *extra[1:]))
    total = stocks + jnp.pad(
        from_flows, ((0, orders - from_flows.shape[0]), (0, 0), (0, 0), (0, 0))
    )
    linear = row_transpose(flows, values)
    vectors = [collapsed.vectors + linear[:, 0] @ scaled, linear[:, 1] / variances]
    counts = jnp.sum(flows.observed, axis=0)
    logs = jnp.sum(flows.observed * (LOG_2PI + jnp.log(flows.noise)))
    logs = logs + jnp.sum((counts + centred.shape[0]) * jnp.log(variances))
    quadratic = jnp.sum(flows.observed * values**2 / (flows.noise * variances))
    return Collapsed(
        information=total[0],
        vectors=jnp.concatenate(vectors, axis=1),
        quadratic=collapsed.quadratic + quadratic,
        log_normaliser=collapsed.log_normaliser + logs,
        lagged_information=total[1:],
    )


class CoupledResiduals(NamedTuple):
    """Residuals at posterior means: of stocks (time, series), of the flows' rows (time, J), and the
    shared scalars (time, J)."""

    stocks: Array
    rows: Array
    shared: Array


def residuals_of(
    parameters: FactorParameters,
    coupling: Coupling,
    centred: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    means: Float[Array, "time states"],
) -> CoupledResiduals:
    """What the posterior means of (F, s) leave of the data."""
    num_factors = parameters.num_factors
    common = means[:, :num_factors] @ parameters.loadings.T
    stocks = coupling.stocks * (centred - observed * common)
    shared = means[:, num_factors:]
    if coupling.flows is None or coupling.plan is None:
        return CoupledResiduals(stocks, shared, shared)
    columns = jnp.asarray(coupling.plan.columns)
    fitted = row_values(coupling.flows, common[:, columns], shared)
    rows = coupling.flows.observed * (centred[:, columns] - fitted)
    return CoupledResiduals(stocks, rows, shared)


def coupled_misfit(
    parameters: FactorParameters,
    coupling: Coupling,
    residuals: CoupledResiduals,
    observed: Float[Array, "time series"],
    weights: Float[Array, "time series"] | None,
) -> Float[Array, ""]:
    """sum_i e_i' P_i e_i over stocks, plus the flows' rows and shared scalars in their own
    units."""
    tables = gap_tables(errors_ar(parameters), parameters.variances, coupling.longest)
    precision = error_precision(observed * coupling.stocks, coupling.gaps, tables, weights)
    weighted = apply_precision(precision, coupling.gaps, residuals.stocks, weights)
    misfit = jnp.sum(residuals.stocks * weighted)
    if coupling.flows is None or coupling.plan is None:
        return misfit
    variances = parameters.variances[jnp.asarray(coupling.plan.columns)]
    rows = jnp.sum((residuals.rows**2 / coupling.flows.noise + residuals.shared**2) / variances)
    return misfit + rows


def factors_only(posterior: FactorPosterior, num_factors: int) -> FactorPosterior:
    """The moments of the factors out of those of (F, s)."""
    return FactorPosterior(
        posterior.means[:, :num_factors],
        posterior.lag_covs[:, :, :num_factors, :num_factors],
        posterior.evidence,
    )
