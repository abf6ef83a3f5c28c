"""Pictures of a panel's gaps and of a model's prediction errors.

Every function takes `ax` (default: the axes of a new figure, made without pyplot) and returns it.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxfc.calendar import aggregation_pattern
from jaxfc.factors.diagnostics import PredictionErrors
from jaxfc.panel import Panel
from jaxfc.report.canvas import axes_or_new, label_rows
from jaxfc.report.plots import BLUE, GREY, ORANGE, RED, date_axis, tidy

CELLS = {
    "observed": BLUE,
    "missing inside": RED,
    "before the first or after the last": "#CCCCCC",
    "no value at this frequency": "#FFFFFF",
}


def plot_missing(panel: Panel, *, ax: Axes | None = None) -> Axes:
    """Which cells of a panel are observed: one row a series, dates to the right."""
    observed = panel.observed
    started = np.maximum.accumulate(observed, axis=0)
    ongoing = np.maximum.accumulate(observed[::-1], axis=0)[::-1]
    state = np.where(observed, 0, np.where(started & ongoing, 1, 2))
    for column, frequency in enumerate(panel.frequencies):
        ends = aggregation_pattern(panel.index, panel.frequency, frequency, "stock").answered
        state[~ends & ~observed[:, column], column] = 3
    num_times, num_series = state.shape
    height = float(np.clip(1.2 + 0.17 * num_series, 2.4, 20.0))
    ax = axes_or_new(ax, 9.0, height)
    ax.imshow(
        state.T,
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(list(CELLS.values())),
        vmin=-0.5,
        vmax=3.5,
    )
    places = np.unique(np.linspace(0, num_times - 1, 7).round().astype(int))
    ax.set_xticks(places, [f"{panel.index[place]:%Y-%m}" for place in places], fontsize=9)
    label_rows(ax, list(panel.names))
    share = 100.0 * observed.mean()
    ax.set_title(
        f"{num_series} series, {num_times} rows, {share:.1f}% of the cells observed",
        loc="left",
        fontsize=10,
    )
    ax.legend(
        handles=[
            Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=name)
            for place, (name, colour) in enumerate(CELLS.items())
            if (state == place).any()
        ],
        loc="upper left",
        bbox_to_anchor=(0.0, -0.35 / height - 0.02),
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    return ax


def errors_of(errors: PredictionErrors, panel: Panel, series: str) -> pd.Series:
    """The standardised errors of one series, NaN where it was not observed."""
    if series not in panel.names:
        raise ValueError(f"there is no series {series!r} in the panel.")
    column = panel.names.index(series)
    values = np.where(panel.observed, np.asarray(errors.standardised), np.nan)[:, column]
    return pd.Series(values, index=panel.index, name=series)


def plot_residual_path(
    errors: pd.Series, *, threshold: float = 4.0, ax: Axes | None = None
) -> Axes:
    """Standardised errors by date; those beyond `threshold` are marked with their date."""
    ax = axes_or_new(ax, 8.0, 2.8)
    errors = errors.dropna()
    days = pd.DatetimeIndex(errors.index)
    values = errors.to_numpy(float)
    ax.vlines(days.to_numpy(), 0.0, values, color=BLUE, linewidth=0.8)
    far = np.abs(values) > threshold
    ax.plot(days.to_numpy()[far], values[far], "D", color=RED, markersize=4)
    largest = np.argsort(-np.abs(values))[:5]
    for place in largest[far[largest]]:
        ax.annotate(
            f"{days[place]:%Y-%m}",
            (days.to_numpy()[place], values[place]),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
        )
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    tidy(ax, "Prediction errors", "standard deviations")
    date_axis(ax)
    ax.margins(x=0.02)
    return ax


def plot_residual_acf(
    errors: np.ndarray | pd.Series, *, num_lags: int = 24, ax: Axes | None = None
) -> Axes:
    """Autocorrelations with 95% bounds of white noise; NaN marks rows that were not observed."""
    values = np.asarray(errors, float)
    seen = (~np.isnan(values)).astype(float)
    centred = np.where(seen > 0, values - np.nanmean(values), 0.0)
    lags = np.arange(1, min(num_lags, len(values) - 2) + 1)
    pairs = np.array([seen[lag:] @ seen[:-lag] for lag in lags])
    sums = np.array([centred[lag:] @ centred[:-lag] for lag in lags])
    variance = centred @ centred / seen.sum()
    corr = sums / np.maximum(pairs, 1) / variance
    ax = axes_or_new(ax, 6.0, 2.8)
    bound = 1.96 / np.sqrt(np.maximum(pairs, 1))
    ax.fill_between(lags, -bound, bound, color=BLUE, alpha=0.15, linewidth=0)
    ax.vlines(lags, 0.0, corr, color=BLUE, linewidth=1.8)
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    reach = max(0.3, 1.15 * np.abs(corr).max())
    ax.set_ylim(-reach, reach)
    tidy(ax, "Autocorrelations")
    ax.set_xlabel("lag", fontsize=9)
    return ax


def plot_residual_qq(errors: np.ndarray | pd.Series, *, ax: Axes | None = None) -> Axes:
    """Sorted errors against normal quantiles (i - 1/2) / n; on the line if standard normal."""
    from jax.scipy.special import ndtri

    values = np.sort(np.asarray(errors, float))
    values = values[~np.isnan(values)]
    normal = np.asarray(ndtri((np.arange(1, len(values) + 1) - 0.5) / len(values)))
    ax = axes_or_new(ax, 4.0, 3.6)
    reach = 1.05 * np.abs(normal).max()
    ax.plot([-reach, reach], [-reach, reach], color=GREY, linewidth=0.8)
    ax.plot(normal, values, "o", color=BLUE, markersize=3)
    tidy(ax, "Normal quantiles", "prediction error")
    ax.set_xlabel("standard normal", fontsize=9)
    return ax


def plot_residual_histogram(errors: np.ndarray | pd.Series, *, ax: Axes | None = None) -> Axes:
    """Distribution of the errors and the standard normal density."""
    values = np.asarray(errors, float)
    values = values[~np.isnan(values)]
    ax = axes_or_new(ax, 5.0, 2.8)
    reach = float(np.clip(np.abs(values).max(), 3.5, 8.0))
    grid = np.linspace(-reach, reach, 200)
    shown = np.clip(values, -reach, reach)
    ax.hist(shown, bins=31, range=(-reach, reach), density=True, color=BLUE, alpha=0.5)
    density = np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi)
    ax.plot(grid, density, color=ORANGE, linewidth=1.8)
    beyond = int(np.sum(np.abs(values) > reach))
    tidy(ax, "Density" + (f" ({beyond} beyond {reach:g})" if beyond else ""))
    ax.set_xlabel("prediction error", fontsize=9)
    return ax


def plot_residual_panel(
    errors: PredictionErrors, panel: Panel, series: str, *, figure: Figure | None = None
) -> tuple[Axes, Axes, Axes, Axes]:
    """Errors of one series: path, autocorrelations, quantiles, density; four axes in one figure."""
    path = errors_of(errors, panel, series)
    if figure is None:
        figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    axes = figure.subplots(2, 2)
    figure.suptitle(f"{series}: standardised one-step prediction errors", fontsize=11)
    return (
        plot_residual_path(path, ax=axes[0, 0]),
        plot_residual_acf(path, ax=axes[0, 1]),
        plot_residual_qq(path, ax=axes[1, 0]),
        plot_residual_histogram(path, ax=axes[1, 1]),
    )
