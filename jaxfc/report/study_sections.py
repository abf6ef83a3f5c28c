"""Chapters on one metric of a study: its means, and its comparison with a baseline."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from jaxfc.report.html import Picture, Section, Table
from jaxfc.report.study_figures import DIVERGING, SEQUENTIAL, HeatStyle, plot_errors, plot_heat
from jaxfc.report.study_layout import (
    Layout,
    diverging_scale,
    heat_layout,
    line_layout,
    pictures_of,
    sequential_scale,
)
from jaxfc.report.study_names import FileNames
from jaxfc.report.study_tables import (
    assignments,
    average_table,
    comparison_summary,
    comparison_table,
    constant_text,
    counted,
    decimals_for,
    latex_table,
    pivot_table,
    shown_quantity,
    study_table,
    varying,
)
from jaxfc.running.study_result import StudyResult

MOST_PICTURES = 24  # of one kind; tables hold the rest
MOST_ROWS = 150  # of a table on the page; its file holds the rest


def metric_section(result: StudyResult, metric: str, folder: Path, names: FileNames) -> Section:
    """Heat maps, error bars, the average over cells, and the table."""
    table = study_table(result)
    settings = varying(table, result)
    lines, left_out = error_pictures(table, metric, settings, names)
    digits = decimals_for(table[metric])
    maps: list[Picture] = []
    if settings:
        scale = sequential_scale(table[metric])
        caption = (
            f"Mean of {metric}. Grey: no such cell, or not computed yet; NaN: no usable fit, or "
            "one without a value."
        )
        style = HeatStyle(metric, metric, caption, "heat", scale, SEQUENTIAL, digits)
        maps, more = heat_pictures(table, metric, settings, style, names)
        left_out += more
    averages, num_cells = average_table(result, metric)
    text = [said_of_settings(table, result)]
    if num_cells:
        total_cells = counted(len(result.settings), "cell")
        text.append(f"Every estimator has a mean in {num_cells} of {total_cells}.")
    elif len(result.estimators) > 1:
        text.append("There is no cell in which every estimator has a mean.")
    text += left_out
    shown = [
        Table(f"Average of {metric} over the cells that all have", averages, decimals=digits + 1)
    ]
    pivoted, files = write_pivots(result, metric, folder, names)
    caption = f"Means of {metric} with standard errors in brackets"
    if len(pivoted) <= MOST_ROWS:
        shown.append(Table(caption, pivoted, f"{files[0]}.csv"))
    else:
        text.append(f"The table of all {len(pivoted)} rows is in {files[0]}.csv.")
    sheets = ", ".join(f"{file}.tex" for file in files)
    text.append(f"Tables: table.csv has all digits; as CSV and LaTeX: {sheets}.")
    kept = tuple(t for t in shown if len(t.frame))
    return Section(metric, tuple(filter(None, text)), (*maps, *lines), kept)


def said_of_settings(table: pd.DataFrame, result: StudyResult) -> str:
    """Settings with one value, said once."""
    constant = constant_text(table, result)
    return f"In all cells: {constant}." if constant else ""


def write_pivots(
    result: StudyResult, metric: str, folder: Path, names: FileNames
) -> tuple[pd.DataFrame, list[str]]:
    """The table of all estimators and one for each, as CSV and LaTeX; the first, and the names of
    the files."""
    whole = pivot_table(result, metric)
    named = {names.claim(metric): (whole, f"{metric}, mean (se)")}
    if len(result.estimators) > 1:
        for name in result.estimators:
            own = pivot_table(result, metric, estimators=[name])
            named[names.claim(metric, name)] = own, f"{metric} of {name}, mean (se)"
    for file, (frame, caption) in named.items():
        frame.to_csv(folder / f"{file}.csv", index=False)
        (folder / f"{file}.tex").write_text(latex_table(frame, caption), encoding="utf-8")
    return whole, list(named)


def heat_pictures(
    table: pd.DataFrame,
    metric: str,
    settings: Sequence[str],
    style: HeatStyle,
    names: FileNames,
) -> tuple[list[Picture], list[str]]:
    """One heat map for each combination of the settings that are not in it."""
    layout, pictures = heat_layout(table, settings), []
    found = list(pictures_of(table, layout))
    for i, (chosen, rows) in enumerate(found[:MOST_PICTURES]):
        figure = plot_heat(rows, layout, style)
        where = f" {assignments(chosen)}." if chosen else ""
        file = names.claim(style.file, metric, *number(i, found))
        pictures.append(Picture(file, figure, f"{style.caption}{where}"))
    return pictures, drawn_text(len(found), layout)


def error_pictures(
    table: pd.DataFrame, metric: str, settings: Sequence[str], names: FileNames
) -> tuple[list[Picture], list[str]]:
    """Means with two standard errors by share, or by another setting."""
    layout, pictures = line_layout(table, settings), []
    found = list(pictures_of(table, layout))
    by = f" by {layout.across}" if layout.across else ""
    for i, (chosen, rows) in enumerate(found[:MOST_PICTURES]):
        figure = plot_errors(rows, layout, metric, list(dict.fromkeys(table["estimator"])))
        where = f" {assignments(chosen)}." if chosen else ""
        caption = f"{metric}{by}, with bars of two standard errors on either side.{where}"
        pictures.append(Picture(names.claim("bars", metric, *number(i, found)), figure, caption))
    return pictures, drawn_text(len(found), layout)


def number(position: int, found: Sequence[object]) -> tuple[str, ...]:
    """The number of a picture as part of the name of its file, if it is one of several."""
    return () if len(found) == 1 else (str(position + 1),)


def drawn_text(num_found: int, layout: Layout) -> list[str]:
    """That some combinations have no picture, if so."""
    if num_found <= MOST_PICTURES:
        return []
    return [
        f"{MOST_PICTURES} of {num_found} combinations of {', '.join(layout.rest)} are drawn; the "
        "tables hold all."
    ]


def comparison_section(
    result: StudyResult, metric: str, baseline: str, folder: Path, names: FileNames
) -> Section:
    """Ratios to a baseline, or differences where ratios mean nothing."""
    table = comparison_table(result, metric, baseline)
    sheet = f"{names.claim(metric, 'compared')}.csv"
    table.to_csv(folder / sheet, index=False)
    show = shown_quantity(result, metric, table)
    is_ratio = show == "ratio"
    word = "Ratio of" if is_ratio else "Difference of"
    what = f"{word} {metric} to that of {baseline}"
    text = [
        f"{what}, on the paths where both are usable. Bold with a star: the "
        "paired difference is more than two standard errors. Where many fields are looked at, "
        "about one in twenty has a star by chance."
    ]
    digits = 3 if is_ratio else decimals_for(study_table(result)[metric])
    pictures: list[Picture] = []
    settings = varying(table, result) if len(table) else []
    if settings:
        scale = diverging_scale(table[show], 1.0 if is_ratio else 0.0)
        label = f"{show}, {metric} against {baseline}"
        caption = f"{what}. Grey: no pair of usable fits."
        style = HeatStyle(show, label, caption, show, scale, DIVERGING, digits, "differs")
        pictures, more = heat_pictures(table, metric, settings, style, names)
        text += more
    summary = comparison_summary(table, show)
    caption = f"{metric} against {baseline}: cells, and the {show} over them"
    shown = (Table(caption, summary, sheet, digits),)
    return Section(f"{metric} against {baseline}", tuple(text), tuple(pictures), shown)
