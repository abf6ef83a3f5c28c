"""Heads against densities and quantiles of scipy; laws against their own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.recursive.draw_heads import CategoricalHead, QuantileHead
from jaxfc.recursive.heads import GaussianHead, LowRankHead, MixtureHead, Moments, StudentHead
from jaxfc.recursive.laws import MixtureForecast, stratified_uniforms

HORIZON, SERIES = 2, 3
SHAPE = HORIZON, SERIES
HEADS = (GaussianHead(), StudentHead(), MixtureHead(3), LowRankHead(2), QuantileHead())
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def anchor():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 6))
    cov = factor @ factor.T
    std = np.sqrt(np.diag(cov))
    corr = (cov / std[:, None] / std).reshape(*SHAPE, *SHAPE)
    return Moments(
        jnp.asarray(rng.normal(size=SHAPE)),
        jnp.asarray(rng.uniform(0.5, 2.0, SHAPE)),
        jnp.asarray(corr),
    )


def outputs_of(head, seed=1, size=0.4):
    rng = np.random.default_rng(seed)
    return jnp.asarray(size * rng.normal(size=(*SHAPE, head.num_outputs)))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_zeros_are_the_anchor(head, anchor):
    law = head.law(jnp.zeros((*SHAPE, head.num_outputs)), anchor, key=KEY)
    if isinstance(head, QuantileHead):  # draws, one in every thousandth
        np.testing.assert_allclose(law.mean, anchor.location, atol=2e-3)
        np.testing.assert_allclose(law.std, anchor.scale, rtol=5e-3)
        return
    np.testing.assert_allclose(law.mean, anchor.location, rtol=1e-12)
    np.testing.assert_allclose(law.std, anchor.scale, rtol=1e-12)
    if isinstance(head, GaussianHead | StudentHead):
        cov = anchor.scale[..., None, None] * anchor.corr * anchor.scale
        np.testing.assert_allclose(law.cov, cov, rtol=1e-12)


def log_density(head, law, target, seen):
    """The log density that the head's loss is minus of, by scipy, over what is seen."""
    mean, cov = np.asarray(law.mean), np.asarray(law.cov)
    if isinstance(head, GaussianHead):
        each = stats.norm(mean, np.asarray(law.std)).logpdf(target)
        return each[seen].sum()
    if isinstance(head, StudentHead):
        scale = np.sqrt(np.einsum("hihi->hi", np.asarray(law.scatters)[0]))
        return stats.t(float(law.degrees), mean, scale).logpdf(target)[seen].sum()
    if isinstance(head, MixtureHead):
        stds = np.sqrt(np.einsum("khihi->khi", np.asarray(law.scatters)))
        each = stats.norm(np.asarray(law.means), stds).logpdf(target)
        joint = np.exp(each[:, seen].sum(axis=1)) @ np.asarray(law.weights)
        return np.log(joint)
    flat = seen.ravel()
    part = cov.reshape(6, 6)[flat][:, flat]
    return stats.multivariate_normal(mean.ravel()[flat], part).logpdf(target.ravel()[flat])


@pytest.mark.parametrize("head", HEADS[:4], ids=lambda head: type(head).__name__)
def test_losses_are_log_densities_of_the_law(head, anchor):
    """Also with entries missing, whose targets (NaN too) are never read."""
    outputs = outputs_of(head)
    law = head.law(outputs, anchor, key=None)
    target = np.random.default_rng(2).normal(size=SHAPE) * 2
    for seen in (np.ones(SHAPE, bool), np.array([[True, False, True], [False, True, True]])):
        given = jnp.asarray(np.where(seen, target, np.nan))
        value, slope = jax.value_and_grad(head.loss)(outputs, anchor, given, jnp.asarray(seen))
        np.testing.assert_allclose(-value, log_density(head, law, target, seen), rtol=1e-9)
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_log_scale_scales(head, anchor):
    """`from_log_scale` keeps the mean and multiplies the deviation."""
    factor = jnp.full(SHAPE, 0.3)
    law = head.law(head.from_log_scale(factor), anchor, key=KEY)
    grown = float(np.exp(6.0 * np.tanh(0.3 / 6.0)))
    rtol = 5e-3 if isinstance(head, QuantileHead) else 1e-12
    np.testing.assert_allclose(law.std, grown * anchor.scale, rtol=rtol)
    np.testing.assert_allclose(law.mean, anchor.location, atol=5e-3 if rtol > 1e-6 else 1e-12)


