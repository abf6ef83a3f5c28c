"""The no-U-turn sampler of NumPyro on the density of a program.

The reference that other ways to draw are compared with: each chain adapts its own step size and
mass, paths are as long as they need to be. Chains in a batch wait for the longest path among them;
`vectorised=False` runs one after the other, which on a processor is often faster.
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.infer import NUTS as NoUTurnKernel
from numpyro.infer.hmc import HMCState

from jaxfc.bayes.blockwise import BlockwiseInference, Trace, traced_draws
from jaxfc.bayes.diagnostics import Limits, frozen_chains
from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import all_finite
from jaxfc.typing import Array, Float, Int, PRNGKeyArray, PyTree, as_scalar


class NUTS(BlockwiseInference):
    """The no-U-turn sampler (Hoffman and Gelman 2014) with windowed adaptation.

    `target_accept` is the mean acceptance that a chain tunes its step size to, from `step_size`;
    with `num_warmup=0` that step stays. A path has at most 2**`max_tree_depth` - 1 leapfrog steps.
    `dense_mass`: a full mass matrix instead of a diagonal one. Chains start at the program's start
    plus normal noise of standard deviation `jitter`, in unconstrained units.

    The result code says `diverged` if a density is not finite and `frozen_chain` if a chain stands
    still; whether chains agree is `diagnose`'s to say.
    """

    num_chains: int = eqx.field(static=True, default=4)
    num_draws: int = eqx.field(static=True, default=1000)
    num_warmup: int = eqx.field(static=True, default=1000)
    max_tree_depth: int = eqx.field(static=True, default=10)
    dense_mass: bool = eqx.field(static=True, default=False)
    vectorised: bool = eqx.field(static=True, default=True)
    target_accept: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.8)
    step_size: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0)
    jitter: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.1)

    def __check_init__(self):
        check_counts(
            num_chains=self.num_chains,
            num_draws=self.num_draws,
            max_tree_depth=self.max_tree_depth,
        )
        if self.num_warmup < 0:
            raise ValueError(f"num_warmup must not be negative, got {self.num_warmup}.")

    def begun(self, program: Program, *, key: PRNGKeyArray) -> HMCState:
        keys = jax.random.split(key, self.num_chains)
        return self.each_chain(lambda key: self.prepared(program, key=key)[1], keys)

    def advanced(
        self, program: Program, state: HMCState, numbers: Int[Array, " steps"]
    ) -> tuple[HMCState, Trace]:
        def chain(state: HMCState) -> tuple[HMCState, Trace]:
            # A kernel of NumPyro moves once it was told the length of the warm-up.
            kernel, _ = self.prepared(program, key=state.rng_key)

            def advance(state: HMCState, _: Int[Array, ""]) -> tuple[HMCState, Trace]:
                after = cast(HMCState, kernel.sample(state, (), {}))
                return after, Trace(
                    position=after.z,
                    log_density=-after.potential_energy,
                    energy=after.energy,
                    divergent=after.diverging,
                    moved=jnp.any(after.z != state.z),
                    num_leapfrogs=after.num_steps,
                )

            return jax.lax.scan(advance, state, numbers)

        return self.each_chain(chain, state)

    def concluded(self, program: Program, state: HMCState, trace: Trace) -> PosteriorDraws:
        draws = traced_draws(program, trace, state.adapt_state.step_size, self.num_steps)
        frozen = jnp.any(frozen_chains(draws, Limits()))
        # All of the state is read: with a part of it unread, a program that holds all transitions
        # would be compiled otherwise than one for a block of them, and round otherwise.
        finite = all_finite((state, draws.log_density))
        result = select(frozen, cast(RESULTS, RESULTS.frozen_chain), SUCCESSFUL)
        result = select(finite, result, cast(RESULTS, RESULTS.diverged))
        return dataclasses.replace(draws, result=result)

    def prepared(self, program: Program, *, key: PRNGKeyArray) -> tuple[NoUTurnKernel, HMCState]:
        """The kernel of a chain, and the state that it begins with."""
        start, named = program.flat()
        kernel = NoUTurnKernel(
            potential_fn=lambda x: -program.log_density(named(x)),
            step_size=cast(float, self.step_size.astype(start.dtype)),
            target_accept_prob=cast(float, self.target_accept.astype(start.dtype)),
            dense_mass=self.dense_mass,
            max_tree_depth=self.max_tree_depth,
        )
        noise_key, chain_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, start.shape, start.dtype)
        begin = start + self.jitter.astype(start.dtype) * noise
        return kernel, cast(HMCState, kernel.init(chain_key, self.num_warmup, begin))

    def each_chain(self, function: Callable[[PyTree], PyTree], over: PyTree) -> PyTree:
        """`function` for every chain, in a batch or one after the other."""
        return jax.vmap(function)(over) if self.vectorised else jax.lax.map(function, over)
