"""What the figures of factor models share: axes on demand, colours, numbers as labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxfc.report.plots import BLUE, GREEN, ORANGE, RED

# Okabe and Ito (2008), told apart by colour-blind readers; grey is kept for the rest.
CYCLE = (BLUE, ORANGE, GREEN, RED, "#56B4E9", "#CC79A7", "#F0E442", "#000000")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    return Figure(figsize=(width, height), layout="constrained").subplots()


def pooled(parts: pd.DataFrame, max_parts: int) -> pd.DataFrame:
    """The columns with the largest sums of absolute values, the others in one column."""
    if max_parts < 2:
        raise ValueError(f"max_parts must be at least 2, got {max_parts}.")
    if parts.shape[1] <= max_parts:
        return parts
    size = parts.abs().sum().to_numpy()
    order = np.argsort(-size, kind="stable")
    kept = sorted(order[: max_parts - 1])
    rest = order[max_parts - 1 :]
    frame = parts.iloc[:, kept].copy()
    frame[f"{len(rest)} others"] = parts.iloc[:, rest].sum(axis=1)
    return frame


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names of rows 0, 1, ... on the y axis, as large as they fit, at most 9 points."""
    inches = ax.bbox.height / ax.get_figure(root=True).dpi  # pyright: ignore
    size = min(9.0, 72.0 * 0.8 * inches / max(len(names), 1))
    ax.set_yticks(range(len(names)), list(names), fontsize=max(size, 3.0))
    ax.tick_params(axis="y", length=0)


def legend_below(ax: Axes, num_columns: int = 5, rows_above: float = 0.0) -> None:
    """A legend under the axes, without a frame."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        ax.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.12 - rows_above),
            ncols=min(num_columns, len(labels)),
            fontsize=8,
            frameon=False,
        )
