"""How far factor estimators are from what can be attained, and what closes the distance.

    python -m experiments.estimator_gap [--quick | --full] [--paths N] [--out FOLDER]

Published estimators at two tolerances, the empirical-Bayes ones, and three bounds: all parameters
known; all but the intercepts, of which nothing or only the law is known. A part of the distance to
the first cannot be closed by who takes every mean for itself: it absorbs the mean that persistent
factors have over the panel.
"""

import dataclasses

import numpy as np
import pandas as pd

from experiments.monte_carlo import parse, rows, run_and_report, wins
from jaxfc.factors.estimators import METRICS, ModelEstimator, factor_estimators
from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.study import Study
from jaxfc.running.study_cells import product_grid
from jaxfc.running.study_result import StudyResult

PUBLISHED = ("CFM", "CFM tight", "BM", "BM tight")
BOUNDS = ("oracle but mean", "oracle mean law", "oracle")


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid of stocks, further `(N, T, K, p)`, and other scales of the intercepts at one size.

    `rtol`: tolerance of all iterations, `tight` that of the second version of the published ones.
    """

    num_series: tuple[int, ...] = (10, 35)
    num_times: tuple[int, ...] = (50, 100)
    num_factors: tuple[int, ...] = (1, 3)
    further: tuple[tuple[int, int, int, int], ...] = ((10, 100, 3, 2), (10, 250, 3, 1))
    missing: tuple[float, ...] = (0.0, 0.2, 0.4)
    scales: tuple[float, ...] = (0.0, 5.0)
    scales_at: tuple[int, int, int, int] = (35, 100, 3, 1)
    rtol: float = 1e-2
    tight: float = 1e-3
    max_steps: int = 100
    num_paths: int = 200
    batch_size: int = 50
    seed: int = 9
    out: str = "estimator_gap"


QUICK = Config(
    num_series=(8,),
    num_times=(40,),
    num_factors=(1,),
    further=(),
    missing=(0.3,),
    scales=(),
    num_paths=16,
    batch_size=16,
    max_steps=20,
)
FULL = Config(
    num_series=(10, 35, 75, 100),
    num_times=(50, 100, 250, 500),
    num_factors=(1, 3, 5, 7),
    further=(),
    missing=(0.0, 0.1, 0.2, 0.3, 0.4),
    num_paths=500,
    batch_size=500,
)


def grid(config: Config) -> list[dict]:
    """Stocks with intercepts of scale 1, then the other scales at one size."""
    cells = product_grid(
        where=lambda cell: 3 * cell["num_factors"] <= cell["num_series"],
        num_series=config.num_series,
        num_times=config.num_times,
        num_factors=config.num_factors,
        num_lags=[1],
        missing=config.missing,
        intercept_scale=[1.0],
    )
    sized: list[tuple] = [(size, config.missing, (1.0,)) for size in config.further]
    if config.scales:
        sized.append((config.scales_at, (0.2,), config.scales))
    for (n, t, k, p), shares, scales in sized:
        cells += product_grid(
            num_series=[n],
            num_times=[t],
            num_factors=[k],
            num_lags=[p],
            missing=shares,
            intercept_scale=scales,
        )
    return cells


def estimators(config: Config) -> dict:
    """The named ones, the published ones at a tighter tolerance, and empirical Bayes on
    standardised series, which have no variance in common."""
    named = factor_estimators(config.rtol, config.max_steps)
    tight = factor_estimators(config.tight, config.max_steps)
    standardised = dataclasses.replace(named["EB"].model, standardise=True)
    order = ["PPCA", "CFM", "BM", "EM full", "EB variances", "EB", *BOUNDS]
    chosen = {name: named[name] for name in order}
    chosen |= {"CFM tight": tight["CFM"], "BM tight": tight["BM"]}
    return chosen | {"EB standardised": ModelEstimator(standardised)}


def closed(result: StudyResult, metric: str, ours: str, bound: str) -> pd.DataFrame:
    """By cell: the best published estimator, the gain over it with the standard error of the paired
    difference, the distance from it to the bound, and the share of it that is closed."""
    means = result.table().pivot(index="cell", columns="estimator", values=metric)
    published = [name for name in PUBLISHED if name in means]
    lines = []
    for cell in means.index:
        name = max(published, key=lambda name: means.loc[cell, name])
        compared = result.compare(metric, ours, name).set_index("cell").loc[cell]
        distance = means.loc[cell, bound] - means.loc[cell, name]
        lines.append(
            {
                "cell": cell,
                "best": name,
                "best_mean": means.loc[cell, name],
                "ours": means.loc[cell, ours],
                "bound": means.loc[cell, bound],
                "difference": compared["difference"],
                "difference_se": compared["difference_se"],
                "distance": distance,
                "closed": compared["difference"] / distance,
            }
        )
    return result.with_settings(pd.DataFrame(lines))


def verdict(gap: pd.DataFrame, metric: str, ours: str, bound: str) -> str:
    """The three parts of the target in words."""
    own = rows(gap, gap["intercept_scale"] == 1.0)
    _, worse, count = wins(own)
    missing = rows(own, own["missing"] >= 0.2)
    better, _, several = wins(missing)
    gain, distance = (float(np.mean(missing[name])) for name in ("difference", "distance"))
    return (
        f"{metric}, {ours} against the best published estimator of each cell, bound: {bound}. "
        f"Below it by more than two standard errors in {worse} of {count} cells; above it by more "
        f"than two in {better} of the {several} cells with 20% missing or more; over these cells "
        f"the mean gain is {gain:.4f}, the mean distance to the bound {distance:.4f}, so "
        f"{gain / distance:.0%} of the distance is closed."
    )


def scales_text(result: StudyResult) -> str:
    """What other scales of the intercepts do."""
    gap = closed(result, "trace_r2", "EB", "oracle but mean")
    others = rows(gap, gap["intercept_scale"] != 1.0).to_dict("records")
    parts = [
        f"with intercepts of scale {row['intercept_scale']} EB has {row['ours']:.4f}, "
        f"{row['best']} {row['best_mean']:.4f}, the bound without a law {row['bound']:.4f}"
        for row in others
    ]
    return "Other intercepts: " + "; ".join(parts) + "." if parts else "One scale only."


def full_text(result: StudyResult) -> str:
    """What a full covariance does to the one-step EM."""
    table = result.table()
    own = rows(table, table["estimator"] == "EM full")
    diagonal = rows(table, table["estimator"] == "BM")
    both = (part["trace_r2_demeaned"].to_numpy() for part in (diagonal, own))
    lost = np.subtract(*both)
    worst = diagonal.iloc[int(np.argmax(lost))]
    return (
        f"Full error covariance: the exact EM stays below BM by {lost.mean():.4f} of demeaned "
        f"trace R² on average, at most by {lost.max():.4f} (N = {worst['num_series']}, T = "
        f"{worst['num_times']}, K = {worst['num_factors']}, missing {worst['missing']}); "
        f"{int(own['num_failed'].to_numpy().sum())} fits failed."
    )


def units_text(result: StudyResult) -> str:
    """What EB loses where series are standardised first."""
    compared = result.compare("trace_r2", "EB standardised", "EB")
    _, worse, count = wins(compared)
    lost = -float(np.mean(compared["difference"]))
    return (
        f"Standardised series have no common error variance; EB then loses {lost:.4f} on average "
        f"(significantly in {worse} of {count} cells)."
    )


def answers(result: StudyResult) -> list[str]:
    """The gap in words, from the numbers."""
    paths, cells = result.config["num_paths"], len(result.config["grid"])
    lines = [f"{cells} cells of {paths} paths of stocks."]
    for metric, ours, bound in [
        ("trace_r2", "EB", "oracle but mean"),
        ("trace_r2", "EB", "oracle mean law"),
        ("trace_r2", "EB", "oracle"),
        ("trace_r2", "EB variances", "oracle but mean"),
        ("trace_r2_demeaned", "EB", "oracle"),
    ]:
        lines.append(verdict(closed(result, metric, ours, bound), metric, ours, bound))
    return [*lines, scales_text(result), units_text(result), full_text(result)]


def run(config: Config) -> StudyResult:
    """The study, its report, its answers, and the gap by cell."""
    study = Study(
        FactorWorld,
        estimators(config),
        grid(config),
        METRICS,
        num_paths=config.num_paths,
        batch_size=config.batch_size,
        paths_per_chunk=max(config.batch_size, 100),
        name="Distance of factor estimators to their bounds",
    )
    result = run_and_report(study, config.seed, config.out, "BM", answers)
    gap = closed(result, "trace_r2", "EB", "oracle but mean")
    gap.round(6).to_csv(f"{config.out}/gap.csv", index=False)
    return result


def main() -> None:
    """Read the command line and run."""
    run(parse(Config, QUICK, FULL, __doc__ or ""))


if __name__ == "__main__":
    main()
