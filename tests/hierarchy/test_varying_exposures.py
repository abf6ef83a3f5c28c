"""Exposures that move: golden values, the dense law, the optimum, holes, late factors, ahead."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from jaxfc.hierarchy.exposure_states import (
    ExposureDynamics,
    ExposureRows,
    error_squares,
    exposure_paths,
    updated_dynamics,
)
from jaxfc.hierarchy.late_factors import completed_factors
from jaxfc.hierarchy.varying_exposures import VaryingExposureModel
from jaxfc.results import is_okay
from oracles import dense_state_space, every_time

pytestmark = pytest.mark.slow

MEMBERS = np.array([0, 1, 0, 1, 0, 1])
TIMES = 80

paths_of = jax.jit(exposure_paths)


def rows_of(values, known, columns):
    values, known = jnp.asarray(values), jnp.asarray(known)
    return ExposureRows(values, known, jnp.asarray(columns), jnp.zeros(values.shape))


def test_golden_values_of_a_random_walk_beta():
    values = np.array([[1.1], [-1.8], [np.nan], [2.4]])
    dynamics = ExposureDynamics(
        jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.full((1, 1), 0.05), jnp.array([0.1])
    )
    rows = rows_of(values, np.isfinite(values), np.array([[1.0], [-2.0], [0.5], [1.5]]))
    paths = paths_of(rows, jnp.array([0]), dynamics, jnp.array([0.25]))
    filtered = [1.02857143, 0.94368932, 0.94368932, 1.31104937]
    smoothed = [1.04176106, 1.05099380, 1.18102159, 1.31104937]
    assert_allclose(paths.filtered_means[0, :, 0], filtered, atol=5e-9)
    assert_allclose(paths.smoothed_means[0, :, 0], smoothed, atol=5e-9)
    assert float(paths.logliks[0]) == pytest.approx(-2.7080993861074663, abs=1e-14)


@pytest.fixture(scope="module")
def world():
    """Six assets in two sectors, one factor, betas that move; a late asset, a late factor."""
    rng = np.random.default_rng(5)
    factors = rng.normal(0.1, 1.0, size=(TIMES, 1))
    betas = np.zeros((TIMES, 6))
    centre = np.array([0.8, 1.4])[MEMBERS]
    betas[0] = centre + 0.3 * rng.normal(size=6)
    for t in range(1, TIMES):
        betas[t] = centre + 0.9 * (betas[t - 1] - centre) + 0.15 * rng.normal(size=6)
    values = 0.05 + betas * factors + 0.7 * rng.normal(size=(TIMES, 6))
    observed = rng.random((TIMES, 6)) > 0.1
    observed[:40, 4] = False
    seen = np.ones((TIMES, 1), bool)
    seen[[20, -1]] = False
    both = np.concatenate([values, factors], axis=1)
    return jnp.asarray(both), jnp.asarray(np.concatenate([observed, seen], axis=1))


def test_an_asset_has_the_dense_joint_law(world):
    values, observed = map(np.asarray, world)
    columns = np.c_[np.ones(TIMES), values[:, 6]]
    dynamics = ExposureDynamics(
        centres=jnp.array([[0.0, 0.8], [0.1, 1.4]]),
        persistence=jnp.array([[0.5, 0.9], [1.0, 0.7]]),
        innovation_variances=jnp.array([[0.01, 0.02], [0.0, 0.03]]),
        initial_variances=jnp.array([0.1, 0.2]),
    )
    variances = jnp.linspace(0.3, 0.8, 6)
    added = np.zeros((TIMES, 6))
    added[20] = 0.4
    rows = ExposureRows(*map(jnp.asarray, (values[:, :6], observed[:, :6], columns, added)))
    paths = paths_of(rows, jnp.asarray(MEMBERS), dynamics, variances)
    for i in (1, 4):
        centre, phi, q = (np.asarray(field)[MEMBERS[i]] for field in dynamics[:3])
        law = dense_state_space(
            centre,
            np.diag(dynamics.initial_variances),
            every_time(np.diag(phi), TIMES),
            every_time((1 - phi) * centre, TIMES),
            every_time(np.diag(q), TIMES),
            columns[:, None, :],
            np.zeros((TIMES, 1)),
            (float(variances[i]) + added[:, i])[:, None, None],
        )
        given = law.states_given(values[:, i : i + 1], observed[:, i : i + 1])
        assert_allclose(paths.smoothed_means[i], given.mean, atol=1e-10)
        blocks = np.einsum("tatb->tab", given.cov)
        assert_allclose(paths.smoothed_covs[i], blocks, atol=1e-11)
        loglik = law.loglik(values[:, i : i + 1], observed[:, i : i + 1])
        assert float(paths.logliks[i]) == pytest.approx(loglik, rel=1e-11)


@jax.jit
def objective(parameters, rows):
    """The likelihood less the penalty of the variances, written by its definition (nu = 4)."""
    dynamics, variances = parameters
    paths = exposure_paths(rows, jnp.asarray(MEMBERS), dynamics, variances)
    penalty = 0.0
    for s in range(2):
        own = variances[MEMBERS == s]
        common = 1.0 / jnp.mean(1.0 / own)
        penalty = penalty + 0.5 * jnp.sum(common / own - 1.0 - jnp.log(common / own))
    return jnp.sum(paths.logliks) - 4.0 * penalty


estimated = eqx.filter_jit(lambda model, *world: model.estimate(*world))


@pytest.fixture(scope="module")
def fitted(world):
    model = VaryingExposureModel(
        MEMBERS, 2, 1, dynamics="mean reverting", rtol=1e-8, max_steps=3000
    )
    return estimated(model, *world)


def test_em_ends_where_the_likelihood_has_no_slope(world, fitted):
    assert bool(is_okay(fitted.result))
    rows = fitted.model.rows(*world, fitted.static)
    parameters = fitted.dynamics, fitted.variances
    slopes = jax.jit(jax.grad(objective))(parameters, rows)
    dynamics = slopes[0]
    assert_allclose(dynamics.centres, 0.0, atol=0.02)
    assert_allclose(slopes[1] * fitted.variances, 0.0, atol=1e-3)
    assert_allclose(dynamics.initial_variances * fitted.dynamics.initial_variances, 0.0, atol=5e-3)
    sizes = fitted.dynamics.innovation_variances
    assert_allclose(dynamics.innovation_variances * sizes, 0.0, atol=5e-3)
    moved = eqx.tree_at(lambda p: p[1], parameters, 1.3 * fitted.variances)
    assert float(objective(moved, rows)) < float(objective(parameters, rows)) - 0.5


def test_a_step_of_em_averages_moments_over_the_sector(world, fitted):
    """The M-step by loops over assets and dates, and a likelihood that does not fall."""
    rows = fitted.model.rows(*world, fitted.static)
    dynamics = ExposureDynamics(
        centres=fitted.static.law.sector_means,
        persistence=jnp.full((2, 2), 0.8),
        innovation_variances=jnp.full((2, 2), 0.02),
        initial_variances=jnp.array([0.05, 0.1]),
    )
    variances = fitted.static.variances
    paths = paths_of(rows, jnp.asarray(MEMBERS), dynamics, variances)
    found = jax.jit(updated_dynamics, static_argnums=4)(
        paths, rows.known, jnp.asarray(MEMBERS), dynamics, True
    )
    means, covs, crosses = map(
        np.asarray, (paths.smoothed_means, paths.smoothed_covs, paths.cross_covs)
    )
    for s in range(2):
        for a in range(2):
            centre, now, later, both, number = float(dynamics.centres[s, a]), 0.0, 0.0, 0.0, 0
            for i in np.flatnonzero(MEMBERS == s):
                last = np.flatnonzero(np.asarray(rows.known[:, i]))[-1]
                for t in range(last):
                    before, after = means[i, t, a] - centre, means[i, t + 1, a] - centre
                    now += before**2 + covs[i, t, a, a]
                    later += after**2 + covs[i, t + 1, a, a]
                    both += before * after + crosses[i, t, a, a]
                    number += 1
            phi = both / now
            assert float(found.persistence[s, a]) == pytest.approx(phi, rel=1e-10)
            left = (later - 2 * phi * both + phi**2 * now) / number
            assert float(found.innovation_variances[s, a]) == pytest.approx(left, rel=1e-9)
    start = (means[:, 0] - np.asarray(dynamics.centres)[MEMBERS]) ** 2
    start += np.diagonal(covs[:, 0], axis1=1, axis2=2)
    assert_allclose(found.initial_variances, start.mean(0), rtol=1e-10)
    assert float(objective((found, variances), rows)) > float(
        objective((dynamics, variances), rows)
    )


def test_errors_and_the_added_variance_are_told_apart():
    """E e^2 given e + c's part, by the regression of e on the sum."""
    values = jnp.array([[2.0]])
    rows = ExposureRows(values, jnp.array([[True]]), jnp.ones((1, 1)), jnp.array([[3.0]]))
    dynamics = ExposureDynamics(
        jnp.array([[0.5]]), jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.zeros(1)
    )
    paths = exposure_paths(rows, jnp.array([0]), dynamics, jnp.array([1.0]))
    found = error_squares(paths, rows, jnp.array([1.0]))
    assert float(found[0]) == pytest.approx((1.5 / 4) ** 2 + 3 / 4, rel=1e-12)


