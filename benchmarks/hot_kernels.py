"""The hot kernels of the package, each as a function of arrays with its work counted by hand.

A `Work` is what `bench_kernels.py` compiles and times. Flops count a multiplication, an addition, a
division and a call of exp or log as one; bytes are those that must move once, 8 for a float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from bench_roofline import counts, parts
from hierarchy_world import HORIZON, NUM_TIMES, world
from panels import draw_panel, draw_space, starting_point

from jaxfc.bayes.asset_returns import AssetFactorProgram, AssetRows
from jaxfc.bayes.factor_dynamics import FirstOrder
from jaxfc.bayes.factor_scales import ConstantScale
from jaxfc.bayes.loading_priors import LearnedScale
from jaxfc.bayes.pooled_hmc import Chains, density_of, transition
from jaxfc.hierarchy import MinT, reconcile_means
from jaxfc.volatility import DCC, CorrelationModel
from jaxfc.volatility.dcc import row_losses
from jaxfc.volatility.innovations import Normal
from jaxfc.volatility.likelihood import Standardised
from jaxfc.volatility.variance import GARCH, Start
from jaxfc_kernels.hidden_markov import UNROLL, hidden_markov_filter, hidden_markov_smoother

FLOAT = 8
FEATURES = ("return_effect", "volatility_effect", "earnings_effect")


class Work(NamedTuple):
    """A kernel at one size.

    `depth` operations, or steps of loops, must follow one another; the loop that XLA counts once
    runs `trips` times; `repeats` kernels run in one call.
    """

    size: str
    run: Callable
    arguments: tuple
    flops: float
    num_bytes: float
    depth: int
    trips: int = 1
    repeats: int = 1


def em_part(name: str, num_times: int) -> Work:
    """A part of an EM iteration with 20 % of the cells missing, 100 series, K = 5, p = 2."""
    size = 100, num_times, 5, 2
    values, observed = draw_panel(*size, 0.2)
    run, arguments = parts(size, *starting_point(values, observed, *size[2:]))[name]
    flops, num_bytes, depth = counts(size)[name]
    trips = depth // 2 if name == "tridiagonal" else 1
    label = f"100 × {num_times}, K = 5, p = 2"
    return Work(label, run, arguments, flops, num_bytes, depth, trips)


def closed_form(num_times: int) -> Work:
    """Elimination and selected inverse of the block-tridiagonal precision."""
    return em_part("tridiagonal", num_times)


def em_m_step(num_times: int) -> Work:
    """Loadings, variances and dynamics from the moments."""
    return em_part("m_step", num_times)


def kalman(num_times: int) -> Work:
    """Collapsed filter and smoother, complete data: 26 2/3 and 18 products' halves a step."""
    num_series, num_states = 100, 10
    space = draw_space(num_series, num_states, key=jax.random.key(0))
    values = jax.random.normal(jax.random.key(1), (num_times, num_series))

    def run(space, values):
        return space.smooth(values, None, implementation="collapsed")

    cells, cubes = num_times * num_series, num_times * num_states**3
    flops = 2.0 * cells * num_states + (26.0 + 2.0 / 3.0 + 18.0) * cubes
    num_bytes = FLOAT * (cells + 12.0 * num_times * num_states**2)
    label = f"{num_series} × {num_times}, {num_states} states"
    return Work(label, run, (space, values), flops, num_bytes, 2 * num_times, num_times)


def garch(num_times: int) -> Work:
    """Variances of GARCH(1,1), all series side by side: 5 flops a cell."""
    num_series = 100
    residuals = jax.random.normal(jax.random.key(0), (num_times, num_series))
    parameters = jnp.array([0.05, 0.05, 0.9])

    def one(residual):
        known, start = jnp.ones(residual.shape, bool), Start(jnp.asarray(1.0))
        return GARCH().run(parameters, residual, known, start, Normal(), jnp.zeros(0))[1]

    def run(residuals):
        return jax.vmap(one, in_axes=1, out_axes=1)(residuals)

    cells = num_times * num_series
    label = f"{num_series} × {num_times}"
    num_bytes = (2 * FLOAT + 1.0) * cells
    return Work(label, run, (residuals,), 5.0 * cells, num_bytes, num_times, num_times)


def dcc(num_times: int) -> Work:
    """One value of the likelihood of the second step."""
    num_series = 50
    units = jax.random.normal(jax.random.key(0), (num_times, num_series))
    data = Standardised(units, jnp.ones(units.shape, bool))
    model = CorrelationModel(DCC())
    targets = model.targets(None, data)
    start = model.starts(units.dtype, targets)[0]

    def run(free, data, targets):
        return jnp.mean(row_losses(free, (model, data, targets)))

    flops = num_times * (num_series**3 / 3.0 + 4.0 * num_series**2)
    num_bytes = (FLOAT + 1.0) * num_times * num_series
    label = f"{num_series} × {num_times}"
    return Work(label, run, (start, data, targets), flops, num_bytes, num_times, num_times)


