"""Hamiltonian Monte Carlo whose chains move together and learn from each other.

All chains take the same number of leapfrog steps, another one in every transition, so that a batch
of them never waits for the longest tree, on a processor as on an accelerator. Step size and
diagonal mass are learnt from all chains at once during a warm-up. One compiled program holds
warm-up and draws.

Source: Duane et al. (1987); dual averaging: Hoffman and Gelman (2014), section 3.2; windows and
regularised variances: Stan's reference manual; jittered lengths: Neal (2011), section 5.4.
"""

import dataclasses
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.adaptation import (
    DualAverage,
    PooledMoments,
    add_draws,
    averaged_step,
    no_moments,
    regularised_variance,
    start_average,
    update_average,
)
from jaxfc.bayes.blockwise import BlockwiseInference, Trace, traced_draws
from jaxfc.bayes.draws import PosteriorDraws, Tuned
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import chosen
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar

# An error of the energy that no accurate path makes (Stan's and NumPyro's threshold).
DIVERGENCE = 1000.0
GOLDEN_RATIO = 0.6180339887498949
# Windows double from the first, as many draws as the mass needs at least.
FIRST_WINDOW = 50


class Chains(NamedTuple):
    """Where all chains are: positions, log densities, gradients."""

    position: Float[Array, "chains size"]
    log_density: Float[Array, " chains"]
    gradient: Float[Array, "chains size"]


class Learning(NamedTuple):
    """What is learnt on the way."""

    average: DualAverage
    moments: PooledMoments
    variance: Float[Array, " size"]


class State(NamedTuple):
    """Chains, what they learnt, and the key of all their transitions."""

    chains: Chains
    learning: Learning
    key: PRNGKeyArray


class Move(NamedTuple):
    """What one transition of all chains tells."""

    energy: Float[Array, " chains"]
    acceptance: Float[Array, " chains"]
    divergent: Bool[Array, " chains"]
    moved: Bool[Array, " chains"]


def as_length(num_leapfrogs: int | Array) -> Int[Array, ""]:
    """A number of steps as an array, so that another one does not recompile a program."""
    if isinstance(num_leapfrogs, int):
        check_counts(num_leapfrogs=num_leapfrogs)
    return jnp.asarray(num_leapfrogs)


