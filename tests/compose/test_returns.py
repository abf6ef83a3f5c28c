"""The ARX model with factors: trajectories against loops, parts that add up, what is not seen."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.compose import FactorARX, SizeSelection, Trajectories, VolatilityScaled
from jaxfc.compose.arx_forecast import paths_of
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.paths import path_moments
from jaxfc.results import is_okay

pytestmark = pytest.mark.slow

NUM_WEEKS, NAMES = 90, ["a", "b", "c", "d", "e", "index"]
KEY = jax.random.key(7)
FACTORS = jaxfc.DynamicFactorModel(2, 2, method=jaxfc.EM(rtol=1e-4))
MODEL = FactorARX("index", FACTORS, 2, 2, intervals=Trajectories(200))


def frame(seed=0):
    rng = np.random.default_rng(seed)
    factors = np.zeros((NUM_WEEKS, 2))
    returns = np.zeros(NUM_WEEKS)
    for t in range(1, NUM_WEEKS):
        factors[t] = [0.8, -0.4] * factors[t - 1] + rng.normal(size=2)
        returns[t] = 0.002 + 0.2 * returns[t - 1] + 0.01 * factors[t - 1, 0]
        returns[t] += 0.01 * rng.normal()
    series = factors @ rng.normal(size=(2, 5)) + rng.normal(size=(NUM_WEEKS, 5))
    series[rng.random(series.shape) < 0.2] = np.nan
    dates = pd.date_range("2012-01-06", periods=NUM_WEEKS, freq="W-FRI")
    return pd.DataFrame(np.column_stack([series, returns]), dates, NAMES)


def certain(**on):
    off = {"factor_risk": False, "coefficient_risk": False, "residual_risk": False}
    return Trajectories(200, **{**off, **on})


def ahead(fitted, horizon=3, intervals=None, key=KEY):
    if intervals is not None:
        fitted = eqx.tree_at(lambda f: f.model.intervals, fitted, intervals)
    return jitted_forecast(fitted, horizon, key)


jitted_forecast = eqx.filter_jit(lambda f, h, k: f.forecast(h, key=k))


@pytest.fixture(scope="module")
def panel():
    return jaxfc.Panel.from_frame(frame())


@pytest.fixture(scope="module")
def fitted(panel):
    return MODEL.fit(panel)


def least_squares(returns, path):
    """q = s = 2 by loops: coefficients, residual variance, inverse Gram matrix."""
    columns = np.array(
        [[1.0, *returns[t - 2 : t][::-1], *path[t - 1], *path[t - 2]] for t in range(2, len(path))]
    )
    coefficients = np.linalg.lstsq(columns, returns[2:], rcond=None)[0]
    residuals = returns[2:] - columns @ coefficients
    variance = residuals @ residuals / (len(columns) - columns.shape[1])
    return coefficients, variance, np.linalg.inv(columns.T @ columns)


def carried(coefficients, returns, path, transition, horizon):
    """Returns and factors carried ahead one step at a time."""
    returns, path = list(returns), list(path)
    for _ in range(horizon):
        z = np.array([1.0, returns[-1], returns[-2], *path[-1], *path[-2]])
        returns.append(z @ coefficients)
        path.append(transition[0] @ path[-1] + transition[1] @ path[-2])
    return np.array(returns[-horizon:])


def test_without_uncertainty_it_is_the_plug_in_forecast(panel, fitted):
    returns = panel.to_frame()["index"].to_numpy()
    path = np.asarray(fitted.factors.factors)
    transition = np.asarray(fitted.factors.parameters.transition)
    coefficients, _, _ = least_squares(returns, path)
    expected = carried(coefficients, returns, path, transition, 3)
    forecast = ahead(fitted, intervals=certain())
    np.testing.assert_allclose(forecast.mean[:, 0], expected, atol=1e-12)
    assert float(forecast.std.max()) < 1e-14
    assert np.all(np.asarray(forecast.factor_risk) == 0.0)


def test_factor_paths_are_drawn_whole_and_regressed_on(panel, fitted):
    """One step ahead every draw is a regression on its own path."""
    returns = panel.to_frame()["index"].to_numpy()
    forecast = ahead(fitted, 1, certain(factor_risk=True))
    paths = paths_of(fitted, fitted.factors, key=jax.random.split(KEY, 3)[0])
    drawn = np.asarray(paths.mean + paths.deviations)
    expected = []
    for path in drawn:
        coefficients, _, _ = least_squares(returns, path)
        expected.append(carried(coefficients, returns, path, np.zeros((2, 2, 2)), 1)[0])
    np.testing.assert_allclose(forecast.draws[:, 0, 0], expected, atol=1e-11)


def test_paths_have_the_exact_law(fitted):
    moments = path_moments(fitted.factors, fitted_data(fitted.factors))
    many = eqx.tree_at(lambda f: f.model.intervals, fitted, Trajectories(4000))
    paths = paths_of(many, fitted.factors, key=KEY)
    np.testing.assert_allclose(paths.mean, moments.means, atol=1e-10)
    last = np.asarray(paths.deviations)[:, -2:].reshape(4000, 4)
    expected = np.asarray(moments.joint_cov(range(NUM_WEEKS - 2, NUM_WEEKS)))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs(np.cov(last.T) - expected).max() < 5 * (scale * np.sqrt(2 / 4000)).max()


def test_coefficients_and_residuals_have_their_variances(panel, fitted):
    returns = panel.to_frame()["index"].to_numpy()
    path = np.asarray(fitted.factors.factors)
    _, variance, inverse = least_squares(returns, path)
    z = np.array([1.0, returns[-1], returns[-2], *path[-1], *path[-2]])
    spread = np.sqrt(variance * z @ inverse @ z)
    for on, expected in [("coefficient_risk", spread), ("residual_risk", np.sqrt(variance))]:
        how = dataclasses.replace(certain(**{on: True}), num_draws=4000)
        std = float(ahead(fitted, 1, how).std[0, 0])
        assert abs(std / expected - 1.0) < 5 / np.sqrt(2 * 4000)


def test_parts_add_up(panel, fitted):
    forecast = ahead(fitted)
    parts = np.asarray(forecast.mean_parts())
    np.testing.assert_allclose(parts.sum(0), forecast.mean[:, 0], atol=1e-14)
    impact = np.asarray(forecast.impact_by_series).sum(1) + np.asarray(forecast.impact_base)
    np.testing.assert_allclose(impact, parts[1], atol=1e-14)
    assert np.all(np.asarray(forecast.impact_by_series)[:, 5] == 0.0)
    groups = {"first": ["a", "b"], "second": ["c", "d", "e"], "own": ["index"]}
    table = forecast.to_frame(panel.names, groups)
    np.testing.assert_allclose(table.drop(columns="forecast").sum(axis=1), table["forecast"])
    np.testing.assert_allclose(table["first"], forecast.impact_by_series[:, :2].sum(1))
    with pytest.raises(ValueError, match="exactly once; check e, index"):
        forecast.to_frame(panel.names, {"first": ["a", "b"], "second": ["c", "d"]})


def test_impact_by_differentiation_is_the_same(panel, fitted):
    """The factors' series through the panel, the target through its own lags."""
    forecast = ahead(fitted)
    centre = dict(zip("abcde", np.asarray(fitted.factors.scaling.centre), strict=True))
    found = jaxfc.impact(
        fitted, panel, 3, target="index", reference={**centre, "index": 0.0}, key=KEY
    )
    by_series = np.asarray(found.by_series)
    np.testing.assert_allclose(by_series[:, :5], forecast.impact_by_series[:, :5], atol=1e-10)
    np.testing.assert_allclose(found.forecast, forecast.mean[:, 0], atol=1e-14)
    np.testing.assert_allclose(found.remainder, 0.0, atol=1e-14)
    # What is left of AR nature is the intercept carried ahead, without the last returns.
    nature = np.asarray(forecast.mean_parts())[0]
    risks = np.asarray(forecast.mean_parts())[2:].sum(0)
    np.testing.assert_allclose(found.base + by_series[:, 5], nature + risks, atol=1e-10)


