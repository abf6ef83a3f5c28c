"""One cell of a Monte Carlo study against loops over its paths, and what more paths cost.

    env OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_study.py [--quick] [--save]

Needs the extra `peers`. Cell: 35 series, 100 times, 3 factors, 1 lag, stocks with 20 % of the cells
missing, EM with diagonal errors to a relative change of 1e-4, at most 100 steps, 500 paths;
float64. The programs are those of `jaxfc.Study`, run without its store. All packages have one BLAS
thread.

Table `study_cell`: CPU ms a path. `fits`: estimation and metrics of panels that are there, which is
what the peers do; `world`: drawing them; `whole`: both and the tables. Peers: `DynamicFactorMQ.
fit_em` and nowcastbox' `run_em` on paths of the same cell, centred as ours are, for as many
steps as ours took on that path, from their own starts; models and frames are made outside the
clock, no result object is built, and nowcastbox has the faster of its two filters. `whole` is given
against them too, though they draw no panel.

Table `study_loop`: the batch against a Python loop over our own compiled fit of one path. `start`:
CPU ms a path of the principal-component start (an eigendecomposition by LAPACK, one matrix at a
time either way); `step`: of an EM step. `sorted`: batches of paths that need alike numbers of
steps. `batch_steps`: mean over batches of their slowest path's steps.

Table `study_memory`: studies with a store in processes of their own, 128 paths side by side.

Table `study_growth`: CPU seconds of whole cells, and the slope of their logarithms; for paths also
the seconds of 100,000, from a line.
"""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from nowcastbox.models import em as nowcastbox_em
from peers import Statsmodels, frame
from peers_nowcastbox import Nowcastbox
from study_cell import METRICS, NUM_FACTORS, NUM_LAGS, Parts, bm, make_study
from study_growth import growth_rows, memory_rows
from threadpoolctl import threadpool_limits
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.study_chunks import outcome

TABLES = ("cell", "loop", "memory", "growth")
NUM_PATHS = 500
BATCHES = (32, 128)
SHAPES = ((10, 32), (10, 128), (20, 128), (35, 32), (35, 128))  # series, batch


def peer_seconds(panel: Any, num_steps: int, repeats: dict) -> dict[str, float]:
    """CPU seconds of both peers on one path, as many steps as ours."""
    observed = np.asarray(panel.observed, float)
    values = np.asarray(panel.values)
    table = frame(values - (values * observed).sum(axis=0) / observed.sum(axis=0), observed)
    theirs = Statsmodels(table, NUM_FACTORS, NUM_LAGS).model
    other = Nowcastbox(table, NUM_FACTORS, NUM_LAGS)
    start_of = nowcastbox_em.pca_initial_parameters

    def statsmodels() -> np.ndarray:
        return theirs.fit_em(maxiter=num_steps, tolerance=0, disp=False, return_params=True)

    def nowcastbox(filter_method: str) -> Callable:
        return lambda: nowcastbox_em.run_em(
            start_of(other.panel, other.layout),
            other.layout,
            other.values,
            max_iter=num_steps,
            tol=0.0,
            method=filter_method,
        )

    seconds = cpu_seconds(
        {"sm": statsmodels, "auto": nowcastbox("auto"), "one": nowcastbox("univariate")}, **repeats
    )
    return {"sm": seconds["sm"], "nb": min(seconds["auto"], seconds["one"])}


def cell_rows(num_paths: int, num_peer_paths: int, repeats: dict) -> list[dict]:
    """Rows of `study_cell`."""
    rows, peers, steps = [], None, np.zeros(0)
    for batch_size in BATCHES:
        parts = Parts(make_study(batch_size, num_paths))
        runs = {"fits": parts.fit, "world": parts.draw}
        seconds = cpu_seconds(runs, **repeats)
        parts.runner.compute(0, 0)
        whole = cpu_seconds({"whole": lambda parts=parts: parts.runner.compute(0, 0)}, **repeats)
        ours = {**seconds, **whole}
        ours = {name: value / parts.num_fits for name, value in ours.items()}
        if peers is None:
            steps = parts.steps()[:num_paths]
            few = {"num_samples": 2, "num_rounds": 1}
            each = [peer_seconds(parts.path(i), int(steps[i]), few) for i in range(num_peer_paths)]
            peers = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        row = {"batch": batch_size, "paths": num_paths, "mean_steps": float(steps.mean())}
        row |= {f"{name}_ms": 1e3 * value for name, value in ours.items()}
        row |= {"statsmodels_ms": 1e3 * peers["sm"], "nowcastbox_ms": 1e3 * peers["nb"]}
        for peer, long in (("sm", "statsmodels"), ("nb", "nowcastbox")):
            row[f"{long}_over_fits"] = peers[peer] / ours["fits"]
            row[f"{long}_over_whole"] = peers[peer] / ours["whole"]
        row |= {"peer_paths": num_peer_paths, "peer_steps": float(steps[:num_peer_paths].mean())}
        bytes_of = parts.sampler.num_bytes or 0, parts.program.num_bytes or 0
        row |= {"world_mib": bytes_of[0] / 2**20, "fits_mib": bytes_of[1] / 2**20}
        rows.append(row | {"compile_s": parts.compiling})
    return rows


