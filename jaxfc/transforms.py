"""Transforming a panel to stationarity, every series at its own frequency.

What is needed to go back, the last levels, stays with the transformed panel (`panel.levels`);
`jaxfc.inversion.invert` uses it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxfc.calendar import low_frequency_blocks, rank
from jaxfc.panel import Panel
from jaxfc.panel_checks import check_kinds, check_known, check_series, without_cut_periods
from jaxfc.transform_rules import FREDMD_CODES, Level, Standardise, Transform, applied, fitted

Codes = Mapping[str, Transform | int] | Transform | int


def transform(
    panel: Panel | pd.DataFrame, codes: Codes, *, kinds: Mapping[str, str] | None = None
) -> Panel | pd.DataFrame:
    """Make the series of a panel (or frame) stationary, each over its own consecutive periods.

    **Arguments:** `codes`: one transform (or FRED-MD code 1-7) for all, or one a series by name;
    series that are not named stay as they are. `kinds`: what the results of low-frequency series
    are, where the rule below is not wanted.

    A quarterly series is differenced quarter on quarter; a gap makes the values that need it
    missing. Differences change what a low-frequency value is:

        stock -> flow_sum                 the change is the sum of the high-frequency changes
        flow_average -> change_in_flow    the change of the average
        flow_sum -> change_in_flow        only if all blocks are equally long; the high-frequency
                                          values are then changes per low-frequency period

    Exact for differences, and for the logarithm of a stock; for growth and for logarithms of flows
    the usual first-order approximation. Other cases have no aggregation rows and need `kinds`. A
    frame is transformed over its rows.

    **Returns:** the panel, which remembers its levels for `invert`, or the frame.

    **Raises:** `ValueError` naming the series: unknown code, logarithm of a value that is not
    positive, growth from zero, nothing observed afterwards, a kind that cannot be derived.
    """
    if isinstance(panel, pd.DataFrame):
        if kinds is not None:
            raise ValueError("kinds belong to a panel; a frame has none: leave them out.")
        return transform_frame(panel, codes)
    if panel.levels is not None:
        raise ValueError("the panel is transformed already; transform panel.levels instead.")
    kinds = {} if kinds is None else kinds
    check_kinds(kinds, panel.names)
    chosen = resolved(codes, panel.names)
    values = np.zeros_like(panel.values)
    observed = np.zeros_like(panel.observed)
    rules, new_kinds = [], []
    for i, (name, rule) in enumerate(zip(panel.names, chosen, strict=True)):
        rows = own_rows(panel, i)
        seen = np.where(panel.observed[rows, i], panel.values[rows, i], np.nan)
        rule, result = fit_and_apply(rule, seen, panel.index[rows], name)
        there = ~np.isnan(result)
        values[rows[there], i] = result[there]
        observed[rows[there], i] = True
        rules.append(rule)
        new_kinds.append(kinds.get(name) or kind_after(panel, i, rule))
    check_series(values, observed, panel.names, panel.index, allow_constant=False)
    where = (panel.index, panel.frequency, panel.frequencies, tuple(new_kinds), panel.names)
    observed = without_cut_periods(observed, *where, cause="the panel begins within")
    return dataclasses.replace(
        panel,
        values=values,
        observed=observed,
        kinds=tuple(new_kinds),
        levels=panel,
        transforms=tuple(rules),
        units=None,
    )


def transform_frame(frame: pd.DataFrame, codes: Codes) -> pd.DataFrame:
    """Row on row; refuses a column that has values but none two rows in a row."""
    columns = {}
    for (name, column), rule in zip(
        frame.items(), resolved(codes, tuple(map(str, frame.columns))), strict=True
    ):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        _, result = fit_and_apply(rule, values, frame.index, str(name))
        if np.all(np.isnan(result)) and not np.all(np.isnan(values)):
            raise ValueError(
                f"series {name!r} has no value after {rule}: no consecutive rows are observed; "
                "make a Panel first, which knows its frequency."
            )
        columns[name] = result
    return pd.DataFrame(columns, index=frame.index)


def resolved(codes: Codes, names: tuple[str, ...]) -> list[Transform]:
    """One transform a series."""
    if not isinstance(codes, Mapping):
        codes = dict.fromkeys(names, codes)
    check_known(codes, names, "codes")
    return [resolved_one(name, codes.get(name, Level())) for name in names]


def resolved_one(name: str, code: object) -> Transform:
    """A transform, or the one of a FRED-MD code."""
    if isinstance(code, Transform):
        return code
    if not isinstance(code, int):
        raise TypeError(
            f"the transform of series {name!r} is {code!r}; give a Transform such as "
            "LogDifference() or a FRED-MD code 1-7."
        )
    if code not in FREDMD_CODES:
        raise ValueError(
            f"series {name!r} has unknown code {code}; the FRED-MD codes are 1 level, 2 "
            "difference, 3 second difference, 4 log, 5 log difference, 6 second log difference, "
            "7 difference of growth."
        )
    return FREDMD_CODES[code]


def fit_and_apply(
    rule: Transform, values: np.ndarray, dates: pd.Index, name: str
) -> tuple[Transform, np.ndarray]:
    """The fitted transform and its result for one series; names the series in every refusal."""
    core = rule
    while isinstance(core, Standardise):
        core = core.of
    first = core.steps.first
    if first == "log" and np.any(values <= 0):
        date = dates[np.flatnonzero(values <= 0)[0]]
        raise ValueError(
            f"series {name!r} is not positive at {date} ({values[values <= 0][0]:g}) and has no "
            "logarithm; use Level, Difference or Growth."
        )
    if first == "growth" and np.any(values == 0):
        date = dates[np.flatnonzero(values == 0)[0]]
        raise ValueError(
            f"series {name!r} is zero at {date} and has no growth rate there; use Difference."
        )
    try:
        rule = fitted(rule, values)
    except ValueError as error:
        raise ValueError(f"series {name!r} {error}") from error
    return rule, applied(rule, values)


def own_rows(panel: Panel, i: int) -> np.ndarray:
    """The rows in which periods of the own frequency of series i end."""
    if panel.frequencies[i] == panel.frequency:
        return np.arange(panel.num_times)
    return low_frequency_blocks(panel.index, panel.frequency, panel.frequencies[i]).last_row


def kind_after(panel: Panel, i: int, rule: Transform) -> str:
    """What a low-frequency value is after its transform; the table of `transform`."""
    kind, frequency = panel.kinds[i], panel.frequencies[i]
    memory = rule.steps.memory
    if frequency == panel.frequency or memory == 0:
        return kind
    if memory == 1 and kind in ("stock", "flow_average"):
        return {"stock": "flow_sum", "flow_average": "change_in_flow"}[kind]
    why = f"{rule} of a low-frequency {kind} is no weighted sum of rows of a known kind"
    if memory == 1 and kind == "flow_sum":
        # Not read off the rows at hand: a short panel may show quarters of 13 weeks only.
        if rank(panel.frequency) >= rank("M") or (panel.frequency == "D" and frequency[0] == "W"):
            return "change_in_flow"
        why = "its periods have different numbers of rows: use averages (flow_average) instead"
    raise ValueError(
        f"series {panel.names[i]!r} ({frequency}, {kind}): {why}; or say what the result is with "
        f"transform(..., kinds={{{panel.names[i]!r}: ...}})."
    )
