"""Dynamic correlations: rmgarch's numbers, a plain loop, holes, forecasts against drawn paths."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from golden import rmgarch
from jaxfc.model import jitted_estimate
from jaxfc.volatility import (
    DCC,
    GARCH,
    CorrelationModel,
    Normal,
    SampleTarget,
    SkewedT,
    StudentT,
    VarianceModel,
    ZeroMean,
)
from jaxfc.volatility.correlation_process import Targets
from jaxfc.volatility.correlation_recursion import mean_falls
from jaxfc.volatility.likelihood import Standardised
from jaxfc.volatility.targets import unit_diagonal


def panel_of(values, names=None):
    names = names or [f"r{i}" for i in range(values.shape[1])]
    index = pd.bdate_range("1987-03-16", periods=len(values))
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, names))


@pytest.fixture(scope="module")
def dow(shared_data):
    rdata = pytest.importorskip("rdata")
    table = rdata.read_rda(shared_data / "garch_refs" / "dji30ret.rda")["dji30ret"]
    table = table[list(rmgarch.SERIES)].to_numpy()
    return 100.0 * table[:1000]


RMGARCH = CorrelationModel(
    DCC(start="ones"),
    margins=VarianceModel(start="rugarch"),
    target=SampleTarget(centred=True, unit_diagonal=False),
)


@pytest.fixture(scope="module")
def stopped(dow):
    """A fitted model without a search, whose parameters are replaced."""
    margins = dataclasses.replace(RMGARCH.margins, max_steps=1)
    model = dataclasses.replace(RMGARCH, max_steps=1, margins=margins)
    observed = jnp.asarray(~np.isnan(dow))
    return jitted_estimate(model, jnp.asarray(np.nan_to_num(dow)), observed, None, None)


def at_parameters(stopped, model, margins, parameters):
    own = dataclasses.replace(stopped.margins, parameters=margins)
    return dataclasses.replace(
        stopped,
        model=model,
        margins=own,
        parameters=parameters,
        targets=model.targets(parameters, own.filtered().standardised),
    )


@eqx.filter_jit
def read(stopped, model, margins, parameters):
    """The likelihood, the covariance of the row after the last, and the forecast of it."""
    fitted = at_parameters(stopped, model, margins, parameters)
    return jnp.sum(fitted.log_densities()), fitted.covs[-1], fitted.forecast(1).cov[0, :, 0]


@pytest.mark.parametrize("name", rmgarch.MODELS)
def test_the_numbers_of_rmgarch(stopped, name):
    parameters, loglik, lower = rmgarch.MODELS[name]
    model = dataclasses.replace(
        RMGARCH,
        correlations=DCC(num_asymmetric=int(name == "adcc_norm"), start="ones"),
        innovations=StudentT() if name == "dcc_t" else Normal(),
    )
    margins = jnp.asarray(rmgarch.MARGINS)
    found, cov, ahead = read(stopped, model, margins, jnp.asarray(parameters))
    assert float(found) == pytest.approx(loglik, abs=1e-8)
    np.testing.assert_allclose(cov[np.tril_indices(5)], lower, atol=1e-10)
    np.testing.assert_allclose(ahead, cov, rtol=1e-12)


@pytest.mark.slow
def test_estimates_on_long_samples(shared_data):
    """rmgarch's conventions on 21 years of five Dow stocks, at the optimum that multiarch 0.2 finds
    (rmgarch 1.3 stops at -53514.64); two stocks of ARCHModels' dow29, whose own recursion differs
    (it feeds R back): the standard one in plain numpy has (a, b) = (0.049325, 0.893114)."""
    rdata = pytest.importorskip("rdata")
    folder = shared_data / "garch_refs"
    table = rdata.read_rda(folder / "dji30ret.rda")["dji30ret"].iloc[:, :5].to_numpy()
    fitted = RMGARCH.fit(panel_of(100.0 * table), throw=False)
    assert float(fitted.loglik) == pytest.approx(-53513.996, abs=1e-3)
    np.testing.assert_allclose(fitted.parameters, [0.011324, 0.983859], atol=1e-5)
    # The fifth, a bank in 2008, has shocks that do not die out; it is kept and says so.
    codes = list(fitted.margins.to_frame(rmgarch.SERIES)["result"])
    assert codes == ["successful"] * 4 + ["integrated_variance"]
    two = pd.read_csv(folder / "dow29.csv.gz", header=None).to_numpy()[:, :2]
    other = CorrelationModel(DCC(), margins=VarianceModel(start="rugarch")).fit(panel_of(two))
    assert float(other.loglik) == pytest.approx(-9814.4765, abs=2e-4)
    np.testing.assert_allclose(other.parameters, [0.049325, 0.893114], atol=2e-6)


def simulated(seed=0, num_times=500, a=0.05, b=0.9):
    """DCC of three series with GARCH variances."""
    rng = np.random.default_rng(seed)
    target = np.asarray([[1.0, 0.6, 0.2], [0.6, 1.0, 0.4], [0.2, 0.4, 1.0]])
    quasi, product, variance, rows = target, target, np.ones(3), []
    for _ in range(num_times + 200):
        quasi = (1 - a - b) * target + a * product + b * quasi
        scale = np.sqrt(np.diag(quasi))
        units = np.linalg.cholesky(quasi / np.outer(scale, scale)) @ rng.normal(size=3)
        rows.append(np.sqrt(variance) * units)
        product = np.outer(units, units)
        variance = 0.05 + 0.08 * rows[-1] ** 2 + 0.87 * variance
    return np.asarray(rows[200:])


@pytest.fixture(scope="module")
def returns():
    return simulated()


PLAIN = CorrelationModel(DCC(), margins=VarianceModel(GARCH(), mean=ZeroMean()))


@pytest.fixture(scope="module")
def fitted(returns):
    return PLAIN.fit(panel_of(returns))


def kernel(corr):
    """E n n' of a normal, entry by entry."""
    angle = np.clip(corr, -1, 1)
    return (np.sqrt(1 - angle**2) + angle * (np.pi / 2 + np.arcsin(angle))) / (2 * np.pi)


