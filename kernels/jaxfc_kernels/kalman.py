"""The Kalman filter of a linear-Gaussian state space, with an observation mask.

    x_0 ~ N(initial_mean, initial_cov),  x_{t+1} = c_t + T_t x_t + eta_t,  eta_t ~ N(0, Q_t),
    y_t = d_t + Z_t x_t + eps_t,         eps_t ~ N(0, R_t).

Time convention, once: x_0 is the state at the first observation y_0, before y_0 is seen, and index
t of T, c, Q is the step from x_t to x_{t+1}. The filter alternates "see y_t" and "step to t + 1".

Missing cells never produce a NaN: their rows of Z_t and their errors are zero and their block of
R_t is the identity, so that they add nothing to the gain, the quadratic form or the
log-determinant, and every derivative stays finite. A row without observations is a pure prediction.
The update by one row is in `kalman_update`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.kalman_collapse import centre, collapse_observations
from jaxfc_kernels.kalman_system import System, TimeVarying, split_time
from jaxfc_kernels.kalman_update import (
    Measurement,
    joint_measurement,
    symmetrize,
    univariate_measurement,
)
from jaxfc_kernels.semidefinite import semidefinite_chol

IMPLEMENTATIONS = ("joint", "univariate", "collapsed")


class FilterMoments(NamedTuple):
    """What the filter knows at each time, and what the smoother needs of it.

    `predicted_*` (time, states[, states]) before y_t, `filtered_*` after it; `next_mean`,
    `next_cov` the prediction of the first time past the data; `scores` u_t (time, states) and
    `information` G_t (time, states, states); `loglik_terms` (time,).
    """

    predicted_means: Array
    predicted_covs: Array
    filtered_means: Array
    filtered_covs: Array
    next_mean: Array
    next_cov: Array
    scores: Array
    information: Array
    loglik_terms: Array

    @property
    def loglik(self) -> Array:
        """log p(y_observed)."""
        return jnp.sum(self.loglik_terms)


def check_implementation(implementation: str, observation_cov: Array | TimeVarying) -> None:
    """Raise `ValueError` for an implementation that is unknown or does not apply."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {list(IMPLEMENTATIONS)}, got {implementation!r}."
        )
    is_varying = isinstance(observation_cov, TimeVarying)
    rank = observation_cov.values.ndim - 1 if is_varying else observation_cov.ndim
    if implementation == "univariate" and rank != 1:
        raise ValueError(
            "implementation='univariate' needs a diagonal observation_cov, given as its diagonal "
            "(series,), got a matrix; use implementation='joint' or 'collapsed'."
        )


def kalman_filter(
    system: System, values: Array, observed: Array | None, *, implementation: str = "joint"
) -> FilterMoments:
    """Predicted and filtered moments of the state and the log-likelihood.

    `values`, `observed` (time, series); what stands in `values` where not `observed` is never read;
    `observed=None` states that every cell is observed. `implementation`:

    - "joint": any R; N^3 / 3 flops per time;
    - "univariate": R diagonal, given as a vector; N sequential steps of m^2 per time;
    - "collapsed": R positive definite; N m^2 + m^3 per time if R is given as a vector, or if
      `observed=None` and R is constant (one N^3 / 3 in all); else N^3 / 3 per time as "joint".

    Source: Durbin and Koopman (2012), sections 4.3, 4.10 and 6.4.
    """
    check_implementation(implementation, system.observation_cov)
    if implementation == "collapsed":
        return collapsed_filter(system, *collapse_observations(system, values, observed))
    if observed is None:
        observed = jnp.ones(values.shape, bool)
    measure = joint_measurement if implementation == "joint" else univariate_measurement
    num_times = values.shape[0]
    varying, at_time = split_time(system[2:], num_times)

    def step(carry, inputs):
        mean, cov = carry
        value, seen, slices = inputs
        transition, offset, innovation_cov, design, shift, observation_cov = at_time(slices)
        design = jnp.where(seen[:, None], design, 0.0)
        errors = jnp.where(seen, value - shift, 0.0) - design @ mean
        row = measure(cov, design, errors, seen, observation_cov)
        return predict(mean, cov, row, transition, offset, innovation_cov)

    values = jnp.where(observed, values, 0.0)
    start = (system.initial_mean, system.initial_cov)
    return run_filter(step, start, (values, observed, varying))


