"""Priors across series: Smyth's hierarchical variances, random intercepts, and what they refuse."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

import jaxfc
import jaxfc.factors
from jaxfc.factors import (
    EM,
    PCA,
    Blocks,
    DynamicFactorModel,
    FactorWorld,
    FittedFactorModel,
    TwoStepEM,
)
from jaxfc.factors.candidate import Candidate
from jaxfc.factors.em import PanelData
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.estimators import ModelEstimator
from jaxfc.factors.shrinkage import (
    DataUnits,
    intercept_precision,
    path_mean,
    shrunk_variances,
)
from jaxfc_kernels.var_precision import path_precision

RNG = np.random.default_rng(3)
WORLD = FactorWorld(40, 8, 2, 1, missing=0.3)
LOOSE = EM(rtol=1e-6)
STATIC = dataclasses.replace(WORLD, num_lags=0)


def smyth(variances, counts, num_coefficients, log_variance):
    """The same by the exact functions: fit of a scaled F law to log variances, then its mean."""
    dof = counts - num_coefficients
    unbiased = variances * counts / dof
    y = np.log(unbiased) - digamma(dof / 2) + np.log(dof / 2)
    slope, level = np.polyfit(log_variance, y, 1, w=np.sqrt(dof))
    trend = level + slope * log_variance
    excess = np.sum((y - trend) ** 2) / (len(y) - 2) - np.mean(polygamma(1, dof / 2))
    if excess <= 0:
        return np.exp(trend)
    prior = 2 * float(brentq(lambda x: polygamma(1, x) - excess, 1e-3, 1e6))  # pyright: ignore
    scale = np.exp(trend + digamma(prior / 2) - np.log(prior / 2))
    return (prior * scale + dof * unbiased) / (prior + dof)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5])
def test_variances_follow_smyth(spread):
    n = 30
    counts = RNG.integers(20, 60, n).astype(float)
    log_variance = RNG.normal(size=n)
    truth = np.exp(0.7 * log_variance + spread * RNG.normal(size=n))
    variances = truth * RNG.chisquare(counts - 3) / counts
    given = jnp.asarray(log_variance)
    ours = shrunk_variances(jnp.asarray(variances), jnp.asarray(counts), 3, given)
    theirs = smyth(variances, counts, 3, log_variance)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    errors = [np.mean(np.log(v / truth) ** 2) for v in (ours, variances * counts / (counts - 3))]
    if spread < 1.0:  # beyond it there is nothing to gain
        assert errors[0] < errors[1]


def test_variances_without_excess_are_the_trend():
    counts, log_variance = jnp.full(6, 50.0), jnp.linspace(0.0, 1.0, 6)
    on_line = jnp.exp(0.3 + 0.5 * log_variance)
    ours = shrunk_variances(on_line, counts, 2, log_variance)
    np.testing.assert_allclose(jnp.diff(jnp.log(ours)), 0.1, rtol=1e-9)
    same = shrunk_variances(jnp.full(6, 2.0), counts, 0, jnp.zeros(6))
    np.testing.assert_allclose(same, same[0], rtol=1e-12)


@pytest.mark.parametrize(("num_lags", "end"), [(0, 9), (1, 9), (2, 9), (2, 6)])
def test_path_mean_is_generalised_least_squares(num_lags, end):
    world = FactorWorld(20, 5, 2, num_lags)
    parameters, _ = world.draw_parameters(key=jax.random.key(1))
    means = jax.random.normal(jax.random.key(2), (9, 2))
    ours = path_mean(parameters, means, jnp.asarray(end))
    # The law of the path before `end` by its dense covariance.
    cov = np.eye(2 * end)
    if num_lags:
        cov = np.linalg.inv(dense_precision(parameters, end))
    ones = np.tile(np.eye(2), (end, 1))
    precision = np.linalg.inv(cov)
    np.testing.assert_allclose(ours.precision, ones.T @ precision @ ones, atol=1e-10)
    path = np.asarray(means[:end]).ravel()
    np.testing.assert_allclose(ours.vector, ones.T @ precision @ path, atol=1e-10)


def dense_precision(parameters, num_times):
    """Precision of a stationary path, from whole blocks cut back to `num_times` periods."""
    num_lags, size = parameters.num_lags, parameters.num_factors
    blocks = -(-num_times // num_lags)
    prior = path_precision(
        parameters.transition,
        parameters.innovation_cov,
        parameters.initial_mean,
        parameters.initial_cov,
        blocks,
    )
    diagonal, lower = np.asarray(prior.diagonal), np.asarray(prior.lower)
    m = num_lags * size
    dense = np.zeros((blocks * m, blocks * m))
    for s in range(blocks):
        dense[s * m : (s + 1) * m, s * m : (s + 1) * m] = diagonal[s]
    for s in range(1, blocks):
        dense[s * m : (s + 1) * m, (s - 1) * m : s * m] = lower[s - 1]
        dense[(s - 1) * m : s * m, s * m : (s + 1) * m] = lower[s - 1].T
    kept = num_times * size
    return np.linalg.inv(np.linalg.inv(dense)[:kept, :kept])


def model(method=LOOSE, **options):
    return DynamicFactorModel(2, 1, method=method, **options)


def fit(world, seed=0, **options):
    panel = world.sample(key=jax.random.key(seed))
    tight = model(**options, method=EM(rtol=1e-13, max_steps=3000))
    return jax.jit(ModelEstimator(tight).bind(world).__call__)(panel), panel


@pytest.mark.parametrize(
    ("world", "tolerance"),
    # Without lags EM is exact (with flows it is slow, and stops a little earlier). With them its
    # M-step leaves out what the stationary initial law says of the transition, which shifts the
    # balance by a few per cent.
    [
        (STATIC, 1e-5),
        pytest.param(
            dataclasses.replace(STATIC, flows="flow_average"), 2e-4, marks=pytest.mark.slow
        ),
        (WORLD, 0.1),
    ],
)
def test_random_intercepts_are_the_mode_of_their_posterior(world, tolerance):
    """At the fixed point the score of the panel's likelihood balances the pull of the prior:
    d ln p(x) / d mu = (mu - zero) / tau^2, by differentiation of the likelihood."""
    fitted, panel = fit(world, intercept="random")
    parameters, scaling = fitted.parameters, fitted.scaling
    mask = panel.observed.astype(float)
    data = PanelData(
        scaling.standardise(panel.values, mask, world.aggregation), mask, coupling=fitted.coupling
    )
    step = EM().step(fitted.model, Candidate())

    def likelihood(intercept):
        moved = dataclasses.replace(parameters, intercept=intercept)
        return step.expect(moved, data).loglik

    score = jax.grad(likelihood)(parameters.intercept)
    units = DataUnits(-scaling.centre / scaling.scale, jnp.zeros(8))
    data = dataclasses.replace(data, units=units)
    path = path_mean(parameters, fitted.factors, jnp.asarray(world.num_times))
    precision = intercept_precision(parameters, data, path)
    pull = precision * (parameters.intercept - units.zero)
    assert float(jnp.max(jnp.abs(pull))) > 0.5
    np.testing.assert_allclose(score, pull, atol=tolerance)


def test_a_wide_law_is_no_law():
    """Intercepts far apart leave the estimate where maximum likelihood has it."""
    world = dataclasses.replace(WORLD, intercept_scale=1e4)
    random, _ = fit(world, intercept="random", standardise=False)
    free, _ = fit(world, intercept="estimated", standardise=False)
    np.testing.assert_allclose(random.common, free.common, rtol=1e-6, atol=1e-2)


def test_random_intercepts_find_the_level_of_the_factors():
    """With intercepts of zero the mean of the factors over the panel is found."""
    world = FactorWorld(40, 20, 1, 1, intercept_scale=0.0)
    fitted, panel = fit(world, seed=2, intercept="random", standardise=False)
    assert abs(float(panel.factors.mean())) > 0.3
    ours, truth = np.asarray(fitted.factors[:, 0]), np.asarray(panel.factors[:, 0])
    scale = np.sum(truth * ours) / np.sum(ours**2)
    assert abs(scale * ours.mean() - truth.mean()) < 0.1 * abs(truth.mean())


def test_a_masked_tail_is_a_shorter_panel():
    panel = WORLD.sample(key=jax.random.key(0))
    options: dict = dict(idiosyncratic="shrunk", intercept="random")
    run = jax.jit(lambda v, o: model(**options).estimate(v, o))
    masked = run(panel.values, panel.observed & (jnp.arange(40) < 30)[:, None])
    short = run(panel.values[:30], panel.observed[:30])
    np.testing.assert_allclose(masked.factors[:30], short.factors, atol=1e-9)


def test_a_batch_is_a_loop():
    panels = jax.vmap(lambda k: WORLD.sample(key=k))(jax.random.split(jax.random.key(7), 3))
    options: dict = dict(idiosyncratic="shrunk", intercept="random")

    def run(values, observed):
        fitted = model(**options).estimate(values, observed)
        return fitted.factors, fitted.num_steps

    factors, steps = jax.jit(jax.vmap(run))(panels.values, panels.observed)
    alone = jax.jit(run)
    for i in range(3):
        one, count = alone(panels.values[i], panels.observed[i])
        assert int(count) == int(steps[i])
        np.testing.assert_allclose(factors[i], one, atol=1e-9)


def test_it_lowers_for_cuda():
    options: dict = dict(idiosyncratic="shrunk", intercept="random")
    arguments = (jnp.zeros((40, 8)), jnp.zeros((40, 8), bool))
    run = jax.jit(lambda v, o: model(**options).estimate(v, o).factors)
    assert jax.export.export(run, platforms=["cuda"])(*arguments).platforms == ("cuda",)


def test_forecasts_of_random_intercepts_are_in_data_units():
    """Units of the data go through: the panel times 100 forecasts 100 times as much."""
    panel = WORLD.sample(key=jax.random.key(0))
    options: dict = dict(idiosyncratic="shrunk", intercept="random")
    run = jax.jit(lambda v, o: model(**options).estimate(v, o).forecast(3).mean)
    one, hundred = run(panel.values, panel.observed), run(100.0 * panel.values, panel.observed)
    np.testing.assert_allclose(hundred, 100.0 * one, rtol=1e-7)


def test_no_inference_by_likelihood():
    frame = pd.DataFrame(
        RNG.normal(size=(30, 4)), pd.date_range("2000-01-31", periods=30, freq="ME")
    )
    panel = jaxfc.Panel.from_frame(frame.rename(columns=str))
    pooled = DynamicFactorModel(1, 1, method=LOOSE, idiosyncratic="shrunk", intercept="random")
    fitted = pooled.fit(panel)
    assert isinstance(fitted, FittedFactorModel) and np.isfinite(float(fitted.loglik))
    with pytest.raises(ValueError, match="no maximum of the likelihood"):
        jaxfc.factors.standard_errors(fitted, panel)
    with pytest.raises(ValueError, match="no maximum of the likelihood"):
        jaxfc.factors.select_model(pooled, panel, 2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(intercept="random", method=PCA()), "PCA cannot estimate intercept='random'"),
        (dict(idiosyncratic="shrunk", method=TwoStepEM()), "TwoStepEM cannot estimate"),
        (dict(idiosyncratic="shrunk", errors=AutoregressiveErrors()), "independent errors"),
        (dict(intercept="random", restrictions=Blocks({"a": ["x"]})), "no restrictions"),
        (dict(intercept="random", idiosyncratic="full"), "needs a diagonal"),
        (dict(intercept="random", initial="estimated"), "initial='stationary'"),
        (dict(intercept="fixed"), "intercept must be one of"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        DynamicFactorModel(1, 1, **options)
