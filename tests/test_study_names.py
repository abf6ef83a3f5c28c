"""Files of a study's report keep apart what names of metrics and estimators do not."""

import pandas as pd

from jaxfc.report.html import Section, Table
from jaxfc.report.study import write_study_report
from jaxfc.report.study_names import FileNames
from jaxfc.report.study_tables import pivot_table
from study_results import made_result


def test_a_name_is_given_once_in_the_order_asked_for():
    asked = [("Score (a)",), ("score [A]",), ("score a", "2"), ("score a",), ("table",), ("%",)]
    names = FileNames({"table"})
    given = [names.claim(*parts) for parts in asked]
    assert given == ["score-a", "score-a-2", "score-a-2-2", "score-a-3", "table-2", "metric"]
    again = FileNames({"table"})
    assert [again.claim(*parts) for parts in asked] == given


def test_names_with_the_same_letters_do_not_overwrite_each_other(tmp_path):
    """Two metrics, two estimators, and those that sound like a file of the report's own."""
    result = made_result(
        [{"n": 1}, {"n": 2}],
        estimators=("EM (a)", "em [A]", "compared", "em-a-2"),
        metrics=("Loss/1", "loss 1", "table", "loss 1 em a"),
    )
    mine = Section("Mine", tables=(Table("mine", pd.DataFrame({"x": [1.0]}), "loss-1.csv"),))
    page = write_study_report(result, tmp_path, sections=[mine]).read_text()
    assert pd.read_csv(tmp_path / "table.csv").equals(result.table())
    sheets = {file.stem for file in tmp_path.glob("*.csv")} - {"table", "times"}
    # Of each metric: all estimators, each by itself, the comparison.
    assert len(sheets) == 4 * (1 + 4 + 1) and "loss-1" not in sheets
    pivots = {sheet: (tmp_path / f"{sheet}.csv").read_text() for sheet in sheets}
    for metric in result.metrics:
        for name in result.estimators:
            own = pivot_table(result, metric, estimators=[name]).to_csv(index=False)
            assert own in pivots.values()
    pictures = [file.stem for file in tmp_path.glob("*.png")]
    # Of each metric: heat map, bars, ratio or difference; and seconds.
    assert len(pictures) == 4 * 3 + 1
    assert page.count("<img") >= len(pictures)
