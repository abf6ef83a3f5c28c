"""A fitted model on data: the panel its moments were computed on, and its moments on another."""

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxfc.factors.ahead import memory_fields
from jaxfc.factors.coupled import make_coupling
from jaxfc.factors.em import Expectation, PanelData, completed_data
from jaxfc.factors.methods import EM, PCA, Candidate
from jaxfc.factors.model import FittedFactorModel
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def check_fitted_panel(fitted: FittedFactorModel, panel: "Panel") -> None:
    """Raise `ValueError` unless the panel is the one that was fitted."""
    if panel.observed.shape != fitted.observed.shape or np.any(
        panel.observed != np.asarray(fitted.observed)
    ):
        raise ValueError(
            f"the panel {panel.observed.shape} is not the one that was fitted "
            f"{tuple(fitted.observed.shape)}, or other cells of it are observed."
        )


def fitted_data(fitted: FittedFactorModel) -> PanelData:
    """The standardised panel that the factors of `fitted` are conditioned on.

    The observed cells for one-step methods; for two-step ones the rebuilt panel up to the last row
    with data.
    """
    mask = fitted.observed.astype(fitted.completed.dtype)
    if fitted.model.method.rebuilds_panel:
        return completed_data(fitted.completed, mask)
    return PanelData(fitted.completed, mask, coupling=fitted.coupling)


def panel_data(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
) -> PanelData:
    """Any panel as the fitted model reads it, standardised."""
    model, mask = fitted.model, observed.astype(values.dtype)
    weighted = model.weighting is not None
    coupling = make_coupling(model.errors, model.flows, mask, aggregation, weighted)
    return PanelData(fitted.scaling.standardise(values, mask, aggregation), mask, coupling=coupling)


def expectation(fitted: FittedFactorModel, data: PanelData) -> Expectation:
    """One E-step at the fitted parameters."""
    return EM().step(fitted.model, Candidate()).expect(fitted.parameters, data)


def refuse_regressed_factors(fitted: FittedFactorModel) -> None:
    """Raise `ValueError` for principal components, whose factors have no law given data."""
    if isinstance(fitted.model.method, PCA):
        raise ValueError(
            "the factors of PCA() are least-squares regressions, not moments of the model given "
            "data; use PPCA(), EM() or TwoStepEM()."
        )


def condition(fitted: FittedFactorModel, data: PanelData) -> FittedFactorModel:
    """The fitted model with the factors' law given another (standardised) panel; pure.

    Parameters stay; `factors`, `factor_covs`, `last_mean`, `last_cov` and `loglik` are those of
    `data`, by one E-step. The other fields describe the estimation and stay too.

    **Raises:** `ValueError` for principal components, whose factors are regressions, no moments of
    the model.
    """
    refuse_regressed_factors(fitted)
    model = fitted.model
    given_data = expectation(fitted, data)
    posterior, memory = given_data.posterior, model.memory
    num_periods = posterior.means.shape[0]
    log_scale = jnp.sum(jnp.sum(data.observed, axis=0) * jnp.log(fitted.scaling.scale))
    return dataclasses.replace(
        fitted,
        factors=posterior.means[model.presample :],
        factor_covs=posterior.covs[model.presample :],
        last_mean=posterior.means[-memory:].reshape(-1),
        last_cov=posterior.joint_cov(range(num_periods - memory, num_periods)),
        completed=data.values,
        observed=data.observed > 0,
        loglik=given_data.loglik - log_scale,
        **memory_fields(fitted.parameters, data),
    )


def given(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
) -> FittedFactorModel:
    """`FittedFactorModel.given`: one E-step on another panel."""
    model = fitted.model
    if model.method.rebuilds_panel:
        raise ValueError(
            f"{type(model.method).__name__} conditions its factors on the panel that it rebuilds "
            "while it estimates; fit again, or use method=EM(), which reads other data as they are."
        )
    if model.weighting is not None:
        raise ValueError(
            f"the weights of {type(model.weighting).__name__} belong to the rows that were fitted "
            "and say nothing of other data; fit again, or use no weighting."
        )
    return condition(fitted, panel_data(fitted, values, observed, aggregation))
