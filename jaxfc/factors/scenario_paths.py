"""Scenario paths: from frames and lists to cells of the extended panel, contradictions named."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxfc.calendar import aggregation_pattern, continue_calendar, period_ends, rank
from jaxfc.counts import check_counts
from jaxfc.panel_tables import aggregated

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel

Identity = Mapping[str, float] | tuple[Mapping[str, float], float]


def scenario_panel(
    panel: "Panel", horizon: int, paths: "pd.DataFrame | Mapping[str, Sequence[float]]"
) -> "Panel":
    """The panel with `horizon` more rows in which the cells of the paths count as observed.

    **Raises:** `ValueError` for unknown or repeated series, dates that are no row of the horizon or
    not observed yet, infinite values, values in rows in which a low-frequency flow is not reported,
    and values other than the one observed.
    """
    table = path_table(panel, horizon, paths)
    extended = panel.extend(horizon)
    values, observed = extended.values.copy(), extended.observed.copy()
    for name in table.columns:
        column = panel.names.index(name)
        seen = np.flatnonzero(panel.observed[:, column])
        last = seen[-1] if len(seen) else -1
        reported = reporting_rows(extended, column)
        path = table[name].to_numpy()
        for row in np.flatnonzero(~np.isnan(path)):
            value, date = float(path[row]), f"{extended.index[row]:%Y-%m-%d}"
            if not np.isfinite(value):
                raise ValueError(f"the path of {name!r} is infinite ({value}) on {date}.")
            if observed[row, column]:
                if not np.isclose(value, values[row, column], rtol=1e-9, atol=0.0):
                    raise ValueError(
                        f"the path of {name!r} says {value:g} on {date}, where "
                        f"{values[row, column]:g} was observed; leave that date out of the path, "
                        "or change the panel."
                    )
                continue
            if row <= last:
                raise ValueError(
                    f"the path of {name!r} gives {value:g} on {date}, before its last observation "
                    f"on {extended.index[last]:%Y-%m-%d}; scenarios are for dates not yet observed."
                )
            if not reported[row]:
                raise ValueError(
                    f"the path of {name!r} gives {value:g} on {date}, but a series of kind "
                    f"{extended.kinds[column]!r} and frequency {extended.frequencies[column]!r} "
                    "has values only in the last rows of its complete periods."
                )
            values[row, column], observed[row, column] = value, True
    return dataclasses.replace(extended, values=values, observed=observed)


def path_table(
    panel: "Panel", horizon: int, paths: "pd.DataFrame | Mapping[str, Sequence[float]]"
) -> "pd.DataFrame":
    """Paths on the rows of the extended panel, NaN where free."""
    import pandas as pd

    check_counts(horizon=horizon)
    future = continue_calendar(panel.index, panel.frequency, horizon)
    if isinstance(paths, pd.DataFrame):
        if not paths.columns.is_unique:
            double = paths.columns[paths.columns.duplicated()][0]
            raise ValueError(f"the paths hold series {double!r} twice; keep one of them.")
        if not isinstance(paths.index, pd.DatetimeIndex):
            raise ValueError(
                "a frame of paths needs dates as its index, got "
                f"{type(paths.index).__name__}; or pass a mapping from names to {horizon} values."
            )
        table = paths.astype(float).set_axis(period_ends(paths.index, panel.frequency))
        if not table.index.is_unique:
            double = table.index[table.index.duplicated()][0]
            raise ValueError(f"the paths have two rows for the period of {double:%Y-%m-%d}.")
    else:
        for name, path in paths.items():
            if np.ndim(path) != 1 or len(path) != horizon:
                raise ValueError(
                    f"the path of {name!r} has shape {np.shape(path)}, the horizon {horizon} rows; "
                    "write NaN where it is free."
                )
        columns = {name: np.asarray(path, float) for name, path in paths.items()}
        table = pd.DataFrame(columns, index=future)
    unknown = [name for name in table.columns if name not in panel.names]
    if unknown:
        raise ValueError(
            f"there is no series {', '.join(map(repr, unknown))} in the panel; its series are "
            f"{', '.join(map(repr, panel.names[:6]))}{', ...' if panel.num_series > 6 else ''}."
        )
    if not table.notna().to_numpy().any():
        raise ValueError("the paths give no value; use fitted.forecast(horizon) instead.")
    rows = panel.index.append(future)
    outside = table.index[table.notna().any(axis=1).to_numpy()].difference(rows)
    if len(outside):
        date = outside[0]
        given = table.loc[date].dropna()
        raise ValueError(
            f"the path of {given.index[0]!r} gives {given.iloc[0]:g} on {date:%Y-%m-%d}, outside "
            f"the horizon {future[0]:%Y-%m-%d}..{future[-1]:%Y-%m-%d}; lengthen the horizon or cut "
            "the path."
        )
    return table.reindex(rows)


def reporting_rows(panel: "Panel", column: int) -> np.ndarray:
    """Rows (time,) in which a series can have a value: all for stocks."""
    frequency, kind = panel.frequencies[column], panel.kinds[column]
    if kind == "stock":
        return np.ones(panel.num_times, bool)
    return aggregation_pattern(panel.index, panel.frequency, frequency, kind).answered


def check_identities(
    panel: "Panel", first_row: int, identities: Sequence[Identity], rtol: float
) -> None:
    """Raise `ValueError` where all members of an identity are given and do not add up.

    `panel` is the extended one; rows before `first_row` are history and not looked at. Series of
    different frequencies meet at the lowest one: the others are aggregated over its periods in the
    way of the series that has it.
    """
    for identity in identities:
        weights, constant = identity if isinstance(identity, tuple) else (identity, 0.0)
        unknown = [name for name in weights if name not in panel.names]
        if unknown or len(weights) < 2 or not all(weights.values()):
            raise ValueError(
                f"an identity needs nonzero weights of two or more series of the panel, got "
                f"{dict(weights)!r}" + (f"; there is no {unknown[0]!r}." if unknown else ".")
            )
        terms = {name: weights[name] * at_lowest(panel, name, tuple(weights)) for name in weights}
        stacked = np.stack(list(terms.values()))
        scale = np.abs(stacked).sum(axis=0) + abs(constant)
        wrong = np.abs(stacked.sum(axis=0) - constant) > rtol * scale  # False where NaN
        wrong[:first_row] = False
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            head = next(iter(weights))
            others = sum(float(terms[name][row]) for name in weights if name != head)
            formula = " + ".join(f"{weight:g} {name!r}" for name, weight in weights.items())
            raise ValueError(
                f"the paths contradict the identity {formula} = {constant:g} on "
                f"{panel.index[row]:%Y-%m-%d}: {head!r} is given as "
                f"{terms[head][row] / weights[head]:g}, the other series imply "
                f"{(constant - others) / weights[head]:g}."
            )


def at_lowest(panel: "Panel", name: str, members: tuple[str, ...]) -> np.ndarray:
    """A series (time,) at the lowest frequency among the members; NaN where it is not given."""
    places = [panel.names.index(member) for member in members]
    slowest = max(places, key=lambda i: rank(panel.frequencies[i]))
    column = panel.names.index(name)
    values = np.where(panel.observed[:, column], panel.values[:, column], np.nan)
    frequency, kind = panel.frequencies[slowest], panel.kinds[slowest]
    if panel.frequencies[column] == frequency:
        return values
    if panel.frequencies[column] != panel.frequency:
        raise ValueError(
            f"an identity relates {name!r} ({panel.frequencies[column]}) to a series of frequency "
            f"{frequency!r}, but only series of the panel's own frequency {panel.frequency!r} can "
            "be aggregated; state it among series of one frequency."
        )
    pattern = aggregation_pattern(panel.index, panel.frequency, frequency, kind)
    return aggregated(values, pattern)
