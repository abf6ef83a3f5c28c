"""Instrumented PCA as a model: timing, forecasts, later data, tests by bootstrap, refusals."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.bayes.instrumented import InstrumentedPCA
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares, Coefficients
from jaxfc.bayes.instrumented_bootstrap import (
    NoCharacteristic,
    NoGivenFactor,
    NoIntercept,
    instrumented_test,
    named_hypothesis,
    wild_bootstrap,
)
from jaxfc.bayes.instrumented_dynamics import (
    AutoregressiveFactors,
    FactorLaw,
    MeanFactors,
    VectorAutoregressiveFactors,
)
from jaxfc.bayes.instrumented_panel import instrumented_panel
from jaxfc.bayes.instrumented_portfolios import managed_portfolios
from jaxfc.results import is_okay

pytestmark = pytest.mark.slow

NUM_TIMES, ASSETS = 40, tuple("ABCDEFGH")
GAMMA, ALPHA = np.array([0.6, 0.8]), np.array([0.08, -0.06])
MODEL = InstrumentedPCA(("value", "size"), 1, given=("market",), intercept=True)


def frames(seed=0, alpha=1.0, gaps=0.1):
    """Returns by the characteristics of the row before, a latent factor and the market."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2010-01-31", periods=NUM_TIMES, freq="ME")
    held = rng.normal(size=(NUM_TIMES, 8, 2))
    factor, market = rng.normal(0.4, 1.0, NUM_TIMES), rng.normal(0.2, 1.0, NUM_TIMES)
    earned = factor[:, None] * GAMMA + market[:, None] * [0.4, -0.3] + alpha * ALPHA
    returns = 0.1 * rng.normal(size=(NUM_TIMES, 8))
    returns[1:] += np.einsum("tnl,tl->tn", held[:-1], earned[1:])
    returns[rng.random(returns.shape) < gaps] = np.nan
    held[rng.random(held.shape) < gaps / 2] = np.nan
    tables = {
        name: pd.DataFrame(held[:, :, place], index, list(ASSETS))
        for place, name in enumerate(("value", "size"))
    }
    given = pd.DataFrame({"market": market}, index)
    return pd.DataFrame(returns, index, list(ASSETS)), tables, given


@pytest.fixture(scope="module")
def panel():
    return instrumented_panel(*frames())


@pytest.fixture(scope="module")
def fitted(panel):
    return MODEL.fit(panel)


def test_the_row_before_loads_a_return(panel, fitted):
    """The model is least squares of returns on characteristics shifted by one row."""
    returns, tables, given = frames()
    held = np.stack([tables[c].to_numpy()[:-1] for c in ("value", "size")], axis=-1)
    usable = ~np.isnan(returns.to_numpy()[1:]) & ~np.isnan(held).any(axis=2)
    method = AlternatingLeastSquares(1, intercept=True)
    data = tuple(map(jnp.asarray, (returns.to_numpy()[1:], held, usable)))
    found = jax.jit(lambda *d: method.solve(managed_portfolios(*d[:3]), d[3]))(
        *data, jnp.asarray(given.to_numpy()[1:])
    )
    np.testing.assert_allclose(fitted.gamma, found.coefficients.gamma, atol=1e-9)
    np.testing.assert_allclose(fitted.intercept, found.coefficients.given[:, 1], atol=1e-9)
    assert abs(float(fitted.gamma[:, 0] @ GAMMA)) > 0.99
    # Two characteristics and one latent factor: what is left for alphas is orthogonal to it.
    np.testing.assert_allclose(fitted.intercept, [0.08, -0.06], atol=0.03)
    assert float(fitted.explained.total) > 0.9 > float(fitted.explained.predictive)
    assert fitted.details().keys() == {"total_r_squared", "predictive_r_squared"}
    assert list(fitted.to_frame().columns) == ["factor 1", "market", "intercept"]
    assert MODEL.forecast_names(panel.names) == ASSETS


