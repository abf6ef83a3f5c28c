"""Regime-switching hierarchies: all paths enumerated, the regimes family, draws, the model."""

import dataclasses
import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import jaxfc
from jaxfc.bayes.diagnostics import Limits, judged
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.switching_fitted import expected_rows, last_states, posterior_regimes
from jaxfc.bayes.switching_hierarchy import SwitchingHierarchy, verdict
from jaxfc.bayes.switching_levels import (
    SwitchingData,
    SwitchingLevels,
    draw_rows,
    filtered_regimes,
    log_densities,
    stationary,
)
from jaxfc.regimes import FullCovariance, GaussianTails, RegimeForecast, StudentTails
from jaxfc.regimes.em import RegimeParameters, expectations
from jaxfc.regimes.emissions import Emissions
from jaxfc.regimes.masked import as_rows
from jaxfc.results import RESULTS, is_okay

pytestmark = pytest.mark.slow

NUM_TIMES = 6
MEMBERS = jnp.array([0, 1, 0, 1])


def world(num_times=NUM_TIMES, num_regimes=2, **options):
    """A program and parameters from its prior, with holes and one row without any cell."""
    rng = np.random.default_rng(num_times)
    observed = rng.random((num_times, 4)) > 0.2
    observed[2] = False
    values = np.where(observed, rng.normal(size=observed.shape), 0.0)
    data = SwitchingData(jnp.asarray(values), jnp.asarray(observed), MEMBERS, 2)
    program = SwitchingLevels(data, num_regimes, **options)
    key = jax.random.key(num_regimes)
    return program, jax.jit(lambda key: program.sample_prior(key=key))(key)


def dense_log_densities(laws, values, observed):
    """Rows by scipy: (time, regimes)."""
    found = np.zeros((len(values), len(laws.means)))
    for (t, k), _ in np.ndenumerate(found):
        seen = np.flatnonzero(observed[t])
        if not len(seen):
            continue
        mean, scatter = np.asarray(laws.means[k])[seen], np.asarray(laws.scatters[k])
        scatter = scatter[np.ix_(seen, seen)]
        if np.isfinite(laws.degrees):
            law = stats.multivariate_t(mean, scatter, df=float(laws.degrees))
        else:
            law = stats.multivariate_normal(mean, scatter)
        found[t, k] = law.logpdf(np.asarray(values[t])[seen])
    return found


@pytest.mark.parametrize("options", [{}, {"heavy_tails": True, "loads_switch": True}])
def test_likelihood_is_the_sum_over_all_paths(options):
    program, parameters = world(**options)
    loglik, laws = jax.jit(lambda p: (program.log_likelihood(p), program.laws(p)))(parameters)
    densities = dense_log_densities(laws, program.data.values, program.data.observed)
    initial, transition = np.asarray(laws.initial), np.asarray(laws.transition)
    np.testing.assert_allclose(initial @ transition, initial, atol=1e-14)
    total, last = 0.0, np.zeros(2)
    for path in itertools.product(range(2), repeat=NUM_TIMES):
        weight = initial[path[0]] * np.prod([transition[a, b] for a, b in itertools.pairwise(path)])
        joint = weight * np.exp(densities[np.arange(NUM_TIMES), path].sum())
        total += joint
        last[path[-1]] += joint
    assert float(loglik) == pytest.approx(np.log(total), abs=1e-10)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), laws)
    states, logliks = last_states(batch, program.data.values, program.data.observed)
    np.testing.assert_allclose(states, np.tile(last / total, (2, 1)), atol=1e-12)
    np.testing.assert_allclose(logliks, np.log(total), atol=1e-10)


@pytest.mark.parametrize("heavy", [False, True])
def test_agrees_with_the_regimes_family_at_fixed_parameters(heavy):
    program, parameters = world(30, 3, heavy_tails=heavy)
    laws, data = program.laws(parameters), program.data
    tails = StudentTails(laws.degrees) if heavy else GaussianTails()
    theirs = expectations(
        Emissions((FullCovariance(),), tails, 3),
        RegimeParameters(laws.initial, laws.transition, laws.means, (laws.scatters,)),
        as_rows(data.values, data.observed),
        "sequential",
    )
    found = filtered_regimes(laws, data.values, data.observed)
    np.testing.assert_allclose(found.loglik_terms, theirs.filtered.loglik_terms, atol=1e-9)
    batch = jax.tree.map(lambda leaf: leaf[None], laws)
    ours = posterior_regimes(batch, data.values, data.observed)
    np.testing.assert_allclose(ours.smoothed, theirs.smoothed.probabilities, atol=1e-9)
    np.testing.assert_allclose(ours.filtered, jnp.exp(theirs.filtered.log_filtered), atol=1e-9)
    rows = expected_rows(batch, data.values, data.observed)
    assert float(jnp.sum(rows)) == pytest.approx(29.0)