def predict(
    mean: Array,
    cov: Array,
    row: Measurement,
    transition: Array,
    offset: Array,
    innovation_cov: Array,
) -> tuple[tuple[Array, Array], tuple]:
    """Filter with a measurement and step to the next time: the carry and the outputs of a scan."""
    filtered_mean = mean + cov @ row.score
    next_cov = symmetrize(transition @ row.filtered_cov @ transition.T + innovation_cov)
    outputs = (mean, cov, filtered_mean, row.filtered_cov, row.score, row.information, row.loglik)
    return (offset + transition @ filtered_mean, next_cov), outputs


def run_filter(step: Callable, start: tuple[Array, Array], inputs: tuple) -> FilterMoments:
    """Scan `step` over time and name what comes out."""
    (next_mean, next_cov), outputs = jax.lax.scan(step, start, inputs)
    mean, cov, filtered_mean, filtered_cov, score, information, loglik = outputs
    return FilterMoments(
        predicted_means=mean,
        predicted_covs=cov,
        filtered_means=filtered_mean,
        filtered_covs=filtered_cov,
        next_mean=next_mean,
        next_cov=next_cov,
        scores=score,
        information=information,
        loglik_terms=loglik,
    )


def prediction_errors(
    system: System, values: Array, observed: Array | None, filtered: FilterMoments
) -> Array:
    """y_t - d_t - Z_t E[x_t | y_0..y_{t-1}] where observed, else 0; (time, series)."""
    means = filtered.predicted_means
    if isinstance(system.design, TimeVarying):
        fitted = jnp.einsum("tia,ta->ti", system.design.values[: values.shape[0]], means)
    else:
        fitted = means @ system.design.T
    errors = centre(system, values, observed) - fitted
    return errors if observed is None else jnp.where(observed, errors, 0.0)


def collapsed_filter(
    system: System, precisions: Array | TimeVarying, vectors: Array, remainders: Array
) -> FilterMoments:
    """The filter of observations that were reduced to the dimension of the state beforehand.

    C_t = Z_t' R_t^{-1} Z_t is `precisions` ((states, states), or `TimeVarying` of (time, states,
    states)), h_t = Z_t' R_t^{-1} (y_t - d_t) is `vectors` (time, states) and `remainders` (time,)
    is n_t log 2 pi + log det R_t + (y_t - d_t)' R_t^{-1} (y_t - d_t), over observed series only.
    The observation fields of `system` are not read. Cost O(m^3) per time, whatever N.

    With C = F F' (F lower triangular, zero columns where C is singular) and F y* = h, the m values
    y*_t = F' x_t + N(0, I) say all that y_t says of x_t, and the rest of y_t adds
    -(remainder - y*'y*) / 2 to the likelihood. So C may have any rank: fewer observed series than
    states, or none.

    Source: Jungbacker and Koopman (2015), section 2.
    """
    num_times, num_states = vectors.shape
    if isinstance(precisions, TimeVarying):
        chols = jax.vmap(semidefinite_chol)(precisions.values[:num_times])
        design = TimeVarying(jnp.swapaxes(chols, 1, 2))
    else:
        chols = semidefinite_chol(precisions)
        design = chols.T
        chols = jnp.broadcast_to(chols, (num_times, num_states, num_states))
    is_empty = jnp.diagonal(chols, axis1=1, axis2=2) == 0.0
    filled = chols + jnp.where(is_empty[:, :, None], jnp.eye(num_states, dtype=chols.dtype), 0.0)
    reduced = solve_triangular(filled, vectors[:, :, None], lower=True)[:, :, 0]
    reduced = jnp.where(is_empty, 0.0, reduced)
    collapsed = system._replace(
        design=design,
        observation_offset=jnp.zeros_like(vectors[0]),
        observation_cov=jnp.ones_like(vectors[0]),
    )
    filtered = kalman_filter(collapsed, reduced, None)
    rest = remainders - jnp.sum(reduced**2, axis=1) - num_states * LOG_2PI
    return filtered._replace(loglik_terms=filtered.loglik_terms - 0.5 * rest)
