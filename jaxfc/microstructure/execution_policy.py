"""Policies that can be learned: a schedule, and a small network that looks at the market."""

from typing import Any

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


class ShareNetwork(eqx.Module):
    """x_{l+1} = tanh(W_l x_l + b_l), the last layer without the tanh and with one output.

    Weights start as equinox draws those of its layers, the last ones at zero. Arrays only, so that
    what was learned can be saved.
    """

    weights: tuple[Float[Array, "outputs inputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]

    def __init__(self, num_inputs: int, width: int, depth: int, dtype: Any, *, key: PRNGKeyArray):
        drawn = eqx.nn.MLP(num_inputs, "scalar", width, depth, jnp.tanh, dtype=dtype, key=key)
        weights = [layer.weight for layer in drawn.layers]
        biases = [layer.bias for layer in drawn.layers if layer.bias is not None]  # all have one
        self.weights = (*weights[:-1], jnp.zeros_like(weights[-1]))
        self.biases = (*biases[:-1], jnp.zeros_like(biases[-1]))

    def __call__(self, inputs: Float[Array, " inputs"]) -> Float[Array, ""]:
        hidden = inputs
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = jnp.tanh(weight @ hidden + bias)
        return jnp.squeeze(self.weights[-1] @ hidden + self.biases[-1])


class FeedbackPolicy(eqx.Module):
    """Shares of what is left, sigmoid(even share + network(state)).

    The network sees time, the share that is left, and transient impact and signal in units of what
    they can be; its last layer starts at zero, so that an untrained policy trades evenly.
    `jaxfc.save(policy, path)` and `jaxfc.load(path, FeedbackPolicy)` keep what was learned.
    """

    network: ShareNetwork
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
        self.network = ShareNetwork(4, width, depth, dtype, key=key)
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
