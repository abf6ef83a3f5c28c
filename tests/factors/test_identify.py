"""Identification changes the factors and nothing that the panel can see."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors import EM, PPCA, DynamicFactorModel
from jaxfc.factors.identify import (
    identify,
    rotate_fitted,
    sign_of,
    triangular_rotation,
    varimax_rotation,
)

KINDS = ("principal_components", "lower_triangular", "varimax")
MODELS = {
    "static": DynamicFactorModel(3, 0, method=PPCA()),
    "two lags": DynamicFactorModel(
        3, 2, method=EM(max_steps=4), idiosyncratic="diagonal", initial="estimated"
    ),
}
jitted = eqx.filter_jit(identify)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(40, 3)).cumsum(axis=0) * 0.3 + rng.normal(size=(40, 3))
    values = factors @ rng.normal(size=(3, 8)) + 0.5 * rng.normal(size=(40, 8))
    return jnp.asarray(values), jnp.asarray(rng.uniform(size=values.shape) > 0.1)


@pytest.fixture(scope="module", params=MODELS)
def fitted(request, panel):
    """A fit whose factors were turned away from where the estimation leaves them."""
    fitted = eqx.filter_jit(MODELS[request.param].estimate)(*panel)
    rng = np.random.default_rng(1)
    matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if request.param != "static":
        matrix = matrix @ np.diag([0.5, 2.0, 1.5])
    return rotate_fitted(fitted, jnp.asarray(matrix))


@pytest.fixture(scope="module", params=KINDS)
def identified(request, fitted):
    return request.param, jitted(fitted, request.param)


def loglik(parameters, values, observed):
    """Likelihood of the stacked panel, written down from the moments of the factor path."""
    transition = np.asarray(parameters.transition)
    num_lags, num_times = len(transition), len(values)
    size = parameters.loadings.shape[1]
    lead = max(num_lags, 1)
    # F_t = sum A F + u as one triangular system B F = u over the initial and the panel's periods.
    num_periods = num_times + (lead if num_lags else 0)
    system = np.eye(num_periods * size)
    noise = np.kron(np.eye(num_periods), np.asarray(parameters.innovation_cov))
    mean = np.zeros(num_periods * size)
    if num_lags:
        noise[: lead * size, : lead * size] = parameters.initial_cov
        mean[: lead * size] = parameters.initial_mean
        for t in range(lead, num_periods):
            for lag in range(1, num_lags + 1):
                block = slice((t - lag) * size, (t - lag + 1) * size)
                system[t * size : (t + 1) * size, block] = -transition[lag - 1]
    solved = np.linalg.inv(system)
    cov, mean = solved @ noise @ solved.T, solved @ mean
    design = np.kron(np.eye(num_times), np.asarray(parameters.loadings))
    cov, mean = cov[-len(design[0]) :, -len(design[0]) :], mean[-len(design[0]) :]
    total = design @ cov @ design.T
    total += np.kron(np.eye(num_times), np.diag(parameters.idiosyncratic_cov))
    seen = np.asarray(observed).ravel() > 0
    error = (np.asarray(values) - np.asarray(parameters.intercept)).ravel() - design @ mean
    total, error = total[np.ix_(seen, seen)], error[seen]
    _, log_det = np.linalg.slogdet(2 * np.pi * total)
    return -0.5 * (log_det + error @ np.linalg.solve(total, error))


def test_what_the_panel_sees_does_not_change(fitted, identified):
    _, other = identified
    assert float(jnp.max(jnp.abs(other.factors - fitted.factors))) > 0.1
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(other.common, fitted.common, **close)
    first, second = other.forecast(3), fitted.forecast(3)
    np.testing.assert_allclose(first.mean, second.mean, **close)
    np.testing.assert_allclose(first.cov, second.cov, **close)
    data = (fitted.completed, fitted.observed.astype(float))
    assert abs(loglik(other.parameters, *data) - loglik(fitted.parameters, *data)) < 1e-8


def test_factors_have_unit_second_moment(fitted, identified):
    _, other = identified
    if fitted.model.num_lags == 0:
        np.testing.assert_allclose(other.parameters.innovation_cov, np.eye(3), atol=1e-12)
        return
    moment = np.mean(
        np.einsum("ti,tj->tij", other.factors, other.factors) + other.factor_covs, axis=0
    )
    np.testing.assert_allclose(moment, np.eye(3), atol=1e-10)


def test_loadings_have_their_form(identified):
    kind, other = identified
    loadings = np.asarray(other.parameters.loadings)
    if kind == "lower_triangular":
        np.testing.assert_allclose(np.triu(loadings[:3], 1), 0.0, atol=1e-12)
        assert (np.diagonal(loadings[:3]) > 0).all()
        return
    assert (loadings.sum(axis=0) >= 0).all()
    variances = (loadings**2).sum(axis=0)
    assert (np.diff(variances) <= 0).all()
    if kind == "principal_components":
        np.testing.assert_allclose(loadings.T @ loadings, np.diag(variances), atol=1e-10)


def test_identification_does_not_depend_on_where_it_starts(fitted, identified):
    """The likelihood, the data and the normalisation fix everything, also after another turn."""
    kind, other = identified
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0])
    again = jitted(rotate_fitted(fitted, turn), kind)
    np.testing.assert_allclose(
        again.parameters.loadings, other.parameters.loadings, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(again.last_mean, other.last_mean, rtol=1e-6, atol=1e-6)


def test_named_series_are_triangular(fitted):
    other = jitted(fitted, "lower_triangular", series=(6, 2, 4))
    block = np.asarray(other.parameters.loadings)[[6, 2, 4]]
    np.testing.assert_allclose(np.triu(block, 1), 0.0, atol=1e-12)
    assert (np.diagonal(block) > 0).all()


def test_last_moments_turn_with_the_factors(fitted, identified):
    _, other = identified
    np.testing.assert_allclose(other.last_mean[-3:], other.factors[-1], atol=1e-12)
    np.testing.assert_allclose(other.last_cov[-3:, -3:], other.factor_covs[-1], atol=1e-12)


def criterion(loadings: np.ndarray, normalise_rows: bool) -> float:
    """Kaiser's varimax, from its definition."""
    if normalise_rows:
        loadings = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)
    return float(np.var(loadings**2, axis=0).sum())


