"""Tests of equal ability against SciPy, statsmodels, loops, regressions and simulated sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from statsmodels.api import OLS
from statsmodels.stats.sandwich_covariance import S_hac_simple

from jaxfc.evaluation import comparison, scores
from jaxfc.hypothesis import chi_squared_tail, student_two_sided

RNG = np.random.default_rng(21)
ERRORS = RNG.normal(size=(140, 2, 2))
ERRORS[1:] += 0.5 * ERRORS[:-1]
LOSSES, BENCHMARK = 1.1 * ERRORS[:, 0] ** 2, ERRORS[:, 1] ** 2
GAPS = LOSSES.copy()
GAPS[[7, 60, 61], 0] = np.nan
GAPS[-1, 1] = np.nan


def covariance_loop(series, weights):
    """Long-run covariance, product by product, over rows without a gap."""
    counted = np.isfinite(series).all(axis=1)
    total = np.zeros((series.shape[1],) * 2)
    for t in np.flatnonzero(counted):
        for lag, weight in enumerate([1.0, *weights]):
            if t - lag >= 0 and counted[t - lag]:
                product = weight * np.outer(series[t], series[t - lag])
                total += product if lag == 0 else product + product.T
    return total / counted.sum()


def test_long_run_covariance_is_that_of_statsmodels_and_of_the_loop():
    series = LOSSES - LOSSES.mean(axis=0)
    for lags in (0, 5):
        got = comparison.long_run_cov(series, num_lags=lags)
        np.testing.assert_allclose(got, S_hac_simple(series, nlags=lags) / 140, rtol=1e-12)
    automatic = int(np.floor(4 * 1.4 ** (2 / 9)))
    assert comparison.automatic_lags(140) == automatic == 4
    weights = [1 - j / (automatic + 1) for j in range(1, automatic + 1)]
    gaps = GAPS - np.nanmean(GAPS, axis=0)
    got = comparison.long_run_cov(gaps)
    np.testing.assert_allclose(got, covariance_loop(gaps, weights), rtol=1e-12)
    assert np.linalg.eigvalsh(np.asarray(got)).min() > 0.0
    flat = comparison.long_run_cov(gaps, kernel="rectangular", num_lags=3)
    np.testing.assert_allclose(flat, covariance_loop(gaps, [1.0] * 3), rtol=1e-12)


def test_one_step_diebold_mariano_is_the_t_test_of_the_differences():
    result = comparison.diebold_mariano(GAPS, BENCHMARK)
    np.testing.assert_allclose(
        result.statistic, scores.difference_t_statistic(GAPS, BENCHMARK), rtol=1e-12
    )
    for column in range(2):
        kept = (GAPS - BENCHMARK)[np.isfinite(GAPS[:, column]), column]
        for side, name in (("two-sided", "p_value"), ("less", "p_better"), ("greater", "p_worse")):
            expected = stats.ttest_1samp(kept, 0.0, alternative=side)
            got = float(getattr(result, name)[column])
            assert got == pytest.approx(expected.pvalue, rel=1e-9)
        assert float(result.mean_difference[column]) == pytest.approx(kept.mean(), rel=1e-12)
        assert float(result.degrees[column]) == kept.size - 1
    assert list(result.num_cases) == [137, 139]


@pytest.mark.parametrize("horizon", [2, 4])
def test_longer_horizons_use_the_autocovariances_below_them(horizon):
    result = comparison.diebold_mariano(GAPS, BENCHMARK, horizon=horizon)
    for column in range(2):
        d = (GAPS - BENCHMARK)[:, [column]]
        n = np.isfinite(d).sum()
        variance = covariance_loop(d - np.nanmean(d), [1.0] * (horizon - 1))[0, 0]
        statistic = np.nanmean(d) / np.sqrt(variance / n)
        statistic *= np.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
        assert float(result.statistic[column]) == pytest.approx(statistic, rel=1e-11)
        expected = 2 * stats.t.sf(abs(statistic), n - 1)
        assert float(result.p_value[column]) == pytest.approx(expected, rel=1e-9)


def test_bartlett_statistic_is_that_of_a_robust_regression_on_a_constant():
    difference = LOSSES[:, 0] - BENCHMARK[:, 0]
    for horizon, lags, options in ((1, 4, {}), (7, 6, {}), (2, 3, {"num_lags": 3})):
        result = comparison.diebold_mariano(
            LOSSES[:, 0],
            BENCHMARK[:, 0],
            horizon=horizon,
            kernel="bartlett",
            small_sample=False,
            **options,
        )
        fit = OLS(difference, np.ones(140)).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
        assert float(result.statistic) == pytest.approx(fit.tvalues[0], rel=1e-11)
        assert float(result.p_value) == pytest.approx(fit.pvalues[0], rel=1e-9)
        assert np.isinf(result.degrees)


def test_a_negative_or_missing_variance_gives_no_statistic():
    alternating = np.tile([1.0, -1.0], 20) + 0.1
    two = comparison.diebold_mariano(alternating, np.zeros(40), horizon=2)
    assert np.isnan(two.statistic) and np.isnan(two.p_value) and np.isnan(two.p_better)
    for level in (0.0, 0.1):
        equal = comparison.diebold_mariano(np.full(40, level), np.zeros(40))
        assert np.isnan(equal.statistic) and float(equal.mean_difference) == pytest.approx(level)
    assert np.isnan(comparison.diebold_mariano(np.full(9, np.nan), np.zeros(9)).p_value)


def uncentred(products):
    """n R^2 of the regression of one on the products, without a constant."""
    ones = np.ones(len(products))
    fitted = products @ np.linalg.lstsq(products, ones)[0]
    return len(products) * (fitted @ fitted) / (ones @ ones)


def test_giacomini_white_is_n_times_the_uncentred_r_squared():
    difference = GAPS[:, 0] - BENCHMARK[:, 0]
    result = comparison.giacomini_white(GAPS[:, 0], BENCHMARK[:, 0])
    rows = np.stack([np.ones(139), difference[:-1]], 1)
    kept = np.isfinite(difference[1:] * rows[:, 1])
    rows, after = rows[kept], difference[1:][kept]
    assert float(result.statistic) == pytest.approx(uncentred(rows * after[:, None]), rel=1e-10)
    assert float(result.p_value) == pytest.approx(
        stats.chi2.sf(float(result.statistic), 2), rel=1e-10
    )
    coefficients = np.linalg.lstsq(rows, after)[0]
    np.testing.assert_allclose(result.coefficients, coefficients, rtol=1e-9)
    share = np.mean(rows @ coefficients > 0.0)
    assert float(result.benchmark_share) == pytest.approx(share) and 0.0 < share < 1.0
    assert (result.degrees, float(result.num_cases)) == (2, kept.sum())
    assert result.names == ("constant", "loss difference 1 before")


def test_longer_horizons_of_giacomini_white_know_less_and_sum_autocovariances():
    difference = LOSSES[:, 0] - BENCHMARK[:, 0]
    result = comparison.giacomini_white(LOSSES[:, 0], BENCHMARK[:, 0], horizon=3)
    products = np.stack([difference[3:], difference[3:] * difference[:-3]], 1)
    mean = products.mean(axis=0)
    expected = 137 * mean @ np.linalg.solve(covariance_loop(products, [2 / 3, 1 / 3]), mean)
    assert float(result.statistic) == pytest.approx(expected, rel=1e-10)
    assert result.names[1] == "loss difference 3 before"


def test_instruments_may_be_given():
    instruments = np.stack([np.ones(140), np.sin(np.arange(140.0)), RNG.normal(size=140)], 1)
    instruments[3, 2] = np.nan
    names = ("constant", "season", "noise")
    result = comparison.giacomini_white(LOSSES[:, 0], BENCHMARK[:, 0], instruments, names=names)
    difference = LOSSES[:, 0] - BENCHMARK[:, 0]
    products = np.delete(instruments * difference[:, None], 3, axis=0)
    assert float(result.statistic) == pytest.approx(uncentred(products), rel=1e-10)
    assert (result.degrees, result.names) == (3, names)
    twice = np.stack([instruments[:, 1], 2.0 * instruments[:, 1]], 1)
    collinear = comparison.giacomini_white(LOSSES[:, 0], BENCHMARK[:, 0], twice)
    assert np.isnan(collinear.statistic) and np.isnan(collinear.benchmark_share)
    equal = comparison.giacomini_white(LOSSES[:, 0], LOSSES[:, 0])
    assert np.isnan(equal.statistic) and np.isnan(equal.p_value)
    with pytest.raises(ValueError, match="2 names for 3 instruments"):
        comparison.giacomini_white(LOSSES[:, 0], BENCHMARK[:, 0], instruments, names=names[:2])


def test_tails_are_those_of_scipy():
    statistic = jnp.asarray([0.0, 0.3, 2.1, 7.0])
    np.testing.assert_allclose(chi_squared_tail(statistic, 3), stats.chi2.sf(statistic, 3), 1e-12)
    degrees = jnp.asarray([4.0, 30.0, 500.0, np.inf])
    expected = 2 * stats.t.sf(statistic, degrees)
    np.testing.assert_allclose(student_two_sided(statistic, degrees), expected, rtol=1e-10)
    # The pair that Defend et al. (2021) print, 5.61 and 0.06, is that of two instruments.
    assert round(float(chi_squared_tail(jnp.asarray(5.61), 2)), 2) == 0.06


def test_sizes_are_right_for_many_pairs_at_once():
    num_pairs, size = 2000, 0.05

    def reject(key):
        errors = jax.random.normal(key, (400, 2))
        # One-step errors are independent, two-step ones share a shock with their neighbours.
        overlapping = errors[1:] + 0.8 * errors[:-1]
        loss, late_loss = errors**2, overlapping**2
        results = (
            comparison.diebold_mariano(loss[:, 0], loss[:, 1]),
            comparison.diebold_mariano(late_loss[:, 0], late_loss[:, 1], horizon=2),
            comparison.giacomini_white(loss[:, 0], loss[:, 1]),
        )
        return jnp.stack([result.p_value < size for result in results])

    keys = jax.random.split(jax.random.key(3), num_pairs)
    shares = np.asarray(jax.jit(jax.vmap(reject))(keys)).mean(axis=0)
    np.testing.assert_allclose(shares, size, atol=3.5 * np.sqrt(size * (1 - size) / num_pairs))


def test_a_predictable_difference_is_found_though_the_means_are_equal():
    swing = np.repeat(np.tile([0.5, -0.5], 10), 20)
    difference = swing + 0.5 * np.random.default_rng(2).normal(size=400)
    zero = np.zeros(400)
    assert float(comparison.diebold_mariano(difference, zero).p_value) > 0.05
    assert float(comparison.giacomini_white(difference, zero).p_value) < 1e-6


def test_single_precision_stays_single():
    pair = [jnp.asarray(side, dtype=jnp.float32) for side in (LOSSES[:, 0], BENCHMARK[:, 0])]
    for result, double in (
        (comparison.diebold_mariano(*pair, horizon=2), (LOSSES[:, 0], BENCHMARK[:, 0])),
    ):
        exact = comparison.diebold_mariano(*double, horizon=2)
        assert result.statistic.dtype == jnp.float32
        assert float(result.statistic) == pytest.approx(float(exact.statistic), rel=1e-4)
    result = comparison.giacomini_white(*pair)
    exact = comparison.giacomini_white(LOSSES[:, 0], BENCHMARK[:, 0])
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}
    assert float(result.statistic) == pytest.approx(float(exact.statistic), rel=1e-4)


def test_what_does_not_fit_is_refused():
    loss = np.ones(5)
    with pytest.raises(ValueError, match="horizon must be at least 1 and below"):
        comparison.diebold_mariano(loss, loss, horizon=5)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        comparison.giacomini_white(loss, loss, horizon=0)
    with pytest.raises(ValueError, match="num_lags must be between 0 and 4"):
        comparison.diebold_mariano(loss, loss, num_lags=5)
    with pytest.raises(Exception, match="kernel"):
        comparison.long_run_cov(loss[:, None], kernel="parzen")  # pyright: ignore
