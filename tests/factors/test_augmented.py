"""Errors as states: against dense Gaussian algebra and against statsmodels at its parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from factor_worlds import World, make_world
from jaxfc.factors.augmented import ar_error_space, augmented_parameters, augmented_space
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.error_states import GROWTH_WEIGHTS, aggregation_weights
from jaxfc.panel import Panel

NUM_TIMES = 13
AR = np.array([0.9, -0.5, 0.0, 0.6])


def parameters_of(world: World, ar) -> FactorParameters:
    return FactorParameters(*map(jnp.asarray, [*world, ar]))


def dense_loglik(world, ar, weights, values, observed, *, before):
    """log p(observed cells): latent values of all periods from `before` rows before the panel.

    `weights` (time, series, window); the initial law of `world` starts at the first period.
    """
    num_times, num_series = values.shape
    num_factors, num_lags = world.loadings.shape[1], len(world.transition)
    num_periods = num_times + before
    size, first = num_periods * num_factors, max(num_lags, 1) * num_factors
    system, shift = np.eye(size), np.zeros(size)
    noise = np.kron(np.eye(num_periods), world.innovation_cov)
    noise[:first, :first], shift[:first] = world.initial_cov, world.initial_mean
    for t in range(num_lags, num_periods):
        for lag in range(1, num_lags + 1):
            rows = slice(t * num_factors, (t + 1) * num_factors)
            columns = slice((t - lag) * num_factors, (t - lag + 1) * num_factors)
            system[rows, columns] = -world.transition[lag - 1]
    inverse = np.linalg.inv(system)
    design = np.kron(np.eye(num_periods), world.loadings)
    mean = design @ inverse @ shift + np.tile(world.intercept, num_periods)
    cov = design @ inverse @ noise @ inverse.T @ design.T
    distance = np.abs(np.subtract.outer(np.arange(num_periods), np.arange(num_periods)))
    for i in range(num_series):
        cov[i::num_series, i::num_series] += world.idiosyncratic_cov[i] * ar[i] ** distance
    rows = []
    for t, i in zip(*np.nonzero(observed), strict=True):
        row = np.zeros(len(mean))
        for lag, weight in enumerate(weights[t, i]):
            if weight:
                row[(t + before - lag) * num_series + i] = weight
        rows.append(row)
    flow = np.array(rows)
    return multivariate_normal.logpdf(values[observed], flow @ mean, flow @ cov @ flow.T)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(5)
    values, observed = rng.normal(size=(NUM_TIMES, 4)), rng.random((NUM_TIMES, 4)) < 0.7
    observed[4] = False
    return np.where(observed, values, 1e6), observed


def loglik(space, values, observed):
    return space.log_prob(jnp.asarray(values), jnp.asarray(observed), implementation="univariate")


@pytest.mark.parametrize("num_lags", [0, 1, 2])
def test_ar_errors_equal_dense_algebra(panel, num_lags):
    values, observed = panel
    world = make_world(4, 2, num_lags)
    weights = np.ones((NUM_TIMES, 4, 1))
    expected = dense_loglik(world, AR, weights, values, observed, before=0)
    space = ar_error_space(parameters_of(world, AR))
    assert space.num_states == 2 * max(num_lags, 1) + 4
    assert_allclose(loglik(space, values, observed), expected, rtol=1e-11)


def test_errors_without_ar_are_independent(panel):
    values, observed = panel
    world = make_world(4, 2, 1)
    with_zero = ar_error_space(parameters_of(world, np.zeros(4)))
    without = ar_error_space(FactorParameters(*map(jnp.asarray, world)))
    expected = dense_loglik(
        world, np.zeros(4), np.ones((NUM_TIMES, 4, 1)), values, observed, before=0
    )
    assert_allclose(loglik(without, values, observed), expected, rtol=1e-11)
    assert_allclose(
        loglik(without, values, observed), loglik(with_zero, values, observed), rtol=1e-14
    )


@pytest.mark.parametrize("num_lags", [1, 2])
def test_growth_of_a_quarter_equals_dense_algebra(panel, num_lags):
    """The law of row 0 includes the four months before it, in which the first windows reach."""
    values, observed = panel[0], panel[1].copy()
    observed[np.arange(NUM_TIMES) % 3 != 2, 1] = False
    observed[2, 1] = True
    values = np.where(observed, np.where(panel[1], panel[0], 0.4), 1e6)
    world = make_world(4, 2, num_lags)
    weights = np.zeros((4, 5))
    weights[:, 0] = 1.0
    weights[1] = GROWTH_WEIGHTS
    expected = dense_loglik(
        world, AR, np.broadcast_to(weights, (NUM_TIMES, 4, 5)), values, observed, before=4
    )
    space = ar_error_space(parameters_of(world, AR), jnp.asarray(weights))
    assert space.num_states == 2 * 5 + 3 + 5
    assert_allclose(loglik(space, values, observed), expected, rtol=1e-11)


def test_derivatives_are_finite_where_errors_are_independent(mixed_panel):
    world = make_world(5, 2, 1)
    values, observed = jnp.asarray(mixed_panel.values), jnp.asarray(mixed_panel.observed)

    def of_ar(ar):
        parameters = parameters_of(world, np.zeros(5))
        parameters = dataclasses.replace(parameters, idiosyncratic_ar=ar)
        space = ar_error_space(parameters, mixed_panel.aggregation)
        return space.log_prob(values, observed, implementation="univariate")

    step = 1e-5 * np.eye(5)[1]
    gradient = jax.jit(jax.grad(of_ar))(jnp.zeros(5))
    numeric = (of_ar(jnp.asarray(step)) - of_ar(jnp.asarray(-step))) / 2e-5
    assert np.all(np.isfinite(gradient))
    assert_allclose(gradient[1], numeric, rtol=1e-6)


@pytest.fixture(scope="module")
def mixed_panel():
    """Weeks with a monthly average, a change in a monthly flow and a stock; no two months alike."""
    rng = np.random.default_rng(2)
    weeks = pd.date_range("2020-01-05", periods=26, freq="W")
    weekly = pd.DataFrame(rng.normal(size=(26, 2)), weeks, ["a", "b"])
    weekly = weekly.mask(rng.random(weekly.shape) < 0.2)
    months = pd.date_range("2020-02-29", periods=4, freq="ME")
    monthly = pd.DataFrame(rng.normal(size=(4, 3)), months, ["flow", "change", "stock"])
    kinds = {"flow": "flow_average", "change": "change_in_flow", "stock": "stock"}
    return Panel.from_frames({"W": weekly, "M": monthly}, kinds=kinds)


def test_calendars_give_time_varying_windows(mixed_panel):
    panel = mixed_panel
    weights = aggregation_weights(panel.aggregation)
    latent = np.random.default_rng(0).normal(size=panel.values.shape)
    for row, i in zip(*np.nonzero(panel.observed), strict=True):
        lags = np.arange(min(row + 1, weights.shape[2]))
        by_weights = weights[row, i, lags] @ latent[row - lags, i]
        group = panel.aggregation.group[i]
        own = panel.aggregation.own_weight[group][panel.aggregation.own_row[group] == row]
        from_own = own @ latent[panel.aggregation.own_row[group] == row, i]
        before = panel.aggregation.next_row[group] == row
        from_next = panel.aggregation.next_weight[group][before] @ latent[before, i]
        assert_allclose(by_weights, from_own + from_next, atol=1e-14)


@pytest.mark.parametrize("presample", [0, 2])
def test_irregular_flows_equal_dense_algebra(mixed_panel, presample):
    panel = mixed_panel
    world = make_world(5, 2, 2)
    if presample:
        rng = np.random.default_rng(4)
        start_cov = world.initial_cov + 0.3 * np.eye(4)
        world = world._replace(initial_mean=rng.normal(size=4), initial_cov=start_cov)
    ar = np.append(AR, 0.3)
    values = np.where(panel.observed, panel.values, 1e6)
    weights = aggregation_weights(panel.aggregation)
    expected = dense_loglik(world, ar, weights, values, panel.observed, before=presample)
    space = ar_error_space(parameters_of(world, ar), panel.aggregation, presample=presample)
    assert_allclose(loglik(space, values, panel.observed), expected, rtol=1e-11)


@pytest.mark.parametrize("num_lags", [0, 2])
def test_both_forms_of_parameters_are_one_model(mixed_panel, num_lags):
    panel = mixed_panel
    world = make_world(5, 2, num_lags)._replace(intercept=np.zeros(5))
    parameters = parameters_of(world, np.append(AR, 0.3))
    augmented = augmented_parameters(parameters, panel.aggregation, measurement_cov=jnp.zeros(5))
    expected = loglik(ar_error_space(parameters, panel.aggregation), panel.values, panel.observed)
    actual = loglik(augmented_space(augmented, panel.aggregation), panel.values, panel.observed)
    assert_allclose(actual, expected, rtol=1e-11)


def test_what_cannot_be_meant_is_refused():
    world = make_world(4, 2, 2)
    parameters = parameters_of(world, AR)
    full = parameters_of(make_world(4, 2, 1, full=True), AR)
    growth = jnp.broadcast_to(jnp.asarray(GROWTH_WEIGHTS), (4, 5))
    with pytest.raises(ValueError, match="diagonal idiosyncratic"):
        ar_error_space(full)
    with pytest.raises(ValueError, match="4 series"):
        ar_error_space(parameters, growth[:3])
    with pytest.raises(ValueError, match="partly inside"):
        ar_error_space(parameters, presample=1)
    with pytest.raises(ValueError, match="reaches 4 periods"):
        ar_error_space(parameters, growth, presample=2)


def statsmodels_model(endog, quarterly):
    pytest.importorskip("statsmodels", reason="needs statsmodels (extra 'data')")
    from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

    return DynamicFactorMQ(
        endog,
        endog_quarterly=quarterly,
        factors=1,
        factor_multiplicities=2,
        factor_orders=2,
        idiosyncratic_ar1=True,
        standardize=False,
    )


@pytest.mark.parametrize("with_quarters", [False, True])
def test_ar_errors_equal_statsmodels(with_quarters):
    rng = np.random.default_rng(8)
    months = pd.period_range("2000-01", periods=24, freq="M")
    monthly = pd.DataFrame(rng.normal(size=(24, 3)), months, ["a", "b", "c"])
    monthly = monthly.mask(rng.random(monthly.shape) < 0.2)
    quarters = pd.period_range("2000Q1", periods=8, freq="Q")
    quarterly = pd.DataFrame(3.0 * rng.normal(size=(8, 1)), quarters, ["q"])
    model = statsmodels_model(monthly, quarterly if with_quarters else None)
    num_series = 3 + with_quarters
    world = make_world(num_series, 2, 2)
    ar, variances = AR[:num_series], world.idiosyncratic_cov
    numbers = np.concatenate(
        [
            world.loadings.ravel(),
            np.concatenate(list(world.transition), axis=1).ravel(),
            np.linalg.cholesky(world.innovation_cov)[np.tril_indices(2)],
            ar,
            (1.0 - ar**2) * variances,
        ]
    )
    theirs = model.smooth(numbers)
    values = np.asarray(model.endog)
    observed = ~np.isnan(values)
    weights = np.zeros((num_series, 5))
    weights[:, 0] = 1.0
    if with_quarters:
        weights[3] = GROWTH_WEIGHTS
    parameters = parameters_of(world._replace(intercept=np.zeros(num_series)), ar)
    space = ar_error_space(parameters, jnp.asarray(weights))
    filled = jnp.asarray(np.where(observed, values, 0.0))
    ours = space.smooth(filled, jnp.asarray(observed), implementation="univariate")
    assert_allclose(ours.loglik, theirs.llf, rtol=1e-10)
    assert_allclose(ours.smoothed_means[:, :2], theirs.smoothed_state[:2].T, atol=1e-9)
