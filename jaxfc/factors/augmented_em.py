"""EM with errors as states: blocks of factors, AR(1) errors, low-frequency flows in one step.

Given the smoothed state, every part is a regression of its own:

- factors: f_t on the p lags of its own block, from the period before the panel on;
- errors: e_it on e_i,t-1, each series by itself;
- loadings: y_it less its expected error on g_it = sum_j w_ij f_{t-j}, over the observed rows of the
  series. Regressing on g is regressing on all lags of f under the linear restriction that their
  coefficients stand in the ratio of the weights;
- the law of the state before the first row: the smoothed one.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.augmented import AugmentedParameters, space_of
from jaxfc.factors.error_states import (
    StateLayout,
    Weights,
    observation_weights,
    state_design,
    state_layout,
)
from jaxfc.factors.iterate import iterate
from jaxfc.fixed_point import Outcome
from jaxfc.state_space import Posterior
from jaxfc.typing import Array, Bool, Float, as_scalar
from jaxfc_kernels.constants import LOG_2PI


class AugmentedEM(eqx.Module):
    """The model of an EM with errors as states: windows, blocks, zero loadings.

    `loads` (series, factors) says which loadings are estimated, the others being zero; `blocks`
    holds the block of every factor: factors of different blocks neither cause each other nor share
    innovations.
    """

    layout: StateLayout = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True)
    weights: Float[Array, "series window"] | Float[Array, "time series window"]
    loads: Bool[Array, "series factors"]
    implementation: str = eqx.field(static=True)
    with_constant: bool = eqx.field(static=True)
    estimates_initial_cov: bool = eqx.field(static=True)

    def smooth(
        self,
        parameters: AugmentedParameters,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
    ) -> Posterior:
        """Moments of the state, the first of the period before the panel."""
        space = space_of(parameters, self.layout, self.weights, presample=True)
        first = ((1, 0), (0, 0))
        return space.smooth(
            jnp.pad(values, first), jnp.pad(observed, first), implementation=self.implementation
        )

    def step(
        self,
        parameters: AugmentedParameters,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
    ) -> tuple[AugmentedParameters, Float[Array, ""]]:
        """Parameters after one EM step, and the log-likelihood at the old ones.

        **Source:** Banbura and Modugno (2014), equations 6, 8 and 13.
        """
        posterior = self.smooth(parameters, values, observed)
        sums = total_moments(posterior)
        transition, innovation_cov = factor_regression(
            sums, self.blocks, parameters.transition.shape[0], values.shape[0]
        )
        newest = self.layout.error_positions
        before, cross = sums.before[newest, newest], sums.cross[newest, newest]
        ar = cross / before
        loadings = loading_regression(self, posterior, values, observed)
        initial_cov, loglik = parameters.initial_cov, posterior.loglik
        if self.estimates_initial_cov:
            initial_cov = posterior.smoothed_covs[0]
        if not self.with_constant:
            loglik = loglik + 0.5 * LOG_2PI * jnp.sum(observed)
        updated = AugmentedParameters(
            loadings=loadings,
            transition=transition,
            innovation_cov=innovation_cov,
            idiosyncratic_ar=ar,
            idiosyncratic_innovation_var=(sums.now[newest, newest] - ar * cross) / values.shape[0],
            measurement_cov=parameters.measurement_cov,
            initial_mean=posterior.smoothed_means[0],
            initial_cov=initial_cov,
        )
        return updated, loglik


def augmented_em(
    num_series: int,
    num_factors: int,
    num_lags: int,
    weights: Weights | None = None,
    *,
    blocks: tuple[int, ...] | None = None,
    loads: Bool[Array | np.ndarray, "series factors"] | None = None,
    implementation: str = "univariate",
    with_constant: bool = True,
    estimates_initial_cov: bool = True,
) -> AugmentedEM:
    """The EM of a factor model with errors as states, checked.

    **Arguments:** `weights` as for `augmented_space`; `blocks` and `loads` as fields of
    `AugmentedEM` (None: one block, all loadings); `implementation` of the Kalman filter
    ("univariate" also takes a `measurement_cov` of zero); `with_constant=False` leaves the 2 pi
    constant out of the likelihood, as MATLAB code does, which matters to a stopping rule in
    relative changes; `estimates_initial_cov=False` keeps the first state's covariance at its start.

    **Raises:** `ValueError` for a series without a factor and for shapes that do not fit.
    """
    known = observation_weights(weights, num_series)
    blocks = (0,) * num_factors if blocks is None else blocks
    loads = np.ones((num_series, num_factors), bool) if loads is None else np.asarray(loads)
    if len(blocks) != num_factors or loads.shape != (num_series, num_factors):
        raise ValueError(
            f"{num_series} series and {num_factors} factors need loads of that shape and one block "
            f"per factor, got loads {loads.shape} and {len(blocks)} blocks."
        )
    empty = np.flatnonzero(~loads.any(axis=1))
    if len(empty):
        raise ValueError(
            f"series {empty.tolist()} load on no factor; give each at least one, or drop them."
        )
    return AugmentedEM(
        layout=state_layout(known, num_factors, num_lags),
        blocks=tuple(blocks),
        weights=jnp.asarray(known),
        loads=jnp.asarray(loads),
        implementation=implementation,
        with_constant=with_constant,
        estimates_initial_cov=estimates_initial_cov,
    )


def run_augmented_em(
    method: AugmentedEM,
    start: AugmentedParameters,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    *,
    rtol: float = 1e-4,
    max_steps: int = 500,
) -> Outcome:
    """EM steps from `start` until the likelihood changes by less than `rtol`, relatively.

    The change is |difference| / mean of the two, the rule of the NY Fed's code.
    """

    def step(parameters, data):
        method, values, observed = data
        return method.step(parameters, values, observed)

    data = (method, values, observed)
    return iterate(step, start, data, rtol=as_scalar(rtol), max_steps=max_steps)


class Sums(NamedTuple):
    """Expected sums over the rows: s_t s_t', s_{t-1} s_{t-1}', s_t s_{t-1}'."""

    now: Array
    before: Array
    cross: Array


