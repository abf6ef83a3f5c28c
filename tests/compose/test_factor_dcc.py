"""Covariances from factors: a simulated world, dense formulas in numpy, drawn paths, holes."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.compose.factor_dcc import FactorDCC
from jaxfc.compose.factor_forecast import FactorVolatilityForecast
from jaxfc.compose.surprises import gaussian_densities, read_surprises
from jaxfc.results import is_okay
from jaxfc.volatility import (
    CorrelationModel,
    FittedVarianceModel,
    VarianceModel,
    Varma,
    VolatilityForecast,
    ZeroMean,
    joint_moments,
)

NUM_SERIES, NUM_TIMES, HORIZON = 12, 600, 3
MODEL = FactorDCC(jaxfc.DynamicFactorModel(2, 2))
READ = jax.jit(read_surprises)


def panel_of(values):
    index = pd.bdate_range("2001-01-01", periods=len(values))
    names = [f"r{i}" for i in range(values.shape[1])]
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, names))


def simulated(seed=0, num_times=NUM_TIMES, a=0.05, b=0.9):
    """Returns of a factor-GARCH world, H of every row and the next, loadings."""
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.5, 1.5, (NUM_SERIES, 2))
    loadings[NUM_SERIES // 2 :, 1] *= -1
    level = rng.uniform(0.5, 1.5, NUM_SERIES)
    quasi, product, factor_vars, own_vars = np.eye(2), np.eye(2), np.ones(2), np.ones(NUM_SERIES)
    last, before, rows, covs = np.zeros(2), np.zeros(2), [], []
    for _ in range(300 + num_times + 1):
        quasi = (1 - a - b) * np.eye(2) + a * product + b * quasi
        corr = quasi / np.sqrt(np.outer(np.diag(quasi), np.diag(quasi)))
        cov = corr * np.sqrt(np.outer(factor_vars, factor_vars))
        covs.append(loadings @ cov @ loadings.T + np.diag(level * own_vars))
        units = np.linalg.cholesky(corr) @ rng.normal(size=2)
        shocks = np.sqrt(factor_vars) * units
        last, before = 0.3 * last + 0.1 * before + shocks, last
        errors = np.sqrt(own_vars) * rng.normal(size=NUM_SERIES)
        rows.append(0.1 + loadings @ last + np.sqrt(level) * errors)
        product = np.outer(units, units)
        factor_vars = 0.05 + 0.12 * shocks**2 + 0.83 * factor_vars
        own_vars = 0.1 + 0.1 * errors**2 + 0.8 * own_vars
    return np.asarray(rows[300:-1]), np.asarray(covs[300:]), loadings


@pytest.fixture(scope="module")
def world():
    return simulated()


@pytest.fixture(scope="module")
def fitted(world):
    return MODEL.fit(panel_of(world[0]))


@pytest.fixture(scope="module")
def ahead(fitted):
    return jax.jit(lambda fitted: fitted.forecast(HORIZON))(fitted)


def dense_covs(fitted):
    """L H^f L' + diag(s) of every row and the next."""
    loadings = np.asarray(fitted.loadings)
    common = loadings @ np.asarray(fitted.factor_covs) @ loadings.T
    return common + np.asarray(fitted.variances)[:, :, None] * np.eye(len(loadings))


@pytest.mark.slow
def test_covariances_are_near_the_truth(fitted, world):
    """600 rows leave GARCH parameters with errors of some hundredths and factors of 12 series with
    an error of 4% of their variance; the path of H is followed closely all the same."""
    _, truth, loadings = world
    found = dense_covs(fitted)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.97
    over_time = [
        np.corrcoef(found[:, i, j], truth[:, i, j])[0, 1] for i in range(12) for j in range(i + 1)
    ]
    assert np.median(over_time) > 0.9
    # In the mean the level is that of the world, not that of filtered factors and residuals alone.
    ratio = np.einsum("tii->i", found) / np.einsum("tii->i", truth)
    np.testing.assert_allclose(ratio, 1.0, atol=0.1)
    # Columns of the true loadings lie in the span of those that were found.
    basis = np.linalg.qr(np.asarray(fitted.loadings))[0]
    kept = np.linalg.norm(basis.T @ loadings) / np.linalg.norm(loadings)
    assert kept > 0.995
    # Moving covariances explain the data better than constant ones.
    assert float(fitted.loglik) > float(fitted.factors.loglik) + 50


