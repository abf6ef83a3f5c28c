"""The chapters of the page of a backtest; one that has nothing to show says why."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.evaluation.calibration import (
    berkowitz,
    conditional_coverage,
    pit_uniformity,
    unconditional_coverage,
)
from jaxfc.evaluation.intervals import interval_outliers, mean_interval_score, outliers
from jaxfc.evaluation.scores import mae, rmse
from jaxfc.report.backtest_data import LEVELS, OneStep
from jaxfc.report.backtest_figures import (
    families,
    plot_calibration,
    plot_drivers,
    plot_fans,
    plot_sizes,
    plot_spreads,
    plot_trading,
)
from jaxfc.report.backtest_strategies import BENCHMARK, Trading
from jaxfc.report.html import Picture, Section, Table

MEASURES = {
    "final_wealth": "wealth at the end",
    "total_log_return": "total log return",
    "mean": "mean a step",
    "volatility": "volatility a step",
    "annual_sharpe": "Sharpe ratio a year",
    "sortino": "Sortino ratio a step",
    "omega": "Omega",
    "value_at_risk": "5% quantile",
    "expected_shortfall": "mean below it",
    "max_drawdown": "largest drawdown",
    "skewness": "skewness",
    "mean_exposure": "mean exposure",
    "mean_turnover": "turnover a step",
}
COVERAGE_DIGITS = {"level": 2, "outside": 3, "target": 3, "mean interval score": 5}


def coverage_table(step: OneStep) -> pd.DataFrame:
    """By level: share outside, its target, p-values of Kupiec's and Christoffersen's tests, and the
    mean interval score."""
    rows = []
    realised = jnp.asarray(step.realised)
    for place, level in enumerate(LEVELS):
        ends = jnp.asarray(step.lower[:, place]), jnp.asarray(step.upper[:, place])
        missed, alpha = outliers(*ends, realised), 1.0 - level
        rows.append(
            {
                "level": level,
                "outside": float(interval_outliers(*ends, realised)),
                "target": alpha,
                "p (Kupiec)": float(unconditional_coverage(missed, alpha).p_value),
                "p (Christoffersen)": float(conditional_coverage(missed, alpha).p_value),
                "mean interval score": float(mean_interval_score(*ends, realised, level)),
            }
        )
    return pd.DataFrame(rows)


def summary_section(step: OneStep, units: str, messages: Sequence[str]) -> Section:
    """What was forecast, how often it failed, and how far off it was, in words."""
    realised, mean = jnp.asarray(step.realised), jnp.asarray(np.nan_to_num(step.mean))
    failed = int((~step.usable).sum())
    text = [
        f"{len(step.dates)} one-step forecasts of {step.name} ({units}), "
        f"{step.dates[0]:%Y-%m-%d} to {step.dates[-1]:%Y-%m-%d}; {step.num_cases} of them have a "
        "realised value and a usable forecast."
    ]
    if failed:
        reasons = sorted({m for m in messages if m})
        text.append(f"{failed} estimations failed and are left out: {' '.join(reasons)}")
    if step.stopped.any():
        text.append(
            f"{int(step.stopped.sum())} estimations stopped at their bound on steps and are used."
        )
    if step.num_cases:
        zero = float(rmse(jnp.zeros_like(mean), realised))
        text.append(
            f"Root mean squared error {float(rmse(mean, realised)):.5f}, mean absolute error "
            f"{float(mae(mean, realised)):.5f}; a forecast of zero has {zero:.5f} (RMSE)."
        )
        table = coverage_table(step)
        worst = table.loc[(table["outside"] - table["target"]).abs().idxmax()]
        text.append(
            f"Of the levels shown, coverage is farthest off at {worst['level']:.0%}: "
            f"{worst['outside']:.1%} of the realised values lie outside, {worst['target']:.0%} "
            "should."
        )
    return Section("Summary", tuple(text))


def interval_section(step: OneStep, units: str, folder: Path) -> Section:
    """Fan chart and coverage."""
    pictures = Picture(
        "intervals",
        plot_fans(step, units, narrow=False),
        f"Central intervals at 50 to 90% and realised values ({units})",
        alt=f"Intervals of {len(step.dates)} forecasts with what was realised; diamonds lie outside"
        " the 90% interval.",
        narrow=plot_fans(step, units, narrow=True),
    )
    if not step.num_cases:
        return Section(
            "Intervals",
            ("No forecast has a realised value, so coverage says nothing.",),
            (pictures,),
        )
    table = coverage_table(step)
    table.to_csv(folder / "coverage.csv", index=False)
    caption = (
        "Share of realised values outside the intervals; p-values of tests that it is the target "
        f"(Kupiec), and that misses do not cluster either (Christoffersen); score in {units}"
    )
    return Section(
        "Intervals", (), (pictures,), (Table(caption, table, "coverage.csv", COVERAGE_DIGITS),)
    )


def driver_section(
    drivers: pd.DataFrame | None, spreads: pd.DataFrame | None, units: str, folder: Path
) -> Section:
    """Mean forecast by driver, and the spread of its parts."""
    title = "Drivers"
    if drivers is None or spreads is None:
        return Section(
            title, ("The forecasts of this model do not come in parts (FactorARX has them).",)
        )
    drivers.to_csv(folder / "drivers.csv")
    spreads.to_csv(folder / "spreads.csv")
    last = drivers.dropna().iloc[-1:] if len(drivers.dropna()) else drivers.iloc[-1:]
    table = last.T.reset_index()
    table.columns = ["driver", f"{last.index[0]:%Y-%m-%d}"]
    pictures = (
        Picture(
            "drivers",
            plot_drivers(drivers, units, narrow=False),
            f"Mean forecast by driver, stacked ({units}); the line is their sum",
            narrow=plot_drivers(drivers, units, narrow=True),
        ),
        Picture(
            "spreads",
            plot_spreads(spreads, units, narrow=False),
            f"Standard deviation of each part over the draws ({units}): where uncertainty is from",
            narrow=plot_spreads(spreads, units, narrow=True),
        ),
    )
    tables = (Table(f"The last forecast by driver ({units})", table, "drivers.csv", 5),)
    return Section(title, (), pictures, tables)


def size_section(sizes: pd.DataFrame | None, folder: Path) -> Section:
    """Chosen sizes over time and how often each was chosen."""
    if sizes is None:
        return Section("Chosen sizes", ("The model of this backtest chooses nothing.",))
    sizes.to_csv(folder / "sizes.csv")
    counts = sizes.apply(lambda column: column.dropna().value_counts(), axis=0).fillna(0.0)
    table = pd.DataFrame(counts).sort_index().astype(int)
    table.insert(0, "number", [f"{number:g}" for number in table.index])
    picture = Picture(
        "sizes",
        plot_sizes(sizes, narrow=False),
        "What every estimation chose, by origin",
        narrow=plot_sizes(sizes, narrow=True),
    )
    caption = "How often each number was chosen"
    return Section("Chosen sizes", (), (picture,), (Table(caption, table, "sizes.csv"),))


def calibration_section(step: OneStep, units: str) -> Section:
    """Errors and probability integral transforms, with tests."""
    if step.num_cases < 2:
        return Section("Errors", ("Fewer than two errors: there is no distribution to show.",))
    transforms = jnp.asarray(step.transforms)
    tests = {
        "uniform (Pearson, 10 bins)": pit_uniformity(transforms),
        "normal scores independent N(0, 1) (Berkowitz)": berkowitz(transforms),
    }
    table = pd.DataFrame(
        [
            {"law of the transforms": name, "statistic": float(t.statistic), "p": float(t.p_value)}
            for name, t in tests.items()
        ]
    )
    picture = Picture(
        "errors",
        plot_calibration(step, units, narrow=False),
        f"Errors ({units}) and where realised values lie in their forecast laws",
        narrow=plot_calibration(step, units, narrow=True),
    )
    return Section("Errors", (), (picture,), (Table("Tests of calibration", table),))


def trading_sections(
    trading: Trading, measured: pd.DataFrame, tested: pd.DataFrame | None, folder: Path
) -> list[Section]:
    """Wealth and exposure over time; measures and tests."""
    wealth, exposure = trading.wealth(), trading.exposure()
    wealth.to_csv(folder / "wealth.csv")
    exposure.to_csv(folder / "exposure.csv")
    measured.to_csv(folder / "strategies.csv", index_label="strategy")
    groups = families(trading)
    best = measured["annual_sharpe"].idxmax()
    pictures = tuple(
        Picture(
            name,
            plot_trading(table, groups, unit=unit, narrow=False),
            caption,
            narrow=plot_trading(table, groups, unit=unit, narrow=True),
        )
        for name, table, unit, caption in (
            ("wealth", wealth, "value of 1 at the start", "Wealth of the strategies"),
            ("exposure", exposure, "share of wealth", "Share of wealth held in the asset"),
        )
    )
    text = (
        f"Costs: {trading.cost:g} of the traded value. {best} has the highest Sharpe ratio "
        f"({measured.loc[best, 'annual_sharpe']:.2f} a year; {BENCHMARK} "
        f"{measured.loc[BENCHMARK, 'annual_sharpe']:.2f}).",
    )
    shown = pd.DataFrame({label: measured[name] for name, label in MEASURES.items()})
    shown.insert(0, "strategy", shown.index)
    digits: dict[str, int] = {"mean a step": 5, "volatility a step": 5}
    tables = [Table("Measures of the strategies (log returns)", shown, "strategies.csv", digits)]
    sections = [Section("Strategies", text, pictures)]
    if tested is None:
        note = "Too few returns for tests of Sharpe ratios."
        return [*sections, Section("Measures", (note,), (), tuple(tables))]
    tested.to_csv(folder / "sharpe_tests.csv", index=False)
    caption = f"Sharpe ratios of simple returns against {BENCHMARK}, per year"
    tables.append(Table(caption, tested, "sharpe_tests.csv"))
    return [*sections, Section("Measures", (), (), tuple(tables))]
