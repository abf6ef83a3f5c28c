"""The report of a study: what was run, pictures and tables of every metric, seconds, failures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from jaxfc.report.html import Picture, Section, Table, write_report
from jaxfc.report.study_figures import plot_times
from jaxfc.report.study_names import FileNames
from jaxfc.report.study_sections import comparison_section, metric_section
from jaxfc.report.study_tables import (
    assignments,
    check_known,
    count_table,
    counted,
    default_columns,
    study_table,
    time_table,
    value_text,
    values_of,
    varying,
)
from jaxfc.running.study_result import StudyResult, total

OWN_FILES = ("report", "table", "times", "failures")  # whatever the metrics are called


def write_study_report(
    result: StudyResult,
    folder: str | Path,
    *,
    title: str | None = None,
    baseline: str | None = None,
    metrics: Sequence[str] | None = None,
    text: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """`report.html` in `folder`, which needs no other file, with pictures and tables beside it.

    **Arguments:** `title`, default the name of the study. `baseline`: the estimator that the others
    are compared with, default the first. `metrics`: default all. `text`: paragraphs that come
    first, such as answers generated from the numbers. `sections`: chapters of the caller after
    them.

    **Returns:** the path of the page. Tables are CSV with all digits; those in the shape of a
    paper's table (`pivot_table`) are LaTeX too. Files are named by metric and estimator, with a
    number where two names would make the same file.

    **Raises:** `ValueError` for a result without any path, and for unknown names.
    """
    if not len(result.paths):
        raise ValueError(f"the study {result.config['name']!r} has no results yet; run it first.")
    chosen = result.metrics if metrics is None else tuple(metrics)
    for metric in chosen:
        check_known(metric, result.metrics, "metric")
    against = result.estimators[0] if baseline is None else baseline
    check_known(against, result.estimators, "estimator")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    result.table().to_csv(folder / "table.csv", index=False)
    chapters = [Section("Findings", tuple(text))] if text else []
    chapters += [*sections, run_section(result)]
    given = [Path(table.file).stem for section in sections for table in section.tables]
    given += [picture.name for section in sections for picture in section.pictures]
    names = FileNames([*OWN_FILES, *(name.lower() for name in given)])
    for metric in chosen:
        chapters.append(metric_section(result, metric, folder, names))
        if len(result.estimators) > 1:
            chapters.append(comparison_section(result, metric, against, folder, names))
    chapters.append(time_section(result, against, folder))
    if len(failures := result.failures()):
        failures.to_csv(folder / "failures.csv", index=False)
        chapters.append(failure_section(result, failures))
    notes = [sentence(result.facts), "This page needs no network and no file beside it."]
    return write_report(
        folder, title or str(result.config["name"]), subtitle(result), chapters, notes
    )


def subtitle(result: StudyResult) -> str:
    """Cells, paths, estimators, and whether something is missing."""
    num_cells, num_paths = len(result.settings), int(result.config["num_paths"])
    sizes = (
        f"{counted(num_cells, 'cell')}, {counted(num_paths, 'path')} in each, "
        f"{counted(len(result.estimators), 'estimator')}."
    )
    return sizes if result.is_complete else f"{sizes} Not complete."


def sentence(facts: dict[str, object]) -> str:
    """Versions and device of the process that began the store."""
    versions = ", ".join(
        f"{name} {facts[name]}" for name in ("jaxfc", "jax", "jaxlib", "python") if name in facts
    )
    return f"Begun with {versions} on {facts.get('platform')} ({facts.get('device')})."


def run_section(result: StudyResult) -> Section:
    """Grid, sizes, device, seconds, and what failed by estimator."""
    config, notes, table = result.config, result.notes, study_table(result)
    done = result.paths.drop_duplicates(["cell", "path"])["cell"].value_counts().to_numpy(int)
    num_paths = int(config["num_paths"])
    paragraphs = []
    if not result.is_complete:
        complete = int(np.sum(done == num_paths))
        paragraphs.append(
            f"The study is not complete: {complete} of {len(result.settings)} cells and "
            f"{int(np.sum(done))} of {num_paths * len(result.settings)} paths are there. "
            "Everything below is about these; run the study again to go on."
        )
    devices, processes = sorted(set(notes["device"])), set(notes["process"])
    paragraphs.append(
        f"All estimators see the same panels: {counted(num_paths, 'path')} in every cell, "
        f"{config['batch_size']} side by side on a device, in {config['dtype']}, key "
        f"{config['key']['words']}. Computed on {', '.join(devices)} by "
        f"{counted(len(processes), 'process')}: "
        f"{duration_text(total(notes, 'seconds'))} of estimation and "
        f"{duration_text(total(notes, 'compile_seconds'))} of compilation."
    )
    paragraphs.append(
        "Means are over usable fits of valid worlds. A fit that stopped at its bound on steps is "
        "usable and counted as stopped; a failed one (diverged, not stationary, a likelihood that "
        "fell) is left out and counted, never replaced."
    )
    names = list(map(str, result.settings.columns))
    grid = pd.DataFrame(
        {
            "setting": names,
            "values": [", ".join(map(value_text, values_of(table, n))) for n in names],
        }
    )
    tables = (
        Table("The grid: combinations of these settings", grid),
        Table("Fits by estimator", count_table(result), decimals=0),
    )
    return Section("What was run", tuple(paragraphs), tables=tables)


def duration_text(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def time_section(result: StudyResult, baseline: str, folder: Path) -> Section:
    """Seconds per fit, and ratios."""
    table = study_table(result)
    times = time_table(result, baseline)
    times.to_csv(folder / "times.csv", index=False)
    across = default_columns(varying(table, result))
    text = (
        "Seconds of a whole batch divided by its fits, compilation apart: all estimators on the "
        f"same panels and devices. Ratios are to {baseline}, in the cells that both have.",
    )
    tables = [Table("Milliseconds per fit over the cells", times, "times.csv")]
    if across:
        tables.append(ratio_table(result, table, baseline, across))
    figure = plot_times(table)
    caption = "Seconds per fit: a dot for each cell, a bar at the median"
    kept = tuple(t for t in tables if len(t.frame))
    return Section("Time per fit", text, (Picture("times", figure, caption),), kept)


def ratio_table(result: StudyResult, table: pd.DataFrame, baseline: str, across: str) -> Table:
    """By estimator and value of one setting: the median ratio of seconds to the baseline."""
    seconds = table.pivot(index="cell", columns="estimator", values="seconds_per_fit")
    settings = table.drop_duplicates("cell").set_index("cell")[across].reindex(seconds.index)
    own = seconds.get(baseline)
    rows = []
    for name in result.estimators if own is not None else ():
        if name in seconds:
            ratios = (seconds[name] / own).groupby(settings).median().to_dict()
            values = {f"{across} = {value_text(v)}": ratios[v] for v in values_of(table, across)}
            rows.append({"estimator": name, **values})
    caption = f"Median ratio of seconds per fit to {baseline}, by {across}"
    return Table(caption, pd.DataFrame(rows), decimals=2)


def failure_section(result: StudyResult, failures: pd.DataFrame) -> Section:
    """Failed fits by estimator and reason, and the cells with most of them."""
    counts = ["num_failed"]
    reasons = pd.DataFrame(failures.groupby(["estimator", "message"], sort=False)[counts].sum())
    worst = pd.DataFrame(failures.groupby(["cell", "estimator"], sort=False)[counts].sum())
    worst = worst.sort_values("num_failed", ascending=False, kind="stable").head(20).reset_index()
    settings = study_table(result).drop_duplicates("cell").set_index("cell")
    names = varying(study_table(result), result)
    places = [
        assignments({name: settings.loc[cell, name] for name in names}) or "the only cell"
        for cell in worst["cell"]
    ]
    worst.insert(1, "settings", places)
    tables = (
        Table("Failed fits by reason", reasons.reset_index(), "failures.csv", decimals=0),
        Table("Cells with most failed fits (20 at most)", worst, decimals=0),
    )
    share = float(np.sum(failures["num_failed"])) / len(result.paths)
    text = (f"{100 * share:.2f}% of all fits failed.",)
    return Section("Failed fits", text, tables=tables)
