"""Paths of one series with drawn innovations: each residual feeds the variances that follow."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.lags import push
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc.volatility.likelihood import Series, Specification

BURN_IN = 500
# Where innovations of drawn paths come from: the estimated law, or the residuals of the sample.
SOURCES = ("law", "bootstrap")


class State(NamedTuple):
    """Of the variance, and the last values, newest first."""

    variance: Any
    lags: Float[Array, " lags"]


def state_after(how: Specification, parameters: Float[Array, " p"], series: Series) -> State:
    """State after the last row."""
    mean, variance, shapes = how.split(parameters)
    residuals, known = how.mean.residuals(mean, series.values, series.observed)
    start = how.before(mean, series)
    state, _ = how.variance.run(
        variance, residuals, known, start, how.innovations, shapes, horizon=0
    )
    return State(state, how.mean.last(mean, series.values, series.observed))


def state_before(how: Specification, parameters: Float[Array, " p"], series: Series) -> State:
    """State before a path of `BURN_IN` rows and more: variances at the mean squared residual."""
    mean, variance, _ = how.split(parameters)
    level, expected = how.mean_square(mean, series), expected_news(how, parameters)
    state = how.variance.begin(variance, level, expected)
    return State(state, how.mean.long_run(mean))


def expected_news(how: Specification, parameters: Float[Array, " p"]) -> Float[Array, ""]:
    """The moment that the variance process needs of its innovations."""
    _, variance, shapes = how.split(parameters)
    return how.variance.expected(variance, how.innovations, shapes)


def next_moments(
    how: Specification, parameters: Float[Array, " p"], state: State
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and variance of the next value."""
    mean, variance, _ = how.split(parameters)
    return how.mean.next(mean, state.lags), how.variance.variance(variance, state.variance)


def next_state(
    how: Specification,
    parameters: Float[Array, " p"],
    expected: Array,
    state: State,
    moments: tuple[Array, Array],
    residual: Array,
) -> State:
    """State after a value of these moments with a drawn residual."""
    mean, variance = moments
    seen = jnp.asarray(True)
    later = how.variance.advance(
        how.split(parameters)[1], state.variance, variance, residual, seen, expected
    )
    return State(later, push(state.lags, mean + residual))


def carry_on(
    how: Specification,
    parameters: Float[Array, " p"],
    state: State,
    units: Float[Array, " horizon"],
) -> Float[Array, " horizon"]:
    """The next values with innovations `units`."""
    expected = expected_news(how, parameters)

    def step(state, unit):
        moments = next_moments(how, parameters, state)
        residual = jnp.sqrt(moments[1]) * unit
        state = next_state(how, parameters, expected, state, moments, residual)
        return state, moments[0] + residual

    return jax.lax.scan(step, state, units)[1]


def simulate_ahead(
    how: Specification,
    parameters: Float[Array, " p"],
    series: Series,
    horizon: int,
    num_draws: int,
    units: Float[Array, "draws horizon"] | None = None,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon"]:
    """Draws of the next values given the series, by the law or with innovations `units`."""
    state = state_after(how, parameters, series)
    if units is None:
        units = how.innovations.draw((num_draws, horizon), how.split(parameters)[2], key=key)
    return jax.vmap(lambda row: carry_on(how, parameters, state, row))(units)


def simulate_long(
    how: Specification,
    parameters: Float[Array, " p"],
    series: Series,
    num_steps: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, " time"]:
    """A path from the long-run law: its first `BURN_IN` rows are dropped."""
    units = how.innovations.draw((BURN_IN + num_steps,), how.split(parameters)[2], key=key)
    state = state_before(how, parameters, series)
    return carry_on(how, parameters, state, units)[BURN_IN:]


def check_source(innovations: str) -> None:
    """Raise `ValueError` for an unknown source of innovations."""
    if innovations not in SOURCES:
        raise ValueError(f"innovations must be one of {SOURCES}, got {innovations!r}.")


def resampled(
    units: Float[Array, "time series"],
    known: Bool[Array, "time series"],
    size: tuple[int, ...],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "..."]:
    """Rows drawn with replacement from those in which every series is known; NaN without any."""
    complete = jnp.all(known, axis=1)
    last = jnp.cumsum(complete)
    draws = jax.random.randint(key, size, 0, jnp.maximum(last[-1], 1))
    rows = units[jnp.searchsorted(last, draws, side="right")]
    return jnp.where(last[-1] > 0, rows, jnp.nan)
