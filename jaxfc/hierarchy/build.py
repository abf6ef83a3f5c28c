"""Hierarchies from data frames, paths, tables of edges, matrices and constraints; host side."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.hierarchy.labels import check_unique, shown
from jaxfc.typing import Array

PATH_REMEDY = "Name nodes by their path: give separator='/'."
NAME_REMEDY = "Rename one of them."


@dataclasses.dataclass(frozen=True)
class Parts:
    """Names, levels and memberships (levels, bottom) of a structure; no membership is the last."""

    aggregates: tuple[str, ...]
    aggregate_levels: tuple[str, ...]
    bottom: tuple[str, ...]
    bottom_level: str
    groups: np.ndarray
    remedy: str = NAME_REMEDY


def levels(
    frame: pd.DataFrame, *, groups: Sequence[Sequence[str]] | None, separator: str | None
) -> Parts:
    """From a frame of levels; see `Hierarchy.from_levels`."""
    columns = [str(column) for column in frame.columns]
    if len(columns) < 2 or len(frame) == 0:
        raise ValueError(
            f"a hierarchy needs a column for a level, one for the series and rows; got columns "
            f"{shown(columns)} and {len(frame)} rows."
        )
    check_unique(columns, "Rename the columns.")
    frame = frame.set_axis(columns, axis=1)
    unnamed = frame[columns[-1]].isna().to_numpy()
    if np.any(unnamed):
        rows = np.flatnonzero(unnamed)
        raise ValueError(f"rows {shown(rows)} have no name in the last column {columns[-1]!r}.")
    bottom = tuple(str(name) for name in frame[columns[-1]])
    check_unique(bottom, f"Each row of the frame is one series of column {columns[-1]!r}.")
    if groups is None:
        sets = [columns[: depth + 1] for depth in range(len(columns) - 1)]
    else:
        sets = [list(chosen) for chosen in groups]
        unknown = [c for chosen in sets for c in chosen if c not in columns[:-1]]
        if unknown:
            raise ValueError(f"groups name {shown(unknown)}, levels are {shown(columns[:-1])}.")
    names: list[str] = []
    level_of: list[str] = []
    rows = []
    for chosen in sets:
        codes, labels = level_codes(frame, chosen, separator, crossing=groups is not None)
        rows.append(np.where(codes >= 0, codes + len(names), -1))
        names += labels
        level_of += ["/".join(chosen) if groups is not None else chosen[-1]] * len(labels)
    membership = np.stack(rows)
    membership[membership < 0] = len(names)
    remedy = PATH_REMEDY if separator is None else NAME_REMEDY
    return Parts(tuple(names), tuple(level_of), bottom, columns[-1], membership, remedy)


def level_codes(
    frame: pd.DataFrame, chosen: list[str], separator: str | None, *, crossing: bool
) -> tuple[np.ndarray, list[str]]:
    """Which group of a level each row is in (-1: none), and the names of the groups."""
    named = frame[chosen].notna().to_numpy()
    there = np.all(named, axis=1) if crossing else named[:, -1]
    rows = frame.loc[there, chosen].astype("string")
    codes = np.full(len(frame), -1, dtype=np.int64)
    codes[there] = rows.groupby(chosen, sort=False, dropna=False).ngroup().to_numpy()
    # Empty cells above are no part of a path, so that a sector may hang under nothing.
    firsts = rows.drop_duplicates().itertuples(index=False)
    order = [tuple(cell for cell in row if not pd.isna(cell)) for row in firsts]
    joined = crossing and len(chosen) > 1
    mark = separator if separator is not None else "/"
    plain = separator is None and not joined
    return codes, [key[-1] if plain else mark.join(key) for key in order]


def paths(series: Sequence[str], separator: str) -> Parts:
    """From paths of the bottom series; see `Hierarchy.from_paths`."""
    series = [str(path) for path in series]
    if not series:
        raise ValueError("a hierarchy needs at least one path.")
    check_unique(series, "Each path is one series.")
    split = [path.split(separator) for path in series]
    bad = [path for path, labels in zip(series, split, strict=True) if "" in labels]
    if bad:
        raise ValueError(f"paths {shown(bad)} have empty labels between {separator!r}.")
    prefixes = [
        [separator.join(labels[: depth + 1]) for depth in range(len(labels) - 1)]
        for labels in split
    ]
    deepest = max(len(chain) for chain in prefixes)
    nodes: dict[str, int] = {}
    depths: list[int] = []
    for depth in range(deepest):
        for chain in prefixes:
            if depth < len(chain) and chain[depth] not in nodes:
                nodes[chain[depth]] = len(nodes)
                depths.append(depth)
    both = [path for path in series if path in nodes]
    if both:
        raise ValueError(
            f"{shown(both)} are series and groups of other series at once; give what is held in "
            f"them directly a path of its own, such as {both[0] + separator + 'own'!r}."
        )
    membership = np.full((max(deepest, 1), len(series)), len(nodes), dtype=np.int64)
    for column, chain in enumerate(prefixes):
        membership[: len(chain), column] = [nodes[name] for name in chain]
    level_of = tuple(f"level {depth}" for depth in depths)
    return Parts(tuple(nodes), level_of, tuple(series), "bottom", membership)


def edges(frame: pd.DataFrame) -> tuple[Parts, np.ndarray]:
    """From a table of nodes and their parents; see `Hierarchy.from_edges`."""
    check_columns(frame, ("node", "parent"))
    nodes = [str(node) for node in frame["node"]]
    check_unique(nodes, "A node has one row and one parent.")
    parents = {
        node: None if pd.isna(parent) else str(parent)
        for node, parent in zip(nodes, frame["parent"], strict=True)
    }
    orphans = [
        node for node, parent in parents.items() if parent is not None and parent not in parents
    ]
    if orphans:
        raise ValueError(
            f"{shown(orphans)} are orphans: their parents {shown(parents[n] for n in orphans)} "
            f"have no row. Add a row for each, with an empty parent if it is a root."
        )
    chains = {node: chain_of(node, parents) for node in nodes}
    weight = dict(zip(nodes, frame["weight"], strict=True)) if "weight" in frame else {}
    has_children = {parent for parent in parents.values() if parent is not None}
    bottom = [node for node in nodes if node not in has_children]
    aggregates = sorted(has_children, key=lambda node: (len(chains[node]), nodes.index(node)))
    position = {node: i for i, node in enumerate(aggregates)}
    depth = max((len(chains[node]) for node in bottom), default=0)
    membership = np.full((max(depth, 1), len(bottom)), len(aggregates), dtype=np.int64)
    weights = np.zeros(membership.shape)
    for column, node in enumerate(bottom):
        share, below = 1.0, node
        for row, above in enumerate(chains[node]):
            share *= float(weight.get(below, 1.0))
            membership[row, column], weights[row, column], below = position[above], share, above
    if not np.all(np.isfinite(weights)):
        bad = [bottom[j] for j in np.flatnonzero(~np.all(np.isfinite(weights), axis=0))]
        raise ValueError(f"weights on the way up from {shown(bad)} are not finite numbers.")
    level_of = tuple(f"level {len(chains[node])}" for node in aggregates)
    return Parts(tuple(aggregates), level_of, tuple(bottom), "bottom", membership), weights


def chain_of(node: str, parents: Mapping[str, str | None]) -> list[str]:
    """Ancestors from the parent to the root."""
    chain: list[str] = []
    above = parents[node]
    while above is not None:
        if above == node or above in chain:
            start = chain.index(above) if above in chain else 0
            cycle = [*chain[start:], above] if above in chain else [node, *chain, node]
            raise ValueError(f"nodes hang in a cycle: {' -> '.join(map(repr, cycle))}.")
        chain.append(above)
        above = parents[above]
    return chain


def matrix(frame: pd.DataFrame) -> tuple[Parts, np.ndarray]:
    """From a matrix of aggregates (or nodes) x bottom series; see `Hierarchy.from_matrix`."""
    rows, columns = [str(r) for r in frame.index], [str(c) for c in frame.columns]
    check_unique(rows, NAME_REMEDY)
    check_unique(columns, NAME_REMEDY)
    values = frame.to_numpy(dtype=np.float64)
    if not np.all(np.isfinite(values)):
        bad = [rows[i] for i in np.flatnonzero(~np.all(np.isfinite(values), axis=1))]
        raise ValueError(f"rows {shown(bad)} have entries that are not finite; 0 means no part.")
    for row, name in enumerate(rows):
        if name in columns:
            unit = np.array([column == name for column in columns], dtype=np.float64)
            if not np.array_equal(values[row], unit):
                raise ValueError(
                    f"row {name!r} has the name of a series, but it is not this series alone; give "
                    f"the aggregate another name."
                )
    upper = [i for i, name in enumerate(rows) if name not in columns]
    empty = [rows[i] for i in upper if not np.any(values[i])]
    if empty:
        raise ValueError(f"aggregates {shown(empty)} have no weight on any series; drop them.")
    values = values[upper]
    present = values != 0.0
    depth = max(int(np.max(np.sum(present, axis=0), initial=0)), 1)
    membership = np.full((depth, len(columns)), len(upper), dtype=np.int64)
    weights = np.zeros((depth, len(columns)))
    for column in range(len(columns)):
        chosen = np.flatnonzero(present[:, column])
        membership[: len(chosen), column] = chosen
        weights[: len(chosen), column] = values[chosen, column]
    names = tuple(rows[i] for i in upper)
    return Parts(names, ("aggregate",) * len(names), tuple(columns), "bottom", membership), weights


def proportional(groups: np.ndarray, weights: np.ndarray, parents: tuple[int, ...] | None) -> bool:
    """Whether every aggregate is a weighted sum of its children, as a tree needs.

    The weights of a parent on the series of a child must be multiples of the child's own.
    """
    if parents is None:
        return False
    held = {
        (int(node), column): weights[row, column]
        for row, members in enumerate(groups)
        for column, node in enumerate(members)
    }
    num_aggregates = len(parents) - groups.shape[1]
    for child in range(num_aggregates):
        parent = parents[child]
        if parent < 0:
            continue
        series = [column for node, column in held if node == child]
        own = np.array([held[child, column] for column in series])
        above = np.array([held[parent, column] for column in series])
        ratio = above @ own / (own @ own)
        if np.max(np.abs(above - ratio * own)) > 1e-10 * np.max(np.abs(above)):
            return False
    return True


def constraints(frame: pd.DataFrame, bottom: Sequence[str] | None) -> pd.DataFrame:
    """Constraints solved for some of the nodes: the matrix A of u = A b."""
    columns = [str(c) for c in frame.columns]
    check_unique(columns, NAME_REMEDY)
    if bottom is not None:
        unknown = [name for name in bottom if name not in columns]
        if unknown:
            raise ValueError(f"bottom series {shown(unknown)} are in no constraint.")
        columns = [c for c in columns if c not in bottom] + list(bottom)
    values = frame.set_axis([str(c) for c in frame.columns], axis=1)[columns].to_numpy(np.float64)
    reduced, pivots = row_echelon(values)
    if bottom is not None and any(columns[p] in bottom for p in pivots):
        fixed = [columns[p] for p in pivots if columns[p] in bottom]
        raise ValueError(f"the constraints fix {shown(fixed)} by other bottom series; name fewer.")
    free = [i for i in range(len(columns)) if i not in pivots]
    if bottom is not None and len(free) != len(bottom):
        rest = [columns[i] for i in free if columns[i] not in bottom]
        raise ValueError(f"the constraints do not determine {shown(rest)}; add them to `bottom`.")
    if not free:
        raise ValueError("the constraints leave nothing free: all nodes would be zero.")
    return pd.DataFrame(
        -reduced[:, free], index=[columns[p] for p in pivots], columns=[columns[i] for i in free]
    )


def row_echelon(values: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Reduced row echelon form with pivoting over rows, and the columns of the pivots."""
    values = values / np.maximum(np.max(np.abs(values), axis=1, keepdims=True), 1e-300)
    pivots: list[int] = []
    for column in range(values.shape[1]):
        row = len(pivots)
        if row == values.shape[0]:
            break
        best = row + int(np.argmax(np.abs(values[row:, column])))
        if abs(values[best, column]) < 1e-10:
            continue
        values[[row, best]] = values[[best, row]]
        values[row] /= values[row, column]
        others = np.arange(values.shape[0]) != row
        values[others] -= values[others, column][:, None] * values[row]
        pivots.append(column)
    reduced = values[: len(pivots)]
    return np.where(np.abs(reduced) < 1e-12, 0.0, reduced), pivots


