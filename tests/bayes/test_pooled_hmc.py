"""Pooled Hamiltonian chains against laws with known moments."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes.known_posteriors import regression
from jaxfc.bayes import Limits, PooledHMC, Tuned, judged
from jaxfc.bayes.pooled_hmc import path_length
from jaxfc.results import RESULTS


@eqx.filter_jit
def drawn(sampler, program, key):
    return sampler.sample(program, key=key)


@pytest.fixture(scope="module")
def program():
    return regression()


@pytest.fixture(scope="module")
def draws(program):
    return drawn(PooledHMC(num_draws=500, num_warmup=300, num_leapfrogs=8), program, key(0))


def key(number):
    return jax.random.key(number)


def test_moments_are_those_of_the_conjugate_posterior(program, draws):
    mean, cov = program.posterior()
    found = np.concatenate([np.asarray(v).reshape(2000, -1) for v in draws.pooled().values()], 1)
    sd = np.sqrt(np.diag(cov))
    # The effective size is above 500: 4.5 standard errors.
    assert np.all(np.abs(found.mean(0) - mean) < 4.5 * sd / np.sqrt(500))
    np.testing.assert_allclose(found.std(0), sd, rtol=4.5 / np.sqrt(2 * 500))
    assert judged(draws, program).result == RESULTS.successful


def test_what_is_reported(draws):
    assert not draws.divergent.any()
    assert 0.6 < float(draws.moved.mean()) <= 1.0
    assert len(set(np.asarray(draws.step_size))) == 1
    assert 6.5 < float(draws.num_leapfrogs[0]) < 9.5
    assert int(draws.num_steps) == 800
    # A stationary chain: twice the kinetic energy is the number of parameters on average.
    kinetic = np.asarray(draws.energy + draws.log_density)
    np.testing.assert_allclose(2 * kinetic.mean(), 4, rtol=0.1)


def test_draws_follow_the_key_and_a_batch_is_the_loop(program):
    sampler = PooledHMC(num_chains=2, num_draws=20, num_warmup=30, num_leapfrogs=4)
    one = drawn(sampler, program, key(1))
    again = drawn(sampler, program, key(1))
    np.testing.assert_array_equal(one.log_density, again.log_density)
    other = regression(1)
    both = jax.tree.map(lambda *x: jnp.stack(x), program, other)
    batch = eqx.filter_jit(jax.vmap(lambda p: sampler.sample(p, key=key(1)).log_density))(both)
    np.testing.assert_allclose(batch[0], one.log_density, atol=1e-6)
    np.testing.assert_allclose(batch[1], drawn(sampler, other, key(1)).log_density, atol=1e-6)


def test_a_warm_start_keeps_mass_and_step(program, draws):
    short = PooledHMC(num_draws=200, num_warmup=20, num_leapfrogs=8, warm=draws.tuned)
    found = drawn(short, program, key(2))
    np.testing.assert_array_equal(found.tuned.variance, draws.tuned.variance)
    assert 0.5 < float(found.tuned.step_size / draws.tuned.step_size) < 2.0
    limits = Limits(rhat=1.05, ess=100.0)
    assert judged(found, program, limits=limits).result == RESULTS.successful


def test_paths_of_all_lengths_come_equally_often():
    lengths = np.asarray([path_length(jnp.asarray(i), jnp.asarray(9)) for i in range(900)])
    numbers, counts = np.unique(lengths, return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(5, 14))
    assert counts.min() > 95 and counts.max() < 105


def test_chains_that_cannot_move_are_frozen_and_nan_has_diverged(program):
    size = program.flat()[0].size
    stuck = Tuned(jnp.zeros((2, size)), jnp.ones(size), jnp.asarray(1e6))
    sampler = PooledHMC(
        num_chains=2, num_draws=20, num_warmup=1, num_leapfrogs=4, warm=stuck, target_accept=0.0
    )
    assert drawn(sampler, program, key(0)).result == RESULTS.frozen_chain
    lost = dataclasses.replace(program, values=program.values * jnp.nan)
    cold = dataclasses.replace(sampler, warm=None)
    assert drawn(cold, lost, key(0)).result == RESULTS.diverged
