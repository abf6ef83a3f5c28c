"""Clocks that tick with events, volume or seconds, and what has come in since their last tick."""

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float


def strikes(amount: Float[Array, " time"], every: float | Array) -> Bool[Array, " time"]:
    """Rows in which a clock strikes: the first to complete another `every` of `amount`.

    `amount` is what each row adds: ones (event clock), `events.last` (messages), absolute
    `signed_flow` (volume, lots), `events.gap` (seconds). The remainder is carried over; an amount
    of several times `every` strikes once.
    """

    def step(held: Array, new: Array) -> tuple[Array, Array]:
        held = held + new
        return jnp.where(held >= every, held % every, held), held >= every

    return jax.lax.scan(step, jnp.zeros((), amount.dtype), amount)[1]


def accumulate(
    values: Float[Array, "time *columns"], struck: Bool[Array, " time"]
) -> Float[Array, "time *columns"]:
    """Sums since the last strike, this row included: at a strike, those of a whole interval.

    NaN values (of rows without a valid book) count as nothing.
    """

    def step(carry: tuple[Array, Array], row: tuple[Array, Array]):
        total, ended = carry
        new, ends = row
        total = jnp.where(ended, 0.0, total) + new
        return (total, ends), total

    values = jnp.where(jnp.isnan(values), 0.0, values)
    start = jnp.zeros(values.shape[1:], values.dtype), jnp.asarray(False)
    return jax.lax.scan(step, start, (values, struck))[1]


def ewma_intensity(
    gap: Float[Array, " time"],
    marks: Float[Array, "time marks"],
    half_lives: Float[Array, " scales"],
) -> Float[Array, "time marks scales"]:
    """Events a second, exponentially weighted in time, exact whatever the gaps between rows.

        lambda_t = sum_{s <= t} b exp(-b (tau_t - tau_s)) marks_s,    b = log 2 / half-life

    by lambda_t = exp(-b gap_t) lambda_{t-1} + b marks_t. A row without marks changes no later one.

    **Arguments:** `gap` seconds since the row before (that of the first row is not used); `marks`
    ones or sizes (`event_marks`); `half_lives` in seconds.

    Source: exponential kernel of Hawkes (1971).
    """
    rate = jnp.log(2.0) / half_lives
    decay = jnp.exp(-rate * gap[:, None])[:, None, :]
    jump = rate * marks[:, :, None]

    def step(level: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        level = row[0] * level + row[1]
        return level, level

    start = jnp.zeros(jump.shape[1:], jump.dtype)
    return jax.lax.scan(step, start, (decay, jump))[1]
