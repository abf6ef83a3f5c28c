"""The log-likelihood of the factor model with its score by Fisher's identity.

With x the observed cells, F the factor path and m(theta) the moments of F | x at theta,

    d/dtheta ln p(x; theta) = E[d/dtheta ln p(x, F; theta) | x; theta] = d/dtheta Q(theta; m),

where Q(theta; m) = E[ln p(x, F; theta)] is taken under fixed moments m, and the derivative at
m = m(theta). (ln p(x, F) = ln p(x) + ln p(F | x), and the score of the density p(F | x) has
expectation zero under itself.) With r_it = x_it - mu_i - W_i' E[f_t], V_t = Cov[f_t | x], O_i the
observed times of series i, g_t = (f_{t-1}', ..., f_{t-p}')', u_t = f_t - A g_t and M = sum_t
E[u_t u_t' | x] over its T' terms, this is

    loadings        W_i:   S_i^{-1} sum_{t in O_i} (r_it E[f_t] - V_t W_i)
    intercept       mu_i:  S_i^{-1} sum_{t in O_i} r_it
    variances       S_i:   (1/2) S_i^{-2} sum_{t in O_i} (r_it^2 + W_i' V_t W_i - S_i)
    transition      A:     Q^{-1} sum_t E[u_t g_t' | x]           (+ G_A)
    innovation_cov  Q:     (1/2) Q^{-1} (M - T' Q) Q^{-1}         (+ G_Q)
    initial law (m, P):    P^{-1} E[d | x],  (1/2) P^{-1} (E[d d' | x] - P) P^{-1},  d = f_0.. - m
    data            x_it:  -S_i^{-1} r_it

The stationary initial law has m = 0 and P = P(A, Q), the solution of P = A P A' + B Q B' in
companion form. Its own gradient D = (1/2) P^{-1} (E[d d' | x] - P) P^{-1} then reaches A and Q
through the adjoint Lyapunov equation L = A' L A + D: G_A = (2 L A P) and G_Q = (B' L B), cut to the
first block row of the companion matrix.

AR(1) errors and low-frequency flows add bands to the precision of the path instead of blocks on its
diagonal, and flows have latent scalars of their own; the identity is the same.

Q is a handful of sums over moments, so that automatic differentiation of it is these formulas; what
it spares is differentiating the smoother. The moments are differentiated only for second
derivatives, d/dtheta [dQ/dtheta (theta; m(theta))].
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import centred_values, coupled_misfit, factors_only, residuals_of
from jaxfc.factors.em import INITIAL, EMStep, PanelData
from jaxfc.factors.moments import (
    ClosedForm,
    FactorPosterior,
    Moments,
    expected_factor_loglik,
)
from jaxfc.factors.weighting import weights_on
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import packed_indices, unpack
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.var_precision import stationary_block_cov


def loglik(
    parameters: FactorParameters,
    data: PanelData,
    *,
    initial: str = "stationary",
    presample: int | None = None,
    moments: Moments | None = None,
) -> Float[Array, ""]:
    """ln p(observed cells; parameters) of the standardised panel, errors independent over series.

    The gradient costs one E-step (Fisher's identity; derivation at the top of the file) and can
    itself be differentiated in forward mode, so that Hessian-vector products and
    `jax.jacfwd(jax.grad(...))` work, under `jit` and `vmap` too. Differentiable in the parameters
    and in `data.values`, with derivative zero where nothing is observed.

    **Arguments:** `parameters` in standardised units; `data` values (time, series) and mask, with
    its `coupling` where errors are AR(1) over time or series are low-frequency flows;
    `initial`: "stationary" takes the law of the first factors from the transition and the
    innovation covariance (and ignores `initial_mean`, `initial_cov`), "estimated" takes it from
    `parameters`, as the law of the `presample` periods (default: as many as there are lags) before
    the panel and of what follows; `moments`: how the E-step is computed, `ClosedForm()` if None.

    **Raises:** `ValueError` for an unknown `initial`, for errors that are correlated across series,
    and for AR(1) errors without a coupling. A transition that is not stationary gives NaN with
    initial="stationary".

    Source: Fisher (1925); Dempster, Laird and Rubin (1977), section 3; Koopman and Shephard (1992).
    """
    if initial not in INITIAL:
        raise ValueError(f"initial must be one of {INITIAL}, got {initial!r}.")
    if parameters.idiosyncratic_cov.ndim != 1:
        raise ValueError(
            "the score needs errors that are independent across series (a vector of variances), "
            f"got a covariance matrix {parameters.idiosyncratic_cov.shape}; estimate with "
            "idiosyncratic='diagonal'."
        )
    if parameters.idiosyncratic_ar is not None and data.coupling is None:
        raise ValueError(
            "AR(1) errors need the gaps of the panel: give `data` its coupling (fitted_data of a "
            "fitted model has it), or leave idiosyncratic_ar out."
        )
    if presample is None:
        presample = parameters.num_lags if initial == "estimated" else 0
    observed = jax.lax.stop_gradient(data.observed)
    values = jnp.where(observed > 0, data.values, 0.0)
    data = dataclasses.replace(data, values=values, observed=observed)
    step = EMStep(
        ClosedForm() if moments is None else moments,
        variance_floor=jnp.zeros((), values.dtype),
        initial=initial,
        presample=presample,
    )
    return loglik_by_fisher(step, with_initial_law(parameters, initial), data)


def with_initial_law(parameters: FactorParameters, initial: str) -> FactorParameters:
    """The parameters with the initial law that `initial` means and symmetric covariances.

    Derivatives with respect to a covariance are symmetric then, whatever the E-step reads of it.
    """
    innovation_cov = symmetric(parameters.innovation_cov)
    mean, cov = parameters.initial_mean, symmetric(parameters.initial_cov)
    if parameters.num_lags == 0:
        mean, cov = jnp.zeros_like(mean), jnp.eye(cov.shape[0], dtype=cov.dtype)
    elif initial == "stationary":
        mean, cov = (
            jnp.zeros_like(mean),
            stationary_block_cov(parameters.transition, innovation_cov),
        )
    return dataclasses.replace(
        parameters, innovation_cov=innovation_cov, initial_mean=mean, initial_cov=cov
    )


def symmetric(matrix: Float[Array, "rows rows"]) -> Float[Array, "rows rows"]:
    """The symmetric part."""
    return 0.5 * (matrix + matrix.T)


def expected_complete_loglik(
    step: EMStep, parameters: FactorParameters, data: PanelData, states: FactorPosterior
) -> Float[Array, ""]:
    """Q(theta; m) = E[ln p(x, F; theta)] with the moments of F and of flows' scalars held fixed."""
    after = states.after(step.presample)
    if data.coupling is not None:
        measurement = expected_coupled(step, parameters, data, after)
        return measurement + expected_factor_loglik(
            parameters, factors_only(states, parameters.num_factors)
        )
    loadings, variances = parameters.loadings, parameters.idiosyncratic_cov
    residuals = data.values - data.observed * (parameters.intercept + after.means @ loadings.T)
    num_factors = loadings.shape[1]
    rows, columns, _ = packed_indices(num_factors)
    cov_sums = unpack(data.observed.T @ after.covs[:, rows, columns], num_factors)
    spread = jnp.einsum("ni,nij,nj->n", loadings, cov_sums, loadings)
    squares = jnp.sum(residuals**2, axis=0) + spread
    counts = jnp.sum(data.observed, axis=0)
    measurement = -0.5 * jnp.sum(counts * (LOG_2PI + jnp.log(variances)) + squares / variances)
    return measurement + expected_factor_loglik(parameters, states)


def expected_coupled(
    step: EMStep, parameters: FactorParameters, data: PanelData, states: FactorPosterior
) -> Float[Array, ""]:
    """The part of the panel where it couples periods: E[ln p(x, s | F)], s the flows' scalars.

    With H the bands of what the panel adds to the precision of the path, its quadratic form has the
    expectation (misfit at the means) + tr(H Cov[path]); a band below the diagonal counts twice.
    """
    coupling = data.coupling
    assert coupling is not None
    centred = centred_values(data.values, data.observed, parameters.intercept, coupling)
    collapsed = step.collapse(parameters, data, centred)
    left = residuals_of(parameters, coupling, centred, data.observed, states.means)
    weights = weights_on(parameters.error_weights, centred.shape[0])
    misfit = coupled_misfit(parameters, coupling, left, data.observed, weights)
    spread = jnp.sum(collapsed.information * states.covs)
    if collapsed.lagged_information is not None:
        num_bands = collapsed.lagged_information.shape[0]
        lagged = states.lag_covs[1 : num_bands + 1]
        spread = spread + 2.0 * jnp.sum(collapsed.lagged_information * lagged)
    return -0.5 * (collapsed.log_normaliser + misfit + spread)


@jax.custom_jvp
def loglik_by_fisher(
    step: EMStep, parameters: FactorParameters, data: PanelData
) -> Float[Array, ""]:
    """The likelihood of an E-step, differentiated by Fisher's identity."""
    return step.expect(parameters, data).loglik


@loglik_by_fisher.defjvp
def fisher_jvp(
    primals: tuple[EMStep, FactorParameters, PanelData],
    tangents: tuple[EMStep, FactorParameters, PanelData],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Directional derivative of Q at fixed moments: linear in the tangents, so it transposes."""
    step, parameters, data = primals
    expectation = step.expect(parameters, data)

    def expected(parameters: FactorParameters, values: Array) -> Float[Array, ""]:
        changed = dataclasses.replace(data, values=values)
        return expected_complete_loglik(step, parameters, changed, expectation.states)

    _, parameter_slopes, data_slopes = tangents
    _, slope = jax.jvp(expected, (parameters, data.values), (parameter_slopes, data_slopes.values))
    return expectation.loglik, slope
