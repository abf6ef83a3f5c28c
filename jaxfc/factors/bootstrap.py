"""What is not known about the parameters: a parametric bootstrap, all draws in one batch."""

import dataclasses
import warnings
from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import map_in_batches
from jaxfc.counts import check_counts
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.condition import condition, fitted_data
from jaxfc.factors.em import PanelData
from jaxfc.factors.identify import rotate_parameters
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.scaling import Scaling
from jaxfc.forecast import SampleForecast
from jaxfc.results import RESULTS, is_okay
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree
from jaxfc_kernels.aggregation import AggregationRows, aggregate

if TYPE_CHECKING:
    from jaxfc.panel import Panel

Start = Literal["cold", "fitted"]
UNCERTAINTY = ("bootstrap", "hessian")


class BootstrapDraws(eqx.Module):
    """Parameters estimated on panels that were simulated from a fitted model.

    Every array of `parameters` leads with the draws. They are in the standardised units of the
    fitted model (not in those of the simulated panel, whose means and scales vary), and the factors
    are turned by the orthogonal R that brings the loadings nearest to the fitted ones, so that
    spreads of single parameters mean something. Failed draws keep their place and their `result`.
    """

    parameters: FactorParameters
    num_steps: Int[Array, " draws"]
    result: RESULTS

    @property
    def usable(self) -> Bool[Array, " draws"]:
        """Which draws were estimated."""
        return is_okay(self.result) & all_finite(self.parameters)

    @property
    def num_failed(self) -> Int[Array, ""]:
        """How many draws were not."""
        return jnp.sum(~self.usable)


def all_finite(batch: PyTree) -> Bool[Array, " draws"]:
    """Which members of a batch are finite in all their arrays."""
    leaves = [jnp.isfinite(leaf.reshape(leaf.shape[0], -1)) for leaf in jax.tree.leaves(batch)]
    return jnp.all(jnp.concatenate(leaves, axis=1), axis=1)


def bootstrap(
    fitted: FittedFactorModel,
    num_draws: int,
    *,
    key: PRNGKeyArray,
    aggregation: AggregationRows | None = None,
    start: Start = "cold",
    batch_size: int | None = None,
) -> BootstrapDraws:
    """Draws from the law of the estimator, by estimation on simulated panels; for `jit` and `vmap`.

    Draw i simulates the panel's rows from the fitted model with `fold_in(key, i)`, aggregates them
    by `aggregation` (pass `panel.aggregation` of the panel that was fitted), hides what was not
    observed, and estimates the same model. `start="cold"` repeats the estimation as it was;
    "fitted" starts each from the fitted parameters, which needs fewer steps and finds the same
    optimum where the tolerance is tight. All draws run at once, or `batch_size` at a time.

    **Raises:** `ValueError` for fewer than 1 draw, an unknown `start`, or a warm one for a method
    in closed form, or a `batch_size` below 1.
    """
    check_counts(num_draws=num_draws)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 (or None for all), got {batch_size}.")
    if start not in ("cold", "fitted"):
        raise ValueError(f"unknown start {start!r}; use 'cold' or 'fitted'.")

    def draw(index: Array) -> tuple[FactorParameters, Array, RESULTS]:
        return one_draw(fitted, aggregation, start, key=jax.random.fold_in(key, index))

    return BootstrapDraws(*map_in_batches(draw, jnp.arange(num_draws), batch_size))


jitted_bootstrap = eqx.filter_jit(bootstrap)


def one_draw(
    fitted: FittedFactorModel,
    aggregation: AggregationRows | None,
    start: Start,
    *,
    key: PRNGKeyArray,
) -> tuple[FactorParameters, Array, RESULTS]:
    """Simulate, hide, estimate: the fields of `BootstrapDraws` for one of them."""
    simulated = fitted.simulate(fitted.observed.shape[0], key=key)
    if aggregation is not None:
        simulated = aggregate(aggregation, simulated)
    refitted = fitted.model.estimate_from(
        jnp.where(fitted.observed, simulated, 0.0),
        fitted.observed,
        aggregation=aggregation,
        start=fitted.parameters if start == "fitted" else None,
    )
    parameters = in_units_of(refitted.parameters, refitted.scaling, fitted.scaling)
    parameters = aligned(parameters, fitted.parameters.loadings)
    return parameters, refitted.num_steps, refitted.result


def in_units_of(parameters: FactorParameters, own: Scaling, other: Scaling) -> FactorParameters:
    """Parameters of the same series, standardised by another centre and scale."""
    ratio = own.scale / other.scale
    cov = parameters.idiosyncratic_cov
    return dataclasses.replace(
        parameters,
        loadings=ratio[:, None] * parameters.loadings,
        intercept=(own.restore(parameters.intercept) - other.centre) / other.scale,
        idiosyncratic_cov=ratio**2 * cov if cov.ndim == 1 else ratio[:, None] * cov * ratio,
    )


