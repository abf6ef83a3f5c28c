"""Memory and seconds of the cell of `bench_study.py` by number of paths and times.

Called by `bench_study.py`; run by itself with a number of paths, it says what memory a study takes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from study_cell import KEY, make_runner, make_study

from jaxfc.running.study_chunks import ChunkRunner

BATCH = 128
FAR = 100_000


def peak_mib() -> float:
    """Largest resident set of this program; `ru_maxrss` would be that of its parent, if larger."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024.0
    raise RuntimeError("this system does not say how large a resident set was (VmHWM).")


def memory_child(num_paths: int) -> None:
    """In a process of its own: run a study, print what memory it took."""
    study = make_study(BATCH, num_paths, chunk=4 * BATCH)
    before = peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        result = study.run(Path(folder) / "store", key=jax.random.key(KEY), progress=False)
    print(json.dumps({
        "paths": len(result.paths),
        "batch": BATCH,
        "rss_before_mib": before,
        "rss_peak_mib": peak_mib(),
    }))  # fmt: skip


def memory_rows(counts: tuple[int, ...]) -> list[dict]:
    """Rows of `study_memory`; the processes share compiled programs."""
    rows = []
    with tempfile.TemporaryDirectory() as programs:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": programs}
        for count in counts:
            command = [sys.executable, __file__, str(count)]
            answer = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            rows.append(json.loads(answer.stdout.splitlines()[-1]))
    return rows


def growth_rows(paths: tuple[int, ...], times: tuple[int, ...], fixed: int) -> list[dict]:
    """Rows of `study_growth`."""
    rows = []
    runner = make_runner(make_study(BATCH, BATCH))
    runner.compute(0, 0)
    for count in paths:
        runner.study = make_study(BATCH, count)
        rows.append({"sweep": "paths", "size": count, "seconds": best_of(runner)})
    for num_times in times:
        runner = make_runner(make_study(BATCH, fixed, num_times=num_times))
        runner.compute(0, 0)
        rows.append({"sweep": "times", "size": num_times, "seconds": best_of(runner)})
    for sweep in ("paths", "times"):
        own = [row for row in rows if row["sweep"] == sweep]
        sizes, seconds = ([row[name] for row in own] for name in ("size", "seconds"))
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        line = np.polyfit(sizes, seconds, 1)
        far = float(np.polyval(line, FAR)) if sweep == "paths" else float("nan")
        for row in own:
            row |= {"log_slope": slope, "seconds_each": float(line[0]), f"at_{FAR}": far}
    return rows


def best_of(runner: ChunkRunner, num_rounds: int = 3) -> float:
    """CPU seconds of all chunks, the smallest of a few."""
    best = float("inf")
    for _ in range(num_rounds):
        start = time.process_time()
        for chunk in range(runner.study.num_chunks):
            runner.compute(0, chunk)
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    memory_child(int(sys.argv[1]))
