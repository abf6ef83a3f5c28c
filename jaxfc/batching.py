"""One function over a leading axis of cases, in chunks that fit into memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.typing import Array, PRNGKeyArray, PyTree


def map_in_batches(
    function: Callable[[PyTree], PyTree], cases: PyTree, batch_size: int | None = None
) -> PyTree:
    """`function` of every case, the cases along the leading axis of each leaf: pure, for `jit`.

    All cases run side by side (`vmap`), `batch_size` of them at a time where it is given. The last
    chunk is filled up with copies of the last case, whose answers are dropped, so that `function`
    is traced once.

    **Raises:** `ValueError` for no case, leaves of different lengths, or a batch size below 1.
    """
    num_cases = count_cases(cases)
    if batch_size is None or batch_size >= num_cases:
        return jax.vmap(function)(cases)
    check_counts(batch_size=batch_size)
    num_chunks = -(-num_cases // batch_size)
    places = jnp.minimum(jnp.arange(num_chunks * batch_size), num_cases - 1)
    chunked = jax.tree.map(
        lambda leaf: leaf[places].reshape(num_chunks, batch_size, *leaf.shape[1:]), cases
    )
    answers = jax.lax.map(jax.vmap(function), chunked)
    return jax.tree.map(
        lambda leaf: leaf.reshape(num_chunks * batch_size, *leaf.shape[2:])[:num_cases], answers
    )


def count_cases(cases: PyTree) -> int:
    """Length of the leading axis that all leaves share."""
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(cases)}
    if len(lengths) != 1 or not (lengths - {0, None}):
        raise ValueError(
            f"cases must share one leading axis of length 1 or more, got lengths "
            f"{sorted(lengths, key=str)}."
        )
    (num_cases,) = lengths
    return int(num_cases or 0)


def numbered_keys(key: PRNGKeyArray, number: int) -> Array:
    """Keys 0, 1, ... of `key`: more of them leave the first ones as they are."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))