def aligned(
    parameters: FactorParameters, loadings: Float[Array, "series factors"]
) -> FactorParameters:
    """Parameters with factors turned by the orthogonal R that minimises |W R' - loadings|."""
    left, _, right = jnp.linalg.svd(parameters.loadings.T @ loadings)
    return rotate_parameters(parameters, (left @ right).T)


def forecast_with_uncertainty(
    fitted: FittedFactorModel,
    panel: "Panel",
    horizon: int,
    num_draws: int,
    *,
    key: PRNGKeyArray,
    parameters: str = "bootstrap",
    start: Start = "cold",
    batch_size: int | None = None,
) -> SampleForecast:
    """Draws of the next `horizon` rows that also vary with the parameters.

    For each set of parameters the factors get their law given the actual data, and one path of the
    panel is drawn from the forecast that follows. `parameters="bootstrap"` takes them from
    `bootstrap` (with its `start` and `batch_size`), "hessian" from `hessian_draws`, which estimates
    nothing again. With two-step methods the actual data are the panel that the fit rebuilt.

    The bias of the estimator is not corrected: error variances that are too small in the fit are so
    in the draws, with the bootstrap once more, so intervals from very short panels still cover less
    than they say.

    Draws that failed are left out; a `UserWarning` says how many.

    **Raises:** `ValueError` if `panel` is not the one that was fitted, for a horizon below 1, fewer
    than 2 draws, unknown `parameters`, a `start` with "hessian", and for principal components;
    `RuntimeError` if fewer than 2 draws are left.
    """
    if parameters not in UNCERTAINTY:
        raise ValueError(f"parameters must be one of {UNCERTAINTY}, got {parameters!r}.")
    rows = None
    if parameters == "hessian":
        # Draws from the curvature are bootstrap draws in form and stand above this file.
        from jaxfc.factors.free_parameters import check_inference, separate_rows

        if start != "cold":
            raise ValueError("parameters='hessian' estimates nothing; leave `start` out.")
        check_inference(fitted, panel)
        rows = separate_rows(np.asarray(fitted.parameters.loadings))
    if panel.observed.shape != fitted.observed.shape or np.any(
        panel.observed != np.asarray(fitted.observed)
    ):
        raise ValueError(
            f"the panel {panel.observed.shape} is not the one that was fitted "
            f"{tuple(fitted.observed.shape)}, or other cells of it are observed."
        )
    if num_draws < 2:
        raise ValueError(f"num_draws must be at least 2 to have a spread, got {num_draws}.")
    paths, usable = jitted_paths(
        fitted,
        horizon,
        num_draws,
        key=key,
        aggregation=panel.aggregation,
        start=start,
        batch_size=batch_size,
        rows=rows,
    )
    num_left = int(jnp.sum(usable))
    what, remedy = (
        ("bootstrap estimations failed", "raise max_steps or loosen rtol of the method, or use")
        if rows is None
        else (
            "draws from the curvature are not stationary or have no curvature to come from",
            "use parameters='bootstrap', see what `standard_errors` says, or use",
        )
    )
    if num_left < 2:
        raise RuntimeError(
            f"{num_draws - num_left} of {num_draws} {what}, too few are left for a forecast; "
            f"{remedy} fewer factors."
        )
    if num_left < num_draws:
        warnings.warn(
            f"{num_draws - num_left} of {num_draws} {what} and are left out of the forecast.",
            stacklevel=2,
        )
    return SampleForecast(paths[usable])


def draw_paths(
    fitted: FittedFactorModel,
    horizon: int,
    num_draws: int,
    *,
    key: PRNGKeyArray,
    aggregation: AggregationRows | None,
    start: Start,
    batch_size: int | None,
    rows: tuple[int, ...] | None = None,
) -> tuple[Float[Array, "draws horizon series"], Bool[Array, " draws"]]:
    """One future path for each draw of the parameters, and which of them are usable: pure.

    The draws come from `bootstrap`, or from the curvature if `rows` says which loadings are
    triangular there."""
    estimation_key, path_key = jax.random.split(key)
    if rows is not None:
        from jaxfc.factors.parameter_draws import hessian_parameters

        draws = hessian_parameters(
            fitted, rows, num_draws, key=estimation_key, batch_size=batch_size
        )
    else:
        draws = bootstrap(
            fitted,
            num_draws,
            key=estimation_key,
            aggregation=aggregation,
            start=start,
            batch_size=batch_size,
        )
    data = fitted_data(fitted)

    def path(inputs: tuple[FactorParameters, Array]) -> Float[Array, "horizon series"]:
        parameters, index = inputs
        own_key = jax.random.fold_in(path_key, index)
        return path_given(fitted, parameters, data, horizon, key=own_key)

    paths = map_in_batches(path, (draws.parameters, jnp.arange(num_draws)), batch_size)
    return paths, draws.usable & all_finite(paths)


jitted_paths = eqx.filter_jit(draw_paths)


def path_given(
    fitted: FittedFactorModel,
    parameters: FactorParameters,
    data: PanelData,
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "horizon series"]:
    """One path from the forecast of other parameters on the same data."""
    given = condition(dataclasses.replace(fitted, parameters=parameters), data)
    return given.forecast(horizon).sample(1, key=key)[0]
