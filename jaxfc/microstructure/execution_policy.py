"""Policies that can be learned: a schedule, and a small network that looks at the market."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logit

from jaxfc.counts import check_counts
from jaxfc.microstructure.execution_market import ExecutionMarket, ExecutionState
from jaxfc.typing import Array, Float, PRNGKeyArray


def even_share(num_left: Float[Array, ""]) -> Float[Array, ""]:
    """The logit of 1 / (slots left), which trades evenly; finite in the last slot, which trades
    all there is anyway."""
    return logit(1.0 / jnp.maximum(num_left, 2.0))


class SchedulePolicy(eqx.Module):
    """Shares of what is left, sigmoid(even share + a number for each slot): blind to the market.

    Starts with even trades; reaches every schedule that never turns.
    """

    shifts: Float[Array, " slots"]

    def __init__(self, market: ExecutionMarket):
        self.shifts = jnp.zeros(market.num_steps, market.duration.dtype)

    def score(self, state: ExecutionState) -> Float[Array, ""]:
        """The logit of the share."""
        num_left = (len(self.shifts) - state.slot).astype(self.shifts.dtype)
        return even_share(num_left) + self.shifts[state.slot]

    def __call__(self, state: ExecutionState) -> Float[Array, ""]:
        return jax.nn.sigmoid(self.score(state))


class FeedbackPolicy(eqx.Module):
    """Shares of what is left, sigmoid(even share + network(state)).

    The network sees time, the share that is left, and transient impact and signal in units of what
    they can be; its last layer starts at zero, so that an untrained policy trades evenly.
    """

    network: eqx.nn.MLP
    market: ExecutionMarket
    quantity: Float[Array, ""]

    def __init__(
        self,
        market: ExecutionMarket,
        quantity: float | Float[Array, ""],
        *,
        width: int = 16,
        depth: int = 2,
        key: PRNGKeyArray,
    ):
        """**Raises:** `ValueError` for a width or depth below one."""
        check_counts(width=width, depth=depth)
        dtype = market.duration.dtype
        network = eqx.nn.MLP(4, "scalar", width, depth, jnp.tanh, dtype=dtype, key=key)
        last = network.layers[-1]
        zeros = jax.tree.map(jnp.zeros_like, last)
        self.network = eqx.tree_at(lambda net: net.layers[-1], network, zeros)
        self.market = market
        self.quantity = jnp.asarray(quantity, dtype)

    def score(self, state: ExecutionState) -> Float[Array, ""]:
        """The logit of the share."""
        # Neither the market nor the order is learned.
        market, quantity = jax.lax.stop_gradient((self.market, self.quantity))
        passed = state.slot / market.num_steps
        pressed = jnp.where(market.transient > 0, market.transient, 1.0) * quantity
        deviation = market.signal_deviation
        swing = jnp.where(deviation > 0, deviation, 1.0)
        seen = [passed, state.remaining / quantity, state.impact / pressed, state.signal / swing]
        num_left = (market.num_steps - state.slot).astype(quantity.dtype)
        return even_share(num_left) + self.network(jnp.stack(seen))

    def __call__(self, state: ExecutionState) -> Float[Array, ""]:
        return jax.nn.sigmoid(self.score(state))
