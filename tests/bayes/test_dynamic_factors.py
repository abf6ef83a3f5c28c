"""The Bayesian factor model: density, every conditional law, the sampler, the contract."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import linalg, stats

import jaxfc
from jaxfc.bayes.convergence import monte_carlo_error
from jaxfc.bayes.diagnostics import Limits
from jaxfc.bayes.dynamic_factors import BayesianFactorModel
from jaxfc.bayes.dynamic_factors_gibbs import (
    FactorGibbs,
    draw_error_variance,
    draw_loadings,
    draw_shift,
    inverse_wishart_root,
    loading_law,
    sweep,
)
from jaxfc.bayes.dynamic_factors_panel import standard_panel
from jaxfc.bayes.dynamic_factors_program import (
    DynamicFactorProgram,
    FactorPrior,
    VarLaw,
    posterior_var,
)
from jaxfc.bayes.factor_volatility_program import FactorVolatilityProgram, VolatilityPrior
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.results import RESULTS, is_okay

pytestmark = pytest.mark.slow

LOOSE = Limits(rhat=2.0, ess=1.0, bfmi=0.0)


def panel_values(num_times, num_series, num_factors=1, seed=0, missing=0.15):
    """A panel with one persistent factor and holes."""
    rng = np.random.default_rng(seed)
    factors = np.zeros((num_times, num_factors))
    for t in range(1, num_times):
        factors[t] = 0.6 * factors[t - 1] + rng.normal(size=num_factors)
    loadings = rng.uniform(0.5, 1.5, (num_series, num_factors))
    values = 3.0 + 2.0 * factors @ loadings.T + rng.normal(size=(num_times, num_series))
    observed = rng.random(values.shape) > missing
    return jnp.asarray(np.where(observed, values, np.nan)), jnp.asarray(observed)


def small_program(num_times=7, num_series=3, num_factors=2, num_lags=2, seed=0):
    panel = standard_panel(*panel_values(num_times, num_series, num_factors, seed))
    return DynamicFactorProgram(panel, num_factors, num_lags, FactorPrior())


@eqx.filter_jit
def prior_draws(program, keys):
    """Draws of the prior and, after them, the terms of their density."""

    def one(key):
        parameters = program.sample_prior(key=key)
        return parameters, program.log_prior(parameters), program.log_likelihood(parameters)

    return jax.lax.map(one, keys)


def stable_parameters(program):
    """A draw of the prior whose VAR is stationary, its log prior and log-likelihood."""
    drawn = prior_draws(program, jax.random.split(jax.random.key(1), 30))
    number = int(np.argmax(np.isfinite(drawn[2])))
    return jax.tree.map(lambda x: x[number], drawn)


def dense_law(program, parameters):
    """Covariance of the whole factor path and of all cells, by the textbook companion form."""
    size, lags = program.num_factors, program.num_lags
    num_times = program.panel.values.shape[0]
    blocks = np.asarray(parameters["coefficients"]).reshape(lags, size, size)
    top = np.concatenate([b.T for b in blocks], axis=1)
    moving = np.vstack([top, np.eye((lags - 1) * size, lags * size)])
    noise = np.zeros_like(moving)
    noise[:size, :size] = parameters["innovation_cov"]
    cov = linalg.solve_discrete_lyapunov(moving, noise)
    path = np.zeros((num_times, size, num_times, size))
    for s in range(num_times):
        for t in range(s, num_times):
            between = np.linalg.matrix_power(moving, t - s) @ cov
            path[t, :, s, :] = between[:size, :size]
            path[s, :, t, :] = between[:size, :size].T
    path = path.reshape(num_times * size, -1)
    design = np.kron(np.eye(num_times), parameters["loadings"])
    errors = np.tile(np.asarray(parameters["error_variance"]), num_times)
    return path, design, design @ path @ design.T + np.diag(errors)


def test_log_density_is_the_sum_of_textbook_densities():
    program = small_program()
    parameters, log_prior, log_likelihood = stable_parameters(program)
    size, lags = 2, 2
    expected = stats.norm.logpdf(parameters["intercept"], scale=1.0).sum()
    expected += stats.norm.logpdf(parameters["loadings"], scale=1.0).sum()
    variance = parameters["error_variance"]
    expected += stats.invgamma.logpdf(variance, 2.0, scale=0.5).sum()
    cov, scatter = parameters["innovation_cov"], 3.0 * 0.3 * np.eye(size)
    expected += stats.invwishart.logpdf(cov, size + 1 + 3.0, scatter)
    widths = np.repeat(0.25 / np.arange(1, lags + 1) ** 2.0 / 0.3, size)
    mean = np.zeros((lags * size, size))
    law = stats.matrix_normal(mean, np.diag(widths), cov)
    expected += law.logpdf(parameters["coefficients"])
    assert float(log_prior) == pytest.approx(expected, rel=1e-12)

    seen = np.asarray(program.panel.observed).ravel()
    _, _, cells = dense_law(program, parameters)
    level = np.tile(parameters["intercept"], program.panel.values.shape[0])
    values = np.asarray(program.panel.values).ravel()
    loglik = stats.multivariate_normal.logpdf(values[seen], level[seen], cells[np.ix_(seen, seen)])
    assert float(log_likelihood) == pytest.approx(loglik, rel=1e-11)


@eqx.filter_jit
def density_and_slope(program, parameters, steps):
    """The log density along one coefficient, and its derivative by it."""
    position = program.unconstrain(parameters)

    def along(step):
        moved = position["coefficients"].at[0, 0].add(step)
        return program.log_density(position | {"coefficients": moved})

    return jax.lax.map(jax.value_and_grad(along), steps)


def test_the_slope_is_that_of_differences():
    program = small_program()
    parameters = stable_parameters(program)[0]
    values, slopes = density_and_slope(program, parameters, jnp.array([-1e-6, 0.0, 1e-6]))
    assert float(slopes[1]) == pytest.approx(float(values[2] - values[0]) / 2e-6, rel=1e-5)
    values, _ = density_and_slope(program, parameters, jnp.array([5.0]))
    assert float(values[0]) == -np.inf  # not stationary


def test_the_law_of_the_path_is_that_of_the_dense_normal():
    """Seven rows in super-blocks of two: one row stands before the panel."""
    program = small_program()
    parameters = stable_parameters(program)[0]
    path, design, _ = dense_law(program, parameters)
    seen = np.asarray(program.panel.observed).ravel()
    weights = seen / np.tile(np.asarray(parameters["error_variance"]), 7)
    gaps = np.asarray(program.panel.values - parameters["intercept"]).ravel() * seen
    cov = np.linalg.inv(np.linalg.inv(path) + design.T @ (weights[:, None] * design))
    mean = cov @ design.T @ (weights * gaps)
    found_mean, found_cov = eqx.filter_jit(program.last_state)(parameters)
    np.testing.assert_allclose(found_mean, mean[-4:], atol=1e-10)
    np.testing.assert_allclose(found_cov, cov[-4:, -4:], atol=1e-10)


def test_loadings_given_factors_are_a_regression():
    """Known factors: the law of loadings and intercepts in closed form, with holes."""
    program = small_program(num_times=30, num_series=4)
    rng = np.random.default_rng(2)
    factors, variance = rng.normal(size=(30, 2)), rng.uniform(0.2, 0.8, 4)
    means, chols = eqx.filter_jit(loading_law)(program, jnp.asarray(factors), jnp.asarray(variance))
    for i in range(4):
        rows = np.asarray(program.panel.observed)[:, i]
        regressors = np.column_stack([factors, np.ones(30)])[rows]
        precision = np.eye(3) + regressors.T @ regressors / variance[i]
        linear = regressors.T @ np.asarray(program.panel.values)[rows, i] / variance[i]
        np.testing.assert_allclose(means[i], np.linalg.solve(precision, linear), rtol=1e-10)
        np.testing.assert_allclose(chols[i] @ chols[i].T, precision, rtol=1e-10)
    draw = jax.jit(
        jax.vmap(
            lambda key: draw_loadings(program, jnp.asarray(factors), jnp.asarray(variance), key=key)
        )
    )
    loadings, intercepts = draw(jax.random.split(jax.random.key(0), 20_000))
    drawn = np.concatenate([loadings, intercepts[..., None]], axis=2)
    for i in range(4):
        cov = np.linalg.inv(chols[i] @ chols[i].T)
        error = np.sqrt(np.diag(cov) / 20_000)
        assert np.all(np.abs(drawn[:, i].mean(axis=0) - means[i]) < 4 * error)
        scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        assert np.abs((np.cov(drawn[:, i].T) - cov) / scale).max() < 0.05


def test_error_variances_given_the_rest_are_inverse_gamma():
    program = small_program(num_times=30, num_series=4)
    rng = np.random.default_rng(3)
    factors, loadings = rng.normal(size=(30, 2)), rng.normal(size=(4, 2))
    intercept = rng.normal(size=4)
    given = jnp.asarray(factors), jnp.asarray(loadings), jnp.asarray(intercept)
    drawn = jax.jit(jax.vmap(lambda key: draw_error_variance(program, *given, key=key)))(
        jax.random.split(jax.random.key(1), 5_000)
    )
    gaps = np.asarray(program.panel.values) - intercept - factors @ loadings.T
    gaps = np.where(program.panel.observed, gaps, 0.0)
    counts = np.asarray(program.panel.observed).sum(axis=0)
    for i in range(4):
        law = stats.invgamma(2.0 + counts[i] / 2, scale=0.5 + (gaps[:, i] ** 2).sum() / 2)
        assert stats.kstest(np.asarray(drawn)[:, i], law.cdf).pvalue > 1e-3


def test_the_var_given_the_path_is_the_textbook_update():
    rng = np.random.default_rng(4)
    factors, mean = rng.normal(size=(20, 2)), rng.normal(size=(4, 2))
    precisions, scatter = rng.uniform(0.5, 2.0, 4), np.array([[1.0, 0.3], [0.3, 0.8]])
    prior = VarLaw(*(jnp.asarray(a) for a in (mean, precisions, scatter)), 5.0)
    found = jax.jit(lambda f: posterior_var(prior, f, 2))(jnp.asarray(factors))
    regressors = np.array([np.concatenate([factors[t - 1], factors[t - 2]]) for t in range(2, 20)])
    targets = factors[2:]
    precision = np.diag(precisions) + regressors.T @ regressors
    updated = np.linalg.solve(precision, np.diag(precisions) @ mean + regressors.T @ targets)
    total = scatter + targets.T @ targets + mean.T @ np.diag(precisions) @ mean
    np.testing.assert_allclose(found.mean, updated, rtol=1e-10)
    np.testing.assert_allclose(found.chol @ found.chol.T, precision, rtol=1e-10)
    np.testing.assert_allclose(found.scatter, total - updated.T @ precision @ updated, rtol=1e-10)
    assert found.degrees == 23.0
    draw = jax.vmap(lambda key: inverse_wishart_root(jnp.asarray(scatter), 7.0, key=key))
    roots = jax.jit(draw)(jax.random.split(jax.random.key(0), 20_000))
    drawn = np.asarray(roots @ jnp.swapaxes(roots, 1, 2))
    expected = stats.invwishart(7.0, scatter).rvs(20_000, random_state=rng)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert stats.ks_2samp(drawn[:, i, j], expected[:, i, j]).pvalue > 1e-3


def test_the_shift_has_the_law_that_the_density_says():
    """Against the density of path and intercepts on a grid of shifts."""
    program = small_program(num_times=12, num_series=3, num_factors=1)
    parameters = stable_parameters(program)[0]
    factors = jnp.asarray(np.random.default_rng(5).normal(size=(12, 1)))
    draw = jax.vmap(lambda key: draw_shift(program, parameters, factors, key=key)[1][0, 0])
    drawn = jax.jit(draw)(jax.random.split(jax.random.key(0), 4_000))
    path, _, _ = dense_law(program, parameters)
    loadings = np.asarray(parameters["loadings"])[:, 0]
    grid = np.linspace(-8, 8, 4001)
    logs = [
        stats.multivariate_normal.logpdf(np.asarray(factors)[:, 0] + d, np.zeros(12), path)
        + stats.norm.logpdf(np.asarray(parameters["intercept"]) - loadings * d).sum()
        for d in grid
    ]
    weights = np.exp(np.array(logs) - max(logs))
    distribution = np.cumsum(weights) / weights.sum()
    shifts = np.asarray(drawn) - float(factors[0, 0])
    assert stats.kstest(shifts, lambda d: np.interp(d, grid, distribution)).pvalue > 1e-3


@pytest.mark.parametrize(("num_factors", "num_lags"), [(1, 2), (2, 1)])
def test_sweeps_leave_the_posterior_as_it_is(num_factors, num_lags):
    """Parameters of the prior, a panel of theirs, some sweeps: again parameters of the prior.

    Every replicate is independent, and all blocks, the holes and the acceptance take part.
    """
    program = small_program(7, 3, num_factors, num_lags)

    def identified(parameters):
        found = program.identified(parameters)
        names = ("intercept", "error_variance", "common_variance", "persistence")
        return jnp.concatenate([found[name].ravel() for name in names])

    def replicate(key):
        prior_key, data_key, key = jax.random.split(key, 3)
        before = program.sample_prior(key=prior_key)
        data = program.simulated(before, key=data_key)

        def once(parameters, key):
            return sweep(data, parameters, key=key)

        after, moved = jax.lax.scan(once, before, jax.random.split(key, 3))
        return identified(before), identified(after), jnp.mean(moved)

    run = jax.jit(jax.vmap(replicate))
    before, after, moved = map(np.asarray, run(jax.random.split(jax.random.key(0), 4_000)))
    stationary = np.isfinite(before).all(axis=1)
    assert 1_000 < stationary.sum()
    assert moved[stationary].mean() > 0.5
    assert np.isfinite(after[stationary]).all()
    for i in range(before.shape[1]):
        # Independent halves: the two samples of one replicate depend on each other.
        first, second = before[stationary][::2, i], after[stationary][1::2, i]
        assert stats.ks_2samp(first, second).pvalue > 1e-3
        # They moved: ranks, because variances near a unit root have no moments.
        assert stats.spearmanr(before[stationary, i], after[stationary, i])[0] < 0.99


def agreement(num_times, num_series, num_factors, num_lags, draws, leapfrogs):
    """Largest difference of posterior means of the two samplers in Monte Carlo errors."""
    panel = standard_panel(*panel_values(num_times, num_series, num_factors, seed=6))
    prior = FactorPrior(innovation_degrees=6.0, tightness=0.3)
    program = DynamicFactorProgram(panel, num_factors, num_lags, prior)
    gibbs = FactorGibbs(num_chains=4, num_draws=3 * draws, num_warmup=200)
    pooled = PooledHMC(4, draws, draws // 2, num_leapfrogs=leapfrogs)
    found = []
    for method in (gibbs, pooled):
        drawn = eqx.filter_jit(method.sample)(program, key=jax.random.key(0))
        assert bool(is_okay(drawn.result))
        found.append(eqx.filter_jit(lambda d: d.map(program.identified))(drawn))
    gaps = {}
    for name in found[0]:
        means = [jnp.mean(f[name], axis=(0, 1)) for f in found]
        errors = [monte_carlo_error(f[name]) for f in found]
        spread = jnp.sqrt(errors[0] ** 2 + errors[1] ** 2)
        gaps[name] = float(jnp.max(jnp.abs(means[0] - means[1]) / spread))
    return gaps


@pytest.mark.slow
def test_gibbs_and_the_integrated_density_agree():
    gaps = agreement(12, 3, 1, 1, draws=400, leapfrogs=10)
    assert max(gaps.values()) < 4.5, gaps


@pytest.mark.slow
def test_gibbs_and_the_integrated_density_agree_at_length():
    gaps = agreement(40, 5, 2, 2, draws=1500, leapfrogs=32)
    assert max(gaps.values()) < 4.5, gaps


MODEL = BayesianFactorModel(
    1, 2, inference=FactorGibbs(num_chains=2, num_draws=300, num_warmup=100), limits=LOOSE
)
estimated = eqx.filter_jit(lambda model, *data, key: model.estimate(*data, key=key))


@pytest.fixture(scope="module")
def world():
    return panel_values(41, 5, seed=7)


@pytest.fixture(scope="module")
def fitted(world):
    return MODEL.fit(frame_panel(world[0]), key=jax.random.key(0))


regiven = eqx.filter_jit(lambda fitted, *data: fitted.given(*data))


def frame_panel(values, **options):
    index = pd.date_range("2001-01-31", periods=len(values), freq="ME")
    names = [f"S{i}" for i in range(values.shape[1])]
    return jaxfc.Panel.from_frame(pd.DataFrame(np.asarray(values), index, names), **options)


def test_fit_forecast_simulate_and_label(world, fitted):
    panel = frame_panel(world[0])
    forecast = fitted.forecast(3, key=jax.random.key(1))
    assert forecast.draws.shape == (600, 3, 5)
    assert panel.label(forecast).shape[0] >= 3
    assert fitted.simulate(20, key=jax.random.key(2)).shape == (20, 5)
    assert np.isfinite(fitted.loglik) and int(fitted.num_steps) == 400
    truth = np.nanmean(np.asarray(world[0]), axis=0)
    run = jax.jit(jax.vmap(lambda key: fitted.simulate(40, key=key)))
    path = run(jax.random.split(jax.random.key(3), 50))
    assert np.abs(np.asarray(path).mean(axis=(0, 1)) - truth).max() < 4.0


def test_given_the_fitted_rows_is_the_fit(world, fitted):
    again = regiven(fitted, *world)
    np.testing.assert_allclose(again.state_means, fitted.state_means, atol=1e-10)
    assert float(again.loglik) == pytest.approx(float(fitted.loglik), rel=1e-12)


def test_the_forecast_is_that_of_the_state_space(world, fitted):
    """All draws alike: mean and joint covariance of the exact normal law, in data units."""
    number = 17
    alike = eqx.tree_at(
        lambda f: f.draws.parameters,
        fitted,
        jax.tree.map(
            lambda x: jnp.broadcast_to(x[0, number], (2, 4_000, *x.shape[2:])),
            fitted.draws.parameters,
        ),
    )
    alike = eqx.tree_at(lambda f: f.draws.log_density, alike, jnp.zeros((2, 4_000)))
    alike = regiven(alike, *world)
    forecast = jax.jit(lambda key: alike.forecast(3, key=key).draws)(jax.random.key(0))
    program = alike.program(*world)
    parameters = jax.tree.map(lambda x: x[0, number], fitted.draws.parameters)
    space, panel = program.space(parameters), program.panel
    exact = jax.jit(lambda: space.forecast(panel.values, panel.observed, 3))()
    scale = np.asarray(fitted.units.scale)
    mean = np.asarray(fitted.units.centre) + scale * np.asarray(exact.mean)
    std = scale * np.asarray(exact.std)
    drawn = np.asarray(forecast)
    assert np.abs((drawn.mean(axis=0) - mean) / std).max() < 4.5 / np.sqrt(8_000)
    cov = np.asarray(exact.cov) * scale[:, None, None] * scale
    sizes = std[:, :, None, None] * std
    centred = drawn - drawn.mean(axis=0)
    found = np.einsum("dhi,dkj->hikj", centred, centred) / 8_000
    assert np.abs((found - cov) / sizes).max() < 0.08


def test_nothing_looks_ahead(world, fitted):
    """Rows that are not observed have slope zero, hidden values are not read, and a mask is a
    truncation."""
    values, observed = world
    cut = 30
    short = regiven(fitted, values[:cut], observed[:cut])
    hidden = observed & (jnp.arange(41) < cut)[:, None]

    def ahead(values):
        return jnp.sum(fitted.given(values, hidden).forecast(2, key=jax.random.key(1)).mean)

    slopes = np.asarray(jax.jit(jax.grad(ahead))(jnp.where(observed, values, 0.0)))
    np.testing.assert_array_equal(slopes[~np.asarray(hidden)], 0.0)
    assert np.abs(slopes[cut - 1]).max() > 0
    masked = regiven(fitted, jnp.where(hidden, values, jnp.nan), hidden)
    assert float(masked.loglik) == pytest.approx(float(short.loglik), rel=1e-12)


def test_the_common_part_fills_gaps(world, fitted):
    values, observed = world
    part = eqx.filter_jit(fitted.common_part)(values, observed)
    assert part.mean.shape == part.std.shape == values.shape
    rng = np.random.default_rng(7)
    factors = np.zeros((41, 1))
    for t in range(1, 41):
        factors[t] = 0.6 * factors[t - 1] + rng.normal(size=1)
    truth = 3.0 + 2.0 * factors @ rng.uniform(0.5, 1.5, (5, 1)).T
    for i in range(5):
        assert np.corrcoef(part.mean[:, i], truth[:, i])[0, 1] > 0.93
    inside = np.abs(np.asarray(part.mean) - truth) < 1.96 * np.asarray(part.std)
    assert 0.8 < inside.mean() <= 1.0


@pytest.mark.slow
def test_a_batch_of_windows(world):
    """Two windows at once: each as alone."""
    values, observed = world
    model = dataclasses.replace(MODEL, inference=FactorGibbs(1, 8, 4))
    windows = jnp.stack([values[:30], values[11:]]), jnp.stack([observed[:30], observed[11:]])
    keys = jax.random.split(jax.random.key(0))

    @jax.jit
    def run(values, observed, keys):
        def one(v, o, k):
            found = model.estimate(v, o, key=k)
            return found.state_means, found.result

        return jax.vmap(one)(values, observed, keys)

    means, _ = run(*windows, keys)
    alone = estimated(model, windows[0][1], windows[1][1], key=keys[1])
    np.testing.assert_allclose(means[1], alone.state_means, atol=1e-8)


def test_result_codes(world):
    strict = dataclasses.replace(MODEL, limits=Limits(ess=10_000.0, rhat=2.0, bfmi=0.0))
    found = strict.fit(frame_panel(world[0]), key=jax.random.key(0), throw=False)
    assert bool(found.result == RESULTS.few_effective_draws)
    with pytest.raises(RuntimeError, match="fewer independent ones than asked for"):
        strict.fit(frame_panel(world[0]), key=jax.random.key(0))


def test_save_and_load(fitted, tmp_path):
    jaxfc.save(fitted, tmp_path / "factors.jaxfc")
    again = jaxfc.load(tmp_path / "factors.jaxfc")
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        again.forecast(2, key=key).draws, fitted.forecast(2, key=key).draws
    )


def test_lowers_for_cuda(world):
    model = dataclasses.replace(MODEL, inference=FactorGibbs(2, 8, 4))

    def run(values, observed, key):
        found = model.estimate(values, observed, key=jax.random.wrap_key_data(key))
        return found.forecast(2, key=jax.random.key(0)).draws, found.loglik

    data = jax.random.key_data(jax.random.key(0))
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(*world, data)
    assert exported.platforms == ("cuda",)


def test_bad_input_is_named(world, fitted):
    values, observed = world
    with pytest.raises(ValueError, match="num_factors must be at least 1, got 0"):
        BayesianFactorModel(0)
    with pytest.raises(ValueError, match="num_lags must be at least 1, got 0"):
        BayesianFactorModel(1, 0)
    with pytest.raises(ValueError, match="BayesianFactorModel draws at random: pass key"):
        MODEL.estimate(values, observed)
    with pytest.raises(ValueError, match="forecast draws at random: pass key"):
        fitted.forecast(2)
    with pytest.raises(ValueError, match="num_factors=5 needs more than 5 series, got 5"):
        BayesianFactorModel(5).fit(frame_panel(values), key=jax.random.key(0))
    with pytest.raises(ValueError, match="the model needs at least 6 rows, got 4"):
        MODEL.fit(frame_panel(values[:4]), key=jax.random.key(0))
    flat = jnp.where(jnp.arange(5) == 2, 1.5, values)
    with pytest.raises(ValueError, match=r"series 'S2' is constant \(1.5\) in this panel"):
        MODEL.fit(frame_panel(flat, allow_constant=True), key=jax.random.key(0))
    thin = jnp.where((jnp.arange(5) == 1) & (jnp.arange(41) > 4)[:, None], jnp.nan, values)
    with pytest.raises(ValueError, match=r"series 'S1' has \d observations, at least 4"):
        MODEL.fit(frame_panel(thin[:, :][3:]), key=jax.random.key(0))
    other = FactorVolatilityProgram(standard_panel(values, observed), 1, VolatilityPrior())
    with pytest.raises(ValueError, match="a DynamicFactorProgram, got FactorVolatilityProgram"):
        FactorGibbs().sample(other, key=jax.random.key(0))
