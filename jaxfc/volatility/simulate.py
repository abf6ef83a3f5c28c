"""Paths of one series with drawn innovations: each residual feeds the variances that follow."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float, PRNGKeyArray
from jaxfc.volatility.likelihood import Series, Specification
from jaxfc.volatility.mean import push
from jaxfc.volatility.variance import Start

BURN_IN = 500


def state_after(
    how: Specification, parameters: Float[Array, " p"], series: Series, start: Start
) -> tuple[Any, Float[Array, " lags"]]:
    """States of variance and mean after the last row."""
    mean, variance, shapes = how.split(parameters)
    residuals, known = how.mean.residuals(mean, series.values, series.observed)
    state, _ = how.variance.run(
        variance, residuals, known, start, how.innovations, shapes, horizon=0
    )
    return state, how.mean.last(mean, series.values, series.observed)


def carry_on(
    how: Specification,
    parameters: Float[Array, " p"],
    state: tuple[Any, Float[Array, " lags"]],
    units: Float[Array, " horizon"],
) -> Float[Array, " horizon"]:
    """The next values with innovations `units`."""
    mean, variance, shapes = how.split(parameters)
    expected = how.variance.expected(variance, how.innovations, shapes)
    seen = jnp.asarray(True)

    def step(state, unit):
        inner, lags = state
        now = how.variance.variance(variance, inner)
        residual = jnp.sqrt(now) * unit
        inner = how.variance.advance(variance, inner, now, residual, seen, expected)
        value = how.mean.next(mean, lags) + residual
        return (inner, push(lags, value)), value

    return jax.lax.scan(step, state, units)[1]


def simulate_ahead(
    how: Specification,
    parameters: Float[Array, " p"],
    series: Series,
    horizon: int,
    num_draws: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws horizon"]:
    """Draws of the next values given the series."""
    mean, _, shapes = how.split(parameters)
    state = state_after(how, parameters, series, how.before(mean, series))
    units = how.innovations.draw((num_draws, horizon), shapes, key=key)
    return jax.vmap(lambda row: carry_on(how, parameters, state, row))(units)


def simulate_long(
    how: Specification,
    parameters: Float[Array, " p"],
    start: Array,
    num_steps: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, " time"]:
    """A path from the long-run law: `BURN_IN` rows after a variance of `start` are dropped."""
    mean, variance, shapes = how.split(parameters)
    expected = how.variance.expected(variance, how.innovations, shapes)
    units = how.innovations.draw((BURN_IN + num_steps,), shapes, key=key)
    state = (how.variance.begin(variance, start, expected), how.mean.long_run(mean))
    return carry_on(how, parameters, state, units)[BURN_IN:]
