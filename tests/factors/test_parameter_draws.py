"""Draws from the curvature: their law, what is not usable, forecasts and coverage with them."""

import jax
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from benchmarks.interval_coverage import table
from factor_worlds import make_world, simulate
from jaxfc.factors.bootstrap import forecast_with_uncertainty
from jaxfc.factors.free_parameters import free_parameters, identified, separate_rows
from jaxfc.factors.methods import EM, PPCA
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.parameter_draws import hessian_draws
from jaxfc.factors.standard_errors import standard_errors
from jaxfc.panel import Panel
from jaxfc.results import RESULTS

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)
MODEL = DynamicFactorModel(2, 1, method=EM(rtol=1e-6, max_steps=2000), intercept="estimated")


def panel_of(values):
    index = pd.date_range("2001-01-31", periods=len(values), freq="ME")
    return Panel.from_frame(pd.DataFrame(values, index, [f"s{i}" for i in range(values.shape[1])]))


def fit(model, panel, *, throw=True):
    """`model.fit`, with the type that it has for this family."""
    fitted = model.fit(panel, throw=throw)
    assert isinstance(fitted, FittedFactorModel)
    return fitted


@pytest.fixture(scope="module")
def panel():
    values, observed, _ = simulate(
        make_world(5, 2, 1, seed=2, roots=(0.2, 0.5)), 80, seed=4, missing=0.1
    )
    return panel_of(np.where(observed, values, np.nan))


@pytest.fixture(scope="module")
def fitted(panel):
    return fit(MODEL, panel)


@pytest.fixture(scope="module")
def draws(fitted, panel):
    return hessian_draws(fitted, panel, 40, key=KEY)


def member(draws, index):
    return jax.tree.map(lambda leaf: leaf[index], draws.parameters)


def test_draws_are_normal_around_the_estimate_with_the_inverse_hessian(fitted, panel, draws):
    """Vectors recovered from the draws are theta + B z with the noise of their keys, B B' = H^{-1},
    and H in logarithms of variances follows from the one of `standard_errors` by hand."""
    rows = separate_rows(np.asarray(fitted.parameters.loadings))
    free = free_parameters(fitted, rows, unconstrained=True)
    centre = np.asarray(free.pack(identified(fitted.parameters, rows)))
    noise = np.stack(
        [jax.random.normal(jax.random.fold_in(KEY, i), centre.shape) for i in range(40)]
    )
    vectors = np.stack(
        [np.asarray(free.pack(identified(member(draws, i), rows))) for i in range(40)]
    )
    # More draws than parameters: B is what regresses the deviations on the noise, without a rest.
    root, rest, rank, _ = np.linalg.lstsq(noise, vectors - centre, rcond=None)
    assert rank == len(centre) < 40 and np.all(rest < 1e-16)

    ours = standard_errors(fitted, panel, series=[f"s{i}" for i in rows])
    hessian = np.linalg.inv(np.asarray(ours.cov))
    place = ours.free.places["variances"]
    slopes = np.ones(len(centre))
    slopes[place] = np.asarray(ours.vector[place])
    bend = np.zeros(len(centre))
    bend[place] = np.asarray(ours.score[place] * ours.vector[place])
    expected = np.linalg.inv(slopes[:, None] * hessian * slopes - np.diag(bend))
    scale = np.sqrt(np.diag(expected))
    found = root.T @ root
    assert_allclose(found / scale[:, None] / scale, expected / scale[:, None] / scale, atol=1e-7)


def test_draws_are_in_the_units_and_the_rotation_of_the_fit(fitted, draws):
    assert int(draws.num_failed) == 0
    loadings = np.asarray(draws.parameters.loadings)
    assert loadings.shape == (40, 5, 2)
    products = np.einsum("dik,il->dkl", loadings, np.asarray(fitted.parameters.loadings))
    assert_allclose(products, products.swapaxes(1, 2), atol=1e-10)  # nearest rotation
    spread, distance = loadings.std(0), np.abs(loadings.mean(0) - fitted.parameters.loadings)
    assert np.all(spread > 0.01) and np.all(distance < 4 * spread / np.sqrt(40))
    assert np.all(np.asarray(draws.parameters.idiosyncratic_cov) > 0)


