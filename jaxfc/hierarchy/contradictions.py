"""Weights and data that contradict each other; host side."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.hierarchy.build import frame_values
from jaxfc.hierarchy.labels import Labels, marked, shown
from jaxfc.hierarchy.summing import Summing, over_steps


def check_averages(summing: Summing, labels: Labels, weights: np.ndarray) -> None:
    """Refuses averages over weights that sum to nothing."""
    rows = weights.reshape(-1, weights.shape[-1])
    shape = (*summing.groups.shape, rows.shape[0])
    spread = jnp.broadcast_to(jnp.asarray(rows).T[None], shape)
    totals, sizes = summing.scatter(spread), summing.scatter(jnp.abs(spread))
    empty = np.asarray(jnp.any(jnp.abs(totals) <= 1e-12 * sizes, axis=1))
    if np.any(empty):
        names = [name for name, bad in zip(labels.names, empty, strict=False) if bad]
        raise ValueError(
            f"the weights of the series of {shown(names)} sum to zero, so that their weighted "
            f"average does not exist; give other weights, or use average=False for sums."
        )


def check_sums(summing: Summing, labels: Labels, values: pd.DataFrame, rtol: float) -> None:
    """Refuses data in which an aggregate is not the sum of its series; see `Hierarchy.check`."""
    data = frame_values(values, labels.names)
    gone = np.all(np.isnan(data), axis=0)
    if np.any(gone):
        raise ValueError(
            f"{marked(labels.names, gone)} have no value at any date; drop the bottom series among "
            f"them, and aggregates that shall be forecast from their series only."
        )
    split = labels.num_aggregates
    gap = np.asarray(
        over_steps(summing, lambda one, rows: one.incoherence(rows), jnp.asarray(data))
    )
    sizes = eqx.tree_at(lambda s: s.weights, summing, jnp.abs(summing.weights))
    terms = jnp.abs(jnp.asarray(data[:, split:]))
    size = np.asarray(over_steps(sizes, lambda one, rows: one.aggregates(rows), terms))
    size = np.maximum(size, np.abs(data[:, :split]))
    relative = np.nan_to_num(np.abs(gap) / np.where(size > 0, size, 1.0))
    wrong = np.flatnonzero(np.max(relative, axis=0) > rtol)
    if len(wrong):
        worst = wrong[np.argmax(np.max(relative, axis=0)[wrong])]
        date = int(np.argmax(relative[:, worst]))
        raise ValueError(
            f"aggregates {shown(labels.names[i] for i in wrong)} contradict the weights: "
            f"{labels.names[worst]!r} is {data[date, worst]:.6g} at {values.index[date]}, its "
            f"series sum to {data[date, worst] - gap[date, worst]:.6g}. Give the weights of each "
            f"date, or make the aggregates by Hierarchy.aggregate."
        )
