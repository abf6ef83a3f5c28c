"""The approximate dynamic factor model: configuration, estimation, and the fitted model."""

import dataclasses
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.factors.ahead import (
    factor_forecast,
    forecast_with_memory,
    memory_fields,
    series_forecast,
)
from jaxfc.factors.blocks import NamedRestrictions
from jaxfc.factors.candidate import Candidate
from jaxfc.factors.checks import (
    check_options,
    check_panel,
    check_shape,
    check_sizes,
    check_traced,
    has_priors,
)
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import Coupling, FlowPlan, make_coupling, plan_flows
from jaxfc.factors.dynamics import simulate_panel
from jaxfc.factors.em import PanelData
from jaxfc.factors.errors import AutoregressiveErrors, Errors, IndependentErrors
from jaxfc.factors.fitted_space import data_space
from jaxfc.factors.identify import principal_rotation, rotate_parameters, rotate_posterior
from jaxfc.factors.methods import EM, Estimate, Method
from jaxfc.factors.moments import ClosedForm, Moments
from jaxfc.factors.restrictions import Restrictions
from jaxfc.factors.scaling import Scaling, fit_scaling
from jaxfc.factors.shrinkage import DataUnits
from jaxfc.factors.weighting import Weighting
from jaxfc.forecast import Forecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, select
from jaxfc.state_space import StateSpace
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.var_precision import stationary_block_cov

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class DynamicFactorModel(Model):
    """Approximate dynamic factor model of an incomplete, possibly mixed-frequency panel.

        x_t = W f_t + mu + e_t,                     e_t ~ N(0, S)
        f_t = sum_{l=1..p} A_l f_{t-l} + u_t,       u_t ~ N(0, Q)

    with K = `num_factors` and p = `num_lags` (p = 0: static, f_t ~ N(0, I)); Defend et al. 2021.

    **Options:** `method`: PCA(), PPCA(), EM() (the default) or TwoStepEM(); `moments`: ClosedForm()
    or KalmanMoments(); `idiosyncratic`: S "diagonal", "isotropic", "full", or "shrunk", diagonal
    with variances pulled towards each other; `initial`: law of the first factors "stationary"
    (implied by A and Q) or "estimated" (free, as in Banbura, Modugno); `intercept`: mu the "sample"
    mean, "estimated" by EM, or "random", drawn around zero; `standardise` series before estimation;
    `variance_floor` for idiosyncratic variances, in standardised units; `errors`:
    IndependentErrors() or AutoregressiveErrors() over time; `restrictions`: Blocks(...) by names of
    series, or Restrictions(...), zeros and linear equations. `flows` is read off the panel by
    `fit`.

    **Raises** (from `fit`): `ValueError` for K >= N, too few rows, series never observed or
    constant, aggregated series (flows) with a method in closed form, blocks that leave a series
    without a factor, and restrictions that cannot hold.
    """

    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    method: Method = eqx.field(default_factory=EM, kw_only=True)
    moments: Moments = eqx.field(default_factory=ClosedForm, kw_only=True)
    idiosyncratic: str = eqx.field(static=True, default="diagonal", kw_only=True)
    initial: str = eqx.field(static=True, default="stationary", kw_only=True)
    intercept: str = eqx.field(static=True, default="sample", kw_only=True)
    standardise: bool = eqx.field(static=True, default=True, kw_only=True)
    variance_floor: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6, kw_only=True)
    errors: Errors = eqx.field(default_factory=IndependentErrors, kw_only=True)
    restrictions: Restrictions | NamedRestrictions | None = eqx.field(default=None, kw_only=True)
    weighting: Weighting | None = eqx.field(default=None, kw_only=True)
    flows: FlowPlan | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_sizes(self)
        check_options(self)

    @property
    def rules(self) -> Restrictions | None:
        """Restrictions by position; those by name have to be resolved first."""
        if isinstance(self.restrictions, NamedRestrictions):
            raise ValueError(
                f"{type(self.restrictions).__name__}(...) names series, which only a panel can "
                "place; use fit, or model.resolved(panel).estimate(...)."
            )
        return self.restrictions

    @property
    def memory(self) -> int:
        """Number of last periods whose factors a forecast needs: p, or as far as errors
        remember."""
        errors = self.errors
        if isinstance(errors, AutoregressiveErrors) and errors.longest_gap is not None:
            return max(self.num_lags, errors.longest_gap + 1)
        return max(self.num_lags, 1)

    @property
    def presample(self) -> int:
        """Periods before the panel whose law is estimated (the state before the first row)."""
        return self.num_lags if self.initial == "estimated" else 0

    def resolved(self, panel: "Panel") -> "DynamicFactorModel":
        flows = plan_flows(panel.aggregation)
        stocks = panel.observed
        if flows is not None:
            stocks = np.delete(stocks, flows.columns, axis=1)
        restrictions = self.restrictions
        if isinstance(restrictions, NamedRestrictions):
            restrictions = restrictions.restrictions(panel.names, self.num_lags, self.num_factors)
        weighting = None if self.weighting is None else self.weighting.resolved(panel.index)
        return dataclasses.replace(
            self,
            errors=self.errors.resolved(stocks),
            flows=flows,
            restrictions=restrictions,
            weighting=weighting,
        )

    def check(self, panel: "Panel") -> None:
        check_shape(self, *panel.observed.shape)
        check_panel(self, panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedFactorModel":
        return self.estimate_from(values, observed, aggregation=aggregation)

    def estimate_from(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        start: FactorParameters | None = None,
        candidate: Candidate | None = None,
    ) -> "FittedFactorModel":
        """`estimate` with a warm `start` (earlier parameters) or a smaller `candidate`."""
        check_shape(self, *values.shape)
        check_traced(self, aggregation)
        candidate = candidate or Candidate()
        mask = observed.astype(values.dtype)
        scaling = fit_scaling(values, mask, aggregation, self.standardise)
        coupling = None
        if not self.method.rebuilds_panel:
            weighted = self.weighting is not None
            coupling = make_coupling(self.errors, self.flows, mask, aggregation, weighted)
        data = PanelData(scaling.standardise(values, mask, aggregation), mask, coupling=coupling)
        if has_priors(self):
            total = fit_scaling(values, mask, aggregation, standardise=True).scale
            units = DataUnits(-scaling.centre / scaling.scale, 2.0 * jnp.log(total))
            data = dataclasses.replace(data, units=units)
        estimate = self.method.run(self, data, aggregation, start, candidate)
        return finish(self, estimate, scaling, mask, candidate)


def finish(
    model: DynamicFactorModel,
    estimate: Estimate,
    scaling: Scaling,
    observed: Float[Array, "time series"],
    candidate: Candidate,
) -> "FittedFactorModel":
    """Moments at the final parameters, identification, result code."""
    step = EM().step(model, candidate)
    parameters, data = estimate.parameters, estimate.data
    expectation = step.expect(parameters, data)
    posterior = estimate.posterior if estimate.posterior is not None else expectation.posterior
    presample = 0 if estimate.posterior is not None else model.presample
    end = expectation.end - model.presample + presample
    if candidate.factors is None and model.restrictions is None:
        rotation = principal_rotation(parameters, posterior, end)
        parameters = rotate_parameters(parameters, rotation)
        posterior = rotate_posterior(posterior, rotation)
    if model.num_lags == 0:
        stationary = jnp.asarray(True)
    else:
        last = estimate.parameters
        cov = stationary_block_cov(last.transition, last.innovation_cov)
        stationary = jnp.all(jnp.isfinite(cov)) | ~jnp.all(jnp.isfinite(last.transition))
    result = estimate.result
    failed = ~jnp.isfinite(expectation.loglik)
    result = select(failed, cast(RESULTS, RESULTS.diverged), result)
    if model.initial == "stationary" and model.num_lags > 0:
        result = select(~stationary, RESULTS.nonstationary, result)
    # ln p of the data in their own units: the Jacobian of z = (x - centre) / scale.
    log_scale = jnp.sum(jnp.sum(data.observed, axis=0) * jnp.log(scaling.scale))
    memory = model.memory
    num_periods = posterior.means.shape[0]
    last = range(num_periods - memory, num_periods)
    memories = memory_fields(parameters, data)
    completed = data.values
    if data.complete:
        common = parameters.intercept + posterior.means[presample:] @ parameters.loadings.T
        completed = jnp.where(data.observed > 0, completed, common)
    return FittedFactorModel(
        model=model,
        parameters=parameters,
        scaling=scaling,
        factors=posterior.means[presample:],
        factor_covs=posterior.covs[presample:],
        last_mean=posterior.means[-memory:].reshape(-1),
        last_cov=posterior.joint_cov(last),
        completed=completed,
        observed=observed > 0,
        loglik=expectation.loglik - log_scale,
        loglik_path=estimate.path - log_scale,
        num_steps=estimate.num_steps,
        result=result,
        **memories,
    )


class FittedFactorModel(Fitted):
    """An estimated factor model. Parameters are in standardised units, forecasts in data units.

    `factors` (time, factors) and `factor_covs` are E and Cov of f_t given the panel;
    `last_mean`, `last_cov` the joint law of the last p factors, ascending (of the last `memory` of
    the model, where errors have memory); `completed` the
    standardised panel the moments were computed on (rebuilt by two-step methods, else zeros where
    missing). `loglik` is the observed-data log-likelihood in data units (of the completed panel for
    two-step methods), `loglik_path` the stopping criterion by step, NaN after the last. With AR(1)
    errors, `last_known` and `last_gap` are each series' last value (standardised, less the
    intercept) and its age, and `gap_error` the largest |r_i|^gap of a gap that was not bridged.
    `coupling` is how errors with memory and flows couple the panel's rows.
    """

    model: DynamicFactorModel
    parameters: FactorParameters
    scaling: Scaling
    factors: Float[Array, "time factors"]
    factor_covs: Float[Array, "time factors factors"]
    last_mean: Float[Array, " states"]
    last_cov: Float[Array, "states states"]
    completed: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    loglik: Float[Array, ""]  # pyright: ignore
    loglik_path: Float[Array, " steps"]
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore
    last_known: Float[Array, " series"] | None = None
    last_gap: Int[Array, " series"] | None = None
    gap_error: Float[Array, " series"] | None = None
    coupling: Coupling | None = None

    @property
    def common(self) -> Float[Array, "time series"]:
        """Common component W f_t + mu in data units: what the factors say of every series."""
        parameters = self.parameters
        standardised = parameters.intercept + self.factors @ parameters.loadings.T
        return self.scaling.restore(standardised)

    def forecast_factors(
        self, horizon: int
    ) -> tuple[Float[Array, "horizon factors"], Float[Array, "horizon factors horizon factors"]]:
        """Mean and joint covariance of the next `horizon` factors given the panel."""
        check_counts(horizon=horizon)
        return factor_forecast(self, horizon)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> Forecast:
        refuse_key(key, "forecast")
        check_counts(horizon=horizon)
        has_memory = self.parameters.idiosyncratic_ar is not None
        ahead = forecast_with_memory if has_memory else series_forecast
        standardised = ahead(self, horizon)
        centre = jnp.broadcast_to(self.scaling.centre, standardised.mean.shape)
        return standardised.affine(self.scaling.scale, centre)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedFactorModel":
        from jaxfc.factors.condition import given

        return given(self, values, observed, aggregation)

    def state_space(self) -> StateSpace:
        """The estimated model in companion form, in data units, started from its stationary law.

        State (f_t, ..., f_{t-p+1}), newest first, and, with AR(1) errors, one error for each
        series; rows are those of the panel's own frequency, and every series is read as a stock.
        For filtered factors, one-step predictions and prediction errors, which smoothing hides.
        With AR(1) errors ask for implementation="univariate": nothing is added to the states.

        **Raises:** nothing; if the factor VAR is not stationary the initial covariance is NaN.
        """
        return data_space(self)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        standardised = simulate_panel(self.parameters, num_steps, key=key)
        return self.scaling.restore(standardised)


def refuse_key(key: PRNGKeyArray | None, verb: str) -> None:
    """A key that would not be used is a misunderstanding."""
    if key is not None:
        raise ValueError(f"{verb} of a factor model is exact and uses no randomness; omit `key`.")
