"""Fixed-interval smoothing: the law of the states given all observations, on top of `kalman`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.kalman import FilterMoments, collapsed_filter, symmetrize
from jaxfc_kernels.kalman_system import System, TimeVarying, split_time


class SmootherMoments(NamedTuple):
    """Moments of the states given all observations.

    `smoothed_means` (time, states), `smoothed_covs` (time, states, states) and
    `smoothed_cross_covs` (time - 1, states, states), row t being Cov[x_{t+1}, x_t | y], centred.
    """

    smoothed_means: Array
    smoothed_covs: Array
    smoothed_cross_covs: Array


def kalman_smoother(transition: Array | TimeVarying, filtered: FilterMoments) -> SmootherMoments:
    """Smoothed means, covariances and one-step cross-covariances from the filter's output.

    Backwards in time, with r and N the score and the information that the future holds about x_t
    (zero at the end), before and after the row y_t is counted:

        r_f = T_t' r_{t+1},  N_f = T_t' N_{t+1} T_t
        E[x_t | y] = m_f + P_f r_f,   Cov[x_t | y] = P_f - P_f N_f P_f
        Cov[x_{t+1}, x_t | y] = (I - P_{t+1} N_{t+1}) T_t P_f
        r_t = u_t + A_t' r_f,  N_t = G_t + A_t' N_f A_t,  A_t = I - P_t G_t

    This gives the moments of the Rauch-Tung-Striebel recursion without inverting a predicted
    covariance, so a known start (P = 0), constants, identities and lags in the state, and singular
    innovations are allowed; it needs matrix products only, O(m^3) per time.

    Source: Bierman (1973); de Jong (1989); Durbin and Koopman (2012), sections 4.4 and 4.7.
    """
    num_times, num_states = filtered.predicted_means.shape
    varying, at_time = split_time((transition,), num_times)
    next_covs = jnp.concatenate([filtered.predicted_covs[1:], filtered.next_cov[None]])

    def step(carry, inputs):
        score, information = carry
        moments, next_cov, row_score, row_information, slices = inputs
        cov, filtered_mean, filtered_cov = moments
        (transition,) = at_time(slices)
        forward = transition @ filtered_cov
        cross_cov = forward - next_cov @ (information @ forward)
        mean = filtered_mean + forward.T @ score
        smoothed_cov = symmetrize(filtered_cov - forward.T @ information @ forward)
        keep = transition - transition @ cov @ row_information
        score = row_score + keep.T @ score
        information = symmetrize(row_information + keep.T @ information @ keep)
        return (score, information), (mean, smoothed_cov, cross_cov)

    dtype = filtered.predicted_means.dtype
    start = (jnp.zeros(num_states, dtype), jnp.zeros((num_states, num_states), dtype))
    moments = (filtered.predicted_covs, filtered.filtered_means, filtered.filtered_covs)
    inputs = (moments, next_covs, filtered.scores, filtered.information, varying)
    _, (means, covs, cross_covs) = jax.lax.scan(step, start, inputs, reverse=True)
    return SmootherMoments(means, covs, cross_covs[:-1])


def collapsed_filter_smoother(
    system: System, precisions: Array | TimeVarying, vectors: Array, remainders: Array
) -> tuple[FilterMoments, SmootherMoments]:
    """`collapsed_filter`, then `kalman_smoother`; arguments as there."""
    filtered = collapsed_filter(system, precisions, vectors, remainders)
    return filtered, kalman_smoother(system.transition, filtered)
