"""Estimation of GARCH and DCC against arch, multiarch, multigarch and pymgarch.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \\
        python benchmarks/bench_volatility.py [--quick] [--save]

Needs the extras `peers` and `data`. Simulated GARCH(1,1) and DCC(1,1) series, T = 2000. CPU seconds
of warmed-up calls, compilation apart, ours and the peers' in turn in one process; of the long ones
(`dcc`, `composite`, `rolling`) the median of `calls`.

Table `garch`: one series, and a batch of series in one call against arch in a loop (no standard
errors). Table `dcc`: both steps, full likelihood, without and with standard errors that count the
first step (multigarch has none), and what one likelihood and its gradient cost against the flops
T (N^3 / 3 + 4 N^2) of the value. Table `composite`: likelihoods of contiguous pairs. Table
`rolling`: windows of 1000 rows, ours in one program that starts from the fit to all rows.
"""

import argparse
import os

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import multiarch
import multigarch
import numpy as np
import pandas as pd
import pymgarch
from arch import arch_model
from timing import compile_seconds, cpu_seconds, report

from jaxfc.volatility import (
    DCC,
    CompositeLikelihood,
    CorrelationModel,
    VarianceModel,
    correlation_standard_errors,
)
from jaxfc.volatility.dcc import row_losses
from jaxfc.volatility.search import by_forward_mode

jax.config.update("jax_enable_x64", True)
NUM_TIMES = 2000
CALLS = {"num_samples": 3, "num_rounds": 1}  # of runs that take seconds
MOST_WITH_ERRORS = 20  # series; above, multiarch's errors are not run


def returns(num_series: int) -> np.ndarray:
    """DCC with a three-factor target, a = 0.03, b = 0.95, persistence 0.97."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(num_series, 3)) * 0.5 + 0.3
    target = loadings @ loadings.T + np.eye(num_series)
    scale = np.sqrt(np.diag(target))
    target = target / np.outer(scale, scale)
    alpha = rng.uniform(0.04, 0.1, num_series)
    quasi, product, variance, rows = target, target, np.ones(num_series), []
    for _ in range(NUM_TIMES):
        quasi = 0.02 * target + 0.03 * product + 0.95 * quasi
        scale = np.sqrt(np.diag(quasi))
        units = np.linalg.cholesky(quasi / np.outer(scale, scale)) @ rng.normal(size=num_series)
        rows.append(np.sqrt(variance) * units)
        product = np.outer(units, units)
        variance = 0.03 + alpha * rows[-1] ** 2 + (0.97 - alpha) * variance
    return np.asarray(rows)


def garch_row(num_series: int) -> dict[str, object]:
    """All series, constant mean, normal."""
    values = returns(min(num_series, 20))
    values = np.tile(values, (1, -(-num_series // values.shape[1])))[:, :num_series]
    data, observed = jnp.asarray(values), jnp.ones(values.shape, bool)
    model = VarianceModel(start="arch")
    run, seconds = compile_seconds(lambda v: model.estimate(v, observed).parameters, data)
    few = values[:, : min(num_series, 20)]

    def theirs():
        for column in few.T:
            arch_model(column, rescale=False).fit(disp="off", show_warning=False)

    def fastest():
        for column in few.T:
            multigarch.GARCH(mean="constant").fit(column)

    taken = cpu_seconds({"ours": lambda: run(data), "arch": theirs, "multigarch": fastest})
    share = num_series / few.shape[1]
    ours, arch, multi = taken["ours"], share * taken["arch"], share * taken["multigarch"]
    return {
        "series": num_series,
        "jaxfc_ms": 1e3 * ours,
        "arch_ms": 1e3 * arch,
        "multigarch_ms": 1e3 * multi,
        "arch_over_ours": arch / ours,
        "multigarch_over_ours": multi / ours,
        "compile_s": seconds,
    }


def dcc_row(num_series: int) -> dict[str, object]:
    """Both steps, and with standard errors."""
    values = returns(num_series)
    data, observed = jnp.asarray(values), jnp.ones(values.shape, bool)
    model = CorrelationModel(DCC())

    def with_errors(values):
        fitted = model.estimate(values, observed)
        return fitted.parameters, correlation_standard_errors(fitted)

    run, seconds = compile_seconds(lambda v: model.estimate(v, observed).parameters, data)
    run_errors, more_seconds = compile_seconds(with_errors, data)
    exact = multiarch.DCC(values)
    fast = multigarch.DCC(n_jobs=1, mean="constant", method="full")
    frame = pd.DataFrame(values, columns=[f"r{i}" for i in range(num_series)])
    runs = {
        "ours": lambda: run(data),
        "multiarch": lambda: exact.fit(se=None),  # pyright: ignore[reportArgumentType]
        "multigarch": lambda: fast.fit(values),
        "pymgarch": lambda: pymgarch.DCC().fit(frame, compute_se=False),
        "errors": lambda: run_errors(data),
    }
    if num_series <= MOST_WITH_ERRORS:
        runs["multiarch_errors"] = lambda: exact.fit(se="two-step")
    taken = cpu_seconds(runs, **CALLS)
    ours, theirs, fastest = taken["ours"], taken["multiarch"], taken["multigarch"]
    broad, errors = taken["pymgarch"], taken["errors"]
    their_errors = taken.get("multiarch_errors", float("nan"))
    return {
        "series": num_series,
        "calls": CALLS["num_samples"],
        "jaxfc_s": ours,
        "pymgarch_s": broad,
        "pymgarch_over_ours": broad / ours,
        "multiarch_s": theirs,
        "multigarch_s": fastest,
        "multiarch_over_ours": theirs / ours,
        "multigarch_over_ours": fastest / ours,
        "jaxfc_errors_s": errors - ours,
        "multiarch_errors_s": their_errors - theirs,
        "errors_multiarch_over_ours": (their_errors - theirs) / (errors - ours),
        "compile_s": seconds,
        "compile_errors_s": more_seconds,
        **evaluation(model, data, observed),
        "a": float(run(data)[0]),
        "b": float(run(data)[1]),
    }


def evaluation(model: CorrelationModel, data: jax.Array, observed: jax.Array) -> dict[str, float]:
    """One value of the second step's likelihood, and one gradient beside it."""
    fitted = jax.jit(lambda v: model.estimate(v, observed))(data)
    rest = model, fitted.margins.filtered().standardised, fitted.targets

    def mean(free, rest):
        return jnp.mean(row_losses(free, rest))

    value = jax.jit(mean)
    both = jax.jit(lambda x, rest: jax.value_and_grad(lambda y: by_forward_mode(mean, y, rest))(x))
    start = model.starts(data.dtype, fitted.targets)[0]
    taken = cpu_seconds({"value": lambda: value(start, rest), "both": lambda: both(start, rest)})
    num_series = data.shape[1]
    flops = NUM_TIMES * (num_series**3 / 3 + 4 * num_series**2)
    return {
        "value_ms": 1e3 * taken["value"],
        "value_and_gradient_ms": 1e3 * taken["both"],
        "value_gflops": flops / taken["value"] / 1e9,
        "steps": int(fitted.num_steps),
    }


