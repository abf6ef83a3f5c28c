"""Every implementation of the filter and smoother against the textbook and the dense joint law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxfc_kernels.kalman import kalman_filter
from jaxfc_kernels.kalman_paths import simulation_smoother
from jaxfc_kernels.kalman_smoother import collapsed_filter_smoother, kalman_smoother
from jaxfc_kernels.kalman_system import System, TimeVarying
from jaxfc_kernels.reference.kalman import as_matrix, at_time, kalman_filter_smoother
from jaxfc_kernels.semidefinite import semidefinite_chol
from oracles import dense_state_space

NUM_TIMES = 6
SIZES = {"wide": (5, 2), "tall": (2, 4)}  # (series, states)


def random_cov(rng, *shape):
    factor = rng.normal(size=(*shape, shape[-1]))
    return factor @ np.swapaxes(factor, -1, -2) / shape[-1] + 0.3 * np.eye(shape[-1])


def random_system(num_series, num_states, diagonal=False, seed=0):
    """A system whose matrices all differ over time."""
    rng = np.random.default_rng(seed)
    observation_cov = random_cov(rng, NUM_TIMES, num_series)
    if diagonal:
        observation_cov = np.einsum("tii->ti", observation_cov)
    varying = (
        0.5 * rng.normal(size=(NUM_TIMES, num_states, num_states)),
        rng.normal(size=(NUM_TIMES, num_states)),
        random_cov(rng, NUM_TIMES, num_states),
        rng.normal(size=(NUM_TIMES, num_series, num_states)),
        rng.normal(size=(NUM_TIMES, num_series)),
        observation_cov,
    )
    start = (3.0 * rng.normal(size=num_states), random_cov(rng, num_states))
    return System(*map(jnp.asarray, start), *(TimeVarying(jnp.asarray(v)) for v in varying))


def freeze(system):
    """The constant system that stands at the first time of a varying one."""
    return System(*(f.values[0] if isinstance(f, TimeVarying) else f for f in system))


def random_data(num_series, pattern, seed=1):
    rng = np.random.default_rng(seed)
    values = 2.0 * rng.normal(size=(NUM_TIMES, num_series))
    observed = np.ones((NUM_TIMES, num_series), bool)
    if pattern == "gaps":
        observed = rng.uniform(size=observed.shape) < 0.6
        observed[2] = False
    elif pattern == "late start":
        observed[:3] = False
    elif pattern == "nothing":
        observed[:] = False
    values[~observed] = np.nan  # must never be read
    return jnp.asarray(values), jnp.asarray(observed)


def dense(system):
    fields = [np.stack([at_time(f, t) for t in range(NUM_TIMES)]) for f in system[2:]]
    fields[-1] = np.stack([as_matrix(cov) for cov in fields[-1]])
    return dense_state_space(*map(np.asarray, system[:2]), *fields)


def collapse(system, values, observed):
    """C_t, h_t and remainders by deleting missing rows."""
    precisions, vectors, remainders = [], [], []
    for t in range(NUM_TIMES):
        seen = np.asarray(observed[t])
        design = at_time(system.design, t)[seen]
        centred = (np.asarray(values[t]) - at_time(system.observation_offset, t))[seen]
        cov = as_matrix(at_time(system.observation_cov, t))[np.ix_(seen, seen)]
        inverse = np.linalg.inv(cov)
        precisions.append(design.T @ inverse @ design)
        vectors.append(design.T @ inverse @ centred)
        log_dets = seen.sum() * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1]
        remainders.append(log_dets + centred @ inverse @ centred)
    arrays = (jnp.asarray(np.array(x)) for x in (precisions, vectors, remainders))
    precisions, vectors, remainders = arrays
    return TimeVarying(precisions), vectors, remainders


@jax.jit
def run_precollapsed(system, precisions, vectors, remainders):
    return collapsed_filter_smoother(system, precisions, vectors, remainders)


def run_through(implementation):
    if implementation == "precollapsed":
        return lambda system, values, observed: run_precollapsed(
            system, *collapse(system, values, observed)
        )

    @jax.jit
    def run(system, values, observed):
        filtered = kalman_filter(system, values, observed, implementation=implementation)
        return filtered, kalman_smoother(system.transition, filtered)

    return run


RUNS = {name: run_through(name) for name in ("joint", "univariate", "collapsed", "precollapsed")}


@pytest.mark.parametrize(
    "size, varying", [("wide", True), ("tall", True), ("wide", False)], ids=str
)
@pytest.mark.parametrize(
    "implementation, diagonal",
    [
        ("joint", False),
        ("joint", True),
        ("univariate", True),
        ("collapsed", True),
        ("collapsed", False),
        ("precollapsed", False),
    ],
)
def test_matches_textbook_and_dense_law(implementation, diagonal, size, varying):
    system = random_system(*SIZES[size], diagonal)
    if not varying:
        system = freeze(system)
    joint_law = dense(system)
    for pattern in ("complete", "gaps", "late start", "nothing"):
        values, observed = random_data(SIZES[size][0], pattern)
        filtered, smoothed = RUNS[implementation](system, values, observed)
        textbook = kalman_filter_smoother(system, np.asarray(values), np.asarray(observed))
        close = {"rtol": 1e-10, "atol": 1e-10}
        for name in textbook._fields:
            ours = getattr(filtered if hasattr(filtered, name) else smoothed, name)
            assert_allclose(ours, getattr(textbook, name), **close, err_msg=f"{pattern}: {name}")
        law = joint_law.states_given(values, observed)
        times = np.arange(NUM_TIMES)
        assert_allclose(smoothed.smoothed_means, law.mean, **close)
        assert_allclose(smoothed.smoothed_covs, law.cov[times, :, times], **close)
        cross_covs = law.cov[times[1:], :, times[:-1]]
        assert_allclose(smoothed.smoothed_cross_covs, cross_covs, **close)
        assert_allclose(filtered.loglik, joint_law.loglik(values, observed), **close)


@pytest.mark.parametrize("varying", [True, False], ids=["varying", "constant"])
@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "full"])
def test_stated_complete_equals_an_all_true_mask(diagonal, varying):
    """`observed=None` takes a path of its own through the collapse."""
    system = random_system(5, 2, diagonal)
    system = system if varying else freeze(system)
    values, observed = random_data(5, "complete")
    stated, masked = (RUNS["collapsed"](system, values, mask) for mask in (None, observed))
    for ours, theirs in zip(jax.tree.leaves(stated), jax.tree.leaves(masked), strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("implementation", ["joint", "univariate", "collapsed", "precollapsed"])
def test_singular_state_covariances(implementation):
    """A known start, a constant and a lag in the state: predicted covariances have no inverse."""
    system = freeze(random_system(5, 2, diagonal=True))._replace(
        transition=jnp.array([[0.8, 0.3], [0.0, 1.0]]),
        offset=jnp.zeros(2),
        initial_cov=jnp.zeros((2, 2)),
        innovation_cov=jnp.array([[0.5, 0.0], [0.0, 0.0]]),
    )
    values, observed = random_data(5, "gaps")
    filtered, smoothed = RUNS[implementation](system, values, observed)
    law = dense(system).states_given(values, observed)
    times = np.arange(NUM_TIMES)
    assert_allclose(smoothed.smoothed_means, law.mean, rtol=1e-10, atol=1e-10)
    assert_allclose(smoothed.smoothed_covs, law.cov[times, :, times], rtol=1e-10, atol=1e-10)
    assert_allclose(
        smoothed.smoothed_cross_covs, law.cov[times[1:], :, times[:-1]], rtol=1e-10, atol=1e-10
    )
    assert_allclose(filtered.loglik, dense(system).loglik(values, observed), rtol=1e-10)


def test_large_initial_mean_and_cov():
    """A start far away and nearly diffuse; the oracle's own rounding grows with its covariance."""
    system = freeze(random_system(5, 2, diagonal=True))
    system = system._replace(
        initial_mean=1e3 * system.initial_mean, initial_cov=1e4 * system.initial_cov
    )
    values, observed = random_data(5, "gaps")
    expected = dense(system).loglik(values, observed)
    for implementation, run in RUNS.items():
        filtered, _ = run(system, values, observed)
        assert_allclose(filtered.loglik, expected, rtol=1e-8, err_msg=implementation)


