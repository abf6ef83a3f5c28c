"""Reports of studies: tables, pictures and the page, for grids of any shape."""

import io
import itertools
import re

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from jaxfc.report import study_sections
from jaxfc.report.html import Section, png
from jaxfc.report.study import write_study_report
from jaxfc.report.study_figures import SEQUENTIAL, HeatStyle, plot_errors, plot_heat, plot_times
from jaxfc.report.study_layout import (
    diverging_scale,
    heat_layout,
    line_layout,
    sequential_scale,
)
from jaxfc.report.study_tables import (
    average_table,
    comparison_summary,
    comparison_table,
    count_table,
    decimals_for,
    latex_table,
    latex_text,
    number_text,
    pivot_table,
    shown_quantity,
    study_table,
    time_table,
    varying,
)
from jaxfc.running.study_cells import product_grid
from study_results import changed, failing, made_result, only_cells

pytestmark = pytest.mark.slow

SIZES = product_grid(num_times=[50, 100], num_series=[10, 35], num_lags=[1], missing=[0.0, 0.2])
GRIDS = {
    "one cell": [{"num_times": 50, "flows": "stock"}],
    "a number": product_grid(num_times=[50, 100, 250]),
    "texts": product_grid(flows=["stock", "flow_average", "change_in_flow"], law=["t", "normal"]),
    "sizes": SIZES,
    "tuples": product_grid(span=[(0.1, 0.2), (0.3, 0.9)], missing=[0.0, 0.4], wide=[True, False]),
    "defaults": [{"num_times": 50}, {"num_times": 50, "missing": 0.2}, {"num_times": 80}],
    "many": product_grid(a=[1, 2], b=[1, 2], c=[1, 2, 3], d=[1, 2], e=["x", "y"]),
}


@pytest.fixture(scope="module")
def result():
    return made_result(SIZES)


def table_and_names(result):
    table = study_table(result)
    return table, varying(table, result)


@pytest.mark.parametrize("name", GRIDS)
def test_any_grid_has_a_report(tmp_path, name):
    result = made_result(GRIDS[name], metrics=("score", "loss"))
    path = write_study_report(result, tmp_path / "report")
    page = path.read_text(encoding="utf-8")
    assert path.name == "report.html" and not re.search(r'(src|href)="https?://', page)
    assert len(re.findall("<img", page)) == len(list(path.parent.glob("*.png"))) > 0
    assert "score against plain" in page and "not complete" not in page
    table = pd.read_csv(path.parent / "table.csv")
    np.testing.assert_allclose(table.score, result.table().score, rtol=1e-14)
    for file in ("score.tex", "score-plain.csv", "loss-compared.csv", "times.csv", "times.png"):
        assert (path.parent / file).exists(), file
    # The second metric is negative: a ratio to it would mean nothing.
    kinds = {p.name.split("-")[0] + p.name.split("-")[1][:5] for p in path.parent.glob("*-*.png")}
    expected = (
        {"barsscore", "barsloss."} if name == "one cell" else {"ratioscore", "differenceloss"}
    )
    assert expected <= {re.sub(r"\..*|\d", "", kind) for kind in kinds} | kinds


def test_one_estimator_is_compared_with_nobody(tmp_path):
    page = write_study_report(made_result(SIZES, ("alone",)), tmp_path).read_text()
    assert "against" not in page and not list(tmp_path.glob("ratio*"))


def test_words_of_the_caller_come_first(tmp_path, result):
    text = ("Is the better one better? Yes: 0.1 < 0.2.", "Second.")
    own = Section("The gap", ("Own words.",))
    path = write_study_report(result, tmp_path, title="A & B", text=text, sections=(own,))
    page = path.read_text()
    parts = ["<h1>A &amp; B</h1>", "Findings", "Yes: 0.1 &lt; 0.2.", "Own words.", "What was run"]
    body = page[page.index("<body>") :]
    places = [body.rindex(part) for part in parts]
    assert places == sorted(places)
    assert "8 cells, 6 paths in each, 2 estimators." in page
    assert "In all cells: num_lags = 1." in page


