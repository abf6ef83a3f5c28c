"""A regime-switching hierarchy given its data: draws of laws, regimes and the future."""

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.batching import map_in_batches
from jaxfc.bayes.draws import NUM_TOGETHER, PosteriorDraws
from jaxfc.bayes.switching_levels import RegimeLaws, draw_rows, filtered_regimes
from jaxfc.counts import check_counts
from jaxfc.forecast import SampleForecast
from jaxfc.model import Fitted
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.hidden_markov import hidden_markov_smoother

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.bayes.switching_hierarchy import SwitchingHierarchy


class PosteriorRegimes(NamedTuple):
    """Posterior means of P(s_t | rows before), P(s_t | rows to t), P(s_t | all rows), each (time,
    regimes). Laws are those that were fitted; given these the first two use no later row."""

    predicted: Float[Array, "time regimes"]
    filtered: Float[Array, "time regimes"]
    smoothed: Float[Array, "time regimes"]


@eqx.filter_jit
def posterior_regimes(
    laws: RegimeLaws, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> PosteriorRegimes:
    """Probabilities of the regimes of all rows, averaged over draws of the laws one after the
    other, so that none is held."""
    count = laws.degrees.shape[0]

    def add(total: PosteriorRegimes, law: RegimeLaws) -> tuple[PosteriorRegimes, None]:
        filtered = filtered_regimes(law, values, observed)
        smoothed = hidden_markov_smoother(filtered, law.transition).probabilities
        found = PosteriorRegimes(
            jnp.exp(filtered.log_predicted), jnp.exp(filtered.log_filtered), smoothed
        )
        return jax.tree.map(jnp.add, total, found), None

    shape = len(values), laws.transition.shape[-1]
    nothing = PosteriorRegimes(*[jnp.zeros(shape, values.dtype)] * 3)
    total = jax.lax.scan(add, nothing, laws)[0]
    return jax.tree.map(lambda part: part / count, total)


def expected_rows(
    laws: RegimeLaws, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> Float[Array, " regimes"]:
    """How many rows with an observation each regime is expected to hold."""
    found = posterior_regimes(laws, values, observed)
    return jnp.any(observed, axis=1).astype(values.dtype) @ found.smoothed


@eqx.filter_jit
def last_states(
    laws: RegimeLaws, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> tuple[Float[Array, "draws regimes"], Float[Array, " draws"]]:
    """P(s_T | rows to T) and the log-likelihood under every draw of the laws."""

    def one(law: RegimeLaws) -> tuple[Array, Array]:
        found = filtered_regimes(law, values, observed)
        return jnp.exp(found.log_filtered[-1]), jnp.sum(found.loglik_terms)

    return map_in_batches(one, laws, NUM_TOGETHER)


@eqx.filter_jit
def rows_ahead(
    laws: RegimeLaws, states: Float[Array, "draws regimes"], horizon: int, *, key: PRNGKeyArray
) -> Float[Array, "draws horizon series"]:
    """One path of the next rows for every draw of the laws."""

    def one(case: tuple[RegimeLaws, Array, PRNGKeyArray]) -> Float[Array, "horizon series"]:
        law, state, key = case
        return draw_rows(law, state, horizon, key=key)

    cases = laws, states, jax.random.split(key, len(states))
    return map_in_batches(one, cases, NUM_TOGETHER)


class FittedSwitchingHierarchy(Fitted):
    """The posterior of a regime-switching hierarchy.

    `draws` are those of the parameters, `laws` what they make of a row in every regime (a leading
    axis of draws), both in units of the model: series divided by `scale`. `states` (draws, regimes)
    are the probabilities at the last row, `expected_rows` how many rows each regime holds in the
    mean. `loglik` is the posterior mean of the log-likelihood, regimes summed out.
    """

    model: "SwitchingHierarchy"
    draws: PosteriorDraws
    laws: RegimeLaws
    states: Float[Array, "draws regimes"]
    scale: Float[Array, " series"]
    expected_rows: Float[Array, " regimes"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def transition(self) -> Float[Array, "draws regimes regimes"]:
        """Draws of P; rows sum to one."""
        return self.laws.transition

    @property
    def means(self) -> Float[Array, "draws regimes series"]:
        """Draws of the means in every regime, in units of the data."""
        return self.laws.means * self.scale

    @property
    def volatilities(self) -> Float[Array, "draws regimes"]:
        """Draws of the market factor's standard deviation h, in units in which a series is divided
        by its own scale; rising with the regime."""
        return self.laws.volatilities

    def probabilities(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> PosteriorRegimes:
        """Posterior probabilities of the regimes of each row of these data."""
        return posterior_regimes(self.laws, *self.in_units(values, observed))

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> SampleForecast:
        """Joint draws of the next `horizon` rows, one for each posterior draw.

        **Raises:** `ValueError` for a horizon below 1 or a missing key.
        """
        check_counts(horizon=horizon)
        key = required_key(key, "the forecast is drawn")
        drawn = rows_ahead(self.laws, self.states, horizon, key=key)
        return SampleForecast(drawn * self.scale)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of `num_steps` rows at one draw of the posterior, from its stationary law."""
        check_counts(num_steps=num_steps)
        pick_key, key = jax.random.split(key)
        place = jax.random.randint(pick_key, (), 0, len(self.states))
        laws = jax.tree.map(lambda leaf: leaf[place], self.laws)
        return draw_rows(laws, None, num_steps, key=key) * self.scale

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedSwitchingHierarchy":
        """The same draws of the laws on other data: regimes are filtered anew."""
        refuse_sums(aggregation, "SwitchingHierarchy")
        states, _ = last_states(self.laws, *self.in_units(values, observed))
        return eqx.tree_at(lambda fitted: fitted.states, self, states)

    def in_units(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[Float[Array, "time series"], Bool[Array, "time series"]]:
        """Data in units of the model, zero where not observed."""
        return jnp.where(observed, values, 0.0) / self.scale, observed

    def to_frame(self, names: tuple[str, ...]) -> "pd.DataFrame":
        """By regime: posterior means of what a row does there (means and standard deviations of
        the series), of the expected rows and of how long it lasts (host side)."""
        import numpy as np
        import pandas as pd

        laws = self.laws
        squares = (laws.volatilities[..., None] * laws.loads) ** 2 + laws.noise**2
        nu = laws.degrees[:, None, None]
        inflation = jnp.where(jnp.isfinite(nu), nu / (nu - 2.0), 1.0)
        stds = jnp.mean(jnp.sqrt(squares * inflation), axis=0) * self.scale
        columns = pd.MultiIndex.from_product([["mean", "std"], names])
        numbers = np.asarray(jnp.concatenate([jnp.mean(self.means, axis=0), stds], axis=1))
        index = pd.RangeIndex(1, len(numbers) + 1, name="regime")
        table = pd.DataFrame(numbers, index, columns)
        stays = np.asarray(jnp.diagonal(self.transition, axis1=1, axis2=2))
        table["regime", "stays"] = stays.mean(0)
        table["regime", "median duration"] = np.median(1.0 / (1.0 - stays), axis=0)
        table["regime", "rows"] = np.asarray(self.expected_rows)
        return table