class PooledHMC(BlockwiseInference):
    """Hamiltonian Monte Carlo with pooled adaptation.

    `num_leapfrogs` L is the mean length of a path in steps: each transition takes a number of steps
    spread evenly over L/2..3L/2, the same for all chains (the first part of the warm-up takes
    shorter paths). `target_accept` is the mean acceptance that the step size is tuned to; `jitter`
    the standard deviation of the starts around the program's in unconstrained units. `warm`: what
    another run on similar data learnt (`Tuned`), which then replaces start, mass and step size.

    The result code says `diverged` if a chain ends without a finite density, `frozen_chain` if a
    chain did not move; whether chains agree is `diagnose`'s to say.
    """

    num_chains: int = eqx.field(static=True, default=4)
    num_draws: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=500)
    num_leapfrogs: Int[Array, ""] = eqx.field(default=40, converter=as_length)
    target_accept: Float[Array, ""] = eqx.field(default=0.8, converter=as_scalar)
    jitter: Float[Array, ""] = eqx.field(default=0.1, converter=as_scalar)
    warm: Tuned | None = None

    def __check_init__(self):
        check_counts(
            num_chains=self.num_chains, num_draws=self.num_draws, num_warmup=self.num_warmup
        )
        if self.num_draws < 4:
            raise ValueError(
                f"num_draws={self.num_draws} are too few to compare halves of a chain; take at "
                "least 4."
            )

    def begun(self, program: Program, *, key: PRNGKeyArray) -> State:
        start_key, move_key = jax.random.split(key)
        start, _ = program.flat()
        chains, learning = self.started(start, density_of(program), key=start_key)
        return State(chains, learning, move_key)

    def advanced(
        self, program: Program, state: State, numbers: Int[Array, " steps"]
    ) -> tuple[State, Trace]:
        density = density_of(program)
        ends, short = (
            jnp.asarray(np.append(when, np.zeros(self.num_draws, bool)))
            for when in window_ends(self.num_warmup)
        )
        if self.warm is not None:  # the mass is learnt already, and paths can be long at once
            ends, short = jnp.zeros_like(ends), jnp.zeros_like(short)

        def advance(state: State, number: Int[Array, ""]) -> tuple[State, Trace]:
            chains, learning, key = state
            momentum_key, accept_key = jax.random.split(jax.random.fold_in(key, number))
            warming = number < self.num_warmup
            step_size = jnp.where(
                warming, jnp.exp(learning.average.log_step), averaged_step(learning.average)
            )
            mean_length = jnp.where(
                short[number], (self.num_leapfrogs + 2) // 3, self.num_leapfrogs
            )
            length = path_length(number, mean_length)
            chains, move = transition(
                density, chains, step_size, learning.variance, length, momentum_key, accept_key
            )
            learning = self.learnt(learning, chains, move, warming, ends[number])
            trace = Trace(
                position=chains.position,
                log_density=chains.log_density,
                energy=move.energy,
                divergent=move.divergent,
                moved=move.moved,
                num_leapfrogs=jnp.full(self.num_chains, length),
            )
            return State(chains, learning, key), trace

        state, trace = jax.lax.scan(advance, state, numbers)
        return state, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), trace)

    def concluded(self, program: Program, state: State, trace: Trace) -> PosteriorDraws:
        step_size = averaged_step(state.learning.average)
        draws = traced_draws(program, trace, jnp.full(self.num_chains, step_size), self.num_steps)
        finite = jnp.all(jnp.isfinite(state.chains.log_density))
        frozen = jnp.any(jnp.mean(draws.moved, axis=1) <= 0.01)
        result = select(frozen, cast(RESULTS, RESULTS.frozen_chain), SUCCESSFUL)
        return dataclasses.replace(
            draws,
            result=select(finite, result, cast(RESULTS, RESULTS.diverged)),
            tuned=Tuned(state.chains.position, state.learning.variance, step_size),
        )

    def started(
        self, start: Float[Array, " size"], density, *, key: PRNGKeyArray
    ) -> tuple[Chains, Learning]:
        """Chains around the start, or where another run ended."""
        shape = self.num_chains, start.size
        if self.warm is None:
            noise = jax.random.normal(key, shape, start.dtype)
            position = start + jnp.asarray(self.jitter, start.dtype) * noise
            variance = jnp.ones_like(start)
            step = as_scalar(0.1).astype(start.dtype)
        else:
            if self.warm.position.shape != shape:
                raise ValueError(
                    f"`warm` has chains and parameters {self.warm.position.shape}, this run needs "
                    f"{shape}: the panel or the number of chains differs; leave `warm` out."
                )
            position, variance = self.warm.position, self.warm.variance
            step = self.warm.step_size
        log_density, gradient = density(jnp.concatenate([start[None], position]))
        # A start may have been thrown out of the support, e.g. to a VAR that is not stationary.
        lost = ~jnp.isfinite(log_density[1:]) & (self.warm is None)
        position = jnp.where(lost[:, None], start, position)
        log_density = jnp.where(lost, log_density[0], log_density[1:])
        gradient = jnp.where(lost[:, None], gradient[0], gradient[1:])
        average = start_average(step, 10.0 if self.warm is None else 1.0)
        learning = Learning(average, no_moments(start), variance)
        return Chains(position, log_density, gradient), learning

    def learnt(
        self,
        learning: Learning,
        chains: Chains,
        move: Move,
        warming: Bool[Array, ""],
        window_ends_here: Bool[Array, ""],
    ) -> Learning:
        """Step size and mass after one more transition of the warm-up; after it, unchanged."""
        # A chain that never had a finite density says nothing of the step of the others.
        alive = jnp.isfinite(chains.log_density)
        accepted = jnp.sum(jnp.where(alive, move.acceptance, 0.0))
        acceptance = accepted / jnp.maximum(jnp.sum(alive), 1)
        average = update_average(learning.average, acceptance, self.target_accept)
        moments = add_draws(learning.moments, chains.position)
        variance = jnp.where(window_ends_here, regularised_variance(moments), learning.variance)
        fresh = start_average(jnp.exp(average.log_step)), no_moments(variance)
        average, moments = chosen(window_ends_here, fresh, (average, moments))
        updated = Learning(average, moments, variance)
        return chosen(warming, updated, learning)


