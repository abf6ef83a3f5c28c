"""Trace R^2 of factor estimators over sizes, gaps and kinds of data, like tables A1 to A4.

    python -m experiments.trace_r2 [--quick | --full] [--paths N] [--out FOLDER]

The design of Defend et al. (2021, section 4) with this project's ranges (see `FactorWorld`), so
findings are compared, not cells. The source's questions are read off its findings: what the trace
R^2 does with (i) the size of the panel, (ii) the share of missing values, (iii) the kind of data,
(iv) the numbers of factors and lags, and how the closed form compares (v) with Kalman filter and
smoother, (vi) with the one-step EM of Banbura and Modugno.
"""

import dataclasses
import itertools

import numpy as np
import pandas as pd

from experiments.monte_carlo import contrast, parse, rows, run_and_report, speed, wins
from jaxfc.factors.estimators import METRICS, factor_estimators
from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.study import Study
from jaxfc.running.study_cells import product_grid
from jaxfc.running.study_result import StudyResult

METRIC = "trace_r2"
KINDS = ("stock", "flow_average", "change_in_flow")


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid: all combinations of the sizes, then single further `(N, T, K, p)`.

    `rtol` and `max_steps` hold for all iterations; a loose tolerance is what keeps full covariances
    from overfitting.
    """

    num_series: tuple[int, ...] = (10, 35)
    num_times: tuple[int, ...] = (50, 100)
    num_factors: tuple[int, ...] = (1, 3)
    num_lags: tuple[int, ...] = (1,)
    further: tuple[tuple[int, int, int, int], ...] = (
        (35, 100, 5, 1),
        (35, 100, 3, 2),
        (75, 250, 3, 1),
    )
    missing: tuple[float, ...] = (0.0, 0.2, 0.4)
    kinds: tuple[str, ...] = KINDS
    estimators: tuple[str, ...] = ("PCA", "PPCA", "CFM", "KF/KS", "BM", "EB")
    rtol: float = 1e-2
    max_steps: int = 100
    num_paths: int = 200
    batch_size: int = 50
    seed: int = 20210208
    out: str = "trace_r2"


QUICK = Config(
    num_series=(8,),
    num_times=(40,),
    num_factors=(1,),
    further=(),
    missing=(0.0, 0.4),
    kinds=("stock", "flow_average"),
    estimators=("CFM", "KF/KS", "BM"),
    num_paths=8,
    batch_size=8,
)
FULL = Config(
    num_series=(10, 35, 75, 100),
    num_times=(50, 100, 250, 500),
    num_factors=(1, 3, 5, 7),
    num_lags=(1, 2),
    further=(),
    missing=(0.0, 0.1, 0.2, 0.3, 0.4),
    num_paths=500,
    batch_size=500,
)


def grid(config: Config) -> list[dict]:
    """Cells of stocks for every share of missing values, of flows where some are missing; factors
    at most a third of the series."""
    common = {"missing": config.missing, "flows": config.kinds}

    def wanted(cell) -> bool:
        has_gaps = cell["flows"] == "stock" or cell["missing"] > 0
        return has_gaps and 3 * cell["num_factors"] <= cell["num_series"]

    cells = product_grid(
        where=wanted,
        num_series=config.num_series,
        num_times=config.num_times,
        num_factors=config.num_factors,
        num_lags=config.num_lags,
        **common,
    )
    for n, t, k, p in config.further:
        cells += product_grid(
            where=wanted, num_series=[n], num_times=[t], num_factors=[k], num_lags=[p], **common
        )
    return cells


def answers(result: StudyResult) -> list[str]:
    """Questions (i) to (vi) in words, from the numbers."""
    table = result.table()
    paths, cells = result.config["num_paths"], len(result.config["grid"])
    head = (
        f"{cells} cells of {paths} paths. Figures are changes of the mean trace R² of CFM between "
        "cells that differ in one setting only."
    )
    return [head, sizes(table), gaps(table), kinds(table), numbers(table), engines(result),
            one_step(result), failures(table)]  # fmt: skip


def ends(table: pd.DataFrame, setting: str) -> tuple[float, float]:
    """Smallest and largest value of a setting."""
    values = table[setting].to_numpy()
    return values.min(), values.max()


def pairwise(table: pd.DataFrame, setting: str, name: str) -> str:
    """Changes between neighbouring values of a setting."""
    values = sorted(table[setting].unique())
    steps = itertools.pairwise(values)
    found = {
        f"{name} {low} to {high}: it": contrast(table, METRIC, "CFM", setting, low, high)
        for low, high in steps
    }
    texts = [change.text(what) for what, change in found.items() if change.num_pairs]
    return " ".join(texts) or f"{name}: no cells that differ in nothing else."


def sizes(table: pd.DataFrame) -> str:
    """(i)"""
    parts = pairwise(table, "num_series", "N"), pairwise(table, "num_times", "T")
    return "(i) Size of the panel. " + " ".join(parts)


def gaps(table: pd.DataFrame) -> str:
    """(ii)"""
    stocks = rows(table, table["flows"] == "stock")
    low, high = ends(stocks, "missing")
    small, large = ends(stocks, "num_series")
    text = "(ii) Missing values (stocks). " + pairwise(stocks, "missing", "Share")
    for n in (small, large):
        own = rows(stocks, stocks["num_series"] == n)
        text += " " + contrast(own, METRIC, "CFM", "missing", low, high).text(
            f"Of N = {n}, {low} to {high}: it"
        )
    return text


def kinds(table: pd.DataFrame) -> str:
    """(iii)"""
    present = [kind for kind in KINDS if kind in set(table["flows"])]
    texts = [
        contrast(table, METRIC, "CFM", "flows", "stock", kind).text(
            f"From stocks to half {kind.replace('_', ' ')}: it"
        )
        for kind in present[1:]
    ]
    return "(iii) Kind of data. " + " ".join(texts)


def numbers(table: pd.DataFrame) -> str:
    """(iv)"""
    parts = pairwise(table, "num_factors", "K"), pairwise(table, "num_lags", "p")
    return "(iv) Numbers of factors and lags. " + " ".join(parts)


def engines(result: StudyResult) -> str:
    """(v)"""
    compared = result.compare(METRIC, "CFM", "KF/KS")
    paths = result.paths.pivot(index=["cell", "path"], columns="estimator", values=METRIC)
    largest = float(np.nanmax(np.abs(paths["CFM"] - paths["KF/KS"])))
    ratio = speed(result, "KF/KS", "CFM")["ratio"].to_numpy()
    return (
        "(v) Closed form against Kalman filter and smoother. They are the same estimator: the "
        f"largest difference of a path's trace R² over {len(compared)} cells is {largest:.1e}. "
        f"KF/KS takes {np.median(ratio):.2f} times as long as CFM (median of cells; "
        f"{ratio.min():.2f} to {ratio.max():.2f})."
    )


def one_step(result: StudyResult) -> str:
    """(vi)"""
    compared = result.compare(METRIC, "CFM", "BM")
    stocks = rows(compared, compared["flows"] == "stock")
    better, worse, count = wins(stocks)
    top = stocks.iloc[int(np.argmax(stocks["difference"].to_numpy()))]
    ratio = speed(result, "BM", "CFM")
    has_gaps, of_stocks = ratio["missing"] > 0, ratio["flows"] == "stock"
    complete = np.median(rows(ratio, ~has_gaps)["ratio"])
    incomplete = np.median(rows(ratio, has_gaps & of_stocks)["ratio"])
    text = (
        "(vi) Two steps (CFM) against one (BM), stocks. CFM has the higher trace R² by more than "
        f"two standard errors in {better} of {count} cells, BM in {worse}; the largest gain of "
        f"CFM is {top['difference']:.4f} ({top['difference_se']:.4f}) at N = {top['num_series']}, "
        f"T = {top['num_times']}, K = {top['num_factors']}, p = {top['num_lags']}, missing "
        f"{top['missing']}. A fit of BM takes {complete:.2f} times as long as one of CFM "
        f"on complete panels (median), {incomplete:.2f} times with gaps; the source "
        "reports 5.5 and 3.3 to 3.7. Here BM reads N series by two matrix products, whatever "
        "algorithm gives the factors' moments, so a step costs no more than one of CFM, which "
        "takes many more of them."
    )
    flows = rows(compared, compared["flows"] != "stock")
    if len(flows):
        better, worse, count = wins(flows)
        text += f" With flows CFM is better in {better} of {count} cells, BM in {worse}."
    return text


def failures(table: pd.DataFrame) -> str:
    """Failed fits by estimator."""
    parts = []
    for name in table["estimator"].unique():
        own = rows(table, table["estimator"] == name)
        failed, stopped, paths = (
            int(own[column].to_numpy().sum())
            for column in ("num_failed", "num_stopped", "num_paths")
        )
        if failed or stopped:
            parts.append(f"{name} {failed} failed and {stopped} stopped at the bound of {paths}")
    return "Failed fits. " + ("; ".join(parts) + "." if parts else "None.")


def run(config: Config) -> StudyResult:
    """The study, its report and its answers."""
    named = factor_estimators(config.rtol, config.max_steps)
    study = Study(
        FactorWorld,
        {name: named[name] for name in config.estimators},
        grid(config),
        METRICS,
        num_paths=config.num_paths,
        batch_size=config.batch_size,
        paths_per_chunk=max(config.batch_size, 100),
        name="Trace R² of factor estimators",
    )
    return run_and_report(study, config.seed, config.out, "BM", answers)


def main() -> None:
    """Read the command line and run."""
    run(parse(Config, QUICK, FULL, __doc__ or ""))


if __name__ == "__main__":
    main()
