"""Every model times every verb: what the contracts promise, whatever the model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc import model as model_module
from jaxfc.evaluation.benchmarks import benchmark_models
from jaxfc.hierarchy import HierarchicalVAR
from jaxfc.results import is_okay
from jaxfc.volatility import GARCH, RiskMetrics, VarianceModel, ZeroMean

MODELS = {
    "dynamic factor model": jaxfc.DynamicFactorModel(1, 1, method=jaxfc.EM(rtol=1e-4)),
    "factor model, AR(1) errors": jaxfc.DynamicFactorModel(
        1, 1, method=jaxfc.EM(rtol=1e-4), errors=jaxfc.AutoregressiveErrors(longest_gap=3)
    ),
    "factor model, priors across series": jaxfc.DynamicFactorModel(
        1, 1, method=jaxfc.EM(rtol=1e-4), idiosyncratic="shrunk", intercept="random"
    ),
    "ARCH(1)": VarianceModel(GARCH(1, 0), mean=ZeroMean()),
    "RiskMetrics": VarianceModel(RiskMetrics()),
    "hierarchical VAR": HierarchicalVAR([0, 0, 1, 1], 2, [1.0, 2.0, 1.0, 1.0]),
    **benchmark_models(),
}
HORIZON = 3


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    factor = np.convolve(rng.normal(size=41), 0.7 ** np.arange(12), "valid")
    values = factor[:, None] * rng.uniform(0.5, 1.5, 4) + 0.6 * rng.normal(size=(30, 4))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[-1, 0] = np.nan
    index = pd.date_range("2010-01-31", periods=30, freq="ME")
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, list("WXYZ")))


@pytest.fixture(scope="module", params=MODELS)
def case(request, panel):
    model = MODELS[request.param]
    return model, model.fit(panel)


def test_fit_reports(case):
    _, fitted = case
    assert bool(is_okay(fitted.result))
    assert fitted.loglik.shape == () and np.isfinite(fitted.loglik)
    assert fitted.num_steps.shape == () and int(fitted.num_steps) >= 0


def test_fit_equals_estimate(case, panel):
    model, fitted = case
    again = eqx.filter_jit(model.estimate)(*panel.arrays())
    leaves = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (fitted, again))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_forecast_is_a_joint_law(case):
    _, fitted = case
    forecast = fitted.forecast(HORIZON)
    assert forecast.mean.shape == forecast.std.shape == (HORIZON, 4)
    assert forecast.cov.shape == (HORIZON, 4, HORIZON, 4)
    matrix = np.asarray(forecast.cov).reshape(HORIZON * 4, -1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10
    np.testing.assert_allclose(np.diag(matrix), np.asarray(forecast.std).ravel() ** 2, rtol=1e-10)
    low, middle, high = forecast.quantile(jnp.array([0.05, 0.5, 0.95]))
    np.testing.assert_allclose(middle, forecast.mean, atol=1e-10)
    np.testing.assert_allclose(high - low, 2 * 1.6448536269514722 * forecast.std, rtol=1e-8)


def test_forecast_operations_commute(case):
    """Summing over horizons and combining series in either order is the same law."""
    _, fitted = case
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)))
    one = fitted.forecast(HORIZON).cumulative().aggregate(weights)
    other = fitted.forecast(HORIZON).aggregate(weights).cumulative()
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-12)
    np.testing.assert_allclose(one.cov, other.cov, atol=1e-12)
    np.testing.assert_allclose(
        one.marginal(1).std[:, 0], np.sqrt(np.einsum("hihi->hi", one.cov))[:, 1], rtol=1e-12
    )


def test_draws_have_the_forecast_moments(case):
    _, fitted = case
    forecast = fitted.forecast(HORIZON)
    draws = np.asarray(forecast.sample(20_000, key=jax.random.key(0)))
    # 5 standard errors.
    error = np.abs(draws.mean(0) - forecast.mean) / (forecast.std / np.sqrt(len(draws)))
    assert error.max() < 5
    np.testing.assert_allclose(draws.std(0), forecast.std, rtol=5 / np.sqrt(2 * len(draws)))


def test_given_the_same_data_nothing_changes(case, panel):
    _, fitted = case
    again = fitted.given(*panel.arrays())
    np.testing.assert_allclose(again.forecast(2).mean, fitted.forecast(2).mean, atol=1e-9)
    np.testing.assert_allclose(again.forecast(2).std, fitted.forecast(2).std, atol=1e-9)


def test_impact_adds_up_and_sees_only_what_was_observed(case, panel):
    _, fitted = case
    found = jaxfc.impact(fitted, panel, 2, target="X")
    np.testing.assert_allclose(found.remainder, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.forecast, fitted.forecast(2).mean[:, 1], atol=1e-9)
    assert np.all(np.asarray(found.cells)[:, ~panel.observed] == 0.0)


def test_longer_horizons_extend_shorter_ones(case):
    _, fitted = case
    short, long = fitted.forecast(2), fitted.forecast(HORIZON)
    np.testing.assert_allclose(short.mean, long.mean[:2], atol=1e-12)
    np.testing.assert_allclose(short.cov, long.cov[:2, :, :2], atol=1e-12)


def test_simulate_needs_and_uses_the_key(case):
    _, fitted = case
    a = fitted.simulate(20, key=jax.random.key(0))
    assert a.shape == (20, 4) and np.isfinite(a).all()
    np.testing.assert_array_equal(a, fitted.simulate(20, key=jax.random.key(0)))
    assert not np.allclose(a, fitted.simulate(20, key=jax.random.key(1)))


def test_save_and_load(case, tmp_path):
    _, fitted = case
    path = tmp_path / "fitted.jaxfc"
    jaxfc.save(fitted, path)
    again = jaxfc.load(path)
    assert type(again) is type(fitted)
    np.testing.assert_array_equal(again.forecast(2).mean, fitted.forecast(2).mean)


def test_batch_of_vintages_equals_the_loop(case, panel):
    model, _ = case
    values, _ = panel.arrays()
    vintages = [panel.as_of(panel.index[row]) for row in (-4, -1)]
    masks = jnp.stack([v.arrays()[1] for v in vintages])

    @jax.jit
    def ahead(observed):
        return model.estimate(values, observed).forecast(1).mean

    batch = jax.jit(jax.vmap(ahead))(masks)
    for i in range(2):
        np.testing.assert_allclose(batch[i], ahead(masks[i]), atol=1e-8)


def test_vintages_share_one_trace(panel, monkeypatch):
    """`fit` compiles once for all vintages of a panel."""
    traces = []
    original = jaxfc.DynamicFactorModel.estimate

    def counted(self, values, observed, *, aggregation=None, key=None):
        traces.append(1)
        return original(self, values, observed, aggregation=aggregation, key=key)

    fresh = eqx.filter_jit(lambda m, v, o, a, k: counted(m, v, o, aggregation=a, key=k))
    monkeypatch.setattr(model_module, "jitted_estimate", fresh)
    model = MODELS["dynamic factor model"]
    for row in (-5, -3, -1):
        model.fit(panel.as_of(panel.index[row]))
    assert len(traces) == 1


def test_selection_criteria_lower_for_cuda(panel):
    values, observed = panel.arrays()

    def criteria(values, observed):
        return jaxfc.factor_criteria(values, observed, 2).modified

    exported = jax.export.export(jax.jit(criteria), platforms=["cuda"])(values, observed)
    assert exported.platforms == ("cuda",)
