"""Laws of the bottom series joined by the ranks of their errors, and summed upwards."""

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.hierarchy.residual_blocks import (
    Errors,
    Incomplete,
    check_blocks,
    complete_blocks,
    drawn_blocks,
    errors_array,
    rows_of_blocks,
)
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float, PRNGKeyArray


def copula_forecast(
    bottom: Forecast,
    hierarchy: Hierarchy,
    errors: Errors,
    *,
    key: PRNGKeyArray,
    num_draws: int | None = None,
    incomplete: Incomplete = "raise",
) -> SampleForecast:
    """Draws of all nodes: marginal laws of the bottom series, the dependence of their errors.

    For each series and step the draws of `bottom` are sorted, and put in the order of the errors:

        b_hj^(d) = the r-th smallest draw,  r = the rank of e_{t_d + h, j} over the draws d

    so that draws have the rank correlations (the empirical copula) of the errors across series and
    over steps, and exactly the marginal law of `bottom`. They are then summed, one by one, with
    the hierarchy's weights: every draw is coherent, and aggregates are never shuffled on their own.
    The dependence of `bottom` itself is not used.

    **Arguments:** `bottom`, any law of the bottom series in the order of `hierarchy.bottom`;
    `errors` of these, (dates, bottom) or (origins, horizon, bottom). `num_draws`, by default one
    for each block of dates (or origin), in their order; another number draws blocks with
    replacement. Ties are ordered at random.

    **Raises:** `ValueError` for missing errors unless `incomplete="skip"`, naming series; for laws
    or errors of other series.

    Source: Clark, Gangopadhyay, Hay, Rajagopalan and Wilby (2004), the Schaake shuffle; Ben Taieb,
    Taylor and Hyndman (2021) for hierarchies, who permute aggregates as well.
    """
    horizon, num_series = bottom.mean.shape
    if num_series != len(hierarchy.bottom):
        raise ValueError(
            f"the law has {num_series} series, the hierarchy {len(hierarchy.bottom)} bottom "
            f"series; take those of the bottom series by bottom.aggregate."
        )
    array = errors_array(errors, hierarchy.bottom, horizon, "copula_forecast")
    length = 1 if array.ndim == 3 else horizon
    check_blocks(array, hierarchy.bottom, length, incomplete, "copula_forecast")
    block_key, draw_key, tie_key = jax.random.split(key, 3)
    if num_draws is None:
        starts = all_blocks(array, length, incomplete)
    else:
        starts = drawn_blocks(array, length, num_draws, key=block_key)
    rows = rows_of_blocks(array, starts, length)
    template = rows[:, 0] if array.ndim == 3 else rows
    draws = bottom.sample(template.shape[0], key=draw_key)
    ordered = reordered(draws, template, key=tie_key)
    nodes = hierarchy.aggregate(jnp.moveaxis(ordered, 1, 0))
    return SampleForecast(jnp.moveaxis(nodes, 0, 1))


def all_blocks(errors: Array, length: int, incomplete: Incomplete) -> Array:
    """First rows of all complete blocks, in their order."""
    if not isinstance(errors, Tracer):
        return jnp.flatnonzero(complete_blocks(errors, length))
    if incomplete == "skip":
        raise ValueError("how many blocks are complete is not known under jit: give num_draws.")
    return jnp.arange(errors.shape[0] - length + 1)


def reordered(
    draws: Float[Array, "draws horizon series"],
    template: Float[Array, "draws horizon series"],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon series"]:
    """Draws in the order of a template, step by step and series by series.

    NaN where the template has a missing cell, which has no rank.
    """
    noise = jax.random.uniform(key, template.shape, template.dtype)
    order = jnp.lexsort((noise, template), axis=0)
    ranks = jnp.argsort(order, axis=0)
    ordered = jnp.take_along_axis(jnp.sort(draws, axis=0), ranks, axis=0)
    return jnp.where(jnp.all(jnp.isfinite(template), axis=0), ordered, jnp.nan)
