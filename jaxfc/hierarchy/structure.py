"""A hierarchy: which nodes are which weighted sums of which bottom series.

`Hierarchy` names the nodes (host side) and holds the sums as arrays (`Summing`), so that weights
can be traced, differentiated, and differ from date to date and from horizon to horizon. Nodes are
ordered: aggregates from the top down, then bottom series.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.forecast import Forecast
from jaxfc.hierarchy import build
from jaxfc.hierarchy.contradictions import check_averages, check_sums
from jaxfc.hierarchy.labels import Labels, check_unique, find_parents
from jaxfc.hierarchy.summing import Summing, averaging, over_steps
from jaxfc.typing import Array, Float

Rows = Float[Array, "*rows columns"] | Float[np.ndarray, "*rows columns"]
Weights = Mapping[str, float] | pd.Series | Float[Array, "*steps bottom"] | np.ndarray


class Hierarchy(eqx.Module):
    """Nodes with names, levels and weighted sums: trees, groups that cross, any constraints.

    Built by `from_levels`, `from_paths`, `from_edges`, `from_matrix` or `from_constraints`. Under
    `jit` the names are static and the weights are arrays.
    """

    summing: Summing
    labels: Labels = eqx.field(static=True)
    average: bool = eqx.field(static=True)

    def __check_init__(self):
        if self.summing.num_nodes != len(self.labels.names):
            raise ValueError(
                f"{len(self.labels.names)} names for {self.summing.num_nodes} nodes of the sums."
            )

    @classmethod
    def from_levels(
        cls,
        frame: pd.DataFrame,
        *,
        weights: Weights | None = None,
        average: bool = False,
        groups: Sequence[Sequence[str]] | None = None,
        separator: str | None = None,
    ) -> "Hierarchy":
        """From a frame with a row per bottom series and a column per level.

        The last column names the series, those before it their groups from the top down (market,
        sector, industry, asset). An empty cell: the series has no group at this level (unequal
        depth). Aggregate i is sum_j w_j b_j over its series, or with `average=True`
        sum_j w_j b_j / sum_j w_j (returns of portfolios).

        **Arguments:** `weights`, by default ones: by name, or an array (bottom,) or (steps, bottom)
        in the order of the frame. `groups` lists the sets of columns that make levels, for
        structures that cross: `[["country"], ["country", "state"], ["purpose"]]`; by default each
        column with all columns before it. `separator` joins the labels of a path into the name of
        a node ("US/Tech"); by default a node is named by its last label, which must be unique.

        **Raises:** `ValueError` for duplicated names, an empty series name, a sector whose weights
        sum to nothing where averages are asked for.
        """
        parts = build.levels(frame, groups=groups, separator=separator)
        return cls.assemble(parts, weights, average)

    @classmethod
    def from_paths(
        cls,
        paths: Sequence[str],
        *,
        separator: str = "/",
        weights: Weights | None = None,
        average: bool = False,
    ) -> "Hierarchy":
        """From paths of the bottom series, "Market/Tech/AAPL", of any depth.

        A node is named by its whole path; `weights` by the path of its series or in their order.

        **Raises:** `ValueError` for duplicated paths, empty labels, and a path that is both a
        series and a group.
        """
        return cls.assemble(build.paths(paths, separator), weights, average)

    @classmethod
    def from_edges(cls, edges: pd.DataFrame) -> "Hierarchy":
        """From a frame with a row for each node: `node`, its `parent`, and its `weight` in it.

        A root has an empty parent. Node i is the sum of its children with their weights (ones
        without a column `weight`), so that a series counts in an aggregate with the product of the
        weights on the way.

        **Raises:** `ValueError` for cycles, parents without a row (orphans), duplicated nodes.
        """
        parts, weights = build.edges(edges)
        labels = labels_of(parts)
        groups = jnp.asarray(parts.groups, dtype=jnp.int32)
        summing = Summing(groups, jnp.asarray(weights), len(parts.aggregates))
        return cls(summing=summing, labels=labels, average=False)

    @classmethod
    def from_matrix(cls, matrix: pd.DataFrame) -> "Hierarchy":
        """From a matrix with a row for each aggregate (or each node) and a column per series.

        Entries are real weights. Rows that name a column must be the series itself (a unit row).

        **Raises:** `ValueError` for duplicated names, entries that are not finite, aggregates
        without any weight, and rows of series that are not unit rows.
        """
        parts, weights = build.matrix(matrix)
        labels = labels_of(parts)
        if not build.proportional(parts.groups, weights, labels.parents):
            labels = dataclasses.replace(labels, parents=None)
        groups = jnp.asarray(parts.groups, dtype=jnp.int32)
        summing = Summing(groups, jnp.asarray(weights), len(parts.aggregates))
        return cls(summing=summing, labels=labels, average=False)

    @classmethod
    def from_constraints(
        cls, constraints: pd.DataFrame, *, bottom: Sequence[str] | None = None
    ) -> "Hierarchy":
        """From linear constraints sum_i c_ki y_i = 0: a row per constraint, a column per node.

        Redundant constraints are dropped. The nodes solved for become the aggregates; `bottom`
        names those that shall stay free, by default chosen by elimination from the left, so that
        columns that stand first become aggregates where they can.

        **Raises:** `ValueError` where the constraints leave no freedom, or fix one of `bottom` by
        others of it.
        """
        return cls.from_matrix(build.constraints(constraints, bottom))

    @classmethod
    def assemble(cls, parts: build.Parts, weights: Weights | None, average: bool) -> "Hierarchy":
        """From who belongs to what, with weights of the bottom series."""
        one = jnp.ones(parts.groups.shape)
        summing = Summing(jnp.asarray(parts.groups, dtype=jnp.int32), one, len(parts.aggregates))
        hierarchy = cls(summing=summing, labels=labels_of(parts), average=average)
        if weights is None and not average:
            return hierarchy
        return hierarchy.with_weights(
            1.0 * np.ones(len(parts.bottom)) if weights is None else weights
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes: aggregates, then bottom series."""
        return self.labels.names

    @property
    def bottom(self) -> tuple[str, ...]:
        """Names of the bottom series."""
        return self.labels.names[self.labels.num_aggregates :]

    @property
    def aggregates(self) -> tuple[str, ...]:
        """Names of the aggregates, from the top down."""
        return self.labels.names[: self.labels.num_aggregates]

    @property
    def is_tree(self) -> bool:
        """Whether the nodes form one tree."""
        return self.labels.parents is not None

    @property
    def num_steps(self) -> int | None:
        """How many dates or horizons have weights of their own; None if they are fixed."""
        weights = self.summing.weights
        return None if weights.ndim == 2 else weights.shape[0]

    def with_weights(self, weights: Weights) -> "Hierarchy":
        """The same nodes with other weights of the bottom series, (bottom,) or (steps, bottom).

        A series has the same weight in all its aggregates, or its share of them if they are
        averages. Weights may be traced.
        """
        values = build.weights_of(weights, self.bottom)
        if values.shape[-1] != len(self.bottom):
            raise ValueError(f"{values.shape[-1]} weights for {len(self.bottom)} bottom series.")
        shape = (*values.shape[:-1], *self.summing.groups.shape)
        spread = jnp.broadcast_to(values[..., None, :], shape)
        if self.average:
            if not isinstance(values, Tracer):
                check_averages(self.summing, self.labels, np.asarray(values))
            spread = averaging(self.summing.groups, spread, self.summing.num_aggregates)
        return eqx.tree_at(lambda tree: tree.summing.weights, self, spread)

    def step(self, index: int) -> "Hierarchy":
        """The hierarchy of one date or horizon."""
        if self.num_steps is None:
            return self
        return eqx.tree_at(lambda tree: tree.summing.weights, self, self.summing.weights[index])

    def drifted(
        self,
        weights: Float[Array, " bottom"] | Float[np.ndarray, " bottom"],
        returns: Float[Array, "steps bottom"] | Float[np.ndarray, "steps bottom"],
    ) -> "Hierarchy":
        """Weights that move with simple returns of the bottom series: holdings are kept.

            w_j,t+1 proportional to w_j,t (1 + R_j,t)

        Step t has the weights at its start: those given at the first step, those moved by returns
        of steps before it later, as they enter R_p,t = sum_j w_j,t R_j,t. For a forecast, `returns`
        are its means over the horizon.
        """
        weights, returns = jnp.asarray(weights), jnp.asarray(returns)
        growth = jnp.cumprod(1.0 + returns[:-1], axis=0)
        held = jnp.concatenate([jnp.ones((1, returns.shape[1]), growth.dtype), growth]) * weights
        return self.with_weights(held * (jnp.sum(weights) / jnp.sum(held, axis=1, keepdims=True)))

    def aggregate(self, bottom: Rows) -> Float[Array, "*rows nodes"]:
        """All nodes from the bottom series; with weights per step the first axis is the step."""
        return over_steps(self.summing, lambda one, rows: one.coherent(rows), jnp.asarray(bottom))

    def incoherence(self, nodes: Rows) -> Float[Array, "*rows aggregates"]:
        """u - A b: what each aggregate has beyond the sum of its series."""
        return over_steps(self.summing, lambda one, rows: one.incoherence(rows), jnp.asarray(nodes))

    def check(self, values: pd.DataFrame, *, rtol: float = 1e-6) -> None:
        """Refuses data (dates x nodes) in which an aggregate is not the sum of its series.

        Cells are compared where the aggregate and all its series are there, relative to the
        largest term of the sum.

        **Raises:** `ValueError` naming the aggregates that contradict the weights, the worst date
        and by how much, nodes that are missing from the frame, and nodes without any value.
        """
        check_sums(self.summing, self.labels, values, rtol)

    def forecast(self, bottom: Forecast) -> Forecast:
        """The law of all nodes from that of the bottom series, coherent by construction."""
        matrix = jnp.concatenate([self.summing.matrix(), jnp.eye(len(self.bottom))])
        return bottom.aggregate(matrix)

    def to_frame(self) -> pd.DataFrame:
        """The summing matrix S of a small hierarchy as a frame, nodes x bottom."""
        if self.num_steps is not None:
            raise ValueError("the weights differ from step to step; take one by .step(index).")
        matrix = np.vstack([np.asarray(self.summing.matrix()), np.eye(len(self.bottom))])
        return pd.DataFrame(matrix, index=list(self.names), columns=list(self.bottom))


def labels_of(parts: build.Parts) -> Labels:
    """Names and, where it is one, the tree of a structure."""
    names = (*parts.aggregates, *parts.bottom)
    check_unique(names, parts.remedy)
    return Labels(
        names=names,
        levels=(*parts.aggregate_levels, *(parts.bottom_level,) * len(parts.bottom)),
        parents=find_parents(parts.groups, len(parts.aggregates)),
        groups=np.asarray(parts.groups, dtype=np.int32),
    )
