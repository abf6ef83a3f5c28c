"""The coherent point of a box that is nearest in the metric of an error covariance.

    min over y of (y - a)' W^-1 (y - a)   subject to   C y = 0,  lower <= y <= upper

At the optimum y = clip(f, lower, upper) with the free values f of `Metric.near`: a node stays at a
bound exactly where f is beyond it. Who stays where comes from Newton steps on this equation
(primal-dual active sets; Hintermueller, Ito and Kunisch 2003), a few systems of `aggregates`
equations. They can cycle: what has not settled then is solved by an interior point method, whose
steps cost the same, and its sets are settled by Newton steps again.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.held import Metric, Pull
from jaxfc.hierarchy.interior import Interior, Sides, begin
from jaxfc.typing import Array, Bool, Float, Int

ACTIVE, INTERIOR, SETTLE, DONE = range(4)


class Box(eqx.Module):
    """Bounds of all nodes, infinite where there are none."""

    lower: Float[Array, " nodes"]
    upper: Float[Array, " nodes"]

    @property
    def fixed(self) -> Bool[Array, " nodes"]:
        """Nodes with nothing between their bounds."""
        return self.lower == self.upper

    def clip(self, nodes: Float[Array, " nodes"]) -> Float[Array, " nodes"]:
        """The nearest values within the bounds."""
        return jnp.clip(nodes, self.lower, self.upper)

    def sides(self) -> Sides:
        """Bounds as an interior point method needs them."""
        low, high = jnp.isfinite(self.lower), jnp.isfinite(self.upper)
        lower, upper = jnp.where(low, self.lower, 0.0), jnp.where(high, self.upper, 0.0)
        return Sides(low & ~self.fixed, high & ~self.fixed, lower, upper, self.fixed)

    def magnitude(self, base: Float[Array, " nodes"]) -> Float[Array, ""]:
        """The size of values, by which errors are judged."""
        return jnp.maximum(jnp.max(jnp.abs(base)), jnp.max(jnp.abs(self.clip(base))))


class Sets(eqx.Module):
    """Which nodes stay at a bound."""

    at_lower: Bool[Array, " nodes"]
    at_upper: Bool[Array, " nodes"]

    def pull(self, box: Box) -> Pull:
        """Nodes at a bound are held there, all others are free."""
        held = self.at_lower | self.at_upper
        bound = jnp.where(self.at_lower, box.lower, box.upper)
        dtype = box.lower.dtype
        return Pull((~held).astype(dtype), held.astype(dtype), jnp.where(held, bound, 0.0))

    def updated(self, value: Float[Array, " nodes"], box: Box, tolerance: Array) -> "Sets":
        """Sets from free values; what only just touches a bound stays, whatever the rounding."""
        low = value < box.lower + jnp.where(self.at_lower, tolerance, -tolerance)
        high = value > box.upper - jnp.where(self.at_upper, tolerance, -tolerance)
        return Sets(low | box.fixed, high & ~low & ~box.fixed)

    def differs(self, other: "Sets") -> Bool[Array, ""]:
        """Whether any node changed."""
        moved = (self.at_lower != other.at_lower) | (self.at_upper != other.at_upper)
        return jnp.any(moved)


class Search(eqx.Module):
    """Where the search for the sets is: its phase, and how many steps it has made in it."""

    sets: Sets
    interior: Interior
    phase: Int[Array, ""]
    count: Int[Array, ""]


def nearest_in_box(
    metric: Metric,
    small: Metric,
    base: Float[Array, " nodes"],
    box: Box,
    num_active: int = 20,
    num_interior: int = 100,
) -> Float[Array, " nodes"]:
    """The optimum, NaN where no point of the box is coherent; `small` is `compressed(metric)`.

    Differentiable: who stays at a bound does not change nearby, so that the derivative is that of
    the point held there (the implicit function theorem; one-sided where a node only just touches).
    """
    sets = search(small, *jax.lax.stop_gradient((base, box)), num_active, num_interior)
    point, value = metric.near(base, sets.pull(box))
    loose = jnp.sqrt(jnp.finfo(base.dtype).eps) * box.magnitude(base)
    error = jnp.max(jnp.abs(box.clip(value) - point))
    gap = jnp.max(jnp.abs(metric.summing.incoherence(point)), initial=0.0)
    # Rounding may put bottom nodes beyond a bound by the last digit, and sums off.
    split = metric.summing.num_aggregates
    point = metric.summing.coherent(box.clip(point)[split:])
    return jnp.where((error <= loose) & (gap <= loose), point, jnp.nan)


def search(
    metric: Metric, base: Float[Array, " nodes"], box: Box, num_active: int, num_interior: int
) -> Sets:
    """Which nodes stay at a bound at the optimum."""
    sides = box.sides()
    tolerance = jnp.finfo(base.dtype).eps ** (2 / 3) * box.magnitude(base)

    def step(state: Search) -> Search:
        inside = state.phase == INTERIOR
        held, soft = state.sets.pull(box), state.interior.pull(metric, sides)
        pull = jax.tree.map(lambda a, b: jnp.where(inside, a, b), soft, held)
        goal, value = metric.near(base, pull)
        interior = state.interior.moved(sides, goal)
        low, high = interior.at_bounds(metric, sides)
        found = Sets(low | box.fixed, high & ~low)
        updated = state.sets.updated(value, box, tolerance)
        count = state.count + 1
        settled = jnp.where(inside, interior.is_converged, ~updated.differs(state.sets))
        spent = count >= jnp.where(inside, num_interior, num_active)
        # Settled sets are the answer; an interior point has still to settle.
        after = jnp.where(settled & ~inside, DONE, jnp.minimum(state.phase + 1, DONE))
        ends = settled | spent
        return Search(
            sets=jax.tree.map(lambda a, b: jnp.where(inside, a, b), found, updated),
            interior=jax.tree.map(lambda a, b: jnp.where(inside, a, b), interior, state.interior),
            phase=jnp.where(ends, after, state.phase),
            count=jnp.where(ends, 0, count),
        )

    start = Sets(box.fixed, jnp.zeros_like(box.fixed))
    first = Search(start, begin(metric, base, sides), jnp.asarray(ACTIVE), jnp.asarray(0))
    return jax.lax.while_loop(lambda state: state.phase < DONE, step, first).sets
