"""One compiled program trains and scores a network on all paths from all seeds.

Where the training days lie is an argument, so that one program serves all sizes and both worlds.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.recursion_models import Anchor, Contender, Span, moments
from jaxfc.batching import map_in_batches
from jaxfc.recursive import Training
from jaxfc.recursive.heads import Head, Moments
from jaxfc.recursive.nets import Inputs, Network
from jaxfc.recursive.train import train
from jaxfc.recursive.training import Scored, Task
from jaxfc.recursive.windows import Scaling, features_of, unit_gaps
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

# Test days scored side by side, for each path and seed.
TEST_BATCH = 500
# Steps of supervision at test time: twice those of the training.
LONGEST_THOUGHT = 8


class Truth(NamedTuple):
    """The moments that outputs refine, what came, and whether the example counts."""

    moments: Moments
    target: Float[Array, "1 series"]
    counted: Bool[Array, ""]


class Days(Task):
    """`count` days from `first` on, each with the `window` days before it; `num_days` at most are
    gone through in an evaluation."""

    features: Float[Array, "time series channels"]
    values: Float[Array, "time series"]
    anchor: Anchor
    first: Int[Array, ""]
    count: Int[Array, ""]
    head: Head
    window: int = eqx.field(static=True)
    num_days: int = eqx.field(static=True)

    @property
    def num_examples(self) -> int:
        return self.num_days

    def example(self, index: Int[Array, ""]) -> tuple[Inputs, Truth]:
        day = self.first + jnp.minimum(index, self.count - 1)
        features = jax.lax.dynamic_slice_in_dim(self.features, day - self.window, self.window)
        refined = Moments(self.anchor.means[day][None], self.anchor.stds[day][None])
        truth = Truth(refined, self.values[day][None], index < self.count)
        return Inputs(features, unit_gaps(features)), truth

    def score(
        self, outputs: Float[Array, "..."], truth: Truth, step: Int[Array, ""] | None
    ) -> Scored:
        seen = jnp.broadcast_to(truth.counted, truth.target.shape)
        loss = self.head.loss(outputs, truth.moments, truth.target, seen)
        return Scored(loss, jnp.sum(seen).astype(loss.dtype))

    def draw(self, num: int, step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, " examples"]:
        return jax.random.randint(key, (num,), 0, self.count)


class Scores(NamedTuple):
    """Of all paths and seeds: test loss an asset-day by step of supervision, the daily losses after
    the steps of training (mean over seeds), the best held-back loss, whether training diverged, and
    how much the network's context varied over the held-back days."""

    by_step: Float[Array, "paths seeds supervision"]
    daily: Float[Array, "paths days"]
    held_back: Float[Array, "paths seeds"]
    diverged: Bool[Array, "paths seeds"]
    variation: Float[Array, "paths seeds"]


def trained_and_scored(
    contender: Contender,
    training: Training,
    *,
    window: int,
    held_back: int,
    test_days: int,
    together: bool,
) -> Callable[[Array, Anchor, Span, Array], Scores]:
    """The program: values (paths, time, series), an anchor of each, the span, keys (paths, seeds).

    `together` runs all side by side, for an accelerator; else one network is trained after the
    other.
    """

    def one_path(values: Array, anchor: Anchor, span: Span, keys: Array):
        features = features_in_units(values, span)

        def days(first: Array, count: Array | int, most: int) -> Days:
            count = jnp.asarray(count)
            return Days(features, values, anchor, first, count, contender.head, window, most)

        task = days(span.first, span.split - span.first, test_days)
        held = days(span.split, span.stop - span.split, held_back)
        test = days(span.test, test_days, test_days)

        def one_seed(key: PRNGKeyArray):
            build_key, key = jax.random.split(key)
            sizes = contender.sizes(window, values.shape[1])
            network = contender.architecture.build(sizes, contender.head, key=build_key)
            state = train(network, task, held, training, key=key)
            losses = losses_by_step(state.best, test)
            step = min(network.num_supervision, losses.shape[1]) - 1
            told = state.best_loss, state.diverged, state.trace.variation[-1]
            return jnp.mean(losses, axis=0), losses[:, step], *told

        by_step, daily, *told = mapped(one_seed, together)(keys)
        return Scores(by_step, jnp.mean(daily, axis=0), *told)

    def run(values: Array, anchor: Anchor, span: Span, keys: Array) -> Scores:
        one = lambda given: one_path(given[0], given[1], span, given[2])  # noqa: E731
        return mapped(one, together)((values, anchor, keys))

    return run


def mapped(function: Callable, together: bool) -> Callable:
    """`function` over the leading axis, side by side or in turn."""
    return jax.vmap(function) if together else lambda cases: jax.lax.map(function, cases)


def features_in_units(values: Float[Array, "time series"], span: Span) -> Array:
    """Features of all days, in units of the training days."""
    scaling = Scaling(*moments(values, span.trained(values.shape[0])))
    return features_of(values, jnp.ones(values.shape, bool), scaling, True)


def losses_by_step(network: Network, task: Days) -> Float[Array, "days supervision"]:
    """Loss an asset of every day after each step of supervision; a recursion thinks on for longer
    than it was trained to."""
    if network.num_supervision > 1:
        network = dataclasses.replace(network, num_steps=LONGEST_THOUGHT)

    def one(index: Array) -> Array:
        inputs, truth = task.example(index)
        outputs = network.think(inputs).outputs
        return jax.vmap(lambda each: task.score(each, truth, None).loss)(outputs)

    losses = map_in_batches(one, jnp.arange(task.num_examples), TEST_BATCH)
    return losses / task.values.shape[1]
