"""Bilinear normalisation: a window standardised along time and along features, and both mixed."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float


class BilinearNormalisation(eqx.Module):
    """Trainable standardisation of a window X (time, features), which knows nothing outside it.

        Y = a * (gamma_time * (X - mean over features) / std over features + beta_time)
          + b * (gamma_feature * (X - mean over time) / std over time + beta_feature)

    Standard deviations divide by the number of entries and are at least `floor`; a and b
    (`weights`) act as max(., 0). Starts at gamma = 1, beta = 0, a = b = 1/2. The input is of any
    unit; the output has none. vmap over windows.

    Source: Tran, Kanniainen, Gabbouj and Iosifidis (2021), Data normalization for bilinear
    structures in high-frequency financial time-series.
    """

    time_scale: Float[Array, " time"]
    time_shift: Float[Array, " time"]
    feature_scale: Float[Array, " features"]
    feature_shift: Float[Array, " features"]
    weights: Float[Array, "2"]
    floor: float = eqx.field(static=True)

    def __init__(self, num_steps: int, num_features: int, *, floor: float = 1e-4):
        check_counts(num_steps=num_steps, num_features=num_features)
        if not floor > 0:
            raise ValueError(f"floor must be positive, got {floor}.")
        self.time_scale = jnp.ones(num_steps)
        self.time_shift = jnp.zeros(num_steps)
        self.feature_scale = jnp.ones(num_features)
        self.feature_shift = jnp.zeros(num_features)
        self.weights = jnp.full(2, 0.5)
        self.floor = floor

    def __call__(self, window: Float[Array, "time features"]) -> Float[Array, "time features"]:
        """The normalised window."""
        along_features = standardised(window, 1, self.floor)
        along_time = standardised(window, 0, self.floor)
        first = self.time_scale[:, None] * along_features + self.time_shift[:, None]
        second = self.feature_scale * along_time + self.feature_shift
        weights = jnp.maximum(self.weights, 0.0)
        return weights[0] * first + weights[1] * second


def standardised(window: Array, axis: int, floor: float) -> Array:
    """(x - mean) / max(std, floor) along an axis."""
    centred = window - jnp.mean(window, axis=axis, keepdims=True)
    variance = jnp.mean(centred**2, axis=axis, keepdims=True)
    # Bounded under the root, where the derivative of the root of zero would be infinite.
    return centred / jnp.sqrt(jnp.maximum(variance, floor**2))
