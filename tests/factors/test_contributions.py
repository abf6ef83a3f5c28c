"""Contributions add up to the forecast, are its derivatives, and ignore what was not observed."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, PCA, DynamicFactorModel, TwoStepEM
from jaxfc.factors.condition import condition, fitted_data
from jaxfc.factors.contributions import contributions
from jaxfc.panel import Panel

pytestmark = pytest.mark.slow

NAMES = [f"s{i}" for i in range(5)]
HORIZON = 2
MODELS = {
    "diagonal": DynamicFactorModel(2, 1, method=EM(max_steps=5)),
    "full, two lags": DynamicFactorModel(
        2, 2, method=EM(max_steps=3), idiosyncratic="full", initial="estimated"
    ),
    "two-step": DynamicFactorModel(2, 1, method=TwoStepEM(max_steps=3)),
}


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(30, 2)).cumsum(axis=0) * 0.5
    values = 3.0 + factors @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(30, 5))
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    values[-2:, :2] = np.nan  # a ragged edge
    index = pd.date_range("2020-01-03", periods=30, freq="W-FRI")
    return Panel.from_frame(pd.DataFrame(values, index, NAMES))


@pytest.fixture(scope="module", params=MODELS)
def fitted(request, panel):
    return MODELS[request.param].fit(panel, throw=False)


@pytest.fixture(scope="module")
def parts(fitted, panel):
    return contributions(fitted, panel, HORIZON, target="s1")


def test_parts_add_up_to_the_forecast(fitted, parts):
    np.testing.assert_allclose(parts.forecast, fitted.forecast(HORIZON).mean[:, 1], atol=1e-10)
    total = parts.base + jnp.sum(parts.cells, axis=(1, 2))
    np.testing.assert_allclose(total, parts.forecast, rtol=0, atol=1e-10)
    assert float(jnp.max(jnp.abs(parts.forecast - parts.base))) > 1e-3


def test_without_data_there_is_the_mean(fitted, parts):
    """A stationary law knows nothing else; an estimated initial law leaves a trace of its own."""
    if fitted.model.initial == "stationary":
        mean = fitted.scaling.restore(fitted.parameters.intercept)[1]
        np.testing.assert_allclose(parts.base, mean, rtol=1e-10)
    else:
        assert bool(jnp.all(jnp.isfinite(parts.base)))


def test_a_cell_weighs_what_a_finite_difference_says(fitted, parts):
    data = fitted_data(fitted)
    row, column = np.argwhere(np.asarray(data.observed) > 0)[-3]
    step = 0.5  # the map is affine: any step gives the slope exactly

    @eqx.filter_jit
    def forecast(values):
        moved = condition(fitted, dataclasses.replace(data, values=values))
        return moved.forecast(HORIZON).mean[:, 1]

    slope = (forecast(data.values.at[row, column].add(step)) - forecast(data.values)) / step
    deviation = data.values[row, column] - fitted.parameters.intercept[column]
    np.testing.assert_allclose(parts.cells[:, row, column], slope * deviation, atol=1e-10)


def test_unobserved_cells_contribute_exactly_nothing(fitted, parts):
    unseen = np.asarray(fitted_data(fitted).observed) == 0
    if fitted.model.method.rebuilds_panel:
        assert not unseen.any()
    else:
        assert unseen.any()
        np.testing.assert_array_equal(np.asarray(parts.cells)[:, unseen], 0.0)


def test_conditioning_on_the_own_data_changes_nothing(fitted):
    again = eqx.filter_jit(condition)(fitted, fitted_data(fitted))
    for name in ("common", "factor_covs", "loglik"):
        np.testing.assert_allclose(getattr(again, name), getattr(fitted, name), rtol=1e-8)
    np.testing.assert_allclose(again.forecast(1).cov, fitted.forecast(1).cov, rtol=1e-8)


def test_rows_appended_without_data_contribute_nothing(panel):
    """The information set is the mask: a row in the future has slope zero."""
    longer = panel.extend(3)
    model = MODELS["diagonal"]
    fitted = model.fit(longer, throw=False)
    parts = contributions(fitted, longer, 1, target="s0")
    np.testing.assert_array_equal(np.asarray(parts.cells)[:, -3:], 0.0)


def test_a_linear_target_is_the_sum_of_its_series(panel):
    fitted = MODELS["diagonal"].fit(panel, throw=False)
    mixed = contributions(fitted, panel, HORIZON, target=[2.0, 0.0, -1.0, 0.0, 0.0])
    first, third = (contributions(fitted, panel, HORIZON, target=name) for name in ("s0", "s2"))
    np.testing.assert_allclose(mixed.cells, 2 * first.cells - third.cells, atol=1e-10)


def test_tables_add_up_by_series_and_by_group(parts):
    frame = parts.to_frame(NAMES)
    assert list(frame.columns) == ["base", *NAMES, "forecast"] and list(frame.index) == [1, 2]
    np.testing.assert_allclose(frame.iloc[:, :-1].sum(axis=1), frame["forecast"], atol=1e-10)
    groups = {"early": ["s3", "s0"], "late": ["s1", "s2", "s4"]}
    grouped = parts.to_frame(NAMES, groups)
    assert list(grouped.columns) == ["base", "early", "late", "forecast"]
    np.testing.assert_allclose(grouped["early"], frame["s0"] + frame["s3"], atol=1e-12)


@pytest.mark.parametrize(
    ("groups", "culprit"),
    [({"a": NAMES[:4]}, "s4"), ({"a": NAMES, "b": ["s1"]}, "s1"), ({"a": [*NAMES, "x"]}, "x")],
)
def test_groups_that_do_not_add_up_are_refused(parts, groups, culprit):
    with pytest.raises(ValueError, match=f"exactly once; check {culprit}"):
        parts.to_frame(NAMES, groups)


def test_bad_arguments_are_refused(fitted, panel, parts):
    with pytest.raises(ValueError, match="3 names for 5 series"):
        parts.to_frame(NAMES[:3])
    with pytest.raises(ValueError, match="no series 'gdp'"):
        contributions(fitted, panel, target="gdp")
    with pytest.raises(ValueError, match="5 finite weights"):
        contributions(fitted, panel, target=[1.0, 2.0])
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        contributions(fitted, panel, 0, target="s0")
    with pytest.raises(ValueError, match="not the one that was fitted"):
        contributions(fitted, panel.extend(1), target="s0")


def test_principal_components_are_refused(panel):
    fitted = DynamicFactorModel(2, 1, method=PCA()).fit(panel)
    with pytest.raises(ValueError, match="least-squares regressions"):
        contributions(fitted, panel, target="s0")
