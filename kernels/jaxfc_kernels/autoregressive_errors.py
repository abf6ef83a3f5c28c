"""Collapse of a panel whose errors are AR(1), series by series over its own observed dates.

e_it = r_i e_{i,t-1} + v_it with stationary variance S_i. Between consecutive observed dates s < t
of a series, at gap g = t - s, the quasi-difference

    x_t - r^g x_s - w' (F_t - r^g F_s) ~ N(0, S (1 - r^2g))

is independent of all others; the first observation has variance S. So the errors' precision P_i on
the observed dates has one off-diagonal entry per date, and with it

    C_{t,t-d} = sum_i P_i[t,t-d] w_i w_i',    b_t = sum_i w_i (P_i x_i)_t

No state is needed for an error, no number of missing cells is too large, late starts and early ends
cost nothing. A gap longer than `longest` starts the series anew: the error it makes is of the order
|r|^gap. Missing cells hold zeros; nothing is divided by them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.collapse import Collapsed, packed_indices, unpack
from jaxfc_kernels.constants import LOG_2PI


class Gaps(NamedTuple):
    """Where the observed dates of each series lie, a function of the mask alone.

    `before`, `after` (time, series): periods to the previous and the next observed date, 0 where
    the cell is not observed or there is none within `longest` periods. `at` (longest + 1, time,
    series) is 1.0 where an observed cell has gap g `before` it (g = 0: it starts its series, or
    starts it anew). `counts` (longest + 1, series) are its sums over time.
    """

    before: Array
    after: Array
    at: Array
    counts: Array


def find_gaps(observed: Array, longest: int) -> Gaps:
    """Gaps of up to `longest` periods of a mask (time, series) of 0.0 and 1.0."""
    num_times = observed.shape[0]
    position = jnp.arange(num_times)[:, None]
    never = -2 * longest - num_times
    last = jax.lax.cummax(jnp.where(observed > 0, position, never), axis=0)
    last = jnp.concatenate([jnp.full_like(last[:1], never), last[:-1]])
    following = jax.lax.cummin(jnp.where(observed > 0, position, -never), axis=0, reverse=True)
    following = jnp.concatenate([following[1:], jnp.full_like(following[:1], -never)])

    def within(distance: Array) -> Array:
        return jnp.where((observed > 0) & (distance <= longest), distance, 0)

    before, after = within(position - last), within(following - position)
    at = observed * (before == jnp.arange(longest + 1)[:, None, None])
    return Gaps(before, after, at, jnp.sum(at, axis=1))


class GapTables(NamedTuple):
    """By gap and series, (longest + 1, series): r^g (0 for a start), Var of the
    quasi-difference."""

    coefficients: Array
    variances: Array


def gap_tables(ar: Array, variances: Array, longest: int) -> GapTables:
    """Coefficient and variance of the quasi-difference over each gap."""
    # By products, whose derivatives of any order exist at r = 0 too.
    powers = [jnp.zeros_like(ar), ar]
    for _ in range(longest - 1):
        powers.append(powers[-1] * ar)
    coefficients = jnp.stack(powers[: longest + 1])
    return GapTables(coefficients, variances * (1.0 - coefficients**2))


# Up to this many gaps a sum over masks beats a gather (whose derivative is a scatter).
MAX_SUMMED = 4


def pick(table: Array, gaps: Gaps) -> Array:
    """table[gap before the cell, series] of every observed cell."""
    if table.shape[0] - 1 > MAX_SUMMED:
        return jnp.take_along_axis(table, gaps.before, axis=0)
    return jnp.sum(gaps.at * table[:, None], axis=0)


def to_earlier(values: Array, gaps: Gaps) -> Array:
    """At the earlier cell of each pair what `values` hold at the later one; 0 where there is
    none."""
    longest = gaps.at.shape[0] - 1
    if longest > MAX_SUMMED:
        rows = jnp.arange(values.shape[0])[:, None] + gaps.after
        return jnp.where(gaps.after > 0, jnp.take_along_axis(values, rows, axis=0), 0.0)
    total = jnp.zeros_like(values)
    for gap in range(1, longest + 1):
        total = total.at[:-gap].add(gaps.at[gap, gap:] * values[gap:])
    return total


def to_later(values: Array, gaps: Gaps) -> Array:
    """At the later cell of each pair what `values` hold at the earlier one; 0 where there is
    none."""
    longest = gaps.at.shape[0] - 1
    if longest > MAX_SUMMED:
        rows = jnp.arange(values.shape[0])[:, None] - gaps.before
        return jnp.where(gaps.before > 0, jnp.take_along_axis(values, rows, axis=0), 0.0)
    total = jnp.zeros_like(values)
    for gap in range(1, longest + 1):
        total = total.at[gap:].add(gaps.at[gap, gap:] * values[:-gap])
    return total


class ErrorPrecision(NamedTuple):
    """The errors' precision on the observed dates: `diagonal` (time, series), `coupling`
    (longest + 1, series) with P[t, t-g] = -coupling[g] weight_t, and what of the log-density does
    not depend on the data, sum (ln 2 pi + ln variance)."""

    diagonal: Array
    coupling: Array
    log_normaliser: Array


def error_precision(
    observed: Array, gaps: Gaps, tables: GapTables, weights: Array | None = None
) -> ErrorPrecision:
    """P_i of every series. `weights` (time, series) multiply the precision of single
    quasi-differences (outliers, down-weighted periods)."""
    inverse = 1.0 / tables.variances
    own = pick(inverse, gaps)
    carried = pick(tables.coefficients**2 * inverse, gaps)
    logs = jnp.sum(gaps.counts * (LOG_2PI + jnp.log(tables.variances)))
    if weights is not None:
        own, carried = weights * own, weights * carried
        logs = logs - jnp.sum(observed * jnp.log(weights))
    diagonal = observed * (own + to_earlier(carried, gaps))
    return ErrorPrecision(diagonal, tables.coefficients * inverse, logs)


def coupling_entries(precision: ErrorPrecision, gaps: Gaps, weights: Array | None) -> Array:
    """-P[t, t-g] of all gaps g = 1..longest at once, (longest, time, series): what it is multiplied
    with is then one matrix product."""
    entries = gaps.at[1:] * precision.coupling[1:, None]
    return entries if weights is None else weights * entries


def apply_precision(
    precision: ErrorPrecision, gaps: Gaps, values: Array, weights: Array | None = None
) -> Array:
    """(P_i x_i)_t, (time, series)."""
    coupling = pick(precision.coupling, gaps)
    if weights is not None:
        coupling = weights * coupling
    earlier = to_later(values, gaps)
    return precision.diagonal * values - coupling * earlier - to_earlier(coupling * values, gaps)


def collapse_autoregressive(
    values: Array,
    observed: Array,
    gaps: Gaps,
    loadings: Array,
    tables: GapTables,
    weights: Array | None = None,
) -> Collapsed:
    """S diagonal, errors AR(1); about T N K^2 (longest + 1) flops, no sequence."""
    num_factors = loadings.shape[1]
    rows, columns, _ = packed_indices(num_factors)
    outer = loadings[:, rows] * loadings[:, columns]
    precision = error_precision(observed, gaps, tables, weights)
    weighted = apply_precision(precision, gaps, values, weights)
    entries = coupling_entries(precision, gaps, weights)
    num_orders, num_times, num_series = entries.shape
    flat = entries.reshape(num_orders * num_times, num_series)
    lagged = -(flat @ outer).reshape(num_orders, num_times, rows.size)
    return Collapsed(
        information=unpack(precision.diagonal @ outer, num_factors),
        vectors=weighted @ loadings,
        quadratic=jnp.sum(values * weighted),
        log_normaliser=precision.log_normaliser,
        lagged_information=unpack(lagged, num_factors),
    )
