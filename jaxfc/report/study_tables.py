"""Tables of a study: what was run, what failed, means in the shape of a paper's table, ratios.

Settings keep their names. A setting that a cell does not give is shown as "default".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfc.running.study_result import StudyResult, total

DEFAULT = "default"
SIGNIFICANT = 2.0  # standard errors
PREFERRED_COLUMNS = ("missing",)
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def study_table(result: StudyResult) -> pd.DataFrame:
    """`result.table()` with a value for every setting."""
    return with_defaults(result.table(), result)


def with_defaults(table: pd.DataFrame, result: StudyResult) -> pd.DataFrame:
    """Settings that a cell does not give are the world's defaults, and said to be."""
    filled = table.copy()
    for name in result.settings.columns:
        given = filled[name].astype(object)
        filled[name] = given.where(given.notna(), DEFAULT)
    return filled


def values_of(table: pd.DataFrame, name: str) -> list[Any]:
    """The values of a setting: numbers in their order, others as they come."""
    values = list(dict.fromkeys(table[name]))
    numbers = all(isinstance(v, int | float | np.number) for v in values)
    return sorted(values) if numbers else values


def varying(table: pd.DataFrame, result: StudyResult) -> list[str]:
    """Settings with more than one value, in the order of the grid."""
    return [name for name in map(str, result.settings.columns) if len(values_of(table, name)) > 1]


def constant_text(table: pd.DataFrame, result: StudyResult) -> str:
    """The settings that do not vary, in words."""
    names = set(map(str, result.settings.columns)) - set(varying(table, result))
    return assignments(
        {n: table[n].iloc[0] for n in map(str, result.settings.columns) if n in names}
    )


def assignments(settings: dict[str, Any]) -> str:
    """num_series = 10, missing = 0.2"""
    return ", ".join(f"{name} = {value_text(value)}" for name, value in settings.items())


def value_text(value: Any) -> str:
    """A value of a setting, short."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(value_text, value)) + ")"
    return str(value)


def counted(number: int, name: str) -> str:
    """1 path, 2 paths"""
    ending = "" if number == 1 else "es" if name.endswith("s") else "s"
    return f"{number} {name}{ending}"


def decimals_for(values: Any) -> int:
    """Digits behind the point that show three figures of typical values."""
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return 3
    return int(np.clip(2 - np.floor(np.log10(np.median(sizes))), 0, 6))


def number_text(value: float, decimals: int) -> str:
    """A number of a table or a field; what does not fit into it by its order of magnitude."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else str(value)
    value = 0.0 if abs(value) < 0.5 * 10.0**-decimals else value  # no minus before zeros
    return f"{value:.{decimals}f}" if abs(value) < 10 ** (6 - decimals) else f"{value:.1e}"


