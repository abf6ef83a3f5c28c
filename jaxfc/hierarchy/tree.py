"""A tree of nodes: children, the weights on its edges, and the two top-down passes over them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float, Int


class Tree(eqx.Module):
    """Parents, and w of y_parent = sum_children w_c y_c; `generations` from the top down."""

    parents: Int[Array, " nodes"]
    edge_weights: Float[Array, " nodes"]
    generations: tuple[Int[Array, " _"], ...]

    @property
    def num_nodes(self) -> int:
        """How many nodes there are."""
        return self.parents.shape[0]

    def sum_children(self, values: Float[Array, "nodes *rest"], generation: Array) -> Array:
        """Sums over the children among the nodes of a generation, at the place of their parents."""
        zeros = jnp.zeros(values.shape, values.dtype)
        return zeros.at[self.parents[generation]].add(values[generation])


def tree_of(summing: Summing, labels: Labels) -> Tree:
    """The tree with weights on its edges.

    a_pj = w_c a_cj for all series j below child c of p, so w_c = sum_j a_pj a_cj / sum_j a_cj^2.

    **Raises:** `ValueError` where the nodes do not form a tree.
    """
    if labels.parents is None:
        raise ValueError(
            "this method goes down a tree, but the nodes overlap or have several roots; use a "
            "projection (OLS, WLS, MinT) or the bottom-up method."
        )
    parents = np.asarray(labels.parents)
    split = summing.num_aggregates
    weights = jnp.concatenate([summing.weights, jnp.zeros((1, summing.num_bottom))])
    groups = labels.groups
    # For each membership of a series, where its row in the parent's aggregate is.
    padded = np.append(parents[:split], -1)
    above = padded[groups]
    row_above = np.full(groups.shape, groups.shape[0])
    for row in range(groups.shape[0]):
        match = (groups[row][None] == above) & (above >= 0)
        row_above = np.where(match, row, row_above)
    columns = np.arange(summing.num_bottom)
    shared = summing.scatter(weights[row_above, columns] * summing.weights)
    squares = summing.scatter(summing.weights**2)
    inner = shared / jnp.where(squares > 0, squares, 1.0)
    direct = np.full(summing.num_bottom, groups.shape[0])
    for row in range(groups.shape[0]):
        direct = np.where(groups[row] == parents[split:], row, direct)
    leaf = weights[direct, columns]
    edge_weights = jnp.concatenate([inner, leaf])
    depth = depths(parents)
    generations = tuple(
        jnp.asarray(np.flatnonzero(depth == level)) for level in range(1, int(np.max(depth)) + 1)
    )
    edge_weights = jnp.where(jnp.asarray(parents < 0), 1.0, edge_weights)
    return Tree(jnp.asarray(parents), edge_weights, generations)


def depths(parents: np.ndarray) -> np.ndarray:
    """How many nodes stand above each."""
    depth = np.zeros(len(parents), dtype=np.int64)
    above = parents.copy()
    while np.any(above >= 0):
        depth += above >= 0
        above = np.where(above >= 0, parents[np.maximum(above, 0)], -1)
    return depth


def forecast_shares(
    tree: Tree, base: Float[Array, " nodes"], sources: Int[Array, " chosen"]
) -> Float[Array, " nodes"]:
    """p of y~_c = p_c y_s: products of forecast proportions on the way from source s down to c.

        y~_c = y^_c y~_p / sum_s w_s y^_s        over the children s of p

    Sources have p = 1. (Gross and Sohl 1990; Athanasopoulos, Ahmed and Hyndman 2009; here with
    weights and over direct children, so that unequal depth is no special case.)
    """
    shares = jnp.zeros(tree.num_nodes).at[sources].set(1.0)
    for generation in tree.generations:
        totals = tree.sum_children(tree.edge_weights * base, generation)
        parents = tree.parents[generation]
        passed = base[generation] / totals[parents] * shares[parents]
        own = shares[generation]
        shares = shares.at[generation].set(jnp.where(own == 1.0, own, passed))
    return shares


class SignedMap(Mapping):
    """The gap between parent and children, spread over the children by variance, from the top down.

        y~_c = y^_c + k_c (y~_p - sum_s w_s y^_s),  k_c = w_c v_c / sum_s w_s^2 v_s

    Each parent is reconciled with its children as if immutable; always finite, whatever the signs
    of the data, unlike forecast proportions. v: variances of the errors. Parents of which no
    child has a variance raise no NaN: the gap is spread evenly.
    """

    summing: Summing
    tree: Tree
    variances: Float[Array, " nodes"]
    kept: Int[Array, " kept"]

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        tree = self.tree
        tail = (1,) * (nodes.ndim - 1)
        weights = tree.edge_weights
        moved, kept = nodes, jnp.zeros(tree.num_nodes, dtype=bool).at[self.kept].set(True)
        below = kept
        for generation in tree.generations:
            parents = tree.parents[generation]
            spread = tree.sum_children(weights**2 * self.variances, generation)[parents]
            even = tree.sum_children(weights**2, generation)[parents]
            known = spread > 0
            share = weights[generation] * jnp.where(
                known,
                self.variances[generation] / jnp.where(known, spread, 1.0),
                1.0 / jnp.where(even > 0, even, 1.0),
            )
            gap = (moved - tree.sum_children(weights.reshape(-1, *tail) * nodes, generation))[
                parents
            ]
            new = nodes[generation] + share.reshape(-1, *tail) * gap
            follows = (below[parents] & ~kept[generation]).reshape(-1, *tail)
            moved = moved.at[generation].set(jnp.where(follows, new, nodes[generation]))
            below = below.at[generation].set(below[parents] | kept[generation])
        return self.summing.coherent(moved[self.summing.num_aggregates :])
