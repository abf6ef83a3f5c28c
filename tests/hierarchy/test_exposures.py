"""Exposures shrunk to sectors: the dense law, the optimum, thin histories, holes, units, ahead."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from jaxfc.hierarchy.exposure_moments import FactorMoments, exposure_forecast
from jaxfc.hierarchy.exposures import ExposureModel, shrunk_exposures
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.results import is_okay

MEMBERS = np.array([0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2, 0])
TIMES = 60


@pytest.fixture(scope="module")
def world():
    """Twelve assets in three sectors on two factors; asset 3 is new, asset 5 is not yet traded."""
    rng = np.random.default_rng(3)
    factors = rng.normal(0.1, 1.0, size=(TIMES, 2))
    sector = np.array([0.05, 1.0, 0.0]) + 0.3 * rng.normal(size=(3, 3))
    truth = sector[MEMBERS] + 0.15 * rng.normal(size=(12, 3))
    stds = rng.uniform(0.8, 1.6, size=12)
    values = np.c_[np.ones(TIMES), factors] @ truth.T + stds * rng.normal(size=(TIMES, 12))
    observed = rng.random((TIMES, 12)) > 0.1
    observed[:-4, 3] = False
    observed[:, 5] = False
    seen = np.ones((TIMES, 2), bool)
    seen[-1, 1] = False
    return jnp.asarray(values), jnp.asarray(observed), jnp.asarray(factors), jnp.asarray(seen)


@jax.jit
def fitted(how, values, observed, factors, seen):
    return shrunk_exposures(values, observed, factors, seen, jnp.asarray(MEMBERS), 3, shrinkage=how)


HOW = Shrinkage(rtol=1e-12, max_steps=4000)


@pytest.fixture(scope="module")
def found(world):
    return fitted(HOW, *world)


def dense_objective(world, variances, within, between):
    """Restricted likelihood of all returns at once, less the penalty on variances (nu = 4)."""
    values, observed, factors, seen = map(np.asarray, world)
    known = observed & seen.all(axis=1)[:, None]
    rows = np.c_[np.ones(TIMES), factors]
    blocks, returns, sectors, errors = [], [], [], []
    for i in range(12):
        blocks.append(rows[known[:, i]])
        returns.append(values[known[:, i], i])
        sectors.append(np.full(known[:, i].sum(), MEMBERS[i]))
        errors.append(np.full(known[:, i].sum(), variances[i]))
    columns, y = np.concatenate(blocks), np.concatenate(returns)
    sector, asset = np.concatenate(sectors), np.repeat(np.arange(12), known.sum(axis=0))
    cov = np.diag(np.concatenate(errors))
    cov += (asset[:, None] == asset) * (columns @ within @ columns.T)
    cov += (sector[:, None] == sector) * (columns @ between @ columns.T)
    inverse = np.linalg.inv(cov)
    information = columns.T @ inverse @ columns
    market = np.linalg.solve(information, columns.T @ inverse @ y)
    rest = y - columns @ market
    loglik = rest @ inverse @ rest + np.linalg.slogdet(cov)[1]
    loglik += np.linalg.slogdet(information)[1] + (len(y) - 3) * np.log(2 * np.pi)
    penalty = 0.0
    for s in range(3):
        own = variances[(MEMBERS == s) & known.any(axis=0)]
        common = 1.0 / np.mean(1.0 / own)
        penalty += np.sum(common / own - 1.0 - np.log(common / own))
    weak = np.linalg.slogdet(within)[1] + np.linalg.slogdet(between)[1]
    return -0.5 * loglik, 0.5 * (weak - loglik - 4.0 * penalty), market


def test_likelihood_and_market_are_those_of_the_dense_law(world, found):
    variances, spreads = np.asarray(found.variances), found.spreads
    within, between = np.asarray(spreads.within[0]), np.asarray(spreads.between)
    loglik, _, market = dense_objective(world, variances, within, between)
    assert bool(is_okay(found.result))
    assert float(found.law.loglik) == pytest.approx(loglik, rel=1e-10)
    assert_allclose(found.law.market_mean, market, rtol=1e-8)


def test_no_other_parameters_are_better(world, found):
    """Central differences of the dense objective along every parameter, in relative steps."""
    variances = np.asarray(found.variances)
    within, between = np.asarray(found.spreads.within[0]), np.asarray(found.spreads.between)

    def objective(change, place):
        parts = [variances.copy(), within.copy(), between.copy()]
        which, where = place
        if which == 0:
            parts[0][where] *= np.exp(change)
        else:
            turn = np.eye(3)
            turn[where] += change
            parts[which] = turn @ parts[which] @ turn.T
        return dense_objective(world, *parts)[1]

    places = [(0, i) for i in range(12) if i != 5]
    places += [(which, (0, 0)) for which in (1, 2)] + [(1, (1, 1)), (2, (1, 1)), (1, (1, 2))]
    slopes = [(objective(1e-4, p) - objective(-1e-4, p)) / 2e-4 for p in places]
    assert_allclose(slopes, 0.0, atol=2e-3)
    assert abs(objective(0.3, (0, 0)) - objective(0.0, (0, 0))) > 0.05


def test_no_history_is_the_sector_and_a_thin_one_nearly(world, found):
    law = found.law
    assert_allclose(law.means[5], law.sector_means[0], rtol=1e-10)
    own = np.array([found.variances[i] for i in range(12) if MEMBERS[i] == 0 and i != 5])
    assert float(found.variances[5]) == pytest.approx(1 / np.mean(1 / own), rel=1e-7)
    assert float(law.covs[3, 1, 1]) > float(law.covs[0, 1, 1])
    assert float(law.covs[5, 1, 1]) > float(law.covs[3, 1, 1])


def test_hidden_cells_and_rows_without_a_factor_are_never_read(world, found):
    values, observed, factors, seen = world
    spoilt = jnp.where(observed, values, jnp.nan), jnp.where(seen, factors, jnp.nan)
    again = fitted(HOW, spoilt[0], observed, spoilt[1], seen)
    assert_allclose(again.law.means, found.law.means, rtol=1e-12)
    short = fitted(HOW, values.at[-1].set(7.0), observed, factors.at[-1].set(9.0), seen)
    assert_allclose(short.law.means, found.law.means, rtol=1e-12)

    def read(values, factors):
        return jnp.sum(fitted(HOW, values, observed, factors, seen).law.means[:, 1])

    slopes = jax.jit(jax.grad(read, argnums=(0, 1)))(*spoilt)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert np.all(np.asarray(slopes[0])[~np.asarray(observed)] == 0.0)
    assert np.all(np.asarray(slopes[1])[-1] == 0.0) and np.any(np.asarray(slopes[1])[0] != 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_units(world, scale):
    """Ended well before gains are rounding, so that all units take the same steps."""
    values, observed, factors, seen = world
    how = Shrinkage(rtol=1e-9)
    found = fitted(how, *world)
    other = fitted(how, scale * values, observed, 10.0 * factors, seen)
    units = scale * np.array([1.0, 0.1, 0.1])
    assert_allclose(other.law.means, units * np.asarray(found.law.means), rtol=1e-9)
    assert_allclose(other.variances, scale**2 * found.variances, rtol=1e-9)


def panel_of(world):
    """The same, but asset 5 has traded twice: a panel refuses a series without observation."""
    values, observed, factors, seen = map(np.asarray, world)
    observed = observed.copy()
    observed[:2, 5] = True
    values = np.where(observed, values, np.nan)
    both = np.concatenate([values, np.where(seen, factors, np.nan)], axis=1)
    names = [*(f"a{i}" for i in range(12)), "mkt", "smb"]
    index = pd.bdate_range("2020-01-01", periods=TIMES)
    return jaxfc.Panel.from_frame(pd.DataFrame(both, index, names))


@pytest.fixture(scope="module")
def model():
    return ExposureModel(MEMBERS, 3, 2, shrinkage=HOW)


@pytest.fixture(scope="module")
def fit(world, model):
    return model.fit(panel_of(world))


def test_forecast_is_the_factor_law(world, fit):
    found = fit.regression
    factors = np.asarray(world[2])[:-1]
    law = fit.forecast(2)
    betas, alphas = np.asarray(fit.betas), np.asarray(fit.alphas)
    assert_allclose(law.mean, np.tile(alphas + betas @ factors.mean(0), (2, 1)), rtol=1e-12)
    expected = betas @ np.cov(factors.T) @ betas.T + np.diag(found.variances)
    assert_allclose(law.cov[1, :, 1], expected, rtol=1e-9)
    assert_allclose(law.cov[0, :, 1], 0.0, atol=1e-14)
    wider = fit.forecast_with_uncertainty(2)
    assert_allclose(wider.mean, law.mean, rtol=1e-12)
    assert np.all(np.asarray(wider.std > law.std))
    assert float(wider.std[0, 5] - law.std[0, 5]) > float(wider.std[0, 0] - law.std[0, 0])
    assert fit.forecast_names(tuple("abcdefghijklMS")) == tuple("abcdefghijkl")
    with pytest.raises(ValueError, match="takes no key"):
        fit.forecast(1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least 1"):
        fit.forecast(0)


def test_simulated_returns_have_the_moments_of_the_forecast(fit):
    path = np.asarray(jax.jit(lambda key: fit.simulate(40_000, key=key))(jax.random.key(1)))
    law = fit.forecast(1)
    assert_allclose(path.mean(0), law.mean[0], atol=0.05)
    assert_allclose(np.cov(path.T), law.cov[0, :, 0], atol=0.08)


def test_products_of_uncertain_exposures_and_factors():
    """Moments against a million draws of exposures and factors."""
    rng = np.random.default_rng(5)
    means = rng.normal(size=(2, 2, 2))
    roots = 0.4 * rng.normal(size=(2, 4, 4))
    covs = np.einsum("iab,icb->iac", roots, roots)
    factors = FactorMoments(jnp.array([0.5]), jnp.array([[0.8]]))
    law = exposure_forecast(
        jnp.asarray(means), jnp.asarray(covs.reshape(2, 2, 2, 2, 2)), jnp.array([0.3, 0.1]), factors
    )
    number = 1_000_000
    drawn = np.einsum("iab,dib->dia", roots, rng.normal(size=(number, 2, 4)))
    exposures = means + np.moveaxis(drawn.reshape(number, 2, 2, 2), 1, 2)
    given = 0.5 + np.sqrt(0.8) * rng.normal(size=(number, 2))
    returns = exposures[..., 0] + exposures[..., 1] * given[:, :, None]
    returns = returns + np.sqrt([0.3, 0.1]) * rng.normal(size=returns.shape)
    assert_allclose(law.mean, returns.mean(0), atol=0.02)
    empirical = np.cov(returns.reshape(number, 4).T).reshape(2, 2, 2, 2)
    assert_allclose(law.cov, empirical, atol=0.03)


def test_weights_of_factors_that_halve_are_those_of_the_data_given(world, model):
    _, _, factors, seen = map(np.asarray, world)
    model = dataclasses.replace(model, half_life=jnp.asarray(10.0))
    both = jnp.concatenate([world[0], world[2]], axis=1)
    mask = jnp.concatenate([world[1], world[3]], axis=1)
    first = jax.jit(lambda v, o: model.estimate(v, o))(both[:40], mask[:40])
    later = first.given(both, mask)
    weights = 0.5 ** (np.arange(TIMES - 1, -1, -1) / 10.0) * seen.all(1)
    weights /= weights.sum()
    mean = weights @ factors
    cov = (weights[:, None] * (factors - mean)).T @ (factors - mean) / (1 - np.sum(weights**2))
    assert_allclose(later.factors.mean, mean, rtol=1e-12)
    assert_allclose(later.factors.cov, cov, rtol=1e-10)
    assert_allclose(later.betas, first.betas)


def test_bad_panels_are_refused_with_the_name(world, model):
    panel = panel_of(world)
    with pytest.raises(ValueError, match="11 entries for 12 assets"):
        ExposureModel(MEMBERS[:-1], 3, 2).fit(panel)
    with pytest.raises(ValueError, match=r"\['a2', 'a7', 'a10'\] are not among 0 to 1"):
        ExposureModel(MEMBERS, 2, 2).fit(panel)
    with pytest.raises(ValueError, match=r"sectors \[3\] have no asset"):
        ExposureModel(MEMBERS, 4, 2).fit(panel)
    frame = panel.to_frame()
    frame["smb"] = 1.0
    with pytest.raises(ValueError, match="factor 'smb' is constant"):
        model.fit(jaxfc.Panel.from_frame(frame, allow_constant=True))


def test_lowers_for_cuda(world):
    exported = jax.export.export(fitted, platforms=["cuda"])(HOW, *world)
    assert exported.platforms == ("cuda",)
