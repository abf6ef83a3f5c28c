"""Tables, tests and the verdict of the study of recursion on stocks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from experiments.m6_answers import markdown
from experiments.recursion_answers import LEVEL, holm, number
from jaxfc.evaluation import diebold_mariano

REFERENCE = "GARCH"
# Whether the first loses less than the second.
PAIRS = (
    ("recurrence, recursion", "recurrence"),
    ("recurrence, recursion", "GRU"),
    ("EWMA anchor, recursion", "EWMA anchor, net once"),
    ("EWMA anchor, recursion", "EWMA anchor, recurrence"),
    ("EWMA anchor, recursion", "EWMA"),
    ("EWMA anchor, recurrence", "EWMA"),
    ("GARCH anchor, recursion", "GARCH anchor, net once"),
    ("GARCH anchor, recursion", "GARCH anchor, recurrence"),
    ("GARCH anchor, recursion", "GARCH"),
    ("GARCH anchor, recurrence", "GARCH"),
    ("GARCH anchor, recursion", "asymmetric GARCH"),
    ("GARCH anchor, recurrence", "asymmetric GARCH"),
)
HEAD = """# {title}: does recursion help?

{num_days:,} test days in {folds} folds, {first:%Y-%m-%d} to {last:%Y-%m-%d}; Gaussian negative
log-likelihood in nats per asset and day of returns in percent, lower is better. Networks: means
over {seeds} seeds, with the standard deviation of a seed's mean. DM: Diebold and Mariano's
statistic of the daily losses against {reference}, negative is better, and its p-value."""
TESTS = """## Pairs

Mean difference of the daily losses, the first minus the second, with the p-value of Diebold and
Mariano; the verdict is that of Holm over all lines at {level:.0%}."""


class Kept(Protocol):
    """Daily losses by seed, and the number of parameters."""

    daily: np.ndarray
    parameters: int


def write_real_tables(
    folder: Path,
    found: Mapping[str, Kept],
    dates: pd.DatetimeIndex,
    num_folds: int,
    *,
    title: str = "Stocks, one day ahead",
    reference: str = REFERENCE,
    tested: Sequence[tuple[str, str]] = PAIRS,
) -> pd.DataFrame:
    """`table.csv`, `pairs.csv` and `answers.md`."""
    table, pairs = real_table(found, reference), real_pairs(found, tested)
    table.to_csv(folder / "table.csv", index=False, float_format="%.6g")
    pairs.to_csv(folder / "pairs.csv", index=False, float_format="%.6g")
    seeds = max(len(losses.daily) for losses in found.values())
    head = HEAD.format(
        num_days=len(dates),
        folds=num_folds,
        first=dates[0],
        last=dates[-1],
        seeds=seeds,
        reference=reference,
        title=title,
    )
    text = [head, real_lines(table)]
    if not pairs.empty:
        text += [TESTS.format(level=LEVEL), real_pair_lines(pairs)]
    (folder / "answers.md").write_text("\n\n".join(text) + "\n")
    return table


def compared_daily(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Mean difference, statistic and p-value of daily losses (mean over seeds)."""
    test = diebold_mariano(ours.mean(axis=0), theirs.mean(axis=0), kernel="bartlett")
    return float(test.mean_difference), float(test.statistic), float(test.p_value)


def real_table(found: Mapping[str, Kept], reference: str) -> pd.DataFrame:
    """Mean scores, seed deviations and tests against the reference."""
    lines = []
    for name, losses in found.items():
        by_seed = losses.daily.mean(axis=1)
        line: dict[str, object] = {"model": name, "parameters": losses.parameters or np.nan}
        line |= {"score": by_seed.mean()}
        line["seed_deviation"] = by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan
        _, line["DM"], line["p"] = compared_daily(losses.daily, found[reference].daily)
        lines.append(line)
    return pd.DataFrame(lines).sort_values("score")


def real_pairs(found: Mapping[str, Kept], tested: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The pairs that are there."""
    lines = []
    for first, second in tested:
        if first in found and second in found:
            values = compared_daily(found[first].daily, found[second].daily)
            line = dict(zip(("difference", "DM", "p"), values, strict=True))
            lines.append({"first": first, "second": second, **line})
    table = pd.DataFrame(lines)
    if not table.empty:
        table["p_holm"] = holm(table["p"].to_numpy())
        words = np.where(table["difference"] < 0, "better", "worse")
        table["verdict"] = np.where(table["p_holm"] < LEVEL, words, "no difference shown")
    return table


def real_lines(table: pd.DataFrame) -> str:
    """One line for each model, the best first."""
    heads = ["model", "parameters", "score", "seed deviation", "DM", "p"]
    rows = []
    for _, line in table.iterrows():
        cells = [str(line["model"]), number(line["parameters"], ",.0f")]
        cells += [number(line["score"], ".4f"), number(line["seed_deviation"], ".4f")]
        rows.append([*cells, number(line["DM"], "+.2f"), number(line["p"], ".1e")])
    return markdown(heads, rows)


def real_pair_lines(pairs: pd.DataFrame) -> str:
    """One line for each pair."""
    heads = ["first", "second", "difference", "DM", "p", "Holm", "verdict"]
    rows = []
    for _, line in pairs.iterrows():
        cells = [str(line["first"]), str(line["second"]), number(line["difference"], "+.4f")]
        cells += [number(line["DM"], "+.2f"), number(line["p"], ".1e")]
        rows.append([*cells, number(line["p_holm"], ".1e"), str(line["verdict"])])
    return markdown(heads, rows)
