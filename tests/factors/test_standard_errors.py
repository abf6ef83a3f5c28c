"""Standard errors: Stata's at Stata's parameters, finite differences, normalisation and units."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_triangular
from scipy.stats import norm

from factor_worlds import World, dense_answer, make_world, simulate, stationary_law
from golden import cases, panels
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.em import PanelData
from jaxfc.factors.errors import AutoregressiveErrors
from jaxfc.factors.free_parameters import FreeParameters, identified
from jaxfc.factors.identify import identify
from jaxfc.factors.information import observed_information, score_terms, spectrum
from jaxfc.factors.methods import EM, PPCA, Candidate
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.restrictions import Restrictions
from jaxfc.factors.scaling import Scaling
from jaxfc.factors.standard_errors import standard_errors
from jaxfc.factors.weighting import StudentT
from jaxfc.panel import Panel

pytestmark = pytest.mark.slow


def panel_of(values, observed=None):
    """Monthly rows, series s0, s1, ..."""
    values = np.array(values, float)
    if observed is not None:
        values[~observed] = np.nan
    index = pd.date_range("2001-01-31", periods=len(values), freq="ME")
    return Panel.from_frame(pd.DataFrame(values, index, [f"s{i}" for i in range(values.shape[1])]))


def fit(model, panel, *, throw=True):
    """`model.fit`, with the type that it has for this family."""
    fitted = model.fit(panel, throw=throw)
    assert isinstance(fitted, FittedFactorModel)
    return fitted


def at_parameters(model, panel, parameters):
    """A fitted model in data units with given parameters instead of estimated ones."""
    fitted = fit(model, panel, throw=False)
    num_series = panel.values.shape[1]
    return dataclasses.replace(
        fitted,
        parameters=parameters,
        scaling=Scaling(jnp.zeros(num_series), jnp.ones(num_series)),
        completed=jnp.asarray(panel.values),
    )


# What Stata printed, and one unit of the last printed digit of each number: standard errors of
# `dfm`, variances of the others. Parameters have eight decimals.
STATA_UNITS = {
    "dfm": [1e-6, *[1e-7] * 7],
    "dfm_exog1": [1e-8, 1e-9, 1e-9, 1e-8, 1e-9, 1e-9, 1e-10, 1e-13, 1e-13, 1e-8],
    "dfm_scalar": [1e-8, 1e-9, 1e-9, 1e-8, 1e-9, 1e-9, 1e-13, 1e-8],
}
PLAIN = {"standardise": False, "variance_floor": 1e-12}
STATA_MODELS = {
    "dfm": DynamicFactorModel(1, 2, **PLAIN),
    "dfm_exog1": DynamicFactorModel(1, 1, intercept="estimated", **PLAIN),
    "dfm_scalar": DynamicFactorModel(
        1, 1, intercept="estimated", idiosyncratic="isotropic", **PLAIN
    ),
}


def stata_errors(name):
    """Stata's standard errors and what half a unit of their last printed digit is."""
    from statsmodels.tsa.statespace.tests.results import results_dynamic_factor

    theirs = getattr(results_dynamic_factor, f"lutkepohl_{name}")
    half = 0.5 * np.array(STATA_UNITS[name])
    if "bse_oim" in theirs:
        return np.array(theirs["bse_oim"]), half
    errors = np.sqrt(theirs["var_oim"])
    return errors, half / (2.0 * errors)


@eqx.filter_jit
def stds_at(free, vectors, template, data):
    """Standard errors from H at each of several vectors."""

    def stds(vector):
        root = spectrum(observed_information(free, vector, template, data)[1]).root()
        return jnp.linalg.norm(root, axis=1)

    return jax.lax.map(stds, vectors)


@pytest.mark.parametrize("name", ["dfm", "dfm_exog1", "dfm_scalar"])
def test_stata_standard_errors(name):
    """To the last printed digit, plus what the rounding of the printed parameters can do."""
    params, shift, _ = cases.stata_case(name)
    panel = panel_of(panels.lutkepohl_growth()[:75])
    fitted = at_parameters(STATA_MODELS[name], panel, cases.factor_parameters(params, shift))
    ours = standard_errors(fitted, panel)
    theirs, half_unit = stata_errors(name)
    assert_allclose(np.abs(ours.vector[:3]), np.abs(params.loadings[:, 0]), rtol=1e-12)
    assert ours.distance < 1e-3  # Stata's maximum is a maximum of our likelihood

    moved = ours.vector + 5e-9 * jnp.eye(len(theirs))
    changes = stds_at(ours.free, moved, ours.parameters, fitted_data(fitted)) - ours.std
    bound = half_unit + np.abs(changes).sum(axis=0)
    assert np.all(np.abs(ours.std - theirs) <= bound)
    assert np.median(bound / theirs) < 3e-4  # the statement is a sharp one


