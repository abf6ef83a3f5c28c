"""Policies learned on simulated orders: through the market, or by the score of actions."""

import abc
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxfc.arguments import check_positive
from jaxfc.counts import check_counts
from jaxfc.microstructure.execution_market import (
    ExecutionMarket,
    ExecutionPolicy,
    ExecutionState,
)
from jaxfc.microstructure.execution_policy import FeedbackPolicy, SchedulePolicy
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import all_finite, chosen
from jaxfc.typing import Array, Float, PRNGKeyArray, PyTree, as_scalar

Learnable = SchedulePolicy | FeedbackPolicy


class Objective(eqx.Module):
    """What an order is to minimise, from many paths of it."""

    @abc.abstractmethod
    def of_paths(
        self, costs: Float[Array, " paths"], risks: Float[Array, " paths"], running: Array
    ) -> Float[Array, " paths"]:
        """A number for each path whose mean is minimised: from costs, their martingale parts and
        the running risk."""


class MeanAndRisk(Objective):
    """E[cost] + lambda E[sigma^2 tau sum x^2]: Almgren and Chriss for schedules. The martingale
    part of the cost, whose mean is zero, is left out."""

    risk_aversion: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)

    def of_paths(self, costs, risks, running):
        return costs - risks + self.risk_aversion * running


class ExpectedShortfall(Objective):
    """The mean cost of the worst 1 - `level` of the paths: min_q q + E[(cost - q)^+] / (1 - level)
    at the quantile q of the paths at hand (Rockafellar and Uryasev 2000)."""

    level: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.9)

    def of_paths(self, costs, risks, running):
        quantile = jax.lax.stop_gradient(jnp.quantile(costs, self.level))
        return quantile + jnp.maximum(costs - quantile, 0.0) / (1.0 - self.level)


class Gradient(eqx.Module):
    """How the derivative of the mean objective is estimated."""

    @abc.abstractmethod
    def surrogate(
        self,
        policy: Learnable,
        market: ExecutionMarket,
        quantity: Array,
        objective: Objective,
        keys: Array,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """A number whose derivative is the estimate, and the mean objective."""


class Pathwise(Gradient):
    """Through every slot of the market, which is differentiable."""

    def surrogate(self, policy, market, quantity, objective, keys):
        values = path_values(policy, market, quantity, objective, keys)
        return jnp.mean(values), jnp.mean(values)


class PolicyGradient(Gradient):
    """Of the log-density of actions, the market a black box: REINFORCE with a baseline.

    The logit of each share is drawn with sd `exploration`; an action that made a path dearer than
    the others becomes less likely.

    Source: Williams (1992).
    """

    exploration: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.3)

    def __check_init__(self):
        check_positive(exploration=self.exploration)

    def surrogate(self, policy, market, quantity, objective, keys):
        num_steps = market.num_steps
        noise_key = jax.random.fold_in(keys[0], num_steps)
        noises = jax.random.normal(noise_key, (len(keys), num_steps), quantity.dtype)

        def explore(noise: Array):
            def act(state: ExecutionState) -> Array:
                # What was tried is a number; only its density depends on the policy.
                score = jax.lax.stop_gradient(policy.score(state))
                return jax.nn.sigmoid(score + self.exploration * noise[state.slot])

            return act

        def one(noise: Array, key: PRNGKeyArray):
            path = market.run(explore(noise), quantity, key=key)
            # ln density of each logit; its derivative at the logit tried is noise / sd.
            scores = jax.vmap(policy.score)(jax.lax.stop_gradient(path.states))
            slopes = scores[:-1] * noise[:-1] / self.exploration
            return path, jnp.sum(slopes)

        paths, log_densities = jax.vmap(one)(noises, keys)
        running = jax.vmap(market.running_risk)(paths.holdings)
        values = jax.lax.stop_gradient(objective.of_paths(paths.cost, paths.risk, running))
        # The mean of the other paths: it does not depend on the path's own actions.
        num_paths = len(keys)
        others = (jnp.sum(values) - values) / (num_paths - 1)
        return jnp.mean((values - others) * log_densities), jnp.mean(values)


def path_values(
    policy: ExecutionPolicy,
    market: ExecutionMarket,
    quantity: Float[Array, ""],
    objective: Objective,
    keys: Array,
) -> Float[Array, " paths"]:
    """The objective of the order on each path."""
    paths = jax.vmap(lambda key: market.run(policy, quantity, key=key))(keys)
    running = jax.vmap(market.running_risk)(paths.holdings)
    return objective.of_paths(paths.cost, paths.risk, running)


class TrainedPolicy(eqx.Module):
    """The policy after the last step, the mean objective of each step, and a verdict."""

    policy: Learnable
    objectives: Float[Array, " steps"]
    result: RESULTS


def train_policy(
    policy: Learnable,
    market: ExecutionMarket,
    quantity: float | Float[Array, ""],
    *,
    key: PRNGKeyArray,
    objective: Objective | None = None,
    gradient: Gradient | None = None,
    num_steps: int = 1000,
    num_paths: int = 128,
    learning_rate: float = 0.02,
) -> TrainedPolicy:
    """Adam, its rate falling to zero along a cosine, each step on `num_paths` new orders: pure.

    Losses are in units of the first step's objective. A step whose gradient is no number changes
    nothing; the result code then says `diverged`.

    **Arguments:** `objective` is `MeanAndRisk()` and `gradient` `Pathwise()` if not given.

    **Raises:** `ValueError` for counts below one, one path, or no quantity.
    """
    check_counts(num_steps=num_steps, num_paths=num_paths - 1)
    total = jnp.asarray(quantity, market.duration.dtype)
    aim = MeanAndRisk() if objective is None else objective
    how = Pathwise() if gradient is None else gradient
    learned, rest = eqx.partition(policy, eqx.is_inexact_array)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    keys = jax.random.split(key, num_steps)

    def loss(learned: PyTree, key: PRNGKeyArray):
        policy = eqx.combine(learned, rest)
        return how.surrogate(policy, market, total, aim, jax.random.split(key, num_paths))

    scale = jnp.abs(loss(learned, keys[0])[1])

    def advance(carry: tuple[PyTree, PyTree], key: PRNGKeyArray):
        learned, memory = carry
        (_, value), slopes = jax.value_and_grad(loss, has_aux=True)(learned, key)
        slopes = jax.tree.map(lambda slope: slope / scale, slopes)
        usable = all_finite(slopes)
        changes, new = optimiser.update(slopes, memory, learned)
        moved = optax.apply_updates(learned, changes), new
        return chosen(usable, moved, carry), (value, usable)

    carry = learned, optimiser.init(learned)
    (learned, _), (objectives, usable) = jax.lax.scan(advance, carry, keys)
    result = select(jnp.all(usable), SUCCESSFUL, cast(RESULTS, RESULTS.diverged))
    return TrainedPolicy(eqx.combine(learned, rest), objectives, result)
