"""Latent-factor models draw from the posterior that they claim: ranks of the truth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayes.calibration_cases import (
    LEVEL,
    MANY,
    QUICK,
    ThenLatents,
    WithLatents,
    WithNextRow,
    assert_calibrated,
    long_chains,
    ranked,
    short_chains,
)
from jaxfc.bayes.calibrate import thinned
from jaxfc.bayes.dynamic_factors import roll
from jaxfc.bayes.dynamic_factors_gibbs import FactorGibbs, draw_factors
from jaxfc.bayes.dynamic_factors_panel import standard_panel
from jaxfc.bayes.dynamic_factors_program import DynamicFactorProgram, FactorPrior
from jaxfc.bayes.factor_dynamics import VectorFirstOrder
from jaxfc.bayes.factor_volatility_loadings import NormalGamma
from jaxfc.bayes.factor_volatility_program import FactorVolatilityProgram, VolatilityPrior
from jaxfc.bayes.instrumented_bayes import InstrumentedProgram, instrumented_data
from jaxfc.bayes.program import Parameters


def panel_of(num_rows, num_series, seed=0):
    """Any numbers with holes: only the shape and the holes are used."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_rows, num_series))
    observed = rng.random(values.shape) > 0.15
    return standard_panel(jnp.asarray(values), jnp.asarray(observed))


# Instrumented PCA.


def next_returns(program, parameters, *, key):
    """Returns of the row after the data, of assets that keep the characteristics of the last."""
    held = program.data.characteristics[-1] * program.data.characteristic_scale
    return program.ahead(parameters, held, 1, key=key)[0]


def instrumented(num_rows, num_series, num_factors, size=2, **options):
    rng = np.random.default_rng(1)
    characteristics = jnp.asarray(rng.normal(size=(num_rows, num_series, size)))
    returns = jnp.asarray(rng.normal(size=(num_rows, num_series)))
    usable = jnp.asarray(rng.random((num_rows, num_series)) > 0.15)
    data = instrumented_data(returns, characteristics, usable)
    return WithNextRow(InstrumentedProgram(data, num_factors, **options), next_returns)


def test_instrumented_factors_are_calibrated():
    program = instrumented(8, 4, 1, departures=True)
    assert_calibrated(ranked(program, ThenLatents(short_chains(8)), QUICK))


