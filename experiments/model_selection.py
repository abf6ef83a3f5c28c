"""Numbers of factors and lags chosen by Algorithm A1 for several multipliers, like tables A5 to A9.

    python -m experiments.model_selection [--quick | --full] [--paths N] [--out FOLDER]

The source's tables say which K and p are selected, and the trace R^2 of the factors of the selected
model, by multiplier m of the penalty. Its values of m but one, and its grids, are not printed: here
m is `relative` times the slope 1 / (Kmax - 1). As there, many factors are tested from a lower limit
above 1 on. Panels are those of `FactorWorld`, stocks only.

A fit is a selection: one or Kmax - min + 1 static models, then max_lags + 1 dynamic ones.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from experiments.monte_carlo import parse, run_and_report
from experiments.selector import METRICS, Range, Selector
from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.study import Study
from jaxfc.running.study_result import StudyResult

SIZES = ["num_series", "num_times", "num_factors", "num_lags"]
SHOWN = (
    "selected_factors",
    "selected_lags",
    "factors_right",
    "both_right",
    "trace_r2",
    "trace_r2_demeaned",
)
SLOPE = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid: every (N, T, K, p) with every share of missing values, and what is tested there."""

    sizes: tuple[tuple[int, int, int, int], ...] = (
        (20, 80, 2, 1),
        (35, 100, 3, 2),
        (35, 150, 5, 1),
        (60, 120, 17, 1),
    )
    missing: tuple[float, ...] = (0.0, 0.2, 0.4)
    relative: tuple[float, ...] = (0.25, 0.5, SLOPE, 2.0, 4.0)
    ranges: tuple[Range, ...] = (Range(1, 8, 2), Range(12, 20, 1))
    rtol: float = 1e-4
    static_rtol: float = 1e-3
    max_steps: int = 100
    num_paths: int = 24
    batch_size: int = 12
    seed: int = 20210208
    out: str = "model_selection"


QUICK = Config(
    sizes=((20, 60, 2, 1),),
    missing=(0.0, 0.4),
    relative=(0.25, SLOPE),
    ranges=(Range(1, 4, 1),),
    rtol=1e-3,
    num_paths=8,
    batch_size=8,
)
FULL = Config(
    sizes=tuple(
        (n, t, k, p)
        for n in (35, 75, 100)
        for t in (100, 250, 500)
        for k in (1, 3, 5, 7, 13, 15, 17)
        for p in (1, 2)
        if 3 * k <= n
    ),
    missing=(0.0, 0.1, 0.2, 0.3, 0.4),
    ranges=(Range(1, 12, 3), Range(12, 20, 3)),
    num_paths=500,
    batch_size=100,
)


def name_of(relative: float) -> str:
    """A multiplier in words."""
    return "m = slope" if relative == SLOPE else f"m = {relative:g} slope"


def make_study(config: Config) -> Study:
    """The study: one selector for each multiplier."""
    grid = [
        {**dict(zip(SIZES, sizes, strict=True)), "missing": missing}
        for sizes in config.sizes
        for missing in config.missing
    ]
    selectors = {
        name_of(relative): Selector(
            relative,
            config.ranges,
            rtol=config.rtol,
            static_rtol=config.static_rtol,
            max_steps=config.max_steps,
        )
        for relative in config.relative
    }
    return Study(
        FactorWorld,
        selectors,
        grid,
        METRICS,
        num_paths=config.num_paths,
        batch_size=config.batch_size,
        paths_per_chunk=config.batch_size,
        name="Model selection by multiplier of the penalty",
    )


def tables(result: StudyResult) -> dict[str, pd.DataFrame]:
    """One table for each multiplier: sizes down, shares of missing values across."""
    table = result.table().round(4)
    wide = {}
    for name in result.estimators:
        own = pd.DataFrame(table[table["estimator"] == name])
        pivot = own.pivot(index=SIZES, columns="missing", values=[*SHOWN, "num_failed"])
        pivot.columns = [f"{metric} at {share:g}" for metric, share in pivot.columns]
        wide[name] = pivot.reset_index()
    return wide


def usable_paths(result: StudyResult) -> pd.DataFrame:
    """Rows of valid worlds whose selection can be used."""
    return pd.DataFrame(result.paths[result.paths["world_valid"] & result.paths["is_usable"]])


def percent(values: pd.Series) -> str:
    """A share with its standard error."""
    mean, count = float(values.mean()), len(values)
    if not count:
        return "no path"
    return f"{100 * mean:.0f}% (se {100 * (mean * (1 - mean) / count) ** 0.5:.1f})"


def by_multiplier(paths: pd.DataFrame, column: str) -> str:
    """The share of a column for every multiplier."""
    groups = paths.groupby("estimator", sort=False)[column]
    return "; ".join(f"{name}: {percent(values.astype(float))}" for name, values in groups)


