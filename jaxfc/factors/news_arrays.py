"""News: why a nowcast changed between two vintages, value by value.

With w the weights of the target in its row of the panel, y = w' x, and parameters held fixed,

    E[y | new] - E[y | old] =   sum over revised cells   c_j (new value - old value)
                              + sum over released cells  b_j (x_j - E[x_j | old, revised])

where c = dE[y | old] / dx and b = dE[y | new] / dx are derivatives of the conditional mean, which
is affine in the data given the mask (Banbura and Modugno 2014, section 2.3; revisions as in
statsmodels). Two conditional means and two reverse passes answer it, however many the releases.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.panel_law import expected_panel
from jaxfc.typing import Array, Bool, Float, Int, PyTree
from jaxfc_kernels.aggregation import AggregationRows, aggregate


class NewsArrays(eqx.Module):
    """Arrays of a decomposition, in the series' own units; those of many lead with the pairs.

    Zero in cells that took no part, but for `forecasts` and the weights of all observed cells.
    `forecasts` are E[x | old mask, revised values] of all cells as the series report them; `news`
    the released values minus their forecasts; `weights` b and `old_weights` c the derivatives of
    the target; `revisions` new minus old values of cells that both vintages have; `removals`
    forecasts minus values of cells that the new vintage has no more. `revised_nowcast` is the
    target's mean after the revisions, before the removals and the news.
    """

    old_nowcast: Float[Array, "*pairs"]
    revised_nowcast: Float[Array, "*pairs"]
    new_nowcast: Float[Array, "*pairs"]
    news: Float[Array, "*pairs time series"]
    weights: Float[Array, "*pairs time series"]
    old_weights: Float[Array, "*pairs time series"]
    revisions: Float[Array, "*pairs time series"]
    removals: Float[Array, "*pairs time series"] | None

    @property
    def news_impacts(self) -> Float[Array, "*pairs time series"]:
        """What every released cell adds to the target."""
        return self.weights * self.news

    @property
    def revision_impacts(self) -> Float[Array, "*pairs time series"]:
        """What every revised cell adds to the target."""
        return self.old_weights * self.revisions

    @property
    def removal_impacts(self) -> Float[Array, "*pairs time series"]:
        """What every cell that vanished adds to the target."""
        if self.removals is None:
            return jnp.zeros_like(self.news)
        return self.old_weights * self.removals


def news_arrays(
    fitted: FittedFactorModel,
    old_values: Float[Array, "time series"],
    old_observed: Bool[Array, "time series"],
    new_values: Float[Array, "time series"],
    new_observed: Bool[Array, "time series"],
    row: Int[Array, ""],
    target_weights: Float[Array, " series"],
    aggregation: AggregationRows | None = None,
    *,
    removals: bool = False,
) -> NewsArrays:
    """The decomposition for one pair of vintages: pure, for `jit`, `vmap` over any argument.

    **Arguments:** both vintages on one calendar, in data units; the target sum_i
    `target_weights`[i] y_i in `row`, y as the series report it; `removals=True` if cells may vanish
    (one conditional mean more), else all cells of the old vintage must be in the new one.

    With AR(1) errors pass `covering(fitted, masks)` of all masks: their longest gap may be longer
    than that of the panel that was fitted.

    Cost: two E-steps and their reverse passes; three with removals.
    """
    common = old_observed & new_observed
    revised = jnp.where(common, new_values, jnp.where(old_observed, old_values, 0.0))
    forecasts, old_weights = expectation_and_weights(
        fitted, revised, old_observed, row, target_weights, aggregation
    )
    revised_nowcast = forecasts[row] @ target_weights
    revisions = jnp.where(common, new_values - old_values, 0.0)
    lost = None
    if removals:
        forecasts = native_expectation(fitted, revised, common, aggregation)
        lost = jnp.where(old_observed & ~new_observed, forecasts - revised, 0.0)
    expected, weights = expectation_and_weights(
        fitted, new_values, new_observed, row, target_weights, aggregation
    )
    return NewsArrays(
        old_nowcast=revised_nowcast - jnp.sum(old_weights * revisions),
        revised_nowcast=revised_nowcast,
        new_nowcast=expected[row] @ target_weights,
        news=jnp.where(new_observed & ~old_observed, new_values - forecasts, 0.0),
        weights=weights,
        old_weights=old_weights,
        revisions=revisions,
        removals=lost,
    )


def native_expectation(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
) -> Float[Array, "time series"]:
    """E[y | observed cells] as each series reports it: sums and averages at period ends."""
    expected = expected_panel(fitted, values, observed, aggregation)
    if aggregation is not None:
        expected = aggregate(aggregation, expected)
    return jnp.where(observed, values, expected)


def expectation_and_weights(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    row: Int[Array, ""],
    target_weights: Float[Array, " series"],
    aggregation: AggregationRows | None,
) -> tuple[Float[Array, "time series"], Float[Array, "time series"]]:
    """All conditional means, and the derivative of the target's with respect to every cell."""
    expected, transpose = jax.vjp(
        lambda data: native_expectation(fitted, data, observed, aggregation), values
    )
    (weights,) = transpose(jnp.zeros_like(expected).at[row].set(target_weights))
    return expected, weights


def news_batch(
    fitted: FittedFactorModel,
    old: tuple[Float[Array, "pairs time series"], Bool[Array, "pairs time series"]],
    new: tuple[Float[Array, "pairs time series"], Bool[Array, "pairs time series"]],
    rows: Int[Array, " pairs"],
    target_weights: Float[Array, " series"] | Float[Array, "pairs series"],
    aggregation: AggregationRows | None = None,
    *,
    removals: bool = False,
    summary: Callable[[NewsArrays], PyTree] | None = None,
    batch_size: int | None = None,
) -> PyTree:
    """The decomposition for many pairs of vintages at once: pure, for `jit`.

    `consecutive_news` answers for all vintages of a store and their next at about half the cost.
    Rows may differ by pair: a nowcaster's target moves on. `batch_size` pairs at a time (None:
    all); some tens are fastest on a CPU. `summary`: what to keep of each pair, where arrays of all
    cells are too many.

    **Returns:** `NewsArrays`, or what `summary` makes of them, led by the pairs.

    **Raises:** `ValueError` for pairs of different number or a `batch_size` below 1.
    """
    num_pairs = rows.shape[0]
    target_weights = jnp.broadcast_to(target_weights, (num_pairs, target_weights.shape[-1]))

    def one(case: tuple) -> PyTree:
        (old_values, old_observed), (new_values, new_observed), row, weights = case
        arrays = news_arrays(
            fitted,
            old_values,
            old_observed,
            new_values,
            new_observed,
            row,
            weights,
            aggregation,
            removals=removals,
        )
        return arrays if summary is None else summary(arrays)

    return map_in_batches(one, (old, new, rows, target_weights), batch_size)
