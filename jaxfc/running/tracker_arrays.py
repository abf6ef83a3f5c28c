"""A tracker on arrays: every vintage estimated, nowcast and explained in one pure function.

With theta_v the parameters of vintage v, Omega_v its data and y its target,

    E[y | Omega_v; theta_v] - E[y | Omega_{v-1}; theta_{v-1}]
        = revisions + removals + news                                  at theta_{v-1}
          + E[y | Omega_v; theta_v] - E[y | Omega_v; theta_{v-1}]      re-estimation

(Banbura and Modugno 2014, section 2.3). theta includes the scaling: each vintage is standardised by
its own moments, and its news against the one before are in the units of the one before.
"""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.batching import map_in_batches
from jaxfc.factors.candidate import Candidate
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import expectation, panel_data
from jaxfc.factors.em import PanelData
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.news_arrays import native_expectation, news_arrays
from jaxfc.factors.panel_law import remembering
from jaxfc.factors.scaling import Scaling, fit_scaling
from jaxfc.factors.start import starting_values
from jaxfc.results import RESULTS, is_okay
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.aggregation import AggregationRows


class Vintages(eqx.Module):
    """The data of all vintages on one calendar, and the row of each one's target."""

    values: Float[Array, "vintages time series"]
    observed: Bool[Array, "vintages time series"]
    rows: Int[Array, " vintages"]


class TrackArrays(eqx.Module):
    """Per vintage the nowcast, how its estimation ended and its parameters; per pair of consecutive
    vintages the earlier one's nowcast of the later one's target, and what changed it, by series."""

    nowcasts: Float[Array, " vintages"]
    stds: Float[Array, " vintages"] | None
    previous: Float[Array, " pairs"]
    revisions: Float[Array, "pairs series"]
    removals: Float[Array, "pairs series"]
    news: Float[Array, "pairs series"]
    reestimation: Float[Array, " pairs"]
    parameters: FactorParameters
    scaling: Scaling
    loglik: Float[Array, " vintages"]
    num_steps: Int[Array, " vintages"]
    result: RESULTS


class Plan(eqx.Module):
    """What of a tracker shapes its program: whether estimations start where the one before ended,
    whether cells may vanish, the column whose standard deviation is asked for (None: none), the
    longest gap of any vintage, how many vintages run side by side."""

    warm: bool = eqx.field(static=True)
    removals: bool = eqx.field(static=True)
    column: int | None = eqx.field(static=True)
    longest_gap: int | None = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)


def track_arrays(
    model: DynamicFactorModel,
    vintages: Vintages,
    target_weights: Float[Array, " series"],
    aggregation: AggregationRows | None,
    plan: Plan,
) -> TrackArrays:
    """The whole tracker: pure, for `jit`, with one trace of the estimation and one of the news.

    Cost: the estimations, then an E-step or two for every nowcast, and two with their reverse
    passes (three with removals) for the news of every pair.
    """
    fits = estimate_all(model, vintages, aggregation, plan)

    def nowcast(case: tuple) -> tuple:
        fitted, vintage = remembering(case[0], plan.longest_gap), case[1]
        data = (vintage.values, vintage.observed)
        mean = native_expectation(fitted, *data, aggregation)
        std = None
        if plan.column is not None:
            std = conditional_std(fitted, *data, mean, vintage.rows, plan.column, aggregation)
            std = std * jnp.abs(target_weights[plan.column])
        return mean[vintage.rows] @ target_weights, std

    def explain(case: tuple) -> tuple:
        fitted, old, new = remembering(case[0], plan.longest_gap), case[1], case[2]
        arrays = news_arrays(
            fitted,
            old.values,
            old.observed,
            new.values,
            new.observed,
            new.rows,
            target_weights,
            aggregation,
            removals=plan.removals,
        )
        parts = (arrays.revision_impacts, arrays.removal_impacts, arrays.news_impacts)
        sums = tuple(jnp.sum(part, axis=0) for part in parts)
        return arrays.old_nowcast, sums, arrays.new_nowcast

    nowcasts, stds = map_in_batches(nowcast, (fits, vintages), plan.batch_size)
    before, after = (
        jax.tree.map(lambda leaf: leaf[:-1], (fits, vintages)),
        jax.tree.map(lambda leaf: leaf[1:], vintages),
    )
    previous, sums, kept = map_in_batches(explain, (*before, after), plan.batch_size)
    revisions, removals, news = sums
    return TrackArrays(
        nowcasts=nowcasts,
        stds=stds,
        previous=previous,
        revisions=revisions,
        removals=removals,
        news=news,
        reestimation=nowcasts[1:] - kept,
        parameters=fits.parameters,
        scaling=fits.scaling,
        loglik=fits.loglik,
        num_steps=fits.num_steps,
        result=fits.result,
    )


