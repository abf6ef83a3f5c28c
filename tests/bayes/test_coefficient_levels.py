"""Alphas and betas by level: published answers, dense Gaussian algebra, densities, the model."""

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
from jaxfc.bayes.coefficient_algebra import (
    LevelScales,
    RegressionEvidence,
    draw_levels,
    level_information,
    level_law,
    level_shares,
    regression_evidence,
)
from jaxfc.bayes.coefficient_drift import ROWS_OF_DRIFT, Drift, DriftingCoefficients
from jaxfc.bayes.coefficient_fitted import regressor_paths
from jaxfc.bayes.coefficient_levels import GaussianCoefficients, StudentCoefficients
from jaxfc.bayes.coefficient_prior import CoefficientData
from jaxfc.bayes.coefficient_regression import (
    GaussianErrors,
    HierarchicalRegression,
    StudentErrors,
)
from jaxfc.bayes.coefficient_regressors import RegressorLaw, regressor_law
from jaxfc.bayes.diagnostics import Limits
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.hierarchy import Shrinkage
from jaxfc.hierarchy.exposures import shrunk_exposures
from jaxfc.results import is_okay

MEMBERS = np.array([0, 1, 0, 1])
NUM_TIMES = 7


@pytest.fixture(scope="module")
def world():
    """Four assets in two sectors, two coefficients; the last asset has one row only."""
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(NUM_TIMES), rng.normal(size=NUM_TIMES)])
    observed = rng.random((NUM_TIMES, 4)) > 0.2
    observed[:, 3] = np.arange(NUM_TIMES) == 2
    values = np.where(observed, rng.normal(size=(NUM_TIMES, 4)), 0.0)
    return CoefficientData(*map(jnp.asarray, (values, observed, columns, MEMBERS)), num_sectors=2)


def scales_of(seed=1):
    rng = np.random.default_rng(seed)
    chols = np.tril(rng.normal(size=(3, 2, 2)))
    return LevelScales(jnp.asarray(rng.normal(size=2)), *map(jnp.asarray, chols))


NOISE = jnp.array([0.7, 1.1, 0.4, 0.9])


