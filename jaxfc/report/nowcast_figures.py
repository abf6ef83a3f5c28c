"""Pictures of nowcasts and forecasts through time: contributions, news, fans, vintages.

Every function takes `ax` (default: the axes of a new figure, made without pyplot) and returns it.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from jaxfc.forecast import Forecast
from jaxfc.panel import Panel
from jaxfc.report.canvas import CYCLE, axes_or_new, label_rows, legend_below, pooled
from jaxfc.report.plots import BLUE, GREY, RED, date_axis, tidy


def plot_contribution_history(
    parts: pd.DataFrame,
    total: pd.Series | None = None,
    *,
    max_parts: int = 8,
    title: str = "",
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Contributions by date as stacked bars, positive up and negative down, and their total.

    `parts`: dates x groups, e.g. columns of `historical_decomposition(...).to_frame`. The largest
    `max_parts` - 1 groups keep their names if there are more; `total` defaults to the sum.
    """
    table = pooled(parts, max_parts)
    total = parts.sum(axis=1) if total is None else total
    ax = axes_or_new(ax, 9.0, 3.8)
    days = pd.DatetimeIndex(table.index).to_numpy()
    width = np.diff(days).min() if len(days) > 1 else np.timedelta64(20, "D")
    up, down = np.zeros(len(table)), np.zeros(len(table))
    colours = [*CYCLE[: table.shape[1] - 1], GREY] if table.shape[1] < parts.shape[1] else CYCLE
    for colour, name in zip(colours, table.columns, strict=False):
        bar = np.nan_to_num(table[name].to_numpy(float))
        base = np.where(bar >= 0, up, down)
        ax.bar(days, bar, width, bottom=base, color=colour, linewidth=0, label=str(name))
        up, down = up + np.maximum(bar, 0), down + np.minimum(bar, 0)
    ax.plot(
        pd.DatetimeIndex(total.index).to_numpy(), total, color="k", linewidth=1.3, label="total"
    )
    ax.axhline(0.0, color=GREY, linewidth=0.6)
    tidy(ax, title, unit)
    date_axis(ax)
    ax.margins(x=0.01)
    legend_below(ax)
    return ax


