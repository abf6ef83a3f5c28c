"""Pictures of a factor model: functions from tables to matplotlib axes, drawn where they are told.

Every function takes `ax` (default: the axes of a new figure, made without pyplot) and returns it;
save with `ax.figure.savefig(path)`.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxfc.factors.criteria import MAXIMISED, FactorCriteria
from jaxfc.report.canvas import CYCLE, axes_or_new, label_rows, legend_below
from jaxfc.report.plots import BLUE, GREY, ORANGE, date_axis, tidy


def plot_r_squared(
    shares: pd.DataFrame, *, num_series: int | None = 40, ax: Axes | None = None
) -> Axes:
    """Heat map of R^2 by series (rows) and factor (columns), e.g. of `r_squared(...).to_frame`.

    The `num_series` best explained series (`None`: all), in the order of the factor that explains
    them best.
    """
    table, title = best_explained(shares, num_series)
    leading = table.to_numpy().argmax(axis=1)
    order = np.lexsort((-table.to_numpy().max(axis=1), leading))
    table = table.iloc[order]
    num_rows, num_factors = table.shape
    ax = axes_or_new(ax, 3.0 + 0.6 * num_factors, 1.0 + 0.2 * num_rows)
    image = ax.imshow(table, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    if num_factors <= 12:
        for (i, k), share in np.ndenumerate(table.to_numpy()):
            if share >= 0.05:
                colour = "w" if share > 0.6 else "k"
                ax.text(k, i, f"{share:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    label_rows(ax, list(table.index))
    labels = [str(column).replace("factor ", "f") for column in table.columns]
    ax.set_xticks(range(num_factors), labels, fontsize=9)
    ax.tick_params(length=0)
    ax.set_title(title, loc="left", fontsize=10)
    figure = cast(Figure, ax.get_figure())
    shrink = min(1.0, 3.0 / figure.get_figheight())  # as long in a tall figure as in a small one
    bar = figure.colorbar(image, ax=ax, shrink=shrink, aspect=20, anchor=(0.0, 1.0))
    bar.set_label("share of variance", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return ax


def best_explained(shares: pd.DataFrame, num_series: int | None) -> tuple[pd.DataFrame, str]:
    """The rows with the largest sums and a title that says how many were left out."""
    if num_series is None or len(shares) <= num_series:
        return shares, f"R² by series and factor ({len(shares)} series)"
    total = shares.sum(axis=1).to_numpy()
    kept = np.sort(np.argsort(-total, kind="stable")[:num_series])
    return shares.iloc[kept], f"R² of the {num_series} best explained of {len(shares)} series"


def plot_r_squared_bars(
    shares: pd.DataFrame, *, num_series: int | None = 40, ax: Axes | None = None
) -> Axes:
    """Marginal R^2 as stacked bars, one a series, one colour a factor; the best explained on top.

    Factors after the seventh share one colour, so that bars still end at the whole R^2.
    """
    table, title = best_explained(shares, num_series)
    table = table.iloc[np.argsort(table.sum(axis=1).to_numpy(), kind="stable")]
    if table.shape[1] > len(CYCLE):
        first = table.iloc[:, : len(CYCLE) - 1]
        rest = table.iloc[:, len(CYCLE) - 1 :].sum(axis=1)
        table = first.assign(**{f"factors {len(CYCLE)} to {shares.shape[1]}": rest})
    ax = axes_or_new(ax, 7.5, 1.4 + 0.2 * len(table))
    left = np.zeros(len(table))
    for colour, column in zip(CYCLE, table.columns, strict=False):
        width = table[column].to_numpy()
        ax.barh(range(len(table)), width, left=left, color=colour, height=0.75, label=str(column))
        left = left + width
    tidy(ax, title)
    label_rows(ax, list(table.index))
    ax.grid(axis="y", visible=False)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.set_xlabel("share of variance", fontsize=9)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    return ax


def plot_scree(
    eigenvalues: Sequence[float] | np.ndarray,
    *,
    num_factors: int | None = None,
    max_shown: int = 20,
    ax: Axes | None = None,
) -> Axes:
    """Shares of variance by principal component (bars) and their running sum (line).

    `eigenvalues` of the covariance or correlation matrix, descending; `num_factors` marks a choice.
    """
    values = np.asarray(eigenvalues, float)
    share = values / values.sum()
    shown = min(max_shown, len(values))
    ax = axes_or_new(ax, 7.0, 3.2)
    numbers = np.arange(1, shown + 1)
    chosen = numbers <= (shown if num_factors is None else num_factors)
    colours = [BLUE if inside else "#BBBBBB" for inside in chosen]
    ax.bar(numbers, share[:shown], color=colours, width=0.7, label="share of one component")
    ax.plot(
        numbers, np.cumsum(share)[:shown], color=ORANGE, marker="o", ms=3.5, label="running sum"
    )
    if num_factors is not None:
        ax.axvline(num_factors + 0.5, color=GREY, linewidth=0.8, linestyle=":")
    tidy(ax, "Scree", "share of variance")
    ax.set_ylim(0.0, 1.0)
    ax.set_xlim(0.3, shown + 0.7)
    ax.set_xticks(numbers[:: 1 + shown // 21])
    ax.set_xlabel("component", fontsize=9)
    ax.legend(loc="upper left", fontsize=8, frameon=False)
    return ax


def plot_criteria(
    criteria: FactorCriteria,
    *,
    which: Sequence[str] = ("ic1", "ic2", "ic3", "eigenvalue_ratio", "growth_ratio"),
    ax: Axes | None = None,
) -> Axes:
    """Criteria for the number of factors, each scaled to 0..1 so that its choice is at 0.

    The two ratios, which are maximised, are turned over. The chosen numbers are marked and named.
    """
    table = criteria.to_frame()
    unknown = [name for name in which if name not in table.columns]
    if unknown:
        raise ValueError(f"there is no criterion {unknown[0]!r}; use {list(table.columns)}.")
    ax = axes_or_new(ax, 7.0, 3.4)
    for colour, name in zip(CYCLE, which, strict=False):
        line = table[name].to_numpy() * (-1.0 if name in MAXIMISED else 1.0)
        spread = np.nanmax(line) - np.nanmin(line)
        line = (line - np.nanmin(line)) / (spread if spread > 0 else 1.0)
        best = int(criteria.selected(name))  # pyright: ignore[reportArgumentType]
        label = f"{name.replace('_', ' ')}: {best}"
        ax.plot(table.index, line, color=colour, linewidth=1.2, marker=".", ms=4, label=label)
        if best:
            ax.plot(best, 0.0, "o", color=colour, markersize=9, fillstyle="none", mew=1.6)
    tidy(ax, "Number of factors: best at 0", "criterion, scaled to 0..1")
    ax.set_ylim(-0.07, 1.05)
    ax.set_xticks(table.index[:: 1 + len(table) // 21])
    ax.set_xlabel("number of factors", fontsize=9)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return ax


def plot_factor_overlay(
    factor: pd.Series, series: pd.Series, *, align: bool = True, ax: Axes | None = None
) -> Axes:
    """A factor against one series, both standardised over the dates they share.

    `align` turns the factor over where it is negatively correlated, as signs are arbitrary.
    """
    both = pd.concat([factor, series], axis=1, sort=True)
    lines = both.to_numpy(float)
    shared = ~np.isnan(lines).any(axis=1)
    if shared.sum() < 3:
        raise ValueError(
            f"{factor.name!r} and {series.name!r} share {shared.sum()} dates; at least 3 are "
            "needed."
        )
    lines = (lines - lines[shared].mean(axis=0)) / lines[shared].std(axis=0, ddof=1)
    corr = float(np.corrcoef(lines[shared].T)[0, 1])
    sign = -1.0 if align and corr < 0 else 1.0
    ax = axes_or_new(ax, 9.0, 3.0)
    days = pd.DatetimeIndex(both.index).to_numpy()
    seen = ~np.isnan(lines[:, 1])
    ax.plot(days[seen], lines[seen, 1], color=ORANGE, linewidth=1.0, label=str(series.name))
    turned = " (turned over)" if sign < 0 else ""
    ax.plot(days, sign * lines[:, 0], color=BLUE, linewidth=1.4, label=f"{factor.name}{turned}")
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    tidy(ax, f"{series.name} and {factor.name}, correlation {corr:+.2f}", "standard deviations")
    date_axis(ax)
    ax.margins(x=0.01)
    legend_below(ax)
    return ax