def dense_prior(scales, num_series=4, num_sectors=2):
    """Mean and covariance of (market, sectors, assets) stacked."""
    q = len(scales.market_mean)
    size = (1 + num_sectors + num_series) * q
    top, between, within = (np.asarray(c @ c.T) for c in scales[1:])
    cov = np.tile(top, (size // q, size // q))
    sector = np.concatenate([[-1], np.arange(num_sectors), MEMBERS[:num_series]])
    for i, j in np.ndindex(size // q, size // q):
        block = np.s_[i * q : (i + 1) * q, j * q : (j + 1) * q]
        if i > 0 and j > 0 and sector[i] == sector[j]:
            cov[block] += between
        if i == j and i > num_sectors:
            cov[block] += within
    return np.tile(np.asarray(scales.market_mean), size // q), cov


def dense_rows(data):
    """The matrix that takes stacked coefficients of assets to the observed cells, and these."""
    times, series = np.nonzero(np.asarray(data.observed))
    q, n = data.num_coefficients, data.num_series
    design = np.zeros((len(times), n * q))
    for row, (t, i) in enumerate(zip(times, series, strict=True)):
        design[row, i * q : (i + 1) * q] = data.columns[t]
    return design, np.asarray(data.values)[times, series], series


@eqx.filter_jit
def informed(data, noise, scales):
    evidence = regression_evidence(data.values, data.observed, data.columns)
    found = level_information(evidence, noise, data.members, data.num_sectors, scales)
    shares = level_shares(found, scales)
    return found, level_law(found, data.members, scales), shares


# hierarchy.md 4c: closed forms of two- and three-level shrinkage.
ESTIMATES = jnp.array([1.2, 0.8, 1.5, 0.5, 0.9])
VARIANCES = jnp.array([0.04, 0.01, 0.25, 0.09, 0.04])


@pytest.mark.parametrize(
    "market_variance, sectors, assets, digits",
    [
        (
            0.0,
            (1.00260782, 0.92739726),
            (1.10130391, 0.84052156, 1.07121364, 0.79589041, 0.91369863),
            8,
        ),
        (1e12, None, (1.07246292, 0.82898517, 1.02148780, 0.74699288, 0.87838374), 7),
    ],
)
def test_published_shrinkage(market_variance, sectors, assets, digits):
    precision = VARIANCES**-0.5
    nothing = jnp.zeros(5)
    evidence = RegressionEvidence(
        precision[:, None, None], (ESTIMATES * precision)[:, None], nothing, nothing
    )
    members = jnp.array([0, 0, 0, 1, 1])
    roots = (jnp.array([[v**0.5]]) for v in (market_variance, 0.02, 0.04))
    scales = LevelScales(jnp.ones(1), *roots)
    found = level_information(evidence, jnp.ones(5), members, 2, scales)
    law = level_law(found, members, scales)
    np.testing.assert_allclose(law.means[:, 0], assets, atol=0.6 * 10.0**-digits)
    if sectors is None:
        np.testing.assert_allclose(law.market_mean, 0.9008466658881231, atol=1e-9)
        return
    np.testing.assert_allclose(law.sector_means[:, 0], sectors, atol=1e-8)
    variances = (0.02290873, 0.00846540, 0.04312939, 0.03452055, 0.02356164)
    np.testing.assert_allclose(law.covs[:, 0, 0], variances, atol=1e-8)


def test_likelihood_and_law_against_dense_algebra(world):
    scales = scales_of()
    found, law, shares = informed(world, NOISE, scales)
    mean, cov = dense_prior(scales)
    design, values, series = dense_rows(world)
    design = np.hstack([np.zeros((len(design), 6)), design])
    noise_cov = np.diag(np.asarray(NOISE)[series] ** 2)
    total = design @ cov @ design.T + noise_cov
    expected = stats.multivariate_normal(design @ mean, total).logpdf(values)
    assert float(found.loglik) == pytest.approx(expected, abs=1e-10)
    gain = np.linalg.solve(total, design @ cov).T
    posterior = mean + gain @ (values - design @ mean)
    posterior_cov = cov - gain @ design @ cov
    np.testing.assert_allclose(law.market_mean, posterior[:2], atol=1e-10)
    np.testing.assert_allclose(law.sector_means.ravel(), posterior[2:6], atol=1e-10)
    np.testing.assert_allclose(law.means.ravel(), posterior[6:], atol=1e-10)
    blocks = posterior_cov.reshape(7, 2, 7, 2)[np.arange(7), :, np.arange(7)]
    np.testing.assert_allclose(law.market_cov, blocks[0], atol=1e-10)
    np.testing.assert_allclose(law.sector_covs, blocks[1:3], atol=1e-10)
    np.testing.assert_allclose(law.covs, blocks[3:], atol=1e-10)
    # The share of the sector: what moving its coefficient by one moves the asset's by.
    within = np.asarray(scales.within_chol @ scales.within_chol.T)
    rows = np.asarray(world.columns)[np.asarray(world.observed)[:, 0]]
    precision = rows.T @ rows / float(NOISE[0]) ** 2
    expected_share = np.diag(np.linalg.solve(np.eye(2) + within @ precision, np.eye(2)))
    np.testing.assert_allclose(shares.assets[0], expected_share, atol=1e-10)


def test_draws_of_levels_have_the_exact_moments(world):
    scales = scales_of(2)
    found, law, _ = informed(world, NOISE, scales)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(lambda key: draw_levels(found, world.members, scales, key=key))(keys)
    for drawn, mean, cov in (
        (draws.assets, law.means, law.covs),
        (draws.sectors, law.sector_means, law.sector_covs),
    ):
        std = np.sqrt(np.diagonal(np.asarray(cov), axis1=1, axis2=2))
        error = np.abs(np.mean(np.asarray(drawn), axis=0) - mean) / (std / np.sqrt(len(keys)))
        assert error.max() < 5
        np.testing.assert_allclose(np.std(np.asarray(drawn), axis=0), std, rtol=5 / 200)


def test_agrees_with_the_empirical_bayes_family_at_its_spreads():
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(60, 1))
    values = factor @ rng.uniform(0.5, 1.5, (1, 5)) + rng.normal(size=(60, 5))
    observed = rng.random(values.shape) > 0.1
    members = jnp.array([0, 0, 1, 1, 1])
    scales = scales_of(4)
    covs = [chol @ chol.T for chol in scales[1:]]
    how = Shrinkage(
        market_mean=scales.market_mean, market_cov=covs[0], between_cov=covs[1], within_cov=covs[2]
    )
    arrays = map(jnp.asarray, (values, observed, factor, np.ones_like(factor, bool)))
    theirs = shrunk_exposures(*arrays, members, 2, shrinkage=how)
    columns = jnp.asarray(np.column_stack([np.ones(60), factor]))
    data = CoefficientData(
        jnp.where(observed, values, 0.0), jnp.asarray(observed), columns, members, 2
    )
    _, law, _ = informed(data, jnp.sqrt(theirs.variances), scales)
    np.testing.assert_allclose(law.means, theirs.law.means, atol=1e-9)
    np.testing.assert_allclose(law.covs, theirs.law.covs, atol=1e-9)
    np.testing.assert_allclose(law.market_mean, theirs.law.market_mean, atol=1e-9)


def test_cost_does_not_grow_with_time(world):
    """A density sees factors of the rows, whatever their number."""
    several = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf] * 9) if leaf.shape[:1] == (NUM_TIMES,) else leaf, world
    )
    one, nine = (eqx.filter_eval_shape(GaussianCoefficients, data) for data in (world, several))
    assert one.evidence == nine.evidence and one.data.values != nine.data.values


