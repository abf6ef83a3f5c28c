"""Factor models with AR(1) errors and low-frequency flows as state spaces, errors as states.

The exact, general and slow way (`error_states` says how the state is laid out): the oracle of
everything faster, and the model of Banbura and Modugno (2014) as the NY Fed's code runs it.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import block_diag

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.error_states import (
    StateLayout,
    Weights,
    observation_weights,
    state_design,
    state_dynamics,
    state_layout,
)
from jaxfc.state_space import StateSpace, TimeVarying
from jaxfc.typing import Array, Float


class AugmentedParameters(eqx.Module):
    """Parameters with errors as states; `initial_*` is the law of the state before the first row.

    Zeros of `loadings` and `transition` are those of the blocks. `idiosyncratic_innovation_var` is
    Var(v_i). `measurement_cov`, the variance of the noise of what is observed, is not estimated by
    EM (1e-4 in the NY Fed's code, 0 for none).
    """

    loadings: Float[Array, "series factors"]
    transition: Float[Array, "lags factors factors"]
    innovation_cov: Float[Array, "factors factors"]
    idiosyncratic_ar: Float[Array, " series"]
    idiosyncratic_innovation_var: Float[Array, " series"]
    measurement_cov: Float[Array, " series"]
    initial_mean: Float[Array, " states"]
    initial_cov: Float[Array, "states states"]


def augmented_space(
    parameters: AugmentedParameters,
    weights: Weights | None = None,
    *,
    presample: bool = False,
) -> StateSpace:
    """The model with errors as states as a `StateSpace`, laid out as `error_states` says.

    **Arguments:** `weights` of the latent values in what is observed: (series, window), the newest
    first, for a calendar that never changes ((1, 2, 3, 2, 1) for quarterly growth of a monthly
    panel), or (time, series, window), or a panel's `AggregationRows`, which make the design
    `TimeVarying`; None: all series are observed as they are. They must be concrete.
    `presample=True`: the first row is the one before the panel, whose law the parameters hold; put
    a row without data first.

    **Raises:** `ValueError` for weights or an initial law of the wrong shape.

    Source: Banbura and Modugno (2014), section 2; Mariano and Murasawa (2003) for the weights.
    """
    num_series, num_factors = parameters.loadings.shape
    known = observation_weights(weights, num_series)
    layout = state_layout(known, num_factors, parameters.transition.shape[0])
    if parameters.initial_mean.shape != (layout.num_states,):
        raise ValueError(
            f"initial_mean has {parameters.initial_mean.shape[0]} entries, but the state has "
            f"{layout.num_states}: {layout.depth} periods of {num_factors} factors and "
            f"{sum(layout.windows)} errors; pass the weights that the parameters belong to."
        )
    return space_of(parameters, layout, known, presample=presample)


def space_of(
    parameters: AugmentedParameters,
    layout: StateLayout,
    weights: Array | np.ndarray,
    *,
    presample: bool,
) -> StateSpace:
    """`augmented_space` once the layout is known: `weights` may be traced."""
    matrix, noise = state_dynamics(
        layout,
        parameters.transition,
        parameters.innovation_cov,
        parameters.idiosyncratic_ar,
        parameters.idiosyncratic_innovation_var,
    )
    mean, cov = parameters.initial_mean, parameters.initial_cov
    varies = weights.ndim == 3
    if presample:
        weights = jnp.concatenate([weights[:1], weights]) if varies else weights
    else:
        mean, cov = matrix @ mean, matrix @ cov @ matrix.T + noise
    design = state_design(layout, parameters.loadings, weights)
    return StateSpace(
        initial_mean=mean,
        initial_cov=cov,
        transition=matrix,
        offset=jnp.zeros_like(mean),
        innovation_cov=noise,
        design=TimeVarying(design) if varies else design,
        observation_offset=jnp.zeros_like(parameters.measurement_cov),
        observation_cov=parameters.measurement_cov,
    )


def ar_error_space(
    parameters: FactorParameters,
    weights: Weights | None = None,
    *,
    presample: int = 0,
    measurement_cov: Float[Array, " series"] | None = None,
) -> StateSpace:
    """A factor model with AR(1) errors, stationary from the start, as a `StateSpace`.

    Var(e_it) = `idiosyncratic_cov`, so Var(v_i) = (1 - r_i^2) S_i; `idiosyncratic_ar=None`: r = 0.
    Without `measurement_cov` nothing is added to the errors: ask for
    `implementation="univariate"`, which takes zeros.

    **Arguments:** `weights` as for `augmented_space`; `presample`: how many periods before row 0
    the initial law of the parameters starts. 0 takes that law as the stationary one, which holds
    at any time.

    **Raises:** `ValueError` for correlated errors, weights of the wrong shape, and windows that
    reach further back than the initial law.
    """
    if parameters.idiosyncratic_cov.ndim != 1:
        raise ValueError(
            "errors as states need a diagonal idiosyncratic covariance, given as (series,); use "
            "idiosyncratic='diagonal'."
        )
    num_series, num_factors = parameters.loadings.shape
    variances, dtype = parameters.idiosyncratic_cov, parameters.loadings.dtype
    known = observation_weights(weights, num_series)
    layout = state_layout(known, num_factors, parameters.num_lags)
    check_reach(known, layout, parameters.num_lags, presample)
    ar = parameters.idiosyncratic_ar
    ar = jnp.zeros_like(variances) if ar is None else ar
    transition = parameters.transition
    if parameters.num_lags == 0:
        transition = jnp.zeros((1, num_factors, num_factors), dtype)
    matrix, noise = state_dynamics(
        layout, transition, parameters.innovation_cov, ar, (1.0 - ar**2) * variances
    )
    factor_mean, factor_cov = factor_law(parameters, transition, layout.depth, presample)
    num_errors = layout.num_states - layout.num_factor_states
    design = state_design(layout, parameters.loadings, known)
    offset = jnp.asarray(known.sum(axis=-1), dtype) * parameters.intercept
    return StateSpace(
        initial_mean=jnp.concatenate([factor_mean, jnp.zeros(num_errors, dtype)]),
        initial_cov=block_diag(factor_cov, error_law(layout, ar, variances)),
        transition=matrix,
        offset=jnp.zeros(layout.num_states, dtype),
        innovation_cov=noise,
        design=TimeVarying(design) if known.ndim == 3 else design,
        observation_offset=TimeVarying(offset) if known.ndim == 3 else offset,
        observation_cov=jnp.zeros_like(variances) if measurement_cov is None else measurement_cov,
    )


def augmented_parameters(
    parameters: FactorParameters,
    weights: Weights | None = None,
    *,
    measurement_cov: Float[Array, " series"],
) -> AugmentedParameters:
    """A factor model's parameters with its errors as states, stationary before the first row.

    The model of `ar_error_space`, noise of what is observed added: a start for `AugmentedEM`. The
    intercept is left out: the data are to be centred.

    **Raises:** `ValueError` as `ar_error_space`.
    """
    space = ar_error_space(parameters, weights)
    ar = parameters.idiosyncratic_ar
    ar = jnp.zeros_like(parameters.variances) if ar is None else ar
    num_factors, dtype = parameters.num_factors, parameters.loadings.dtype
    static = parameters.num_lags == 0
    return AugmentedParameters(
        loadings=parameters.loadings,
        transition=jnp.zeros((1, num_factors, num_factors), dtype)
        if static
        else parameters.transition,
        innovation_cov=parameters.innovation_cov,
        idiosyncratic_ar=ar,
        idiosyncratic_innovation_var=(1.0 - ar**2) * parameters.variances,
        measurement_cov=measurement_cov,
        initial_mean=space.initial_mean,
        initial_cov=space.initial_cov,
    )


def error_law(layout: StateLayout, ar: Array, variances: Array) -> Float[Array, "errors errors"]:
    """Stationary covariance of the errors and their lags, S_i r_i^|j - k|."""
    series, lag = layout.error_cells
    row, column = np.nonzero(np.equal.outer(series, series))
    # Whole powers one by one: their derivative exists at r = 0.
    powers = jnp.stack([ar**distance for distance in range(max(layout.windows))])
    values = variances[series[row]] * powers[np.abs(lag[row] - lag[column]), series[row]]
    position = layout.error_positions[series] + lag - layout.num_factor_states
    cov = jnp.zeros((len(series), len(series)), variances.dtype)
    return cov.at[position[row], position[column]].set(values)


def factor_law(
    parameters: FactorParameters, transition: Array, depth: int, presample: int
) -> tuple[Float[Array, " states"], Float[Array, "states states"]]:
    """Mean and covariance of the factors of the `depth` periods up to row 0, newest first."""
    num_factors = parameters.num_factors
    mean, cov = parameters.initial_mean, parameters.initial_cov
    num_periods = max(presample + 1 if presample else depth, 1)
    for _ in range(num_periods - mean.shape[0] // num_factors):
        lags = jnp.concatenate(list(transition[::-1]), axis=1)
        recent = slice(mean.shape[0] - lags.shape[1], None)
        next_cov = lags @ cov[recent]
        corner = next_cov[:, recent] @ lags.T + parameters.innovation_cov
        mean = jnp.concatenate([mean, lags @ mean[recent]])
        cov = jnp.block([[cov, next_cov.T], [next_cov, corner]])
    # What lies before the law is not reached by any window: zero stands for it.
    missing = max(depth * num_factors - mean.shape[0], 0)
    mean, cov = jnp.pad(mean, (missing, 0)), jnp.pad(cov, (missing, 0))
    order = np.arange(mean.shape[0]).reshape(-1, num_factors)[::-1][:depth].ravel()
    return mean[order], cov[order][:, order]


def check_reach(weights: np.ndarray, layout: StateLayout, num_lags: int, presample: int) -> None:
    """Raise `ValueError` if a window reaches periods of which the initial law says nothing."""
    if presample == 0:
        return
    if presample < num_lags:
        raise ValueError(
            f"presample = {presample} puts the law of {num_lags} periods partly inside the panel; "
            f"use presample = 0 (stationary) or at least {num_lags}."
        )
    if weights.ndim == 2:
        reach = layout.depth - 1 if max(layout.windows) > 1 else 0
    else:
        row, _, lag = np.nonzero(weights)
        reach = int(np.max(lag - row, initial=0))
    if reach > presample:
        raise ValueError(
            f"a window reaches {reach} periods before the panel, but the initial law starts "
            f"{presample} before it; use presample >= {reach} or the stationary law (presample=0)."
        )
