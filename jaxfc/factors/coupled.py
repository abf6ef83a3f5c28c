"""The panel's say on the factors where it couples periods: AR(1) errors, sums over a window,
weights.

Series by series the errors are integrated out into a banded precision (`autoregressive_errors`),
and low-frequency flows into rows over a window with one shared scalar per period (`flow_rows`; with
AR(1) errors one more, `flow_memory`); both add to the bands of the posterior precision of the path
(F_t, s_t), s_t of length J (or 2 J) for J flows.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.errors import AutoregressiveErrors, Errors
from jaxfc.factors.flow_collapse import add_flows, chain_squares
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
from jaxfc_kernels.collapse import Collapsed
from jaxfc_kernels.flow_memory import FlowPattern, flow_pattern, with_memory
from jaxfc_kernels.flow_rows import FlowRows, flow_rows, row_values


class FlowPlan(eqx.Module):
    """Which columns of a panel are low-frequency flows, and how many periods enter a row at most:
    `window`, or `longer_window` where errors have memory (None: a block of a single period leaves
    no noise to a row, and errors with memory are refused)."""

    columns: tuple[int, ...] = eqx.field(static=True)
    window: int = eqx.field(static=True)
    longer_window: int | None = eqx.field(static=True, default=None)


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
    return FlowPlan(columns, int(max(reach)) + 1, window_with_memory(rows, columns))


def window_with_memory(rows: AggregationRows, columns: tuple[int, ...]) -> int | None:
    """Periods from the end of the block before the earliest period of a row to the row, at most."""
    reach = 0
    for group in np.unique(np.asarray(rows.group)[list(columns)]):
        own, following = np.asarray(rows.own_row)[group], np.asarray(rows.next_row)[group]
        num_times = own.size
        times = np.arange(num_times)
        ends = (own == times) | ((own == num_times) & (np.append(own[1:], num_times) < num_times))
        before = np.maximum.accumulate(np.where(ends, times, -1))
        before = np.append(-1, before[:-1])
        before = np.where(before < 0, times, before)
        if np.any((own == times) & (np.append(num_times, own[:-1]) != times)):
            return None
        for row in (own, following, np.where(ends, times, num_times)):
            reach = max(reach, int(np.where(row < num_times, row - before, 0).max()))
    return reach + 1


class Coupling(eqx.Module):
    """What of the coupling depends on the mask and the calendar alone, made once for a panel.

    `gaps` are those of the series that are no flows; `stocks` (series,) is 0.0 for flows. `pattern`
    is there where the flows' errors have memory.
    """

    gaps: Gaps
    stocks: Float[Array, " series"]
    flows: FlowRows | None
    plan: FlowPlan | None
    pattern: FlowPattern | None = None

    def flows_at(self, parameters: FactorParameters) -> FlowRows:
        """The rows of the flows; with memory they depend on the errors' coefficients."""
        assert self.flows is not None and self.plan is not None
        if self.pattern is None:
            return self.flows
        columns = jnp.asarray(self.plan.columns)
        return with_memory(self.flows, self.pattern, errors_ar(parameters)[columns])

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
    if not isinstance(errors, AutoregressiveErrors) or not errors.of_flows:
        flows = flow_rows(rows, plan.columns, observed, plan.window)
        return Coupling(gaps, stocks, flows, plan)
    if plan.longer_window is None:
        raise ValueError(
            "a low-frequency period of a flow has a single row of the panel, which AR(1) errors of "
            "flows do not allow; use AutoregressiveErrors(of_flows=False), or declare the series "
            "a stock."
        )
    flows = flow_rows(rows, plan.columns, observed, plan.longer_window)
    pattern = flow_pattern(rows, plan.columns, observed)
    return Coupling(gaps, stocks, flows, plan, pattern)


def errors_ar(parameters: FactorParameters) -> Float[Array, " series"]:
    """r_i, zero for independent errors."""
    ar = parameters.idiosyncratic_ar
    return jnp.zeros_like(parameters.intercept) if ar is None else ar


def row_totals(coupling: Coupling) -> Float[Array, "time flows"]:
    """Sum of the weights of each row."""
    assert coupling.flows is not None
    ones = jnp.ones_like(coupling.flows.noise)
    return row_values(coupling.flows, ones, jnp.zeros_like(coupling.flows.active))


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
    assert coupling.plan is not None
    columns = jnp.asarray(coupling.plan.columns)
    loadings, variances = parameters.loadings[columns], parameters.variances[columns]
    flows = coupling.flows_at(parameters)
    return add_flows(collapsed, flows, loadings, variances, centred[:, columns])


class CoupledResiduals(NamedTuple):
    """Residuals at posterior means: of stocks (time, series), of the flows' rows (time, J), and the
    scalars (time, A, J)."""

    stocks: Array
    rows: Array
    scalars: Array


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
    scalars = means[:, num_factors:]
    if coupling.flows is None or coupling.plan is None:
        return CoupledResiduals(stocks, scalars, scalars)
    columns, flows = jnp.asarray(coupling.plan.columns), coupling.flows_at(parameters)
    scalars = scalars.reshape(flows.active.shape)
    fitted = row_values(flows, common[:, columns], scalars)
    rows = flows.observed * (centred[:, columns] - fitted)
    return CoupledResiduals(stocks, rows, scalars)


def coupled_misfit(
    parameters: FactorParameters,
    coupling: Coupling,
    residuals: CoupledResiduals,
    observed: Float[Array, "time series"],
    weights: Float[Array, "time series"] | None,
) -> Float[Array, ""]:
    """sum_i e_i' P_i e_i over stocks, plus the flows' rows and scalars in their own units."""
    tables = gap_tables(errors_ar(parameters), parameters.variances, coupling.longest)
    precision = error_precision(observed * coupling.stocks, coupling.gaps, tables, weights)
    weighted = apply_precision(precision, coupling.gaps, residuals.stocks, weights)
    misfit = jnp.sum(residuals.stocks * weighted)
    if coupling.flows is None or coupling.plan is None:
        return misfit
    variances = parameters.variances[jnp.asarray(coupling.plan.columns)]
    flows = coupling.flows_at(parameters)
    squares = jnp.sum(residuals.rows**2 / flows.noise, axis=0)
    squares = squares + chain_squares(flows.prior, residuals.scalars)
    return misfit + jnp.sum(squares / variances)


def factors_only(posterior: FactorPosterior, num_factors: int) -> FactorPosterior:
    """The moments of the factors out of those of (F, s)."""
    return FactorPosterior(
        posterior.means[:, :num_factors],
        posterior.lag_covs[:, :, :num_factors, :num_factors],
        posterior.evidence,
    )
