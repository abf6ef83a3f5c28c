"""The panel ahead in time, given the law of the last factors: forecasts of factors and of
series."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.dynamics import impulse_maps
from jaxfc.factors.em import PanelData
from jaxfc.factors.errors import gap_error
from jaxfc.factors.methods import EM, Candidate
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
    size = fitted.last_mean.shape[0]
    noise = jnp.kron(jnp.eye(horizon, dtype=dtype), parameters.innovation_cov)
    if num_lags:
        impulses = impulse_maps(parameters.transition, horizon)[1]
        noise = impulses @ noise @ impulses.T
    maps = path_maps(parameters, size, horizon)
    cov = maps @ fitted.last_cov @ maps.T
    cov = cov.at[size:, size:].add(noise)
    return FactorPath((maps @ fitted.last_mean).reshape(-1, num_factors), 0.5 * (cov + cov.T))


def path_maps(
    parameters: FactorParameters, size: int, horizon: int
) -> Float[Array, "states last_states"]:
    """What the last factors, of which `size` numbers are kept, say of themselves and of the
    next."""
    num_factors, num_lags = parameters.num_factors, parameters.num_lags
    dtype = parameters.loadings.dtype
    from_last = jnp.zeros((horizon * num_factors, size), dtype)
    if num_lags:
        newest, _ = impulse_maps(parameters.transition, horizon)
        from_last = from_last.at[:, size - num_lags * num_factors :].set(newest)
    return jnp.concatenate([jnp.eye(size, dtype=dtype), from_last])


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

    A series without an observation in the last `memory` periods has forgotten its error. The last
    error of a low-frequency flow is itself a state, e_T, with n = h (one more E-step).
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
    last_known, state_cov = fitted.last_known, path.cov
    own = (period == memory - 1 + steps[:, None]).astype(loadings.dtype)
    last = (period == memory - 1 - gap[:, None]).astype(loadings.dtype)
    decay_last = decay
    of_flows = jnp.zeros((*decay.shape, 0), loadings.dtype)
    flows = last_flow_errors(fitted, path, horizon)
    if flows is not None:
        columns = jnp.asarray(flows.columns)
        ahead = ar[columns] ** steps[:, None]
        decay_last, decay = decay.at[:, columns].set(0.0), decay.at[:, columns].set(ahead)
        known, last_known = known.at[columns].set(True), last_known.at[columns].set(flows.mean)
        state_cov = flows.state_cov
        of_flows = jnp.zeros((*decay.shape, len(flows.columns)), loadings.dtype)
        of_flows = of_flows.at[:, columns, jnp.arange(len(flows.columns))].set(ahead)
    places = own[:, None, :] - decay_last[:, :, None] * last
    design = places[..., None] * loadings[:, None, :]
    mean = parameters.intercept + jnp.einsum("hitk,tk->hi", design, path.mean)
    distance = jnp.abs(steps[:, None] - steps)
    noise = ar[:, None, None] ** distance - decay.T[:, :, None] * decay.T[:, None, :]
    design = design.reshape(horizon, loadings.shape[0], -1)
    return StateForecast(
        mean=mean + decay * jnp.where(known, last_known, 0.0),
        design=jnp.concatenate([design, of_flows], axis=2),
        state_cov=state_cov,
        noise_cov=variances[:, None, None] * noise,
    )


class FlowErrors(NamedTuple):
    """Last errors of the flows in `columns`: `mean` (flows,), and the covariance of the states of a
    `FactorPath` followed by them."""

    columns: tuple[int, ...]
    mean: Array
    state_cov: Array


def last_flow_errors(
    fitted: "FittedFactorModel", path: FactorPath, horizon: int
) -> FlowErrors | None:
    """The law of (factor path, last errors of flows) given the panel; None without such flows."""
    coupling, parameters = fitted.coupling, fitted.parameters
    if coupling is None or coupling.pattern is None:
        return None
    assert coupling.plan is not None
    mask = fitted.observed.astype(fitted.completed.dtype)
    data = PanelData(fitted.completed, mask, coupling=coupling)
    states = EM().step(fitted.model, Candidate()).expect(parameters, data).states
    num_factors = parameters.num_factors
    first = num_factors + len(coupling.plan.columns)
    size = fitted.last_mean.shape[0]
    cross = [states.lag_covs[d, -1, first:, :num_factors] for d in range(size // num_factors)]
    newest = jnp.concatenate(cross[::-1], axis=1)
    maps = path_maps(parameters, size, horizon)
    corner = states.lag_covs[0, -1, first:, first:]
    both = newest @ maps.T
    return FlowErrors(
        coupling.plan.columns,
        states.means[-1, first:],
        jnp.block([[path.cov, both.T], [both, corner]]),
    )


def last_observations(
    centred: Float[Array, "time series"], observed: Float[Array, "time series"]
) -> tuple[Array, Array]:
    """Last observed value of each series and how many periods ago it was (time: never)."""
    num_times = centred.shape[0]
    position = jnp.max(jnp.where(observed > 0, jnp.arange(num_times)[:, None], -1), axis=0)
    value = jnp.take_along_axis(centred, jnp.maximum(position, 0)[None], axis=0)[0]
    return value, jnp.where(position >= 0, num_times - 1 - position, num_times)


def memory_fields(parameters: FactorParameters, data: PanelData) -> dict[str, Any]:
    """What periods that the panel couples add to a fit."""
    ar, coupling = parameters.idiosyncratic_ar, data.coupling
    if ar is None or coupling is None:
        return {"coupling": coupling}
    seen = data.observed * coupling.stocks
    centred = centred_values(data.values, data.observed, parameters.intercept, coupling)
    value, gap = last_observations(centred, seen)
    return {
        "coupling": coupling,
        "last_known": value,
        "last_gap": gap,
        "gap_error": gap_error(ar, seen, coupling.longest),
    }
