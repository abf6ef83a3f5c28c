"""Architectures: configurations that build a network for given sizes, the recursive one among its
rivals. All are trained by the same loop with the same heads."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.recursive.encoders import (
    Decaying,
    Dense,
    Gated,
    Nothing,
    Patches,
    SeriesPatches,
)
from jaxfc.recursive.heads import Head
from jaxfc.recursive.nets import (
    Answer,
    Dropout,
    Inputs,
    Network,
    Readout,
    Recursive,
    SinglePass,
    Sizes,
)
from jaxfc.recursive.network import Mixing, TinyRecursiveNet, check_recursion
from jaxfc.typing import Array, Float, PRNGKeyArray, PyTree


class Architecture(eqx.Module):
    """What kind of network, and how large."""

    @abc.abstractmethod
    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        """A network whose outputs are zero: it answers with the anchor.

        **Raises:** `ValueError` if the sizes do not suit the architecture.
        """


class ConstantNet(Architecture):
    """The same outputs for every window: the anchor, recalibrated."""

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        return SinglePass(Nothing(), Readout(1, sizes.outputs))


class LinearNet(Architecture):
    """Outputs linear in the window."""

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        encoder = Dense(sizes, 0, 0, key=key)
        return SinglePass(encoder, Readout(sizes.window * sizes.num_inputs, sizes.outputs))


class MultilayerNet(Architecture):
    """A multilayer perceptron: `num_layers` of `width` over the whole window, GELU between."""

    width: int = eqx.field(static=True, default=32)
    num_layers: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        check_counts(width=self.width, num_layers=self.num_layers)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        encoder = Dense(sizes, self.width, self.num_layers, key=key)
        return SinglePass(encoder, Readout(self.width, sizes.outputs))


class MixerNet(Architecture):
    """The blocks of the recursive net with weights of their own, each passed once: tokens are
    patches of the window. With as many blocks as the recursive net it is that net once."""

    width: int = eqx.field(static=True, default=32)
    patch: int = eqx.field(static=True, default=4)
    num_blocks: int = eqx.field(static=True, default=2)
    mixing: Mixing = eqx.field(static=True, default="tokens")
    num_heads: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        sizes = self.width, self.num_blocks, 1, 1, self.num_heads
        check_recursion(1, *sizes, self.mixing)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        encoder = Patches(
            sizes,
            self.width,
            self.patch,
            num_blocks=self.num_blocks,
            mixing=self.mixing,
            num_heads=self.num_heads,
            key=key,
        )
        return SinglePass(encoder, Readout(self.width, sizes.outputs))


class GatedNet(Architecture):
    """A gated recurrent unit of `width` states over the rows of the window."""

    width: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        check_counts(width=self.width)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        return SinglePass(Gated(sizes, self.width, key=key), Readout(self.width, sizes.outputs))


class DecayingNet(Architecture):
    """A diagonal linear recurrence of `width` states, exact for irregular gaps."""

    width: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        check_counts(width=self.width)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        return SinglePass(Decaying(sizes, self.width, key=key), Readout(self.width, sizes.outputs))


class PatchAttentionNet(Architecture):
    """A small PatchTST: every series by itself with common weights, attention over its patches."""

    width: int = eqx.field(static=True, default=32)
    patch: int = eqx.field(static=True, default=4)
    num_blocks: int = eqx.field(static=True, default=2)
    num_heads: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        sizes = self.width, self.num_blocks, 1, 1, self.num_heads
        check_recursion(1, *sizes, "attention")

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        encoder = SeriesPatches(
            sizes,
            self.width,
            self.patch,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            key=key,
        )
        return SinglePass(encoder, Readout(self.width, sizes.outputs, joint=False))


class RecursiveNet(Architecture):
    """A `TinyRecursiveNet` on the window, trained over `num_supervision` steps of supervision.

    `mixing` "tokens" or "attention": tokens are patches of `patch` rows behind one learned token.
    "none": one vector, the state of a diagonal linear recurrence (`DecayingNet`).
    Forecasts always take all steps; `Training(halting=True)` lets examples leave training earlier.
    """

    width: int = eqx.field(static=True, default=32)
    mixing: Mixing = eqx.field(static=True, default="tokens")
    patch: int = eqx.field(static=True, default=4)
    num_blocks: int = eqx.field(static=True, default=2)
    num_inner: int = eqx.field(static=True, default=3)
    num_cycles: int = eqx.field(static=True, default=2)
    num_supervision: int = eqx.field(static=True, default=4)
    num_heads: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_counts(num_supervision=self.num_supervision, patch=self.patch)
        sizes = self.width, self.num_blocks, self.num_inner, self.num_cycles, self.num_heads
        check_recursion(1, *sizes, self.mixing)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        encoder_key, key = jax.random.split(key)
        if self.mixing == "none":
            encoder, num_tokens = Decaying(sizes, self.width, key=encoder_key), 1
        else:
            encoder = Patches(sizes, self.width, self.patch, key=encoder_key)
            num_tokens = sizes.window // self.patch + 1
        core = TinyRecursiveNet(
            num_tokens,
            self.width,
            num_blocks=self.num_blocks,
            num_inner=self.num_inner,
            num_cycles=self.num_cycles,
            mixing=self.mixing,
            num_heads=self.num_heads,
            key=key,
        )
        readout = Readout(self.width, sizes.outputs)
        return Recursive(encoder, core, readout, self.num_supervision)


class WeightedVariance(Network):
    """The anchor's scale times the root of an exponentially weighted mean of squares."""

    log_rate: Float[Array, ""]
    head: Head
    targets: tuple[int, ...] = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    @property
    def num_supervision(self) -> int:
        return 1

    def start(self, inputs: PyTree) -> PyTree:
        return ()

    def refine(self, inputs: Inputs, state: PyTree, dropout: Dropout | None = None) -> Answer:
        places = np.asarray(self.targets)
        values, seen = inputs.features[:, places, 0], inputs.features[:, places, -1]
        weights = jnp.exp(-jnp.exp(self.log_rate) * inputs.elapsed)[:, None] * seen
        mass = jnp.sum(weights, axis=0)
        square = jnp.sum(weights * values**2, axis=0) / jnp.where(mass > 0, mass, 1.0)
        # A window without an observation, or of equal values, says nothing: the anchor's scale.
        known = square > 1e-12
        log_scale = 0.5 * jnp.log(jnp.where(known, square, 1.0))
        outputs = self.head.from_log_scale(
            jnp.broadcast_to(log_scale, (self.horizon, len(self.targets)))
        )
        halt = jnp.asarray(jnp.inf, outputs.dtype)
        return Answer(outputs, (), halt, log_scale)


class WeightedVarianceNet(Architecture):
    """An exponentially weighted variance with one trained rate (RiskMetrics, J.P. Morgan 1996).

    It multiplies the scale of the training rows, so it takes no anchor; its rate starts at
    1 / 16 a row.
    """

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        log_rate = jnp.asarray(-np.log(16.0), jnp.result_type(float))
        return WeightedVariance(log_rate, head, sizes.targets, sizes.horizon)
