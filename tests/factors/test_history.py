"""History splits exactly, into what plain loops and finite differences say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, PCA, DynamicFactorModel, TwoStepEM, identify
from jaxfc.factors.condition import condition, fitted_data
from jaxfc.factors.contributions import contributions
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.history import factor_contributions, historical_decomposition
from jaxfc.panel import Panel

pytestmark = pytest.mark.slow

NAMES = [f"s{i}" for i in range(5)]
MODELS = {
    "one lag": DynamicFactorModel(2, 1, method=EM(max_steps=5)),
    "two lags": DynamicFactorModel(
        2, 2, method=EM(max_steps=3), idiosyncratic="full", initial="estimated"
    ),
    "static": DynamicFactorModel(2, 0, method=EM(max_steps=3)),
    "AR(1)": DynamicFactorModel(
        2, 1, method=EM(max_steps=3), errors=AutoregressiveErrors(), intercept="estimated"
    ),
    "two-step": DynamicFactorModel(2, 1, method=TwoStepEM(max_steps=3)),
}


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(30, 2)).cumsum(axis=0) * 0.5
    values = 3.0 + factors @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(30, 5))
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    values[-2:, :2] = np.nan
    index = pd.date_range("2020-01-03", periods=30, freq="W-FRI")
    return Panel.from_frame(pd.DataFrame(values, index, NAMES))


@pytest.fixture(scope="module", params=MODELS)
def fitted(request, panel):
    return MODELS[request.param].fit(panel, throw=False)


def loop_split(fitted, column, impact):
    """The contributions of the first p factors and of every single shock, added up by hand."""
    parameters = jax.tree.map(np.asarray, fitted.parameters)
    factors, slopes = np.asarray(fitted.factors), parameters.transition
    num_times, num_factors = factors.shape
    num_lags = len(slopes)
    responses = [np.eye(num_factors)]
    for h in range(1, num_times):
        terms = [slopes[i] @ responses[h - 1 - i] for i in range(min(num_lags, h))]
        responses.append(sum(terms, np.zeros((num_factors, num_factors))))
    loading = float(fitted.scaling.scale[column]) * parameters.loadings[column]
    shocks = np.zeros((num_times, num_factors))
    for s in range(num_lags, num_times):
        surprise = factors[s] - sum(
            (slopes[i] @ factors[s - 1 - i] for i in range(num_lags)), np.zeros(num_factors)
        )
        structural = np.linalg.solve(impact, surprise)
        for t in range(s, num_times):
            for k in range(num_factors):
                shocks[t, k] += loading @ responses[t - s] @ impact[:, k] * structural[k]
    initial = factors @ loading - shocks.sum(axis=1)
    return initial, shocks


@pytest.mark.parametrize("kind", ["cholesky", "plain"])
def test_parts_add_up_and_equal_a_loop_over_shocks(fitted, panel, kind):
    parts = historical_decomposition(fitted, panel, target="s1", shocks=kind)
    total = parts.common + parts.idiosyncratic
    np.testing.assert_allclose(total, parts.series, rtol=0, atol=1e-10)
    np.testing.assert_allclose(parts.common, fitted.common[:, 1], rtol=0, atol=1e-10)
    cov = np.asarray(fitted.parameters.innovation_cov)
    impact = np.linalg.cholesky(cov) if kind == "cholesky" else np.eye(2)
    initial, shocks = loop_split(fitted, 1, impact)
    np.testing.assert_allclose(parts.initial, initial, rtol=0, atol=1e-10)
    np.testing.assert_allclose(parts.shocks, shocks, rtol=0, atol=1e-10)
    seen = panel.observed[:, 1]
    np.testing.assert_allclose(parts.series[seen], panel.values[seen, 1], rtol=1e-12)


def test_initial_conditions_fade_and_a_static_model_has_none(fitted, panel):
    parts = historical_decomposition(fitted, panel, target="s1")
    if fitted.model.num_lags == 0:
        assert np.all(np.asarray(parts.initial) == 0.0)
    else:
        first = np.abs(np.asarray(parts.initial[: fitted.model.num_lags]))
        np.testing.assert_array_equal(parts.shocks[: fitted.model.num_lags], 0.0)
        assert np.max(np.abs(np.asarray(parts.initial[-3:]))) < np.max(first)


def test_the_sum_of_shocks_does_not_depend_on_the_rotation(panel):
    fitted = MODELS["one lag"].fit(panel, throw=False)
    turned = identify(fitted, "lower_triangular")
    one = historical_decomposition(fitted, panel, target="s3")
    other = historical_decomposition(turned, panel, target="s3")
    np.testing.assert_allclose(one.initial, other.initial, rtol=0, atol=1e-10)
    np.testing.assert_allclose(one.shocks.sum(axis=1), other.shocks.sum(axis=1), atol=1e-10)
    assert np.max(np.abs(np.asarray(one.shocks - other.shocks))) > 1e-3


def test_frame_has_dates_and_adds_up(fitted, panel):
    frame = historical_decomposition(fitted, panel, target="s0").to_frame(panel.index)
    columns = ["mean", "initial", "shock 1", "shock 2", "idiosyncratic", "series"]
    assert list(frame.columns) == columns
    assert frame.index.equals(panel.index)
    np.testing.assert_allclose(frame[columns[:-1]].sum(axis=1), frame["series"], atol=1e-10)


GROUPS = {"even": ["s0", "s2", "s4"], "odd": ["s1", "s3"]}


def test_factors_are_the_sum_of_groups(fitted, panel):
    parts = factor_contributions(fitted, panel, groups=GROUPS)
    np.testing.assert_allclose(parts.total, fitted.factors, rtol=0, atol=1e-9)
    total = parts.base + parts.parts.sum(axis=2)
    np.testing.assert_allclose(total, parts.total, rtol=0, atol=1e-10)
    alone = factor_contributions(fitted, panel)
    even = np.asarray(alone.parts[:, :, ::2]).sum(axis=2)
    np.testing.assert_allclose(parts.parts[:, :, 0], even, rtol=0, atol=1e-10)


def test_a_group_adds_what_the_smoother_loses_without_its_surprise(fitted, panel):
    """Put one group's cells at their mean: the estimate changes by the group's contribution."""
    parts = factor_contributions(fitted, panel, groups=GROUPS, target="s2")
    data = fitted_data(fitted)
    silent = data.values.at[:, 1::2].set((data.observed * fitted.parameters.intercept)[:, 1::2])
    moved = condition(fitted, dataclasses.replace(data, values=silent))
    lost = jnp.asarray(fitted.common - moved.common)[:, 2]
    np.testing.assert_allclose(parts.parts[:, 0, 1], lost, rtol=0, atol=1e-8)
    np.testing.assert_allclose(parts.total[:, 0], fitted.common[:, 2], rtol=0, atol=1e-8)
    frame = parts.to_frame(panel.index)
    assert list(frame.columns) == ["base", "even", "odd", "total"]
    np.testing.assert_allclose(frame["odd"], lost, rtol=0, atol=1e-8)


def test_flows_are_silent_at_the_mean_of_their_sum():
    """With every cell at its own mean, a quarterly sum's being three times the intercept, the
    smoothed factors are zero, so that the base is."""
    rng = np.random.default_rng(3)
    months = pd.date_range("2018-01-31", periods=24, freq="ME")
    values = 2.0 + rng.normal(size=(24, 1)) + 0.5 * rng.normal(size=(24, 3))
    monthly = pd.DataFrame(values, index=months, columns=list("abm"))
    quarterly = pd.DataFrame({"Q": monthly["m"].resample("QE").sum()})
    mixed = Panel.from_frames({"M": monthly, "Q": quarterly}, kinds={"Q": "flow_sum"})
    model = DynamicFactorModel(1, 1, method=EM(max_steps=3), intercept="estimated")
    fitted = model.fit(mixed, throw=False)
    parts = factor_contributions(fitted, mixed)
    assert float(np.max(np.abs(np.asarray(fitted.parameters.intercept)))) > 1e-3
    np.testing.assert_allclose(parts.base, 0.0, atol=1e-10)
    np.testing.assert_allclose(parts.parts.sum(axis=2), fitted.factors, rtol=0, atol=1e-9)
    ahead = contributions(fitted, mixed, 2, target="Q")
    mean = fitted.scaling.restore(fitted.parameters.intercept)[3]
    np.testing.assert_allclose(ahead.base, mean, rtol=1e-10)
    np.testing.assert_allclose(ahead.base + ahead.by_series.sum(axis=1), ahead.forecast)
    split = historical_decomposition(fitted, mixed, target="Q")
    np.testing.assert_allclose(split.common + split.idiosyncratic, split.series, atol=1e-10)
    sums = np.asarray(split.series).reshape(-1, 3).sum(axis=1)
    np.testing.assert_allclose(sums, quarterly["Q"], rtol=1e-9)


def test_bad_requests_are_named(panel):
    fitted = MODELS["one lag"].fit(panel, throw=False)
    with pytest.raises(ValueError, match="no series 'x'"):
        historical_decomposition(fitted, panel, target="x")
    with pytest.raises(ValueError, match="no series 'x'"):
        factor_contributions(fitted, panel, target="x")
    with pytest.raises(ValueError, match="'cholesky' or 'plain', got 'signs'"):
        historical_decomposition(fitted, panel, target="s1", shocks="signs")
    with pytest.raises(ValueError, match="not the one that was fitted"):
        historical_decomposition(fitted, panel.window(1, None), target="s1")
    with pytest.raises(ValueError, match="exactly once; check s4"):
        factor_contributions(fitted, panel, groups={"a": NAMES[:4]})
    components = DynamicFactorModel(2, 1, method=PCA()).fit(panel)
    with pytest.raises(ValueError, match="least-squares"):
        factor_contributions(components, panel)
