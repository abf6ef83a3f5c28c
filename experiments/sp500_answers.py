"""Tables and answers of the S&P 500 study: ours beside what the source found, one by one.

Numbers of the source: Defend et al. (2021), section 6 and tables A10 to A14.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxfc
from experiments.sp500_tables import (
    LEVELS,
    interval_table,
    loss_series,
    strategy_paths,
)
from jaxfc.compose import FactorARX, Trajectories
from jaxfc.evaluation import giacomini_white, max_drawdown, sharpe_difference
from jaxfc.index_panel import TARGET, IndexPanel
from jaxfc.running import Backtest
from jaxfc.trading import WealthPath, strategy_table

WORST_WEEKS = ("2008-10-17", "2008-10-31", "2008-11-28", "2009-03-13")


class Finding(NamedTuple):
    """What the source states, what we find, and whether it holds here."""

    statement: str
    source: str
    ours: str
    holds: bool | None  # None: no statement to hold


class Results(NamedTuple):
    """What the findings are drawn from."""

    backtests: Mapping[str, Backtest]
    losses: pd.DataFrame  # squared errors, dates x forecasts
    paths: Mapping[str, Mapping[str, WealthPath]]  # by panel, by strategy
    measures: Mapping[str, pd.DataFrame]  # by panel, strategies x measures
    intervals: pd.DataFrame
    market: np.ndarray  # log returns of the index


def write_answers(
    done: Mapping[str, Backtest], data: IndexPanel, out: Path, *, window: int, seed: int
) -> Results:
    """`intervals.csv`, `strategies.csv`, `losses.csv`, `findings.csv`, `answers.md`, two pages."""
    from jaxfc.report import write_backtest_report

    results = collect(done, data, window)
    found = [finding for part in FINDINGS for finding in part(results)]
    out.mkdir(parents=True, exist_ok=True)
    results.intervals.round(6).to_csv(out / "intervals.csv", index=False)
    tables = {name: table.assign(panel=name) for name, table in results.measures.items()}
    pd.concat(tables.values()).round(6).to_csv(out / "strategies.csv", index_label="strategy")
    pd.DataFrame(found).to_csv(out / "findings.csv", index=False)
    summary = results.losses.mean().pow(0.5).rename("rmse")
    summary.round(6).to_csv(out / "losses.csv", index_label="forecast")
    (out / "answers.md").write_text("\n\n".join(answers(results, found)) + "\n")
    for name in ("all", "complete"):
        groups = {g: [s for s in of if s in done[name].series] for g, of in data.groups.items()}
        write_backtest_report(
            done[name],
            out / f"report_{name}",
            groups={g: of for g, of in groups.items() if of},
            title=f"Weekly S&P 500, panel: {name}",
        )
    return results


def collect(done: Mapping[str, Backtest], data: IndexPanel, window: int) -> Results:
    """Losses of all forecasts, wealth of all strategies, scores of all intervals."""
    first = done["all"]
    market = first.realised[:, 0, 0]
    origins = jaxfc.Rolling(window, num_origins=len(market))
    alone = data.panel.select([TARGET])
    autoregression = FactorARX(
        TARGET, None, 3, 0, intervals=Trajectories(2, coefficient_risk=False, residual_risk=False)
    )
    simple = jaxfc.backtest(autoregression, alone, origins, key=jax.random.key(0))
    losses = loss_series(done, simple, alone, origins)
    paths = {name: strategy_paths(done[name]) for name in ("all", "complete", "scaled")}
    measures = {name: strategy_table(each) for name, each in paths.items()}
    return Results(done, losses, paths, measures, interval_table(done), market)


def point_forecasts(results: Results) -> list[Finding]:
    """Root mean squared errors."""
    rmse = results.losses.mean() ** 0.5
    calm = results.losses.drop(pd.DatetimeIndex(WORST_WEEKS), errors="ignore")["all"].mean() ** 0.5
    both = f"{rmse['all']:.4f} and {rmse['complete']:.4f}"
    return [
        Finding(
            "RMSE with all series is below that with the complete ones",
            "0.0272 and 0.0292",
            both,
            bool(rmse["all"] < rmse["complete"]),
        ),
        Finding(
            "The constant forecast has a lower RMSE than ARX with all series",
            "0.0259 against 0.0272",
            f"{rmse['constant']:.4f} against {rmse['all']:.4f}",
            bool(rmse["constant"] < rmse["all"]),
        ),
        Finding(
            "ARX with all series has a lower RMSE than the random walk",
            "0.0272 against 0.0380",
            f"{rmse['all']:.4f} against {rmse['random walk']:.4f}",
            bool(rmse["all"] < rmse["random walk"]),
        ),
        Finding(
            "Without four weeks of 2008 and 2009 its RMSE is below the constant's 0.0259",
            "0.0251",
            f"{calm:.4f}",
            bool(calm < rmse["constant"]),
        ),
    ]


def conditional_ability(results: Results) -> list[Finding]:
    """Giacomini-White tests, instruments a constant and the last loss difference."""
    losses = results.losses
    cases = [("AR(3)", "p = 0.364", True), ("constant", "p = 0.355", True)]
    cases += [("complete", "no significant difference is printed", None)]
    found = []
    for name, source, equal in cases:
        tested = giacomini_white(losses["all"].to_numpy(), losses[name].to_numpy())
        text = f"S = {float(tested.statistic):.2f}, p = {float(tested.p_value):.3f}"
        share = float(tested.benchmark_share)
        text += f"; {name} is predicted to have the lower loss in {share:.0%} of weeks"
        holds = None if equal is None else bool(tested.p_value > 0.05)
        found.append(Finding(f"Giacomini-White, all series against {name}", source, text, holds))
    return found


def prediction_levels(results: Results) -> list[Finding]:
    """Strategies on prediction levels against mixes, with and without incomplete series."""
    every, complete = results.measures["all"], results.measures["complete"]
    levels = [f"PL {level:.0%}" for level in LEVELS]
    total, other = every["total_log_return"], complete["total_log_return"]
    ranges = {
        name: f"{every.loc[levels, name].min():.2%} to {every.loc[levels, name].max():.2%}"
        for name in ("omega", "max_drawdown", "expected_shortfall")
    }
    better = (every.loc[levels, "sharpe"] > complete.loc[levels, "sharpe"]).all()
    calmer = (every.loc[levels, "max_drawdown"] > complete.loc[levels, "max_drawdown"]).all()
    mix, index = every.loc["mix of PL 50%"], every.loc["buy and hold"]
    return [
        Finding(
            "PL 50 earns more than the constant mix of its mean exposure",
            "50.93% (mean exposure 51%)",
            f"{total['PL 50%']:.2%} against {mix['total_log_return']:.2%} (mean exposure "
            f"{every.loc['PL 50%', 'mean_exposure']:.0%})",
            bool(total["PL 50%"] > mix["total_log_return"]),
        ),
        Finding(
            "PL 50 earns more with the incomplete series than without",
            "50.93% against 30.22%",
            f"{total['PL 50%']:.2%} against {other['PL 50%']:.2%}",
            bool(total["PL 50%"] > other["PL 50%"]),
        ),
        Finding(
            "Every PL has a higher Sharpe ratio with the incomplete series",
            "about twice as high",
            f"weekly, PL 50: {every.loc['PL 50%', 'sharpe']:.2%} against "
            f"{complete.loc['PL 50%', 'sharpe']:.2%}",
            bool(better),
        ),
        Finding(
            "Every PL has a smaller drawdown with the incomplete series",
            "about half",
            f"PL 50: {every.loc['PL 50%', 'max_drawdown']:.2%} against "
            f"{complete.loc['PL 50%', 'max_drawdown']:.2%}",
            bool(calmer),
        ),
        Finding(
            "Omega of every PL is above that of the index",
            "121.34% to 124.94%, benchmarks at most 111.16%",
            f"{ranges['omega']}, index {index['omega']:.2%}",
            bool((every.loc[levels, "omega"] > index["omega"]).all()),
        ),
        Finding(
            "Drawdowns of PL are less than half of the index's",
            "-19.91% to -17.37%, index -56.24%",
            f"{ranges['max_drawdown']}, index {index['max_drawdown']:.2%}",
            bool((every.loc[levels, "max_drawdown"] > 0.5 * index["max_drawdown"]).all()),
        ),
        Finding("95% CVaR of PL", "-3.19% to -2.78%", ranges["expected_shortfall"], None),
        *leveraged(every),
    ]


def leveraged(every: pd.DataFrame) -> list[Finding]:
    """Leverage and short sales, in our reading of the inner term."""
    rows = [("L&S 1.5/1/-0.5", "134.92%"), ("L&S 2/1/-1", "132.39%")]
    return [
        Finding(
            f"Omega of {name} is above that of PL 50 (inner term: ours)",
            source,
            f"{every.loc[name, 'omega']:.2%} against {every.loc['PL 50%', 'omega']:.2%}",
            bool(every.loc[name, "omega"] > every.loc["PL 50%", "omega"]),
        )
        for name, source in rows
    ]


def sharpe_tests(results: Results) -> list[Finding]:
    """Ledoit-Wolf tests of Sharpe ratios of simple returns (prewhitened quadratic spectral)."""
    found = []
    paths = {name: np.expm1(path.log_returns) for name, path in results.paths["all"].items()}
    other = np.expm1(results.paths["complete"]["PL 80%"].log_returns)
    cases = [
        ("PL 80% against the index", paths["PL 80%"], paths["buy and hold"], "differs", True),
        ("PL 90% against the index", paths["PL 90%"], paths["buy and hold"], "differs", True),
        ("PL 50% against PL 80%", paths["PL 50%"], paths["PL 80%"], "no difference", False),
        ("PL 80%, all against complete series", paths["PL 80%"], other, "differs", True),
    ]
    for name, first, second, source, differs in cases:
        tested = sharpe_difference(jnp.asarray(first), jnp.asarray(second))
        text = f"difference {float(tested.difference):.4f} a week, p = {float(tested.p_value):.3f}"
        found.append(
            Finding(f"Sharpe ratio, {name}", source, text, bool(tested.p_value < 0.05) == differs)
        )
    return found


def interval_scores(results: Results) -> list[Finding]:
    """Mean interval scores and outliers."""
    table = results.intervals
    table = table[(table["period"] == "all weeks")].set_index(["intervals", "level"])
    every, complete = table.loc["all"], table.loc["complete"]
    outside = ", ".join(f"{v:.1%}" for v in every["outside"])
    return [
        Finding(
            "The mean interval score is lower with the incomplete series at every level",
            "at every level",
            "; ".join(
                f"{level:.0%}: {every.loc[level, 'MIS']:.4f} against "
                f"{complete.loc[level, 'MIS']:.4f}"
                for level in every.index
            ),
            bool((every["MIS"] < complete["MIS"]).all()),
        ),
        Finding(
            "Fewer returns fall outside than the level allows, at every level (all series)",
            "at every level",
            f"{outside} outside at 50, 60, 70, 80, 90%",
            bool((every["outside"] < every["target"]).all()),
        ),
    ]


def the_index(results: Results) -> list[Finding]:
    """What depends on the index alone."""
    drawdown = float(max_drawdown(jnp.asarray(results.market)))
    insured = results.measures["all"].loc["CPPI 2/80"]
    return [
        Finding(
            "Maximum drawdown of the index",
            "-56.24%",
            f"{drawdown:.2%}",
            f"{drawdown:.2%}" == "-56.24%",
        ),
        Finding(
            "CPPI 2/80: weekly volatility, drawdown",
            "0.93%, -23.18%",
            f"{insured['volatility']:.2%}, {insured['max_drawdown']:.2%}",
            f"{insured['volatility']:.2%}, {insured['max_drawdown']:.2%}" == "0.93%, -23.18%",
        ),
    ]


FINDINGS: tuple[Callable[[Results], list[Finding]], ...] = (
    the_index,
    point_forecasts,
    conditional_ability,
    prediction_levels,
    sharpe_tests,
    interval_scores,
)


def answers(results: Results, found: list[Finding]) -> list[str]:
    """The findings as a table, and coverage before and after calibration in words."""
    judged = [finding.holds for finding in found if finding.holds is not None]
    first = results.backtests["all"]
    lines = ["| statement | source | here | holds |", "|---|---|---|---|"]
    words = {True: "yes", False: "**no**", None: ""}
    lines += [f"| {f.statement} | {f.source} | {f.ours} | {words[f.holds]} |" for f in found]
    dates = pd.DatetimeIndex(first.dates[:, 0])
    counts = {name: int((~done.okay).sum()) for name, done in results.backtests.items()}
    failed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [
        "# Weekly S&P 500",
        f"{len(dates)} one-week forecasts, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}. "
        f"{sum(judged)} of {len(judged)} statements hold. Windows whose estimation did not "
        f"converge (kept and used): {failed}.",
        "\n".join(lines),
        *calibration_words(results.intervals),
    ]


def calibration_words(table: pd.DataFrame) -> list[str]:
    """Shares outside the 90% interval, over all weeks and in 2008 and 2009."""
    rows = table[np.isclose(table["level"], 0.9)].set_index(["intervals", "period"])
    text = []
    for name in dict.fromkeys(table["intervals"]):
        parts = [
            f"{rows.loc[(name, period), 'outside']:.1%} in {period}"
            for period in dict.fromkeys(table["period"])
            if (name, period) in rows.index and np.isfinite(rows.loc[(name, period), "outside"])
        ]
        score = rows.loc[(name, "all weeks"), "MIS"]
        text.append(f"- {name}: {', '.join(parts)}; mean interval score {score:.4f}")
    return ["Outside the 90% interval (10% is the target):", "\n".join(text)]
