"""How the benchmarks measure: CPU seconds of warmed-up calls, compilation apart, ours and peers in
turn, and what machine it was.

Times are `time.process_time`, which counts all threads of the process and no other process. Each
sample is a chunk of calls long enough for the clock; a round takes the median of its samples; the
smallest of a few rounds is reported, because other jobs on the machine only ever add.
"""

import csv
import datetime
import importlib.metadata
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
CHUNK_SECONDS = 0.02


def compile_seconds(run: Callable, *args) -> tuple[jax.stages.Compiled, float]:
    """The compiled function, and the CPU seconds that tracing and compiling took."""
    start = time.process_time()
    # Methods of modules cannot be hashed, which `jit` asks for.
    compiled = jax.jit(lambda *given: run(*given)).lower(*args).compile()
    return compiled, time.process_time() - start


def chunk_seconds(run: Callable[[], Any], num_calls: int) -> float:
    """Mean CPU seconds of a call over `num_calls` calls in a row."""
    start = time.process_time()
    for _ in range(num_calls - 1):
        run()
    jax.block_until_ready(run())
    return (time.process_time() - start) / num_calls


def cpu_seconds(
    runs: Mapping[str, Callable[[], Any]], *, num_samples: int = 7, num_rounds: int = 3
) -> dict[str, float]:
    """CPU seconds of a call of each run: the smallest of `num_rounds` medians, runs in turn."""
    num_calls = {}
    for name, run in runs.items():
        jax.block_until_ready(run())
        num_calls[name] = max(1, round(CHUNK_SECONDS / max(chunk_seconds(run, 1), 1e-6)))
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(num_rounds):
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(num_samples):
            for name, run in runs.items():
                samples[name].append(chunk_seconds(run, num_calls[name]))
        for name, of_run in samples.items():
            best[name] = min(best[name], statistics.median(of_run))
    return best


def peak_rss_mib() -> float:
    """Largest resident set of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def matmul_gflops(size: int = 768) -> float:
    """float64 rate of one library matrix product on the cores of this process, Gflop/s."""
    matrix = np.random.default_rng(0).normal(size=(size, size))
    seconds = cpu_seconds({"matmul": lambda: matrix @ matrix})["matmul"]
    return 2e-9 * size**3 / seconds


def copy_gbytes(num_bytes: int = 2**28) -> float:
    """Bytes read plus bytes written by a copy that no cache holds, GB/s."""
    source = np.ones(num_bytes // 8)
    target = np.empty_like(source)
    seconds = cpu_seconds({"copy": lambda: np.copyto(target, source)})["copy"]
    return 2e-9 * num_bytes / seconds


def cpu_model() -> str:
    """Name of the processor as the system gives it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(*packages: str) -> str:
    """One line: processor, cores and threads used, versions, day."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", *packages)]
    return "; ".join(
        [
            cpu_model(),
            f"cores {num_cores()}",
            f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}",
            f"Python {platform.python_version()}",
            *versions,
            datetime.date.today().isoformat(),
        ]
    )


def report(name: str, rows: Iterable[Mapping[str, Any]], *packages: str, save: bool) -> None:
    """Print a table; with `save`, write it to results/<name>.csv under a line on the machine."""
    rows = list(rows)
    columns = list(rows[0])
    cells = [[shown(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    print(f"\n{name}: {machine(*packages)}")
    for row in (columns, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if save:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{name}.csv").open("w", newline="") as file:
            file.write(f"# {machine(*packages)}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(cells)


def shown(value: Any) -> str:
    """Four digits for measured numbers, logarithms of likelihoods in full."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) >= 1e3 else f"{value:.4g}"
    return str(value)
