"""The Bayesian approximate dynamic factor model: draws of its parameters, forecasts as draws."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.batching import map_in_batches
from jaxfc.bayes.diagnostics import Limits, judged
from jaxfc.bayes.draws import NUM_TOGETHER, Inference, PosteriorDraws
from jaxfc.bayes.dynamic_factors_gibbs import FactorGibbs
from jaxfc.bayes.dynamic_factors_panel import (
    SeriesScale,
    StandardPanel,
    check_series,
    check_size,
    standard_panel,
)
from jaxfc.bayes.dynamic_factors_program import DynamicFactorProgram, FactorPrior
from jaxfc.bayes.program import Parameters
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.block_tridiagonal import moments
from jaxfc_kernels.semidefinite import semidefinite_chol

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class CommonPart(NamedTuple):
    """Posterior mean and standard deviation of intercept + loadings f_t, in data units."""

    mean: Float[Array, "time series"]
    std: Float[Array, "time series"]


class FittedBayesianFactors(Fitted):
    """Draws of a dynamic factor model.

    `draws` are those of the parameters in standard units (`units` leads back); `state_means` and
    `state_covs` the exact law of the last `num_lags` rows of factors given each draw, ascending in
    time. `loglik` is the mean over draws of ln p(panel | parameters), of the standardised panel.
    """

    draws: PosteriorDraws
    units: SeriesScale
    prior: FactorPrior
    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True)
    state_means: Float[Array, "draws states"]
    state_covs: Float[Array, "draws states states"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def program(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> DynamicFactorProgram:
        """The program of these data in the units of the fit."""
        panel = standard_panel(values, observed, self.units)
        return DynamicFactorProgram(panel, self.num_factors, self.num_lags, self.prior)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> SampleForecast:
        """One joint path of the future for every posterior draw."""
        check_counts(horizon=horizon)
        return self.futures(horizon, required_key(key, "forecast draws at random"))

    @eqx.filter_jit
    def futures(self, horizon: int, key: PRNGKeyArray) -> SampleForecast:
        """The forecast, compiled once for each horizon."""
        state_key, path_key = jax.random.split(key)
        program = self.empty_program()

        def ahead(case: tuple[Parameters, Array, Array, PRNGKeyArray, PRNGKeyArray]) -> Array:
            parameters, mean, cov, start_key, noise_key = case
            noise = jax.random.normal(start_key, mean.shape, mean.dtype)
            history = mean + semidefinite_chol(cov) @ noise
            return roll(program, parameters, history, horizon, key=noise_key)

        num_draws = self.draws.num_draws
        keys = jax.random.split(state_key, num_draws), jax.random.split(path_key, num_draws)
        cases = self.draws.pooled(), self.state_means, self.state_covs, *keys
        paths = map_in_batches(ahead, cases, NUM_TOGETHER)
        return SampleForecast(self.units.restore(paths))

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of the model at one posterior draw picked at random, from its stationary law."""
        pick_key, path_key = jax.random.split(key)
        number = jax.random.randint(pick_key, (), 0, self.draws.num_draws)
        parameters = jax.tree.map(lambda x: x[number], self.draws.pooled())
        space = self.empty_program().space(parameters)
        return self.units.restore(space.simulate(num_steps, key=path_key)[1])

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedBayesianFactors":
        refuse_sums(aggregation, "BayesianFactorModel")
        program = self.program(values, observed)
        means, covs, loglik = last_states(program, self.draws.pooled())
        return dataclasses.replace(self, state_means=means, state_covs=covs, loglik=loglik)

    def common_part(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> CommonPart:
        """What the factors say of every cell given all data, observed or not: mean and standard
        deviation over factors and parameters."""
        program = self.program(values, observed)

        def one(parameters: Parameters) -> tuple[Array, Array]:
            law = moments(program.path_law(parameters))
            lags, size = self.num_lags, self.num_factors
            means = law.means.reshape(-1, size)[-values.shape[0] :]
            blocks = law.covs.reshape(-1, lags, size, lags, size)
            covs = jnp.einsum("slalb->slab", blocks).reshape(-1, size, size)[-values.shape[0] :]
            loadings = parameters["loadings"]
            level = parameters["intercept"] + means @ loadings.T
            return level, jnp.einsum("ik,tkl,il->ti", loadings, covs, loadings)

        def add(state: tuple[Array, Array, Array, Array], parameters: Parameters):
            count, mean, squares, variances = state
            level, variance = one(parameters)
            gap = level - mean
            mean = mean + gap / (count + 1)
            return (count + 1, mean, squares + gap * (level - mean), variances + variance), None

        # Moments are added up: the cells of all draws at once would not fit in memory.
        nothing = jnp.zeros_like(program.panel.values)
        begin = jnp.zeros((), nothing.dtype), nothing, nothing, nothing
        (count, mean, squares, variances), _ = jax.lax.scan(add, begin, self.draws.pooled())
        std = jnp.sqrt((squares + variances) / count)
        return CommonPart(self.units.restore(mean), self.units.scale * std)

    def identified(self) -> Parameters:
        """Draws (chains, draws, ...) of what the data identify, see `DynamicFactorProgram`."""
        return self.draws.map(self.empty_program().identified)

    def empty_program(self) -> DynamicFactorProgram:
        """The program of no data, for what needs parameters only."""
        nothing = jnp.zeros((1, self.units.scale.shape[0]), self.units.scale.dtype)
        panel = StandardPanel(nothing, nothing > 0, self.units)
        return DynamicFactorProgram(panel, self.num_factors, self.num_lags, self.prior)


class BayesianFactorModel(Model):
    """A dynamic factor model with priors, sampled.

        x_t = intercept + loadings f_t + e_t,   e_t ~ N(0, diag),   f_t = sum_l A_l f_{t-l} + u_t

    with `num_factors` K factors and `num_lags` p lags. Series are put in standard units first, in
    which the `prior` is stated, and forecasts are in data units again. `inference` is
    `FactorGibbs()`, which draws factors and parameters in turn from their exact laws, or any other
    `Inference`, for which the Kalman filter integrates the factors out. Missing cells are exact
    either way. Only what no change of basis of the factors touches is reported (`identified`), and
    the result code says whether that fails `limits`.

    **Raises:** `ValueError` for counts below one, a missing key; from `fit` for flows, series that
    are empty or constant, too few rows, too many factors.

    Source: Otrok and Whiteman (1998); Kim and Nelson (1999), chapter 8.
    """

    num_factors: int = eqx.field(static=True)
    num_lags: int = eqx.field(static=True, default=1)
    prior: FactorPrior = eqx.field(default_factory=FactorPrior, kw_only=True)
    inference: Inference = eqx.field(default_factory=FactorGibbs, kw_only=True)
    limits: Limits = eqx.field(default_factory=Limits, kw_only=True)

    def __check_init__(self):
        check_counts(num_factors=self.num_factors, num_lags=self.num_lags)

    @property
    def rows_needed(self) -> int:
        """Fewest rows of a panel: the VAR has as many equations as regressors."""
        return self.num_lags * (self.num_factors + 1) + 2

    def check(self, panel: "Panel") -> None:
        refuse_sums(panel.aggregation, "BayesianFactorModel")
        check_size(self.num_factors, len(panel.names), len(panel.index), self.rows_needed)
        check_series(panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedBayesianFactors:
        refuse_sums(aggregation, "BayesianFactorModel")
        num_times, num_series = values.shape
        check_size(self.num_factors, num_series, num_times, self.rows_needed)
        panel = standard_panel(values, observed)
        program = DynamicFactorProgram(panel, self.num_factors, self.num_lags, self.prior)
        key = required_key(key, "BayesianFactorModel draws at random")
        draws = judged(self.inference.sample(program, key=key), program, limits=self.limits)
        means, covs, loglik = last_states(program, draws.pooled())
        return FittedBayesianFactors(
            draws=draws,
            units=panel.units,
            prior=self.prior,
            num_factors=self.num_factors,
            num_lags=self.num_lags,
            state_means=means,
            state_covs=covs,
            loglik=loglik,
            num_steps=draws.num_steps,
            result=draws.result,
        )


def last_states(
    program: DynamicFactorProgram, pooled: Parameters
) -> tuple[Array, Array, Float[Array, ""]]:
    """By draw the law of the last rows of factors; the mean log-likelihood over draws."""

    def one(parameters: Parameters) -> tuple[Array, Array, Array]:
        return *program.last_state(parameters), program.log_likelihood(parameters)

    means, covs, logliks = map_in_batches(one, pooled, NUM_TOGETHER)
    return means, covs, jnp.mean(logliks)


def roll(
    program: DynamicFactorProgram,
    parameters: Parameters,
    history: Float[Array, " states"],
    num_steps: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "time series"]:
    """One path of standardised rows after the factors `history` (ascending in time)."""
    factor_key, error_key = jax.random.split(key)
    loadings, size = parameters["loadings"], program.num_factors
    transition = program.transition(parameters)[::-1]  # oldest lag first, as the history
    root = jnp.linalg.cholesky(parameters["innovation_cov"])
    shocks = jax.random.normal(factor_key, (num_steps, size), loadings.dtype) @ root.T
    errors = jax.random.normal(error_key, (num_steps, loadings.shape[0]), loadings.dtype)

    def step(history: Array, shock: Array) -> tuple[Array, Array]:
        row = jnp.einsum("lab,lb->a", transition, history) + shock
        return jnp.concatenate([history[1:], row[None]]), row

    factors = jax.lax.scan(step, history.reshape(-1, size), shocks)[1]
    common = parameters["intercept"] + factors @ loadings.T
    return common + errors * jnp.sqrt(parameters["error_variance"])
