"""Samplers that move in blocks of transitions, so that the host can look on between two of them.

One program that holds all transitions, or one for every block of them: the draws are the same.
"""

import abc
from typing import NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.bayes.draws import Inference, PosteriorDraws, map_draws
from jaxfc.bayes.program import Program
from jaxfc.results import SUCCESSFUL
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree


class Trace(NamedTuple):
    """What every transition of every chain leaves: unconstrained positions, and the rest as in
    `PosteriorDraws`."""

    position: Float[Array, "chains steps size"]
    log_density: Float[Array, "chains steps"]
    energy: Float[Array, "chains steps"]
    divergent: Bool[Array, "chains steps"]
    moved: Bool[Array, "chains steps"]
    num_leapfrogs: Int[Array, "chains steps"]


class BlockwiseInference(Inference):
    """Chains whose state says all about what they will do next.

    Transitions are numbered from the first of the warm-up; a block of them can be a program of its
    own (`sample_with_progress`).
    """

    num_warmup: eqx.AbstractVar[int]
    num_draws: eqx.AbstractVar[int]

    @abc.abstractmethod
    def begun(self, program: Program, *, key: PRNGKeyArray) -> PyTree:
        """The state of all chains before the first transition."""

    @abc.abstractmethod
    def advanced(
        self, program: Program, state: PyTree, numbers: Int[Array, " steps"]
    ) -> tuple[PyTree, Trace]:
        """The state after the transitions with these numbers, and what they leave."""

    @abc.abstractmethod
    def concluded(self, program: Program, state: PyTree, trace: Trace) -> PosteriorDraws:
        """The draws that the transitions after the warm-up left."""

    @property
    def num_steps(self) -> int:
        """Transitions of warm-up and draws."""
        return self.num_warmup + self.num_draws

    @final
    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        state = self.begun(program, key=key)
        state, trace = self.advanced(program, state, jnp.arange(self.num_steps))
        kept = jax.tree.map(lambda x: x[:, self.num_warmup :], trace)
        return self.concluded(program, state, kept)


def traced_draws(
    program: Program, trace: Trace, step_size: Float[Array, " chains"], num_steps: int
) -> PosteriorDraws:
    """The draws of a trace, not judged yet."""
    start, named = program.flat()
    return PosteriorDraws(
        parameters=map_draws(lambda x: program.constrain(named(x)), trace.position),
        log_density=trace.log_density,
        energy=trace.energy,
        divergent=trace.divergent,
        moved=trace.moved,
        step_size=step_size,
        num_leapfrogs=jnp.mean(trace.num_leapfrogs.astype(start.dtype), axis=1),
        pareto_k=jnp.asarray(jnp.nan, start.dtype),
        num_steps=jnp.asarray(num_steps),
        result=SUCCESSFUL,
    )