def total_moments(posterior: Posterior) -> Sums:
    """Second moments of the states of all rows, and with the state before."""
    means, covs = posterior.smoothed_means, posterior.smoothed_covs
    squares = means.T @ means + covs.sum(axis=0)
    lagged = means[1:].T @ means[:-1] + posterior.smoothed_cross_covs.sum(axis=0)
    first = jnp.outer(means[0], means[0]) + covs[0]
    last = jnp.outer(means[-1], means[-1]) + covs[-1]
    return Sums(squares - first, squares - last, lagged)


def masked_solve(matrix: Array, right: Array, active: Array) -> Array:
    """Solution among the active coefficients, zero elsewhere."""
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    matrix = jnp.where(active[:, None] & active, matrix, identity)
    return jnp.linalg.solve(matrix, jnp.where(active, right, 0.0))


def factor_regression(
    sums: Sums, blocks: tuple[int, ...], num_lags: int, num_times: int
) -> tuple[Float[Array, "lags factors factors"], Float[Array, "factors factors"]]:
    """VAR(p) of every block on its own lags, and its innovation covariance."""
    num_factors = len(blocks)
    same = np.equal.outer(blocks, blocks)
    size = num_lags * num_factors
    before, cross = sums.before[:size, :size], sums.cross[:num_factors, :size]
    active = jnp.asarray(np.tile(same, num_lags))
    lags = jax.vmap(masked_solve, in_axes=(None, 0, 0))(before, cross, active)
    cov = (sums.now[:num_factors, :num_factors] - lags @ cross.T) / num_times
    cov = jnp.where(jnp.asarray(same), 0.5 * (cov + cov.T), 0.0)
    return lags.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1), cov


def loading_regression(
    method: AugmentedEM,
    posterior: Posterior,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
) -> Float[Array, "series factors"]:
    """Loadings of every series given the moments of the factors and of its error."""
    layout, num_times = method.layout, values.shape[0]
    num_factors, width = layout.num_factors, layout.num_factor_states
    means, covs = posterior.smoothed_means[1:], posterior.smoothed_covs[1:]
    common, factor_covs = means[:, :width], covs[:, :, :width]
    num_series = values.shape[1]
    errors = state_design(layout, jnp.zeros((num_series, num_factors)), method.weights)
    windows = jnp.pad(
        method.weights[..., : layout.depth],
        [(0, 0)] * (method.weights.ndim - 1)
        + [(0, max(layout.depth - method.weights.shape[-1], 0))],
    )
    if windows.ndim == 2:
        windows = jnp.broadcast_to(windows, (num_times, *windows.shape))
        errors = jnp.broadcast_to(errors, (num_times, *errors.shape))
    second = factor_covs[:, :width] + common[:, :, None] * common[:, None, :]
    second = second.reshape(num_times, layout.depth, num_factors, layout.depth, num_factors)
    lagged = common.reshape(num_times, layout.depth, num_factors)

    def one(inputs):
        value, seen, window, error, active = inputs
        weight = jnp.where(seen[:, None], window, 0.0)
        flow = jnp.einsum("tj,tjk->tk", weight, lagged)
        square = jnp.einsum("tj,tjakb,tk->ab", weight, second, weight)
        error_mean = jnp.einsum("ts,ts->t", error, means)
        joint = jnp.einsum("ts,tsw->tw", error, factor_covs)
        joint = joint.reshape(num_times, layout.depth, num_factors)
        rest = jnp.where(seen, value - error_mean, 0.0)
        cross = rest @ flow - jnp.einsum("tj,tjk->k", weight, joint)
        return masked_solve(square, cross, active)

    inputs = (values.T, observed.T, windows.swapaxes(0, 1), errors.swapaxes(0, 1), method.loads)
    return jax.lax.map(one, inputs)