def pivot_table(
    result: StudyResult,
    metric: str,
    *,
    columns: str | None = None,
    estimators: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Means of a metric with standard errors in brackets: settings down, one of them across.

    `columns`: the setting across, default the share `missing`, else the last that varies; settings
    with one value are left out. `estimators`: default all, each with a row of its own. "NaN": no
    usable fit, or one whose metric is NaN; empty: no such cell, or not an estimator for it.

    **Raises:** `ValueError` for an unknown metric, estimator or setting.
    """
    table = study_table(result)
    chosen = result.estimators if estimators is None else tuple(estimators)
    check_known(metric, result.metrics, "metric")
    for name in chosen:
        check_known(name, result.estimators, "estimator")
    names = varying(table, result)
    if columns is not None:
        check_known(columns, list(map(str, result.settings.columns)), "setting")
    across = columns or default_columns(names)
    down = [name for name in names if name != across]
    down += ["estimator"] if len(chosen) > 1 or not down else []
    table = pd.DataFrame(table[table["estimator"].isin(chosen)])
    decimals = decimals_for(table[metric])
    texts: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in table.to_dict("records"):
        place = tuple(value_text(row[name]) for name in down)
        head = f"{across} = {value_text(row[across])}" if across else "mean (se)"
        error = row[f"{metric}_se"]
        bracket = "" if np.isnan(error) else f" ({number_text(error, decimals)})"
        texts.setdefault(place, {})[head] = number_text(row[metric], decimals) + bracket
    heads = [f"{across} = {value_text(v)}" for v in values_of(table, across)] if across else []
    places = sorted(texts, key=order_of(table, down))
    rows = [
        [*place, *(texts[place].get(head, "") for head in heads or ["mean (se)"])]
        for place in places
    ]
    return pd.DataFrame(rows, columns=pd.Index([*down, *(heads or ["mean (se)"])]))


def order_of(table: pd.DataFrame, names: Sequence[str]):
    """A key that sorts texts of settings as the settings are sorted."""
    ranks = [{value_text(v): i for i, v in enumerate(values_of(table, name))} for name in names]
    return lambda place: tuple(rank[text] for rank, text in zip(ranks, place, strict=True))


def default_columns(names: Sequence[str]) -> str | None:
    """The setting that goes across a table."""
    preferred = [name for name in PREFERRED_COLUMNS if name in names]
    return preferred[0] if preferred else (names[-1] if names else None)


def latex_table(frame: pd.DataFrame, caption: str = "") -> str:
    """A plain `tabular`, every text escaped; text to the left, the rest to the right."""
    first = [c for c in frame.columns if " = " not in str(c) and str(c) != "mean (se)"]
    shape = "".join("l" if column in first else "r" for column in frame.columns)
    lines = [" & ".join(latex_text(str(column)) for column in frame.columns) + r" \\"]
    for row in frame.itertuples(index=False, name=None):
        lines.append(" & ".join(latex_text(str(value)) for value in row) + r" \\")
    body = "\n".join([rf"\begin{{tabular}}{{{shape}}}", r"\hline", lines[0], r"\hline", *lines[1:]])
    note = f"% {' '.join(caption.split())}\n" if caption else ""
    return f"{note}{body}\n\\hline\n\\end{{tabular}}\n"


def latex_text(text: str) -> str:
    """Text that means itself in LaTeX."""
    return "".join(SPECIAL.get(mark, mark) for mark in text)


def count_table(result: StudyResult) -> pd.DataFrame:
    """By estimator: cells, fits, those that failed or stopped or had no valid world, cells without
    any usable fit, and the median of its steps."""
    table = result.table()
    rows = []
    for name in result.estimators:
        own = pd.DataFrame(table[table["estimator"] == name])
        usable = own["num_paths"] - own["num_failed"] - own["num_invalid"]
        steps = own["num_steps"].to_numpy(float)
        steps = steps[np.isfinite(steps)]
        rows.append(
            {
                "estimator": name,
                "cells": len(own),
                "fits": int(total(own, "num_paths")),
                "failed": int(total(own, "num_failed")),
                "stopped": int(total(own, "num_stopped")),
                "invalid worlds": int(total(own, "num_invalid")),
                "cells without a usable fit": int(np.sum(usable.to_numpy() == 0)),
                "median steps": float(np.median(steps)) if steps.size else np.nan,
            }
        )
    return pd.DataFrame(rows)


def comparison_table(result: StudyResult, metric: str, baseline: str) -> pd.DataFrame:
    """`result.compare` of all other estimators with one; `differs`: by more than two standard
    errors of the paired difference."""
    check_known(baseline, result.estimators, "estimator")
    parts = []
    for name in result.estimators:
        if name != baseline:
            part = result.compare(metric, name, baseline)
            part.insert(len(result.settings.columns) + 1, "estimator", name)
            parts.append(part)
    if not parts:
        raise ValueError(f"the study has no other estimator than {baseline!r} to compare.")
    table = pd.concat(parts, ignore_index=True)
    reach = SIGNIFICANT * table["difference_se"]
    table["differs"] = (table["difference"].abs() > reach) & table["difference_se"].notna()
    return with_defaults(table, result)


def comparison_summary(table: pd.DataFrame, show: str) -> pd.DataFrame:
    """By estimator: in how many cells it is above and below the baseline, and by how much."""
    rows = []
    for name, own in table.groupby("estimator", sort=False):
        shown = own[show].to_numpy(float)
        finite = shown[np.isfinite(shown)]
        differs = own["differs"].to_numpy(bool)
        rows.append(
            {
                "estimator": str(name),
                "cells": len(own),
                "above by 2 se": int((differs & (own["difference"].to_numpy() > 0)).sum()),
                "below by 2 se": int((differs & (own["difference"].to_numpy() < 0)).sum()),
                f"mean {show}": float(finite.mean()) if finite.size else np.nan,
                f"least {show}": float(finite.min()) if finite.size else np.nan,
                f"largest {show}": float(finite.max()) if finite.size else np.nan,
            }
        )
    return pd.DataFrame(rows)


def shown_quantity(result: StudyResult, metric: str, table: pd.DataFrame) -> str:
    """ "ratio", or "difference" where a ratio would not mean anything: negative or no values."""
    means = result.table()[metric].to_numpy(float)
    ratios = table["ratio"].to_numpy(float)
    positive = means[np.isfinite(means)]
    return "ratio" if (positive > 0).all() and np.isfinite(ratios).any() else "difference"


def average_table(result: StudyResult, metric: str) -> tuple[pd.DataFrame, int]:
    """The mean of a metric over the cells where every estimator has one, and how many these are."""
    table = result.table()
    wide = table.pivot(index="cell", columns="estimator", values=metric)
    errors = table.pivot(index="cell", columns="estimator", values=f"{metric}_se")
    common = wide.reindex(columns=list(result.estimators)).dropna().index
    rows = []
    for name in result.estimators if len(common) else ():
        spread = errors.loc[common, name].to_numpy(float)
        error = float(np.sqrt(np.sum(spread**2)) / len(common))
        mean = float(wide.loc[common, name].to_numpy(float).mean())
        rows.append({"estimator": name, f"mean {metric}": mean, "standard error": error})
    return pd.DataFrame(rows), len(common)


def time_table(result: StudyResult, baseline: str) -> pd.DataFrame:
    """By estimator: milliseconds per fit over the cells, and ratios to the baseline in the cells
    that both have."""
    seconds = result.table().pivot(index="cell", columns="estimator", values="seconds_per_fit")
    rows = []
    for name in result.estimators:
        if name not in seconds:
            continue
        own = 1e3 * seconds[name].dropna().to_numpy(float)
        row = {
            "estimator": name,
            "median ms": np.median(own),
            "least ms": own.min(),
            "most ms": own.max(),
        }
        if baseline in seconds:
            ratios = (seconds[name] / seconds[baseline]).dropna().to_numpy(float)
            for what, of in (("median", np.median), ("least", np.min), ("most", np.max)):
                row[f"{what} ratio"] = of(ratios) if ratios.size else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def check_known(name: str, names: Sequence[str], kind: str) -> None:
    """Raise `ValueError` for a name that the study does not have."""
    if name not in names:
        raise ValueError(f"the study has no {kind} {name!r}; it has {', '.join(names)}.")