def test_what_is_missing_is_said(tmp_path, result):
    part = only_cells(result, [0, 1, 2])
    page = write_study_report(part, tmp_path).read_text()
    assert "3 of 8 cells and 18 of 48 paths are there" in page and "Not complete." in page
    with pytest.raises(ValueError, match="'made' has no results yet"):
        write_study_report(changed(result, paths=result.paths.iloc[:0]), tmp_path)


def test_failures_are_counted_and_shown_as_nan(tmp_path, result):
    failed = failing(failing(result, 0, "better"), 3, "better", 2)
    counts = count_table(failed).set_index("estimator")
    assert counts.loc["better"].to_dict() == {
        "cells": 8,
        "fits": 48,
        "failed": 8,
        "stopped": 7,
        "invalid worlds": 0,
        "cells without a usable fit": 1,
        "median steps": 8.0,
    }
    assert counts.loc["plain", "failed"] == 0
    pivoted = pivot_table(failed, "score")
    first = pivoted[(pivoted.num_times == "50") & (pivoted.num_series == "10")]
    assert list(first["missing = 0"])[1] == "NaN" and "NaN &" in latex_table(pivoted)
    page = write_study_report(failed, tmp_path).read_text()
    assert "Failed fits" in page and "became NaN" in page
    assert "num_times = 50, num_series = 10, missing = 0" in page
    assert average_table(failed, "score")[1] == 7


def test_everything_may_have_failed(tmp_path, result):
    failed = result
    for cell in range(8):
        failed = failing(failed, cell, "plain")
    page = write_study_report(failed, tmp_path).read_text()
    assert "There is no cell in which every estimator has a mean." in page


def test_tables_like_those_of_a_paper(result):
    pivoted = pivot_table(result, "score", estimators=["better"])
    assert list(pivoted.columns) == ["num_times", "num_series", "missing = 0", "missing = 0.2"]
    assert list(pivoted.num_times) == ["50", "50", "100", "100"]
    row = result.table().query("cell == 3 and estimator == 'better'").iloc[0]
    assert pivoted.iloc[1]["missing = 0.2"] == f"{row.score:.3f} ({row.score_se:.3f})"
    across = pivot_table(result, "score", columns="num_series")
    heads = ["num_times", "missing", "estimator", "num_series = 10", "num_series = 35"]
    assert list(across.columns) == heads and len(across) == 8
    single = pivot_table(made_result(GRIDS["one cell"]), "score")
    assert list(single.columns) == ["estimator", "mean (se)"] and len(single) == 2
    absent = made_result(SIZES, absent=[(0, "better")])
    assert pivot_table(absent, "score")["missing = 0"].tolist().count("") == 1
    with pytest.raises(ValueError, match="no setting 'size'; it has num_times"):
        pivot_table(result, "score", columns="size")
    with pytest.raises(ValueError, match="no metric 'mse'; it has score"):
        pivot_table(result, "mse")
    with pytest.raises(ValueError, match="no estimator 'best'; it has plain, better"):
        pivot_table(result, "score", estimators=["best"])


