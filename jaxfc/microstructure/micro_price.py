"""Stoikov's micro-price: where the mid price is heading, given queues and spread."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.microstructure.book import BookStates, where_valid
from jaxfc.microstructure.features import queue_imbalance
from jaxfc.typing import Array, Float, Int


class MicroPrice(eqx.Module):
    """E[mid after its next moves | imbalance, spread] - mid, in ticks, by class of both.

    Row i of `adjustment` is the i-th of equally wide classes of (imbalance + 1) / 2, column j a
    spread of j + 1 ticks; the last holds all wider ones. Classes that were never seen have 0.
    """

    adjustment: Float[Array, "imbalances spreads"]

    def from_mid(self, states: BookStates) -> Float[Array, " time"]:
        """Micro-price - mid in ticks; NaN where the book is not valid. (Their sum would lose the
        fraction of a tick in float32 where prices have millions of ticks.)
        """
        num_imbalances, num_spreads = self.adjustment.shape
        cell = book_class(states, num_imbalances, num_spreads)
        return where_valid(states, self.adjustment.reshape(-1)[cell])


def book_class(states: BookStates, num_imbalances: int, num_spreads: int) -> Int[Array, " time"]:
    """imbalance class * num_spreads + spread class; 0 where the book is not valid."""
    valid = states.valid
    share = jnp.where(valid, 0.5 * (queue_imbalance(states) + 1.0), 0.0)
    imbalance = jnp.clip(jnp.floor(share * num_imbalances), 0, num_imbalances - 1)
    ticks = jnp.where(valid, states.ask_price[:, 0] - states.bid_price[:, 0], 1)
    spread = jnp.clip(ticks - 1, 0, num_spreads - 1)
    return (imbalance.astype(jnp.int32) * num_spreads + spread).astype(jnp.int32)


def micro_price_table(
    states: BookStates, num_imbalances: int, num_spreads: int
) -> Float[Array, "imbalances spreads"]:
    """The adjustment of `fit_micro_price`; pure; not finite if some class never leads to a move."""
    num_classes = num_imbalances * num_spreads
    cell = book_class(states, num_imbalances, num_spreads)
    weight = states.continued[1:].astype(jnp.result_type(float))
    # Ticks from integers: a difference of two large floats would round.
    doubled = states.bid_price[:, 0] + states.ask_price[:, 0]
    move = 0.5 * jnp.diff(doubled) * weight
    mirror = mirrored_class(num_imbalances, num_spreads)
    before = jnp.concatenate([cell[:-1], mirror[cell[:-1]]])
    after = jnp.concatenate([cell[1:], mirror[cell[1:]]])
    move = jnp.concatenate([move, -move])
    weight = jnp.concatenate([weight, weight])
    moved = (move != 0) * weight
    pairs = jnp.zeros((2, num_classes, num_classes), weight.dtype)
    pairs = pairs.at[0, before, after].add(weight - moved).at[1, before, after].add(moved)
    total = jnp.maximum(jnp.sum(pairs, axis=(0, 2)), 1.0)
    stays, moves = pairs / total[:, None]
    mean = jnp.zeros(num_classes, weight.dtype).at[before].add(move) / total
    return limit_of_moves(stays, moves, mean).reshape(num_imbalances, num_spreads)


def mirrored_class(num_imbalances: int, num_spreads: int) -> Int[Array, " classes"]:
    """The class of a book with bids and asks exchanged."""
    cells = np.arange(num_imbalances * num_spreads).reshape(num_imbalances, num_spreads)
    return jnp.asarray(cells[::-1].reshape(-1))


def limit_of_moves(
    stays: Float[Array, "classes classes"],
    moves: Float[Array, "classes classes"],
    mean: Float[Array, " classes"],
) -> Float[Array, " classes"]:
    """G = sum_i B^i G_1, G_1 = (I - Q)^{-1} r, B = (I - Q)^{-1} T.

    Q = `stays` and T = `moves` are probabilities of the next class without and with a move of the
    mid, r = `mean` the expected move. For a chain that is symmetric in its sides G sums to zero, so
    (I - B) G = G_1, which fixes G up to a constant, is solved with the mean of G added to each row.
    """
    size = mean.shape[0]
    eye = jnp.eye(size, dtype=mean.dtype)
    solved = jnp.linalg.solve(eye - stays, jnp.concatenate([moves, mean[:, None]], axis=1))
    later, first = solved[:, :-1], solved[:, -1]
    return jnp.linalg.solve(eye - later + 1.0 / size, first)


@eqx.filter_jit
def jitted_table(states: BookStates, num_imbalances: int, num_spreads: int) -> Array:
    """`micro_price_table` under one module-level `jit`."""
    return micro_price_table(states, num_imbalances, num_spreads)


def fit_micro_price(
    states: BookStates, num_imbalances: int = 10, num_spreads: int = 2
) -> MicroPrice:
    """The micro-price of a Markov chain of (imbalance, spread), from books that come one after
    another, each taken also with its sides exchanged (so a balanced book has adjustment 0).

    Estimate on rows before those it is applied to. Rows that are not valid are left out.

    **Raises:** `ValueError` if some class of books never leads to a move of the mid.

    Source: Stoikov (2018), The micro-price: a high-frequency estimator of future prices, section 3.
    """
    check_counts(num_imbalances=num_imbalances, num_spreads=num_spreads)
    table = jitted_table(states, num_imbalances, num_spreads)
    if not bool(jnp.all(jnp.isfinite(table))):
        raise ValueError(
            "the mid price does not move often enough for its moves to be estimated by class; use "
            f"more rows, or fewer than num_imbalances={num_imbalances} and "
            f"num_spreads={num_spreads}."
        )
    return MicroPrice(table)
