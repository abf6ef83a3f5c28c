"""Vector means before covariances: regressions, likelihoods, recursions by hand, holes, units."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import jaxfc
from jaxfc.model import jitted_estimate
from jaxfc.results import RESULTS, SUCCESSFUL, is_okay
from jaxfc.volatility import (
    GARCH,
    ConstantCorrelation,
    CorrelationModel,
    RiskMetrics,
    VarianceModel,
    ZeroMean,
    cumulative_moments,
    mean_path,
)
from jaxfc.volatility.mean_first import MeanFirst, mean_cov, mean_standard_errors
from jaxfc.volatility.simulate import BURN_IN
from jaxfc.volatility.vector_mean import VectorMean
from jaxfc.volatility.vector_regression import is_stable, row_losses

pytestmark = pytest.mark.slow

NUM_TIMES, NUM_SERIES, HORIZON = 300, 2, 4
ARCH = VarianceModel(GARCH(1, 0), mean=ZeroMean())
FIXED = VarianceModel(RiskMetrics(), mean=ZeroMean())  # nothing to search for
VARX = MeanFirst(VectorMean(1, num_exogenous=1), covariances=ARCH)
AR = np.array([[0.4, -0.2], [0.25, 0.1]])
MA = np.array([[0.3, 0.2], [-0.3, 0.35]])
INTERCEPT, EXOGENOUS = np.array([0.2, -0.1]), np.array([0.5, -0.3])


def panel_of(values, observed=None, names=("a", "b", "x")):
    index = pd.bdate_range("2000-01-03", periods=len(values))
    frame = pd.DataFrame(values, index, list(names[: values.shape[1]]))
    return jaxfc.Panel.from_frame(frame if observed is None else frame.where(observed))


def arrays(values, observed=None):
    observed = np.ones(values.shape, bool) if observed is None else observed
    return jnp.asarray(values), jnp.asarray(observed)


@pytest.fixture(scope="module")
def data():
    """A VAR(1) with one exogenous series and ARCH innovations that are correlated."""
    rng = np.random.default_rng(0)
    x = 3.0 + np.convolve(rng.normal(size=NUM_TIMES + 20), 0.6 ** np.arange(21), "valid")
    chol, value, residual, rows = np.array([[1.0, 0.0], [0.5, 0.8]]), np.zeros(2), np.zeros(2), []
    for t in range(NUM_TIMES):
        given = EXOGENOUS * x[t - 1] if t else 0.0
        residual = np.sqrt(0.7 + 0.3 * residual**2) * (chol @ rng.normal(size=2))
        value = INTERCEPT + AR @ value + given + residual
        rows.append(value)
    return np.column_stack([rows, x])


@pytest.fixture(scope="module")
def holes(data):
    """A tenth of the cells missing, and the last rows of one series and of x."""
    observed = np.random.default_rng(1).random(data.shape) > 0.1
    observed[-2:, 0] = observed[-1, 2] = False
    return observed


@pytest.fixture(scope="module")
def fitted(data):
    return VARX.fit(panel_of(data))


@pytest.fixture(scope="module")
def fitted_with_holes(data, holes):
    return VARX.fit(panel_of(data, holes))


@pytest.fixture(scope="module")
def moving():
    """A VARMA(1, 1) with normal innovations."""
    rng = np.random.default_rng(2)
    chol, value, residual, rows = np.array([[1.0, 0.0], [0.5, 0.8]]), np.zeros(2), np.zeros(2), []
    for _ in range(800):
        shock = chol @ rng.normal(size=2)
        value = INTERCEPT + AR @ value + shock + MA @ residual
        residual = shock
        rows.append(value)
    return np.asarray(rows[-600:])


@pytest.fixture(scope="module")
def varma(moving):
    return MeanFirst(VectorMean(1, 1), covariances=FIXED).fit(panel_of(moving))


def residuals_by_hand(coefficients, values, observed, num_ar, num_ma, num_exogenous=0):
    """The equation row by row; an e that cannot be known is zero."""
    size = values.shape[1] - num_exogenous
    residuals, known = np.zeros((len(values), size)), np.zeros((len(values), size), bool)
    for t in range(len(values)):
        past = range(t - num_ar, t)
        complete = t >= num_ar and all(observed[s, :size].all() for s in past)
        if num_exogenous:
            complete = complete and t >= 1 and observed[t - 1, size:].all()
        if not complete:
            continue
        columns = [np.ones(1), *(values[t - lag, :size] for lag in range(1, num_ar + 1))]
        columns.append(values[t - 1, size:])
        for lag in range(1, num_ma + 1):
            columns.append(residuals[t - lag] if t >= lag else np.zeros(size))
        regressors = np.concatenate(columns)
        known[t] = observed[t, :size]
        residuals[t] = np.where(known[t], values[t, :size] - coefficients @ regressors, 0.0)
    return residuals, known


def concentrated(coefficients, values, num_ar):
    """ln det of the residual covariance after the first rows, over two."""
    observed = np.ones(values.shape, bool)
    residuals = residuals_by_hand(coefficients, values, observed, num_ar, 1)[0][num_ar:]
    return 0.5 * np.linalg.slogdet(residuals.T @ residuals / len(residuals))[1]


def test_a_var_is_that_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    values = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + 0.01 * np.array([1, 5, -3])
    values[1:] += 0.3 * values[:-1, ::-1]
    names = ("a", "b", "c")
    model = MeanFirst(VectorMean(2), covariances=FIXED)
    fitted = model.fit(panel_of(values, names=names), throw=False)
    expected = api.tsa.VAR(values).fit(2, trend="c")
    np.testing.assert_allclose(fitted.parameters.coefficients, expected.params.T, rtol=1e-10)
    np.testing.assert_allclose(fitted.residuals[2:], expected.resid, atol=1e-12)
    assert not np.asarray(fitted.known)[:2].any()
    frame = fitted.to_frame(names)
    assert list(frame.columns) == ["constant", *(f"{n}[{lag}]" for lag in (1, 2) for n in names)]

    regressors = api.add_constant(np.hstack([values[1:-1], values[:-2]]))
    errors = mean_standard_errors(fitted)
    for equation in range(3):
        robust = api.OLS(values[2:, equation], regressors).fit(cov_type="HC0")
        np.testing.assert_allclose(errors[equation], robust.bse, rtol=1e-9)
    cov, influence = np.asarray(mean_cov(fitted)), np.linalg.pinv(regressors).T
    scores = influence[:, None, :] * np.asarray(fitted.residuals)[2:, :, None]
    np.testing.assert_allclose(cov, np.einsum("tik,tjl->ikjl", scores, scores), rtol=1e-7)


def test_equations_are_estimated_over_their_own_rows(data, holes, fitted_with_holes):
    fitted = fitted_with_holes
    coefficients = np.asarray(fitted.parameters.coefficients)
    residuals, known = residuals_by_hand(coefficients, data, holes, 1, 0, 1)
    np.testing.assert_array_equal(fitted.known, known)
    np.testing.assert_allclose(fitted.residuals, residuals, atol=1e-12)
    counts = known.sum(axis=0)
    assert counts[0] != counts[1] and known.any(axis=1).sum() > counts.max()
    lags = np.column_stack([np.ones(len(data) - 1), data[:-1]])
    for equation in range(NUM_SERIES):
        rows = known[1:, equation]
        expected = np.linalg.lstsq(lags[rows], data[1:][rows, equation])[0]
        np.testing.assert_allclose(coefficients[equation], expected, rtol=1e-10)
    assert fitted.loglik == fitted.covariances.loglik
    again = ARCH.estimate(jnp.asarray(residuals), jnp.asarray(known))
    np.testing.assert_allclose(again.loglik, fitted.loglik, rtol=1e-10)


def test_the_exogenous_series_is_found(fitted):
    """Within 4.5 of their robust standard errors, which are small beside the coefficients."""
    truth = np.column_stack([INTERCEPT, AR, EXOGENOUS])
    errors = np.asarray(mean_standard_errors(fitted))
    assert np.abs((fitted.parameters.coefficients - truth) / errors).max() < 4.5
    assert (np.abs(EXOGENOUS) / errors[:, 3]).min() > 4.5


def test_a_moving_average_is_at_the_maximum_of_its_likelihood(moving, varma):
    """The determinant of the residual covariance of a plain loop, minimised by scipy."""
    assert bool(is_okay(varma.result))
    coefficients = np.asarray(varma.parameters.coefficients)
    np.testing.assert_allclose(
        varma.residuals,
        residuals_by_hand(coefficients, moving, np.ones(moving.shape, bool), 1, 1)[0],
        atol=1e-10,
    )
    shape = coefficients.shape

    def objective(vector):
        return concentrated(vector.reshape(shape), moving, 1)

    start = np.concatenate(
        [
            np.linalg.lstsq(np.column_stack([np.ones(len(moving) - 1), moving[:-1]]), moving[1:])[
                0
            ].T,
            np.zeros((2, 2)),
        ],
        axis=1,
    )
    best = scipy.optimize.minimize(objective, start.ravel(), method="BFGS", options={"gtol": 1e-7})
    assert objective(coefficients.ravel()) <= best.fun + 1e-10
    np.testing.assert_allclose(coefficients.ravel(), best.x, atol=2e-5)


def test_a_moving_average_is_recovered(varma):
    truth = np.column_stack([INTERCEPT, AR, MA])
    errors = np.asarray(mean_standard_errors(varma))
    assert np.abs((varma.parameters.coefficients - truth) / errors).max() < 4.5
    assert errors.max() < 0.15


def test_a_moving_average_with_holes_counts_what_is_known(moving, varma):
    """Residuals and the loss of every row by hand; a hidden value is never read."""
    observed = np.random.default_rng(4).random(moving.shape) > 0.1
    values, seen = arrays(np.where(observed, moving, np.nan), observed)
    how = varma.model.mean
    coefficients = np.asarray(varma.parameters.coefficients)
    residuals, known = residuals_by_hand(coefficients, moving, observed, 1, 1)
    found = how.residuals(varma.parameters, values, seen)
    np.testing.assert_allclose(found, residuals, atol=1e-10)
    np.testing.assert_array_equal(how.known(seen), known)
    counts = known.T.astype(float) @ known
    cov, expected = residuals.T @ residuals / counts, []
    for row, there in zip(residuals, known, strict=True):
        block, row = cov[np.ix_(there, there)], row[there]
        square = row @ np.linalg.solve(block, row) if there.any() else 0.0
        expected.append(0.5 * (np.linalg.slogdet(block)[1] + square if there.any() else 0.0))
    losses = row_losses(jnp.asarray(coefficients.ravel()), how.rows(values, seen))
    np.testing.assert_allclose(losses, expected, atol=1e-9)
    estimate = eqx.filter_jit(how.estimate)(values, seen)
    assert bool(is_okay(estimate.result))
    # Half of the rows have a hole in themselves or before: errors are those of half the sample.
    errors = np.asarray(mean_standard_errors(varma))
    moved = np.asarray(estimate.parameters.coefficients) - coefficients
    assert np.abs(moved / errors).max() < 4.5


def path_by_hand(parameters, values, residuals, given):
    """Means of the rows ahead; `given` are x of the last row and of those ahead."""
    values, residuals, varma = list(values), list(residuals), parameters.varma
    for x in given:
        value = varma.intercept + parameters.exogenous @ x
        for lag, matrix in enumerate(varma.ar, start=1):
            value = value + matrix @ values[-lag]
        for lag, matrix in enumerate(varma.ma, start=1):
            value = value + matrix @ residuals[-lag]
        values.append(value)
        residuals.append(np.zeros_like(value))
    return np.asarray(values)[-len(given) :]


@eqx.filter_jit
def ahead(fitted, horizon, exogenous=None):
    law = fitted.forecast(horizon, exogenous=exogenous)
    return law, law.cumulative().horizon_cov, fitted.covariances.forecast(horizon).innovation_covs


def test_forecasts_are_the_recursion(data, fitted, moving, varma):
    law, sums, covs = ahead(varma, HORIZON)
    nothing = np.zeros((HORIZON, 0))
    expected = path_by_hand(varma.parameters, moving, varma.residuals, nothing)
    np.testing.assert_allclose(law.mean, expected, atol=1e-12)
    np.testing.assert_allclose(
        sums, cumulative_moments(varma.parameters.varma, covs).sum_covs, rtol=1e-12
    )
    level = np.broadcast_to(fitted.parameters.exogenous_mean, (HORIZON - 1, 1))
    np.testing.assert_allclose(level[0], data[:, 2].mean(), rtol=1e-12)
    told = np.array([[1.0], [-2.0], [4.0]])
    for given, later in ((None, level), (jnp.asarray(told), told)):
        path = np.concatenate([data[-1:, 2:], later])
        expected = path_by_hand(fitted.parameters, data[:, :2], fitted.residuals, path)
        np.testing.assert_allclose(ahead(fitted, HORIZON, given)[0].mean, expected, atol=1e-12)


def test_draws_have_the_moments(varma):
    """Variances ahead are exact; z by the spread of the draws and of their products."""
    law = ahead(varma, HORIZON)[0]
    many = eqx.filter_jit(lambda fitted, key: fitted.forecast(HORIZON, key=key, num_draws=20_000))
    draws = np.asarray(many(varma, jax.random.key(0)).draws)
    centred = (draws - np.asarray(law.mean)).reshape(len(draws), -1)
    root = np.sqrt(len(draws))
    assert np.abs(centred.mean(axis=0) / centred.std(axis=0) * root).max() < 4.5
    products = centred[:, :, None] * centred[:, None, :]
    cov = np.asarray(law.cov).reshape(centred.shape[1], -1)
    errors = (products.mean(axis=0) - cov) / products.std(axis=0) * root
    assert np.abs(errors).max() < 4.5
    # Without the responses of the mean the covariances would be far off.
    plain = np.einsum("hij,hk->hikj", law.innovation_covs, np.eye(HORIZON)).reshape(cov.shape)
    assert np.abs((products.mean(axis=0) - plain) / products.std(axis=0) * root).max() > 20.0


def test_a_simulated_path_is_the_recursion_of_simulated_innovations(varma):
    key, number = jax.random.key(1), 40
    path = np.asarray(varma.simulate(number, key=key))
    innovations = np.asarray(varma.covariances.simulate(BURN_IN + number, key=key))
    value, residual, rows = np.asarray(varma.parameters.long_run), np.zeros(2), []
    mean = varma.parameters.varma
    for shock in innovations:
        value = mean.intercept + mean.ar[0] @ value + mean.ma[0] @ residual + shock
        residual = shock
        rows.append(value)
    np.testing.assert_allclose(path, np.asarray(rows)[BURN_IN:], atol=1e-10)


def test_without_lags_it_is_the_sample_mean(data):
    """Constant correlations of what is left are those of demeaned returns."""
    second = CorrelationModel(ConstantCorrelation(), margins=ARCH)
    values, observed = arrays(data[:, :2])
    found = eqx.filter_jit(MeanFirst(VectorMean(0), covariances=second).estimate)(values, observed)
    means = data[:, :2].mean(axis=0)
    np.testing.assert_allclose(found.parameters.varma.intercept, means, rtol=1e-12)
    expected = eqx.filter_jit(second.estimate)(values - means, observed)
    np.testing.assert_allclose(found.covariances.covs, expected.covs, rtol=1e-9)
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-12)
    law = found.forecast(3)
    np.testing.assert_allclose(law.mean, np.tile(means, (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(law.cumulative().horizon_cov[-1], law.innovation_covs.sum(axis=0))


def test_rows_that_are_not_observed_change_nothing(data, fitted):
    """Before the first row, and after the last: a later forecast is then one of more steps."""
    empty = np.full((5, 3), np.nan)
    longer = np.concatenate([empty, data, empty[:2]])
    values, observed = arrays(longer, ~np.isnan(longer))
    again = eqx.filter_jit(VARX.estimate)(values, observed)
    np.testing.assert_allclose(
        again.parameters.coefficients, fitted.parameters.coefficients, rtol=1e-10
    )
    np.testing.assert_allclose(again.loglik, fitted.loglik, rtol=1e-9)
    np.testing.assert_allclose(ahead(again, 2)[0].mean, ahead(fitted, HORIZON)[0].mean[2:])
    # Rows that are observed of x alone tell the same as x given to the forecast.
    seen = np.asarray(observed).copy()
    seen[-2:, 2] = True
    longer[-2:, 2] = [1.0, -2.0]
    moved = fitted.given(*arrays(longer, seen))
    expected = ahead(fitted, HORIZON, jnp.asarray([[1.0], [-2.0], [data[:, 2].mean()]]))[0]
    np.testing.assert_allclose(ahead(moved, 2)[0].mean, expected.mean[2:], rtol=1e-10)


def test_holes_at_the_end_stand_at_their_mean(data, holes, fitted_with_holes):
    parameters, value = fitted_with_holes.parameters, None
    x = np.where(holes[:, 2], data[:, 2], parameters.exogenous_mean[0])
    for t in range(len(data)):
        if value is None:
            value = np.asarray(parameters.long_run)
        before = x[t - 1 : t] if t else parameters.exogenous_mean
        expected = path_by_hand(parameters, [value], [], [before])[0]
        value = np.where(holes[t, :2], data[t, :2], expected)
    path = [x[-1:], *np.tile(parameters.exogenous_mean, (HORIZON - 1, 1))]
    expected = path_by_hand(parameters, [value], [], path)
    np.testing.assert_allclose(ahead(fitted_with_holes, HORIZON)[0].mean, expected, atol=1e-12)
    found = jaxfc.impact(fitted_with_holes, panel_of(data, holes), 2, target="b")
    np.testing.assert_allclose(found.remainder, 0.0, atol=1e-12)
    assert np.all(np.asarray(found.cells)[:, ~holes] == 0.0)


def test_units_do_not_matter(data, fitted, moving, varma):
    for model, values, before in ((VARX, data, fitted), (varma.model, moving, varma)):
        scale = np.array([100.0, 0.01, 1e4])[: values.shape[1]]
        shift = np.array([3.0, -1.0, 50.0])[: values.shape[1]]
        again = jitted_estimate(model, *arrays(values * scale + shift), None, None)
        returns = scale[:2]
        law, expected = ahead(again, HORIZON)[0], ahead(before, HORIZON)[0]
        rtol = 1e-9 if model.mean.num_ma == 0 else 1e-6
        np.testing.assert_allclose(law.mean, expected.mean * returns + shift[:2], rtol=rtol)
        ratio = returns[:, None] / returns
        np.testing.assert_allclose(
            again.parameters.varma.ar[0], before.parameters.varma.ar[0] * ratio, rtol=rtol
        )
        both = np.asarray(before.covariances.variances) * returns**2
        np.testing.assert_allclose(again.covariances.variances, both, rtol=1e-5)


@pytest.mark.parametrize("orders", [(1, 0), (1, 1)], ids=["VAR", "VARMA"])
def test_gradients_of_a_forecast(data, moving, holes, orders):
    """Through the estimate: least squares, and the search by the implicit function theorem."""
    how = VectorMean(*orders, num_exogenous=1 - orders[1], tolerance=1e-10)
    values = data if orders[1] == 0 else moving[:150]
    seen = jnp.asarray(
        holes[-150:, : values.shape[1]] if orders[1] == 0 else np.ones((150, 2), bool)
    )
    values = jnp.asarray(values[-150:])

    @jax.jit
    @jax.value_and_grad
    def mean(values):
        parameters = how.estimate(values, seen).parameters
        residuals = how.residuals(parameters, values, seen)
        returns, given = how.completed(parameters, values, seen, residuals)
        given = given[-1:] @ parameters.exogenous.T
        rows = residuals[-1:] if orders[1] else residuals[:0]
        return mean_path(parameters.varma, returns[-1:], rows, 1, exogenous=given)[0, 0]

    gradient = np.asarray(mean(values)[1])
    assert np.all(gradient[~np.asarray(seen)] == 0.0)
    # Steps far above the distance from the optimum at which a search ends: four points. That is the
    # root of the rounding of its loss, 1.5e-8 a point, or 18 / 0.12 times that of the difference.
    slack = 18 / 0.12 * 1.5e-8 if orders[1] else 1e-9
    rows = np.random.default_rng(5).choice(np.argwhere(np.asarray(seen)), 3)
    for row, column in [(148, 1), *rows]:
        step = jnp.zeros_like(values).at[row, column].set(1e-2)
        near, far = (float(mean(values + k * step)[0] - mean(values - k * step)[0]) for k in (1, 2))
        numerical = (8.0 * near - far) / 12e-2
        assert numerical == pytest.approx(gradient[row, column], rel=1e-5, abs=slack)


def test_a_batch_is_a_loop(data, holes, fitted, fitted_with_holes):
    def one(observed):
        found = VARX.estimate(jnp.asarray(data), observed)
        law = found.forecast(HORIZON)
        return found.parameters.coefficients, found.loglik, law.mean, law.horizon_cov

    masks = jnp.asarray(np.stack([np.ones_like(holes), holes]))
    together = jax.jit(jax.vmap(one))(masks)
    for i, alone in enumerate((fitted, fitted_with_holes)):
        law = ahead(alone, HORIZON)[0]
        expected = alone.parameters.coefficients, alone.loglik, law.mean, law.horizon_cov
        for found, single in zip(together, expected, strict=True):
            np.testing.assert_allclose(found[i], single, rtol=1e-7, atol=1e-10)


def test_lowers_for_cuda(data, holes):
    model = MeanFirst(VectorMean(1, 1, num_exogenous=1), covariances=FIXED)

    def verbs(values, observed, key):
        fitted = model.estimate(values, observed)
        draws = fitted.forecast(2, key=key, num_draws=3)
        return fitted.forecast(2).cov, draws.draws, mean_cov(fitted), fitted.result == SUCCESSFUL

    arguments = (*arrays(data, holes), jax.random.key(2))
    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)


def test_roots_outside_are_a_result_code():
    """Of random matrices by eigenvalues, of an explosive autoregression and of a moving average
    that is not invertible, for which e = 0 before the first row is the truth."""
    rng, stable = np.random.default_rng(6), jax.jit(is_stable)
    found = []
    for scale in np.linspace(0.2, 0.9, 12):
        lags = scale * rng.normal(size=(2, 2, 2))
        top = np.concatenate([np.hstack(lags), np.eye(2, 4)])
        found.append(np.abs(np.linalg.eigvals(top)).max() < 1.0)
        assert bool(stable(jnp.asarray(lags))) == found[-1]
    assert 0 < sum(found) < len(found)

    shocks = rng.normal(size=(120, 2))
    level, explosive = np.zeros(2), []
    for shock in shocks:
        level = np.array([[1.08, 0.1], [0.0, 0.5]]) @ level + shock
        explosive.append(level)
    outside = shocks.copy()
    outside[1:] -= 1.1 * shocks[:-1]
    for how, values in ((VectorMean(1), np.asarray(explosive)), (VectorMean(0, 1), outside)):
        estimate = eqx.filter_jit(how.estimate)(*arrays(values))
        assert bool(estimate.result == RESULTS.nonstationary)
        assert np.isfinite(estimate.parameters.coefficients).all()
    far = pytest.warns(UserWarning, match="times as volatile")
    with far, pytest.raises(RuntimeError, match="not stationary"):
        MeanFirst(VectorMean(1), covariances=ARCH).fit(panel_of(np.asarray(explosive)))


def test_collinear_regressors_are_a_result_code(data):
    values = np.column_stack([data[:, :2], data[:, 0] - data[:, 1]])
    estimate = eqx.filter_jit(VectorMean(1).estimate)(*arrays(values))
    assert bool(estimate.result == RESULTS.diverged)


def test_what_is_refused(data, fitted):
    with pytest.raises(ValueError, match=r"mean=ConstantMean.*mean=ZeroMean"):
        MeanFirst(covariances=VarianceModel())
    with pytest.raises(ValueError, match="mean=ConstantMean"):
        MeanFirst(covariances=CorrelationModel())
    assert MeanFirst().covariances.margins.mean.names == ()
    with pytest.raises(ValueError, match="num_ma must be at least 0, got -1"):
        VectorMean(1, -1)
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        VectorMean(max_steps=0)
    panel = panel_of(data)
    with pytest.raises(ValueError, match="num_exogenous=3 leaves none of the 3 series"):
        MeanFirst(VectorMean(num_exogenous=3), covariances=ARCH).fit(panel)
    for num_ma, needed in ((0, 32), (1, 36)):
        short = panel_of(data[:38])
        model = MeanFirst(VectorMean(10, num_ma), covariances=ARCH)
        needed = 1 + 3 * (10 + num_ma) + (3 if num_ma else 1)
        with pytest.raises(ValueError, match=f"'a' has 28 rows .*at least {needed} are needed"):
            model.fit(short)
    with pytest.raises(ValueError, match="'a' has 16 observations for 2 parameters"):
        VARX.fit(panel_of(data[:17]))
    constant = dataclasses.replace(panel, values=np.where([False, False, True], 1.0, panel.values))
    with pytest.raises(ValueError, match="exogenous series 'x' is constant"):
        VARX.fit(constant)
    with pytest.raises(ValueError, match=r"exogenous has shape \(2, 1\).*need \(3, 1\)"):
        fitted.forecast(4, exogenous=jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        fitted.forecast(0)
    assert fitted.forecast_names(("a", "b", "x")) == ("a", "b")
    warmer = VARX.starting_from(fitted)
    assert warmer.covariances.initial is fitted.covariances.parameters
