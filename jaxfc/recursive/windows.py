"""A panel as examples: windows of features, the rows that follow them, the moments of an anchor."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.model import Fitted
from jaxfc.recursive.heads import Head, Moments
from jaxfc.recursive.nets import Inputs
from jaxfc.recursive.schedules import Curriculum
from jaxfc.recursive.training import Scored, Task
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree

# Anchors forecast from so many origins side by side.
ANCHOR_BATCH = 256
# Keeps the logarithm of a small standardised square bounded: about -4.6.
SQUARE_FLOOR = 0.01


class Scaling(eqx.Module):
    """Mean and standard deviation of every series over its observed training rows."""

    mean: Float[Array, " series"]
    std: Float[Array, " series"]


def scaling_of(
    values: Float[Array, "time series"], observed: Bool[Array, "time series"]
) -> Scaling:
    """Moments of the observed entries, column by column; a constant column has deviation one."""
    count = jnp.maximum(jnp.sum(observed, axis=0), 1)
    mean = jnp.sum(jnp.where(observed, values, 0.0), axis=0) / count
    square = jnp.sum(jnp.where(observed, (values - mean) ** 2, 0.0), axis=0) / count
    return Scaling(mean, jnp.sqrt(jnp.where(square > 0, square, 1.0)))


def features_of(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    scaling: Scaling,
    log_squares: bool,
) -> Float[Array, "time series channels"]:
    """Standardised values z, if asked for (1 + ln(z^2 + 0.01)) / 2, and whether they are observed;
    all zero where they are not."""
    units = jnp.where(observed, (values - scaling.mean) / scaling.std, 0.0)
    channels = [units]
    if log_squares:
        logs = 0.5 * (1.0 + jnp.log(units**2 + SQUARE_FLOOR))
        channels.append(jnp.where(observed, logs, 0.0))
    channels.append(observed.astype(units.dtype))
    return jnp.stack(channels, axis=-1)


def law_moments(fitted: Fitted, values: Array, observed: Array, horizon: int) -> Moments:
    """Means and standard deviations that a fitted model forecasts from the last of these rows."""
    forecast = fitted.given(values, observed).forecast(horizon)
    return Moments(forecast.mean, forecast.std)


def law_with_correlations(fitted: Fitted, values: Array, observed: Array, horizon: int) -> Moments:
    """The same with the correlations of the law."""
    forecast = fitted.given(values, observed).forecast(horizon)
    std = forecast.std
    return Moments(forecast.mean, std, forecast.cov / (std[..., None, None] * std))


def anchored_moments(
    fitted: Fitted,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    origins: Int[Array, " origins"],
    num_rows: int,
    horizon: int,
) -> Moments:
    """`law_moments` from each origin, given the `num_rows` rows that end there."""

    def one(origin: Array) -> Moments:
        rows = jax.lax.dynamic_slice_in_dim(values, origin - num_rows + 1, num_rows)
        seen = jax.lax.dynamic_slice_in_dim(observed, origin - num_rows + 1, num_rows)
        return law_moments(fitted, rows, seen, horizon)

    return map_in_batches(one, origins, ANCHOR_BATCH)


class Truth(NamedTuple):
    """What outputs are compared with."""

    moments: Moments
    target: Float[Array, "horizon series"]
    observed: Bool[Array, "horizon series"]


class PanelTask(Task):
    """Windows of a panel that end at `origins`, and the rows after them in units of the data.

    `moments` lead with the axis of origins; `ranks` are those of the windows' mean squares, from -1
    to 1.
    """

    features: Float[Array, "time series channels"]
    values: Float[Array, "time targets"]
    observed: Bool[Array, "time targets"]
    origins: Int[Array, " origins"]
    moments: Moments
    ranks: Float[Array, " origins"] | None
    head: Head
    curriculum: Curriculum
    window: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    @property
    def num_examples(self) -> int:
        return self.origins.shape[0]

    def example(self, index: Int[Array, ""]) -> tuple[Inputs, Truth]:
        origin = self.origins[index]
        first = origin - self.window + 1
        features = jax.lax.dynamic_slice_in_dim(self.features, first, self.window)
        target = jax.lax.dynamic_slice_in_dim(self.values, origin + 1, self.horizon)
        seen = jax.lax.dynamic_slice_in_dim(self.observed, origin + 1, self.horizon)
        moments = jax.tree.map(lambda leaf: leaf[index], self.moments)
        return Inputs(features, unit_gaps(features)), Truth(moments, target, seen)

    def score(
        self, outputs: Float[Array, "..."], truth: Truth, step: Int[Array, ""] | None
    ) -> Scored:
        seen = truth.observed
        if step is not None:
            seen = seen & self.curriculum.counted(self.horizon, step)[:, None]
        loss = self.head.loss(outputs, truth.moments, truth.target, seen)
        return Scored(loss, jnp.sum(seen).astype(loss.dtype))

    def draw(self, num: int, step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, " examples"]:
        if self.ranks is None or self.curriculum.turbulence is None:
            return jax.random.randint(key, (num,), 0, self.num_examples)
        tilt = self.curriculum.turbulence(step).astype(self.ranks.dtype)
        below = jnp.cumsum(jnp.exp(tilt * self.ranks))
        uniforms = jax.random.uniform(key, (num,), below.dtype) * below[-1]
        return jnp.minimum(jnp.searchsorted(below, uniforms), self.num_examples - 1)

    def disturb(self, inputs: Inputs, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree:
        if self.curriculum.noise is None:
            return inputs
        features, seen = inputs.features[..., :-1], inputs.features[..., -1:]
        std = self.curriculum.noise(step).astype(features.dtype)
        noise = std * jax.random.normal(key, features.shape, features.dtype)
        return Inputs(jnp.concatenate([features + seen * noise, seen], axis=-1), inputs.gaps)


def unit_gaps(features: Float[Array, "time *rest"]) -> Float[Array, " time"]:
    """Rows one apart: those of a panel are."""
    return jnp.ones(features.shape[0], features.dtype)


def turbulence_ranks(
    features: Float[Array, "time series channels"], origins: Int[Array, " origins"], window: int
) -> Float[Array, " origins"]:
    """Ranks, from -1 to 1, of the mean square of each window's standardised values."""
    square = jnp.sum(features[..., 0] ** 2, axis=1)
    seen = jnp.sum(features[..., -1], axis=1)
    sums = jnp.cumsum(jnp.stack([square, seen]), axis=1)
    sums = jnp.concatenate([jnp.zeros((2, 1), sums.dtype), sums], axis=1)
    total, count = sums[:, origins + 1] - sums[:, origins + 1 - window]
    places = jnp.argsort(jnp.argsort(total / jnp.maximum(count, 1.0)))
    return 2.0 * places.astype(features.dtype) / max(origins.shape[0] - 1, 1) - 1.0