def numpy_surprises(fitted, values, observed):
    """A plain Kalman filter with the companion form, row by row; and the brought-up shocks."""
    parameters = fitted.factors.parameters
    first, second = np.asarray(parameters.transition)
    step = np.block([[first, second], [np.eye(2), np.zeros((2, 2))]])
    noise = np.zeros((4, 4))
    noise[:2, :2] = innovation_cov = np.asarray(parameters.innovation_cov)
    loadings, level = np.asarray(fitted.loadings), np.asarray(fitted.level)
    own = np.asarray(fitted.factors.scaling.scale**2 * parameters.variances)
    all_seen = loadings @ innovation_cov @ loadings.T + np.diag(own)
    least = innovation_cov @ loadings.T @ np.linalg.solve(all_seen, loadings @ innovation_cov)
    least = 0.5 * np.diag(least) / np.diag(innovation_cov)
    mean = np.zeros(4)
    cov = np.linalg.solve(np.eye(16) - np.kron(step, step), noise.ravel()).reshape(4, 4)
    rows = []
    for row, seen in zip(values, observed, strict=True):
        design = np.hstack([loadings, np.zeros_like(loadings)])[seen]
        errors = row[seen] - level[seen] - design @ mean
        total = design @ cov @ design.T + np.diag(own[seen])
        gain = np.linalg.solve(total, design @ cov).T
        later, later_cov = mean + gain @ errors, cov - gain @ design @ cov
        gained, prior = np.diag(cov - later_cov)[:2], np.diag(cov)[:2]
        known = gained >= least * prior
        scale = np.sqrt(np.diag(innovation_cov) / np.where(known, gained, 1.0))
        moved = np.where(known, (later - mean)[:2] * scale, 0.0)
        left = np.einsum("ia,ab,ib->i", loadings, later_cov[:2, :2], loadings)
        residuals = row - level - loadings @ later[:2]
        residuals = np.where(seen, residuals / np.sqrt(np.maximum(1 - left / own, 0.5)), 0.0)
        whole = np.zeros(len(row))
        whole[seen] = errors
        rows.append((moved, known, residuals, whole, cov[:2, :2] - innovation_cov))
        mean, cov = step @ later, step @ later_cov @ step.T + noise
    return [np.asarray(column) for column in zip(*rows, strict=True)], later, later_cov


@pytest.fixture(scope="module")
def holes(world):
    """Listed later, single cells, whole rows, and a row with one series."""
    values, rng = world[0].copy(), np.random.default_rng(3)
    values[:200, 0] = np.nan
    values[rng.random(values.shape) < 0.05] = np.nan
    values[[50, 51, 300]] = np.nan
    values[400, 1:] = np.nan
    return values