def estimate_all(
    model: DynamicFactorModel,
    vintages: Vintages,
    aggregation: AggregationRows | None,
    plan: Plan,
) -> FittedFactorModel:
    """The fits of all vintages, each leaf led by them: side by side from their own starts, or one
    after the other, each from the last parameters that were estimated."""
    if not plan.warm:
        return map_in_batches(
            lambda data: model.estimate(*data, aggregation=aggregation),
            (vintages.values, vintages.observed),
            plan.batch_size,
        )

    def advance(carry: tuple[FactorParameters, Array], data: tuple) -> tuple:
        last, known = carry
        start = jax.lax.cond(
            known, lambda: last, lambda: cold_start(model, *data, aggregation=aggregation)
        )
        fitted = model.estimate_from(*data, aggregation=aggregation, start=start)
        out_of_steps = fitted.result == RESULTS.nonlinear_max_steps_reached
        usable = (is_okay(fitted.result) | out_of_steps) & jnp.isfinite(fitted.loglik)
        # A failed vintage hands on the start it was given, so that it spoils no other.
        last = jax.tree.map(lambda new, old: jnp.where(usable, new, old), fitted.parameters, last)
        return (last, known | usable), fitted

    data = (vintages.values, vintages.observed)
    shapes = jax.eval_shape(
        lambda: cold_start(model, data[0][0], data[1][0], aggregation=aggregation)
    )
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    _, fits = jax.lax.scan(advance, (blank, jnp.asarray(False)), data)
    return cast(FittedFactorModel, fits)


def cold_start(
    model: DynamicFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    *,
    aggregation: AggregationRows | None,
) -> FactorParameters:
    """Where the estimation of one vintage alone would start."""
    mask = observed.astype(values.dtype)
    scaling = fit_scaling(values, mask, aggregation, model.standardise)
    data = PanelData(scaling.standardise(values, mask, aggregation), mask)
    return starting_values(model, data, aggregation, Candidate())


def conditional_std(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    mean: Float[Array, "time series"],
    row: Int[Array, ""],
    column: int,
    aggregation: AggregationRows | None,
) -> Float[Array, ""]:
    """Standard deviation of one cell, as its series reports it, given the observed ones.

    A normal density at its mean is 1 / (sqrt(2 pi) std), and the density of the cell given the
    others is the ratio of two likelihoods, with and without the mean as one more observation:

        std = exp(l(data) - l(data, y = E[y | data])) / sqrt(2 pi)

    exact for parameters taken as known; 0 where the cell is observed. Cost: two E-steps.
    """
    filled = values.at[row, column].set(mean[row, column])
    more = observed.at[row, column].set(True)

    def loglik(case: tuple[Array, Array]) -> Array:
        data = panel_data(fitted, *case, aggregation)
        return expectation(fitted, data).loglik

    # One trace for both.
    cases = jnp.stack([values, filled]), jnp.stack([observed, more])
    without, with_mean = jax.lax.map(loglik, cases)
    ratio = jnp.exp(without - with_mean) / jnp.sqrt(2.0 * jnp.pi)
    return jnp.where(observed[row, column], 0.0, fitted.scaling.scale[column] * ratio)