def hidden_markov(num_times: int) -> Work:
    """Filter and smoother in sequence, pairs of states included."""
    num_states = 4
    transition = jnp.full((num_states, num_states), 0.02) + (1.0 - 0.02 * num_states) * jnp.eye(
        num_states
    )
    initial = jnp.full(num_states, 1.0 / num_states)
    densities = -jnp.abs(jax.random.normal(jax.random.key(0), (num_times, num_states)))

    def run(initial, transition, densities):
        filtered = hidden_markov_filter(initial, transition, densities)
        return filtered.loglik_terms, hidden_markov_smoother(filtered, transition)

    cells, pairs = num_times * num_states, num_times * num_states**2
    flops = 8.0 * pairs + 6.0 * cells
    num_bytes = FLOAT * (4.0 * cells + 3.0 * pairs)
    arguments = initial, transition, densities
    label = f"{num_times} rows, {num_states} states"
    return Work(label, run, arguments, flops, num_bytes, 2 * num_times, num_times // UNROLL)


def reconcile(num_bottom: int) -> Work:
    """MinT with a shrunk covariance: a Gram matrix of the errors is most of it."""
    hierarchy, _, values, fitted, base = world(num_bottom)
    errors, mean = jnp.asarray(values - fitted), jnp.asarray(base)

    def run(mean, errors, hierarchy):
        return reconcile_means(mean, hierarchy, MinT("shrink"), residuals=errors)

    nodes = errors.shape[1]
    aggregates = nodes - num_bottom
    small, large = sorted((NUM_TIMES, nodes))
    gram = 0.6 * 2.0 * small**2 * large  # the smaller side, and half of it once
    incoherence = 2.0 * aggregates * num_bottom * NUM_TIMES
    flops = gram + incoherence + 6.0 * NUM_TIMES * nodes + 6.0 * HORIZON * nodes
    num_bytes = FLOAT * 3.0 * NUM_TIMES * nodes
    label = f"{num_bottom} series, {NUM_TIMES} errors"
    return Work(label, run, (mean, errors, hierarchy), flops, num_bytes, 1)


def leapfrog(num_times: int) -> Work:
    """A step of four chains on the M6 model's posterior: 3 (2K + 17) flops a cell and chain."""
    num_series, num_factors, num_chains, num_steps = 100, 7, 4, 16
    rng = np.random.default_rng(0)
    shape = num_times, num_series
    common = rng.normal(size=(num_times, num_factors)) @ rng.normal(size=(num_factors, num_series))
    noise, recent, volatility = rng.normal(size=(3, *shape))
    earnings = (rng.random(shape) < 0.3) * 1.0
    arrays = (0.4 * common + noise, np.ones(shape), recent, volatility, earnings)
    program = AssetFactorProgram(
        rows=AssetRows(*(jnp.asarray(a) for a in (*arrays, rng.normal(size=num_times)))),
        classes=jnp.asarray([0] * (num_series // 2) + [1] * (num_series // 2)),
        dynamics=FirstOrder(),
        loading_prior=LearnedScale(),
        factor_scale=ConstantScale(),
        num_classes=2,
        num_factors=num_factors,
        features=FEATURES,
    )
    start = program.flat()[0]
    keys = jax.random.split(jax.random.key(0))
    positions = start + 0.01 * jax.random.normal(keys[0], (num_chains, start.size))

    # Gradients at the start would be another step.
    chains = Chains(positions, jnp.zeros(num_chains), jnp.zeros_like(positions))

    def run(program, chains, keys):
        step, variance = jnp.asarray(1e-4), jnp.ones(start.size)
        length = jnp.asarray(num_steps)
        return transition(density_of(program), chains, step, variance, length, *keys)

    cells = num_times * num_series
    flops = num_chains * (3.0 * (2 * num_factors + 17) * cells + 7.0 * start.size)
    num_bytes = FLOAT * (5.0 * cells + num_chains * 6.0 * start.size)
    label = f"{num_series} × {num_times}, K = {num_factors}, {num_chains} chains"
    arguments = program, chains, keys
    return Work(label, run, arguments, flops, num_bytes, 1, 1, num_steps)


# By name, with the length at which it is measured (for `reconcile` the number of series).
KERNELS: dict[str, tuple[Callable[[int], Work], int]] = {
    "closed-form moments": (closed_form, 500),
    "M-step of EM": (em_m_step, 500),
    "Kalman smoother": (kalman, 500),
    "GARCH recursion": (garch, 2000),
    "DCC likelihood": (dcc, 2000),
    "hidden Markov smoother": (hidden_markov, 2400),
    "reconciliation": (reconcile, 1000),
    "leapfrog step": (leapfrog, 234),
}