def test_nonstationary_draws_are_counted_not_replaced(panel):
    """A factor near its unit root, and few rows: which draws are out is what numpy says."""
    rng = np.random.default_rng(3)
    factor = np.cumsum(rng.normal(size=(30, 1)), axis=0)
    walk = panel_of(factor * [1.0, 0.8, 1.2] + 0.5 * rng.normal(size=(30, 3)))
    fitted = fit(DynamicFactorModel(1, 1, method=EM(rtol=1e-5, max_steps=500)), walk)
    draws = hessian_draws(fitted, walk, 100, key=KEY)
    outside = np.abs(np.asarray(draws.parameters.transition)[:, 0, 0, 0]) >= 1.0
    assert 0 < outside.sum() < 100
    assert np.array_equal(~np.asarray(draws.usable), outside)
    codes = np.asarray(draws.result == RESULTS.nonstationary)
    assert np.array_equal(codes, outside) and int(draws.num_failed) == outside.sum()
    with pytest.warns(UserWarning, match="draws from the curvature are not stationary"):
        found = forecast_with_uncertainty(fitted, walk, 1, 100, key=KEY, parameters="hessian")
    assert 50 < found.draws.shape[0] < 100


def test_without_a_curvature_nothing_is_usable():
    """Two series, one static factor: four numbers, three moments."""
    rng = np.random.default_rng(0)
    panel = panel_of(rng.normal(size=(40, 1)) + 0.5 * rng.normal(size=(40, 2)))
    fitted = fit(DynamicFactorModel(1, 0), panel)
    draws = hessian_draws(fitted, panel, 3, key=KEY)
    assert int(draws.num_failed) == 3 and np.all(np.asarray(draws.result == RESULTS.diverged))
    with pytest.raises(RuntimeError, match="no curvature to come from"):
        forecast_with_uncertainty(fitted, panel, 1, 3, key=KEY, parameters="hessian")


def test_a_static_model_and_a_free_initial_law_draw_too(panel):
    for model in (
        DynamicFactorModel(1, 0, idiosyncratic="isotropic"),
        DynamicFactorModel(1, 1, initial="estimated", method=EM(rtol=1e-4)),
    ):
        fitted = fit(model, panel)
        draws = hessian_draws(fitted, panel, 4, key=KEY, batch_size=4)
        assert int(draws.num_failed) == 0
        variances = np.asarray(draws.parameters.idiosyncratic_cov)
        assert (np.ptp(variances, axis=1) < 1e-12).all() == (model.num_lags == 0)


def test_forecasts_spread_with_the_parameters(fitted, panel):
    """Total variance = variance given parameters + variance of the mean over parameters."""
    found = forecast_with_uncertainty(fitted, panel, 2, 200, key=KEY, parameters="hessian")
    ratio = np.asarray(found.std) / np.asarray(fitted.forecast(2).std)
    assert found.draws.shape == (200, 2, 5)
    assert 1.0 < ratio.mean() < 1.3


def test_unsuitable_requests_are_refused(fitted, panel):
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        hessian_draws(fitted, panel, 0, key=KEY)
    with pytest.raises(ValueError, match="is not the one that was fitted"):
        hessian_draws(fitted, panel.extend(1), 2, key=KEY)
    with pytest.raises(ValueError, match="parameters must be one of"):
        forecast_with_uncertainty(fitted, panel, 1, 5, key=KEY, parameters="jackknife")
    with pytest.raises(ValueError, match="leave `start` out"):
        forecast_with_uncertainty(
            fitted, panel, 1, 5, key=KEY, parameters="hessian", start="fitted"
        )
    with pytest.raises(ValueError, match="does not look for"):
        hessian_draws(fit(DynamicFactorModel(1, 1, method=PPCA()), panel), panel, 2, key=KEY)


def test_intervals_with_uncertain_parameters_cover_nearer_to_their_level():
    """60 panels of 20 rows; the probability of each interval under the true law, not hits."""
    plug_in, hessian = table(("plug-in", "hessian"), 20, 60, 200, key=jax.random.key(1))
    assert plug_in["failed"] <= 6
    assert 0.78 < plug_in["coverage"] < hessian["coverage"] - 0.015
    assert hessian["coverage"] < 0.92
    assert plug_in["width_over_true"] < hessian["width_over_true"]


@pytest.mark.slow
def test_coverage_comes_nearer_to_nominal_as_panels_grow():
    """The gain from the curvature is largest where rows are few, and never a loss."""
    gaps = []
    for num_times in (20, 40, 80):
        plug_in, hessian = table(("plug-in", "hessian"), num_times, 100, 300, key=jax.random.key(2))
        gaps.append((0.9 - plug_in["coverage"], 0.9 - hessian["coverage"]))
    assert all(-0.01 < after < before for before, after in gaps), gaps
    assert gaps[0] > gaps[1] > gaps[2], gaps
