"""Paths of idiosyncratic errors: drawn, and given at the dates at which they are known.

For an AR(1) error e with coefficient r, known at dates s < u and asked for in between at t, with
a = t - s and b = u - t,

    E[e_t] = [r^a (1 - r^2b) e_s + r^b (1 - r^2a) e_u] / (1 - r^2(a+b))

and r^a e_s after the last known date (r^b e_u before the first). Errors that are independent over
time are the case r = 0. Linear in what is known, so that its derivative is a weight.
"""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float, Int, PRNGKeyArray


def known_neighbours(
    observed: Float[Array, "time series"],
) -> tuple[Int[Array, "time series"], Int[Array, "time series"]]:
    """Rows of the last known date up to each row (-1: none) and of the next from it (time:
    none)."""
    num_times = observed.shape[0]
    position = jnp.arange(num_times)[:, None]
    last = jax.lax.cummax(jnp.where(observed > 0, position, -1), axis=0)
    following = jnp.where(observed > 0, position, num_times)
    return last, jax.lax.cummin(following, axis=0, reverse=True)


def expected_errors(
    known: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    ar: Float[Array, " series"],
) -> Float[Array, "time series"]:
    """E[e_t | e at the observed dates] of every cell; `known` where observed."""
    num_times = known.shape[0]
    position = jnp.arange(num_times)[:, None]
    last, following = known_neighbours(observed)
    has_last, has_following = last >= 0, following < num_times
    after = jnp.where(has_last, position - last, 0)
    before = jnp.where(has_following, following - position, 0)
    earlier, later = power(ar, after), power(ar, before)
    both = has_last & has_following
    span = jnp.where(both & (after + before > 0), 1.0 - (earlier * later) ** 2, 1.0)
    left = jnp.where(both, earlier * (1.0 - later**2), earlier) / span
    right = jnp.where(both, later * (1.0 - earlier**2), later) / span
    left = jnp.where(has_last, left, 0.0)
    right = jnp.where(has_following, right, 0.0)
    known = jnp.where(observed > 0, known, 0.0)
    from_last = jnp.take_along_axis(known, jnp.maximum(last, 0), axis=0)
    from_next = jnp.take_along_axis(known, jnp.minimum(following, num_times - 1), axis=0)
    return jnp.where(observed > 0, known, left * from_last + right * from_next)


def power(ar: Float[Array, " series"], exponent: Int[Array, "time series"]) -> Array:
    """r^n of integers n >= 0: r^0 = 1 also for r = 0, negative r keep their sign."""
    size = jnp.maximum(jnp.abs(ar), jnp.finfo(ar.dtype).tiny) ** exponent
    size = jnp.where((ar == 0) & (exponent > 0), 0.0, size)
    return jnp.where((ar < 0) & (exponent % 2 == 1), -size, size)


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
