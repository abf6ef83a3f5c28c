"""Reconciliation of returns against hierarchicalforecast.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \\
        python benchmarks/bench_hierarchy.py [--quick] [--save]

Needs the extra `peers`. One market, 11 sectors of unequal size, horizon 12, 500 in-sample errors;
theirs takes values and base forecasts in sample and forms the errors, ours takes the errors (and is
timed with forming them as well). CPU seconds of
warmed-up calls, compilation apart, ours and theirs in turn in one process.

Table `reconcile_arrays`: `reconcile_means` against `BottomUp/MinTrace.fit_predict` on arrays. Table
`reconcile_frames`: from data frames to a data frame, against `HierarchicalReconciliation`. Table
`reconcile_origins`: 250 rolling origins of 1000 series, ours in one program, theirs in a loop.
Table `reconcile_memory`: 100 000 series, shrunk covariance, in a process of its own. With
`--accelerator`: the origins, ours alone, wall time on the device that JAX finds.
"""

import argparse
import os
import subprocess
import sys
import time

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from hierarchy_world import HORIZON, NUM_SECTORS, NUM_TIMES, long_frames, rolling_world, world
from timing import cpu_seconds, peak_rss_mib, report

from jaxfc.hierarchy import OLS, WLS, Hierarchy, Method, MinT, reconcile_means

jax.config.update("jax_enable_x64", True)
# Windows at a time: one on a CPU, whose caches hold one; a batch on an accelerator.
BATCH = None if jax.default_backend() == "cpu" else 50
METHODS: dict[str, tuple[Method, dict[str, str]]] = {
    "ols": (OLS(), {"method": "ols"}),
    "wls_var": (WLS("variance"), {"method": "wls_var"}),
    "mint_shrink": (MinT("shrink", centred=True), {"method": "mint_shrink"}),
}


def peer_call(hierarchy: Hierarchy, values, fitted, base, name: str):
    """hierarchicalforecast's call on arrays (nodes x time)."""
    from hierarchicalforecast.methods import MinTrace

    summing = np.vstack([np.asarray(hierarchy.summing.matrix()), np.eye(len(hierarchy.bottom))])
    # Their guard refuses errors that sum to zero over time; ours do not here.
    arrays = [np.ascontiguousarray(one.T) for one in (base, values, fitted)]
    model = MinTrace(**METHODS[name][1])

    def run():
        return model.fit_predict(
            S=summing, y_hat=arrays[0], y_insample=arrays[1], y_hat_insample=arrays[2]
        )["mean"]

    return run


def array_row(num_bottom: int, name: str) -> dict[str, object]:
    """One call on arrays."""
    hierarchy, _, values, fitted, base = world(num_bottom)
    actual, predicted, mean = (jnp.asarray(one) for one in (values, fitted, base))
    method = METHODS[name][0]

    def ours():
        errors = None if name == "ols" else actual - predicted
        return reconcile_means(mean, hierarchy, method, residuals=errors)

    ready = None if name == "ols" else actual - predicted

    def from_errors():
        return reconcile_means(mean, hierarchy, method, residuals=ready)

    start = time.process_time()
    mine = np.asarray(ours())
    first = time.process_time() - start
    theirs = peer_call(hierarchy, values, fitted, base, name)
    gap = np.max(np.abs(theirs().T - mine)) / np.max(np.abs(mine))
    runs = {"ours": ours, "from_errors": from_errors, "theirs": theirs}
    taken = cpu_seconds(runs, num_samples=5, num_rounds=2)
    return {
        "series": num_bottom,
        "method": name,
        "jaxfc_ms": 1e3 * taken["from_errors"],
        "and_forming_errors_ms": 1e3 * taken["ours"],
        "hierarchicalforecast_ms": 1e3 * taken["theirs"],
        "ratio": taken["theirs"] / taken["from_errors"],
        "ratio_with_forming": taken["theirs"] / taken["ours"],
        "largest_relative_gap": float(gap),
        "first_call_s": first,
    }


def frame_row(num_bottom: int, name: str) -> dict[str, object]:
    """From frames to a frame."""
    from hierarchicalforecast.core import HierarchicalReconciliation
    from hierarchicalforecast.methods import MinTrace

    hierarchy, _, values, fitted, base = world(num_bottom)
    columns = list(hierarchy.names)
    index = pd.date_range("2020-01-01", periods=NUM_TIMES + HORIZON, freq="D")
    actual = pd.DataFrame(values, index=index[:NUM_TIMES], columns=columns)
    predicted = pd.DataFrame(fitted, index=index[:NUM_TIMES], columns=columns)
    mean = pd.DataFrame(base, index=index[NUM_TIMES:], columns=columns)
    method = METHODS[name][0]

    def ours():
        errors = None if name == "ols" else actual - predicted
        result = reconcile_means(jnp.asarray(mean.to_numpy()), hierarchy, method, residuals=errors)
        return pd.DataFrame(np.asarray(result), index=mean.index, columns=columns)

    ready = None if name == "ols" else jnp.asarray(values - fitted)
    ahead_of_all = jnp.asarray(base)

    def numerics():
        return reconcile_means(ahead_of_all, hierarchy, method, residuals=ready)

    ahead, past = long_frames(hierarchy, values, fitted, base)
    summing = hierarchy.to_frame().reset_index(names="unique_id")
    ids = pd.Index(columns)
    tags = {
        "market": ids[:1].to_numpy(),
        "sector": ids[1 : 1 + NUM_SECTORS].to_numpy(),
        "asset": ids[1 + NUM_SECTORS :].to_numpy(),
    }
    peer = HierarchicalReconciliation(reconcilers=[MinTrace(**METHODS[name][1])])

    def theirs():
        return peer.reconcile(Y_hat_df=ahead, Y_df=past, S_df=summing, tags=tags)

    split = cpu_seconds({"ours": ours, "numerics": numerics}, num_samples=3, num_rounds=2)
    theirs()
    start = time.process_time()
    theirs()
    other = time.process_time() - start
    return {
        "series": num_bottom,
        "method": name,
        "jaxfc_ms": 1e3 * split["ours"],
        "of_it_numerics": split["numerics"] / split["ours"],
        "hierarchicalforecast_ms": 1e3 * other,
        "ratio": other / split["ours"],
    }


