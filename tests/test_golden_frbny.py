"""The full example model of the NY Fed: from its spreadsheets to its numbers and its news."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from golden import panels
from golden.frbny import growth_weights, method_of
from golden.frbny_start import starting_values
from jaxfc.factors import EM, AutoregressiveErrors, DynamicFactorModel
from jaxfc.factors.augmented import augmented_space
from jaxfc.factors.augmented_em import run_augmented_em
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.news import news
from jaxfc.factors.scaling import Scaling
from jaxfc.panel import Panel
from jaxfc_kernels.var_precision import stationary_block_cov

QUARTERLY = ("GDPC1", "ULCNFB")


@pytest.fixture(scope="module")
def full_model(shared_data):
    """25 series, 4 blocks, 53 states: EM on the vintage of 2016-06-29, and its means and scales."""
    growth, in_block = panels.frbny_full_panel(shared_data / "frbny_nowcast")
    data = ((growth - growth.mean()) / growth.std()).to_numpy()
    start = starting_values(data, in_block, 1, 1)
    method = method_of(in_block, 1, 1, estimates_initial_cov=False)
    observed = ~np.isnan(data)
    values = jnp.asarray(np.where(observed, data, 0.0))
    outcome = run_augmented_em(method, start, values, jnp.asarray(observed), rtol=1e-4)
    return outcome, growth.mean(), growth.std()


def test_the_full_model_of_the_ny_fed(full_model):
    """From the spreadsheets to the numbers of its `ResDFM.mat`."""
    outcome, _, _ = full_model
    ours = outcome.value
    assert int(outcome.num_steps) == 92
    digits = {"rtol": 0, "atol": 5.1e-9}
    assert_allclose(ours.transition[0, 0, 0], 0.84172129, **digits)
    assert_allclose(ours.innovation_cov[0, 0], 1.40544896, **digits)
    assert_allclose(ours.loadings[0, 0], 0.25180148, **digits)
    assert_allclose(ours.initial_mean[0], 0.91323383, **digits)
    assert_allclose(ours.initial_cov[0, 0], 6.38638759, **digits)


def as_factor_model(parameters, centre, scale, panel):
    """The full model without its measurement noise (1e-4), in the units of our panel: a quarter's
    row weighs three months with a third of theirs."""
    model = DynamicFactorModel(4, 1, method=EM(max_steps=1), errors=AutoregressiveErrors())
    fitted = model.fit(panel, throw=False)
    weight = np.where(np.isin(panel.frequencies, "Q"), 3.0, 1.0)
    ar = np.asarray(parameters.idiosyncratic_ar)
    variances = np.asarray(parameters.idiosyncratic_innovation_var) / (1.0 - ar**2)
    cov = stationary_block_cov(parameters.transition, parameters.innovation_cov)
    law = FactorParameters(
        loadings=parameters.loadings * weight[:, None],
        intercept=jnp.zeros(len(weight)),
        idiosyncratic_cov=jnp.asarray(variances * weight**2),
        transition=parameters.transition,
        innovation_cov=parameters.innovation_cov,
        initial_mean=jnp.zeros(4),
        initial_cov=cov,
        idiosyncratic_ar=parameters.idiosyncratic_ar,
    )
    scaling = Scaling(jnp.asarray(centre / weight), jnp.asarray(scale))
    return dataclasses.replace(fitted, parameters=law, scaling=scaling)


def test_news_at_its_parameters_without_error_states(full_model, shared_data):
    """GDP of 2016Q4 between its two vintages of December 2016: our exact law and its state space
    agree but for the measurement noise and the law of the first month, 17 years before."""
    outcome, centre, scale = full_model
    centre, scale = centre.to_numpy(), scale.to_numpy()
    space = augmented_space(outcome.value, growth_weights(len(centre)))
    design = space.design
    assert isinstance(design, jax.Array)
    nowcasts, vintages = [], []
    for vintage in ("2016-12-16", "2016-12-23"):
        growth, _ = panels.frbny_full_panel(shared_data / "frbny_nowcast", vintage)
        data = (growth.to_numpy() - centre) / scale
        seen = ~np.isnan(data)
        values = jnp.asarray(np.where(seen, data, 0.0))
        means = space.smooth(values, jnp.asarray(seen), implementation="univariate").smoothed_means
        place = growth.columns.get_loc("GDPC1")
        nowcasts.append(float(centre[place] + scale[place] * (design[place] @ means[-1])))
        growth.index = pd.date_range("2000-01-31", periods=len(growth), freq="ME")
        # Growth that began before the panel.
        growth.loc[:"2000-05-31", list(QUARTERLY)] = np.nan
        vintages.append(Panel.from_frame(growth, kinds=dict.fromkeys(QUARTERLY, "change_in_flow")))
    fitted = as_factor_model(outcome.value, centre, scale, vintages[0])
    ours = news(fitted, *vintages, target="GDPC1", period="2016-12-31")
    assert_allclose([ours.old_nowcast, ours.new_nowcast], nowcasts, atol=2e-4)
    assert abs(ours.totals()["news"]) > 0.05 and abs(ours.totals()["revision"]) > 0.05
    change = ours.new_nowcast - ours.old_nowcast
    assert_allclose(ours.to_frame()["impact"].sum(), change, atol=1e-11)
