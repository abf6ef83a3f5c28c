"""Tables, tests and the verdict of the study of recursion; every number is one of the run."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from experiments.m6_answers import markdown
from jaxfc.evaluation import diebold_mariano

BOUNDS = {"A": "exact Bayes filter", "B": "true moments"}
# What each pair is asked for; negative differences speak for the first.
PAIRS = (
    ("Recursion over the same net once", "recurrence, recursion", "recurrence, net once"),
    ("Recursion over the same net once", "mixer, recursion", "mixer, net once"),
    ("Recursion over the same net once", "HMM anchor, recursion", "HMM anchor, net once"),
    ("Recursion over a plain network", "recurrence, recursion", "recurrence"),
    ("Recursion over a plain network", "recurrence, recursion", "GRU"),
    ("Recursion over a plain network", "mixer, recursion", "GRU"),
    ("Recursion over a plain network", "recurrence, recursion", "MLP"),
    ("Recursion over a plain network", "recurrence, recursion", "linear"),
    ("Recursion on an anchor", "HMM anchor, recursion", "HMM anchor, recurrence"),
    ("Deep supervision", "recurrence, recursion", "recurrence, recursion, one step"),
    ("A network over EWMA", "recurrence, recursion", "EWMA"),
    ("A network over EWMA", "mixer, recursion", "EWMA"),
    ("A network over EWMA", "recurrence", "EWMA"),
    ("A network over EWMA", "GRU", "EWMA"),
    ("A network over the HMM", "recurrence, recursion", "HMM"),
    ("A network over the HMM", "GRU", "HMM"),
    ("A network on the HMM", "HMM anchor, recurrence", "HMM"),
    ("A network on the HMM", "HMM anchor, recursion", "HMM"),
    ("Distance to the exact answer", "HMM", "exact Bayes filter"),
    ("Distance to the exact answer", "HMM anchor, recurrence", "exact Bayes filter"),
)
LEVEL = 0.05
# A context that varies by less than this share of its mean square says the same of every window.
LEAST_VARIATION = 1e-4
CELL = ["world", "size", "model"]
DAILY = ["world", "size", "first", "second", "dm_better", "dm_worse"]
HEAD = """# Does recursion help to forecast?

Gaussian negative log-likelihood on the test days, nats per asset and day, lower is better: means
over {paths} simulated paths and {seeds} seeds, or fewer where a table says so. The first error is
the standard error over paths (of the mean over seeds), the seed deviation that within a path. The
gap is to the exact Bayes filter's moments in world A, to the true moments given the hidden
volatility of the same day in world B, which no forecast reaches. Models learn
from `size` days, the last quarter of them (at most {held_back}) held back for the early stopping of
the networks."""
TESTS = """## Tests

Differences of mean scores by path, the first model minus the second: negative is better for the
first. p is that of a paired t-test over paths, the p-value of the verdict that of Holm over all
pairs of the table at {level:.0%}. DM counts the paths on which a Diebold-Mariano test of the daily
losses (Bartlett) finds the first better or worse at {level:.0%}."""
THINKING = """## Does thinking help?

Score by step of supervision at test time; training used four. The last column is the mean
difference of the last step to the first, with its paired p-value over paths."""


def by_path(scores: pd.DataFrame) -> pd.Series:
    """Mean over seeds, by world, size, model and path."""
    return scores.groupby([*CELL, "path"])["score"].mean()


def summary(scores: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Means, errors and gaps of every cell, in the order of the scores."""
    means = by_path(scores)
    grouped = means.groupby(CELL)
    table = pd.DataFrame({"score": grouped.mean(), "error": grouped.sem(), "paths": grouped.size()})
    table["seeds"] = scores.groupby(CELL)["seed"].max() + 1
    within = scores.groupby([*CELL, "path"])["score"].std()
    table["seed_deviation"] = within.groupby(CELL).mean()
    bounds = [(world, size, BOUNDS[world]) for world, size, _ in table.index]
    table["gap"] = table["score"] - table["score"].reindex(bounds).to_numpy()
    collapsed = scores.assign(collapsed=scores["variation"] < LEAST_VARIATION)
    table[["diverged", "collapsed"]] = collapsed.groupby(CELL)[["diverged", "collapsed"]].sum()
    if not cells.empty:
        own = cells.drop_duplicates(CELL, keep="last").set_index(CELL)
        table[["parameters", "seconds", "device"]] = own[["parameters", "seconds", "device"]]
    return table.reset_index()


