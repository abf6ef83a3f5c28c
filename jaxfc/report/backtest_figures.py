"""Pictures of a backtest. Each is drawn twice: for a wide page, and for a phone (`narrow`).

Colours are those of Okabe and Ito (2008); lines also differ in style, bands in lightness.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxfc.report.backtest_data import LEVELS, OneStep
from jaxfc.report.backtest_strategies import BENCHMARK, Trading
from jaxfc.report.nowcast_figures import plot_contribution_history
from jaxfc.report.plots import BLUE, GREY, ORANGE, RED, date_axis, new_figure, tidy
from jaxfc.report.study_figures import LINES, STYLES
from jaxfc.typing import Bool, Float

WIDE, NARROW = 9.0, 4.3  # inches
LONG = 150  # origins beyond which a part of them is also shown larger
CRISIS = pd.Timestamp("2008-07-01"), pd.Timestamp("2009-06-30")
LEAST_SHOWN = 13  # dates of an enlarged part
PER_PANEL = 6  # lines, one colour each
COLOURS = tuple(colour for colour in LINES if colour != "#000000")  # black is the benchmark


def sheet(num_rows: int, num_columns: int, height: float, narrow: bool) -> Figure:
    """Empty axes; on a phone all of them below each other."""
    if narrow:
        return new_figure(num_rows * num_columns, 1, height, width=NARROW)
    return new_figure(num_rows, num_columns, height, width=WIDE)


def legend_outside(figure: Figure, axes: Axes, narrow: bool, most: int = 6) -> None:
    """One legend below all axes."""
    handles, labels = axes.get_legend_handles_labels()
    count = min(2 if narrow else most, len(labels))
    if labels:
        place = "outside lower center"
        figure.legend(handles, labels, loc=place, ncols=count, fontsize=8.5, frameon=False)


def enlarged(dates: pd.DatetimeIndex) -> tuple[str, Bool[np.ndarray, " origins"]] | None:
    """The part of a long backtest that is shown larger: the year of the crisis of 2008 if it is
    there, else the last year."""
    if len(dates) <= LONG:
        return None
    inside = np.asarray((dates >= CRISIS[0]) & (dates <= CRISIS[1]))
    if inside.sum() >= LEAST_SHOWN:
        return "July 2008 to June 2009", inside
    last = np.asarray(dates > dates[-1] - pd.DateOffset(years=1))
    if last.sum() < LEAST_SHOWN or last.all():
        last = np.arange(len(dates)) >= len(dates) - 52
    return f"From {dates[last][0]:%Y-%m-%d} on", last


def plot_fans(step: OneStep, units: str, *, narrow: bool) -> Figure:
    """Intervals of every forecast and what was realised, the whole and a part of it."""
    part = enlarged(step.dates)
    figure = sheet(1 if part is None else 2, 1, 3.0, narrow)
    everything = np.ones(len(step.dates), bool)
    draw_fan(figure.axes[0], step, everything, 1.6 if len(everything) > LONG else 3.0)
    tidy(figure.axes[0], f"{step.name}, one step ahead", units)
    if part is not None:
        draw_fan(figure.axes[1], step, part[1], 4.0)
        tidy(figure.axes[1], part[0], units)
    for axes in figure.axes:
        date_axis(axes)
        axes.margins(x=0.01)
    legend_outside(figure, figure.axes[0], narrow, 5)
    return figure


def draw_fan(axes: Axes, step: OneStep, shown: Bool[np.ndarray, " origins"], size: float) -> None:
    """Bands from the widest to the narrowest, the mean, and outcomes inside and outside."""
    days = step.dates.to_numpy()[shown]
    for place in reversed(range(len(LEVELS))):
        low, high = step.lower[shown, place], step.upper[shown, place]
        colour, label = shade(LEVELS[place]), f"{LEVELS[place]:.0%} interval"
        if len(days) > 1:
            axes.fill_between(days, low, high, color=colour, linewidth=0, label=label)
        else:  # a band needs two dates
            axes.vlines(days, low, high, color=colour, linewidth=14, label=label)
    axes.plot(days, step.mean[shown], color=BLUE, linewidth=1.0, label="mean forecast")
    outcome, usable = step.outcome[shown], step.usable[shown]
    low, high = step.lower[shown, -1], step.upper[shown, -1]
    outside = usable & ((outcome < low) | (outcome > high))
    inside = usable & ~outside
    axes.plot(days[inside], outcome[inside], "o", color="k", markersize=size, label="realised")
    label = f"realised, outside {LEVELS[-1]:.0%}"
    axes.plot(days[outside], outcome[outside], "D", color=RED, markersize=size + 1.2, label=label)
    if not step.usable.all():
        axes.plot(
            days[~usable], outcome[~usable], "x", color=GREY, ms=5, label="no usable forecast"
        )
    axes.axhline(0.0, color=GREY, linewidth=0.6)


def shade(level: float) -> tuple[float, ...]:
    """Light blue for high levels, dark for low ones; opaque, so that the legend shows the same."""
    strength = 0.12 + 1.15 * (0.95 - level)
    return tuple(1.0 - strength * (1.0 - part) for part in to_rgb(BLUE))


def plot_drivers(drivers: pd.DataFrame, units: str, *, narrow: bool) -> Figure:
    """The parts of the mean forecast as stacked bars, and their sum; a part of a long backtest
    larger, as bars of a week have next to no width among hundreds."""
    part = enlarged(pd.DatetimeIndex(drivers.index))
    figure = sheet(1 if part is None else 2, 1, 3.0, narrow)
    whole = ("", np.ones(len(drivers), bool))
    shown = [whole] if part is None else [whole, part]
    for axes, (title, rows) in zip(figure.axes, shown, strict=True):
        table = drivers.loc[rows]
        parts, total = table.drop(columns="forecast"), pd.Series(table["forecast"])
        plot_contribution_history(parts, total, unit=units, ax=axes)
        if len(table) > LONG:
            axes.lines[0].set_linewidth(0.6)
        if title:
            axes.set_title(title, loc="left", fontsize=10)
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()
    legend_outside(figure, figure.axes[0], narrow)
    return figure


def plot_spreads(spreads: pd.DataFrame, units: str, *, narrow: bool) -> Figure:
    """Standard deviations of the parts of the forecast over its draws."""
    figure = sheet(1, 1, 2.8, narrow)
    (axes,) = figure.axes
    parts = spreads.drop(columns="forecast")
    draw_lines(axes, parts, pd.Series(spreads["forecast"], name="whole forecast"))
    tidy(axes, "", units)
    date_axis(axes)
    axes.set_ylim(bottom=0.0)
    legend_outside(figure, axes, narrow)
    return figure


def draw_lines(axes: Axes, table: pd.DataFrame, reference: pd.Series) -> None:
    """Columns as lines of different colours and styles, and a black line to compare with."""
    mark = "o" if len(table) == 1 else ""
    days = pd.DatetimeIndex(table.index).to_numpy()
    style = {"marker": mark, "markersize": 4}
    axes.plot(days, reference, color="k", linewidth=1.6, label=str(reference.name), **style)
    for place, name in enumerate(table.columns):
        line = STYLES[place % len(STYLES)]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(days, table[name], color=colour, ls=line, lw=1.2, label=str(name), **style)
    axes.margins(x=0.01)


def plot_sizes(sizes: pd.DataFrame, *, narrow: bool) -> Figure:
    """Chosen sizes by origin, one row of axes each."""
    figure = sheet(sizes.shape[1], 1, 1.3, narrow)
    days = pd.DatetimeIndex(sizes.index).to_numpy()
    for place, (axes, name) in enumerate(zip(figure.axes, sizes.columns, strict=True)):
        values = sizes[name].to_numpy(float)
        axes.step(days, values, where="mid", color=COLOURS[place % len(COLOURS)], linewidth=1.4)
        if len(days) < 60:
            axes.plot(days, values, "o", color=COLOURS[place % len(COLOURS)], markersize=3)
        tidy(axes, str(name), "number")
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = int(np.floor(finite.min())), int(np.ceil(finite.max()))
            axes.set_yticks(range(low, high + 1, max(1, (high - low) // 3)))
            axes.set_ylim(finite.min() - 0.6, finite.max() + 0.6)
        date_axis(axes)
        axes.margins(x=0.01)
    return figure


def plot_calibration(step: OneStep, units: str, *, narrow: bool) -> Figure:
    """Histogram of the errors with the normal density of their moments, and of the transforms."""
    figure = sheet(1, 2, 2.8, narrow)
    errors = step.errors[np.isfinite(step.errors)]
    draw_errors(figure.axes[0], errors)
    tidy(figure.axes[0], "Errors: realised minus mean", "share of forecasts, %")
    figure.axes[0].set_xlabel(units, fontsize=9)
    draw_transforms(figure.axes[1], step.transforms[np.isfinite(step.transforms)], step.num_bins)
    tidy(figure.axes[1], "Probability integral transform", "share of forecasts, %")
    figure.axes[1].set_xlabel("place of the realised value in the forecast law", fontsize=9)
    for axes in figure.axes:
        handles, _ = axes.get_legend_handles_labels()
        if handles:
            axes.legend(fontsize=8, loc="upper right", edgecolor="none", framealpha=0.9)
            axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    return figure


def draw_errors(axes: Axes, errors: Float[np.ndarray, " cases"]) -> None:
    """Shares in bins; the normal law with the same mean and standard deviation."""
    num_bins = int(np.clip(2.0 * len(errors) ** 0.5, 5, 40))
    reach = max(float(np.abs(errors).max()), 1e-12)
    counts, edges = np.histogram(errors, num_bins, (-reach, reach))
    shares = 100.0 * counts / len(errors)
    axes.bar(
        edges[:-1], shares, np.diff(edges), align="edge", color=BLUE, alpha=0.55, ec="w", lw=0.4
    )
    spread = float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0
    if spread > 0:
        grid = np.linspace(-reach, reach, 200)
        density = np.exp(-0.5 * ((grid - errors.mean()) / spread) ** 2) / (
            spread * np.sqrt(2 * np.pi)
        )
        height = 100.0 * (edges[1] - edges[0]) * density
        axes.plot(
            grid, height, color=ORANGE, linewidth=2.0, label="normal law, same mean and spread"
        )
    axes.axvline(0.0, color=GREY, linewidth=0.7)


def draw_transforms(axes: Axes, transforms: Float[np.ndarray, " cases"], num_bins: int) -> None:
    """Shares in equal bins, what they should be, and where 95 % of them would be by chance."""
    counts, edges = np.histogram(transforms, num_bins, (0.0, 1.0))
    shares = 100.0 * counts / len(transforms)
    axes.bar(
        edges[:-1], shares, np.diff(edges), align="edge", color=BLUE, alpha=0.55, ec="w", lw=0.8
    )
    target = 100.0 / num_bins
    reach = 1.96 * np.sqrt(target * (100.0 - target) / len(transforms))
    axes.axhline(target, color=ORANGE, linewidth=2.0, label="calibrated law")
    low = max(target - reach, 0.0)
    axes.axhspan(low, target + reach, color=ORANGE, alpha=0.22, lw=0, label="95% of bins by chance")
    axes.set_xlim(0.0, 1.0)


def families(trading: Trading) -> list[list[str]]:
    """Strategies that share axes: those of one class together, at most six lines."""
    kinds: dict[type, list[str]] = {}
    for name, strategy in trading.strategies.items():
        if name != BENCHMARK:
            kinds.setdefault(type(strategy), []).append(name)
    found: list[list[str]] = []
    for names in kinds.values():
        for start in range(0, len(names), PER_PANEL):
            part = names[start : start + PER_PANEL]
            if found and len(found[-1]) + len(part) <= PER_PANEL:
                found[-1] += part
            else:
                found.append(part)
    return found or [[]]


def plot_trading(
    table: pd.DataFrame, groups: Sequence[Sequence[str]], *, unit: str, narrow: bool
) -> Figure:
    """Wealth or exposure of the strategies by date, a family per axes, buy and hold in all."""
    columns = 1 if narrow else min(len(groups), 3)
    num_rows = -(-len(groups) // columns)
    figure = new_figure(num_rows, columns, 3.4, width=NARROW if narrow else WIDE)
    for axes in figure.axes[len(groups) :]:
        figure.delaxes(axes)
    for place, (axes, names) in enumerate(zip(figure.axes, groups, strict=False)):
        draw_lines(axes, pd.DataFrame(table[list(names)]), pd.Series(table[BENCHMARK]))
        tidy(axes, "", unit if place % columns == 0 else "")
        date_axis(axes)
        count = 4 if columns == 1 and not narrow else 2
        style = {"fontsize": 8, "frameon": False, "loc": "upper center", "columnspacing": 1.0}
        axes.legend(ncols=count, bbox_to_anchor=(0.5, -0.14), **style)
    return figure
