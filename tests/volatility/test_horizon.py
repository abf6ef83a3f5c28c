"""Covariances over the horizon under a VARMA mean: three forms, dense algebra, draws, slopes."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.forecast import GaussianForecast
from jaxfc.lognormal import ExponentialForecast
from jaxfc.volatility.forecast import VolatilityForecast, simple_moments, varma_forecast
from jaxfc.volatility.horizon import (
    Varma,
    cumulative_moments,
    impulse_responses,
    joint_moments,
    mean_path,
)
from jaxfc_kernels.reference import varma_sums as reference

pytestmark = pytest.mark.slow

HORIZON, NUM_SERIES = 8, 3
ORDERS = [(1, 1), (2, 1), (1, 2), (2, 3), (3, 0), (0, 1), (0, 0)]
EACH_ORDER = pytest.mark.parametrize("orders", ORDERS, ids=lambda orders: "VARMA" + str(orders))
FORMS = ("multiples", "diagonals", "matrices")


def random_covs(rng, horizon=HORIZON, num_series=NUM_SERIES):
    """Covariances that differ from step to step and grow."""
    factors = rng.normal(size=(horizon, num_series, num_series + 2))
    growth = np.linspace(1.0, 2.0, horizon)[:, None, None]
    covs = growth * factors @ np.swapaxes(factors, 1, 2)
    return 0.5 * (covs + np.swapaxes(covs, 1, 2))


def random_varma(rng, num_ar, num_ma, num_series=NUM_SERIES):
    """Full matrices, of no particular structure."""
    shape = (num_series, num_series)
    return Varma(
        jnp.asarray(rng.normal(size=num_series)),
        jnp.asarray(0.35 * rng.normal(size=(num_ar, *shape))),
        jnp.asarray(0.5 * rng.normal(size=(num_ma, *shape))),
    )


def path_by_hand(varma, values, residuals, horizon, exogenous=None, shocks=None):
    """The equation of the VARMA, step by step; rows in time order."""
    values, residuals, ahead = list(values), list(residuals), []
    for i in range(horizon):
        shock = np.zeros(len(varma.intercept)) if shocks is None else shocks[i]
        value = np.array(varma.intercept) + shock
        if exogenous is not None:
            value = value + exogenous[i]
        for lag, coefficients in enumerate(np.asarray(varma.ar)):
            value = value + coefficients @ values[-1 - lag]
        for lag, coefficients in enumerate(np.asarray(varma.ma)):
            value = value + coefficients @ residuals[-1 - lag]
        values.append(value)
        residuals.append(shock)
        ahead.append(value)
    return np.stack(ahead)


def shocks_to_path(varma, horizon, num_series):
    """The matrix (horizon * series)^2 of the map from shocks to the path, by columns."""
    nothing = np.zeros((4, num_series))
    base = path_by_hand(varma, nothing, nothing, horizon)
    columns = [
        path_by_hand(varma, nothing, nothing, horizon, shocks=unit.reshape(horizon, -1)) - base
        for unit in np.eye(horizon * num_series)
    ]
    return np.stack([column.ravel() for column in columns], axis=1)


def block_diagonal(covs):
    horizon, size, _ = covs.shape
    blocks = np.zeros((horizon, size, horizon, size))
    for s, cov in enumerate(covs):
        blocks[s, :, s] = cov
    return blocks.reshape(horizon * size, horizon * size)


def assert_close(found, expected, relative=1e-12):
    """Within `relative` of the largest entry."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max())


def history(rng, num_series=NUM_SERIES, rows=4):
    return rng.normal(size=(2, rows, num_series))


@jax.jit
def verbs_of(varma, values, residuals, covs, exogenous):
    forecast = varma_forecast(varma, values, residuals, covs, exogenous=exogenous)
    sums = forecast.cumulative()
    return {
        "mean": forecast.mean,
        "joint": joint_moments(varma, covs),
        "own": forecast.horizon_cov,
        "sums": (sums.mean, sums.cov, sums.horizon_cov),
        "scan": cumulative_moments(varma, covs),
    }


