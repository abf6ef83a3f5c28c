"""Markov-switching means and covariances, estimated by EM."""

import dataclasses
from typing import TYPE_CHECKING, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.model import Model
from jaxfc.regimes.checks import check_panel
from jaxfc.regimes.em import (
    Data,
    RegimeParameters,
    em_step,
    expectations,
    from_weights,
    in_order,
    total_variance,
)
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.fitted import FittedRegimes, filtered_state
from jaxfc.regimes.iterate import ascend
from jaxfc.regimes.masked import as_rows
from jaxfc.regimes.prior import Prior, pooled_moments, prior_moments
from jaxfc.regimes.start import random_starts, turbulence_start
from jaxfc.regimes.structure import FullCovariance, Structure
from jaxfc.regimes.tails import GaussianTails, Tails
from jaxfc.results import RESULTS, select
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.hidden_markov import IMPLEMENTATIONS

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# A regime expected to hold fewer rows than this says nothing.
FEWEST_ROWS = 2.0


class RegimeModel(Model):
    """Rows whose mean and covariance depend on a regime that follows a Markov chain.

        y_t | s_t = k ~ law(mu_k, S_k),   P(s_{t+1} = j | s_t = i) = P_ij,   s_t in 1..num_regimes

    S_k by `structure`: one for all regimes (their order is then that of their total variance,
    calmest first) or a tuple with one for each (the order is that of the tuple), e.g. a calm regime
    with a market and sector factors and a crisis with the market alone. The law by `tails`:
    GaussianTails() or StudentTails(degrees). `prior` keeps regimes from collapsing; `no_prior()`
    gives maximum likelihood.

    EM runs until a step gains less than `tolerance` per observed entry, at most `max_steps` steps.
    The first start ranks rows by the turbulence around them; `num_starts` - 1 more are random and
    need a key. Of several, each takes `short_steps` steps and the best one goes on. Entries may be
    missing anywhere. Estimates follow changes of units and of origin of the series.

    `implementation` of the filter and smoother is "sequential", or "blocked" or "parallel" for
    accelerators (see `jaxfc_kernels.hidden_markov`).

    **Raises:** `ValueError` for options out of range; from `fit` for flows, series that are
    constant or nearly unobserved, and panels with fewer rows than parameters of a mean.

    Source: Hamilton (1989, 1990); starts: Biernacki, Celeux and Govaert (2003).
    """

    num_regimes: int = eqx.field(static=True, default=2)
    structure: Structure | tuple[Structure, ...] = eqx.field(default_factory=FullCovariance)
    tails: Tails = eqx.field(default_factory=GaussianTails, kw_only=True)
    prior: Prior = eqx.field(default_factory=Prior, kw_only=True)
    num_starts: int = eqx.field(static=True, default=1, kw_only=True)
    short_steps: int = eqx.field(static=True, default=15, kw_only=True)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-8, kw_only=True)
    max_steps: int = eqx.field(static=True, default=1000, kw_only=True)
    implementation: str = eqx.field(static=True, default="sequential", kw_only=True)

    def __check_init__(self):
        check_counts(
            num_regimes=self.num_regimes,
            num_starts=self.num_starts,
            short_steps=self.short_steps,
            max_steps=self.max_steps,
        )
        structures = self.emissions.structures
        if len(structures) not in (1, self.num_regimes) or (
            isinstance(self.structure, tuple) and len(structures) != self.num_regimes
        ):
            raise ValueError(
                f"there are {len(structures)} structures for {self.num_regimes} regimes; give one "
                "for all or a tuple with one for each."
            )
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation must be one of {IMPLEMENTATIONS}, got {self.implementation!r}."
            )

    @property
    def emissions(self) -> Emissions:
        """The laws of a row in all regimes."""
        several = isinstance(self.structure, tuple)
        structures = self.structure if several else (self.structure,)
        return Emissions(cast(tuple[Structure, ...], structures), self.tails, self.num_regimes)

    def check(self, panel: "Panel") -> None:
        check_panel(panel, self.num_regimes)
        for structure in self.emissions.structures:
            structure.check(len(panel.names))

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedRegimes:
        refuse_sums(aggregation, "RegimeModel")
        if self.num_starts > 1 and key is None:
            raise ValueError(
                f"num_starts={self.num_starts} draws random starts: pass key=jax.random.key(...)."
            )
        emissions, rows = self.emissions, as_rows(values, observed)
        mean, scatter = pooled_moments(rows.values, observed)
        variances = jnp.diagonal(scatter)
        moments = prior_moments(self.prior, mean, scatter, self.num_regimes)
        data = Data(rows, self.prior, moments)

        def step(
            parameters: RegimeParameters, data: Data
        ) -> tuple[RegimeParameters, Float[Array, ""]]:
            return em_step(emissions, parameters, data, self.implementation)

        start = jax.lax.stop_gradient(self.start(data, variances, step, key))
        gain = self.tolerance.astype(values.dtype) * jnp.sum(rows.seen)
        ended = ascend(step, start, data, smallest_gain=gain, max_steps=self.max_steps)
        parameters = in_order(
            emissions, ended.value, total_variance(emissions, ended.value, variances)
        )
        found = expectations(emissions, parameters, rows, self.implementation)
        expected_rows = rows.any_seen @ found.smoothed.probabilities
        empty = jnp.min(expected_rows) < FEWEST_ROWS
        weights = found.smoothed.probabilities
        logs = jnp.log(jnp.where(weights > 0, weights, 1.0))
        return FittedRegimes(
            emissions=emissions,
            parameters=parameters,
            state=filtered_state(found.filtered),
            loglik=found.loglik,
            path=ended.path,
            entropy=-jnp.sum(weights * logs),
            expected_rows=expected_rows,
            num_steps=ended.num_steps,
            result=select(empty, cast(RESULTS, RESULTS.empty_regime), ended.result),
            implementation=self.implementation,
            starts_drawn=self.num_starts > 1,
        )

    def start(
        self, data: Data, variances: Array, step, key: PRNGKeyArray | None
    ) -> RegimeParameters:
        """Parameters that EM starts from: of several starts, the best after a few steps."""
        rows, emissions = data.rows, self.emissions
        weights = turbulence_start(rows, data.moments.mean, variances, self.num_regimes)
        if self.num_starts == 1:
            return from_weights(emissions, weights, data)
        assert key is not None
        size = self.num_starts - 1, len(weights), self.num_regimes
        drawn = random_starts(*size, weights.dtype, key=key)

        def short(weights: Array) -> tuple[RegimeParameters, Array]:
            parameters = from_weights(emissions, weights, data)

            def once(parameters: RegimeParameters, _: None) -> tuple[RegimeParameters, Array]:
                return step(parameters, data)

            parameters, path = jax.lax.scan(once, parameters, None, length=self.short_steps)
            return parameters, path[-1]

        ends, objectives = jax.lax.map(short, jnp.concatenate([weights[None], drawn]))
        best = jnp.argmax(jnp.where(jnp.isnan(objectives), -jnp.inf, objectives))
        return jax.tree.map(lambda leaf: leaf[best], ends)

    def with_regimes(self, num_regimes: int) -> "RegimeModel":
        """The model with another number of regimes, for their selection."""
        if isinstance(self.structure, tuple):
            raise ValueError(
                "the regimes have structures of their own; the number of regimes is that of the "
                "structures. Give one structure for all to compare numbers."
            )
        return dataclasses.replace(self, num_regimes=num_regimes)
