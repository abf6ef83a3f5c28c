"""The hierarchical VAR: regressors by definition, least squares, a dense VAR, roots, holes."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.var import HierarchicalVAR
from jaxfc.hierarchy.var_errors import error_law
from jaxfc.hierarchy.var_regressors import Membership, regressors_of
from jaxfc.results import RESULTS

pytestmark = pytest.mark.slow

# Sector 3 has one asset.
MEMBERS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3])
NUM_SECTORS, NUM, TIMES, LAGS = 4, 9, 120, 2
WEIGHTS = np.array([3.0, 1.0, 2.0, 1.0, 4.0, 0.5, 2.0, 1.0, 2.5])


def dense_maps(weights):
    """Matrices M and S of the averages of the others, by their definition."""
    market, sector = np.zeros((NUM, NUM)), np.zeros((NUM, NUM))
    for i in range(NUM):
        outside = MEMBERS != MEMBERS[i]
        market[i, outside] = weights[outside] / weights[outside].sum()
        beside = (MEMBERS == MEMBERS[i]) & (np.arange(NUM) != i)
        if beside.any():
            sector[i, beside] = weights[beside] / weights[beside].sum()
    return market, sector


def dense_lags(coefficients, weights=WEIGHTS):
    """The matrices of the VAR; coefficients (series, 1 + 3 lags)."""
    market, sector = dense_maps(weights)
    own, beyond, beside = np.split(np.asarray(coefficients)[:, 1:], 3, axis=1)
    return [
        np.diag(own[:, k]) + beyond[:, k, None] * market + beside[:, k, None] * sector
        for k in range(own.shape[1])
    ]


@pytest.fixture(scope="module")
def world():
    """Returns of such a VAR with correlated errors, a tenth missing, two in the last row."""
    rng = np.random.default_rng(8)
    centre = np.array([0.02, 0.1, -0.05, 0.2, 0.1, 0.15, 0.05])
    coefficients = centre + 0.05 * rng.normal(size=(NUM, 7))
    lags = dense_lags(coefficients)
    path = np.zeros((TIMES + 50, NUM))
    for t in range(2, len(path)):
        common = 0.5 * rng.normal()
        path[t] = coefficients[:, 0] + lags[0] @ path[t - 1] + lags[1] @ path[t - 2]
        path[t] += common + rng.normal(size=NUM)
    observed = rng.random((TIMES, NUM)) > 0.1
    observed[-1] = True
    observed[-1, [2, 8]] = False
    return jnp.asarray(path[50:]), jnp.asarray(observed)


def model_of(**options):
    return HierarchicalVAR(MEMBERS, NUM_SECTORS, WEIGHTS, LAGS, **options)


estimated = eqx.filter_jit(lambda model, values, observed: model.estimate(values, observed))


@pytest.fixture(scope="module")
def fitted(world):
    return estimated(model_of(errors="sample"), *world)


def known_rows(values, observed, weights, i):
    """Regressors and rows of asset i by loops."""
    rows, targets = [], []
    for t in range(LAGS, len(values)):
        if not observed[t, i]:
            continue
        columns = {"own": [], "market": [], "sector": []}
        for lag in range(1, LAGS + 1):
            seen, row, w = observed[t - lag], values[t - lag], weights[t - lag]
            outside = seen & (MEMBERS != MEMBERS[i])
            beside = seen & (MEMBERS == MEMBERS[i]) & (np.arange(NUM) != i)
            alone = np.sum(MEMBERS == MEMBERS[i]) == 1
            if not seen[i] or not outside.any() or not (alone or beside.any()):
                break
            columns["own"].append(row[i])
            columns["market"].append(w[outside] @ row[outside] / w[outside].sum())
            columns["sector"].append(0.0 if alone else w[beside] @ row[beside] / w[beside].sum())
        else:
            rows.append([1.0, *columns["own"], *columns["market"], *columns["sector"]])
            targets.append(values[t, i])
    return np.array(rows), np.array(targets)


@pytest.mark.parametrize("dated", [False, True], ids=["fixed weights", "weights of each date"])
def test_regressors_are_those_of_the_definition(world, dated):
    values, observed = world
    weights = np.tile(WEIGHTS, (TIMES, 1))
    if dated:
        weights = weights * np.random.default_rng(1).uniform(0.5, 2.0, size=weights.shape)
    membership = Membership(jnp.asarray(MEMBERS), NUM_SECTORS)
    columns, known = jax.jit(regressors_of, static_argnums=4)(
        jnp.where(observed, values, jnp.nan), observed, jnp.asarray(weights), membership, LAGS
    )
    for i in range(NUM):
        rows, _ = known_rows(np.asarray(values), np.asarray(observed), weights, i)
        use = np.asarray(known[:, i] & observed[:, i])
        assert_allclose(columns[use, i], rows, atol=1e-12)


def test_without_shrinkage_it_is_least_squares(world, fitted):
    wide = 1e10 * jnp.eye(7)
    loose = estimated(
        model_of(shrinkage=Shrinkage(within_cov=wide, between_cov=wide), errors="sample"), *world
    )
    values, observed = map(np.asarray, world)
    for i in (0, 4, 7):
        rows, targets = known_rows(values, observed, np.tile(WEIGHTS, (TIMES, 1)), i)
        best = np.linalg.lstsq(rows, targets, rcond=None)[0]
        assert_allclose(loose.regression.law.means[i], best, rtol=1e-5, atol=1e-6)
        assert int(fitted.counts[i]) == len(targets)
    law = fitted.regression.law
    # its sector's average does not exist: the coefficients are those of its sector, given the rest
    assert_allclose(law.means[8, 5:], law.sector_means[3, 5:], atol=0.2)
    spread = np.std(np.asarray(law.means) - np.asarray(law.sector_means)[MEMBERS], axis=0)
    raw = np.std(np.asarray(loose.regression.law.means)[:8], axis=0)
    assert np.all(spread < raw)


def test_the_law_ahead_is_that_of_the_dense_var(fitted):
    lags = dense_lags(fitted.regression.law.means)
    history = np.asarray(fitted.history[:, 0])
    intercepts = np.asarray(fitted.regression.law.means[:, 0])
    loadings, variances = map(np.asarray, fitted.errors)
    error_cov = loadings @ loadings.T + np.diag(variances)
    companion = np.block([[lags[0], lags[1]], [np.eye(NUM), np.zeros((NUM, NUM))]])
    state, powers, means = np.concatenate([history[0], history[1]]), [np.eye(2 * NUM)], []
    for _ in range(4):
        state = companion @ state
        state[:NUM] += intercepts
        means.append(state[:NUM])
        powers.append(companion @ powers[-1])
    psi = [power[:NUM, :NUM] for power in powers]
    law = jax.jit(lambda f: f.forecast(4))(fitted)
    assert_allclose(law.mean, means, rtol=1e-10)
    assert_allclose(law.responses, psi[:4], atol=1e-12)
    for h in range(4):
        for k in range(4):
            cov = sum(psi[h - s] @ error_cov @ psi[k - s].T for s in range(min(h, k) + 1))
            assert_allclose(law.cov[h, :, k], cov, atol=1e-11)
    assert_allclose(law.std**2, np.einsum("hihi->hi", law.cov), rtol=1e-10)
    roots = np.abs(np.linalg.eigvals(companion))
    assert float(fitted.spectral_radius) == pytest.approx(roots.max(), rel=1e-6)


def test_market_and_sectors_are_the_weighted_sums(fitted):
    law = fitted.forecast(3)
    weights = np.asarray(fitted.level_weights)
    assert_allclose(weights[0], WEIGHTS / WEIGHTS.sum())
    assert_allclose(weights[1], WEIGHTS * (MEMBERS == 0) / WEIGHTS[MEMBERS == 0].sum())
    levels = jax.jit(lambda f: f.forecast_levels(3))(fitted)
    summed = law.aggregate(fitted.level_weights)
    assert_allclose(levels.mean, law.mean @ weights.T, rtol=1e-10)
    assert_allclose(levels.cov, summed.cov, atol=1e-12)
    assert_allclose(
        summed.cov, np.einsum("ai,hikj,bj->hakb", weights, law.cov, weights), atol=1e-12
    )
    total = law.cumulative()
    assert_allclose(total.cov[2, :, 2], np.einsum("hikj->ij", law.cov), atol=1e-11)
    shifted = law.affine(jnp.asarray(WEIGHTS), jnp.ones((3, NUM)))
    assert_allclose(shifted.std, WEIGHTS * np.asarray(law.std), rtol=1e-10)


def test_draws_have_the_moments_of_the_law(fitted):
    law = fitted.forecast(3)
    draws = np.asarray(law.sample(60_000, key=jax.random.key(3))).reshape(60_000, -1)
    assert_allclose(draws.mean(0), np.ravel(law.mean), atol=0.03)
    assert_allclose(np.cov(draws.T), np.reshape(law.cov, (27, 27)), atol=0.05)


def test_a_long_path_has_the_law_of_long_horizons(fitted):
    path = np.asarray(jax.jit(lambda f, k: f.simulate(60_000, key=k))(fitted, jax.random.key(2)))
    law = fitted.forecast(60)
    assert_allclose(path.mean(0), law.mean[-1], atol=0.06)
    assert_allclose(path.std(0), law.std[-1], rtol=0.02)


@pytest.mark.parametrize(
    ("own", "across"),
    [(0.3, 0.4), (-0.7, 0.1), (0.5, -1.2), (0.9, 0.3)],
    ids=["market", "negative own", "pair", "explosive"],
)
def test_the_largest_root(own, across):
    rng = np.random.default_rng(11)
    coefficients = np.zeros((NUM, 7))
    coefficients[:, 1] = own + 0.05 * rng.normal(size=NUM)
    coefficients[:, 2] = -0.3
    coefficients[:, 3:5] = across
    model = model_of()
    radius = jax.jit(lambda c: model.recursion(c).spectral_radius())(jnp.asarray(coefficients))
    lags = dense_lags(coefficients)
    companion = np.block([[lags[0], lags[1]], [np.eye(NUM), np.zeros((NUM, NUM))]])
    assert float(radius) == pytest.approx(np.abs(np.linalg.eigvals(companion)).max(), rel=1e-4)


def test_hidden_cells_and_later_rows_are_never_read(world):
    values, observed = world
    model = dataclasses.replace(model_of(errors="diagonal"), num_lags=1)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, NUM)))
    early = observed & (jnp.arange(TIMES) < 100)[:, None]

    def read(values, observed):
        return jnp.sum(weights * model.estimate(values, observed).forecast(2).mean)

    slopes = np.asarray(jax.jit(jax.grad(read))(jnp.where(early, values, jnp.nan), early))
    assert np.isfinite(slopes).all()
    assert np.all(slopes[~np.asarray(early)] == 0.0) and np.any(slopes[99] != 0.0)


def test_a_missing_return_stands_at_its_expectation(world, fitted):
    values, observed = world
    before = fitted.given(values[:-1], observed[:-1]).forecast(1).mean[0]
    last = np.where(observed[-1], values[-1], before)
    assert_allclose(fitted.history[0, 0], last, rtol=1e-12)
    filled = fitted.given(values.at[-1].set(jnp.asarray(last)), observed.at[-1].set(True))
    assert_allclose(filled.forecast(2).mean, fitted.forecast(2).mean, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units(world, scale):
    values, observed = world
    model = model_of(errors="sample")
    plain = estimated(model, values, observed)
    other = estimated(model, scale * values, observed)
    ahead, expected = other.forecast(2), plain.forecast(2)
    assert_allclose(ahead.mean, scale * expected.mean, rtol=1e-8)
    assert_allclose(ahead.std, scale * expected.std, rtol=1e-9)
    heavier = dataclasses.replace(model, weights=scale * jnp.asarray(WEIGHTS))
    again = estimated(heavier, values, observed).forecast(2)
    assert_allclose(again.mean, expected.mean, rtol=1e-8)


def test_weights_of_each_date_that_do_not_move_are_fixed_weights(world, fitted):
    dated = dataclasses.replace(
        model_of(errors="sample"), weights=jnp.tile(jnp.asarray(WEIGHTS), (TIMES, 1))
    )
    other = estimated(dated, *world)
    assert_allclose(other.forecast(2).mean, fitted.forecast(2).mean, rtol=1e-9)
    assert_allclose(other.level_weights, fitted.level_weights)


@pytest.mark.parametrize("kind", ["diagonal", "sectors", "sample"])
def test_error_laws_keep_the_variances(kind):
    """Residuals of a market and sector factors: the correlations are recovered where modelled."""
    rng = np.random.default_rng(2)
    market, sector = rng.normal(size=(4000, 1)), rng.normal(size=(4000, NUM_SECTORS))
    residuals = 0.6 * market + 0.5 * sector[:, MEMBERS] + 0.6 * rng.normal(size=(4000, NUM))
    residuals *= np.linspace(0.5, 2.0, NUM)
    known = rng.random(residuals.shape) > 0.05
    residuals[~known] = np.nan
    variances = np.nanmean(residuals**2, axis=0)
    membership = Membership(jnp.asarray(MEMBERS), NUM_SECTORS)
    law = error_law(
        kind, jnp.asarray(residuals), jnp.asarray(known), jnp.asarray(variances), membership
    )
    cov = np.asarray(law.loadings @ law.loadings.T + jnp.diag(law.variances))
    assert_allclose(np.diag(cov), variances, rtol=1e-9)
    filled = np.where(known, residuals, 0.0) / np.sqrt(variances)
    corr = cov / np.sqrt(np.outer(variances, variances))
    apart = ~np.eye(NUM, dtype=bool)
    if kind == "diagonal":
        assert np.all(corr[apart] == 0.0)
    elif kind == "sample":
        assert_allclose(corr[apart], (filled.T @ filled / 4000)[apart], atol=1e-10)
    else:
        same = MEMBERS[:, None] == MEMBERS
        assert_allclose(corr[apart & same], 0.61 / 0.97, atol=0.04)
        assert_allclose(corr[~same], 0.36 / 0.97, atol=0.04)


def test_explosive_estimates_are_reported():
    rng = np.random.default_rng(0)
    path = np.ones((TIMES, NUM))
    for t in range(1, TIMES):
        path[t] = 1.08 * path[t - 1] + 0.05 * rng.normal(size=NUM)
    fitted = estimated(model_of(errors="sample"), jnp.asarray(path), jnp.ones(path.shape, bool))
    assert bool(fitted.result == RESULTS.nonstationary) and float(fitted.spectral_radius) > 1.0


def panel_of(world):
    values, observed = map(np.asarray, world)
    frame = pd.DataFrame(
        np.where(observed, values, np.nan),
        pd.bdate_range("2020-01-01", periods=TIMES),
        [f"a{i}" for i in range(NUM)],
    )
    return jaxfc.Panel.from_frame(frame)


def test_a_backtest_runs_it(world):
    panel = panel_of(world)
    model = HierarchicalVAR(MEMBERS, NUM_SECTORS, WEIGHTS, errors="diagonal")
    found = jaxfc.backtest(model, panel, origins=jaxfc.Expanding(100, 10), horizon=1)
    assert np.isfinite(np.asarray(found.forecast.mean)).all()


def test_bad_panels_are_refused_with_the_name(world):
    panel = panel_of(world)
    with pytest.raises(ValueError, match=r"weights must have shape \(9,\)"):
        dataclasses.replace(model_of(), weights=jnp.ones(8)).fit(panel)
    negative = jnp.asarray(WEIGHTS).at[3].set(-1.0)
    with pytest.raises(ValueError, match=r"weights of \['a3'\] are negative"):
        dataclasses.replace(model_of(), weights=negative).fit(panel)
    nothing = jnp.asarray(WEIGHTS).at[8].set(0.0)
    with pytest.raises(ValueError, match=r"sector 3 \(\['a8'\]\) are zero"):
        dataclasses.replace(model_of(), weights=nothing).fit(panel)
    with pytest.raises(ValueError, match="errors must be one of"):
        model_of(errors="full")
    with pytest.raises(ValueError, match="num_lags must be at least 1"):
        HierarchicalVAR(MEMBERS, NUM_SECTORS, WEIGHTS, 0)


def test_lowers_for_cuda(world):
    model = model_of()

    @jax.jit
    def ahead(values, observed):
        fitted = model.estimate(values, observed)
        law = fitted.forecast_levels(2)
        return fitted.forecast(2).cov, law.std, fitted.spectral_radius

    exported = jax.export.export(ahead, platforms=["cuda"])(*world)
    assert exported.platforms == ("cuda",)
