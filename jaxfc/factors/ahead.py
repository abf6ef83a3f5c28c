"""The panel ahead in time, given the law of the last factors: forecasts of factors and of
series."""

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from jaxfc.factors.dynamics import impulse_maps
from jaxfc.forecast import FactorForecast, Forecast
from jaxfc.state_forecast import StateForecast
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.factors.model import FittedFactorModel


class FactorPath(NamedTuple):
    """Joint law of the last periods kept in the fit and of the next ones, ascending."""

    mean: Float[Array, "periods factors"]
    cov: Float[Array, "states states"]


def factor_path(fitted: "FittedFactorModel", horizon: int) -> FactorPath:
    """Last and next factors given the panel: F_future = maps @ F_last + impulses @ innovations."""
    parameters = fitted.parameters
    num_factors, num_lags = parameters.num_factors, parameters.num_lags
    dtype = fitted.last_mean.dtype
    size, future = fitted.last_mean.shape[0], horizon * num_factors
    from_last = jnp.zeros((future, size), dtype)
    noise = jnp.kron(jnp.eye(horizon, dtype=dtype), parameters.innovation_cov)
    if num_lags:
        newest, impulses = impulse_maps(parameters.transition, horizon)
        from_last = from_last.at[:, size - num_lags * num_factors :].set(newest)
        noise = impulses @ noise @ impulses.T
    maps = jnp.concatenate([jnp.eye(size, dtype=dtype), from_last])
    cov = maps @ fitted.last_cov @ maps.T
    cov = cov.at[size:, size:].add(noise)
    return FactorPath((maps @ fitted.last_mean).reshape(-1, num_factors), 0.5 * (cov + cov.T))


def factor_forecast(
    fitted: "FittedFactorModel", horizon: int
) -> tuple[Float[Array, "horizon factors"], Float[Array, "horizon factors horizon factors"]]:
    """Mean and joint covariance of the next `horizon` factors."""
    path = factor_path(fitted, horizon)
    num_factors = path.mean.shape[1]
    future = horizon * num_factors
    shape = (horizon, num_factors, horizon, num_factors)
    return path.mean[-horizon:], path.cov[-future:, -future:].reshape(shape)


def series_forecast(fitted: "FittedFactorModel", horizon: int) -> Forecast:
    """The joint law of the next rows in standardised units, errors independent over time."""
    mean, cov = factor_forecast(fitted, horizon)
    parameters = fitted.parameters
    return FactorForecast(
        mean=parameters.intercept + mean @ parameters.loadings.T,
        loadings=parameters.loadings,
        factor_cov=cov,
        idiosyncratic_cov=parameters.idiosyncratic_cov,
        mixing=jnp.eye(horizon, dtype=mean.dtype),
    )


def forecast_with_memory(fitted: "FittedFactorModel", horizon: int) -> StateForecast:
    """The same with AR(1) errors, of which the last one observed, e_s = x_s - mu - w'F_s, is known
    given the factors:

        x_{T+h} = mu + w'F_{T+h} + r^n (x_s - mu - w'F_s) + noise,   n = T + h - s
        Cov(noise_h, noise_k) = S (r^|h-k| - r^(n_h + n_k))

    A series without an observation in the last `memory` periods has forgotten its error.
    """
    parameters = fitted.parameters
    ar, variances = parameters.idiosyncratic_ar, parameters.variances
    assert ar is not None and fitted.last_known is not None and fitted.last_gap is not None
    num_factors, loadings = parameters.num_factors, parameters.loadings
    memory = fitted.last_mean.shape[0] // num_factors
    path = factor_path(fitted, horizon)
    steps = jnp.arange(1, horizon + 1)
    known = fitted.last_gap < memory
    gap = jnp.where(known, fitted.last_gap, 0)
    decay = jnp.where(known, ar ** (steps[:, None] + gap), 0.0)
    period = jnp.arange(memory + horizon)
    own = (period == memory - 1 + steps[:, None]).astype(loadings.dtype)
    last = (period == memory - 1 - gap[:, None]).astype(loadings.dtype)
    places = own[:, None, :] - decay[:, :, None] * last
    design = places[..., None] * loadings[:, None, :]
    mean = parameters.intercept + jnp.einsum("hitk,tk->hi", design, path.mean)
    distance = jnp.abs(steps[:, None] - steps)
    noise = ar[:, None, None] ** distance - decay.T[:, :, None] * decay.T[:, None, :]
    return StateForecast(
        mean=mean + decay * jnp.where(known, fitted.last_known, 0.0),
        design=design.reshape(horizon, loadings.shape[0], -1),
        state_cov=path.cov,
        noise_cov=variances[:, None, None] * noise,
    )


def last_observations(
    centred: Float[Array, "time series"], observed: Float[Array, "time series"]
) -> tuple[Array, Array]:
    """Last observed value of each series and how many periods ago it was (time: never)."""
    num_times = centred.shape[0]
    position = jnp.max(jnp.where(observed > 0, jnp.arange(num_times)[:, None], -1), axis=0)
    value = jnp.take_along_axis(centred, jnp.maximum(position, 0)[None], axis=0)[0]
    return value, jnp.where(position >= 0, num_times - 1 - position, num_times)
