"""Every model times every verb: what the contracts promise, whatever the model.

Models that answer with draws take a key wherever the others take none; a network of an exact law
takes one to be estimated. Clauses on the law itself (quantiles by standard deviations, moments of a
sample, one horizon a part of a longer one, the affine answer to data) are those of models with a
Gaussian law.
"""

import logging
from typing import NamedTuple

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc import model as model_module
from jaxfc.bayes.coefficient_regression import HierarchicalRegression
from jaxfc.bayes.diagnostics import Limits
from jaxfc.bayes.dynamic_factors import BayesianFactorModel
from jaxfc.bayes.dynamic_factors_gibbs import FactorGibbs
from jaxfc.bayes.factor_volatility import FactorVolatilityModel
from jaxfc.bayes.instrumented import InstrumentedPCA
from jaxfc.bayes.instrumented_panel import instrumented_panel
from jaxfc.bayes.m6 import M6Model
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.switching_hierarchy import SwitchingHierarchy
from jaxfc.compose import DiagonalCell, Hybrid
from jaxfc.evaluation.benchmarks import benchmark_models
from jaxfc.hierarchy import HierarchicalVAR
from jaxfc.recursive import DecayingNet, NetworkModel, QuantileHead, RecursiveNet, Training
from jaxfc.regimes import DiagonalCovariance, RegimeModel
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
    "instrumented PCA": InstrumentedPCA(["size"], 1, constant=True),
    **benchmark_models(),
}
# Verbs are the matter here, not posteriors: few draws, which nothing is asked of.
ANY = Limits(rhat=np.inf, ess=0.0, divergent=1.0, bfmi=0.0, step=0.0, moved=0.0, log_density_sd=0.0)
SHORT = PooledHMC(num_chains=2, num_draws=8, num_warmup=60, num_leapfrogs=3)
BRIEF = Training(10, 8, round_length=5, warm_up=2, average=0.8)
SECTORS = {"W": "one", "X": "one", "Y": "two", "Z": "two"}
DRAWN = {
    "M6": M6Model(SECTORS, num_factors=1, inference=SHORT, limits=ANY),
    "Bayesian factors": BayesianFactorModel(1, inference=FactorGibbs(2, 6, 4), limits=ANY),
    "factor volatility": FactorVolatilityModel(1, inference=SHORT, limits=ANY),
    "hierarchical regression": HierarchicalRegression(
        "Z",
        {name: sector for name, sector in SECTORS.items() if name != "Z"},
        regressor_lags=1,
        inference=SHORT,
        limits=ANY,
    ),
    "switching hierarchy": SwitchingHierarchy(2, SECTORS, inference=SHORT, limits=ANY),
    "hybrid": Hybrid(
        RegimeModel(2, DiagonalCovariance(), max_steps=60, tolerance=1e-4),
        cell=DiagonalCell,
        width=3,
        num_steps=5,
    ),
    "recursive network, quantiles": NetworkModel(
        RecursiveNet(4, "none", num_blocks=1, num_inner=1, num_supervision=2),
        3,
        4,
        head=QuantileHead(num_draws=100),
        training=BRIEF,
    ),
}
# Weights are drawn, the law is exact: the key of the estimation may be handed to the forecast.
LEARNED = {"network": NetworkModel(DecayingNet(4), 3, 4, training=BRIEF)}
# `given` refuses, as the contract allows: the factors of a draw belong to the fitted rows.
TIED = ("M6",)
# Of the fitted rows each draw knows its log variances; on data `given` the filter tells their law.
FILTERED = ("factor volatility",)
# Answers are affine in the data but for products of returns and characteristics, regimes, networks.
CURVED = (
    "instrumented PCA",
    "switching hierarchy",
    "hybrid",
    "recursive network, quantiles",
    *LEARNED,
    *FILTERED,
)
# Its cell is of equinox, whose classes are not written to disk.
# Each of these compiles long, most for 15 seconds or more, and its own tests run by default.
SLOW = {"instrumented PCA", *DRAWN} - {"factor volatility"}
# Moments without a key, draws with one.
EITHER = ("ARCH(1)", "RiskMetrics")
HORIZON = 3


class Case(NamedTuple):
    """A fitted model, its panel, and the key where it draws."""

    name: str
    model: jaxfc.Model
    panel: jaxfc.Panel
    fitted: jaxfc.Fitted
    key: jax.Array | None

    def forecast(self, horizon, fitted=None):
        return forecast(fitted or self.fitted, horizon, self.key)


# Verbs are programs here: evaluated by themselves, each of their operations compiles for itself.
@eqx.filter_jit
def forecast(fitted, horizon, key):
    return fitted.forecast(horizon, key=key)


