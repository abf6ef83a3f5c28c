"""The law of the whole panel given any of its cells: what nowcasts, news and scenarios ask for.

Parameters are held fixed. Rows may lie beyond the sample that was fitted (a forecast is a row without
data) and the mask may be any mask: vintages, scenarios and histories are all the same question.
"""

import jax
import jax.numpy as jnp

from jaxfc.factors.em import PanelData
from jaxfc.factors.methods import EM, Candidate
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.moments import sample_factors
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows


def expected_panel(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None = None,
) -> Float[Array, "time series"]:
    """E[x | observed cells] at the panel's own frequency, in data units; pure.

    Affine in `values` given `observed`, so that its derivative with respect to them is the weight of
    every cell. A cell that was observed by itself keeps its value.
    """
    parameters, mask = fitted.parameters, observed.astype(values.dtype)
    data = PanelData(fitted.scaling.standardise(values, mask, aggregation), mask)
    posterior = EM().step(fitted.model, Candidate()).expect(parameters, data).posterior
    factors = posterior.means[fitted.model.presample :]
    common = fitted.scaling.restore(parameters.intercept + factors @ parameters.loadings.T)
    return jnp.where(observed, values, common)


def sample_panel(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    num_draws: int,
    *,
    key: PRNGKeyArray,
    aggregation: AggregationRows | None = None,
) -> Float[Array, "draws time series"]:
    """Joint draws of x given the observed cells, parameters fixed; memory draws x time x series."""
    parameters, mask = fitted.parameters, observed.astype(values.dtype)
    data = PanelData(fitted.scaling.standardise(values, mask, aggregation), mask)
    centred = data.values - data.observed * parameters.intercept
    collapsed = EM().step(fitted.model, Candidate()).collapse(parameters, data, centred)
    factor_key, error_key = jax.random.split(key)
    presample = fitted.model.presample
    factors = sample_factors(parameters, collapsed, num_draws, key=factor_key, presample=presample)
    common = parameters.intercept + factors[:, presample:] @ parameters.loadings.T
    noise = jax.random.normal(error_key, common.shape, common.dtype)
    draws = fitted.scaling.restore(common + noise * jnp.sqrt(parameters.variances))
    return jnp.where(observed, values, draws)