INSTRUMENTED = [
    {"intercept": True, "departures": True},
    {"dynamics": VectorFirstOrder(), "fat_tails": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", INSTRUMENTED)
def test_instrumented_factors_are_calibrated_in_more_data(options):
    program = instrumented(20, 10, 2, size=3, **options)
    assert_calibrated(ranked(program, ThenLatents(long_chains(16)), MANY))


# Factor stochastic volatility.

# The published priors allow errors of hardly any variance (a log variance of -1 give or take 2).
TAME = {"level_scale": 0.7, "factor_sigma": 0.3, "error_sigma": 0.3}


def volatile(num_rows, num_series, num_factors, *form, **prior):
    prior = VolatilityPrior(**(TAME | prior))
    return FactorVolatilityProgram(panel_of(num_rows, num_series), num_factors, prior, *form)


def test_factor_volatility_is_calibrated():
    assert_calibrated(ranked(volatile(8, 3, 1), short_chains(10), QUICK))


VOLATILE = [
    ((), {}),
    (("constant", "integrated"), {"loadings": NormalGamma(shape=1.0)}),
    (("stochastic", "sampled"), {}),
    (("student", "sampled"), {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "prior"), VOLATILE)
def test_forms_of_factor_volatility_are_calibrated(form, prior):
    program = volatile(25, 4, 1, *form, **prior)
    assert_calibrated(ranked(program, long_chains(20), MANY))


# Dynamic factors: the Gibbs sampler, and Hamiltonian chains on the density without factors.


class Dynamic(WithLatents):
    """With the common part of the last row, which is integrated out, and the row after the data."""

    inner: DynamicFactorProgram
    latents: Parameters = eqx.field(default_factory=dict)

    def complete(self, parameters, *, key):
        panel, space = self.inner.panel, self.inner.space(parameters)
        states, rows = space.simulate(len(panel.values) + 1, key=key)
        values = jnp.where(panel.observed, rows[:-1], 0.0)
        inner = eqx.tree_at(lambda program: program.panel.values, self.inner, values)
        last = states[-2, : self.inner.num_factors]
        return inner, {"last_common": parameters["loadings"] @ last, "next_row": rows[-1]}

    def recovered(self, parameters, *, key):
        state_key, row_key = jax.random.split(key)
        factors = draw_factors(self.inner, parameters, key=state_key)
        history = factors[-self.inner.num_lags :].reshape(-1)
        row = roll(self.inner, parameters, history, 1, key=row_key)[0]
        return {"last_common": parameters["loadings"] @ factors[-1], "next_row": row}


def dynamic(num_rows, num_series, num_factors, num_lags):
    """With tighter priors than the default, under which a third of the VARs is not stationary:
    they have no data and are not ranked."""
    prior = FactorPrior(innovation_degrees=6.0, tightness=0.3)
    panel = panel_of(num_rows, num_series)
    return Dynamic(DynamicFactorProgram(panel, num_factors, num_lags, prior))


GIBBS = FactorGibbs(num_chains=2, num_draws=150, num_warmup=100, thin=2)


def test_the_gibbs_sampler_is_calibrated():
    program = dynamic(8, 3, 1, 1)
    assert_calibrated(ranked(program, ThenLatents(GIBBS), QUICK), least_usable=0.9)


LONG_GIBBS = FactorGibbs(num_chains=4, num_draws=200, num_warmup=300, thin=5)
SHAPES = [(15, 4, 1, 2), (15, 4, 2, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gibbs_sampler_is_calibrated_in_more_data(shape):
    found = ranked(dynamic(*shape), ThenLatents(LONG_GIBBS), MANY)
    assert_calibrated(found, least_usable=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_density_without_factors_is_calibrated(shape):
    found = ranked(dynamic(*shape), ThenLatents(long_chains(12)), MANY)
    assert_calibrated(found, least_usable=0.8)


@eqx.filter_jit
def overlaps(program, first, second, keys):
    """By data set and quantity: P(a draw of one sampler is below one of the other) - 1/2, of the
    quantities and of their distances from the median of all draws."""

    def one(key):
        prior_key, data_key, *sample_keys = jax.random.split(key, 4)
        data = program.simulated(program.sample_prior(key=prior_key), key=data_key)

        def looked_at(parameters):
            return data.identified(parameters) | {"log_likelihood": data.log_likelihood(parameters)}

        def drawn(sampler, key):
            found = sampler.sample(data, key=key).map(looked_at)
            return jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in found.values()], axis=2)

        clouds = [
            thinned(drawn(*pair), 50) for pair in zip((first, second), sample_keys, strict=True)
        ]
        middle = jnp.median(jnp.concatenate(clouds), axis=0)
        numbers = [jnp.concatenate([x, jnp.abs(x - middle)], axis=1) for x in clouds]
        below = jnp.mean(numbers[0][:, None] < numbers[1], axis=(0, 1)) - 0.5
        finite = jnp.all(jnp.isfinite(jnp.concatenate(clouds)))
        return below, finite

    return jax.vmap(one)(keys)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_both_samplers_draw_from_one_posterior(shape):
    """Mann and Whitney's statistic of every data set has mean zero over data sets."""
    keys = jax.random.split(jax.random.key(3), MANY // 2)
    program = dynamic(*shape).inner
    below, finite = map(np.asarray, overlaps(program, LONG_GIBBS, long_chains(12), keys))
    below = below[finite]
    assert len(below) > 0.8 * len(finite)
    statistics = below.mean(0) / (below.std(0, ddof=1) / np.sqrt(len(below)))
    limit = stats.t(len(below) - 1).isf((1.0 - LEVEL) / 2 / len(statistics))
    assert np.all(np.abs(statistics) < limit), statistics
    # They could have found a difference of a tenth of a standard deviation (0.028) in each.
    assert np.all(below.std(0, ddof=1) / np.sqrt(len(below)) < 0.028 / 3)