def row_terms(loadings, variances, transition, values, observed):
    """ln p(x_t | past) of each row, K factors, one lag, Q = I, by the dense law of all cells."""
    num_times, num_series = values.shape
    variance = stationary_law(transition, np.eye(len(transition[0])))
    blocks = np.empty((num_times, num_series, num_times, num_series))
    autocov = [loadings @ variance @ loadings.T]
    for _ in range(1, num_times):
        variance = transition[0] @ variance
        autocov.append(loadings @ variance @ loadings.T)
    for t in range(num_times):
        for s in range(num_times):
            blocks[t, :, s] = autocov[t - s] if t >= s else autocov[s - t].T
    size = num_times * num_series
    seen = np.flatnonzero(observed.ravel())
    cov = blocks.reshape(size, size) + np.diag(np.tile(variances, num_times))
    chol = np.linalg.cholesky(cov[np.ix_(seen, seen)])
    errors = solve_triangular(chol, values.ravel()[seen], lower=True)
    terms = -0.5 * (np.log(2 * np.pi) + errors**2) - np.log(np.diag(chol))
    return np.bincount(seen // num_series, terms, minlength=num_times)


@pytest.fixture(scope="module")
def world():
    return make_world(5, 2, 1, seed=2)


@pytest.fixture(scope="module")
def panel(world):
    values, observed, _ = simulate(world, 50, seed=4, missing=0.15)
    observed[20] = False
    return panel_of(values, observed)


@pytest.fixture(scope="module")
def estimated(panel):
    return fit(DynamicFactorModel(2, 1, method=EM(rtol=1e-6, max_steps=3000)), panel)


@pytest.fixture(scope="module")
def fitted(estimated, panel):
    """At the maximum of the likelihood, by Newton steps: there no normalisation bends H."""
    for _ in range(4):
        ours = standard_errors(estimated, panel)
        vector = ours.vector + ours.cov @ ours.score
        parameters = ours.free.unpack(vector, ours.parameters)
        estimated = dataclasses.replace(estimated, parameters=parameters)
    return estimated


def test_distance_from_the_maximum(estimated, fitted, panel):
    """EM stops near it: its M-step leaves the initial law out."""
    assert 1e-4 < standard_errors(estimated, panel).distance < 0.5
    assert standard_errors(fitted, panel).distance < 1e-9


@pytest.fixture(scope="module")
def differences(fitted, panel):
    """Scores by row and the Hessian, both by central differences of the dense law in numpy."""
    parameters = standard_errors(fitted, panel, throw=False).parameters
    free = np.ones((5, 2), bool)
    free[0, 1] = False
    vector = np.concatenate(
        [
            np.asarray(parameters.loadings)[free],
            np.asarray(parameters.idiosyncratic_cov),
            np.asarray(parameters.transition).ravel(),
        ]
    )
    data = fitted_data(fitted)
    values, observed = np.asarray(data.values), np.asarray(data.observed) > 0

    def terms(vector):
        loadings = np.zeros((5, 2))
        loadings[free] = vector[:9]
        transition = vector[14:].reshape(1, 2, 2)
        return row_terms(loadings, vector[9:14], transition, values, observed)

    steps = np.eye(len(vector))
    small, large = 1e-5, 1e-4
    scores = np.stack(
        [(terms(vector + small * s) - terms(vector - small * s)) / (2 * small) for s in steps], 1
    )
    hessian = np.empty((len(vector), len(vector)))
    for i, step in enumerate(large * steps):
        for j, other in enumerate(large * steps[: i + 1]):
            corners = [
                sign * terms(vector + first * step + second * other).sum()
                for first, second, sign in [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
            ]
            hessian[i, j] = hessian[j, i] = sum(corners) / (4 * large**2)
    return scores, -hessian


def test_information_equals_differences_of_the_dense_law(fitted, panel, differences):
    scores, hessian = differences
    outer = scores.T @ scores
    inverse = np.linalg.inv(hessian)
    expected = {
        "hessian": inverse,
        "opg": np.linalg.inv(outer),
        "sandwich": inverse @ outer @ inverse,
    }
    for kind, cov in expected.items():
        ours = standard_errors(fitted, panel, kind=kind, batch_size=7 if kind == "opg" else None)
        stds = np.sqrt(np.diag(cov))
        # Second differences of a likelihood of size 200 carry seven digits, first ones nine.
        rtol = 1e-7 if kind == "opg" else 2e-5
        assert_allclose(ours.cov / stds[:, None] / stds, cov / stds[:, None] / stds, atol=rtol)
        assert_allclose(ours.score, scores.sum(axis=0), atol=1e-6 * np.abs(scores).max())


@pytest.mark.parametrize("initial", ["stationary", "estimated"])
@pytest.mark.parametrize("num_lags", [0, 2])
def test_row_scores_add_up_to_the_score(num_lags, initial):
    """The filter's terms against the closed form, at parameters that are no maximum."""
    world = make_world(5, 2, num_lags, seed=5)
    values, observed, _ = simulate(world, 15, missing=0.2)
    parameters = identified(FactorParameters(*(jnp.asarray(a) for a in world)), (1, 3))
    free = FreeParameters(5, 2, num_lags, (1, 3), intercept=True, initial=initial)
    data = PanelData(jnp.asarray(values), jnp.asarray(observed, float))
    vector = free.pack(parameters)
    terms = eqx.filter_jit(score_terms)(free, vector, parameters, data, 4)
    score, information = eqx.filter_jit(observed_information)(free, vector, parameters, data)
    assert terms.shape == (15, len(vector)) == (15, 9 + 5 + 5 + 4 * num_lags)
    assert_allclose(terms.sum(axis=0), score, rtol=1e-9, atol=1e-10)
    assert_allclose(information, information.T)


def test_the_normalisation_keeps_the_law(world):
    """Q = I, a triangle with positive diagonal, the same likelihood; a round trip of the vector."""
    parameters = FactorParameters(*(jnp.asarray(a) for a in world))
    ours = identified(parameters, (3, 1))
    assert_allclose(ours.innovation_cov, np.eye(2), atol=1e-13)
    assert ours.loadings[3, 1] == 0.0 and np.all(np.diag(ours.loadings[jnp.asarray([3, 1])]) > 0)
    values, observed, _ = simulate(world, 12)
    fields = (f for f in World._fields)
    rotated = World(*(np.asarray(getattr(ours, name)) for name in fields))
    expected = dense_answer(world, values, observed).loglik
    assert_allclose(dense_answer(rotated, values, observed).loglik, expected, rtol=1e-12)
    free = FreeParameters(5, 2, 1, (3, 1), unconstrained=True)
    back = free.unpack(free.pack(ours), ours)
    for name in World._fields:
        assert_allclose(getattr(back, name), getattr(ours, name), rtol=1e-12, atol=1e-13)


def test_errors_do_not_depend_on_the_rotation_of_the_fit(fitted, panel):
    turned = identify(fitted, "varimax")
    ours, again = standard_errors(fitted, panel), standard_errors(turned, panel)
    assert_allclose(again.vector, ours.vector, rtol=1e-9, atol=1e-10)
    assert_allclose(again.cov, ours.cov, rtol=1e-6, atol=1e-12)
    other = standard_errors(fitted, panel, series=["s4", "s1"])
    # What is no matter of the normalisation has the same error under any, at the maximum.
    for units in ("data", "standardised"):
        theirs, mine = other.block("variances", units), ours.block("variances", units)
        assert_allclose(theirs.std, mine.std, rtol=1e-7)


def test_units_are_a_linear_change(fitted, panel):
    """The standardised fit equals one in data units whose numbers are scaled by hand."""
    scale = np.asarray(fitted.scaling.scale)
    old = fitted.parameters
    raw = dataclasses.replace(
        old, loadings=scale[:, None] * old.loadings, idiosyncratic_cov=scale**2 * old.variances
    )
    model = DynamicFactorModel(2, 1, standardise=False)
    centred = np.where(panel.observed, panel.values - np.asarray(fitted.scaling.centre), 0.0)
    plain = dataclasses.replace(
        at_parameters(model, panel, raw),
        completed=jnp.asarray(centred),
        scaling=Scaling(fitted.scaling.centre, jnp.ones(5)),
    )
    ours, theirs = standard_errors(fitted, panel), standard_errors(plain, panel)
    for name in ("loadings", "variances", "transition"):
        for mine, other in zip(ours.block(name), theirs.block(name, "standardised"), strict=True):
            assert_allclose(mine, other, rtol=1e-6, atol=1e-12)
    standardised = ours.block("loadings", "standardised")
    assert_allclose(scale[:, None] * standardised.std, ours.block("loadings").std, rtol=1e-12)
    assert standardised.std[0, 1] == 0.0 == standardised.estimate[0, 1]


def test_the_table(fitted, panel):
    ours = standard_errors(fitted, panel)
    table = ours.to_frame(level=0.9)
    assert list(table.columns) == ["estimate", "std", "z", "lower", "upper"]
    assert "loadings[s0, 2]" not in table.index
    row = table.loc["loadings[s3, 2]"]
    block = ours.block("loadings")
    assert row["estimate"] == block.estimate[3, 1] and row["std"] == block.std[3, 1]
    assert_allclose(row["upper"] - row["estimate"], norm.ppf(0.95) * row["std"])
    assert_allclose(row["z"] * row["std"], row["estimate"])
    assert table.index[-1] == "transition[lag 1, 2, 2]"
    assert table.loc["transition[lag 1, 1, 2]", "estimate"] == ours.parameters.transition[0, 0, 1]
    with pytest.raises(ValueError, match="level must be"):
        ours.to_frame(level=95.0)
    with pytest.raises(ValueError, match="no free block 'intercept'"):
        ours.block("intercept")


def test_errors_that_remember_have_standard_errors_too():
    """The block of their coefficients: H against differences of the E-step's likelihood."""
    panel = panel_of(simulate(make_world(5, 1, 1, seed=6), 80, seed=7)[0])
    model = DynamicFactorModel(
        1, 1, method=EM(rtol=1e-7, max_steps=3000), errors=AutoregressiveErrors(2)
    )
    fitted = fit(model, panel)
    ours = standard_errors(fitted, panel)
    place = ours.free.places["idiosyncratic_ar"]
    assert list(ours.to_frame().index[place]) == [f"idiosyncratic_ar[s{i}]" for i in range(5)]
    block = ours.block("idiosyncratic_ar")
    assert_allclose(block.estimate, np.asarray(fitted.parameters.idiosyncratic_ar))
    assert np.all(block.std > 0.05) and np.all(block.std < 0.5)

    step, data = EM().step(fitted.model, Candidate()), fitted_data(fitted)

    @jax.jit
    def value(vector):
        return step.expect(ours.free.unpack(vector, ours.parameters), data).loglik

    information = np.linalg.inv(np.asarray(ours.cov))
    size, centre = 1e-4, ours.vector
    for position in range(place.start, place.stop):
        move = size * jnp.eye(len(centre))[position]
        second = (value(centre + move) - 2 * value(centre) + value(centre - move)) / size**2
        assert_allclose(information[position, position], -second, rtol=1e-4)
    with pytest.raises(ValueError, match="needs scores row by row"):
        standard_errors(fitted, panel, kind="opg")


def test_what_the_data_do_not_determine_is_named():
    """Two series, one static factor: four numbers, three moments."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 1)) * [1.0, 1.0] + 0.5 * rng.normal(size=(40, 2))
    panel = panel_of(values)
    fitted = fit(DynamicFactorModel(1, 0), panel)
    with pytest.raises(RuntimeError, match=r"not positive definite.*variance\[s[01]\]"):
        standard_errors(fitted, panel)
    ours = standard_errors(fitted, panel, throw=False)
    assert not ours.positive_definite and len(ours.weak_directions()) == 1
    assert np.all(np.isnan(ours.cov)) and np.isnan(ours.to_frame()["std"]).all()
    assert np.all(np.isfinite(ours.vector))


def test_unsuitable_fits_are_refused(fitted, panel):
    with pytest.raises(ValueError, match="unknown kind"):
        standard_errors(fitted, panel, kind="robust")
    with pytest.raises(ValueError, match="no series 'x'"):
        standard_errors(fitted, panel, series=["x", "s1"])
    with pytest.raises(ValueError, match="2 different positions"):
        standard_errors(fitted, panel, series=["s1", "s1"])
    with pytest.raises(ValueError, match="is not the one that was fitted"):
        standard_errors(fitted, panel_of(panel.values[:20]))
    with pytest.raises(ValueError, match=r"PPCA\(\) does not look for"):
        standard_errors(fit(DynamicFactorModel(2, 1, method=PPCA()), panel), panel)
    floor = dataclasses.replace(fitted.parameters, idiosyncratic_cov=jnp.full(5, 1e-6))
    with pytest.raises(ValueError, match="'s0' is at the model's variance_floor"):
        standard_errors(dataclasses.replace(fitted, parameters=floor), panel)
    full = dataclasses.replace(fitted.parameters, idiosyncratic_cov=jnp.eye(5))
    with pytest.raises(ValueError, match="idiosyncratic='full'"):
        standard_errors(dataclasses.replace(fitted, parameters=full), panel)
    masked = DynamicFactorModel(2, 1, restrictions=Restrictions(loadings=jnp.ones((5, 2), bool)))
    with pytest.raises(ValueError, match="restrictions fix the factors"):
        standard_errors(dataclasses.replace(fitted, model=masked), panel)
    with pytest.raises(ValueError, match="maximises a bound"):
        tails = DynamicFactorModel(2, 1, weighting=StudentT())
        standard_errors(dataclasses.replace(fitted, model=tails), panel)
