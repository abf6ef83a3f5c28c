"""Reconciliation: forecasts of all nodes of a hierarchy made to add up, means and law.

`reconcile` takes any `Forecast` and returns one; `reconcile_means` is the same for plain arrays.
Both are pure: they can be jitted, batched over origins, and differentiated with respect to base
forecasts, covariances and weights. What is wrong with names and values is said on the host.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from jaxfc.forecast import Forecast, GaussianForecast
from jaxfc.hierarchy.checks import (
    check_feasible,
    check_nodes,
    check_result,
    check_sample,
    sample_array,
)
from jaxfc.hierarchy.coherent import StepMaps, mapped_forecast, step_covs
from jaxfc.hierarchy.method import Method, Sample
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float

Nodes = Sequence[str]
History = Float[Array, "time nodes"] | np.ndarray | pd.DataFrame | None


def reconcile(
    forecast: Forecast,
    hierarchy: Hierarchy,
    method: Method,
    *,
    residuals: History = None,
    history: History = None,
    immutable: Nodes = (),
    missing: Nodes | None = None,
) -> Forecast:
    """A coherent forecast: y~_h = M_h y^_h for the joint law of all nodes, draw by draw.

    Means become M_h mean_h and covariances M_h cov_hk M_k' (a `GaussianForecast` stays one); draws
    are mapped one by one, so that every draw adds up; other laws are kept and mapped when asked
    for moments or draws. A map is linear given the base means, so proportions taken from them
    (`TopDown("forecast_proportions")`) are those of the means for every draw.

    **Arguments:** `forecast` of the nodes in the order of `hierarchy.names`. `residuals` and
    `history`: errors of the base forecasts and values in sample, dates x nodes (arrays, or frames
    whose columns are the names), NaN where missing, in the units of the forecast. `immutable`
    nodes keep their base forecasts. `missing` nodes have no base forecast: they are ignored and
    implied by the others; by default those whose mean is NaN at every step (under `jit` they must
    be named).

    **Raises:** `ValueError` for a forecast of other nodes; nodes without any residual; immutable
    nodes that contradict each other; missing ones that the others do not determine; methods that
    cannot fix nodes; a covariance of the incoherence that is singular.
    """
    maps = step_maps(
        forecast, forecast.mean, hierarchy, method, residuals, history, immutable, missing
    )
    if maps.missing is not None:
        forecast = without_missing(forecast, maps.missing)
    result = run(forecast, maps)
    check_result(result.mean, hierarchy, maps)
    return result


def reconcile_means(
    mean: Float[Array, "horizon nodes"],
    hierarchy: Hierarchy,
    method: Method,
    *,
    residuals: History = None,
    history: History = None,
    immutable: Nodes = (),
    missing: Nodes | None = None,
) -> Float[Array, "horizon nodes"]:
    """Coherent means from base means; arguments and errors as `reconcile`."""
    maps = step_maps(None, mean, hierarchy, method, residuals, history, immutable, missing)
    result = run_means(maps)
    check_result(result, hierarchy, maps)
    return result


@eqx.filter_jit
def run(forecast: Forecast, maps: StepMaps) -> Forecast:
    """The compiled part."""
    return mapped_forecast(forecast, maps)


@jax.jit
def run_means(maps: StepMaps) -> Array:
    """The compiled part for means alone."""
    return maps.apply(maps.mean)


def step_maps(
    forecast: Forecast | None,
    mean: Array,
    hierarchy: Hierarchy,
    method: Method,
    residuals: History,
    history: History,
    immutable: Nodes,
    missing: Nodes | None,
) -> StepMaps:
    """Everything the maps are made of, checked."""
    labels = hierarchy.labels
    mean = jnp.asarray(mean)
    check_nodes(mean, hierarchy)
    method.check(hierarchy.summing, labels)
    absent = missing_nodes(mean, hierarchy, missing)
    fixed = tuple(labels.index(name) for name in immutable)
    if (fixed or absent) and not method.takes_fixed:
        raise ValueError(
            f"{type(method).__name__} cannot keep immutable nodes or do without base forecasts; "
            f"use OLS, WLS or MinT."
        )
    if fixed or absent:
        check_feasible(hierarchy, fixed, absent)
    values = sample_array(history, hierarchy, "history")
    check_sample(values, hierarchy, "history", jnp.asarray(absent, int) if absent else None)
    covs = None
    if method.needs_forecast_cov:
        if forecast is None:
            raise ValueError("this method takes the covariance of a forecast; use `reconcile`.")
        covs = step_covs(forecast)
    if absent:
        mean = mean.at[:, jnp.asarray(absent)].set(0.0)
    return StepMaps(
        method=method,
        summing=hierarchy.summing,
        mean=mean,
        covs=covs,
        sample=Sample(
            residuals=sample_array(residuals, hierarchy, "residuals"),
            values=values,
        ),
        immutable=jnp.asarray(fixed, dtype=jnp.int32) if fixed else None,
        missing=jnp.asarray(absent, dtype=jnp.int32) if absent else None,
        labels=labels,
    )


def missing_nodes(mean: Array, hierarchy: Hierarchy, missing: Nodes | None) -> tuple[int, ...]:
    """Nodes without base forecasts: those named, or those that are NaN throughout."""
    if missing is not None:
        return tuple(hierarchy.labels.index(name) for name in missing)
    if isinstance(mean, Tracer):
        return ()
    gone = np.isnan(np.asarray(mean))
    partly = np.any(gone, axis=0) & ~np.all(gone, axis=0)
    if np.any(partly):
        node = int(np.flatnonzero(partly)[0])
        steps = np.flatnonzero(gone[:, node]) + 1
        raise ValueError(
            f"the base forecast of {hierarchy.names[node]!r} is NaN at steps {steps.tolist()} "
            f"only; give missing=({hierarchy.names[node]!r},) to do without it at all steps."
        )
    return tuple(int(i) for i in np.flatnonzero(np.all(gone, axis=0)))


def without_missing(forecast: Forecast, missing: Array) -> Forecast:
    """Zero in place of missing nodes, whose base law plays no part."""
    if isinstance(forecast, GaussianForecast):
        mean = forecast.mean.at[:, missing].set(0.0)
        cov = forecast.cov.at[:, missing].set(0.0).at[:, :, :, missing].set(0.0)
        return GaussianForecast(mean, cov)
    return forecast
