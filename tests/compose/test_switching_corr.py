"""Switching correlations: a loop, recovery, holes, projections, forecasts, draws, no look-ahead."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxfc
from jaxfc.compose.switching_corr import SwitchingCorrelation
from jaxfc.regimes import no_prior
from jaxfc.regimes.correlation_structure import FreeCorrelation, ScaledCorrelation
from jaxfc.results import is_okay
from jaxfc.volatility import GARCH, RiskMetrics, VarianceModel, ZeroMean

pytestmark = pytest.mark.slow

NUM_TIMES = 500
GARCHS = VarianceModel(GARCH(), mean=ZeroMean())
METRICS = VarianceModel(RiskMetrics(), mean=ZeroMean())
CORRS = np.array(
    [
        [[1.0, 0.1, 0.0], [0.1, 1.0, 0.1], [0.0, 0.1, 1.0]],
        [[1.0, 0.85, 0.8], [0.85, 1.0, 0.8], [0.8, 0.8, 1.0]],
    ]
)


@pytest.fixture(scope="module")
def world():
    """GARCH(1, 1) returns in percent, correlations of two regimes, a tenth of the cells hidden."""
    rng = np.random.default_rng(0)
    transition = np.array([[0.98, 0.02], [0.04, 0.96]])
    chols = np.linalg.cholesky(CORRS)
    regime, variance, rows, regimes = 0, np.ones(3), [], []
    for _ in range(NUM_TIMES):
        regime = rng.choice(2, p=transition[regime])
        row = np.sqrt(variance) * (chols[regime] @ rng.normal(size=3))
        variance = 0.05 + 0.08 * row**2 + 0.87 * variance
        rows.append(row)
        regimes.append(regime)
    observed = rng.random((NUM_TIMES, 3)) > 0.1
    observed[-1, 0] = True
    return jnp.asarray(np.where(observed, rows, np.nan)), jnp.asarray(observed), np.array(regimes)


@eqx.filter_jit
def estimated(model, values, observed):
    return model.estimate(values, observed)


@pytest.fixture(scope="module", params=["free", "scaled"])
def fitted(request, world):
    shape = {"free": FreeCorrelation(), "scaled": ScaledCorrelation()}[request.param]
    return estimated(SwitchingCorrelation(2, shape, margins=GARCHS), world[0], world[1])


def test_correlations_and_regimes_are_found(world, fitted):
    assert bool(is_okay(fitted.result))
    corrs = np.asarray(fitted.corrs)
    if isinstance(fitted.emissions.structures[0], FreeCorrelation):
        np.testing.assert_allclose(corrs, CORRS, atol=0.17)
    else:  # one matrix near and far: not quite the world's, and no farther than it is regular
        off = np.triu_indices(3, 1)
        assert corrs[0][off].max() < 0.15 and corrs[1][off].min() > 0.5
    np.testing.assert_allclose(np.diagonal(corrs, axis1=1, axis2=2), 1.0, atol=1e-14)
    assert np.linalg.eigvalsh(corrs).min() > 0
    smoothed = np.asarray(fitted.expectations().smoothed.probabilities)
    assert np.mean((smoothed[:, 1] > 0.5) == world[2]) > 0.85
    path = np.asarray(fitted.path)[: int(fitted.num_steps)]
    assert np.nanmin(np.diff(path[np.isfinite(path)])) > -1e-9


def test_the_likelihood_is_that_of_a_loop(world, fitted):
    values, observed = np.asarray(world[0]), np.asarray(world[1])
    stds = np.sqrt(np.asarray(fitted.margins.variances))
    corrs, transition = np.asarray(fitted.corrs), np.asarray(fitted.transition)
    law, total = np.asarray(fitted.parameters.initial), 0.0
    for t in range(NUM_TIMES):
        seen = observed[t]
        densities = np.ones(2)
        if seen.any():
            scale = np.outer(stds[t], stds[t])[np.ix_(seen, seen)]
            for k in range(2):
                cov = scale * corrs[k][np.ix_(seen, seen)]
                densities[k] = stats.multivariate_normal(cov=cov).pdf(values[t, seen])
        joint = law * densities
        total += np.log(joint.sum())
        filtered = joint / joint.sum()
        law = filtered @ transition
    assert float(fitted.loglik) == pytest.approx(total, rel=1e-11)
    np.testing.assert_allclose(fitted.state, filtered, atol=1e-11)
    np.testing.assert_allclose(jnp.sum(fitted.log_densities()), total, rtol=1e-11)


def test_one_step_is_exact_and_variances_are_at_any(fitted):
    forecast = fitted.forecast(5)
    law = np.asarray(fitted.state) @ np.asarray(fitted.transition)
    ahead = np.asarray(fitted.margins.forecast(5).std)
    corr = np.einsum("k,kij->ij", law, fitted.corrs)
    expected = np.outer(ahead[0], ahead[0]) * corr
    np.testing.assert_allclose(forecast.cov[0, :, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(forecast.std, ahead, rtol=1e-12)
    matrix = np.asarray(forecast.cov).reshape(15, 15)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_draws_have_the_covariances(fitted):
    """The approximation of covariances beyond one step is an upper bound in size, and close."""
    forecast = fitted.forecast(4)
    drawn = fitted.forecast(4, key=jax.random.key(0), num_draws=60_000)
    for step, tolerance in ((0, 0.025), (3, 0.035)):
        scale = np.outer(forecast.std[step], forecast.std[step])
        gap = (drawn.cov[step, :, step] - forecast.cov[step, :, step]) / scale
        np.testing.assert_allclose(gap, 0.0, atol=tolerance)
    np.testing.assert_allclose(drawn.std, forecast.std, rtol=0.02)
    path = np.asarray(fitted.simulate(300, key=jax.random.key(1)))
    assert path.shape == (300, 3) and np.isfinite(path).all()


def test_the_scaled_form_is_that_of_pelletier(world):
    """Gamma_k = Gamma lambda_k + I (1 - lambda_k), and at the end the likelihood is flat in l."""
    model = SwitchingCorrelation(2, ScaledCorrelation(), margins=METRICS, tolerance=1e-13)
    found = estimated(model, world[0], world[1])
    corrs = np.asarray(found.corrs)
    ratio = (corrs[0] - np.eye(3))[np.triu_indices(3, 1)] / (corrs[1] - np.eye(3))[
        np.triu_indices(3, 1)
    ]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert 0 <= ratio[0] < 1
    flat = dataclasses.replace(model, prior=no_prior())
    found = estimated(flat, world[0], world[1])

    def loglik(scales):
        parameters = dataclasses.replace(found.parameters, scatters=(scales,))
        return jnp.sum(dataclasses.replace(found, parameters=parameters).log_densities())

    slope = np.asarray(jax.grad(loglik)(found.parameters.scatters[0]))
    np.testing.assert_allclose(slope, 0.0, atol=2e-3)


def test_hidden_cells_and_later_rows_do_not_matter(world):
    values, observed, _ = world
    values, observed = values[:120], observed[:120]
    fitted = estimated(SwitchingCorrelation(margins=METRICS, max_steps=20), values, observed)

    def filtered(values):
        moved = fitted.given(values, observed)
        return jnp.exp(moved.expectations().filtered.log_filtered[80, 1])

    slope = np.asarray(jax.jit(jax.grad(filtered))(jnp.where(observed, values, 0.0)))
    np.testing.assert_array_equal(slope[~np.asarray(observed)], 0.0)
    assert np.abs(slope[78:81]).max() > 0
    # RiskMetrics starts from the mean square of all rows: a level, no news of the later row.
    given = fitted.given(values, observed & (jnp.arange(120) <= 80)[:, None])
    assert np.isfinite(float(given.loglik))


def test_units_do_not_matter(world):
    model = SwitchingCorrelation(margins=METRICS, max_steps=60)
    base = estimated(model, world[0], world[1])
    scale = jnp.array([1e-6, 1.0, 1e6])
    moved = estimated(model, scale * world[0], world[1])
    np.testing.assert_allclose(moved.corrs, base.corrs, rtol=1e-9)
    cells = np.asarray(world[1]).sum(axis=0)
    expected = float(base.loglik) - float(cells @ np.log(np.asarray(scale)))
    assert float(moved.loglik) == pytest.approx(expected, rel=1e-9)


def test_fit_checks_and_lowers_for_cuda(world):
    index = pd.bdate_range("2020-01-01", periods=NUM_TIMES)
    panel = jaxfc.Panel.from_frame(pd.DataFrame(np.asarray(world[0]), index, list("ABC")))
    model = SwitchingCorrelation(margins=METRICS, max_steps=400)
    fitted = model.fit(panel)
    assert float(fitted.corrs[1, 0, 1]) > 0.5
    with pytest.raises(ValueError, match="num_regimes must be at least 1, got 0"):
        SwitchingCorrelation(0)
    with pytest.raises(ValueError, match="implementation must be one of"):
        SwitchingCorrelation(implementation="fast")
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        fitted.forecast(0)
    exported = jax.export.export(
        jax.jit(lambda v, o: model.estimate(v, o).forecast(3).cov), platforms=["cuda"]
    )(world[0][:50], world[1][:50])
    assert exported.platforms == ("cuda",)
