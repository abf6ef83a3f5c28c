"""Where the time of an EM iteration goes, and what share of the machine's peak it reaches.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_roofline.py [--quick] [--save]

float64, 20 % of the cells missing. Table `roofline`: for the parts of one EM iteration (collapse;
elimination and selected inverse; the other small matrices of the E-step; residuals; M-step) the
flops and bytes counted by the formulas of kernels/README.md, the CPU time of the part compiled by
itself, the rates, and their shares of this machine's peaks, which are measured in the same run (a
float64 library product of 768 x 768 matrices, a copy of 256 MiB). `ns_per_step` divides the time of
a sequential part by its number of steps. Parts compiled apart cost more together than the whole:
what passes between them is written out and read back, and each is a call.

Table `implementations`: CPU time of elimination and selected inverse of 250 blocks of size m by the
two implementations of the small inverses, and the time that compiling took.
"""

import argparse

import jax
import jax.numpy as jnp
from panels import SIZES, draw_panel, starting_point
from timing import compile_seconds, copy_gbytes, cpu_seconds, matmul_gflops, report

from jaxfc.factors import ClosedForm
from jaxfc.factors.em import EMStep
from jaxfc.factors.path_blocks import block_diagonals
from jaxfc_kernels import block_tridiagonal
from jaxfc_kernels.collapse import collapse_diagonal
from jaxfc_kernels.var_precision import path_precision, stationary_block_cov

MISSING = 0.2
FLOAT_BYTES = 8
NUM_BLOCKS = 250
BLOCK_SIZES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20)


