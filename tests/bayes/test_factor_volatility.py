"""Factor stochastic volatility: density, filter, draws, forecasts, the contract."""

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
from jaxfc.bayes.autoregression import stationary_path
from jaxfc.bayes.convergence import monte_carlo_error
from jaxfc.bayes.diagnostics import Limits
from jaxfc.bayes.dynamic_factors_panel import standard_panel
from jaxfc.bayes.factor_volatility import FactorVolatilityModel
from jaxfc.bayes.factor_volatility_filter import (
    VolatilityLaw,
    expected_covs,
    volatility_filter,
)
from jaxfc.bayes.factor_volatility_loadings import NormalGamma
from jaxfc.bayes.factor_volatility_program import (
    FactorVolatilityProgram,
    VolatilityPrior,
)
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.results import RESULTS

LOOSE = Limits(rhat=3.0, ess=1.0, bfmi=0.0, divergent=1.0)


def world(num_times, num_series, seed=0, missing=0.1):
    """A panel of one factor whose log variance moves, and its covariance row by row."""
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.6, 1.2, num_series)
    logs = np.zeros(num_times)
    for t in range(1, num_times):
        logs[t] = 0.97 * logs[t - 1] + 0.35 * rng.normal()
    factor = np.exp(0.5 * logs) * rng.normal(size=num_times)
    values = 1.0 + np.outer(factor, loadings) + 0.5 * rng.normal(size=(num_times, num_series))
    observed = rng.random(values.shape) > missing
    covs = np.exp(logs)[:, None, None] * np.outer(loadings, loadings) + 0.25 * np.eye(num_series)
    return jnp.asarray(np.where(observed, values, np.nan)), jnp.asarray(observed), covs


def program_of(errors, factors, loadings=None):
    values, observed, _ = world(6, 3)
    prior = VolatilityPrior() if loadings is None else VolatilityPrior(loadings)
    return FactorVolatilityProgram(standard_panel(values, observed), 2, prior, errors, factors)


@eqx.filter_jit
def densities(program, key):
    parameters = program.sample_prior(key=key)
    return (
        parameters,
        program.log_prior(parameters),
        program.log_likelihood(parameters),
        program.factor_logs(parameters),
        program.error_logs(parameters),
    )


def textbook_prior(p, program):
    """The sum of scipy densities of everything but the loadings."""
    total = stats.norm.logpdf(p["intercept"], scale=0.5).sum()
    total += stats.norm.logpdf(p["error_level"], -1.0, 2.0).sum()
    for of in ("factor", "error") if program.errors == "stochastic" else ("factor",):
        total += (stats.beta.logpdf((1 + p[f"{of}_phi"]) / 2, 20.0, 1.5) - np.log(2)).sum()
        total += stats.halfnorm.logpdf(p[f"{of}_sigma"], scale=0.5).sum()
        total += stats.norm.logpdf(p[f"{of}_path"]).sum()
    if program.errors == "student":
        total += stats.gamma.logpdf(p["excess_degrees"], 2.0, scale=10.0).sum()
    return total


CASES = [
    ("stochastic", "integrated"),
    ("constant", "integrated"),
    ("stochastic", "sampled"),
    ("student", "sampled"),
]


@pytest.mark.parametrize(("errors", "factors"), CASES)
def test_log_density_is_the_sum_of_textbook_densities(errors, factors):
    program = program_of(errors, factors)
    p, log_prior, log_likelihood, h, g = densities(program, jax.random.key(3))
    p = {name: np.asarray(value) for name, value in p.items()}
    h, g = np.asarray(h), np.asarray(g)
    expected = textbook_prior(p, program)
    expected += stats.halfnorm.logpdf(p["loading_scale"]).sum()
    expected += stats.t.logpdf(p["loadings"], 10.0, scale=p["loading_scale"]).sum()
    if factors == "sampled":
        expected += stats.norm.logpdf(p["factors"], scale=np.exp(0.5 * h)).sum()
    assert float(log_prior) == pytest.approx(expected, rel=1e-12)

    expected = 0.0
    for t in range(6):
        seen = np.asarray(program.panel.observed)[t]
        gap = (np.asarray(program.panel.values)[t] - p["intercept"])[seen]
        loadings = p["loadings"][seen]
        if factors == "integrated":
            cov = loadings @ np.diag(np.exp(h[t])) @ loadings.T + np.diag(np.exp(g[t][seen]))
            expected += stats.multivariate_normal.logpdf(gap, np.zeros(seen.sum()), cov)
        else:
            gap, scale = gap - loadings @ p["factors"][t], np.exp(0.5 * g[t][seen])
            if errors == "student":
                dof = 2.0 + p["excess_degrees"][seen]
                expected += stats.t.logpdf(gap, dof, scale=scale).sum()
            else:
                expected += stats.norm.logpdf(gap, scale=scale).sum()
    assert float(log_likelihood) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("rows", [True, False])
