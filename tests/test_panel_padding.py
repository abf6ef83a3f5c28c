"""Panels of one length: the same estimates as unpadded, one trace for all vintages, refusals."""

import equinox as eqx
import numpy as np
import pandas as pd
import pytest

import jaxfc
import jaxfc.model
from factor_worlds import make_world, simulate
from jaxfc import pad_panel, pad_panels
from jaxfc.factors import EM, ClosedForm, DynamicFactorModel, FittedFactorModel, TwoStepEM

NUM_TIMES = 36


@pytest.fixture(scope="module")
def panel():
    world = make_world(5, 1, 1, seed=4)
    values, observed, _ = simulate(world, NUM_TIMES, missing=0.15)
    index = pd.date_range("2010-01-31", periods=NUM_TIMES, freq="ME")
    frame = pd.DataFrame(np.where(observed, values, np.nan), index, list("ABCDE"))
    return jaxfc.Panel.from_frame(frame)


@pytest.fixture(scope="module")
def mixed(panel):
    """The same series by month, the last one as quarterly sums."""
    monthly = panel.to_frame().interpolate(limit_direction="both")
    quarterly = monthly[["E"]].resample("QE").sum()
    frames = {"M": monthly[list("ABCD")], "Q": quarterly}
    return jaxfc.Panel.from_frames(frames, kinds={"E": "flow_sum"})


MODELS = {
    "stationary": DynamicFactorModel(1, 1, method=EM(rtol=1e-4)),
    "estimated": DynamicFactorModel(1, 2, method=EM(rtol=1e-4), initial="estimated"),
    "odd-even": DynamicFactorModel(
        1, 1, method=EM(rtol=1e-4), moments=ClosedForm(engine="odd_even")
    ),
    "two-step": DynamicFactorModel(1, 1, method=TwoStepEM(max_steps=5)),
}


def fit(model, panel) -> FittedFactorModel:
    fitted = model.fit(panel, throw=False)
    assert isinstance(fitted, FittedFactorModel)
    return fitted


@pytest.mark.parametrize("name", MODELS)
def test_padding_equals_truncation(name, panel, mixed):
    model, panel = MODELS[name], mixed if name == "two-step" else panel
    fitted, padded = fit(model, panel), fit(model, pad_panel(panel, NUM_TIMES + 7))
    assert padded.factors.shape[0] == NUM_TIMES + 7
    assert int(padded.num_steps) == int(fitted.num_steps) > 1
    np.testing.assert_allclose(padded.loglik, fitted.loglik, rtol=1e-11)
    sign = np.sign(fitted.parameters.loadings[0, 0] * padded.parameters.loadings[0, 0])
    np.testing.assert_allclose(sign * padded.factors[:NUM_TIMES], fitted.factors, atol=1e-9)
    np.testing.assert_allclose(padded.common[:NUM_TIMES], fitted.common, atol=1e-9)
    np.testing.assert_allclose(
        padded.parameters.transition, fitted.parameters.transition, atol=1e-9
    )
    # The rows added hold the forecast of the unpadded model.
    np.testing.assert_allclose(padded.common[NUM_TIMES:], fitted.forecast(7).mean, atol=1e-9)


def test_vintages_of_different_lengths_share_one_program(panel, monkeypatch):
    traces = []

    def estimate(model, values, observed, aggregation, key):
        traces.append(values.shape)
        return model.estimate(values, observed, aggregation=aggregation, key=key)

    monkeypatch.setattr(jaxfc.model, "jitted_estimate", eqx.filter_jit(estimate))
    vintages = [panel.window(0, stop) for stop in (31, 33, 36)]
    for vintage in pad_panels(vintages, multiple=12):
        MODELS["stationary"].fit(vintage)
    assert traces == [(36, 5)]


def test_the_calendar_and_the_aggregation_go_on(mixed):
    short, long = mixed.window(0, 30), mixed
    padded, same = pad_panels([short, long])
    assert list(padded.index) == list(long.index)
    assert not padded.observed[30:].any()
    np.testing.assert_array_equal(padded.observed[:30], short.observed)
    assert padded.aggregation is not None and long.aggregation is not None
    np.testing.assert_array_equal(padded.aggregation.own_row, long.aggregation.own_row)
    assert same.num_times == NUM_TIMES


@pytest.mark.parametrize(("multiple", "num_rows"), [(1, 36), (12, 36), (10, 40), (60, 60)])
def test_the_common_length_is_a_multiple(panel, multiple, num_rows):
    padded = pad_panels([panel.window(0, 20), panel], multiple=multiple)
    assert [p.num_times for p in padded] == [num_rows] * 2


def test_refusals(panel):
    with pytest.raises(ValueError, match="36 rows cannot be padded to num_rows = 30"):
        pad_panel(panel, 30)
    with pytest.raises(ValueError, match="at least one panel"):
        pad_panels([])
    with pytest.raises(ValueError, match="multiple must be at least 1, got 0"):
        pad_panels([panel], multiple=0)
    with pytest.raises(ValueError, match=r"panel 1 has names .*'B', 'A'.*`select`"):
        pad_panels([panel, panel.select(list("BACDE"))])