def test_loadings_and_factors_of_every_row(panel, fitted):
    values, observed = panel.arrays()
    loadings = np.asarray(fitted.loadings(values, observed))
    assert loadings.shape == (NUM_TIMES, 8, 2) and np.isnan(loadings[0]).all()
    _, tables, _ = frames()
    held = np.stack([tables[c].to_numpy() for c in ("value", "size")], axis=-1)
    np.testing.assert_allclose(loadings[1:], held[:-1] @ np.asarray(fitted.factor_gamma))
    factors = np.asarray(fitted.factors(values, observed))
    assert factors.shape == (NUM_TIMES, 1) and np.isnan(factors[0]).all()
    earned = factors[1:] * np.asarray(fitted.gamma)[:, 0]
    known = ~np.isnan(loadings[1:]).any(axis=2) & np.asarray(observed)[1:, :8]
    expected = np.einsum("tnl,tl->tn", np.nan_to_num(held[:-1]), earned)
    market = np.asarray(values)[1:, -1:]
    expected += np.nan_to_num(held[:-1]) @ np.asarray(fitted.intercept)
    expected += np.nan_to_num(loadings[1:, :, 1]) * market
    errors = (np.asarray(values)[1:, :8] - expected)[known]
    total = 1 - np.sum(errors**2) / np.sum(np.asarray(values)[1:, :8][known] ** 2)
    assert total == pytest.approx(float(fitted.explained.total), rel=1e-10)
    out = fitted.r_squared(values, observed)
    assert float(out.total) == pytest.approx(total, rel=1e-10)


def test_forecast_is_the_law_of_factors_through_the_last_loadings(panel, fitted):
    values, observed = panel.arrays()
    _, tables, given = frames()
    held = np.stack([tables[c].ffill().to_numpy()[-1] for c in ("value", "size")], axis=-1)
    complete = ~np.isnan(np.stack([tables[c].to_numpy()[-1] for c in ("value", "size")])).any(0)
    factors = np.asarray(fitted.factors(values, observed))[1:]
    path = np.concatenate([factors, given.to_numpy()[1:]], axis=1)
    loadings = held @ np.asarray(fitted.factor_gamma)
    ahead = fitted.forecast(2)
    mean = loadings @ path.mean(0) + held @ np.asarray(fitted.intercept)
    np.testing.assert_allclose(np.asarray(ahead.mean)[:, complete], [mean[complete]] * 2)
    cov = loadings @ np.cov(path.T) @ loadings.T + np.diag(fitted.idiosyncratic_cov)
    seen = np.ix_(complete, complete)
    np.testing.assert_allclose(np.asarray(ahead.cov)[1, :, 1, :][seen], cov[seen])
    np.testing.assert_allclose(np.asarray(ahead.cov)[0, :, 1, :], 0.0, atol=1e-12)
    labelled = panel.select(ASSETS).label(ahead)
    assert list(labelled.columns) == list(ASSETS) and len(labelled) == 2
    with pytest.raises(ValueError, match="takes no key"):
        fitted.forecast(1, key=jax.random.key(0))


def test_later_data_move_the_forecast_and_nothing_else(panel, fitted):
    values, observed = panel.arrays()
    path = jnp.concatenate([fitted.factors(values, observed), values[:, -1:]], axis=1)[1:]
    law = jax.jit(AutoregressiveFactors().estimate)(path, jnp.ones(NUM_TIMES - 1, bool))
    moving = dataclasses.replace(fitted, law=law)

    @eqx.filter_jit
    def ahead(values, observed):
        later = moving.given(values, observed)
        return later.forecast(3), later.loglik

    whole, loglik = ahead(values, observed)
    np.testing.assert_allclose(loglik, fitted.loglik, rtol=1e-10)
    last = fitted.forecast(1).mean[0]
    np.testing.assert_allclose(fitted.given(values, observed).forecast(1).mean[0], last, atol=1e-10)
    ended, _ = ahead(values, observed.at[-2:].set(False))
    assert not np.allclose(ended.mean, whole.mean)
    # Unobserved rows at the end: the same law further ahead, with the last characteristics.
    shorter, _ = ahead(values[:-2], observed[:-2])
    np.testing.assert_allclose(ended.mean[0], shorter.mean[2], atol=1e-10)
    np.testing.assert_allclose(ended.std[0], shorter.std[2], atol=1e-10)


