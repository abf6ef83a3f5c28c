"""The law of the panel given any cells, and forecasts with memory, against dense Gaussian
algebra."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from coupled_worlds import aggregated_rows, condition, dense_law
from factor_worlds import World
from jaxfc.factors.error_paths import draw_errors, expected_errors
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.panel_law import covering, expected_panel, sample_panel
from jaxfc_kernels.aggregation import identity_rows

pytestmark = pytest.mark.slow

NUM_TIMES, HORIZON = 24, 3


@pytest.fixture(scope="module")
def panel():
    """Four monthly series with gaps and ragged edges, a quarterly growth rate, some memory."""
    rng = np.random.default_rng(0)
    months = pd.date_range("2010-01-31", periods=NUM_TIMES, freq="ME")
    factor = np.convolve(rng.normal(size=NUM_TIMES + 11), 0.7 ** np.arange(12), "valid")
    errors = rng.normal(size=(NUM_TIMES, 4))
    for t in range(1, NUM_TIMES):
        errors[t] += np.array([0.6, -0.5, 0.3, 0.0]) * errors[t - 1]
    values = factor[:, None] * rng.uniform(0.5, 1.5, 4) + errors
    values[rng.random(values.shape) < 0.2] = np.nan
    values[-1, 0] = values[-2:, 1] = np.nan
    monthly = pd.DataFrame(values, months, list("WXYZ"))
    growth = 3.0 * factor[5::3] + rng.normal(size=7)
    quarterly = pd.DataFrame({"GDP": growth}, months[5::3])
    return jaxfc.Panel.from_frames({"M": monthly, "Q": quarterly}, kinds={"GDP": "change_in_flow"})


@pytest.fixture(scope="module")
def fitted(panel):
    model = jaxfc.DynamicFactorModel(
        1, 1, method=jaxfc.EM(rtol=1e-4), errors=AutoregressiveErrors(), standardise=True
    )
    return model.fit(panel)


def dense_answer(fitted, panel):
    """Law of the panel in data units at the fitted parameters, given its observed cells."""
    parameters = fitted.parameters
    world = World(
        *(
            np.asarray(getattr(parameters, name))
            for name in (
                "loadings",
                "intercept",
                "idiosyncratic_cov",
                "transition",
                "innovation_cov",
                "initial_mean",
                "initial_cov",
            )
        )
    )
    law = dense_law(world, np.asarray(parameters.idiosyncratic_ar), panel.num_times)
    rows = aggregated_rows(panel.observed, panel.aggregation)
    values, observed = panel.arrays()
    standardised = fitted.scaling.standardise(
        values, observed.astype(values.dtype), panel.aggregation
    )
    answer = condition(law, rows, np.asarray(standardised)[panel.observed])
    scale = np.asarray(fitted.scaling.scale)
    mean = np.asarray(fitted.scaling.restore(jnp.asarray(answer.panel)))
    shape = (panel.num_times, panel.num_series) * 2
    cov = answer.panel_cov.reshape(shape) * scale[:, None, None] * scale
    return mean, cov


def test_expected_panel_equals_dense_gaussian(fitted, panel):
    extended = panel.extend(HORIZON)
    mean, _ = dense_answer(fitted, extended)
    ours = expected_panel(fitted, *extended.arrays(), extended.aggregation)
    assert_allclose(ours, mean, atol=1e-9)


def test_forecast_equals_dense_gaussian(fitted, panel):
    mean, cov = dense_answer(fitted, panel.extend(HORIZON))
    forecast = fitted.forecast(HORIZON)
    assert_allclose(forecast.mean, mean[-HORIZON:], atol=1e-9)
    assert_allclose(forecast.cov, cov[-HORIZON:, :, -HORIZON:, :], atol=1e-9)
    total = forecast.cumulative()
    assert_allclose(total.std[-1], np.sqrt(cov[-HORIZON:, :, -HORIZON:].sum((0, 2)).diagonal()))
    weights = jnp.asarray([[0.2, 0.3, 0.1, 0.4, 0.0]])
    portfolio = np.einsum("i,hikj,j->hk", weights[0], forecast.cov, weights[0])
    assert_allclose(forecast.aggregate(weights).std[:, 0] ** 2, portfolio.diagonal(), rtol=1e-10)


def test_draws_have_the_dense_moments(fitted, panel):
    extended = panel.extend(HORIZON)
    mean, cov = dense_answer(fitted, extended)
    draws = np.asarray(
        eqx.filter_jit(sample_panel)(
            fitted,
            *extended.arrays(),
            4000,
            key=jax.random.key(0),
            aggregation=extended.aggregation,
        )
    )
    std = np.sqrt(np.einsum("titi->ti", cov).clip(0))
    error = np.abs(draws.mean(0) - mean)
    assert np.all(error <= 5 * std / np.sqrt(4000) + 1e-9)
    spread = draws.std(0)
    loose = std > 1e-6
    assert_allclose(spread[loose], std[loose], rtol=5 / np.sqrt(2 * 4000))
    assert spread[~loose].max() < 1e-6  # what was observed by itself does not vary
    # Rows of the quarterly series add up to what was observed in every draw.
    growth = panel.native(draws[0, :NUM_TIMES])["GDP"].to_numpy()
    seen = panel.observed[:, 4]
    assert_allclose(growth[seen], panel.values[seen, 4], atol=1e-8)


def test_nowcasts_of_a_one_step_fit_are_exact(fitted, panel):
    """Flows and errors with memory: means by the dense law, spread where nothing was observed."""
    mean, cov = dense_answer(fitted, panel)
    ours = jaxfc.nowcast(fitted, panel, 2000, key=jax.random.key(2))
    assert_allclose(ours.mean, mean, atol=1e-9)
    std = np.sqrt(np.einsum("titi->ti", cov).clip(0))
    loose = std > 1e-6
    assert_allclose(np.asarray(ours.std)[loose], std[loose], rtol=5 / np.sqrt(2 * 2000))
    assert np.asarray(ours.std)[~loose].max() < 1e-6


def test_a_future_cell_has_no_weight_before_it_is_observed(fitted, panel):
    values, observed = panel.arrays()

    def nowcast(values):
        return expected_panel(fitted, values, observed, panel.aggregation)[-1, 0]

    weights = np.asarray(jax.grad(nowcast)(values))
    assert np.all(weights[~panel.observed] == 0)
    assert np.abs(weights[panel.observed]).max() > 0


def test_another_vintage_with_longer_gaps_stays_exact(fitted, panel):
    """A gap longer than any of the fitted panel: `covering` makes the law remember across it."""
    hidden = panel.observed.copy()
    hidden[8:17, 0] = False
    vintage = dataclasses.replace(panel, observed=hidden)
    wider = covering(fitted, vintage.observed)
    assert wider.model.errors.longest_gap > fitted.model.errors.longest_gap
    mean, _ = dense_answer(fitted, vintage)
    ours = expected_panel(wider, *vintage.arrays(), vintage.aggregation)
    assert_allclose(ours, mean, atol=1e-9)
    without = panel.observed.copy()
    without[5:, -1] = False
    without[-1, -1] = True  # a gap of 18 months between two figures of a flow is none
    assert covering(fitted, without) is fitted


def test_two_step_parameters_have_the_same_exact_law(panel):
    """Whatever estimated the parameters: the law of the panel given them is the exact one."""
    method = jaxfc.TwoStepEM(conditional_cov=True, restart=False, max_steps=3)
    fitted = jaxfc.DynamicFactorModel(1, 1, method=method).fit(panel, throw=False)
    ar = jnp.zeros(panel.num_series)
    with_ar = dataclasses.replace(
        fitted, parameters=dataclasses.replace(fitted.parameters, idiosyncratic_ar=ar)
    )
    mean, _ = dense_answer(with_ar, panel)
    assert_allclose(expected_panel(fitted, *panel.arrays(), panel.aggregation), mean, atol=1e-9)


@pytest.mark.parametrize("ar", [0.8, -0.6, 0.0])
def test_errors_between_known_dates(ar):
    rng = np.random.default_rng(1)
    observed = np.zeros(12, bool)
    observed[[2, 3, 7, 9]] = True
    distance = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    cov = float(ar) ** distance
    known = rng.normal(size=4)
    dense = cov[:, observed] @ np.linalg.solve(cov[np.ix_(observed, observed)], known)
    values = np.full(12, 1e9)
    values[observed] = known
    ours = expected_errors(
        jnp.asarray(values)[:, None], jnp.asarray(observed, float)[:, None], jnp.asarray([ar])
    )
    assert_allclose(ours[:, 0], dense, atol=1e-12)


def test_drawn_errors_are_stationary():
    draws = draw_errors(
        jnp.array([2.0, 0.5]), jnp.array([0.9, -0.5]), 6, 20_000, key=jax.random.key(1)
    )
    assert_allclose(np.var(draws, axis=0), np.tile([2.0, 0.5], (6, 1)), rtol=0.06)
    lagged = np.mean(np.asarray(draws[:, 1:] * draws[:, :-1]), axis=(0, 1))
    assert_allclose(lagged, [1.8, -0.25], rtol=0.06)


def test_rows_of_identity_change_nothing(fitted, panel):
    """Aggregation rows that aggregate nothing are no aggregation."""
    names = ["W", "X", "Y", "Z"]
    part = panel.select(names)
    model = jaxfc.DynamicFactorModel(1, 1, method=jaxfc.EM(rtol=1e-3))
    plain = model.fit(part)
    rows = identity_rows(part.num_times, part.num_series, jnp.float64)
    ours = expected_panel(plain, *part.arrays(), rows)
    assert_allclose(ours, expected_panel(plain, *part.arrays()), atol=1e-12)
