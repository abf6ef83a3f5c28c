"""Numbers of priors: nonsense is refused by name, others neither recompile nor end derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.bayes.coefficient_drift import Drift
from jaxfc.bayes.coefficient_prior import CoefficientPrior
from jaxfc.bayes.dynamic_factors_panel import standard_panel
from jaxfc.bayes.dynamic_factors_program import DynamicFactorProgram, FactorPrior
from jaxfc.bayes.factor_dynamics import FirstOrder, Momentum, VectorFirstOrder
from jaxfc.bayes.factor_scales import RecentScale, StochasticScale
from jaxfc.bayes.factor_volatility_loadings import NormalGamma
from jaxfc.bayes.factor_volatility_program import FactorVolatilityProgram, VolatilityPrior
from jaxfc.bayes.loading_priors import FixedScale, Horseshoe, LearnedScale, MultiplicativeGamma
from jaxfc.bayes.switching_levels import SwitchingPrior

# By law: its numbers that must be positive.
POSITIVE = {
    CoefficientPrior: (
        "market_alpha",
        "market_beta",
        "spread_alpha",
        "spread_beta",
        "concentration",
        "noise_spread",
    ),
    Drift: ("size", "memory"),
    SwitchingPrior: ("rise", "mean", "mean_spread", "load_spread", "noise_spread", "noise_rise"),
    FactorPrior: (
        "loading_scale",
        "intercept_scale",
        "error_shape",
        "error_scale",
        "innovation_scale",
        "innovation_degrees",
        "tightness",
    ),
    VolatilityPrior: ("intercept_scale", "level_scale", "factor_sigma", "error_sigma"),
    FixedScale: ("scale", "dof"),
    LearnedScale: ("scale", "dof"),
    MultiplicativeGamma: ("first", "later"),
    Horseshoe: ("scale", "slab"),
    NormalGamma: ("shape",),
    FirstOrder: ("scale",),
    Momentum: ("scale", "momentum_scale"),
    VectorFirstOrder: ("scale",),
    RecentScale: ("scale",),
    StochasticScale: ("scale",),
}
PLACES = [(law, name) for law, names in POSITIVE.items() for name in names]


@pytest.mark.parametrize(("law", "name"), PLACES, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_numbers_that_are_not_positive_are_named(law, name, value):
    message = f"^{name} of {law.__name__} must be positive and finite, got {value}"
    with pytest.raises(ValueError, match=message):
        law(**{name: value})
    assert float(getattr(law(**{name: 0.7}), name)) == 0.7


def test_pairs_and_numbers_that_may_be_zero():
    with pytest.raises(ValueError, match=r"persistence of VolatilityPrior .* got \[20.0, -1.0\]"):
        VolatilityPrior(persistence=(20.0, -1.0))
    with pytest.raises(ValueError, match="strength of NormalGamma must be positive"):
        NormalGamma(strength=(0.0, 1.0))
    with pytest.raises(ValueError, match="stay of SwitchingPrior must be 0 or more and finite"):
        SwitchingPrior(stay=-5.0)
    with pytest.raises(ValueError, match="decay of FactorPrior must be 0 or more and finite"):
        FactorPrior(decay=-1.0)
    assert float(SwitchingPrior(stay=0.0).stay) == float(FactorPrior(decay=0.0).decay) == 0.0
    assert float(FactorPrior(first_lag=-0.5).first_lag) == -0.5


def panel():
    values = np.random.default_rng(0).normal(size=(8, 3))
    return standard_panel(jnp.asarray(values), jnp.ones((8, 3), bool))


def factor_density(prior):
    program = DynamicFactorProgram(panel(), 1, 1, prior)
    return program.log_density(program.unconstrain(program.start()))


def volatility_density(prior):
    program = FactorVolatilityProgram(panel(), 1, prior, "constant")
    start = {name: jnp.full_like(value, 0.3) for name, value in program.start().items()}
    return program.log_density(program.unconstrain(start))


CASES = {
    "dynamic factors": (factor_density, FactorPrior(), FactorPrior(tightness=0.3, decay=2.0)),
    "volatility": (
        volatility_density,
        VolatilityPrior(NormalGamma()),
        VolatilityPrior(NormalGamma(shape=0.3, strength=(2.0, 3.0)), persistence=(10.0, 2.0)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_another_prior_neither_recompiles_nor_ends_derivatives(case):
    """A batch of priors is one program; derivatives by all numbers are those of differences."""
    density, first, second = CASES[case]
    leaves, tree = jax.tree.flatten(first)
    assert jax.tree.structure(second) == tree
    direction = np.random.default_rng(1)
    moves = [direction.uniform(0.5, 1.5, leaf.shape) for leaf in leaves]

    def moved(step):
        changed = [leaf + step * move for leaf, move in zip(leaves, moves, strict=True)]
        return jax.tree.unflatten(tree, changed)

    batch = jax.tree.map(lambda *x: jnp.stack(x), first, second, moved(1e-5), moved(-1e-5))
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(density)))(batch)
    assert abs(values[0] - values[1]) > 0.1
    parts = zip(jax.tree.leaves(slopes), moves, strict=True)
    along = sum(np.sum(slope[0] * move) for slope, move in parts)
    np.testing.assert_allclose(along, (values[2] - values[3]) / 2e-5, rtol=1e-5)
