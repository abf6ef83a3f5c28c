"""A trained network with what its forecasts need: the last window, the scaling, the anchor."""

import dataclasses
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums
from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, GaussianForecast, SampleForecast
from jaxfc.model import Fitted
from jaxfc.recursive.draw_heads import CategoricalHead, QuantileHead
from jaxfc.recursive.heads import Head, Moments
from jaxfc.recursive.laws import MixtureForecast
from jaxfc.recursive.nets import Inputs, Network
from jaxfc.recursive.training import Trace
from jaxfc.recursive.windows import (
    Scaling,
    features_of,
    law_with_correlations,
    unit_gaps,
)
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

# A context that varies by less than this share of its mean square says the same of every window.
LEAST_VARIATION = 1e-4


class FittedNetwork(Fitted):
    """A trained network, for forecasts of up to `horizon` rows.

    `loglik` is minus the loss over the training rows, a log likelihood for heads with a density.
    `trace` are numbers by seed and round of training, `thinking` the loss an entry of the
    validation rows after each step of supervision, `validation_loss` the last of these. `values`
    and `observed` are the rows that forecasts start from.
    """

    network: Network
    head: Head
    scaling: Scaling
    anchor: Fitted | None
    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    trace: Trace
    thinking: Float[Array, " supervision"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore
    horizon: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    places: tuple[int, ...] = eqx.field(static=True)
    targets: tuple[str, ...] | None = eqx.field(static=True)
    log_squares: bool = eqx.field(static=True)

    @property
    def validation_loss(self) -> Float[Array, ""]:
        """Loss an entry of the validation rows (NaN without any)."""
        return self.thinking[-1]

    @property
    def collapsed(self) -> Bool[Array, ""]:
        """Whether what the outputs are read from hardly varies over the validation rows, at the
        last evaluation of any seed: the network says the same of every window. Lower the learning
        rate or lengthen the warm-up, unless there is nothing to be said."""
        variation = self.trace.variation
        ran = ~jnp.isnan(variation)
        last = jnp.where(ran, jnp.arange(variation.shape[1]), -1)
        final = jnp.take_along_axis(variation, jnp.argmax(last, axis=1)[:, None], axis=1)
        return jnp.any(final < LEAST_VARIATION)

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names if self.targets is None else self.targets

    def details(self) -> dict[str, Array]:
        return {"validation_loss": self.validation_loss, "collapsed": self.collapsed}

    def moments(self, values: Array, observed: Array) -> Moments:
        """The anchor's moments from the last of these rows, of the target series."""
        if self.anchor is None:
            return resting_moments(self.scaling, self.horizon, self.places)
        found = law_with_correlations(self.anchor, values, observed, self.horizon)
        picked = jnp.asarray(self.places)
        assert found.corr is not None
        corr = found.corr[:, picked][:, :, :, picked]
        return Moments(found.location[:, picked], found.scale[:, picked], corr)

    def outputs(self, values: Array, observed: Array) -> Float[Array, "horizon series outputs"]:
        """The network's outputs for the last `window` of these rows."""
        features = features_of(values, observed, self.scaling, self.log_squares)[-self.window :]
        return self.network.outputs(Inputs(features, unit_gaps(features)))

    # Under `jit`, as a loop by itself is compiled anew at every call.
    @eqx.filter_jit
    def law(self, values: Array, observed: Array, key: PRNGKeyArray | None) -> Forecast:
        """The law of the `horizon` rows after these."""
        outputs, moments = self.outputs(values, observed), self.moments(values, observed)
        return self.head.law(outputs, moments, key=key)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> Forecast:
        """The law of the next `horizon` rows, at most as many as the network was trained for.

        `key` is required by heads that answer with draws (quantiles, classes), and not used by
        others: backtests hand one to every model whose estimation draws.

        **Raises:** `ValueError` for a horizon beyond that of the training, and a missing key.
        """
        check_counts(horizon=horizon)
        if horizon > self.horizon:
            raise ValueError(
                f"the network was trained for {self.horizon} steps ahead, {horizon} are asked for; "
                f"fit it with horizon={horizon}."
            )
        return first_rows(self.law(self.values, self.observed, key), horizon)

    def quantiles(self) -> Float[Array, "levels horizon series"]:
        """The quantiles that a `QuantileHead` gives, at its levels, without draws."""
        if not isinstance(self.head, QuantileHead):
            raise ValueError("only a QuantileHead has quantiles of its own; use forecast(...).")
        outputs = self.outputs(self.values, self.observed)
        return self.head.quantiles(outputs, self.moments(self.values, self.observed))

    def probabilities(self) -> Float[Array, "horizon series classes"]:
        """The probabilities that a `CategoricalHead` gives to its values, without draws."""
        if not isinstance(self.head, CategoricalHead):
            raise ValueError("only a CategoricalHead has probabilities of values.")
        return jax.nn.softmax(self.outputs(self.values, self.observed), axis=-1)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedNetwork":
        refuse_sums(aggregation, "NetworkModel")
        num_rows = self.values.shape[0]
        if values.shape[0] < num_rows:
            raise ValueError(
                f"the network looks back {num_rows} rows, the data have {values.shape[0]}."
            )
        observed = observed[-num_rows:]
        values = jnp.where(observed, values[-num_rows:], 0.0)
        return dataclasses.replace(self, values=values, observed=observed)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """A path of one-step forecasts drawn and fed back, after as many rows as the network looks
        back to, which start as independent normal ones.

        **Raises:** `ValueError` if the network forecasts a part of the series.
        """
        num_rows, num_series = self.values.shape
        if len(self.places) != num_series:
            raise ValueError(
                "a network that forecasts some of the series cannot simulate the others; fit it "
                "without `targets`."
            )
        check_counts(num_steps=num_steps)
        start_key, key = jax.random.split(key)
        noise = jax.random.normal(start_key, self.values.shape, self.values.dtype)
        rows = self.scaling.mean + self.scaling.std * noise
        seen = jnp.ones_like(self.observed)

        def step(rows: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
            law_key, draw_key = jax.random.split(key)
            row = self.law(rows, seen, law_key).sample(1, key=draw_key)[0, 0]
            return jnp.concatenate([rows[1:], row[None]]), row

        keys = jax.random.split(key, num_rows + num_steps)
        return jax.lax.scan(step, rows, keys)[1][num_rows:]


def resting_moments(scaling: Scaling, horizon: int, places: tuple[int, ...]) -> Moments:
    """The moments of the training rows, for every step ahead."""
    picked, shape = jnp.asarray(places), (horizon, len(places))
    return Moments(
        jnp.broadcast_to(scaling.mean[picked], shape), jnp.broadcast_to(scaling.std[picked], shape)
    )


def first_rows(law: Forecast, horizon: int) -> Forecast:
    """The law of the first `horizon` rows."""
    if isinstance(law, SampleForecast):
        return SampleForecast(law.draws[:, :horizon])
    if isinstance(law, MixtureForecast):
        scatters = law.scatters[:, :horizon, :, :horizon]
        return law.changed(law.means[:, :horizon], scatters)
    law = cast(GaussianForecast, law)
    return GaussianForecast(law.mean[:horizon], law.cov[:horizon, :, :horizon])