def loop_row(num_series: int, batch_size: int, num_paths: int, repeats: dict) -> dict:
    """Row of `study_loop`."""
    parts = Parts(make_study(batch_size, num_paths, num_series))
    bound = parts.cell.bound["BM"]
    some = [parts.path(i) for i in range(min(64, num_paths))]
    single, compiling = compile_seconds(
        lambda panel: outcome(panel, bound(panel), METRICS), some[0]
    )
    alike = parts.sorted()
    runs = {
        "loop": lambda: [single(panel) for panel in some],
        "batch": parts.fit,
        "sorted": lambda: parts.fit(alike),
    }
    seconds = cpu_seconds(runs, **repeats)
    each = {name: value / parts.num_fits for name, value in seconds.items()}
    each["loop"] = seconds["loop"] / len(some)
    inner = inner_seconds(parts, some[0], repeats)
    slowest = np.mean([np.max(answer["num_steps"]) for answer in parts.fit()])
    return {
        "series": num_series,
        "batch": batch_size,
        "mean_steps": float(parts.steps().mean()),
        "batch_steps": float(slowest),
        **{f"{name}_ms": 1e3 * value for name, value in each.items()},
        "loop_over_batch": each["loop"] / each["batch"],
        "loop_over_sorted": each["loop"] / each["sorted"],
        **{f"{name}_ms": 1e3 * value for name, value in inner.items()},
        "single_compile_s": compiling,
        "batch_compile_s": parts.compiling,
    }


def inner_seconds(parts: Parts, one: Any, repeats: dict) -> dict[str, float]:
    """CPU seconds a path of start and step, alone and in a batch."""
    world = FactorWorld(**parts.cell.settings)
    few, many = 2, 12
    runs: dict[str, Callable[[], Any]] = {}
    batch, size = parts.panels[0], parts.sampler.size
    for count in (few, many):
        bound = bm(rtol=-1.0, max_steps=count).bind(world)  # never settles: always `count` steps
        function = jax.jit(lambda p, bound=bound: bound(p).loglik)
        together = jax.jit(jax.vmap(lambda p, bound=bound: bound(p).loglik))
        runs[f"one {count}"] = lambda f=function: f(one)
        runs[f"all {count}"] = lambda f=together: f(batch)
    moments = jax.jit(lambda p: jnp.linalg.eigh(p.values.T @ p.values))
    moments_all = jax.jit(jax.vmap(lambda p: jnp.linalg.eigh(p.values.T @ p.values)))
    runs |= {"one start": lambda: moments(one), "all start": lambda: moments_all(batch)}
    with threadpool_limits(1, "blas"):
        seconds = cpu_seconds(runs, **repeats)
    step = {name: (seconds[f"{name} {many}"] - seconds[f"{name} {few}"]) / (many - few)
            for name in ("one", "all")}  # fmt: skip
    return {
        "start_one": seconds["one start"],
        "start_batch": seconds["all start"] / size,
        "step_one": step["one"],
        "step_batch": step["all"] / size,
    }


def main() -> None:
    """All tables, or small stand-ins with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few paths and sizes")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/study_*.csv")
    parser.add_argument("--only", choices=TABLES, help="one table")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")  # the peers warn about iteration limits
    quick = options.quick
    repeats = {"num_samples": 3, "num_rounds": 1 if quick else 2}
    num_paths = 64 if quick else NUM_PATHS
    shapes = SHAPES[:1] if quick else SHAPES
    counts = (128, 256) if quick else (500, 2000, 8000)
    paths = (128, 256) if quick else (500, 1000, 2000, 4000)
    times = (50, 100) if quick else (50, 100, 200, 400)
    rows = {
        "cell": lambda: cell_rows(num_paths, 2 if quick else 8, repeats),
        "loop": lambda: [loop_row(n, b, num_paths, repeats) for n, b in shapes],
        "memory": lambda: memory_rows(counts),
        "growth": lambda: growth_rows(paths, times, num_paths),
    }
    for name in TABLES if options.only is None else (options.only,):
        peers = ("statsmodels", "nowcastbox") if name == "cell" else ()
        report(f"study_{name}", rows[name](), *peers, save=options.save)


if __name__ == "__main__":
    main()
