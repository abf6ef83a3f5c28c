"""Bayesian instrumented PCA: its density by scipy, invariance, data drawn from it, a short run."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.linalg import block_diag

from jaxfc.bayes.factor_dynamics import FirstOrder, VectorFirstOrder
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares
from jaxfc.bayes.instrumented_bayes import (
    InstrumentedProgram,
    instrumented_data,
    instrumented_draws,
)
from jaxfc.bayes.instrumented_portfolios import managed_portfolios
from jaxfc.bayes.pooled_hmc import PooledHMC

NUM_TIMES, NUM_ASSETS, SIZE = 24, 30, 3
GAMMA = np.array([[0.03, 0.0], [0.01, 0.02], [-0.01, 0.02]])


def world(seed=0):
    """Returns in decimals on two factors with premia, a tenth of the cells missing."""
    rng = np.random.default_rng(seed)
    characteristics = rng.normal(size=(NUM_TIMES, NUM_ASSETS, SIZE)) * [1.0, 2.0, 0.5]
    factors = rng.normal(size=(NUM_TIMES, 2)) + np.array([0.5, 0.3])
    returns = np.einsum("tnl,lk,tk->tn", characteristics, GAMMA, factors)
    returns = returns + 0.02 * rng.normal(size=returns.shape)
    usable = rng.random(returns.shape) > 0.1
    usable[5] = False
    return tuple(map(jnp.asarray, (returns, characteristics, usable)))


@pytest.fixture(scope="module")
def data():
    return prepared(*world())


prepared = jax.jit(instrumented_data)


@eqx.filter_jit
def drawn_prior(program, key):
    return program.sample_prior(key=key)


@eqx.filter_jit
def densities(program, parameters):
    """Prior, path of the factors, likelihood, what is identified, transition where there is one."""
    path = program.priors()["factors"](parameters).log_prob(parameters["factors"])
    vector = isinstance(program.dynamics, VectorFirstOrder)
    return (
        program.log_prior(parameters),
        path,
        program.log_likelihood(parameters),
        program.identified(parameters),
        program.dynamics.transition(parameters) if vector else None,
    )


def arrays(parameters):
    return {name: np.asarray(value) for name, value in parameters.items()}


def normal(value, scale, mean=0.0):
    return scipy.stats.norm.logpdf(value, mean, scale).sum()


def half_normal(value, scale):
    return scipy.stats.halfnorm.logpdf(value, scale=scale).sum()


def test_density_is_the_sum_of_scipys(data):
    """With an intercept, departures, fat tails, weights of rows, missing cells and an AR(1)."""
    row_weights = jnp.linspace(0.3, 1.0, NUM_TIMES)
    weighted = prepared(*world(), row_weights)
    program = InstrumentedProgram(weighted, 2, intercept=True, departures=True)
    p = arrays(drawn_prior(program, jax.random.key(1)))
    rho = float(p["rho"])
    places = np.arange(NUM_TIMES)
    cov = rho ** np.abs(places[:, None] - places) / (1 - rho**2)
    path = (p["factors"] - p["premium"]).T
    prior = (
        scipy.stats.truncnorm.logpdf(rho, -0.99 / 0.2, 0.99 / 0.2, scale=0.2)
        + normal(p["premium"], 0.5)
        + scipy.stats.multivariate_normal.logpdf(path, np.zeros(NUM_TIMES), cov).sum()
        + half_normal(p["gamma_scale"], 1.0)
        + normal(p["gamma"], p["gamma_scale"])
        + half_normal(p["alpha_scale"], 0.2)
        + normal(p["alpha"], p["alpha_scale"])
        + half_normal(p["departure_scale"], 0.3)
        + normal(p["departure_raw"], 1.0)
        + normal(p["level_mean"], 1.0, -0.5)
        + half_normal(p["level_scale"], 0.5)
        + normal(p["level"], p["level_scale"], p["level_mean"])
        + normal(p["log_dof"], 0.5, np.log(7.0))
    )
    log_prior, _, log_likelihood, _, _ = densities(program, p)
    assert float(log_prior) == pytest.approx(prior, rel=1e-10)
    returns, characteristics, usable = map(np.asarray, world())
    scale = np.median(np.abs(returns[usable])) / scipy.stats.norm.ppf(0.75)
    sizes = np.sqrt(np.mean(characteristics[usable] ** 2, axis=0))
    total = 0.0
    for t, i in np.argwhere(usable):
        loading = characteristics[t, i] / sizes @ p["gamma"]
        loading = loading + p["departure_scale"] * p["departure_raw"][i]
        mean = loading @ p["factors"][t] + characteristics[t, i] / sizes @ p["alpha"]
        law = scipy.stats.t(np.exp(p["log_dof"]), mean, np.exp(p["level"][i]))
        total += float(row_weights[t]) * law.logpdf(returns[t, i] / scale)
    assert float(log_likelihood) == pytest.approx(total, rel=1e-10)


def test_vector_autoregression_and_normal_errors_equal_dense_algebra(data):
    program = InstrumentedProgram(data, 2, dynamics=VectorFirstOrder(), fat_tails=False)
    p = arrays(drawn_prior(program, jax.random.key(2)))
    _, of_path, log_likelihood, identified, transition = densities(program, p)
    transition = np.asarray(transition)
    shocks = np.eye(2) - transition @ transition.T
    step = np.eye(2 * NUM_TIMES) - np.kron(np.eye(NUM_TIMES, k=-1), transition)
    inverse = np.linalg.inv(step)
    cov = inverse @ block_diag(np.eye(2), *[shocks] * (NUM_TIMES - 1)) @ inverse.T
    path = (p["factors"] - p["premium"]).ravel()
    expected = scipy.stats.multivariate_normal.logpdf(path, np.zeros(path.size), cov)
    assert float(of_path) == pytest.approx(expected, rel=1e-9)
    mean = np.einsum("tnl,lk,tk->tn", data.characteristics, p["gamma"], p["factors"])
    cells = scipy.stats.norm.logpdf(np.asarray(data.returns), mean, np.exp(p["level"]))
    total = cells[np.asarray(data.weights) > 0].sum()
    assert float(log_likelihood) == pytest.approx(total, rel=1e-10)
    assert float(identified["persistence"]) == pytest.approx(np.trace(transition))


def test_a_rotation_changes_neither_the_likelihood_nor_what_is_identified(data):
    program = InstrumentedProgram(data, 2, departures=True)
    given = arrays(drawn_prior(program, jax.random.key(3)))
    rotation = np.asarray([[0.6, -0.8], [0.8, 0.6]])
    rotated = ("gamma", "factors", "premium", "departure_raw")
    moved = {**given, **{name: given[name] @ rotation for name in rotated}}
    (_, path, likelihood, before, _), after = densities(program, given), densities(program, moved)
    assert float(after[2]) == pytest.approx(float(likelihood), rel=1e-12)
    assert float(after[1]) == pytest.approx(float(path), rel=1e-12)
    assert "gamma" not in before and "factors" not in before
    for name in before:
        np.testing.assert_allclose(after[3][name], before[name], rtol=1e-10)


def test_missing_cells_are_never_read_and_units_do_not_matter(data):
    returns, characteristics, usable = world()
    holes = jnp.where(usable, returns, jnp.nan)
    held = jnp.where(usable[:, :, None], characteristics, jnp.nan)
    percent = prepared(100.0 * holes, held * jnp.asarray([1.0, 10.0, 0.1]), usable)
    np.testing.assert_allclose(percent.returns, data.returns, atol=1e-12)
    np.testing.assert_allclose(percent.characteristics, data.characteristics, atol=1e-12)
    one, other = (InstrumentedProgram(d, 2) for d in (data, percent))

    @eqx.filter_jit
    def begun(program):
        start = program.start()
        return start, program.log_density(program.unconstrain(start))

    (start, density), (again, other_density) = begun(one), begun(other)
    for name, value in again.items():
        np.testing.assert_allclose(value, start[name], atol=1e-6)
    assert np.isfinite(density)
    assert float(other_density) == pytest.approx(float(density), rel=1e-8)


def test_data_drawn_again_have_the_model_moments(data):
    program = InstrumentedProgram(data, 2, fat_tails=False)

    @eqx.filter_jit
    def again(program):
        given = program.start()
        keys = jax.random.split(jax.random.key(4), 400)
        drawn = jax.vmap(lambda key: program.simulated(given, key=key).data.returns)(keys)
        return given, program.expected(given), drawn

    given, expected, drawn = again(program)
    seen = np.asarray(data.weights) > 0
    assert np.all(np.asarray(drawn)[:, ~seen] == 0.0)
    scale = np.broadcast_to(np.exp(given["level"]), seen.shape)
    error = (np.mean(drawn, axis=0) - expected) / (scale / 20.0)
    assert np.abs(np.asarray(error)[seen]).max() < 5
    spread = np.std(drawn, axis=0)[seen] / scale[seen]
    np.testing.assert_allclose(spread, 1.0, atol=5 / np.sqrt(800))


def test_more_factors_than_characteristics_and_bad_scales_are_refused(data):
    with pytest.raises(ValueError, match="4 factors cannot be told apart by 3"):
        InstrumentedProgram(data, 4)
    with pytest.raises(ValueError, match="premium_scale of InstrumentedProgram must be positive"):
        InstrumentedProgram(data, 1, premium_scale=0.0)


@pytest.fixture(scope="module")
def sampled(data):
    program = InstrumentedProgram(data, 2, fat_tails=False)
    inference = PooledHMC(num_chains=4, num_draws=150, num_warmup=250, num_leapfrogs=16)

    @eqx.filter_jit
    def run(program):
        draws = inference.sample(program, key=jax.random.key(5))
        return draws, draws.map(program.identified)

    return program, *run(program)


@pytest.mark.slow
def test_with_many_data_the_posterior_lies_at_least_squares(data, sampled):
    """Invariants in units of the data: c_T of the last row, and Gamma Gamma' scaled to its trace.

    Factors have unit innovations here and unit-length Gamma there, so the product is compared in
    the metric of least squares' factor covariance.
    """
    _, draws, invariants = sampled
    solve = jax.jit(lambda *data: AlternatingLeastSquares(2).solve(managed_portfolios(*data)))
    found = solve(*world())
    last = np.asarray(invariants["last_earned"]).reshape(-1, SIZE)
    error = last.mean(0) - np.asarray(found.characteristic_returns[-1])
    assert np.abs(error / last.std(0)).max() < 1.0
    premium = np.asarray(invariants["premium_returns"]).reshape(-1, SIZE)
    assert np.abs((premium.mean(0) - found.mean_returns) / premium.std(0)).max() < 1.0
    product = np.asarray(invariants["gamma_product"]).reshape(-1, SIZE, SIZE)
    # Under unit innovations Gamma Gamma' is the covariance of c_t.
    earned = np.asarray(found.characteristic_returns)[np.asarray(found.used)]
    gap = (product.mean(0) - np.cov(earned.T)) / product.std(0)
    assert np.abs(gap).max() < 1.5
    assert float(np.mean(draws.moved)) > 0.6


def test_forecast_draws_have_the_posterior_mean(data, sampled):
    program, draws, invariants = sampled
    characteristics = world()[1][-1]
    ahead = eqx.filter_jit(instrumented_draws)
    law = ahead(program, draws, characteristics.at[1, 1].set(jnp.nan), 3, key=jax.random.key(6))
    assert law.draws.shape == (600, 3, NUM_ASSETS)
    premium = np.asarray(invariants["premium_returns"]).reshape(-1, SIZE).mean(0)
    # Far ahead nothing is left of the last row; five Monte Carlo errors.
    known = np.arange(NUM_ASSETS) != 1
    error = np.asarray(law.mean[2]) - np.asarray(characteristics) @ premium
    assert np.abs(error / (np.asarray(law.std[2]) / np.sqrt(600)))[known].max() < 5
    own_sd = 0.02
    assert np.all(np.asarray(law.std)[:, known] > 0.9 * own_sd)
    # An asset without all its characteristics has no forecast, the others do.
    assert np.isnan(law.draws[:, :, 1]).all() and np.isfinite(law.draws[:, :, known]).all()


def test_numpyro_program_has_the_same_density(data):
    from numpyro.infer.util import log_density

    program = InstrumentedProgram(data, 1, dynamics=FirstOrder())
    drawn = drawn_prior(program, jax.random.key(7))
    log_prior, _, log_likelihood, _, _ = densities(program, drawn)
    theirs = jax.jit(lambda p: log_density(program.numpyro_program(), (), {}, p)[0])(drawn)
    assert float(theirs) == pytest.approx(float(log_prior + log_likelihood), rel=1e-10)
