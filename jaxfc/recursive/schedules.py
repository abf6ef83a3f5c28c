"""Curricula: what training sees, as pure functions of the step."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float, Int, as_scalar


class Ramp(eqx.Module):
    """`start` until step `begin`, then straight to `end`, reached after `length` steps."""

    start: Float[Array, ""] = eqx.field(converter=as_scalar)
    end: Float[Array, ""] = eqx.field(converter=as_scalar)
    length: Float[Array, ""] = eqx.field(converter=as_scalar)
    begin: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        share = jnp.clip((step - self.begin) / jnp.maximum(self.length, 1.0), 0.0, 1.0)
        return self.start + share * (self.end - self.start)


class Curriculum(eqx.Module):
    """What is easy first; each part is absent unless given.

    `horizon`: how many steps ahead count in the loss (rounded down, at least one). `noise`:
    standard deviation of normal noise on the standardised features. `turbulence`: windows are drawn
    with probability proportional to exp(value * rank), the rank of their mean square from -1
    (calmest) to 1: a ramp from -3 to 0 takes calm windows first and the sample as it is at the end.

    Source: Bengio et al. (2009).
    """

    horizon: Ramp | None = None
    noise: Ramp | None = None
    turbulence: Ramp | None = None

    def counted(self, num_steps_ahead: int, step: Int[Array, ""]) -> Bool[Array, " horizon"]:
        """Which steps ahead count in the loss."""
        ahead = jnp.arange(num_steps_ahead)
        if self.horizon is None:
            return ahead >= 0
        return ahead < jnp.maximum(jnp.floor(self.horizon(step)), 1.0)
