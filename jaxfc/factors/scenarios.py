"""Scenarios: the law of all series when the future of some of them is given."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from jaxfc.factors.condition import condition, panel_data
from jaxfc.factors.methods import PCA
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.panel_law import covering, sample_panel
from jaxfc.factors.scenario_paths import Identity, check_identities, scenario_panel
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


def conditional_forecast(
    fitted: FittedFactorModel,
    panel: "Panel",
    horizon: int,
    paths: "pd.DataFrame | Mapping[str, Sequence[float]]",
    *,
    identities: Sequence[Identity] = (),
    rtol: float = 1e-6,
    num_draws: int | None = None,
    key: PRNGKeyArray | None = None,
) -> GaussianForecast | SampleForecast:
    """The joint law of the next `horizon` rows given the panel and paths of some of the series.

        y | y_c = a ~ N(m + C_c C_cc^{-1} (a - m_c),  C - C_c C_cc^{-1} C_c'),   y ~ N(m, C) | panel

    with y all cells of the horizon and c those that a path gives. Parameters are held fixed; a path
    is information about the shocks, past and future, not an intervention. The mean is linear in the
    paths; cells of a path have their value and a variance of zero. Costs one smoother, (horizon x
    series)^2 memory and |c| (horizon x series)^2 flops.

    With `num_draws` and `key` the answer are joint draws instead: no such matrices, and the way for
    paths of low-frequency flows, whose values span several rows, some of which may be history. The
    law of a flow is that of its parts at the panel's frequency.

    **Arguments:** `panel`: the data, of the fitted series, whether or not they are those that were
    fitted. `paths`: a frame, dates x series, or a mapping from names to `horizon` values, in the
    units of the panel, NaN where free. Dates are any day of their period and may also be rows of
    the panel in which the series is not observed yet. `identities`: linear identities in the units
    of the panel, as `{"GDP": 1, "C": -1, "I": -1}` for a sum of zero or `(weights, constant)`;
    they are checked, to the relative tolerance `rtol`, wherever all members are given, and not
    imposed where they are not.

    **Raises:** `ValueError` naming series, date and both numbers where paths contradict an identity
    or an observation; for unknown series, dates outside the horizon, empty or infinite paths; for
    principal components, whose factors are no moments; for paths of flows without `num_draws`; if
    only one of `num_draws` and `key` is given.

    Source: Banbura, Giannone and Lenza (2015), conditional forecasts by Kalman filtering; Waggoner
    and Zha (1999).
    """
    check_request(fitted, panel, num_draws, key)
    extended = scenario_panel(panel, horizon, paths)
    check_identities(extended, int(first_given(panel, extended)), identities, rtol)
    fitted = covering(fitted, extended.observed, panel.observed)
    values, observed = extended.arrays()
    if num_draws is not None and key is not None:
        rows = extended.aggregation
        draws = jitted_draws(fitted, values, observed, num_draws, key=key, aggregation=rows)
        return SampleForecast(draws[:, panel.num_times :])
    check_stocks(panel, extended)
    cells = jnp.asarray(np.flatnonzero(extended.observed[panel.num_times :].ravel()))
    # Cells of the ragged edge that a path gives count as history.
    past = dataclasses.replace(
        panel,
        values=extended.values[: panel.num_times],
        observed=extended.observed[: panel.num_times],
    )
    given = values[panel.num_times :].reshape(-1)[cells]
    return jitted_law(fitted, *past.arrays(), past.aggregation, given, cells, horizon)


def check_request(
    fitted: FittedFactorModel, panel: "Panel", num_draws: int | None, key: PRNGKeyArray | None
) -> None:
    """Raise `ValueError` for what has no (exact) answer."""
    num_series = fitted.parameters.loadings.shape[0]
    if panel.num_series != num_series:
        raise ValueError(f"the panel has {panel.num_series} series, the fitted model {num_series}.")
    if isinstance(fitted.model.method, PCA):
        raise ValueError(
            "the factors of PCA() are least-squares regressions, not moments given the observed "
            "cells, which scenarios ask for; fit with EM(), PPCA() or TwoStepEM()."
        )
    if (num_draws is None) != (key is None):
        raise ValueError("draws need both num_draws and key; leave both out for the exact law.")
    if num_draws is not None and num_draws < 2:
        raise ValueError(f"num_draws must be at least 2, got {num_draws}.")


def check_stocks(panel: "Panel", extended: "Panel") -> None:
    """Raise `ValueError` if a path gives values of a flow."""
    given = extended.observed.sum(axis=0) > panel.observed.sum(axis=0)
    series = zip(panel.names, panel.kinds, given, strict=True)
    flows = [name for name, kind, has_path in series if has_path and kind != "stock"]
    if flows:
        raise ValueError(
            f"{flows[0]!r} is a flow over several rows; a path of it has no exact law here, pass "
            "num_draws=... and key=... for draws."
        )


def first_given(panel: "Panel", extended: "Panel") -> np.intp | int:
    """The first row that holds a cell of a path."""
    new = extended.observed.copy()
    new[: panel.num_times] &= ~panel.observed
    return np.argmax(new.any(axis=1))


jitted_draws = eqx.filter_jit(sample_panel)


def scenario_law(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
    given: Float[Array, " cells"],
    cells: Int[Array, " cells"],
    horizon: int,
) -> GaussianForecast:
    """The law of the `horizon` rows after a panel given their flat positions `cells`; pure."""
    data = panel_data(fitted, values, observed, aggregation)
    free = condition(fitted, data).forecast(horizon)
    return given_cells(free.mean, free.cov, given, cells)


def given_cells(
    mean: Float[Array, "horizon series"],
    cov: Float[Array, "horizon series horizon series"],
    given: Float[Array, " cells"],
    cells: Int[Array, " cells"],
) -> GaussianForecast:
    """N(mean, cov) conditioned on the flat positions `cells` having the values `given`."""
    size = mean.size
    flat, joint = mean.reshape(size), cov.reshape(size, size)
    chol = jnp.linalg.cholesky(joint[cells][:, cells])
    half = solve_triangular(chol, joint[cells], lower=True)
    surprise = solve_triangular(chol, given - flat[cells], lower=True)
    flat = (flat + half.T @ surprise).at[cells].set(given)
    joint = joint - half.T @ half
    # What is given has no variance: exactly, not up to rounding.
    joint = joint.at[cells].set(0.0).at[:, cells].set(0.0)
    joint = 0.5 * (joint + joint.T)
    return GaussianForecast(flat.reshape(mean.shape), joint.reshape(cov.shape))


jitted_law = eqx.filter_jit(scenario_law)
