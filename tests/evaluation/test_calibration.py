"""Tests of calibration against likelihoods written out, SciPy, statsmodels and simulated sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from statsmodels.tsa.ar_model import AutoReg

from jaxfc.evaluation import calibration

RNG = np.random.default_rng(5)
PROBABILITY = 0.1


def clustered(num_cases):
    """Violations of which one makes another more likely."""
    series = [0.0]
    for draw in RNG.uniform(size=num_cases - 1):
        series.append(float(draw < (0.4 if series[-1] else 0.1)))
    return np.array(series)


VIOLATIONS = np.stack(
    [clustered(120), (RNG.uniform(size=120) < 0.1).astype(float), np.zeros(120), np.ones(120)], 1
)
VIOLATIONS[[3, 50, 51], 0] = np.nan
VIOLATIONS[-1, 1] = np.nan


def loglik(hits, quiet, probability):
    """Log-likelihood of violations, product by product."""
    total = 0.0
    for number, chance in ((hits, probability), (quiet, 1.0 - probability)):
        if number > 0:
            total += number * np.log(chance)
    return total


def textbook(column):
    """Ratios of coverage, independence and conditional coverage, case by case."""
    known = column[np.isfinite(column)]
    hits, quiet = int((known == 1).sum()), int((known == 0).sum())
    coverage = 2 * (loglik(hits, quiet, hits / known.size) - loglik(hits, quiet, PROBABILITY))
    moves = np.zeros((2, 2))
    for first, second in itertools.pairwise(column):
        if np.isfinite(first) and np.isfinite(second):
            moves[int(first), int(second)] += 1
    chain = sum(loglik(row[1], row[0], row[1] / max(row.sum(), 1)) for row in moves)
    hits, quiet = moves[:, 1].sum(), moves[:, 0].sum()
    independent = loglik(hits, quiet, hits / moves.sum())
    return coverage, 2 * (chain - independent), 2 * (chain - loglik(hits, quiet, PROBABILITY))


@pytest.fixture(scope="module")
def ratios():
    return (
        calibration.unconditional_coverage(VIOLATIONS, PROBABILITY),
        calibration.violation_independence(VIOLATIONS),
        calibration.conditional_coverage(VIOLATIONS, PROBABILITY),
    )


def test_likelihood_ratios_are_those_of_the_textbook(ratios):
    for column in range(VIOLATIONS.shape[1]):
        expected = textbook(VIOLATIONS[:, column])
        for result, value, degrees in zip(ratios, expected, (1, 1, 2), strict=True):
            got = float(result.statistic[column])
            assert got == pytest.approx(value, rel=1e-10, abs=1e-10)
            assert float(result.degrees[column]) == degrees
            tail = stats.chi2.sf(got, degrees)
            assert float(result.p_value[column]) == pytest.approx(tail, rel=1e-10)
    assert float(ratios[1].p_value[0]) < 0.05 < float(ratios[1].p_value[1])


def test_counts_leave_out_cases_and_pairs_with_a_gap(ratios):
    assert list(ratios[0].num_cases) == [117, 119, 120, 120]
    # Gaps at 3 and at 50, 51 break two and three pairs; one at the end breaks one.
    assert list(ratios[1].num_cases) == [114, 118, 119, 119]


def test_no_violation_is_an_answer_and_no_case_is_none(ratios):
    quiet = -2 * 120 * np.log(1 - PROBABILITY)
    assert float(ratios[0].statistic[2]) == pytest.approx(quiet, rel=1e-12)
    assert float(ratios[1].statistic[2]) == 0.0 and float(ratios[1].p_value[2]) == 1.0
    unknown = jnp.full(9, jnp.nan)
    for result in (
        calibration.unconditional_coverage(unknown, 0.1),
        calibration.violation_independence(unknown),
        calibration.conditional_coverage(unknown, 0.1),
        calibration.pit_uniformity(unknown),
        calibration.pit_kolmogorov(unknown),
        calibration.berkowitz(unknown),
    ):
        assert np.isnan(result.statistic) and np.isnan(result.p_value)
        assert float(result.num_cases) == 0.0


def test_uniformity_is_pearsons_statistic():
    transforms = RNG.beta(1.3, 1.0, size=(150, 2))
    transforms[:2, 0] = 1.0, 0.0
    transforms[7, 1] = np.nan
    result = calibration.pit_uniformity(transforms, 8)
    for column in range(2):
        kept = transforms[np.isfinite(transforms[:, column]), column]
        expected = stats.chisquare(np.histogram(kept, bins=8, range=(0.0, 1.0))[0])
        assert float(result.statistic[column]) == pytest.approx(expected.statistic, rel=1e-12)
        assert float(result.p_value[column]) == pytest.approx(expected.pvalue, rel=1e-10)
    outside = transforms[:, 0].copy()
    outside[5] = 1.2
    assert np.isnan(calibration.pit_uniformity(outside).statistic)
    with pytest.raises(ValueError, match="num_bins must be at least 2"):
        calibration.pit_uniformity(transforms, 1)


def test_kolmogorov_is_close_to_the_exact_law():
    small, large = [], []
    for num_cases in (10, 40):
        for tail in (0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9):
            distance = stats.kstwo.isf(tail, num_cases)
            # The empirical distribution is ahead by the distance wherever there is room.
            transforms = np.maximum(np.arange(1, num_cases + 1) / num_cases - distance, 0.0)
            padded = np.append(transforms, np.full(40 - num_cases, np.nan))
            result = calibration.pit_kolmogorov(padded)
            exact = stats.kstest(transforms, "uniform", method="exact")
            assert float(result.statistic) == pytest.approx(exact.statistic, rel=1e-12)
            (small if tail <= 0.1 else large).append(float(result.p_value) - exact.pvalue)
    assert np.abs(small).max() < 1e-3 and np.abs(large).max() < 0.02
    scaled = np.array([0.21, 0.5, 1.0, 1.358, 2.5])
    tails = calibration.kolmogorov_tail(jnp.asarray(scaled))
    np.testing.assert_allclose(tails, stats.kstwobign.sf(scaled), atol=1e-12)
    assert float(calibration.kolmogorov_tail(jnp.asarray(0.1))) == 1.0


def test_berkowitz_is_the_ratio_of_conditional_likelihoods():
    z = np.zeros(90)
    for t in range(1, 90):
        z[t] = 0.2 + 0.3 * z[t - 1] + 1.1 * RNG.normal()
    result = calibration.berkowitz(stats.norm.cdf(z))
    free = AutoReg(z, 1).fit().llf
    fixed = stats.norm.logpdf(z[1:]).sum()
    assert float(result.statistic) == pytest.approx(2 * (free - fixed), rel=1e-9)
    assert float(result.p_value) == pytest.approx(stats.chi2.sf(2 * (free - fixed), 3), rel=1e-8)


def test_berkowitz_leaves_out_pairs_with_a_gap_and_survives_the_impossible():
    transforms = RNG.uniform(size=60)
    gap = transforms.copy()
    gap[20] = np.nan
    z = stats.norm.ppf(gap)
    pairs = np.isfinite(z[1:]) & np.isfinite(z[:-1])
    before, after = z[:-1][pairs], z[1:][pairs]
    design = np.stack([np.ones(before.size), before], 1)
    errors = after - design @ np.linalg.lstsq(design, after)[0]
    expected = (after**2).sum() - after.size * (np.log(np.mean(errors**2)) + 1)
    assert float(calibration.berkowitz(gap).statistic) == pytest.approx(expected, rel=1e-9)
    transforms[5] = 1.0
    extreme = calibration.berkowitz(transforms)
    transforms[5] = 1.0 - np.finfo(float).eps
    nearest = calibration.berkowitz(transforms)
    assert np.isfinite(extreme.statistic) and extreme.statistic == nearest.statistic
    assert np.isnan(calibration.berkowitz(jnp.full(60, 0.3)).statistic)


def test_sizes_are_right_for_many_series_at_once():
    num_series, size = 2000, 0.05

    def reject(key):
        uniform = jax.random.uniform(key, (400,))
        violations = (uniform < 0.2).astype(uniform.dtype)
        results = (
            calibration.unconditional_coverage(violations, 0.2),
            calibration.violation_independence(violations),
            calibration.conditional_coverage(violations, 0.2),
            calibration.pit_uniformity(uniform),
            calibration.pit_kolmogorov(uniform),
            calibration.berkowitz(uniform),
        )
        return jnp.stack([result.p_value < size for result in results])

    keys = jax.random.split(jax.random.key(1), num_series)
    shares = np.asarray(jax.jit(jax.vmap(reject))(keys)).mean(axis=0)
    band = 3.5 * np.sqrt(size * (1 - size) / num_series)
    # Coverage takes few values, so that its attained size differs from the nominal one.
    exact = exact_coverage_size(400, 0.2, size)
    np.testing.assert_allclose(shares[0], exact, atol=band)
    np.testing.assert_allclose(shares[1:], size, atol=band)


def exact_coverage_size(num_cases, probability, size):
    """The probability that Kupiec's ratio rejects, summed over the numbers of violations."""
    hits = np.arange(1, num_cases)
    ratio = 2 * np.array(
        [
            loglik(h, num_cases - h, h / num_cases) - loglik(h, num_cases - h, probability)
            for h in hits
        ]
    )
    return stats.binom.pmf(hits, num_cases, probability)[stats.chi2.sf(ratio, 1) < size].sum()


def test_single_precision_stays_single():
    series = jnp.asarray(RNG.uniform(size=(50, 2)), dtype=jnp.float32)
    hits = (series < 0.3).astype(jnp.float32)
    for result in (
        calibration.conditional_coverage(hits, 0.3),
        calibration.pit_uniformity(series, 5),
        calibration.pit_kolmogorov(series),
        calibration.berkowitz(series),
    ):
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}
        assert np.isfinite(result.statistic).all()
