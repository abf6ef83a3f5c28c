"""Months, weeks and days of 20 stocks: base forecasts per order, reconciled, out of sample.

    python -m experiments.temporal_returns [--quick] [--out FOLDER]

Part "variance": realised variance (sums of squared daily log returns) adds over time. At the end of
every month the variance of the next one, of its weeks (split at the ends of the month) and of its
days is forecast by a regression for each order (`temporal_base`), and reconciled stock by stock
with several covariances of the errors in sample. No forecast is below a floor.

Part "profit": profits of one dollar in each stock, bought at the start of the month, add over time
and over stocks, sectors and the whole book: cross-temporal. Means of returns are hardly
forecastable, which is what the part shows.

Errors are relative to the mean square (variance) or root mean square (profit) of the last 250 days
of the series, so that no crisis decides. "above floor" leaves out the periods whose base forecast
is at the floor, which the quasi-likelihood punishes. Losses are averaged over the stocks (or nodes)
and the periods of an order in each month; Diebold-Mariano of these monthly means against the base
forecasts, Bartlett.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.temporal_base import LEVEL_DAYS, BaseForecasts, base_forecasts
from experiments.temporal_returns_answers import answers, compared
from jaxfc.datasets import us_stocks
from jaxfc.hierarchy import (
    GLS,
    OLS,
    WLS,
    BottomUp,
    CalendarCycles,
    Hierarchy,
    Method,
    MinT,
    TemporalGLS,
    calendar_cycles,
    cross_temporal,
    profits_of,
    reconcile_means,
)
from jaxfc.hierarchy.cross_temporal import Pairs
from jaxfc.hierarchy.temporal_cov import OfPresent
from jaxfc.typing import Array

SECTORS = {
    "Technology": ("AAPL", "AMD", "MSFT"),
    "Financials": ("BAC", "JPM"),
    "Consumer discretionary": ("BBY", "HD"),
    "Energy": ("CVX", "RRC", "XOM"),
    "Industrials": ("GE",),
    "Health care": ("JNJ", "LLY", "MRK", "PFE", "UNH"),
    "Consumer staples": ("KO", "PEP", "PG", "WMT"),
}
LAST_DAY = "2022-11-30"  # the data end within the next month
OVER_TIME = {
    "bottom-up": BottomUp(),
    "identity": OLS(),
    "structural": WLS(),
    "order variance": TemporalGLS("order_variance"),
    "position variance": WLS("variance"),
    "order blocks": TemporalGLS("order_blocks"),
    "structural, AR(1)": TemporalGLS("structural_ar1"),
    "order variance, AR(1)": TemporalGLS("order_ar1"),
    "position variance, AR(1)": TemporalGLS("position_ar1"),
    "shrunk": MinT("shrink"),
}
ACROSS = {
    "bottom-up": BottomUp(),
    "identity": OLS(),
    "structural": WLS(),
    "order variance": TemporalGLS("order_variance"),
    "shrunk": MinT("shrink"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Months of every regression and of the errors in sample, and how many months are forecast."""

    window: int = 120
    num_months: int | None = None  # None: all that there are
    num_stocks: int = 20
    over_time: tuple[str, ...] = tuple(OVER_TIME)
    across: tuple[str, ...] = tuple(ACROSS)
    floor: float = 0.05  # of the level: no forecast of a variance is below
    out: str = "temporal_returns"


QUICK = Config(
    window=48,
    num_months=12,
    num_stocks=4,
    over_time=("bottom-up", "order variance", "position variance, AR(1)"),
    across=("structural",),
)


def closes_of(config: Config) -> pd.DataFrame:
    """Daily closes up to the last whole month, no longer than needed."""
    closes = us_stocks().loc[:LAST_DAY].iloc[:, : config.num_stocks]
    if config.num_months is None:
        return closes
    months = config.num_months + config.window + 1
    start = closes.index[-1] - pd.DateOffset(months=months + 14)
    return closes[closes.index >= start.replace(day=1)]