def test_student_coordinates_carry_the_prior_and_the_density(world):
    program = StudentCoefficients(world)
    start = program.start()
    start["degrees_offset"] = jnp.array([0.5, -1.0, 0.2, 1.5])
    names, sizes = ("market", "sectors", "assets"), (2, 4, 8)
    flat = jnp.asarray(np.random.default_rng(5).normal(size=14))

    def parameters_of(flat):
        parts = jnp.split(flat, np.cumsum(sizes)[:-1])
        shaped = (part.reshape(start[n].shape) for n, part in zip(names, parts, strict=True))
        return {**start, **dict(zip(names, shaped, strict=True))}

    def coefficients(flat):
        levels = program.levels(parameters_of(flat))
        return jnp.concatenate([part.ravel() for part in levels])

    @jax.jit
    def everything(flat):
        parameters = parameters_of(flat)
        laws = program.priors()
        prior = sum(jnp.sum(laws[n](parameters).log_prob(parameters[n])) for n in names)
        slopes = jax.jacfwd(coefficients)(flat)
        levels = program.levels(parameters)
        return prior, slopes, levels, program.log_likelihood(parameters)

    prior, slopes, levels, loglik = everything(flat)
    mean, cov = dense_prior(program.prior.scales(start, 2))
    stacked = np.concatenate([np.asarray(part).ravel() for part in levels])
    expected = stats.multivariate_normal(mean, cov).logpdf(stacked)
    assert float(prior) - np.linalg.slogdet(np.asarray(slopes))[1] == pytest.approx(
        expected, abs=1e-8
    )
    noise, nu = np.exp(start["log_noise"]), np.asarray(program.degrees(start))
    located = np.asarray(world.columns @ levels.assets.T)
    densities = stats.t(nu, located, noise).logpdf(np.asarray(world.values))
    assert float(loglik) == pytest.approx(densities[np.asarray(world.observed)].sum(), abs=1e-9)


def dense_states(program, parameters, num_rows):
    """Mean and covariance of all coefficients of all assets, (rows, series, coefficients)."""
    data = program.data
    centres, scales = program.sector_levels(parameters)
    drifts = np.asarray(program.drifts(parameters))
    first = program.drift.first
    n, q = data.num_series, data.num_coefficients
    mean = np.broadcast_to(np.asarray(centres)[MEMBERS], (num_rows, n, q))
    cov = np.zeros((num_rows, n, q) * 2)
    within = np.asarray(scales.within_chol @ scales.within_chol.T)
    for i, (t, u) in ((i, pair) for i in range(n) for pair in np.ndindex(num_rows, num_rows)):
        own = np.zeros(q)
        if program.drift.reverts:
            phi = np.asarray(parameters["persistence"])
            own[first:] = drifts[MEMBERS[i]] ** 2 * phi ** abs(t - u)
        else:
            own[first:] = drifts[MEMBERS[i]] ** 2 / ROWS_OF_DRIFT * min(t, u)
        cov[t, i, :, u, i, :] = within + np.diag(own)
    return mean, cov


