"""Correlations that switch between regimes, around variances of every series by itself."""

import dataclasses
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.regimes.correlation_structure import FreeCorrelation, ScaledCorrelation, as_corr
from jaxfc.regimes.em import (
    Data,
    Expectations,
    RegimeParameters,
    em_step,
    expectations,
    from_weights,
    in_order,
)
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.fitted import filtered_state, stationary_law
from jaxfc.regimes.forecast import draw_regimes, regime_law
from jaxfc.regimes.iterate import ascend
from jaxfc.regimes.masked import as_rows
from jaxfc.regimes.prior import Prior, pooled_moments, prior_moments
from jaxfc.regimes.start import comovement_start
from jaxfc.regimes.tails import GaussianTails
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc.volatility import FittedVarianceModel, VarianceModel, VolatilityForecast
from jaxfc.volatility.likelihood import Series
from jaxfc.volatility.simulate import BURN_IN, carry_on, simulate_ahead, state_before
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.hidden_markov import IMPLEMENTATIONS

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class SwitchingCorrelation(Model):
    """Variances of every series by itself, correlations by the regime of a Markov chain.

        e_t = D_t z_t,   z_t | s_t = k ~ N(0, Gamma_k),   P(s_{t+1} = j | s_t = i) = P_ij

    D_t by `margins`; Gamma_k by `correlations`: FreeCorrelation(), or ScaledCorrelation(), one
    matrix nearer to or farther from the identity. Two steps: the margins, then regimes on their
    standardised residuals by EM, as `RegimeModel` says (prior, tolerance by observed entry,
    `implementation`). Regimes are in the order of how much series move together, least first.
    Cells may be missing anywhere: no date is dropped.

    **Raises:** `ValueError` for options out of range; from `fit` what the margins raise.

    Source: Pelletier (2006).
    """

    num_regimes: int = eqx.field(static=True, default=2)
    correlations: FreeCorrelation | ScaledCorrelation = eqx.field(default_factory=FreeCorrelation)
    margins: VarianceModel = eqx.field(default_factory=VarianceModel, kw_only=True)
    prior: Prior = eqx.field(default_factory=Prior, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-8, kw_only=True)
    max_steps: int = eqx.field(static=True, default=1000, kw_only=True)
    implementation: str = eqx.field(static=True, default="sequential", kw_only=True)

    def __check_init__(self):
        check_counts(num_regimes=self.num_regimes, max_steps=self.max_steps)
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation must be one of {IMPLEMENTATIONS}, got {self.implementation!r}."
            )

    def check(self, panel: "Panel") -> None:
        self.margins.check(panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedSwitchingCorrelation":
        margins = self.margins.estimate(values, observed, aggregation=aggregation)
        units, known = margins.filtered().standardised
        rows = as_rows(units, known)
        zero = jnp.zeros(units.shape[1], units.dtype)
        _, scatter = pooled_moments(rows.values, known)
        base = as_corr(scatter)
        emissions = Emissions((self.correlations.around(base),), GaussianTails(), self.num_regimes)
        moments = prior_moments(self.prior, zero, base, 1)
        data = Data(rows, self.prior, moments._replace(mean_strength=jnp.zeros_like(zero[0])))

        def step(
            parameters: RegimeParameters, args: tuple[Emissions, Data]
        ) -> tuple[RegimeParameters, Float[Array, ""]]:
            return em_step(args[0], parameters, args[1], self.implementation)

        weights = comovement_start(rows, base, self.num_regimes)
        start = jax.lax.stop_gradient(from_weights(emissions, weights, data))
        gain = self.tolerance.astype(units.dtype) * jnp.sum(rows.seen)
        ended = ascend(step, start, (emissions, data), smallest_gain=gain, max_steps=self.max_steps)
        together = jnp.einsum("kij,ij->k", emissions.dense(ended.value.scatters), base)
        result = select(margins.result != SUCCESSFUL, margins.result, ended.result)
        fitted = FittedSwitchingCorrelation(
            margins=margins,
            emissions=emissions,
            parameters=in_order(emissions, ended.value, together),
            state=jnp.zeros(self.num_regimes, units.dtype),
            loglik=jnp.zeros((), units.dtype),
            path=ended.path,
            num_steps=jnp.maximum(margins.num_steps, ended.num_steps),
            result=cast(RESULTS, result),
            implementation=self.implementation,
        )
        return fitted.settled()


class FittedSwitchingCorrelation(Fitted):
    """An estimated `SwitchingCorrelation`, on the data that were fitted or `given`.

    `margins` are the variances; `state` the probability of each regime at the last row; `path` the
    objective of the second step before each EM step; `num_steps` the larger of both steps';
    `result` that of the first step that failed.
    """

    margins: FittedVarianceModel
    emissions: Emissions
    parameters: RegimeParameters
    state: Float[Array, " regimes"]
    loglik: Float[Array, ""]  # pyright: ignore
    path: Float[Array, " steps"]
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore
    implementation: str = eqx.field(static=True, default="sequential")

    @property
    def transition(self) -> Float[Array, "regimes regimes"]:
        """P, rows sum to one."""
        return self.parameters.transition

    @property
    def corrs(self) -> Float[Array, "regimes series series"]:
        """Gamma_k."""
        return self.emissions.dense(self.parameters.scatters)

    @property
    def stationary(self) -> Float[Array, " regimes"]:
        """The law of the regime in the long run."""
        return stationary_law(self.transition)

    def expectations(self) -> Expectations:
        """Filtered and smoothed probabilities of the regimes of the rows (see `RegimeModel`)."""
        units, known = self.margins.filtered().standardised
        rows = as_rows(units, known)
        return expectations(self.emissions, self.parameters, rows, self.implementation)

    def log_densities(self) -> Float[Array, " time"]:
        """ln f(x_t | rows before) of the observed block of every row; no later row enters, but for
        the level that variances start from."""
        filtered = self.margins.filtered()
        own = jnp.where(filtered.known, jnp.log(filtered.past), 0.0)
        terms = self.expectations().filtered.loglik_terms
        return terms - 0.5 * jnp.sum(own, axis=1)

    def settled(self) -> "FittedSwitchingCorrelation":
        """With the state and the log-likelihood of the data that it holds."""
        state = filtered_state(self.expectations().filtered)
        return dataclasses.replace(self, state=state, loglik=jnp.sum(self.log_densities()))

    def forecast(
        self, horizon: int, *, key: PRNGKeyArray | None = None, num_draws: int = 2000
    ) -> Forecast:
        """The next `horizon` rows: moments without a key, `num_draws` paths with one.

            H_{T+h} = E[D_{T+h}] R_h E[D_{T+h}],   R_h = sum_k a_{h,k} Gamma_k,   a_h = (P')^h a_T

        with E[D] taken as the root of the expected variances. Means, variances and the covariances
        one step ahead are exact given the parameters. Further ahead a covariance needs
        E[sqrt(s_i s_j)], which has no closed form: sqrt(E s_i E s_j) is an upper bound of it in
        size, close where variances are well predicted. Draws have no such error.

        **Raises:** `ValueError` for a horizon below 1 and for moments that do not exist (see
        `FittedVarianceModel.forecast`).
        """
        check_counts(horizon=horizon)
        if key is not None:
            return SampleForecast(self.draw_ahead(horizon, num_draws, key=key))
        own = self.margins.moments_ahead(horizon)
        stds = jnp.sqrt(jnp.diagonal(own.innovation_covs, axis1=1, axis2=2))
        law = regime_law(self.state, self.transition, horizon)
        corrs = jnp.einsum("hk,kij->hij", law, self.corrs, precision="highest")
        covs = stds[:, :, None] * corrs * stds[:, None, :]
        return VolatilityForecast(own.mean, covs, own.responses)

    def draw_units(
        self, state: Float[Array, " regimes"], shape: tuple[int, int], *, key: PRNGKeyArray
    ) -> Float[Array, "draws horizon series"]:
        """Standardised innovations along drawn paths of regimes."""
        path_key, key = jax.random.split(key)
        paths = draw_regimes(state, self.transition, shape, key=path_key)
        corrs = self.corrs
        noise = jax.random.normal(key, (*shape, corrs.shape[1]), corrs.dtype)
        each = jnp.einsum("kab,dhb->kdha", jnp.linalg.cholesky(corrs), noise, precision="highest")
        chosen = jax.nn.one_hot(paths, corrs.shape[0], axis=0, dtype=corrs.dtype)
        return jnp.einsum("kdh,kdha->dha", chosen, each, precision="highest")

    def draw_ahead(
        self, horizon: int, num_draws: int, *, key: PRNGKeyArray
    ) -> Float[Array, "draws horizon series"]:
        """Paths of the next rows: regimes, innovations given them, each feeding the variances."""
        how = self.margins.model.specification
        units = self.draw_units(self.state, (num_draws, horizon), key=key)

        def one(parameters: Array, series: Series, units: Array) -> Array:
            return simulate_ahead(how, parameters, series, horizon, num_draws, units, key=key)

        return self.margins.each_series(one, jnp.moveaxis(units, 2, 0), out_axes=2)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        how = self.margins.model.specification
        units = self.draw_units(self.stationary, (1, BURN_IN + num_steps), key=key)[0]

        def one(parameters: Array, series: Series, units: Array) -> Array:
            return carry_on(how, parameters, state_before(how, parameters, series), units)[BURN_IN:]

        return self.margins.each_series(one, units.T)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedSwitchingCorrelation":
        margins = self.margins.given(values, observed, aggregation=aggregation)
        return dataclasses.replace(self, margins=margins).settled()
