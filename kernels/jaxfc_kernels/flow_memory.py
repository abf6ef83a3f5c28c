"""Rows of low-frequency flows whose errors are AR(1) at the panel's own frequency, exact.

e_t = r e_{t-1} + v_t with stationary variance S. Let a_b be the error of the last period of block b
(`flow_rows` has the notation). Given a_{b-1} and a_b the errors inside block b are a Markov bridge,
independent of everything else: with i periods since the end before, k to the end, n = i + k,

    E e = [r^i (1 - r^2k) a_{b-1} + r^k (1 - r^2i) a_b] / (1 - r^2n)
    Cov(e, e') = S r^(i'-i) (1 - r^2i) (1 - r^2k') / (1 - r^2n),    i <= i'

so that P_b and N_b are linear in (a_{b-1}, a_b) plus noise with variances p, n and covariance c.
With rho^2 = c^2 / (p n) and one more scalar s_b ~ N(0, S),

    P_b = ... + sqrt(p (1 + rho^2) / 2) s_b + noise,   variance p (1 - rho^2) / 2
    N_b = ... + c / sqrt(p (1 + rho^2) / 2) s_b + noise,   variance n (1 - rho^2) / (1 + rho^2)

has these moments, smoothly in r. The ends are a chain, a_b = r^n a_{b-1} + N(0, S (1 - r^2n)),
whose first link is stationary (before it the bridge has an open end: r^i = 0). After the last end
that data depend on, every period is an end, so that the last state is the last error.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxfc_kernels.aggregation import AggregationRows, weights_of
from jaxfc_kernels.flow_rows import FlowRows, ahead, row_bands


class FlowPattern(NamedTuple):
    """What the mask and the calendar say of J flows, all (time, J); no such period: num_times.

    `own_row` .. `next_weight` as in `AggregationRows`; `end` and `previous`: the end of the
    period's block and the end before it; `distance`: periods to the link before in the chain of
    ends (0: none); `counted`: ends between the first and the last that an observed row depends on;
    `shares`: block ends whose two sums covary, in an observed row.
    """

    own_row: Array
    own_weight: Array
    next_row: Array
    next_weight: Array
    end: Array
    previous: Array
    distance: Array
    counted: Array
    shares: Array


def flow_pattern(rows: AggregationRows, columns: tuple[int, ...], observed: Array) -> FlowPattern:
    """The pattern of the series in `columns` under a mask (time, series)."""
    groups = jnp.asarray(rows.group)[jnp.asarray(columns)]
    seen = observed[:, jnp.asarray(columns)]
    return jax.vmap(lambda g, s: one_pattern(weights_of(rows, g), s), (0, 1), 1)(groups, seen)


def one_pattern(weights: tuple[Array, Array, Array, Array], seen: Array) -> FlowPattern:
    """The pattern of one series from its weights and its mask (time,)."""
    own_row, own_weight, next_row, next_weight = weights
    num_times = seen.shape[0]
    times = jnp.arange(num_times)
    following = jnp.append(own_row[1:], num_times)
    # Periods before the first block with a row of its own are a block too: it enters the next row.
    is_end = (own_row == times) | ((own_row == num_times) & (following < num_times))
    end = jax.lax.cummin(jnp.where(is_end, times, num_times), reverse=True)
    last = jax.lax.cummax(jnp.where(is_end, times, -1))
    last = jnp.concatenate([jnp.full_like(last[:1], -1), last[:-1]])
    previous = jnp.where(last >= 0, last, num_times)
    padded = jnp.append(seen > 0, False)
    enters = ((own_weight != 0) & padded[own_row]) | ((next_weight != 0) & padded[next_row])
    from_end = jnp.where(last >= 0, last, end)
    first_needed = jnp.min(jnp.where(enters, from_end, num_times))
    last_needed = jnp.max(jnp.where(enters, end, -1))
    counted = is_end & (times >= first_needed) & (times <= last_needed)
    linked = counted & (last >= first_needed)
    tail = (times > last_needed) & (last_needed >= 0)
    distance = jnp.where(linked, times - last, tail.astype(times.dtype))
    inside = (end < num_times) & (end != times)
    own_sums, next_sums = (
        jnp.zeros(num_times, bool).at[end].max(inside & (w != 0), mode="drop")
        for w in (own_weight, next_weight)
    )
    shares = is_end & own_sums & next_sums & (padded[own_row] | padded[next_row])
    dtype = seen.dtype
    return FlowPattern(
        own_row,
        own_weight.astype(dtype),
        next_row,
        next_weight.astype(dtype),
        end,
        previous,
        distance,
        counted.astype(dtype),
        shares.astype(dtype),
    )


class BlockLaw(NamedTuple):
    """P_b and N_b at coefficients r, (time, J), each at the end of its block: the coefficients of
    a_{b-1} and a_b, that of s_b, and the variance of the noise, per unit of S."""

    own_previous: Array
    own_end: Array
    next_previous: Array
    next_end: Array
    own_shared: Array
    next_shared: Array
    own_noise: Array
    next_noise: Array


def block_law(pattern: FlowPattern, ar: Array, window: int) -> BlockLaw:
    """The law of the blocks of J flows at coefficients `ar` (J,)."""
    num_times, num_flows = pattern.end.shape
    times = jnp.arange(num_times)[:, None]
    table = powers(ar, window)

    def power(exponent: Array) -> Array:
        return jnp.take_along_axis(table, jnp.clip(exponent, 0, window), axis=0)

    left = jnp.where(pattern.previous < num_times, power(times - pattern.previous), 0.0)
    right = power(pattern.end - times)
    span = 1.0 - (left * right) ** 2
    from_previous, from_end = left * (1.0 - right**2) / span, right * (1.0 - left**2) / span
    # Covariances of the bridge between period t and t + l of the same block.
    same = (ahead(pattern.end, window) == pattern.end[:, None]) & (pattern.end < num_times)[:, None]
    bridge = table[:window] * ((1.0 - left**2) / span)[:, None] * ahead(1.0 - right**2, window)
    bridge = jnp.where(same, bridge, 0.0)
    bridge = bridge * jnp.where(jnp.arange(window) == 0, 1.0, 2.0)[:, None]
    own, after = pattern.own_weight, pattern.next_weight
    own_later = jnp.sum(bridge * ahead(own, window), axis=1)
    after_later = jnp.sum(bridge * ahead(after, window), axis=1)

    def filed(values: Array) -> Array:
        place = (pattern.end, jnp.arange(num_flows))
        return jnp.zeros_like(values).at[place].add(values, mode="drop")

    shares = split(
        filed(own * own_later),
        filed(after * after_later),
        filed(0.5 * (own * after_later + after * own_later)),
        pattern.shares > 0,
    )
    return BlockLaw(
        filed(own * from_previous),
        filed(own * from_end),
        filed(after * from_previous),
        filed(after * from_end),
        *shares,
    )


def at_previous(pattern: FlowPattern, values: Array) -> Array:
    """Values (time, J) of the end before each period, 0 where there is none."""
    num_times = values.shape[0]
    chosen = jnp.take_along_axis(values, jnp.minimum(pattern.previous, num_times - 1), axis=0)
    return jnp.where(pattern.previous < num_times, chosen, 0.0)


def link_coefficients(pattern: FlowPattern, ar: Array, window: int) -> Array:
    """r^distance of every link of the chain, 0 where it starts (anew), (time, J)."""
    coefficients = jnp.take_along_axis(powers(ar, window), pattern.distance, axis=0)
    return jnp.where(pattern.distance > 0, coefficients, 0.0)


def with_memory(flows: FlowRows, pattern: FlowPattern, ar: Array) -> FlowRows:
    """The rows at coefficients `ar` (J,), with slots for x, s and a."""
    num_times, window = flows.entering.shape[:2]
    law = block_law(pattern, ar, window)
    times = jnp.arange(num_times)[:, None]
    at_end = pattern.end == times

    def placed(row: Array, weight: Array) -> Array:
        steps = jnp.where(at_end & (row < num_times), row - times, -1)
        return weight[:, None] * (steps[:, None] == jnp.arange(window)[:, None])

    following = jnp.concatenate([pattern.end[1:], jnp.full_like(pattern.end[:1], num_times)])

    def of_following(values: Array, beyond: int) -> Array:
        chosen = jnp.take_along_axis(values, jnp.minimum(following, num_times - 1), axis=0)
        return jnp.where(following < num_times, chosen, beyond)

    own_row, next_row = pattern.own_row, pattern.next_row
    shared = placed(own_row, law.own_shared) + placed(next_row, law.next_shared)
    ends = placed(own_row, law.own_end) + placed(next_row, law.next_end)
    for row, weight in ((own_row, law.own_previous), (next_row, law.next_previous)):
        ends = ends + placed(of_following(row, num_times), of_following(weight, 0))
    entering = jnp.stack([flows.entering[:, :, 0], shared, ends], axis=2)
    noise = law.own_noise + at_previous(pattern, law.next_noise)
    noise = jnp.where(flows.observed > 0, noise, 1.0)
    coefficients = link_coefficients(pattern, ar, window)
    variances = 1.0 - coefficients**2
    chain = chain_bands(pattern.distance, coefficients, 1.0 / variances, window)
    ones = jnp.ones_like(variances)
    of_shared = jnp.zeros_like(chain).at[0].set(ones)
    return flows._replace(
        entering=entering,
        noise=noise,
        bands=row_bands(entering, flows.observed / noise),
        active=jnp.stack([pattern.shares, pattern.counted], axis=1),
        prior=jnp.stack([of_shared, chain], axis=2),
        prior_variance=jnp.stack([ones, variances], axis=1),
    )


def chain_bands(distance: Array, coefficients: Array, precision: Array, window: int) -> Array:
    """Bands of sum_t precision_t (a_t - coefficient_t a_{t-distance_t})^2, (window, time, J)."""
    bands = [precision]
    for gap in range(1, window):
        linked = (distance == gap) * precision * coefficients
        back = linked * coefficients
        bands[0] = bands[0] + jnp.pad(back[gap:], ((0, gap), (0, 0)))
        bands.append(-linked)
    return jnp.stack(bands)


def powers(ar: Array, largest: int) -> Array:
    """r^0, .., r^largest, (largest + 1, ...): products, so that r = 0 has all derivatives."""
    table = [jnp.ones_like(ar)]
    for _ in range(largest):
        table.append(table[-1] * ar)
    return jnp.stack(table)


def split(
    own_var: Array, next_var: Array, cov: Array, shares: Array
) -> tuple[Array, Array, Array, Array]:
    """Coefficients of the shared scalar in P and N, and the noise that is left of each."""
    own_safe, next_safe = (jnp.where(shares, v, 1.0) for v in (own_var, next_var))
    squared = jnp.where(shares, cov, 0.0) ** 2 / (own_safe * next_safe)
    first = jnp.where(shares, jnp.sqrt(0.5 * own_safe * (1.0 + squared)), 0.0)
    second = jnp.where(shares, cov / jnp.where(shares, first, 1.0), 0.0)
    own_noise = jnp.where(shares, 0.5 * (1.0 - squared), 1.0) * own_var
    next_noise = jnp.where(shares, (1.0 - squared) / (1.0 + squared), 1.0) * next_var
    return first, second, own_noise, next_noise
