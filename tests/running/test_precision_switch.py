"""A model made before float64 was switched on runs in every verb, beside one made after."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.bayes.coefficient_regression import HierarchicalRegression
from jaxfc.bayes.diagnostics import Limits
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.factors.estimators import ModelEstimator
from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.windows import PROGRAMS, stack_windows, window_program
from jaxfc.trees import in_precision_of_jax
from jaxfc.vintages import pseudo_vintages
from precision import single_precision

INDEX = pd.date_range("2010-01-31", periods=24, freq="ME")
ORIGINS = jaxfc.Rolling(window=20, step=2)


def made():
    return jaxfc.DynamicFactorModel(1, 1, method=jaxfc.EM(rtol=1e-3))


@pytest.fixture
def panel():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(24, 1)) + 0.5 * rng.normal(size=(24, 4))
    return jaxfc.Panel.from_frame(pd.DataFrame(values, INDEX, list("abcd")))


@pytest.fixture
def early():
    with single_precision():
        model = made()
    assert model.method.rtol.dtype == np.float32
    return model


def test_a_backtest_of_a_model_made_before_the_switch(panel, early):
    means = [jaxfc.backtest(model, panel, ORIGINS).forecast.mean for model in (early, made())]
    assert {mean.dtype for mean in means} == {np.dtype(np.float64)}
    np.testing.assert_allclose(means[0], means[1], rtol=1e-6)


def test_compiled_windows_are_kept_by_precision_and_not_by_value(panel, early):
    PROGRAMS.clear()
    stacked = stack_windows(early, panel, ORIGINS.rows(panel.index, 1), ORIGINS, None)

    def program(model):
        return window_program(model, stacked, 1, None, None, None, (jax.local_devices()[0],))[0]

    late = made()
    other = dataclasses.replace(late, method=jaxfc.EM(rtol=1e-2))
    assert program(early) is not program(late)
    assert program(other) is program(late) and len(PROGRAMS) == 2


def test_a_fit_of_a_model_made_before_the_switch(panel, early):
    fitted = early.fit(panel)
    assert fitted.loglik.dtype == np.float64
    law = fitted.forecast(2)
    np.testing.assert_allclose(law.mean, made().fit(panel).forecast(2).mean, rtol=1e-6)


def test_a_choice_of_sizes_by_a_model_made_before_the_switch(panel, early):
    chosen = [jaxfc.select_model(model, panel, 2, 0).loglik for model in (early, made())]
    np.testing.assert_allclose(*chosen, rtol=1e-6)


def test_a_study_of_a_model_made_before_the_switch(tmp_path, early):
    found = []
    for model in (early, made()):
        study = jaxfc.Study(
            FactorWorld,
            {"model": ModelEstimator(model)},
            [{"num_times": 24, "num_series": 3, "num_factors": 1, "num_lags": 1}],
            {"loglik": lambda panel, fitted: fitted.loglik},
            num_paths=2,
            batch_size=2,
        )
        folder = tmp_path / str(len(found))
        found.append(study.run(folder, key=jax.random.key(0), progress=False).paths["loglik"])
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_nowcasts_of_a_model_made_before_the_switch(panel, early):
    store = pseudo_vintages(panel, INDEX[-2:])
    found = [jaxfc.track(model, store, target="a").nowcasts for model in (early, made())]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_sampler_made_before_the_switch(panel):
    """Its density puts numbers into arrays of one type, which refuse those of another."""
    with single_precision():
        model = HierarchicalRegression(
            "c",
            {"a": "one", "b": "two", "d": "two"},
            regressor_lags=1,
            inference=PooledHMC(num_chains=2, num_draws=4, num_warmup=4, num_leapfrogs=2),
            limits=Limits(),
        )
    fitted = model.fit(panel, key=jax.random.key(0), throw=False)
    assert fitted.loglik.dtype == np.float64


def test_floats_take_the_precision_of_jax_and_nothing_else_changes():
    half, whole = np.ones(2, np.float16), np.arange(3)
    with single_precision():
        tree = {"a": jax.numpy.ones(2), "b": jax.numpy.asarray(half), "c": whole, "d": 1.5}
    cast = in_precision_of_jax(tree)
    assert cast["a"].dtype == np.float64 and cast["b"].dtype == np.float16
    assert cast["c"] is whole and cast["d"] == 1.5
    with single_precision():
        assert in_precision_of_jax(cast)["a"].dtype == np.float32
