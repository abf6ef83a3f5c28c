"""Pictures of a study: heat maps over settings, error bars, seconds per fit.

Values of settings are places on an axis, not distances: texts, shares and sizes are drawn alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from jaxfc.report.canvas import CYCLE
from jaxfc.report.plots import BLUE, GREY, ORANGE, tidy
from jaxfc.report.study_layout import Layout, places
from jaxfc.report.study_tables import number_text, value_text, values_of
from jaxfc.typing import Bool, Float

LINES = tuple(colour for colour in CYCLE if colour != "#F0E442")  # yellow is lost on white
STYLES = ("-", "--", ":")
MARKERS = "osD^v<>P"
SEQUENTIAL = LinearSegmentedColormap.from_list("white to blue", ["#F1F7FB", "#9ECBE6", BLUE])
DIVERGING = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, "#F7F7F7", BLUE])
ABSENT = "#E4E4E4"
FIELD = 0.62, 0.25  # inches
GAP = 0.4  # of a field, between blocks
SMALL = 8.0  # points
LETTER = 0.075  # inches
PANEL, WIDEST = 2.7, 11.0  # inches: axes of error bars, and all in a row


@dataclasses.dataclass(frozen=True, eq=False)
class HeatStyle:
    """What heat maps show: a column of a table, the label of its colours, the caption and how the
    names of the files begin, scale and colours, digits, and the column that says which fields have
    stars."""

    quantity: str
    label: str
    caption: str
    file: str
    scale: Normalize
    cmap: Colormap
    decimals: int
    marks: str | None = None


def plot_heat(rows: pd.DataFrame, layout: Layout, style: HeatStyle) -> Figure:
    """A field for each cell and estimator, with its value; stars where `style.marks` is true.

    A block of rows for each estimator, a block of columns for each value of `layout.columns`. Grey
    fields are not in the study; those that say NaN are, without a number.
    """
    down = places(rows, "estimator", layout.down)
    across = places(rows, layout.columns, layout.across)
    values = np.full((len(down), len(across)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    starred = np.zeros(values.shape, bool)
    at_row, at_column = ({p: i for i, p in enumerate(of)} for of in (down, across))
    for row in rows.to_dict("records"):
        i = at_row[row["estimator"], row[layout.down] if layout.down else None]
        outer = row[layout.columns] if layout.columns else None
        k = at_column[outer, row[layout.across] if layout.across else None]
        values[i, k] = row[style.quantity]
        starred[i, k] = bool(row[style.marks]) if style.marks else False
        texts[i, k] = number_text(values[i, k], style.decimals) + ("*" if starred[i, k] else "")
    edges = edges_of(across), edges_of(down)
    width, height = max(3.6, FIELD[0] * edges[0][-1]), FIELD[1] * edges[1][-1]
    figure = Figure(figsize=(width + 2.6, height + 1.3), layout="constrained")
    axes = figure.subplots()
    there = np.outer([p is not None for p in down], [p is not None for p in across])
    colours = draw_fields(axes, edges, there, values, style)
    draw_numbers(axes, edges, values, texts, starred, colours)
    label_blocks(axes, edges, down, across, layout)
    shrink = min(1.0, 3.5 / figure.get_figheight())
    bar = figure.colorbar(colours, ax=axes, aspect=25, shrink=shrink)
    bar.set_label(style.label, fontsize=SMALL + 1)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def edges_of(entries: Sequence[tuple[Any, Any] | None]) -> Float[np.ndarray, " edges"]:
    """Where fields begin and end: each one wide, the gaps between blocks narrower."""
    return np.append(0.0, np.cumsum([GAP if entry is None else 1.0 for entry in entries]))


def draw_fields(
    axes: Axes,
    edges: tuple[Float[np.ndarray, " across"], Float[np.ndarray, " down"]],
    there: Bool[np.ndarray, "rows columns"],
    values: Float[np.ndarray, "rows columns"],
    style: HeatStyle,
) -> QuadMesh:
    """Grey fields, and colours on those that have a number."""
    grey = np.where(there, 0.0, np.nan)
    axes.pcolormesh(*edges, grey, cmap=ListedColormap([ABSENT]), edgecolors="w", linewidth=1.0)
    colours = axes.pcolormesh(
        *edges, values, cmap=style.cmap, norm=style.scale, edgecolors="w", linewidth=1.0
    )
    axes.invert_yaxis()
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return colours


def draw_numbers(
    axes: Axes,
    edges: tuple[Float[np.ndarray, " across"], Float[np.ndarray, " down"]],
    values: Float[np.ndarray, "rows columns"],
    texts: np.ndarray,
    starred: Bool[np.ndarray, "rows columns"],
    colours: QuadMesh,
) -> None:
    """The numbers, white on dark fields."""
    columns, rows = (0.5 * (of[1:] + of[:-1]) for of in edges)
    for (i, k), text in np.ndenumerate(texts):
        red, green, blue, _ = colours.to_rgba(values[i, k])
        dark = np.isfinite(values[i, k]) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(
            float(columns[k]),
            float(rows[i]),
            text,
            ha="center",
            va="center",
            fontsize=SMALL - 0.5,
            color="w" if dark else "k",
            weight="bold" if starred[i, k] else "normal",
        )


def label_blocks(
    axes: Axes,
    edges: tuple[Float[np.ndarray, " across"], Float[np.ndarray, " down"]],
    down: Sequence[tuple[Any, Any] | None],
    across: Sequence[tuple[Any, Any] | None],
    layout: Layout,
) -> None:
    """Values of the inner settings as ticks; estimators and the outer setting beside the blocks."""
    middle = [0.5 * (of[1:] + of[:-1]) for of in edges]
    columns, rows = (
        [(float(at), entry) for at, entry in zip(of, entries, strict=True) if entry]
        for of, entries in zip(middle, (across, down), strict=True)
    )
    if layout.down:
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_yticks([at for at, _ in rows], [value_text(p[1]) for _, p in rows])
        axes.set_ylabel(layout.down, fontsize=SMALL + 1)
        outer_labels(axes.secondary_yaxis("left"), "y", middles(rows))
    else:
        axes.set_yticks([at for at, _ in rows], [str(p[0]) for _, p in rows])
    axes.set_xticks([])
    if layout.across:
        texts = [value_text(p[1]) for _, p in columns]
        set_texts(axes, [at for at, _ in columns], texts, FIELD[0])
        axes.set_xlabel(layout.across, fontsize=SMALL + 1)
    axes.tick_params(which="both", length=0, labelsize=SMALL)
    if layout.columns:
        blocks = middles(columns)
        heads = [(f"{layout.columns} = {value_text(name)}", at) for name, at in blocks]
        top = axes.secondary_xaxis("top")
        room = FIELD[0] * (edges[0][-1] / len(blocks))
        if max(len(head) for head, _ in heads) * LETTER > room:
            heads = [(value_text(name), at) for name, at in blocks]
            top.set_xlabel(layout.columns, fontsize=SMALL + 1)
        outer_labels(top, "x", heads)


def set_texts(axes: Axes, ats: Sequence[float], texts: Sequence[str], room: float) -> None:
    """Labels of the x axis, slanted where the longest has no room (in inches)."""
    if LETTER * max(map(len, texts)) > room:
        axes.set_xticks(ats, texts, fontsize=SMALL, rotation=25, ha="right")
    else:
        axes.set_xticks(ats, texts, fontsize=SMALL)


def outer_labels(axes: Any, axis: str, blocks: Sequence[tuple[Any, float]]) -> None:
    """Names at the middle of blocks, on an axis beside the fields."""
    place = axes.set_yticks if axis == "y" else axes.set_xticks
    place([at for _, at in blocks], [str(name) for name, _ in blocks])
    axes.tick_params(length=0, labelsize=SMALL + 1)
    axes.spines[:].set_visible(False)


def middles(entries: Sequence[tuple[float, tuple[Any, Any]]]) -> list[tuple[Any, float]]:
    """The middle of each block."""
    blocks: dict[Any, list[float]] = {}
    for at, (outer, _) in entries:
        blocks.setdefault(outer, []).append(at)
    return [(name, float(np.mean(ats))) for name, ats in blocks.items()]


def plot_errors(rows: pd.DataFrame, layout: Layout, metric: str, names: Sequence[str]) -> Figure:
    """Means with bars of two standard errors on either side; a line for each estimator of `names`,
    whose places give its colour."""
    down = values_of(rows, layout.down) if layout.down else [None]
    columns = values_of(rows, layout.columns) if layout.columns else [None]
    shape = len(down), len(columns)
    num_bars = len(names) * max(1, len(set(rows[layout.across])) if layout.across else 1)
    panel = max(PANEL, min(0.11 * num_bars, WIDEST / shape[1]))
    width = max(5.5, panel * shape[1] + 0.8)
    size = (width, (2.2 if shape[0] > 1 else 3.2) * shape[0] + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharey="row", sharex=True)
    ticks = values_of(rows, layout.across) if layout.across else []
    for (i, k), axes in np.ndenumerate(grid):
        own = rows
        if layout.down:
            own = pd.DataFrame(own[own[layout.down] == down[i]])
        if layout.columns:
            own = pd.DataFrame(own[own[layout.columns] == columns[k]])
        draw_lines(axes, own, layout.across, ticks, names, metric)
        if own.empty:
            axes.text(0.5, 0.5, "no cell", transform=axes.transAxes, ha="center", color=GREY)
        settings = {layout.down: down[i], layout.columns: columns[k]}
        parts = [f"{n} = {value_text(v)}" for n, v in settings.items() if n]
        long = LETTER * sum(map(len, parts)) > width / shape[1] - 0.3
        title = (",\n" if long else ", ").join(parts)
        tidy(axes, title, metric if k == 0 else "")
        axes.title.set_fontsize(SMALL + 1)
        if i == shape[0] - 1 and layout.across:
            axes.set_xlabel(layout.across, fontsize=SMALL + 1)
    if layout.across:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        count = max(1, min(len(labels), int(width // 1.5)))
        style = {"fontsize": SMALL, "frameon": False, "ncols": count}
        figure.legend(handles, labels, loc="outside lower center", **style)
    return figure


def draw_lines(
    axes: Axes,
    rows: pd.DataFrame,
    across: str | None,
    ticks: Sequence[Any],
    names: Sequence[str],
    metric: str,
) -> None:
    """The estimators side by side at every value, so that their bars do not hide each other."""
    for place, name in enumerate(names):
        own = pd.DataFrame(rows[rows["estimator"] == name])
        shift = 0.5 * ((place + 0.5) / len(names) - 0.5)
        at = [
            shift + (ticks.index(v) if across else 0.0)
            for v in (own[across] if across else own.index)
        ]
        order = np.argsort(at)
        mean = own[metric].to_numpy(float)[order]
        error = 2.0 * np.nan_to_num(own[f"{metric}_se"].to_numpy(float)[order])
        axes.errorbar(
            np.asarray(at, float)[order],
            mean,
            error,
            label=name,
            color=LINES[place % len(LINES)],
            linestyle=STYLES[(place // len(LINES)) % len(STYLES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=3.5,
            linewidth=1.1,
            elinewidth=1.0,
            capsize=2.0,
        )
    if across:
        room = (PANEL - 0.5) / len(ticks)
        set_texts(axes, [float(i) for i in range(len(ticks))], [value_text(v) for v in ticks], room)
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    else:
        middles = [0.5 * ((place + 0.5) / len(names) - 0.5) for place in range(len(names))]
        set_texts(axes, middles, names, 4.0 / len(names))


def plot_times(table: pd.DataFrame) -> Figure:
    """Seconds per fit on a logarithmic axis: a dot for each cell, a bar at the median."""
    names = list(dict.fromkeys(table["estimator"]))
    figure = Figure(figsize=(8.0, 1.2 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        seconds = table.loc[table["estimator"] == name, "seconds_per_fit"].to_numpy(float)
        seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
        if not seconds.size:
            continue
        middle = float(np.median(seconds))
        axes.plot(seconds, np.full(seconds.size, place), "o", color=GREY, markersize=4, alpha=0.35)
        axes.plot([middle], [place], "|", color=BLUE, markersize=15, markeredgewidth=2.6)
        note = {"textcoords": "offset points", "fontsize": SMALL, "va": "center"}
        axes.annotate(
            duration(middle),
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            **note,
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    tidy(axes)
    axes.set_xlabel("seconds per fit, compilation apart; at the right the median", fontsize=9)
    return figure


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:  # so that 999.6 µs are 1 ms
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
