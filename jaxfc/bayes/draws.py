"""Draws of a posterior, how they were made, and whether they can be trusted."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax

from jaxfc.batching import map_in_batches
from jaxfc.bayes.program import Parameters, Program
from jaxfc.results import RESULTS
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree

NUM_TOGETHER = 64
"""Draws that are worked on together."""


class Tuned(eqx.Module):
    """What a warm-up learnt, to start another run on similar data from: unconstrained `position`
    (chains, size) where the chains ended, `variance` (size,) of the posterior, and `step_size`."""

    position: Float[Array, "chains size"]
    variance: Float[Array, " size"]
    step_size: Float[Array, ""]


class PosteriorDraws(eqx.Module):
    """Draws of the parameters of a program, by name, each (chains, draws, ...).

    `log_density` is that of the unconstrained draws up to a constant, `energy` minus the log of the
    joint density with the momentum (equal to -`log_density` where there is none), `divergent` and
    `moved` whether a transition left the path of constant energy and whether it was accepted
    (False and True for independent draws). `step_size` and `num_leapfrogs` (per draw, mean) are
    those of Hamiltonian methods, zero for others. `pareto_k` says how far an approximation is from
    the posterior (`jaxfc.bayes.pareto_k`), NaN for chains. `result` is the verdict on all of them;
    `tuned` what another run may start from.
    """

    parameters: Parameters
    log_density: Float[Array, "chains draws"]
    energy: Float[Array, "chains draws"]
    divergent: Bool[Array, "chains draws"]
    moved: Bool[Array, "chains draws"]
    step_size: Float[Array, " chains"]
    num_leapfrogs: Float[Array, " chains"]
    pareto_k: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: RESULTS
    tuned: Tuned | None = None

    @property
    def num_chains(self) -> int:
        return self.log_density.shape[0]

    @property
    def num_draws(self) -> int:
        """Draws of all chains together."""
        return self.log_density.size

    def pooled(self) -> Parameters:
        """The draws of all chains on one axis, (chains x draws, ...)."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.parameters)

    def map(self, function: Callable[[Parameters], Parameters]) -> Parameters:
        """`function` of the parameters of every draw, (chains, draws, ...)."""
        return map_draws(function, self.parameters)


def map_draws(function: Callable[[PyTree], PyTree], draws: PyTree) -> PyTree:
    """`function` of every draw in memory-sized batches; (chains, draws, ...) before and after."""
    chains, number = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(chains * number, *x.shape[2:]), draws)
    answers = map_in_batches(function, flat, NUM_TOGETHER)
    return jax.tree.map(lambda x: x.reshape(chains, number, *x.shape[1:]), answers)


class Inference(eqx.Module):
    """A way to draw from a posterior."""

    @abc.abstractmethod
    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        """Draws of the program's parameters: pure, with static shapes and a result code."""
