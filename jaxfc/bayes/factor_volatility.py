"""Factor stochastic volatility, sampled: covariances that move, forecasts as draws."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.batching import map_in_batches
from jaxfc.bayes.autoregression import path_after
from jaxfc.bayes.diagnostics import Limits, judged
from jaxfc.bayes.draws import NUM_TOGETHER, Inference, PosteriorDraws
from jaxfc.bayes.dynamic_factors_panel import (
    SeriesScale,
    StandardPanel,
    check_series,
    check_size,
    standard_panel,
)
from jaxfc.bayes.factor_volatility_filter import (
    LogVariances,
    VolatilityLaw,
    expected_covs,
    predicted,
    stationary,
    volatility_filter,
)
from jaxfc.bayes.factor_volatility_law import last_logs, static, volatility_law
from jaxfc.bayes.factor_volatility_program import (
    FactorVolatilityProgram,
    VolatilityPrior,
    check_forms,
    student_scales,
)
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.program import Parameters
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

FEWEST_ROWS = 10


class CovariancePath(NamedTuple):
    """Expected covariances given the rows before, and up to, each row, in squared data units: means
    over posterior draws. `loglik_terms` are the means of the log densities of rows. Log variances
    enter a row with a variance of at most 4, because the mean of exp(h) over persistent draws does
    not exist."""

    predicted_covs: Float[Array, "time series series"]
    filtered_covs: Float[Array, "time series series"]
    loglik_terms: Float[Array, " time"]


class FittedFactorVolatility(Fitted):
    """Draws of factor stochastic volatility.

    `draws` are those of the parameters in standard units (`units` leads back), paths of log
    variances included. `state` is the law of the last log variances given each draw, factors
    first: exact (the drawn values, variance zero) for the fitted rows, by `volatility_filter` for
    other data. `loglik` is the mean over draws of the sum of one-step log densities by that filter,
    of the standardised panel.
    """

    draws: PosteriorDraws
    units: SeriesScale
    state: LogVariances
    form: FactorVolatilityProgram
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def law(self, parameters: Parameters) -> VolatilityLaw:
        """The model at one draw. Student errors enter by their variance."""
        return volatility_law(self.form, parameters)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> SampleForecast:
        """One joint path of the future for every posterior draw, log variances rolled forward."""
        check_counts(horizon=horizon)
        return self.futures(horizon, required_key(key, "forecast draws at random"))

    @eqx.filter_jit
    def futures(self, horizon: int, key: PRNGKeyArray) -> SampleForecast:
        """The forecast, compiled once for each horizon."""
        state_key, path_key = jax.random.split(key)

        def ahead(case: tuple[Parameters, LogVariances, PRNGKeyArray, PRNGKeyArray]) -> Array:
            parameters, state, start_key, noise_key = case
            first = predicted(self.law(parameters), state)
            return self.path(parameters, first, horizon, keys=(start_key, noise_key))

        num_draws = self.draws.num_draws
        keys = jax.random.split(state_key, num_draws), jax.random.split(path_key, num_draws)
        cases = static(self.draws.pooled()), self.state, *keys
        return SampleForecast(map_in_batches(ahead, cases, NUM_TOGETHER))

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of the model at one posterior draw picked at random, from its stationary law;
        over paths quantiles exist, variances may not (draws of persistence near one)."""
        check_counts(num_steps=num_steps)
        pick_key, start_key, path_key = jax.random.split(key, 3)
        number = jax.random.randint(pick_key, (), 0, self.draws.num_draws)
        parameters = jax.tree.map(lambda x: x[number], static(self.draws.pooled()))
        first = stationary(self.law(parameters))
        return self.path(parameters, first, num_steps, keys=(start_key, path_key))

    def path(
        self,
        parameters: Parameters,
        first: LogVariances,
        num_steps: int,
        *,
        keys: tuple[PRNGKeyArray, PRNGKeyArray],
    ) -> Float[Array, "time series"]:
        """Rows in data units whose first log variances have the law `first`."""
        law, dtype = self.law(parameters), first.means.dtype
        num_series, num_factors = law.loadings.shape
        noise = jax.random.normal(keys[0], (num_steps, first.means.shape[0]), dtype)
        begin = first.means + jnp.sqrt(first.variances) * noise[0] - law.levels
        rest = path_after(begin, law.sigma * noise[1:], law.phi)
        scales = jnp.exp(0.5 * (law.levels + jnp.concatenate([begin[None], rest])))
        unit_key, student_key = jax.random.split(keys[1])
        units = jax.random.normal(unit_key, scales.shape, dtype)
        errors = (scales * units)[:, num_factors:]
        if self.form.errors == "student":
            degrees = 2.0 + parameters["excess_degrees"]
            # `law` has the variance of these errors, their noise is then scaled to variance one.
            errors = errors * jnp.sqrt(parameters["excess_degrees"] / degrees)
            errors = errors * student_scales(degrees, (num_steps, num_series), student_key)
        common = (scales * units)[:, :num_factors] @ law.loadings.T
        return self.units.restore(law.intercept + common + errors)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedFactorVolatility":
        refuse_sums(aggregation, "FactorVolatilityModel")
        panel = standard_panel(values, observed, self.units)

        def one(parameters: Parameters) -> tuple[LogVariances, Array]:
            found = volatility_filter(self.law(parameters), panel.values, panel.weights)
            return jax.tree.map(lambda x: x[-1], found.filtered), jnp.sum(found.loglik_terms)

        state, logliks = self.each_draw(one)
        return dataclasses.replace(self, state=state, loglik=jnp.mean(logliks))

    def covariance_path(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> CovariancePath:
        """Covariances row by row without a look ahead, for these or other data."""
        panel = standard_panel(values, observed, self.units)

        def one(parameters: Parameters) -> tuple[Array, Array, Array]:
            law = self.law(parameters)
            found = volatility_filter(law, panel.values, panel.weights)
            before, after = found.predicted.logs, found.filtered.logs
            return expected_covs(law, before), expected_covs(law, after), found.loglik_terms

        before, after, terms = self.mean_of_draws(one)
        return CovariancePath(self.in_data_units(before), self.in_data_units(after), terms)

    def smoothed_covs(self) -> Float[Array, "time series series"]:
        """Covariances of the fitted rows given all of them: means over posterior draws."""

        def one(parameters: Parameters) -> Array:
            logs = self.form.factor_logs(parameters), self.form.error_logs(parameters)
            own = logs[1] + self.law(parameters).levels[logs[0].shape[1] :]
            own = own - parameters["error_level"]
            return expected_covs(self.law(parameters), jnp.concatenate([logs[0], own], axis=1))

        return self.in_data_units(self.mean_of_draws(one, whole=True))

    def in_data_units(self, covs: Array) -> Array:
        """Covariances of standardised series in squared data units."""
        return self.units.scale[:, None] * covs * self.units.scale

    def each_draw(self, function):
        """`function` of the parameters of every draw, without their paths."""
        return map_in_batches(function, static(self.draws.pooled()), NUM_TOGETHER)

    def mean_of_draws(self, function, whole: bool = False):
        """The mean of `function` over draws, of which it keeps one at a time."""
        pooled = self.draws.pooled()
        pooled = pooled if whole else static(pooled)
        first = jax.tree.map(lambda x: x[0], pooled)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))

        def add(total, parameters: Parameters):
            return jax.tree.map(jnp.add, total, function(parameters)), None

        total = jax.lax.scan(add, zeros, pooled)[0]
        return jax.tree.map(lambda x: x / self.draws.num_draws, total)


