"""Observations reduced to the dimension of the state, row by row.

For y = d + Z x + eps, eps ~ N(0, R), and the observed series o of a row, all that the law of the
states and the likelihood need is

    C = Z_o' R_oo^{-1} Z_o,   h = Z_o' R_oo^{-1} (y - d)_o,
    remainder = n_o log 2 pi + log det R_oo + (y - d)_o' R_oo^{-1} (y - d)_o

(Jungbacker and Koopman 2015). A missing cell gets weight zero; nothing is divided by it.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.kalman_system import System, TimeVarying, split_time

Reduced = tuple[Array | TimeVarying, Array, Array]


def collapse_observations(system: System, values: Array, observed: Array | None) -> Reduced:
    """C (`TimeVarying` unless it is known to be constant), h (time, states), remainders (time,)."""
    design, noise_cov = system.design, system.observation_cov
    if (noise_cov.values[0] if isinstance(noise_cov, TimeVarying) else noise_cov).ndim == 1:
        return collapse_diagonal(system, values, observed)
    if isinstance(design, TimeVarying) or isinstance(noise_cov, TimeVarying):
        return collapse_rows(system, values, observed)
    if observed is not None:
        return collapse_rows(system, values, observed)
    return collapse_complete(design, noise_cov, centre(system, values, None))


def centre(system: System, values: Array, observed: Array | None) -> Array:
    """y - d where observed, else 0."""
    shift = system.observation_offset
    shift = shift.values[: values.shape[0]] if isinstance(shift, TimeVarying) else shift
    if observed is None:
        return values - shift
    return jnp.where(observed, jnp.where(observed, values, 0.0) - shift, 0.0)


def collapse_diagonal(system: System, values: Array, observed: Array | None) -> Reduced:
    """R diagonal: 2 T N m^2 flops, one matrix product if the design is constant."""
    num_times, num_states = values.shape[0], system.initial_mean.shape[0]
    centred = centre(system, values, observed)
    seen = jnp.ones(values.shape, bool) if observed is None else observed
    variances = system.observation_cov
    if isinstance(variances, TimeVarying):
        variances = variances.values[:num_times]
    weights = jnp.where(seen, 1.0 / variances, 0.0)
    log_dets = jnp.sum(jnp.where(seen, LOG_2PI + jnp.log(variances), 0.0), axis=1)
    remainders = log_dets + jnp.sum(weights * centred**2, axis=1)
    if isinstance(system.design, TimeVarying):
        designs = system.design.values[:num_times]
        precisions = jnp.einsum("ti,tia,tib->tab", weights, designs, designs)
        vectors = jnp.einsum("ti,tia->ta", weights * centred, designs)
        return TimeVarying(precisions), vectors, remainders
    design = system.design
    vectors = (weights * centred) @ design
    if observed is None and not isinstance(system.observation_cov, TimeVarying):
        return design.T @ (weights[0][:, None] * design), vectors, remainders
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, num_states**2)
    precisions = (weights @ products).reshape(num_times, num_states, num_states)
    return TimeVarying(precisions), vectors, remainders


def collapse_complete(design: Array, noise_cov: Array, centred: Array) -> Reduced:
    """Complete data, constant Z and R: one Cholesky factor in all, N^3 / 3 + T N^2 flops."""
    noise_chol = jnp.linalg.cholesky(noise_cov)
    stacked = jnp.concatenate([design, centred.T], axis=1)
    whitened = solve_triangular(noise_chol, stacked, lower=True)
    loads, errors = jnp.split(whitened, [design.shape[1]], axis=1)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(noise_chol)))
    remainders = centred.shape[1] * LOG_2PI + log_det + jnp.sum(errors**2, axis=0)
    return loads.T @ loads, errors.T @ loads, remainders


def collapse_rows(system: System, values: Array, observed: Array | None) -> Reduced:
    """R full with gaps, or changing: one Cholesky factor per time, N^2 memory."""
    observed = jnp.ones(values.shape, bool) if observed is None else observed
    varying, at_time = split_time((system.design, system.observation_cov), values.shape[0])

    def collapse_row(inputs: tuple) -> tuple[Array, Array, Array]:
        centred, seen, slices = inputs
        design, noise_cov = at_time(slices)
        missing = jnp.diag(jnp.where(seen, 0.0, 1.0).astype(noise_cov.dtype))
        noise_chol = jnp.linalg.cholesky(jnp.where(seen[:, None] & seen, noise_cov, 0.0) + missing)
        design = jnp.where(seen[:, None], design, 0.0)
        stacked = jnp.concatenate([design, centred[:, None]], axis=1)
        whitened = solve_triangular(noise_chol, stacked, lower=True)
        design, errors = whitened[:, :-1], whitened[:, -1]
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(noise_chol)))
        remainder = jnp.sum(seen) * LOG_2PI + log_det + jnp.sum(errors**2)
        return design.T @ design, design.T @ errors, remainder

    centred = centre(system, values, observed)
    precisions, vectors, remainders = jax.lax.map(collapse_row, (centred, observed, varying))
    return TimeVarying(precisions), vectors, remainders
