"""Hyperparameters chosen by gradient on windows that lie before those they are used for."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxfc.batching import count_cases, map_in_batches
from jaxfc.counts import check_counts
from jaxfc.trees import all_finite, chosen
from jaxfc.typing import Array, Float, PyTree


class Tuned(eqx.Module):
    """What was chosen, and how it did on the windows that came after.

    `hyperparameters` lead by the blocks: those of a block were chosen from earlier windows only.
    `outcomes` are those of the windows `first`, `first + 1`, ... with the hyperparameters of their
    block. `losses` (blocks, steps) are those of the windows before, at each step of the search.
    """

    hyperparameters: PyTree
    outcomes: PyTree
    losses: Float[Array, "blocks steps"]
    first: int = eqx.field(static=True)


def tune(
    outcome: Callable[[PyTree, PyTree], PyTree],
    start: PyTree,
    windows: PyTree,
    *,
    lookback: int,
    block: int = 1,
    gap: int = 0,
    num_steps: int = 10,
    objective: Callable[[PyTree], Any] = jnp.mean,
    optimiser: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
) -> Tuned:
    """Hyperparameters by gradient descent through estimation, window after window; pure.

        L_b(theta) = objective(outcome(theta, w) for the `lookback` windows w before block b)
        theta_b    = theta_{b-1} after `num_steps` steps of the optimiser on L_b

    theta_b is used for the `block` windows of block b, which lie `gap` windows after those it was
    chosen from; b + 1 moves on by `block`. Nothing of a window, nor of later ones, enters the
    hyperparameters that it is scored with: changing it leaves them the same to the last bit.

    **Arguments:** `outcome(theta, window)` is pure, of one window (one entry of the leading axis of
    `windows`, in the order of time): its loss, or what the objective makes a loss of, e.g. returns
    of which it takes minus the Sharpe ratio. `start`: theta of any structure, in coordinates
    without bounds (a logit, a logarithm). `gap`: how many windows are not yet realised at the
    origin of a block: 0 where each outcome is known before the next window, h - 1 where windows
    move by one row and outcomes are h rows ahead. `optimiser` of optax; None: adam(0.1). Its state
    is kept from block to block. `batch_size`: windows side by side, None for all.

    Derivatives are taken forward, one direction for each number in theta, which are few: nothing of
    the way through an estimation is kept, and loops whose length is not known do no harm.

    A step whose loss or gradient is not finite is not taken: NaN stands in `losses`.

    **Raises:** `ValueError` for counts below 1, a negative gap, and too few windows.
    """
    check_counts(lookback=lookback, block=block, num_steps=num_steps)
    if gap < 0:
        raise ValueError(f"gap must be 0 or more, got {gap}.")
    first, num_windows = lookback + gap, count_cases(windows)
    if num_windows <= first:
        raise ValueError(
            f"{num_windows} windows leave none to score: lookback={lookback} and gap={gap} come "
            f"before the first one; give more windows or lower lookback."
        )
    search = optax.adam(0.1) if optimiser is None else optimiser
    num_blocks = -(-(num_windows - first) // block)

    def outcomes_of(theta: PyTree, places: Array) -> PyTree:
        chosen_windows = jax.tree.map(lambda leaf: leaf[places], windows)
        return map_in_batches(lambda window: outcome(theta, window), chosen_windows, batch_size)

    def block_step(state: tuple[PyTree, PyTree], number: Array):
        before = number * block + jnp.arange(lookback)

        def loss(theta: PyTree) -> Array:
            return jnp.asarray(objective(outcomes_of(theta, before)))

        def descend(state: tuple[PyTree, PyTree], _: None):
            theta, memory = state
            value, gradient = value_and_slopes(loss, theta)
            usable = all_finite((value, gradient))
            updates, later = search.update(gradient, memory, theta)
            moved = optax.apply_updates(theta, updates), later
            return chosen(usable, moved, state), jnp.where(usable, value, jnp.nan)

        state, losses = jax.lax.scan(descend, state, None, length=num_steps)
        # The last block is filled up with the last window, whose copies are dropped.
        after = jnp.minimum(first + number * block + jnp.arange(block), num_windows - 1)
        return state, (state[0], outcomes_of(state[0], after), losses)

    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), start)
    _, found = jax.lax.scan(block_step, (theta, search.init(theta)), jnp.arange(num_blocks))
    thetas, outcomes, losses = found
    num_scored = num_windows - first
    outcomes = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_scored], outcomes)
    return Tuned(thetas, outcomes, losses, first)


def value_and_slopes(
    loss: Callable[[PyTree], Array], theta: PyTree
) -> tuple[Float[Array, ""], PyTree]:
    """The loss and its gradient by forward differentiation."""
    flat, back = ravel_pytree(theta)

    def along(direction: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda x: loss(back(x)), (flat,), (direction,))

    value, slopes = jax.vmap(along, out_axes=(None, 0))(jnp.eye(flat.size, dtype=flat.dtype))
    return value, back(slopes)
