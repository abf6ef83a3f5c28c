"""Returns out of prices, and returns joined to the panel that explains them (host side)."""

import dataclasses

import numpy as np
import pandas as pd

from jaxfc.panel import Panel


def log_returns(prices: pd.Series | pd.DataFrame) -> pd.DataFrame:
    """log p_t - log p_{t-1} of every column, per row (0.01 is about 1%); the first row is dropped.

    A return is NaN where one of its two prices is missing: nothing is bridged.

    **Raises:** `TypeError` for anything but a Series or DataFrame with a DatetimeIndex;
    `ValueError` that names series and dates for prices that are zero, negative or infinite, and for
    dates that are unsorted or repeated.
    """
    table = prices.to_frame() if isinstance(prices, pd.Series) else prices
    if not isinstance(table, pd.DataFrame) or not isinstance(table.index, pd.DatetimeIndex):
        raise TypeError(
            f"log_returns takes prices as a Series or DataFrame indexed by dates, got "
            f"{type(prices).__name__}."
        )
    if not table.index.is_monotonic_increasing or not table.index.is_unique:
        raise ValueError("the dates of the prices are unsorted or repeated; sort them, keep one.")
    values = table.to_numpy(float)
    for place, name in enumerate(table.columns):
        bad = (values[:, place] <= 0) | np.isinf(values[:, place])
        if bad.any():
            raise ValueError(
                f"{name!r} has prices that are not positive and finite on "
                f"{some_dates(table.index[bad])}; a log return needs positive prices: correct them "
                "or mark them as missing (NaN)."
            )
    return pd.DataFrame(np.log(values), table.index, table.columns).diff().iloc[1:]


def with_returns(panel: Panel, returns: pd.Series) -> Panel:
    """The panel with one more series of its own frequency, e.g. the return to be forecast.

    **Raises:** `ValueError` for a series without a name or with a name of the panel, dates that the
    panel's calendar does not have, and infinite values; rows of the panel without a return are not
    observed.
    """
    name = returns.name
    if not isinstance(name, str):
        raise ValueError(f"the returns need a name, got {name!r}; use returns.rename('...').")
    if name in panel.names:
        raise ValueError(
            f"the panel has a series {name!r} already: the returns would be in it twice. Take it "
            "out with panel.select(...), or rename the returns."
        )
    unknown = returns.index.difference(panel.index)
    if len(unknown):
        raise ValueError(
            f"{name!r} has dates that the panel ({panel.frequency}, {panel.index[0]:%Y-%m-%d}.."
            f"{panel.index[-1]:%Y-%m-%d}) does not have: {some_dates(unknown)}. Bring the returns "
            "to the panel's calendar (jaxfc.datasets.weekly_closes for Fridays) and cut them to it."
        )
    if not returns.index.is_unique:
        raise ValueError(f"{name!r} has repeated dates; keep one value a date.")
    values = returns.reindex(panel.index).to_numpy(float)
    if np.isinf(values).any():
        raise ValueError(f"{name!r} is infinite on {some_dates(panel.index[np.isinf(values)])}.")
    observed = np.isfinite(values)
    return dataclasses.replace(
        panel,
        values=np.column_stack([panel.values, np.where(observed, values, 0.0)]),
        observed=np.column_stack([panel.observed, observed]),
        names=(*panel.names, name),
        kinds=(*panel.kinds, "stock"),
        frequencies=(*panel.frequencies, panel.frequency),
        delays=(*panel.delays, pd.Timedelta(0)),
        units=None if panel.units is None else (*panel.units, "log return"),
        levels=None,
        transforms=(),
    )


def some_dates(dates: pd.DatetimeIndex | pd.Index) -> str:
    """The first three, and how many there are."""
    first = ", ".join(f"{date:%Y-%m-%d}" for date in dates[:3])
    return first if len(dates) <= 3 else f"{first}, ... ({len(dates)} dates)"