@EACH_ORDER
def test_double_sum_responses_and_scan_agree_at_every_horizon(orders):
    rng = np.random.default_rng(sum(orders))
    varma, covs = random_varma(rng, *orders), random_covs(rng)
    values, residuals = history(rng)
    exogenous = rng.normal(size=(HORIZON, NUM_SERIES))
    given = map(jnp.asarray, (values, residuals, covs, exogenous))
    found = verbs_of(varma, *given)
    scan, (sum_means, sum_cov, sum_covs) = found["scan"], found["sums"]

    ar, ma = np.asarray(varma.ar), np.asarray(varma.ma)
    for horizon in range(1, HORIZON + 1):
        expected = reference.cumulative_cov(ar, ma, covs[:horizon])
        assert_close(scan.sum_covs[horizon - 1], expected)
        assert_close(sum_covs[horizon - 1], expected)

    effects = shocks_to_path(varma, HORIZON, NUM_SERIES)
    dense = (effects @ block_diagonal(covs) @ effects.T).reshape(sum_cov.shape)
    assert_close(reference.joint_cov(ar, ma, covs), dense)
    assert_close(found["joint"], dense)
    running = np.cumsum(dense, axis=2)
    assert_close(sum_cov, np.cumsum(running, axis=0))
    for step in range(HORIZON):
        assert_close(scan.level_covs[step], dense[step, :, step])
        assert_close(found["own"][step], dense[step, :, step])
        assert_close(scan.cross_covs[step], running[step, :, step])

    means = path_by_hand(varma, values, residuals, HORIZON, exogenous)
    assert_close(found["mean"], means)
    assert_close(sum_means, np.cumsum(means, axis=0))


@pytest.mark.parametrize("intercept", [0.0, 0.3], ids=["zero", "constant"])
def test_without_dynamics_covariances_are_plainly_added(intercept):
    rng = np.random.default_rng(1)
    covs, nothing = random_covs(rng), jnp.zeros((0, NUM_SERIES, NUM_SERIES))
    varma = Varma(jnp.full(NUM_SERIES, intercept), nothing, nothing)
    no_rows = jnp.zeros((0, NUM_SERIES))
    forecast = varma_forecast(varma, no_rows, no_rows, jnp.asarray(covs))
    assert forecast.responses.shape == (HORIZON,)
    np.testing.assert_array_equal(forecast.mean, np.full((HORIZON, NUM_SERIES), intercept))
    np.testing.assert_array_equal(forecast.horizon_cov, covs)
    np.testing.assert_array_equal(forecast.cov.reshape(24, 24), block_diagonal(covs))
    scan = cumulative_moments(varma, jnp.asarray(covs))
    np.testing.assert_array_equal(scan.sum_covs, np.cumsum(covs, axis=0))
    np.testing.assert_array_equal(scan.cross_covs, covs)
    np.testing.assert_allclose(
        forecast.cumulative().horizon_cov, np.cumsum(covs, axis=0), rtol=1e-15
    )


def test_four_matrices_are_summed_element_by_element():
    """Four steps of four series with covariances that decay by a constant ratio, daily units."""
    stds = np.array([0.0112, 0.0087, 0.0203, 0.0154])
    corr = np.array(
        [
            [1.0, 0.42, 0.31, 0.17],
            [0.42, 1.0, 0.55, -0.08],
            [0.31, 0.55, 1.0, 0.26],
            [0.17, -0.08, 0.26, 1.0],
        ]
    )
    covs = np.stack([0.9991**step * np.outer(stds, stds) * corr for step in range(4)])
    forecast = VolatilityForecast(jnp.zeros((4, 4)), jnp.asarray(covs))
    expected = covs[0] + covs[1] + covs[2] + covs[3]
    np.testing.assert_allclose(forecast.cumulative().horizon_cov[-1], expected, rtol=1e-15)


