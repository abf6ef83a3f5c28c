"""Tables of the study of the whole chain, and what they say in words from the numbers."""

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.evaluation import (
    diebold_mariano,
    max_drawdown,
    sharpe_difference,
)

BENCHMARK, WHOLE = "equal weights", "chain"
LOSSES = ("own", "equal", "joint", "realised")
LEVEL = 0.05


def compared(periods: dict[str, pd.DataFrame], per_year: float) -> pd.DataFrame:
    """A row for each method over the months that all methods have.

    Sharpe ratios against equal weights and against the chain (Ledoit and Wolf 2008), losses against
    the chain (Diebold and Mariano, Bartlett).
    """
    first = max(table["date"].iloc[0] for table in periods.values())
    common = {name: table[table["date"] >= first] for name, table in periods.items()}
    losses = {name: losses_of(table) for name, table in common.items()}
    lines = []
    for name, table in common.items():
        net = table["net"].to_numpy()
        line = {
            "method": name,
            "months": len(table),
            "first": f"{first:%Y-%m}",
            "mean": 100 * per_year * net.mean(),
            "volatility": 100 * np.sqrt(per_year) * net.std(ddof=1),
            "sharpe": np.sqrt(per_year) * net.mean() / net.std(),
            "drawdown": 100 * float(max_drawdown(jnp.log1p(jnp.asarray(net)))),
            "turnover": 100 * table["turnover"].mean(),
            "failed": int((~table["okay"].astype(bool)).sum()),
        }
        for other in (BENCHMARK, WHOLE):
            line[f"p sharpe, {other}"] = sharpe_p(net, common[other]["net"].to_numpy(), name, other)
        for loss in LOSSES:
            own, whole = losses[name][loss], losses[WHOLE][loss]
            has_none = name == BENCHMARK and loss != "realised"
            line[loss] = np.nan if has_none else own.mean()
            if name == WHOLE or has_none:
                line |= {f"dm {loss}": np.nan, f"p {loss}": np.nan}
                continue
            test = diebold_mariano(own, whole, kernel="bartlett")
            line |= {f"dm {loss}": float(test.statistic), f"p {loss}": float(test.p_value)}
        lines.append(line)
    return pd.DataFrame(lines)


def losses_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """QLIKE of the portfolio's variance, of that of equal weights, of the whole covariance (per
    stock); and what variance the portfolio had, relative to that of equal weights."""
    own = table["realised"] / table["variance"]
    equal = table["equal_realised"] / table["equal_variance"]
    return {
        "own": (own - np.log(own) - 1.0).to_numpy(),
        "equal": (equal - np.log(equal) - 1.0).to_numpy(),
        "joint": table["joint"].to_numpy(),
        "realised": (table["realised"] / table["equal_realised"]).to_numpy(),
    }


def sharpe_p(net: np.ndarray, benchmark: np.ndarray, name: str, other: str) -> float:
    """The p-value of equal Sharpe ratios; NaN of a method against itself."""
    if name == other:
        return np.nan
    return float(sharpe_difference(jnp.asarray(net), jnp.asarray(benchmark)).p_value)


def answers(table: pd.DataFrame, cost: float) -> str:
    """What the table says."""
    first, months = table["first"].iloc[0], table["months"].iloc[0]
    lines = [
        "# The whole chain against its parts, 20 US stocks",
        "",
        f"{months} months of 21 days from {first}, {1e4 * cost:.0f} basis points of the traded",
        "value as costs. Mean and volatility in per cent a year; p: equality of Sharpe ratios",
        "(Ledoit and Wolf 2008); turnover in per cent of wealth a month; failed: months in which",
        "at least one search (there is one for each stock and factor) did not end; held all the",
        "same.",
        "",
        "| method | mean | volatility | Sharpe | p, equal weights | p, chain | drawdown "
        "| turnover | failed |",
        "|---" * 9 + "|",
    ]
    for row in table.to_dict("records"):
        cells = [row["method"], f"{row['mean']:.2f}", f"{row['volatility']:.2f}"]
        cells += [f"{row['sharpe']:.3f}", number(row[f"p sharpe, {BENCHMARK}"])]
        cells += [number(row[f"p sharpe, {WHOLE}"]), f"{row['drawdown']:.1f}"]
        cells += [f"{row['turnover']:.1f}", str(row["failed"])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Forecasts of variances: QLIKE x - ln x - 1, x realised over predicted, of the portfolio",
        "itself and of equal weights; joint: (ln det V + sum r' V^-1 r) per stock. Realised: the",
        "variance of the portfolio over that of equal weights in the same month. In brackets the",
        "statistic of Diebold and Mariano against the chain and its p: negative is better.",
        "",
        "| method | QLIKE, own | QLIKE, equal weights | joint | realised |",
        "|---" * 5 + "|",
    ]
    for row in table.to_dict("records"):
        lines.append(
            f"| {row['method']} | " + " | ".join(scored(row, loss) for loss in LOSSES) + " |"
        )
    return "\n".join([*lines, "", *findings(table), ""])


def number(p_value: float) -> str:
    """A p-value, or nothing."""
    return "" if np.isnan(p_value) else f"{p_value:.3f}"


def scored(row: dict, loss: str) -> str:
    """A mean loss with its test."""
    if np.isnan(row[loss]):
        return ""
    if np.isnan(row[f"dm {loss}"]):
        return f"{row[loss]:.4f}"
    return f"{row[loss]:.4f} ({row[f'dm {loss}']:+.1f}, p {row[f'p {loss}']:.3f})"


def findings(table: pd.DataFrame) -> list[str]:
    """Sentences that follow from the table alone."""
    ranked = table.sort_values("sharpe", ascending=False)
    best = ranked.iloc[0]
    apart = table.loc[table[f"p sharpe, {BENCHMARK}"] < LEVEL, "method"]
    versus = table.loc[table[f"p sharpe, {WHOLE}"] < LEVEL, "method"]
    lines = [
        f"The highest Sharpe ratio has {best['method']} ({best['sharpe']:.3f}); different from "
        f"equal weights at 5%: {listed(apart)}; different from the chain: {listed(versus)}.",
    ]
    names = {
        "own": "QLIKE of the portfolio's own variance",
        "equal": "QLIKE of the variance of equal weights",
        "joint": "joint score of the covariance",
        "realised": "realised variance of the portfolio",
    }
    for loss, name in names.items():
        order = table.dropna(subset=[loss]).sort_values(loss)
        place = 1 + list(order["method"]).index(WHOLE)
        better = table.loc[(table[f"p {loss}"] < LEVEL) & (table[f"dm {loss}"] < 0), "method"]
        worse = table.loc[(table[f"p {loss}"] < LEVEL) & (table[f"dm {loss}"] > 0), "method"]
        lines.append(
            f"- {name}: lowest for {order['method'].iloc[0]}, the chain is number {place} of "
            f"{len(order)}; better than the chain at 5%: {listed(better)}; worse: {listed(worse)}."
        )
    return [lines[0], "", *lines[1:]]


def listed(names: pd.Series) -> str:
    """Names in words."""
    return ", ".join(names) if len(names) else "none"
