"""The rivals of the study: networks of about equal numbers of parameters, and what anchors them."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.recursion_worlds import filtered_mixture, normal_loss
from jaxfc.recursive import (
    Architecture,
    DecayingNet,
    GatedNet,
    GaussianHead,
    Head,
    LinearNet,
    MixerNet,
    MultilayerNet,
    RecursiveNet,
)
from jaxfc.recursive.encoders import Decaying
from jaxfc.recursive.nets import Encoder, Inputs, Network, Readout, SinglePass, Sizes
from jaxfc.recursive.network import Block, made_blocks
from jaxfc.regimes import RegimeModel
from jaxfc.typing import Array, Float, PRNGKeyArray

# Features of each series: the return, the logarithm of its square, that it is there.
NUM_CHANNELS = 3
# Half-lives in days that the exponentially weighted variance chooses from.
HALF_LIVES = (3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 120.0)


class DecayingBlocks(Encoder):
    """The diagonal linear recurrence, and then the blocks of the recursive net, each once."""

    decaying: Decaying
    blocks: tuple[Block, ...]

    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        tokens = self.decaying(inputs)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class DecayingOnceNet(Architecture):
    """`RecursiveNet(mixing="none")` without its recursion: the same net passed once."""

    width: int = eqx.field(static=True, default=24)
    num_blocks: int = eqx.field(static=True, default=2)

    def build(self, sizes: Sizes, head: Head, *, key: PRNGKeyArray) -> Network:
        first_key, key = jax.random.split(key)
        keys = jax.random.split(key, self.num_blocks)
        blocks = made_blocks(keys, 1, self.width, mixing="none", num_heads=1)
        encoder = DecayingBlocks(Decaying(sizes, self.width, key=first_key), blocks)
        return SinglePass(encoder, Readout(self.width, sizes.outputs))


class Contender(NamedTuple):
    """A network, whose moments it starts from, and what its outputs mean."""

    architecture: Architecture
    anchor: str
    head: Head = GaussianHead()

    def sizes(self, window: int, num_series: int) -> Sizes:
        """What it is built for: one day ahead, all series."""
        places = tuple(range(num_series))
        return Sizes(window, num_series, NUM_CHANNELS, 1, places, self.head.num_outputs)

    def num_trained(self, window: int, num_series: int) -> int:
        """How many numbers training moves: all but the start of a recursion."""
        sizes = self.sizes(window, num_series)
        build = self.architecture.build
        network = eqx.filter_eval_shape(build, sizes, self.head, key=jax.random.key(0))
        core = getattr(network, "core", None)
        fixed = 0 if core is None else core.first_answer.size + core.first_latent.size
        return sum(leaf.size for leaf in jax.tree.leaves(network)) - fixed


VECTORS = RecursiveNet(24, "none", num_inner=3, num_cycles=2, num_supervision=4)
TOKENS = dataclasses.replace(VECTORS, mixing="tokens")
# Widths give each about the 12,304 numbers of the linear map of a window of 32 days. The order is
# that of the run: what the verdict needs first comes first.
NETWORKS = {
    "recurrence, recursion": Contender(VECTORS, "constant"),
    "recurrence, net once": Contender(DecayingOnceNet(24), "constant"),
    "recurrence": Contender(DecayingNet(68), "constant"),
    "HMM anchor, recurrence": Contender(DecayingNet(68), "HMM"),
    "HMM anchor, recursion": Contender(VECTORS, "HMM"),
    "mixer, recursion": Contender(TOKENS, "constant"),
    "mixer, net once": Contender(MixerNet(24), "constant"),
    "GRU": Contender(GatedNet(50), "constant"),
    "MLP": Contender(MultilayerNet(15), "constant"),
    "linear": Contender(LinearNet(), "constant"),
    "HMM anchor, net once": Contender(DecayingOnceNet(24), "HMM"),
    "recurrence, recursion, one step": Contender(
        dataclasses.replace(VECTORS, num_supervision=1), "constant"
    ),
}


class Anchor(NamedTuple):
    """Mean and standard deviation of every day from the days before it."""

    means: Float[Array, "time series"]
    stds: Float[Array, "time series"]


class Span(NamedTuple):
    """First day that is trained on, first held back, first beyond these, first tested on."""

    first: Array
    split: Array
    stop: Array
    test: Array

    def trained(self, num_days: int) -> Array:
        """Which days are trained on (time, 1)."""
        day = jnp.arange(num_days)[:, None]
        return (day >= self.first) & (day < self.split)


def moments(values: Float[Array, "time series"], trained: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the days that are trained on, by series."""
    mean = jnp.mean(values, axis=0, where=trained)
    return mean, jnp.sqrt(jnp.mean((values - mean) ** 2, axis=0, where=trained))


def constant_anchor(values: Float[Array, "time series"], span: Span) -> Anchor:
    """The moments of the training days, every day."""
    mean, std = moments(values, span.trained(values.shape[0]))
    return Anchor(*(jnp.broadcast_to(part, values.shape) for part in (mean, std)))


def weighted_anchor(values: Float[Array, "time series"], span: Span) -> Anchor:
    """The mean of the training days and an exponentially weighted variance, whose half-life, one
    for all series, has the smallest loss on the training days (RiskMetrics, J.P. Morgan 1996)."""
    trained = span.trained(values.shape[0])
    mean, std = moments(values, trained)
    squares = (values - mean) ** 2

    def stds(half_life: Array) -> Array:
        decay = 0.5 ** (1.0 / half_life)
        # Entry t is the weight of the variance before and what day t - 1 adds.
        added = jnp.concatenate([std[None] ** 2, (1.0 - decay) * squares[:-1]])
        kept = jnp.full_like(added, decay)
        combine = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
        return jnp.sqrt(jax.lax.associative_scan(combine, (kept, added))[1])

    def loss(half_life: Array) -> Array:
        return jnp.mean(normal_loss(values, mean, stds(half_life)), where=trained)

    half_lives = jnp.asarray(HALF_LIVES, values.dtype)
    best = half_lives[jnp.argmin(jax.lax.map(loss, half_lives))]
    return Anchor(jnp.broadcast_to(mean, values.shape), stds(best))


class Chain(NamedTuple):
    """An estimated hidden Markov model, and the steps of EM that it took."""

    initial: Float[Array, " regimes"]
    transition: Float[Array, "regimes regimes"]
    means: Float[Array, "regimes series"]
    covs: Float[Array, "regimes series series"]
    num_steps: Array


def regime_model(num_regimes: int, implementation: str) -> RegimeModel:
    """Full covariances by regime; the tolerance is what float32 can tell."""
    return RegimeModel(num_regimes, tolerance=1e-6, max_steps=200, implementation=implementation)


def estimated_chain(model: RegimeModel, values: Float[Array, "time series"]) -> Chain:
    """EM on the training days alone."""
    fitted = model.estimate(values, jnp.ones(values.shape, bool))
    law = fitted.parameters
    return Chain(law.initial, law.transition, law.means, fitted.covs, fitted.num_steps)


def chain_mixture(values: Float[Array, "time series"], chain: Chain, implementation: str):
    """The one-step law of every day under an estimated chain."""
    return filtered_mixture(
        values, chain.initial, chain.transition, chain.means, chain.covs, implementation
    )
