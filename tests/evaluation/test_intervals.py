"""Interval and density scores against scoringrules and SciPy, and what holds for every case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules
from scipy import stats

from jaxfc.evaluation import intervals, scores

RNG = np.random.default_rng(7)
MEAN = RNG.normal(size=(12, 2))
STD = np.exp(0.3 * RNG.normal(size=(12, 2)))
REALISED = MEAN + 2.0 * RNG.normal(size=(12, 2))
REALISED[4, 1] = np.nan
SEEN = np.isfinite(REALISED)
LEVELS = np.array([0.5, 0.8, 0.9])
HALF = STD[..., None] * stats.norm.ppf(0.5 + LEVELS / 2)
LOWER, UPPER = MEAN[..., None] - HALF, MEAN[..., None] + 1.2 * HALF
DRAWS = RNG.normal(size=(40, 12, 2))


def test_interval_score_is_that_of_scoringrules_at_every_level():
    got = intervals.interval_score(LOWER, UPPER, REALISED, LEVELS)
    expected = scoringrules.interval_score(REALISED, LOWER, UPPER, 1.0 - LEVELS, backend="numpy")
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    mean = intervals.mean_interval_score(LOWER, UPPER, REALISED, LEVELS)
    np.testing.assert_allclose(mean, np.nanmean(expected, axis=0), rtol=1e-13)
    one = intervals.interval_score(LOWER[..., 1], UPPER[..., 1], REALISED, 0.8)
    np.testing.assert_allclose(one, expected[..., 1], rtol=1e-13)


def test_interval_score_is_least_at_the_quantiles_of_the_law():
    sample = np.random.default_rng(0).normal(size=20_000)

    def loss(bounds):
        lower, upper = jnp.broadcast_to(bounds, (sample.size, 2)).T
        return intervals.mean_interval_score(lower, upper, jnp.asarray(sample), 0.8)

    gradient = jax.grad(loss)
    at_quantiles = np.abs(gradient(jnp.asarray(np.quantile(sample, [0.1, 0.9]))))
    assert at_quantiles.max() < 2.0 / (0.2 * sample.size)
    assert np.all(np.abs(gradient(jnp.asarray([-1.0, 1.0]))) > 0.3)


def test_outliers_are_what_coverage_leaves():
    cases = intervals.outliers(LOWER, UPPER, REALISED)
    assert np.array_equal(np.isnan(cases), ~np.broadcast_to(SEEN[..., None], cases.shape))
    share = intervals.interval_outliers(LOWER, UPPER, REALISED)
    for level in range(3):
        inside = scores.coverage(LOWER[..., level], UPPER[..., level], REALISED)
        np.testing.assert_allclose(share[:, level], 1.0 - inside, rtol=1e-14)
    assert 0.0 < float(share.min()) < float(share.max()) < 1.0


def test_a_failed_forecast_is_not_a_missing_case():
    lower = LOWER[..., 0].copy()
    lower[2, 0] = np.nan
    share = intervals.interval_outliers(lower, UPPER[..., 0], REALISED)
    assert np.isnan(share[0]) and np.isfinite(share[1])
    none = intervals.interval_outliers(lower, UPPER[..., 0], np.full_like(REALISED, np.nan))
    assert np.all(np.isnan(none))


def test_infinite_bounds_have_an_infinite_score_and_no_outliers():
    everywhere = np.full_like(REALISED, np.inf)
    score = intervals.interval_score(-everywhere, everywhere, REALISED, 0.9)
    assert np.all(np.isinf(np.asarray(score)[SEEN]))
    assert np.all(intervals.interval_outliers(-everywhere, everywhere, REALISED) == 0.0)


def test_log_score_of_a_normal_law_does_not_underflow():
    got = np.asarray(intervals.log_score_gaussian(MEAN, STD, REALISED))
    np.testing.assert_allclose(got[SEEN], -stats.norm.logpdf(REALISED, MEAN, STD)[SEEN], rtol=1e-13)
    assert np.array_equal(np.isfinite(got), SEEN)
    far = intervals.log_score_gaussian(jnp.zeros(1), jnp.ones(1), jnp.asarray([100.0]))
    np.testing.assert_allclose(far, -stats.norm.logpdf(100.0), rtol=1e-13)


def test_log_score_of_draws_is_that_of_scoringrules():
    got = np.asarray(intervals.log_score_draws(DRAWS, REALISED))
    expected = scoringrules.logs_ensemble(
        jnp.asarray(REALISED), jnp.asarray(DRAWS), m_axis=0, backend="jax"
    )
    np.testing.assert_allclose(got[SEEN], np.asarray(expected)[SEEN], rtol=1e-10)
    assert np.array_equal(np.isfinite(got), SEEN)
    narrow = intervals.log_score_draws(DRAWS[:, :, 0], REALISED[:, 0], bandwidth=0.3)
    density = stats.norm.pdf(REALISED[:, 0], DRAWS[:, :, 0], 0.3).mean(axis=0)
    np.testing.assert_allclose(narrow, -np.log(density), rtol=1e-10)


def test_log_score_of_degenerate_draws():
    mostly_equal = np.zeros((40, 2))
    mostly_equal[:5, 0] = np.linspace(1.0, 2.0, 5)
    got = intervals.log_score_draws(mostly_equal, np.zeros(2))
    assert np.isfinite(got[0]) and np.isposinf(got[1])
    with pytest.raises(ValueError, match="at least 2 draws"):
        intervals.log_score_draws(DRAWS[:1], REALISED)


def test_transforms_of_a_normal_law():
    got = np.asarray(intervals.pit_gaussian(MEAN, STD, REALISED))
    np.testing.assert_allclose(got[SEEN], stats.norm.cdf(REALISED, MEAN, STD)[SEEN], rtol=1e-13)
    assert np.array_equal(np.isfinite(got), SEEN)


def test_transforms_of_draws_rank_the_realised_value():
    got = np.asarray(intervals.pit_draws(DRAWS, REALISED))
    expected = ((DRAWS < REALISED).sum(axis=0) + 0.5) / 41
    np.testing.assert_allclose(got[SEEN], expected[SEEN], rtol=1e-14)
    assert np.array_equal(np.isfinite(got), SEEN)


def test_randomised_transforms_are_uniform_with_ties():
    whole = np.random.default_rng(3).poisson(1.5, size=(8, 4000)).astype(float)
    randomised = intervals.pit_draws(whole[1:], whole[0], key=jax.random.key(0))
    assert stats.kstest(np.asarray(randomised), "uniform").pvalue > 0.01
    middle = np.asarray(intervals.pit_draws(whole[1:], whole[0]))
    assert stats.kstest(middle, "uniform").pvalue < 1e-6
    assert middle.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 4000))


@pytest.mark.parametrize(
    ("bounds", "realised", "level", "message"),
    [
        ((12, 2), (12, 2), 90.0, "probability in \\(0, 1\\)"),
        ((12, 2), (12,), np.array([0.5, 0.8, 0.9]), "levels of shape"),
        ((12, 2), (12, 3), 0.9, "realised has shape"),
        ((12,), (12,), np.full(12, 0.9), "last axis"),
    ],
)
def test_what_does_not_fit_is_refused(bounds, realised, level, message):
    with pytest.raises(ValueError, match=message):
        intervals.interval_score(np.zeros(bounds), np.ones(bounds), np.zeros(realised), level)


def test_scores_have_finite_derivatives_where_something_was_not_realised():
    def total(mean, std):
        normal = intervals.log_score_gaussian(mean, std, jnp.asarray(REALISED))
        interval = intervals.interval_score(mean - std, mean + std, jnp.asarray(REALISED), 0.7)
        return jnp.nansum(normal) + jnp.nansum(interval)

    gradients = jax.grad(total, argnums=(0, 1))(jnp.asarray(MEAN), jnp.asarray(STD))
    for gradient in map(np.asarray, gradients):
        assert np.isfinite(gradient).all()
        assert gradient[4, 1] == 0.0 and np.all(gradient[SEEN] != 0.0)