def test_latex_is_escaped():
    assert latex_text(r"a_b & 5% {x}~^\#$") == (
        r"a\_b \& 5\% \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\#\$"
    )
    frame = pd.DataFrame({"K_F": ["1"], "missing = 0.2": ["0.5 (0.1)"]})
    assert latex_table(frame, "of\nall").splitlines() == [
        "% of all",
        r"\begin{tabular}{lr}",
        r"\hline",
        r"K\_F & missing = 0.2 \\",
        r"\hline",
        r"1 & 0.5 (0.1) \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_comparisons_are_those_of_pairs(result):
    table = comparison_table(result, "score", "plain")
    paths = result.paths
    wide = paths[paths.cell == 2].pivot(index="path", columns="estimator", values="score")
    difference = wide["better"] - wide["plain"]
    row = table.iloc[2]
    np.testing.assert_allclose(row.difference, difference.mean(), rtol=1e-12)
    np.testing.assert_allclose(row.ratio, wide["better"].mean() / wide["plain"].mean(), rtol=1e-12)
    assert row.differs and table.differs.all()
    summary = comparison_summary(table, "ratio").iloc[0]
    assert summary["above by 2 se"] == 8 and summary["below by 2 se"] == 0
    assert summary["least ratio"] == table.ratio.min()
    assert shown_quantity(result, "score", table) == "ratio"
    reverse = comparison_summary(comparison_table(result, "score", "better"), "difference").iloc[0]
    assert reverse["below by 2 se"] == 8
    one_path = comparison_table(made_result(SIZES, num_paths=1), "score", "plain")
    assert not one_path.differs.any()
    with pytest.raises(ValueError, match="no estimator 'best'"):
        comparison_table(result, "score", "best")


def test_seconds_and_their_ratios(result):
    times = time_table(result, "plain").set_index("estimator")
    assert times.loc["better", "median ms"] == pytest.approx(2.0)
    assert times.loc["better", "least ratio"] == pytest.approx(2.0)
    assert times.loc["plain", "most ratio"] == pytest.approx(1.0)


def test_unknown_names_are_refused_before_anything_is_written(tmp_path, result):
    with pytest.raises(ValueError, match="no estimator 'best'; it has plain, better"):
        write_study_report(result, tmp_path / "new", baseline="best")
    with pytest.raises(ValueError, match="no metric 'loss'; it has score"):
        write_study_report(result, tmp_path / "new", metrics=["loss"])
    assert not (tmp_path / "new").exists()


def test_pictures_have_a_bound_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(study_sections, "MOST_PICTURES", 2)
    monkeypatch.setattr(study_sections, "MOST_ROWS", 5)
    page = write_study_report(made_result(GRIDS["many"]), tmp_path).read_text()
    assert "2 of 4 combinations of" in page and len(list(tmp_path.glob("heat-score-*.png"))) == 2
    assert "The table of all 48 rows is in score.csv." in page


def test_where_settings_go(result):
    layout = heat_layout(*table_and_names(result))
    assert layout[:3] == ("num_series", "num_times", "missing") and layout.rest == ()
    lines = line_layout(*table_and_names(result))
    assert lines[:3] == ("num_series", "missing", "num_times")
    many = table_and_names(made_result(GRIDS["many"]))
    assert heat_layout(*many) == ("a", "c", "b", ("d", "e"))
    assert line_layout(*many) == ("a", "d", "c", ("b", "e"))
    texts = table_and_names(made_result(GRIDS["texts"]))
    assert heat_layout(*texts) == ("flows", "law", None, ())
    assert heat_layout(*table_and_names(made_result(GRIDS["one cell"]))) == (None, None, None, ())


def test_numbers_and_scales():
    assert [decimals_for([v]) for v in (0.957, 12.3, 1234.0, 0.0123, np.nan)] == [3, 1, 0, 4, 3]
    assert number_text(-0.0001, 3) == "0.000" and number_text(np.nan, 2) == "NaN"
    assert number_text(1.2345e9, 3) == "1.2e+09"
    assert sequential_scale([np.nan]).vmin == 0.0 and sequential_scale([2.0, 2.0]).vmax > 2.0
    scale = diverging_scale([0.9, 1.3, np.nan], 1.0)
    assert scale.vmin is not None and scale.vmax is not None
    assert scale.vmin + scale.vmax == pytest.approx(2.0) and scale.vmax > 1.2


def pictures(name):
    result = made_result(GRIDS[name], ("plain", "better", "a third estimator"))
    table, names = table_and_names(result)
    layout = heat_layout(table, names)
    style = HeatStyle("score", "score", "", "", sequential_scale(table.score), SEQUENTIAL, 3)
    yield plot_heat(table, layout, style)
    yield plot_errors(table, line_layout(table, names), "score", list(result.estimators))
    yield plot_times(table)


@pytest.mark.parametrize("name", ["a number", "texts", "sizes", "tuples", "one cell"])
def test_labels_of_pictures_do_not_overlap(name):
    for figure in pictures(name):
        pixels = matplotlib.image.imread(io.BytesIO(png(figure)), format="png")
        assert np.ptp(pixels[..., :3]) > 0.5
        figure.draw_without_rendering()
        for axes in figure.axes:
            low, high = sorted(axes.get_xlim())
            texts = [text for text in axes.get_xticklabels() if text.get_text()]
            labels = [text for text in texts if low <= text.get_position()[0] <= high]
            inside = [text.get_window_extent() for text in labels]
            assert all(box.x0 > -1 and box.y0 > -1 for box in inside)
            if all(text.get_rotation() == 0 for text in labels):
                boxes = [text.get_window_extent() for text in labels]
                assert all(a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes))
