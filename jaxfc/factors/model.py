"""The approximate dynamic factor model: configuration, estimation, and the fitted model."""

from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.dynamics import impulse_maps, simulate_panel
from jaxfc.factors.em import IDIOSYNCRATIC, INITIAL, PanelData
from jaxfc.factors.identify import principal_rotation, rotate_parameters, rotate_posterior
from jaxfc.factors.methods import EM, PCA, Candidate, Estimate, Method
from jaxfc.factors.moments import ClosedForm, Moments
from jaxfc.factors.scaling import Scaling, fit_scaling
from jaxfc.forecast import FactorForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, select
from jaxfc.state_space import StateSpace
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.lyapunov import companion, stationary_cov
from jaxfc_kernels.var_precision import stationary_block_cov

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class DynamicFactorModel(Model):
    """Approximate dynamic factor model of an incomplete, possibly mixed-frequency panel.

        x_t = W f_t + mu + e_t,                     e_t ~ N(0, S)
        f_t = sum_{l=1..p} A_l f_{t-l} + u_t,       u_t ~ N(0, Q)

    with K = `num_factors` and p = `num_lags` (p = 0: static, f_t ~ N(0, I)); Defend et al. 2021.

    **Options:** `method`: PCA(), PPCA(), EM() (the default) or TwoStepEM(); `moments`: ClosedForm()
    or KalmanMoments(); `idiosyncratic`: S "diagonal", "isotropic" or "full"; `initial`: law of the
    first factors "stationary" (implied by A and Q) or "estimated" (free, as in Banbura, Modugno);
    `intercept`: mu the "sample" mean or "estimated" by EM; `standardise` series before estimation;
    `variance_floor` for idiosyncratic variances, in standardised units.

    **Raises** (from `fit`): `ValueError` for K >= N, too few rows, series never observed or
    constant, and for aggregated series (flows) with a one-step method.
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

    def __check_init__(self):
        if self.num_factors < 1:
            raise ValueError(f"num_factors must be at least 1, got {self.num_factors}.")
        if self.num_lags < 0:
            raise ValueError(f"num_lags must be 0 (static) or more, got {self.num_lags}.")
        if self.num_lags == 0 and self.idiosyncratic == "full":
            raise ValueError(
                "a static model (num_lags=0) with a full idiosyncratic covariance is not "
                "identified: no loadings and S = Cov(x) fit as well. Use idiosyncratic='diagonal' "
                "or num_lags >= 1."
            )
        options = {
            "idiosyncratic": IDIOSYNCRATIC,
            "initial": INITIAL,
            "intercept": ("sample", "estimated"),
        }
        for name, allowed in options.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")

    @property
    def presample(self) -> int:
        """Periods before the panel whose law is estimated (the state before the first row)."""
        return self.num_lags if self.initial == "estimated" else 0

    def check(self, panel: "Panel") -> None:
        num_times, num_series = panel.observed.shape
        self.check_shape(num_times, num_series)
        if panel.aggregation is not None and not self.method.handles_aggregates:
            flows = [
                name for name, kind in zip(panel.names, panel.kinds, strict=True) if kind != "stock"
            ]
            raise ValueError(
                f"series {', '.join(map(repr, flows[:5]))} are flows observed at a lower frequency "
                f"than the panel's, which {type(self.method).__name__} cannot read; "
                "use method=TwoStepEM()."
            )
        if isinstance(self.method, PCA) and not panel.observed[-1].any():
            raise ValueError(
                f"the panel ends with rows without data (last row {panel.index[-1]:%Y-%m-%d}), for "
                "which principal components have no factors; cut them off with panel.window(...), "
                "or use method=EM()."
            )
        counts = panel.observed.sum(axis=0)
        for i, name in enumerate(panel.names):
            if counts[i] == 0:
                raise ValueError(
                    f"series {name!r} has no observation in {panel.index[0]:%Y-%m-%d}.."
                    f"{panel.index[-1]:%Y-%m-%d}; drop it or change the window."
                )
            seen = panel.values[panel.observed[:, i], i]
            if self.standardise and seen.max() == seen.min():
                raise ValueError(
                    f"series {name!r} is constant ({seen[0]:g}) in this panel: it carries no "
                    "information and cannot be standardised; drop it or change the window."
                )

    def check_shape(self, num_times: int, num_series: int) -> None:
        """Raise `ValueError` if a panel of this shape cannot identify the model."""
        if self.num_factors >= num_series:
            raise ValueError(
                f"num_factors = {self.num_factors} needs more than {self.num_factors} series, got "
                f"{num_series}; lower num_factors."
            )
        if num_times < self.num_lags + 2:
            raise ValueError(
                f"num_lags = {self.num_lags} needs at least {self.num_lags + 2} rows, got "
                f"{num_times}; lower num_lags or lengthen the window."
            )

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
        self.check_shape(*values.shape)
        if aggregation is not None and not self.method.handles_aggregates:
            raise ValueError(
                f"{type(self.method).__name__} cannot read aggregated series; use TwoStepEM()."
            )
        candidate = candidate or Candidate()
        mask = observed.astype(values.dtype)
        scaling = fit_scaling(values, mask, aggregation, self.standardise)
        data = PanelData(scaling.standardise(values, mask, aggregation), mask)
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
    if candidate.factors is None:
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
    num_lags = max(model.num_lags, 1)
    num_periods = posterior.means.shape[0]
    last = range(num_periods - num_lags, num_periods)
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
        last_mean=posterior.means[-num_lags:].reshape(-1),
        last_cov=posterior.joint_cov(last),
        completed=completed,
        observed=observed > 0,
        loglik=expectation.loglik - log_scale,
        loglik_path=estimate.path - log_scale,
        num_steps=estimate.num_steps,
        result=result,
    )


class FittedFactorModel(Fitted):
    """An estimated factor model. Parameters are in standardised units, forecasts in data units.

    `factors` (time, factors) and `factor_covs` are E and Cov of f_t given the panel;
    `last_mean`, `last_cov` the joint law of the last p factors, ascending; `completed` the
    standardised panel the moments were computed on (rebuilt by two-step methods, else zeros where
    missing). `loglik` is the observed-data log-likelihood in data units (of the completed panel for
    two-step methods), `loglik_path` the stopping criterion by step, NaN after the last.
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
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}.")
        parameters = self.parameters
        num_factors = parameters.num_factors
        identity = jnp.eye(num_factors, dtype=self.factors.dtype)
        if parameters.num_lags == 0:
            cov = jnp.eye(horizon, dtype=identity.dtype)[:, None, :, None] * identity[:, None, :]
            return jnp.zeros((horizon, num_factors), identity.dtype), cov
        from_last, from_noise = impulse_maps(parameters.transition, horizon)
        noise = jnp.kron(jnp.eye(horizon, dtype=identity.dtype), parameters.innovation_cov)
        cov = from_last @ self.last_cov @ from_last.T + from_noise @ noise @ from_noise.T
        cov = 0.5 * (cov + cov.T)
        mean = from_last @ self.last_mean
        shape = (horizon, num_factors)
        return mean.reshape(shape), cov.reshape(shape + shape)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> FactorForecast:
        refuse_key(key, "forecast")
        mean, cov = self.forecast_factors(horizon)
        parameters = self.parameters
        standardised = FactorForecast(
            mean=parameters.intercept + mean @ parameters.loadings.T,
            loadings=parameters.loadings,
            factor_cov=cov,
            idiosyncratic_cov=parameters.idiosyncratic_cov,
            mixing=jnp.eye(horizon, dtype=mean.dtype),
        )
        centre = jnp.broadcast_to(self.scaling.centre, standardised.mean.shape)
        return standardised.affine(self.scaling.scale, centre)

    def state_space(self) -> StateSpace:
        """The estimated model in companion form, in data units, started from its stationary law.

        State (f_t, ..., f_{t-p+1}), newest first; rows are those of the panel's own frequency. For
        filtered factors, one-step predictions and prediction errors, which smoothing hides.

        **Raises:** nothing; if the factor VAR is not stationary the initial covariance is NaN.
        """
        parameters, scale = self.parameters, self.scaling.scale
        cov = parameters.idiosyncratic_cov
        num_factors, dtype = parameters.num_factors, scale.dtype
        if parameters.num_lags == 0:
            transition = jnp.zeros((num_factors, num_factors), dtype)
        else:
            transition = companion(parameters.transition)
        size = transition.shape[0]
        noise = jnp.zeros((size, size), dtype)
        noise = noise.at[:num_factors, :num_factors].set(parameters.innovation_cov)
        loadings = scale[:, None] * parameters.loadings
        return StateSpace(
            initial_mean=jnp.zeros(size, dtype),
            initial_cov=stationary_cov(transition, noise),
            transition=transition,
            offset=jnp.zeros(size, dtype),
            innovation_cov=noise,
            design=jnp.pad(loadings, ((0, 0), (0, size - num_factors))),
            observation_offset=self.scaling.restore(parameters.intercept),
            observation_cov=scale**2 * cov if cov.ndim == 1 else scale[:, None] * cov * scale,
        )

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        standardised = simulate_panel(self.parameters, num_steps, key=key)
        return self.scaling.restore(standardised)


def refuse_key(key: PRNGKeyArray | None, verb: str) -> None:
    """A key that would not be used is a misunderstanding."""
    if key is not None:
        raise ValueError(f"{verb} of a factor model is exact and uses no randomness; omit `key`.")
