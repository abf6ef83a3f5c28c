"""Iteration of an estimation step to its fixed point, on optimistix' loop.

The step returns new parameters and the objective (a log-likelihood) at the old ones. A rule says
when to stop; iteration is bounded and reports its path. Derivatives of the result use the implicit
function theorem at the fixed point, with theta = M(theta, args):

    d theta = (I - dM / d theta)^{-1} (dM / d args) d args

by a linear solver that needs products with the linearised step only.
"""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PyTree


class StoppingRule(eqx.Module):
    """When an iteration ends, from what the last step changed in the objective."""

    @abc.abstractmethod
    def change(self, objective: Array, before: Array, num_steps: Array) -> Float[Array, ""]:
        """What the objective changed by, infinite where there is none before (`num_steps` 0)."""

    @abc.abstractmethod
    def ends(self, change: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether to stop after such a change."""


class Progress(eqx.Module):
    """Steps done, the objective before the last of them, its change, and the path so far."""

    num_steps: Int[Array, ""]
    objective: Float[Array, ""]
    change: Float[Array, ""]
    path: Float[Array, " steps"]

    @property
    def lost(self) -> Bool[Array, ""]:
        """Whether the objective is no number any more."""
        return (self.num_steps > 0) & ~jnp.isfinite(self.objective)


class Iteration(optx.AbstractFixedPointSolver):
    """theta <- step(theta) until `rule` ends it; the step's auxiliary output is the objective."""

    rule: StoppingRule
    max_steps: int = eqx.field(static=True)
    # The interface of the library asks for these; the rule decides.
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Array] = optx.max_norm

    def __init__(self, rule: StoppingRule, max_steps: int):
        self.rule = rule
        self.max_steps = max_steps

    def init(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        f_struct: PyTree,
        aux_struct: PyTree,
        tags: frozenset[object],
    ) -> Progress:
        nothing = jnp.asarray(-jnp.inf, aux_struct.dtype)
        path = jnp.full(self.max_steps, jnp.nan, aux_struct.dtype)
        return Progress(jnp.asarray(0), nothing, -nothing, path)

    def step(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: Progress,
        tags: frozenset[object],
    ) -> tuple[PyTree, Progress, Array]:
        moved, objective = fn(y, args)
        # Stay where the objective was lost: those parameters tell why.
        usable = jnp.isfinite(objective)
        moved = jax.tree.map(lambda new, old: jnp.where(usable, new, old), moved, y)
        change = self.rule.change(objective, state.objective, state.num_steps)
        path = state.path.at[state.num_steps].set(objective)
        return moved, Progress(state.num_steps + 1, objective, change, path), objective

    def terminate(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: Progress,
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        return self.rule.ends(state.change) | state.lost, optx.RESULTS.successful

    def postprocess(
        self,
        fn: Any,
        y: PyTree,
        aux: Any,
        args: PyTree,
        options: dict[str, Any],
        state: Progress,
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> tuple[PyTree, Any, dict[str, Any]]:
        return y, aux, {}


class Outcome(eqx.Module):
    """Where an iteration ended; `path` is the objective before each step, NaN after the last."""

    value: PyTree
    num_steps: Int[Array, ""]
    path: Float[Array, " steps"]
    result: RESULTS


def fixed_point(
    step: Callable[[PyTree, PyTree], tuple[PyTree, Array]],
    start: PyTree,
    args: PyTree,
    *,
    rule: StoppingRule,
    max_steps: int,
    linear_solver: lx.AbstractLinearSolver,
) -> tuple[Outcome, Float[Array, ""]]:
    """The fixed point of `step(theta, args)` after at most `max_steps` steps, and the last change.

    Differentiable with respect to `args`. The result code tells the bound on steps and an objective
    that was lost; what else a change means is the caller's to say.
    """
    solution = optx.fixed_point(
        step,
        Iteration(rule, max_steps),
        start,
        args,
        has_aux=True,
        max_steps=max_steps,
        adjoint=optx.ImplicitAdjoint(linear_solver),
        throw=False,
    )
    state = solution.state
    stopped = select(
        solution.result == optx.RESULTS.nonlinear_max_steps_reached,
        cast(RESULTS, RESULTS.nonlinear_max_steps_reached),
        cast(RESULTS, RESULTS.diverged),
    )
    result = select(solution.result == optx.RESULTS.successful, SUCCESSFUL, stopped)
    result = select(state.lost, cast(RESULTS, RESULTS.diverged), result)
    outcome = Outcome(solution.value, solution.stats["num_steps"], state.path, result)
    return outcome, state.change


def derivative_accuracy(start: PyTree) -> float:
    """How closely linear solvers meet the equation of the derivative, in the precision in use."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    return 1e-2 * float(jnp.finfo(dtype).eps) ** 0.5
