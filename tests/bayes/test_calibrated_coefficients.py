"""Hierarchies of coefficients draw from the posterior that they claim: ranks of the truth.

Coefficients that are integrated out are ranked too, as they are drawn afterwards.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes.calibration_cases import (
    MANY,
    QUICK,
    ThenLatents,
    WithLatents,
    assert_calibrated,
    long_chains,
    ranked,
    short_chains,
)
from jaxfc.bayes.coefficient_drift import ROWS_OF_DRIFT, Drift, DriftingCoefficients
from jaxfc.bayes.coefficient_levels import (
    GaussianCoefficients,
    StudentCoefficients,
    prior_levels,
    with_rows,
)
from jaxfc.bayes.coefficient_prior import CoefficientData
from jaxfc.bayes.program import Parameters


def data_of(num_rows, num_series, seed=0):
    """Two sectors, a constant and one regressor, holes, the last asset with three rows only."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([np.ones(num_rows), rng.normal(size=num_rows)])
    observed = rng.random((num_rows, num_series)) > 0.15
    observed[3:, -1] = False
    values = np.where(observed, rng.normal(size=observed.shape), 0.0)
    members = np.arange(num_series) % 2
    return CoefficientData(*map(jnp.asarray, (values, observed, columns, members)), num_sectors=2)


class Levelled(WithLatents):
    """With the coefficients of all levels."""

    inner: GaussianCoefficients
    latents: Parameters = eqx.field(default_factory=dict)

    def complete(self, parameters, *, key):
        level_key, error_key = jax.random.split(key)
        data, prior = self.inner.data, self.inner.prior
        scales = prior.scales(parameters, data.num_coefficients)
        levels = prior_levels(data, scales, key=level_key)
        errors = jax.random.normal(error_key, data.values.shape)
        data = with_rows(data, levels, jnp.exp(parameters["log_noise"]) * errors)
        return GaussianCoefficients(data, prior), levels._asdict()

    def recovered(self, parameters, *, key):
        return self.inner.levels(parameters, key=key)._asdict()


class Moving(WithLatents):
    """With the coefficients of all assets in the first and in the last row."""

    inner: DriftingCoefficients
    latents: Parameters = eqx.field(default_factory=dict)

    def complete(self, parameters, *, key):
        """By the equations of the model, row after row."""
        data, drift = self.inner.data, self.inner.drift
        keys = jax.random.split(key, 3)
        centres, scales = self.inner.sector_levels(parameters)
        noise = jax.random.normal(keys[0], (data.num_series, data.num_coefficients))
        levels = centres[data.members] + noise @ scales.within_chol.T
        drifts = self.inner.drifts(parameters)[data.members]
        shocks = jax.random.normal(keys[1], (len(data.values), *drifts.shape))
        phi = parameters["persistence"] if drift.reverts else 1.0
        step = jnp.sqrt(1.0 - phi**2) if drift.reverts else 1.0 / ROWS_OF_DRIFT**0.5
        path = [drifts * shocks[0] if drift.reverts else jnp.zeros_like(drifts)]
        for shock in shocks[1:]:
            path.append(phi * path[-1] + step * drifts * shock)
        rows = jnp.stack([levels.at[:, drift.first :].add(moved) for moved in path])
        errors = jnp.exp(parameters["log_noise"]) * jax.random.normal(keys[2], data.values.shape)
        values = jnp.einsum("tq,tiq->ti", data.columns, rows) + errors
        values = jnp.where(data.observed, values, 0.0)
        inner = eqx.tree_at(lambda program: program.data.values, self.inner, values)
        return inner, {"first_row": rows[0], "last_row": rows[-1]}

    def recovered(self, parameters, *, key):
        rows = self.inner.paths(parameters, key=key)
        return {"first_row": rows[0], "last_row": rows[-1]}


def student(num_rows, num_series):
    """In the coordinates of a pilot from one data set of the model's."""
    program = StudentCoefficients(data_of(num_rows, num_series))
    return program.simulated(program.start(), key=jax.random.key(0))


def test_gaussian_coefficients_are_calibrated():
    program = Levelled(GaussianCoefficients(data_of(10, 4)))
    assert_calibrated(ranked(program, ThenLatents(short_chains(8)), QUICK))


@pytest.mark.slow
def test_student_coefficients_are_calibrated():
    assert_calibrated(ranked(student(10, 4), short_chains(8), QUICK))


@pytest.mark.slow
def test_moving_coefficients_are_calibrated():
    program = Moving(DriftingCoefficients(data_of(6, 4)))
    assert_calibrated(ranked(program, ThenLatents(short_chains(6)), QUICK))


@pytest.mark.slow
def test_gaussian_coefficients_are_calibrated_in_more_data():
    program = Levelled(GaussianCoefficients(data_of(25, 7)))
    assert_calibrated(ranked(program, ThenLatents(long_chains(12)), 2 * MANY))


@pytest.mark.slow
def test_student_coefficients_are_calibrated_in_more_data():
    assert_calibrated(ranked(student(25, 7), long_chains(16), MANY))


@pytest.mark.slow
@pytest.mark.parametrize("drift", [Drift(), Drift("random walk", alphas=True)])
def test_moving_coefficients_are_calibrated_in_more_data(drift):
    program = Moving(DriftingCoefficients(data_of(15, 4), drift))
    assert_calibrated(ranked(program, ThenLatents(long_chains(12)), MANY))