def test_pure_moving_average_by_hand():
    rng = np.random.default_rng(2)
    varma, covs = random_varma(rng, 0, 1), random_covs(rng)[:3]
    ma = np.asarray(varma.ma[0])
    both = np.eye(NUM_SERIES) + ma
    expected = both @ covs[0] @ both.T + both @ covs[1] @ both.T + covs[2]
    found = cumulative_moments(varma, jnp.asarray(covs))
    assert_close(found.sum_covs[-1], expected)
    assert_close(found.cross_covs[-1], ma @ covs[1] @ both.T + covs[2])
    assert_close(impulse_responses(varma, 3), np.stack([np.eye(3), ma, np.zeros((3, 3))]))


def test_integrated_mean():
    """An error-correction model: two unit roots, the third pulls the spread back."""
    rng = np.random.default_rng(3)
    adjustment, relation = np.array([[-0.3], [0.1], [0.0]]), np.array([[1.0, -1.0, 0.0]])
    levels = np.eye(3) + adjustment @ relation
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(levels)), [0.6, 1.0, 1.0], atol=1e-12)
    varma = Varma(jnp.zeros(3), jnp.asarray(levels)[None], jnp.zeros((0, 3, 3)))
    covs = random_covs(rng)
    effects = shocks_to_path(varma, HORIZON, 3)
    dense = (effects @ block_diagonal(covs) @ effects.T).reshape(HORIZON, 3, HORIZON, 3)
    found = cumulative_moments(varma, jnp.asarray(covs))
    assert_close(found.sum_covs[-1], dense.sum(axis=(0, 2)))
    assert_close(found.level_covs[-1], dense[-1, :, -1])
    start = np.array([[2.0, 1.0, 5.0]])
    path = mean_path(varma, jnp.asarray(start), jnp.zeros((0, 3)), 100)
    assert_close(path[-1], [1.25, 1.25, 5.0])  # the spread is gone; 0.1 y_1 + 0.3 y_2 is kept


def test_horizon_of_one_returns_the_covariance_of_the_innovations():
    rng = np.random.default_rng(4)
    varma, covs = random_varma(rng, 2, 1), random_covs(rng)[:1]
    values, residuals = map(jnp.asarray, history(rng))
    forecast = varma_forecast(varma, values, residuals, jnp.asarray(covs))
    assert forecast.mean.shape == (1, NUM_SERIES)
    for found in (
        forecast.horizon_cov,
        forecast.cumulative().horizon_cov,
        forecast.cov[:, :, 0],
        *cumulative_moments(varma, jnp.asarray(covs)),
    ):
        np.testing.assert_allclose(found, covs, rtol=1e-14)


def test_mean_path_reads_the_newest_rows_only():
    rng = np.random.default_rng(5)
    varma, (values, residuals) = random_varma(rng, 2, 3), history(rng, rows=6)
    whole = mean_path(varma, jnp.asarray(values), jnp.asarray(residuals), 5)
    cut = mean_path(varma, jnp.asarray(values[-2:]), jnp.asarray(residuals[-3:]), 5)
    np.testing.assert_array_equal(whole, cut)
    assert_close(whole, path_by_hand(varma, values, residuals, 5))