def test_regimes_are_in_order_wherever_a_chain_stands():
    program, _ = world(num_regimes=3)
    start, named = program.flat()
    places = 2.0 * jax.random.normal(jax.random.key(0), (50, start.size))
    laws = jax.jit(jax.vmap(lambda x: program.laws(program.constrain(named(x)))))(places)
    assert np.all(np.diff(np.asarray(laws.volatilities), axis=1) > 0)
    np.testing.assert_allclose(jnp.sum(laws.transition, axis=2), 1.0, atol=1e-12)
    assert np.all(np.isfinite(jax.vmap(stationary)(laws.transition)))
    started = program.laws(program.start())
    assert np.all(np.isfinite(program.log_likelihood(program.start())))
    assert float(started.volatilities[1]) > float(started.volatilities[0])


@pytest.mark.parametrize("heavy", [False, True])
def test_rows_ahead_have_the_moments_of_the_mixture(heavy):
    program, parameters = world(heavy_tails=heavy)
    if heavy:
        parameters["log_degrees"] = jnp.log(jnp.asarray(10.0))
    laws, state = program.laws(parameters), jnp.array([0.3, 0.7])
    keys = jax.random.split(jax.random.key(1), 40_000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: draw_rows(laws, state, 2, key=key)))(keys))
    tails = StudentTails(laws.degrees) if heavy else GaussianTails()
    exact = RegimeForecast.ahead(
        state=state,
        transition=laws.transition,
        means=laws.means,
        scatters=laws.scatters,
        tails=tails,
        horizon=2,
    )
    error = np.abs(draws.mean(0) - exact.mean) / (exact.std / len(keys) ** 0.5)
    assert error.max() < 5
    centred = draws - np.asarray(exact.mean)
    products = np.einsum("dhi,dkj->dhikj", centred, centred)
    error = np.abs(products.mean(0) - exact.cov) / (products.std(0) / len(keys) ** 0.5)
    assert error.max() < 5


def test_filtered_regimes_do_not_look_ahead():
    program, parameters = world(20)
    laws, data = program.laws(parameters), program.data

    def before(values):
        return filtered_regimes(laws, values, data.observed).log_filtered[:10, 0]

    slopes = np.asarray(jax.jacrev(before)(data.values))
    assert np.all(slopes[:, 10:] == 0.0) and np.any(slopes[9, :10] != 0.0)
    assert np.all(slopes[:, ~np.asarray(data.observed)] == 0.0)


def test_a_density_has_the_slope_of_its_differences():
    program, _ = world(heavy_tails=True, loads_switch=True)
    start, named = program.flat()
    start = start + 0.2 * jax.random.normal(jax.random.key(2), start.shape)
    density = jax.jit(lambda x: program.log_density(named(x)))
    direction = jax.random.normal(jax.random.key(3), start.shape)
    slope = jax.jit(jax.grad(density))(start) @ direction
    step = 1e-5
    difference = (density(start + step * direction) - density(start - step * direction)) / 2 / step
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)


SECTORS = {"A": "one", "B": "one", "C": "two", "D": "two"}
SAMPLER = PooledHMC(num_chains=2, num_draws=100, num_warmup=200, num_leapfrogs=16)
WIDE = Limits(rhat=1.5, ess=5.0, divergent=0.2, bfmi=0.1)  # short chains


@pytest.fixture(scope="module")
def switching_panel():
    """Returns in percent, volatile in the middle, where sector two falls; and the regimes."""
    rng = np.random.default_rng(0)
    regimes = np.zeros(150, int)
    regimes[60:100] = 1
    common = np.where(regimes, 4.0, 1.0) * rng.normal(size=150)
    noise = np.where(regimes, 1.6, 0.8)[:, None] * rng.normal(size=(150, 4))
    values = common[:, None] + noise + 0.1
    values[rng.random(values.shape) < 0.05] = np.nan
    index = pd.bdate_range("2020-01-01", periods=150)
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, list("ABCD"))), regimes


