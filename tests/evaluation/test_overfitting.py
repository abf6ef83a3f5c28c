"""Overfitting by CSCV against a loop over the splits, noise, and a strategy with skill."""

import itertools
import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from numpy.testing import assert_allclose
from scipy import stats

from jaxfc.evaluation.overfitting import backtest_overfitting

RNG = np.random.default_rng(8)
RUN = jax.jit(backtest_overfitting, static_argnums=1, static_argnames="score")


def loop_overfitting(returns, num_blocks):
    """Split by split, with the rank counted by hand."""
    blocks = [
        np.flatnonzero(np.arange(len(returns)) * num_blocks // len(returns) == b)
        for b in range(num_blocks)
    ]
    logits, chosen, judged = [], [], []
    for half in itertools.combinations(range(num_blocks), num_blocks // 2):
        inside = returns[np.concatenate([blocks[b] for b in half])]
        rest = [b for b in range(num_blocks) if b not in half]
        outside = returns[np.concatenate([blocks[b] for b in rest])]
        first = np.nanmean(inside, axis=0) / np.nanstd(inside, axis=0)
        second = np.nanmean(outside, axis=0) / np.nanstd(outside, axis=0)
        best = int(np.argmax(first))
        share = stats.rankdata(second)[best] / (returns.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
        chosen.append(first[best])
        judged.append(second[best])
    return np.array(logits), np.array(chosen), np.array(judged)


def test_overfitting_is_that_of_a_loop():
    returns = RNG.normal(0.02, 1.0, (43, 5))
    returns[7, 2] = np.nan
    got = RUN(jnp.asarray(returns), 6)
    logits, chosen, judged = loop_overfitting(returns, 6)
    assert_allclose(got.logits, logits, atol=1e-12)
    assert_allclose(got.in_sample, chosen, rtol=1e-10)
    assert_allclose(got.out_of_sample, judged, rtol=1e-9, atol=1e-12)
    fit = stats.linregress(chosen, judged)
    assert_allclose(got.degradation_slope, fit.slope, rtol=1e-9)
    assert_allclose(got.degradation_intercept, fit.intercept, rtol=1e-9)
    assert float(got.probability) == pytest.approx(np.mean(logits <= 0))
    assert float(got.loss_probability) == pytest.approx(np.mean(judged < 0))


def test_overfitting_of_noise_is_one_half_and_of_skill_zero():
    noise = np.random.default_rng(9).normal(size=(400, 80, 10))
    run = jax.jit(jax.vmap(lambda r: backtest_overfitting(r, 8)))
    found = np.asarray(run(jnp.asarray(noise)).probability)
    assert abs(found.mean() - 0.5) < 3.0 * found.std() / math.sqrt(400)
    skilled = noise[:50] + np.where(np.arange(10) == 4, 1.5, 0.0)
    got = run(jnp.asarray(np.concatenate([skilled] * 8)))
    assert np.all(got.probability == 0.0)
    assert np.all(got.selected == 4) and np.all(got.loss_probability == 0.0)


def test_a_strategy_without_a_score_is_last():
    returns = RNG.normal(0.0, 1.0, (40, 3))
    returns[:, 1] = 0.3
    got = RUN(jnp.asarray(returns), 4)
    assert not np.any(got.selected == 1)
    by_mean = RUN(jnp.asarray(returns), 4, score="mean")
    assert np.any(by_mean.selected == 1)


@pytest.mark.parametrize(
    ("shape", "num_blocks", "message"),
    [((20, 3), 5, "even"), ((20, 3), 22, "even"), ((20, 1), 4, "at least 2 strategies")],
)
def test_bad_input_of_overfitting_is_refused(shape, num_blocks, message):
    with pytest.raises(ValueError, match=message):
        backtest_overfitting(jnp.zeros(shape), num_blocks)


def test_another_score_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="score"):
        backtest_overfitting(jnp.zeros((20, 3)), 4, score="median")  # pyright: ignore


def test_float32_and_lowering_for_cuda():
    returns = jnp.asarray(RNG.normal(0.02, 1.0, (60, 5)))
    single, double = RUN(returns.astype(jnp.float32), 4), RUN(returns, 4)
    assert single.logits.dtype == jnp.float32
    assert_allclose(single.out_of_sample, double.out_of_sample, rtol=1e-4, atol=1e-6)
    assert_allclose(single.degradation_slope, double.degradation_slope, rtol=1e-4)
    program = jax.jit(lambda r: backtest_overfitting(r, 4))
    assert jax.export.export(program, platforms=["cuda"])(returns).platforms == ("cuda",)
