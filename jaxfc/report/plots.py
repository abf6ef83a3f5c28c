"""Figures of a fitted panel: functions from arrays and dates to matplotlib figures.

No window, no global state: figures are made without pyplot and saved with `figure.savefig`. Colours
are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from jaxfc.typing import Array, Float

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
BAND_90 = 1.6448536269514722
Matrix = Float[np.ndarray, "rows columns"] | Float[Array, "rows columns"]
Vector = Float[np.ndarray, " rows"] | Float[Array, " rows"]


def new_figure(num_rows: int, num_columns: int, height: float, width: float = 9.0) -> Figure:
    """An empty figure with room for `num_rows` x `num_columns` axes of one height in inches."""
    figure = Figure(figsize=(width, height * num_rows + 0.4), layout="constrained")
    figure.subplots(num_rows, num_columns, squeeze=False)
    return figure


def tidy(axes: Axes, title: str = "", ylabel: str = "") -> None:
    """Title to the left, light grid, no box."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def date_axis(axes: Axes) -> None:
    """Dates without repetition and without overlap."""
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_fontsize(9)


def plot_factors(index: pd.DatetimeIndex, means: Matrix, stds: Matrix) -> Figure:
    """Smoothed factors by date with 90% bands, one row of axes a factor."""
    means, stds = np.asarray(means), np.asarray(stds)
    figure = new_figure(means.shape[1], 1, 2.0)
    for k, axes in enumerate(figure.axes):
        low, high = means[:, k] - BAND_90 * stds[:, k], means[:, k] + BAND_90 * stds[:, k]
        axes.fill_between(index.to_numpy(), low, high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(index.to_numpy(), means[:, k], color=BLUE, linewidth=0.8)
        axes.axhline(0.0, color=GREY, linewidth=0.6)
        tidy(axes, f"Factor {k + 1}", "standardised units")
        date_axis(axes)
        axes.margins(x=0.01)
    return figure


def plot_loadings(names: Sequence[str], effects: Matrix) -> Figure:
    """What one standard deviation of each factor moves, in standard deviations of each series."""
    effects = np.asarray(effects)
    num_series, num_factors = effects.shape
    figure = Figure(
        figsize=(2.6 + 1.15 * num_factors, 0.9 + 0.3 * num_series), layout="constrained"
    )
    axes = figure.subplots()
    reach = max(float(np.abs(effects).max()), 1e-12)
    image = axes.imshow(effects, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto")
    for i in range(num_series):
        for k in range(num_factors):
            strong = abs(effects[i, k]) > 0.6 * reach
            text = f"{effects[i, k]:+.2f}"
            axes.text(
                k, i, text, ha="center", va="center", fontsize=9, color="w" if strong else "k"
            )
    axes.set_xticks(range(num_factors), [f"factor {k + 1}" for k in range(num_factors)], fontsize=9)
    axes.set_yticks(range(num_series), list(names), fontsize=9)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("standard deviations of the series", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def plot_nowcasts(
    index: pd.DatetimeIndex,
    mean: pd.DataFrame,
    std: pd.DataFrame,
    reported: Mapping[str, pd.DataFrame],
    units: Mapping[str, str],
) -> Figure:
    """Low-frequency series by week with 90% bands, and what was reported for whole periods.

    `reported` by series has the columns first, last (dates of the rows of a period) and value (the
    reported figure per row).
    """
    names = list(mean.columns)
    num_rows = -(-len(names) // 2)
    figure = new_figure(num_rows, 2 if len(names) > 1 else 1, 2.3, width=10.5)
    for axes in figure.axes[len(names) :]:
        figure.delaxes(axes)
    for name, axes in zip(names, figure.axes, strict=False):
        middle, spread = mean[name].to_numpy(), std[name].to_numpy()
        low, high = middle - BAND_90 * spread, middle + BAND_90 * spread
        axes.fill_between(index.to_numpy(), low, high, color=BLUE, alpha=0.22, linewidth=0)
        axes.plot(
            index.to_numpy(), middle, color=BLUE, linewidth=1.1, label="by week, with 90% band"
        )
        figures = reported[name]
        starts, ends = figures["first"].to_numpy(), figures["last"].to_numpy()
        label = "reported for the whole period, per week"
        axes.hlines(figures["value"], starts, ends, color=RED, linewidth=1.8, label=label)
        tidy(axes, name, units.get(name, ""))
        date_axis(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def plot_fan(
    history: pd.Series, dates: pd.DatetimeIndex, mean: Vector, bands: Mapping[int, np.ndarray]
) -> Figure:
    """Recent values and the law of the next ones; `bands`: percent -> (2, horizon) low and high."""
    figure = new_figure(1, 1, 3.4)
    (axes,) = figure.axes
    past = pd.DatetimeIndex(history.index)
    axes.plot(past.to_numpy(), history.to_numpy(), color=GREY, linewidth=1.0, label="observed")
    for percent, (low, high) in sorted(bands.items(), reverse=True):
        shade = 0.2 + 0.7 * (1.0 - percent / 100.0)  # opaque, so that the legend shows the same
        colour = tuple(1.0 - shade * (1.0 - part) for part in to_rgb(BLUE))
        axes.fill_between(
            dates.to_numpy(), low, high, color=colour, linewidth=0, label=f"{percent}%"
        )
    axes.plot(dates.to_numpy(), np.asarray(mean), color=BLUE, linewidth=1.8, label="mean")
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    axes.axvline(past.to_numpy()[-1], color=GREY, linewidth=0.8, linestyle=":")
    tidy(axes, f"{history.name}: the next {len(dates)} weeks", "percent a week")
    date_axis(axes)
    figure.legend(loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    return figure


def plot_contributions(
    names: Sequence[str], contributions: Vector, title: str, unit: str
) -> Figure:
    """What every series adds to one forecast, as horizontal bars, the largest on top.

    Series below half a percent of the absolute total share one bar, so that all bars add up.
    """
    contributions = np.asarray(contributions)
    size = np.abs(contributions)
    large = size >= 0.005 * size.sum()
    order = np.flatnonzero(large)[np.argsort(size[large])]
    labels, bars = [names[i] for i in order], list(contributions[order])
    if not large.all():
        labels.insert(0, f"{int((~large).sum())} others")
        bars.insert(0, contributions[~large].sum())
    figure = Figure(figsize=(8.0, 1.1 + 0.3 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.barh(labels, bars, color=[BLUE if bar >= 0 else RED for bar in bars], height=0.7)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    tidy(axes, title)
    axes.set_xlabel(unit, fontsize=9)
    return figure


def plot_evaluation(
    dates: pd.DatetimeIndex, realised: Vector, mean: Vector, std: Vector, name: str
) -> Figure:
    """One-step forecasts with 90% intervals against what came; NaN where there is no forecast."""
    realised, mean, std = np.asarray(realised), np.asarray(mean), np.asarray(std)
    figure = new_figure(1, 1, 3.2)
    (axes,) = figure.axes
    days = dates.to_numpy()
    low, high = mean - BAND_90 * std, mean + BAND_90 * std
    axes.fill_between(days, low, high, color=BLUE, alpha=0.2, linewidth=0, label="90% interval")
    axes.plot(days, mean, color=BLUE, linewidth=1.4, label="forecast of the week before")
    inside = (low <= realised) & (realised <= high)
    outside = np.isfinite(mean) & ~inside
    axes.plot(days[inside], realised[inside], "o", color=GREY, markersize=3, label="realised")
    axes.plot(
        days[outside], realised[outside], "D", color=RED, markersize=4, label="realised, outside"
    )
    if not np.all(np.isfinite(mean)):
        failed = ~np.isfinite(mean)
        axes.plot(
            days[failed], realised[failed], "x", color=GREY, markersize=4, label="no forecast"
        )
    tidy(axes, f"{name}: one week ahead", "percent a week")
    date_axis(axes)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def plot_convergence(path: Vector) -> Figure:
    """The stopping criterion by step."""
    path = np.asarray(path)
    figure = new_figure(1, 1, 2.4)
    (axes,) = figure.axes
    axes.plot(np.arange(1, len(path) + 1), path, color=GREEN, linewidth=1.4, marker=".")
    tidy(axes, "Stopping criterion of the estimation", "log-likelihood")
    axes.set_xlabel("step", fontsize=9)
    return figure
