"""Bounds equal dense conditioning; estimators of a study see what a world draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors import FactorWorld
from jaxfc.factors.estimators import METRICS, KnownFactors, Oracle, factor_estimators
from jaxfc.running.study import Study
from jaxfc_kernels.var_precision import stationary_block_cov

KEY = jax.random.key(5)
SMALL = FactorWorld(7, 4, 2, 1, missing=0.3)
COMPLETE = FactorWorld(7, 4, 2, 2)


def joint_law(world, panel, intercept_var):
    """Mean and covariance of (F, x) with random intercepts, dense: x = W f + mu + e."""
    parameters = jax.tree.map(np.asarray, panel.parameters)
    num_times, num_lags = world.num_times, world.num_lags
    size = world.num_factors
    # Autocovariances by the recursion of Yule and Walker from p periods of the stationary law.
    truth = panel.parameters
    block = np.asarray(stationary_block_cov(truth.transition, truth.innovation_cov))
    cov = np.zeros((num_times * size, num_times * size))
    cov[: num_lags * size, : num_lags * size] = block
    for t in range(num_lags, num_times):
        row = slice(t * size, (t + 1) * size)
        lags = np.concatenate(parameters.transition[::-1], axis=1)
        past = slice((t - num_lags) * size, t * size)
        cov[row, : t * size] = lags @ cov[past, : t * size]
        cov[: t * size, row] = cov[row, : t * size].T
        cov[row, row] = lags @ cov[past, past] @ lags.T + parameters.innovation_cov
    maps = np.kron(np.eye(num_times), parameters.loadings)
    shared = np.kron(np.ones((num_times, num_times)), intercept_var * np.eye(world.num_series))
    errors = np.kron(np.eye(num_times), parameters.idiosyncratic_cov)
    return cov, cov @ maps.T, maps @ cov @ maps.T + errors + shared


def dense_factors(world, panel, mean, intercept_var):
    _, between, cov = joint_law(world, panel, intercept_var)
    seen = np.asarray(panel.observed).ravel()
    left = (np.asarray(panel.values) - np.asarray(mean)).ravel()[seen]
    answer = between[:, seen] @ np.linalg.solve(cov[np.ix_(seen, seen)], left)
    return answer.reshape(world.num_times, world.num_factors)


def said(oracle, world, panel):
    bound = oracle.bind(world)
    return np.asarray(jax.jit(lambda p: bound(p).factors)(panel))


@pytest.mark.parametrize("world", [SMALL, COMPLETE])
def test_oracles_are_conditional_expectations(world):
    panel = world.sample(key=KEY)
    known = dense_factors(world, panel, panel.parameters.intercept, 0.0)
    np.testing.assert_allclose(said(Oracle(), world, panel), known, atol=1e-12)
    law = dense_factors(world, panel, 0.0, world.intercept_scale**2)
    np.testing.assert_allclose(said(Oracle("law"), world, panel), law, atol=1e-12)
    # Nothing known: generalised least squares.
    _, _, cov = joint_law(world, panel, 0.0)
    seen = np.asarray(panel.observed).ravel()
    ones = np.tile(np.eye(world.num_series), (world.num_times, 1))[seen]
    weighted = np.linalg.solve(cov[np.ix_(seen, seen)], ones)
    values = np.asarray(panel.values).ravel()[seen]
    intercept = np.linalg.solve(ones.T @ weighted, weighted.T @ values)
    free = dense_factors(world, panel, intercept, 0.0)
    np.testing.assert_allclose(said(Oracle("nothing"), world, panel), free, atol=1e-12)


def test_an_intercept_of_zero_variance_is_known():
    world = FactorWorld(7, 4, 2, 1, intercept_scale=0.0)
    panel = world.sample(key=KEY)
    np.testing.assert_array_equal(said(Oracle("law"), world, panel), said(Oracle(), world, panel))


def test_closed_form_and_kalman_moments_are_one_estimator():
    world = FactorWorld(30, 6, 2, 1, missing=0.2)
    panel, named = world.sample(key=KEY), factor_estimators(max_steps=5)
    bound = [named[name].bind(world) for name in ("CFM", "KF/KS")]
    fits = jax.jit(lambda p: [b(p).factors for b in bound])(panel)
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-9)


def test_flows_are_left_to_those_who_read_them():
    world = FactorWorld(30, 6, 2, 1, missing=0.4, flows="flow_average")
    applies = {name for name, e in factor_estimators().items() if e.applies(world)}
    assert applies == {"CFM", "KF/KS", "BM", "EB", "EB variances"}
    stocks = {name for name, e in factor_estimators().items() if e.applies(SMALL)}
    assert stocks == set(factor_estimators())


def test_numbers_are_the_world_s():
    bound = factor_estimators()["BM"].bind(FactorWorld(30, 6, 2, 3))
    assert (bound.model.num_factors, bound.model.num_lags) == (2, 3)
    with pytest.raises(ValueError, match="not identified"):
        factor_estimators()["EM full"].bind(FactorWorld(30, 6, 2, 0))


@pytest.mark.slow
def test_a_study_of_all_of_them(tmp_path):
    """Every estimator runs on stocks and flows, no bound is beaten by more than chance, and
    demeaning leaves what only the mean tells apart."""
    grid = [
        dict(num_times=40, num_series=8, num_factors=1, num_lags=1, missing=0.3, flows=flows)
        for flows in ("stock", "change_in_flow")
    ]
    study = Study(FactorWorld, factor_estimators(), grid, METRICS, num_paths=16, batch_size=16)
    result = study.run(tmp_path, key=KEY)
    table = result.table().set_index(["cell", "estimator"])
    assert list(table.loc[1].index) == ["CFM", "KF/KS", "BM", "EB variances", "EB"]
    stocks = table.loc[0]
    assert stocks.trace_r2.between(0, 1).all()
    bound = stocks.loc["oracle"]
    good = stocks.drop(index=["oracle", "EM full"])
    assert (good.trace_r2 < bound.trace_r2).all()
    assert (good.trace_r2_demeaned < bound.trace_r2_demeaned + 0.01).all()
    for cell in (0, 1):
        gain = result.compare("trace_r2", "EB", "BM").set_index("cell").loc[cell]
        assert gain.difference > 2 * gain.difference_se


def test_demeaning_forgets_levels():
    panel = COMPLETE.sample(key=KEY)
    truth = panel.factors
    moved = KnownFactors(truth @ jnp.asarray([[1.0, 2.0], [0.0, 1.0]]) - 5.0)
    assert float(METRICS["trace_r2_demeaned"](panel, moved)) == pytest.approx(1.0, abs=1e-12)
    assert float(METRICS["trace_r2"](panel, moved)) < 0.99
    assert float(METRICS["trace_r2"](panel, KnownFactors(truth))) == pytest.approx(1.0, abs=1e-12)
