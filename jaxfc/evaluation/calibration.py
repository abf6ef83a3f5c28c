"""Whether intervals cover as often as they say, and densities are right: tests of calibration.

Violations are 1 where the outcome was outside the interval, 0 inside, NaN where it is missing
(`outliers`); transforms are probability integral transforms (`pit_gaussian`, `pit_draws`). Cases
are the leading axis, in the order of time; further axes are tested by themselves. All hypotheses
are about one-step forecasts: outcomes of overlapping horizons depend on each other.
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri, xlogy

from jaxfc.hypothesis import HypothesisTest, chi_squared_test
from jaxfc.typing import Array, Float

Cases = Float[Array, "cases *rest"] | Float[np.ndarray, "cases *rest"]
Probability = float | Float[Array, "*levels"] | Float[np.ndarray, "*levels"]
# The last of so many terms of Kolmogorov's series is below 1e-13 where it is used.
KOLMOGOROV_TERMS = 20


def unconditional_coverage(violations: Cases, probability: Probability) -> HypothesisTest:
    """Likelihood ratio of the hypothesis that a violation has the given probability.

        LR = 2 [ n0 log((1 - s) / (1 - p)) + n1 log(s / p) ],  s = n1 / n,  chi-squared(1)

    (Kupiec 1995). No violation at all gives - 2 n log(1 - p); no case gives NaN.

    **Arguments:** `probability` p: 1 - level of a central interval, 0.05 for a 5 % quantile.
    """
    violations = jnp.asarray(violations)
    inside = jnp.sum(violations == 0.0, axis=0).astype(violations.dtype)
    outside = jnp.sum(violations == 1.0, axis=0).astype(violations.dtype)
    statistic = coverage_ratio(inside, outside, jnp.asarray(probability, violations.dtype))
    return chi_squared_test(statistic, 1, inside + outside)


def violation_independence(violations: Cases) -> HypothesisTest:
    """Likelihood ratio of the hypothesis that a violation does not depend on the last case.

        LR = 2 [ log L(p01, p11) - log L(s) ],  chi-squared(1)

    of first-order Markov chains, p_ij = n_ij / (n_i0 + n_i1), s = (n01 + n11) / n, from the n
    pairs of consecutive cases that are both known (Christoffersen 1998). Without a violation, or
    with nothing but violations, nothing speaks against it: 0 with p-value 1.
    """
    counts = transition_counts(violations)
    return chi_squared_test(independence_ratio(*counts), 1, sum_of(counts))


def conditional_coverage(violations: Cases, probability: Probability) -> HypothesisTest:
    """Likelihood ratio of the hypothesis of independent violations of the given probability.

        LR = 2 [ log L(p01, p11) - log L(p) ],  chi-squared(2)

    from the pairs of consecutive cases, that is given the first one: the sum of the ratio of
    independence and that of coverage over the second cases of the pairs (Christoffersen
    1998). Programs that add the ratio of coverage over all cases differ by its first one.
    """
    counts = transition_counts(violations)
    quiet_after, hit_after, quiet_after_hit, hit_after_hit = counts
    p = jnp.asarray(probability, jnp.asarray(violations).dtype)
    coverage = coverage_ratio(quiet_after + quiet_after_hit, hit_after + hit_after_hit, p)
    return chi_squared_test(coverage + independence_ratio(*counts), 2, sum_of(counts))


def pit_uniformity(transforms: Cases, num_bins: int = 10) -> HypothesisTest:
    """Pearson's statistic of equal frequencies of the transforms in bins of equal width.

        sum_b (n_b - n/B)^2 / (n/B),  chi-squared(B - 1)

    (Pearson 1900; of forecasts: Diebold, Gunther and Tay 1998). Five cases per bin or more. The
    mid-rank transforms of M draws fall into bins evenly only if M + 1 is a multiple of B. A
    transform outside [0, 1] makes the statistic NaN.

    **Raises:** `ValueError` for fewer than 2 bins.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}.")
    transforms = jnp.asarray(transforms)
    counted = ~jnp.isnan(transforms)
    place = jnp.floor(transforms * num_bins)
    place = jnp.where(transforms == 1.0, num_bins - 1.0, place)
    bins = jnp.arange(num_bins, dtype=transforms.dtype).reshape((-1,) + (1,) * transforms.ndim)
    frequency = jnp.sum(place == bins, axis=1).astype(transforms.dtype)
    count = jnp.sum(counted, axis=0).astype(transforms.dtype)
    expected = count / num_bins
    statistic = jnp.sum((frequency - expected) ** 2, axis=0) / expected
    statistic = jnp.where(jnp.sum(frequency, axis=0) == count, statistic, jnp.nan)
    return chi_squared_test(statistic, num_bins - 1, count)


