"""How much a row of the past counts: weights of a power likelihood.

    log posterior = log prior + sum_t omega_t ln p(row t | parameters)

A power likelihood is no model that data could be drawn from: calibration by simulation needs equal
weights.
"""

import abc

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Float, as_scalar


class PastWeights(eqx.Module):
    """Weights of the rows of a panel by their age; the last row has age zero."""

    @abc.abstractmethod
    def weights(self, num_rows: int) -> Float[Array, " time"]:
        """Weights in [0, 1] of `num_rows` rows, the last of them the most recent."""


class EqualWeights(PastWeights):
    """Every row counts the same."""

    def weights(self, num_rows: int) -> Float[Array, " time"]:
        return jnp.ones(num_rows)


class LinearRamp(PastWeights):
    """One for the last `cutoff` rows, before them falling linearly with age.

        omega = 1 - (age - cutoff) / max(age)  where age > cutoff

    Source: the M6 model's `weight_cutoff` (Weitzenfeld, 2025).
    """

    cutoff: Float[Array, ""]

    def __init__(self, cutoff: float | Array):
        self.cutoff = as_scalar(cutoff)

    def weights(self, num_rows: int) -> Float[Array, " time"]:
        age = jnp.arange(num_rows)[::-1].astype(self.cutoff.dtype)
        oldest = jnp.maximum(age[0], 1.0)
        return 1.0 - jnp.clip((age - self.cutoff) / oldest, 0.0, 1.0)


class HalfLife(PastWeights):
    """omega = 2^(-age / periods)."""

    periods: Float[Array, ""]

    def __init__(self, periods: float | Array):
        self.periods = as_scalar(periods)

    def weights(self, num_rows: int) -> Float[Array, " time"]:
        age = jnp.arange(num_rows)[::-1].astype(self.periods.dtype)
        return jnp.exp2(-age / self.periods)


class GivenWeights(PastWeights):
    """Weights by row, oldest first."""

    values: Float[Array, " time"]

    def weights(self, num_rows: int) -> Float[Array, " time"]:
        if self.values.size != num_rows:
            raise ValueError(
                f"the panel has {num_rows} rows and {self.values.size} weights were given; give "
                "one weight per row, oldest first."
            )
        return self.values


def effective_num_periods(weights: Float[Array, " time"]) -> Float[Array, ""]:
    """(sum omega)^2 / sum omega^2: how many equally weighted rows tell as much."""
    return jnp.sum(weights) ** 2 / jnp.sum(weights**2)
