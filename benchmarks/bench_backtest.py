"""A rolling backtest that selects, estimates and draws in every window, against statsmodels' loop.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_backtest.py [--quick] [--save]

Needs the extra `peers`. 527 windows of 364 weeks of 12 series and a return, 10 % of the cells
missing; in each window K in 1..5 factors and p in 0..2 lags (15 models by EM to a relative change
of 1e-3), own lags 0..3, factor lags 1..2 (never more than p), then 500 trajectories. On a processor
candidates are padded by class, on an accelerator all run together.

Table `backtest`: seconds on the wall and of all cores for all windows, first call (with
compilation) and second. The peer fits the ten models with p = 1, 2 (it has none with p = 0) by its
own EM to the same tolerance in `peer_windows` windows (`fits`), then draws 500 paths of the factors
of its best model by its simulation smoother and regresses the return on each (`draws`).
`all_527_s` and `peer_527_h` extrapolate the windows that were timed (`--windows`) to 527.

Table `backtest_selection`: the selection alone, every window by itself, at a loose tolerance and at
statsmodels' default, against the peer's fits in the same windows.

Table `backtest_em`: one EM iteration of one model of each size, batched over windows, floating
point operations as XLA counts them, and their share of this machine's matrix product.
"""

import argparse
import os
import time
import warnings
from typing import Any

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from panels import draw_panel, starting_point
from peers import Statsmodels, frame
from timing import compile_seconds, cpu_seconds, matmul_gflops, report

import jaxfc
from jaxfc.compose import FactorARX, SizeSelection, Trajectories
from jaxfc.factors import ClosedForm, SelectionRule
from jaxfc.factors.em import EMStep
from jaxfc.factors.select import select_sizes

jax.config.update("jax_enable_x64", True)
WINDOW, NUM_WEEKS, NUM_SERIES, NUM_FACTORS, NUM_LAGS = 364, 891, 12, 5, 2
RTOL, NUM_OWN_LAGS, NUM_DRAWS = 1e-3, 3, 500
ON_CPU = jax.default_backend() == "cpu"


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


def arx() -> FactorARX:
    """Every window chooses up to these sizes."""
    factors = jaxfc.DynamicFactorModel(NUM_FACTORS, NUM_LAGS, method=jaxfc.EM(rtol=RTOL))
    return FactorARX(
        "return",
        factors,
        NUM_OWN_LAGS,
        NUM_LAGS,
        selection=SizeSelection(padding="class" if ON_CPU else "largest"),
        intervals=Trajectories(NUM_DRAWS),
    )