def test_simulated_sums_have_the_covariance_of_the_formula():
    """Innovations with stochastic variances and fat tails: only E_t[H] enters.

    eps_t = sqrt(s_t) L z_t, z of a t law, s_{t+1} = w + (a z_t'z_t / N + b) s_t: E_t[s] by its own
    recursion, exactly.
    """
    rng = np.random.default_rng(6)
    num_paths, horizon = 40_000, 6
    omega, alpha, beta, now = 0.2, 0.15, 0.75, 3.0
    chol = np.array([[1.0, 0.0], [0.6, 0.7]])
    varma = Varma(
        jnp.asarray([0.1, -0.05]),
        jnp.asarray([[[0.3, -0.2], [0.25, 0.4]]]),
        jnp.asarray([[[0.2, 0.3], [-0.1, 0.35]]]),
    )
    values, residuals = history(rng, num_series=2, rows=1)
    expected_variances, variance = [now], now
    for _ in range(horizon - 1):
        variance = omega + (alpha + beta) * variance
        expected_variances.append(variance)
    covs = np.array(expected_variances)[:, None, None] * (chol @ chol.T)

    variances, value, residual = np.full(num_paths, now), values[-1], residuals[-1]
    total = np.zeros((num_paths, 2))
    for _ in range(horizon):
        units = rng.standard_t(8, size=(num_paths, 2)) * np.sqrt(6 / 8)
        shock = np.sqrt(variances)[:, None] * (units @ chol.T)
        ar, ma = np.asarray(varma.ar[0]), np.asarray(varma.ma[0])
        value = np.asarray(varma.intercept) + value @ ar.T + residual @ ma.T + shock
        residual = shock
        variances = omega + (alpha * np.mean(units**2, axis=1) + beta) * variances
        total += value

    given = map(jnp.asarray, (values, residuals, covs))
    sums = varma_forecast(varma, *given).cumulative()
    centred = total - np.asarray(sums.mean[-1])
    mean_errors = centred.mean(axis=0) / (centred.std(axis=0) / np.sqrt(num_paths))
    assert np.abs(mean_errors).max() < 3.0
    products = centred[:, :, None] * centred[:, None, :]
    standard_errors = products.std(axis=0) / np.sqrt(num_paths)
    found = np.abs(products.mean(axis=0) - np.asarray(sums.horizon_cov[-1])) / standard_errors
    assert found.max() < 3.0
    plain = np.abs(products.mean(axis=0) - covs.sum(axis=0)) / standard_errors
    assert plain.min() > 50.0


def forecast_of(form, rng):
    """A forecast in one form, and the same responses as matrices."""
    covs = jnp.asarray(random_covs(rng)[:5])
    mean = jnp.asarray(rng.normal(size=(5, NUM_SERIES)))
    shape = {"multiples": (5,), "diagonals": (5, 3), "matrices": (5, 3, 3)}[form]
    responses = jnp.asarray(rng.normal(size=shape))
    matrices = {
        "multiples": lambda: responses[:, None, None] * jnp.eye(3),
        "diagonals": lambda: responses[:, :, None] * jnp.eye(3),
        "matrices": lambda: responses,
    }[form]()
    return VolatilityForecast(mean, covs, responses), np.asarray(matrices)


def dense_law(forecast, matrices):
    """The same law with its joint covariance, by loops."""
    horizon, num_series = forecast.mean.shape
    effects = np.zeros((horizon, num_series, horizon, matrices.shape[2]))
    for i in range(horizon):
        for s in range(i + 1):
            effects[i, :, s] = matrices[i - s]
    effects = effects.reshape(horizon * num_series, -1)
    joint = effects @ block_diagonal(np.asarray(forecast.innovation_covs)) @ effects.T
    shape = (horizon, num_series, horizon, num_series)
    return GaussianForecast(forecast.mean, jnp.asarray(joint.reshape(shape)))


OPERATIONS = {
    "itself": lambda law: law,
    "cumulative": lambda law: law.cumulative(),
    "cumulative twice": lambda law: law.cumulative().cumulative(),
    "aggregate": lambda law: law.aggregate(jnp.asarray([[0.2, 0.5, 0.3], [1.0, -1.0, 0.0]])),
    "one portfolio": lambda law: law.aggregate(jnp.asarray([[0.2, 0.5, 0.3]])).cumulative(),
    "more rows than series": lambda law: law.cumulative().aggregate(
        jnp.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    ),
    "affine": lambda law: law.affine(
        jnp.asarray([100.0, -0.5, 2.0]), jnp.arange(15.0).reshape(5, 3)
    ),
    "marginal of sums of affine": lambda law: (
        law.affine(jnp.asarray([2.0, 3.0, 4.0]), jnp.ones((5, 3))).cumulative().marginal(-1)
    ),
}


