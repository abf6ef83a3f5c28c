"""Cross-temporal hierarchies: every node of a hierarchy of series in every period of a cycle.

A node is a pair (series i, period t), named "Tech @ month 1". Bottom nodes are the bottom series in
the base periods; all others are sums of them, over series, over time, or both:

    y_it = sum_j sum_s a_ij c_ts b_js

The constraints (C_cs (x) I) y = 0 and (I (x) C_te) y = 0 say the same with a_num x c_num rows too
many; the pairs have none. The result is an ordinary `Hierarchy`: every method, immutable nodes,
missing forecasts and draws work as for any other.
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.labels import Labels, check_unique
from jaxfc.hierarchy.quantities import Quantity, check_additive
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float, Int

SEPARATOR = " @ "


def cross_temporal(
    across: Hierarchy,
    over_time: Hierarchy,
    *,
    quantity: Quantity,
    weights_per: Literal["cycle", "period"] = "cycle",
) -> Hierarchy:
    """All pairs of a hierarchy of series and a temporal hierarchy, as one hierarchy.

    Optimal combination is `reconcile` with `WLS("variance")` (FoReco's wlsh), `MinT("shrink")` or a
    covariance, residuals (cycles, pairs) from `stack_pairs`; `TemporalGLS` pools by series and
    order (wlsv, acov, sar1). Costs O(aggregates^3) once, of n p pairs of series and periods all but
    the n_b m bottom ones; `Separable`, `TwoStep` and `Alternating` never solve this system.

    **Arguments:** `across` with weights fixed, or per cycle, or with `weights_per="period"` one set
    for each base period (portfolio weights that move from day to day); `over_time` from
    `temporal_hierarchy` or `CalendarCycles.hierarchy`. `quantity`: what is summed must add over
    series and over time, so "profit" (of fixed holdings) or "flow"; see `quantities`.

    **Raises:** `ValueError` for simple returns (they compound over time), log returns (they do not
    add over assets), variances and levels, with what to use instead; weights for another number of
    steps.

    Source: Di Fonzo and Girolimetto (2023).
    """
    check_additive(quantity, over_series=True, over_time=True)
    pairs = Pairs(across, over_time)
    places = pairs.places
    groups, weights = joined(across.summing, over_time.summing, places, weights_per)
    num_aggregates = pairs.num_nodes - groups.shape[1]
    names, levels = [""] * pairs.num_nodes, [""] * pairs.num_nodes
    for (i, t), place in np.ndenumerate(places):
        names[place] = across.names[i] + SEPARATOR + over_time.names[t]
        levels[place] = across.labels.levels[i] + SEPARATOR + over_time.labels.levels[t]
    check_unique(names, "Rename a series or a level.")
    labels = Labels(tuple(names), tuple(levels), None, groups.astype(np.int32))
    summing = Summing(jnp.asarray(groups, dtype=jnp.int32), weights, num_aggregates)
    return Hierarchy(summing=summing, labels=labels, average=False)


class Pairs(eqx.Module):
    """Pairs of series and periods: where each is among the nodes of all pairs."""

    across: Hierarchy
    over_time: Hierarchy

    @property
    def num_nodes(self) -> int:
        """How many pairs there are."""
        return len(self.across.names) * len(self.over_time.names)

    @property
    def places(self) -> Int[np.ndarray, "series periods"]:
        """The node of each pair: aggregates row by row, then bottom pairs row by row."""
        upper, base = self.across.labels.num_aggregates, self.over_time.labels.num_aggregates
        shape = (len(self.across.names), len(self.over_time.names))
        bottom = np.zeros(shape, dtype=bool)
        bottom[upper:, base:] = True
        places = np.zeros(shape, dtype=np.int64)
        places[~bottom] = np.arange(np.sum(~bottom))
        places[bottom] = np.arange(np.sum(~bottom), bottom.size)
        return places

    def fold(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "series periods *rest"]:
        """Nodes as a table of series and periods."""
        return nodes[self.places]

    def unfold(self, table: Float[Array, "series periods *rest"]) -> Float[Array, "nodes *rest"]:
        """A table of series and periods as nodes."""
        rows = table.reshape(self.num_nodes, *table.shape[2:])
        return rows[np.argsort(self.places.ravel())]


def stack_pairs(
    across: Hierarchy, over_time: Hierarchy, table: Float[Array, "*rest series periods"]
) -> Float[Array, "*rest nodes"]:
    """Tables of nodes of series x nodes of periods as nodes of the cross-temporal hierarchy."""
    return jnp.moveaxis(
        Pairs(across, over_time).unfold(jnp.moveaxis(table, (-2, -1), (0, 1))), 0, -1
    )


def split_pairs(
    across: Hierarchy, over_time: Hierarchy, nodes: Float[Array, "*rest nodes"]
) -> Float[Array, "*rest series periods"]:
    """Nodes as tables of series x periods; undoes `stack_pairs`."""
    table = Pairs(across, over_time).fold(jnp.moveaxis(nodes, -1, 0))
    return jnp.moveaxis(table, (0, 1), (-2, -1))


def joined(
    across: Summing, over_time: Summing, places: np.ndarray, weights_per: str
) -> tuple[np.ndarray, Array]:
    """Aggregates of each bottom pair and its weights in them: products of both memberships."""
    own_groups, own_weights = with_itself(across)
    time_groups, time_weights = with_itself(over_time)
    none = places.size - across.num_bottom * over_time.num_bottom
    # Rows and columns for "no group", so that pairs with one get no aggregate.
    padded = np.pad(places, ((0, 1), (0, 1)), constant_values=none)
    left = np.where(own_groups < 0, len(places), own_groups)
    right = np.where(time_groups < 0, places.shape[1], time_groups)
    nodes = padded[left[:, None, :, None], right[None, :, None, :]]
    groups = nodes.reshape(-1, across.num_bottom * over_time.num_bottom)[:-1]
    if weights_per == "period":
        if own_weights.ndim != 3 or own_weights.shape[0] != over_time.num_bottom:
            raise ValueError(
                f"weights per period need {over_time.num_bottom} steps, one for each base period; "
                f"the hierarchy has weights of shape {own_weights.shape}."
            )
        products = jnp.einsum("slj,...ms->...lmjs", own_weights, time_weights)
    else:
        steps = {array.shape[0] for array in (own_weights, time_weights) if array.ndim == 3}
        if len(steps) > 1:
            raise ValueError(
                f"the hierarchies have weights for {sorted(steps)} steps; give the weights of the "
                f"same cycles, or weights_per='period'."
            )
        products = own_weights[..., :, None, :, None] * time_weights[..., None, :, None, :]
    weights = products.reshape(*products.shape[:-4], -1, groups.shape[1])
    return groups, weights[..., :-1, :]


def with_itself(summing: Summing) -> tuple[np.ndarray, Array]:
    """Memberships with a last row for the series itself; -1 where there is none."""
    groups = np.asarray(summing.groups)
    groups = np.where(groups == summing.num_aggregates, -1, groups)
    own = summing.num_aggregates + np.arange(summing.num_bottom)
    weights = summing.weights
    one = jnp.ones((*weights.shape[:-2], 1, weights.shape[-1]), weights.dtype)
    return np.concatenate([groups, own[None]]), jnp.concatenate([weights, one], axis=-2)
