"""Forecasts of a fitted ARX model: trajectories, in parts that add up."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.compose.trajectories import Drawn, Trajectories, carry_ahead, draw_regressions, lag_rows
from jaxfc.factors import FittedFactorModel
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.dynamics import extended_path, simulate_paths
from jaxfc.factors.paths import FactorPaths, factor_paths, mean_path
from jaxfc.typing import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.compose.returns import FittedFactorARX, ReturnData

BURN_IN = 200


class Split(NamedTuple):
    """Coefficients of the own lags and of the factor lags of every draw, and the intercept."""

    intercept: Float[Array, " draws"]
    own: Float[Array, "draws lags"]
    factors: Float[Array, "draws columns"]


def decomposed_forecast(
    fitted: "FittedFactorARX", horizon: int, *, key: PRNGKeyArray
) -> DecomposedForecast:
    """The next `horizon` returns, draw by draw, in four parts."""
    path_key, future_key, regression_key = jax.random.split(key, 3)
    fit_paths = paths_of(fitted, fitted.factors, key=path_key)
    drawn = draw_trajectories(fitted, fit_paths, horizon, key=regression_key)
    split = split_coefficients(fitted, drawn)
    now, factors = (fitted.data, fitted.factors) if fitted.now is None else fitted.now
    paths = fit_paths if fitted.now is None else paths_of(fitted, factors, key=path_key)
    last = last_returns(fitted, now)
    scale = fitted.scale

    def ahead(inputs: Array, start: Array) -> Array:
        return scale * carry_ahead(split.own, inputs, start)[..., None]

    none = jnp.zeros_like(last)
    constant = jnp.broadcast_to(split.intercept[:, None], drawn.residuals.shape)
    risk = factor_risk_inputs(fitted, paths.deviations, split, horizon, key=future_key)
    impact, by_series, base = factor_impact(fitted, factors, paths.mean, split, horizon)
    by_series = spread_over_panel(fitted, by_series)
    return DecomposedForecast(  # pyright: ignore[reportCallIssue]
        ar_nature=ahead(constant, last),
        factor_impact=impact[..., None],
        factor_risk=ahead(risk, none),
        ar_risk=ahead(drawn.residuals, none),
        impact_by_series=by_series,
        impact_base=base,
    )


def last_returns(fitted: "FittedFactorARX", now: "ReturnData") -> Float[Array, " lags"]:
    """r_T, r_{T-1}, ..., in units of `scale`; NaN where a lag that is used was not observed: the
    forecast is not known then, and no zero stands for it."""
    values = now.returns[::-1][: fitted.model.num_own_lags]
    unknown = fitted.model.unknown_lags(now, fitted.sizes)
    return jnp.where(unknown, jnp.nan, values) / fitted.scale


def paths_of(
    fitted: "FittedFactorARX", factors: FittedFactorModel | None, *, key: PRNGKeyArray
) -> FactorPaths:
    """Draws of the factors' path; deviations of zero where their risk is off."""
    how, returns = fitted.model.intervals, fitted.data.returns
    if factors is None:
        shape = (returns.size, 0)
        dtype = returns.dtype
        return FactorPaths(jnp.zeros(shape, dtype), jnp.zeros((how.num_draws, *shape), dtype))
    data = fitted_data(factors)
    if how.factor_risk:
        return factor_paths(factors, data, how.num_draws, key=key)
    mean = mean_path(factors, data)
    return FactorPaths(mean, jnp.zeros((how.num_draws, *mean.shape), mean.dtype))


def draw_trajectories(
    fitted: "FittedFactorARX", paths: FactorPaths, horizon: int, *, key: PRNGKeyArray
) -> Drawn:
    """Coefficients and residuals of every trajectory, in units of `scale`."""
    model = fitted.model
    active, weights = model.used(fitted.data, fitted.sizes)
    numbers = model.num_own_lags, model.num_factor_lags
    drawn_paths = paths.mean + paths.deviations
    returns = fitted.data.returns / fitted.scale
    return draw_regressions(
        model.intervals, returns, weights, drawn_paths, active, *numbers, horizon, key=key
    )


def split_coefficients(fitted: "FittedFactorARX", drawn: Drawn) -> Split:
    """Columns of the regressors by what they stand for."""
    first = 1 + fitted.model.num_own_lags
    values = drawn.coefficients
    return Split(values[:, 0], values[:, 1:first], values[:, first:])