def answers(result: StudyResult) -> list[str]:
    """What the tables say, in words from the numbers."""
    paths = usable_paths(result)
    table = result.table()
    most, least = paths["missing"].max(), paths["missing"].min()
    head = (
        f"{len(result.settings)} cells of {result.config['num_paths']} paths. The slope is "
        "1/(Kmax - 1). Shares are over all paths of the cells named, with standard errors (se) in "
        "percentage points."
    )
    texts = [head, f"Right K, all cells. {by_multiplier(paths, 'factors_right')}."]
    for share in sorted({least, most}):
        some = pd.DataFrame(paths[paths["missing"] == share])
        texts.append(
            f"{100 * share:.0f}% missing. Right K: {by_multiplier(some, 'factors_right')}. Too "
            f"many factors: {by_multiplier(some, 'too_many')}. Too few: "
            f"{by_multiplier(some, 'too_few')}."
        )
    texts += [best_text(paths), *limit_texts(paths), lags_text(paths)]
    texts += [
        trace_text(result, "trace_r2", "Trace R²"),
        trace_text(result, "trace_r2_demeaned", "Trace R² of demeaned factors")
        + " Neither punishes a factor too many, and with gaps such a factor may turn into a "
        "constant, which the first counts as success.",
    ]
    failed, total = int(table["num_failed"].sum()), int(table["num_paths"].sum())
    stopped = int(table["num_stopped"].sum())
    texts.append(
        f"{failed} of {total} selections failed, {stopped} stopped at the bound on EM steps and "
        "count as usable."
    )
    return texts


def best_text(paths: pd.DataFrame) -> str:
    """Which multiplier is right most often, by share of missing values."""
    shares = paths.groupby(["missing", "estimator"], sort=False)["factors_right"].mean().unstack()
    parts = [
        f"{100 * float(missing):.0f}% missing: {row.idxmax()} ({100 * row.max():.0f}%)"
        for missing, row in shares.sort_index().iterrows()
    ]
    return f"Multiplier with the right K most often, by missing share. {'; '.join(parts)}."


def limit_texts(paths: pd.DataFrame) -> list[str]:
    """Mean K* of the largest K, whose tested range begins above 1 in the source too."""
    largest = paths["num_factors"].max()
    some = paths[paths["num_factors"] == largest]
    mean = some.groupby(["missing", "estimator"], sort=False)["selected_factors"].mean().unstack()
    rows = [
        f"{100 * float(missing):.0f}% missing: "
        + ", ".join(f"{name} {value:.1f}" for name, value in row.items())
        for missing, row in mean.sort_index().iterrows()
    ]
    return [f"Mean selected K where K = {largest}. " + "; ".join(rows) + "."]


def lags_text(paths: pd.DataFrame) -> str:
    """How often p is right, by both criteria, and whether a wrong K matters to it."""
    right, wrong = (paths[paths["factors_right"] == value] for value in (1.0, 0.0))
    parts = []
    for order in sorted(paths["num_lags"].unique()):
        own = paths[paths["num_lags"] == order]
        parts.append(
            f"p = {order}: {percent(own['lags_right'])} by the log-likelihood of the panel, "
            f"{percent(own['lags_right_expected'])} by equation (20), mean p* "
            f"{own['selected_lags'].mean():.2f}"
        )
    return (
        f"Right p. {'; '.join(parts)}. Where K is right: {percent(right['lags_right'])}; where it "
        f"is not: {percent(wrong['lags_right'])}."
    )


def trace_text(result: StudyResult, metric: str, what: str) -> str:
    """A trace R^2 against that at the slope, on the same paths."""
    slope, parts = name_of(SLOPE), []
    if slope not in result.estimators:
        return "The slope is not among the multipliers."
    for name in result.estimators:
        if name == slope:
            continue
        compared = result.compare(metric, name, slope)
        for missing, own in compared.groupby("missing"):
            change = own["difference"].mean()
            error = (own["difference_se"] ** 2).sum() ** 0.5 / len(own)
            share = f"{100 * float(missing):.0f}% missing"
            parts.append(f"{name}, {share}: {change:+.4f} ({error:.4f})")
    return f"{what} less that with {slope}, mean over cells (se): {'; '.join(parts)}."


def run(config: Config) -> StudyResult:
    """Compute what `config.out`/store lacks; write report, tables and answers to `config.out`."""
    baseline = name_of(SLOPE if SLOPE in config.relative else config.relative[0])
    result = run_and_report(make_study(config), config.seed, config.out, baseline, answers)
    for name, table in tables(result).items():
        words = name.removeprefix("m = ").replace(" ", "_")
        table.to_csv(Path(config.out) / f"multiplier_{words}.csv", index=False)
    return result


def main() -> None:
    """Command line."""
    run(parse(Config, QUICK, FULL, __doc__ or ""))


if __name__ == "__main__":
    main()