@pytest.fixture(scope="module")
def switching(switching_panel):
    panel, regimes = switching_panel
    model = SwitchingHierarchy(2, SECTORS, inference=SAMPLER, limits=WIDE)
    return panel, model.fit(panel, key=jax.random.key(0)), regimes


@pytest.mark.slow
def test_model_finds_the_regimes(switching):
    panel, fitted, regimes = switching
    assert bool(is_okay(fitted.result))
    found = fitted.probabilities(*panel.arrays())
    assert np.mean((np.asarray(found.smoothed[:, 1]) > 0.5) == regimes) > 0.93
    table = fitted.to_frame(panel.names)
    assert np.all(table.loc[2, "std"] > 2 * table.loc[1, "std"])
    assert table["regime", "rows"].sum() == pytest.approx(150)
    assert np.all(fitted.volatilities[:, 1] > fitted.volatilities[:, 0])


@pytest.mark.slow
def test_forecasts_are_draws_that_start_from_the_filtered_regime(switching):
    panel, fitted, _ = switching
    key = jax.random.key(1)
    ahead = fitted.forecast(2, key=key)
    assert ahead.draws.shape == (200, 2, 4)
    again = fitted.given(*panel.arrays())
    np.testing.assert_allclose(again.forecast(2, key=key).draws, ahead.draws, atol=1e-10)
    values, observed = panel.arrays()
    crisis = fitted.given(values[:90], observed[:90])
    assert float(jnp.mean(crisis.states[:, 1])) > 0.9 > float(jnp.mean(fitted.states[:, 1]))
    assert np.all(crisis.forecast(1, key=key).std > 1.5 * fitted.forecast(1, key=key).std)
    assert fitted.simulate(5, key=key).shape == (5, 4)
    # In units of the data: the likelihood of one draw, by scipy on raw returns.
    laws = jax.tree.map(lambda leaf: leaf[0], fitted.laws)
    raw = laws._replace(
        means=laws.means * fitted.scale,
        loads=laws.loads * fitted.scale,
        noise=laws.noise * fitted.scale,
    )
    np.testing.assert_allclose(
        log_densities(raw, values, observed)[:9],
        dense_log_densities(raw, values[:9], np.asarray(observed[:9])),
        atol=1e-9,
    )


@pytest.mark.slow
def test_an_empty_regime_is_reported(switching):
    panel, fitted, _ = switching
    assert RESULTS[verdict(fitted.draws, jnp.array([148.5, 1.5]))] == RESULTS[RESULTS.empty_regime]
    assert bool(is_okay(verdict(fitted.draws, jnp.array([100.0, 50.0]))))
    # Chains of this length do not keep the limits that hold unless others are given.
    program, _ = fitted.model.program(*panel.arrays())
    assert not bool(is_okay(judged(fitted.draws, program).result))


def test_bad_input_is_refused_by_name(switching_panel):
    panel, key = switching_panel[0], jax.random.key(0)
    model = SwitchingHierarchy(2, SECTORS, inference=SAMPLER, limits=WIDE)
    with pytest.raises(ValueError, match=r"\['D'\] have no sector"):
        SwitchingHierarchy(2, {k: v for k, v in SECTORS.items() if k != "D"}).fit(panel, key=key)
    with pytest.raises(ValueError, match=r"names \['Z'\]"):
        SwitchingHierarchy(2, {**SECTORS, "Z": "one"}).fit(panel, key=key)
    with pytest.raises(ValueError, match="pass key"):
        model.fit(panel)
    with pytest.raises(ValueError, match="resolved"):
        model.estimate(*panel.arrays(), key=key)
    with pytest.raises(ValueError, match="num_regimes"):
        SwitchingHierarchy(1, SECTORS)
    thin = dataclasses.replace(panel, observed=panel.observed & (np.arange(150) < 5)[:, None])
    with pytest.raises(ValueError, match=r"'A' has \d observations"):
        model.fit(thin, key=key)


def test_lowers_for_accelerators():
    program, _ = world(heavy_tails=True)
    start, named = program.flat()
    density = jax.jit(jax.value_and_grad(lambda x: program.log_density(named(x))))
    assert jax.export.export(density, platforms=["cuda"])(start).mlir_module()
