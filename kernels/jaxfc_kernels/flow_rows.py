"""Low-frequency sums and averages as rows over a window of high-frequency periods, errors exact.

A flow reports y_t = sum_l q_tl x_{t-l}, x = w'F + e with e independent over time, in the rows t in
which its periods end. Where a value enters two rows (changes of flows: 1-2-3-2-1 and its irregular
relatives) the errors of neighbouring rows share what happens in one block b of periods,

    P_b = sum own_weight e,   N_b = sum next_weight e,   u_t = P_b + N_{b-1}

With p = Var P_b, n = Var N_b, c = Cov(P_b, N_b) (per unit of Var e) and one more scalar per block,
s_b ~ N(0, Var e), independent of everything,

    P_b = sqrt(|c|) (p / n)^(1/4) s_b + noise,   N_b = sign(c) sqrt(|c|) (n / p)^(1/4) s_b + noise

have exactly these moments, with noise variances p (1 - rho), n (1 - rho), rho = |c| / sqrt(p n). So
given F and s the rows are independent, with noise that is never degenerate; s_b stands in the
period in which its block ends. No monthly error is a state, and the likelihood is exact.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.aggregation import AggregationRows, weights_of


class FlowRows(NamedTuple):
    """Rows of J flows over windows of L + 1 periods, per unit of Var e.

    `entering` (time, L + 1, 1 + A, J): the coefficient of x_t (slot 0) and of the A scalars of
    period t (slot 1: s_t) in the row of period t + l; `noise` (time, J): noise variance of the row;
    `observed` (time, J). `bands` (L + 1, time, 1 + A, 1 + A, J): sum_l entering[t, l]
    entering[t-d, l+d]' / noise[t+l] over the observed rows. `prior` (orders, time, A, J): bands of
    the scalars' own precision, N(0, 1) where they enter nothing, and `prior_variance` (time, A, J)
    their variances given the scalars before. `active` (time, A, J) is 1.0 where a scalar is part of
    the complete data.
    """

    entering: Array
    noise: Array
    observed: Array
    bands: Array
    active: Array
    prior: Array
    prior_variance: Array


def flow_rows(
    rows: AggregationRows, columns: tuple[int, ...], observed: Array, window: int
) -> FlowRows:
    """The rows of the series in `columns`; `window` = L + 1 periods at most enter one row."""
    patterns = [one_flow(rows, column, observed, window) for column in columns]
    entering, noise = (jnp.stack(parts, axis=-1) for parts in zip(*patterns, strict=True))
    seen = observed[:, jnp.asarray(columns)]
    noise = jnp.where(seen > 0, noise, 1.0)
    active = jnp.sum(jnp.abs(entering[:, :, 1]) * ahead(seen, window), axis=1) > 0
    active = active.astype(observed.dtype)[:, None]
    ones, bands = jnp.ones_like(active), row_bands(entering, seen / noise)
    return FlowRows(entering, noise, seen, bands, active, ones[None], ones)


def row_bands(entering: Array, precision: Array) -> Array:
    """`bands` of rows with these precisions (time, J), zero where not observed."""
    num_times, window = entering.shape[:2]
    precision = ahead(precision, window)
    bands = []
    for order in range(window):
        weighted = entering[order:, : window - order] * precision[order:, : window - order, None]
        band = jnp.einsum("tlaj,tlbj->tabj", weighted, entering[: num_times - order, order:])
        bands.append(jnp.pad(band, ((order, 0), (0, 0), (0, 0), (0, 0))))
    return jnp.stack(bands)


def one_flow(
    rows: AggregationRows, column: int, observed: Array, window: int
) -> tuple[Array, Array]:
    """`entering` (time, window, 2) and `noise` (time,) of one series."""
    own_row, own_weight, next_row, next_weight = weights_of(rows, jnp.asarray(rows.group)[column])
    num_times, dtype = observed.shape[0], observed.dtype
    times = jnp.arange(num_times)
    zero = jnp.zeros(num_times + 1, dtype)
    own_var = zero.at[own_row].add(own_weight**2)
    next_var = zero.at[own_row].add(next_weight**2)
    cov = zero.at[own_row].add(own_weight * next_weight)
    tiny = jnp.finfo(dtype).tiny
    share = jnp.abs(cov) / jnp.sqrt(jnp.maximum(own_var * next_var, tiny))
    ratio = jnp.where(cov == 0, 1.0, own_var / jnp.maximum(next_var, tiny)) ** 0.25
    root = jnp.sqrt(jnp.abs(cov))
    at_end = own_row == times
    following = jnp.where(at_end, next_row, num_times)
    noise = own_var * (1.0 - share)
    # The block that ends at t leaves its second part to the row of the next period.
    left = jnp.where(at_end, (next_var * (1.0 - share))[times], 0.0)
    # Periods whose own row is not in the panel enter the next row alone.
    alone = jnp.where(own_row == num_times, next_weight**2, 0.0)
    noise = noise.at[following].add(left).at[next_row].add(alone)[:-1]

    def placed(row: Array, weight: Array) -> Array:
        steps = jnp.where(row < num_times, row - times, -1)
        return weight[:, None] * (steps[:, None] == jnp.arange(window))

    common = placed(own_row, own_weight) + placed(next_row, next_weight)
    first = jnp.where(at_end, (root * ratio)[times], 0.0)
    second = jnp.where(at_end, (jnp.sign(cov) * root / ratio)[times], 0.0)
    shared = placed(times, first) + placed(following, second)
    return jnp.stack([common, shared], axis=-1).astype(dtype), noise


def ahead(values: Array, window: int) -> Array:
    """values[t + l] at [t, l], zero beyond the end: (time, window, J)."""
    num_times = values.shape[0]
    padded = jnp.pad(values, ((0, window), (0, 0)))
    places = jnp.arange(num_times)[:, None] + jnp.arange(window)
    return padded[places]


def behind(values: Array, window: int) -> Array:
    """values[t - l] at [t, l], zero before the start: (time, window, ...)."""
    padded = jnp.pad(values, ((window, 0), *[(0, 0)] * (values.ndim - 1)))
    places = jnp.arange(values.shape[0])[:, None] - jnp.arange(window) + window
    return padded[places]


def row_values(flows: FlowRows, common: Array, scalars: Array) -> Array:
    """Q common + A scalars at every row, (time, J); `scalars` (time, A, J)."""
    window = flows.entering.shape[1]
    states = jnp.concatenate([common[:, None], scalars], axis=1)
    num_times = common.shape[0]
    total = jnp.zeros_like(common)
    for lag in range(window):
        term = jnp.sum(flows.entering[: num_times - lag, lag] * states[: num_times - lag], axis=1)
        total = total.at[lag:].add(term)
    return total


def row_transpose(flows: FlowRows, values: Array) -> Array:
    """[Q A]' K^{-1} y over the observed rows, (time, 1 + A, J)."""
    weighted = ahead(flows.observed * values / flows.noise, flows.entering.shape[1])
    return jnp.einsum("tlaj,tlj->taj", flows.entering, weighted)
