"""Calibration of forecasts of many series, by class, with errors that know what a period is.

Cells are (periods, series), NaN where nothing was realised. The series of one period depend on each
other, so that a hundred assets are not a hundred cases: standard errors are clustered by period.
Periods must not overlap.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd

Cells = Float[Array, "periods series"] | Float[np.ndarray, "periods series"]
Chances = Float[Array, "periods series *outcomes"] | Float[np.ndarray, "periods series *outcomes"]
Happened = Float[Array, "..."] | Float[np.ndarray, "..."]
Draws = Float[Array, "draws *outcome"] | Float[np.ndarray, "draws *outcome"]
Weights = Float[Array, " draws"] | Float[np.ndarray, " draws"]
Outcome = Float[Array, "*outcome"] | Float[np.ndarray, "*outcome"]
ALL = "all"
LEVELS = (0.5, 0.8, 0.95)


class ClusteredMean(NamedTuple):
    """A mean over cells, its standard error by periods, and how many of both there are."""

    mean: Float[Array, "*rest"]
    error: Float[Array, "*rest"]
    num_cells: Float[Array, "*rest"]
    num_periods: Float[Array, "*rest"]


def clustered_mean(
    values: Float[Array, "periods cells *rest"] | Float[np.ndarray, "periods cells *rest"],
) -> ClusteredMean:
    """Mean over the cells that are not NaN, with the standard error of independent periods.

        error^2 = T/(T - 1) sum_t (sum_i (x_ti - mean))^2 / n^2

    with n cells in T periods (Liang and Zeger 1986; the factor for few periods). Cells of a period
    may depend on each other in any way. NaN for less than two periods.
    """
    values = jnp.asarray(values)
    values = values.astype(jnp.result_type(values, float))  # whether a cell is inside may be given
    known = ~jnp.isnan(values)
    count = jnp.sum(known, axis=(0, 1)).astype(values.dtype)
    mean = jnp.sum(jnp.where(known, values, 0.0), axis=(0, 1)) / count
    by_period = jnp.sum(jnp.where(known, values - mean, 0.0), axis=1)
    periods = jnp.sum(jnp.any(known, axis=1), axis=0).astype(values.dtype)
    factor = jnp.where(periods > 1, periods / (periods - 1.0), jnp.nan)
    error = jnp.sqrt(factor * jnp.sum(by_period**2, axis=0)) / count
    return ClusteredMean(mean, error, count, periods)


def pit_weighted(
    draws: Draws, weights: Weights, realised: Outcome, *, key: PRNGKeyArray | None = None
) -> Float[Array, "*outcome"]:
    """Probability integral transform of draws that carry weights (a `WeightedForecast`).

        (n F(y-) + u (n (F(y) - F(y-)) + 1)) / (n + 1),   n = (sum w)^2 / sum w^2

    which is `pit_draws` for equal weights: F is the weighted law, and the n effective draws stand
    for as many of equal weight. u is uniform with a `key`, else 1/2. NaN where nothing was
    realised.
    """
    draws, weights = jnp.asarray(draws), jnp.asarray(weights)
    weights = weights / jnp.sum(weights)
    count = 1.0 / jnp.sum(weights**2)
    value = jnp.asarray(realised)
    below = jnp.tensordot(weights, (draws < value).astype(weights.dtype), 1)
    ties = jnp.tensordot(weights, (draws == value).astype(weights.dtype), 1)
    place = 0.5 if key is None else jax.random.uniform(key, value.shape, weights.dtype)
    transform = (count * below + place * (count * ties + 1.0)) / (count + 1.0)
    return jnp.where(jnp.isfinite(value), transform, jnp.nan)


def calibration_by_class(
    transforms: Cells, classes: Sequence[str] | None = None, levels: tuple[float, ...] = LEVELS
) -> "pd.DataFrame":
    """One row a class and one for all: coverage of central intervals, spread and mean of the PIT.

    A central interval of level p covers where |u - 1/2| <= p/2. `spread` is 12 times the variance
    of u about 1/2: 1 if calibrated, more if forecasts are too narrow, less if too wide; `mean`
    below 1/2: forecasts too high. Each with its standard error, clustered by period.

    **Arguments:** `transforms` u (periods, series) by `pit_draws`, `pit_weighted`, `pit_gaussian`;
    the class of each series.

    **Raises:** `ValueError` for classes that are not one for each series, a class called "all", or
    a level outside (0, 1).
    """
    import pandas as pd

    transforms = jnp.asarray(transforms)
    groups = members(classes, transforms.shape[1])
    if not all(0.0 < level < 1.0 for level in levels):
        raise ValueError(f"levels are probabilities in (0, 1), got {levels}.")
    away = jnp.abs(transforms - 0.5)
    missing = jnp.isnan(transforms)
    measures = {
        f"cover_{100 * level:g}": jnp.where(missing, jnp.nan, (away <= 0.5 * level) * 1.0)
        for level in levels
    }
    measures |= {"spread": 12.0 * away**2, "mean": transforms}
    cells = jnp.stack(list(measures.values()), axis=2)
    rows = {}
    for name, places in groups.items():
        found = clustered_mean(cells[:, places])
        rows[name] = {
            "periods": float(found.num_periods[0]),
            "cells": float(found.num_cells[0]),
            **dict(zip(measures, np.asarray(found.mean).tolist(), strict=True)),
            **{f"{m}_error": float(e) for m, e in zip(measures, found.error, strict=True)},
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


def reliability(
    probabilities: Chances, happened: Happened, *, num_bins: int = 10, edges: Sequence[float] = ()
) -> "pd.DataFrame":
    """How often what was forecast with a probability happened, by bins of the probability.

    One row a bin with cases: `forecast`, the mean probability; `frequency`; the standard error of
    their difference (`error`), clustered by period, and at least that of as many independent
    calibrated forecasts: in a small bin everything may happen alike; z = difference / error.

    **Arguments:** `probabilities` (periods, series, ...) of outcomes and whether they `happened`
    (1 or 0, or a share where ties are split), of the same shape; bins of equal width, or `edges`
    from 0 to 1.

    **Raises:** `ValueError` for probabilities outside [0, 1], other shapes, or edges that do not
    increase.
    """
    import pandas as pd

    chances, outcomes = jnp.asarray(probabilities), jnp.asarray(happened)
    if chances.shape != outcomes.shape:
        raise ValueError(f"probabilities {chances.shape} for outcomes {outcomes.shape}.")
    if bool(jnp.any((chances < 0.0) | (chances > 1.0))):
        raise ValueError("probabilities must be in [0, 1].")
    ends = np.asarray(edges if len(edges) else np.linspace(0.0, 1.0, num_bins + 1))
    if ends.size < 2 or np.any(np.diff(ends) <= 0.0):
        raise ValueError(f"edges must increase, got {ends}.")
    num_periods = chances.shape[0]
    chances, outcomes = chances.reshape(num_periods, -1), outcomes.reshape(num_periods, -1)
    counted = ~jnp.isnan(chances) & ~jnp.isnan(outcomes)
    places = jnp.clip(jnp.searchsorted(ends, chances, side="right") - 1, 0, ends.size - 2)
    rows = []
    for bin_number in range(ends.size - 1):
        inside = counted & (places == bin_number)
        if not bool(inside.any()):
            continue
        forecast = clustered_mean(jnp.where(inside, chances, jnp.nan))
        gap = clustered_mean(jnp.where(inside, outcomes - chances, jnp.nan))
        noise = jnp.sum(jnp.where(inside, chances * (1.0 - chances), 0.0))
        error = float(jnp.fmax(gap.error, jnp.sqrt(noise) / gap.num_cells))
        rows.append(
            {
                "from": ends[bin_number],
                "to": ends[bin_number + 1],
                "cells": float(gap.num_cells),
                "forecast": float(forecast.mean),
                "frequency": float(forecast.mean + gap.mean),
                "error": error,
                "z": float(gap.mean) / error if error > 0.0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def members(classes: Sequence[str] | None, num_series: int) -> dict[str, np.ndarray]:
    """Columns of every class in order of appearance, and of all series last."""
    everything = np.arange(num_series)
    if classes is None:
        return {ALL: everything}
    if len(classes) != num_series:
        raise ValueError(f"{len(classes)} classes for {num_series} series; give one for each.")
    if ALL in classes:
        raise ValueError(f"a class cannot be called {ALL!r}, which stands for all series.")
    labels = np.asarray(classes)
    found = {str(name): everything[labels == name] for name in dict.fromkeys(classes)}
    return found | {ALL: everything}
