"""M-step of the factor VAR: transition, innovation covariance, initial law.

    A = (sum_t E[f_t g_t']) (sum_t E[g_t g_t'])^{-1},   Q = sum_t E[(f_t - A g_t)(f_t - A g_t)'] /
    T'

with g_t = (f_{t-1}', ..., f_{t-p}')'. Under restrictions A solves the normal equations of
generalised least squares with the old Q, on its free entries, and Q is the residual moment on its
free blocks.
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.moments import FactorPosterior, window_moments
from jaxfc.factors.restrictions import Restrictions, impose, without_fixed
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.var_precision import inverse_and_log_det, stationary_block_cov

if TYPE_CHECKING:
    from jaxfc.factors.em import EMStep

Dynamics = tuple[Array, Array, Array, Array]


def var_step(
    step: "EMStep",
    parameters: FactorParameters,
    posterior: FactorPosterior,
    end: Int[Array, ""] | None,
) -> Dynamics:
    """VAR coefficients, innovation covariance and initial law from periods before `end`."""
    num_lags = parameters.num_lags
    if num_lags == 0:
        return (
            parameters.transition,
            parameters.innovation_cov,
            parameters.initial_mean,
            parameters.initial_cov,
        )
    # Periods before the panel are no innovations of the VAR: then every candidate has them all.
    lags = step.active_lags if step.initial == "stationary" else None
    used = None if lags is None else jnp.sum(lags)
    moments, count = window_moments(posterior, num_lags, used, end)
    transition, innovation_cov = maximum(step, parameters, moments, count)
    if step.initial == "stationary":
        initial_cov = stationary_block_cov(transition, innovation_cov)
        return transition, innovation_cov, jnp.zeros_like(parameters.initial_mean), initial_cov
    initial_mean = posterior.means[:num_lags].reshape(-1)
    return transition, innovation_cov, initial_mean, posterior.joint_cov(range(num_lags))


def maximum(
    step: "EMStep",
    parameters: FactorParameters,
    moments: Float[Array, "window window"],
    count: int | Int[Array, ""],
) -> tuple[Float[Array, "lags factors factors"], Float[Array, "factors factors"]]:
    """Transition and innovation covariance that maximise the expected likelihood."""
    num_lags, num_factors = parameters.num_lags, parameters.num_factors
    regressors, cross = moments[num_factors:, num_factors:], moments[:num_factors, num_factors:]
    switched_on = active_states(step, num_lags, num_factors)
    if switched_on is not None:
        regressors, cross = switch_off_states(regressors, cross, switched_on)
    rules = step.restrictions
    if rules is None or (rules.transition is None and rules.on_transition is None):
        inverse, _ = inverse_and_log_det(regressors)
        coefficients = cross @ inverse
        explained = coefficients @ cross.T
        innovation_cov = moments[:num_factors, :num_factors] - explained
    else:
        coefficients = restricted(rules, parameters, regressors, cross)
        explained = coefficients @ cross.T
        innovation_cov = moments[:num_factors, :num_factors] - explained - explained.T
        innovation_cov = innovation_cov + coefficients @ regressors @ coefficients.T
    innovation_cov = innovation_cov / count
    innovation_cov = 0.5 * (innovation_cov + innovation_cov.T)
    if rules is not None and rules.penalty is not None:
        innovation_cov = parameters.innovation_cov
    elif rules is not None and rules.innovations is not None:
        innovation_cov = jnp.where(rules.innovations, innovation_cov, 0.0)
    if step.active_factors is not None:
        both = step.active_factors[:, None] & step.active_factors
        coefficients = jnp.where(step.active_factors[:, None], coefficients, 0.0)
        identity = jnp.eye(num_factors, dtype=moments.dtype)
        innovation_cov = jnp.where(both, innovation_cov, identity)
    transition = coefficients.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)
    return transition, innovation_cov


def switch_off_states(
    regressors: Float[Array, "states states"],
    cross: Float[Array, "factors states"],
    switched_on: Bool[Array, " states"],
) -> tuple[Array, Array]:
    """Normal equations without the regressors that a smaller candidate does not have."""
    identity = jnp.eye(regressors.shape[0], dtype=regressors.dtype)
    both = switched_on[:, None] & switched_on
    return jnp.where(both, regressors, identity), jnp.where(switched_on, cross, 0.0)


def restricted(
    rules: Restrictions,
    parameters: FactorParameters,
    regressors: Float[Array, "states states"],
    cross: Float[Array, "factors states"],
) -> Float[Array, "factors states"]:
    """argmin tr Q^{-1} (A M A' - 2 C A') over the free entries of A under the linear equations.

    Row by row of A the Hessian is Q^{-1} kron M; K^2 p unknowns, solved as one dense system.
    """
    num_lags, num_factors, _ = parameters.transition.shape
    weight, _ = inverse_and_log_det(parameters.innovation_cov)
    hessian = jnp.kron(weight, regressors)
    linear = (weight @ cross).reshape(-1)
    if rules.transition is not None:
        free = jnp.swapaxes(rules.transition, 0, 1).reshape(-1)
        hessian, linear = without_fixed(hessian, linear, free)
    inverse = jnp.linalg.inv(hessian)

    def as_transition(flat: Array) -> Array:
        return flat.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)

    def as_flat(transition: Array) -> Array:
        flat = jnp.swapaxes(transition, 0, 1).reshape(-1)
        if rules.transition is None:
            return flat
        return jnp.where(jnp.swapaxes(rules.transition, 0, 1).reshape(-1), flat, 0.0)

    solution = as_transition(inverse @ linear)
    if rules.on_transition is not None:
        equations = rules.on_transition
        solution = impose(
            solution,
            lambda row: as_transition(inverse @ as_flat(row)),
            equations.coefficients,
            equations.values,
        )
    return jnp.swapaxes(solution, 0, 1).reshape(num_factors, -1)


def active_states(step: "EMStep", num_lags: int, num_factors: int) -> Bool[Array, " states"] | None:
    """Which regressors of the VAR are switched on (None: all)."""
    if step.active_factors is None and step.active_lags is None:
        return None
    factors = step.active_factors
    lags = step.active_lags
    factors = jnp.ones(num_factors, bool) if factors is None else factors
    lags = jnp.ones(num_lags, bool) if lags is None else lags
    return (lags[:, None] & factors).reshape(-1)