def test_no_look_ahead(panel, fitted):
    """A forecast reads the last row's characteristics; a row's factors nothing later."""
    values, observed = panel.arrays()
    ahead = jax.jit(jax.jacobian(lambda v: fitted.given(v, observed).forecast(1).mean[0]))
    slopes = np.asarray(ahead(values))
    assert np.all(slopes[:, ~np.asarray(observed)] == 0.0)
    last = slopes[0, -1, 8 : 8 + 1 + 8 : 8]
    seen = np.asarray(observed)[-1, [8, 16]]
    assert np.all((last != 0) == seen)
    factors = jax.jit(jax.jacobian(lambda v: fitted.factors(v, observed)[10, 0]))
    touched = np.abs(np.asarray(factors(values))).sum(axis=1)
    assert set(np.flatnonzero(touched)) == {9, 10}


def test_simulated_returns_have_the_forecast_law(fitted):
    keys = jax.random.split(jax.random.key(1), 4000)
    paths = jax.jit(jax.vmap(lambda key: fitted.simulate(3, key=key)))(keys)
    law = fitted.forecast(3)
    error = (np.mean(paths, axis=0) - law.mean) / (law.std / np.sqrt(4000))
    assert np.abs(error).max() < 5
    np.testing.assert_allclose(np.std(paths, axis=0), law.std, rtol=5 / np.sqrt(8000))


def test_vintages_in_one_batch_equal_fits_one_by_one(panel, fitted):
    values, observed = panel.arrays()
    early = panel.as_of(panel.index[31])
    masks = jnp.stack([early.arrays()[1], observed])

    @jax.jit
    def ahead(masks):
        return jax.vmap(lambda mask: MODEL.estimate(values, mask).forecast(1).mean)(masks)

    batch = ahead(masks)
    np.testing.assert_allclose(batch[0], MODEL.fit(early).forecast(1).mean, atol=1e-7)
    np.testing.assert_allclose(batch[1], fitted.forecast(1).mean, atol=1e-7)
    exported = jax.export.export(ahead, platforms=["cuda"])(masks)
    assert exported.platforms == ("cuda",)


def test_ranks_and_a_constant_are_read_beside(panel):
    model = InstrumentedPCA(("value", "size"), 1, given=("market",), ranked=True, constant=True)
    rows = jax.jit(model.instruments.read)(*panel.arrays())
    assert model.instruments.names == ("value", "size", "constant")
    assert rows.characteristics.shape == (NUM_TIMES - 1, 8, 3)
    np.testing.assert_array_equal(rows.characteristics[:, :, 2], 1.0)
    raw = frames()[1]["size"].to_numpy()[4]
    known = ~np.isnan(raw)
    ranks = np.argsort(np.argsort(raw[known])) / (known.sum() - 1) - 0.5
    np.testing.assert_allclose(np.asarray(rows.characteristics)[4, known, 1], ranks, atol=1e-12)


def test_save_and_load(fitted, tmp_path):
    jaxfc.save(fitted, tmp_path / "fitted.jaxfc")
    again = jaxfc.load(tmp_path / "fitted.jaxfc")
    np.testing.assert_array_equal(again.forecast(2).mean, fitted.forecast(2).mean)


def test_autoregressions_are_least_squares_on_pairs_of_known_rows():
    rng = np.random.default_rng(5)
    path = np.cumsum(rng.normal(size=(30, 2)), axis=0) * 0.3
    known = rng.random(30) > 0.2
    pairs = known[1:] & known[:-1]
    lags, after = path[:-1][pairs], path[1:][pairs]
    for rule, columns in (
        (VectorAutoregressiveFactors(), [[0, 1], [0, 1]]),
        (AutoregressiveFactors(), [[0], [1]]),
    ):
        law = jax.jit(rule.estimate)(jnp.asarray(path), jnp.asarray(known))
        for k, used in enumerate(columns):
            design = np.column_stack([np.ones(len(lags)), lags[:, used]])
            slopes = np.linalg.lstsq(design, after[:, k], rcond=None)[0]
            np.testing.assert_allclose(law.offset[k], slopes[0], rtol=1e-9)
            np.testing.assert_allclose(law.transition[k, used], slopes[1:], rtol=1e-9)
            error = after[:, k] - design @ slopes
            variance = error @ error / (len(error) - design.shape[1])
            np.testing.assert_allclose(law.innovation_cov[k, k], variance, rtol=1e-9)
    mean = jax.jit(MeanFactors().estimate)(jnp.asarray(path), jnp.asarray(known))
    np.testing.assert_allclose(mean.offset, path[known].mean(0), rtol=1e-10)
    np.testing.assert_allclose(mean.innovation_cov, np.cov(path[known].T), rtol=1e-10)


