"""One-step forecasts, drivers and sizes of a backtest, as its report shows them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.evaluation.coverage_table import coverage_table
from jaxfc.evaluation.intervals import pit_draws, pit_gaussian
from jaxfc.impact import parts_table
from jaxfc.results import usable_codes
from jaxfc.running.backtest_result import Backtest
from jaxfc.typing import Bool, Float, PRNGKeyArray

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
MOST_SINGLE_SERIES = 8  # with their own name among the drivers
NUM_BINS = 10
RISKS = ("factor risk", "AR risk")
BASE = "impact base"
COVERAGE = {
    "kupiec_p": "p (Kupiec)",
    "christoffersen_p": "p (Christoffersen)",
    "MIS": "mean interval score",
}
SIZES = {
    "num_factors": "K, factors",
    "num_lags": "p, lags of the factors' law",
    "num_own_lags": "q, own lags",
    "num_factor_lags": "s, lags of the factors",
}


@dataclasses.dataclass(frozen=True, eq=False)
class OneStep:
    """The forecasts of one series one step ahead, and what happened.

    `outcome` is what was realised; `realised` the same where the forecast can be used (`usable`:
    the estimation converged or stopped at its bound on steps, and the forecast is a number), NaN
    elsewhere. `mean`, `std`, bounds and probability integral transforms are NaN there too;
    `num_bins` suits a histogram of the transforms.
    """

    name: str
    column: int
    dates: pd.DatetimeIndex
    origins: pd.DatetimeIndex
    mean: Float[np.ndarray, " origins"]
    std: Float[np.ndarray, " origins"]
    lower: Float[np.ndarray, "origins levels"]
    upper: Float[np.ndarray, "origins levels"]
    outcome: Float[np.ndarray, " origins"]
    transforms: Float[np.ndarray, " origins"]
    num_bins: int
    usable: Bool[np.ndarray, " origins"]
    stopped: Bool[np.ndarray, " origins"]

    @property
    def realised(self) -> Float[np.ndarray, " origins"]:
        """Outcomes of the usable forecasts."""
        return np.where(self.usable, self.outcome, np.nan)

    @property
    def errors(self) -> Float[np.ndarray, " origins"]:
        """Outcome minus mean of the forecast."""
        return self.realised - self.mean

    @property
    def num_cases(self) -> int:
        """How many usable forecasts have an outcome."""
        return int(np.isfinite(self.realised).sum())

    @functools.cached_property
    def coverage(self) -> pd.DataFrame:
        """By level: share outside, its target, p-values of tests, and the mean interval score."""
        table = coverage_table(self.lower, self.upper, self.realised, LEVELS)
        return table.rename(columns=COVERAGE)

    @property
    def is_consecutive(self) -> bool:
        """Whether each forecast starts where the period of the one before ended."""
        return bool((self.origins[1:] == self.dates[:-1]).all())


def one_step(backtest: Backtest, target: str | None, *, key: PRNGKeyArray | None = None) -> OneStep:
    """The one-step forecasts of `target`, default the first series that is forecast.

    With a `key` the transforms of draws are drawn within their ranks (`pit_draws`).

    **Raises:** `ValueError` for a series that is not forecast.
    """
    name = backtest.names[0] if target is None else target
    column = backtest.column(name)
    mean, std = backtest.mean[:, 0, column], backtest.std[:, 0, column]
    usable = usable_origins(backtest) & np.isfinite(mean) & np.isfinite(std)
    lower, upper = bounds_of(backtest, column, LEVELS)
    outcome = np.asarray(backtest.realised)[:, 0, column]
    draws = backtest.draws
    if draws is None:
        transforms = pit_gaussian(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(outcome))
    else:
        own = jnp.moveaxis(jnp.asarray(draws[:, :, 0, column]), 1, 0)
        transforms = pit_draws(own, outcome, key=key)

    def known(values):
        keep = usable.reshape((-1,) + (1,) * (np.ndim(values) - 1))
        return np.where(keep, np.asarray(values, float), np.nan)

    return OneStep(
        name=name,
        column=column,
        dates=pd.DatetimeIndex(backtest.dates[:, 0]),
        origins=pd.DatetimeIndex(backtest.origins),
        mean=known(mean),
        std=known(std),
        lower=known(lower),
        upper=known(upper),
        outcome=np.asarray(outcome, float),
        transforms=known(transforms),
        num_bins=bins_for(None if draws is None or key is not None else draws.shape[1]),
        usable=usable,
        stopped=usable & ~backtest.okay,
    )


def bins_for(num_draws: int | None) -> int:
    """10 bins; for the ranks of M draws the number next to it that divides M + 1, if there is one
    from 5 to 20: ranks fall evenly into no others."""
    if num_draws is None:
        return NUM_BINS
    even = [bins for bins in range(5, 21) if (num_draws + 1) % bins == 0]
    return min(even, key=lambda bins: abs(bins - NUM_BINS), default=NUM_BINS)


def usable_origins(backtest: Backtest) -> Bool[np.ndarray, " origins"]:
    """Which estimations converged or stopped at their bound on steps."""
    codes = np.asarray(backtest.result._value)  # pyright: ignore[reportAttributeAccessIssue]
    return np.isin(codes, usable_codes())


def bounds_of(
    backtest: Backtest, column: int, levels: Sequence[float]
) -> tuple[Float[np.ndarray, "origins levels"], Float[np.ndarray, "origins levels"]]:
    """Lower and upper ends of the central intervals one step ahead."""
    tails = 0.5 * (1.0 - np.asarray(levels, float))
    both = backtest.quantile(jnp.asarray(np.concatenate([tails, 1.0 - tails])))[:, :, 0, column]
    return both[:, : len(tails)], both[:, len(tails) :]


def driver_table(
    backtest: Backtest, step: OneStep, groups: Mapping[str, Sequence[str]] | None
) -> pd.DataFrame | None:
    """By date: AR nature, factor impact by group, factor risk, AR risk (means over the draws), and
    the forecast, their sum; None for forecasts without a decomposition.

    `groups` holds every series exactly once; one that has no impact at any origin, such as the
    target, may be left out. Default: each series if there are 8 at most, else all in "panel".

    **Raises:** `ValueError` for other groups.
    """
    if not isinstance(backtest.forecast, DecomposedForecast):
        return None
    forecast = backtest.forecast
    impact = np.asarray(forecast.impact_by_series)[:, 0]
    names = list(backtest.series) or [f"series {i + 1}" for i in range(impact.shape[1])]
    moving = [bool(np.any(np.nan_to_num(impact[:, i]) != 0.0)) for i in range(len(names))]
    if groups is None:
        own = [name for name, moves in zip(names, moving, strict=True) if moves]
        single = len(own) <= MOST_SINGLE_SERIES
        groups = {name: [name] for name in own} if single else {"panel": own}
    named = {name for members in groups.values() for name in members}
    kept = [
        i
        for i, (name, moves) in enumerate(zip(names, moving, strict=True))
        if moves or name in named
    ]
    table = parts_table(impact[:, kept], [names[i] for i in kept], groups)
    means = np.asarray(jax.vmap(lambda law: law.mean_parts())(forecast))[:, :, 0]
    base = np.asarray(forecast.impact_base)[:, 0]
    table.insert(0, "AR nature", means[:, 0])
    if np.any(np.nan_to_num(base) != 0.0):
        table[BASE] = base
    for place, name in enumerate(RISKS, start=2):
        table[name] = means[:, place]
    table["forecast"] = step.mean
    table.index = step.dates.rename("date")
    return only_usable(table, step)


def spread_table(backtest: Backtest, step: OneStep) -> pd.DataFrame | None:
    """By date: standard deviations over the draws of the four parts and of the forecast; None for
    forecasts without a decomposition."""
    if not isinstance(backtest.forecast, DecomposedForecast):
        return None
    law = backtest.forecast
    parts = {
        "AR nature": law.ar_nature,
        "factor impact": law.factor_impact,
        "factor risk": law.factor_risk,
        "AR risk": law.ar_risk,
    }
    stds = {name: np.std(np.asarray(p)[:, :, 0, 0], axis=1, ddof=1) for name, p in parts.items()}
    table = pd.DataFrame({**stds, "forecast": step.std}, index=step.dates.rename("date"))
    return only_usable(table, step)


def size_table(backtest: Backtest, step: OneStep) -> pd.DataFrame | None:
    """By origin: what the model reports of every estimation as one number (chosen sizes); None
    where it reports nothing."""
    numbers = {
        SIZES.get(name, name.replace("_", " ")): np.asarray(values, float)
        for name, values in backtest.details.items()
        if np.ndim(values) == 1
    }
    if not numbers:
        return None
    order = [label for label in SIZES.values() if label in numbers]
    order += [label for label in numbers if label not in order]
    columns = {label: numbers[label] for label in order}
    table = pd.DataFrame(columns, index=step.origins.rename("origin"))
    return only_usable(table, step)


def only_usable(table: pd.DataFrame, step: OneStep) -> pd.DataFrame:
    """NaN in the rows of estimations that cannot be used."""
    return table.where(np.broadcast_to(step.usable[:, None], table.shape))