def loop(units, known, parameters, both, falls, *, asymmetric=False, corrected=False):
    """Correlations of every row and the next, and the normal log-density, row by row."""
    a, *rest = parameters
    g, b = (rest[0], rest[1]) if asymmetric else (0.0, rest[0])
    quasi, product, fall = both, both, falls
    corrs, total = [], 0.0
    corr_both = both / np.sqrt(np.outer(np.diag(both), np.diag(both)))
    for unit, seen in zip(units, known, strict=True):
        quasi = (1 - a - b) * both - g * falls + a * product + g * fall + b * quasi
        scale = np.sqrt(np.diag(quasi))
        corr = quasi / np.outer(scale, scale)
        corrs.append(corr)
        block = corr[np.ix_(seen, seen)]
        z = unit[seen]
        _, log_det = np.linalg.slogdet(block)
        total -= 0.5 * (seen.sum() * np.log(2 * np.pi) + log_det + z @ np.linalg.solve(block, z))
        drive = scale * unit if corrected else unit
        both_seen = np.outer(seen, seen)
        product = np.where(both_seen, np.outer(drive, drive), quasi if corrected else corr)
        down = np.minimum(unit, 0)
        filled = kernel(corr) + falls - kernel(corr_both)
        fall = np.where(both_seen, np.outer(down, down), filled)
    return np.asarray(corrs), total


@pytest.mark.parametrize("kind", ["plain", "asymmetric", "corrected"])
def test_the_recursion_is_that_of_the_loop(returns, kind):
    rng = np.random.default_rng(1)
    known = rng.random(returns.shape) > 0.2
    units = np.where(known, returns / returns.std(axis=0), 0.0)
    asymmetric, corrected = kind == "asymmetric", kind == "corrected"
    parameters = np.asarray([0.04, 0.03, 0.9] if asymmetric else [0.05, 0.9])
    how = DCC(num_asymmetric=int(asymmetric), corrected=corrected)
    target = np.asarray(SampleTarget().corr(jnp.asarray(units), jnp.asarray(known)))
    falls = np.minimum(units, 0).T @ np.minimum(units, 0) / len(units)
    targets = Targets(jnp.asarray(target), jnp.asarray(falls))
    model = CorrelationModel(how)
    data = jnp.asarray(units), jnp.asarray(known)
    _, quasi = how.filter(jnp.asarray(parameters), *data, targets)
    corrs, total = loop(
        units, known, parameters, target, falls, asymmetric=asymmetric, corrected=corrected
    )
    np.testing.assert_allclose(jax.vmap(unit_diagonal)(quasi), corrs, atol=1e-12)
    found = jnp.sum(model.log_densities(jnp.asarray(parameters), Standardised(*data), targets))
    assert float(found) == pytest.approx(total, rel=1e-12)


