"""Iteration of an estimation step to its fixed point, on optimistix' loop.

The step returns new parameters and the log-likelihood at the old ones; iteration stops when the
likelihood's relative change falls below a tolerance, is bounded, and reports its path. Derivatives
of the result use the implicit function theorem at the fixed point. The parameters are determined
only up to an invertible K x K transformation of the factors, so I - J is singular along those
directions, but the system is consistent for every quantity that the transformation leaves unchanged
(likelihood, forecasts). It is solved by the iteration itself, linearised (`Richardson`).
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from jaxfc.factors.richardson import Richardson
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PyTree

# Relative: far beyond what an approximate M-step or rounding does, even in float32.
LARGEST_DECREASE = 1e-3


class IterationState(eqx.Module):
    """Likelihood of the last step, its relative change, and the path so far."""

    step: Int[Array, ""]
    loglik: Float[Array, ""]
    change: Float[Array, ""]
    path: Float[Array, " steps"]


class LikelihoodIteration(optx.AbstractFixedPointSolver):
    """y <- f(y) until |change of log-likelihood| / mean of the two < rtol.

    `aux` of the step must be the log-likelihood at the step's argument. Small decreases are let
    pass (an approximate M-step, rounding); if `ascending`, one beyond `LARGEST_DECREASE` stops the
    iteration.
    """

    # A float option enters as an array, so that another value does not recompile.
    rtol: Float[Array, ""]
    max_steps: int = eqx.field(static=True)
    atol: float = 0.0
    norm: Callable[[PyTree], Array] = optx.max_norm

    ascending: bool = eqx.field(static=True, default=True)

    def __init__(self, rtol: Float[Array, ""], max_steps: int, ascending: bool):
        self.rtol = rtol  # pyright: ignore[reportIncompatibleVariableOverride]
        self.max_steps = max_steps
        self.ascending = ascending

    def init(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        f_struct: PyTree,
        aux_struct: PyTree,
        tags: frozenset[object],
    ) -> IterationState:
        dtype = aux_struct.dtype
        return IterationState(
            step=jnp.asarray(0),
            loglik=jnp.asarray(-jnp.inf, dtype),
            change=jnp.asarray(jnp.inf, dtype),
            path=jnp.full(self.max_steps, jnp.nan, dtype),
        )

    def step(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: IterationState,
        tags: frozenset[object],
    ) -> tuple[PyTree, IterationState, Array]:
        new_y, loglik = fn(y, args)
        # Stay where the likelihood was lost: those parameters tell why.
        finite = jnp.isfinite(loglik)
        new_y = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new_y, y)
        size = 0.5 * (jnp.abs(loglik) + jnp.abs(state.loglik)) + jnp.finfo(loglik.dtype).tiny
        change = jnp.where(state.step == 0, jnp.inf, (loglik - state.loglik) / size)
        path = state.path.at[state.step].set(loglik)
        return new_y, IterationState(state.step + 1, loglik, change, path), loglik

    def terminate(
        self,
        fn: Any,
        y: PyTree,
        args: PyTree,
        options: dict[str, Any],
        state: IterationState,
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        settled = jnp.abs(state.change) < self.rtol
        fell = self.ascending & (state.change < -LARGEST_DECREASE)
        lost = (state.step > 0) & ~jnp.isfinite(state.loglik)
        return settled | fell | lost, optx.RESULTS.successful

    def postprocess(
        self,
        fn: Any,
        y: PyTree,
        aux: Any,
        args: PyTree,
        options: dict[str, Any],
        state: IterationState,
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> tuple[PyTree, Any, dict[str, Any]]:
        return y, aux, {}


class Outcome(eqx.Module):
    """Where an iteration ended: value, number of steps, path of the log-likelihood, result code."""

    value: PyTree
    num_steps: Int[Array, ""]
    path: Float[Array, " steps"]
    result: RESULTS


def iterate(
    step: Callable[[PyTree, PyTree], tuple[PyTree, Array]],
    start: PyTree,
    args: PyTree,
    *,
    rtol: Float[Array, ""],
    max_steps: int,
    ascending: bool = True,
) -> Outcome:
    """Fixed point of `step`, at most `max_steps` steps; differentiable with respect to `args`.

    `ascending=False` for steps whose criterion may fall by design.
    """
    dtype = jnp.result_type(*jax.tree.leaves(start))
    tolerance = 1e-2 * float(jnp.finfo(dtype).eps) ** 0.5
    solution = optx.fixed_point(
        step,
        LikelihoodIteration(rtol, max_steps, ascending),
        start,
        args,
        has_aux=True,
        max_steps=max_steps,
        adjoint=optx.ImplicitAdjoint(Richardson(tolerance)),
        throw=False,
    )
    state = solution.state
    stopped = select(
        solution.result == optx.RESULTS.nonlinear_max_steps_reached,
        cast(RESULTS, RESULTS.nonlinear_max_steps_reached),
        cast(RESULTS, RESULTS.diverged),
    )
    result = select(solution.result == optx.RESULTS.successful, SUCCESSFUL, stopped)
    settled = jnp.abs(state.change) < rtol
    fell = (result == SUCCESSFUL) & ~settled & (state.change < -LARGEST_DECREASE)
    result = select(fell, cast(RESULTS, RESULTS.likelihood_decreased), result)
    lost = ~jnp.isfinite(state.loglik) & (state.step > 0)
    result = select(lost, cast(RESULTS, RESULTS.diverged), result)
    return Outcome(solution.value, solution.stats["num_steps"], state.path, result)