LEVELS = np.array([0.05, 0.5, 0.99])


@jax.jit
def moments_after_operations(law):
    operated = {name: operate(law) for name, operate in OPERATIONS.items()}
    return {
        name: (law.mean, law.cov, law.std, law.quantile(LEVELS)) for name, law in operated.items()
    }, {
        name: law.horizon_cov
        for name, law in operated.items()
        if isinstance(law, VolatilityForecast)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_operation_is_that_of_the_dense_law(form):
    forecast, matrices = forecast_of(form, np.random.default_rng(7))
    moments, own_covs = moments_after_operations(forecast)
    expected, _ = moments_after_operations(dense_law(forecast, matrices))
    assert set(own_covs) == set(OPERATIONS)  # no operation leaves the class
    for name in OPERATIONS:
        mean, cov, std, quantiles = expected[name]
        for found, one in zip(moments[name], (mean, cov, std, quantiles), strict=True):
            assert_close(found, one)
        assert_close(own_covs[name], np.einsum("hihj->hij", cov))
        normal = stats.norm.ppf(LEVELS)[:, None, None]
        assert_close(moments[name][3], mean + std * normal)


@pytest.mark.parametrize("form", FORMS)
def test_draws_have_the_moments_of_the_law(form):
    forecast, _ = forecast_of(form, np.random.default_rng(8))
    repeated = jnp.asarray([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4]])
    law = forecast.cumulative().aggregate(repeated)  # covariances of rank two
    num_draws = 20_000
    draws = np.asarray(law.sample(num_draws, key=jax.random.key(0)))
    assert draws.shape == (num_draws, 5, 3)
    np.testing.assert_allclose(draws[:, :, 0], draws[:, :, 1], rtol=1e-7, atol=1e-7)
    size = law.mean.size
    cov, centred = np.asarray(law.cov).reshape(size, size), draws - np.asarray(law.mean)
    centred = centred.reshape(num_draws, size)
    variances = np.diagonal(cov)
    assert np.abs(centred.mean(axis=0) / np.sqrt(variances / num_draws)).max() < 4.0
    errors = np.sqrt((np.outer(variances, variances) + cov**2) / num_draws)
    assert np.abs((centred.T @ centred / num_draws - cov) / errors).max() < 4.0


def test_draws_are_the_shocks_of_the_equation():
    """The same key without a mean gives the innovations; the equation makes the path of them."""
    rng = np.random.default_rng(9)
    varma, covs = random_varma(rng, 2, 1), jnp.asarray(random_covs(rng))
    values, residuals = history(rng)
    forecast = varma_forecast(varma, jnp.asarray(values), jnp.asarray(residuals), covs)
    key = jax.random.key(1)
    shocks = VolatilityForecast(jnp.zeros_like(forecast.mean), covs).sample(2, key=key)
    for path, shock in zip(forecast.sample(2, key=key), np.asarray(shocks), strict=True):
        assert_close(path, path_by_hand(varma, values, residuals, HORIZON, shocks=shock))


def slope(function, argument, direction, step):
    """Central difference along `direction`."""
    ahead, behind = (function(argument + sign * step * direction) for sign in (1, -1))
    return float(ahead - behind) / (2 * step)


