"""Outliers, heavy tails, volatile periods, and fewer shocks than factors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad

import jaxfc
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.shocks import shock_criteria, shock_loadings, with_num_shocks
from jaxfc.factors.weighting import StudentT, VolatilePeriods

pytestmark = pytest.mark.slow

NAMES = list("ABCDEF")
METHOD = jaxfc.EM(rtol=1e-7, max_steps=1000)


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    factor = np.convolve(rng.normal(size=131), 0.8 ** np.arange(12), "valid")
    values = np.outer(factor, rng.uniform(0.8, 1.5, 6)) + rng.normal(size=(120, 6))
    values[rng.random(values.shape) < 0.1] = np.nan
    index = pd.date_range("2011-01-31", periods=120, freq="ME")
    return pd.DataFrame(values, index, NAMES)


@pytest.fixture(scope="module")
def spoilt(clean):
    """Three gross errors in cells that are observed."""
    frame = clean.copy()
    cells = [(t, i) for t, i in ((20, 0), (55, 2), (90, 4)) if np.isfinite(frame.iat[t, i])]
    assert len(cells) == 3
    for t, i in cells:
        frame.iat[t, i] += 25.0
    return frame, cells


def fit(frame, **options):
    panel = jaxfc.Panel.from_frame(frame)
    return jaxfc.DynamicFactorModel(1, 1, method=METHOD, **options).fit(panel, throw=False)


@pytest.fixture(scope="module")
def robust(spoilt):
    return fit(spoilt[0], weighting=StudentT(4.0))


def test_outliers_get_the_smallest_weights(robust, spoilt):
    frame, cells = spoilt
    weights = np.where(frame.notna(), np.asarray(robust.parameters.error_weights), np.inf)
    smallest = {
        tuple(map(int, np.unravel_index(i, weights.shape))) for i in np.argsort(weights, None)[:3]
    }
    assert smallest == set(cells)
    assert np.all(np.asarray(robust.parameters.error_weights)[frame.isna()] == 1.0)


def test_outliers_no_longer_move_the_loadings(robust, clean, spoilt):
    truth, plain = fit(clean), fit(spoilt[0])

    def common(fitted):  # in data units, whatever the scaling
        return np.asarray(fitted.common)

    error_robust = np.abs(common(robust) - common(truth)).mean()
    error_plain = np.abs(common(plain) - common(truth)).mean()
    assert error_robust < 0.6 * error_plain


def test_the_bound_rises(robust):
    path = np.asarray(robust.loglik_path)
    path = path[np.isfinite(path)]
    assert np.diff(path).min() > -1e-8


def test_the_bound_of_one_error_is_exact_at_its_weight():
    """Given the residual the variational law of its weight is exact: the bound is ln t_n(u)."""
    degrees, error = 4.0, 1.7
    weight = StudentT(degrees).weights(jnp.array([[error**2]]), jnp.ones((1, 1)))
    gaussian = stats.norm.logpdf(error, scale=float(weight[0, 0]) ** -0.5)
    bound = gaussian + float(StudentT(degrees).bound(weight, jnp.ones((1, 1))))
    assert_allclose(bound, stats.t.logpdf(error, degrees), rtol=1e-10)


def test_the_mean_weight_of_one_error_is_the_exact_one():
    degrees, error = 4.0, 1.7

    def density(w):
        return stats.gamma.pdf(w, degrees / 2, scale=2 / degrees) * stats.norm.pdf(
            error, scale=w**-0.5
        )

    mean = quad(lambda w: w * density(w), 0, 60)[0] / quad(density, 0, 60)[0]
    ours = StudentT(degrees).weights(jnp.array([[error**2]]), jnp.ones((1, 1)))
    assert_allclose(ours[0, 0], mean, rtol=1e-6)


def test_many_degrees_of_freedom_are_the_normal_model(clean):
    normal, nearly = fit(clean), fit(clean, weighting=StudentT(1e7))
    assert_allclose(nearly.forecast(2).mean, normal.forecast(2).mean, rtol=1e-3)
    assert_allclose(nearly.loglik, normal.loglik, rtol=1e-5)


def test_weights_with_memory(spoilt):
    frame, cells = spoilt
    fitted = fit(frame, weighting=StudentT(4.0), errors=AutoregressiveErrors())
    weights = np.asarray(fitted.parameters.error_weights)
    assert max(weights[cell] for cell in cells) < 0.05
    path = np.asarray(fitted.loglik_path)
    assert np.diff(path[np.isfinite(path)]).min() > -1e-8


def test_volatile_periods_find_the_scale(clean):
    """Errors five times as large in four months get about a twenty-fifth of the weight there."""
    frame = clean.copy()
    rng = np.random.default_rng(5)
    frame.iloc[60:64] += 5.0 * rng.normal(size=(4, 6))
    start, stop = (str(frame.index[t].date()) for t in (60, 63))
    fitted = fit(frame, weighting=VolatilePeriods(start, stop))
    weights = np.asarray(fitted.parameters.error_weights)
    outside = np.delete(weights, np.arange(60, 64), axis=0)
    assert np.all(outside == 1.0)
    assert np.all(weights[60:64] < 0.3) and np.all(weights[60:64] > 0.005)
    plain, truth = fit(frame), fit(clean)
    gap = np.abs(np.asarray(fitted.parameters.variances) - np.asarray(truth.parameters.variances))
    other = np.abs(np.asarray(plain.parameters.variances) - np.asarray(truth.parameters.variances))
    assert gap.mean() < other.mean()


def test_volatile_periods_outside_the_panel_are_an_error(clean):
    with pytest.raises(ValueError, match="holds no row of the panel"):
        fit(clean, weighting=VolatilePeriods("1999-01-01", "1999-12-31"))


def test_weights_need_a_method_that_knows_them():
    with pytest.raises(ValueError, match="PPCA cannot estimate weighted errors"):
        jaxfc.DynamicFactorModel(1, 1, method=jaxfc.PPCA(), weighting=StudentT())


@pytest.fixture(scope="module")
def two_factors():
    """Two factors, the second the lag of the first: one shock."""
    rng = np.random.default_rng(1)
    shock = np.convolve(rng.normal(size=412), 0.7 ** np.arange(12), "valid")
    factors = np.stack([shock[1:], shock[:-1]], axis=1)
    values = factors @ rng.normal(size=(2, 20)) + 0.3 * rng.normal(size=(400, 20))
    index = pd.date_range("1980-01-31", periods=400, freq="ME")
    frame = pd.DataFrame(values, index, [f"S{i}" for i in range(20)])
    panel = jaxfc.Panel.from_frame(frame)
    return jaxfc.DynamicFactorModel(2, 1, method=jaxfc.EM(rtol=1e-5)).fit(panel)


def test_one_shock_is_found(two_factors):
    criteria = shock_criteria(two_factors.parameters.innovation_cov, 400, 20)
    assert int(criteria.num_shocks_first) == int(criteria.num_shocks_second) == 1
    eigenvalues = np.linalg.eigvalsh(two_factors.parameters.innovation_cov)[::-1]
    assert_allclose(criteria.first[0], eigenvalues[1] / np.sqrt(np.sum(eigenvalues**2)))
    assert_allclose(criteria.second[1], 0.0, atol=1e-12)


def test_as_many_shocks_as_factors_where_they_are_equal():
    criteria = shock_criteria(jnp.eye(3), 200, 100)
    assert int(criteria.num_shocks_first) == 3
    assert int(criteria.num_shocks_second) == 3


def test_a_model_with_fewer_shocks(two_factors):
    reduced = with_num_shocks(two_factors, 1)
    eigenvalues = np.linalg.eigvalsh(reduced.parameters.innovation_cov)
    assert eigenvalues[0] < 1e-5 * eigenvalues[1]
    loadings = shock_loadings(two_factors.parameters.innovation_cov, 1)
    assert_allclose(loadings @ loadings.T, reduced.parameters.innovation_cov, atol=1e-5)
    assert reduced.loglik < two_factors.loglik
    smoothed = reduced.state_space().smooth(
        *(jnp.asarray(a) for a in (reduced.scaling.restore(reduced.completed), reduced.observed))
    )
    assert_allclose(smoothed.smoothed_means, reduced.factors, atol=1e-6)


@pytest.mark.parametrize("number", [0, 3])
def test_impossible_numbers_of_shocks(two_factors, number):
    with pytest.raises(ValueError, match="num_shocks must be 1 to 2"):
        with_num_shocks(two_factors, number)


def test_blocks_have_no_fewer_shocks(two_factors):
    from jaxfc.factors.restrictions import Restrictions

    rules = Restrictions(innovations=jnp.eye(2, dtype=bool))
    model = dataclasses.replace(two_factors.model, restrictions=rules)
    with pytest.raises(ValueError, match="factor blocks are restricted"):
        with_num_shocks(dataclasses.replace(two_factors, model=model), 1)
