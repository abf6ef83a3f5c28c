"""Blocks of consecutive dates of residuals, all nodes together; gaps are skipped or refused."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.hierarchy.build import frame_values
from jaxfc.hierarchy.labels import marked, shown
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

Incomplete = Literal["raise", "skip"]
Errors = Float[Array, "*rows series"] | np.ndarray | pd.DataFrame


def errors_array(errors: Errors, names: Sequence[str], horizon: int, verb: str) -> Array:
    """Errors as (time, series), or as (origins, horizon, series)."""
    if isinstance(errors, pd.DataFrame):
        errors = frame_values(errors, names)
    array = jnp.asarray(errors)
    shapes = f"(dates, {len(names)}) or (origins, {horizon}, {len(names)})"
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[1] == horizon)
    if not fits or array.shape[-1] != len(names):
        raise ValueError(f"{verb} takes errors of shape {shapes}, got {array.shape}.")
    return array


def complete_blocks(errors: Array, length: int) -> Bool[Array, " blocks"]:
    """Which blocks of `length` rows, by their first row, have no missing cell."""
    whole = jnp.all(jnp.isfinite(errors.reshape(errors.shape[0], -1)), axis=1)
    count = errors.shape[0] - length + 1
    return jnp.all(jnp.stack([whole[i : i + count] for i in range(length)]), axis=0)


def check_blocks(
    errors: Array, names: Sequence[str], length: int, incomplete: Incomplete, verb: str
) -> None:
    """Refuses infinite errors, gaps unless they are to be skipped, and too few complete blocks."""
    if incomplete not in ("raise", "skip"):
        raise ValueError(f"incomplete is 'raise' or 'skip', got {incomplete!r}.")
    if errors.shape[0] < length:
        raise ValueError(
            f"{verb} needs {length} consecutive dates of errors for a block, got "
            f"{errors.shape[0]}; give more, or shorter blocks."
        )
    if isinstance(errors, Tracer):
        return
    host = np.asarray(errors)
    rows = host.reshape(-1, host.shape[-1])
    infinite = np.any(np.isinf(rows), axis=0)
    if np.any(infinite):
        raise ValueError(f"errors of {marked(names, infinite)} are infinite.")
    gaps = np.mean(np.isnan(rows), axis=0)
    if not np.any(gaps):
        return
    if incomplete == "raise":
        raise ValueError(
            f"errors of {marked(names, gaps > 0)} are missing at some dates; incomplete='skip' "
            f"leaves out the dates at which any is missing."
        )
    if not np.any(np.asarray(complete_blocks(errors, length))):
        order = np.argsort(-gaps, kind="stable").tolist()
        worst = [names[i] for i in order if gaps[i] > 0]
        raise ValueError(
            f"no {length} consecutive dates have errors of all nodes; missing most often: "
            f"{shown(worst)}. Drop these, fill them, or take shorter blocks."
        )


def drawn_blocks(
    errors: Array, length: int, num_blocks: int, *, key: PRNGKeyArray
) -> Int[Array, " draws"]:
    """First rows of blocks drawn at random, with replacement, among those that are complete."""
    there = complete_blocks(errors, length)
    ranks = jnp.cumsum(there)
    picked = jax.random.randint(key, (num_blocks,), 0, jnp.maximum(ranks[-1], 1))
    return jnp.searchsorted(ranks, picked, side="right")


def rows_of_blocks(errors: Array, starts: Int[Array, "*draws"], length: int) -> Array:
    """Rows of the blocks that begin at `starts`."""
    return errors[starts[..., None] + jnp.arange(length)]
