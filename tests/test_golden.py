"""Our numbers against numbers from other programs; tests/golden/README.md lists where from."""

import dataclasses
import warnings

import equinox as eqx
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from golden import cases, panels
from golden import dfms_pipeline as dfms
from jaxfc.state_space import StateSpace

LOG_2PI = np.log(2.0 * np.pi)

# Entries of the transition, (row, column) from zero, are from dfms's own tests; the log-likelihood
# of the last iteration and the number of iterations from an independent run of its method.
DFMS = {
    "small": (2, 3, {(0, 0): 1.21068973, (1, 5): 0.39143899}, -5567.33671598, 26),
    "medium": (3, 3, {(0, 0): 0.74619087, (2, 8): 0.15380781}, -19150.4047642, 26),
    "large": (6, 3, {(0, 0): 0.48915420, (5, 17): 0.10027110}, None, None),
}


@pytest.fixture(scope="module")
def bm14(shared_data):
    growth, table = panels.bm14_growth(shared_data / "bm14")

    def panel(size):
        return dfms.standardize(growth[:, table[size].to_numpy(bool)])

    return panel


@pytest.fixture(scope="module")
def dfms_paths(bm14):
    """Panel, visited parameters and reported log-likelihoods of the two smaller models."""
    paths = {}
    for size in ("small", "medium"):
        num_factors, num_lags = DFMS[size][:2]
        data = bm14(size)
        paths[size] = (data, *dfms.estimate(data, num_factors, num_lags))
    return paths


@eqx.filter_jit
def log_prob(space, values, observed):
    return space.log_prob(values, observed)


@eqx.filter_jit
def smooth(space, values, observed, implementation="joint"):
    return space.smooth(values, observed, implementation=implementation)


@eqx.filter_jit
def forecast_mean(space, values, observed, horizon):
    return space.forecast(values, observed, horizon).mean


@pytest.mark.parametrize("size", ["small", "medium"])
def test_pipeline_reproduces_dfms(dfms_paths, size):
    _, visited, reported = dfms_paths[size]
    entries, loglik, num_iterations = DFMS[size][2:]
    for position, value in entries.items():
        assert_allclose(visited[-1].transition[position], value, atol=6e-9)
    assert_allclose(reported[-1], loglik, rtol=2.7e-12)
    assert len(reported) == num_iterations


@pytest.mark.slow
def test_pipeline_reproduces_dfms_large(bm14):
    num_factors, num_lags, entries = DFMS["large"][:3]
    visited, _ = dfms.estimate(bm14("large"), num_factors, num_lags)
    for position, value in entries.items():  # dfms tests these to 1e-5; see the README
        assert_allclose(visited[-1].transition[position], value, atol=4e-8)


@pytest.mark.parametrize(("size", "implementation"), [("small", "joint"), ("medium", "collapsed")])
def test_state_space_at_dfms_parameters(dfms_paths, size, implementation):
    data, visited, _ = dfms_paths[size]
    loglik = DFMS[size][3]
    before_last_step = cases.space_of(visited[-2])
    # dfms subtracts log(2 pi) / 2 for unobserved cells too, in rows that are not empty.
    excess = 0.5 * LOG_2PI * np.isnan(data)[~np.isnan(data).all(axis=1)].sum()
    ours = smooth(before_last_step, *cases.as_arrays(data), implementation).loglik
    assert_allclose(ours - excess, loglik, rtol=2.7e-12)

    posterior = smooth(cases.space_of(visited[-1]), *cases.as_arrays(data), implementation)
    theirs = dfms.smooth(data, visited[-1])
    assert_allclose(posterior.smoothed_means, theirs.means[1:], atol=1e-9)
    assert_allclose(posterior.smoothed_covs, theirs.covs[1:], atol=1e-9)
    assert_allclose(posterior.smoothed_cross_covs, theirs.lag_covs[1:], atol=1e-9)


FRBNY = ["CPIAUCSL", "UNRATE", "PAYEMS", "RSAFS", "TTLCONS", "TCU"]


