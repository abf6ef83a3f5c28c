"""The no-U-turn sampler of NumPyro on the density of a program.

The reference that other ways to draw are compared with: each chain adapts its own step size and
mass, paths are as long as they need to be. Chains in a batch wait for the longest path among them;
`vectorised=False` runs one after the other, which on a processor is often faster.
"""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.infer import NUTS as NoUTurnKernel
from numpyro.infer.hmc import HMCState

from jaxfc.bayes.diagnostics import Limits, frozen_chains
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Float, Int, PRNGKeyArray, as_scalar

NUM_TOGETHER = 64
"""Draws whose parameters are computed together."""


class NUTS(Inference):
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

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        start, named = program.flat()

        def chain(key: PRNGKeyArray) -> tuple[HMCState, Array]:
            return self.one_chain(lambda x: -program.log_density(named(x)), start, key=key)

        keys = jax.random.split(key, self.num_chains)
        states, moved = jax.vmap(chain)(keys) if self.vectorised else jax.lax.map(chain, keys)
        parameters = jax.lax.map(
            lambda x: program.constrain(named(x)),
            states.z.reshape(-1, start.size),
            batch_size=min(NUM_TOGETHER, self.num_chains * self.num_draws),
        )
        shape = self.num_chains, self.num_draws
        draws = PosteriorDraws(
            parameters=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), parameters),
            log_density=-states.potential_energy,
            energy=states.energy,
            divergent=states.diverging,
            moved=moved,
            step_size=states.adapt_state.step_size[:, -1],
            num_leapfrogs=jnp.mean(states.num_steps.astype(start.dtype), axis=1),
            pareto_k=jnp.asarray(jnp.nan, start.dtype),
            num_steps=jnp.asarray(self.num_warmup + self.num_draws),
            result=SUCCESSFUL,
        )
        frozen = jnp.any(frozen_chains(draws, Limits()))
        finite = jnp.all(jnp.isfinite(draws.log_density))
        result = select(frozen, cast(RESULTS, RESULTS.frozen_chain), SUCCESSFUL)
        result = select(finite, result, cast(RESULTS, RESULTS.diverged))
        return eqx.tree_at(lambda d: d.result, draws, result)

    def one_chain(
        self, potential, start: Float[Array, " size"], *, key: PRNGKeyArray
    ) -> tuple[HMCState, Array]:
        """The states of a chain after its warm-up, and which transitions led elsewhere."""
        kernel = NoUTurnKernel(
            potential_fn=potential,
            step_size=cast(float, self.step_size.astype(start.dtype)),
            target_accept_prob=cast(float, self.target_accept.astype(start.dtype)),
            dense_mass=self.dense_mass,
            max_tree_depth=self.max_tree_depth,
        )
        noise_key, chain_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, start.shape, start.dtype)
        begin = start + self.jitter.astype(start.dtype) * noise
        first = kernel.init(chain_key, self.num_warmup, begin)

        def advance(state: HMCState, _: Int[Array, ""]) -> tuple[HMCState, tuple[HMCState, Array]]:
            after = cast(HMCState, kernel.sample(state, (), {}))
            return after, (slim(after), jnp.any(after.z != state.z))

        num_steps = self.num_warmup + self.num_draws
        _, found = jax.lax.scan(advance, first, jnp.arange(num_steps))
        return jax.tree.map(lambda x: x[self.num_warmup :], found)


def slim(state: HMCState) -> HMCState:
    """A state without what is as large as the mass matrix or never read again."""
    adapted = state.adapt_state._replace(
        inverse_mass_matrix=None,
        mass_matrix_sqrt=None,
        mass_matrix_sqrt_inv=None,
        ss_state=None,
        mm_state=None,
        rng_key=None,
    )
    return state._replace(z_grad=None, r=None, adapt_state=adapted, rng_key=None)
