"""Encoders of a window: patches, dense layers, mixers, recurrences, attention over patches."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.recursive.layers import Linear
from jaxfc.recursive.nets import Encoder, Inputs, Sizes
from jaxfc.recursive.network import Block, Mixing, made_blocks
from jaxfc.typing import Array, Float, PRNGKeyArray


def rows_of(inputs: Inputs) -> Float[Array, "time inputs"]:
    """All features of a row side by side."""
    return inputs.features.reshape(inputs.features.shape[0], -1)


class Nothing(Encoder):
    """One empty token: the readout's bias is all that is left."""

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        return jnp.zeros((1, 1), inputs.features.dtype)


class Dense(Encoder):
    """The window as one long vector, through layers of GELU (none: the vector itself)."""

    layers: tuple[Linear, ...]

    def __init__(self, sizes: Sizes, width: int, num_layers: int, *, key: PRNGKeyArray):
        widths = [sizes.window * sizes.num_inputs] + [width] * num_layers
        keys = jax.random.split(key, max(num_layers, 1))
        self.layers = tuple(
            Linear(*pair, bias=True, key=each)
            for pair, each in zip(itertools.pairwise(widths), keys, strict=False)
        )

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        vector = inputs.features.reshape(1, -1)
        for layer in self.layers:
            vector = jax.nn.gelu(layer(vector))
        return vector


class Patches(Encoder):
    """Tokens linear in stretches of `patch` rows, behind one learned token; then `blocks`, each
    with weights of its own (none where a recursion follows)."""

    embedding: Linear
    first_token: Float[Array, " width"]
    blocks: tuple[Block, ...]
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sizes,
        width: int,
        patch: int,
        *,
        num_blocks: int = 0,
        mixing: Mixing = "tokens",
        num_heads: int = 1,
        key: PRNGKeyArray,
    ):
        num_tokens = num_patches(sizes.window, patch) + 1
        keys = jax.random.split(key, num_blocks + 1)
        self.embedding = Linear(patch * sizes.num_inputs, width, key=keys[0])
        self.first_token = jnp.zeros(width, self.embedding.weight.dtype)
        self.blocks = made_blocks(keys[1:], num_tokens, width, mixing=mixing, num_heads=num_heads)
        self.patch = patch

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        rows = rows_of(inputs)
        tokens = self.embedding(rows.reshape(rows.shape[0] // self.patch, -1))
        tokens = jnp.concatenate([self.first_token[None], tokens])
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class SeriesPatches(Encoder):
    """Each target series by itself, with weights common to all (as in PatchTST): patches through
    blocks of attention, and their mean as the token of the series."""

    embedding: Linear
    blocks: tuple[Block, ...]
    patch: int = eqx.field(static=True)
    targets: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sizes,
        width: int,
        patch: int,
        *,
        num_blocks: int,
        num_heads: int,
        key: PRNGKeyArray,
    ):
        num_tokens = num_patches(sizes.window, patch)
        keys = jax.random.split(key, num_blocks + 1)
        self.embedding = Linear(patch * sizes.num_channels, width, key=keys[0])
        self.blocks = made_blocks(
            keys[1:], num_tokens, width, mixing="attention", num_heads=num_heads
        )
        self.patch, self.targets = patch, sizes.targets

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        series = inputs.features[:, np.asarray(self.targets)].transpose(1, 0, 2)

        def one(features: Array) -> Array:
            tokens = self.embedding(features.reshape(features.shape[0] // self.patch, -1))
            for block in self.blocks:
                tokens = block(tokens)
            return jnp.mean(tokens, axis=0)

        return jax.vmap(one)(series)


class Gated(Encoder):
    """A gated recurrent unit over the rows; the last hidden state is the only token.

        r = sigmoid(W_r x + U_r h + b_r),  u = sigmoid(W_u x + U_u h + b_u)
        n = tanh(W_n x + r * (U_n h + c) + b_n),  h <- (1 - u) n + u h

    Source: Cho et al. (2014), in the form of cuDNN.
    """

    inputs: Linear
    hidden: Linear

    def __init__(self, sizes: Sizes, width: int, *, key: PRNGKeyArray):
        in_key, key = jax.random.split(key)
        self.inputs = Linear(sizes.num_inputs, 3 * width, bias=True, key=in_key)
        self.hidden = Linear(width, 3 * width, bias=True, key=key)

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        driven = self.inputs(rows_of(inputs))

        def step(state: Array, row: Array) -> tuple[Array, None]:
            reset, keep, new = jnp.split(row, 3)
            reset_own, keep_own, new_own = jnp.split(self.hidden(state), 3)
            reset, keep = jax.nn.sigmoid(reset + reset_own), jax.nn.sigmoid(keep + keep_own)
            candidate = jnp.tanh(new + reset * new_own)
            return (1.0 - keep) * candidate + keep * state, None

        first = jnp.zeros(self.hidden.weight.shape[1], driven.dtype)
        return jax.lax.scan(step, first, driven)[0][None]


class Decaying(Encoder):
    """A diagonal linear recurrence in continuous time, then one layer of GELU around which it
    passes.

        h(t) = exp(-v gap) h(t - gap) + sqrt(1 - exp(-2 v)) B x_t,   token = h + W gelu(V h + b)

    `B` has no bias and rows without an observation are zero, so that a gap cut in two changes
    nothing. The last h is a weighted sum, of all rows at once. Rates v start at 1 / 1 ... 1 /
    window, one time scale for each of `width` states.

    Source: Orvieto et al. (2023), here with real rates and exact gaps.
    """

    log_rates: Float[Array, " width"]
    inputs: Linear
    hidden: Linear
    output: Linear

    def __init__(self, sizes: Sizes, width: int, *, key: PRNGKeyArray):
        in_key, hidden_key, out_key = jax.random.split(key, 3)
        self.inputs = Linear(sizes.num_inputs, width, key=in_key)
        self.hidden = Linear(width, width, bias=True, key=hidden_key)
        self.output = Linear(width, width, key=out_key)
        scales = -jnp.log(float(sizes.window)) * jnp.linspace(0.0, 1.0, width)
        self.log_rates = scales.astype(self.inputs.weight.dtype)

    def states(self, inputs: Inputs) -> Float[Array, " width"]:
        """h after the last row."""
        rates = jnp.exp(self.log_rates)
        weights = jnp.exp(-rates * inputs.elapsed[:, None])
        size = jnp.sqrt(-jnp.expm1(-2.0 * rates))
        return size * jnp.sum(weights * self.inputs(rows_of(inputs)), axis=0)

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        state = self.states(inputs)
        return (state + self.output(jax.nn.gelu(self.hidden(state))))[None]


def num_patches(window: int, patch: int) -> int:
    """How many patches make the window.

    **Raises:** `ValueError` unless they fill it.
    """
    if patch < 1 or window % patch:
        raise ValueError(
            f"a window of {window} rows is not made of patches of {patch}; choose a patch that "
            "divides it."
        )
    return window // patch