def test_factors_ahead_equal_dense_algebra():
    transition = jnp.asarray([[0.6, 0.2], [-0.1, 0.5]])
    shocks = jnp.asarray([[1.0, 0.3], [0.3, 0.5]])
    law = FactorLaw(jnp.asarray([0.1, -0.2]), transition, shocks, jnp.zeros(2), jnp.eye(2))
    start = jnp.asarray([[0.4, 0.1], [0.1, 0.2]])
    means, cov = jax.jit(lambda: law.ahead(jnp.asarray([1.0, 2.0]), start, 3))()
    # phi = step^{-1} (offset + A phi_0 in the first row + shocks).
    step = np.linalg.inv(np.eye(6) - np.kron(np.eye(3, k=-1), transition))
    inputs = np.kron(np.eye(3), shocks)
    inputs[:2, :2] += transition @ start @ transition.T
    np.testing.assert_allclose(np.asarray(cov).reshape(6, 6), step @ inputs @ step.T, rtol=1e-12)
    offsets = np.tile(law.offset, 3)
    offsets[:2] += np.asarray(transition) @ [1.0, 2.0]
    np.testing.assert_allclose(np.asarray(means).ravel(), step @ offsets, rtol=1e-12)
    assert bool(law.is_stable)
    explosive = dataclasses.replace(law, transition=jnp.asarray([[1.01, 0.0], [0.0, 0.2]]))
    assert not bool(explosive.is_stable)


@pytest.fixture(scope="module")
def bootstrap():
    """Tests of three hypotheses that are true, then false, on four characteristics."""
    method = AlternatingLeastSquares(1, intercept=True, tolerance=1e-6)

    @eqx.filter_jit
    def run(data, given, hypothesis, resampled):
        portfolios = managed_portfolios(*data)
        return wild_bootstrap(
            method,
            portfolios,
            hypothesis,
            given,
            num_draws=99,
            resampled=resampled,
            key=jax.random.key(0),
        )

    def case(seed, size):
        rng = np.random.default_rng(seed)
        held = rng.normal(size=(40, 30, 4))
        gamma = np.array([0.8, 0.6, 0.0, size])
        factor, given = rng.normal(0.4, 1.0, 40), rng.normal(size=(40, 1))
        earned = factor[:, None] * gamma + size * (given + 1.0) * np.array([0.3, -0.4, 0.5, 0.0])
        returns = np.einsum("tnl,tl->tn", held, earned) + 0.7 * rng.normal(size=(40, 30))
        usable = rng.random(returns.shape) > 0.2
        return tuple(map(jnp.asarray, (returns, held, usable))), jnp.asarray(given)

    return run, case


def test_false_hypotheses_are_rejected_and_true_ones_are_not(bootstrap):
    run, case = bootstrap
    for hypothesis in (NoGivenFactor(-1), NoGivenFactor(0), NoCharacteristic(3)):
        false = run(*case(1, 0.5), hypothesis, jnp.asarray(True))
        assert float(false.p_value) == pytest.approx(0.01)
        assert int(false.num_failed) == 0 and false.draws.shape == (99,)
        true = run(*case(2, 0.0), hypothesis, jnp.asarray(True))
        assert float(true.p_value) > 0.05
        expected = (1 + np.sum(np.asarray(true.draws) >= float(true.statistic))) / 100
        assert float(true.p_value) == pytest.approx(expected)
    own = run(*case(1, 0.5), NoGivenFactor(-1), jnp.asarray(False))
    assert float(own.p_value) < 0.03


