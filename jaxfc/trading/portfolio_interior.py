"""The smallest value of a convex function of portfolio weights within limits, by a primal-dual
interior point method.

With slacks s = c(x) > 0 of the affine constraints, multipliers z > 0 and, where the net exposure is
a number, its multiplier y, the solution is the limit m -> 0 of

    grad f(x) - J' z + a y = 0,    c(x) - s = 0,    a' x = net,    s z = m

Each step is Newton's on these equations with m a tenth of the mean of s z, shortened to keep s and
z positive and f defined, and halved until the equations are better kept (Boyd and Vandenberghe
2004, section 11.7, with slacks, so that the start need not keep the limits). Each costs one
factorisation of order series.
"""

import abc
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trading.portfolio_room import PRECISION_POWER, Room
from jaxfc.typing import Array, Float, Int

CENTRING = 0.1
# Share of the way to the border of the domain that a step may go.
TO_THE_BORDER = 0.99
MOST_HALVINGS = 30


class Objective(eqx.Module):
    """A convex function of the weights, known by its derivatives."""

    @property
    @abc.abstractmethod
    def num_series(self) -> int:
        """The number of weights."""

    @abc.abstractmethod
    def gradient(self, weights: Float[Array, " series"]) -> Float[Array, " series"]:
        """The gradient."""

    @abc.abstractmethod
    def hessian(self, weights: Float[Array, " series"]) -> Float[Array, "series series"]:
        """The matrix of second derivatives."""

    def longest(
        self, weights: Float[Array, " series"], step: Float[Array, " series"]
    ) -> Float[Array, ""]:
        """How many `step`s lead from `weights` to the border of the domain."""
        return jnp.asarray(jnp.inf, weights.dtype)


class Interior(eqx.Module):
    """Point, slacks and multipliers of the inequalities and the multiplier of the net exposure."""

    point: Float[Array, "sides series"]
    slacks: Float[Array, " rows"]
    multipliers: Float[Array, " rows"]
    pull: Float[Array, ""]

    @property
    def gap(self) -> Float[Array, ""]:
        """s' z, a bound of the distance to the smallest value once the equations hold."""
        return self.slacks @ self.multipliers


class Solution(eqx.Module):
    """Weights, how many steps led to them, and what became of the search."""

    weights: Float[Array, " series"]
    num_steps: Int[Array, ""]
    result: RESULTS


class Scaled(Objective):
    """An objective in units in which its derivatives are of order one."""

    objective: Objective
    unit: Float[Array, ""]

    @property
    def num_series(self) -> int:
        return self.objective.num_series

    def gradient(self, weights: Float[Array, " series"]) -> Float[Array, " series"]:
        return self.objective.gradient(weights) / self.unit

    def hessian(self, weights: Float[Array, " series"]) -> Float[Array, "series series"]:
        return self.objective.hessian(weights) / self.unit

    def longest(
        self, weights: Float[Array, " series"], step: Float[Array, " series"]
    ) -> Float[Array, ""]:
        return self.objective.longest(weights, step)


def minimise(objective: Objective, room: Room, max_steps: int) -> Solution:
    """The weights in `room` at which `objective` is smallest; derivatives by the equations they
    solve, which exist where no limit is just about to bind."""
    fixed, place = jax.lax.stop_gradient((objective, room))
    start = place.start()[0]
    curvature = fixed.hessian(start)
    unit = jnp.max(jnp.abs(fixed.gradient(start))) + jnp.max(jnp.diag(curvature))
    fixed = Scaled(fixed, unit)
    state, num_steps = search(fixed, place, max_steps)
    state = jax.lax.stop_gradient(state)
    done = is_converged(fixed, place, state)
    # One more step: Newton's matrix is held, so its derivative is that of the solution.
    step = newton_step(Scaled(objective, unit), room, state, state.gap / state.slacks.size, fixed)
    point = state.point + step.point - jax.lax.stop_gradient(step.point)
    weights = jnp.clip(point[0], room.lower, room.upper)
    usable = jnp.all(jnp.isfinite(weights))
    unfinished = cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
    result = select(done, SUCCESSFUL, unfinished)
    result = select(usable, result, cast(RESULTS, RESULTS.nonlinear_divergence))
    return Solution(weights, num_steps, result)


