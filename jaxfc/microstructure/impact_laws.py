"""Empirical laws of market impact: the square root, and costs of US equity orders."""

from typing import NamedTuple

import jax.numpy as jnp

from jaxfc.typing import Array, Float

# Almgren, Thum, Hauptmann and Li (2005), section 4.3: estimates and their exponents.
PERMANENT_COEFFICIENT = 0.314
TEMPORARY_COEFFICIENT = 0.142
TURNOVER_EXPONENT = 0.25
RATE_EXPONENT = 0.6


def square_root_impact(
    quantity: float | Float[Array, "..."],
    volume: float | Float[Array, "..."],
    volatility: float | Float[Array, "..."],
    *,
    coefficient: float | Float[Array, "..."] = 1.0,
    exponent: float | Float[Array, "..."] = 0.5,
) -> Float[Array, "..."]:
    """Mean price move over a whole order, c sigma sign(Q) (|Q| / V)^delta, in units of sigma.

    **Arguments:** signed `quantity` Q and `volume` V over the time that `volatility` sigma is of (a
    day, say), all broadcast; `coefficient` c is of order one.

    Source: Almgren et al. (2005); Sato and Kanazawa (2024) find delta = 0.489 over the stocks of
    the Tokyo exchange.
    """
    share = jnp.abs(jnp.asarray(quantity)) / volume
    return coefficient * volatility * jnp.sign(jnp.asarray(quantity)) * share**exponent


class EquityCosts(NamedTuple):
    """Permanent impact I and realised cost J of an order, as shares of the price (sigma's unit)."""

    permanent: Float[Array, "..."]
    realised: Float[Array, "..."]


def equity_costs(
    quantity: float | Float[Array, "..."],
    duration: float | Float[Array, "..."],
    volume: float | Float[Array, "..."],
    shares_outstanding: float | Float[Array, "..."],
    volatility: float | Float[Array, "..."],
) -> EquityCosts:
    """Costs of a US equity order that is worked at a constant rate.

        I = 0.314 sigma (X / V) (Theta / V)^{1/4},
        J = I / 2 + 0.142 sigma sign(X) |X / (V T)|^{3/5}.

    **Arguments:** signed `quantity` X in shares, `duration` T in days, daily `volume` V and
    `shares_outstanding` Theta in shares, daily `volatility` sigma.

    Source: Almgren, Thum, Hauptmann and Li (2005), section 4.
    """
    traded = jnp.asarray(quantity) / volume
    turnover = (jnp.asarray(shares_outstanding) / volume) ** TURNOVER_EXPONENT
    permanent = PERMANENT_COEFFICIENT * volatility * traded * turnover
    rate = jnp.abs(traded / duration) ** RATE_EXPONENT
    temporary = TEMPORARY_COEFFICIENT * volatility * jnp.sign(traded) * rate
    return EquityCosts(permanent, 0.5 * permanent + temporary)
