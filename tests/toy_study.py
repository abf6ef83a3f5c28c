"""A study of shrunken means that runs in a second: one world, three estimators, loops, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.results import RESULTS, select
from jaxfc.running.study import Study
from jaxfc.running.study_cells import product_grid
from jaxfc.typing import as_scalar

TRACES: list[str] = []


class ToyPanel(eqx.Module):
    values: jax.Array
    observed: jax.Array
    truth: jax.Array
    is_valid: jax.Array


class ToyWorld(eqx.Module):
    """Means of a few series, some of whose values are missing."""

    num_times: int = eqx.field(static=True)
    num_series: int = eqx.field(static=True, default=3)
    missing: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        if self.num_times < 2:
            raise ValueError(f"num_times must be at least 2, got {self.num_times}.")

    def sample(self, *, key):
        return draw_toy(self.num_times, self.num_series, self.missing, key)


class ToySampler(eqx.Module):
    """Draws for a world of any share of missing values."""

    num_times: int = eqx.field(static=True)
    num_series: int = eqx.field(static=True)
    missing: jax.Array

    def sample(self, *, key):
        return draw_toy(self.num_times, self.num_series, self.missing, key)


class SampledWorld(ToyWorld):
    """The same, with a sampler that holds the share as an array."""

    def sampler(self):
        return ToySampler(self.num_times, self.num_series, jnp.asarray(self.missing))


def draw_toy(num_times, num_series, missing, key):
    TRACES.append("world")
    keys = jax.random.split(key, 3)
    truth = jax.random.normal(keys[0], (num_series,))
    shape = (num_times, num_series)
    observed = jax.random.uniform(keys[1], shape) >= missing
    values = jnp.where(observed, truth + jax.random.normal(keys[2], shape), 0.0)
    return ToyPanel(values, observed, truth, jnp.any(observed))


class ToyEstimate(eqx.Module):
    means: jax.Array
    num_steps: jax.Array
    result: RESULTS


class BoundShrinkage(eqx.Module):
    """The fixed point of m = weight mean(values - m) + (1 - weight) m, by iteration."""

    weight: jax.Array
    prior: jax.Array
    fails_above: float = eqx.field(static=True)

    def __call__(self, panel):
        TRACES.append("shrinkage")
        count = jnp.maximum(panel.observed.sum(axis=0), 1)

        def step(state):
            means, _, num_steps = state
            mean = jnp.where(panel.observed, panel.values - means, 0.0).sum(axis=0) / count
            new = means + self.weight * (mean + (self.prior - means) / count)
            return new, jnp.max(jnp.abs(new - means)), num_steps + 1

        def go_on(state):
            return (state[1] > 1e-10) & (state[2] < 500)

        start = (jnp.zeros_like(panel.truth), jnp.asarray(jnp.inf), jnp.asarray(0))
        means, _, num_steps = jax.lax.while_loop(go_on, step, start)
        failed = jnp.max(jnp.abs(means)) > self.fails_above
        result = select(failed, RESULTS.diverged, RESULTS.successful)
        return ToyEstimate(jnp.where(failed, jnp.nan, means), num_steps, result)


class Shrinkage(eqx.Module):
    """Refuses worlds of one series; its prior is an array that belongs to the world."""

    weight: jax.Array = eqx.field(converter=as_scalar)
    fails_above: float = eqx.field(static=True, default=2.0)

    def bind(self, world):
        if world.num_series == 1:
            raise ValueError("one series cannot be shrunken.")
        return BoundShrinkage(self.weight, world.missing * jnp.ones(world.num_series), 2.0)


class PlainEstimate(eqx.Module):
    means: jax.Array


class PlainMean(eqx.Module):
    """Has neither steps nor a result, and no answer where much is missing."""

    def applies(self, world):
        return world.missing < 0.5

    def bind(self, world):
        return plain_mean


def plain_mean(panel):
    TRACES.append("mean")
    return PlainEstimate(panel.values.sum(axis=0) / jnp.maximum(panel.observed.sum(axis=0), 1))


def squared_error(panel, estimate):
    return jnp.mean((estimate.means - panel.truth) ** 2)


def first_mean(panel, estimate):
    return estimate.means[0]


GRID = product_grid(num_times=[5, 8], missing=[0.0, 0.3, 0.6])


def toy_study(**changes):
    options = {
        "world": ToyWorld,
        "estimators": {"shrunken": Shrinkage(0.5), "slow": Shrinkage(0.05), "mean": PlainMean()},
        "grid": GRID,
        "metrics": {"error": squared_error, "first": first_mean},
        "num_paths": 14,
        "batch_size": 4,
        "paths_per_chunk": 6,
        "name": "toy",
    }
    return Study(**{**options, **changes})
