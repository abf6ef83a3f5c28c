"""What can be wrong with the inputs of a reconciliation; host side, skipped for traced arrays."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.hierarchy.build import frame_values
from jaxfc.hierarchy.coherent import StepMaps
from jaxfc.hierarchy.labels import marked, shown
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float


def check_nodes(mean: Float[Array, "horizon nodes"], hierarchy: Hierarchy) -> None:
    """Refuses a forecast of other nodes."""
    if mean.shape[1] != len(hierarchy.names):
        raise ValueError(
            f"the forecast has {mean.shape[1]} series, the hierarchy {len(hierarchy.names)} nodes: "
            f"{len(hierarchy.aggregates)} aggregates, then {len(hierarchy.bottom)} bottom series. "
            f"Hierarchy.forecast makes a law of all nodes from that of the bottom series."
        )


def sample_array(
    values: Array | np.ndarray | pd.DataFrame | None, hierarchy: Hierarchy, name: str
) -> Array | None:
    """Values in sample as an array, dates x nodes in the order of the hierarchy."""
    if values is None:
        return None
    if isinstance(values, pd.DataFrame):
        values = frame_values(values, hierarchy.names)
    array = jnp.asarray(values)
    if array.ndim != 2 or array.shape[1] != len(hierarchy.names):
        raise ValueError(
            f"{name} must be (dates, {len(hierarchy.names)} nodes), got {array.shape}."
        )
    return array


def check_sample(
    values: Array | None, hierarchy: Hierarchy, name: str, missing: Array | None
) -> None:
    """Refuses infinities, and nodes without any value that have a base forecast."""
    if values is None or isinstance(values, Tracer):
        return
    host = np.asarray(values)
    infinite = np.any(np.isinf(host), axis=0)
    if np.any(infinite):
        raise ValueError(f"{name} of {marked(hierarchy.names, infinite)} are infinite.")
    empty = np.all(np.isnan(host), axis=0)
    if missing is not None:
        empty[np.asarray(missing)] = False
    if np.any(empty):
        raise ValueError(
            f"{name} of {marked(hierarchy.names, empty)} are missing at all dates; drop these "
            f"nodes, name them in missing=, or use a method without {name}."
        )


def check_feasible(
    hierarchy: Hierarchy, immutable: tuple[int, ...], missing: tuple[int, ...]
) -> None:
    """Refuses immutable nodes that bind each other, and missing ones that nothing determines.

    Constraints C y = 0 can be met for any values of the immutable nodes if the columns of C of the
    other nodes have full row rank; missing nodes are determined if theirs have full column rank.
    """
    both = sorted(set(immutable) & set(missing))
    if both:
        names = [hierarchy.names[i] for i in both]
        raise ValueError(f"{shown(names)} are both immutable and missing; choose one.")
    weights = hierarchy.summing.weights
    if isinstance(weights, Tracer):
        return
    single = hierarchy.step(0).summing
    constraints = np.hstack([np.eye(single.num_aggregates), -np.asarray(single.matrix())])
    free = np.setdiff1d(np.arange(single.num_nodes), immutable)
    left, size, _ = np.linalg.svd(constraints[:, free], full_matrices=False)
    tolerance = 1e-10 * max(np.max(size, initial=0.0), 1.0)
    if np.any(size <= tolerance) or len(size) < single.num_aggregates:
        bound = left[:, np.argmin(size)] @ constraints
        names = [hierarchy.names[i] for i in immutable if abs(bound[i]) > 1e-8]
        raise ValueError(
            f"immutable nodes {shown(names)} are bound to each other by the sums, so that their "
            f"base forecasts contradict each other unless they add up; free one of them."
        )
    if missing:
        columns = constraints[:, list(missing)]
        _, size, right = np.linalg.svd(columns)
        rank = int(np.sum(size > 1e-10 * max(np.max(size, initial=0.0), 1.0)))
        if rank < len(missing):
            loose = np.any(np.abs(right[rank:]) > 1e-8, axis=0)
            names = [hierarchy.names[node] for node, bad in zip(missing, loose, strict=True) if bad]
            raise ValueError(
                f"the missing base forecasts of {shown(names)} are not determined by those of the "
                f"other nodes; give a forecast for one of them, such as the average of its group."
            )


def check_result(mean: Array, hierarchy: Hierarchy, maps: StepMaps) -> None:
    """Refuses a result that is not finite, and says why that can be.

    Residuals are looked at only then: one that is infinite, or a node without any, spoils the
    result, and looking for them takes longer than the reconciliation.
    """
    if isinstance(mean, Tracer):
        return
    finite = np.isfinite(np.asarray(mean))
    if np.all(finite):
        return
    check_sample(maps.sample.residuals, hierarchy, "residuals", maps.missing)
    bad = marked(hierarchy.names, ~np.all(finite, axis=0))
    raise ValueError(
        f"{type(maps.method).__name__} gives no finite forecast of {bad}: the covariance of "
        f"the incoherence is singular (fewer dates than aggregates, nodes without any variance, "
        f"residuals that add up themselves), bounds cannot be met, or proportions divide by zero. "
        f"Shrink the covariance (MinT('shrink')), give variances, use TopDown('signed')."
    )