@eqx.filter_jit
def given(fitted, values, observed):
    return fitted.given(values, observed)


@eqx.filter_jit
def simulate(fitted, key):
    return fitted.simulate(20, key=key)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    factor = np.convolve(rng.normal(size=41), 0.7 ** np.arange(12), "valid")
    values = factor[:, None] * rng.uniform(0.5, 1.5, 4) + 0.6 * rng.normal(size=(30, 4))
    values[rng.random(values.shape) < 0.15] = np.nan
    values[-1, 0] = np.nan
    index = pd.date_range("2010-01-31", periods=30, freq="ME")
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, list("WXYZ")))


@pytest.fixture(scope="module")
def instrumented(panel):
    """The same returns, with one characteristic of each."""
    sizes = np.random.default_rng(2).normal(size=panel.values.shape)
    returns = panel.to_frame()
    size = pd.DataFrame(sizes, returns.index, returns.columns)
    return instrumented_panel(returns, {"size": size})


@pytest.fixture(scope="module")
def case(request, panel, instrumented):
    name = request.param
    model = (MODELS | DRAWN | LEARNED)[name]
    panel = instrumented if name == "instrumented PCA" else panel
    key = jax.random.key(7) if name in DRAWN | LEARNED else None
    return Case(name, model, panel, model.fit(panel, key=key), key)


LONG_TO_COMPILE = ("factor model, AR(1) errors", "factor model, priors across series")


def those(names, slow=SLOW):
    """A test of the models with these names; of those that are `slow`, a slow one."""
    cases = [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]
    return pytest.mark.parametrize("case", cases, indirect=True)


every_model = those(MODELS | DRAWN | LEARNED)


@every_model
def test_fit_reports(case):
    fitted = case.fitted
    assert bool(is_okay(fitted.result))
    assert fitted.loglik.shape == () and np.isfinite(fitted.loglik)
    assert fitted.num_steps.shape == () and int(fitted.num_steps) >= 0


@those(MODELS | LEARNED, slow={*SLOW, *LEARNED})
def test_fit_equals_estimate(case):
    data = *case.panel.arrays(), case.panel.aggregation
    again = model_module.jitted_estimate(case.model, *data, case.key)
    leaves = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (case.fitted, again))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@every_model
def test_the_key_decides_and_is_asked_for_where_there_are_draws(case):
    if case.name in EITHER:
        drawn = case.fitted.forecast(HORIZON, key=jax.random.key(0))
        assert isinstance(drawn, jaxfc.SampleForecast)
        return
    if case.key is None:
        with pytest.raises(ValueError, match="key"):
            case.fitted.forecast(HORIZON, key=jax.random.key(0))
        return
    with pytest.raises(ValueError, match="key"):
        case.model.fit(case.panel)
    if case.name in LEARNED:
        law = case.fitted.forecast(HORIZON)
        np.testing.assert_array_equal(law.mean, case.forecast(HORIZON).mean)
        other = case.model.fit(case.panel, key=jax.random.key(0))
        assert not np.allclose(other.forecast(HORIZON).mean, law.mean)
        return
    with pytest.raises(ValueError, match="key"):
        case.fitted.forecast(HORIZON)
    model = case.model.resolved(case.panel)
    data = *case.panel.arrays(), case.panel.aggregation
    same, other = (
        model_module.jitted_estimate(model, *data, key) for key in (case.key, jax.random.key(0))
    )
    draws, again = case.forecast(HORIZON).draws, case.forecast(HORIZON, same).draws
    np.testing.assert_array_equal(again, draws)
    assert not np.allclose(case.forecast(HORIZON, other).draws, draws)
    assert not np.allclose(case.fitted.forecast(HORIZON, key=jax.random.key(0)).draws, draws)