def test_surprises_are_those_of_a_plain_filter(fitted, holes):
    observed = ~np.isnan(holes)
    filled = jnp.asarray(np.nan_to_num(holes))
    found = READ(fitted.factors, filled, jnp.asarray(observed))
    rows, last, last_cov = numpy_surprises(fitted, np.nan_to_num(holes), observed)
    fields = "innovations known errors prediction_errors uncertainty".split()
    for name, row in zip(fields, rows, strict=True):
        np.testing.assert_allclose(getattr(found, name), row, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(np.asarray(found.last_factors)[::-1].ravel(), last, atol=1e-9)
    np.testing.assert_allclose(found.last_cov, last_cov, atol=1e-9)
    known = np.asarray(found.known)
    assert not known[[50, 51, 300]].any() and not known[400].all() and known.mean() > 0.98
    # In the mean they have the variances that the factor model gives them.
    both = np.asarray(found.innovations), np.asarray(found.errors)
    assert np.allclose(both[0].var(0), np.diag(fitted.factors.parameters.innovation_cov), rtol=0.1)


def test_no_row_sees_a_later_one(fitted, world):
    values, observed = jnp.asarray(world[0]), jnp.ones(world[0].shape, bool)
    whole = READ(fitted.factors, values, observed)
    later = observed.at[500:, ::2].set(False)
    changed = READ(fitted.factors, values.at[500:].multiply(-3.0), later)
    for name in ("innovations", "errors", "prediction_errors"):
        np.testing.assert_array_equal(getattr(whole, name)[:500], getattr(changed, name)[:500])


def test_densities_are_those_of_dense_matrices(fitted, holes):
    rng = np.random.default_rng(0)
    observed, loadings = ~np.isnan(holes[:60]), np.asarray(fitted.loadings)
    errors = np.where(observed, rng.normal(size=observed.shape), 0.0)
    roots = rng.normal(size=(60, 2, 2))
    factor_covs = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(2)
    own = rng.uniform(0.5, 2.0, observed.shape)
    arrays = map(jnp.asarray, (errors, observed, loadings, factor_covs, own))
    found = jax.jit(gaussian_densities)(*arrays)
    for t, seen in enumerate(observed):
        cov = (loadings @ factor_covs[t] @ loadings.T + np.diag(own[t]))[np.ix_(seen, seen)]
        value = errors[t, seen]
        log_det = np.linalg.slogdet(2 * np.pi * cov)[1]
        square = value @ np.linalg.solve(cov, value) if seen.any() else 0.0
        np.testing.assert_allclose(found[t], -0.5 * (log_det + square), atol=1e-10)


def test_the_likelihood_is_that_of_the_covariances(fitted, world):
    loadings = np.asarray(fitted.loadings)
    uncertain = loadings @ np.asarray(fitted.surprises.uncertainty) @ loadings.T
    total = 0.0
    errors = np.asarray(fitted.surprises.prediction_errors)
    for error, cov in zip(errors, dense_covs(fitted)[:-1] + uncertain, strict=True):
        total -= 0.5 * (np.linalg.slogdet(2 * np.pi * cov)[1] + error @ np.linalg.solve(cov, error))
    assert float(fitted.loglik) == pytest.approx(total, rel=1e-12)


def test_the_next_covariance_is_the_dense_formula(fitted, ahead):
    """L (H^f + A P A') L' + diag(s), the last factors not being known exactly."""
    transition = np.concatenate(list(np.asarray(fitted.factors.parameters.transition)), axis=1)
    loadings = np.asarray(fitted.loadings)
    uncertain = transition @ np.asarray(fitted.surprises.last_cov) @ transition.T
    cov = dense_covs(fitted)[-1] + loadings @ uncertain @ loadings.T
    assert np.abs(uncertain).max() < 0.05 * np.abs(np.asarray(fitted.factor_covs[-1])).max()
    np.testing.assert_allclose(ahead.horizon_cov[0], cov, rtol=1e-10)
    np.testing.assert_allclose(ahead.cov[0, :, 0], cov, rtol=1e-10)
    np.testing.assert_allclose(ahead.std[0] ** 2, np.diag(cov), rtol=1e-10)
    last = np.concatenate(np.asarray(fitted.surprises.last_factors)[::-1])
    mean = np.asarray(fitted.level) + loadings @ (transition @ last)
    np.testing.assert_allclose(ahead.mean[0], mean, rtol=1e-10)


def dense_forecast(fitted, ahead):
    """The same law by innovations of all series at once, without the error of the last factors."""
    loadings, num_factors = fitted.loadings, 2
    factors = ahead.factors.innovation_covs[:, :num_factors, :num_factors]
    transition = fitted.factors.parameters.transition
    varma = Varma(jnp.zeros(2), transition, jnp.zeros((0, 2, 2)))
    common = jnp.einsum("ia,hakb,jb->hikj", loadings, joint_moments(varma, factors), loadings)
    own = VolatilityForecast(ahead.own.mean, ahead.own.innovation_covs)
    return np.asarray(common + own.cov)


def test_sums_are_those_of_the_dense_law(fitted, ahead):
    certain = dataclasses.replace(fitted.surprises, last_cov=jnp.zeros((4, 4)))
    sure = dataclasses.replace(fitted, surprises=certain).forecast(HORIZON)
    assert isinstance(sure, FactorVolatilityForecast)
    cov = dense_forecast(fitted, ahead)
    np.testing.assert_allclose(sure.cov, cov, atol=1e-10)
    total = sure.cumulative()
    np.testing.assert_allclose(total.horizon_cov[-1], cov.sum(axis=(0, 2)), rtol=1e-10)
    # The error of the last factors goes on as the VAR says: F^k P F^k' in every step.
    transition = np.asarray(fitted.factors.parameters.transition)
    step = np.block([[transition[0], transition[1]], [np.eye(2), np.zeros((2, 2))]])
    loadings = np.asarray(fitted.loadings)
    rest = np.asarray(ahead.cov) - cov
    powers = [np.linalg.matrix_power(step, k)[:2] for k in range(1, HORIZON + 1)]
    for i, left in enumerate(powers):
        for j, right in enumerate(powers):
            expected = left @ np.asarray(fitted.surprises.last_cov) @ right.T
            np.testing.assert_allclose(rest[i, :, j], loadings @ expected @ loadings.T, atol=1e-10)
    # Portfolios and units stay in the class.
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, NUM_SERIES)))
    scale, shift = jnp.full(2, 0.1), jnp.ones((HORIZON, 2))
    both = ahead.aggregate(weights).affine(scale, shift).cumulative()
    sums = np.cumsum(np.cumsum(np.asarray(ahead.cov), axis=0), axis=2)
    expected = 0.01 * np.einsum("ai,hikj,bj->hakb", weights, sums, weights)
    np.testing.assert_allclose(both.cov, expected, atol=1e-10)
    np.testing.assert_allclose(both.std**2, np.einsum("haha->ha", expected), rtol=1e-10)
    mean = np.cumsum(0.1 * np.asarray(ahead.mean @ weights.T) + 1.0, axis=0)
    np.testing.assert_allclose(both.mean, mean, rtol=1e-10)


