"""Pictures of calibration: ranks of simulated truths, transforms, coverage, reliability.

Every function takes `ax` (default: the axes of a new figure, made without pyplot) and returns it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import bdtr

from jaxfc.bayes.calibrate import RankCalibration
from jaxfc.evaluation.predictive_checks import ALL, clustered_mean, members
from jaxfc.report.canvas import CYCLE, axes_or_new
from jaxfc.report.plots import BLUE, GREY, ORANGE, RED, tidy
from jaxfc.typing import Array, Float, PRNGKeyArray

Transforms = Float[np.ndarray, "periods series"] | Float[Array, "periods series"]


def plot_rank_histogram(
    calibration: RankCalibration,
    quantity: str,
    *,
    num_bins: int = 8,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Frequencies of the ranks of one quantity, with the binomial interval of a single bar."""
    column = place_of(calibration, quantity)
    ranks = np.asarray(calibration.counted())[:, column]
    statistic = calibration.chi_squared(num_bins)
    width = (calibration.num_ranks + 1) // num_bins
    heights = np.bincount(ranks // width, minlength=num_bins)
    low, high = binomial_interval(len(ranks), 1.0 / num_bins, level)
    ax = axes_or_new(ax, 4.6, 2.8)
    ax.axhspan(low, high, color=BLUE, alpha=0.15, linewidth=0)
    ax.axhline(len(ranks) / num_bins, color=GREY, linewidth=0.8)
    outside = (heights < low) | (heights > high)
    colours = [RED if out else BLUE for out in outside]
    lefts = width * np.arange(num_bins)
    ax.bar(lefts, heights, 0.92 * width, align="edge", color=colours, alpha=0.75)
    ax.set_xlim(0, calibration.num_ranks + 1)
    ax.set_ylim(0, 1.1 * max(heights.max(), high))
    tidy(ax, f"{quantity}: p = {float(statistic.p_value[column]):.2g}", "data sets")
    ax.set_xlabel(f"rank among {calibration.num_ranks} draws", fontsize=9)
    return ax


def plot_ecdf_difference(
    calibration: RankCalibration,
    quantities: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    num_simulations: int = 2000,
    key: PRNGKeyArray,
    ax: Axes | None = None,
) -> Axes:
    """Distribution of the ranks minus the uniform one, and the band it should not leave anywhere.

    Curves that leave the band are coloured and named, the others grey: above zero on the left, the
    truth is too often below the draws. The band is for one quantity.
    """
    names = list(calibration.names if quantities is None else quantities)
    columns = [place_of(calibration, name) for name in names]
    lower, upper = calibration.ecdf_band(level, num_simulations=num_simulations, key=key)
    lower, upper = np.asarray(lower), np.asarray(upper)
    curves = np.asarray(calibration.ecdf_difference())[:, columns]
    shares = np.arange(1, calibration.num_ranks + 1) / (calibration.num_ranks + 1)
    ax = axes_or_new(ax, 5.6, 3.2)
    ax.fill_between(shares, lower, upper, color=BLUE, alpha=0.15, linewidth=0, step="mid")
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    leaves = [bool(np.any((c < lower - 1e-12) | (c > upper + 1e-12))) for c in curves.T]
    palette = iter(np.resize(np.asarray(CYCLE[1:]), sum(leaves)))
    for name, curve, out in zip(names, curves.T, leaves, strict=True):
        colour, width = (next(palette), 1.6) if out else (GREY, 1.0)
        label = name if out else None
        ax.step(shares, curve, where="mid", label=label, color=colour, linewidth=width)
    tidy(ax, f"{sum(leaves)} of {len(names)} leave the {100 * level:g}% band", "ECDF - uniform")
    ax.set_xlabel("rank / number of ranks", fontsize=9)
    ax.set_xlim(0.0, 1.0)
    reach = 1.15 * max(np.abs(curves).max(), np.abs(lower).max(), np.abs(upper).max())
    ax.set_ylim(-reach, reach)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_pit_by_class(
    transforms: Transforms,
    classes: Sequence[str] | None = None,
    *,
    num_bins: int = 10,
    figure: Figure | None = None,
) -> list[Axes]:
    """Histograms of probability integral transforms, one a class and one for all series.

    Flat: calibrated; a cup: forecasts too narrow; a cap: too wide. Whiskers are two standard errors
    of a bar, clustered by period.
    """
    values = np.asarray(transforms, float)
    groups = members(classes, values.shape[1])
    if len(groups) == 2:  # one class: the same picture twice
        groups = {ALL: groups[ALL]}
    num_columns = min(len(groups), 3)
    num_rows = -(-len(groups) // num_columns)
    if figure is None:
        figure = Figure(figsize=(3.4 * num_columns, 2.5 * num_rows + 0.2), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True).ravel()
    for unused in grid[len(groups) :]:
        unused.remove()
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    axes = list(grid[: len(groups)])
    for ax, (name, places) in zip(axes, groups.items(), strict=True):
        part = values[:, places, None]
        bins = np.clip((part * num_bins).astype(float), 0, num_bins - 1e-9) // 1
        inside = np.where(np.isnan(part), np.nan, bins == np.arange(num_bins))
        found = clustered_mean(inside)
        heights, errors = num_bins * np.asarray(found.mean), num_bins * np.asarray(found.error)
        ax.bar(edges[:-1], heights, 0.92 / num_bins, align="edge", color=BLUE, alpha=0.6)
        ax.errorbar(
            edges[:-1] + 0.46 / num_bins, heights, 2 * errors, fmt="none", color=GREY, linewidth=1
        )
        ax.axhline(1.0, color=ORANGE, linewidth=1.4)
        tidy(ax, f"{name} ({int(np.sum(~np.isnan(part)))} cases)")
        ax.set_xlim(0, 1)
    for ax in axes[::num_columns]:
        ax.set_ylabel("density of PIT", fontsize=9)
    return axes


def plot_coverage_by_class(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Coverage of central intervals by class (`calibration_by_class`), with two standard errors.

    Lines mark what the intervals promise.
    """
    columns = [c for c in table.columns if c.startswith("cover_") and not c.endswith("_error")]
    if not columns:
        raise ValueError("the table has no column of coverage; pass that of calibration_by_class.")
    ax = axes_or_new(ax, 6.4, 0.9 + 0.5 * len(table))
    rows = np.arange(len(table))
    for number, column in enumerate(columns):
        colour, target = CYCLE[number % len(CYCLE)], float(column.removeprefix("cover_"))
        offset = 0.18 * (number - (len(columns) - 1) / 2)
        ax.axvline(target, color=colour, linewidth=1.0, linestyle="--", alpha=0.7)
        ax.errorbar(
            100 * table[column].to_numpy(float),
            rows + offset,
            xerr=200 * table[f"{column}_error"].to_numpy(float),
            fmt="o",
            color=colour,
            markersize=4,
            linewidth=1.2,
            label=f"{target:g}% intervals",
        )
    tidy(ax, "Share of outcomes inside")
    ax.set_yticks(rows, [str(name) for name in table.index], fontsize=9)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlabel("%", fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_reliability(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Frequencies against forecast probabilities (`reliability`), with two standard errors.

    On the diagonal: calibrated. The area of a dot is its share of the cases.
    """
    ax = axes_or_new(ax, 4.2, 3.8)
    forecast, frequency = table["forecast"].to_numpy(float), table["frequency"].to_numpy(float)
    error, cells = table["error"].to_numpy(float), table["cells"].to_numpy(float)
    reach = min(1.0, 1.15 * max(forecast.max(), frequency.max()))
    ax.plot([0, reach], [0, reach], color=GREY, linewidth=0.8)
    ends = np.minimum(2 * error, np.stack([frequency, 1.0 - frequency]))  # shares end at 0 and 1
    ax.errorbar(forecast, frequency, ends, fmt="none", color=BLUE, linewidth=1.2)
    sizes = 20.0 + 180.0 * cells / cells.sum()
    ax.scatter(forecast, frequency, sizes, color=BLUE, zorder=3)
    ax.set_xlim(0, reach)
    ax.set_ylim(0, reach)
    tidy(ax, f"Reliability ({int(cells.sum())} forecasts)", "frequency")
    ax.set_xlabel("forecast probability", fontsize=9)
    return ax


def place_of(calibration: RankCalibration, quantity: str) -> int:
    """The column of a quantity.

    **Raises:** `ValueError` for an unknown one.
    """
    if quantity not in calibration.names:
        raise ValueError(
            f"there is no quantity {quantity!r}; known are {', '.join(calibration.names)}."
        )
    return calibration.names.index(quantity)


def binomial_interval(num_cases: int, share: float, level: float) -> tuple[int, int]:
    """The central interval of a binomial count."""
    below = bdtr(np.arange(num_cases + 1), num_cases, share)
    tail = 0.5 * (1.0 - level)
    return int(np.argmax(below >= tail)), int(np.argmax(below >= 1.0 - tail))