def test_gradients_of_the_variance_of_a_portfolio():
    rng = np.random.default_rng(10)
    varma, covs = random_varma(rng, 1, 1, 2), jnp.asarray(random_covs(rng, 5, 2))
    weights = jnp.asarray([[0.6, 0.4]])

    @jax.jit
    def by_responses(ar, covs):
        moved = Varma(varma.intercept, ar, varma.ma)
        forecast = varma_forecast(moved, jnp.zeros((1, 2)), jnp.zeros((1, 2)), covs)
        return forecast.aggregate(weights).cumulative().horizon_cov[-1, 0, 0]

    def by_scan(ar, covs):
        cov = cumulative_moments(Varma(varma.intercept, ar, varma.ma), covs).sum_covs[-1]
        return weights[0] @ cov @ weights[0]

    gradients = jax.jit(jax.grad(by_responses, argnums=(0, 1)))(varma.ar, covs)
    for one, other in zip(
        gradients, jax.jit(jax.grad(by_scan, (0, 1)))(varma.ar, covs), strict=True
    ):
        assert_close(one, other)
    for entry in np.ndindex(1, 2, 2):
        direction = jnp.zeros((1, 2, 2)).at[entry].set(1.0)
        numerical = slope(lambda ar: by_responses(ar, covs), varma.ar, direction, 1e-5)
        assert numerical == pytest.approx(float(gradients[0][entry]), rel=1e-8)
    for step in range(5):
        bump = rng.normal(size=(2, 2))
        direction = jnp.zeros((5, 2, 2)).at[step].set(bump + bump.T)
        numerical = slope(lambda covs: by_responses(varma.ar, covs), covs, direction, 1.0)
        assert numerical == pytest.approx(float(jnp.vdot(gradients[1], direction)), rel=1e-11)


def test_draws_have_derivatives_even_at_equal_variances():
    """A symmetric root by eigenvalues has none where they coincide."""
    rng = np.random.default_rng(11)

    @jax.jit
    def largest(covs):
        law = VolatilityForecast(jnp.zeros((3, 2)), covs)
        return jnp.sum(law.sample(4, key=jax.random.key(2)) ** 3)

    covs = jnp.broadcast_to(jnp.eye(2), (3, 2, 2))
    bump = rng.normal(size=(3, 2, 2))
    direction = jnp.asarray(bump + np.swapaxes(bump, 1, 2))
    found = float(jnp.vdot(jax.grad(largest)(covs), direction))
    assert found == pytest.approx(slope(largest, covs, direction, 1e-5), rel=1e-7)


def test_a_batch_is_a_loop():
    rng = np.random.default_rng(12)
    covs = jnp.asarray(np.stack([random_covs(rng) for _ in range(3)]))
    varmas = [random_varma(rng, 1, 1) for _ in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *varmas)
    rows = jnp.asarray(rng.normal(size=(2, 1, NUM_SERIES)))

    def one(varma, covs):
        return varma_forecast(varma, *rows, covs).cumulative().horizon_cov

    single = jax.jit(one)
    for found, varma, cov in zip(jax.vmap(one)(stacked, covs), varmas, covs, strict=True):
        assert_close(found, single(varma, cov))


def all_verbs(varma, rows, covs, key):
    forecast = varma_forecast(varma, rows, rows, covs)
    portfolio = forecast.aggregate(covs[0]).cumulative()
    plain = VolatilityForecast(forecast.mean, covs)
    diagonal = VolatilityForecast(forecast.mean, covs, forecast.mean).affine(covs[0, 0], plain.mean)
    sums = portfolio.horizon_cov
    gradient = jax.grad(lambda covs: cumulative_moments(varma, covs).sum_covs[-1, 0, 0])(covs)
    return (
        *(law.cov for law in (portfolio, plain, diagonal)),
        *(law.quantile(0.05) for law in (portfolio, plain, diagonal)),
        *(law.sample(2, key=key) for law in (portfolio, plain, diagonal)),
        joint_moments(varma, covs),
        simple_moments(0.01 * portfolio.mean, 0.01 * sums / jnp.max(sums)),
        cumulative_moments(varma, covs),
        gradient,
    )


def verbs_arguments(dtype):
    rng = np.random.default_rng(13)
    varma, covs = random_varma(rng, 2, 1), jnp.asarray(random_covs(rng), dtype)
    rows = jnp.asarray(rng.normal(size=(4, NUM_SERIES)), dtype)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), varma), rows, covs


def test_lowers_for_cuda():
    arguments = (*verbs_arguments(jnp.float64), jax.random.key(0))
    exported = jax.export.export(jax.jit(all_verbs), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)


