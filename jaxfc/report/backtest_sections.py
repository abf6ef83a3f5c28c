"""The chapters of the page of a backtest; one that has nothing to show says why.

What a picture shows is said in a sentence from its numbers, which is also its text for readers who
cannot see it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxfc.report.backtest_data import RISKS, OneStep
from jaxfc.report.backtest_figures import (
    families,
    plot_calibration,
    plot_drivers,
    plot_fans,
    plot_sizes,
    plot_spreads,
    plot_trading,
)
from jaxfc.report.backtest_strategies import BENCHMARK, LEAST_CASES, Trading
from jaxfc.report.backtest_tables import LEAST_PAIRS, calibration_table
from jaxfc.report.backtest_words import (
    comparison_sentence,
    coverage_sentence,
    p_text,
    sharpe_sentence,
)
from jaxfc.report.html import Picture, Section, Table
from jaxfc.report.study_tables import counted
from jaxfc.typing import Float

# Column of the CSV file -> label, factor, decimals on the page.
MEASURES = {
    "final_wealth": ("wealth at the end, start = 1", 1.0, 3),
    "annual_mean": ("mean, % a year", 100.0, 2),
    "annual_volatility": ("volatility, % a year", 100.0, 2),
    "annual_sharpe": ("Sharpe ratio a year", 1.0, 3),
    "sortino": ("Sortino ratio a step", 1.0, 3),
    "omega": ("Omega", 1.0, 3),
    "value_at_risk": ("5% quantile, % a step", 100.0, 2),
    "expected_shortfall": ("mean below it, % a step", 100.0, 2),
    "max_drawdown": ("largest drawdown, %", 100.0, 1),
    "skewness": ("skewness", 1.0, 2),
    "kurtosis": ("kurtosis, normal = 3", 1.0, 2),
    "mean_exposure": ("mean exposure, %", 100.0, 1),
    "mean_turnover": ("turnover, % of wealth a step", 100.0, 2),
}
COVERAGE_DIGITS = {"level": 2, "mean interval score": 5}
ACCURACY_DIGITS: dict[str, int] = dict.fromkeys(
    ("RMSE", "MAE", "CRPS", "MIS 90%", "its RMSE", "RMSE ratio"), 5
)


def drawn(name: str, caption: str, finding: str, plot: Callable[[bool], Figure]) -> Picture:
    """A picture for wide and for narrow screens; `finding` is what it shows, in words."""
    return Picture(name, plot(False), caption, f"{caption}. {finding}", plot(True))


def summary_section(
    step: OneStep,
    units: str,
    messages: Sequence[str],
    compared: pd.DataFrame,
    tested: pd.DataFrame | None,
) -> Section:
    """What was forecast, how often it failed, and how good it was, in words."""
    text = [
        f"{counted(len(step.dates), 'one-step forecast')} of {step.name} ({units}), "
        f"{step.dates[0]:%Y-%m-%d} to {step.dates[-1]:%Y-%m-%d}; {step.num_cases} of them have a "
        "realised value and a usable forecast."
    ]
    if not step.usable.all():
        failed = ~step.usable
        reasons = sorted({m for m, f in zip(messages, failed, strict=True) if f and m})
        number = counted(int(failed.sum()), "estimation")
        text.append(" ".join([f"{number} failed and left out.", *reasons]))
    if step.stopped.any():
        number = counted(int(step.stopped.sum()), "estimation")
        text.append(f"{number} stopped at the bound on steps; their forecasts are used.")
    if step.num_cases:
        text += [comparison_sentence(row) for row in compared.to_dict("records")]
        text.append(coverage_sentence(step))
    if tested is not None:
        text.append(sharpe_sentence(tested))
    return Section("Summary", tuple(text))


def interval_section(step: OneStep, units: str, folder: Path) -> Section:
    """Fan chart and coverage."""
    finding = coverage_sentence(step) if step.num_cases else "Nothing was realised."
    picture = drawn(
        "intervals",
        f"Central intervals at 50 to 90% and realised values ({units})",
        finding,
        lambda narrow: plot_fans(step, units, narrow=narrow),
    )
    if not step.num_cases:
        text = ("No forecast has a realised value, so coverage says nothing.",)
        return Section("Intervals", text, (picture,))
    table = step.coverage
    table.to_csv(folder / "coverage.csv", index=False)
    caption = (
        "Share of realised values outside the intervals; p-values of tests that it is the target "
        f"(Kupiec), and that misses do not cluster either (Christoffersen); score in {units}"
    )
    shown = Table(caption, table, "coverage.csv", COVERAGE_DIGITS)
    return Section("Intervals", (finding,), (picture,), (shown,))


def driver_section(
    drivers: pd.DataFrame | None, spreads: pd.DataFrame | None, units: str, folder: Path
) -> Section:
    """Mean forecast by driver, and the spread of its parts."""
    if drivers is None or spreads is None:
        text = ("The forecasts of this model do not come in parts (FactorARX has them).",)
        return Section("Drivers", text)
    drivers.to_csv(folder / "drivers.csv")
    spreads.to_csv(folder / "spreads.csv")
    known = drivers.dropna()
    if known.empty:
        return Section("Drivers", ("There is no usable forecast to take apart.",))
    # The risks have mean zero: what the draws leave of it drives nothing.
    sizes = known.drop(columns=["forecast", *RISKS]).abs().mean()
    largest = str(sizes.idxmax())
    means = spreads.dropna().mean()
    first = (
        f"The largest driver of the mean forecast is {largest}, with {sizes[largest]:.3g} in size "
        f"on average; the forecast has {known['forecast'].abs().mean():.3g}. Both risks have mean "
        "zero up to the noise of the draws."
    )
    widest = str(means.drop("forecast").idxmax())
    second = (
        f"Most uncertainty is {widest}: a standard deviation of {means[widest]:.3g} on average, of "
        f"{means['forecast']:.3g} for the whole forecast."
    )
    pictures = (
        drawn(
            "drivers",
            f"Mean forecast by driver, stacked ({units}); the line is their sum",
            first,
            lambda narrow: plot_drivers(drivers, units, narrow=narrow),
        ),
        drawn(
            "spreads",
            f"Standard deviation of each part over the draws ({units})",
            second,
            lambda narrow: plot_spreads(spreads, units, narrow=narrow),
        ),
    )
    table = pd.DataFrame({"driver": known.columns, "mean size": known.abs().mean().to_numpy()})
    table[f"{known.index[-1]:%Y-%m-%d}"] = known.iloc[-1].to_numpy()
    digits = dict.fromkeys(map(str, table.columns), 5)
    caption = f"Drivers: mean size over all forecasts, and the last forecast ({units})"
    shown = Table(caption, table, "drivers.csv", digits)
    return Section("Drivers", (f"{first} {second}",), pictures, (shown,))


def size_section(sizes: pd.DataFrame | None, folder: Path) -> Section:
    """Chosen sizes over time and how often each was chosen."""
    if sizes is None:
        return Section("Chosen sizes", ("The model of this backtest chooses nothing.",))
    sizes.to_csv(folder / "sizes.csv")
    if sizes.dropna().empty:
        return Section("Chosen sizes", ("No estimation is usable.",))
    counts = sizes.apply(lambda column: column.dropna().value_counts(), axis=0).fillna(0.0)
    table = pd.DataFrame(counts).sort_index().astype(int)
    table.insert(0, "number", [f"{number:g}" for number in table.index])
    finding = (
        "; ".join(f"{name}: {range_text(sizes[name].to_numpy(float))}" for name in sizes) + "."
    )
    picture = drawn(
        "sizes",
        "What every estimation chose, by origin",
        finding,
        lambda narrow: plot_sizes(sizes, narrow=narrow),
    )
    shown = Table("How often each number was chosen", table, "sizes.csv")
    return Section("Chosen sizes", (finding,), (picture,), (shown,))


def range_text(values: Float[np.ndarray, " origins"]) -> str:
    """The span of a size and its most frequent value."""
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    low, high, common = found[0], found[-1], found[counts.argmax()]
    return f"always {low:g}" if low == high else f"{low:g} to {high:g}, most often {common:g}"


def accuracy_section(
    step: OneStep, accuracy: pd.DataFrame, compared: pd.DataFrame, units: str, folder: Path
) -> Section:
    """Scores by horizon, comparison with benchmarks, errors, transforms with tests."""
    accuracy.to_csv(folder / "accuracy.csv", index=False)
    scores = Table(f"Scores by steps ahead ({units})", accuracy, "accuracy.csv", ACCURACY_DIGITS)
    if step.num_cases < 2:
        text = ("Fewer than two errors: there is no distribution to show.",)
        return Section("Errors", text, (), (scores,))
    compared.to_csv(folder / "benchmarks.csv", index=False)
    tests = calibration_table(step, step.num_bins)
    tests.to_csv(folder / "calibration.csv", index=False)
    errors = step.errors[np.isfinite(step.errors)]
    finding = (
        f"Errors have mean {errors.mean():.3g}, standard deviation {errors.std(ddof=1):.3g}, and "
        f"lie between {errors.min():.3g} and {errors.max():.3g}; a uniform law of the transforms "
        f"has {p_text(tests['p'].iloc[0])} (Pearson)."
    )
    picture = drawn(
        "errors",
        f"Errors ({units}) and where realised values lie in their forecast laws",
        finding,
        lambda narrow: plot_calibration(step, units, narrow=narrow),
    )
    caption = (
        "Squared errors one step ahead against benchmarks; a ratio below 1 and a negative t favour "
        f"the model. Tests need {LEAST_PAIRS} forecasts, that of Giacomini and White rolling "
        "windows"
    )
    tables = (
        scores,
        Table(caption, compared, "benchmarks.csv", ACCURACY_DIGITS),
        Table("Tests of calibration", tests, "calibration.csv"),
    )
    return Section("Errors", (finding,), (picture,), tables)


def trading_sections(
    trading: Trading, measured: pd.DataFrame, tested: pd.DataFrame | None, folder: Path
) -> list[Section]:
    """Wealth and exposure over time; measures and tests."""
    wealth, exposure = trading.wealth(), trading.exposure()
    wealth.to_csv(folder / "wealth.csv")
    exposure.to_csv(folder / "exposure.csv")
    measured.to_csv(folder / "strategies.csv", index_label="strategy")
    groups = families(trading)
    final, held = measured["final_wealth"], measured["mean_exposure"]
    rich = (
        f"1 becomes {final[BENCHMARK]:.3f} with {BENCHMARK}, at most {final.max():.3f} "
        f"({final.idxmax()}) and at least {final.min():.3f} ({final.idxmin()})."
    )
    spread = f"Mean exposures lie between {held.min():.0%} and {held.max():.0%}."
    pictures = tuple(
        drawn(
            name,
            caption,
            finding,
            lambda narrow, t=table, u=unit: plot_trading(t, groups, unit=u, narrow=narrow),
        )
        for name, table, unit, caption, finding in (
            ("wealth", wealth, "value of 1 at the start", "Wealth of the strategies", rich),
            ("exposure", 100.0 * exposure, "% of wealth", "Wealth held in the asset", spread),
        )
    )
    text = (f"Costs: {100 * trading.cost:g}% of the traded value. {rich} {spread}",)
    shown = pd.DataFrame({"strategy": measured.index})
    for name, (label, factor, _) in MEASURES.items():
        shown[label] = factor * measured[name].to_numpy(float)
    digits = {label: decimals for label, _, decimals in MEASURES.values()}
    tables = [Table("Measures of the strategies' log returns", shown, "strategies.csv", digits)]
    note = f"Tests of Sharpe ratios need {LEAST_CASES} returns and two strategies."
    if tested is not None:
        tested.to_csv(folder / "sharpe_tests.csv", index=False)
        caption = f"Sharpe ratios of simple returns in excess of cash against {BENCHMARK}, per year"
        tables.append(Table(caption, tested, "sharpe_tests.csv"))
        note = (
            f"{sharpe_sentence(tested)} A dash: returns that are a multiple of those of "
            f"{BENCHMARK}, such as a constant mix without costs, have its Sharpe ratio."
        )
    return [Section("Strategies", text, pictures), Section("Measures", (note,), (), tuple(tables))]