def test_a_series_without_data_changes_nothing_for_the_others(returns):
    """One series masked whole: the likelihood and the forecast of the model without it."""
    both = jnp.asarray([[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]])
    units = jnp.asarray(returns / returns.std(axis=0))
    known = jnp.ones(units.shape, bool).at[:, 1].set(False)
    parameters, how = jnp.asarray([0.05, 0.9]), DCC()
    without = jnp.asarray([0, 2])
    whole = how.filter(
        parameters, jnp.where(known, units, 0.0), known, Targets(both, jnp.zeros_like(both))
    )[1]
    small = both[jnp.ix_(without, without)]
    part = how.filter(
        parameters,
        units[:, without],
        jnp.ones((len(units), 2), bool),
        Targets(small, jnp.zeros_like(small)),
    )[1]
    np.testing.assert_allclose(whole[:, without][:, :, without], part, atol=1e-13)


def test_estimates_are_near_the_truth(fitted, returns):
    a, b = np.asarray(fitted.parameters)
    assert abs(a - 0.05) < 0.03 and abs(b - 0.9) < 0.08
    assert fitted.model.names == ("a[1]", "b[1]")
    # The likelihood of both steps is that of the Gaussian rows.
    covs = np.asarray(fitted.covs)[:-1]
    total = -0.5 * sum(
        3 * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + row @ np.linalg.solve(cov, row)
        for cov, row in zip(covs, returns, strict=True)
    )
    assert float(fitted.loglik) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    "how", [DCC(2, 2), DCC(num_asymmetric=1), DCC(corrected=True)], ids=["2,2", "adcc", "cdcc"]
)
def test_other_correlations_are_estimated(returns, fitted, how):
    model = dataclasses.replace(PLAIN, correlations=how)
    other = model.fit(panel_of(returns), throw=False)
    assert bool(jnp.all(jnp.isfinite(other.parameters)))
    # Nested models gain; the corrected one is close to the plain.
    slack = 3.0 if how.corrected else 1e-4
    assert float(other.loglik) > float(fitted.loglik) - slack
    persistence = how.persistence(model.split(other.parameters)[0], other.targets)
    assert 0 < float(persistence) < 1


@eqx.filter_jit
def ahead_of(fitted, horizon, method=None):
    return fitted.forecast(horizon) if method is None else fitted.forecast(horizon, method=method)


def test_correlations_ahead_return_to_the_target(fitted):
    long = ahead_of(fitted, 400)
    corr = np.asarray(unit_diagonal(long.cov[-1, :, -1]))
    np.testing.assert_allclose(corr, unit_diagonal(fitted.targets.both), atol=1e-3)
    a, b = np.asarray(fitted.parameters)
    last = np.asarray(fitted.corrs[-1])
    level = np.asarray(unit_diagonal(fitted.targets.both))
    ahead = ahead_of(fitted, 5, "ES-R").cov
    for step in range(5):
        kept = (a + b) ** step
        found = unit_diagonal(ahead[step, :, step])
        np.testing.assert_allclose(found, (1 - kept) * level + kept * last, atol=1e-12)
    # Rows are uncorrelated over time, so the sum's covariance is the sum of the covariances.
    five = ahead_of(fitted, 5)
    total = np.asarray(five.cumulative().cov)[-1, :, -1]
    each = np.einsum("hihj->ij", np.asarray(five.cov))
    np.testing.assert_allclose(total, each, rtol=1e-12)


@pytest.mark.parametrize("method", ["iterated", "ES-Q"])
def test_drawn_paths_have_the_covariances(fitted, method):
    drawn = fitted.forecast(5, key=jax.random.key(0), num_draws=20_000)
    exact = np.asarray(fitted.forecast(5, method=method).cov)[4, :, 4]
    draws = np.asarray(drawn.draws)[:, 4]
    products = np.einsum("di,dj->dij", draws, draws)
    error = products.std(axis=0) / np.sqrt(len(draws))
    assert np.max(np.abs(products.mean(axis=0) - exact) / error) < 4.5


