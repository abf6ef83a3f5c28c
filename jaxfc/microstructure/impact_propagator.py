"""Impact that decays: prices, costs, the cheapest schedule, and whether round trips earn money."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float


def exponential_decay(
    lags: Float[Array, "..."], resilience: float | Float[Array, ""]
) -> Float[Array, "..."]:
    """G(t) = exp(-rho t)."""
    return jnp.exp(-resilience * lags)


def power_decay(
    lags: Float[Array, "..."],
    exponent: float | Float[Array, ""],
    start: float | Float[Array, ""] = 1.0,
) -> Float[Array, "..."]:
    """G(t) = (1 + t / t_0)^{-beta}, t_0 `start`: convex, so positive definite, if beta > 0."""
    return (1.0 + lags / start) ** (-exponent)


def propagated_prices(
    decay: Float[Array, " time"],
    trades: Float[Array, " time"],
    exponent: float | Float[Array, ""] = 1.0,
) -> Float[Array, " time"]:
    """Price moves after each trade, p_t = sum_{s <= t} G(t - s) f(v_s).

    **Arguments:** `decay` G at lags 0, 1, ...; signed `trades` v; `exponent` delta of the impact of
    one trade f(v) = sign(v) |v|^delta.

    Source: Bouchaud, Gefen, Potters and Wyart (2004).
    """
    return jnp.convolve(decay, signed_power(trades, exponent))[: len(trades)]


def signed_power(values: Float[Array, " time"], exponent: float | Array) -> Float[Array, " time"]:
    """sign(v) |v|^delta."""
    return jnp.sign(values) * jnp.abs(values) ** exponent


def trading_cost(
    decay: Float[Array, " time"],
    trades: Float[Array, " time"],
    exponent: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """What `trades` pay above the price before the first of them.

        C = sum_t v_t (sum_{s < t} G(t - s) f(v_s) + G(0) f(v_t) / 2),

    each trade halfway through its own impact; for linear impact the quadratic form v' G v / 2.
    """
    own = 0.5 * decay[0] * signed_power(trades, exponent)
    return jnp.sum(trades * (propagated_prices(decay, trades, exponent) - own))


class Manipulation(NamedTuple):
    """Whether a round trip of one unit of squared trades can earn money, and the best of them."""

    possible: Bool[Array, ""]
    least_cost: Float[Array, ""]
    round_trip: Float[Array, " times"]


def price_manipulation(kernel: Float[Array, "times times"]) -> Manipulation:
    """The cheapest round trip under linear impact: minimise v' G v / 2, sum v = 0, sum v^2 = 1.

    It costs less than nothing if and only if `kernel` has a negative direction among trades that
    sum to zero; a positive definite kernel has none. Zero is told from rounding by the precision of
    the kernel.

    **Arguments:** `kernel` G(|t_i - t_j|) between all times of trading.

    Source: Huberman and Stanzl (2004); Gatheral (2010), section 2; Alfonsi, Schied and Slynko
    (2012). Under impact that is not linear no matrix decides: see `decay_allows`.
    """
    size = len(kernel)
    # An orthonormal basis of what sums to zero: the reflection that takes the unit to the ones.
    first = jnp.zeros(size, kernel.dtype).at[0].set(1.0)
    ones = jnp.full(size, size**-0.5, kernel.dtype)
    gap = first - ones
    basis = (jnp.eye(size, dtype=kernel.dtype) - jnp.outer(gap, gap) / (1.0 - ones[0]))[:, 1:]
    values, vectors = jnp.linalg.eigh(basis.T @ kernel @ basis)
    rounding = size * jnp.finfo(kernel.dtype).eps * jnp.max(jnp.abs(values))
    return Manipulation(values[0] < -rounding, 0.5 * values[0], basis @ vectors[:, 0])


def decay_allows(
    impact_exponent: float | Float[Array, ""], decay_exponent: float | Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether gamma + delta >= 1, without which impact |v|^delta that decays as t^{-gamma}, gamma
    below 1, lets round trips earn money.

    Buying at the slow rate e for a time of 1 - e and selling at rate 1 - e within e costs
    e^{2 - gamma} - (1 - gamma) e^{1 + delta} to leading order in e. Necessary, not sufficient.
    Exponential decay (gamma 0 at short lags) passes with linear impact only.

    Source: Gatheral (2010), section 5.
    """
    return jnp.asarray(impact_exponent) + jnp.asarray(decay_exponent) >= 1.0


def cheapest_schedule(
    kernel: Float[Array, "times times"], quantity: float | Float[Array, ""]
) -> tuple[Float[Array, " times"], Float[Array, ""]]:
    """Trades that sum to X at the least v' G v / 2, and that cost: v = X G^{-1} 1 / (1' G^{-1} 1).

    `kernel` must be positive definite; if it is not (`price_manipulation`), the answer is NaN.
    """
    chol = jnp.linalg.cholesky(kernel)
    half = jnp.linalg.solve(chol, jnp.ones(len(kernel), kernel.dtype))
    total = jnp.sum(half**2)
    return quantity * jnp.linalg.solve(chol.T, half) / total, 0.5 * quantity**2 / total
