"""Variances series by series: golden values, arch's likelihoods, loops, holes, units, draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.results import RESULTS, is_okay
from jaxfc.volatility import (
    APARCH,
    EGARCH,
    GARCH,
    GED,
    HAR,
    AutoregressiveMean,
    ConstantMean,
    Normal,
    RiskMetrics,
    SkewedT,
    StudentT,
    VarianceModel,
    ZeroMean,
    standard_errors,
)

GJR = GARCH(1, 1, num_asymmetric=1)
# Fiorentini, Calzolari and Panattoni (1996) as collected by Brooks, Burke and Persand (2001).
FCP = (-0.00619041, 0.0107613, 0.153134, 0.805974)
FCP_ERRORS = {
    "hessian": (0.00846212, 0.00285271, 0.0265228, 0.0335527),
    "opg": (0.00843359, 0.00132298, 0.0139737, 0.0165604),
    "sandwich": (0.00918935, 0.00649319, 0.0535317, 0.0724614),
}
# arch 8.0.0 and, for "rugarch", the recursion started at the mean square in plain numpy.
OTHER_STARTS = {
    "rugarch": (-0.00618441, 0.01076027, 0.15340744, 0.80587921),
    "arch": (-0.00607659, 0.00991424, 0.14547802, 0.81684613),
}


def panel_of(**columns):
    length = len(next(iter(columns.values())))
    return jaxfc.Panel.from_frame(
        pd.DataFrame(columns, pd.bdate_range("1984-01-03", periods=length))
    )


@pytest.fixture(scope="module")
def marks(shared_data):
    path = shared_data / "garch_refs" / "bollerslev_ghysels.txt"
    return np.loadtxt(path, skiprows=1)


@pytest.fixture(scope="module")
def simulated():
    """GJR with t innovations, 600 rows, in percent."""
    rng = np.random.default_rng(3)
    units = rng.standard_t(6, size=900) * np.sqrt(4 / 6)
    variance, path = 1.0, []
    for unit in units:
        residual = np.sqrt(variance) * unit
        path.append(0.05 + residual)
        variance = 0.05 + (0.04 + 0.08 * (residual < 0)) * residual**2 + 0.87 * variance
    return np.asarray(path[300:])


def test_the_benchmark_of_garch(marks):
    fitted = VarianceModel().fit(panel_of(DM=marks))
    assert fitted.names == ("mu", "omega", "alpha[1]", "beta[1]")
    np.testing.assert_allclose(fitted.parameters[0], FCP, rtol=2e-5)
    assert float(fitted.loglik) == pytest.approx(-1106.6079, abs=1e-4)
    for kind, errors in FCP_ERRORS.items():
        np.testing.assert_allclose(standard_errors(fitted, kind)[0], errors, rtol=2e-5)


@pytest.mark.parametrize("start", OTHER_STARTS)
def test_other_starts_have_other_optima(marks, start):
    fitted = VarianceModel(start=start).fit(panel_of(DM=marks))
    np.testing.assert_allclose(fitted.parameters[0], OTHER_STARTS[start], rtol=2e-5)


ARCH_CASES = {
    "GARCH(1,1) normal": (GARCH(), ConstantMean(), Normal(), {"vol": "GARCH"}),
    "GARCH(2,2) normal": (GARCH(2, 2), ConstantMean(), Normal(), {"vol": "GARCH", "p": 2, "q": 2}),
    "ARCH(2) t": (GARCH(2, 0), ConstantMean(), StudentT(), {"vol": "ARCH", "p": 2, "dist": "t"}),
    "GJR skewed t": (GJR, ConstantMean(), SkewedT(), {"vol": "GARCH", "o": 1, "dist": "skewt"}),
    "EGARCH normal": (EGARCH(), ZeroMean(), Normal(), {"vol": "EGARCH", "o": 1}),
    "GARCH GED": (GARCH(), ConstantMean(), GED(), {"vol": "GARCH", "dist": "ged"}),
    "APARCH t": (APARCH(), ConstantMean(), StudentT(), {"vol": "APARCH", "o": 1, "dist": "t"}),
    "AR(2) GARCH": (GARCH(), AutoregressiveMean(2), Normal(), {"mean": "AR", "lags": 2}),
}


@pytest.mark.parametrize("name", ARCH_CASES)
def test_likelihoods_are_those_of_arch(simulated, name):
    """At arch's own estimate. An EGARCH of another law differs: arch holds the normal's E|z|."""
    arch = pytest.importorskip("arch")
    variance, mean, law, options = ARCH_CASES[name]
    if isinstance(mean, ZeroMean):
        options = options | {"mean": "Zero"}
    theirs = arch.arch_model(simulated, rescale=False, **options).fit(disp="off")
    model = VarianceModel(variance, mean=mean, innovations=law, start="arch")
    how = model.specification
    values = jnp.asarray(simulated)
    series = how.series(values, jnp.ones(values.size, bool))
    parameters = jnp.asarray(theirs.params.to_numpy())
    found = jnp.sum(how.log_densities(parameters, series))
    assert float(found) == pytest.approx(theirs.loglikelihood, abs=2e-6)
    if name == "GJR skewed t":
        fitted = model.fit(panel_of(r=simulated))
        assert float(fitted.loglik) > theirs.loglikelihood - 1e-6
        np.testing.assert_allclose(fitted.parameters[0], parameters, atol=2e-3, rtol=1e-2)


def test_rows_before_the_first_value_change_nothing(simulated):
    how = VarianceModel(GJR, start="rugarch").specification
    parameters = jnp.asarray([0.05, 0.06, 0.03, 0.08, 0.85])
    late = np.concatenate([np.zeros(40), simulated])
    seen = jnp.arange(late.size) >= 40
    whole = how.series(jnp.asarray(simulated), jnp.ones(600, bool))
    padded = how.series(jnp.asarray(late), seen)
    np.testing.assert_allclose(
        how.log_densities(parameters, padded)[40:], how.log_densities(parameters, whole), rtol=1e-13
    )


def variance_by_hand(values, observed, parameters, start):
    """GJR(1, 1) with a constant mean, holes filled by their expectation (symmetric law)."""
    mu, omega, alpha, gamma, beta = parameters
    residuals = values - mu
    before = np.mean(residuals[observed] ** 2)
    news, variance, path = (alpha + 0.5 * gamma) * before, before, []
    for t, residual in enumerate(residuals):
        variance = omega + news + beta * variance
        if start == "rugarch" and t == 0:
            variance = before
        path.append(variance)
        square = residual**2
        news = (alpha + gamma * (residual < 0)) * square
        if not observed[t]:
            news = (alpha + 0.5 * gamma) * variance
    return np.asarray([*path, omega + news + beta * variance])


@pytest.mark.parametrize("start", ["fcp", "rugarch"])
def test_holes_are_filled_by_their_expectation(simulated, start):
    rng = np.random.default_rng(0)
    observed = rng.random(simulated.size) > 0.2
    observed[-1] = False
    parameters = np.asarray([0.05, 0.06, 0.03, 0.08, 0.85])
    how = VarianceModel(GJR, start=start).specification
    values = jnp.asarray(np.where(observed, simulated, np.nan))

    def variances(values):
        series = how.series(jnp.where(jnp.asarray(observed), values, 0.0), jnp.asarray(observed))
        return how.filtered(jnp.asarray(parameters), series)[2]

    expected = variance_by_hand(simulated, observed, parameters, start)
    np.testing.assert_allclose(variances(values), expected, rtol=1e-12)
    slope = jax.grad(lambda v: variances(v)[-1])(jnp.where(jnp.isnan(values), 0.0, values))
    np.testing.assert_array_equal(np.asarray(slope)[~observed], 0.0)
    assert float(jnp.abs(slope[-2])) > 0


@eqx.filter_jit
def ahead_of(fitted, horizon, key=None, num_draws=None):
    """One program, where each operation of `forecast` by itself would be one."""
    return (
        fitted.forecast(horizon)
        if key is None
        else fitted.forecast(horizon, key=key, num_draws=num_draws)
    )


@pytest.fixture(scope="module")
def holes(simulated):
    return np.where(np.random.default_rng(1).random(600) > 0.1, simulated, np.nan)


@pytest.fixture(scope="module")
def fitted(simulated, holes):
    model = VarianceModel(GJR, innovations=StudentT())
    return model.fit(panel_of(whole=simulated, holes=holes))


@pytest.mark.slow
def test_estimates_are_near_the_truth(fitted):
    truth = np.asarray([0.05, 0.05, 0.04, 0.08, 0.87, 6.0])
    errors = np.asarray(standard_errors(fitted))
    assert np.all(np.abs(np.asarray(fitted.parameters) - truth) < 3.5 * errors)
    frame = fitted.to_frame(("whole", "holes"))
    assert list(frame.columns) == [*fitted.names, "loglik", "result"]
    assert list(frame["result"]) == ["successful", "successful"]
    np.testing.assert_allclose(np.std(fitted.units[:, 0]), 1.0, atol=0.1)


def test_units_do_not_matter(simulated, holes, fitted):
    """Percent or decimals: the same estimate, in other units; omega by the square."""
    panel = panel_of(whole=simulated / 100, holes=holes / 100)
    decimals = VarianceModel(GJR, innovations=StudentT()).fit(panel)
    scale = np.asarray([1e-2, 1e-4, 1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(decimals.parameters, fitted.parameters * scale, rtol=1e-6)
    moved = np.asarray(fitted.logliks) + np.sum(panel.observed, axis=0) * np.log(100)
    np.testing.assert_allclose(decimals.logliks, moved, rtol=1e-10)


def test_variances_ahead_have_the_closed_form(fitted):
    """s_{T+k} = v + pi^{k-1} (s_{T+1} - v), and each row is its own."""
    forecast = ahead_of(fitted, 12)
    _, omega, alpha, gamma, beta, _ = np.asarray(fitted.parameters[0])
    persistence = alpha + 0.5 * gamma + beta
    level = omega / (1 - persistence)
    first = float(fitted.variances[-1, 0])
    expected = level + persistence ** np.arange(12) * (first - level)
    np.testing.assert_allclose(np.square(forecast.std[:, 0]), expected, rtol=1e-10)
    total = forecast.cumulative().std[-1, 0] ** 2
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-12)


def test_draws_have_the_variances(fitted):
    drawn = ahead_of(fitted, 6, jax.random.key(0), 40_000)
    expected = np.asarray(ahead_of(fitted, 6).std)
    np.testing.assert_allclose(drawn.std, expected, rtol=0.03)
    # The sum over the horizon is not Student's: fatter than normal, thinner than one step.
    draws = np.asarray(drawn.draws[:, :, 0])
    kurtosis = [float(np.mean((x / x.std()) ** 4)) for x in (draws[:, 0], draws.sum(axis=1))]
    assert kurtosis[0] > 3.5 and kurtosis[1] > 3.0


def test_a_long_path_has_the_long_run_variance(fitted):
    path = np.asarray(jax.jit(lambda: fitted.simulate(30_000, key=jax.random.key(1)))())
    _, omega, alpha, gamma, beta, _ = np.asarray(fitted.parameters).T
    level = omega / (1 - alpha - 0.5 * gamma - beta)
    np.testing.assert_allclose(path.var(axis=0), level, rtol=0.15)


def test_an_autoregression_moves_mean_and_sum(simulated):
    model = VarianceModel(GARCH(), mean=AutoregressiveMean(2), start="arch")
    fitted = model.fit(panel_of(r=simulated))
    mu, first, second = np.asarray(fitted.parameters[0, :3])
    last = simulated[-2:].copy()
    means, psi = [], [1.0, first]
    for _ in range(4):
        last = np.append(last, mu + first * last[-1] + second * last[-2])
        means.append(last[-1])
        psi.append(first * psi[-1] + second * psi[-2])
    forecast = ahead_of(fitted, 4)
    np.testing.assert_allclose(forecast.mean[:, 0], means, rtol=1e-10)
    ahead = np.asarray(eqx.filter_jit(fitted.filtered)(4)[2][600:, 0])
    sums = np.cumsum(psi[:4])[::-1]
    np.testing.assert_allclose(
        forecast.cumulative().std[-1, 0] ** 2, np.sum(sums**2 * ahead), rtol=1e-12
    )
    drawn = ahead_of(fitted, 4, jax.random.key(0), 40_000)
    np.testing.assert_allclose(drawn.cumulative().std, forecast.cumulative().std, rtol=0.03)
    np.testing.assert_allclose(drawn.mean, forecast.mean, atol=0.03)


def test_targeting_and_baselines(simulated):
    panel = panel_of(r=simulated)
    target = VarianceModel(GARCH(), mean=ZeroMean(), targeting=True).fit(panel)
    omega, alpha, beta = np.asarray(target.parameters[0])
    level = np.mean(simulated**2)
    assert omega / (1 - alpha - beta) == pytest.approx(level, rel=1e-10)
    metrics = VarianceModel(RiskMetrics(), mean=ZeroMean()).fit(panel)
    variance = level
    for value in simulated:
        variance = 0.94 * variance + 0.06 * value**2
    assert float(metrics.variances[-1, 0]) == pytest.approx(variance, rel=1e-12)
    np.testing.assert_allclose(metrics.forecast(3).std[:, 0], np.sqrt(variance), rtol=1e-12)
    har = VarianceModel(HAR(), mean=ZeroMean()).fit(panel)
    omega, *betas = np.asarray(har.parameters[0])
    means = [np.mean(simulated[-window:] ** 2) for window in (1, 5, 22)]
    assert float(har.variances[-1, 0]) == pytest.approx(omega + np.dot(betas, means), rel=1e-10)


def test_a_variance_without_end_has_its_own_code():
    """Volatility that only grows: shocks that do not die out."""
    rng = np.random.default_rng(0)
    growing = rng.normal(size=400) * np.exp(np.linspace(0, 6, 400))
    fitted = VarianceModel(GARCH(), mean=ZeroMean()).fit(panel_of(r=growing), throw=False)
    assert fitted.result == RESULTS.integrated_variance and not bool(is_okay(fitted.result))
    assert bool(jnp.all(jnp.isfinite(fitted.parameters)))
    with pytest.raises(RuntimeError, match="not stationary: shocks to the variance"):
        VarianceModel(GARCH(), mean=ZeroMean()).fit(panel_of(r=growing))


def test_bad_input_is_named(simulated):
    with pytest.raises(ValueError, match="series 'short' has 30 observations for 4 parameters"):
        VarianceModel().fit(panel_of(short=simulated[:30]))
    with pytest.raises(ValueError, match="series 'flat' is constant"):
        VarianceModel().fit(panel_of(flat=np.full(100, 2.0)))
    with pytest.warns(UserWarning, match="'a' is 100 times as volatile as 'b': are some"):
        VarianceModel(RiskMetrics()).fit(panel_of(a=simulated, b=simulated / 100))
    with pytest.raises(ValueError, match="EGARCH beyond one step has no closed form; pass key"):
        VarianceModel(EGARCH()).fit(panel_of(a=simulated)).forecast(2)
    with pytest.raises(ValueError, match="targeting=True needs a process whose long-run"):
        VarianceModel(EGARCH(), targeting=True)
    with pytest.raises(ValueError, match="num_shocks >= 1"):
        GARCH(0, 1)
    with pytest.raises(ValueError, match="windows must ascend"):
        HAR((5, 1))
    with pytest.raises(ValueError, match="kind must be one of"):
        standard_errors(VarianceModel(RiskMetrics()).fit(panel_of(a=simulated)), "bootstrap")


def test_the_forecast_is_differentiable_through_the_estimate(simulated):
    """d (variance ahead) / d (a return), the parameters estimated again: implicit function theorem
    against finite differences."""
    model = VarianceModel(GARCH(), mean=ZeroMean(), tolerance=1e-9)
    observed = jnp.ones((600, 1), bool)

    @jax.jit
    def ahead(values):
        return jnp.sum(model.estimate(values, observed).forecast(3).std ** 2)

    values = jnp.asarray(simulated[:, None])
    slope = jax.jit(jax.grad(ahead))(values)
    for row in (300, 597):
        step = jnp.zeros_like(values).at[row].set(1e-3)
        difference = float(ahead(values + step) - ahead(values - step)) / 2e-3
        assert float(slope[row, 0]) == pytest.approx(difference, rel=2e-3)