class FactorVolatilityModel(Model):
    """Stochastic volatility of `num_factors` latent factors and of the series' own errors.

        y_t = intercept + loadings f_t + e_t,  f_kt ~ N(0, exp(h_kt)),  e_it ~ N(0, exp(g_it))

    with log variances that are first-order autoregressions; `errors` "stochastic" as stated,
    "constant" in variance or "student" (see `FactorVolatilityProgram`), priors as in
    `VolatilityPrior`. Series are put in standard units first and forecasts are in data units.
    Cells may be missing anywhere. `inference` draws; what then fails `limits` is the result code.

    **Raises:** `ValueError` for options out of range and a missing key; from `fit` for flows,
    series that are empty or constant, too few rows, too many factors.

    Source: Chib, Nardari and Shephard (2006); Kastner, Fruehwirth-Schnatter and Lopes (2017).
    """

    num_factors: int = eqx.field(static=True)
    errors: str = eqx.field(static=True, default="stochastic", kw_only=True)
    prior: VolatilityPrior = eqx.field(default_factory=VolatilityPrior, kw_only=True)
    inference: Inference = eqx.field(default_factory=PooledHMC, kw_only=True)
    limits: Limits = eqx.field(default_factory=Limits, kw_only=True)

    def __check_init__(self):
        check_counts(num_factors=self.num_factors)
        check_forms(self.errors, self.factors)

    @property
    def factors(self) -> str:
        """How the program treats the factors: integrated out wherever that is possible."""
        return "sampled" if self.errors == "student" else "integrated"

    def check(self, panel: "Panel") -> None:
        refuse_sums(panel.aggregation, "FactorVolatilityModel")
        check_size(self.num_factors, len(panel.names), len(panel.index), FEWEST_ROWS)
        check_series(panel)

    def program(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> FactorVolatilityProgram:
        """The density that `inference` draws from."""
        panel = standard_panel(values, observed)
        return FactorVolatilityProgram(
            panel, self.num_factors, self.prior, self.errors, self.factors
        )

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedFactorVolatility:
        refuse_sums(aggregation, "FactorVolatilityModel")
        check_size(self.num_factors, values.shape[1], values.shape[0], FEWEST_ROWS)
        key = required_key(key, "FactorVolatilityModel draws at random")
        program = self.program(values, observed)
        draws = judged(self.inference.sample(program, key=key), program, limits=self.limits)
        units = program.panel.units
        nothing = jnp.zeros_like(program.panel.values[:1])
        empty = StandardPanel(nothing, nothing > 0, units)
        last = draws.map(lambda parameters: {"state": last_logs(program, parameters)})["state"]
        last = last.reshape(-1, last.shape[-1])
        fitted = FittedFactorVolatility(
            draws=draws,
            units=units,
            state=LogVariances(last, jnp.zeros_like(last)),
            form=eqx.tree_at(lambda p: p.panel, program, empty),
            loglik=jnp.zeros((), last.dtype),
            num_steps=draws.num_steps,
            result=draws.result,
        )
        loglik = fitted.given(values, observed).loglik
        return dataclasses.replace(fitted, loglik=loglik)