def composite_row(num_series: int) -> dict[str, object]:
    """Both steps, contiguous pairs, no standard errors."""
    values = returns(num_series)
    data, observed = jnp.asarray(values), jnp.ones(values.shape, bool)
    model = CorrelationModel(DCC(), likelihood=CompositeLikelihood())
    run, seconds = compile_seconds(lambda v: model.estimate(v, observed).parameters, data)
    margins, _ = compile_seconds(lambda v: model.margins.estimate(v, observed).parameters, data)
    fast = multigarch.DCC(n_jobs=1, mean="constant", method="cl")
    frame = pd.DataFrame(values, columns=[f"r{i}" for i in range(num_series)])
    broad = pymgarch.DCC()
    runs = {
        "jaxfc_s": lambda: run(data),
        "of_it_margins_s": lambda: margins(data),
        "multigarch_s": lambda: fast.fit(values),
        "pymgarch_s": lambda: broad.fit(frame, method="composite", compute_se=False),
    }
    taken = cpu_seconds(runs, **CALLS)
    ours = taken["jaxfc_s"]
    found = run(data)
    return {
        "series": num_series,
        "calls": CALLS["num_samples"],
        **taken,
        "multigarch_over_ours": taken["multigarch_s"] / ours,
        "pymgarch_over_ours": taken["pymgarch_s"] / ours,
        "compile_s": seconds,
        "a": float(found[0]),
        "b": float(found[1]),
    }


def rolling_row(num_windows: int, num_series: int = 10, window: int = 1000) -> dict[str, object]:
    """Windows that start one row after the other, each estimated anew."""
    values = returns(num_series)[: window + num_windows - 1]
    data, seen = jnp.asarray(values), jnp.ones((window, num_series), bool)
    cold = CorrelationModel(DCC())
    pooled = jax.jit(lambda v: cold.estimate(v, jnp.ones(v.shape, bool)))(data)
    warm = cold.starting_from(pooled)

    def estimates(model):
        def one(start):
            rows = jax.lax.dynamic_slice_in_dim(data, start, window)
            return model.estimate(rows, seen).parameters

        return compile_seconds(lambda starts: jax.lax.map(one, starts), jnp.arange(num_windows))

    (run, seconds), (run_cold, _) = estimates(warm), estimates(cold)
    starts = jnp.arange(num_windows)
    few = min(num_windows, 25)
    fast = multigarch.DCC(n_jobs=1, mean="constant", method="full")

    def theirs():
        for start in range(few):
            fast.fit(values[start : start + window])

    runs = {"warm": lambda: run(starts), "cold": lambda: run_cold(starts), "multigarch": theirs}
    taken = cpu_seconds(runs, **CALLS)
    ours, from_scratch = taken["warm"], taken["cold"]
    fastest = taken["multigarch"] * num_windows / few
    return {
        "windows": num_windows,
        "series": num_series,
        "calls": CALLS["num_samples"],
        "jaxfc_s": ours,
        "jaxfc_cold_s": from_scratch,
        "multigarch_s": fastest,
        "multigarch_over_ours": fastest / ours,
        "compile_s": seconds,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    packages = ("arch", "multiarch", "multigarch", "pymgarch")
    sizes = (1, 20) if options.quick else (1, 200, 1000)
    report("garch", [garch_row(size) for size in sizes], *packages, save=options.save)
    sizes = (4,) if options.quick else (4, 20, 50)
    report("dcc", [dcc_row(size) for size in sizes], *packages, save=options.save)
    sizes = (20,) if options.quick else (20, 100)
    report("composite", [composite_row(size) for size in sizes], *packages, save=options.save)
    report("rolling", [rolling_row(10 if options.quick else 250)], *packages, save=options.save)


if __name__ == "__main__":
    main()