def test_given_other_data(panel, fitted):
    values, observed = panel.arrays()
    same = ahead(fitted.given(values, observed))
    np.testing.assert_allclose(same.draws, ahead(fitted).draws, atol=1e-12)
    moved = values.at[-1, 5].add(0.01)
    other = ahead(fitted.given(moved, observed), intervals=certain())
    plain = ahead(fitted, intervals=certain())
    returns = panel.to_frame()["index"].to_numpy()
    coefficients, _, _ = least_squares(returns, np.asarray(fitted.factors.factors))
    change = np.asarray(other.mean - plain.mean)[:2, 0]
    beta = coefficients[1:3]
    np.testing.assert_allclose(change, 0.01 * np.array([beta[0], beta[0] ** 2 + beta[1]]))


@pytest.fixture(scope="module")
def chosen(panel):
    model = FactorARX(
        "index", FACTORS, 3, 2, intervals=certain(factor_risk=True), selection=SizeSelection()
    )
    model = dataclasses.replace(model, factors=dataclasses.replace(FACTORS, num_factors=3))
    return model.fit(panel)


def test_a_chosen_model_is_the_model_of_that_size(panel, chosen):
    sizes = {name: int(number) for name, number in chosen.details().items()}
    assert 1 <= sizes["num_factors"] <= 3 and sizes["num_factor_lags"] <= max(sizes["num_lags"], 1)
    picked = jaxfc.select_model(dataclasses.replace(FACTORS), panel.select(list("abcde")), 3, 2)
    assert (sizes["num_factors"], sizes["num_lags"]) == (
        int(picked.num_factors),
        int(picked.num_lags),
    )
    alone = FactorARX(
        "index",
        dataclasses.replace(FACTORS, num_factors=sizes["num_factors"], num_lags=sizes["num_lags"]),
        sizes["num_own_lags"],
        sizes["num_factor_lags"],
        intervals=certain(),
    ).fit(panel)
    one = ahead(eqx.tree_at(lambda f: f.model.intervals, chosen, certain()), 2)
    np.testing.assert_allclose(one.mean, ahead(alone, 2).mean, atol=1e-7)
    np.testing.assert_allclose(chosen.loglik, alone.loglik, rtol=1e-7)