def search(objective: Objective, room: Room, max_steps: int) -> tuple[Interior, Int[Array, ""]]:
    """Newton steps until convergence, at most `max_steps`, and their number."""

    def unfinished(carry):
        state, num_steps = carry
        running = ~is_converged(objective, room, state) & jnp.isfinite(state.gap)
        return running & (num_steps < max_steps)

    def advance(carry):
        state, num_steps = carry
        aim = CENTRING * state.gap / state.slacks.size
        step = newton_step(objective, room, state, aim, objective)
        return moved(objective, room, state, step, aim), num_steps + 1

    return jax.lax.while_loop(unfinished, advance, (begin(room), jnp.asarray(0)))


def begin(room: Room) -> Interior:
    """No weights, slacks that are positive whether or not that keeps the limits."""
    point = room.start()
    slacks = room.slacks(point)
    slacks = jnp.maximum(slacks, 0.1 * jnp.mean(jnp.abs(slacks)))
    multipliers = jnp.mean(slacks) / slacks
    return Interior(point, slacks, multipliers, jnp.zeros((), point.dtype))


def residual(objective: Objective, room: Room, state: Interior, aim: Array) -> Interior:
    """By how much the equations are missed, each in the place of what it determines."""
    force = -room.transposed(state.multipliers)
    force = force.at[0].add(objective.gradient(state.point[0]) + state.pull)
    excess = jnp.zeros((), force.dtype)
    if room.pinned_net is not None:
        excess = jnp.sum(state.point[0]) - room.pinned_net
    return Interior(
        force,
        room.slacks(state.point) - state.slacks,
        state.slacks * state.multipliers - aim,
        excess,
    )


def newton_step(
    objective: Objective, room: Room, state: Interior, aim: Array, curved: Objective
) -> Interior:
    """Newton's step on the equations, with the second derivatives of `curved`."""
    missed = residual(objective, room, state, aim)
    rates = state.multipliers / state.slacks
    system = jax.lax.stop_gradient(room.system(rates, curved.hessian(state.point[0])))
    pressed = missed.multipliers / state.slacks + rates * missed.slacks
    point, rows, pull = system.solve(missed.point, pressed, missed.pull)
    slacks = rows + missed.slacks
    multipliers = -missed.multipliers / state.slacks - rates * slacks
    return Interior(point, slacks, multipliers, pull)


def moved(
    objective: Objective, room: Room, state: Interior, step: Interior, aim: Array
) -> Interior:
    """`state` after as much of the step as stays inside and betters the equations."""

    def after(length: Array) -> Interior:
        return jax.tree.map(lambda x, change: x + length * change, state, step)

    def norm(at: Interior) -> Array:
        missed = residual(objective, room, at, aim)
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(missed)))

    inside = [longest(state.slacks, step.slacks), longest(state.multipliers, step.multipliers)]
    inside.append(objective.longest(state.point[0], step.point[0]))
    length = jnp.minimum(1.0, TO_THE_BORDER * jnp.min(jnp.stack(inside)))
    before = norm(state)
    # Equations of which only rounding is left cannot be bettered, while s z still has to fall.
    terms = jnp.linalg.norm(state.slacks) + jnp.linalg.norm(state.multipliers)
    rounding = 10.0 * jnp.finfo(terms.dtype).eps * terms

    def too_long(carry):
        length, halvings = carry
        better = norm(after(length)) <= (1.0 - 0.01 * length) * before + rounding
        return ~better & (halvings < MOST_HALVINGS)

    length, _ = jax.lax.while_loop(
        too_long, lambda carry: (0.5 * carry[0], carry[1] + 1), (length, jnp.asarray(0))
    )
    return after(length)


def longest(values: Array, step: Array) -> Float[Array, ""]:
    """How many steps bring the first of some positive values to zero."""
    falls = step < 0.0
    return jnp.min(jnp.where(falls, -values / jnp.where(falls, step, -1.0), jnp.inf))


def is_converged(objective: Objective, room: Room, state: Interior) -> Array:
    """Whether equations and gap are at the precision of the dtype, relative to the objective.

    The objective is in units of its own derivatives, so rounding in it is `eps`: that settles the
    case that no weights are best, where there is nothing to be relative to.
    """
    eps = jnp.finfo(state.point.dtype).eps
    small = eps**PRECISION_POWER
    weights = state.point[0]
    gradient = objective.gradient(weights)
    bend = gradient - objective.gradient(jnp.zeros_like(weights))
    size = jnp.abs(gradient @ weights) + jnp.abs(bend @ weights)
    missed = residual(objective, room, state, jnp.zeros(()))
    forces = jnp.max(jnp.abs(missed.point)) <= small * jnp.max(jnp.abs(gradient)) + 10.0 * eps
    places = jnp.maximum(jnp.max(jnp.abs(missed.slacks)), jnp.abs(missed.pull)) <= small
    return (state.gap <= small * size + eps) & forces & places