def test_no_intercept_is_the_last_given_column():
    coefficients = Coefficients(jnp.ones((3, 1)), jnp.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(NoIntercept().imposed(coefficients).given[:, 1], 0.0)
    np.testing.assert_array_equal(NoIntercept().imposed(coefficients).given[:, 0], [0.0, 2.0, 4.0])
    assert float(NoIntercept().statistic(coefficients)) == 1.0 + 9.0 + 25.0
    with pytest.raises(ValueError, match="intercept=True"):
        wild_bootstrap(
            AlternatingLeastSquares(1),
            managed_portfolios(jnp.ones((3, 4)), jnp.ones((3, 4, 2)), jnp.ones((3, 4), bool)),
            NoIntercept(),
            key=jax.random.key(0),
        )


@pytest.mark.slow
def test_p_values_under_a_true_hypothesis_are_uniform(bootstrap):
    """40 worlds without alphas: p-values against the uniform law by Kolmogorov and Smirnov."""
    import scipy.stats

    run, case = bootstrap
    values = [
        float(run(*case(s, 0.0), NoGivenFactor(-1), jnp.asarray(True)).p_value)
        for s in range(100, 140)
    ]
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


def test_hypotheses_by_name():
    assert isinstance(named_hypothesis(MODEL, "intercept"), NoIntercept)
    assert int(named_hypothesis(MODEL, "market").column) == 0
    assert int(named_hypothesis(MODEL, "size").row) == 1
    with pytest.raises(ValueError, match="hypothesis must be one of"):
        named_hypothesis(MODEL, "momentum")


@pytest.mark.slow
def test_a_test_by_name_on_a_panel(panel):
    found = instrumented_test(MODEL, panel, "value", num_draws=9, key=jax.random.key(0))
    assert float(found.p_value) == pytest.approx(0.1)


def test_panels_that_do_not_fit_are_refused(panel):
    returns, tables, given = frames()
    with pytest.raises(ValueError, match="no characteristic 'momentum'"):
        InstrumentedPCA(("momentum",), 1).fit(panel)
    with pytest.raises(ValueError, match="no given factor 'oil'"):
        InstrumentedPCA(("value", "size"), 1, given=("oil",)).fit(panel)
    with pytest.raises(ValueError, match="'A value' is due"):
        MODEL.fit(panel.select([*ASSETS, *panel.names[16:24], *panel.names[8:16], "market"]))
    with pytest.raises(ValueError, match="3 factors cannot be told apart by 2"):
        InstrumentedPCA(("value", "size"), 3)
    with pytest.raises(ValueError, match="distinct names"):
        InstrumentedPCA(("value", "value"), 1)
    silent = {**tables, "size": tables["size"].assign(C=np.where(np.arange(40) < 39, np.nan, 1.0))}
    with pytest.raises(ValueError, match="asset 'C' has no return"):
        MODEL.fit(instrumented_panel(returns, silent, given))
    flat = {**tables, "size": tables["size"] * 0.0 + 2.0}
    with pytest.raises(ValueError, match="characteristic 'size' is the same for all"):
        InstrumentedPCA(("value", "size"), 1, constant=True).fit(instrumented_panel(returns, flat))
    twice = {**tables, "size": 3.0 * tables["value"]}
    with pytest.raises(ValueError, match="'value', 'size' are collinear"):
        InstrumentedPCA(("value", "size"), 1).fit(instrumented_panel(returns, twice))
    steady = given * 0.0 + 1.0
    with pytest.raises(ValueError, match="given factor 'market' is constant"):
        MODEL.fit(instrumented_panel(returns, tables, steady))
    with pytest.raises(ValueError, match="characteristic 'size' has no column for asset 'B'"):
        instrumented_panel(returns, {**tables, "size": tables["size"].drop(columns="B")})
    with pytest.raises(ValueError, match=r"usable cells in .* rows cannot tell"):
        InstrumentedPCA(("value", "size"), 2).fit(
            instrumented_panel(returns[["A", "B"]].iloc[:6], tables).window(0, 6)
        )


def test_an_explosive_factor_law_is_reported(panel):
    """Returns whose factor doubles every few rows."""
    returns, tables, _ = frames(gaps=0.0)
    growth = 1.3 ** np.arange(NUM_TIMES)
    earned = np.stack([t.shift(1).to_numpy() for t in tables.values()], axis=-1) @ GAMMA
    exploding = pd.DataFrame(growth[:, None] * earned, returns.index, returns.columns).fillna(0.0)
    model = InstrumentedPCA(("value", "size"), 1, expectation=AutoregressiveFactors())
    fitted = model.fit(instrumented_panel(exploding, tables), throw=False)
    assert not bool(is_okay(fitted.result))
    with pytest.raises(RuntimeError, match="not stationary"):
        model.fit(instrumented_panel(exploding, tables))
