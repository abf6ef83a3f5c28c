"""Portfolio weights from a table of returns against skfolio.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_portfolio.py [--quick] [--save]

Needs the extra `data`. Simulated daily returns with three factors, 1000 rows, float64; long-only,
fully invested. Both estimate mean and covariance from the rows and then solve: ours `allocate`,
skfolio `MeanRisk.fit` and `RiskBudgeting.fit` (CVXPY with Clarabel) as a user calls them. Weights
are checked to agree before anything is timed. CPU time of warmed-up calls, in turn in one process.

Table `portfolio`: one problem. `largest_gap` is the largest difference of a weight; `excess` how
much worse our objective is than skfolio's, relative (below zero: better). Table
`portfolio_windows`: rolling windows of 250 rows, ours in one program, skfolio in a loop over
`peer_windows` of them, extrapolated.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from skfolio.optimization import MeanRisk, ObjectiveFunction, RiskBudgeting
from timing import compile_seconds, cpu_seconds, report

from jaxfc.results import is_okay
from jaxfc.trading import Limits, MeanVariance, MinimumVariance, PortfolioRule, RiskParity

jax.config.update("jax_enable_x64", True)
NUM_ROWS, WINDOW = 1000, 250
RISK_AVERSION = 10.0
LARGEST_GAP = 1e-3  # Clarabel's tolerance on the objective leaves the weights some digits
INVESTED = Limits(gross=None, net=1.0)
RULES: dict[str, PortfolioRule] = {
    "minimum variance": MinimumVariance(),
    "mean-variance": MeanVariance(RISK_AVERSION, limits=INVESTED),
    "risk parity": RiskParity(),
}


def returns(num_assets: int) -> np.ndarray:
    """Rows of returns on three factors, means that differ."""
    rng = np.random.default_rng(0)
    loadings = np.column_stack(
        [rng.uniform(0.5, 1.5, num_assets), rng.normal(size=(num_assets, 2))]
    )
    factors = rng.normal(size=(NUM_ROWS, 3)) * [0.01, 0.004, 0.004]
    own = rng.uniform(0.008, 0.02, num_assets) * rng.normal(size=(NUM_ROWS, num_assets))
    return 0.0004 * rng.normal(size=num_assets) + factors @ loadings.T + own


def peer(rule: str):
    """skfolio's estimator; its utility takes the variance itself, ours half of it."""
    if rule == "risk parity":
        return RiskBudgeting()
    if rule == "minimum variance":
        return MeanRisk(objective_function=ObjectiveFunction.MINIMIZE_RISK)
    return MeanRisk(
        objective_function=ObjectiveFunction.MAXIMIZE_UTILITY, risk_aversion=RISK_AVERSION / 2.0
    )


def objective(rule: str, weights: np.ndarray, rows: np.ndarray) -> float:
    """What the rule makes small."""
    cov = np.cov(rows.T)
    variance = float(weights @ cov @ weights)
    if rule == "minimum variance":
        return variance
    if rule == "mean-variance":
        return RISK_AVERSION / 2.0 * variance - float(weights @ rows.mean(axis=0))
    shares = weights * (cov @ weights) / variance
    return float(np.max(np.abs(shares * len(weights) - 1.0)))


def checked_gap(weights: np.ndarray, theirs: np.ndarray, rule: str) -> float:
    """The largest difference of a weight, which must be small."""
    gap = float(np.max(np.abs(weights - theirs)))
    if not gap < LARGEST_GAP:
        raise AssertionError(f"{rule}: weights differ by {gap:g}, so times compare nothing.")
    return gap


def row_of(rule: str, num_assets: int, repeats: dict) -> dict[str, object]:
    """One problem."""
    rows = returns(num_assets)
    data = jnp.asarray(rows)
    run, compiling = compile_seconds(RULES[rule].allocate, data)
    found = run(data)
    if not is_okay(found.result):
        raise AssertionError(f"{rule}: our weights were not found.")
    weights, model = np.asarray(found.weights), peer(rule)
    theirs = np.asarray(model.fit(rows).weights_)
    gap = checked_gap(weights, theirs, rule)
    ours, other = objective(rule, weights, rows), objective(rule, theirs, rows)
    taken = cpu_seconds({"ours": lambda: run(data), "peer": lambda: model.fit(rows)}, **repeats)
    return {
        "rule": rule,
        "assets": num_assets,
        "jaxfc_ms": 1e3 * taken["ours"],
        "skfolio_ms": 1e3 * taken["peer"],
        "skfolio_over_ours": taken["peer"] / taken["ours"],
        "largest_gap": gap,
        "excess": (ours - other) / abs(other),
        "steps": int(found.num_steps),
        "compile_s": compiling,
    }


def windows_row(rule: str, num_assets: int, num_windows: int, repeats: dict) -> dict[str, object]:
    """Windows that start one row after the other."""
    rows = returns(num_assets)
    data = jnp.asarray(rows)

    def one(start):
        window = jax.lax.dynamic_slice_in_dim(data, start, WINDOW)
        return RULES[rule].weights(window)

    starts = jnp.arange(num_windows)
    run, compiling = compile_seconds(lambda starts: jax.lax.map(one, starts), starts)
    weights, model = np.asarray(run(starts)), peer(rule)
    few = min(num_windows, 10)
    theirs = [model.fit(rows[i : i + WINDOW]).weights_ for i in range(few)]
    gap = checked_gap(weights[:few], np.asarray(theirs), rule)

    def loop():
        for i in range(few):
            model.fit(rows[i : i + WINDOW])

    taken = cpu_seconds({"ours": lambda: run(starts), "peer": loop}, **repeats)
    other = taken["peer"] * num_windows / few
    return {
        "rule": rule,
        "windows": num_windows,
        "assets": num_assets,
        "jaxfc_s": taken["ours"],
        "peer_windows": few,
        "skfolio_s": other,
        "skfolio_over_ours": other / taken["ours"],
        "largest_gap": gap,
        "compile_s": compiling,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write results/portfolio*.csv")
    options = parser.parse_args()
    repeats = {"num_samples": 3, "num_rounds": 1 if options.quick else 2}
    sizes = (20,) if options.quick else (20, 100, 300)
    rows = [row_of(rule, size, repeats) for rule in RULES for size in sizes]
    report("portfolio", rows, "skfolio", save=options.save)
    count = 20 if options.quick else 250
    rows = [windows_row(rule, 20, count, repeats) for rule in RULES]
    report("portfolio_windows", rows, "skfolio", save=options.save)


if __name__ == "__main__":
    main()