@pytest.mark.parametrize("drift", [Drift(), Drift("random walk", alphas=True)])
def test_moving_coefficients_against_dense_algebra(world, drift):
    program = DriftingCoefficients(world, drift)
    parameters = program.sample_prior(key=jax.random.key(1))
    parameters["log_noise"] = jnp.log(NOISE)
    parameters["drift_level"] = jnp.zeros(program.num_moving)
    loglik, ahead = jax.jit(lambda p: (program.log_likelihood(p), program.ahead(p)))(parameters)
    rows = NUM_TIMES + 1
    mean, cov = dense_states(program, parameters, rows)
    size = mean.size
    design = np.zeros((NUM_TIMES, 4, rows, 4, 2))
    for t, i in np.ndindex(NUM_TIMES, 4):
        design[t, i, t, i] = world.columns[t]
    seen = np.asarray(world.observed).ravel()
    design = design.reshape(-1, size)[seen]
    noise = np.tile(np.asarray(NOISE), NUM_TIMES)[seen]
    values = np.asarray(world.values).ravel()[seen]
    flat, cov = mean.ravel(), cov.reshape(size, size)
    total = design @ cov @ design.T + np.diag(noise**2)
    expected = stats.multivariate_normal(design @ flat, total).logpdf(values)
    assert float(loglik) == pytest.approx(expected, abs=1e-9)
    posterior = flat + cov @ design.T @ np.linalg.solve(total, values - design @ flat)
    found = np.array(ahead.mean[:, :2])
    found[:, 2 - (ahead.mean.shape[1] - 2) :] += np.asarray(ahead.mean[:, 2:])
    np.testing.assert_allclose(found, posterior.reshape(rows, 4, 2)[-1], atol=1e-9)


def test_regressors_follow_their_posterior():
    rng = np.random.default_rng(6)
    values = np.zeros((40, 2))
    for t in range(1, 40):
        values[t] = 0.1 + values[t - 1] @ [[0.5, 0.1], [0.0, 0.3]] + rng.normal(size=2)
    observed = np.ones_like(values, bool)
    observed[[7, 39], 0] = False
    law = regressor_law(jnp.asarray(values), jnp.asarray(observed), 1)
    complete = observed.all(axis=1)
    known = np.flatnonzero(complete[1:] & complete[:-1]) + 1
    terms = np.column_stack([np.ones(len(known)), values[known - 1]])
    slopes, *_ = np.linalg.lstsq(terms, values[known], rcond=None)
    residuals = values[known] - terms @ slopes
    np.testing.assert_allclose(law.coefficients, slopes, atol=1e-10)
    np.testing.assert_allclose(law.last, values[38])
    assert int(law.gap) == 1
    drawn, roots = jax.vmap(lambda key: law.draw(key=key))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    covs = np.asarray(roots @ jnp.swapaxes(roots, 1, 2))
    expected = residuals.T @ residuals / (len(known) - 3 - 2 - 1)
    np.testing.assert_allclose(covs.mean(0), expected, atol=6 * covs.std(0).max() / 20_000**0.5)
    spread = np.sqrt(np.outer(np.diag(np.linalg.inv(terms.T @ terms)), np.diag(expected)))
    np.testing.assert_allclose(np.asarray(drawn).std(0), spread, rtol=0.05)
    error = np.abs(np.asarray(drawn).mean(0) - slopes) / (spread / 20_000**0.5)
    assert error.max() < 5


@pytest.mark.parametrize("gap", [0, 3])
def test_regressors_go_on_over_rows_that_are_not_observed(gap):
    """Moments of the first row ahead are those of a VAR (gap + 1) steps after its last row."""
    slopes = np.array([[0.1, -0.2], [0.8, 0.1], [0.0, 0.7]])  # constant, then coefficients by row
    chol = np.array([[0.5, 0.0], [0.2, 0.4]])
    values = jnp.asarray(np.r_[np.zeros((5, 2)), [[4.0, -3.0]], np.full((gap, 2), np.nan)])
    observed = jnp.isfinite(values) & (jnp.arange(6 + gap)[:, None] != 2)
    free = 1e10  # parameters that are known
    law = RegressorLaw(
        coefficients=jnp.asarray(slopes),
        root=jnp.zeros((3, 3)),
        residual_root=jnp.asarray(chol) * free**0.5,
        free=jnp.asarray(free),
        last=jnp.zeros(2),
        gap=jnp.asarray(0),
        num_rows=1,
        num_lags=1,
    ).after(values, observed)
    drawn = regressor_paths(law, 2, 20_000, key=jax.random.key(0))[:, 0]
    mean, cov = np.array([4.0, -3.0]), np.zeros((2, 2))
    for _ in range(gap + 1):
        mean = slopes[0] + mean @ slopes[1:]
        cov = slopes[1:].T @ cov @ slopes[1:] + chol @ chol.T
    sds = np.sqrt(np.diag(cov))
    assert np.all(np.abs(np.mean(drawn, 0) - mean) < 5 * sds / 20_000**0.5)
    np.testing.assert_allclose(
        np.cov(np.asarray(drawn).T) / np.outer(sds, sds), cov / np.outer(sds, sds), atol=0.04
    )