def density_of(program: Program):
    """The log density and its gradient at unconstrained positions of all chains."""
    named = program.flat()[1]

    def log_density(x: Float[Array, " size"]) -> Float[Array, ""]:
        return program.log_density(named(x))

    return jax.vmap(jax.value_and_grad(log_density))


def transition(
    density,
    chains: Chains,
    step_size: Float[Array, ""],
    variance: Float[Array, " size"],
    length: Int[Array, ""],
    momentum_key: PRNGKeyArray,
    accept_key: PRNGKeyArray,
) -> tuple[Chains, Move]:
    """One Hamiltonian transition of every chain: `length` leapfrog steps, then accept or stay."""
    shape, dtype = chains.position.shape, chains.position.dtype
    momentum = jax.random.normal(momentum_key, shape, dtype) / jnp.sqrt(variance)

    def kinetic(p: Array) -> Float[Array, " chains"]:
        return 0.5 * jnp.sum(variance * p**2, axis=1)

    def leap(_: Int[Array, ""], state: tuple[Array, Chains]) -> tuple[Array, Chains]:
        p, at = state
        p = p + 0.5 * step_size * at.gradient
        x = at.position + step_size * variance * p
        value, gradient = density(x)
        return p + 0.5 * step_size * gradient, Chains(x, value, gradient)

    before = kinetic(momentum) - chains.log_density
    momentum, proposal = jax.lax.fori_loop(0, length, leap, (momentum, chains))
    after = kinetic(momentum) - proposal.log_density
    gap = jnp.where(jnp.isfinite(after), after - before, jnp.inf)
    acceptance = jnp.exp(-jnp.maximum(gap, 0.0))
    accepted = jax.random.uniform(accept_key, gap.shape, dtype) < acceptance
    kept = chosen(accepted, proposal, chains)
    energy = jnp.where(accepted, after, before)
    stayed = jnp.all(kept.position == chains.position, axis=1)
    return kept, Move(energy, acceptance, gap > DIVERGENCE, accepted & ~stayed)


def path_length(number: Int[Array, ""], mean_length: Int[Array, ""]) -> Int[Array, ""]:
    """The number of steps of a transition, evenly over L - L//2..L + L//2 as `number` goes on.

    Multiples of the golden ratio modulo one fill the interval evenly. They need no key, so that
    members of a batch of runs have paths of one length and none waits for the longest.
    """
    half = mean_length // 2
    fraction = jnp.mod((number + 1) * GOLDEN_RATIO, 1.0)
    return mean_length - half + jnp.floor(fraction * (2 * half + 1)).astype(half.dtype)


def window_ends(num_warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """At which steps of a warm-up the mass is renewed, and which of them take short paths.

    The first tenth finds the region, then windows double; the last tenth tunes the step only.
    """
    ends, short = np.zeros(num_warmup, bool), np.zeros(num_warmup, bool)
    first, last = max(num_warmup // 10, 1), num_warmup - max(num_warmup // 10, 1)
    edge, width = first, min(FIRST_WINDOW, max((last - first) // 3, 1))
    short[:first] = True
    while edge < last:
        ends[edge - 1] = True
        edge, width = edge + width, 2 * width
        if edge + width > last:
            break
    ends[last - 1] = True
    short[: first + min(FIRST_WINDOW, num_warmup // 5)] = True
    return ends, short