def test_moving_betas_are_followed(world, fitted):
    """Smoothed betas have a smaller error than constant ones; a new asset starts at its sector."""
    rng = np.random.default_rng(5)
    factors = rng.normal(0.1, 1.0, size=(TIMES, 1))
    centre = np.array([0.8, 1.4])[MEMBERS]
    betas = np.zeros((TIMES, 6))
    betas[0] = centre + 0.3 * rng.normal(size=6)
    for t in range(1, TIMES):
        betas[t] = centre + 0.9 * (betas[t - 1] - centre) + 0.15 * rng.normal(size=6)
    assert_allclose(factors[:, 0], world[0][:, 6])
    found = np.asarray(fitted.paths.smoothed_means[:, :, 1]).T
    constant = np.asarray(fitted.static.law.means[:, 1])
    assert np.mean((found - betas) ** 2) < 0.8 * np.mean((constant - betas) ** 2)
    spread = np.asarray(fitted.paths.smoothed_covs[:, 0, 1, 1])
    assert spread[4] > spread[[0, 2]].max()


def test_filtered_exposures_do_not_know_later_rows(world, fitted):
    values, observed = world

    @jax.jit
    def slope(values):
        def read(values):
            again = fitted.given(values, observed)
            return jnp.sum(again.paths.filtered_means[:, 50, 1])

        return jax.grad(read)(values)

    found = np.asarray(slope(jnp.where(observed, values, jnp.nan)))
    assert np.isfinite(found).all() and np.any(found[50, :6] != 0.0)
    assert np.all(found[51:] == 0.0) and np.all(found[~np.asarray(observed)] == 0.0)