def test_simulation_smoother_has_the_posterior_law():
    """Means and covariances of 4000 draws within 5 standard errors, at fixed key."""
    system = random_system(2, 4)
    values, observed = random_data(2, "gaps")
    num_draws = 4000
    draws = jax.jit(simulation_smoother, static_argnums=3)(
        system, values, observed, num_draws, key=jax.random.key(7)
    )
    law = dense(system).states_given(values, observed)
    size = law.mean.size
    cov = law.cov.reshape(size, size)
    flat = np.asarray(draws).reshape(num_draws, size)
    variances = np.diag(cov)
    mean_errors = (flat.mean(axis=0) - law.mean.ravel()) / np.sqrt(variances / num_draws)
    assert np.abs(mean_errors).max() < 5.0
    cov_stds = np.sqrt((np.outer(variances, variances) + cov**2) / num_draws)
    assert np.abs((np.cov(flat.T) - cov) / cov_stds).max() < 5.0


def test_semidefinite_chol():
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(4, 2))
    for cov in (random_cov(rng, 4), factor @ factor.T, np.zeros((4, 4)), np.diag([0.0, 2.0, 0, 1])):
        chol = semidefinite_chol(jnp.asarray(cov))
        assert_allclose(chol @ chol.T, cov, atol=1e-12)
        assert_allclose(chol, jnp.tril(chol))
    assert_allclose(
        semidefinite_chol(jnp.asarray(random_cov(np.random.default_rng(4), 3))),
        np.linalg.cholesky(random_cov(np.random.default_rng(4), 3)),
        rtol=1e-12,
        atol=1e-14,
    )


def test_unknown_or_unfit_implementation_raises():
    system = freeze(random_system(2, 2))
    values, observed = random_data(2, "complete")
    with pytest.raises(ValueError, match="implementation must be one of"):
        kalman_filter(system, values, observed, implementation="banded")
    with pytest.raises(ValueError, match="diagonal observation_cov"):
        kalman_filter(system, values, observed, implementation="univariate")
