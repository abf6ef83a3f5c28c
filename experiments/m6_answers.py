"""Tables and sentences of the M6 studies, in Markdown; every number is one that the run made."""

import pandas as pd

from experiments.m6_scores import COVERAGES, LOSSES

BACKTEST = """RPS: ranked probability score of quintiles, without the noise of the draws (0.16 for
equal probabilities). CRPS and the energy score are in units of each asset's root mean square
return, log scores in nats per asset of returns in these units; the joint one is that of the normal
law, where there is one. DM: Diebold and Mariano's statistic against {reference} over the origins,
the p-value in brackets; negative is better than {reference}. Coverage: share of realised returns in
central intervals."""
REPLAY = """RPS of each round as the organisers score it: all 100 assets, forecasts from what was
known at the start of the round. 0.16 is the score of equal probabilities, {winner} that of the
forecasting track's winner (published). The mean is that of rounds 1 to 12, without the pilot."""

NOT_FOUND = "nan: the rule found no weights in one of the rounds."


def backtest_answers(table: pd.DataFrame, data: str, reference: str) -> str:
    """The mean scores, the tests, and who is better."""
    count = int(table["origins"].max())
    text = [f"# Four-week returns, {data}: {count} origins", BACKTEST.format(reference=reference)]
    shown = [name for name in LOSSES if table[name].notna().any()]
    heads = ["forecaster", "origins", *shown, *COVERAGES, "CPU seconds"]
    rows = []
    for _, line in table.iterrows():
        cells = [str(line["forecaster"]), f"{line['origins']:.0f}"]
        cells += [number(line[name], 5) for name in shown]
        cells += [number(line[name], 3) for name in COVERAGES]
        rows.append([*cells, number(line["seconds"], 3)])
    text += ["## Mean scores", markdown(heads, rows), f"## Tests against {reference}"]
    rows = []
    for _, line in table[table["forecaster"] != reference].iterrows():
        cells = [test_cell(line, name) for name in shown]
        rows.append([str(line["forecaster"]), *cells])
    text.append(markdown(["forecaster", *shown], rows))
    text += [verdict(table, name, reference) for name in shown]
    return "\n\n".join(text) + "\n"


def test_cell(line: pd.Series, name: str) -> str:
    """Statistic and p-value, or nothing."""
    statistic = line.get(f"DM {name}", float("nan"))
    if pd.isna(statistic):
        return ""
    return f"{statistic:+.2f} ({line[f'p {name}']:.3f})"


def verdict(table: pd.DataFrame, name: str, reference: str) -> str:
    """Who is better and worse than the reference at 5 % by one loss."""
    if f"DM {name}" not in table:
        return f"{name}: not tested."
    tested = table[table[f"DM {name}"].notna()]
    clear = tested[tested[f"p {name}"] < 0.05]
    better = list(clear.loc[clear[f"DM {name}"] < 0, "forecaster"])
    worse = list(clear.loc[clear[f"DM {name}"] > 0, "forecaster"])
    return (
        f"{name}: better than {reference} at 5 %: {', '.join(better) or 'none'}; worse: "
        f"{', '.join(worse) or 'none'}; no difference shown: {len(tested) - len(clear)} of "
        f"{len(tested)}."
    )


def replay_answers(
    rounds: pd.DataFrame, weights: pd.DataFrame, equal: pd.DataFrame, winner: float
) -> str:
    """RPS by round, information ratios of portfolios, and those of equal weights."""
    text = ["# The M6 competition, replayed", REPLAY.format(winner=winner)]
    names = [name for name in rounds.columns if name != "round"]
    by_round = rounds.set_index("round")
    official = by_round.drop("pilot", errors="ignore")
    means, spread = official.mean(), official.std() / len(official) ** 0.5
    heads = ["forecaster", "mean RPS", "minus 0.16", "standard error", "rounds below 0.16"]
    rows = []
    for name in names:
        below = int((official[name] < 0.16 - 1e-12).sum())
        mean = float(means[name])
        rows.append([name, f"{mean:.5f}", f"{mean - 0.16:+.5f}", f"{spread[name]:.5f}", f"{below}"])
    text += ["## Ranked probability scores", markdown(heads, rows)]
    rows = [
        [str(label), *(f"{value:.5f}" for value in line)]
        for label, line in zip(by_round.index, by_round.to_numpy(), strict=True)
    ]
    text.append(markdown(["round", *names], rows))
    heads = [str(column) for column in weights.columns]
    rows = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line]
        for line in weights.to_numpy(dtype=object)
    ]
    text += ["## Information ratios of portfolios from the draws", NOT_FOUND, markdown(heads, rows)]
    rows = [[str(p), f"{ours:.10f}", f"{gap:.1e}"] for p, ours, gap in equal.to_numpy(dtype=object)]
    heads = ["period", "information ratio", "distance to the published one"]
    text += ["## Equal weights", markdown(heads, rows)]
    return "\n\n".join(text) + "\n"


def number(value: float, digits: int) -> str:
    """So many digits, nothing for NaN."""
    return "" if pd.isna(value) else f"{value:.{digits}g}"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