def counts(size: tuple[int, int, int, int]) -> dict[str, tuple[float, float, int]]:
    """(flops, bytes that must move, sequential steps) of each part; see kernels/README.md."""
    num_series, num_times, num_factors, num_lags = size
    block = num_factors * num_lags
    num_blocks = -(-num_times // num_lags)
    cells, pairs = num_times * num_series, num_factors * (num_factors + 1) // 2
    panel = FLOAT_BYTES * cells
    moments = FLOAT_BYTES * num_times * (pairs + num_factors)
    blocks = FLOAT_BYTES * num_blocks * block**2
    return {
        "collapse": (2.0 * cells * (num_factors + pairs), 2 * panel + moments, 1),
        "tridiagonal": (28.0 / 3.0 * num_blocks * block**3, 8 * blocks, 2 * num_blocks),
        "residuals": (2.0 * cells * num_factors, 2 * panel, 1),
        "m_step": (2.0 * cells * (num_factors + 2 * pairs), 2 * panel + 2 * moments, 1),
    }


def parts(size: tuple[int, int, int, int], start, data) -> dict[str, tuple]:
    """The parts as functions of arrays, with their arguments."""
    _, num_times, num_factors, num_lags = size
    num_blocks = -(-num_times // num_lags)
    step = EMStep(moments=ClosedForm(), variance_floor=jnp.asarray(1e-6))
    expectation = step.expect(start, data)
    collapsed = step.collapse(start, data, data.values)

    def precision(parameters):
        cov = stationary_block_cov(parameters.transition, parameters.innovation_cov)
        return path_precision(
            parameters.transition,
            parameters.innovation_cov,
            parameters.initial_mean,
            cov,
            num_blocks,
        )

    prior = precision(start)
    padding = num_blocks * num_lags - num_times
    information = jnp.pad(collapsed.information, ((0, padding), (0, 0), (0, 0)))
    shape = (num_blocks, num_lags, num_factors, num_factors)
    diagonal = prior.diagonal + block_diagonals(information.reshape(shape))
    linear = jnp.pad(collapsed.vectors, ((0, padding), (0, 0))).reshape(num_blocks, -1)

    def tridiagonal(diagonal, lower, linear):
        factorisation = block_tridiagonal.factorise(diagonal, lower, linear)
        return factorisation.log_det, block_tridiagonal.moments(factorisation)

    def residuals(parameters, data, means):
        errors = data.values - data.observed * (means @ parameters.loadings.T)
        return jnp.sum(errors**2, axis=0)

    return {
        "collapse": (
            lambda p, d: collapse_diagonal(d.values, d.observed, p.loadings, p.idiosyncratic_cov),
            (start, data),
        ),
        "tridiagonal": (tridiagonal, (diagonal, prior.lower, linear)),
        "precision": (precision, (start,)),
        "residuals": (residuals, (start, data, expectation.posterior.means)),
        "m_step": (step.maximise, (start, data, expectation)),
        "whole": (lambda p, d: step(p, d), (start, data)),
    }


def bench(size: tuple[int, int, int, int], peaks: tuple[float, float], quick: bool) -> list[dict]:
    """Rows of one size."""
    values, observed = draw_panel(*size, MISSING)
    start, data = starting_point(values, observed, size[2], size[3])
    counted = counts(size)
    counted["whole"] = tuple(sum(column) for column in zip(*counted.values(), strict=True))
    runs, compiling = {}, {}
    for name, (run, arguments) in parts(size, start, data).items():
        compiled, compiling[name] = compile_seconds(run, *arguments)
        runs[name] = lambda compiled=compiled, arguments=arguments: compiled(*arguments)
    seconds = cpu_seconds(runs, **({"num_samples": 3, "num_rounds": 1} if quick else {}))
    rows = []
    for name, value in seconds.items():
        flops, num_bytes, depth = counted.get(name, (float("nan"), float("nan"), 1))
        rows.append(
            {
                "size": "x".join(map(str, size)),
                "part": name,
                "ms": 1e3 * value,
                "compile_s": compiling[name],
                "mflop": 1e-6 * flops,
                "mbyte": 1e-6 * num_bytes,
                "gflop_per_s": 1e-9 * flops / value,
                "gbyte_per_s": 1e-9 * num_bytes / value,
                "share_of_flops": 1e-9 * flops / value / peaks[0],
                "share_of_bandwidth": 1e-9 * num_bytes / value / peaks[1],
                "depth": depth,
                "ns_per_step": 1e9 * value / depth if name == "tridiagonal" else float("nan"),
            }
        )
    return rows


def implementation_row(size: int, quick: bool) -> dict:
    """Elimination and selected inverse by both small inverses, for blocks of one size."""
    noise = jax.random.normal(jax.random.key(size), (NUM_BLOCKS, size, size))
    diagonal = noise @ noise.swapaxes(1, 2) / size + 3.0 * jnp.eye(size)
    lower = 0.05 * noise - 0.3 * jnp.eye(size)
    arguments = diagonal, lower, noise[:, 0]
    runs, compiling = {}, {}
    for name in ("gauss_jordan", "cholesky"):

        def run(*blocks, name=name):
            factorisation = block_tridiagonal.factorise(*blocks, implementation=name)
            return factorisation.log_det, block_tridiagonal.moments(factorisation)

        compiled, compiling[name] = compile_seconds(run, *arguments)
        runs[name] = lambda compiled=compiled: compiled(*arguments)
    seconds = cpu_seconds(runs, **({"num_samples": 3, "num_rounds": 1} if quick else {}))
    row: dict = {"m": size}
    for name in runs:
        row |= {f"{name}_ms": 1e3 * seconds[name], f"{name}_compile_s": compiling[name]}
    return row


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/*.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    peaks = matmul_gflops(), copy_gbytes()
    peak_row = {"matmul_gflop_per_s": peaks[0], "copy_gbyte_per_s": peaks[1]}
    report("peaks", [peak_row], save=options.save)
    sizes = SIZES[:1] if options.quick else SIZES
    rows = [row for size in sizes for row in bench(size, peaks, options.quick)]
    report("roofline", rows, save=options.save)
    blocks = BLOCK_SIZES[:2] if options.quick else BLOCK_SIZES
    rows = [implementation_row(block, options.quick) for block in blocks]
    report("implementations", rows, save=options.save)


if __name__ == "__main__":
    main()
