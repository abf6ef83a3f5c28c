"""EM for exposures that move: variances and persistence pooled over the assets of a sector."""

import jax.numpy as jnp

from jaxfc.hierarchy.accelerated_em import FixedPoint, accelerated, iterate
from jaxfc.hierarchy.exposure_states import (
    MAX_PERSISTENCE,
    ExposureDynamics,
    ExposureRows,
    error_squares,
    exposure_paths,
    updated_dynamics,
)
from jaxfc.hierarchy.shrunk_regression import sector_variances
from jaxfc.hierarchy.three_levels import sectors_of
from jaxfc.typing import Array, Float, Int, PyTree

# Dynamics by sector, and the variance of each asset's errors.
Parameters = tuple[ExposureDynamics, Float[Array, " series"]]


def search(
    rows: ExposureRows,
    members: Int[Array, " series"],
    start: Parameters,
    pseudo_rows: Float[Array, ""],
    rtol: Float[Array, ""],
    max_steps: int,
    moves: bool,
) -> FixedPoint:
    """Dynamics and variances at the maximum of the likelihood, less the penalty that draws the
    variances of a sector's assets to each other (see `shrunk_regression`).

    `moves`: the persistence is estimated. Each step is two of EM and a leap along them, since
    variances of innovations, which a single row says little of, change little in one.
    """

    def step(free: Parameters, arguments: PyTree) -> tuple[PyTree, Array]:
        rows, members, strength = arguments
        dynamics, variances = free
        sectors = sectors_of(members, dynamics.centres.shape[0], 1)
        paths = exposure_paths(rows, members, dynamics, variances)
        counts = jnp.sum(rows.known, axis=0)
        seen = counts > 0
        common = sector_variances(variances, seen, sectors)
        sums = error_squares(paths, rows, variances) + strength * common
        following = jnp.where(seen, sums / jnp.where(seen, counts + strength, 1.0), common)
        penalty = jnp.sum(jnp.where(seen, jnp.log(variances / common), 0.0))
        objective = jnp.sum(paths.logliks) - 0.5 * strength * penalty
        return (updated_dynamics(paths, rows.known, members, dynamics, moves), following), objective

    dtype = rows.columns.dtype
    arguments = rows, members, pseudo_rows.astype(dtype)
    tolerance = (rtol * rows.values.shape[1]).astype(dtype)
    leap = accelerated(step, to_free, from_free, measured)
    return iterate(leap, start, arguments, tolerance, max_steps, plain=step)


def to_free(parameters: Parameters, base: Parameters) -> Parameters:
    """Logarithms of variances over those of the base, the persistence on a scale without bounds."""
    (dynamics, variances), (start, start_variances) = parameters, base
    persistence = jnp.arctanh(jnp.minimum(dynamics.persistence, 1.0) * MAX_PERSISTENCE)
    logs = [jnp.log(now / then) for now, then in zip(dynamics[2:], start[2:], strict=True)]
    logs_of_errors = jnp.log(variances / start_variances)
    return ExposureDynamics(dynamics.centres, persistence, *logs), logs_of_errors


def from_free(free: Parameters, base: Parameters) -> Parameters:
    """The inverse of `to_free`."""
    (dynamics, variances), (start, start_variances) = free, base
    persistence = jnp.tanh(dynamics.persistence) / MAX_PERSISTENCE
    spreads = [jnp.exp(free) * then for free, then in zip(dynamics[2:], start[2:], strict=True)]
    errors = jnp.exp(variances) * start_variances
    return ExposureDynamics(dynamics.centres, persistence, *spreads), errors


def measured(free: Parameters) -> list[Array]:
    """What has no units: all but the centres."""
    dynamics, variances = free
    return [*dynamics[1:], variances]