def ours(panel: jaxfc.Panel, batch_size: int) -> list[tuple[float, float]]:
    """Wall and CPU seconds of the first and the second call."""
    times = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        rolling = jaxfc.Rolling(WINDOW)
        jaxfc.backtest(arx(), panel, rolling, batch_size=batch_size, key=jax.random.key(0))
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def window_arrays(panel: jaxfc.Panel, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The series without the return, standardised, and what is observed, up to `row`."""
    values = panel.values[row - WINDOW : row, :NUM_SERIES]
    observed = panel.observed[row - WINDOW : row, :NUM_SERIES]
    seen = np.where(observed, values, np.nan)
    seen = (seen - np.nanmean(seen, axis=0)) / np.nanstd(seen, axis=0)
    return np.where(observed, seen, 0.0), observed


def peer_fits(panel: jaxfc.Panel, row: int, rtol: float) -> list[tuple[float, Statsmodels, Any]]:
    """AIC, model and parameters of the ten models by the peer's EM."""
    fits = []
    table = frame(*window_arrays(panel, row))
    for num_factors in range(1, NUM_FACTORS + 1):
        for num_lags in range(1, NUM_LAGS + 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = Statsmodels(table, num_factors, num_lags)
                params = peer.fit(rtol, return_params=True)
            aic = 2 * len(params) - 2 * peer.model.loglike(params)
            fits.append((aic, peer, params))
    return fits


def peer_draws(panel: jaxfc.Panel, row: int, peer: Statsmodels, params: Any) -> None:
    """500 paths of the factors by the peer's simulation smoother, a regression on each."""
    rng = np.random.default_rng(0)
    returns = panel.values[row - WINDOW : row, NUM_SERIES]
    lags = [np.roll(returns, lag) for lag in range(1, NUM_OWN_LAGS + 1)]
    peer.model.update(params)
    smoother = peer.model.simulation_smoother()
    for _ in range(NUM_DRAWS):
        smoother.simulate(rng=rng)
        path = smoother.simulated_state[: peer.num_factors]
        moved = [np.roll(path, lag, axis=1) for lag in range(1, peer.num_lags + 1)]
        columns = np.column_stack([np.ones(WINDOW), *lags, *np.concatenate(moved)])[NUM_OWN_LAGS:]
        np.linalg.lstsq(columns, returns[NUM_OWN_LAGS:])


def peer_seconds(panel: jaxfc.Panel, rows: np.ndarray) -> tuple[float, float]:
    """CPU seconds of a window: ten models by their EM; paths and regressions of the best."""
    fitting = drawing = 0.0
    for row in rows:
        start = time.process_time()
        fits = peer_fits(panel, row, RTOL)
        fitting += time.process_time() - start
        _, peer, params = min(fits, key=lambda fit: fit[0])
        start = time.process_time()
        peer_draws(panel, row, peer, params)
        drawing += time.process_time() - start
    return fitting / len(rows), drawing / len(rows)


def selection_row(panel: jaxfc.Panel, rows: np.ndarray, rtol: float) -> dict[str, object]:
    """The selection in `rows`, one window after the other, ours and the peer's."""
    model = jaxfc.DynamicFactorModel(1, 1, method=jaxfc.EM(rtol=rtol))

    def select(values, observed):
        found = select_sizes(
            model, values, observed, NUM_FACTORS, NUM_LAGS, rule=SelectionRule(), padding="class"
        )
        return found.num_factors, found.num_lags, found.num_steps

    windows = [jax.tree.map(jnp.asarray, window_arrays(panel, row)) for row in rows]
    run, compilation = compile_seconds(select, *windows[0])
    jax.block_until_ready(run(*windows[0]))
    start = time.process_time()
    steps = [np.asarray(jax.block_until_ready(run(*window))[2]) for window in windows]
    taken = (time.process_time() - start) / len(rows)
    start = time.process_time()
    for row in rows:
        peer_fits(panel, row, rtol)
    peer = (time.process_time() - start) / len(rows)
    return {
        "rtol": rtol,
        "windows": len(rows),
        "jaxfc_ms": 1e3 * taken,
        "mean_steps": float(np.mean(steps)),
        "statsmodels_ms": 1e3 * peer,
        "statsmodels_over_ours": peer / taken,
        "compile_s": compilation,
    }


def em_row(num_factors: int, num_lags: int, num_windows: int) -> dict[str, object]:
    """One iteration of one size of model in a batch of windows."""
    values, observed = draw_panel(NUM_SERIES, WINDOW, 3, 1, 0.1)
    parameters, data = starting_point(values, observed, num_factors, num_lags)
    step = EMStep(moments=ClosedForm(), variance_floor=jnp.asarray(1e-6))
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_windows, *leaf.shape)), parameters)
    run, seconds = compile_seconds(jax.vmap(lambda p: step(p, data)), many)
    taken = cpu_seconds({"step": lambda: run(many)})["step"]
    costs = run.cost_analysis()
    flops = float((costs[0] if isinstance(costs, list) else costs)["flops"])
    peak = matmul_gflops()
    return {
        "factors": num_factors,
        "lags": num_lags,
        "models": num_windows,
        "ms_a_model": 1e3 * taken / num_windows,
        "mflop_a_model": 1e-6 * flops / num_windows,
        "gflop_per_s": 1e-9 * flops / taken,
        "matmul_gflop_per_s": peak,
        "share_of_peak": 1e-9 * flops / taken / peak,
        "compile_s": seconds,
    }


def backtest_row(panel: jaxfc.Panel, batch_size: int, rows: np.ndarray) -> dict[str, object]:
    """The whole, ours and the peer's."""
    num_windows, number = panel.num_times - WINDOW, NUM_WEEKS - WINDOW
    first, second = ours(panel, batch_size)
    fits, draws = peer_seconds(panel, rows)
    seconds = (second[1] if ON_CPU else second[0]) / num_windows
    return {
        "device": jax.devices()[0].device_kind,
        "windows": num_windows,
        "batch": batch_size,
        "first_wall_s": first[0],
        "second_wall_s": second[0],
        "second_cpu_s": second[1],
        "s_a_window": seconds,
        "all_527_s": seconds * number,
        "peer_windows": len(rows),
        "peer_fits_s": fits,
        "peer_draws_s": draws,
        "peer_527_h": (fits + draws) * number / 3600.0,
        "fits_over_ours": fits / seconds,
        "fits_and_draws_over_ours": (fits + draws) / seconds,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--windows", type=int, default=NUM_WEEKS - WINDOW)
    parser.add_argument("--batch", type=int, default=1, help="windows side by side")
    options = parser.parse_args()
    num_weeks = WINDOW + (16 if options.quick else options.windows)
    panel = returns_panel(num_weeks)
    rows = np.linspace(WINDOW, num_weeks - 1, 1 if options.quick else 5).astype(int)
    name = "backtest" if ON_CPU else "backtest_accelerator"
    report(name, [backtest_row(panel, options.batch, rows)], "statsmodels", save=options.save)
    if not ON_CPU:
        return
    tight = selection_row(panel, rows[:1], 1e-6)
    selections = [selection_row(panel, rows, RTOL), tight]
    report("backtest_selection", selections, "statsmodels", save=options.save)
    sizes = [(5, 2), (5, 1), (3, 2), (3, 1)]
    ems = [em_row(*size, models) for size in sizes for models in (1, 8, 120)]
    report("backtest_em", ems, save=options.save)


if __name__ == "__main__":
    main()