@pytest.mark.parametrize("normalise_rows", [True, False])
def test_varimax_finds_the_best_angle_of_two_factors(normalise_rows):
    loadings = np.random.default_rng(3).normal(size=(9, 2)) * [2.0, 1.0]
    rotation = np.asarray(varimax_rotation(jnp.asarray(loadings), normalise_rows=normalise_rows))
    angles = np.linspace(0, np.pi / 2, 20001)
    best = max(
        criterion(loadings @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], normalise_rows)
        for a in angles
    )
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-12)
    found = criterion(loadings @ rotation, normalise_rows)
    assert best - 1e-12 <= found <= best + 1e-6


def test_varimax_recovers_simple_structure():
    rng = np.random.default_rng(4)
    simple = np.kron(np.eye(3), rng.uniform(0.5, 1.5, size=(4, 1))) * [3.0, 2.0, 1.0]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation = varimax_rotation(jnp.asarray(simple @ turn))
    np.testing.assert_allclose(simple @ turn @ rotation, simple, atol=1e-7)


def test_varimax_of_one_factor_is_a_sign():
    loadings = -jnp.ones((4, 1))
    assert varimax_rotation(loadings).tolist() == [[-1.0]]


def test_varimax_members_of_a_batch_do_not_disturb_each_other():
    batch = jnp.asarray(np.random.default_rng(5).normal(size=(3, 6, 2)))
    together = jax.vmap(varimax_rotation)(batch)
    for loadings, rotation in zip(batch, together, strict=True):
        np.testing.assert_allclose(rotation, varimax_rotation(loadings), atol=1e-7)


def test_triangular_rotation_is_orthogonal():
    block = jnp.asarray(np.random.default_rng(6).normal(size=(4, 4)))
    rotation = triangular_rotation(block)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)


def test_signs_leave_positive_sums():
    assert sign_of(jnp.asarray([[1.0, -2.0, 0.0]])).tolist() == [1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "varimax", "series": (0, 1, 2)}, "belongs to 'lower_triangular'"),
        ({"how": "lower_triangular", "series": (0, 1)}, "3 different positions"),
        ({"how": "lower_triangular", "series": (0, 1, 1)}, "3 different positions"),
        ({"how": "lower_triangular", "series": (0, 1, 8)}, "3 different positions from 0 to 7"),
        ({"how": "lower_triangular", "series": (0, 1, -1)}, "3 different positions"),
    ],
)
def test_bad_series_are_refused(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        identify(fitted, **arguments)


def test_an_unknown_identification_is_refused(fitted):
    with pytest.raises((ValueError, TypeError), match="quartimax"):
        identify(fitted, "quartimax")
