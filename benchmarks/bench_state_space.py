"""Smoothing time of `StateSpace` against dynamax's jitted smoother, on complete data.

    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/bench_state_space.py

Needs the extra `peers`. Both smoothers run in this process, in float64, on the same panel drawn
from the same stable state space with a diagonal observation covariance; the results are checked
equal before anything is timed. Times are medians of CPU seconds (`time.process_time`) over repeats
of warmed-up calls, ours and theirs in turn; compilation is listed apart. dynamax adds 1e-9 to the
diagonal of the matrices that it factorises, hence the tolerances of the check.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from dynamax.linear_gaussian_ssm import (
    ParamsLGSSM,
    ParamsLGSSMDynamics,
    ParamsLGSSMEmissions,
    ParamsLGSSMInitial,
    lgssm_smoother,
    parallel_lgssm_smoother,
)

from jaxfc.state_space import StateSpace, stationary_law

SIZES = ((35, 100, 2), (100, 250, 6), (100, 500, 10))  # (series, time, states)
OURS = ("joint", "univariate", "collapsed")


def draw_space(num_series: int, num_states: int, *, key: jax.Array) -> StateSpace:
    """Orthogonal-similar dynamics with roots 0.25 to 0.75, half of each variance common."""
    root_key, design_key = jax.random.split(key)
    rotation, _ = jnp.linalg.qr(jax.random.normal(root_key, (num_states, num_states)))
    transition = rotation @ (jnp.linspace(0.25, 0.75, num_states)[:, None] * rotation.T)
    offset, innovation_cov = jnp.zeros(num_states), jnp.eye(num_states)
    mean, cov = stationary_law(transition, offset, innovation_cov)
    design = jax.random.normal(design_key, (num_series, num_states))
    return StateSpace(
        initial_mean=mean,
        initial_cov=cov,
        transition=transition,
        offset=offset,
        innovation_cov=innovation_cov,
        design=design,
        observation_offset=jnp.zeros(num_series),
        observation_cov=jnp.einsum("ia,ab,ib->i", design, cov, design),
    )


def dynamax_params(space: StateSpace, is_diagonal: bool) -> ParamsLGSSM:
    """The same state space for dynamax."""
    noise = space.observation_cov if is_diagonal else jnp.diag(space.observation_cov)
    no_inputs = jnp.zeros((space.num_states, 0)), jnp.zeros((space.num_series, 0))
    return ParamsLGSSM(
        initial=ParamsLGSSMInitial(space.initial_mean, space.initial_cov),
        dynamics=ParamsLGSSMDynamics(
            space.transition, space.offset, no_inputs[0], space.innovation_cov
        ),
        emissions=ParamsLGSSMEmissions(space.design, space.observation_offset, no_inputs[1], noise),
    )


def compile_seconds(run: Callable, *args) -> tuple[Callable, float]:
    """The compiled function and the CPU seconds that tracing and compiling took."""
    start = time.process_time()
    compiled = jax.jit(run).lower(*args).compile()
    return compiled, time.process_time() - start


def median_seconds(runs: dict[str, tuple[Callable, tuple]], num_repeats: int) -> dict[str, float]:
    """Median CPU seconds of each run, the runs taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_repeats):
        for name, (run, args) in runs.items():
            start = time.process_time()
            jax.block_until_ready(run(*args))
            times[name].append(time.process_time() - start)
    return {name: statistics.median(of_run) for name, of_run in times.items()}


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


def bench(size: tuple[int, int, int], num_repeats: int) -> None:
    """Time one size and print a row per smoother."""
    num_series, num_times, num_states = size
    space_key, path_key = jax.random.split(jax.random.key(0))
    space = draw_space(num_series, num_states, key=space_key)
    _, values = space.simulate(num_times, key=path_key)
    as_matrix = eqx.tree_at(lambda s: s.observation_cov, space, jnp.diag(space.observation_cov))

    runs, compiles = {}, {}
    for label, run, model in (
        ("dynamax full", lgssm_smoother, dynamax_params(space, False)),
        ("dynamax diagonal", lgssm_smoother, dynamax_params(space, True)),
        ("dynamax parallel", parallel_lgssm_smoother, dynamax_params(space, False)),
    ):
        compiled, compiles[label] = compile_seconds(run, model, values)
        runs[label] = (compiled, (model, values))
    for label, implementation, model in (
        ("jaxfc joint full", "joint", as_matrix),
        ("jaxfc collapsed full", "collapsed", as_matrix),
        *((f"jaxfc {name} diagonal", name, space) for name in OURS),
    ):

        def smooth(model, values, implementation=implementation):
            return model.smooth(values, None, implementation=implementation)

        compiled, compiles[label] = compile_seconds(smooth, model, values)
        runs[label] = (compiled, (model, values))
        check_equal(compiled(model, values), runs["dynamax full"][0](*runs["dynamax full"][1]))

    seconds = median_seconds(runs, num_repeats)
    print(f"\n{num_series} series, {num_times} times, {num_states} states")
    print(f"{'smoother':28s} {'CPU ms':>9s} {'compile s':>10s} {'dynamax full / it':>18s}")
    for label, value in seconds.items():
        ratio = seconds["dynamax full"] / value
        print(f"{label:28s} {1e3 * value:9.3f} {compiles[label]:10.2f} {ratio:18.2f}")


def main() -> None:
    """Run all sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    for size in SIZES[:1] if quick else SIZES:
        bench(size, 5 if quick else 31)


if __name__ == "__main__":
    main()
