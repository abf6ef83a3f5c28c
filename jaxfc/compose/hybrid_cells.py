"""Recurrences of a hybrid: from inputs and hidden state to the next hidden state.

They start as equinox draws the weights of its layers, and hold arrays only, so that what is fitted
can be saved.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float, PRNGKeyArray


class DiagonalCell(eqx.Module):
    """h' = r h + (1 - r)(B x + b), r in (0, 1) by unit: exponentially weighted means of B x.

    Half-lives start spread evenly in logarithms from 1 to 100 rows.
    """

    decay_logits: Float[Array, " hidden"]
    weight: Float[Array, "hidden inputs"]
    bias: Float[Array, " hidden"]

    def __init__(self, num_inputs: int, width: int, *, key: PRNGKeyArray):
        decays = 0.5 ** (1.0 / jnp.geomspace(1.0, 100.0, width))
        self.decay_logits = jnp.log(decays) - jnp.log1p(-decays)
        drawn = eqx.nn.Linear(num_inputs, width, key=key)
        assert drawn.bias is not None  # for type checkers
        self.weight, self.bias = drawn.weight, drawn.bias

    def __call__(
        self, inputs: Float[Array, " inputs"], hidden: Float[Array, " hidden"]
    ) -> Float[Array, " hidden"]:
        decay = jax.nn.sigmoid(self.decay_logits)
        return decay * hidden + (1.0 - decay) * (self.weight @ inputs + self.bias)


class GatedCell(eqx.Module):
    """A gated recurrent unit:

        r = sigmoid(W_r x + U_r h + b_r),  u = sigmoid(W_u x + U_u h + b_u)
        n = tanh(W_n x + b_n + r * (U_n h + c)),  h' = (1 - u) n + u h

    Source: Cho et al. (2014), in the form of cuDNN; as `eqx.nn.GRUCell`.
    """

    input_weight: Float[Array, "gates inputs"]
    hidden_weight: Float[Array, "gates hidden"]
    bias: Float[Array, " gates"]
    hidden_bias: Float[Array, " hidden"]

    def __init__(self, num_inputs: int, width: int, *, key: PRNGKeyArray):
        drawn = eqx.nn.GRUCell(num_inputs, width, key=key)
        assert drawn.bias is not None and drawn.bias_n is not None  # for type checkers
        self.input_weight, self.hidden_weight = drawn.weight_ih, drawn.weight_hh
        self.bias, self.hidden_bias = drawn.bias, drawn.bias_n

    def __call__(
        self, inputs: Float[Array, " inputs"], hidden: Float[Array, " hidden"]
    ) -> Float[Array, " hidden"]:
        reset, keep, new = jnp.split(self.input_weight @ inputs + self.bias, 3)
        reset_own, keep_own, new_own = jnp.split(self.hidden_weight @ hidden, 3)
        reset, keep = jax.nn.sigmoid(reset + reset_own), jax.nn.sigmoid(keep + keep_own)
        candidate = jnp.tanh(new + reset * (new_own + self.hidden_bias))
        return candidate + keep * (hidden - candidate)
