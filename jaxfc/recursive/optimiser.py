"""The optimiser: Adam with decoupled weight decay, or its scale-free form, with a warm-up."""

from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jaxfc.typing import Array, Float, Int, PRNGKeyArray, PyTree

OPTIMISERS = ("adamw", "adam_atan2")
Optimiser = Literal["adamw", "adam_atan2"]
# First and second moments decay as published for the recursive net.
DECAYS = 0.9, 0.95


class Moving(NamedTuple):
    """Exponentially weighted first and second moments of the gradients, and the steps so far."""

    first: PyTree
    second: PyTree
    taken: Int[Array, ""]


def scale_by_adam_atan2() -> optax.GradientTransformation:
    """u = atan2(m, sqrt(v)), m and v the bias-corrected moments of Adam: no epsilon, so a change of
    the loss's units changes nothing (Everett et al. 2024)."""

    def init(params: PyTree) -> Moving:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moving(zeros, zeros, jnp.zeros((), jnp.int32))

    def update(grads: PyTree, state: Moving, params: PyTree = None) -> tuple[PyTree, Moving]:
        count = state.taken + 1
        first = jax.tree.map(lambda m, g: DECAYS[0] * m + (1 - DECAYS[0]) * g, state.first, grads)
        second = jax.tree.map(
            lambda v, g: DECAYS[1] * v + (1 - DECAYS[1]) * g**2, state.second, grads
        )
        low, high = (1.0 - decay**count for decay in DECAYS)
        updates = jax.tree.map(lambda m, v: jnp.arctan2(m / low, jnp.sqrt(v / high)), first, second)
        return updates, Moving(first, second, count)

    return optax.GradientTransformation(init, update)  # pyright: ignore


def is_matrix(params: PyTree) -> PyTree:
    """Which parameters decay and take noise: weight matrices, not biases, rates and start
    vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_optimiser(
    kind: Optimiser,
    *,
    learning_rate: Float[Array, ""],
    weight_decay: Float[Array, ""],
    largest_norm: Float[Array, ""],
    warm_up: int,
    num_steps: int,
) -> optax.GradientTransformation:
    """Gradients clipped to a global norm, then Adam with decoupled decay; the rate rises linearly
    over `warm_up` steps and falls to zero as a cosine over the rest."""
    scale = optax.scale_by_adam(*DECAYS) if kind == "adamw" else scale_by_adam_atan2()

    def rate(step) -> Array:
        rising = (step + 1) / max(warm_up, 1)
        share = jnp.clip((step - warm_up) / max(num_steps - warm_up, 1), 0.0, 1.0)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * share))
        return learning_rate * jnp.minimum(rising, falling)

    return optax.chain(
        optax.clip_by_global_norm(cast(float, largest_norm)),
        scale,
        optax.add_decayed_weights(weight_decay, is_matrix),  # pyright: ignore
        optax.scale_by_schedule(lambda step: -rate(step)),
    )


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Root of the sum of all squares (optax names it differently from version to version)."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))


def with_noise(
    grads: PyTree, size: Float[Array, ""], step: Int[Array, ""], *, key: PRNGKeyArray
) -> PyTree:
    """Normal noise of standard deviation size (1 + step)^-0.275 on weight matrices (Neelakantan et
    al. 2015, whose variance falls with the power 0.55)."""
    leaves, tree = jax.tree.flatten(grads)
    std = size * (1.0 + step) ** -0.275
    noisy = [
        leaf + std.astype(leaf.dtype) * jax.random.normal(each, leaf.shape, leaf.dtype)
        if leaf.ndim >= 2
        else leaf
        for leaf, each in zip(leaves, jax.random.split(key, len(leaves)), strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def moved_average(average: PyTree, params: PyTree, decay: Float[Array, ""]) -> PyTree:
    """decay a + (1 - decay) p, number by number."""
    return jax.tree.map(
        lambda a, p: decay.astype(a.dtype) * a + (1.0 - decay).astype(a.dtype) * p, average, params
    )