def test_autoregression(panel):
    from statsmodels.tsa.ar_model import AutoReg

    returns = panel.to_frame()["index"].to_numpy()
    model = FactorARX("index", None, 3, 0, intervals=certain())
    peer = AutoReg(returns, 3).fit()
    expected = peer.forecast(3)
    found = ahead(model.fit(panel), 3)
    np.testing.assert_allclose(found.mean[:, 0], expected, atol=1e-12)
    alone = ahead(model.fit(panel.select(["index"])), 3)
    np.testing.assert_allclose(alone.draws, found.draws, atol=1e-14)
    assert alone.impact_by_series.shape == (3, 1)
    picked = dataclasses.replace(model, selection=SizeSelection(min_factor_lags=0)).fit(panel)
    from statsmodels.tsa.ar_model import ar_select_order

    order = ar_select_order(returns, 3, ic="aic").ar_lags
    assert int(picked.sizes.num_own_lags) == (0 if order is None else len(order))


def test_later_returns_and_unobserved_cells_change_nothing(panel):
    values, observed = panel.arrays()
    factors = dataclasses.replace(FACTORS, method=jaxfc.PPCA())
    model = FactorARX(5, factors, 2, 2, intervals=Trajectories(5))
    hidden = observed.at[-6:, :5].set(False)

    def mean(data):
        return jnp.sum(model.estimate(data, hidden).forecast(1, key=KEY).mean)

    gradient = np.asarray(jax.jit(jax.grad(mean))(values))
    assert np.all(gradient[~np.asarray(hidden)] == 0.0)
    assert np.any(gradient[-1] != 0.0)


def test_simulated_returns_have_the_model_moments(fitted):
    path = np.asarray(fitted.simulate(4000, key=jax.random.key(1)))
    assert path.shape == (4000, 1)
    returns = np.asarray(fitted.data.returns)
    assert 0.6 < path.std() / returns.std() < 1.6
    np.testing.assert_array_equal(path, fitted.simulate(4000, key=jax.random.key(1)))


def test_it_lowers_for_cuda(panel):
    model = eqx.tree_at(lambda m: m.intervals, MODEL.resolved(panel), Trajectories(5))

    def mean(values, observed, key):
        return model.estimate(values, observed).forecast(1, key=key).mean

    exported = jax.export.export(jax.jit(mean), platforms=["cuda"])(*panel.arrays(), KEY)
    assert exported.platforms == ("cuda",)


