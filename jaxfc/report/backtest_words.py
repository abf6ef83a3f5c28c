"""What the numbers of a backtest say, in sentences."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxfc.report.backtest_data import OneStep
from jaxfc.report.backtest_strategies import BENCHMARK
from jaxfc.report.study_tables import counted

SIZE = 0.05  # of the tests that sentences report
LEAST_GAP = 0.01  # of Sharpe ratios a year


def comparison_sentence(row: Mapping) -> str:
    """How the squared errors compare with those of a benchmark."""
    change = 100.0 * (row["RMSE ratio"] - 1.0)
    if not np.isfinite(change):
        return f"The root mean squared error has no ratio to that of {row['benchmark']}."
    said = (
        f"The root mean squared error is {abs(change):.2f}% {'above' if change > 0 else 'below'} "
        f"that of the forecast {row['benchmark']} ({row['its RMSE']:.4g})"
    )
    p = row["p (Diebold-Mariano)"]
    if not np.isfinite(p):
        return f"{said}."
    chance = "more than chance" if p < SIZE else "no more than chance may bring"
    return f"{said}: {chance} (Diebold-Mariano, {p_text(p)})."


def coverage_sentence(step: OneStep) -> str:
    """Share outside the widest interval, whether a test objects, and at which levels one does."""
    table = step.coverage
    last, p = table.iloc[-1], table["p (Kupiec)"].to_numpy(float)
    beyond = "a gap beyond chance" if p[-1] < SIZE else "a gap that chance may bring"
    said = (
        f"{last['outside']:.1%} of {counted(step.num_cases, 'realised value')} lie outside the "
        f"{last['level']:.0%} intervals where {last['target']:.0%} should: {beyond} "
        f"(Kupiec, {p_text(p[-1])})."
    )
    clustered = table["p (Christoffersen)"].to_numpy(float)
    tests = (("coverage", p), ("coverage without clusters (Christoffersen)", clustered))
    for name, values in tests:
        levels = [f"{level:.0%}" for level in table["level"][values < SIZE]]
        said += f" Right {name} is rejected at {', '.join(levels) if levels else 'no level'}."
    return said


def sharpe_sentence(tested: pd.DataFrame) -> str:
    """Which strategies differ from buy and hold, by more than a hundredth.

    Returns that are nearly a multiple of its returns, such as a constant mix with costs, have a
    standard error near zero, so that a difference without any weight is significant.
    """
    p = tested["p (bootstrap)" if "p (bootstrap)" in tested else "p (Ledoit-Wolf)"].to_numpy(float)
    gap = tested["difference a year"].to_numpy(float)
    names = tested["strategy"].to_numpy()
    higher = names[(p < SIZE) & (gap > LEAST_GAP)]
    lower = names[(p < SIZE) & (gap < -LEAST_GAP)]
    if not len(higher) and not len(lower):
        return (
            f"No strategy has a Sharpe ratio that differs from that of {BENCHMARK} at the 5% level "
            f"by more than {LEAST_GAP} a year."
        )
    parts = [
        f"{way} for {', '.join(of)}"
        for way, of in (("higher", higher), ("lower", lower))
        if len(of)
    ]
    return f"At the 5% level the Sharpe ratio differs from that of {BENCHMARK}: {'; '.join(parts)}."


def p_text(p: float) -> str:
    """A p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
