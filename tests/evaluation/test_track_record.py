"""Probabilities of skill against the published example and simulated laws."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.evaluation import track_record


def test_deflated_sharpe_is_the_published_example():
    """Bailey and Lopez de Prado (2014), numerical example: annual Sharpe ratio 2.5, 5 years of 250
    days, skewness -3, kurtosis 10, variance 1/2 across trials."""
    daily, variance = 2.5 / math.sqrt(250), 0.5 / 250
    numbers = {"variance": variance, "num_trials": jnp.asarray([100, 46])}
    best = track_record.expected_maximum_sharpe(variance, 100)
    assert round(float(best), 4) == 0.1132
    got = track_record.deflated_sharpe(daily, 1250, -3.0, 10.0, **numbers)
    assert [round(float(x), 4) for x in got] == [0.9004, 0.9505]
    gaussian = track_record.deflated_sharpe(daily, 1250, variance=variance, num_trials=88)
    assert round(float(gaussian), 4) == 0.9505


def test_expected_maximum_is_that_of_normal_draws():
    for trials in (10, 100):
        draws = np.random.default_rng(0).normal(0.0, 0.3, (20_000, trials)).max(axis=1)
        got = float(track_record.expected_maximum_sharpe(0.09, trials))
        assert got == pytest.approx(draws.mean(), rel=0.03)
    assert float(track_record.expected_maximum_sharpe(0.09, 1)) == 0.0


def test_probabilistic_sharpe_is_uniform_under_the_benchmark():
    """Skewed independent returns with a known Sharpe ratio, 20 years of weeks."""
    steps, num_paths, true = 1040, 4000, 0.1
    returns = np.random.default_rng(5).gamma(4.0, size=(num_paths, steps)) / 2.0 - 2.0 + true
    estimate = returns.mean(axis=1) / returns.std(axis=1)
    got = track_record.probabilistic_sharpe(
        jnp.asarray(estimate),
        steps,
        jnp.asarray(stats.skew(returns, axis=1)),
        jnp.asarray(stats.kurtosis(returns, axis=1, fisher=False)),
        benchmark=true,
    )
    assert abs(np.mean(np.asarray(got) > 0.95) - 0.05) < 3.0 * math.sqrt(0.05 * 0.95 / num_paths)


def test_minimum_track_record_reaches_the_confidence():
    length = track_record.minimum_track_record(0.12, -0.8, 6.0, benchmark=0.05, confidence=0.9)
    got = track_record.probabilistic_sharpe(0.12, length, -0.8, 6.0, benchmark=0.05)
    assert float(got) == pytest.approx(0.9, rel=1e-12)
    assert np.isinf(track_record.minimum_track_record(0.05, benchmark=0.05))