def test_regressors_before_a_gap_have_derivatives():
    """The mean ahead moves with the last complete row by the powers of the coefficients."""
    rng = np.random.default_rng(8)
    values = jnp.asarray(rng.normal(size=(30, 1)))
    observed = (jnp.arange(30) < 28)[:, None]
    law = regressor_law(values, observed, 1)

    @jax.jit
    def ahead(last):
        moved = dataclasses.replace(law, last=last)
        coefficients, root = moved.draw(key=jax.random.key(1))
        start = moved.waited(coefficients, root, key=jax.random.key(2))
        return start[0], coefficients[1, 0]

    slope = jax.jacrev(lambda x: ahead(x)[0])(law.last)
    np.testing.assert_allclose(slope[0], ahead(law.last)[1] ** 2, rtol=1e-12)


SECTORS = {"A": "one", "B": "one", "C": "one", "D": "two", "E": "two", "F": "two"}
BETAS = np.array([0.9, 1.0, 1.1, 1.5, 1.6, 1.7])
SAMPLER = PooledHMC(num_chains=2, num_draws=100, num_warmup=150, num_leapfrogs=8)
WIDE = Limits(rhat=1.5, ess=5.0, divergent=0.2, bfmi=0.1)  # short chains


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(7)
    market = rng.normal(size=80)
    values = np.column_stack([market[:, None] * BETAS + rng.normal(size=(80, 6)), market])
    values[:-6, 1] = np.nan  # a thin history
    values[3, 4] = np.nan
    index = pd.bdate_range("2020-01-01", periods=80)
    frame = pd.DataFrame(values, index, [*"ABCDEF", "M"])
    return jaxfc.Panel.from_frame(frame[["M", *"ABCDEF"]])


@pytest.fixture(scope="module")
def fitted(panel):
    model = HierarchicalRegression(("M",), SECTORS, inference=SAMPLER, limits=WIDE)
    return model.fit(panel, key=jax.random.key(0))


def test_model_finds_coefficients_and_shrinks_thin_histories(fitted):
    assert bool(is_okay(fitted.result))
    table = fitted.to_frame()
    assert list(table.index) == list("ABCDEF") and list(table["sector"][:1]) == ["one"]
    np.testing.assert_array_less(np.abs(table["M"] - BETAS), 4 * table["M std"])
    own = 1.0 - table["M from sector"]  # B has 6 rows, the others 79 or 80
    assert own["B"] < 0.5 * own.drop("B").min()
    assert np.all((table["M from sector"] > 0) & (table["M from sector"] < 1))
    levels = fitted.sectors_to_frame()
    assert levels.loc["two", "M"] > levels.loc["one", "M"]
    positive = np.mean(np.asarray(fitted.alphas) > 0, axis=0)
    np.testing.assert_allclose(table["P(alpha > 0)"], positive)


def test_forecasts_are_joint_draws_in_the_order_of_the_panel(fitted, panel):
    ahead = fitted.forecast(2, key=jax.random.key(1))
    assert ahead.draws.shape == (200, 2, 7)
    # The market comes first in the panel; assets load on it.
    market, asset = np.asarray(ahead.draws)[:, :, 0], np.asarray(ahead.draws)[:, :, 6]
    assert np.corrcoef(market.ravel(), asset.ravel())[0, 1] > 0.5
    path = jnp.array([[-3.0], [2.0]])
    given = fitted.forecast_given(path, key=jax.random.key(1))
    np.testing.assert_allclose(given.draws[:, :, 0], np.broadcast_to(path[:, 0], (200, 2)))
    expected = np.mean(fitted.alphas, 0) + path * np.mean(fitted.betas[..., 0], 0)
    error = np.abs(given.mean[:, 1:] - expected) / (given.std[:, 1:] / 200**0.5)
    assert error.max() < 5
    again = fitted.given(*panel.arrays()).forecast(2, key=jax.random.key(1))
    np.testing.assert_allclose(again.draws, ahead.draws, atol=1e-10)
    assert fitted.simulate(3, key=jax.random.key(2)).shape == (3, 7)


