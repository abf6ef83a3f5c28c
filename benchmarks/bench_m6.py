"""The M6 model on its author's problem: 100 assets, 234 four-week periods, 7 factors.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_m6.py [--quick] [--save]
    python benchmarks/bench_m6.py --problem PROBLEM.npz   # writes what benchmarks/m6_pymc.py reads
    python benchmarks/bench_m6.py --peer DRAWS.npz        # adds a row for its draws
    python benchmarks/bench_m6.py --accelerator           # the official rounds as one batch

Needs the real data beside the project. Float32, as the package runs by default. Table `m6`: one row
for each way to draw; `compile_s`, `cpu_s` (warm-up and draws) and `wall_s` are seconds; `min_ess`
and `max_rhat` are of the quantities that the data identify (`Program.identified`), `ess_per_cpu_s`
their quotient with the compilation counted. The row of the peer is of the quantities of these names
that it has; `benchmarks/m6_pymc.py` runs in an environment of its own with PyMC.
"""

import argparse
import itertools
import os
import time

os.environ.setdefault("NPROC", "16")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from timing import report

from experiments.m6 import PERIODS_BEFORE, round_rps
from experiments.m6_batch import forecasts
from experiments.m6_data import ROUND_ENDS, m6_assets, official_prices
from experiments.m6_models import RAMP
from jaxfc.bayes import bulk_ess, split_rhat
from jaxfc.bayes.factor_scales import ConstantScale
from jaxfc.bayes.loading_priors import FixedScale
from jaxfc.bayes.m6 import FittedM6, M6Model, long_paths
from jaxfc.bayes.past_weights import LinearRamp
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.variational import MeanFieldNormal
from jaxfc.panel import Panel


@eqx.filter_jit
def estimated(model: M6Model, values: jax.Array, observed: jax.Array, key: jax.Array) -> FittedM6:
    """One posterior."""
    return model.estimate(values, observed, key=key)


def variants(num_draws: int) -> dict[str, tuple[dict, object]]:
    """What is timed."""
    hmc = long_paths(num_draws)
    published = {"loading_prior": FixedScale(), "factor_scale": ConstantScale()}
    return {
        "default, PooledHMC": ({}, hmc),
        "published priors, PooledHMC": (published, hmc),
        "default, MeanFieldNormal": ({}, MeanFieldNormal(num_draws=2000, max_pareto_k=jnp.inf)),
    }


def one_fit(model: M6Model, panel: Panel) -> dict[str, object]:
    """Seconds and diagnostics of one posterior."""
    arguments = (model.resolved(panel), *panel.arrays(), jax.random.key(0))
    cpu = time.process_time()
    compiled = estimated.lower(*arguments).compile()
    compile_s = time.process_time() - cpu
    cpu, wall = time.process_time(), time.perf_counter()
    fitted = jax.block_until_ready(compiled(*arguments))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    found = fitted.diagnostics
    ess = float(found.min_bulk_ess)
    return {
        "compile_s": compile_s,
        "cpu_s": cpu,
        "wall_s": wall,
        "min_ess": ess,
        "max_rhat": float(found.max_rhat),
        "divergent": int(found.num_divergent),
        "ess_per_cpu_s": ess / (cpu + compile_s),
        "fewest": str(found.table()["min_bulk_ess"].idxmin()),
    }


def author_problem() -> Panel:
    """All periods before the last."""
    assets = m6_assets()
    return assets.panel(assets.names).window(0, 234)


def timed_fits(num_draws: int) -> list[dict[str, object]]:
    """One row for each variant."""
    assets, panel = m6_assets(), author_problem()
    rows: list[dict[str, object]] = []
    for name, (options, inference) in variants(num_draws).items():
        options = {"past": LinearRamp(float(RAMP)), "inference": inference, **options}
        rows.append({"variant": name, **one_fit(M6Model(assets.classes, **options), panel)})
        print(rows[-1], flush=True)
    return rows


