"""Laws of paths: simulation, the simulation smoother and the joint forecast, on top of `kalman`."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.kalman import FilterMoments, kalman_filter
from jaxfc_kernels.kalman_smoother import kalman_smoother
from jaxfc_kernels.kalman_system import System, TimeVarying, split_time
from jaxfc_kernels.kalman_update import symmetrize
from jaxfc_kernels.semidefinite import semidefinite_chol


def standard_roots(cov: Array | TimeVarying, num_times: int) -> Array | TimeVarying:
    """Square roots of a covariance field: lower triangular, or the roots of a diagonal."""
    if isinstance(cov, TimeVarying):
        root = jnp.sqrt if cov.values.ndim == 2 else jax.vmap(semidefinite_chol)
        return TimeVarying(root(cov.values[:num_times]))
    return jnp.sqrt(cov) if cov.ndim == 1 else semidefinite_chol(cov)


def simulate(system: System, num_steps: int, num_paths: int, *, key: Array) -> tuple[Array, Array]:
    """Paths of the system: states (paths, num_steps, states), values (paths, num_steps, series)."""
    num_states = system.initial_mean.shape[0]
    shift = system.observation_offset
    num_series = (shift.values if isinstance(shift, TimeVarying) else shift).shape[-1]
    start_key, state_key, value_key = jax.random.split(key, 3)
    dtype = system.initial_mean.dtype
    start_noise = jax.random.normal(start_key, (num_paths, num_states), dtype)
    shocks = jax.random.normal(state_key, (num_steps, num_paths, num_states), dtype)
    errors = jax.random.normal(value_key, (num_steps, num_paths, num_series), dtype)
    fields = (
        system.transition,
        system.offset,
        standard_roots(system.innovation_cov, num_steps),
        system.design,
        system.observation_offset,
        standard_roots(system.observation_cov, num_steps),
    )
    varying, at_time = split_time(fields, num_steps)

    def step(state, inputs):
        shock, error, slices = inputs
        transition, offset, innovation_root, design, shift, root = at_time(slices)
        scaled = error * root if root.ndim == 1 else error @ root.T
        value = shift + state @ design.T + scaled
        return offset + state @ transition.T + shock @ innovation_root.T, (state, value)

    start = system.initial_mean + start_noise @ semidefinite_chol(system.initial_cov).T
    _, (states, values) = jax.lax.scan(step, start, (shocks, errors, varying))
    return jnp.swapaxes(states, 0, 1), jnp.swapaxes(values, 0, 1)


def simulation_smoother(
    system: System,
    values: Array,
    observed: Array | None,
    num_draws: int,
    *,
    key: Array,
    implementation: str = "joint",
) -> Array:
    """Joint draws of the states given the observations, (draws, time, states).

    Mean correction (Durbin and Koopman 2002, algorithm 2): simulate x+, y+ from the system, then
    x+ + E[x | y] - E[x | y+] has the posterior law; both expectations share their gains, and their
    difference is one smoother run on y - y+ with all means zero. Costs one filter of matrices and,
    per draw, O(time (N m + m^2)).
    """
    known = values if observed is None else jnp.where(observed, values, 0.0)
    states, paths = simulate(system, values.shape[0], num_draws, key=key)
    centred = system._replace(
        initial_mean=jnp.zeros_like(system.initial_mean),
        offset=jax.tree.map(jnp.zeros_like, system.offset),
        observation_offset=jax.tree.map(jnp.zeros_like, system.observation_offset),
    )

    def correct(path: Array) -> Array:
        difference = known - path
        filtered = kalman_filter(centred, difference, observed, implementation=implementation)
        return kalman_smoother(centred.transition, filtered).smoothed_means

    return states + jax.vmap(correct)(paths)


def forecast_moments(system: System, filtered: FilterMoments, horizon: int) -> tuple[Array, Array]:
    """Mean (horizon, series) and cov (horizon, series, horizon, series) of the rows after the data.

    With Gamma_{hk} = Cov[x_{T+h}, x_{T+k} | y]: Gamma_{h+1,k} = T_h Gamma_{hk} for k <= h and
    cov_{hk} = Z_h Gamma_{hk} Z_k' + 1{h = k} R_h. `TimeVarying` fields need time + horizon entries.
    O(horizon^2 (m^3 + N^2 m)).
    """
    num_times, num_states = filtered.predicted_means.shape
    future = (
        TimeVarying(field.values[num_times:]) if isinstance(field, TimeVarying) else field
        for field in system[2:]
    )
    varying, at_time = split_time(tuple(future), horizon)

    def step(carry, inputs):
        mean, cov, lagged_covs = carry  # lagged_covs[k] = Cov[x_h, x_k], filled for k < h
        index, slices = inputs
        transition, offset, innovation_cov, design, shift, noise_cov = at_time(slices)
        noise_cov = jnp.diag(noise_cov) if noise_cov.ndim == 1 else noise_cov
        lagged_covs = lagged_covs.at[index].set(cov)
        next_cov = symmetrize(transition @ cov @ transition.T + innovation_cov)
        carry = (offset + transition @ mean, next_cov, transition @ lagged_covs)
        return carry, (shift + design @ mean, design @ lagged_covs, design, noise_cov)

    lagged_covs = jnp.zeros((horizon, num_states, num_states), filtered.next_cov.dtype)
    start = (filtered.next_mean, filtered.next_cov, lagged_covs)
    _, outputs = jax.lax.scan(step, start, (jnp.arange(horizon), varying))
    means, loaded_covs, designs, noise_covs = outputs
    lower = jnp.einsum("hkib,kjb->hikj", loaded_covs, designs)
    steps = jnp.arange(horizon)
    below = jnp.where((steps[:, None] > steps)[:, None, :, None], lower, 0.0)
    own = symmetrize(lower[steps, :, steps, :] + noise_covs)
    return means, (below + jnp.transpose(below, (2, 3, 0, 1))).at[steps, :, steps, :].set(own)
