"""Paths of idiosyncratic errors: drawn, and given at the dates at which they are known.

For an AR(1) error e with coefficient r, known at dates s < u and asked for in between at t, with
a = t - s and b = u - t,

    E[e_t] = [r^a (1 - r^2b) e_s + r^b (1 - r^2a) e_u] / (1 - r^2(a+b))

and r^a e_s after the last known date (r^b e_u before the first). Errors that are independent over
time are the case r = 0. An error of which sums Q e are known, R its covariance over time, is

    E[e] = R Q' (Q R Q')^{-1} Q e

by a Kalman smoother of three states: e_t, and what it has added so far to the sum of its own block
and to that of the next. Linear in what is known, so that its derivative is a weight.
"""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows, weights_of


def expected_errors(
    known: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    ar: Float[Array, " series"],
) -> Float[Array, "time series"]:
    """E[e_t | e at the observed dates] of every cell; `known` where observed."""
    known = jnp.where(observed > 0, known, 0.0)
    from_last, earlier = decayed(known, observed, ar)
    from_next, later = (side[::-1] for side in decayed(known[::-1], observed[::-1], ar))
    span = jnp.where(observed > 0, 1.0, 1.0 - (earlier * later) ** 2)
    between = (from_last * (1.0 - later**2) + from_next * (1.0 - earlier**2)) / span
    return jnp.where(observed > 0, known, between)


def decayed(
    known: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    ar: Float[Array, " series"],
) -> tuple[Float[Array, "time series"], Float[Array, "time series"]]:
    """r^a times the last known value, and r^a (0 before the first), a periods after it."""

    def advance(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple, tuple]:
        value, power = carry
        known, observed = row
        value = jnp.where(observed > 0, known, ar * value)
        power = jnp.where(observed > 0, 1.0, ar * power)
        return (value, power), (value, power)

    nothing = jnp.zeros_like(known[0])
    return jax.lax.scan(advance, (nothing, nothing), (known, observed))[1]


def errors_in_sums(
    known: Float[Array, "time flows"],
    observed: Float[Array, "time flows"],
    ar: Float[Array, " flows"],
    rows: AggregationRows,
    columns: tuple[int, ...],
) -> Float[Array, "time flows"]:
    """E[e_t | Q e at the observed rows] of the series in `columns`; `known` where observed."""

    def one(known: Array, seen: Array, r: Array, group: Array) -> Array:
        return errors_in_sums_of_one(known, seen, r, weights_of(rows, group))

    groups = jnp.asarray(rows.group)[jnp.asarray(columns)]
    return jax.vmap(one, in_axes=(1, 1, 0, 0), out_axes=1)(known, observed, ar, groups)


def errors_in_sums_of_one(
    known: Float[Array, " time"],
    seen: Float[Array, " time"],
    ar: Float[Array, ""],
    weights: tuple[Array, Array, Array, Array],
) -> Float[Array, " time"]:
    """The same for one series, errors of unit variance: the scale of all drops out."""
    own_row, own_weight, next_row, next_weight = weights
    dtype = known.dtype
    goes_on = jnp.append(False, own_row[1:] == own_row[:-1]).astype(dtype)
    follows = jnp.append(False, own_row[1:] == next_row[:-1]).astype(dtype) * (1.0 - goes_on)
    ends = seen * (own_row == jnp.arange(known.shape[0]))
    adds = jnp.stack([jnp.ones_like(own_weight), own_weight, next_weight], axis=1)

    def step(state: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], tuple]:
        mean, cov = state
        add, stay, follow, end, value = inputs
        # A new block: its sum starts from what the block before has put there.
        carried = jnp.zeros((3, 3), dtype).at[1, 1].set(stay).at[1, 2].set(follow)
        move = carried.at[2, 2].set(stay) + add[:, None] * jnp.array([ar, 0.0, 0.0])
        mean, cov = move @ mean, move @ cov @ move.T + (1.0 - ar**2) * add[:, None] * add
        variance = jnp.where(end > 0, cov[1, 1], 1.0)
        gain, surprise = end * cov[:, 1] / variance, (value - mean[1]) / variance
        kept = mean + gain * (value - mean[1]), cov - gain[:, None] * cov[1]
        return kept, (mean, cov, move, gain, end * surprise)

    start = jnp.zeros(3, dtype), jnp.zeros((3, 3), dtype).at[0, 0].set(1.0)
    inputs = (adds.astype(dtype), goes_on, follows, ends, known)
    _, (means, covs, moves, gains, surprises) = jax.lax.scan(step, start, inputs)

    def back(score: Array, inputs: tuple) -> tuple[Array, Array]:
        mean, cov, move, gain, surprise = inputs
        score = score.at[1].add(surprise - gain @ score)
        return move.T @ score, (mean + cov @ score)[0]

    nothing = jnp.zeros(3, dtype)
    filtered = (means, covs, moves, gains, surprises)
    return jax.lax.scan(back, nothing, filtered, reverse=True)[1]


def draw_errors(
    variances: Float[Array, " series"],
    ar: Float[Array, " series"] | None,
    num_times: int,
    num_draws: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws time series"]:
    """Stationary AR(1) errors (independent over time for `ar=None`)."""
    shape = (num_draws, num_times, variances.shape[0])
    noise = jax.random.normal(key, shape, variances.dtype)
    if ar is None:
        return noise * jnp.sqrt(variances)
    share = jnp.sqrt(1.0 - ar**2)

    def advance(error: Array, shock: Array) -> tuple[Array, Array]:
        error = ar * error + share * shock
        return error, error

    first = noise[:, 0]
    _, rest = jax.lax.scan(advance, first, jnp.swapaxes(noise[:, 1:], 0, 1))
    path = jnp.concatenate([first[:, None], jnp.swapaxes(rest, 0, 1)], axis=1)
    return path * jnp.sqrt(variances)