def pit_kolmogorov(transforms: Cases) -> HypothesisTest:
    """Kolmogorov's statistic: the largest distance between empirical and uniform distribution.

        D = max_i max(i/n - u_(i), u_(i) - (i - 1)/n)
        p = 2 sum_{k>=1} (-1)^{k-1} exp(-2 k^2 l^2),  l = (sqrt(n) + 0.12 + 0.11 / sqrt(n)) D

    (Kolmogorov 1933; Stephens 1970 for the correction by n, made for the tail: for n >= 10 it is
    within 0.001 of the exact p-value up to 0.1, and within 0.02 above).
    """
    transforms = jnp.asarray(transforms)
    count = jnp.sum(~jnp.isnan(transforms), axis=0).astype(transforms.dtype)
    ordered = jnp.sort(transforms, axis=0)  # NaN last
    rank = jnp.arange(1, transforms.shape[0] + 1).reshape((-1,) + (1,) * (transforms.ndim - 1))
    above, below = rank / count - ordered, ordered - (rank - 1) / count
    distance = jnp.maximum(above, below)
    distance = jnp.max(jnp.where(rank <= count, distance, -jnp.inf), axis=0)
    distance = jnp.where(count > 0, distance, jnp.nan)
    root = jnp.sqrt(count)
    scaled = (root + 0.12 + 0.11 / root) * distance
    return HypothesisTest(
        statistic=distance,
        p_value=kolmogorov_tail(scaled),
        degrees=jnp.full_like(distance, jnp.nan),
        num_cases=count,
    )


def berkowitz(transforms: Cases) -> HypothesisTest:
    """Likelihood ratio of standard normal, independent z = Phi^{-1}(u) in a Gaussian AR(1).

        z_t - m = rho (z_{t-1} - m) + e_t,  e_t ~ N(0, s^2);  m = 0, s = 1, rho = 0
        LR = sum z_t^2 - n (log s^2 + 1),  chi-squared(3)

    with s^2 the mean squared error of least squares over the n pairs of consecutive cases that are
    both known (Berkowitz 2001, whose likelihood also has the law of the first case; here it is the
    likelihood given that case, which needs no iteration and allows gaps). Transforms of 0 and 1
    count as the nearest number inside, so that an impossible outcome leaves it finite. Fewer than
    4 pairs, or equal transforms, give NaN.
    """
    transforms = jnp.asarray(transforms)
    small = jnp.finfo(transforms.dtype).eps
    z = ndtri(jnp.clip(transforms, small, 1.0 - small))
    pairs = ~jnp.isnan(z[1:]) & ~jnp.isnan(z[:-1])
    count = jnp.sum(pairs, axis=0).astype(z.dtype)
    before, after = jnp.where(pairs, z[:-1], 0.0), jnp.where(pairs, z[1:], 0.0)
    before_gap = jnp.where(pairs, before - jnp.sum(before, axis=0) / count, 0.0)
    after_gap = jnp.where(pairs, after - jnp.sum(after, axis=0) / count, 0.0)
    slope = jnp.sum(before_gap * after_gap, axis=0) / jnp.sum(before_gap**2, axis=0)
    variance = jnp.sum((after_gap - slope * before_gap) ** 2, axis=0) / count
    statistic = jnp.sum(after**2, axis=0) - count * (jnp.log(variance) + 1.0)
    statistic = jnp.where((count >= 4) & jnp.isfinite(statistic), statistic, jnp.nan)
    return chi_squared_test(statistic, 3, count)


def coverage_ratio(inside: Array, outside: Array, probability: Array) -> Array:
    """Likelihood ratio of the observed share of violations against the given probability."""
    share = outside / (inside + outside)
    free = xlogy(inside, 1.0 - share) + xlogy(outside, share)
    fixed = inside * jnp.log1p(-probability) + xlogy(outside, probability)
    return 2.0 * (free - fixed)


def independence_ratio(
    quiet_after_quiet: Array, hit_after_quiet: Array, quiet_after_hit: Array, hit_after_hit: Array
) -> Array:
    """Likelihood ratio of a Markov chain of violations against independent ones."""
    quiet, hits = quiet_after_quiet + quiet_after_hit, hit_after_quiet + hit_after_hit
    chain = best_loglik(quiet_after_quiet, hit_after_quiet)
    chain = chain + best_loglik(quiet_after_hit, hit_after_hit)
    return 2.0 * (chain - best_loglik(quiet, hits))


def best_loglik(quiet: Array, hits: Array) -> Array:
    """Log-likelihood of so many violations at their own frequency; 0 log 0 = 0."""
    total = jnp.maximum(quiet + hits, 1)
    return xlogy(quiet, quiet / total) + xlogy(hits, hits / total)


def transition_counts(violations: Cases) -> tuple[Array, Array, Array, Array]:
    """How often 00, 01, 10 and 11 follow each other among known neighbours."""
    violations = jnp.asarray(violations)
    before, after = violations[:-1], violations[1:]

    def count(first, second):
        found = (before == first) & (after == second)
        return jnp.sum(found, axis=0).astype(violations.dtype)

    return count(0.0, 0.0), count(0.0, 1.0), count(1.0, 0.0), count(1.0, 1.0)


def sum_of(counts: tuple[Array, ...]) -> Array:
    """The total of the counts."""
    return jnp.sum(jnp.stack(counts), axis=0)


def kolmogorov_tail(scaled: Array) -> Array:
    """P(K > scaled) of Kolmogorov's limit law."""
    terms = jnp.arange(1, KOLMOGOROV_TERMS + 1, dtype=scaled.dtype)
    signs = jnp.where(terms % 2 == 1, 2.0, -2.0)
    powers = jnp.exp(-2.0 * terms**2 * scaled[..., None] ** 2)
    tail = jnp.sum(signs * powers, axis=-1)
    # The alternating series needs ever more terms near zero, where the tail is 1 up to 1e-12.
    return jnp.where(scaled < 0.2, 1.0, jnp.clip(tail, 0.0, 1.0))