@every_model
def test_forecast_is_a_joint_law(case):
    forecast = case.forecast(HORIZON)
    assert forecast.mean.shape == forecast.std.shape == (HORIZON, 4)
    assert forecast.cov.shape == (HORIZON, 4, HORIZON, 4)
    matrix = np.asarray(forecast.cov).reshape(HORIZON * 4, -1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10
    np.testing.assert_allclose(np.diag(matrix), np.asarray(forecast.std).ravel() ** 2, rtol=1e-10)
    assert np.all(np.asarray(forecast.std) > 0.0)
    low, middle, high = forecast.quantile(jnp.array([0.05, 0.5, 0.95]))
    if case.name in DRAWN:
        assert np.all(low <= middle) and np.all(middle <= high)
        return
    np.testing.assert_allclose(middle, forecast.mean, atol=1e-10)
    np.testing.assert_allclose(high - low, 2 * 1.6448536269514722 * forecast.std, rtol=1e-8)


@every_model
def test_forecast_operations_commute(case):
    """Summing over horizons and combining series in either order is the same law."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)))
    one = case.forecast(HORIZON).cumulative().aggregate(weights)
    other = case.forecast(HORIZON).aggregate(weights).cumulative()
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-12)
    np.testing.assert_allclose(one.cov, other.cov, atol=1e-12)
    np.testing.assert_allclose(
        one.marginal(1).std[:, 0], np.sqrt(np.einsum("hihi->hi", one.cov))[:, 1], rtol=1e-12
    )


@those(MODELS | LEARNED)
def test_draws_have_the_forecast_moments(case):
    forecast = case.forecast(HORIZON)
    draws = np.asarray(forecast.sample(20_000, key=jax.random.key(0)))
    # 5 standard errors.
    error = np.abs(draws.mean(0) - forecast.mean) / (forecast.std / np.sqrt(len(draws)))
    assert error.max() < 5
    np.testing.assert_allclose(draws.std(0), forecast.std, rtol=5 / np.sqrt(2 * len(draws)))


@every_model
def test_given_the_same_data_nothing_changes(case):
    if case.name in TIED:
        with pytest.raises(ValueError, match="fit the new panel"):
            case.fitted.given(*case.panel.arrays())
        return
    data = case.panel.arrays()
    first = given(case.fitted, *data) if case.name in FILTERED else case.fitted
    again = given(first, *data)
    before, after = case.forecast(2, first), case.forecast(2, again)
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-9)
    np.testing.assert_allclose(after.std, before.std, atol=1e-9)


@those(name for name in MODELS | DRAWN | LEARNED if name not in TIED)
def test_impact_adds_up_and_sees_only_what_was_observed(case):
    found = jaxfc.impact(case.fitted, case.panel, 2, target="X", key=case.key)
    if case.name not in CURVED:
        np.testing.assert_allclose(found.remainder, 0.0, atol=1e-10)
    if case.name not in FILTERED:
        np.testing.assert_allclose(found.forecast, case.forecast(2).mean[:, 1], atol=1e-9)
    assert np.all(np.asarray(found.cells)[:, ~case.panel.observed] == 0.0)


@those(MODELS | LEARNED)
def test_longer_horizons_extend_shorter_ones(case):
    short, long = case.forecast(2), case.forecast(HORIZON)
    np.testing.assert_allclose(short.mean, long.mean[:2], atol=1e-12)
    np.testing.assert_allclose(short.cov, long.cov[:2, :, :2], atol=1e-12)


@every_model
def test_simulate_needs_and_uses_the_key(case):
    fitted = case.fitted
    a = simulate(fitted, jax.random.key(0))
    assert a.shape == (20, 4) and np.isfinite(a).all()
    np.testing.assert_array_equal(a, simulate(fitted, jax.random.key(0)))
    assert not np.allclose(a, simulate(fitted, jax.random.key(1)))


@every_model
def test_save_and_load(case, tmp_path):
    path = tmp_path / "fitted.jaxfc"
    jaxfc.save(case.fitted, path)
    again = jaxfc.load(path)
    assert type(again) is type(case.fitted)
    np.testing.assert_array_equal(case.forecast(2, again).mean, case.forecast(2).mean)


# By themselves the operations of a forecast compile, which takes long.
@those(MODELS | DRAWN | LEARNED, slow={*MODELS, *DRAWN, *LEARNED} - {"factor volatility"})
def test_a_second_forecast_compiles_nothing(case, caplog):
    """A loop compiled at every call would fill the memory of a backtest."""
    keys = [None, None] if case.key is None else [jax.random.key(8), jax.random.key(9)]
    jax.block_until_ready(case.fitted.forecast(HORIZON, key=keys[0]).mean)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.block_until_ready(case.fitted.forecast(HORIZON, key=keys[1]).mean)
    assert "Compiling" not in caplog.text


@those(MODELS | DRAWN | LEARNED, slow={*SLOW, *DRAWN, *LEARNED, *LONG_TO_COMPILE})
def test_batch_of_vintages_equals_the_loop(case):
    panel, model = case.panel, case.model.resolved(case.panel)
    values, _ = panel.arrays()
    vintages = [panel.as_of(panel.index[row]) for row in (-4, -1)]
    masks = jnp.stack([v.arrays()[1] for v in vintages])

    def ahead(observed):
        fitted = model.estimate(values, observed, key=case.key)
        return fitted.forecast(1, key=case.key).mean

    batch = jax.jit(jax.vmap(ahead))(masks)
    for i in range(2):
        alone = model_module.jitted_estimate(model, values, masks[i], None, case.key)
        np.testing.assert_allclose(batch[i], case.forecast(1, alone).mean, atol=1e-8)


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
