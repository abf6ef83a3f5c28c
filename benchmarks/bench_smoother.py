"""Closed-form moments of the factors against dynamax's jitted smoother, on complete data.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/bench_smoother.py [--quick] [--save]

Needs the extra `peers`. All compute, for the same parameters and the same complete panel, means,
covariances and lag covariances of the factors and the log-likelihood: ours by the block-tridiagonal
precision (`ClosedForm`), dynamax 1.0.3 on the companion form with the observation covariance as a
full matrix and as a vector, its parallel-scan smoother, and our own collapsed Kalman smoother on
the same companion form (`StateSpace`). float64, jit, one process. Before anything is timed the
results are checked equal to 1e-6; dynamax adds 1e-9 to the diagonal of what it factorises.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from dynamax.linear_gaussian_ssm import lgssm_smoother, parallel_lgssm_smoother
from panels import SIZES, draw_panel, starting_point
from peers_dynamax import dynamax_params
from timing import compile_seconds, cpu_seconds, report

from jaxfc.factors import ClosedForm
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import FactorPosterior, collapsed_misfit
from jaxfc.state_space import StateSpace, stationary_law
from jaxfc.typing import Array
from jaxfc_kernels.collapse import collapse_complete, collapse_diagonal
from jaxfc_kernels.lyapunov import companion


def closed_form(parameters: FactorParameters, values: Array) -> tuple[FactorPosterior, Array]:
    """Moments and log-likelihood, as the E-step computes them under a mask."""
    variances = parameters.idiosyncratic_cov
    ones = jnp.ones_like(values)
    collapsed = collapse_diagonal(values, ones, parameters.loadings, variances)
    posterior = ClosedForm().posterior(parameters, collapsed)
    residuals = values - posterior.means @ parameters.loadings.T
    misfit = jnp.sum(jnp.sum(residuals**2, axis=0) / variances)
    return posterior, posterior.evidence - 0.5 * misfit


def closed_form_full(parameters: FactorParameters, values: Array) -> tuple[FactorPosterior, Array]:
    """The same from the full matrix of idiosyncratic covariances."""
    cov = jnp.diag(parameters.idiosyncratic_cov)
    collapsed = collapse_complete(values, jnp.ones(len(values)), parameters.loadings, cov)
    posterior = ClosedForm().posterior(parameters, collapsed)
    return posterior, posterior.evidence - 0.5 * collapsed_misfit(collapsed, posterior.means)


def companion_space(parameters: FactorParameters) -> StateSpace:
    """The model with the state (f_t, ..., f_{t-p+1})."""
    transition = companion(parameters.transition)
    num_factors, num_states = parameters.num_factors, transition.shape[0]
    innovation_cov = jnp.zeros((num_states, num_states))
    innovation_cov = innovation_cov.at[:num_factors, :num_factors].set(parameters.innovation_cov)
    offset = jnp.zeros(num_states)
    mean, cov = stationary_law(transition, offset, innovation_cov)
    return StateSpace(
        initial_mean=mean,
        initial_cov=cov,
        transition=transition,
        offset=offset,
        innovation_cov=innovation_cov,
        design=jnp.pad(parameters.loadings, ((0, 0), (0, num_states - num_factors))),
        observation_offset=parameters.intercept,
        observation_cov=parameters.idiosyncratic_cov,
    )


def largest_error(parameters: FactorParameters, ours, theirs) -> float:
    """Largest difference of means, covariances and one-lag covariances; raises beyond 1e-6."""
    num_factors = parameters.num_factors
    posterior, loglik = ours
    means = np.asarray(theirs.smoothed_means)[:, :num_factors]
    covs = np.asarray(theirs.smoothed_covariances)[:, :num_factors, :num_factors]
    # dynamax: E[x_t x_{t+1}'] given the data
    products = np.asarray(theirs.smoothed_cross_covariances)[:, :num_factors, :num_factors]
    crosses = np.swapaxes(products, 1, 2) - means[1:, :, None] * means[:-1, None, :]
    errors = [
        np.max(np.abs(posterior.means - means)),
        np.max(np.abs(posterior.covs - covs)),
        np.max(np.abs(posterior.lag_covs[1, 1:] - crosses)),
        abs(float(loglik) / float(theirs.marginal_loglik) - 1.0),
    ]
    if max(errors) > 1e-6:
        raise AssertionError(f"moments differ by {errors}")
    return float(max(errors))


def bench(size: tuple[int, int, int, int], quick: bool) -> dict:
    """Row of one size."""
    values, observed = draw_panel(*size, 0.0)
    parameters, data = starting_point(values, observed, size[2], size[3])
    space = companion_space(parameters)
    matrix = jnp.diag(parameters.idiosyncratic_cov)
    full = dynamax_params(eqx.tree_at(lambda s: s.observation_cov, space, matrix))
    diagonal = dynamax_params(space)

    def collapsed_kalman(space, values):
        return space.smooth(values, None, implementation="collapsed")

    jobs = {
        "closed_form": (closed_form, parameters),
        "closed_form_full": (closed_form_full, parameters),
        "kalman": (collapsed_kalman, space),
        "dynamax": (lgssm_smoother, full),
        "dynamax_diagonal": (lgssm_smoother, diagonal),
        "dynamax_parallel": (parallel_lgssm_smoother, full),
    }
    compiled, compiling = {}, {}
    for name, (run, model) in jobs.items():
        compiled[name], compiling[name] = compile_seconds(run, model, data.values)
    results = {name: compiled[name](jobs[name][1], data.values) for name in jobs}
    error = max(
        largest_error(parameters, results[ours], results[theirs])
        for ours in ("closed_form", "closed_form_full")
        for theirs in ("dynamax", "dynamax_diagonal")
    )
    runs = {
        name: (lambda run=compiled[name], model=jobs[name][1]: run(model, data.values))
        for name in jobs
    }
    seconds = cpu_seconds(runs, **({"num_samples": 3, "num_rounds": 1} if quick else {}))
    row = {"size": "x".join(map(str, size)), "largest_error": error}
    row |= {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    fastest = min(seconds[name] for name in jobs if name.startswith("dynamax"))
    row |= {
        "dynamax_ratio": seconds["dynamax"] / seconds["closed_form"],
        "fastest_dynamax_ratio": fastest / seconds["closed_form"],
        "kalman_ratio": seconds["kalman"] / seconds["closed_form"],
        "closed_form_compile_s": compiling["closed_form"],
        "dynamax_compile_s": compiling["dynamax"],
        "dynamax_parallel_compile_s": compiling["dynamax_parallel"],
    }
    return row


def main() -> None:
    """All sizes, or the smallest with `--quick`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, few repeats")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/smoother.csv")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = [bench(size, options.quick) for size in (SIZES[:1] if options.quick else SIZES)]
    report("smoother", rows, "dynamax", save=options.save)


if __name__ == "__main__":
    main()
