"""A hidden Markov chain and a recurrence: the chain anchors what the network may refine."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.compose.hybrid_cells import GatedCell
from jaxfc.compose.hybrid_laws import MomentAnchor, PredictiveLaw
from jaxfc.compose.hybrid_network import HybridNetwork, Run
from jaxfc.compose.hybrid_regimes import TrainableRegimes
from jaxfc.compose.hybrid_train import train
from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.regimes import RegimeModel
from jaxfc.regimes.fitted import stationary_law
from jaxfc.regimes.masked import Rows, as_rows
from jaxfc.regimes.prior import pooled_moments
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Rows of a simulation that come before those it answers with.
BURN_IN = 200


class Predictions(NamedTuple):
    """One step ahead, each row from those before it; the last of `means`, `covs` and
    `probabilities` are of the row after the data.

    `log_densities` are those of the observed entries of each row, `regime_log_densities` what the
    chain alone gives them.
    """

    means: Float[Array, "later series"]
    covs: Float[Array, "later series series"]
    probabilities: Float[Array, "later regimes"]
    log_densities: Float[Array, " time"]
    regime_log_densities: Float[Array, " time"]


class Hybrid(Model):
    """A Markov-switching model whose predictive law a recurrent network refines.

    The chain `regimes` is estimated by EM; its predicted probabilities and moments, from rows
    before, enter the network at three places, each by itself or together:

    - `law` MomentAnchor(): the network moves and scales the moments of the chain's mixture;
      RegimeExperts(): the laws of the regimes, mixed with the chain's probabilities;
    - `attention_width` > 0: attention over embeddings of the regimes with their probabilities as
      prior feeds the recurrence (see `RegimeAttention`).

    `cell(num_inputs, width, key=)` is the recurrence, e.g. `GatedCell` or `DiagonalCell`;
    `refine(width, key=)` a module from hidden state to hidden state before the head, e.g.
    `Recursion` (a tiny recursive network), or None. The equations are those of `HybridNetwork`.

    The last `held_out` (a share) of the rows neither estimates the chain nor trains; of `num_steps`
    steps of Adam the best on these rows is kept, the chain itself included. `joint` trains the
    chain's parameters with the network's; otherwise they stay those of EM (staged). A step costs
    what a filter, a scan of the cell and, for MomentAnchor, a Cholesky factor a row cost, twice or
    thrice. A key is needed: weights are drawn.

    **Raises:** `ValueError` for counts below 1 or a share outside [0, 1); from `fit` what the chain
    raises.
    """

    regimes: RegimeModel = eqx.field(default_factory=RegimeModel)
    law: PredictiveLaw = eqx.field(default_factory=MomentAnchor)
    attention_width: int = eqx.field(static=True, default=0, kw_only=True)
    cell: Callable[..., Any] = eqx.field(static=True, default=GatedCell, kw_only=True)
    refine: Callable[..., Any] | None = eqx.field(static=True, default=None, kw_only=True)
    width: int = eqx.field(static=True, default=16, kw_only=True)
    joint: bool = eqx.field(static=True, default=True, kw_only=True)
    num_steps: int = eqx.field(static=True, default=300, kw_only=True)
    learning_rate: Float[Array, ""] = eqx.field(converter=as_scalar, default=3e-3, kw_only=True)
    held_out: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.2, kw_only=True)

    def __check_init__(self):
        check_counts(width=self.width, num_steps=self.num_steps)
        if self.attention_width < 0:
            raise ValueError(f"attention_width must be 0 or more, got {self.attention_width}.")
        try:
            share = float(self.held_out)
        except TypeError:  # traced: a value to be chosen inside a program
            return
        if not 0.0 <= share < 1.0:
            raise ValueError(f"held_out is a share of the rows in [0, 1), got {share:g}.")

    def check(self, panel: "Panel") -> None:
        self.regimes.check(panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedHybrid":
        refuse_sums(aggregation, "Hybrid")
        chain_key, network_key = jax.random.split(required_key(key, "Hybrid draws weights"))
        num_times = values.shape[0]
        held_out = jnp.arange(num_times) >= (1.0 - self.held_out) * num_times
        known = observed & ~held_out[:, None]
        centre, cov = pooled_moments(values, known)
        scale = jnp.sqrt(jnp.diagonal(cov))
        rows = as_rows((values - centre) / scale, observed)
        chain = self.regimes.estimate(
            rows.values, known, key=chain_key if self.regimes.num_starts > 1 else None
        )
        network = HybridNetwork(
            TrainableRegimes.starting_at(chain),
            self.law,
            attention_width=self.attention_width,
            cell=self.cell,
            refine=self.refine,
            width=self.width,
            key=network_key,
        )
        found = train(
            jax.lax.stop_gradient(network),
            rows,
            held_out.astype(values.dtype),
            learning_rate=self.learning_rate.astype(values.dtype),
            num_steps=self.num_steps,
            joint=self.joint,
        )
        fitted = FittedHybrid(
            network=found.network,
            centre=centre,
            scale=scale,
            hidden=jnp.zeros(self.width, values.dtype),
            log_predicted=jnp.zeros(self.regimes.num_regimes, values.dtype),
            loglik=jnp.zeros((), values.dtype),
            path=found.path,
            held_out_path=found.held_out_path,
            num_steps=found.num_steps,
            result=select(chain.result == SUCCESSFUL, found.result, chain.result),
        )
        return fitted.given(values, observed)


class FittedHybrid(Fitted):
    """An estimated `Hybrid`, at the end of the data that were fitted or `given`.

    `hidden` and `log_predicted` (ln of the probabilities of the next regime) are the state there;
    `path` and `held_out_path` the losses of training (see `Trained`) on standardised data;
    `num_steps` how many steps the network kept has seen; `loglik` of all rows, one step ahead.
    """

    network: HybridNetwork
    centre: Float[Array, " series"]
    scale: Float[Array, " series"]
    hidden: Float[Array, " hidden"]
    log_predicted: Float[Array, " regimes"]
    loglik: Float[Array, ""]  # pyright: ignore
    path: Float[Array, " steps"]
    held_out_path: Float[Array, " steps"]
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def ran(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[Run, Float[Array, " time"]]:
        """The network over these data, and what units add to the log density of each row."""
        rows: Rows = as_rows((values - self.centre) / self.scale, observed)
        units = -jnp.sum(rows.seen * jnp.log(self.scale), axis=1)
        return self.network.run(rows), units

    def predictions(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> Predictions:
        """One-step predictions of every row of these data from the rows before it, in their units.

        What is said of a row does not depend on it or later ones, to the last bit. Holds a matrix
        (series, series) for each row.
        """
        run, units = self.ran(values, observed)
        network = self.network
        means, covs = jax.vmap(network.law.moments, (None, 0, 0))(
            network.regimes, run.log_probabilities, run.outputs
        )
        return Predictions(
            means=self.centre + self.scale * means,
            covs=self.scale[:, None] * covs * self.scale,
            probabilities=jnp.exp(run.log_probabilities),
            log_densities=run.terms + units,
            regime_log_densities=run.regime_terms + units,
        )

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedHybrid":
        refuse_sums(aggregation, "Hybrid")
        run, units = self.ran(values, observed)
        return dataclasses.replace(
            self,
            hidden=run.hidden[-1],
            log_predicted=run.log_probabilities[-1],
            loglik=jnp.sum(run.terms + units),
        )

    def forecast(
        self, horizon: int, *, key: PRNGKeyArray | None = None, num_draws: int = 1000
    ) -> Forecast:
        """The next row exactly without a key; `num_draws` paths of the next rows with one.

        **Raises:** `ValueError` for a horizon below 1, and for a longer one without a key: what the
        network makes of rows to come has no closed form.
        """
        check_counts(horizon=horizon)
        if key is None and horizon > 1:
            raise ValueError(
                f"a horizon of {horizon} rows is drawn path by path: pass key=jax.random.key(...), "
                "or forecast one row."
            )
        if key is None:
            law = self.next_row(self.hidden, self.log_predicted)
            return law.affine(self.scale, self.centre[None])
        return SampleForecast(self.paths_ahead(jax.random.split(key, num_draws), horizon))

    # Under `jit`, as a loop by itself is compiled anew at every call.
    @eqx.filter_jit
    def paths_ahead(self, keys: Array, horizon: int) -> Float[Array, "draws horizon series"]:
        """One path of the next rows for each key."""
        return jax.vmap(
            lambda key: self.path_ahead(self.hidden, self.log_predicted, horizon, key=key)
        )(keys)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        law = jnp.log(stationary_law(self.network.regimes.transition))
        path = self.path_ahead(jnp.zeros_like(self.hidden), law, BURN_IN + num_steps, key=key)
        return path[BURN_IN:]

    def next_row(
        self, hidden: Float[Array, " hidden"], log_predicted: Float[Array, " regimes"]
    ) -> Forecast:
        """The law of the next row from a state, standardised."""
        network = self.network
        return network.law.forecast(network.regimes, log_predicted, network.outputs(hidden))

    def path_ahead(
        self,
        hidden: Float[Array, " hidden"],
        log_predicted: Float[Array, " regimes"],
        horizon: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, "horizon series"]:
        """One path of rows from a state, each drawn row fed back, in units of the data."""

        def step(state: tuple[Array, Array], key: Array):
            hidden, log_predicted = state
            row = self.next_row(hidden, log_predicted).sample(1, key=key)[0, 0]
            later = self.network.regimes.after(log_predicted, row)
            hidden = self.network.advance(hidden, later, row, jnp.ones_like(row))
            return (hidden, later), row

        keys = jax.random.split(key, horizon)
        rows = jax.lax.scan(step, (hidden, log_predicted), keys)[1]
        return self.centre + self.scale * rows
