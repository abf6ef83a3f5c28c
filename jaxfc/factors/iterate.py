"""Iteration of EM of factor models to its fixed point (`jaxfc.fixed_point`).

Stops when the likelihood's relative change falls below a tolerance. The parameters are determined
only up to an invertible K x K transformation of the factors, so I - J is singular along those
directions, but the system is consistent for every quantity that the transformation leaves unchanged
(likelihood, forecasts). It is solved by the iteration itself, linearised (`Richardson`).
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax.numpy as jnp

from jaxfc.factors.richardson import Richardson
from jaxfc.fixed_point import Outcome, StoppingRule, derivative_accuracy, fixed_point
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, PyTree

# Relative: far beyond what an approximate M-step or rounding does, even in float32.
LARGEST_DECREASE = 1e-3


class RelativeChange(StoppingRule):
    """|change of log-likelihood| / mean of the two < rtol.

    Small decreases are let pass (an approximate M-step, rounding); if `ascending`, one beyond
    `LARGEST_DECREASE` stops the iteration.
    """

    # A float option enters as an array, so that another value does not recompile.
    rtol: Float[Array, ""]
    ascending: bool = eqx.field(static=True)

    def change(self, objective: Array, before: Array, num_steps: Array) -> Float[Array, ""]:
        size = 0.5 * (jnp.abs(objective) + jnp.abs(before)) + jnp.finfo(objective.dtype).tiny
        return jnp.where(num_steps == 0, jnp.inf, (objective - before) / size)

    def ends(self, change: Float[Array, ""]) -> Bool[Array, ""]:
        fell = self.ascending & (change < -LARGEST_DECREASE)
        return (jnp.abs(change) < self.rtol) | fell


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
    outcome, change = fixed_point(
        step,
        start,
        args,
        rule=RelativeChange(rtol, ascending),
        max_steps=max_steps,
        linear_solver=Richardson(derivative_accuracy(start)),
    )
    settled = jnp.abs(change) < rtol
    fell = (outcome.result == SUCCESSFUL) & ~settled & (change < -LARGEST_DECREASE)
    result = select(fell, cast(RESULTS, RESULTS.likelihood_decreased), outcome.result)
    return dataclasses.replace(outcome, result=result)
