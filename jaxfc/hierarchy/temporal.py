"""Temporal hierarchies: a cycle (a year) and its periods (halves, quarters), as a `Hierarchy`.

Nodes are the periods of one cycle, from the coarsest order to the finest and in time within each;
the bottom series are the base periods. Cycles are the rows of data and the steps of a forecast, so
that residuals are (cycles, nodes) and every method of reconciliation works as it stands.

Equal lengths are here; days, weeks and months of trading days are in `calendar_cycles`.
"""

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.build import Parts
from jaxfc.hierarchy.labels import shown
from jaxfc.hierarchy.quantities import Quantity, check_additive
from jaxfc.hierarchy.structure import Hierarchy, labels_of
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float

How = Literal["sum", "mean", "last"]
HOW = ("sum", "mean", "last")


def temporal_hierarchy(
    orders: int | Mapping[str, int], *, how: How = "sum", quantity: Quantity = "flow"
) -> Hierarchy:
    """The periods of one cycle and their sums, means or last values.

        u_(k, i) = sum_{s = (i-1)k + 1}^{ik} b_s,    i = 1..m/k,  for each order k that divides m

    ("mean": divided by k; "last": b_(ik)). Node i of a level is named "quarter 2".

    **Arguments:** `orders`: base periods in a period of each level, from the cycle to the base,
    `{"year": 4, "half": 2, "quarter": 1}`; or m, for all its divisors ("order-4", "order-2",
    "order-1"). Orders need not be nested (4 and 6 months of 12). `quantity` says what the series
    are, so that sums which make no sense are refused.

    **Raises:** `ValueError` for orders that do not divide the cycle (use `calendar_cycles`), none
    of one base period, an unknown `how`, and sums over time of simple returns or levels.

    Source: Athanasopoulos, Hyndman, Kourentzes and Petropoulos (2017).
    """
    check_how(how, quantity)
    lengths = orders_of(orders)
    cycle = max(lengths.values())
    upper = {level: length for level, length in lengths.items() if length > 1}
    base = next(level for level, length in lengths.items() if length == 1)
    slots = np.arange(cycle)
    groups, weights, names, levels = [], [], [], []
    for level, length in upper.items():
        groups.append(slots // length + len(names))
        last = slots % length == length - 1
        weights.append(
            {"sum": np.ones(cycle), "mean": np.full(cycle, 1 / length), "last": last}[how]
        )
        names += [f"{level} {i + 1}" for i in range(cycle // length)]
        levels += [level] * (cycle // length)
    values = np.asarray(weights, dtype=np.float64)
    membership = np.where(values != 0.0, np.asarray(groups), len(names))
    bottom = tuple(f"{base} {i + 1}" for i in slots)
    parts = Parts(tuple(names), tuple(levels), bottom, base, membership)
    summing = Summing(jnp.asarray(membership, dtype=jnp.int32), jnp.asarray(values), len(names))
    return Hierarchy(summing=summing, labels=labels_of(parts), average=False)


def orders_of(orders: int | Mapping[str, int]) -> dict[str, int]:
    """Levels and their lengths, from the longest to the shortest, checked."""
    if isinstance(orders, int):
        orders = {f"order-{k}": k for k in range(orders, 0, -1) if orders % k == 0}
    lengths = dict(sorted(orders.items(), key=lambda item: -item[1]))
    cycle = max(lengths.values(), default=0)
    if cycle < 2:
        raise ValueError(f"a cycle needs at least two base periods, got orders {dict(orders)}.")
    if list(lengths.values()).count(1) != 1:
        raise ValueError(
            f"one level must be the base, with 1 period; got {dict(orders)}. Add it, for example "
            f"'quarter': 1."
        )
    bad = [level for level, length in lengths.items() if length < 1 or cycle % length]
    if bad:
        raise ValueError(
            f"levels {shown(bad)} do not divide the cycle of {cycle} base periods; use "
            f"calendar_cycles for months and weeks of unequal length."
        )
    return lengths


def check_how(how: str, quantity: str) -> None:
    """Refuses unknown ways of aggregation, and sums of what does not add over time."""
    if how not in HOW:
        raise ValueError(f"how is one of {HOW}, got {how!r}.")
    check_additive(quantity, over_series=False, over_time=how != "last" and quantity != "level")
    if quantity == "level" and how == "sum":
        check_additive(quantity, over_series=False, over_time=True)


def stack_orders(
    temporal: Hierarchy, values: Mapping[str, Float[Array, "*rest time"]]
) -> Float[Array, "*rest cycles nodes"]:
    """Series of every level, in time, as rows of nodes: a row for each cycle.

    A level with n periods in a cycle has n times as many values as there are cycles; other axes
    lead (series, origins).

    **Raises:** `ValueError` for missing or unknown levels and lengths that do not fit.
    """
    labels = temporal.labels
    counts = {level: len(labels.at_level(level)) for level in labels.level_names}
    wrong = sorted(set(counts) ^ set(values))
    if wrong:
        raise ValueError(f"levels are {shown(counts)}, values are given for {shown(values)}.")
    sizes = {level: jnp.shape(values[level])[-1] for level in counts}
    cycles = {sizes[level] / count for level, count in counts.items()}
    if len(cycles) != 1 or not float(min(cycles)).is_integer():
        raise ValueError(
            f"lengths {sizes} are not those of a whole number of cycles with {counts} periods; cut "
            f"all levels at the same cycle."
        )
    parts = []
    for level, count in counts.items():
        one = jnp.asarray(values[level])
        parts.append(one.reshape(*one.shape[:-1], -1, count))
    return jnp.concatenate(parts, axis=-1)


def split_orders(
    temporal: Hierarchy, nodes: Float[Array, "*rest cycles nodes"]
) -> dict[str, Float[Array, "*rest time"]]:
    """Rows of nodes as series of every level, in time; undoes `stack_orders`."""
    labels = temporal.labels
    found = {}
    for level in labels.level_names:
        one = nodes[..., np.array(labels.at_level(level))]
        found[level] = one.reshape(*one.shape[:-2], -1)
    return found
