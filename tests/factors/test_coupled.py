"""Errors with memory and low-frequency flows against dense Gaussian algebra."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from coupled_worlds import (
    aggregated_rows,
    cell_rows,
    condition,
    dense_law,
    draw_values,
    placed,
    small_world,
)
from jaxfc.calendar import aggregation_pattern, aggregation_rows
from jaxfc.factors.augmented import ar_error_space
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import make_coupling, plan_flows
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.errors import AutoregressiveErrors, IndependentErrors, gap_error, longest_gap
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.moments import ClosedForm
from jaxfc_kernels.aggregation import AggregationRows

pytestmark = pytest.mark.slow

NUM_TIMES, NUM_SERIES, NUM_FACTORS = 18, 5, 2
MIXED = {
    "months and quarters": (
        "M",
        pd.date_range("2000-01-31", periods=19, freq="ME"),
        ["M", "M", "Q", "Q", "Q"],
        ["stock", "stock", "change_in_flow", "flow_average", "stock"],
    ),
    "weeks, months and quarters": (
        "W-FRI",
        pd.date_range("2000-01-07", periods=31, freq="W-FRI"),
        ["W-FRI", "M", "M", "Q", "W-FRI"],
        ["stock", "change_in_flow", "flow_sum", "flow_average", "stock"],
    ),
}


@eqx.filter_jit
def expect(step, parameters, data):
    return step.expect(parameters, data)


def gappy_mask():
    """30 % of cells missing, a late start, a row without data."""
    observed = np.random.default_rng(3).random((NUM_TIMES, NUM_SERIES)) < 0.7
    observed[:4, 1] = False
    observed[5] = False
    return observed


def as_parameters(world, ar):
    return FactorParameters(*map(jnp.asarray, world), None if ar is None else jnp.asarray(ar))


def stock_case(num_lags):
    """Step, parameters, data, and the dense answer, errors AR(1)."""
    world, ar = small_world(num_lags=num_lags)
    observed = gappy_mask()
    law, rows = dense_law(world, ar, NUM_TIMES), cell_rows(observed)
    values = draw_values(law, rows)
    mask = jnp.asarray(observed, float)
    errors = AutoregressiveErrors(longest_gap(observed))
    coupling = make_coupling(errors, None, mask, None)
    data = PanelData(jnp.asarray(placed(observed, values)), mask, coupling=coupling)
    step = EMStep(ClosedForm(), jnp.asarray(0.0), errors=errors, estimate_intercept=True)
    return step, as_parameters(world, ar), data, condition(law, rows, values)


def mixed_case(name, num_lags, with_memory, of_flows=True):
    """The same for a panel with low-frequency flows."""
    base, index, frequencies, kinds = MIXED[name]
    aggregation = aggregation_rows(index, base, tuple(frequencies), tuple(kinds))
    plan = plan_flows(aggregation)
    world, ar = small_world(num_lags=num_lags)
    if not with_memory:
        ar = np.zeros_like(ar)
    if not of_flows:
        ar[list(plan.columns)] = 0.0
    observed = np.random.default_rng(3).random((len(index), NUM_SERIES)) < 0.8
    for i, (frequency, kind) in enumerate(zip(frequencies, kinds, strict=True)):
        observed[:, i] &= np.asarray(aggregation_pattern(index, base, frequency, kind).answered)
    law, rows = dense_law(world, ar, len(index)), aggregated_rows(observed, aggregation)
    values = draw_values(law, rows)
    mask = jnp.asarray(observed, float)
    stocks = np.delete(observed, plan.columns, axis=1)
    errors = IndependentErrors()
    if with_memory:
        errors = AutoregressiveErrors(longest_gap(stocks), of_flows=of_flows)
    coupling = make_coupling(errors, plan, mask, aggregation)
    data = PanelData(jnp.asarray(placed(observed, values)), mask, coupling=coupling)
    step = EMStep(ClosedForm(), jnp.asarray(0.0), errors=errors, estimate_intercept=True)
    parameters = as_parameters(world, ar if with_memory else None)
    return step, parameters, data, condition(law, rows, values)


def check_against_dense(step, parameters, data, answer):
    """Likelihood, means and covariances up to the widest lag that the E-step gives."""
    ours = expect(step, parameters, data)
    assert_allclose(ours.loglik, answer.loglik, rtol=1e-12)
    assert_allclose(ours.posterior.means, answer.means, atol=1e-11)
    num_times = len(answer.means)
    cov = answer.cov.reshape(num_times, NUM_FACTORS, num_times, NUM_FACTORS)
    for lag in range(min(ours.posterior.lag_covs.shape[0], num_times)):
        theirs = np.stack([cov[t, :, t - lag] for t in range(lag, num_times)])
        assert_allclose(ours.posterior.lag_covs[lag, lag:num_times], theirs, atol=1e-11)


@pytest.mark.parametrize("num_lags", [0, 1, 2])
def test_errors_with_memory_equal_dense_gaussian(num_lags):
    check_against_dense(*stock_case(num_lags))


@pytest.mark.parametrize("num_lags", [0, 2])
@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_flows_equal_dense_gaussian(name, with_memory, num_lags):
    check_against_dense(*mixed_case(name, num_lags, with_memory))


def test_flows_may_forget_where_stocks_remember():
    step, parameters, data, answer = mixed_case("months and quarters", 1, True, of_flows=False)
    assert data.coupling.pattern is None
    check_against_dense(step, parameters, data, answer)
    moved, _ = eqx.filter_jit(step)(parameters, data)
    moves = np.asarray(moved.idiosyncratic_ar != parameters.idiosyncratic_ar)
    assert (moves == (np.asarray(data.coupling.stocks) > 0)).all()


def test_likelihood_equals_large_state_smoother():
    step, parameters, data, _ = stock_case(2)
    space = ar_error_space(parameters)
    smoothed = space.smooth(data.values, data.observed > 0, implementation="univariate")
    ours = expect(step, parameters, data)
    assert_allclose(ours.loglik, smoothed.loglik, rtol=1e-10)
    assert_allclose(ours.posterior.means, smoothed.smoothed_means[:, :2], atol=1e-10)
    assert_allclose(ours.posterior.covs, smoothed.smoothed_covs[:, :2, :2], atol=1e-10)


def test_flows_with_memory_equal_large_state_smoother():
    base, index, frequencies, kinds = MIXED["months and quarters"]
    rows = aggregation_rows(index, base, tuple(frequencies), tuple(kinds))
    step, parameters, data, answer = mixed_case("months and quarters", 1, True)
    assert data.coupling.pattern is not None
    space = ar_error_space(parameters, weights=rows)
    filtered = space.filter(data.values, data.observed > 0, implementation="univariate")
    ours = expect(step, parameters, data)
    assert_allclose(ours.loglik, filtered.loglik, rtol=1e-10)
    check_against_dense(step, parameters, data, answer)


def test_flows_without_memory_keep_one_scalar():
    """At r = 0 the chain of ends changes nothing; without memory there is none."""
    name = "months and quarters"
    base, index, frequencies, kinds = MIXED[name]
    rows = aggregation_rows(index, base, tuple(frequencies), tuple(kinds))
    step, parameters, data, answer = mixed_case(name, 0, False)
    assert data.coupling.pattern is None
    assert data.coupling.flows_at(parameters).entering.shape[2] == 2
    errors = AutoregressiveErrors(1)
    coupling = make_coupling(errors, data.coupling.plan, data.observed, rows)
    zero = dataclasses.replace(parameters, idiosyncratic_ar=jnp.zeros(NUM_SERIES))
    assert coupling.flows_at(zero).entering.shape[2] == 3
    remembering = dataclasses.replace(data, coupling=coupling)
    ours = expect(dataclasses.replace(step, errors=errors), zero, remembering)
    assert_allclose(ours.loglik, answer.loglik, rtol=1e-12)
    assert_allclose(ours.posterior.means, answer.means, atol=1e-11)


def test_periods_of_a_single_row_are_refused_with_memory():
    rows = AggregationRows(
        np.array([0, 1]),
        np.array([np.arange(4), [1, 1, 2, 3]]),
        np.ones((2, 4)),
        np.full((2, 4), 4),
        np.zeros((2, 4)),
    )
    plan = plan_flows(rows)
    assert plan is not None and plan.longer_window is None
    assert make_coupling(IndependentErrors(), plan, jnp.ones((4, 2)), rows) is not None
    with pytest.raises(ValueError, match="has a single row of the panel"):
        make_coupling(AutoregressiveErrors(1), plan, jnp.ones((4, 2)), rows)


def test_step_and_derivative_lower_for_cuda():
    step, parameters, data, _ = mixed_case("months and quarters", 1, True)

    def verbs(parameters):
        def evidence(parameters):
            return step.expect(parameters, data).loglik

        return step(parameters, data), jax.value_and_grad(evidence)(parameters)

    exported = jax.export.export(jax.jit(verbs), platforms=["cuda"])(parameters)
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize("name", ["stocks", "months and quarters"])
def test_float32_stays_float32_and_close(name):
    case = stock_case(1) if name == "stocks" else mixed_case(name, 1, True)
    step, parameters, data, answer = case
    low = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf,
        (step, parameters, data),
    )
    step, parameters, data = low
    ours = expect(step, parameters, data)
    assert ours.loglik.dtype == ours.posterior.lag_covs.dtype == jnp.float32
    assert_allclose(ours.loglik, answer.loglik, rtol=1e-5)
    assert_allclose(ours.posterior.means, answer.means, atol=1e-4)
    moved, _ = eqx.filter_jit(step)(parameters, data)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(jnp.float32)}


def test_zero_coefficients_are_independent_errors():
    step, parameters, data, _ = stock_case(1)
    zero = dataclasses.replace(parameters, idiosyncratic_ar=jnp.zeros(NUM_SERIES))
    plain = dataclasses.replace(parameters, idiosyncratic_ar=None)
    iid = EMStep(ClosedForm(), jnp.asarray(0.0))
    ours = expect(step, zero, data)
    theirs = expect(iid, plain, PanelData(data.values, data.observed))
    assert_allclose(ours.loglik, theirs.loglik, rtol=1e-12)
    assert_allclose(ours.posterior.means, theirs.posterior.means, atol=1e-12)


def test_capped_gaps_err_by_the_reported_order():
    """A shorter memory changes the likelihood by no more than a few times its reported bound."""
    step, parameters, data, answer = stock_case(1)
    for longest in (2, 3, 4):
        errors = AutoregressiveErrors(longest)
        coupling = make_coupling(errors, None, data.observed, None)
        shorter = dataclasses.replace(data, coupling=coupling)
        gap = abs(float(expect(step, parameters, shorter).loglik) - answer.loglik)
        bound = np.asarray(gap_error(parameters.idiosyncratic_ar, data.observed, longest))
        assert 0 < gap < 10 * bound.sum()
    exact = gap_error(parameters.idiosyncratic_ar, data.observed, step.errors.longest_gap)
    assert np.all(np.asarray(exact) == 0)


def longer_case(flows):
    """One factor, six series, sixty months with gaps; two of the series quarterly if `flows`."""
    kinds = ("stock",) * 4 + (("change_in_flow", "flow_sum") if flows else ("stock",) * 2)
    frequencies = ("M",) * 4 + (("Q",) * 2 if flows else ("M",) * 2)
    index = pd.date_range("2000-01-31", periods=60, freq="ME")
    aggregation = aggregation_rows(index, "M", frequencies, kinds)
    plan = plan_flows(aggregation)
    world, ar = small_world(6, 1, 1, seed=4)
    ar = np.array([0.5, -0.3, 0.7, 0.2, 0.6, -0.2])
    rng = np.random.default_rng(5)
    observed = rng.random((60, 6)) < 0.85
    observed[1::7] = True  # no gap is long
    if aggregation is not None:
        for i, (frequency, kind) in enumerate(zip(frequencies, kinds, strict=True)):
            observed[:, i] &= np.asarray(aggregation_pattern(index, "M", frequency, kind).answered)
    law = dense_law(world, ar, 60)
    rows = cell_rows(observed) if aggregation is None else aggregated_rows(observed, aggregation)
    values = draw_values(law, rows)
    mask = jnp.asarray(observed, float)
    errors = AutoregressiveErrors(longest_gap(observed[:, :4]))
    coupling = make_coupling(errors, plan, mask, aggregation)
    data = PanelData(jnp.asarray(placed(observed, values)), mask, coupling=coupling)
    step = EMStep(
        ClosedForm(),
        jnp.asarray(1e-6),
        errors=errors,
        estimate_intercept=True,
        initial="estimated",
        presample=1,
    )
    return step, as_parameters(world, ar), data


@pytest.fixture(scope="module")
def converged():
    """EM with a free initial law run until nothing moves: a stationary point of the likelihood."""

    @eqx.filter_jit
    def run(step, parameters, data):
        return jax.lax.scan(lambda p, _: step(p, data), parameters, None, length=4000)

    answers = {}
    for name, flows in (("memory", False), ("flows", True)):
        step, parameters, data = longer_case(flows)
        answers[name] = (step, data, *run(step, parameters, data))
    return answers


@pytest.mark.parametrize("name", ["memory", "flows"])
def test_em_never_lowers_the_likelihood(converged, name):
    path = np.asarray(converged[name][3])
    assert np.diff(path).min() > -1e-9
    assert path[-1] > path[0] + 1


@pytest.mark.parametrize("name", ["memory", "flows"])
def test_em_ends_where_the_score_vanishes(converged, name):
    """Derivatives of the likelihood itself, by autodiff through the E-step."""
    step, data, parameters, _ = converged[name]

    @eqx.filter_jit
    def score(parameters):
        return jax.grad(lambda p: step.expect(p, data).loglik)(parameters)

    slope = score(parameters)
    assert np.asarray(parameters.variances).min() > 0.05
    assert np.abs(np.asarray(parameters.idiosyncratic_ar)).max() < 0.95
    assert np.abs(slope.loadings).max() < 1e-3
    assert np.abs(slope.intercept).max() < 1e-3
    assert np.abs(slope.idiosyncratic_cov).max() < 1e-3
    assert np.abs(slope.idiosyncratic_ar).max() < 1e-3
    assert np.abs(slope.transition).max() < 1e-3
    assert np.abs(slope.innovation_cov).max() < 1e-3


def test_kalman_moments_refuse_coupled_panels():
    step, parameters, data, _ = stock_case(1)
    with pytest.raises(ValueError, match="errors have memory"):
        dataclasses.replace(step, moments=KalmanMoments()).expect(parameters, data)
