"""Impulse responses: companion powers, statsmodels, forecasts of a moved state, bands by a loop."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from factor_worlds import make_world, simulate
from jaxfc.factors.bootstrap import BootstrapDraws
from jaxfc.factors.identify import rotate_parameters
from jaxfc.factors.impulse import impulse_responses
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.panel import Panel
from jaxfc.results import RESULTS, SUCCESSFUL

pytestmark = pytest.mark.slow

HORIZON = 6
DIVERGED = cast(RESULTS, RESULTS.diverged)


def fit(num_lags):
    values, _, _ = simulate(make_world(6, 2, num_lags, seed=3), 60)
    index = pd.date_range("2001-01-31", periods=60, freq="ME")
    frame = pd.DataFrame(10.0 + 3.0 * values, index, list("abcdef"))
    fitted = DynamicFactorModel(2, num_lags).fit(Panel.from_frame(frame))
    assert isinstance(fitted, FittedFactorModel)
    return fitted


@pytest.fixture(scope="module")
def fitted():
    return fit(2)


@pytest.mark.parametrize("identification", ["cholesky", "generalised"])
def test_responses_are_powers_of_the_companion_matrix(fitted, identification):
    cov = np.asarray(fitted.parameters.innovation_cov)
    impact = np.linalg.cholesky(cov)
    if identification == "generalised":
        impact = np.stack([cov[:, j] / np.sqrt(cov[j, j]) for j in range(2)], axis=1)
    companion = np.eye(4, k=-2)
    companion[:2] = np.concatenate(list(np.asarray(fitted.parameters.transition)), axis=1)
    powers = [np.linalg.matrix_power(companion, h)[:2, :2] @ impact for h in range(HORIZON + 1)]
    scale, loadings = np.asarray(fitted.scaling.scale), np.asarray(fitted.parameters.loadings)
    ours = impulse_responses(fitted, HORIZON, identification=identification)
    assert_allclose(ours.factors, powers, atol=1e-12)
    assert_allclose(ours.series, [np.diag(scale) @ loadings @ p for p in powers], atol=1e-12)
    assert ours.factor_bands is None and ours.series_bands is None


def test_responses_equal_those_of_statsmodels(fitted):
    pytest.importorskip("statsmodels", reason="needs statsmodels (extra 'data')")
    from statsmodels.tsa.vector_ar.var_model import VARProcess

    coefficients = np.asarray(fitted.parameters.transition)
    cov = np.asarray(fitted.parameters.innovation_cov)
    theirs = VARProcess(coefficients, np.zeros((2, 1)), cov).orth_ma_rep(HORIZON)
    assert_allclose(impulse_responses(fitted, HORIZON).factors, theirs, atol=1e-12)


def test_a_shock_in_the_last_row_moves_the_forecast_by_the_response(fitted):
    ours = impulse_responses(fitted, HORIZON)
    for shock in range(2):
        moved = fitted.last_mean.at[-2:].add(ours.factors[0, :, shock])
        shocked = dataclasses.replace(fitted, last_mean=moved).forecast(HORIZON)
        change = shocked.mean - fitted.forecast(HORIZON).mean
        assert_allclose(change, ours.series[1:, :, shock], atol=1e-11)


def test_static_factors_have_no_memory():
    ours = impulse_responses(fit(0), 3)
    assert_allclose(ours.factors[0], np.eye(2), atol=1e-12)
    assert np.all(np.asarray(ours.factors[1:]) == 0.0)


@pytest.fixture(scope="module")
def draws(fitted):
    """Five sets of parameters around the fit, rotated at random; the last is marked as failed."""
    rng = np.random.default_rng(0)
    members = []
    for _ in range(5):
        noise = 1.0 + 0.1 * jnp.asarray(rng.normal(size=(6, 2)))
        near = dataclasses.replace(
            fitted.parameters,
            loadings=fitted.parameters.loadings * noise,
            transition=fitted.parameters.transition * noise[0, 0],
        )
        turn = jnp.asarray(np.linalg.qr(rng.normal(size=(2, 2)))[0])
        members.append(rotate_parameters(near, turn))
    parameters = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    codes = jax.vmap(lambda i: RESULTS.where(i == 4, DIVERGED, SUCCESSFUL))(jnp.arange(5))
    return BootstrapDraws(parameters, jnp.zeros(5, int), codes)


def test_bands_are_quantiles_of_the_usable_draws_in_the_rotation_of_the_fit(fitted, draws):
    target = np.asarray(fitted.parameters.loadings)
    factors, series = [], []
    for i in range(4):
        member = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), draws.parameters)
        left, _, right = np.linalg.svd(member.loadings.T @ target)
        turn = left @ right  # W turn is nearest to the target, so factors are turned by turn'
        cov = turn.T @ member.innovation_cov @ turn
        transition = [turn.T @ a @ turn for a in member.transition]
        psi = [np.eye(2), transition[0]]
        for _ in range(2, HORIZON + 1):
            psi.append(transition[0] @ psi[-1] + transition[1] @ psi[-2])
        paths = np.stack(psi) @ np.linalg.cholesky(cov)
        factors.append(paths)
        series.append(np.asarray(fitted.scaling.scale)[:, None] * (member.loadings @ turn @ paths))
    with pytest.warns(UserWarning, match="1 of 5 draws failed"):
        ours = impulse_responses(fitted, HORIZON, draws=draws, level=0.8)
    assert ours.factor_bands is not None and ours.series_bands is not None
    assert_allclose(ours.factor_bands, np.quantile(factors, [0.1, 0.9], axis=0), atol=1e-12)
    assert_allclose(ours.series_bands, np.quantile(series, [0.1, 0.9], axis=0), atol=1e-12)

    table = ours.to_frame(list("abcdef"))
    assert len(table) == 2 * 6 * (HORIZON + 1)
    row = table.loc[(2, "c", 3)]
    assert row["response"] == ours.series[3, 2, 1]
    assert row["lower"] == ours.series_bands[0, 3, 2, 1]
    assert row["upper"] == ours.series_bands[1, 3, 2, 1]
    assert ours.to_frame().loc[(1, 2, 0), "response"] == ours.factors[0, 1, 0]


def test_bad_arguments_are_refused(fitted, draws):
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        impulse_responses(fitted, 0)
    with pytest.raises(ValueError, match="identification must be one of"):
        impulse_responses(fitted, 2, identification="long_run")
    with pytest.raises(ValueError, match="level must be between"):
        impulse_responses(fitted, 2, level=90.0)
    with pytest.raises(ValueError, match="are not draws of this one"):
        impulse_responses(fit(0), 2, draws=draws)
    with pytest.raises(ValueError, match="5 names for 6 series"):
        impulse_responses(fitted, 2).to_frame(list("abcde"))
    few = jax.tree.map(lambda leaf: leaf[3:], draws)
    with pytest.raises(ValueError, match="1 of 2 draws are usable"):
        impulse_responses(fitted, 2, draws=few)