def compared(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The pairs of which both cells are there, with tests."""
    means = by_path(scores)
    lines = []
    for (world, size), _ in scores.groupby(["world", "size"]):
        there = set(means.loc[world, size].index.get_level_values(0))  # pyright: ignore
        for question, first, second in PAIRS:
            if first in there and second in there:
                gaps = means.loc[world, size, first] - means.loc[world, size, second]  # pyright: ignore
                line = {"question": question, "world": world, "size": size}
                line |= {"first": first, "second": second, **paired(gaps.to_numpy())}
                line |= daily_tests(folder, str(world), int(size), first, second)  # pyright: ignore
                lines.append(line)
    table = pd.DataFrame(lines)
    if not table.empty:
        table["p_holm"] = holm(table["p"].to_numpy())
        clear = table["p_holm"] < LEVEL
        words = np.where(table["difference"] < 0, "better", "worse")
        table["verdict"] = np.where(clear, words, "no difference shown")
    return table


def paired(gaps: np.ndarray) -> dict[str, float]:
    """Mean, standard error and paired t-test of differences by path."""
    count = len(gaps)
    error = gaps.std(ddof=1) / count**0.5 if count > 1 else np.nan
    statistic = gaps.mean() / error if count > 1 and error > 0 else np.nan
    p = 2.0 * float(stats.t.sf(abs(statistic), count - 1)) if count > 1 else np.nan
    return {"difference": gaps.mean(), "error": error, "t": statistic, "p": p, "paths": count}


def daily_tests(folder: Path, world: str, size: int, first: str, second: str) -> dict[str, float]:
    """On how many paths a Diebold-Mariano test finds the first better, or worse; kept in a file,
    since the daily losses are large and may be thrown away."""
    path = folder / "diebold_mariano.csv"
    kept = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=DAILY)
    cell = [world, size, first, second]
    known = kept[(kept[DAILY[:4]] == cell).all(axis=1)]
    if not known.empty:
        return known[DAILY[4:]].iloc[0].to_dict()
    files = [folder / "daily" / f"{file_name(world, size, name)}.npy" for name in (first, second)]
    if not all(file.exists() for file in files):
        return dict.fromkeys(DAILY[4:], np.nan)
    ours, theirs = (np.load(file).T for file in files)
    found = diebold_mariano(ours, theirs, kernel="bartlett")
    clear, sign = np.asarray(found.p_value) < LEVEL, np.sign(np.asarray(found.statistic))
    counts = [int((clear & (sign == side)).sum()) for side in (-1, 1)]
    line = pd.DataFrame([[*cell, *counts]], columns=DAILY)
    line.to_csv(path, mode="a", header=not path.exists(), index=False)
    return dict(zip(DAILY[4:], counts, strict=True))


def file_name(world: str, size: int, model: str) -> str:
    """Of a cell's daily losses."""
    return f"{world}_{size}_{model.replace(',', '').replace(' ', '_')}"


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values; NaN stays."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def thinking_table(thinking: pd.DataFrame) -> pd.DataFrame:
    """Mean score by step of supervision, and the last against the first."""
    lines = []
    for cell, own in thinking.groupby(CELL, sort=False):
        wide = own.pivot_table(index="path", columns="step", values="score")
        line = dict(zip(CELL, cell, strict=True))  # pyright: ignore[reportArgumentType]
        line |= {f"step {step}": value for step, value in wide.mean().items()}
        found = paired((wide.iloc[:, -1] - wide.iloc[:, 0]).to_numpy())
        lines.append(line | {"last minus first": found["difference"], "p": found["p"]})
    return pd.DataFrame(lines)


def write_tables(folder: Path) -> pd.DataFrame:
    """`table.csv`, `pairs.csv`, `thinking_table.csv` and `answers.md` from what was scored."""
    parts = {}
    for name in ("scores", "cells", "thinking"):
        path = folder / f"{name}.csv"
        parts[name] = pd.read_csv(path) if path.exists() else pd.DataFrame()
    table = summary(parts["scores"], parts["cells"])
    pairs = compared(parts["scores"], folder)
    curves = pd.DataFrame() if parts["thinking"].empty else thinking_table(parts["thinking"])
    for name, found in (("table", table), ("pairs", pairs), ("thinking_table", curves)):
        if not found.empty:
            found.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    (folder / "answers.md").write_text(answers(parts["scores"], table, pairs, curves))
    return table


def answers(
    scores: pd.DataFrame, table: pd.DataFrame, pairs: pd.DataFrame, curves: pd.DataFrame
) -> str:
    """The whole report, in Markdown."""
    counts = scores[["path", "seed"]].max() + 1
    text = [HEAD.format(paths=counts["path"], seeds=counts["seed"], held_back="2,000")]
    for (world, size), own in table.groupby(["world", "size"]):
        text += [f"## World {world}, {size:,} days", score_lines(own)]
    for world, own in table.groupby("world"):
        text += [f"## Learning curves, world {world}", learning_lines(own)]
    if not pairs.empty:
        text += [TESTS.format(level=LEVEL), pair_lines(pairs)]
    if not curves.empty:
        text += [THINKING, thinking_lines(curves)]
    text += ["## Verdict", *verdicts(table, pairs, curves)]
    return "\n\n".join(text) + "\n"


def score_lines(own: pd.DataFrame) -> str:
    """One line for each model, the best first."""
    heads = ["model", "parameters", "seeds", "score", "error", "seed deviation", "gap", "seconds"]
    rows = []
    for _, line in own.sort_values("score").iterrows():
        trained = pd.notna(line.get("parameters"))
        cells = [str(line["model"]), number(line.get("parameters"), ",.0f")]
        cells += [
            f"{line['seeds']}" if trained else "",
            number(line["score"], ".4f"),
            number(line["error"], ".4f"),
        ]
        cells += [number(line["seed_deviation"], ".4f"), number(line["gap"], "+.4f")]
        seconds = f"{line['seconds']:.1f} {line['device']}" if trained else ""
        rows.append([*cells, seconds])
    failed = [
        f"{line['model']}: {line[what]:.0f} {what}."
        for _, line in own.iterrows()
        for what in ("diverged", "collapsed")
        if line.get(what, 0) > 0
    ]
    return "\n\n".join([markdown(heads, rows), *failed])


def learning_lines(own: pd.DataFrame) -> str:
    """Gaps to the bound by size."""
    wide = own.pivot_table(index="model", columns="size", values="gap", sort=False)
    wide = wide[sorted(wide.columns)].sort_values(max(wide.columns))
    rows = [
        [str(model), *(number(value, "+.4f") for value in line)]
        for model, line in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return markdown(["gap to the bound", *(f"{size:,} days" for size in wide.columns)], rows)


def pair_lines(pairs: pd.DataFrame) -> str:
    """One line for each pair, world and size."""
    heads = ["question", "first", "second", "world", "days", "difference", "error", "p"]
    heads += ["Holm", "DM better, worse", "verdict"]
    rows = []
    for _, line in pairs.sort_values(["question", "first", "second", "world", "size"]).iterrows():
        cells = [str(line[name]) for name in ("question", "first", "second", "world")]
        cells += [f"{line['size']:,}", number(line["difference"], "+.4f")]
        cells += [number(line["error"], ".4f"), number(line["p"], ".1e")]
        cells += [number(line["p_holm"], ".1e")]
        cells += [f"{number(line['dm_better'], '.0f')}, {number(line['dm_worse'], '.0f')}"]
        rows.append([*cells, str(line["verdict"])])
    return markdown(heads, rows)


def thinking_lines(curves: pd.DataFrame) -> str:
    """One line for each recursion."""
    steps = [name for name in curves.columns if name.startswith("step ")]
    rows = []
    for _, line in curves.iterrows():
        cells = [str(line["model"]), str(line["world"]), f"{line['size']:,}"]
        cells += [number(line[step], ".4f") for step in steps]
        rows.append([*cells, f"{line['last minus first']:+.4f} ({number(line['p'], '.1e')})"])
    return markdown(["model", "world", "days", *steps, "last minus first"], rows)


def verdicts(table: pd.DataFrame, pairs: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """A sentence for each question, and what was asked for in advance."""
    lines = []
    if not pairs.empty:
        for question, own in pairs.groupby("question", sort=False):
            counts = own["verdict"].value_counts()
            told = ", ".join(
                f"{counts.get(word, 0)} {word}"
                for word in ("better", "worse", "no difference shown")
            )
            span = f"{own['difference'].min():+.4f} to {own['difference'].max():+.4f}"
            lines.append(f"- {question}: of {len(own)} comparisons {told}; differences {span}.")
    if not curves.empty:
        helped = ((curves["last minus first"] < 0) & (curves["p"] < LEVEL)).sum()
        hurt = ((curves["last minus first"] > 0) & (curves["p"] < LEVEL)).sum()
        lines.append(
            f"- Thinking for longer at test time: of {len(curves)} cells the last step is better "
            f"than the first at {LEVEL:.0%} in {helped}, worse in {hurt}."
        )
    return ["\n".join(lines), *gates(table, pairs)]


def gates(table: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """What was set before the run: world A, 4,000 days."""
    own = table[(table["world"] == "A") & (table["size"] == 4_000)].set_index("model")["gap"]
    lines = [
        f"- {model} within {limit} nats of the exact filter: gap {own[model]:+.4f}, "
        f"{'met' if own[model] < limit else 'not met'}."
        for model, limit in (("HMM", 0.005), ("HMM anchor, recurrence", 0.02))
        if model in own
    ]
    if not pairs.empty:
        asked = pairs[(pairs["world"] == "A") & (pairs["size"] == 4_000)]
        for _, line in asked[asked["question"] == PAIRS[0][0]].iterrows():
            met = line["difference"] <= -0.005 and line["verdict"] == "better"
            lines.append(
                f"- {line['first']} at least 0.005 better than {line['second']}: "
                f"{line['difference']:+.4f}, {'met' if met else 'not met'}."
            )
    if not lines:
        return []
    return ["Set before the run, for world A and 4,000 days:", "\n".join(lines)]


def number(value: float | None, form: str) -> str:
    """Formatted, nothing for what is missing."""
    return "" if value is None or pd.isna(value) else format(value, form)