def test_normal_gamma_loadings(rows):
    program = program_of("constant", "integrated", NormalGamma(rows, 0.4, (2.0, 3.0)))
    p, log_prior, *_ = densities(program, jax.random.key(0))
    p = {name: np.asarray(value) for name, value in p.items()}
    rate = p["loading_rate"]
    assert rate.shape == ((3, 1) if rows else (1, 2))
    expected = textbook_prior(p, program) + stats.gamma.logpdf(rate, 2.0, scale=1 / 3.0).sum()
    scale = np.broadcast_to(1.0 / (0.5 * 0.4 * rate), (3, 2))
    expected += stats.gamma.logpdf(p["loading_variance"], 0.4, scale=scale).sum()
    expected += stats.norm.logpdf(p["loadings"], scale=np.sqrt(p["loading_variance"])).sum()
    assert float(log_prior) == pytest.approx(expected, rel=1e-12)


def test_paths_are_stationary_autoregressions():
    rng = np.random.default_rng(0)
    noise, phi, sigma = rng.normal(size=(5, 2)), np.array([0.9, -0.3]), np.array([0.2, 0.5])
    expected = [sigma * noise[0] / np.sqrt(1 - phi**2)]
    for t in range(1, 5):
        expected.append(phi * expected[-1] + sigma * noise[t])
    found = stationary_path(*(jnp.asarray(a) for a in (noise, phi, sigma)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("errors", "factors"), [CASES[0], CASES[3]])
def test_simulated_data_have_the_covariance_of_their_row(errors, factors):
    program = program_of(errors, factors)
    parameters, _, _, h, g = densities(program, jax.random.key(3))
    if errors == "student":
        parameters = parameters | {"excess_degrees": jnp.full(3, 6.0)}
    keys = jax.random.split(jax.random.key(1), 20_000)
    run = jax.jit(jax.vmap(lambda key: program.simulated(parameters, key=key).panel.values))
    drawn = np.asarray(run(keys))
    observed = np.asarray(program.panel.observed)
    assert np.all(drawn[:, ~observed] == 0.0)
    loadings = np.asarray(parameters["loadings"])
    own = np.exp(np.asarray(g)) * (8.0 / 6.0 if errors == "student" else 1.0)
    for t in (0, 5):
        seen = observed[t]
        mean = np.asarray(parameters["intercept"])[seen]
        cov = np.diag(own[t][seen])
        if factors == "sampled":
            mean = mean + loadings[seen] @ np.asarray(parameters["factors"])[t]
        else:
            cov = cov + loadings[seen] @ np.diag(np.exp(np.asarray(h)[t])) @ loadings[seen].T
        scale = np.sqrt(np.diag(cov))
        rows = drawn[:, t, seen]
        assert np.abs((rows.mean(axis=0) - mean) / scale).max() < 4.5 / np.sqrt(20_000)
        assert np.abs((np.cov(rows.T) - cov) / np.outer(scale, scale)).max() < 0.06


def test_identified_quantities_ignore_order_and_signs():
    program = program_of("stochastic", "integrated")
    p = densities(program, jax.random.key(3))[0]
    turned = p | {"loadings": p["loadings"][:, ::-1] * jnp.array([-1.0, 1.0])}
    turned |= {f"factor_{x}": p[f"factor_{x}"][..., ::-1] for x in ("phi", "sigma", "path")}
    identified = eqx.filter_jit(lambda p: (program.identified(p), program.log_likelihood(p)))
    for a, b in zip(*(jax.tree.leaves(identified(q)) for q in (p, turned)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def filter_law(num_series, sigma=0.3, phi=0.9):
    rng = np.random.default_rng(1)
    size = num_series + 1
    return VolatilityLaw(
        intercept=jnp.asarray(0.1 * rng.normal(size=num_series)),
        loadings=jnp.asarray(rng.uniform(0.5, 1.0, (num_series, 1))),
        levels=jnp.asarray(np.r_[0.0, np.full(num_series, -1.0)]),
        phi=jnp.full(size, phi),
        sigma=jnp.full(size, sigma),
    )


run_filter = jax.jit(volatility_filter)


def particle_means(law, values, weights, num_particles=20_000, seed=0):
    """Filtered means and variances of all log variances by a bootstrap particle filter."""
    rng = np.random.default_rng(seed)
    levels, phi, sigma = (np.asarray(x) for x in (law.levels, law.phi, law.sigma))
    loadings = np.asarray(law.loadings)[:, 0]
    start = sigma / np.sqrt(1 - phi**2)
    particles = levels + start * rng.normal(size=(num_particles, len(levels)))
    means, variances = [], []
    for value, weight in zip(values, weights, strict=True):
        seen = weight > 0
        logs = np.zeros(num_particles)
        if seen.any():
            gap = (value - np.asarray(law.intercept))[seen]
            own = np.exp(particles[:, 1:][:, seen])
            common = np.exp(particles[:, 0])[:, None, None]
            covs = common * np.outer(loadings[seen], loadings[seen]) + own[:, :, None] * np.eye(
                seen.sum()
            )
            logs = -0.5 * (
                np.linalg.slogdet(covs)[1] + np.linalg.solve(covs, gap[None, :, None])[..., 0] @ gap
            )
        masses = np.exp(logs - logs.max())
        masses = masses / masses.sum()
        mean = masses @ particles
        means.append(mean)
        variances.append(masses @ (particles - mean) ** 2)
        picked = rng.choice(num_particles, num_particles, p=masses)
        noise = rng.normal(size=particles.shape)
        particles = levels + phi * (particles[picked] - levels) + sigma * noise
    return np.array(means), np.array(variances)


def test_the_filter_is_close_to_particles():
    law = filter_law(3)
    values, observed, _ = world(40, 3, seed=2)
    panel = standard_panel(values, observed)
    found = run_filter(law, panel.values, panel.weights)
    means, variances = particle_means(law, np.asarray(panel.values), np.asarray(panel.weights))
    gaps = np.abs(np.asarray(found.filtered.means) - means) / np.sqrt(variances)
    assert gaps.mean() < 0.05 and gaps.max() < 0.35
    ratio = np.sqrt(np.asarray(found.filtered.variances) / variances)
    assert 0.9 < ratio.min() and ratio.max() < 1.12


def test_constant_variances_are_filtered_exactly():
    law = filter_law(3, sigma=0.0)
    values, observed, _ = world(12, 3, seed=2)
    panel = standard_panel(values, observed)
    found = run_filter(law, panel.values, panel.weights)
    loadings = np.asarray(law.loadings)
    cov = loadings @ loadings.T + np.exp(-1.0) * np.eye(3)
    np.testing.assert_allclose(expected_covs(law, found.filtered.logs)[-1], cov, rtol=1e-10)
    for t in range(12):
        seen = np.asarray(observed)[t]
        gap = np.asarray(panel.values[t] - law.intercept)[seen]
        density = stats.multivariate_normal.logpdf(gap, None, cov[np.ix_(seen, seen)])
        assert float(found.loglik_terms[t]) == pytest.approx(density, rel=1e-10)


def test_the_filter_does_not_look_ahead():
    law = filter_law(3)
    values, observed, _ = world(12, 3, seed=2)
    panel = standard_panel(values, observed)

    def at_row(values):
        found = volatility_filter(law, values, panel.weights)
        return jnp.stack([jnp.sum(found.predicted.means[6]), jnp.sum(found.filtered.means[6])])

    slopes = np.asarray(jax.jit(jax.jacrev(at_row))(panel.values))
    np.testing.assert_array_equal(slopes[0, 6:], 0.0)
    np.testing.assert_array_equal(slopes[1, 7:], 0.0)
    np.testing.assert_array_equal(slopes[:, ~np.asarray(observed)], 0.0)
    assert np.abs(slopes[0, 5]).max() > 0 and np.abs(slopes[1, 6]).max() > 0


MODEL = FactorVolatilityModel(1, inference=PooledHMC(2, 150, 150, num_leapfrogs=12), limits=LOOSE)
estimated = eqx.filter_jit(lambda model, *data, key: model.estimate(*data, key=key))
regiven = eqx.filter_jit(lambda fitted, *data: fitted.given(*data))


@pytest.fixture(scope="module")
def data():
    return world(150, 4, seed=4)


def test_persistent_draws_are_filtered_like_less_persistent_ones():
    """The expected variance of a persistent draw before the first row does not exist."""
    values, observed, _ = world(60, 4, seed=2)
    panel = standard_panel(values, observed)
    near, far = (
        run_filter(filter_law(4, phi=phi), panel.values, panel.weights) for phi in (0.98, 0.999)
    )
    assert abs(float(jnp.sum(near.loglik_terms - far.loglik_terms))) < 20.0
    ratio = np.exp(np.asarray(far.filtered.logs - near.filtered.logs))[10:]
    assert 0.3 < ratio.min() and ratio.max() < 3.0


@pytest.fixture(scope="module")
def fitted(data):
    return MODEL.fit(frame_panel(data[0]), key=jax.random.key(0))


def frame_panel(values, **options):
    index = pd.bdate_range("2020-01-01", periods=len(values))
    frame = pd.DataFrame(np.asarray(values), index, list("ABCD"))
    return jaxfc.Panel.from_frame(frame, **options)


@pytest.mark.slow
def test_variances_follow_the_truth(data, fitted):
    """Smoothed and filtered total variance against the one that made the data."""
    values, observed, covs = data
    truth = np.trace(covs, axis1=1, axis2=2)
    smoothed = np.asarray(eqx.filter_jit(fitted.smoothed_covs)())
    path = eqx.filter_jit(fitted.covariance_path)(values, observed)
    filtered = np.asarray(path.filtered_covs)
    # Posterior means are right on average for variances, not for their logarithms. Those of the
    # filter are means of wider, skewed laws: of one sample they say the order of magnitude.
    for found, least, most in ((smoothed, 0.85, 0.2), (filtered, 0.7, 1.0)):
        total = np.trace(found, axis1=1, axis2=2)
        assert np.corrcoef(np.log(total), np.log(truth))[0, 1] > least
        assert abs(np.mean(total) / np.mean(truth) - 1.0) < most
    assert np.trace(path.predicted_covs[0]) < 20 * truth.mean()
    assert np.isfinite(np.asarray(path.predicted_covs)).all()
    assert np.linalg.eigvalsh(filtered).min() > 0
    level = float(jnp.sum(path.loglik_terms))
    assert level == pytest.approx(float(fitted.loglik), rel=1e-10)


def test_fit_forecast_simulate_and_label(data, fitted):
    panel = frame_panel(data[0])
    forecast = fitted.forecast(3, key=jax.random.key(1))
    assert forecast.draws.shape == (300, 3, 4)
    assert panel.label(forecast).shape[0] >= 3
    assert fitted.simulate(20, key=jax.random.key(2)).shape == (20, 4)
    assert np.isfinite(fitted.loglik) and int(fitted.num_steps) == 300


def alike(fitted, number, **changes):
    """All draws the same one, of which there are 20,000."""
    parameters = jax.tree.map(lambda x: x[0, number], fitted.draws.parameters) | changes
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, 20_000, *x.shape)), parameters)
    state = jax.tree.map(
        lambda x: jnp.broadcast_to(x[number], (20_000, *x.shape[1:])), fitted.state
    )
    return eqx.tree_at(
        lambda f: (f.draws.parameters, f.draws.log_density, f.state),
        fitted,
        (many, jnp.zeros((1, 20_000)), state),
    )


