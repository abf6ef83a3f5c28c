"""Errors of the second step against the stacked moment conditions, differentiated numerically."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxfc
from jaxfc.volatility import (
    DCC,
    GARCH,
    CorrelationModel,
    SampleTarget,
    VarianceModel,
    ZeroMean,
    correlation_cov,
    correlation_standard_errors,
    parameter_cov,
)
from jaxfc.volatility.correlation import Targets
from jaxfc.volatility.inference import row_scores

pytestmark = pytest.mark.slow

NUM_TIMES = 300


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(4)
    corr, rows = np.asarray([[1.0, 0.5], [0.5, 1.0]]), []
    quasi, product, variance = corr, corr, np.ones(2)
    for _ in range(NUM_TIMES):
        quasi = 0.07 * corr + 0.08 * product + 0.85 * quasi
        scale = np.sqrt(np.diag(quasi))
        units = np.linalg.cholesky(quasi / np.outer(scale, scale)) @ rng.normal(size=2)
        rows.append(np.sqrt(variance) * units)
        product = np.outer(units, units)
        variance = 0.1 + 0.1 * rows[-1] ** 2 + 0.8 * variance
    model = CorrelationModel(
        DCC(),
        margins=VarianceModel(GARCH(), mean=ZeroMean()),
        target=SampleTarget(unit_diagonal=False),
        tolerance=1e-8,
    )
    index = pd.bdate_range("2000-01-03", periods=NUM_TIMES)
    panel = jaxfc.Panel.from_frame(pd.DataFrame(rows, index, ["a", "b"]))
    return model.fit(panel, throw=False)


def stacked_cov(fitted, *, with_target):
    """A^{-1} B A^{-T} of the moment conditions (scores of margins, zz' - S, scores of step two)."""
    margins, model = fitted.margins, fitted.model
    size = margins.parameters.size
    places = np.tril_indices(2)

    @jax.jit
    def conditions(vector):
        phi = vector[:size].reshape(margins.parameters.shape)
        own = dataclasses.replace(margins, parameters=phi)
        data = own.filtered().standardised
        first = row_scores(own)[0].reshape(NUM_TIMES, -1)
        both = jnp.zeros((2, 2)).at[places].set(vector[size : size + 3])
        both = both + jnp.tril(both, -1).T
        products = jnp.einsum("ti,tj->tij", data.units, data.units) - both
        targets = Targets(both, jnp.zeros_like(both))
        theta, third = vector[size + 3 :], []
        for k in range(2):
            up, down = (
                model.log_densities(theta.at[k].add(step), data, targets) for step in (1e-5, -1e-5)
            )
            third.append((up - down) / 2e-5)
        second = products[:, places[0], places[1]]
        parts = [first, second, jnp.stack(third, axis=1)]
        return jnp.concatenate(parts if with_target else [parts[0], parts[2]], axis=1)

    start = np.concatenate(
        [
            np.asarray(margins.parameters).ravel(),
            np.asarray(fitted.targets.both)[places],
            np.asarray(fitted.parameters),
        ]
    )
    free = np.arange(start.size)
    if not with_target:
        free = np.delete(free, np.arange(size, size + 3))
    rows = np.asarray(conditions(start))
    slopes = np.empty((rows.shape[1], free.size))
    for column, place in enumerate(free):
        step = np.zeros_like(start)
        step[place] = 1e-4
        change = conditions(start + step) - conditions(start - step)
        slopes[:, column] = np.asarray(change).sum(axis=0) / 2e-4
    inverse = np.linalg.inv(slopes)
    return inverse @ (rows.T @ rows) @ inverse.T


@pytest.mark.parametrize("with_target", [True, False])
def test_errors_are_those_of_the_stacked_conditions(fitted, with_target):
    expected = stacked_cov(fitted, with_target=with_target)
    found = correlation_cov(fitted, target_uncertainty=with_target)
    np.testing.assert_allclose(found, expected[-2:, -2:], rtol=2e-3)
    errors = correlation_standard_errors(fitted, target_uncertainty=with_target)
    np.testing.assert_allclose(errors, np.sqrt(np.diag(found)), rtol=1e-12)
    # The margins' own block is the sandwich of the first step.
    first = np.asarray(parameter_cov(fitted.margins)[0])
    np.testing.assert_allclose(expected[:3, :3], first, rtol=2e-3)


def test_the_first_step_matters(fitted):
    """Neither the margins nor the target may be left out."""
    whole = np.asarray(correlation_standard_errors(fitted))
    fixed = np.asarray(correlation_standard_errors(fitted, target_uncertainty=False))
    assert np.all(np.abs(whole / fixed - 1) > 1e-4)
    with pytest.raises(ValueError, match="no free omega under targeting=True"):
        margins = dataclasses.replace(fitted.margins.model, targeting=True)
        correlation_cov(
            dataclasses.replace(fitted, margins=dataclasses.replace(fitted.margins, model=margins))
        )
