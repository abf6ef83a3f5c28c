"""Temporal aggregation rows, stored compactly: y_i = Q_i x_i for every series i of a panel.

A low-frequency observation is a weighted sum of high-frequency values over its own period and, for
changes in flows, over the period before. Each high-frequency time t therefore enters at most two
rows, and Q_i (up to T x T) is stored as two indices and two weights per time:

    y[r] = sum_{t: own_row[t] = r} own_weight[t] x[t] + sum_{t: next_row[t] = r} next_weight[t] x[t]

Rows are indexed by the time at which their period ends, so y has the shape of x and a mask says
which rows are observed. Series that share a calendar and a kind share one pattern (`group`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class AggregationRows(NamedTuple):
    """Aggregation patterns of a panel.

    `group` (series,) names the pattern of each series. Per pattern and time: `own_row` is the index
    of the time at which t's low-frequency period ends, `own_weight` the weight of x[t] in that row;
    `next_row` and `next_weight` the same for the row of the following period. An index equal to the
    number of times means "no such row"; its weight must be 0. A stock (or a series at the panel's
    own frequency) has own_row[t] = t, own_weight = 1, next_weight = 0.
    """

    group: Array
    own_row: Array
    own_weight: Array
    next_row: Array
    next_weight: Array


def weights_of(rows: AggregationRows, pattern: Array) -> tuple[Array, Array, Array, Array]:
    """`own_row`, `own_weight`, `next_row`, `next_weight` of one pattern, each (time,)."""
    # A panel holds numpy arrays, which a traced index cannot enter.
    fields = (rows.own_row, rows.own_weight, rows.next_row, rows.next_weight)
    own_row, own_weight, next_row, next_weight = (jnp.asarray(field)[pattern] for field in fields)
    return own_row, own_weight, next_row, next_weight


def aggregate(rows: AggregationRows, values: Array) -> Array:
    """Q_i x_i for every series: (time, series) -> (time, series), rows at period ends."""

    def one(x, pattern):
        own_row, own_weight, next_row, next_weight = weights_of(rows, pattern)
        total = jnp.zeros(x.shape[0] + 1, x.dtype)
        total = total.at[own_row].add(own_weight * x).at[next_row].add(next_weight * x)
        return total[:-1]

    return jax.vmap(one, in_axes=(1, 0), out_axes=1)(values, rows.group)


def aggregate_transpose(rows: AggregationRows, multipliers: Array) -> Array:
    """Q_i' y_i for every series: a gather of at most two rows per time."""

    def one(y, pattern):
        own_row, own_weight, next_row, next_weight = weights_of(rows, pattern)
        padded = jnp.append(y, 0.0)
        return own_weight * padded[own_row] + next_weight * padded[next_row]

    return jax.vmap(one, in_axes=(1, 0), out_axes=1)(multipliers, rows.group)


def row_sums(rows: AggregationRows, dtype: DTypeLike) -> tuple[Array, Array]:
    """Per series and row: sum of the weights and of their squares, each (time, series)."""
    num_times = rows.own_row.shape[1]

    def one(pattern):
        own_row, own_weight, next_row, next_weight = weights_of(rows, pattern)
        zero = jnp.zeros(num_times + 1, dtype)
        total = zero.at[own_row].add(own_weight).at[next_row].add(next_weight)
        squares = zero.at[own_row].add(own_weight**2).at[next_row].add(next_weight**2)
        return total[:-1], squares[:-1]

    totals, squares = jax.vmap(one)(jnp.arange(rows.own_row.shape[0]))
    return totals[rows.group].T, squares[rows.group].T


def row_couplings(rows: AggregationRows, dtype: DTypeLike) -> tuple[Array, Array]:
    """Per series: sum_t own_weight[t] next_weight[t] filed under the earlier row (time, series),
    and the index of the later row it couples to (the number of times: none)."""
    num_times = rows.own_row.shape[1]

    def one(pattern):
        own_row, own_weight, next_row, next_weight = weights_of(rows, pattern)
        coupling = jnp.zeros(num_times + 1, dtype).at[own_row].add(own_weight * next_weight)
        later = jnp.full(num_times + 1, num_times).at[own_row].min(next_row)
        return coupling[:-1], later[:-1]

    couplings, later = jax.vmap(one)(jnp.arange(rows.own_row.shape[0]))
    return couplings[rows.group].T, later[rows.group].T


def solve_rows(rows: AggregationRows, observed: Array, residuals: Array) -> Array:
    """(Q_o Q_o')^{-1} r over the observed rows of every series; zero elsewhere, (time, series).

    Only neighbouring rows overlap, so Q_o Q_o' is tridiagonal in the order of the rows: one forward
    elimination and one back substitution over time, all series at once. O(T N) flops.
    """
    num_times = observed.shape[0]
    _, squares = row_sums(rows, residuals.dtype)
    couplings, later = row_couplings(rows, residuals.dtype)
    padded = jnp.concatenate([observed, jnp.zeros_like(observed[:1])])
    both = observed * jnp.take_along_axis(padded, later, axis=0)
    couplings = both * couplings
    columns = jnp.arange(observed.shape[1])

    def eliminate(carry, row):
        # The losses hold, at the later row of each pair, what the earlier row subtracts there.
        pivot_loss, value_loss = carry
        time, o, square, residual, coupling, later_row = row
        pivot = jnp.where(o > 0, square - pivot_loss[time], 1.0)
        value = jnp.where(o > 0, residual - value_loss[time], 0.0)
        pivot_loss = pivot_loss.at[later_row, columns].add(coupling**2 / pivot)
        value_loss = value_loss.at[later_row, columns].add(coupling * value / pivot)
        return (pivot_loss, value_loss), (pivot, value)

    times = jnp.arange(num_times)
    zero = jnp.zeros((num_times + 1, observed.shape[1]), residuals.dtype)
    inputs = (times, observed, squares, residuals, couplings, later)
    _, (pivots, values) = jax.lax.scan(eliminate, (zero, zero), inputs)

    def substitute(solved, row):
        time, pivot, value, coupling, later_row = row
        current = (value - coupling * solved[later_row, columns]) / pivot
        return solved.at[time].set(current), None

    solved, _ = jax.lax.scan(
        substitute, zero, (times, pivots, values, couplings, later), reverse=True
    )
    return solved[:-1]


def identity_rows(num_times: int, num_series: int, dtype: DTypeLike) -> AggregationRows:
    """Every series at the panel's own frequency (or a stock): Q = I."""
    times = jnp.arange(num_times)[None, :]
    return AggregationRows(
        group=jnp.zeros(num_series, times.dtype),
        own_row=times,
        own_weight=jnp.ones((1, num_times), dtype),
        next_row=jnp.full((1, num_times), num_times),
        next_weight=jnp.zeros((1, num_times), dtype),
    )
