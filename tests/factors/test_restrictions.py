"""Blocks, zero and linear restrictions, observed factors, sparse loadings: what EM may not
touch."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxfc
from jaxfc.factors.blocks import Blocks, ObservedFactors
from jaxfc.factors.restrictions import LinearEquations, Restrictions, impose, soft_descent

pytestmark = pytest.mark.slow

NAMES = list("ABCDEFGH")
METHOD = jaxfc.EM(rtol=1e-9, max_steps=3000)


@pytest.fixture(scope="module")
def panel():
    """Eight series: all load on one factor, the last four also on a second, 10 % missing."""
    rng = np.random.default_rng(0)
    first, second = (
        np.convolve(rng.normal(size=131), w ** np.arange(12), "valid") for w in (0.8, 0.4)
    )
    values = np.outer(first, rng.uniform(0.5, 1.5, 8)) + rng.normal(size=(120, 8))
    values[:, 4:] += np.outer(second, rng.uniform(0.8, 1.6, 4))
    values[rng.random(values.shape) < 0.1] = np.nan
    return jaxfc.Panel.from_frame(
        pd.DataFrame(values, pd.date_range("2005-01-31", periods=120, freq="ME"), NAMES)
    )


def fit(panel, num_factors, restrictions, **options):
    model = jaxfc.DynamicFactorModel(
        num_factors, 1, method=METHOD, restrictions=restrictions, initial="estimated", **options
    )
    return model.fit(panel, throw=False)


@eqx.filter_jit
def loglik_gradient(fitted, values, mask):
    """Derivative of the likelihood with respect to the parameters, by autodiff of the E-step."""
    from jaxfc.factors.em import PanelData
    from jaxfc.factors.methods import EM, Candidate

    step = EM().step(fitted.model, Candidate())
    data = PanelData(fitted.scaling.standardise(values, mask, None), mask)
    return jax.grad(lambda p: step.expect(p, data).loglik)(fitted.parameters)


@pytest.fixture(scope="module")
def blocks_fit(panel):
    return fit(panel, 2, Blocks({"all": None, "late": NAMES[4:]}))


def test_blocks_keep_their_zeros(blocks_fit):
    parameters = blocks_fit.parameters
    assert np.all(np.asarray(parameters.loadings)[:4, 1] == 0)
    assert np.abs(np.asarray(parameters.loadings)[4:, 1]).min() > 0.1
    assert parameters.transition[0, 0, 1] == parameters.transition[0, 1, 0] == 0
    assert parameters.innovation_cov[0, 1] == 0


def test_blocks_end_where_the_free_score_vanishes(blocks_fit, panel):
    values, observed = panel.arrays()
    slope = loglik_gradient(blocks_fit, values, observed.astype(float))
    free = np.asarray(blocks_fit.model.restrictions.loadings)
    assert np.abs(np.asarray(slope.loadings)[free]).max() < 0.02
    assert np.abs(np.asarray(slope.loadings)[~free]).max() > 0.1  # the zeros bind
    assert np.abs(np.diagonal(slope.transition[0])).max() < 0.02


def test_blocks_cost_likelihood(blocks_fit, panel):
    free = fit(panel, 2, None)
    assert blocks_fit.loglik < free.loglik + 1e-6
    steps = np.asarray(blocks_fit.loglik_path)
    steps = steps[np.isfinite(steps)]
    assert np.diff(steps).min() > -1e-8


def test_no_restriction_is_the_free_model(panel):
    everything = Restrictions(loadings=jnp.ones((8, 2), bool), transition=jnp.ones((1, 2, 2), bool))
    ours, free = fit(panel, 2, everything), fit(panel, 2, None)
    assert_allclose(ours.loglik, free.loglik, rtol=1e-5)
    assert_allclose(ours.forecast(2).mean, free.forecast(2).mean, atol=0.02)


def test_linear_equations_hold_and_the_rest_is_optimal(panel):
    """Equal loadings of A and B, the loading of C fixed; the score has no part along the
    surface."""
    coefficients = np.zeros((2, 8, 1))
    coefficients[0, 0], coefficients[0, 1], coefficients[1, 2] = 1.0, -1.0, 1.0
    equations = LinearEquations(jnp.asarray(coefficients), jnp.array([0.0, 0.7]))
    fitted = fit(panel, 1, Restrictions(on_loadings=equations))
    loadings = np.asarray(fitted.parameters.loadings)[:, 0]
    assert_allclose(loadings[0], loadings[1], atol=1e-10)
    assert_allclose(loadings[2], 0.7, atol=1e-10)
    values, observed = panel.arrays()
    slope = np.asarray(loglik_gradient(fitted, values, observed.astype(float)).loadings)[:, 0]
    assert abs(slope[0] + slope[1]) < 0.05
    assert np.abs(slope[3:]).max() < 0.05
    assert abs(slope[0]) > 0.5 or abs(slope[2]) > 0.5


def test_linear_equations_on_the_transition(panel):
    """The own coefficients of both factors agree; zeros elsewhere."""
    coefficients = np.zeros((1, 1, 2, 2))
    coefficients[0, 0, 0, 0], coefficients[0, 0, 1, 1] = 1.0, -1.0
    rules = dataclasses.replace(
        Blocks({"all": None, "late": NAMES[4:]}).restrictions(NAMES, 1, 2),
        on_transition=LinearEquations(jnp.asarray(coefficients), jnp.zeros(1)),
    )
    transition = np.asarray(fit(panel, 2, rules).parameters.transition[0])
    assert_allclose(transition[0, 0], transition[1, 1], atol=1e-10)
    assert transition[0, 1] == transition[1, 0] == 0


def test_projection_equals_lagrange_multipliers():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    hessian, linear = root @ root.T + np.eye(6), rng.normal(size=6)
    matrix, values = rng.normal(size=(2, 6)), rng.normal(size=2)
    system = np.block([[hessian, matrix.T], [matrix, np.zeros((2, 2))]])
    dense = np.linalg.solve(system, np.concatenate([linear, values]))[:6]
    inverse = jnp.asarray(np.linalg.inv(hessian))
    ours = impose(
        inverse @ linear, lambda row: inverse @ row, jnp.asarray(matrix), jnp.asarray(values)
    )
    assert_allclose(ours, dense, atol=1e-10)


def test_soft_descent_meets_the_optimality_conditions():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 3, 3))
    moments = jnp.asarray(root @ root.swapaxes(1, 2) + 2 * np.eye(3))
    cross = jnp.asarray(rng.normal(size=(4, 3)))
    penalties = jnp.full((4, 3), 0.4)
    start = jnp.linalg.solve(moments, cross[..., None])[..., 0]
    weights = start
    for _ in range(20):
        weights = soft_descent(weights, moments, cross, penalties)
    slope = np.einsum("nij,nj->ni", moments, weights) - cross
    zero = np.asarray(weights) == 0
    assert zero.any() and not zero.all()
    assert np.all(np.abs(slope[zero]) <= 0.4 + 1e-9)
    assert_allclose(slope[~zero], -0.4 * np.sign(np.asarray(weights)[~zero]), atol=1e-8)


@pytest.mark.parametrize("penalty", [15.0, 40.0])
def test_a_penalty_makes_loadings_sparse(panel, penalty):
    """The score is the penalty where a loading is not zero, and no larger where it is."""
    fitted = fit(panel, 2, Restrictions(penalty=penalty))
    values, observed = panel.arrays()
    slope = np.asarray(loglik_gradient(fitted, values, observed.astype(float)).loadings)
    loadings = np.asarray(fitted.parameters.loadings)
    zero = loadings == 0
    assert zero.any() and not zero.all()
    assert_allclose(slope[~zero], penalty * np.sign(loadings[~zero]), atol=0.02 * penalty)
    assert np.abs(slope[zero]).max() < 1.02 * penalty


@pytest.fixture(scope="module")
def augmented(panel):
    return fit(panel, 2, ObservedFactors(("H",)))


def test_an_observed_factor_is_the_series_itself(augmented, panel):
    """Where H is observed the second factor is its standardised value; elsewhere it is
    estimated."""
    seen = panel.observed[:, 7]
    standardised = (panel.values[:, 7] - augmented.scaling.centre[7]) / augmented.scaling.scale[7]
    assert_allclose(np.asarray(augmented.factors)[seen, 1], standardised[seen], atol=1e-4)
    assert np.asarray(augmented.factor_covs)[seen, 1, 1].max() < 1e-5
    assert np.asarray(augmented.factor_covs)[~seen, 1, 1].min() > 1e-3
    assert_allclose(augmented.parameters.loadings[7], [0.0, 1.0])
    assert np.abs(augmented.parameters.transition[0, 1, 0]) > 0


def test_observed_factors_use_what_the_vector_autoregression_says(augmented, panel):
    """The forecast of H is that of the factor, in its units."""
    mean, _ = augmented.forecast_factors(3)
    scaling = augmented.scaling
    ours = scaling.centre[7] + scaling.scale[7] * mean[:, 1]
    assert_allclose(augmented.forecast(3).mean[:, 7], ours, atol=1e-10)


@pytest.mark.parametrize(
    ("restrictions", "message"),
    [
        (Blocks({"early": NAMES[:4], "late": NAMES[4:7]}), "'H' load on no factor"),
        (Blocks({"all": None, "late": [*NAMES[4:], "NOBODY"]}), "'NOBODY'"),
        (Blocks({"all": None, "a": NAMES, "b": NAMES}), "3 factors, num_factors = 2"),
        (ObservedFactors(("NOBODY",)), "'NOBODY'"),
        (ObservedFactors(("A", "B", "C")), "at least as many"),
        (Restrictions(loadings=jnp.ones((8, 3), bool)), "shape"),
        (Restrictions(innovations=jnp.asarray([[True, True], [False, True]])), "partition"),
        (
            Restrictions(
                on_loadings=LinearEquations(
                    jnp.zeros((2, 8, 2)).at[:, 0, 0].set(1.0), jnp.array([0.0, 1.0])
                )
            ),
            "cannot hold",
        ),
        (
            Restrictions(
                on_loadings=LinearEquations(
                    jnp.zeros((2, 8, 2)).at[:, 0, 0].set(1.0), jnp.array([1.0, 1.0])
                )
            ),
            "combination of the others",
        ),
    ],
)
def test_bad_restrictions_name_the_culprit(panel, restrictions, message):
    with pytest.raises(ValueError, match=message):
        fit(panel, 2, restrictions)


def test_options_that_do_not_go_together():
    blocks = Blocks({"all": None})
    with pytest.raises(ValueError, match="TwoStepEM cannot estimate restrictions"):
        jaxfc.DynamicFactorModel(1, 1, method=jaxfc.TwoStepEM(), restrictions=blocks)
    with pytest.raises(ValueError, match="idiosyncratic='diagonal'"):
        jaxfc.DynamicFactorModel(1, 1, idiosyncratic="full", restrictions=blocks)
    with pytest.raises(ValueError, match="name different blocks"):
        Blocks({"all": None}, {"other": 1})


def test_names_are_placed_before_tracing(panel):
    model = jaxfc.DynamicFactorModel(2, 1, restrictions=Blocks({"all": None, "late": NAMES[4:]}))
    with pytest.raises(ValueError, match="names series"):
        model.estimate(*panel.arrays())
    estimated = eqx.filter_jit(model.resolved(panel).estimate)(*panel.arrays())
    assert np.isfinite(estimated.loglik)


def test_a_restricted_fit_saves_and_loads(blocks_fit, tmp_path):
    jaxfc.save(blocks_fit, tmp_path / "fit")
    again = jaxfc.load(tmp_path / "fit")
    np.testing.assert_array_equal(again.forecast(2).mean, blocks_fit.forecast(2).mean)
