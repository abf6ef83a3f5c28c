"""Hot kernels against the machine: flops, bytes, share of what one core reaches.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_kernels.py [--quick] [--save]

float64. Table `kernels`: CPU time of each kernel of `hot_kernels.py`, its flops and bytes by hand,
the rates, and their shares of a library product of 768 x 768 matrices and a copy of 256 MiB, both
measured in the same run. `xla_mflop`, `xla_mbyte`: what XLA's cost analysis of the compiled program
says; it counts the body of a loop once, so what grows with the length outside of loops is found
from a second program of half the length, and the rest is multiplied by the number of `trips`
(flops only; `xla_mbyte` is as XLA gives it). `depth`: operations that must follow one another.
"""

import argparse
import os

os.environ.setdefault("NPROC", "16")

import jax
from hot_kernels import KERNELS, Work
from timing import compile_seconds, copy_gbytes, cpu_seconds, matmul_gflops, report

jax.config.update("jax_enable_x64", True)


def costs(compiled: jax.stages.Compiled) -> tuple[float, float]:
    """Flops and bytes that XLA counts."""
    found = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return float(found["flops"]), float(found["bytes accessed"])


def whole_flops(work: Work, half: Work | None, counted: float) -> float:
    """XLA's flops with the bodies of loops multiplied by how often they run."""
    if half is None:
        return counted
    fewer = costs(compile_seconds(half.run, *half.arguments)[0])[0]
    outside = 2.0 * (counted - fewer)
    return outside + work.trips * (counted - outside)


def row_of(name: str, peaks: tuple[float, float], quick: bool) -> dict[str, object]:
    """One kernel."""
    build, length = KERNELS[name]
    length = length // 5 if quick else length
    work = build(length)
    half = build(length // 2) if work.trips > 1 else None
    compiled, compiling = compile_seconds(work.run, *work.arguments)
    flops, num_bytes = costs(compiled)
    taken = cpu_seconds(
        {name: lambda: compiled(*work.arguments)},
        **({"num_samples": 3, "num_rounds": 1} if quick else {}),
    )
    seconds = taken[name] / work.repeats
    return {
        "kernel": name,
        "size": work.size,
        "ms": 1e3 * seconds,
        "mflop": 1e-6 * work.flops,
        "mbyte": 1e-6 * work.num_bytes,
        "xla_mflop": 1e-6 * whole_flops(work, half, flops),
        "xla_mbyte": 1e-6 * num_bytes,
        "depth": work.depth,
        "gflop_per_s": 1e-9 * work.flops / seconds,
        "gbyte_per_s": 1e-9 * work.num_bytes / seconds,
        "matmul_gflop_per_s": peaks[0],
        "copy_gbyte_per_s": peaks[1],
        "share_of_flops": 1e-9 * work.flops / seconds / peaks[0],
        "share_of_bandwidth": 1e-9 * work.num_bytes / seconds / peaks[1],
        "compile_s": compiling,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the length, few repeats")
    parser.add_argument("--save", action="store_true", help="write results/kernels.csv")
    parser.add_argument("--only", choices=tuple(KERNELS), help="one kernel, not saved")
    options = parser.parse_args()
    peaks = matmul_gflops(), copy_gbytes()
    names = [options.only] if options.only else list(KERNELS)
    rows = [row_of(name, peaks, options.quick) for name in names]
    report("kernels", rows, save=options.save and not options.only)


if __name__ == "__main__":
    main()