def test_two_step_estimation_of_a_mixed_panel(panel):
    """Factors and impact are those of the panel that the estimation rebuilt."""
    weekly = panel.to_frame()[["a", "b", "c", "index"]].fillna(0.0)
    monthly = pd.DataFrame({"m": panel.to_frame()["d"].fillna(0.0).resample("ME").sum()})
    mixed = jaxfc.Panel.from_frames(
        {"W": weekly, "M": monthly.iloc[:-1]}, kinds={"m": "flow_sum"}, delays={"m": "10D"}
    )
    method = jaxfc.TwoStepEM(restart=False, conditional_cov=True, max_steps=4)
    factors = jaxfc.DynamicFactorModel(1, 1, method=method)
    model = FactorARX("index", factors, 1, 1, intervals=certain())
    fitted = model.fit(mixed, throw=False)
    forecast = ahead(fitted, 1)
    impact = np.asarray(forecast.impact_by_series)[0]
    assert impact.shape == (5,) and impact[mixed.names.index("m")] != 0.0
    np.testing.assert_allclose(impact.sum(), forecast.factor_impact[0, 0, 0], atol=1e-14)
    with pytest.raises(ValueError, match="TwoStepEM conditions its factors"):
        fitted.given(*mixed.arrays(), aggregation=mixed.aggregation)


def test_an_unknown_last_return_gives_no_forecast(panel, fitted):
    """No zero stands for it, and the result says so."""
    values, observed = panel.arrays()
    now = fitted.given(values, observed.at[-1, 5].set(False))
    assert not bool(is_okay(now.result))
    assert np.all(np.isnan(ahead(now).mean))
    fine = fitted.given(values, observed.at[-4, 5].set(False))
    assert bool(is_okay(fine.result)) and np.all(np.isfinite(ahead(fine).mean))
    alone = FactorARX(0, None, 1, 0).estimate(values[:, 5:], observed[:, 5:].at[-1].set(False))
    assert not bool(is_okay(alone.result))


def test_simulation_does_not_follow_the_options_of_intervals(fitted):
    quiet = eqx.tree_at(lambda f: f.model.intervals, fitted, certain())
    paths = [f.simulate(300, key=jax.random.key(1)) for f in (fitted, quiet)]
    np.testing.assert_array_equal(*paths)


def test_single_precision(panel):
    values, observed = panel.arrays()
    model = dataclasses.replace(MODEL.resolved(panel), intervals=Trajectories(50))
    low = model.estimate(values.astype(jnp.float32), observed).forecast(2, key=KEY)
    assert low.mean.dtype == jnp.float32
    wide = model.estimate(values, observed).forecast(2, key=KEY)
    np.testing.assert_allclose(low.std, wide.std, rtol=0.5)


def test_bad_input(panel):
    with pytest.raises(ValueError, match="no series 'gold'"):
        FactorARX("gold", FACTORS).fit(panel)
    with pytest.raises(ValueError, match="has no value on 2013-09-20"):
        MODEL.fit(jaxfc.Panel.from_frame(frame().iloc[:, ::-1].assign(index=late())))
    with pytest.raises(ValueError, match="7 usable rows"):
        MODEL.fit(panel.window(0, 9))
    with pytest.raises(ValueError, match="exceeds the 2 lags"):
        FactorARX("index", FACTORS, 1, 3)
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match="is no column of 6 series"):
            FactorARX(wrong, FACTORS).fit(panel)
    with pytest.raises(ValueError, match="min_own_lags must lie between 0 and 2, got 5"):
        FactorARX("index", FACTORS, 2, 1, selection=SizeSelection(min_own_lags=5))
    with pytest.raises(ValueError, match="min_factor_lags must lie between 0 and 1, got 2"):
        FactorARX("index", FACTORS, 2, 2, selection=SizeSelection(min_factor_lags=2))
    with pytest.raises(ValueError, match="decay must lie in"):
        VolatilityScaled(1.5)
    with pytest.raises(ValueError, match="go together"):
        FactorARX("index", None, 1, 1)
    with pytest.raises(ValueError, match="no law"):
        FactorARX("index", jaxfc.DynamicFactorModel(1, 1, method=jaxfc.PCA()))
    with pytest.raises(ValueError, match="pass key"):
        FactorARX("index", None, 1, 0).fit(panel).forecast(1)
    with pytest.raises(ValueError, match="no forecast of 'a'"):
        jaxfc.impact(FactorARX("index", None, 1, 0).fit(panel), panel, target="a", key=KEY)


def late():
    """The target without its last value."""
    column = frame()["index"].copy()
    column.iloc[-1] = np.nan
    return column
