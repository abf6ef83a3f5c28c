"""The Monte Carlo studies run end to end in their quick form; answers follow their numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import estimator_gap, trace_r2
from experiments.monte_carlo import contrast, wins

pytestmark = pytest.mark.slow


def test_contrasts_pair_cells_that_differ_in_one_setting():
    table = pd.DataFrame(
        {
            "estimator": ["A", "A", "A", "A", "B"],
            "num_series": [10, 35, 10, 35, 10],
            "missing": [0.0, 0.0, 0.4, 0.2, 0.0],
            "score": [0.5, 0.8, 0.3, 0.7, 0.1],
            "score_se": [0.03, 0.04, 0.01, 0.01, 0.01],
        }
    )
    found = contrast(table, "score", "A", "num_series", 10, 35)
    assert found.num_pairs == 1
    np.testing.assert_allclose([found.mean, found.se], [0.3, 0.05])
    assert found.text("It") == "It rises by 0.3000 (standard error 0.0500, 1 pairs of cells)."
    assert contrast(table, "score", "B", "num_series", 10, 35).text("It") == "It: no pair of cells."
    unsure = found._replace(mean=-0.05)
    assert "falls by 0.0500" in unsure.text("It") and "chance" in unsure.text("It")


def test_wins_need_two_standard_errors():
    compared = pd.DataFrame({"difference": [3.0, 1.9, -2.1, 0.0], "difference_se": [1.0] * 4})
    assert wins(compared) == (1, 1, 4)


def test_trace_r2(tmp_path):
    config = dataclasses.replace(trace_r2.QUICK, out=str(tmp_path))
    result = trace_r2.run(config)
    table = result.table()
    assert set(table["flows"]) == {"stock", "flow_average"}
    assert not len(table[(table["flows"] != "stock") & (table["missing"] == 0.0)])
    answers = (tmp_path / "answers.md").read_text()
    for number in ("(i)", "(ii)", "(iii)", "(iv)", "(v)", "(vi)"):
        assert f"{number} " in answers
    paths = result.paths.pivot(index=["cell", "path"], columns="estimator", values="trace_r2")
    largest = np.abs(paths["CFM"] - paths["KF/KS"]).max()
    assert f"{largest:.1e}" in answers and largest < 1e-8
    assert (tmp_path / "report.html").read_text().count("data:image/png") >= 3
    written = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(written["trace_r2"], table["trace_r2"], atol=1e-6)
    assert list(written["estimator"]) == list(table["estimator"])


@pytest.mark.slow
def test_estimator_gap(tmp_path):
    config = dataclasses.replace(estimator_gap.QUICK, out=str(tmp_path))
    result = estimator_gap.run(config)
    gap = estimator_gap.closed(result, "trace_r2", "EB", "oracle")
    means = result.table().set_index(["cell", "estimator"])["trace_r2"]
    best = max(means.loc[0, name] for name in estimator_gap.PUBLISHED)
    row = gap.iloc[0]
    assert row["best_mean"] == pytest.approx(best)
    assert row["closed"] == pytest.approx(
        (means.loc[0, "EB"] - best) / (means.loc[0, "oracle"] - best)
    )
    text = estimator_gap.verdict(gap, "trace_r2", "EB", "oracle")
    assert f"{row['closed']:.0%} of the distance is closed" in text
    assert text in (tmp_path / "answers.md").read_text()
    assert list(pd.read_csv(tmp_path / "gap.csv")["best"]) == [row["best"]]
