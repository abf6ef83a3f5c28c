"""Tables of the study of order books in words made from the numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.order_books_forecasts import BENCHMARK, ONCE, RECURSIVE
from experiments.order_books_hawkes import PROCESSES
from jaxfc.evaluation import diebold_mariano

# R2 of the mid on best-level order-flow imbalance by clock, measured before on five minutes of the
# BTCUSDT perpetual of the same exchange and day, which is not among these recordings.
EARLIER = {0.1: 0.39, 0.5: 0.41, 1.0: 0.38, 5.0: 0.46}
ALL = "all"


def compared(scores: pd.DataFrame, case_file: Callable[..., Path]) -> pd.DataFrame:
    """Mean losses by clock, target and model, and Diebold-Mariano against the linear network.

    The losses of a case are averaged over seeds and, in the rows of "all", over the recordings of
    one time. `p once` is the p-value of the recursion against the same net once.
    """
    lines = []
    for (clock, target), rows in scores.groupby(["clock", "target"], sort=False):
        losses = {}
        for (instrument, model), own in rows.groupby(["instrument", "model"], sort=False):
            seeds = [np.load(case_file(instrument, clock, target, model, s)) for s in own["seed"]]
            losses.setdefault(model, {})[instrument] = np.mean(seeds, axis=0).astype(np.float64)
        for own in losses.values():
            own[ALL] = np.mean(list(own.values()), axis=0)
        for model, own in losses.items():
            mine = rows[rows["model"] == model]
            for instrument, cases in own.items():
                here = mine if instrument == ALL else mine[mine["instrument"] == instrument]
                by_seed = here.groupby("seed")["loss"].mean()
                line = [instrument, clock, target, model, cases.mean(), by_seed.std(), len(cases)]
                benchmark = losses[BENCHMARK][instrument]
                test = diebold_mariano(cases, benchmark, kernel="bartlett")
                line += [cases.mean() - benchmark.mean(), float(test.statistic)]
                line += [float(test.p_value), np.nan]
                if model == RECURSIVE and ONCE in losses:
                    once = diebold_mariano(cases, losses[ONCE][instrument], kernel="bartlett")
                    line[-1] = float(once.p_value)
                lines.append(line)
    columns = ["instrument", "clock", "target", "model", "loss", "seed sd", "cases"]
    return pd.DataFrame(lines, columns=pd.Index([*columns, "change", "dm", "p", "p once"]))


def answers(folder: Path) -> str:
    """What the tables in a folder say."""
    names = ("quarantine", "facts", "parameters", "hawkes", "explain", "compared")
    table = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    return "\n".join(
        [
            "# Order books: simulators, what explains moves, what forecasts",
            "",
            *recordings_text(table["quarantine"]),
            *simulators_text(table["facts"], table["parameters"]),
            *hawkes_text(table["hawkes"]),
            *explain_text(table["explain"]),
            *forecast_text(table["compared"]),
        ]
    )


def grid(table: pd.DataFrame, form: str = "{:.3g}") -> list[str]:
    """A table as Markdown; the index is the first column."""
    head = [str(table.index.name or ""), *map(str, table.columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in table.iterrows():
        cells = [one if isinstance(one, str) else number(one, form) for one in row]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return [*lines, ""]


def number(value: float, form: str) -> str:
    """A number, or nothing where there is none."""
    if np.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else form.format(value)


def recordings_text(table: pd.DataFrame) -> list[str]:
    """What was read and what was set aside."""
    rows = table.set_index("instrument")
    kept = rows.loc[:, (rows != 0).any(axis=0)].T
    minutes = table["seconds"].max() / 60.0
    return [
        f"{len(table)} recordings of {minutes:.1f} minutes: figures of these minutes, no law.",
        "P-values are for one comparison each; nothing is corrected for their number.",
        "",
        "## Recordings",
        "",
        f"Lines set aside as faulty: {int(table['lines set aside'].sum())}. Rows of the books are",
        "counted by their fault; `unknown` are those before the snapshot.",
        "",
        *grid(kept.rename_axis("")),
    ]


def simulators_text(facts: pd.DataFrame, parameters: pd.DataFrame) -> list[str]:
    """Facts of the recordings beside those of the simulators."""
    lines = ["## Simulators of books", ""]
    for row in parameters.to_dict("records"):
        name = row["instrument"]
        own = facts[facts["instrument"] == name].set_index("fact").drop(columns="instrument")
        lines += [
            f"### {name}, prices of {row['grid']} ticks",
            "",
            f"One order is {row['lots an order']:.4g} lots (queues: "
            f"{row['lots an order, queues']:.4g}); {row['traded lots explained']:.0%} of the lots "
            f"traded are explained by levels that changed. Chosen odds of the queue-reactive book: "
            f"move {row['move']:g}, redraw {row['redraw']:g}.",
            "",
            *grid(own),
        ]
        for model in own.columns[1:]:
            lines.append(miss_text(own, model))
        lines.append("")
    return lines


def miss_text(own: pd.DataFrame, model: str) -> str:
    """How far a simulator is from what was recorded, in one sentence."""
    ups = own.index.str.startswith("up after")
    gap = (own[model] - own["recorded"]).abs()
    ratio = own[model] / own["recorded"]
    moves, variance = ratio["mid moves a second"], ratio["variance of the mid a second"]
    ending = "its mid does not move"
    if gap[ups].notna().any():
        ending = f"probabilities of up-moves off by {gap[ups].mean():.2f} on average"
    return (
        f"- {model}: {moves:.2f} times the mid moves, {variance:.3f} times their variance, mean "
        f"queue {ratio['mean best queue']:.2f} times the recorded one; {ending}."
    )


def hawkes_text(table: pd.DataFrame) -> list[str]:
    """Likelihood, dispersion and residuals."""
    lines = [
        "## Hawkes processes of trades and mid moves",
        "",
        "Fitted to the first 70% of the time. `ks` is Kolmogorov-Smirnov's distance of the time-",
        "rescaled residuals from the exponential law, `p` its p-value; `after`: on the events that",
        "follow. Dispersion is the variance over the mean of counts a second.",
        "",
    ]
    for (name, process), own in table.groupby(["instrument", "process"], sort=False):
        types = dict(enumerate(PROCESSES[process]))
        shown = own.drop(columns=["instrument", "process"]).replace({"type": types})
        lines += [f"### {name}, {process}", "", *grid(shown.set_index("law"))]
        laws = own.dropna(subset=["loglik"])
        passed = laws.groupby("law", sort=False)["p"].apply(lambda p: int(np.sum(p > 0.05)))
        later = laws.groupby("law", sort=False)["loglik after"].first()
        words = ", ".join(f"{law} {passed[law]} of 2 ({later[law]:+.3f})" for law in passed.index)
        lines += [f"Residuals not refused at 5% (log-likelihood an event after): {words}.", ""]
    return lines


def explain_text(table: pd.DataFrame) -> list[str]:
    """R2 beside the figures of the earlier measurement."""
    lines = ["## What explains a move of the mid (R2)", ""]
    for clock, own in table.groupby("clock", sort=False):
        rows = own.drop(columns="clock").set_index("instrument")
        earlier = f", {EARLIER[clock]} measured before" if clock in EARLIER else ""
        lines += [f"### {clock:g} s (best flow{earlier})", "", *grid(rows)]
    nexts = [name for name in table.columns if name.endswith(", next")]
    lines += [
        f"In the same interval the flow of best quotes explains {span(table['best flow'])}, that "
        f"of five levels {span(table['flow of 5 levels'])}, signed trades "
        f"{span(table['signed trades'])}. Of the next move, the imbalance of the queues explains "
        f"{span(table['imbalance, next'])}; the best of {len(nexts)} single predictors is "
        f"{table[nexts].max().idxmax()} with {table[nexts].max().max():.3f}.",
        "",
    ]
    return lines


def span(column: pd.Series) -> str:
    """The range of a column."""
    return f"{column.min():.3f} to {column.max():.3f}"


def forecast_text(table: pd.DataFrame) -> list[str]:
    """Who beats the linear network, and whether the recursion does."""
    lines = [
        "## Forecasts of the next interval",
        "",
        "Log loss (nats), change against the linear network, Diebold-Mariano: negative is better.",
        "",
    ]
    every = table[table["instrument"] == ALL]
    for (target, clock), own in every.groupby(["target", "clock"], sort=False):
        lines += [f"### {target}, {clock:g} s ({own['cases'].iloc[0]} cases)", ""]
        shown = own.set_index("model")[["loss", "seed sd", "change", "dm", "p"]]
        lines += grid(shown, "{:.4f}")
    lines += ["## What helped and what did not", ""]
    for target, own in every.groupby("target", sort=False):
        for model in own["model"].unique():
            if model != BENCHMARK:
                lines.append(f"- {target}, {model}: {verdict(table, target, model)}")
    return [*lines, *recursion_text(every), ""]


def verdict(table: pd.DataFrame, target: str, model: str) -> str:
    """Counts of significant differences from the linear network."""
    rows = table[(table["target"] == target) & (table["model"] == model)]
    single, every = rows[rows["instrument"] != ALL], rows[rows["instrument"] == ALL]
    counts = []
    for part in (every, single):
        sure = part["p"] < 0.05
        better, worse = int(np.sum(sure & (part["dm"] < 0))), int(np.sum(sure & (part["dm"] > 0)))
        counts.append(f"better in {better} and worse in {worse} of {len(part)}")
    mean = every["change"].mean()
    return f"{counts[0]} clocks at 5% (by recording: {counts[1]}); mean change {mean:+.4f} nats."


def recursion_text(every: pd.DataFrame) -> list[str]:
    """The recursive net beside the same net once and beside the best of all."""
    lines = [""]
    for (target, clock), own in every.groupby(["target", "clock"], sort=False):
        loss = own.set_index("model")["loss"]
        words = f"- {target}, {clock:g} s: the lowest loss is that of {loss.idxmin()}"
        words += f" ({loss.min():.4f}); baselines {loss['seasonal']:.4f} (seasonal) and "
        words += f"{loss['EWMA']:.4f} (EWMA)"
        if {ONCE, RECURSIVE} <= set(loss.index):
            gap, row = loss[RECURSIVE] - loss[ONCE], own[own["model"] == RECURSIVE].iloc[0]
            words += f"; the recursion changes the same net by {gap:+.4f} nats"
            words += f" (p {row['p once']:.3f})"
        lines.append(f"{words}.")
    return lines