def plot_news_waterfall(
    news: pd.DataFrame | pd.Series | Mapping[str, float],
    old: float,
    new: float,
    *,
    max_bars: int = 12,
    title: str = "",
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """From the old nowcast to the new one, news by news, the largest first.

    `news`: a mapping or a series from names to impacts, or a frame with the columns `impact` and
    `series` (or `group`, or its index). Equal names are summed, impacts of zero left out, the
    smallest share one bar.

    **Raises:** `ValueError` if the impacts do not add up to the change (relative 1e-6).
    """
    impacts = impacts_of(news)
    change = new - old
    missing = change - impacts.sum()
    if abs(missing) > 1e-6 * (abs(old) + abs(new) + impacts.abs().sum()):
        raise ValueError(
            f"the impacts sum to {impacts.sum():g}, but the nowcast went from {old:g} to {new:g}, "
            f"a change of {change:g}; add what is missing ({missing:g}), e.g. as 'revisions'."
        )
    impacts = impacts.where(impacts != 0.0).dropna()
    row = pooled(impacts.to_frame().T, max_bars).iloc[0]
    size = row.abs().to_numpy(copy=True)
    if len(row) < len(impacts):
        size[-1] = -1.0  # what is pooled comes last
    row = row.iloc[np.argsort(-size, kind="stable")]
    ends = old + np.cumsum(row.to_numpy(float))
    starts = np.concatenate([[old], ends])[:-1]
    num_rows = len(row) + 2
    ax = axes_or_new(ax, 8.0, 1.2 + 0.3 * num_rows)
    places = np.arange(1, len(row) + 1)
    colours = [BLUE if value >= 0 else RED for value in row]
    ax.barh(places, row, left=starts, color=colours, height=0.65)
    for place, start in zip(places, starts, strict=True):
        ax.plot([start, start], [place - 1, place], color=GREY, linewidth=0.7)
    ax.plot([ends[-1]] * 2 if len(row) else [old] * 2, [len(row), len(row) + 1], color=GREY, lw=0.7)
    ax.plot([old, new], [0, num_rows - 1], "D", color="k", markersize=6)
    reach = np.ptp([old, new, *ends]) or max(abs(old), 1.0)
    for place, start, end, value in zip(places.tolist(), starts, ends, row, strict=True):
        ax.text(max(start, end) + 0.015 * reach, place, f"{value:+.3g}", va="center", fontsize=8)
    for place, value in ((0, old), (num_rows - 1, new)):
        ax.text(value + 0.03 * reach, place, f"{value:.4g}", va="center", fontsize=8)
    tidy(ax, title)
    label_rows(ax, ["old nowcast", *map(str, row.index), "new nowcast"])
    ax.grid(axis="y", visible=False)
    ax.invert_yaxis()
    ends = np.array([old, new, *ends])
    ax.set_xlim(ends.min() - 0.06 * reach, ends.max() + 0.16 * reach)
    ax.set_xlabel(unit, fontsize=9)
    return ax


def impacts_of(news: pd.DataFrame | pd.Series | Mapping[str, float]) -> pd.Series:
    """Impacts by name, equal names summed."""
    if not isinstance(news, pd.DataFrame):
        named = pd.Series(news if isinstance(news, pd.Series) else dict(news), dtype=float)
        return cast(pd.Series, named.groupby(named.index.to_numpy(), sort=False).sum())
    if "impact" not in news.columns:
        raise ValueError(f"news need a column 'impact', got {list(news.columns)!r}.")
    name = next((column for column in ("series", "group") if column in news.columns), None)
    keys = news.index if name is None else news[name]
    return cast(pd.Series, news["impact"].astype(float).groupby(keys.to_numpy(), sort=False).sum())


def plot_fan_chart(
    panel: Panel,
    forecast: Forecast,
    series: str,
    *,
    levels: Sequence[int] = (50, 80, 95),
    num_history: int = 48,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """The last observed values of a series and central intervals of its forecast.

    Works for every `Forecast` from the last row of `panel`, of any model or scenario.
    """
    if series not in panel.names:
        raise ValueError(f"there is no series {series!r} in the panel.")
    column = panel.names.index(series)
    law = forecast.marginal(column)
    dates = panel.label(forecast).index.to_numpy()
    history = panel.to_frame()[series].iloc[-num_history:].dropna()
    ax = axes_or_new(ax, 8.0, 3.4)
    ax.plot(history.index.to_numpy(), history, color=GREY, linewidth=1.1, label="observed")
    shades = np.linspace(0.75, 0.25, len(levels))
    for shade, level in reversed(list(zip(shades, sorted(levels), strict=True))):
        tails = np.array([0.5 - level / 200.0, 0.5 + level / 200.0])
        low, high = np.asarray(law.quantile(jnp.asarray(tails)))[:, :, 0]
        mixed = tuple(1.0 - shade * (1.0 - part) for part in (0.0, 0.447, 0.698))
        ax.fill_between(dates, low, high, color=mixed, linewidth=0, label=f"{level}%")
    ax.plot(dates, np.asarray(law.mean)[:, 0], color="k", linewidth=1.5, label="mean")
    tidy(ax, f"{series}: the next {len(dates)} rows", unit)
    date_axis(ax)
    legend_below(ax, 6)
    return ax


def plot_nowcast_evolution(
    nowcasts: pd.DataFrame | pd.Series,
    *,
    outcome: float | None = None,
    title: str = "",
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One target's nowcast by vintage, with its band and what came out.

    `nowcasts`: vintage dates x `mean` and, if there is a band, `low` and `high`; other columns are
    drawn as further lines (e.g. the forecast of another model). A series is the mean alone.
    """
    table = nowcasts.to_frame("mean") if isinstance(nowcasts, pd.Series) else nowcasts
    if "mean" not in table.columns:
        raise ValueError(f"nowcasts need a column 'mean', got {list(table.columns)!r}.")
    ax = axes_or_new(ax, 8.0, 3.4)
    days = pd.DatetimeIndex(table.index).to_numpy()
    if {"low", "high"} <= set(table.columns):
        ax.fill_between(
            days, table["low"], table["high"], color=BLUE, alpha=0.2, linewidth=0, label="band"
        )
    ax.plot(days, table["mean"], color=BLUE, linewidth=1.6, marker="o", ms=4, label="nowcast")
    others = [column for column in table.columns if column not in ("mean", "low", "high")]
    for colour, column in zip(CYCLE[1:], others, strict=False):
        ax.plot(days, table[column], color=colour, linewidth=1.2, marker=".", label=str(column))
    if outcome is not None:
        ax.axhline(outcome, color=RED, linewidth=1.4, linestyle="--", label="outcome")
    tidy(ax, title, unit)
    date_axis(ax)
    ax.set_xlabel("vintage", fontsize=9)
    legend_below(ax, rows_above=0.1)
    return ax
