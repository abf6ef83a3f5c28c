"""EM steps of Markov-switching normal laws against dynamax.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/bench_regimes.py [--quick] [--save]

Needs the extra `peers`. Simulated rows of two regimes, full covariances, complete data, float64,
both from one start. CPU seconds of warmed-up programs, ours and theirs in turn in one process.

Table `regimes`: `step` is one EM step in a program compiled before; of dynamax the E- and M-steps
that its `fit_em` calls, put under one `jit` here. `fit_em_step` is a step of its own loop as it is
called, a call of 20 steps over 20: each call compiles anew. `compile_s` is what a program of one
step takes to compile. `holes` is our step when 5 % of the cells are missing, which dynamax cannot
take (its likelihood is NaN); `loglik_gap` is that of the log-likelihoods at the start. With
`--accelerator`: 20 steps of one panel and of 64, ours alone, wall time on the device JAX finds.
"""

import argparse
import os
import time

os.environ.setdefault("NPROC", "16")

import jax
import jax.numpy as jnp
import numpy as np
from timing import compile_seconds, cpu_seconds, report

from jaxfc.regimes import FullCovariance, GaussianTails, RegimeModel, no_prior
from jaxfc.regimes.em import Data, RegimeParameters, em_step
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.masked import as_rows
from jaxfc.regimes.prior import pooled_moments, prior_moments

jax.config.update("jax_enable_x64", True)
NUM_STEPS = 20
TRANSITION = np.array([[0.97, 0.03], [0.08, 0.92]])


def rows_of(num_times: int, num_series: int) -> np.ndarray:
    """Two regimes with a common factor, the second three times as volatile."""
    rng = np.random.default_rng(0)
    loadings = rng.uniform(0.5, 1.0, (num_series, 1))
    regime, found = 0, []
    for _ in range(num_times):
        regime = rng.choice(2, p=TRANSITION[regime])
        row = loadings @ rng.normal(size=1) + 0.6 * rng.normal(size=num_series)
        found.append((1.0, 3.0)[regime] * row + (0.05, -0.1)[regime])
    return np.asarray(found)


def start_of(values: np.ndarray) -> RegimeParameters:
    """Half and twice the covariance of all rows."""
    cov = np.cov(values.T)
    means = np.stack([values.mean(axis=0) + 0.05, values.mean(axis=0) - 0.05])
    return RegimeParameters(
        jnp.array([0.5, 0.5]),
        jnp.asarray(TRANSITION),
        jnp.asarray(means),
        (jnp.asarray(np.stack([0.5 * cov, 2.0 * cov])),),
    )


def our_data(values: np.ndarray, observed: np.ndarray) -> Data:
    """A panel without a prior."""
    seen = jnp.asarray(observed)
    moments = prior_moments(no_prior(), *pooled_moments(jnp.asarray(values), seen), 2)
    return Data(as_rows(jnp.asarray(values), seen), no_prior(), moments)


class Dynamax:
    """GaussianHMM with full covariances at a start."""

    def __init__(self, start: RegimeParameters):
        from dynamax.hidden_markov_model import GaussianHMM

        size, num_series = start.means.shape
        self.model = GaussianHMM(size, num_series)
        self.params, self.props = self.model.initialize(
            jax.random.key(0),
            initial_probs=start.initial,
            transition_matrix=start.transition,
            emission_means=start.means,
            emission_covariances=start.scatters[0],
        )

    def step(self, params, values: jax.Array):
        """One E- and M-step, and the log-likelihood before it."""
        stats, loglik = self.model.e_step(params, values)
        stats = jax.tree.map(lambda leaf: leaf[None], stats)
        state = self.model.initialize_m_step_state(params, self.props)
        return self.model.m_step(params, self.props, stats, state)[0], loglik

    def fit(self, values: jax.Array, num_steps: int):
        """Its own loop."""
        return self.model.fit_em(
            self.params, self.props, values, num_iters=num_steps, verbose=False
        )


def row_of(num_times: int, num_series: int) -> dict[str, object]:
    """All figures of one size."""
    values = rows_of(num_times, num_series)
    start, data = start_of(values), our_data(values, np.ones(values.shape, bool))
    emissions = Emissions((FullCovariance(),), GaussianTails(), 2)

    def ours(parameters, data):
        return em_step(emissions, parameters, data, "sequential")

    peer, array = Dynamax(start), jnp.asarray(values)
    step, compiling = compile_seconds(ours, start, data)
    their_step, their_compiling = compile_seconds(peer.step, peer.params, array)
    seen = np.random.default_rng(1).random(values.shape) > 0.05
    holes = our_data(np.where(seen, values, np.nan), seen)
    taken = cpu_seconds(
        {
            "ours": lambda: step(start, data),
            "dynamax": lambda: their_step(peer.params, array),
            "holes": lambda: step(start, holes),
        }
    )
    loops = []
    for _ in range(3):
        begun = time.process_time()
        jax.block_until_ready(peer.fit(array, NUM_STEPS))
        loops.append(time.process_time() - begun)
    loop = float(np.median(loops)) / NUM_STEPS
    ours_loglik = float(step(start, data)[1])
    return {
        "series": num_series,
        "rows": num_times,
        "jaxfc_step_ms": 1e3 * taken["ours"],
        "dynamax_step_ms": 1e3 * taken["dynamax"],
        "dynamax_fit_em_step_ms": 1e3 * loop,
        "step_ratio": taken["dynamax"] / taken["ours"],
        "fit_em_ratio": loop / taken["ours"],
        "jaxfc_holes_ms": 1e3 * taken["holes"],
        "jaxfc_compile_s": compiling,
        "dynamax_compile_s": their_compiling,
        "loglik_gap": abs(float(their_step(peer.params, array)[1]) - ours_loglik),
    }


def accelerator_row(implementation: str, num_panels: int) -> dict[str, object]:
    """Ours alone: wall seconds of 20 EM steps of many panels (2500 x 12) on the device."""
    values = rows_of(2500, 12)
    shifts = np.random.default_rng(1).integers(0, 2500, num_panels)
    panels = jnp.asarray(np.stack([np.roll(values, shift, axis=0) for shift in shifts]))
    seen = jnp.ones(values.shape, bool)
    model = RegimeModel(
        2, implementation=implementation, max_steps=NUM_STEPS, tolerance=0.0, prior=no_prior()
    )
    run = jax.jit(jax.vmap(lambda one: model.estimate(one, seen).loglik))
    begun = time.perf_counter()
    jax.block_until_ready(run(panels))
    first, taken = time.perf_counter() - begun, []
    for _ in range(5):
        begun = time.perf_counter()
        jax.block_until_ready(run(panels))
        taken.append(time.perf_counter() - begun)
    return {
        "device": jax.devices()[0].device_kind,
        "panels": num_panels,
        "implementation": implementation,
        "wall_s": float(np.median(taken)),
        "first_call_s": first,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--accelerator", action="store_true", help="ours alone, wall time")
    options = parser.parse_args()
    if options.accelerator:
        rows = [accelerator_row(how, n) for n in (1, 64) for how in ("sequential", "parallel")]
        report("regimes_accelerator", rows, save=options.save)
        return
    sizes = [(500, 4)] if options.quick else [(2500, 4), (2500, 12), (2500, 30)]
    report("regimes", [row_of(*size) for size in sizes], "dynamax", save=options.save)


if __name__ == "__main__":
    main()
