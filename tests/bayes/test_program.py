"""Densities, draws and coordinates of programs against textbook forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from numpyro.infer.util import initialize_model

from bayes.asset_worlds import small_program
from jaxfc.bayes.asset_returns import student_log_density
from jaxfc.bayes.factor_dynamics import FirstOrder, Momentum, VectorFirstOrder
from jaxfc.bayes.factor_scales import (
    ConstantScale,
    LogVolatilityPath,
    RecentScale,
    StochasticScale,
)
from jaxfc.bayes.loading_priors import (
    FixedScale,
    Horseshoe,
    LearnedScale,
    MultiplicativeGamma,
)

VARIANTS = {
    "published": (FirstOrder(), FixedScale(), ConstantScale()),
    "default": (FirstOrder(), LearnedScale(), RecentScale()),
    "momentum": (Momentum(last=4), Horseshoe(), ConstantScale()),
    "VAR": (VectorFirstOrder(), MultiplicativeGamma(), StochasticScale()),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("published", marks=pytest.mark.slow),
        "default",
        pytest.param("momentum", marks=pytest.mark.slow),
        "VAR",
    ],
)
def program(request):
    dynamics, prior, scale = VARIANTS[request.param]
    return small_program(dynamics=dynamics, loading_prior=prior, factor_scale=scale)


@pytest.fixture(scope="module")
def parameters(program):
    return program.sample_prior(key=jax.random.key(3))


def test_likelihood_is_the_sum_of_scipy_densities(program, parameters):
    rows, p = program.rows, jax.tree.map(np.asarray, parameters)
    classes = np.asarray(program.classes)

    def effect(name):
        scale = p[f"{name}_scale"][classes]
        return p[f"{name}_mean"][classes] + scale * p[f"{name}_raw"]

    mean = effect("intercept") + effect("return_effect") * rows.recent_return
    mean = mean + p["factors"] @ p["loadings"].T
    log_scale = p["level"] + effect("volatility_effect") * rows.recent_volatility
    log_scale = log_scale + effect("earnings_effect") * rows.earnings
    dof = 2.0 + np.exp(p["log_excess_mean"] + p["log_excess_scale"] * p["dof_raw"])
    cells = scipy.stats.t.logpdf(rows.returns, dof, mean, np.exp(log_scale))
    expected = np.sum(np.asarray(rows.weights) * cells)
    np.testing.assert_allclose(program.log_likelihood(parameters), expected, rtol=1e-10)


def test_coordinates_lead_back_and_their_jacobian_is_the_determinant(program, parameters):
    position = program.unconstrain(parameters)
    again = program.constrain(position)
    for name, value in parameters.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-8, atol=1e-9)
    flat, named = jax.flatten_util.ravel_pytree(position)
    vector = jax.jit(lambda x: jax.flatten_util.ravel_pytree(program.constrain(named(x)))[0])
    jacobian = jax.jit(jax.jacfwd(vector))(flat)
    log_det = np.linalg.slogdet(np.asarray(jacobian))[1]
    expected = program.log_prior(parameters) + program.log_likelihood(parameters) + log_det
    np.testing.assert_allclose(program.log_density(position), expected, rtol=1e-9)


def test_gradient_is_that_of_finite_differences(program, parameters):
    flat, named = jax.flatten_util.ravel_pytree(program.unconstrain(parameters))
    density = jax.jit(lambda x: program.log_density(named(x)))
    gradient = jax.jit(jax.grad(density))(flat)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jnp.asarray(rng.normal(size=flat.size))
        step = 1e-6
        change = (density(flat + step * direction) - density(flat - step * direction)) / (2 * step)
        np.testing.assert_allclose(gradient @ direction, change, rtol=2e-5)


def test_numpyro_has_the_density_and_returns_the_parameters(program):
    """Supports that depend on other parameters are mapped anew for every draw."""
    found = initialize_model(jax.random.key(0), program.numpyro_program())
    position = jax.tree.map(lambda x: x + 0.3, found.param_info.z)
    again = found.postprocess_fn(position)
    for name, value in program.constrain(position).items():
        np.testing.assert_allclose(again[name], value, rtol=1e-8, atol=1e-9)
    density = program.log_density(position)
    np.testing.assert_allclose(-found.potential_fn(position), density, rtol=1e-9)


def test_prior_draws_have_the_shapes_of_the_start(program, parameters):
    start = program.start()
    assert list(start) == list(parameters) == list(program.priors())
    for name, value in start.items():
        assert value.shape == parameters[name].shape
        assert bool(jnp.all(jnp.isfinite(value)))
    assert bool(jnp.isfinite(program.log_density(program.unconstrain(start))))


def test_a_missing_cell_and_a_weight_of_zero_say_nothing():
    program = small_program()
    parameters = program.sample_prior(key=jax.random.key(0))
    rows = program.rows
    hidden = rows.weights == 0.0
    assert bool(jnp.any(hidden))
    changed = jnp.where(hidden, 7.0, rows.returns)
    other = dataclasses.replace(program, rows=dataclasses.replace(rows, returns=changed))
    assert program.log_likelihood(parameters) == other.log_likelihood(parameters)
    twice = dataclasses.replace(program, rows=dataclasses.replace(rows, weights=2 * rows.weights))
    np.testing.assert_allclose(
        twice.log_likelihood(parameters), 2 * program.log_likelihood(parameters), rtol=1e-12
    )


def dense_path_cov(transitions, row_covs):
    """Covariance of a stacked path z_t = sum_j B_j z_{t-j} + e_t, e_t ~ N(0, row_covs[t]), by the
    dense system; rows before the first are zero."""
    size, num_rows = row_covs[0].shape[0], len(row_covs)
    system = np.eye(num_rows * size)
    for t in range(1, num_rows):
        for lag, matrix in transitions.items():
            if t - lag >= 0:
                place = (t - lag) * size
                system[t * size : (t + 1) * size, place : place + size] -= matrix
    inverse = np.linalg.inv(system)
    return inverse @ scipy.linalg.block_diag(*row_covs) @ inverse.T


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("name", ["first order", "momentum", "VAR"])
def test_path_density_is_that_of_the_dense_normal(name, moving):
    rng = np.random.default_rng(1)
    num_rows, size = 7, 2
    scale = np.exp(0.3 * rng.normal(size=num_rows)) if moving else np.ones(num_rows)
    path = rng.normal(size=(num_rows, size))
    if name == "VAR":
        dynamics, coupling = VectorFirstOrder(), rng.normal(size=(size, size))
        parameters = {"coupling": jnp.asarray(coupling)}
        transition = np.asarray(dynamics.transition(parameters))
        own = np.eye(size) - transition @ transition.T
        transitions, first = {1: transition}, np.eye(size)
    else:
        rho, beta = 0.4, 0.1 * (name == "momentum")
        dynamics = Momentum(last=3) if beta else FirstOrder()
        parameters = {"rho": jnp.asarray(rho), "momentum": jnp.asarray(beta)}
        transitions = {1: rho * np.eye(size), 2: beta * np.eye(size), 3: beta * np.eye(size)}
        own, first = np.eye(size), np.eye(size) / (1 - rho**2)
    row_covs = [first * scale[0] ** 2, *(own * s**2 for s in scale[1:])]
    cov = dense_path_cov(transitions, row_covs)
    expected = scipy.stats.multivariate_normal(np.zeros(num_rows * size), cov).logpdf(path.ravel())
    found = dynamics.log_prob(jnp.asarray(path), parameters, jnp.asarray(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_vector_dynamics_are_stationary_with_unit_covariance():
    dynamics = VectorFirstOrder()
    coupling = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) * 5.0)
    transition = np.asarray(dynamics.transition({"coupling": coupling}))
    assert np.linalg.svd(transition)[1].max() < 1.0
    noise = jnp.eye(3)
    images = [
        np.asarray(dynamics.next_row(jnp.zeros((1, 3)), {"coupling": coupling}, e, jnp.ones(())))
        for e in noise
    ]
    own = np.stack(images, axis=1)
    np.testing.assert_allclose(transition @ transition.T + own @ own.T, np.eye(3), atol=1e-10)


@pytest.mark.parametrize("dynamics", [FirstOrder(), Momentum(last=3), VectorFirstOrder()])
def test_simulated_paths_have_the_density_they_are_drawn_from(dynamics):
    """Means of the score at the truth are zero: E d ln p / d parameter = 0."""
    parameters = dynamics.start(2)
    parameters = jax.tree.map(lambda x: x + 0.05, parameters)
    volatility = jnp.exp(0.3 * jnp.sin(jnp.arange(12.0)))
    keys = jax.random.split(jax.random.key(0), 4000)

    @jax.jit
    def scores(keys):
        def one(key):
            path = dynamics.simulate(parameters, volatility, 2, key=key)
            score = jax.grad(lambda q: dynamics.log_prob(path, q, volatility))(parameters)
            return jax.flatten_util.ravel_pytree(score)[0]

        return jax.vmap(one)(keys)

    found = np.asarray(scores(keys))
    error = found.std(0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(0)) < 4 * error)


def test_momentum_has_the_variance_of_its_autocovariances():
    rho, beta = 0.1, 0.06
    dynamics = Momentum(last=4)
    parameters = {"rho": jnp.asarray(rho), "momentum": jnp.asarray(beta)}
    companion = np.zeros((4, 4))
    companion[0], companion[1:, :-1] = [rho, beta, beta, beta], np.eye(3)
    noise = np.zeros((4, 4))
    noise[0, 0] = 1.0
    expected = scipy.linalg.solve_discrete_lyapunov(companion, noise)[0, 0]
    found = dynamics.unconditional_cov(parameters, 2)
    np.testing.assert_allclose(found, expected * np.eye(2), rtol=1e-10)


def test_log_volatility_density_is_that_of_the_dense_normal():
    phi, spread, num_rows = 0.8, 0.3, 6
    gap = np.abs(np.subtract.outer(np.arange(num_rows), np.arange(num_rows)))
    cov = spread**2 / (1 - phi**2) * phi**gap
    path = np.random.default_rng(0).normal(size=num_rows)
    law = LogVolatilityPath(jnp.asarray(phi), jnp.asarray(spread), num_rows)
    expected = scipy.stats.multivariate_normal(np.zeros(num_rows), cov).logpdf(path)
    np.testing.assert_allclose(law.log_prob(jnp.asarray(path)), expected, rtol=1e-10)
    draws = jax.vmap(law.sample)(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.012)


def test_tails_have_a_variance_wherever_the_parameters_are(program, parameters):
    """An independent normal law of spread and place has draws that no posterior has."""
    far = parameters | {
        "log_excess_scale": jnp.asarray(1.2),
        "dof_raw": jnp.full_like(parameters["dof_raw"], -40.0),
    }
    np.testing.assert_allclose(program.dof(far), 2.0, rtol=1e-12)
    assert np.isfinite(program.log_likelihood(far))
    assert np.all(program.dof(parameters) > 2.0)


def test_student_density_with_large_dof_is_normal():
    gap, log_scale = jnp.asarray([[0.3, -1.0]]), jnp.asarray([[0.1, -0.4]])
    found = student_log_density(gap, log_scale, jnp.full(2, 1e9), jnp.ones((1, 2)))
    expected = scipy.stats.norm.logpdf(gap, 0.0, np.exp(log_scale)).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_momentum_is_refused_before_its_lags():
    with pytest.raises(ValueError, match="lag 1 is the reversal's"):
        Momentum(first=1)
