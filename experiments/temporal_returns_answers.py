"""Tables of the study of months, weeks and days, and what they say in words."""

from typing import Any

import numpy as np
import pandas as pd

from jaxfc.evaluation import diebold_mariano


def compared(part: str, losses: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean losses against those of the base forecasts, with Diebold-Mariano."""
    benchmark, lines = losses["base"], []
    for name, own in losses.items():
        test = diebold_mariano(own.to_numpy(), benchmark.to_numpy(), kernel="bartlett")
        for column, (loss, order) in enumerate(own.columns):
            mean, base = own[loss, order].mean(), benchmark[loss, order].mean()
            difference = 100.0 * (mean / base - 1.0) if loss == "mse" else 100.0 * (mean - base)
            row = [part, loss, order, name, mean, difference]
            tested = name != "base" and loss != "floored"
            row += [float(test.statistic[column]) if tested else np.nan]
            row += [float(test.p_value[column]) if tested else np.nan, len(own)]
            lines.append(row)
    columns = ["part", "loss", "order", "method", "mean", "change", "dm", "p_value", "months"]
    return pd.DataFrame(lines, columns=pd.Index(columns))


def answers(table: pd.DataFrame) -> str:
    """What the table says, in words from the numbers."""
    lines = [
        "# Months, weeks and days of 20 stocks, reconciled",
        "",
        "Change of the mean loss against the base forecasts of the order: percent of the mean",
        "squared error, hundredths of the quasi-likelihood. DM: negative is better than base.",
        "",
    ]
    for (part, loss), rows in table.groupby(["part", "loss"], sort=False):
        title = "forecasts at the floor" if loss == "floored" else loss
        lines += [f"## {part}, {title} ({rows['months'].iloc[0]} months)", ""]
        rest = rows if loss == "floored" else rows[rows["method"] != "base"]
        if loss != "floored":
            methods = rest[rest["method"] != "zero"]
            dm = methods.loc[methods["p_value"] < 0.05, "dm"]
            lines += [
                f"Of {len(methods)} pairs of method and order {np.sum(dm < 0)} are better than the "
                f"base forecasts at 5%, {np.sum(dm > 0)} worse.",
                "",
            ]
        orders = list(dict.fromkeys(rest["order"]))
        lines += ["| method | " + " | ".join(orders) + " |", "|---" * (len(orders) + 1) + "|"]
        for name, own in rest.groupby("method", sort=False):
            lines.append(f"| {name} | " + " | ".join(map(in_words, own.itertuples())) + " |")
        lines.append("")
    return "\n".join(lines)


def in_words(row: Any) -> str:
    """A cell of the table of answers."""
    if row.loss == "floored":
        return f"{100 * row.mean:.1f}%"
    if np.isnan(row.dm):
        return "the same"
    return f"{row.change:+.2f} (DM {row.dm:+.1f}, p {row.p_value:.3f})"