@pytest.mark.parametrize(
    ("run", "num_monthly", "implementation"),
    [("11F", 3, "joint"), ("22F", 3, "univariate"), ("blocks_221", 6, "collapsed")],
)
def test_state_space_at_frbny_parameters(run, num_monthly, implementation):
    """Mixed frequency with AR(1) errors as states: 18 to 46 states, singular innovations."""
    scipy_io = pytest.importorskip("scipy.io")
    path = panels.statsmodels_results("frbny_nowcast", f"test_dfm_{run}.mat")
    theirs = scipy_io.loadmat(path)["Res"][0, 0]
    data = panels.frbny_growth(FRBNY[:num_monthly])
    start_mean = theirs["Z_0"].ravel()
    space = cases.space_of(
        dfms.Parameters(
            loadings=theirs["C"],
            idiosyncratic_var=np.diag(theirs["R"]).copy(),
            transition=theirs["A"],
            innovation_cov=theirs["Q"],
            initial_mean=start_mean,
            initial_cov=theirs["V_0"],
        )
    )
    posterior = smooth(space, *cases.as_arrays(data), implementation)
    without_constant = posterior.loglik + 0.5 * LOG_2PI * (~np.isnan(data)).sum()
    assert_allclose(without_constant, theirs["loglik"].item(), rtol=1e-11)
    assert_allclose(posterior.smoothed_means @ theirs["C"].T, theirs["x_sm"], atol=1e-9)


# Stata prints its parameters with 8 decimals. The tolerances are what that rounding can do to each
# number (sum of |derivative| times half a unit in the last place); it is large for the likelihood
# of `dfm2` only, whose optimisation Stata had been told to stop after one step.
@pytest.mark.parametrize(
    ("name", "atol"), [("dfm", 2e-7), ("dfm2", 8e-4), ("dfm_exog1", 2e-7), ("dfm_scalar", 2e-7)]
)
def test_state_space_at_stata_parameters(name, atol):
    params, shift, loglik = cases.stata_case(name)
    sample = cases.as_arrays(panels.lutkepohl_growth()[:75])
    assert_allclose(log_prob(cases.space_of(params, shift), *sample), loglik, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["dfm", "dfm2", "dfm_exog1", "dfm_scalar"])
def test_forecast_at_stata_parameters(name):
    params, shift, _ = cases.stata_case(name)
    sample = cases.as_arrays(panels.lutkepohl_growth()[:75])
    theirs = panels.stata_forecasts(name)
    ours = forecast_mean(cases.space_of(params, shift), *sample, len(theirs))
    assert_allclose(ours, theirs, rtol=0, atol=2.2e-7)


def test_state_space_against_kfas_with_gaps():
    """Three random walks with noise; rows with one, two and all three series missing."""
    theirs = panels.kfas_table()
    space = StateSpace(
        initial_mean=np.zeros(3),
        initial_cov=1e6 * np.eye(3),
        transition=np.eye(3),
        offset=np.zeros(3),
        innovation_cov=np.eye(3),
        design=np.eye(3),
        observation_offset=np.zeros(3),
        observation_cov=np.ones(3),
    )
    data = panels.macro_with_gaps()
    posterior = smooth(space, *cases.as_arrays(data))
    assert_allclose(posterior.loglik, -205310.9767, rtol=0, atol=5e-5)
    assert_allclose(posterior.predicted_means, theirs[["m1", "m2", "m3"]], rtol=1e-9, atol=1e-7)
    assert_allclose(
        posterior.smoothed_means, theirs[[f"alphahat{i}" for i in (1, 2, 3)]], rtol=1e-9, atol=1e-7
    )
    assert_allclose(np.linalg.det(posterior.smoothed_covs), theirs["detV"], rtol=1e-8)
    errors = theirs[["v1", "v2", "v3"]].to_numpy()
    assert_allclose(
        np.where(np.isnan(data), np.nan, posterior.prediction_errors), errors, rtol=1e-9, atol=1e-7
    )


def test_state_space_at_statsmodels_parameters():
    model, read = cases.statsmodels_case(num_lags=2, with_gaps=True)
    theirs = model.smooth(model.start_params)
    posterior = smooth(cases.space_of(read(model.start_params)), *cases.as_arrays(model.endog))
    assert_allclose(posterior.loglik, theirs.llf, rtol=1e-12)
    assert_allclose(posterior.smoothed_means, theirs.smoothed_state.T, atol=1e-10)
    assert_allclose(
        posterior.smoothed_covs, np.moveaxis(theirs.smoothed_state_cov, -1, 0), atol=1e-10
    )


@eqx.filter_jit
def expect(step, parameters, data):
    return step.expect(parameters, data)


@eqx.filter_jit
def em_path(step, parameters, data, num_steps):
    """Parameters after each of `num_steps` EM steps, and the E-steps at those before them."""

    def body(parameters, _):
        expectation = step.expect(parameters, data)
        new = step.maximise(parameters, data, expectation)
        return new, (new, expectation)

    return jax.lax.scan(body, parameters, None, length=num_steps)[1]