def factor_risk_inputs(
    fitted: "FittedFactorARX",
    deviations: Float[Array, "draws time factors"],
    split: Split,
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon"]:
    """sum_i gamma_i' (f - E f) of the steps ahead; future innovations are part of the risk."""
    model = fitted.model
    if fitted.factors is None or not model.intervals.factor_risk:
        return jnp.zeros((deviations.shape[0], horizon), split.intercept.dtype)
    parameters = fitted.factors.parameters
    shape = (deviations.shape[0], horizon - 1, deviations.shape[2])
    noise = jax.random.normal(key, shape, deviations.dtype)
    noise = noise @ jnp.linalg.cholesky(parameters.innovation_cov).T
    last = deviations[:, -max(model.num_factor_lags, parameters.num_lags, 1) :]
    extended = jax.vmap(lambda d, u: extended_path(parameters.transition, d, u))(last, noise)
    rows = lag_rows(extended, model.num_factor_lags, horizon)
    return jnp.einsum("dhc,dc->dh", rows, split.factors)


def factor_impact(
    fitted: "FittedFactorARX",
    factors: FittedFactorModel | None,
    mean: Float[Array, "time factors"],
    split: Split,
    horizon: int,
) -> tuple[Float[Array, "draws horizon"], Float[Array, "horizon series"], Float[Array, " horizon"]]:
    """Factor impact of every draw, its mean by series of the factor panel, and its base, in the
    units of the return.

    The mean path is affine in the panel, so that slope times deviation from the mean adds up; one
    reverse pass through the smoother for each step ahead.
    """
    num_lags = fitted.model.num_own_lags
    no_start = jnp.zeros(num_lags, split.own.dtype)

    def impact(path: Array) -> Array:
        assert factors is not None
        num_factors = path.shape[1]
        future = jnp.zeros((horizon - 1, num_factors), path.dtype)
        extended = extended_path(factors.parameters.transition, path, future)
        rows = lag_rows(extended, fitted.model.num_factor_lags, horizon)
        return fitted.scale * carry_ahead(split.own, split.factors @ rows.T, no_start)

    if factors is None:
        shape = (split.intercept.size, horizon)
        dtype = split.intercept.dtype
        return jnp.zeros(shape, dtype), jnp.zeros((horizon, 0), dtype), jnp.zeros(horizon, dtype)
    data = fitted_data(factors)
    intercept = factors.parameters.intercept
    deviations = centred_values(data.values, data.observed, intercept, data.coupling)

    def mean_impact(values: Array) -> Array:
        moved = dataclasses.replace(data, values=values)
        return jnp.mean(impact(mean_path(factors, moved)), axis=0)

    _, pullback = jax.vjp(mean_impact, data.values)
    (slopes,) = jax.vmap(pullback)(jnp.eye(horizon, dtype=data.values.dtype))
    cells = jnp.where(data.observed > 0, slopes * deviations, 0.0)
    base = mean_impact(data.values - deviations)
    return impact(mean), jnp.sum(cells, axis=1), base


def spread_over_panel(
    fitted: "FittedFactorARX", by_series: Float[Array, "horizon columns"]
) -> Float[Array, "horizon series"]:
    """Columns of the whole panel: zero for the target where the factors are not of it."""
    place = fitted.model.target
    assert isinstance(place, int)
    if fitted.factors is None:
        extra = 0 if fitted.model.target_in_panel else 1
        return jnp.zeros((by_series.shape[0], fitted.data.values.shape[1] + extra), by_series.dtype)
    if fitted.model.target_in_panel:
        return by_series
    return jnp.insert(by_series, place, 0.0, axis=1)


def simulate_returns(
    fitted: "FittedFactorARX", num_steps: int, *, key: PRNGKeyArray
) -> Float[Array, "time target"]:
    """A path at the coefficients on the factors' mean path, started `BURN_IN` rows earlier at zero,
    with normal residuals."""
    factor_key, noise_key = jax.random.split(key)
    length = BURN_IN + num_steps
    quiet = eqx.tree_at(
        lambda m: m.intervals,
        fitted.model,
        Trajectories(2, factor_risk=False, coefficient_risk=False),
    )
    quiet = dataclasses.replace(fitted, model=quiet)
    paths = paths_of(quiet, fitted.factors, key=factor_key)
    drawn = draw_trajectories(quiet, paths, length, key=noise_key)
    split = split_coefficients(fitted, drawn)
    inputs = split.intercept[:1, None] + drawn.residuals[:1]
    if fitted.factors is not None:
        num_lags = fitted.model.num_factor_lags
        _, factors = simulate_paths(fitted.factors.parameters, length + num_lags, key=factor_key)
        rows = lag_rows(factors[:-1], num_lags, length)
        inputs = inputs + split.factors[:1] @ rows.T
    start = jnp.zeros(fitted.model.num_own_lags, inputs.dtype)
    path = carry_ahead(split.own[:1], inputs, start)[0, BURN_IN:]
    return fitted.scale * path[:, None]