def test_forecasts_roll_log_variances_forward(fitted):
    """E exp(h) two rows ahead of a known state, by the moments of the log-normal law."""
    sigma = jnp.array([0.3])
    same = alike(fitted, 5, factor_sigma=sigma, error_sigma=jnp.full(4, 0.2))
    drawn = np.asarray(
        eqx.filter_jit(lambda f, k: f.forecast(2, key=k).draws)(same, jax.random.key(0))
    )
    p = {name: np.asarray(x[0, 0]) for name, x in same.draws.parameters.items()}
    state, scale = np.asarray(same.state.means[0]), np.asarray(fitted.units.scale)
    level = np.r_[0.0, p["error_level"]]
    phi = np.r_[p["factor_phi"], p["error_phi"]]
    spread = np.r_[0.3, np.full(4, 0.2)] ** 2
    for step in (1, 2):
        mean = level + phi**step * (state - level)
        variance = spread * sum(phi ** (2 * s) for s in range(step))
        expected = np.exp(mean + 0.5 * variance)
        cov = expected[0] * p["loadings"] @ p["loadings"].T + np.diag(expected[1:])
        cov = scale[:, None] * cov * scale
        sizes = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        assert np.abs((np.cov(drawn[:, step - 1].T) - cov) / sizes).max() < 0.07
        centre = np.asarray(fitted.units.restore(jnp.asarray(p["intercept"])))
        error = np.sqrt(np.diag(cov) / 20_000)
        assert np.abs((drawn[:, step - 1].mean(axis=0) - centre) / error).max() < 4.5


