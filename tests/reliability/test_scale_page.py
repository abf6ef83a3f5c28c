"""The page on large runs: its Python runs, its figures are those that were measured."""

import contextlib
import csv
import io
import re
from pathlib import Path

import pytest

from test_readme import FENCE

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "scale.md").read_text()


def measured(name: str) -> list[dict[str, str]]:
    """A table of the benchmarks."""
    lines = (REPOSITORY / "benchmarks" / "results" / f"{name}.csv").read_text().splitlines()
    return list(csv.DictReader(lines[1:]))


def test_figures_of_the_page_are_those_measured():
    growth = {row["sweep"]: row for row in measured("study_growth")}
    paths, times = growth["paths"], growth["times"]
    assert f"costs {1e3 * float(paths['seconds_each']):.3f} ms" in PAGE
    assert f"log paths is {paths['log_slope']}" in PAGE
    assert f"slope is {times['log_slope']}" in PAGE
    assert f"path_seconds={float(paths['seconds_each']):.3e}".replace("e-03", "e-3") in PAGE
    peaks = [f"{float(row['rss_peak_mib']):.0f}" for row in measured("study_memory")]
    assert f"peaks of {peaks[0]}, {peaks[1]} and {peaks[2]} MiB" in PAGE


def test_tests_that_the_page_cites_exist():
    for name in re.findall(r"`((?:tests|experiments|benchmarks)/[\w/.]+)`", PAGE):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.slow
def test_blocks_run_and_print_what_is_shown():
    namespace: dict[str, object] = {"__name__": "scale.md"}
    printed = ""
    for number, (language, block) in enumerate(FENCE.findall(PAGE), start=1):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, f"docs/scale.md, block {number}", "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            assert printed == block
    assert float(namespace["each"]) < 1.0 and 10 < float(namespace["row_bytes"]) < 1000