def book_of(names: list[str]) -> Hierarchy:
    """The book, its sectors, its stocks."""
    sector = {stock: name for name, stocks in SECTORS.items() for stock in stocks}
    return Hierarchy.from_paths([f"book/{sector[name]}/{name}" for name in names])


def reconciled(
    base: np.ndarray,
    residuals: np.ndarray,
    present: np.ndarray,
    weights: np.ndarray,
    hierarchy: Hierarchy,
    method: Method,
) -> np.ndarray:
    """Means (batch, nodes) of one month each, with errors in sample (batch, window, nodes)."""

    def one(mean: Array, errors: Array, there: Array, own: Array) -> Array:
        single = eqx.tree_at(lambda h: h.summing.weights, hierarchy, own[None])
        how = OfPresent(method, there[None]) if isinstance(method, GLS) else method
        return reconcile_means(mean[None], single, how, residuals=errors)[0]

    program = compiled(one, hierarchy, repr(method))
    return np.asarray(program(*(jnp.asarray(a) for a in (base, residuals, present, weights))))


PROGRAMS: dict[tuple, Callable] = {}


def compiled(one: Callable, hierarchy: Hierarchy, name: str) -> Callable:
    """One compiled program for a method and a hierarchy."""
    key = (hierarchy.labels, name)
    return PROGRAMS.setdefault(key, jax.jit(jax.vmap(one)))


def variance_losses(config: Config) -> dict[str, pd.DataFrame]:
    """Losses by month, order and method of the part "variance"."""
    returns = np.log(closes_of(config)).diff().iloc[1:]
    squares = returns**2
    cycles = whole_months(squares.index)
    level = squares.rolling(LEVEL_DAYS).mean()
    base = base_forecasts(squares.loc[squares.index], level, cycles, config.window)
    months = months_of(base, config)
    weights = np.asarray(cycles.hierarchy.summing.weights)
    found: dict[str, list] = {name: [] for name in ("base", *config.over_time)}
    for month in months:
        there = np.broadcast_to(cycles.present[month], base.totals.shape[1:])
        errors = np.swapaxes(base.residuals(month), 0, 1)
        own = np.broadcast_to(weights[month], (len(there), *weights.shape[1:]))
        lowest = config.floor * base.days[month]
        raw = np.where(there, np.maximum(base.forecasts[month], lowest), 0.0)
        found["base"].append(raw)
        for name in config.over_time:
            moved = reconciled(raw, errors, there, own, cycles.hierarchy, OVER_TIME[name])
            found[name].append(np.where(there, np.maximum(moved, lowest), 0.0))
    truth = base.totals[months]
    days = np.where(base.days[months] > 0, base.days[months], np.nan)[:, None]
    tables = {}
    for name, forecasts in found.items():
        forecast = np.stack(forecasts) / days
        error = forecast - truth / days
        likelihood = np.log(forecast) + truth / days / forecast
        low = np.where(np.isnan(error), np.nan, forecast < 1.0001 * config.floor)
        base_low = np.stack(found["base"]) / days < 1.0001 * config.floor
        own = {
            "mse": error**2,
            "qlike": likelihood,
            "qlike above floor": np.where(base_low, np.nan, likelihood),
            "floored": low,
        }
        tables[name] = by_order(own, cycles, months)
    return tables