def test_likelihood_of_the_fit_is_in_units_of_the_data(fitted, panel):
    """At a draw: the Gaussian likelihood of raw returns with coefficients in raw units."""
    program, scales = fitted.model.program(*panel.arrays())
    first = jax.tree.map(lambda leaf: leaf[0], fitted.draws.pooled())
    unit = scales.coefficients
    raw = program.prior.scales(first, 2)
    raw = LevelScales(raw.market_mean * unit, *(unit[:, None] * chol for chol in raw[1:]))
    data = dataclasses.replace(
        program.data,
        values=program.data.values * scales.values,
        columns=program.data.columns * scales.columns,
    )
    found, *_ = informed(data, fitted.posterior.noise[0], raw)
    assert float(found.loglik) == pytest.approx(float(fitted.posterior.logliks[0]), abs=1e-6)


def test_bad_input_is_refused_by_name(panel):
    key = jax.random.key(0)
    model = HierarchicalRegression(("M",), SECTORS, inference=SAMPLER, limits=WIDE)
    with pytest.raises(ValueError, match=r"\['X'\] are not among"):
        HierarchicalRegression(("X",), SECTORS).fit(panel, key=key)
    with pytest.raises(ValueError, match=r"\['F'\] have no sector"):
        HierarchicalRegression(("M",), {k: v for k, v in SECTORS.items() if k != "F"}).fit(panel)
    with pytest.raises(ValueError, match=r"names \['Z'\]"):
        HierarchicalRegression(("M",), {**SECTORS, "Z": "one"}).fit(panel, key=key)
    with pytest.raises(ValueError, match="pass key"):
        model.fit(panel)
    with pytest.raises(ValueError, match="resolved"):
        model.estimate(*panel.arrays(), key=key)
    for change, message in ((np.nan, "never observed"), (1.0, "constant")):
        frame = panel.to_frame()
        frame["C"] = change
        if message == "never observed":
            values = dataclasses.replace(panel, observed=panel.observed & (np.arange(7) != 3))
        else:
            values = jaxfc.Panel.from_frame(frame, allow_constant=True)
        with pytest.raises(ValueError, match=f"'C' is {message}"):
            model.fit(values, key=key)
    with pytest.raises(ValueError, match="regressor_lags"):
        HierarchicalRegression(("M",), SECTORS, regressor_lags=2)
    with pytest.raises(ValueError, match="dynamics"):
        Drift("sideways")


@pytest.mark.parametrize(
    "errors",
    [GaussianErrors(), StudentErrors(), GaussianErrors(Drift())],
    ids=lambda e: str(e)[:16],
)
def test_lowers_for_accelerators(panel, errors):
    model = HierarchicalRegression(("M",), SECTORS, errors=errors).resolved(panel)
    program, _ = model.program(*panel.arrays())
    start, named = program.flat()
    density = jax.jit(jax.value_and_grad(lambda x: program.log_density(named(x))))
    assert jax.export.export(density, platforms=["cuda"])(start).mlir_module()


@pytest.mark.parametrize("errors", [StudentErrors(), GaussianErrors(Drift())])
def test_every_law_of_errors_gives_the_same_verbs(panel, errors):
    """Traced, not run: shapes of what `estimate`, `forecast` and `given` answer."""
    model = HierarchicalRegression(
        ("M",), SECTORS, errors=errors, regressor_lags=1, inference=SAMPLER, limits=WIDE
    ).resolved(panel)

    def everything(values, observed, key):
        fitted = model.estimate(values, observed, key=key)
        later = fitted.given(values[:50], observed[:50])
        scenario = later.forecast_given(jnp.zeros((3, 1)), key=key)
        path = fitted.simulate(5, key=key)
        return fitted.posterior, later.forecast(2, key=key).draws, scenario.draws, path

    posterior, *draws = eqx.filter_eval_shape(everything, *panel.arrays(), jax.random.key(0))
    assert [d.shape for d in draws] == [(200, 2, 7), (200, 3, 7), (5, 7)]
    assert posterior.levels.assets.shape == (200, 6, 2)
    assert (posterior.drift is None) == isinstance(errors, StudentErrors)
