"""Arrays of a panel's shape or of its future, as data frames with names and dates."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import Pattern
from jaxfc.forecast import Forecast
from jaxfc.panel_checks import quoted


def forecast_table(
    forecast: Forecast,
    dates: pd.DatetimeIndex,
    names: tuple[str, ...],
    quantiles: Sequence[float] | None,
) -> pd.DataFrame:
    """Means by date and series, or also standard deviations and quantiles (two column levels)."""
    mean = np.asarray(forecast.mean)
    if mean.shape[1] != len(names):
        raise ValueError(
            f"the forecast has {mean.shape[1]} series, the panel {len(names)} "
            f"({quoted(names[:4])}, ...); label it with panel.select(...) of its series."
        )
    if quantiles is None:
        return pd.DataFrame(mean, index=dates, columns=list(names))
    if any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantile levels lie strictly between 0 and 1, got {quantiles!r}.")
    statistics = {"mean": mean, "std": np.asarray(forecast.std)}
    for q in quantiles:
        statistics[f"q{q:g}"] = np.asarray(forecast.quantile(jnp.asarray(q)))
    columns = pd.MultiIndex.from_product([names, statistics], names=["series", "statistic"])
    table = np.stack(list(statistics.values()), axis=2).reshape(len(dates), -1)
    return pd.DataFrame(table, index=dates, columns=columns)


def aggregated(values: np.ndarray, pattern: Pattern) -> np.ndarray:
    """One high-frequency series as it is reported; NaN in rows without a complete period."""
    total = np.zeros(len(values) + 1)
    np.add.at(total, pattern.own_row, pattern.own_weight * values)
    np.add.at(total, pattern.next_row, pattern.next_weight * values)
    return np.where(pattern.answered, total[:-1], np.nan)