def test_single_precision_keeps_its_type_and_digits():
    single, double = verbs_arguments(jnp.float32), verbs_arguments(jnp.float64)
    shapes = jax.eval_shape(all_verbs, *single, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    found, expected = (
        jax.tree.leaves(verbs_of(varma, rows, rows, covs, jnp.ones_like(covs[:, 0])))
        for varma, rows, covs in (single, double)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.float32
        assert_close(one, other, relative=2e-6)


def test_simple_returns_of_sums():
    rng = np.random.default_rng(14)
    mean = jnp.asarray(0.02 * rng.normal(size=(HORIZON, NUM_SERIES)))
    sums = VolatilityForecast(mean, jnp.asarray(1e-3 * random_covs(rng))).cumulative()
    means, simple_covs = simple_moments(sums.mean, sums.horizon_cov)
    logs = GaussianForecast(sums.mean, sums.cov)
    law = ExponentialForecast(logs, jnp.ones(NUM_SERIES, bool))
    assert_close(means, law.mean - 1.0)
    assert_close(simple_covs, jnp.einsum("hihj->hij", law.cov))
    m, cov = np.asarray(sums.mean[-1]), np.asarray(sums.horizon_cov[-1])
    for i in range(NUM_SERIES):
        assert means[-1, i] == pytest.approx(np.exp(m[i] + cov[i, i] / 2) - 1, rel=1e-12)
        for j in range(NUM_SERIES):
            outer = np.exp(m[i] + m[j] + (cov[i, i] + cov[j, j]) / 2)
            expected = outer * (np.exp(cov[i, j]) - 1)
            assert simple_covs[-1, i, j] == pytest.approx(expected, rel=1e-10)


def test_simple_moments_are_those_of_draws():
    mean, cov = np.array([0.05, -0.02]), np.array([[0.06, 0.03], [0.03, 0.09]])
    rng = np.random.default_rng(15)
    simple = np.expm1(mean + rng.normal(size=(200_000, 2)) @ np.linalg.cholesky(cov).T)
    means, covs = simple_moments(jnp.asarray(mean), jnp.asarray(cov))
    centred = simple - np.asarray(means)
    assert np.abs(centred.mean(axis=0) / centred.std(axis=0)).max() < 3.0 / np.sqrt(200_000)
    products = centred[:, :, None] * centred[:, None, :]
    errors = (products.mean(axis=0) - covs) / products.std(axis=0)
    assert np.abs(errors).max() < 3.0 / np.sqrt(200_000)


def test_simple_moments_of_something_riskless():
    """Small returns lose no digits, and a variance of zero has a slope."""
    means, _ = simple_moments(jnp.asarray([1e-9]), jnp.zeros((1, 1)))
    assert float(means[0]) == pytest.approx(1e-9, rel=1e-14)
    gradient = jax.grad(lambda cov: simple_moments(jnp.zeros(1), cov)[1][0, 0])(jnp.zeros((1, 1)))
    np.testing.assert_allclose(gradient, 1.0)


def test_what_is_refused():
    rng = np.random.default_rng(16)
    varma, covs = random_varma(rng, 2, 1), jnp.asarray(random_covs(rng))
    rows = jnp.zeros((2, NUM_SERIES))
    with pytest.raises(ValueError, match="last_values has 1 rows, the mean looks back 2"):
        mean_path(varma, rows[:1], rows, 3)
    with pytest.raises(ValueError, match="last_residuals has 0 rows, the mean looks back 1"):
        mean_path(varma, rows, rows[:0], 3)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        mean_path(varma, rows, rows, 0)
    with pytest.raises(ValueError, match="horizon must be at least 1, got -1"):
        impulse_responses(varma, -1)
    with pytest.raises(ValueError, match="there are 3 innovations for 2 series"):
        VolatilityForecast(jnp.zeros((HORIZON, 2)), covs)
