"""The M6 model and its variants draw from the posterior that they claim: ranks of the truth."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from bayes.asset_worlds import small_program
from bayes.calibration_cases import (
    MANY,
    QUICK,
    ThenLatents,
    WithNextRow,
    assert_calibrated,
    long_chains,
    ranked,
)
from jaxfc.bayes.asset_paths import future
from jaxfc.bayes.asset_returns import AssetFactorProgram, AssetRows
from jaxfc.bayes.factor_dynamics import Momentum, VectorFirstOrder
from jaxfc.bayes.factor_scales import ConstantScale, RecentScale, StochasticScale
from jaxfc.bayes.loading_priors import FixedScale, Horseshoe, MultiplicativeGamma
from jaxfc.bayes.views_likelihood import viewed_program
from jaxfc.bayes.views_statements import ReturnView


def next_row(program, parameters, *, key):
    """Returns of the row after the data, all that is known before it at its mean."""
    blank = jnp.zeros((1, program.rows.returns.shape[1]))
    rows = AssetRows(blank, jnp.ones_like(blank), blank, blank, blank, blank[:, 0])
    ahead = dataclasses.replace(program, rows=rows)
    return future(ahead, parameters, jnp.asarray(0.5), 1, key=key).returns[0]


def world(num_rows, num_series, num_factors, **options):
    program = small_program(
        num_rows=num_rows,
        num_series=num_series,
        num_factors=num_factors,
        equal_weights=True,
        **options,
    )
    return WithNextRow(program, next_row)


def test_the_default_is_calibrated():
    program = world(10, 4, 1, factor_scale=RecentScale())
    assert_calibrated(ranked(program, ThenLatents(long_chains(24, 400)), QUICK))


VARIANTS = {
    "default": {"factor_scale": RecentScale()},
    "published": {"loading_prior": FixedScale(), "factor_scale": ConstantScale()},
    "vector": {"dynamics": VectorFirstOrder()},
    "momentum": {"dynamics": Momentum(last=5, momentum_scale=jnp.asarray(0.1))},
    "stochastic": {"factor_scale": StochasticScale()},
    "ordered": {"loading_prior": MultiplicativeGamma()},
    "horseshoe": {"loading_prior": Horseshoe()},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_calibrated(variant):
    program = world(24, 6, 2, **VARIANTS[variant])
    assert_calibrated(ranked(program, ThenLatents(long_chains(16)), MANY))


class Unnormalised(AssetFactorProgram):
    """A bug: scales of loadings without the normaliser of the law of the loadings."""

    def log_likelihood(self, parameters):
        forgotten = self.rows.returns.shape[1] * jnp.sum(jnp.log(parameters["loading_scale"]))
        return super().log_likelihood(parameters) + forgotten


@pytest.mark.slow
def test_a_forgotten_normaliser_is_found():
    inner = world(24, 6, 2).inner
    fields = {f.name: getattr(inner, f.name) for f in dataclasses.fields(inner)}
    found = ranked(Unnormalised(**fields), long_chains(16), MANY)
    table = found.table(key=jax.random.key(1))
    assert table.loc["market_sd", "verdict"] == "posterior too high"


def expected_next(program, parameters):
    """Means of the returns of the next row given all parameters."""
    last = parameters["factors"][-1:]
    noise = jnp.zeros(program.num_factors)
    factors = program.dynamics.next_row(last, parameters, noise, jnp.asarray(1.0))
    return (program.effect("intercept", parameters) + parameters["loadings"] @ factors)[None]


@pytest.mark.slow
def test_views_in_the_likelihood_are_calibrated():
    program = world(24, 6, 2).inner
    views = [ReturnView("A", 0.0, 0.2), ReturnView({"B": 0.5, "C": -0.5}, 0.0, 0.4)]
    program = viewed_program(program, views, expected_next, names=list("ABCDEF"), degrees=5.0)
    assert_calibrated(ranked(program, long_chains(16), MANY))