def test_late_factors_by_either_name(world):
    values, observed = world
    drop = estimated(VaryingExposureModel(MEMBERS, 2, 1), *world)
    rows = drop.model.rows(*world, drop.static)
    assert np.all(np.asarray(rows.columns)[[20, -1]] == [[1.0, 0.0]] * 2)
    assert np.all(np.asarray(rows.added) == 0.0)
    model = VaryingExposureModel(MEMBERS, 2, 1, late_factors="integrate")
    rows = model.rows(*world, drop.static)
    means, spreads = completed_factors(values[:, 6:], observed[:, 6:])
    law = drop.static.law
    squares = np.asarray(law.means[:, 1] ** 2 + law.covs[:, 1, 1])
    assert_allclose(rows.added[20], spreads[20] * squares, rtol=1e-12)
    assert np.all(np.asarray(rows.added)[:20] == 0.0)
    assert_allclose(rows.columns[:, 1:], means)


def test_a_late_factor_stands_at_its_own_forecast():
    rng = np.random.default_rng(0)
    path = np.zeros(30)
    for t in range(1, 30):
        path[t] = 0.6 * path[t - 1] + rng.normal()
    seen = np.ones(30, bool)
    seen[[0, 10, 11, 29]] = False
    means, spreads = completed_factors(
        jnp.asarray(np.where(seen, path, np.nan))[:, None], jnp.asarray(seen)[:, None]
    )
    mean, variance = path[seen].mean(), path[seen].var()
    gap = path - mean
    pairs = seen[1:] & seen[:-1]
    root = np.sum((gap[1:] * gap[:-1])[pairs]) / np.sum(gap[:-1][pairs] ** 2)
    expected = {0: (mean, variance)}
    expected[10] = mean + root * gap[9], (1 - root**2) * variance
    expected[11] = mean + root**2 * gap[9], (1 - root**4) * variance
    expected[29] = mean + root * gap[28], (1 - root**2) * variance
    for t, (value, spread) in expected.items():
        assert float(means[t, 0]) == pytest.approx(value, rel=1e-12)
        assert float(spreads[t, 0]) == pytest.approx(spread, rel=1e-12)
    assert_allclose(means[seen, 0], path[seen]) and np.all(np.asarray(spreads)[seen] == 0.0)


