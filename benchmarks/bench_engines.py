"""Three engines of the block-tridiagonal posterior against each other, on this machine's cores.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_engines.py [--quick] [--save]

float64, panels of `panels.py` with 20 % of the cells missing. Table `engines`: CPU time of all that
an E-step takes from the factors, `ClosedForm(engine=...)` from collapsed data (means, covariances,
lag covariances, evidence; `moments_ms`), and of a whole EM iteration (`em_ms`), by engine, with the
time that compiling took and ratios to the sequential engine (below one: faster). `stages` is the
number of batched operations, or steps, that must follow one another. The answers are checked equal
first; `difference` is the largest difference of means and covariances to the sequential engine, in
posterior standard deviations.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np
from panels import SIZES, draw_panel, starting_point
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import ClosedForm
from jaxfc.factors.em import EMStep
from jaxfc_kernels.odd_even import SEQUENTIAL_BLOCKS
from jaxfc_kernels.tridiagonal_engines import ENGINES

MISSING = 0.2
LONG = (500, 1000, 2, 1)
TOLERANCE = 1e-9


def stages(engine: str, num_blocks: int) -> int:
    """Operations that must follow one another, forward and backward."""
    if engine == "sequential":
        return 2 * num_blocks
    if engine == "prefix_scan":
        return 4 * math.ceil(math.log2(num_blocks))
    levels, left = 0, num_blocks
    while left > SEQUENTIAL_BLOCKS:
        levels, left = levels + 1, (left + 1) // 2
    return 2 * (levels + left)


def largest_difference(answer, expected) -> float:
    """Of means and covariances, in posterior standard deviations."""
    std = np.sqrt(np.einsum("tii->ti", expected.covs))
    means = np.abs(answer.means - expected.means) / std
    covs = np.abs(answer.covs - expected.covs) / (std[:, :, None] * std[:, None])
    return float(max(means.max(), covs.max()))


def bench(size: tuple[int, int, int, int], quick: bool) -> list[dict]:
    """Rows of one size, one an engine."""
    values, observed = draw_panel(*size, MISSING)
    start, data = starting_point(values, observed, size[2], size[3])
    steps = {name: EMStep(ClosedForm(engine=name), jnp.asarray(1e-6)) for name in ENGINES}
    collapsed = steps["sequential"].collapse(start, data, data.values)
    moments, iterations, compiling = {}, {}, {}
    for name, step in steps.items():
        moments[name], moments_compile = compile_seconds(
            lambda p, c, step=step: step.moments.posterior(p, c), start, collapsed
        )
        iterations[name], em_compile = compile_seconds(lambda p, d, s=step: s(p, d), start, data)
        compiling[name] = {"moments_compile_s": moments_compile, "em_compile_s": em_compile}
    expected = moments["sequential"](start, collapsed)
    differences = {
        n: largest_difference(run(start, collapsed), expected) for n, run in moments.items()
    }
    if max(differences.values()) > TOLERANCE:
        raise RuntimeError(f"size {size}: the engines differ by {differences}.")
    fewer = {"num_samples": 3, "num_rounds": 1} if quick else {}
    moments_seconds = cpu_seconds(
        {n: lambda run=run: run(start, collapsed) for n, run in moments.items()}, **fewer
    )
    em_seconds = cpu_seconds(
        {n: lambda run=run: run(start, data) for n, run in iterations.items()}, **fewer
    )
    return [
        {
            "size": "x".join(map(str, size)),
            "engine": name,
            "stages": stages(name, -(-size[1] // size[3])),
            "difference": differences[name],
            "moments_ms": 1e3 * moments_seconds[name],
            "moments_ratio": moments_seconds[name] / moments_seconds["sequential"],
            "em_ms": 1e3 * em_seconds[name],
            "em_ratio": em_seconds[name] / em_seconds["sequential"],
            **compiling[name],
        }
        for name in ENGINES
    ]


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/engines.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = SIZES[:1] if options.quick else (*SIZES, LONG)
    rows = [row for size in sizes for row in bench(size, options.quick)]
    report("engines", rows, save=options.save)


if __name__ == "__main__":
    main()