def test_pinball_loss_and_quantiles_that_never_cross(anchor):
    head = QuantileHead((0.1, 0.3, 0.8, 0.9))
    outputs = outputs_of(head, size=3.0)
    found = np.asarray(head.quantiles(outputs, anchor))
    assert (np.diff(found, axis=0) > 0).all()
    target = np.zeros(SHAPE)
    loss = 0.0
    for level, row in zip(head.levels, found, strict=True):
        error = target - row
        loss += np.sum(2 * np.where(error > 0, level * error, (level - 1) * error)) / 4
    seen = jnp.ones(SHAPE, bool)
    np.testing.assert_allclose(head.loss(outputs, anchor, jnp.zeros(SHAPE), seen), loss, rtol=1e-12)
    zeros = head.quantiles(jnp.zeros_like(outputs), anchor)
    normal = stats.norm(anchor.location, anchor.scale)
    for level, row in zip(head.levels, zeros, strict=True):
        np.testing.assert_allclose(row, normal.ppf(level), rtol=1e-9)
    draws = head.law(outputs, anchor, key=KEY).draws
    below = np.mean(np.asarray(draws) <= found[:, None], axis=1)
    np.testing.assert_allclose(
        below, np.array(head.levels)[:, None, None] * np.ones(SHAPE), atol=2e-3
    )


def test_probabilities_of_classes(anchor):
    head = CategoricalHead((-1.0, 0.0, 1.0))
    outputs = outputs_of(head, size=1.0)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    target = jnp.asarray([[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    seen = jnp.asarray([[True, True, True], [True, False, True]])
    picked = np.take_along_axis(shares, (np.asarray(target).astype(int) + 1)[..., None], axis=-1)
    expected = -np.log(picked[..., 0])[np.asarray(seen)].sum()
    np.testing.assert_allclose(head.loss(outputs, anchor, target, seen), expected, rtol=1e-12)
    draws = np.asarray(head.law(outputs, anchor, key=KEY).draws)
    for place, value in enumerate(head.values):
        np.testing.assert_allclose((draws == value).mean(axis=0), shares[..., place], atol=3e-3)
    with pytest.raises(ValueError, match="no scale"):
        head.from_log_scale(jnp.zeros(SHAPE))
    with pytest.raises(ValueError, match="answers with draws: pass key"):
        head.law(outputs, anchor, key=None)


@pytest.mark.parametrize("degrees", [None, 5.0])
def test_mixture_law(degrees, anchor):
    """Quantiles invert the distribution function of scipy, sums and portfolios too; draws have
    mean, covariance and quantiles of the law."""
    rng = np.random.default_rng(3)
    weights = jnp.asarray([0.3, 0.7])
    factors = rng.normal(size=(2, 6, 6))
    scatters = jnp.asarray(factors @ factors.transpose(0, 2, 1)).reshape(2, *SHAPE, *SHAPE)
    means = jnp.asarray(rng.normal(size=(2, *SHAPE)))
    v = None if degrees is None else jnp.asarray(degrees)
    law = MixtureForecast(weights, means, scatters, v)
    law = law.cumulative().aggregate(jnp.asarray([[1.0, -1.0, 0.5], [0.2, 0.3, 0.5]]))
    law = law.affine(jnp.asarray([2.0, 1.0]), jnp.ones((2, 2)))
    levels = np.array([0.01, 0.5, 0.9])
    found = np.asarray(law.quantile(levels))
    scales = np.sqrt(np.einsum("khihi->khi", np.asarray(law.scatters)))
    kind = stats.norm if degrees is None else (lambda m, s: stats.t(degrees, m, s))
    below = sum(
        weight * kind(mean, scale).cdf(found)
        for weight, mean, scale in zip(weights, np.asarray(law.means), scales, strict=True)
    )
    np.testing.assert_allclose(below, levels[:, None, None] * np.ones((2, 2)), rtol=1e-9)
    draws = np.asarray(law.sample(40_000, key=KEY))
    error = np.abs(draws.mean(axis=0) - law.mean) / (law.std / 200.0)
    assert error.max() < 5
    cov = np.cov(draws.reshape(-1, 4).T)
    np.testing.assert_allclose(cov, law.cov.reshape(4, 4), atol=0.08 * np.abs(cov).max())
    np.testing.assert_allclose(np.einsum("hihi->hi", law.cov), law.std**2, rtol=1e-12)
    share = (draws <= found[0]).mean(axis=0)
    np.testing.assert_allclose(share, 0.01, atol=5 * np.sqrt(0.01 / 40_000))


def test_stratified_uniforms_fill_every_interval_once():
    draws = np.asarray(stratified_uniforms(50, (2, 3), key=KEY))
    np.testing.assert_array_equal(
        np.sort(np.floor(draws * 50), axis=0), np.arange(50)[:, None, None] * np.ones((1, 2, 3))
    )
    assert np.abs(np.corrcoef(draws.reshape(50, 6).T) - np.eye(6)).max() < 0.6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuantileHead((0.5,)), "levels must be two or more that increase"),
        (lambda: QuantileHead((0.5, 0.2)), "levels must be two or more that increase"),
        (lambda: QuantileHead((0.0, 0.2)), "levels must be two or more that increase"),
        (lambda: CategoricalHead((1.0, 1.0)), "values must be two or more that increase"),
        (lambda: MixtureHead(0), "num_components must be at least 1"),
        (lambda: LowRankHead(0), "rank must be at least 1"),
    ],
)
def test_impossible_heads_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
