"""Reconstruction of incomplete series at the panel's frequency, given the factors.

Series by series, with Q_i the aggregation rows of series i at its observed times and y_i its data,

    x_i = m_i + Q_i' (Q_i Q_i')^{-1} (y_i - Q_i m_i),     m_i = f W_i' + mu_i 1
    Cov = s_i^2 [ I - Q_i' (Q_i Q_i')^{-1} Q_i ]

(Lemma 3.1.7 of Ramsauer 2017; Defend et al. 2021, section 3). With the full cross-section
covariance S the correction of all series is joint, x = m + vec(U S), U_i = Q_i' l_i, with the
multipliers l from Q (S kron I) Q' l = y - Q m, solved by conjugate gradients on the structure.
Every result satisfies Q_i x_i = y_i.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from jaxfc.typing import Array, Float
from jaxfc_kernels.aggregation import (
    AggregationRows,
    aggregate,
    aggregate_transpose,
    row_sums,
    solve_rows,
)


def projection(
    rows: AggregationRows | None,
    observed: Float[Array, "time series"],
    residuals: Float[Array, "time series"],
) -> Float[Array, "time series"]:
    """Q_i' (Q_i Q_i')^{-1} r_i over the observed rows."""
    if rows is None:
        return observed * residuals
    return aggregate_transpose(rows, solve_rows(rows, observed, observed * residuals))


def observe(
    rows: AggregationRows | None,
    observed: Float[Array, "time series"],
    series: Float[Array, "time series"],
) -> Float[Array, "time series"]:
    """Q_i x_i at the observed rows, zero elsewhere."""
    return observed * (series if rows is None else aggregate(rows, series))


def reconstruct_series(
    rows: AggregationRows | None,
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    common: Float[Array, "time series"],
) -> Float[Array, "time series"]:
    """Conditional mean of every series given its own data and the `common` component m."""
    return common + projection(rows, observed, values - observe(rows, observed, common))


def reconstruct_jointly(
    rows: AggregationRows | None,
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    common: Float[Array, "time series"],
    cov: Float[Array, "series series"],
) -> Float[Array, "time series"]:
    """Conditional mean given all data and the common component, errors correlated by `cov`.

    Conjugate gradients to 1e-3 of the square root of the precision, matrix products T N^2 a step.
    """

    def spread(multipliers: Array) -> Array:
        seen = observed * multipliers
        return seen if rows is None else aggregate_transpose(rows, seen)

    def apply(multipliers: Array) -> Array:
        # The identity on unobserved rows keeps the operator regular there.
        covered = observe(rows, observed, spread(multipliers) @ cov)
        return covered + (1.0 - observed) * multipliers

    residuals = values - observe(rows, observed, common)
    tolerance = 1e-3 * float(jnp.finfo(values.dtype).eps) ** 0.5
    operator = lx.FunctionLinearOperator(
        apply, jax.eval_shape(lambda: residuals), lx.positive_semidefinite_tag
    )
    solver = lx.CG(rtol=tolerance, atol=tolerance, max_steps=1000)
    multipliers = lx.linear_solve(operator, residuals, solver, throw=False).value
    return common + spread(multipliers) @ cov


def imputed_share(
    observed: Float[Array, "time series"],
) -> Float[Array, " series"]:
    """tr(I - Q_i^+ Q_i) / T over the rows up to the last one with data: one minus the share of
    observed rows, as the rows of Q_i are independent."""
    times = jnp.arange(1, observed.shape[0] + 1)
    num_times = jnp.max(jnp.where(jnp.any(observed > 0, axis=1), times, 1))
    return 1.0 - jnp.sum(observed, axis=0) / num_times


def interpolate_constant(
    rows: AggregationRows | None,
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
) -> Float[Array, "time series"]:
    """Start of the two-step estimation: each cell takes the value of the next observed row (the
    last one after the end), divided by the row's sum of weights where the row is an aggregate."""
    if rows is not None:
        totals, _ = row_sums(rows, values.dtype)
        values = values / jnp.where(totals > 0, totals, 1.0)
    num_times = values.shape[0]
    position = jnp.arange(num_times)[:, None]
    following = jnp.where(observed > 0, position, num_times)
    following = jax.lax.cummin(following, axis=0, reverse=True)
    preceding = jax.lax.cummax(jnp.where(observed > 0, position, -1), axis=0)
    source = jnp.where(following < num_times, following, jnp.maximum(preceding, 0))
    return jnp.take_along_axis(values, source, axis=0)


class Nowcast(eqx.Module):
    """Incomplete series at the panel's frequency: conditional mean and standard deviation."""

    mean: Float[Array, "time series"]
    std: Float[Array, "time series"]


def reconstruction_draws(
    rows: AggregationRows | None,
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    common_draws: Float[Array, "draws time series"],
    errors: Float[Array, "draws time series"],
) -> Float[Array, "draws time series"]:
    """Exact draws of the series given their own data: condition an unconditional draw.

    x = z + Q^+ (y - Q z) for z = common + error has the conditional law of x given Q x = y
    (conditioning by kriging), for any calendar, without a T x T covariance.
    """
    return jax.vmap(lambda c, e: reconstruct_series(rows, values, observed, c + e))(
        common_draws, errors
    )
