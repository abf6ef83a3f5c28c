"""Where the settings of a study go in its pictures, and the scales of their colours."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from jaxfc.report.study_tables import values_of

PLANE = ("num_series", "num_times")  # down and across, where both vary


class Layout(NamedTuple):
    """Which settings are drawn where; `rest` has one picture for each of its combinations."""

    down: str | None
    across: str | None
    columns: str | None
    rest: tuple[str, ...]


def heat_layout(table: pd.DataFrame, names: Sequence[str]) -> Layout:
    """Two settings span the maps, of one row for each estimator; a third sets them side by side."""
    left = by_size(table, names)
    if set(PLANE) <= set(left):
        down, across = PLANE
    elif len(left) > 1:
        down, across = sorted(left[:2], key=list(names).index)
    else:
        down, across = None, left[0] if left else None
    left = [name for name in left if name not in (down, across)]
    columns = preferred(left, ("missing",))
    rest = tuple(name for name in names if name in left and name != columns)
    return Layout(down, across, columns, rest)


def line_layout(table: pd.DataFrame, names: Sequence[str]) -> Layout:
    """A share or the last number along the axis, two others as rows and columns of axes."""
    numeric = [n for n in names if all(isinstance(v, int | float) for v in values_of(table, n))]
    across = preferred((numeric or list(names))[::-1], ("missing",))
    left = by_size(table, [name for name in names if name != across])
    if set(PLANE) <= set(left):
        down, columns = PLANE
    else:
        columns = left[0] if left else None
        down = left[1] if len(left) > 1 else None
    rest = tuple(name for name in names if name in left and name not in (down, columns))
    return Layout(down, across, columns, rest)


def by_size(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Settings, those with most values first."""
    return sorted(names, key=lambda name: -len(values_of(table, name)))


def preferred(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the names, unless a wanted one is among them."""
    return next((n for n in wanted if n in names), names[0] if names else None)


def pictures_of(table: pd.DataFrame, layout: Layout) -> Iterator[tuple[dict[str, Any], Any]]:
    """The values of `rest` and the rows of each picture; combinations without rows are left out."""
    for combination in itertools.product(*(values_of(table, name) for name in layout.rest)):
        chosen = dict(zip(layout.rest, combination, strict=True))
        rows = table
        for name, value in chosen.items():
            rows = rows[rows[name] == value]
        if len(rows):
            yield chosen, rows


def places(
    rows: pd.DataFrame, outer: str | None, inner: str | None
) -> list[tuple[Any, Any] | None]:
    """Blocks of `outer` with all of `inner` in each, None between two blocks."""
    inside = values_of(rows, inner) if inner else [None]
    found: list[tuple[Any, Any] | None] = []
    for value in values_of(rows, outer) if outer else [None]:
        found += [None] if found and inner and outer else []
        found += [(value, other) for other in inside]
    return found


def sequential_scale(values: Any) -> Normalize:
    """From low to high, a few outliers left beyond its ends."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return Normalize(0.0, 1.0)
    low, high = np.quantile(finite, [0.02, 0.98])
    return Normalize(low, high if high > low else low + max(abs(low), 1.0) * 1e-3)


def diverging_scale(values: Any, centre: float) -> Normalize:
    """As far below the centre as above."""
    finite = np.abs(np.asarray(values, float) - centre)
    finite = finite[np.isfinite(finite)]
    reach = float(np.quantile(finite, 0.98)) if finite.size else 0.0
    reach = max(reach, 1e-3)
    return Normalize(centre - reach, centre + reach)
