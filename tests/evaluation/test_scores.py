"""Scores against definitions: numerical integration, pairs of draws, SciPy's t test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxfc.evaluation import scores

RNG = np.random.default_rng(11)
MEAN = RNG.normal(size=(9, 2))
STD = np.exp(RNG.normal(size=(9, 2)))
REALISED = RNG.normal(size=(9, 2))
REALISED[3, 1] = np.nan
SEEN = np.isfinite(REALISED)


def test_point_scores_leave_out_what_was_not_realised():
    errors = MEAN - REALISED
    for column in range(2):
        kept = errors[SEEN[:, column], column]
        expected = np.sqrt(np.mean(kept**2)), np.mean(np.abs(kept))
        got = scores.rmse(jnp.asarray(MEAN), REALISED), scores.mae(jnp.asarray(MEAN), REALISED)
        np.testing.assert_allclose([g[column] for g in got], expected, rtol=1e-12)
    assert list(scores.num_cases(jnp.asarray(REALISED))) == [9, 8]


def test_crps_of_a_normal_is_the_integral_of_its_definition():
    got = np.asarray(scores.crps_gaussian(jnp.asarray(MEAN), jnp.asarray(STD), REALISED))
    assert np.array_equal(np.isfinite(got), SEEN)
    for i, j in [(0, 0), (4, 1), (8, 0)]:
        law, y = stats.norm(MEAN[i, j], STD[i, j]), REALISED[i, j]
        below, _ = integrate.quad(lambda x, law=law: law.cdf(x) ** 2, -np.inf, y)
        above, _ = integrate.quad(lambda x, law=law: law.sf(x) ** 2, y, np.inf)
        np.testing.assert_allclose(got[i, j], below + above, rtol=1e-7)


def test_crps_of_draws_is_the_mean_over_pairs():
    draws = RNG.normal(size=(7, 9, 2))
    pairs = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1)) / (7 * 6)
    expected = np.abs(draws - REALISED).mean(axis=0) - 0.5 * pairs
    got = scores.crps_draws(jnp.asarray(draws), jnp.asarray(REALISED))
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="at least 2 draws"):
        scores.crps_draws(jnp.asarray(draws[:1]), jnp.asarray(REALISED))


def test_crps_of_many_draws_approaches_that_of_the_law():
    draws = MEAN + STD * np.random.default_rng(0).normal(size=(20_000, 9, 2))
    law = np.asarray(scores.crps_gaussian(jnp.asarray(MEAN), jnp.asarray(STD), REALISED))
    ensemble = np.asarray(scores.crps_draws(jnp.asarray(draws), jnp.asarray(REALISED)))
    np.testing.assert_allclose(ensemble[SEEN], law[SEEN], atol=0.03 * STD.max())


def test_coverage_counts():
    lower, upper = MEAN - STD, MEAN + STD
    got = scores.coverage(jnp.asarray(lower), jnp.asarray(upper), jnp.asarray(REALISED))
    for column in range(2):
        inside = [
            lower[i, column] <= REALISED[i, column] <= upper[i, column]
            for i in np.flatnonzero(SEEN[:, column])
        ]
        assert float(got[column]) == pytest.approx(np.mean(inside))


def test_t_statistic_is_that_of_the_differences():
    losses, benchmark = (MEAN - REALISED) ** 2, REALISED**2
    got = scores.difference_t_statistic(jnp.asarray(losses), jnp.asarray(benchmark))
    for column in range(2):
        difference = (losses - benchmark)[SEEN[:, column], column]
        expected = stats.ttest_1samp(difference, 0.0).statistic
        assert float(got[column]) == pytest.approx(expected, rel=1e-12)


def test_scores_have_finite_derivatives_where_something_was_not_realised():
    def total(mean):
        return jnp.nansum(scores.crps_gaussian(mean, jnp.asarray(STD), jnp.asarray(REALISED)))

    gradient = np.asarray(jax.grad(total)(jnp.asarray(MEAN)))
    assert np.isfinite(gradient).all()
    assert gradient[3, 1] == 0.0 and np.all(gradient[SEEN] != 0.0)