def worst_z(draws, mean, cov):
    """Largest error of drawn means and second moments in standard errors."""
    centred = draws - mean
    products = np.einsum("di,dj->dij", centred, centred)
    count = np.sqrt(len(draws))
    errors = np.abs(products.mean(0) - cov) / (products.std(0) / count)
    means = np.abs(centred.mean(0)) / (centred.std(0) / count)
    return max(errors.max(), means.max())


def test_drawn_paths_have_the_moments(fitted, ahead):
    """Sums of three rows; 90 moments, of which one lies beyond 4.5 by chance in 1600 tries."""
    total = ahead.cumulative()
    mean, cov = np.asarray(total.mean[-1]), np.asarray(total.horizon_cov[-1])
    draw = jax.jit(lambda f: f.forecast(HORIZON, key=jax.random.key(0), num_draws=20_000))
    drawn = draw(fitted).cumulative()
    assert worst_z(np.asarray(drawn.draws)[:, -1], mean, cov) < 4.5
    normal = total.sample(20_000, key=jax.random.key(1))
    assert worst_z(np.asarray(normal)[:, -1], mean, cov) < 4.5
    low, high = ahead.quantile(jnp.asarray([0.05, 0.95]))
    np.testing.assert_allclose(high - low, 2 * 1.6448536269514722 * ahead.std, rtol=1e-10)


def test_long_paths_have_the_long_run_variance(fitted):
    simulate = jax.jit(lambda fitted: fitted.simulate(20_000, key=jax.random.key(0)))
    path = np.asarray(simulate(fitted))
    far = jax.jit(lambda fitted: fitted.forecast(1500))(fitted)
    blocks = ((path - np.asarray(fitted.level)) ** 2).reshape(40, 500, -1).mean(1)
    error = (blocks.mean(0) - far.std[-1] ** 2) / (blocks.std(0, ddof=1) / np.sqrt(40))
    assert np.abs(error).max() < 4.5