def rolling_program(name: str):
    """All origins in one program."""
    method = METHODS[name][0]

    @jax.jit
    def ours(ahead, data, hierarchy):
        if name == "wls_var":
            # Rolling mean squares by sums from the start, all windows at once.
            sums = jnp.cumsum(jnp.concatenate([jnp.zeros((1, data.shape[1])), data**2]), axis=0)
            variances = (sums[NUM_TIMES:] - sums[:-NUM_TIMES]) / NUM_TIMES
            return jax.vmap(lambda m, v: reconcile_means(m, hierarchy, WLS(v)))(ahead, variances)
        if name == "ols":
            rows = ahead.reshape(-1, ahead.shape[-1])
            return reconcile_means(rows, hierarchy, method).reshape(ahead.shape)

        def one(inputs):
            mean, start = inputs
            window = jax.lax.dynamic_slice_in_dim(data, start, NUM_TIMES)
            return reconcile_means(mean, hierarchy, method, residuals=window)

        return jax.lax.map(one, (ahead, jnp.arange(len(ahead))), batch_size=BATCH)

    return ours


def accelerator_row(name: str, num_origins: int, num_bottom: int = 1000) -> dict[str, object]:
    """Ours alone: wall seconds of a warmed-up call for all origins, on whatever device there is."""
    hierarchy, ahead, data = rolling_world(num_origins, num_bottom)
    ours = rolling_program(name)
    start = time.perf_counter()
    jax.block_until_ready(ours(ahead, data, hierarchy))
    first = time.perf_counter() - start
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(ours(ahead, data, hierarchy))
        taken.append(time.perf_counter() - start)
    return {
        "device": jax.devices()[0].device_kind,
        "origins": num_origins,
        "series": num_bottom,
        "method": name,
        "wall_s": float(np.median(taken)),
        "first_call_s": first,
    }


def origins_row(name: str, num_origins: int, num_bottom: int = 1000) -> dict[str, object]:
    """Rolling origins, windows of 500 errors; theirs timed on a tenth of them."""
    hierarchy, ahead, data = rolling_world(num_origins, num_bottom)
    ours = rolling_program(name)
    errors, means = np.asarray(data), np.asarray(ahead)
    start = time.process_time()
    mine = np.asarray(ours(ahead, data, hierarchy))
    first = time.process_time() - start
    timed = max(num_origins // 10, 1)
    calls = [
        peer_call(hierarchy, errors[i : i + NUM_TIMES], 0 * errors[:NUM_TIMES], means[i], name)
        for i in range(timed)
    ]
    gap = np.max(np.abs(calls[-1]().T - mine[timed - 1])) / np.max(np.abs(mine[timed - 1]))
    taken = cpu_seconds(
        {"ours": lambda: ours(ahead, data, hierarchy), "theirs": lambda: [run() for run in calls]},
        num_samples=3,
        num_rounds=2,
    )
    other = taken["theirs"] * num_origins / timed
    return {
        "origins": num_origins,
        "series": num_bottom,
        "method": name,
        "jaxfc_s": taken["ours"],
        "hierarchicalforecast_s": other,
        "ratio": other / taken["ours"],
        "largest_relative_gap": float(gap),
        "first_call_s": first,
    }


def memory_row(num_bottom: int) -> dict[str, object]:
    """A shrunk covariance of all nodes; what this process ever held."""
    hierarchy, _, values, fitted, base = world(num_bottom)
    errors = jnp.asarray(values - fitted)
    del values, fitted
    before = peak_rss_mib()
    mean = jnp.asarray(base)
    times = []
    for _ in range(2):
        start = time.process_time()
        result = reconcile_means(mean, hierarchy, MinT("shrink"), residuals=errors)
        jax.block_until_ready(result)
        times.append(time.process_time() - start)
    return {
        "series": num_bottom,
        "seconds": times[1],
        "first_call_s": times[0],
        "errors_mib": errors.nbytes / 2**20,
        "peak_mib_before": before,
        "peak_mib": peak_rss_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--memory", type=int, help="only the table of memory, for so many series")
    parser.add_argument("--accelerator", action="store_true", help="ours alone, wall time")
    options = parser.parse_args()
    if options.accelerator:
        cases = [(250, 1000), (250, 5000)]
        rows = [accelerator_row(name, *case) for case in cases for name in METHODS]
        report("reconcile_accelerator", rows, save=options.save)
        return
    if options.memory:
        report("reconcile_memory", [memory_row(options.memory)], save=options.save)
        return
    peer = "hierarchicalforecast"
    sizes = (100,) if options.quick else (100, 1000, 5000)
    rows = [array_row(size, name) for size in sizes for name in METHODS]
    report("reconcile_arrays", rows, peer, save=options.save)
    rows = [frame_row(size, name) for size in sizes for name in METHODS]
    report("reconcile_frames", rows, peer, save=options.save)
    origins, series = (20, 100) if options.quick else (250, 1000)
    rows = [origins_row(name, origins, series) for name in METHODS]
    report("reconcile_origins", rows, peer, save=options.save)
    many = 10_000 if options.quick else 100_000
    extra = ["--save"] if options.save else []
    subprocess.run([sys.executable, __file__, "--memory", str(many), *extra], check=True)


if __name__ == "__main__":
    main()