def weights_of(weights: object, bottom: tuple[str, ...]) -> Array:
    """Weights of the bottom series in their order, checked where their values are known."""
    if isinstance(weights, Mapping):
        weights = pd.Series(dict(weights), dtype=np.float64)
    if isinstance(weights, pd.Series):
        missing = [name for name in bottom if name not in weights.index]
        extra = [name for name in weights.index if name not in bottom]
        if missing or extra:
            raise ValueError(
                f"weights are missing for {shown(missing) or 'none'}, and given for unknown series "
                f"{shown(extra) or 'none'}."
            )
        weights = weights.loc[list(bottom)].to_numpy(dtype=np.float64)
    values = jnp.asarray(weights, dtype=jnp.result_type(float))
    if not isinstance(values, Tracer):
        finite = np.all(np.isfinite(np.asarray(values).reshape(-1, values.shape[-1])), axis=0)
        if not np.all(finite):
            bad = [name for name, good in zip(bottom, finite, strict=True) if not good]
            raise ValueError(f"weights of {shown(bad)} are not finite; give 0 for no holding.")
    return values


def frame_values(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Columns of a frame in the order of names, as numbers; no copy where they are in order."""
    if tuple(frame.columns) != tuple(names):
        check_columns(frame, names)
        frame = frame.loc[:, list(names)]
    return frame.to_numpy(dtype=np.float64)


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuses a frame without the columns asked for."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the frame has no columns {shown(missing)}; it has {shown(frame.columns)}."
        )
