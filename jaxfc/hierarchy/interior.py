"""Steps of an interior point method for the nearest coherent point of a box."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.hierarchy.held import Metric, Pull
from jaxfc.typing import Array, Bool, Float


class Sides(eqx.Module):
    """Bounds of nodes that can move; zeros where there is none."""

    low: Bool[Array, " nodes"]
    high: Bool[Array, " nodes"]
    lower: Float[Array, " nodes"]
    upper: Float[Array, " nodes"]
    fixed: Bool[Array, " nodes"]

    def slacks(self, point: Array) -> tuple[Array, Array]:
        """Distances to the bounds, one where there is none."""
        below = jnp.where(self.low, point - self.lower, 1.0)
        return below, jnp.where(self.high, self.upper - point, 1.0)


class Interior(eqx.Module):
    """A point inside the box, with multipliers p of both sides and their slacks s.

    Newton's method on s p = mu for mu -> 0: a step replaces the bounds by penalties with rates
    p / s, so that it costs one system. `point` need not be coherent: what is missing shrinks by
    1 - `length` with each step (`gap`). Converges for every box that has a coherent point inside
    (Wright 1997, chapter 6, with one solve a step).
    """

    point: Float[Array, " nodes"]
    down: Float[Array, " nodes"]
    up: Float[Array, " nodes"]
    gap: Float[Array, ""]
    mu: Float[Array, ""]
    length: Float[Array, ""]

    @property
    def is_converged(self) -> Bool[Array, ""]:
        """Whether products of slacks and multipliers, in units of the metric, are at rounding."""
        small = jnp.finfo(self.point.dtype).eps ** 0.75
        return (self.mu <= small) & (self.gap <= small)

    def aim(self) -> Float[Array, ""]:
        """The mu of the next step: lower where the last step was long."""
        return jnp.where(self.length > 0.9, 0.1, 0.5) * self.mu

    def pull(self, metric: Metric, sides: Sides) -> Pull:
        """The penalties of the next step."""
        own = metric.variances
        below, above = sides.slacks(self.point)
        rate = self.down / below + self.up / above
        away = jnp.where(sides.low, 1.0 / below, 0.0) - jnp.where(sides.high, 1.0 / above, 0.0)
        free = jnp.where(sides.fixed, 0.0, 1.0 / (1.0 + own * rate))
        held = jnp.where(sides.fixed, 1.0, own * rate * free)
        pulled = own * free * (rate * self.point + self.aim() * away)
        return Pull(free, held, jnp.where(sides.fixed, self.point, pulled))

    def moved(self, sides: Sides, goal: Float[Array, " nodes"]) -> "Interior":
        """The longest step towards the goal that keeps slacks and multipliers positive."""
        below, above = sides.slacks(self.point)
        aim, move = self.aim(), jnp.where(sides.fixed, 0.0, goal - self.point)
        down = jnp.where(sides.low, (aim - self.down * move) / below, 0.0) - self.down
        up = jnp.where(sides.high, (aim + self.up * move) / above, 0.0) - self.up
        values = jnp.concatenate([below, above, self.down, self.up])
        closer = jnp.where(sides.low, move, 0.0), jnp.where(sides.high, -move, 0.0)
        changes = jnp.concatenate([*closer, down, up])
        falls = changes < 0
        ratios = jnp.where(falls, -values / jnp.where(falls, changes, -1.0), jnp.inf)
        length = jnp.minimum(1.0, 0.99 * jnp.min(ratios))
        point = self.point + length * move
        down, up = self.down + length * down, self.up + length * up
        below, above = sides.slacks(point)
        count = jnp.maximum(jnp.sum(sides.low) + jnp.sum(sides.high), 1)
        mu = (jnp.sum(below * down) + jnp.sum(above * up)) / count
        return Interior(point, down, up, self.gap * (1.0 - length), mu, length)

    def at_bounds(self, metric: Metric, sides: Sides) -> tuple[Array, Array]:
        """Nodes whose multiplier, in units of the forecast, exceeds their slack."""
        below, above = sides.slacks(self.point)
        weight = jnp.where(metric.variances > 0, metric.variances, 1.0)
        low = sides.low & (weight * self.down > below)
        return low, sides.high & (weight * self.up > above)


def begin(metric: Metric, base: Float[Array, " nodes"], sides: Sides) -> Interior:
    """A point inside the box next to the base forecasts; units are those of the metric."""
    own = metric.variances
    unit = jnp.sqrt(jnp.where(own > 0, own, jnp.max(own)))
    width = jnp.where(sides.low & sides.high, 0.25 * (sides.upper - sides.lower), unit)
    margin = jnp.minimum(width, unit)
    point = jnp.where(sides.low, jnp.maximum(base, sides.lower + margin), base)
    point = jnp.where(sides.high, jnp.minimum(point, sides.upper - margin), point)
    press = (1.0 + jnp.abs(point - base) / unit) / unit
    point = jnp.where(sides.fixed, sides.lower, point)
    one = jnp.ones((), base.dtype)
    down, up = jnp.where(sides.low, press, 0.0), jnp.where(sides.high, press, 0.0)
    return Interior(point, down, up, gap=one, mu=one, length=one)
