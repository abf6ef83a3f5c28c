"""Exposures that move: one small Kalman filter an asset, all of them in one `vmap`."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.levels import product
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.kalman import FilterMoments, kalman_filter
from jaxfc_kernels.kalman_smoother import SmootherMoments, kalman_smoother
from jaxfc_kernels.kalman_system import System, TimeVarying

# Closer to one, a level and its own slow movement cannot be told apart.
MAX_PERSISTENCE = 0.9999


class ExposureDynamics(NamedTuple):
    """How the coefficients b of an asset of a sector move, coefficient by coefficient.

        b_0 ~ N(centre, initial variance),
        b_t - centre = persistence (b_{t-1} - centre) + u_t,   u_t ~ N(0, innovation variance)

    `centres`, `persistence`, `innovation_variances` (sectors, coefficients); `initial_variances`
    (coefficients,), of the first row of the data. A persistence of one is a random walk.
    """

    centres: Float[Array, "sectors coefficients"]
    persistence: Float[Array, "sectors coefficients"]
    innovation_variances: Float[Array, "sectors coefficients"]
    initial_variances: Float[Array, " coefficients"]


class ExposureRows(eqx.Module):
    """What is observed: returns where `known`, the row x_t that coefficients multiply (constant and
    factors; zero in the place of a factor that is left out), and variances that a factor's
    absence adds to the errors."""

    values: Float[Array, "time series"]
    known: Bool[Array, "time series"]
    columns: Float[Array, "time coefficients"]
    added: Float[Array, "time series"]


class ExposurePaths(NamedTuple):
    """Moments of all coefficients given the rows before (`predicted_*`, one row more than there are
    data), up to the row (`filtered_*`) and all rows (`smoothed_*`); `cross_covs` row t is
    Cov(b_{t+1}, b_t); `logliks` by asset."""

    predicted_means: Float[Array, "series rows coefficients"]
    predicted_covs: Float[Array, "series rows coefficients coefficients"]
    filtered_means: Float[Array, "series time coefficients"]
    filtered_covs: Float[Array, "series time coefficients coefficients"]
    smoothed_means: Float[Array, "series time coefficients"]
    smoothed_covs: Float[Array, "series time coefficients coefficients"]
    cross_covs: Float[Array, "series transitions coefficients coefficients"]
    logliks: Float[Array, " series"]


def exposure_paths(
    rows: ExposureRows,
    members: Int[Array, " series"],
    dynamics: ExposureDynamics,
    variances: Float[Array, " series"],
) -> ExposurePaths:
    """Filter and smooth the coefficients of every asset: R_it = x_t' b_it + e_it.

    Given the factors, assets are independent. A return that is not known is a step of prediction.
    Costs O(time series coefficients^3).

    Source: Durbin and Koopman (2012), chapter 4.
    """
    diagonal = jnp.diag
    values = jnp.where(rows.known, rows.values, 0.0)
    design = TimeVarying(rows.columns[:, None, :])

    def one(member: Array, value: Array, known: Array, added: Array, variance: Array):
        centre, persistence, innovation = (field[member] for field in dynamics[:3])
        system = System(
            initial_mean=centre,
            initial_cov=diagonal(dynamics.initial_variances),
            transition=diagonal(persistence),
            offset=(1.0 - persistence) * centre,
            innovation_cov=diagonal(innovation),
            design=design,
            observation_offset=jnp.zeros_like(value[:1]),
            observation_cov=TimeVarying((variance + added)[:, None]),
        )
        filtered = kalman_filter(
            system, value[:, None], known[:, None], implementation="univariate"
        )
        return filtered, kalman_smoother(system.transition, filtered)

    filtered, smoothed = jax.vmap(one)(members, values.T, rows.known.T, rows.added.T, variances)
    return named_paths(filtered, smoothed)


def named_paths(filtered: FilterMoments, smoothed: SmootherMoments) -> ExposurePaths:
    """Moments of the kernels, assets first."""
    means, covs = filtered.predicted_means, filtered.predicted_covs
    return ExposurePaths(
        predicted_means=jnp.concatenate([means, filtered.next_mean[:, None]], axis=1),
        predicted_covs=jnp.concatenate([covs, filtered.next_cov[:, None]], axis=1),
        filtered_means=filtered.filtered_means,
        filtered_covs=filtered.filtered_covs,
        smoothed_means=smoothed.smoothed_means,
        smoothed_covs=smoothed.smoothed_covs,
        cross_covs=smoothed.smoothed_cross_covs,
        logliks=jnp.sum(filtered.loglik_terms, axis=1),
    )


def updated_dynamics(
    paths: ExposurePaths,
    known: Bool[Array, "time series"],
    members: Int[Array, " series"],
    dynamics: ExposureDynamics,
    moves: bool,
) -> ExposureDynamics:
    """The M-step: averages of smoothed moments over the assets of each sector, coefficient by
    coefficient, persistence first (if it `moves`), then variances, then centres.

    Steps after an asset's last return say nothing and do not count.
    """
    num_sectors = dynamics.centres.shape[0]
    seen = jnp.flip(jnp.cumsum(jnp.flip(known.T, 1), axis=1), 1) > 0  # a return then or later
    steps = seen[:, 1:, None].astype(paths.smoothed_means.dtype)
    starts = seen[:, 0, None].astype(steps.dtype)

    def pooled(values: Array) -> Array:
        return jax.ops.segment_sum(values, members, num_sectors)

    means = paths.smoothed_means
    own = jnp.diagonal(paths.smoothed_covs, axis1=2, axis2=3)
    cross = jnp.diagonal(paths.cross_covs, axis1=2, axis2=3)
    gaps = means - dynamics.centres[members][:, None]
    squares = gaps**2 + own
    now, later = (pooled(jnp.sum(steps * part, 1)) for part in (squares[:, :-1], squares[:, 1:]))
    both = pooled(jnp.sum(steps * (gaps[:, 1:] * gaps[:, :-1] + cross), axis=1))
    persistence = jnp.ones_like(dynamics.persistence)
    if moves:
        best = jnp.where(now > 0.0, both / jnp.where(now > 0.0, now, 1.0), dynamics.persistence)
        persistence = jnp.clip(best, -MAX_PERSISTENCE, MAX_PERSISTENCE)
    numbers, assets = pooled(jnp.sum(steps, axis=1)), pooled(starts)
    left = later - 2.0 * persistence * both + persistence**2 * now
    innovations = jnp.where(
        numbers > 0.0, left / jnp.maximum(numbers, 1.0), dynamics.innovation_variances
    )
    initial = jnp.sum(starts * squares[:, 0], axis=0) / jnp.maximum(jnp.sum(starts), 1.0)
    away = 1.0 - persistence
    moved = pooled(
        jnp.sum(steps * (means[:, 1:] - persistence[members][:, None] * means[:, :-1]), 1)
    )
    # Precisions times the innovation variance, so that a variance of zero divides nothing.
    ratio = innovations / jnp.where(initial > 0.0, initial, 1.0)
    weight = ratio * assets + numbers * away**2
    total = ratio * pooled(starts * means[:, 0]) + away * moved
    centres = jnp.where(
        weight > 0.0, total / jnp.where(weight > 0.0, weight, 1.0), dynamics.centres
    )
    return ExposureDynamics(centres, persistence, innovations, initial)


def error_squares(
    paths: ExposurePaths, rows: ExposureRows, variances: Float[Array, " series"]
) -> Float[Array, " series"]:
    """E sum_t e_it^2 over the known rows; e is a share of a row's error where a factor's absence
    adds variance c: E e^2 = (v / (v + c))^2 E (e + c's part)^2 + v c / (v + c)."""
    means, covs = paths.smoothed_means, paths.smoothed_covs
    errors = jnp.where(rows.known, rows.values, 0.0) - product("ta,ita->ti", rows.columns, means)
    squares = errors**2 + product("ta,itab,tb->ti", rows.columns, covs, rows.columns)
    share = variances / (variances + rows.added)
    return jnp.sum(jnp.where(rows.known, share**2 * squares + share * rows.added, 0.0), axis=0)