def test_given_other_rows_the_filter_says_where_variances_are(data, fitted):
    """The fitted rows: close to the drawn paths' ends; loud rows after them: wider forecasts."""
    values, observed, _ = data
    again = regiven(fitted, values, observed)
    assert float(again.loglik) == pytest.approx(float(fitted.loglik), rel=1e-12)
    drawn = fitted.state.means
    gap = jnp.mean(again.state.means - drawn, axis=0) / jnp.std(drawn, axis=0)
    assert float(jnp.max(jnp.abs(gap))) < 0.6
    loud = 1.0 + 4.0 * (values[-20:] - 1.0)
    rows = jnp.concatenate([values, loud]), jnp.concatenate([observed, observed[-20:]])
    after = regiven(fitted, *rows)
    key = jax.random.key(0)
    ahead = eqx.filter_jit(lambda f: f.forecast(1, key=key).draws)
    wide, narrow = (np.asarray(ahead(f)).std(axis=0) for f in (after, again))
    assert np.all(wide > 1.3 * narrow)
    hidden = observed & (jnp.arange(150) < 120)[:, None]
    masked = regiven(fitted, jnp.where(hidden, values, jnp.nan), hidden)
    short = regiven(fitted, values[:120], observed[:120])
    assert float(masked.loglik) == pytest.approx(float(short.loglik), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["constant", "student"])
