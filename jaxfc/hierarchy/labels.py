"""Names of the nodes of a hierarchy, and how they hang together; host side, hashed once."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Names of the nodes (aggregates first), the level of each, and the tree if there is one.

    `parents[i]` is the smallest aggregate above node i, -1 for the root of a tree; None where nodes
    overlap (groups that cross) or have more than one root. `groups` as in `Summing`.
    """

    names: tuple[str, ...]
    levels: tuple[str, ...]
    parents: tuple[int, ...] | None
    groups: np.ndarray

    def __post_init__(self):
        key = (self.names, self.levels, self.parents, self.groups.shape, self.groups.tobytes())
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "code", hash(key))

    def __hash__(self) -> int:
        return self.code  # pyright: ignore[reportAttributeAccessIssue]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Labels) and hash(self) == hash(other) and self.key == other.key  # pyright: ignore[reportAttributeAccessIssue]
        )

    @property
    def num_bottom(self) -> int:
        """How many nodes are no sums of others."""
        return self.groups.shape[1]

    @property
    def num_aggregates(self) -> int:
        """How many nodes are sums of others."""
        return len(self.names) - self.num_bottom

    @property
    def top(self) -> int:
        """The first aggregate that all series belong to."""
        for node in range(self.num_aggregates):
            if np.all(np.any(self.groups == node, axis=0)):
                return node
        raise ValueError("no node is made of all bottom series; use a projection or bottom-up.")

    @property
    def level_names(self) -> tuple[str, ...]:
        """Levels from the top to the bottom, in the order of the nodes."""
        return tuple(dict.fromkeys(self.levels))

    def index(self, name: str) -> int:
        """Position of a node."""
        if name not in self.names:
            raise ValueError(
                f"the hierarchy has no node {name!r}; its aggregates are "
                f"{shown(self.names[: self.num_aggregates])}, its bottom series "
                f"{shown(self.names[self.num_aggregates :])}."
            )
        return self.names.index(name)

    def at_level(self, level: str) -> tuple[int, ...]:
        """Positions of the nodes of a level."""
        if level not in self.levels:
            raise ValueError(
                f"the hierarchy has no level {level!r}; its levels are {shown(self.level_names)}."
            )
        return tuple(i for i, name in enumerate(self.levels) if name == level)


def shown(names: Iterable[object], limit: int = 6) -> str:
    """Names in quotes, the first few of many."""
    listed = [repr(name) for name in names]
    rest = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest


def marked(names: Sequence[str], chosen: np.ndarray) -> str:
    """Names at marked places, in quotes, the first few of many."""
    return shown(names[int(i)] for i in np.flatnonzero(chosen))


def check_unique(names: Sequence[str], remedy: str) -> None:
    """Refuses two nodes of one name."""
    values, counts = np.unique(np.asarray(names, dtype=object), return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            f"nodes need names of their own; {shown(values[counts > 1])} stand for more than one "
            f"node. {remedy}"
        )


def find_parents(groups: np.ndarray, num_aggregates: int) -> tuple[int, ...] | None:
    """Parents of all nodes from who belongs to what; None unless it is one tree.

    `groups` (levels, bottom) holds the aggregates of each series. Nodes form a tree when any two
    are nested or apart. Two aggregates of the same series hang one below the other in the order
    of the nodes.
    """
    num_bottom = groups.shape[1]
    sizes = np.bincount(groups.ravel(), minlength=num_aggregates + 1)[:num_aggregates]
    # The chain of each series, from large to small: a tree if the element above a node is always
    # the same, and if that holds for all its series.
    order = np.lexsort((np.arange(num_aggregates), -sizes))
    rank = np.empty(num_aggregates + 1, dtype=np.int64)
    rank[order] = np.arange(num_aggregates)
    rank[num_aggregates] = num_aggregates
    chains = np.sort(rank[groups], axis=0)
    back = np.append(order, num_aggregates)
    chains = back[chains]
    parents = np.full(num_aggregates + num_bottom, -2, dtype=np.int64)
    above = np.full(num_bottom, -1, dtype=np.int64)
    for members in chains:
        real = members < num_aggregates
        nodes, parent = members[real], above[real]
        new = parents[nodes] == -2
        parents[nodes[new]] = parent[new]
        if not np.array_equal(parents[nodes], parent):
            return None
        above[real] = nodes
    parents[num_aggregates:] = above
    if np.sum(parents == -1) != 1:
        return None
    return tuple(int(parent) for parent in parents)
