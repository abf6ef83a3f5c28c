"""A rolling backtest that selects, estimates and draws in every window, against statsmodels' loop.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_backtest.py [--quick] [--save]

Needs the extra `peers`. 527 windows of 364 weeks of 12 series and a return, 10 % of the cells
missing; in each window K in 1..5 factors and p in 0..2 lags (15 models by EM to a relative change
of 1e-3), own lags 0..3, factor lags 1..2 (never more than p), then 500 trajectories.

Table `backtest`: seconds on the wall and of all cores for all windows, first call (with
compilation) and second. The peer fits the ten models with p = 1, 2 (it has none with p = 0) by its
own EM to the same tolerance in `peer_windows` windows; it does not choose own lags or draw
trajectories, which is left out of its time. `all_527_s` and `peer_527_h` extrapolate the windows
that were timed (`--windows`) to 527.

Table `backtest_em`: one EM iteration of all candidates of a batch of windows, floating point
operations as XLA counts them, and their share of this machine's matrix product.
"""

import argparse
import os
import time
import warnings

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from panels import draw_panel, starting_point
from peers import Statsmodels
from timing import compile_seconds, cpu_seconds, matmul_gflops, report

import jaxfc
from jaxfc.compose import FactorARX, SizeSelection, Trajectories
from jaxfc.factors import ClosedForm
from jaxfc.factors.em import EMStep

WINDOW, NUM_WEEKS, NUM_SERIES, NUM_FACTORS, NUM_LAGS = 364, 891, 12, 5, 2
RTOL, NUM_DRAWS, BATCH = 1e-3, 500, 8


def returns_panel(num_weeks: int) -> jaxfc.Panel:
    """A panel of three factors and a return that the first factor leads by a week."""
    values, observed = draw_panel(NUM_SERIES, num_weeks, 3, 1, 0.1)
    rng = np.random.default_rng(1)
    lead = np.concatenate([[0.0], values[:-1, 0]])
    returns = 0.001 + 0.004 * lead + 0.02 * rng.normal(size=num_weeks)
    table = np.column_stack([np.where(observed > 0, values, np.nan), returns])
    dates = pd.date_range("1999-01-15", periods=num_weeks, freq="W-FRI")
    names = [f"x{i}" for i in range(NUM_SERIES)] + ["return"]
    return jaxfc.Panel.from_frame(pd.DataFrame(table, dates, names))


def model() -> FactorARX:
    """Every window chooses up to these sizes."""
    factors = jaxfc.DynamicFactorModel(NUM_FACTORS, NUM_LAGS, method=jaxfc.EM(rtol=RTOL))
    return FactorARX(
        "return",
        factors,
        3,
        NUM_LAGS,
        selection=SizeSelection(),
        intervals=Trajectories(NUM_DRAWS),
    )


def ours(panel: jaxfc.Panel) -> list[tuple[float, float]]:
    """Wall and CPU seconds of the first and the second call."""
    times = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        jaxfc.backtest(
            model(), panel, jaxfc.Rolling(WINDOW), batch_size=BATCH, key=jax.random.key(0)
        )
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def peer_seconds(panel: jaxfc.Panel, num_windows: int) -> float:
    """CPU seconds of a window: ten models by their EM, no smoothing or output afterwards."""
    rows = np.linspace(WINDOW, panel.num_times - 1, num_windows).astype(int)
    start = time.process_time()
    for row in rows:
        values = panel.values[row - WINDOW : row, :NUM_SERIES]
        observed = panel.observed[row - WINDOW : row, :NUM_SERIES]
        mean = np.where(observed, values, np.nan)
        standardised = (mean - np.nanmean(mean, axis=0)) / np.nanstd(mean, axis=0)
        index = pd.period_range("1980-01", periods=WINDOW, freq="M")
        table = pd.DataFrame(standardised, index, [f"x{i}" for i in range(NUM_SERIES)])
        for num_factors in range(1, NUM_FACTORS + 1):
            for num_lags in range(1, NUM_LAGS + 1):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    Statsmodels(table, num_factors, num_lags).fit(RTOL, return_params=True)
    return (time.process_time() - start) / num_windows


def em_row(num_windows: int) -> dict[str, object]:
    """One iteration of all candidates of a batch, at the largest size, as the backtest runs it."""
    values, observed = draw_panel(NUM_SERIES, WINDOW, 3, 1, 0.1)
    parameters, data = starting_point(values, observed, NUM_FACTORS, NUM_LAGS)
    step = EMStep(moments=ClosedForm(), variance_floor=jnp.asarray(1e-6))
    number = num_windows * NUM_FACTORS * (NUM_LAGS + 1)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), parameters)
    run, seconds = compile_seconds(jax.vmap(lambda p: step(p, data)), many)
    taken = cpu_seconds({"step": lambda: run(many)})["step"]
    costs = run.cost_analysis()
    flops = float((costs[0] if isinstance(costs, list) else costs)["flops"])
    peak = matmul_gflops()
    return {
        "models": number,
        "ms": 1e3 * taken,
        "ms_a_model": 1e3 * taken / number,
        "mflop_a_model": 1e-6 * flops / number,
        "gflop_per_s": 1e-9 * flops / taken,
        "matmul_gflop_per_s": peak,
        "share_of_peak": 1e-9 * flops / taken / peak,
        "compile_s": seconds,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--windows", type=int, default=NUM_WEEKS - WINDOW)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    num_weeks = WINDOW + (16 if options.quick else options.windows)
    panel = returns_panel(num_weeks)
    num_windows = num_weeks - WINDOW
    peer_windows = 1 if options.quick else 5
    first, second = ours(panel)
    peer = peer_seconds(panel, peer_windows)
    row = {
        "windows": num_windows,
        "first_wall_s": first[0],
        "second_wall_s": second[0],
        "second_cpu_s": second[1],
        "cpu_s_a_window": second[1] / num_windows,
        "statsmodels_s_a_window": peer,
        "peer_windows": peer_windows,
        "all_527_s": second[1] / num_windows * (NUM_WEEKS - WINDOW),
        "peer_527_h": peer * (NUM_WEEKS - WINDOW) / 3600.0,
        "statsmodels_over_ours": peer * num_windows / second[1],
    }
    report("backtest", [row], "statsmodels", save=options.save)
    report("backtest_em", [em_row(BATCH)], save=options.save)


if __name__ == "__main__":
    main()
