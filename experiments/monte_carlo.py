"""What the Monte Carlo studies share: their command line, contrasts between cells, and answers.

A contrast compares cells that differ in one setting only. Cells are drawn independently, so the
standard error of its mean follows from those of the cells.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import pandas as pd

from jaxfc.report.study import write_study_report
from jaxfc.running.study import Study
from jaxfc.running.study_result import StudyResult

SETTINGS = ("num_series", "num_times", "num_factors", "num_lags", "missing", "flows")
Configured = TypeVar("Configured")


class Contrast(NamedTuple):
    """Mean over pairs of cells of what a change of one setting does, and its standard error."""

    mean: float
    se: float
    num_pairs: int

    def text(self, what: str) -> str:
        """`what` in words: by how much, how surely, over how many pairs."""
        if not self.num_pairs:
            return f"{what}: no pair of cells."
        direction = "rises" if self.mean > 0 else "falls"
        sure = "" if abs(self.mean) > 2.0 * self.se else ", which may be chance"
        return (
            f"{what} {direction} by {abs(self.mean):.4f} (standard error {self.se:.4f}, "
            f"{self.num_pairs} pairs of cells{sure})."
        )


def contrast(
    table: pd.DataFrame, metric: str, estimator: str, setting: str, low: Any, high: Any
) -> Contrast:
    """`metric` of `estimator` at `high` less that at `low`, all other settings equal."""
    own = table[table["estimator"] == estimator]
    others = [name for name in SETTINGS if name in own and name != setting]
    columns = [*others, metric, f"{metric}_se"]
    left, right = (own.loc[own[setting] == value, columns] for value in (low, high))
    pairs = pd.DataFrame(left).merge(pd.DataFrame(right), on=others, suffixes=("_low", "_high"))
    if pairs.empty:
        return Contrast(np.nan, np.nan, 0)
    change = (pairs[f"{metric}_high"] - pairs[f"{metric}_low"]).to_numpy()
    variance = (pairs[f"{metric}_se_high"] ** 2 + pairs[f"{metric}_se_low"] ** 2).to_numpy()
    return Contrast(float(change.mean()), float(np.sqrt(variance.sum()) / len(pairs)), len(pairs))


def rows(table: pd.DataFrame, chosen: Any) -> pd.DataFrame:
    """The chosen rows, as a table of their own."""
    return pd.DataFrame(table[chosen])


def wins(compared: pd.DataFrame) -> tuple[int, int, int]:
    """In how many cells the first is better, worse, by more than two standard errors, and of how
    many."""
    difference = compared["difference"].to_numpy()
    bound = 2.0 * compared["difference_se"].to_numpy()
    return int(np.sum(difference > bound)), int(np.sum(difference < -bound)), len(compared)


def speed(result: StudyResult, slow: str, fast: str) -> pd.DataFrame:
    """By cell: seconds per fit of both, and their ratio."""
    seconds = result.timings().pivot(index="cell", columns="estimator", values="seconds_per_fit")
    both = pd.DataFrame(seconds[[slow, fast]]).dropna()
    both["ratio"] = both[slow] / both[fast]
    return result.with_settings(both.reset_index())


def parse(config: type[Configured], quick: Configured, full: Configured, doc: str) -> Configured:
    """The configuration that the command line asks for."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a few paths of the smallest cells")
    size.add_argument("--full", action="store_true", help="the full grid, for a GPU")
    parser.add_argument("--paths", type=int, help="paths in every cell")
    parser.add_argument("--out", help="folder of the store, the report and the tables")
    options = parser.parse_args()
    chosen: Any = quick if options.quick else full if options.full else config()
    if options.paths is not None:
        chosen = dataclasses.replace(chosen, num_paths=options.paths)
    if options.out is not None:
        chosen = dataclasses.replace(chosen, out=options.out)
    jax.config.update("jax_enable_x64", True)
    return chosen


def run_and_report(
    study: Study,
    seed: int,
    out: str,
    baseline: str,
    answers: Callable[[StudyResult], Sequence[str]],
) -> StudyResult:
    """Compute what is missing in `out`/store, write the report, `answers.md` and `table.csv`."""
    folder = Path(out)
    result = study.run(folder / "store", key=jax.random.key(seed))
    text = list(answers(result))
    write_study_report(result, folder, baseline=baseline, text=text)
    (folder / "answers.md").write_text("\n\n".join([f"# {study.name}", *text]) + "\n")
    rounded = result.table().round(6)
    rounded.to_csv(folder / "table.csv", index=False)
    print("\n\n".join(text))
    return result
