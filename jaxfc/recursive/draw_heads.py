"""Heads without a density in closed form: quantiles, and classes. Their forecasts are draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxfc.arguments import required_key
from jaxfc.counts import check_counts
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.recursive.heads import Head, Moments, Outputs, grown, summed
from jaxfc.recursive.laws import stratified_uniforms
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


class QuantileHead(Head):
    """Quantiles at `levels`, which never cross.

        q_c = m + s (z_c + a_c),   q_{j+1} = q_j + s (z_{j+1} - z_j) exp(a_{j+1})

    upwards from the middle level c, and downwards likewise, with z the normal quantiles: zeros give
    those of N(m, s^2). The loss is the mean pinball loss over levels, times two (the CRPS when
    levels fill (0, 1)). Forecasts are `num_draws` draws, entries independent, from the quantile
    function that is linear in the normal quantile between and beyond the levels.

    **Raises:** `ValueError` for levels that do not increase within (0, 1), and fewer than two.

    Source: Koenker and Bassett (1978); increments: Gasthaus et al. (2019).
    """

    levels: tuple[float, ...] = eqx.field(static=True, default=(0.05, 0.25, 0.5, 0.75, 0.95))
    num_draws: int = eqx.field(static=True, default=1000, kw_only=True)

    def __check_init__(self):
        check_counts(num_draws=self.num_draws)
        inside = np.concatenate([[0.0], self.levels, [1.0]])
        if len(self.levels) < 2 or np.any(np.diff(inside) <= 0):
            raise ValueError(
                f"levels must be two or more that increase within (0, 1), got {self.levels}."
            )

    @property
    def num_outputs(self) -> int:
        return len(self.levels)

    def quantiles(self, outputs: Outputs, anchor: Moments) -> Float[Array, "levels horizon series"]:
        """The quantiles at `levels`."""
        normal = ndtri(jnp.asarray(self.levels, outputs.dtype))
        raw = jnp.moveaxis(outputs, -1, 0)
        middle = len(self.levels) // 2
        gaps = jnp.diff(normal)[:, None, None] * grown(jnp.delete(raw, middle, axis=0))
        above = jnp.cumsum(gaps[middle:], axis=0)
        below = jnp.cumsum(gaps[:middle][::-1], axis=0)[::-1]
        centre = normal[middle] + raw[middle]
        units = jnp.concatenate([centre - below, centre[None], centre + above])
        return anchor.location + anchor.scale * units

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        levels = jnp.asarray(self.levels, outputs.dtype)[:, None, None]
        errors = jnp.where(observed, target, 0.0) - self.quantiles(outputs, anchor)
        pinball = jnp.maximum(levels * errors, (levels - 1.0) * errors)
        return summed(2.0 * jnp.mean(pinball, axis=0), observed)

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        key = required_key(key, "a forecast by quantiles answers with draws")
        shape = anchor.location.shape
        uniforms = stratified_uniforms(self.num_draws, shape, key=key).astype(outputs.dtype)
        normal = ndtri(jnp.asarray(self.levels, outputs.dtype))
        ends = self.quantiles(outputs, anchor).reshape(len(self.levels), -1)
        points = ndtri(jnp.clip(uniforms, 1e-6, 1.0 - 1e-6)).reshape(self.num_draws, -1)

        def between(points: Array, ends: Array) -> Array:
            return jnp.interp(points, normal, ends, left="extrapolate", right="extrapolate")

        draws = jax.vmap(between, in_axes=1, out_axes=1)(points, ends)
        return SampleForecast(draws.reshape(self.num_draws, *shape))

    def from_log_scale(self, log_scale: Float[Array, "horizon series"]) -> Outputs:
        outputs = jnp.broadcast_to(log_scale[..., None], (*log_scale.shape, len(self.levels)))
        middle = len(self.levels) // 2
        # The middle level moves with the scale unless it is the median.
        centre = ndtri(jnp.asarray(self.levels[middle], log_scale.dtype))
        return outputs.at[..., middle].set(centre * (grown(log_scale) - 1.0))


class CategoricalHead(Head):
    """Each entry takes one of the `values`, with probabilities softmax(outputs): directions, signs,
    ratings. Zeros give equal probabilities; an anchor's moments are not used.

    The loss is the cross-entropy in nats. Forecasts are `num_draws` draws, entries independent.

    **Raises:** `ValueError` for values that do not increase, and fewer than two; the model refuses
    data that take other values.
    """

    values: tuple[float, ...] = eqx.field(static=True)
    num_draws: int = eqx.field(static=True, default=1000, kw_only=True)

    def __check_init__(self):
        check_counts(num_draws=self.num_draws)
        if len(self.values) < 2 or np.any(np.diff(self.values) <= 0):
            raise ValueError(f"values must be two or more that increase, got {self.values}.")

    @property
    def num_outputs(self) -> int:
        return len(self.values)

    def loss(
        self,
        outputs: Outputs,
        anchor: Moments,
        target: Float[Array, "horizon series"],
        observed: Bool[Array, "horizon series"],
    ) -> Float[Array, ""]:
        values = jnp.asarray(self.values, outputs.dtype)
        chosen = jnp.argmin(jnp.abs(target[..., None] - values), axis=-1)
        logs = jax.nn.log_softmax(outputs, axis=-1)
        return summed(-jnp.take_along_axis(logs, chosen[..., None], axis=-1)[..., 0], observed)

    def law(self, outputs: Outputs, anchor: Moments, *, key: PRNGKeyArray | None) -> Forecast:
        key = required_key(key, "a forecast of classes answers with draws")
        shape = outputs.shape[:2]
        uniforms = stratified_uniforms(self.num_draws, shape, key=key).astype(outputs.dtype)
        below = jnp.cumsum(jax.nn.softmax(outputs, axis=-1), axis=-1)[..., :-1]
        chosen = jnp.sum(uniforms[..., None] >= below, axis=-1)
        return SampleForecast(jnp.asarray(self.values, outputs.dtype)[chosen])

    def from_log_scale(self, log_scale: Float[Array, "horizon series"]) -> Outputs:
        raise ValueError("a law over classes has no scale; use another architecture or head.")