def test_other_errors(errors):
    """The filter's variance of Student errors is that of the forecast's draws."""
    values, observed, _ = world(40, 3, seed=5)
    model = FactorVolatilityModel(
        1, errors=errors, inference=PooledHMC(1, 8, 8, num_leapfrogs=4), limits=LOOSE
    )
    found = estimated(model, values, observed, key=jax.random.key(0))
    if errors == "student":
        found = eqx.tree_at(
            lambda f: f.draws.parameters["excess_degrees"], found, jnp.full((1, 8, 3), 8.0)
        )
        level = found.draws.parameters["error_level"].reshape(8, 3) + jnp.log(10.0 / 8.0)
        means = found.state.means.at[:, 1:].set(level)
        found = eqx.tree_at(lambda f: f.state.means, found, means)
    same = alike(found, 3, factor_sigma=jnp.array([1e-6]))
    drawn = np.asarray(
        eqx.filter_jit(lambda f, k: f.forecast(1, key=k).draws)(same, jax.random.key(1))
    )
    law = same.law(jax.tree.map(lambda x: x[0, 0], same.draws.parameters))
    logs = law.levels + law.phi * (same.state.means[0] - law.levels)
    cov = np.asarray(same.in_data_units(expected_covs(law, logs[None])[0]))
    sizes = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    assert np.abs((np.cov(drawn[:, 0].T) - cov) / sizes).max() < 0.06
    smoothed = np.asarray(eqx.filter_jit(found.smoothed_covs)())
    assert smoothed.shape == (40, 3, 3) and np.linalg.eigvalsh(smoothed).min() > 0


