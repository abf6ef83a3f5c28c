"""Base forecasts plus errors of the past, whole dates of all nodes together."""

import jax.numpy as jnp

from jaxfc.forecast import SampleForecast
from jaxfc.hierarchy.checks import check_nodes
from jaxfc.hierarchy.residual_blocks import (
    Errors,
    Incomplete,
    check_blocks,
    drawn_blocks,
    errors_array,
    rows_of_blocks,
)
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float, PRNGKeyArray


def bootstrap_forecast(
    mean: Float[Array, "horizon nodes"],
    hierarchy: Hierarchy,
    errors: Errors,
    *,
    num_draws: int,
    key: PRNGKeyArray,
    block_length: int | None = None,
    centred: bool = False,
    incomplete: Incomplete = "raise",
) -> SampleForecast:
    """Draws y^_h + e_{t+h}: base forecasts plus errors of a random block of dates.

    All nodes of a date stay together, and so do the dates of a block, so that draws have the
    dependence of the errors across nodes and, within blocks, over time. Draws are those of the base
    forecasts: `reconcile` makes each of them coherent.

    **Arguments:** `mean` in the order of `hierarchy.names`. `errors`, values minus base forecasts
    in the same units, either (dates, nodes) in sample, used alike for every step, or (origins,
    horizon, nodes) at past origins, drawn by whole origins, so that they may grow with the step.
    `block_length` consecutive dates per block, by default the horizon; the horizon is filled by
    independent blocks. `centred` takes off the mean error of each node (and step).
    `incomplete="skip"` draws no block with a missing cell.

    **Raises:** `ValueError` for missing errors unless they are to be skipped, and if no block is
    complete, naming nodes; for errors of other nodes or fewer dates than a block.

    Source: Kuensch (1989) for blocks; Panagiotelis, Gamakumara, Athanasopoulos and Hyndman (2023)
    for the reconciliation of joint draws.
    """
    mean = jnp.asarray(mean)
    check_nodes(mean, hierarchy)
    horizon = mean.shape[0]
    array = errors_array(errors, hierarchy.names, horizon, "bootstrap_forecast")
    paths = array.ndim == 3
    if paths and block_length is not None:
        raise ValueError("errors by origin are drawn by whole origins; leave block_length out.")
    length = 1 if paths else horizon if block_length is None else block_length
    if not 1 <= length <= max(horizon, 1):
        raise ValueError(f"block_length must be between 1 and the horizon {horizon}, got {length}.")
    check_blocks(array, hierarchy.names, length, incomplete, "bootstrap_forecast")
    if centred:
        array = array - jnp.nanmean(array, axis=0)
    if paths:
        return SampleForecast(mean + array[drawn_blocks(array, 1, num_draws, key=key)])
    num_blocks = -(-horizon // length)
    starts = drawn_blocks(array, length, num_draws * num_blocks, key=key)
    rows = rows_of_blocks(array, starts.reshape(num_draws, num_blocks), length)
    return SampleForecast(mean + rows.reshape(num_draws, -1, mean.shape[1])[:, :horizon])