def test_forecast_moments_by_hand(fitted):
    law = jax.jit(lambda f: f.forecast(3))(fitted)
    factors, dynamics = fitted.factors, fitted.dynamics
    row = np.array([1.0, float(factors.mean[0])])
    spread = np.zeros((2, 2))
    spread[1, 1] = float(factors.cov[0, 0])
    for i in (0, 3):
        centre, phi, q = (np.asarray(field)[MEMBERS[i]] for field in dynamics[:3])
        mean = np.asarray(fitted.paths.predicted_means[i, -1])
        cov = np.asarray(fitted.paths.predicted_covs[i, -1])
        means, covs = [mean], [cov]
        for _ in range(2):
            means.append(centre + phi * (means[-1] - centre))
            covs.append(np.diag(phi) @ covs[-1] @ np.diag(phi) + np.diag(q))
        for h in range(3):
            assert float(law.mean[h, i]) == pytest.approx(row @ means[h], rel=1e-9)
            for k in range(h + 1):
                cross = np.diag(phi ** (h - k)) @ covs[k]
                expected = row @ cross @ row
                if h == k:
                    expected += means[h] @ spread @ means[h] + np.trace(covs[h] @ spread)
                    expected += float(fitted.variances[i])
                assert float(law.cov[h, i, k, i]) == pytest.approx(expected, rel=1e-9)
                assert float(law.cov[k, i, h, i]) == pytest.approx(expected, rel=1e-9)
    between = law.cov[1, 0, 1, 3] / spread[1, 1]
    betas = (np.asarray(law.design[1, [0, 3]])[:, 1]).prod()
    assert float(between) == pytest.approx(betas, rel=1e-9)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**13])
def test_units(world, scale):
    """Powers of two round nothing: what leaps of EM would enlarge."""
    values, observed = world
    units = jnp.asarray([scale] * 6 + [8.0])
    model = VaryingExposureModel(MEMBERS, 2, 1)
    plain, other = estimated(model, values, observed), estimated(model, values * units, observed)
    ahead, expected = other.forecast(2), plain.forecast(2)
    assert_allclose(ahead.mean, scale * expected.mean, rtol=1e-7, atol=1e-9 * scale)
    assert_allclose(ahead.std, scale * expected.std, rtol=1e-8)
    assert int(other.num_steps) == int(plain.num_steps)


def panel_of(world):
    values, observed = map(np.asarray, world)
    names = [*(f"a{i}" for i in range(6)), "mkt"]
    index = pd.bdate_range("2020-01-01", periods=TIMES)
    return jaxfc.Panel.from_frame(pd.DataFrame(np.where(observed, values, np.nan), index, names))


def test_fits_a_panel_and_simulates(world):
    fitted = VaryingExposureModel(MEMBERS, 2, 1).fit(panel_of(world))
    path = fitted.simulate(50, key=jax.random.key(0))
    assert path.shape == (50, 6) and np.isfinite(path).all()
    assert fitted.forecast(2).mean.shape == (2, 6)
    with pytest.raises(ValueError, match="takes no key"):
        fitted.forecast(1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="5 entries for 6 assets"):
        VaryingExposureModel(MEMBERS[1:], 2, 1).fit(panel_of(world))
    with pytest.raises(ValueError, match="late_factors must be one of"):
        VaryingExposureModel(MEMBERS, 2, 1, late_factors="skip")
    with pytest.raises(ValueError, match="dynamics must be one of"):
        VaryingExposureModel(MEMBERS, 2, 1, dynamics="walk")


def test_lowers_for_cuda(world):
    model = VaryingExposureModel(MEMBERS, 2, 1, late_factors="integrate")

    @jax.jit
    def ahead(values, observed):
        return model.estimate(values, observed).forecast(2).std

    exported = jax.export.export(ahead, platforms=["cuda"])(*world)
    assert exported.platforms == ("cuda",)
