"""Properties of reconciliation for any numbers: what comes out adds up, is left alone by a second
pass, and does not depend on units or on the order of series."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierarchy.structures import dense_gls, dense_summing
from jaxfc.forecast import GaussianForecast
from jaxfc.hierarchy import OLS, WLS, BottomUp, Hierarchy, MinT, reconcile, reconcile_means

HORIZON = 2
LEVELS = pd.DataFrame(
    {
        "all": ["all"] * 5,
        "country": ["DE", "DE", "FR", "FR", "FR"],
        "kind": ["x", "y", "x", "y", "y"],
        "series": ["a", "b", "c", "d", "e"],
    }
)
GROUPS = [["all"], ["country"], ["kind"]]
# Other orders of the series; every order of names is a program of its own, so there are two.
ORDERS = ((4, 2, 0, 3, 1), (1, 0, 2, 4, 3))


def crossed(order=range(5)):
    """Two groupings that cross, under one total, series in this order."""
    return Hierarchy.from_levels(LEVELS.iloc[list(order)], groups=GROUPS)


HIERARCHY = crossed()
NUM_NODES = len(HIERARCHY.names)


@st.composite
def cases(draw):
    """Weights of the series, base means, errors in sample and a covariance, of any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-4, 6))
    weights = np.exp(rng.uniform(-1, 1, 5)) * rng.choice([-1.0, 1.0, 1.0], 5)
    spread = np.exp(rng.uniform(-2, 2, NUM_NODES))
    residuals = scale * spread * rng.normal(size=(30, NUM_NODES))
    root = rng.normal(size=(NUM_NODES, NUM_NODES))
    cov = scale**2 * (root @ root.T + np.eye(NUM_NODES))
    mean = scale * (rng.normal() + rng.normal(size=(HORIZON, NUM_NODES)))
    return weights, mean, residuals, cov, scale


METHODS = {
    "bottom up": lambda cov: BottomUp(),
    "OLS": lambda cov: OLS(),
    "structural": lambda cov: WLS("structural"),
    "variance": lambda cov: WLS("variance"),
    "shrink": lambda cov: MinT("shrink"),
    "given": lambda cov: MinT(cov),
}


def reconciled(name, hierarchy, mean, residuals, cov):
    options = {"residuals": residuals} if name in ("variance", "shrink") else {}
    method = METHODS[name](jnp.asarray(cov))
    return np.asarray(reconcile_means(jnp.asarray(mean), hierarchy, method, **options))


@pytest.mark.parametrize("name", list(METHODS))
@given(case=cases(), unit=st.sampled_from([-3.0, 1e-5, 0.5, 7.0, 1e6]))
def test_it_adds_up_once_and_for_all_in_every_unit(name, case, unit):
    weights, mean, residuals, cov, scale = case
    hierarchy = HIERARCHY.with_weights(weights)
    summing = dense_summing(hierarchy)
    result = reconciled(name, hierarchy, mean, residuals, cov)
    close = {"rtol": 1e-7, "atol": 1e-7 * scale}
    np.testing.assert_allclose(result, result[:, -5:] @ summing.T, **close)
    np.testing.assert_allclose(reconciled(name, hierarchy, result, residuals, cov), result, **close)
    scaled = reconciled(name, hierarchy, unit * mean, unit * residuals, unit**2 * cov)
    np.testing.assert_allclose(scaled / unit, result, **close)
    if name in ("OLS", "given"):
        matrix = dense_gls(summing, np.eye(NUM_NODES) if name == "OLS" else cov)
        np.testing.assert_allclose(result, mean @ matrix.T, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["structural", "given"])
@pytest.mark.parametrize("order", ORDERS)
@given(case=cases())
def test_the_order_of_series_does_not_matter(name, order, case):
    weights, mean, residuals, cov, scale = case
    hierarchy = HIERARCHY.with_weights(weights)
    other = crossed(order).with_weights(weights[list(order)])
    # Where every node of `other` stands in the first hierarchy.
    at = [hierarchy.names.index(name) for name in other.names]
    expected = reconciled(name, hierarchy, mean, residuals, cov)
    found = reconciled(name, other, mean[:, at], residuals[:, at], cov[np.ix_(at, at)])
    np.testing.assert_allclose(found, expected[:, at], rtol=1e-7, atol=1e-7 * scale)


@given(case=cases(), seed=st.integers(0, 99))
def test_laws_add_up_too(case, seed):
    """Every aggregate of the covariance is that of its series, and the law stays a law."""
    weights, mean, _, cov, scale = case
    hierarchy = HIERARCHY.with_weights(weights)
    size = HORIZON * NUM_NODES
    root = scale * np.random.default_rng(seed).normal(size=(size, size))
    shape = (HORIZON, NUM_NODES, HORIZON, NUM_NODES)
    base = GaussianForecast(jnp.asarray(mean), jnp.asarray((root @ root.T).reshape(shape)))
    law = reconcile(base, hierarchy, MinT(jnp.asarray(cov)))
    summing, found = dense_summing(hierarchy), np.asarray(law.cov)
    whole = np.einsum("ib,hbkc,jc->hikj", summing, found[:, -5:, :, -5:], summing)
    np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-6 * scale**2 * size)
    flat = found.reshape(size, size)
    eigenvalues = np.linalg.eigvalsh(0.5 * (flat + flat.T))
    assert eigenvalues.min() > -1e-8 * eigenvalues.max()
    np.testing.assert_allclose(
        law.mean, reconciled("given", hierarchy, mean, None, cov), rtol=1e-9, atol=1e-9 * scale
    )
