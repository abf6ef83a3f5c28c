"""What the log returns of a strategy say about it: mean, risk, ratios, drawdown.

Returns are log returns per step; NaN where nothing was realised, which is not counted. Functions
are of one vector; `jax.vmap` runs them over strategies and bootstrap draws.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float

Steps = Float[Array, " steps"]
Number = Float[Array, ""] | float


class Performance(eqx.Module):
    """Measures of one series of log returns; per step unless they are called annual.

    `volatility` divides by n - 1. `sharpe` is excess mean over volatility, `sortino` excess mean
    over the root mean square of the shortfall. `value_at_risk` (the quantile) and
    `expected_shortfall` (the mean at or below it) keep the sign of the returns: losses are
    negative, as is `max_drawdown`. `kurtosis` is 3 for a normal law. The exposure and turnover are
    means per step, None where they were not given.
    """

    total_log_return: Float[Array, "*batch"]
    mean: Float[Array, "*batch"]
    volatility: Float[Array, "*batch"]
    sharpe: Float[Array, "*batch"]
    annual_mean: Float[Array, "*batch"]
    annual_volatility: Float[Array, "*batch"]
    annual_sharpe: Float[Array, "*batch"]
    sortino: Float[Array, "*batch"]
    omega: Float[Array, "*batch"]
    value_at_risk: Float[Array, "*batch"]
    expected_shortfall: Float[Array, "*batch"]
    max_drawdown: Float[Array, "*batch"]
    skewness: Float[Array, "*batch"]
    kurtosis: Float[Array, "*batch"]
    mean_exposure: Float[Array, "*batch"] | None
    mean_turnover: Float[Array, "*batch"] | None


def performance(
    log_returns: Steps,
    *,
    exposure: Steps | None = None,
    turnover: Steps | None = None,
    periods_per_year: Number = 1.0,
    risk_free: Number | Steps = 0.0,
    threshold: Number = 0.0,
    confidence: Number = 0.95,
) -> Performance:
    """All measures of one series of log returns.

    **Arguments:** `periods_per_year`: 52 for weeks; annual means grow with it, volatility and the
    Sharpe ratio with its root, as if returns were uncorrelated. `risk_free`: log return of cash per
    step, subtracted for the Sharpe and Sortino ratios. `threshold`: tau of Omega. `confidence`:
    0.95 takes the 5 % quantile.

    Ratios to a volatility of zero are NaN; Omega and Sortino without any loss are infinite. Ruin
    (a log return of -inf) makes mean and total -inf, the drawdown -1 and the ratios NaN.
    """
    counted = ~jnp.isnan(log_returns)
    mean = mean_of(log_returns, counted)
    excess = log_returns - risk_free
    deviation, central = central_moments(log_returns, counted)
    safe = jnp.where(central > 0.0, central, 1.0)
    third = mean_of(deviation**3, counted) / safe**1.5
    fourth = mean_of(deviation**4, counted) / safe**2
    volatility = volatility_of(log_returns)
    sharpe = ratio(mean_of(excess, counted), volatility_of(excess))
    quantile = jnp.nanquantile(log_returns, 1.0 - jnp.asarray(confidence))
    root = jnp.sqrt(jnp.asarray(periods_per_year, dtype=mean.dtype))
    return Performance(
        total_log_return=jnp.sum(jnp.where(counted, log_returns, 0.0)),
        mean=mean,
        volatility=volatility,
        sharpe=sharpe,
        annual_mean=mean * periods_per_year,
        annual_volatility=volatility * root,
        annual_sharpe=sharpe * root,
        sortino=sortino_ratio(excess),
        omega=omega_ratio(log_returns, threshold),
        value_at_risk=quantile,
        expected_shortfall=mean_of(log_returns, counted & (log_returns <= quantile)),
        max_drawdown=max_drawdown(log_returns),
        skewness=jnp.where(central > 0.0, third, jnp.nan),
        kurtosis=jnp.where(central > 0.0, fourth, jnp.nan),
        mean_exposure=None if exposure is None else mean_of(exposure, counted),
        mean_turnover=None if turnover is None else mean_of(turnover, counted),
    )


def max_drawdown(log_returns: Steps) -> Float[Array, ""]:
    """min_t V_t / max_{s <= t} V_s - 1 with V_t = exp(r_1 + ... + r_t) and V_0 = 1; at most 0."""
    wealth = jnp.cumsum(jnp.where(jnp.isnan(log_returns), 0.0, log_returns))
    peak = jnp.maximum(jax.lax.cummax(wealth), 0.0)
    return jnp.minimum(jnp.min(jnp.expm1(wealth - peak)), 0.0)


def omega_ratio(log_returns: Steps, threshold: Number = 0.0) -> Float[Array, ""]:
    """E[(r - tau)^+] / E[(tau - r)^+] (Keating and Shadwick 2002); NaN if both are zero."""
    counted = ~jnp.isnan(log_returns)
    gain = mean_of(jnp.maximum(log_returns - threshold, 0.0), counted)
    return gain / mean_of(jnp.maximum(threshold - log_returns, 0.0), counted)


def sortino_ratio(excess: Steps) -> Float[Array, ""]:
    """mean(r) / sqrt(mean(min(r, 0)^2)) (Sortino and Price 1994), r in excess of the target."""
    counted = ~jnp.isnan(excess)
    shortfall = mean_of(jnp.minimum(jnp.where(counted, excess, 0.0), 0.0) ** 2, counted)
    return mean_of(excess, counted) / jnp.sqrt(shortfall)


def sharpe_ratio(excess: Steps) -> Float[Array, ""]:
    """mean(r) / std(r) per step with divisor n - 1; NaN if all returns are equal."""
    return ratio(mean_of(excess, ~jnp.isnan(excess)), volatility_of(excess))


def volatility_of(values: Steps) -> Float[Array, ""]:
    """Standard deviation of the counted values with divisor n - 1."""
    counted = ~jnp.isnan(values)
    _, variance = central_moments(values, counted)
    count = jnp.sum(counted)
    return jnp.sqrt(variance * count / (count - 1))


def central_moments(values: Steps, counted: Array) -> tuple[Steps, Float[Array, ""]]:
    """Deviations from the mean and their mean square, which is exactly 0 for equal values."""
    # A harmless number where nothing is known: NaN would spoil derivatives.
    deviation = jnp.where(counted, values, 0.0) - mean_of(values, counted)
    smallest = jnp.min(jnp.where(counted, values, jnp.inf))
    largest = jnp.max(jnp.where(counted, values, -jnp.inf))
    variance = mean_of(deviation**2, counted)
    # Equal numbers miss their rounded mean: their variance would be tiny instead of zero.
    return deviation, jnp.where(smallest == largest, 0.0, variance)


def mean_of(values: Steps, counted: Array) -> Float[Array, ""]:
    """Mean of the counted values, NaN if there is none."""
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.sum(counted)


def ratio(numerator: Array, denominator: Array) -> Float[Array, ""]:
    """numerator / denominator, NaN where the denominator is zero."""
    positive = denominator > 0.0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), jnp.nan)
