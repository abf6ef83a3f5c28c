"""Repetition of an EM step that never lowers its objective (`jaxfc.fixed_point`)."""

from collections.abc import Callable

import lineax as lx

from jaxfc.fixed_point import Outcome, StoppingRule, derivative_accuracy, fixed_point
from jaxfc.typing import Array, Bool, Float, PyTree


class SmallestGain(StoppingRule):
    """The objective gains less than `smallest_gain`."""

    smallest_gain: Float[Array, ""]

    def change(self, objective: Array, before: Array, num_steps: Array) -> Float[Array, ""]:
        return objective - before

    def ends(self, change: Float[Array, ""]) -> Bool[Array, ""]:
        return change < self.smallest_gain


def ascend(
    step: Callable[[PyTree, PyTree], tuple[PyTree, Array]],
    start: PyTree,
    args: PyTree,
    *,
    smallest_gain: Float[Array, ""],
    max_steps: int,
) -> Outcome:
    """The fixed point of `step(theta, args)` after at most `max_steps` steps; differentiable by
    `args`, with GMRES for the linear system."""
    accuracy = derivative_accuracy(start)
    outcome, _ = fixed_point(
        step,
        start,
        args,
        rule=SmallestGain(smallest_gain),
        max_steps=max_steps,
        linear_solver=lx.GMRES(rtol=accuracy, atol=accuracy, max_steps=200),
    )
    return outcome