def test_holes_are_estimated_without_dropping_dates(holes, world):
    # Of one series alpha goes to its bound, which the search approaches until its steps end.
    fitted = MODEL.fit(panel_of(holes), throw=False)
    assert bool(is_okay(fitted.factors.result)) and bool(is_okay(fitted.common.result))
    assert np.sum(np.asarray(is_okay(fitted.own.results))) >= NUM_SERIES - 1
    assert not bool(is_okay(fitted.result)) or bool(np.all(is_okay(fitted.own.results)))
    found, truth = dense_covs(fitted), world[1]
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.96
    assert np.isfinite(float(fitted.loglik))


def test_gradient_of_a_portfolio(fitted, world):
    """d (variance of an equally weighted portfolio ahead) / d (a return), parameters held fixed."""
    weights = jnp.full((1, NUM_SERIES), 1 / NUM_SERIES)
    observed = jnp.ones((NUM_TIMES, NUM_SERIES), bool).at[-1, 3].set(False)

    @jax.jit
    def variance(values):
        ahead = fitted.given(values, observed).forecast(2).cumulative()
        return ahead.aggregate(weights).std[-1, 0] ** 2

    values = jnp.asarray(world[0])
    slope = jax.jit(jax.grad(variance))(values)
    for row, series in ((590, 1), (599, 7)):
        step = jnp.zeros_like(values).at[row, series].set(1e-5)
        difference = float(variance(values + step) - variance(values - step)) / 2e-5
        assert float(slope[row, series]) == pytest.approx(difference, rel=1e-5, abs=1e-9)
    assert float(slope[-1, 3]) == 0.0  # not observed


def test_one_factor_has_a_variance_of_its_own(world):
    margins = VarianceModel(mean=ZeroMean(), targeting=True)
    model = FactorDCC(
        jaxfc.DynamicFactorModel(1, 0, method=jaxfc.PPCA()),
        CorrelationModel(margins=margins),
        idiosyncratic=margins,
    )
    fitted = model.fit(panel_of(world[0][:300, :4]))
    assert isinstance(fitted.common, FittedVarianceModel) and np.isfinite(float(fitted.loglik))
    key = jax.random.key(0)

    @jax.jit
    def verbs(fitted):
        draws = fitted.forecast(2, key=key, num_draws=5).draws
        return fitted.forecast(2).horizon_cov, draws, fitted.simulate(10, key=key)

    covs, draws, path = verbs(fitted)
    np.testing.assert_allclose(covs[0], dense_covs(fitted)[-1], rtol=1e-10)
    assert draws.shape == (5, 2, 4) and path.shape == (10, 4)


def test_estimation_lowers_for_cuda(world):
    def estimate(values):
        fitted = MODEL.estimate(values, jnp.ones(values.shape, bool))
        return fitted.forecast(2).horizon_cov

    values = jnp.asarray(world[0][:100])
    exported = jax.export.export(jax.jit(estimate), platforms=["cuda"])(values)
    assert exported.platforms == ("cuda",)


def test_bad_input_is_named(world):
    values = world[0][:100]
    with pytest.raises(ValueError, match="mean=AutoregressiveMean"):
        FactorDCC(jaxfc.DynamicFactorModel(1, 1, errors=jaxfc.AutoregressiveErrors(longest_gap=3)))
    with pytest.raises(ValueError, match="correlates the errors of the series"):
        FactorDCC(jaxfc.DynamicFactorModel(1, 1, idiosyncratic="full"))
    with pytest.raises(ValueError, match="the mean of the factors is that of the factor model"):
        FactorDCC(jaxfc.DynamicFactorModel(1, 1), CorrelationModel())
    with pytest.raises(ValueError, match="observations for 3 parameters"):
        MODEL.fit(panel_of(values[:20]))
    constant = values.copy()
    constant[:, 2] = 1.0
    with pytest.raises(ValueError, match="series 'r2' is constant"):
        MODEL.fit(panel_of(constant))
    with pytest.raises(ValueError, match="num_factors"):
        MODEL.fit(panel_of(values[:, :2]))
