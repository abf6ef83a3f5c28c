"""Many small panels in one call: whole fits under `vmap` against a loop over the compiled fit.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_batch.py [--quick] [--save]

64 panels of `panels.py` with 20 % of the cells missing, each with its own seed and mask, fitted by
`DynamicFactorModel.estimate` to a relative change of the log-likelihood of 1e-6: standardisation,
principal-component start, EM, moments, identification. float64. Both ways must end at the same
log-likelihoods; `num_steps` differ from panel to panel, and the batch runs as long as its slowest.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from panels import SIZES, draw_panel
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import EM, DynamicFactorModel
from jaxfc.results import RESULTS

NUM_PANELS = 64
MISSING = 0.2
RTOL = 1e-6


def bench(size: tuple[int, int, int, int], quick: bool) -> dict:
    """Row of one size."""
    model = DynamicFactorModel(size[2], size[3], method=EM(rtol=RTOL))
    panels = [draw_panel(*size, MISSING, seed=seed) for seed in range(NUM_PANELS)]
    values = jnp.asarray(np.stack([panel[0] for panel in panels]))
    observed = jnp.asarray(np.stack([panel[1] > 0 for panel in panels]))

    def estimate(values, observed):
        return model.estimate(values, observed)

    batch, batch_compile = compile_seconds(jax.vmap(estimate), values, observed)
    single, single_compile = compile_seconds(estimate, values[0], observed[0])

    def loop():
        return [single(values[i], observed[i]) for i in range(NUM_PANELS)]

    together, apart = batch(values, observed), loop()
    if not bool(jnp.all(together.result == RESULTS.successful)):
        raise RuntimeError(f"size {size}: some of the {NUM_PANELS} fits did not converge.")
    np.testing.assert_allclose(together.loglik, [fit.loglik for fit in apart], rtol=1e-10)
    runs = {"batch": lambda: batch(values, observed), "loop": loop}
    seconds = cpu_seconds(runs, **({"num_samples": 3, "num_rounds": 1} if quick else {}))
    return {
        "size": "x".join(map(str, size)),
        "panels": NUM_PANELS,
        "batch_ms": 1e3 * seconds["batch"],
        "loop_ms": 1e3 * seconds["loop"],
        "loop_over_batch": seconds["loop"] / seconds["batch"],
        "batch_ms_per_panel": 1e3 * seconds["batch"] / NUM_PANELS,
        "median_steps": int(np.median(together.num_steps)),
        "most_steps": int(np.max(together.num_steps)),
        "batch_compile_s": batch_compile,
        "single_compile_s": single_compile,
    }


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/batch.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = SIZES[:1] if options.quick else SIZES
    report("batch", [bench(size, options.quick) for size in sizes], save=options.save)


if __name__ == "__main__":
    main()
