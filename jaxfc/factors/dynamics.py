"""The factor VAR ahead in time: maps of the future on the past, and simulated panels."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.error_paths import draw_errors
from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.var_precision import stationary_block_cov


def impulse_maps(
    transition: Float[Array, "lags factors factors"], horizon: int
) -> tuple[Float[Array, "future states"], Float[Array, "future future"]]:
    """Future factors as linear maps of the last p factors (ascending) and of future innovations."""
    num_lags, num_factors, _ = transition.shape
    identity = jnp.eye(num_factors, dtype=transition.dtype)
    zero = jnp.zeros_like(identity)
    history = [
        [identity if j == i else zero for j in range(num_lags)] + [zero] * horizon
        for i in range(num_lags)
    ]
    for h in range(horizon):
        row = [
            sum((transition[lag] @ history[-1 - lag][j] for lag in range(num_lags)), zero)
            for j in range(num_lags + horizon)
        ]
        row[num_lags + h] = identity
        history.append(row)
    maps = jnp.block(history[num_lags:])
    return maps[:, : num_lags * num_factors], maps[:, num_lags * num_factors :]


def extended_path(
    transition: Float[Array, "lags factors factors"],
    path: Float[Array, "time factors"],
    innovations: Float[Array, "steps factors"],
) -> Float[Array, "extended factors"]:
    """The path and what follows from it: f_t = sum_l A_l f_{t-l} + u_t for the given innovations
    (with no lags, the innovations are the factors)."""
    num_lags = transition.shape[0]
    if innovations.shape[0] == 0:
        return path
    if num_lags == 0:
        return jnp.concatenate([path, innovations])

    def advance(history, innovation):
        # history (lags, factors), newest last
        new = innovation + jnp.einsum("lij,lj->i", transition, history[::-1])
        return jnp.concatenate([history[1:], new[None]]), new

    _, future = jax.lax.scan(advance, path[-num_lags:], innovations)
    return jnp.concatenate([path, future])


def simulate_panel(
    parameters: FactorParameters, num_steps: int, *, key: PRNGKeyArray
) -> Float[Array, "time series"]:
    """One path of the standardised panel, factors started from their stationary law."""
    return simulate_paths(parameters, num_steps, key=key)[0]


def simulate_paths(
    parameters: FactorParameters, num_steps: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "time series"], Float[Array, "time factors"]]:
    """The same path of the panel, and that of its factors."""
    num_series, num_factors = parameters.loadings.shape
    num_lags = parameters.num_lags
    start_key, factor_key, error_key = jax.random.split(key, 3)
    dtype, cov = parameters.loadings.dtype, parameters.idiosyncratic_cov
    states = num_lags * num_factors
    innovation_chol, initial_chol, error_chol = path_chols(parameters)
    noise = jax.random.normal(factor_key, (num_steps, num_factors), dtype) @ innovation_chol.T
    if num_lags == 0:
        factors = noise
    else:
        start = initial_chol @ jax.random.normal(start_key, (states,), dtype)
        first = start.reshape(num_lags, num_factors)
        factors = extended_path(parameters.transition, first, noise)[num_lags:]
    if cov.ndim == 1:
        ar = parameters.idiosyncratic_ar
        errors = draw_errors(cov, ar, num_steps, 1, key=error_key)[0]
    else:
        errors = jax.random.normal(error_key, (num_steps, num_series), dtype)
        errors = errors @ error_chol.T
    return parameters.intercept + factors @ parameters.loadings.T + errors, factors


def path_chols(parameters: FactorParameters) -> tuple[Array, Array, Array]:
    """Cholesky factors of the innovations, of the first p factors, and of errors where they are
    correlated (else empty): one call, as several at once can stop a process with few threads."""
    size, states = parameters.num_factors, parameters.num_lags * parameters.num_factors
    parts = [parameters.innovation_cov]
    if states:
        parts.append(stationary_block_cov(parameters.transition, parameters.innovation_cov))
    if parameters.idiosyncratic_cov.ndim == 2:
        parts.append(parameters.idiosyncratic_cov)
    chol = jnp.linalg.cholesky(block_diag(*parts))
    ends = size, size + states
    return (
        chol[: ends[0], : ends[0]],
        chol[ends[0] : ends[1], ends[0] : ends[1]],
        chol[ends[1] :, ends[1] :],
    )
