"""Online calibration against loops over cases, without look-ahead, within its theorems' bounds."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.evaluation import conformal, intervals

LEVELS = np.array([0.8, 0.9])


def given(num_cases, *, seed=0):
    """Intervals that are right until the volatility trebles in the middle, and outcomes."""
    rng = np.random.default_rng(seed)
    volatility = np.where(np.arange(num_cases) < num_cases // 2, 1.0, 3.0)
    realised = 0.2 + volatility * rng.normal(size=num_cases)
    half = np.array([1.2816, 1.6449])
    return 0.1 - half + np.zeros((num_cases, 2)), 0.3 + half + np.zeros((num_cases, 2)), realised


def adaptive_loop(method, lower, upper, realised, level, scale):
    """Adaptive conformal inference of one series, case by case, with exact rates."""
    num_cases, step = lower.size, Fraction(str(float(method.step)))
    alpha = rate = 1 - Fraction(str(level))
    centre = (lower + upper) / 2
    base = (lower, upper) if method.score == "bounds" else (centre, centre)
    scores, errors, bounds = [], [], []
    for t in range(num_cases):
        known = t - method.delay
        if known >= 0:
            if not np.isnan(errors[known]):
                rate += step * (alpha - int(errors[known]))
            miss = max(base[0][known] - realised[known], realised[known] - base[1][known])
            if np.isfinite(miss) and scale[known] > 0:
                scores.append(miss / scale[known])
        if len(scores) < method.window_min or not scale[t] > 0:
            bounds.append((lower[t], upper[t]))
            errors.append(np.nan)
            continue
        last = sorted(scores[-method.window :])
        if rate <= 0:
            q = max(scores) if method.beyond == "largest" else np.inf
        elif rate >= 1:
            q = -np.inf
        else:
            q = last[math.ceil(len(last) * (1 - rate)) - 1]
        bounds.append(moved(base[0][t], base[1][t], q, scale[t]))
        errors.append(outside(*bounds[-1], realised[t]))
    return np.array(bounds).T


def tracker_loop(method, lower, upper, realised, level):
    """The quantile tracker of one series, case by case."""
    q, errors, bounds = float(method.initial), [], []
    for t in range(lower.size):
        known = t - method.delay
        if known >= 0 and not np.isnan(errors[known]):
            q += float(method.step) * (errors[known] - (1.0 - level))
        bounds.append(moved(lower[t], upper[t], q, 1.0))
        errors.append(outside(*bounds[-1], realised[t]))
    return np.array(bounds).T


def moved(lower, upper, q, scale):
    low, high = lower - q * scale, upper + q * scale
    return (low, high) if low <= high else ((lower + upper) / 2,) * 2


def outside(low, high, outcome):
    return np.nan if np.isnan(outcome) else float(outcome < low or outcome > high)


@pytest.mark.parametrize("beyond", ["largest", "infinite"])
@pytest.mark.parametrize(("score", "delay"), [("bounds", 1), ("centre", 3)])
def test_adaptive_intervals_are_those_of_the_loop(score, delay, beyond):
    lower, upper, realised = given(160)
    realised[[5, 60, 61, 130]] = np.nan
    scale = np.exp(0.5 * np.sin(np.arange(160.0)))
    scale[[40, 41]] = 0.0, np.nan
    # A step this large drives the rate below 0 and, at the lowest level, above 1.
    levels = np.append(LEVELS, 0.3)
    lower, upper = (np.append(side, side[:, :1], axis=1) for side in (lower, upper))
    method = conformal.AdaptiveConformal(
        0.75, window=25, window_min=8, delay=delay, score=score, beyond=beyond
    )
    got = method.calibrate(lower, upper, realised, levels, scale=scale)
    for column, level in enumerate(levels):
        sides = lower[:, column], upper[:, column]
        expected = adaptive_loop(method, *sides, realised, level, scale)
        np.testing.assert_allclose(np.array(got)[:, :, column], expected, rtol=1e-12, atol=1e-12)
    last = 8 + delay - 1 + 1  # the missing outcome delays the first quantile by one case
    np.testing.assert_array_equal(got[0][:last], lower[:last])
    assert np.all(np.asarray(got[0][last]) != lower[last])
    collapsed = np.isclose(got[0], got[1])
    assert collapsed.any() and np.isinf(got[1]).any() == (beyond == "infinite")


def test_tracked_intervals_are_those_of_the_loop():
    lower, upper, realised = given(160)
    realised[[0, 60]] = np.nan
    for delay in (1, 4):
        method = conformal.QuantileTracker(0.4, delay=delay)
        got = method.calibrate(lower, upper, realised, LEVELS)
        for column, level in enumerate(LEVELS):
            sides = lower[:, column], upper[:, column]
            expected = tracker_loop(method, *sides, realised, level)
            np.testing.assert_allclose(np.array(got)[:, :, column], expected, rtol=1e-12)
        np.testing.assert_array_equal(got[0][: delay + 1], lower[: delay + 1])


METHODS = {
    "adaptive": conformal.AdaptiveConformal(0.05, window=15, window_min=5, delay=2),
    "centre": conformal.AdaptiveConformal(0.05, window=15, window_min=5, delay=2, score="centre"),
    "tracker": conformal.QuantileTracker(0.3, delay=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_future_changes_no_interval(name):
    lower, upper, realised = given(60)
    calibrate = jax.jit(lambda values: METHODS[name].calibrate(lower, upper, values, LEVELS))
    bounds = np.array(calibrate(realised))
    covered = (bounds[0] <= realised[:, None]) & (realised[:, None] <= bounds[1])
    for t in np.flatnonzero(covered.all(axis=1) & (np.arange(60) > 15))[[0, 9]]:
        changed = realised.copy()
        changed[t:] += 50.0
        other = np.array(calibrate(changed))
        # The outcome of case t is known when case t + 2 is predicted, and then it counts.
        np.testing.assert_array_equal(other[:, : t + 2], bounds[:, : t + 2])
        assert np.all(other[:, t + 2] != bounds[:, t + 2])


def test_derivatives_with_respect_to_the_future_are_zero():
    lower, upper, realised = given(40)

    def bounds(values):
        scale = conformal.ewma_volatility(values - 0.2, 0.9)
        return METHODS["adaptive"].calibrate(lower, upper, values, LEVELS, scale=scale)[1]

    derivative = np.asarray(jax.jacrev(bounds)(jnp.asarray(realised)))
    assert np.isfinite(derivative).all()
    case, outcome = np.indices((40, 40))
    # The scale knows the outcome of the case before, the scores those of two cases before.
    assert np.all(derivative[np.broadcast_to((outcome >= case)[:, None], derivative.shape)] == 0.0)
    assert np.all(np.abs(derivative[10:, :, :]).max(axis=(1, 2)) > 0.0)


def test_coverage_is_within_the_bound_of_the_theorem_where_given_intervals_fail():
    num_cases, window_min, step = 3000, 20, 0.02
    lower, upper, realised = given(num_cases, seed=4)
    method = conformal.AdaptiveConformal(
        step, window=200, window_min=window_min, beyond="infinite", score="centre"
    )
    bounds = method.calibrate(lower, upper, realised, LEVELS)
    late = np.asarray(intervals.outliers(*bounds, realised))[window_min:]
    alpha = 1.0 - LEVELS
    bound = (np.maximum(alpha, 1.0 - alpha) + step) / (step * late.shape[0])
    assert np.all(np.abs(late.mean(axis=0) - alpha) <= bound)
    raw = np.asarray(intervals.interval_outliers(lower, upper, realised))
    assert np.all(raw - alpha > 3 * bound)


def test_tracked_coverage_is_within_its_bound():
    lower, upper, realised = given(3000, seed=4)
    method = conformal.QuantileTracker(0.5)
    error = np.asarray(
        intervals.interval_outliers(*method.calibrate(lower, upper, realised, LEVELS), realised)
    )
    scores = np.maximum(lower - realised[:, None], realised[:, None] - upper)
    bound = (np.abs(scores).max(axis=0) + 0.5) / (0.5 * 3000)
    assert np.all(np.abs(error - (1.0 - LEVELS)) <= bound)
    raw = np.asarray(intervals.interval_outliers(lower, upper, realised))
    assert np.all(raw - (1.0 - LEVELS) > 3 * bound)


def test_volatility_is_a_weighted_mean_of_what_was_known():
    residuals = np.random.default_rng(1).normal(size=(30, 2))
    residuals[[0, 12], 0] = np.nan
    for delay in (1, 3):
        got = np.asarray(conformal.ewma_volatility(residuals, 0.9, delay=delay))
        for column in range(2):
            for t in range(30):
                known = residuals[: max(t - delay + 1, 0), column]
                known = known[np.isfinite(known)]
                weights = 0.9 ** np.arange(known.size)[::-1]
                if known.size == 0:
                    assert np.isnan(got[t, column])
                    continue
                expected = np.sqrt((weights * known**2).sum() / weights.sum())
                assert got[t, column] == pytest.approx(expected, rel=1e-12)
    scaled = np.asarray(conformal.volatility_scaled(residuals, 0.9, delay=3))
    np.testing.assert_allclose(scaled, residuals / got, rtol=1e-12)
    assert np.all(np.isnan(conformal.volatility_scaled(np.zeros(5))))


def test_columns_are_calibrated_by_themselves_and_in_single_precision():
    lower, upper, realised = given(60)
    both = np.stack([realised, realised[::-1]], 1)
    method = METHODS["adaptive"]
    wide = [np.repeat(side[:, :1], 2, axis=1) for side in (lower, upper)]
    got = method.calibrate(*wide, both, 0.8)
    for column in range(2):
        alone = method.calibrate(lower[:, 0], upper[:, 0], both[:, column], 0.8)
        np.testing.assert_array_equal(np.array(got)[:, :, column], alone)
    single = [jnp.asarray(side, dtype=jnp.float32) for side in (*wide, both)]
    for side in method.calibrate(*single, 0.8):
        assert side.dtype == jnp.float32 and np.isfinite(side).all()


def test_short_and_empty_histories_keep_the_given_intervals():
    lower, upper, realised = given(6)
    late = conformal.AdaptiveConformal(window=5, window_min=1, delay=9)
    unknown = conformal.AdaptiveConformal(window=5, window_min=1)
    for method, values in ((late, realised), (unknown, np.full(6, np.nan))):
        got = method.calibrate(lower, upper, values, LEVELS)
        np.testing.assert_array_equal(np.array(got), np.array([lower, upper]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 0}, "delay must be at least 1"),
        ({"window": 5, "window_min": 9}, "window_min must be between 1 and window"),
        ({"window_min": 0}, "window_min must be between 1 and window"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        conformal.AdaptiveConformal(**options)


def test_unknown_words_are_refused():
    with pytest.raises(Exception, match="score"):
        conformal.AdaptiveConformal(score="middle")  # pyright: ignore
    with pytest.raises(Exception, match="beyond"):
        conformal.AdaptiveConformal(beyond="none")  # pyright: ignore
    with pytest.raises(ValueError, match="delay must be at least 1"):
        conformal.ewma_volatility(np.zeros(5), delay=0)


def test_precisions_may_be_mixed():
    """Bounds in single precision, outcomes in double: the wider one is used."""
    lower, upper = jnp.full((40, 2), -1.0, jnp.float32), jnp.full((40, 2), 1.0, jnp.float32)
    realised = jnp.asarray(np.random.default_rng(0).normal(size=40))
    method = conformal.AdaptiveConformal(window_min=5)
    low, high = method.calibrate(lower, upper, realised, 0.8)
    wide = method.calibrate(lower.astype(float), upper.astype(float), realised, 0.8)
    assert low.dtype == realised.dtype
    np.testing.assert_allclose(jnp.stack([low, high]), jnp.stack(wide), atol=1e-12)
