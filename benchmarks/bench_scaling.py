r"""How time and memory grow with the panel, and one large fit.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_scaling.py [--quick] [--save] \
        [--windows-only]

float64, 20 % of the cells missing, one lag. Table `scaling`: CPU time of one EM iteration along
three sweeps (times, series, factors), the slope of log time on log size over each sweep (1 is
linear; a constant share pulls it below), the bytes of the compiled program's temporaries as XLA
states them, and those per T K^2 p. Table `large`: a whole fit of 2,000 series, 1,000 times and 10
factors, with the largest resident set of the process before the panel was drawn and after the fit.
Table `scaling_windows`: CPU time of a whole backtest by its number of windows (100 rows of 10
series, 2 factors, EM to 1e-4), 16 windows side by side, everything compiled.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from panels import draw_panel, starting_point
from timing import compile_seconds, cpu_seconds, peak_rss_mib, report

import jaxfc
from jaxfc.factors import EM, ClosedForm, DynamicFactorModel
from jaxfc.factors.em import EMStep

MISSING = 0.2
NUM_LAGS = 1
LARGE = (2000, 1000, 10, NUM_LAGS)
SWEEPS = {
    "times": [(50, num_times, 3) for num_times in (500, 1000, 2000, 4000, 8000)],
    "series": [(num_series, 500, 3) for num_series in (200, 400, 800, 1600, 3200)],
    "factors": [(100, 500, num_factors) for num_factors in (1, 2, 4, 8, 16)],
}
WINDOW, NUM_WINDOWS, SIDE_BY_SIDE = 100, (16, 32, 64, 128, 256), 16


def iteration_row(sweep: str, shape: tuple[int, int, int], repeats: dict) -> dict:
    """Time and memory of one EM iteration at one size."""
    num_series, num_times, num_factors = shape
    values, observed = draw_panel(*shape, NUM_LAGS, MISSING)
    start, data = starting_point(values, observed, num_factors, NUM_LAGS)
    step = EMStep(moments=ClosedForm(), variance_floor=jnp.asarray(1e-6))
    compiled, compiling = compile_seconds(lambda p, d: step(p, d), start, data)
    seconds = cpu_seconds({"step": lambda: compiled(start, data)}, **repeats)["step"]
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this backend states no memory of a compiled program; use the CPU.")
    return {
        "sweep": sweep,
        "series": num_series,
        "times": num_times,
        "factors": num_factors,
        "ms": 1e3 * seconds,
        "slope": float("nan"),
        "compile_s": compiling,
        "data_mib": memory.argument_size_in_bytes / 2**20,
        "temporary_mib": memory.temp_size_in_bytes / 2**20,
        "temporary_bytes_per_TK2p": memory.temp_size_in_bytes
        / (num_times * num_factors**2 * NUM_LAGS),
    }


def log_slope(sizes: list[float], times: list[float]) -> float:
    """The slope of log time on log size."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def sweep_rows(sweep: str, shapes: list, repeats: dict) -> list[dict]:
    """Rows of one sweep, with the slope of its log-log fit in every row."""
    rows = [iteration_row(sweep, shape, repeats) for shape in shapes]
    slope = log_slope([row[sweep] for row in rows], [row["ms"] for row in rows])
    return [row | {"slope": slope} for row in rows]


def window_rows(counts: tuple[int, ...], repeats: dict) -> list[dict]:
    """Whole backtests of so many windows, with the slope over them in every row."""
    values, observed = draw_panel(10, WINDOW + max(counts), 2, 1, MISSING)
    dates = pd.date_range("2000-01-07", periods=len(values), freq="W-FRI")
    names = [f"x{i}" for i in range(values.shape[1])]
    table = pd.DataFrame(np.where(observed > 0, values, np.nan), dates, names)
    panel = jaxfc.Panel.from_frame(table)
    model = DynamicFactorModel(2, 1, method=EM(rtol=1e-4))

    def run(num_origins):
        origins = jaxfc.Rolling(WINDOW, num_origins=num_origins)
        return jaxfc.backtest(model, panel, origins, batch_size=SIDE_BY_SIDE, progress=False)

    runs = {str(count): lambda count=count: run(count).okay for count in counts}
    taken = cpu_seconds(runs, **repeats)
    seconds = [taken[str(count)] for count in counts]
    slope = log_slope(list(counts), seconds)
    return [
        {"windows": count, "s": s, "ms_a_window": 1e3 * s / count, "slope": slope}
        for count, s in zip(counts, seconds, strict=True)
    ]


def large_fit(size: tuple[int, int, int, int]) -> dict:
    """Row of `large`; its resident sets mean something only in a process that did nothing else."""
    before = peak_rss_mib()
    values, observed = draw_panel(*size, MISSING)
    model = DynamicFactorModel(size[2], size[3], method=EM(rtol=1e-6))
    values, seen = jnp.asarray(values), jnp.asarray(observed > 0)
    compiled, compiling = compile_seconds(lambda v, o: model.estimate(v, o), values, seen)
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = jax.block_until_ready(compiled(values, seen))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "size": "x".join(map(str, size)),
        "wall_s": wall,
        "cpu_s": cpu,
        "compile_s": compiling,
        "steps": int(fitted.num_steps),
        "loglik": float(fitted.loglik),
        "panel_mib": values.nbytes / 2**20,
        "rss_before_mib": before,
        "rss_after_mib": peak_rss_mib(),
    }


def main() -> None:
    """The large fit first, because a resident set only grows; with `--quick`, small stand-ins."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.csv")
    parser.add_argument("--windows-only", action="store_true", help="only scaling_windows")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    repeats = {"num_samples": 3, "num_rounds": 1}
    counts = NUM_WINDOWS[:2] if options.quick else NUM_WINDOWS
    if options.windows_only:
        report("scaling_windows", window_rows(counts, repeats), save=options.save)
        return
    report("large", [large_fit((200, 100, 3, 1) if options.quick else LARGE)], save=options.save)
    rows = []
    for sweep, shapes in SWEEPS.items():
        few = shapes[:2] if options.quick else shapes
        rows += sweep_rows(sweep, few, repeats if options.quick else {})
    report("scaling", rows, save=options.save)
    report("scaling_windows", window_rows(counts, repeats), save=options.save)


if __name__ == "__main__":
    main()
