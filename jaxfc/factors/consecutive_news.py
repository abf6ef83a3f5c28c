"""News along a sequence of vintages, each of which is conditioned on once.

A vintage is the new one of its first pair and the old one of its second. With m(x) = E[y | cells of
v at values x], affine in x, x' the values of v after the next one's revisions and b = dm/dx,

    m(x) = m(x') + b' (x - x'),

so one conditional mean, at x', and two reverse passes (the target of either pair) give all that
both pairs ask of v: half the work of `news_batch`, which takes any pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.news_arrays import NewsArrays, native_expectation
from jaxfc.typing import Array, Bool, Float, Int, PyTree
from jaxfc_kernels.aggregation import AggregationRows


class Vintage(NamedTuple):
    """A vintage, its values after the next one's revisions, and the target of both pairs: `rows`
    and `weights` of the pair that ends here, then of the one that begins here."""

    values: Float[Array, "*of time series"]
    observed: Bool[Array, "*of time series"]
    next_values: Float[Array, "*of time series"]
    next_observed: Bool[Array, "*of time series"]
    rows: Int[Array, "*of 2"]
    weights: Float[Array, "*of 2 series"]


class Conditioned(NamedTuple):
    """What the two pairs ask of a vintage: as the new one its nowcast and the weights; as the old
    one forecasts, nowcast and weights at revised values, revisions, and forecasts minus values of
    cells that the next vintage has no more."""

    nowcast: Array
    weights: Array
    forecasts: Array
    revised_nowcast: Array
    old_weights: Array
    revisions: Array
    removals: Array | None


def consecutive_news(
    fitted: FittedFactorModel,
    values: Float[Array, "vintages time series"],
    observed: Bool[Array, "vintages time series"],
    rows: Int[Array, " pairs"],
    target_weights: Float[Array, " series"] | Float[Array, "pairs series"],
    aggregation: AggregationRows | None = None,
    *,
    removals: bool = False,
    summary: Callable[[NewsArrays], PyTree] | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """The decomposition between all vintages and their next: pure, for `jit`.

    `values, observed = store.arrays()` of a `VintageStore`; pair v leads from vintage v to v + 1
    and has its own row of the target. Arguments and answer are those of `news_batch` otherwise, the
    answer too (to rounding).

    Cost: one E-step and two reverse passes a vintage, one E-step more with removals. A batch of B
    pairs conditions on B + 1 vintages.

    **Raises:** `ValueError` for fewer than two vintages, a number of rows that is not one less, or
    a `batch_size` below 1.
    """
    num_pairs = values.shape[0] - 1
    if num_pairs < 1 or rows.shape[0] != num_pairs:
        raise ValueError(
            f"{values.shape[0]} vintages have {max(num_pairs, 0)} consecutive pairs, got "
            f"{rows.shape[0]} rows of the target; pass two vintages or more, and a row for each "
            "pair."
        )
    size = num_pairs if batch_size is None else min(batch_size, num_pairs)
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    weights = jnp.broadcast_to(target_weights, (num_pairs, target_weights.shape[-1]))
    num_chunks = -(-num_pairs // size)
    first = size * jnp.arange(num_chunks)[:, None]

    def chunk(places: Int[Array, " vintages"]) -> PyTree:
        following = jnp.minimum(places + 1, num_pairs)
        pairs = jnp.clip(jnp.stack([places - 1, places], axis=1), 0, num_pairs - 1)
        vintages = Vintage(
            values[places],
            observed[places],
            values[following],
            observed[following],
            rows[pairs],
            weights[pairs],
        )
        sides = jax.vmap(lambda v: conditioned(fitted, v, aggregation, removals))(vintages)
        old, new = sliced(sides, slice(-1)), sliced(sides, slice(1, None))
        arrays = pair_news(old, new, sliced(vintages, slice(-1)))
        return arrays if summary is None else jax.vmap(summary)(arrays)

    places = jnp.minimum(first + jnp.arange(size + 1), num_pairs)
    answers = jax.lax.map(chunk, places)
    return jax.tree.map(
        lambda leaf: leaf.reshape(num_chunks * size, *leaf.shape[2:])[:num_pairs], answers
    )


def sliced(tree: PyTree, at: slice) -> PyTree:
    """Every leaf along its leading axis."""
    return jax.tree.map(lambda leaf: leaf[at], tree)


def conditioned(
    fitted: FittedFactorModel,
    vintage: Vintage,
    aggregation: AggregationRows | None,
    removals: bool,
) -> Conditioned:
    """One conditional mean of all cells, and its derivatives by both targets."""
    values, observed = vintage.values, vintage.observed
    common = observed & vintage.next_observed
    revised = jnp.where(common, vintage.next_values, jnp.where(observed, values, 0.0))
    expected, transpose = jax.vjp(
        lambda data: native_expectation(fitted, data, observed, aggregation), revised
    )
    targets = jnp.zeros((2, *expected.shape), expected.dtype)
    targets = targets.at[jnp.arange(2), vintage.rows].set(vintage.weights)
    weights, old_weights = jax.vmap(lambda target: transpose(target)[0])(targets)
    revisions = jnp.where(common, vintage.next_values - values, 0.0)
    means = jnp.sum(expected[vintage.rows] * vintage.weights, axis=1)
    forecasts, lost = expected, None
    if removals:
        forecasts = native_expectation(fitted, revised, common, aggregation)
        lost = jnp.where(observed & ~vintage.next_observed, forecasts - revised, 0.0)
    nowcast = means[0] - jnp.sum(weights * revisions)
    return Conditioned(nowcast, weights, forecasts, means[1], old_weights, revisions, lost)


def pair_news(old: Conditioned, new: Conditioned, vintages: Vintage) -> NewsArrays:
    """Decompositions from the two sides of each pair; `vintages` are the old ones."""
    released = vintages.next_observed & ~vintages.observed
    return NewsArrays(
        old_nowcast=old.revised_nowcast - jnp.sum(old.old_weights * old.revisions, axis=(1, 2)),
        revised_nowcast=old.revised_nowcast,
        new_nowcast=new.nowcast,
        news=jnp.where(released, vintages.next_values - old.forecasts, 0.0),
        weights=new.weights,
        old_weights=old.old_weights,
        revisions=old.revisions,
        removals=old.removals,
    )
