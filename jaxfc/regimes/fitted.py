"""An estimated Markov-switching model."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.model import Fitted
from jaxfc.regimes.em import Expectations, RegimeParameters, expectations
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.forecast import RegimeForecast, draw_rows
from jaxfc.regimes.masked import as_rows
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.hidden_markov import Filtered, most_likely_path

if TYPE_CHECKING:
    import pandas as pd


class RegimeProbabilities(NamedTuple):
    """P(s_t | rows before), P(s_t | rows to t), P(s_t | all rows), each (time, regimes), and
    ln f(y_t | rows before) (time,). The first two never use a later row."""

    predicted: Float[Array, "time regimes"]
    filtered: Float[Array, "time regimes"]
    smoothed: Float[Array, "time regimes"]
    loglik_terms: Float[Array, " time"]


def filtered_state(filtered: Filtered) -> Float[Array, " regimes"]:
    """P(s_T | rows to T)."""
    return jnp.exp(filtered.log_filtered[-1])


class FittedRegimes(Fitted):
    """Estimated regimes.

    `state` is the probability of each regime at the last row of the data; `path` the objective
    before each EM step, NaN beyond the last; `entropy` that of the smoothed probabilities;
    `expected_rows` how many rows each regime is expected to hold. `loglik` leaves the prior out.
    `starts_drawn`: whether the estimation drew starts with a key.
    """

    emissions: Emissions
    parameters: RegimeParameters
    state: Float[Array, " regimes"]
    loglik: Float[Array, ""]  # pyright: ignore
    path: Float[Array, " steps"]
    entropy: Float[Array, ""]
    expected_rows: Float[Array, " regimes"]
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore
    implementation: str = eqx.field(static=True, default="sequential")
    starts_drawn: bool = eqx.field(static=True, default=False)

    @property
    def transition(self) -> Float[Array, "regimes regimes"]:
        """P, rows sum to one."""
        return self.parameters.transition

    @property
    def means(self) -> Float[Array, "regimes series"]:
        """mu_k in units of the data."""
        return self.parameters.means

    @property
    def covs(self) -> Float[Array, "regimes series series"]:
        """Covariances within the regimes, in squared units of the data."""
        return self.emissions.covs(self.parameters.scatters)

    @property
    def stationary(self) -> Float[Array, " regimes"]:
        """The law of the regime in the long run: a = P' a, sum a = 1."""
        return stationary_law(self.transition)

    @property
    def durations(self) -> Float[Array, " regimes"]:
        """Expected rows that a regime lasts, 1 / (1 - P_kk)."""
        return 1.0 / (1.0 - jnp.diagonal(self.transition))

    def expectations(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> Expectations:
        """What an E-step makes of other data under these parameters."""
        rows = as_rows(values, observed)
        return expectations(self.emissions, self.parameters, rows, self.implementation)

    def probabilities(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> RegimeProbabilities:
        """Probabilities of the regimes of each row of these data: predicted, filtered, smoothed.

        The first row is taken to follow the estimated law of a first row.
        """
        found = self.expectations(values, observed)
        return RegimeProbabilities(
            jnp.exp(found.filtered.log_predicted),
            jnp.exp(found.filtered.log_filtered),
            found.smoothed.probabilities,
            found.filtered.loglik_terms,
        )

    def most_likely_regimes(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> Int[Array, " time"]:
        """The path of regimes that has the largest joint probability given all rows (Viterbi)."""
        parameters = self.parameters
        densities = self.emissions.log_densities(
            parameters.means, parameters.scatters, as_rows(values, observed)
        )
        return most_likely_path(parameters.initial, parameters.transition, densities)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> RegimeForecast:
        """The exact mixture law of the next `horizon` rows, given the parameters.

        **Raises:** `ValueError` for a horizon below 1 and for a key, which nothing here draws with
        (use `.sample(num_draws, key=...)` of the answer), unless `starts_drawn`: who has one key
        for estimation and forecast, as a backtest, may hand it to both.
        """
        check_counts(horizon=horizon)
        if key is not None and not self.starts_drawn:
            raise ValueError(
                "the forecast is exact and takes no key; draw with .sample(n, key=...)."
            )
        return RegimeForecast.ahead(
            state=self.state,
            transition=self.transition,
            means=self.means,
            scatters=self.emissions.dense(self.parameters.scatters),
            tails=self.emissions.tails,
            horizon=horizon,
        )

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        scatters = self.emissions.dense(self.parameters.scatters)
        laws = self.stationary, self.transition, self.means, scatters
        return draw_rows(*laws, self.emissions.tails, (1, num_steps), key=key)[0]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedRegimes":
        refuse_sums(aggregation, "RegimeModel")
        found = self.expectations(values, observed).filtered
        loglik = jnp.sum(found.loglik_terms)
        return dataclasses.replace(self, state=filtered_state(found), loglik=loglik)

    def to_frame(self, names: tuple[str, ...]) -> "pd.DataFrame":
        """Means and standard deviations of the series by regime, and expected durations (host)."""
        import pandas as pd

        stds = jnp.sqrt(jnp.diagonal(self.covs, axis1=1, axis2=2))
        columns = pd.MultiIndex.from_product([["mean", "std"], names])
        table = jax.device_get(jnp.concatenate([self.means, stds], axis=1))
        index = pd.RangeIndex(1, len(table) + 1, name="regime")
        frame = pd.DataFrame(table, index, columns)
        frame["duration", ""] = jax.device_get(self.durations)
        return frame


def stationary_law(transition: Float[Array, "regimes regimes"]) -> Float[Array, " regimes"]:
    """a = P' a, sum a = 1: one of the equations a (I - P) = 0 is spare and takes the sum."""
    size = transition.shape[0]
    ones = jnp.ones((size, size), transition.dtype)
    identity = jnp.eye(size, dtype=transition.dtype)
    return jnp.linalg.solve((identity - transition + ones).T, ones[0])