def write_problem(path: str) -> None:
    """What the peer reads: returns as they are, features and weights as the density has them."""
    assets, panel = m6_assets(), author_problem()
    model = M6Model(assets.classes, past=LinearRamp(float(RAMP))).resolved(panel)
    data = model.data(*panel.arrays())
    rows = data.rows
    program = model.program(rows)
    returns = jnp.where(rows.weights > 0.0, rows.returns * data.scale, jnp.nan)
    np.savez(
        path,
        returns=returns,
        recent_return=rows.recent_return,
        recent_volatility=rows.recent_volatility,
        earnings=rows.earnings,
        classes=program.classes,
        weights=model.past.weights(panel.num_times),
    )


def peer_row(path: str) -> dict[str, object]:
    """The smallest effective size of the peer's draws over its CPU seconds."""
    told = np.load(path)
    kept = [name for name in told if not name.startswith(("stat_", "seconds_"))]
    draws = {name: told[name] for name in kept if name not in ("versions", "mode")}
    sizes = {name: np.min(np.asarray(bulk_ess(jnp.asarray(v)))) for name, v in draws.items()}
    seconds = {k: float(told[f"seconds_{k}"]) for k in ("compile", "warmup", "sampling")}
    cpu = seconds["warmup"] + seconds["sampling"]
    least = min(sizes.values())
    return {
        "variant": f"PyMC, {draws['rho'].shape[0]} x {draws['rho'].shape[1]} draws",
        "compile_s": seconds["compile"],
        "cpu_s": cpu,
        "wall_s": np.nan,
        "min_ess": least,
        "max_rhat": max(float(jnp.nanmax(split_rhat(jnp.asarray(v)))) for v in draws.values()),
        "divergent": int(np.sum(told["stat_divergent"])),
        "ess_per_cpu_s": least / (cpu + seconds["compile"]),
        "fewest": min(sizes, key=lambda name: sizes[name]),
    }


def rounds_in_one_batch(num_draws: int, num_warmup: int) -> pd.DataFrame:
    """The 12 rounds as one batch: seconds, RPS, diagnostics of each."""
    assets = m6_assets()
    prices = official_prices(None)[assets.names].ffill()
    windows, outcomes = [], []
    for origin, end in itertools.pairwise(ROUND_ENDS[1:]):
        panel = assets.known_at(origin).panel(assets.names)
        windows.append(panel.window(panel.num_times - PERIODS_BEFORE, None))
        outcomes.append((prices.loc[end] / prices.loc[origin] - 1.0).to_numpy())
    arrays = [w.arrays() for w in windows]
    values, observed = (jnp.stack(parts) for parts in zip(*arrays, strict=True))
    inference = PooledHMC(num_draws=num_draws, num_warmup=num_warmup)
    options = {"past": LinearRamp(float(RAMP)), "inference": inference, "num_replicates": 5}
    model = M6Model(assets.classes, **options).resolved(windows[-1])
    arguments = model, values, observed, jax.random.split(jax.random.key(6), len(windows))
    start = time.perf_counter()
    compiled = forecasts.lower(*arguments).compile()
    print(f"compile {time.perf_counter() - start:.1f} s", flush=True)
    start = time.perf_counter()
    draws, details = jax.block_until_ready(compiled(*arguments))
    print(f"12 rounds, {num_draws} draws x 4 chains: {time.perf_counter() - start:.1f} s wall")
    scores = [round_rps(d, o) for d, o in zip(np.asarray(draws), outcomes, strict=True)]
    table = pd.DataFrame({"RPS": scores, **details})
    print(table.to_string(), "\nmean RPS", table["RPS"].mean(), jax.devices()[0].device_kind)
    return table


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--accelerator", action="store_true")
    parser.add_argument("--problem", help="write the problem for the peer to this file")
    parser.add_argument("--peer", help="the peer's draws")
    options = parser.parse_args()
    if options.accelerator:
        rounds_in_one_batch(100 if options.quick else 1000, 100 if options.quick else 500)
        return
    if options.problem:
        write_problem(options.problem)
        return
    rows = timed_fits(100 if options.quick else 1000)
    if options.peer:
        rows.append(peer_row(options.peer))
    report("m6", rows, save=options.save)


if __name__ == "__main__":
    main()