@pytest.mark.slow
def test_student_paths_have_fat_tails(returns):
    model = dataclasses.replace(PLAIN, innovations=StudentT())
    fitted = model.fit(panel_of(returns))
    assert model.names == ("a[1]", "b[1]", "nu")
    heavy = dataclasses.replace(fitted, parameters=fitted.parameters.at[2].set(5.0))
    draws = np.asarray(heavy.forecast(1, key=jax.random.key(0), num_draws=50_000).draws)[:, 0]
    np.testing.assert_allclose(draws.std(axis=0), heavy.forecast(1).std[0], rtol=0.03)
    kurtosis = np.mean((draws / draws.std(axis=0)) ** 4, axis=0)
    assert np.all(kurtosis > 5.0)  # 9 for five degrees of freedom, normal 3


def test_falls_of_a_normal():
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 400_000)
    down = np.minimum(draws, 0)
    found = mean_falls(jnp.asarray([[1.0, 0.5], [0.5, 1.0]]))
    np.testing.assert_allclose(found, down.T @ down / len(down), atol=4e-3)
    assert bool(jnp.all(jnp.isfinite(jax.jacfwd(mean_falls)(jnp.eye(2)))))


def test_holes_are_estimated_without_dropping_dates():
    holes = simulated(num_times=1500)
    holes[:120, 2] = np.nan  # listed later
    holes[np.random.default_rng(0).random(holes.shape) < 0.05] = np.nan
    other = PLAIN.fit(panel_of(holes))
    assert np.isfinite(float(other.loglik))
    assert np.all(np.abs(np.asarray(other.parameters) - [0.05, 0.9]) < [0.025, 0.06])
    assert other.forecast(3).cov.shape == (3, 3, 3, 3)


def test_gradient_of_a_portfolio(fitted, returns):
    """d (variance of an equally weighted portfolio ahead) / d (a return), parameters held fixed."""
    weights = jnp.full(3, 1 / 3)
    observed = jnp.ones(returns.shape, bool)

    @jax.jit
    def variance(values):
        cov = fitted.given(values, observed).forecast(2).cumulative().cov[-1, :, -1]
        return weights @ cov @ weights

    values = jnp.asarray(returns)
    slope = jax.jit(jax.grad(variance))(values)
    for row in (490, 499):
        step = jnp.zeros_like(values).at[row, 1].set(1e-5)
        difference = float(variance(values + step) - variance(values - step)) / 2e-5
        assert float(slope[row, 1]) == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_gradient_of_a_portfolio_by_parameters(fitted):
    """d (variance of an equally weighted portfolio ahead) / d (parameters of both steps)."""

    @jax.jit
    def variance(parameters, margins):
        own = dataclasses.replace(fitted.margins, parameters=margins)
        there = dataclasses.replace(fitted, parameters=parameters, margins=own)
        cov = there.forecast(2).cumulative().horizon_cov[-1]
        return jnp.sum(cov) / 9.0

    point = fitted.parameters, fitted.margins.parameters
    slopes = jax.jit(jax.grad(variance, argnums=(0, 1)))(*point)
    for which, place in ((0, (0,)), (0, (1,)), (1, (0, 1)), (1, (2, 2))):
        ends = []
        for sign in (1e-6, -1e-6):
            moved = list(point)
            moved[which] = moved[which].at[place].add(sign)
            ends.append(float(variance(*moved)))
        difference = (ends[0] - ends[1]) / 2e-6
        assert float(slopes[which][place]) == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_estimation_lowers_for_cuda(returns):
    model = dataclasses.replace(PLAIN, correlations=DCC(num_asymmetric=1))
    values = jnp.asarray(returns[:100])

    def estimate(values):
        fitted = model.estimate(values, jnp.ones(values.shape, bool))
        return fitted.forecast(2).horizon_cov

    exported = jax.export.export(jax.jit(estimate), platforms=["cuda"])(values)
    assert exported.platforms == ("cuda",)


def test_bad_input_is_named(returns, fitted):
    with pytest.raises(ValueError, match="correlations need two series or more"):
        PLAIN.fit(panel_of(returns[:, :1]))
    with pytest.raises(ValueError, match="the joint law is Normal"):
        CorrelationModel(innovations=SkewedT())
    with pytest.raises(ValueError, match="method must be one of"):
        fitted.forecast(2, method="naive")
    with pytest.raises(ValueError, match="defined without asymmetric terms"):
        DCC(num_asymmetric=1, corrected=True)
    with pytest.raises(ValueError, match="start must be"):
        DCC(start="zeros")
