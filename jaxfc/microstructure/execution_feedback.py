"""The best feedback in a linear market, by dynamic programming: what learned policies are up to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.microstructure.execution_market import ExecutionMarket, ExecutionState
from jaxfc.typing import Array, Float


class OptimalFeedback(NamedTuple):
    """Trades n = gains[slot] . (x, I, a), and the least mean cost plus risk aversion times running
    risk of an order of the given quantity; the fixed cost, which is epsilon |X| of an order that
    never turns, apart."""

    gains: Float[Array, "slots states"]
    objective: Float[Array, ""]

    def __call__(self, state: ExecutionState) -> Float[Array, ""]:
        """The share of what is left to trade in a slot."""
        seen = jnp.stack([state.remaining, state.impact, state.signal])
        trade = self.gains[state.slot] @ seen
        return trade / jnp.where(state.remaining == 0, 1.0, state.remaining)


def optimal_feedback(
    market: ExecutionMarket,
    quantity: float | Float[Array, ""],
    risk_aversion: float | Float[Array, ""] = 0.0,
) -> OptimalFeedback:
    """Minimise E[cost] + lambda E[sigma^2 tau sum x^2] over all feedback, short sales allowed.

    The cost to go is s' P_k s + const in the state s = (x, I, a); permanent impact is
    gamma X^2 / 2 less gamma / 2 of the squared trades. Backwards, with z = (s, n), s' = A s + B n
    and the cost of a slot z' C z, P_k is the Schur complement of n in C + (A B)' P_{k+1} (A B).

    Source: the linear-quadratic regulator; with a signal Gârleanu and Pedersen (2016) and Lehalle
    and Neuman (2019) have the limit in continuous time.
    """
    dtype = market.duration.dtype
    total = jnp.asarray(quantity, dtype)
    own = 0.5 * market.transient + market.temporary / market.slot - 0.5 * market.permanent
    risk = risk_aversion * market.volatility**2 * market.slot
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    # Rows: x, I, a of the next slot. Columns: x, I, a, n.
    step = jnp.array(
        [
            [one, zero, zero, -one],
            [zero, market.kept, zero, market.kept * market.transient],
            [zero, zero, market.signal_persistence, zero],
        ]
    )
    half = 0.5 * one
    cost = jnp.array(
        [
            [risk, zero, half, -risk],
            [zero, zero, zero, half],
            [half, zero, zero, -half],
            [-risk, half, -half, own + risk],
        ]
    )
    # In the last slot n = x.
    last = jnp.zeros((3, 3), dtype).at[0, 0].set(own).at[0, 1].set(half).at[1, 0].set(half)

    def back(value: Array, _: None):
        whole = cost + step.T @ value @ step
        gain = -whole[3, :3] / whole[3, 3]
        before = whole[:3, :3] + jnp.outer(whole[:3, 3], gain)
        noise = market.signal_scale**2 * value[2, 2]
        return 0.5 * (before + before.T), (gain, noise)

    first, (gains, noises) = jax.lax.scan(
        back, last, None, length=market.num_steps - 1, reverse=True
    )
    gains = jnp.concatenate([gains, jnp.array([[one, zero, zero]])])
    start = first[0, 0] * total**2 + first[2, 2] * market.signal_deviation**2
    objective = start + jnp.sum(noises) + 0.5 * market.permanent * total**2
    return OptimalFeedback(gains, objective)
