"""Smoothing time of `StateSpace` against dynamax's jitted smoother, on complete data.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_state_space.py [--quick] [--save]

Needs the extra `peers`. All smooth the same panel, drawn from one stable state space with a
diagonal observation covariance, in float64 and one process; the results are checked equal before
anything is timed (dynamax adds 1e-9 to the diagonal of what it factorises, hence the tolerances).

Table `state_space`: CPU ms of a call by implementation, beside dynamax with the observation
covariance in the same form (`noise`: a full matrix, or its diagonal) and its parallel-scan smoother
(full only). `size` is series x times x states.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from dynamax.linear_gaussian_ssm import lgssm_smoother, parallel_lgssm_smoother
from panels import draw_space
from peers_dynamax import dynamax_params
from timing import compile_seconds, cpu_seconds, report

SIZES = ((35, 100, 2), (100, 250, 6), (100, 500, 10))  # (series, time, states)
OURS = (
    ("joint", "full"),
    ("collapsed", "full"),
    ("joint", "diagonal"),
    ("univariate", "diagonal"),
    ("collapsed", "diagonal"),
)


def check_equal(ours, theirs) -> None:
    """Raise `AssertionError` unless moments and likelihood agree."""
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(ours.smoothed_means, theirs.smoothed_means, **close)
    np.testing.assert_allclose(ours.smoothed_covs, theirs.smoothed_covariances, **close)
    np.testing.assert_allclose(ours.loglik, theirs.marginal_loglik, rtol=1e-8)
    means = ours.smoothed_means
    products = means[1:, :, None] * means[:-1, None, :] + ours.smoothed_cross_covs
    swapped = jnp.swapaxes(theirs.smoothed_cross_covariances, 1, 2)
    np.testing.assert_allclose(products, swapped, **close)


def bench(size: tuple[int, int, int], quick: bool) -> list[dict]:
    """Rows of one size: our implementations, each beside dynamax with the same form of noise."""
    num_series, num_times, num_states = size
    space_key, path_key = jax.random.split(jax.random.key(0))
    space = draw_space(num_series, num_states, key=space_key)
    _, values = space.simulate(num_times, key=path_key)
    matrix = jnp.diag(jnp.asarray(space.observation_cov))
    as_matrix = eqx.tree_at(lambda s: s.observation_cov, space, matrix)

    runs, compiling = {}, {}
    for noise, parallel in (("full", False), ("diagonal", False), ("full", True)):
        smoother = parallel_lgssm_smoother if parallel else lgssm_smoother
        model = dynamax_params(as_matrix if noise == "full" else space)
        compiled, _ = compile_seconds(smoother, model, values)
        name = "parallel" if parallel else noise
        runs[name] = lambda compiled=compiled, model=model: compiled(model, values)
    theirs = runs["full"]()
    for implementation, noise in OURS:
        model = as_matrix if noise == "full" else space

        def smooth(model, values, implementation=implementation):
            return model.smooth(values, None, implementation=implementation)

        name = implementation, noise
        compiled, compiling[name] = compile_seconds(smooth, model, values)
        check_equal(compiled(model, values), theirs)
        runs[name] = lambda compiled=compiled, model=model: compiled(model, values)

    repeats = {"num_samples": 3, "num_rounds": 1} if quick else {}
    seconds = cpu_seconds(runs, **repeats)
    return [
        {
            "size": "x".join(map(str, size)),
            "implementation": implementation,
            "noise": noise,
            "ours_ms": 1e3 * seconds[implementation, noise],
            "dynamax_ms": 1e3 * seconds[noise],
            "dynamax_ratio": seconds[noise] / seconds[implementation, noise],
            "dynamax_parallel_ms": 1e3 * seconds["parallel"],
            "compile_s": compiling[implementation, noise],
        }
        for implementation, noise in OURS
    ]


def main() -> None:
    """Run all sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write results/state_space.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = SIZES[:1] if options.quick else SIZES
    rows = [row for size in sizes for row in bench(size, options.quick)]
    report("state_space", rows, "dynamax", save=options.save)


if __name__ == "__main__":
    main()
