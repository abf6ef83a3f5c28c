"""The no-U-turn sampler on posteriors that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes.known_posteriors import (
    eight_schools,
    eight_schools_moments,
    regression,
)
from jaxfc.bayes.convergence import monte_carlo_error
from jaxfc.bayes.diagnostics import diagnose
from jaxfc.bayes.nuts import NUTS
from jaxfc.results import RESULTS, SUCCESSFUL

MANY_ERRORS = 4.5


@pytest.fixture(scope="module")
def sample():
    return eqx.filter_jit(lambda how, program, key: how.sample(program, key=key))


LENGTHS = {"num_chains": 2, "num_draws": 400, "num_warmup": 200}
KEYS = jax.random.split(jax.random.key(3), 2)


@pytest.fixture(scope="module")
def regression_draws():
    """Of two data sets, in one batch."""
    both = jax.tree.map(lambda *x: jnp.stack(x), regression(0), regression(1))
    how = NUTS(**LENGTHS)
    draws = eqx.filter_jit(eqx.filter_vmap(lambda p, key: how.sample(p, key=key)))(both, KEYS)
    return [jax.tree.map(lambda x, i=i: x[i], draws) for i in (0, 1)]


def test_moments_of_a_regression(regression_draws):
    for seed, draws in enumerate(regression_draws):
        mean, cov = regression(seed).posterior()
        b = draws.parameters["b"]
        assert b.shape == (2, 400, 4)
        error = (jnp.mean(b, (0, 1)) - mean) / monte_carlo_error(b)
        assert jnp.max(jnp.abs(error)) < MANY_ERRORS
        # The relative error of a variance of 800 draws is about sqrt(2/800) = .05.
        np.testing.assert_allclose(jnp.var(b, (0, 1)), np.diag(cov), rtol=0.3)
        assert draws.result == SUCCESSFUL


def test_what_is_said_of_each_draw(regression_draws):
    draws, program = regression_draws[0], regression(0)
    density = jax.vmap(jax.vmap(lambda b: program.log_density({"b": b})))
    np.testing.assert_allclose(draws.log_density, density(draws.parameters["b"]), rtol=1e-10)
    kinetic = draws.energy + draws.log_density
    assert jnp.min(kinetic) > 0
    changed = jnp.any(jnp.diff(draws.parameters["b"], axis=1) != 0, axis=2)
    np.testing.assert_array_equal(draws.moved[:, 1:], changed)
    assert not jnp.any(draws.divergent) and jnp.all(draws.step_size > 0.1)
    assert draws.num_steps == 600 and jnp.isnan(draws.pareto_k)
    assert jnp.all((draws.num_leapfrogs >= 1) & (draws.num_leapfrogs < 20))


@pytest.mark.slow
def test_eight_schools_against_quadrature(sample):
    """Published: mu 4.4, tau 3.6; the exact values are those of a grid of 20,000 points."""
    exact = eight_schools_moments()
    np.testing.assert_allclose([exact["mu"][0], exact["tau"][0]], [4.4, 3.6], atol=0.05)
    how = NUTS(num_chains=4, num_draws=500, num_warmup=300, target_accept=0.95)
    program = eight_schools()
    draws = sample(how, program, jax.random.key(1))
    assert draws.result == SUCCESSFUL
    quantities = draws.map(program.identified)
    quantities["first"] = quantities["effects"][..., 0]
    for name, (mean, sd) in exact.items():
        value = quantities[name]
        error = (jnp.mean(value) - mean) / monte_carlo_error(value)
        assert abs(error) < MANY_ERRORS, name
        np.testing.assert_allclose(jnp.std(value), sd, rtol=0.15)
    found = eqx.filter_jit(diagnose)(draws, quantities)
    assert found.max_rhat < 1.03 and found.min_bulk_ess > 200


def test_chains_that_stand_still_and_densities_that_are_not_finite_are_said(sample):
    how = NUTS(num_chains=2, num_draws=20, num_warmup=0, max_tree_depth=2, step_size=1e-9)
    assert sample(how, regression(), jax.random.key(0)).result == RESULTS.frozen_chain
    unknown = regression().values * jnp.nan
    broken = eqx.tree_at(lambda p: p.values, regression(), unknown)
    assert sample(how, broken, jax.random.key(0)).result == RESULTS.diverged


def test_a_batch_is_its_members_one_by_one_and_the_key_decides(sample, regression_draws):
    """Also where chains are run one after the other. A batch adds in another order, and this
    rounding grows over six hundred transitions; posterior sds are .13."""
    how = NUTS(**LENGTHS, vectorised=False)
    for place, draws in enumerate(regression_draws):
        found = sample(how, regression(place), KEYS[place])
        np.testing.assert_allclose(draws.parameters["b"], found.parameters["b"], atol=1e-5)
    again = sample(how, regression(1), KEYS[1]).parameters["b"]
    np.testing.assert_array_equal(again, found.parameters["b"])
    assert jnp.any(again != sample(how, regression(1), KEYS[0]).parameters["b"])


def test_counts_are_checked():
    with pytest.raises(ValueError, match="num_chains must be at least 1, got 0"):
        NUTS(num_chains=0)
    with pytest.raises(ValueError, match="num_warmup must not be negative, got -1"):
        NUTS(num_warmup=-1)
