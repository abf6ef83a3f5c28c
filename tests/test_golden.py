"""Our numbers against numbers from other programs; tests/golden/README.md lists where from."""

import equinox as eqx
import numpy as np
import pandas as pd
import pytest
from golden import cases, panels
from golden import dfms_pipeline as dfms
from numpy.testing import assert_allclose

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
def bm14():
    growth, table = panels.bm14_growth()

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
def log_prob(space, values, observed, implementation="joint"):
    return space.log_prob(values, observed, implementation=implementation)


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


def test_pipeline_reproduces_dfms_large(bm14):
    num_factors, num_lags, entries = DFMS["large"][:3]
    visited, _ = dfms.estimate(bm14("large"), num_factors, num_lags)
    for position, value in entries.items():  # printed with 8 decimals, tested by dfms at 1e-5
        assert_allclose(visited[-1].transition[position], value, atol=4e-8)


@pytest.mark.parametrize(("size", "implementation"), [("small", "joint"), ("medium", "collapsed")])
def test_state_space_at_dfms_parameters(dfms_paths, size, implementation):
    data, visited, _ = dfms_paths[size]
    loglik = DFMS[size][3]
    before_last_step = cases.space_of(visited[-2])
    # dfms subtracts log(2 pi) / 2 for unobserved cells too, in rows that are not empty.
    excess = 0.5 * LOG_2PI * np.isnan(data)[~np.isnan(data).all(axis=1)].sum()
    ours = log_prob(before_last_step, *cases.as_arrays(data), implementation)
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
    path = ("tsa", "statespace", "tests", "results", "frbny_nowcast", f"test_dfm_{run}.mat")
    theirs = scipy_io.loadmat(panels.statsmodels_file(*path))["Res"][0, 0]
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
    path = ("tsa", "statespace", "tests", "results", "results_dynamic_factor_stata.csv")
    table = pd.read_csv(panels.statsmodels_file(*path))
    theirs = table[[f"predict_{name}_{i}" for i in (1, 2, 3)]].to_numpy()[76:]
    ours = forecast_mean(cases.space_of(params, shift), *sample, len(theirs))
    assert_allclose(ours, theirs, rtol=0, atol=2.2e-7)


def test_state_space_against_kfas_with_gaps():
    """Three random walks with noise; rows with one, two and all three series missing."""
    path = ("tsa", "statespace", "tests", "results", "results_smoothing_R.csv")
    theirs = pd.read_csv(panels.statsmodels_file(*path))
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


@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.parametrize("num_lags", [1, 2])
def test_state_space_at_statsmodels_parameters(num_lags, with_gaps):
    model, read = cases.statsmodels_case(num_lags, with_gaps)
    theirs = model.smooth(model.start_params)
    posterior = smooth(cases.space_of(read(model.start_params)), *cases.as_arrays(model.endog))
    # Without gaps statsmodels stops updating its covariances once they have nearly converged.
    assert_allclose(posterior.loglik, theirs.llf, rtol=1e-12)
    assert_allclose(posterior.smoothed_means, theirs.smoothed_state.T, atol=1e-10)
    assert_allclose(
        posterior.smoothed_covs, np.moveaxis(theirs.smoothed_state_cov, -1, 0), atol=1e-10
    )
