"""Paths of idiosyncratic errors: drawn, and given at the dates at which they are known.

For an AR(1) error e with coefficient r, known at dates s < u and asked for in between at t, with
a = t - s and b = u - t,

    E[e_t] = [r^a (1 - r^2b) e_s + r^b (1 - r^2a) e_u] / (1 - r^2(a+b))

and r^a e_s after the last known date (r^b e_u before the first). Errors that are independent over
time are the case r = 0. An error of which sums Q e are known, R its covariance over time, is

    E[e] = R Q' (Q R Q')^{-1} Q e

Linear in what is known, so that its derivative is a weight.
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
    """E[e_t | Q e at the observed rows] of the series in `columns`; `known` where observed.

    One dense T x T Cholesky a series: T^3 / 3 flops, whatever the calendar.
    """
    num_times = known.shape[0]
    times = jnp.arange(num_times)
    distance = jnp.abs(times[:, None] - times)

    def one(known: Array, seen: Array, r: Array, group: Array) -> Array:
        own_row, own_weight, next_row, next_weight = weights_of(rows, group)
        sums = jnp.zeros((num_times + 1, num_times), known.dtype)
        sums = sums.at[own_row, times].add(own_weight).at[next_row, times].add(next_weight)
        sums = seen[:, None] * sums[:-1]
        cross = sums @ r**distance
        # The identity on unobserved rows keeps the matrix regular there.
        factor = jax.scipy.linalg.cho_factor(cross @ sums.T + jnp.diag(1.0 - seen))
        return jax.scipy.linalg.cho_solve(factor, seen * known) @ cross

    groups = jnp.asarray(rows.group)[jnp.asarray(columns)]
    return jax.vmap(one, in_axes=(1, 1, 0, 0), out_axes=1)(known, observed, ar, groups)


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
