"""Variational inference: the normal law over unconstrained numbers that is nearest the posterior.

It maximises the evidence lower bound E_q[ln p(data, x) - ln q(x)] over laws q, by gradients through
the draws (Kingma and Welling 2014), with Adam. Seconds where sampling takes minutes; means of what
the data say much about are right, sds are too small where the posterior has correlations or tails
that q lacks, most of all those of hierarchical scales.
"""

import abc
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxfc.bayes.approximation import LowRankLaw, law_draws
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.program import Program
from jaxfc.counts import check_counts
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import all_finite, chosen
from jaxfc.typing import Array, Float, Int, PRNGKeyArray, PyTree, as_scalar


class FittedLaw(eqx.Module):
    """A variational law, the estimates of its evidence lower bound on the way, and their verdict:
    successful, stopped while still rising, or diverged."""

    law: LowRankLaw
    bounds: Float[Array, " steps"]
    result: RESULTS


class Variational(Inference):
    """What both normal families share.

    `num_steps` steps of Adam, whose `learning_rate` falls to zero along a cosine, each with
    `num_pairs` antithetic pairs of draws; the law is the average of the last quarter of the steps.
    It starts at the program's start with sd `start_scale`, in unconstrained units, or at `warm`,
    the law of another run on similar data, for which a fifth of the steps is mostly enough.

    The result code says `nonlinear_max_steps_reached` if the bound rose by more than `tolerance`
    nats per number from the last but one to the last fifth of the steps (as far as its noise lets
    one see), and `poor_approximation` if Pareto k is above `max_pareto_k`: a warning that the draws
    do not represent the posterior of all numbers together, which beyond a few dozen of them is the
    rule. Pass `max_pareto_k=jnp.inf` and judge the quantities of interest by `gap_to`.
    """

    num_draws: int = eqx.field(static=True, default=1000)
    num_steps: int = eqx.field(static=True, default=4000)
    num_pairs: int = eqx.field(static=True, default=2)
    learning_rate: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.02)
    start_scale: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.1)
    tolerance: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.01)
    max_pareto_k: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.7)
    warm: LowRankLaw | None = None

    def __check_init__(self):
        check_counts(num_draws=self.num_draws, num_pairs=self.num_pairs)
        if self.num_steps < 10:
            raise ValueError(
                f"num_steps={self.num_steps} is too few to say whether the bound still rises; take "
                "at least 10, or some thousand without `warm`."
            )

    @property
    @abc.abstractmethod
    def num_directions(self) -> int:
        """Columns of the factor of the covariance."""

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        return self.sample_tuned(program, key=key)[0]

    def sample_tuned(
        self, program: Program, *, key: PRNGKeyArray
    ) -> tuple[PosteriorDraws, LowRankLaw]:
        """The draws, and the law they are of, for the `warm` of a run on similar data."""
        fit_key, draw_key = jax.random.split(key)
        fitted = self.approximate(program, key=fit_key)
        num_steps = jnp.asarray(self.num_steps)
        draws = law_draws(
            program,
            fitted.law,
            self.num_draws,
            self.max_pareto_k,
            num_steps,
            fitted.result,
            key=draw_key,
        )
        return draws, fitted.law

    def approximate(self, program: Program, *, key: PRNGKeyArray) -> FittedLaw:
        """The nearest law of the family."""
        start, named = program.flat()
        start_key, step_key = jax.random.split(key)
        first = self.started(start, key=start_key)
        schedule = optax.cosine_decay_schedule(cast(float, self.learning_rate), self.num_steps)
        optimiser = optax.adam(schedule)
        begin_average = self.num_steps - max(self.num_steps // 4, 1)

        def loss(law: LowRankLaw, noise: Array) -> Float[Array, ""]:
            positions = law.transformed(jnp.concatenate([noise, -noise]))
            log_density = jax.vmap(lambda x: program.log_density(named(x)))(positions)
            return -jnp.mean(log_density) - law.entropy()

        def advance(carry: tuple[LowRankLaw, PyTree, LowRankLaw], number: Int[Array, ""]):
            law, state, average = carry
            shape = self.num_pairs, law.num_noises
            noise = jax.random.normal(jax.random.fold_in(step_key, number), shape, start.dtype)
            value, gradient = jax.value_and_grad(loss)(law, noise)
            updates, next_state = optimiser.update(gradient, state, law)  # pyright: ignore
            stepped = cast(LowRankLaw, optax.apply_updates(law, updates))  # pyright: ignore
            usable = all_finite((value, gradient))
            law, state = chosen(usable, (stepped, next_state), (law, state))
            weight = 1 / jnp.maximum(1, number - begin_average + 1).astype(start.dtype)
            average = jax.tree.map(lambda a, new: a + weight * (new - a), average, law)
            return (law, state, average), -value

        carry = first, optimiser.init(first), first  # pyright: ignore
        (_, _, law), bounds = jax.lax.scan(advance, carry, jnp.arange(self.num_steps))
        return FittedLaw(law, bounds, self.verdict(bounds, start.size))

    def started(self, start: Float[Array, " size"], *, key: PRNGKeyArray) -> LowRankLaw:
        """The first law."""
        shape = start.size, self.num_directions
        if self.warm is not None:
            if self.warm.factor.shape != shape:
                raise ValueError(
                    f"`warm` has numbers and rank {self.warm.factor.shape}, this run needs "
                    f"{shape}: the data or the rank differs; leave `warm` out."
                )
            return self.warm
        scale = self.start_scale.astype(start.dtype)
        # At zero the factor would have no gradient.
        factor = 0.1 * scale * jax.random.normal(key, shape, start.dtype)
        return LowRankLaw(start, jnp.full_like(start, jnp.log(scale)), factor)

    def verdict(self, bounds: Float[Array, " steps"], size: int) -> RESULTS:
        """Whether the bound had stopped rising."""
        fifth = self.num_steps // 5
        bounds = jnp.where(jnp.isfinite(bounds), bounds, jnp.nan)
        before, after = bounds[-2 * fifth : -fifth], bounds[-fifth:]
        rise = jnp.nanmean(after) - jnp.nanmean(before)
        noise = jnp.sqrt((jnp.nanvar(before) + jnp.nanvar(after)) / fifth)
        rising = ~(rise <= self.tolerance * size + 4 * noise)
        stopped = cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
        found = select(rising, stopped, SUCCESSFUL)
        lost = jnp.mean(jnp.isnan(bounds[-2 * fifth :])) > 0.1
        usable = jnp.isfinite(bounds[-1]) & ~lost
        return select(usable, found, cast(RESULTS, RESULTS.diverged))


class MeanFieldNormal(Variational):
    """Independent normal numbers: the cheapest law. Sds are those given all other numbers, so too
    small where the posterior is correlated."""

    @property
    def num_directions(self) -> int:
        return 0


class LowRankNormal(Variational):
    """A diagonal covariance plus `rank` directions in which numbers move together (Ong, Nott and
    Smith 2018)."""

    rank: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        check_counts(rank=self.rank)

    @property
    def num_directions(self) -> int:
        return self.rank
