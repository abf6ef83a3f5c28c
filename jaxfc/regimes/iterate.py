"""Repetition of a step that never lowers an objective, to its fixed point, on optimistix' loop.

Derivatives of the result use the implicit function theorem: with theta = M(theta, data),
d theta = (I - dM/dtheta)^{-1} dM/d data, solved by GMRES, which needs products with the linearised
step only.
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PyTree


class Progress(eqx.Module):
    """Steps done, the objective before the last of them, and what the last brought."""

    num_steps: Int[Array, ""]
    objective: Float[Array, ""]
    gain: Float[Array, ""]
    path: Float[Array, " steps"]


class Ascent(optx.AbstractFixedPointSolver):
    """theta <- step(theta) until the objective gains less than `smallest_gain`.

    The auxiliary output of the step is the objective at its argument.
    """

    smallest_gain: Float[Array, ""]
    max_steps: int = eqx.field(static=True)
    # The interface of the library asks for these; the gain decides.
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[PyTree], Array] = optx.max_norm

    def __init__(self, smallest_gain: Float[Array, ""], max_steps: int):
        self.smallest_gain = smallest_gain
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
        # Parameters whose objective is lost stay, to tell why.
        usable = jnp.isfinite(objective)
        moved = jax.tree.map(lambda new, old: jnp.where(usable, new, old), moved, y)
        path = state.path.at[state.num_steps].set(objective)
        gain = objective - state.objective
        return moved, Progress(state.num_steps + 1, objective, gain, path), objective

    def terminate(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: Progress,
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        started = state.num_steps > 0
        lost = started & ~jnp.isfinite(state.objective)
        return (started & (state.gain < self.smallest_gain)) | lost, optx.RESULTS.successful

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


class Ascended(eqx.Module):
    """Where an ascent ended; `path` is the objective before each step, NaN after the last."""

    value: PyTree
    num_steps: Int[Array, ""]
    path: Float[Array, " steps"]
    result: RESULTS


def ascend(
    step: Callable[[PyTree, PyTree], tuple[PyTree, Array]],
    start: PyTree,
    args: PyTree,
    *,
    smallest_gain: Float[Array, ""],
    max_steps: int,
) -> Ascended:
    """The fixed point of `step(theta, args)` after at most `max_steps` steps; differentiable by
    `args`."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    accuracy = 1e-2 * float(jnp.finfo(dtype).eps) ** 0.5
    solution = optx.fixed_point(
        step,
        Ascent(smallest_gain, max_steps),
        start,
        args,
        has_aux=True,
        max_steps=max_steps,
        adjoint=optx.ImplicitAdjoint(lx.GMRES(rtol=accuracy, atol=accuracy, max_steps=200)),
        throw=False,
    )
    state = solution.state
    stopped = solution.result == optx.RESULTS.nonlinear_max_steps_reached
    result = select(stopped, cast(RESULTS, RESULTS.nonlinear_max_steps_reached), SUCCESSFUL)
    lost = ~jnp.isfinite(state.objective)
    result = select(lost, cast(RESULTS, RESULTS.diverged), result)
    return Ascended(solution.value, solution.stats["num_steps"], state.path, result)
