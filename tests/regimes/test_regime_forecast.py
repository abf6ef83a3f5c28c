"""Mixture forecasts against the enumeration of all paths of regimes, and against draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from jaxfc.forecast import SampleForecast
from jaxfc.regimes import GaussianTails, RegimeForecast, StudentTails
from regimes.regime_worlds import COVS, MEANS, TRANSITION

HORIZON = 4
STATE = np.array([0.70792742, 0.29207258])
THREE = {
    "state": np.array([0.2, 0.5, 0.3]),
    "transition": np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.3, 0.0, 0.7]]),
    "means": np.array([[0.5, 0.2], [-1.0, 0.3], [0.1, -2.0]]),
    "scatters": np.concatenate([COVS, [[[0.2, -0.1], [-0.1, 0.3]]]]),
}
TWO = {"state": STATE, "transition": TRANSITION, "means": MEANS, "scatters": COVS}


def ahead(case, tails=None, horizon=HORIZON):
    arrays = {name: jnp.asarray(value) for name, value in case.items()}
    return RegimeForecast.ahead(**arrays, tails=tails or GaussianTails(), horizon=horizon)


def by_paths(case, mixing):
    """Weight, mean (horizon, series) and cov of mixing y given every path of regimes."""
    found = []
    for path in itertools.product(range(len(case["state"])), repeat=mixing.shape[1]):
        weight = case["state"] @ case["transition"][:, path[0]]
        for a, b in itertools.pairwise(path):
            weight *= case["transition"][a, b]
        means, covs = case["means"][list(path)], case["scatters"][list(path)]
        cov = np.einsum("ah,bh,hmn->ambn", mixing, mixing, covs)
        found.append((weight, mixing @ means, cov))
    weights, means, covs = (np.array(part) for part in zip(*found, strict=True))
    return weights, means, covs


CASES = {
    "two": (TWO, np.eye(HORIZON)),
    "three": (THREE, np.eye(HORIZON)),
    "two, sums": (TWO, np.tri(HORIZON)),
    "three, sums": (THREE, np.tri(HORIZON)),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_and_quantiles_against_all_paths(name):
    case, mixing = CASES[name]
    forecast = ahead(case)
    if "sums" in name:
        forecast = forecast.cumulative()
    weights, means, covs = by_paths(case, mixing)
    assert weights.sum() == pytest.approx(1.0, rel=1e-12)
    mean = np.einsum("p,phm->hm", weights, means)
    spread = np.einsum("p,pam,pbn->ambn", weights, means - mean, means - mean)
    np.testing.assert_allclose(forecast.mean, mean, rtol=1e-12)
    cov = spread + np.einsum("p,pambn->ambn", weights, covs)
    np.testing.assert_allclose(forecast.cov, cov, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(forecast.std, np.sqrt(np.einsum("amam->am", cov)), rtol=1e-12)
    levels = np.array([0.001, 0.3, 0.5, 0.99])
    found = np.asarray(jax.jit(lambda: forecast.quantile(levels))())
    assert found.shape == (4, HORIZON, 2)
    stds = np.sqrt(np.einsum("pamam->pam", covs))
    for i, q in enumerate(levels):
        for h, m in itertools.product(range(HORIZON), range(2)):

            def gap(x, q=q, h=h, m=m):
                return weights @ stats.norm.cdf(x, means[:, h, m], stds[:, h, m]) - q

            assert found[i, h, m] == pytest.approx(brentq(gap, -60, 60, xtol=1e-13), abs=1e-10)


def test_golden_one_step():
    forecast = ahead(TWO, horizon=1)
    np.testing.assert_allclose(forecast.mean[0], [0.00745129, -0.03524136], atol=5.1e-9)
    cov = np.asarray(forecast.cov)[0, :, 0]
    corr = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
    assert corr == pytest.approx(0.5815911558946009, abs=2e-9)


@pytest.mark.parametrize("tails", [GaussianTails(), StudentTails(7.0)], ids=["normal", "t"])
def test_draws_have_the_law(tails):
    forecast = ahead(THREE, tails)
    draws = np.asarray(forecast.sample(60_000, key=jax.random.key(0)))
    scale = np.asarray(forecast.std) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - forecast.mean) / scale).max() < 4.5
    cov = np.asarray(SampleForecast(jnp.asarray(draws)).cov)
    expected = np.asarray(forecast.cov)
    size = np.asarray(forecast.std)
    np.testing.assert_allclose(
        cov / size[:, :, None, None] / size, expected / size[:, :, None, None] / size, atol=0.03
    )
    levels = np.array([0.05, 0.5, 0.9])
    below = [(draws < np.asarray(forecast.quantile(q))).mean(axis=0) for q in levels]
    np.testing.assert_allclose(below, np.broadcast_to(levels[:, None, None], (3, 4, 2)), atol=0.01)


def test_operations_commute_and_have_the_moments():
    forecast = ahead(THREE)
    weights = jnp.array([[0.3, 0.7], [1.0, -1.0], [0.0, 2.0]])
    scale, shift = jnp.array([2.0, -0.5]), jnp.arange(8.0).reshape(4, 2)
    one = forecast.affine(scale, shift).cumulative().aggregate(weights)
    other = forecast.affine(scale, shift).aggregate(weights).cumulative()
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-12)
    np.testing.assert_allclose(one.cov, other.cov, atol=1e-12)
    q = jnp.array([0.1, 0.6])
    np.testing.assert_allclose(one.quantile(q), other.quantile(q), atol=1e-10)
    joint = np.einsum("m,ambn,n->ambn", scale, forecast.cov, scale)
    total = joint.cumsum(axis=0).cumsum(axis=2)
    expected = np.einsum("om,ambn,pn->aobp", weights, total, weights)
    np.testing.assert_allclose(one.cov, expected, rtol=1e-11, atol=1e-12)
    mean = np.cumsum(np.asarray(scale * forecast.mean + shift), axis=0) @ np.asarray(weights).T
    np.testing.assert_allclose(one.mean, mean, atol=1e-12)
    np.testing.assert_allclose(forecast.marginal(1).std[:, 0], forecast.std[:, 1], rtol=1e-13)


def test_what_is_known_within_a_regime():
    forecast = ahead(THREE, StudentTails(5.0)).cumulative()
    inside = forecast.within(1)
    np.testing.assert_allclose(inside.mean[:, 0], -1.0 * np.arange(1, 5), atol=1e-13)
    expected = 5 / 3 * np.asarray(THREE["scatters"][1]) * 4
    np.testing.assert_allclose(inside.cov[3, :, 3], expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"regime 3 is none of 0\.\.2"):
        forecast.within(3)


def test_slopes_of_quantiles():
    """By a mean and by a probability, of rows and of sums, against central differences."""

    def quantile(mean, probability):
        case = dict(TWO, means=jnp.asarray(MEANS).at[1, 0].set(mean))
        state = jnp.array([1.0 - probability, probability])
        forecast = ahead(dict(case, state=state))
        rows = forecast.quantile(0.05)[2, 0], forecast.cumulative().quantile(0.95)[3, 0]
        return jnp.stack(rows)

    given = -0.1, 0.3
    slopes = jax.jit(jax.jacfwd(quantile, (0, 1)))(*given)
    reverse = jax.jit(jax.jacrev(quantile, (0, 1)))(*given)
    value = jax.jit(quantile)
    for place, (forward, backward) in enumerate(zip(slopes, reverse, strict=True)):
        high, low = list(given), list(given)
        high[place] += 1e-5
        low[place] -= 1e-5
        np.testing.assert_allclose(forward, (value(*high) - value(*low)) / 2e-5, rtol=1e-6)
        np.testing.assert_allclose(backward, forward, rtol=1e-10)


def test_what_is_not_exact_is_refused():
    sums = ahead(TWO, StudentTails(5.0)).cumulative()
    with pytest.raises(ValueError, match="no mixture of few known ones; use quantiles of draws"):
        sums.quantile(0.1)
    twice = ahead(TWO).cumulative().cumulative()
    with pytest.raises(ValueError, match="no mixture of few"):
        twice.quantile(0.1)
    mixing = np.tri(HORIZON) @ np.tri(HORIZON)
    weights, means, covs = by_paths(TWO, mixing)
    mean = np.einsum("p,phm->hm", weights, means)
    spread = np.einsum("p,pam,pbn->ambn", weights, means - mean, means - mean)
    cov = spread + np.einsum("p,pambn->ambn", weights, covs)
    np.testing.assert_allclose(twice.cov, cov, rtol=1e-11)
    with pytest.raises(ValueError, match="degrees must exceed 2, got 2"):
        StudentTails(2.0)


def test_scale_equivariance():
    """From 1e-6 to 1e6: quantiles and moments follow."""
    base = ahead(THREE).cumulative()
    for c in (1e-6, 1e6):
        case = dict(THREE, means=c * THREE["means"], scatters=c**2 * THREE["scatters"])
        scaled = ahead(case).cumulative()
        np.testing.assert_allclose(scaled.quantile(0.01), c * base.quantile(0.01), rtol=1e-11)
        np.testing.assert_allclose(scaled.std, c * base.std, rtol=1e-11)
