"""Base forecasts of a month, its weeks and its days, each order by its own regression; host side.

    z_cn / m_c = (1, x_c1, x_c2, x_c3)' beta_g + e,    x: means of the last days of the series / m_c

z is the mean per day of period n of month c, x are those of the order (the last 1, 5 and 22 days
for days; 5, 22 and 66 for weeks; 22, 66 and 250 for the month), m_c a level of the series over the
last 250 days before the month. A group g is the month, its i-th week, or the days of its i-th week;
one regression for each group, over the `window` months before c.
"""

import dataclasses

import numpy as np
import pandas as pd

from jaxfc.hierarchy import CalendarCycles

SPANS = {"month": (22, 66, 250), "week": (5, 22, 66), "day": (1, 5, 22)}
LEVEL_DAYS = 250


@dataclasses.dataclass(frozen=True)
class BaseForecasts:
    """Sums over periods and their forecasts, in units of the level `scale` of series and month.

    `totals` and `forecasts` (months, series, nodes), NaN and 0 where a month has no such period;
    forecasts and scale NaN before there are `window` months.
    """

    totals: np.ndarray
    forecasts: np.ndarray
    scale: np.ndarray
    days: np.ndarray
    features: dict[str, np.ndarray]
    coefficients: np.ndarray
    level_of: np.ndarray
    group_of: np.ndarray
    window: int

    def residuals(self, month: int) -> np.ndarray:
        """Errors in sample of the regressions of this month: (window, series, nodes)."""
        past = slice(month - self.window, month)
        fitted = fitted_values(self, self.coefficients[month][None], past)
        return self.totals[past] - fitted


def base_forecasts(
    daily: pd.DataFrame, level: pd.DataFrame, cycles: CalendarCycles, window: int
) -> BaseForecasts:
    """Forecasts of every node from daily values and the level that they are measured in."""
    labels = cycles.hierarchy.labels
    level_of = np.array(labels.levels)
    group_of = groups_of(labels.names)
    firsts = first_rows(daily.index, cycles)
    scale = level.to_numpy()[firsts - 1]
    scale[firsts < LEVEL_DAYS + 1] = np.nan
    sums = np.stack([stacked_totals(daily[name], cycles) for name in daily], axis=1)
    totals = sums / scale[:, :, None]
    days = day_counts(cycles)
    features = {name: features_of(daily, spans, firsts, scale) for name, spans in SPANS.items()}
    coefficients = rolling_fits(
        totals / np.maximum(days, 1)[:, None], features, level_of, group_of, window
    )
    blank = np.full(totals.shape, np.nan)
    found = BaseForecasts(
        totals, blank, scale, days, features, coefficients, level_of, group_of, window
    )
    return dataclasses.replace(found, forecasts=fitted_values(found, coefficients, slice(None)))


def fitted_values(base: BaseForecasts, coefficients: np.ndarray, rows: slice) -> np.ndarray:
    """Regressions times the number of days of each period; 0 where a month has no such period."""
    days = base.days[rows]
    fitted = np.zeros((len(days), base.totals.shape[1], base.totals.shape[2]))
    for node, (level, group) in enumerate(zip(base.level_of, base.group_of, strict=True)):
        x = base.features[level][rows]
        value = np.sum(x * coefficients[:, group], axis=-1) * days[:, node, None]
        fitted[:, :, node] = np.where(days[:, node, None] > 0, value, 0.0)
    return fitted


def groups_of(names: tuple[str, ...]) -> np.ndarray:
    """The regression of each node: its level and its week, without the day of the week."""
    keys = [name.rpartition("-")[0] if name.startswith("day") else name for name in names]
    code = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([code[key] for key in keys])


def first_rows(dates: pd.Index, cycles: CalendarCycles) -> np.ndarray:
    """The row of the first day of each month."""
    split = cycles.hierarchy.labels.num_aggregates
    days = cycles.ends[:, split:]
    first = np.where(np.isnat(days), np.datetime64("2262-01-01"), days).min(axis=1)
    return np.searchsorted(dates.to_numpy().astype("datetime64[ns]"), first)


def stacked_totals(series: pd.Series, cycles: CalendarCycles) -> np.ndarray:
    """Sums of a daily series over every period, NaN where a month has none."""
    return cycles.stack(cycles.aggregate(series))


def day_counts(cycles: CalendarCycles) -> np.ndarray:
    """Days in each period of each month."""
    ones = pd.Series(1.0, cycles.periods("day"))
    return np.nan_to_num(stacked_totals(ones, cycles))


def features_of(
    daily: pd.DataFrame, spans: tuple[int, ...], firsts: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """One and means over the last days before each month, relative to the level."""
    sums = np.vstack([np.zeros(daily.shape[1]), np.cumsum(daily.to_numpy(), axis=0)])
    means = [(sums[firsts] - sums[np.maximum(firsts - span, 0)]) / span for span in spans]
    return np.stack([np.ones_like(scale), *(mean / scale for mean in means)], axis=-1)


def rolling_fits(
    targets: np.ndarray,
    features: dict[str, np.ndarray],
    level_of: np.ndarray,
    group_of: np.ndarray,
    window: int,
) -> np.ndarray:
    """Least squares over the months before each: (months, groups, series, coefficients)."""
    num_months, num_series = targets.shape[:2]
    found = np.full((num_months, group_of.max() + 1, num_series, 4), np.nan)
    for group in range(group_of.max() + 1):
        nodes = np.flatnonzero(group_of == group)
        x = features[level_of[nodes[0]]]
        known = np.isfinite(targets[:, :, nodes]) & np.isfinite(x).all(axis=-1)[..., None]
        usable = np.isfinite(x).all(axis=-1)
        x = np.where(usable[..., None], x, 0.0)
        count = known.sum(axis=-1)
        sums = np.where(known, targets[:, :, nodes], 0.0).sum(axis=-1)
        squares = np.cumsum(count[..., None, None] * x[..., :, None] * x[..., None, :], axis=0)
        products = np.cumsum(sums[..., None] * x, axis=0)
        for month in range(window + 1, num_months):
            start, stop = month - window - 1, month - 1
            if not usable[start + 1].all():
                continue
            gram = squares[stop] - squares[start]
            ridge = 1e-8 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(4)
            right = products[stop] - products[start]
            found[month, group] = np.linalg.solve(gram + ridge, right[..., None])[..., 0]
    return found