@pytest.mark.parametrize("size", ["small", "medium"])
def test_em_reaches_dfms_estimates(dfms_paths, size):
    """From dfms's start values, step by step, to the entries of A that dfms publishes."""
    data, visited, reported = dfms_paths[size]
    num_factors, num_lags, entries, loglik, _ = DFMS[size]
    start = cases.factor_parameters(visited[0])
    num_steps = len(reported)
    path, expected = em_path(cases.em_step(num_lags), start, cases.panel_data(data), num_steps)
    logliks = expected.loglik - 0.5 * LOG_2PI * np.isnan(data).sum()
    assert_allclose(logliks, reported, rtol=1e-11)
    assert_allclose(logliks[-1], loglik, rtol=2.7e-12)
    for index in (0, num_steps - 1):
        ours = jax.tree.map(lambda leaf, index=index: leaf[index], path)
        theirs = cases.factor_parameters(visited[index + 1])
        cases.assert_same_parameters(ours, theirs, 1e-9)
    for (row, column), value in entries.items():
        lag, factor = divmod(column, num_factors)
        assert_allclose(path.transition[-1, lag, row, factor], value, atol=6e-9)

    theirs = dfms.smooth(data, visited[0])
    means = expected.posterior.means[0, num_lags:]
    lag_covs = expected.posterior.lag_covs[0, :, num_lags:]
    now, before = slice(0, num_factors), slice(num_factors, 2 * num_factors)
    assert_allclose(means, theirs.means[1:, now], atol=1e-11)
    assert_allclose(lag_covs[0], theirs.covs[1:, now, now], atol=1e-11)
    assert_allclose(lag_covs[1], theirs.covs[1:, now, before], atol=1e-11)


@pytest.mark.parametrize(
    ("name", "atol"), [("dfm", 2e-7), ("dfm2", 8e-4), ("dfm_exog1", 2e-7), ("dfm_scalar", 2e-7)]
)
def test_factor_model_at_stata_parameters(name, atol):
    params, shift, loglik = cases.stata_case(name)
    sample = cases.panel_data(panels.lutkepohl_growth()[:75])
    ours = expect(cases.em_step(0, "stationary"), cases.factor_parameters(params, shift), sample)
    assert_allclose(ours.loglik, loglik, rtol=0, atol=atol)


def test_factor_model_against_kfas_with_gaps():
    theirs = panels.kfas_table()
    params = dfms.Parameters(
        np.eye(3), np.ones(3), np.eye(3), np.eye(3), np.zeros(3), 1e6 * np.eye(3)
    )
    data = cases.panel_data(panels.macro_with_gaps())
    ours = expect(cases.em_step(0), cases.factor_parameters(params), data)
    assert_allclose(ours.loglik, -205310.9767, rtol=0, atol=5e-5)
    smoothed = theirs[[f"alphahat{i}" for i in (1, 2, 3)]]
    assert_allclose(ours.posterior.means, smoothed, rtol=1e-9, atol=1e-7)
    assert_allclose(np.linalg.det(ours.posterior.covs), theirs["detV"], rtol=1e-8)


@pytest.mark.parametrize(("num_lags", "with_gaps"), [(1, False), (2, True)])
def test_factor_model_follows_statsmodels(num_lags, with_gaps):
    """Likelihood and factors at its start values, then three of its EM iterations."""
    model, read = cases.statsmodels_case(num_lags, with_gaps)
    theirs = model.smooth(model.start_params)
    data = cases.panel_data(model.endog)
    # statsmodels re-estimates the law of the state of the first row: p - 1 periods before it.
    step = cases.em_step(num_lags - 1)
    start = cases.factor_parameters(read(model.start_params))
    path, expected = em_path(step, start, data, 3)
    means = expected.posterior.means[:, num_lags - 1 :]
    # Without gaps statsmodels stops updating its covariances once they have nearly converged.
    assert_allclose(expected.loglik[0], theirs.llf, rtol=1e-12)
    assert_allclose(means[0], theirs.smoothed_state[:2].T, atol=1e-10)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is told to stop before it converges
        fitted = model.fit_em(model.start_params, maxiter=3, tolerance=0.0).mle_retvals
    assert_allclose(expected.loglik, fitted.llf[:3], rtol=1e-12)
    for index in range(3):
        law = fitted.inits[index + 1]
        ours = jax.tree.map(lambda leaf, index=index: leaf[index], path)
        theirs = dataclasses.replace(
            read(fitted.params[index + 1]),
            initial_mean=law.constant,
            initial_cov=law.stationary_cov,
        )
        cases.assert_same_parameters(ours, cases.factor_parameters(theirs), 1e-9)