@pytest.mark.slow
def test_integrated_and_sampled_factors_give_one_posterior():
    values, observed, _ = world(40, 4, seed=6)
    panel = standard_panel(values, observed)
    found = []
    for factors, lengths in (("integrated", 16), ("sampled", 48)):
        program = FactorVolatilityProgram(panel, 1, VolatilityPrior(), "constant", factors)
        method = PooledHMC(4, 1500, 800, num_leapfrogs=lengths)
        draws = eqx.filter_jit(method.sample)(program, key=jax.random.key(0))
        found.append(eqx.filter_jit(lambda d, p=program: d.map(p.identified))(draws))
    for name in found[0]:
        means = [jnp.mean(f[name], axis=(0, 1)) for f in found]
        errors = [monte_carlo_error(f[name]) for f in found]
        gap = jnp.abs(means[0] - means[1]) / jnp.sqrt(errors[0] ** 2 + errors[1] ** 2)
        assert float(jnp.max(gap)) < 4.5, name


def test_result_codes(data):
    strict = dataclasses.replace(MODEL, limits=Limits(ess=1e5, rhat=50.0, bfmi=0.0, divergent=1.0))
    found = strict.fit(frame_panel(data[0]), key=jax.random.key(0), throw=False)
    assert bool(found.result == RESULTS.few_effective_draws)


def test_save_and_load(fitted, tmp_path):
    jaxfc.save(fitted, tmp_path / "volatility.jaxfc")
    again = jaxfc.load(tmp_path / "volatility.jaxfc")
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        again.forecast(2, key=key).draws, fitted.forecast(2, key=key).draws
    )


def test_lowers_for_cuda(data):
    model = dataclasses.replace(MODEL, inference=PooledHMC(2, 8, 8, num_leapfrogs=4))

    def run(values, observed, key):
        found = model.estimate(values, observed, key=jax.random.wrap_key_data(key))
        return found.forecast(2, key=jax.random.key(0)).draws, found.loglik

    key = jax.random.key_data(jax.random.key(0))
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(data[0][:20], data[1][:20], key)
    assert exported.platforms == ("cuda",)


def test_bad_input_is_named(data, fitted):
    values = data[0]
    with pytest.raises(ValueError, match="num_factors must be at least 1, got 0"):
        FactorVolatilityModel(0)
    with pytest.raises(ValueError, match=r"errors must be one of \('stochastic', .*, got 'fat'"):
        FactorVolatilityModel(1, errors="fat")
    with pytest.raises(ValueError, match="factors cannot be integrated out of Student errors"):
        program_of("student", "integrated")
    with pytest.raises(ValueError, match="FactorVolatilityModel draws at random: pass key"):
        MODEL.estimate(values, data[1])
    with pytest.raises(ValueError, match="forecast draws at random: pass key"):
        fitted.forecast(2)
    with pytest.raises(ValueError, match="num_factors=4 needs more than 4 series, got 4"):
        FactorVolatilityModel(4).fit(frame_panel(values), key=jax.random.key(0))
    with pytest.raises(ValueError, match="the model needs at least 10 rows, got 8"):
        MODEL.fit(frame_panel(values[:8]), key=jax.random.key(0))
    flat = jnp.where(jnp.arange(4) == 2, 1.5, values)
    with pytest.raises(ValueError, match=r"series 'C' is constant \(1.5\) in this panel"):
        MODEL.fit(frame_panel(flat, allow_constant=True), key=jax.random.key(0))