def profit_losses(config: Config) -> dict[str, pd.DataFrame]:
    """Losses by month, order and method of the part "profit"."""
    closes = closes_of(config)
    returns = closes.pct_change().iloc[1:]
    cycles = whole_months(returns.index)
    book = book_of(list(closes.columns))
    gains = monthly_profits(returns)
    nodes = pd.DataFrame(
        np.asarray(book.aggregate(jnp.asarray(gains.to_numpy()))), returns.index, list(book.names)
    )
    level = np.sqrt((nodes**2).rolling(LEVEL_DAYS).mean())
    base = base_forecasts(nodes, level, cycles, config.window)
    pairs = cross_temporal(book, cycles.hierarchy, quantity="profit")
    table = Pairs(book, cycles.hierarchy)
    order = np.argsort(table.places.ravel())
    months = months_of(base, config)
    weights = np.asarray(pairs.summing.weights)
    found: dict[str, list] = {name: [] for name in ("base", "zero", *config.across)}
    for month in months:
        scale = base.scale[month][:, None]
        there = np.broadcast_to(cycles.present[month], base.totals.shape[1:])
        raw = base.forecasts[month] * scale
        errors = base.residuals(month) * scale
        rows = (raw.ravel()[order], errors.reshape(len(errors), -1)[:, order], there.ravel()[order])
        found["base"].append(raw)
        found["zero"].append(np.zeros_like(raw))
        for name in config.across:
            batch = (part[None] for part in (*rows, weights[month]))
            moved = reconciled(*batch, pairs, ACROSS[name])[0]
            found[name].append(moved[table.places.ravel()].reshape(raw.shape))
    days = np.where(base.days[months] > 0, base.days[months], np.nan)[:, None]
    size = base.scale[months][..., None] * np.sqrt(days)
    truth = base.totals[months] * base.scale[months][..., None]
    return {
        name: by_order({"mse": ((np.stack(f) - truth) / size) ** 2}, cycles, months)
        for name, f in found.items()
    }


def monthly_profits(returns: pd.DataFrame) -> pd.DataFrame:
    """Exact daily profits of one dollar in each stock at the start of every month."""
    parts = []
    for _, month in returns.groupby(returns.index.to_period("M")):
        one = profits_of(jnp.asarray(month.to_numpy()), jnp.ones(returns.shape[1]), kind="simple")
        parts.append(pd.DataFrame(np.asarray(one), month.index, returns.columns))
    return pd.concat(parts)


def whole_months(dates: pd.Index) -> CalendarCycles:
    """Months and their weeks, split at the ends of the months."""
    return calendar_cycles(pd.DatetimeIndex(dates), ("M", "W-FRI"), weeks="split")


def months_of(base: BaseForecasts, config: Config) -> np.ndarray:
    """The months that have forecasts, the last of them if fewer are wanted."""
    ready = np.isfinite(np.where(base.days[:, None] > 0, base.forecasts, 0.0)).all(axis=(1, 2))
    known = np.isfinite(base.scale).all(axis=1)
    first = int(np.flatnonzero(known)[0])
    months = np.flatnonzero(ready & (np.arange(len(ready)) >= first + config.window + 1))
    return months if config.num_months is None else months[-config.num_months :]


def by_order(
    losses: dict[str, np.ndarray], cycles: CalendarCycles, months: np.ndarray
) -> pd.DataFrame:
    """Means over series and periods of every order and month: columns (loss, order)."""
    labels = cycles.hierarchy.labels
    columns = {}
    for loss, values in losses.items():
        for level in labels.level_names:
            own = values[:, :, list(labels.at_level(level))]
            columns[loss, level] = np.nanmean(own, axis=(1, 2))
    return pd.DataFrame(columns, cycles.cycles[months])


def run(config: Config) -> pd.DataFrame:
    """Both parts; writes `table.csv` and `answers.md`."""
    parts = {"variance": variance_losses, "profit": profit_losses}
    table = pd.concat(
        [compared(part, losses(config)) for part, losses in parts.items()], ignore_index=True
    )
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False, float_format="%.5g")
    (folder / "answers.md").write_text(answers(table))
    print(answers(table))
    return table


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four stocks, a year, few methods")
    parser.add_argument("--out", help="folder of the tables")
    options = parser.parse_args()
    config = QUICK if options.quick else Config()
    if options.out is not None:
        config = dataclasses.replace(config, out=options.out)
    jax.config.update("jax_enable_x64", True)
    run(config)


if __name__ == "__main__":
    main()
