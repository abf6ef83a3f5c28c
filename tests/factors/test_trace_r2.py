"""Trace R² by projection: numpy's QR, columns that are spanned already, lost fits."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors.components import orthonormal_columns, trace_r_squared

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(50, 3))
ESTIMATE = TRUTH @ RNG.normal(size=(3, 3)) + RNG.normal(size=(50, 3))


def by_qr(truth, estimate):
    basis, _ = np.linalg.qr(estimate)
    return np.sum((basis.T @ truth) ** 2) / np.sum(truth**2)


def ours(estimate):
    return float(trace_r_squared(jnp.asarray(TRUTH), jnp.asarray(estimate)))


def test_it_is_the_projection():
    assert ours(ESTIMATE) == pytest.approx(by_qr(TRUTH, ESTIMATE), abs=1e-14)
    assert ours(ESTIMATE @ RNG.normal(size=(3, 3))) == pytest.approx(ours(ESTIMATE), abs=1e-13)


def test_columns_that_are_spanned_add_nothing():
    wider = np.concatenate([ESTIMATE, 2.0 * ESTIMATE[:, :1], np.zeros((50, 1))], axis=1)
    assert ours(wider) == pytest.approx(ours(ESTIMATE), abs=1e-14)


def test_nearly_dependent_columns_stay_orthonormal():
    close = ESTIMATE @ np.diag([1.0, 1e-7, 1e-9]) + 1e5 * ESTIMATE[:, :1]
    basis = np.asarray(orthonormal_columns(jnp.asarray(close)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-14)


def test_a_lost_fit_has_no_number():
    assert np.isnan(ours(np.full((50, 3), np.nan)))
