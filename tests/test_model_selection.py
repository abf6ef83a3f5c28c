"""The study of model selection: its selector against plain selections, and a small run."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import model_selection
from experiments.selector import METRICS, Range, Selector, captured
from jaxfc.factors.components import trace_r_squared
from jaxfc.factors.methods import EM
from jaxfc.factors.model import DynamicFactorModel
from jaxfc.factors.select import select_sizes
from jaxfc.factors.selection import SelectionRule
from jaxfc.factors.worlds import FactorWorld

pytestmark = pytest.mark.slow

RANGE = Range(1, 3, 1)


def test_captured_ignores_factors_that_were_not_chosen():
    rng = np.random.default_rng(0)
    truth, factors = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    padded = np.concatenate([factors, np.zeros((30, 2))], axis=1)
    expected = trace_r_squared(truth, factors)
    np.testing.assert_allclose(captured(truth, padded), expected, rtol=1e-12)


@pytest.mark.parametrize("num_factors", [4, 17])
def test_factors_that_no_range_holds_are_refused(num_factors):
    world = FactorWorld(60, 20, num_factors, 1)
    with pytest.raises(ValueError, match=f"holds {num_factors} factors"):
        Selector(1.0, (RANGE, Range(5, 8, 1))).bind(world)


@pytest.mark.slow
def test_the_selector_chooses_what_plain_selection_and_plain_fits_choose():
    world = FactorWorld(40, 12, 2, 1, missing=0.3)
    panel = world.sample(key=jax.random.key(3))
    bound = Selector(0.5, (RANGE,), static_rtol=1e-3).bind(world)
    chosen = jax.jit(lambda panel: bound(panel))(panel)
    static = DynamicFactorModel(
        3, 0, method=EM(rtol=1e-3, max_steps=100), idiosyncratic="isotropic", standardise=False
    )
    rule = SelectionRule(multiplier=0.25)
    plain = select_sizes(static, panel.values, panel.observed, 3, 0, rule=rule)
    assert int(chosen.num_factors) == int(plain.num_factors)
    aic, fits = [], []
    for order in (0, 1):
        model = DynamicFactorModel(
            int(plain.num_factors), order, method=EM(rtol=1e-4, max_steps=100), standardise=False
        )
        fits.append(model.estimate(panel.values, panel.observed))
        aic.append(2 * order * model.num_factors**2 - 2 * float(fits[-1].loglik))
    best = int(np.argmin(aic))
    assert int(chosen.num_lags) == best
    assert int(chosen.num_steps) == int(fits[best].num_steps)
    expected = trace_r_squared(panel.factors, fits[best].factors)
    np.testing.assert_allclose(METRICS["trace_r2"](panel, chosen), expected, rtol=1e-6)


def test_model_selection(tmp_path):
    config = dataclasses.replace(
        model_selection.QUICK,
        sizes=((12, 40, 1, 1),),
        missing=(0.4,),
        ranges=(RANGE,),
        num_paths=4,
        batch_size=4,
        out=str(tmp_path),
    )
    result = model_selection.run(config)
    paths = result.paths
    assert set(paths["estimator"]) == {"m = 0.25 slope", "m = slope"}
    assert paths["selected_factors"].between(1, 3).all()
    right = paths["selected_factors"] == paths["num_factors"]
    np.testing.assert_array_equal(paths["factors_right"], right)
    np.testing.assert_array_equal(paths["both_right"], right & (paths["selected_lags"] == 1))
    # A larger multiplier never selects more factors on the same panel.
    selected = paths.pivot(index="path", columns="estimator", values="selected_factors")
    assert (selected["m = slope"] <= selected["m = 0.25 slope"]).all()
    text = (tmp_path / "answers.md").read_text()
    share = 100 * right[paths["estimator"] == "m = slope"].mean()
    assert "Right K, all cells. m = 0.25 slope: " in text and f"m = slope: {share:.0f}%" in text
    wide = pd.read_csv(tmp_path / "multiplier_slope.csv")
    assert wide["selected_factors at 0.4"].iloc[0] == pytest.approx(selected["m = slope"].mean())
