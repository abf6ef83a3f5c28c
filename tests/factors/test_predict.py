"""Predictions against the dense joint law, and how they are shown at each series' own frequency."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from dense_panel import dense_law, dense_moments
from jaxfc.factors import EM, DynamicFactorModel, nowcast
from jaxfc.factors.bootstrap import BootstrapDraws
from jaxfc.factors.predict import predict
from jaxfc.native_rows import answered_rows
from jaxfc.panel import Panel
from jaxfc.results import RESULTS

NUM_TIMES, HORIZON, NUM_DRAWS = 24, 2, 3000


@pytest.fixture(scope="module")
def panel():
    """Three weekly series with holes and a ragged edge, and a monthly average."""
    rng = np.random.default_rng(2)
    factor = np.convolve(rng.normal(size=NUM_TIMES + 1), [1.0, 0.7], mode="valid")
    values = factor[:, None] * [1.0, 0.8, -0.9, 0.5] + 0.5 * rng.normal(size=(NUM_TIMES, 4))
    values[rng.random(values.shape) < 0.1] = np.nan
    values[-2:, 1:3] = np.nan
    index = pd.date_range("2020-01-03", periods=NUM_TIMES, freq="W-FRI")
    weekly = pd.DataFrame(5.0 + 3.0 * values[:, :3], index, list("abc"))
    months = pd.DataFrame(
        {"m": 1.0 + factor[4:21:4]}, pd.period_range("2020-01", periods=5, freq="M")
    )
    return Panel.from_frames({"W": weekly, "M": months}, kinds={"m": "flow_average"})


@pytest.fixture(scope="module")
def fitted(panel):
    model = DynamicFactorModel(1, 1, method=EM(max_steps=5), variance_floor=1e-2)
    return model.fit(panel, throw=False)


def open_cells(panel):
    """Cells that could be observed and are not."""
    return ~panel.observed & answered_rows(panel)


def moments_of(fitted, panel):
    """Conditional means and standard deviations of all cells."""
    return dense_moments(dense_law(fitted, panel), panel.values, panel.observed)


def test_means_and_spreads_are_those_of_the_dense_law(fitted, panel):
    result = predict(fitted, panel, horizon=HORIZON, num_draws=NUM_DRAWS, key=jax.random.key(0))
    mean, std = moments_of(fitted, panel.extend(HORIZON))
    missing = open_cells(result.panel)
    possible = answered_rows(result.panel)
    np.testing.assert_allclose(np.asarray(result.mean)[possible], mean[possible], atol=1e-10)
    assert np.all(np.asarray(result.std)[result.panel.observed] == 0.0)
    relative = np.asarray(result.std)[missing] / std[missing] - 1.0
    assert np.abs(relative).max() < 5.0 / np.sqrt(2 * NUM_DRAWS)
    upper = np.asarray(result.quantile(0.9))[missing]
    error = (upper - mean[missing]) / std[missing] - 1.2816
    assert np.abs(error).max() < 5.0 * 1.71 / np.sqrt(NUM_DRAWS)


def test_the_fitted_panel_has_the_nowcasts_of_nowcast(panel):
    panel = panel.select(["a", "b", "c"])
    fitted = DynamicFactorModel(1, 1, method=EM(max_steps=5)).fit(panel, throw=False)
    old = nowcast(fitted, panel, 2, key=jax.random.key(0))
    np.testing.assert_allclose(predict(fitted, panel).mean, old.mean, atol=1e-11)


def test_another_vintage_is_conditioned_on_as_a_whole(fitted, panel):
    vintage = panel.as_of("2020-05-01")
    for other in (vintage, panel.window(None, "2020-04-30")):
        mean, _ = moments_of(fitted, other)
        possible = answered_rows(other)
        ours = np.asarray(predict(fitted, other).mean)
        np.testing.assert_allclose(ours[possible], mean[possible], atol=1e-10)


def test_tables_at_each_series_own_frequency(fitted, panel):
    result = predict(fitted, panel, horizon=HORIZON, num_draws=50, key=jax.random.key(1))
    means = result.native()
    assert list(means) == ["W-FRI", "M"]
    assert list(means["W-FRI"].columns) == list("abc")
    assert means["W-FRI"].index[-1] == panel.index[-1] + pd.Timedelta(days=7 * HORIZON)
    monthly = means["M"]["m"]
    assert list(monthly.index) == list(pd.date_range("2020-01-31", periods=6, freq="ME"))
    last_weeks = [np.flatnonzero(result.panel.index <= end)[-1] for end in monthly.index]
    np.testing.assert_array_equal(monthly, np.asarray(result.mean)[last_weeks, 3])
    np.testing.assert_allclose(monthly.iloc[:5], panel.values[last_weeks[:5], 3])
    full = result.native(quantiles=(0.05, 0.95))["M"]
    assert list(full.columns) == [("m", s) for s in ("mean", "std", "q0.05", "q0.95")]
    assert full["m", "q0.05"].iloc[-1] < full["m", "q0.95"].iloc[-1]
    assert (full["m", "std"] == 0.0).tolist() == [True] * 5 + [False]
    assert "50 draws" in repr(result) and "no draws" in repr(predict(fitted, panel))


def test_draws_alternate_between_the_usable_sets_of_parameters(fitted, panel):
    own = fitted.parameters
    wide = dataclasses.replace(own, loadings=1.5 * own.loadings, intercept=own.intercept + 0.2)
    failed = dataclasses.replace(own, loadings=jnp.nan * own.loadings)
    sets = BootstrapDraws(
        parameters=jax.tree.map(lambda *leaves: jnp.stack(leaves), own, failed, wide),
        num_steps=jnp.ones(3, int),
        result=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3,)), RESULTS.successful),
    )
    options = {"num_draws": 1200, "batch_size": 400, "key": jax.random.key(4)}
    result = predict(fitted, panel, horizon=HORIZON, parameters=sets, **options)
    np.testing.assert_array_equal(result.mean, predict(fitted, panel, horizon=HORIZON).mean)
    missing = open_cells(result.panel)
    for first, parameters in enumerate((own, wide)):
        model = dataclasses.replace(fitted, parameters=parameters)
        mean, std = moments_of(model, result.panel)
        draws = np.asarray(result.draws)[first::2][:, missing]
        error = (draws.mean(axis=0) - mean[missing]) / std[missing]
        assert np.abs(error).max() < 5.0 / np.sqrt(len(draws))
        relative = draws.std(axis=0) / std[missing] - 1.0
        assert np.abs(relative).max() < 5.0 / np.sqrt(2 * len(draws))
    none = dataclasses.replace(
        sets, parameters=jax.tree.map(lambda x: jnp.nan * x, sets.parameters)
    )
    with pytest.raises(ValueError, match="no set of parameters is usable"):
        predict(fitted, panel, parameters=none, **options)


def test_refusals(fitted, panel):
    key = jax.random.key(0)
    for options, message in (
        ({"num_draws": 1, "key": key}, "at least 2"),
        ({"num_draws": 10}, "pass key="),
        ({"key": key}, "pass num_draws="),
        ({"horizon": -1}, "horizon must be zero or more"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(fitted, panel, **options)
    with pytest.raises(ValueError, match="the model was fitted to 4"):
        predict(fitted, panel.select(["a", "b"]))
    with pytest.raises(ValueError, match="have means only"):
        predict(fitted, panel).native(quantiles=())
    drawn = predict(fitted, panel, num_draws=2, key=key)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        drawn.native(quantiles=(0.5, 1.0))
