"""A market in which an order is worked slot by slot: temporary, permanent and transient impact."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import check_not_negative, check_positive
from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float, Int, PRNGKeyArray, as_scalar


class ExecutionState(NamedTuple):
    """What a trader sees before a slot: its number, what is left, impact that has not decayed,
    and the price move to be expected over the slot."""

    slot: Int[Array, ""]
    remaining: Float[Array, ""]
    impact: Float[Array, ""]
    signal: Float[Array, ""]


class ExecutionPath(NamedTuple):
    """Trades and states by slot. `cost` is above the price at the start; `risk` is the part of it
    that comes from unexpected price moves, with mean zero; `holdings` after each slot."""

    states: ExecutionState
    trades: Float[Array, " slots"]
    holdings: Float[Array, " slots"]
    cost: Float[Array, ""]
    risk: Float[Array, ""]


# What to trade in a slot, as a share of what is left.
ExecutionPolicy = Callable[[ExecutionState], Float[Array, ""]]


class ExecutionMarket(eqx.Module):
    """An order X to be bought (sold, if negative) in N slots of length tau = T / N.

    A trade n in a slot pays, above the unaffected price at its start,

        gamma (X - x) + I + kappa n / 2 + eta n / tau + epsilon sign(n),

    where x is what was left before it and I the transient impact, which goes on to
    exp(-rho tau) (I + kappa n). The unaffected price then moves by a + sigma sqrt(tau) z, where the
    signal a is seen before the trade and follows a <- phi a + s z'. With kappa = s = 0 this is
    `AlmgrenChriss`, with eta = gamma = 0 Obizhaeva and Wang's market at discrete times.

    **Arguments:** `volatility` sigma, `temporary` eta, `permanent` gamma, `fixed_cost` epsilon,
    `transient` kappa, `resilience` rho, `signal_scale` s, `signal_persistence` phi, `duration` T.

    **Raises:** `ValueError` for negative values and a persistence of one or more.
    """

    num_steps: int = eqx.field(static=True)
    duration: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0)
    volatility: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    temporary: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    permanent: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    fixed_cost: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    transient: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    resilience: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    signal_scale: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    signal_persistence: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)

    def __check_init__(self):
        check_counts(num_steps=self.num_steps)
        check_positive(duration=self.duration)
        check_not_negative(
            volatility=self.volatility,
            temporary=self.temporary,
            permanent=self.permanent,
            fixed_cost=self.fixed_cost,
            transient=self.transient,
            resilience=self.resilience,
            signal_scale=self.signal_scale,
            signal_persistence=self.signal_persistence,
        )
        check_positive(**{"1 - signal_persistence": 1.0 - self.signal_persistence})

    @property
    def slot(self) -> Float[Array, ""]:
        """tau."""
        return self.duration / self.num_steps

    @property
    def kept(self) -> Float[Array, ""]:
        """exp(-rho tau), the share of transient impact that is left a slot later."""
        return jnp.exp(-self.resilience * self.slot)

    @property
    def signal_deviation(self) -> Float[Array, ""]:
        """Standard deviation of the signal, whose first value is drawn from its stationary law."""
        return self.signal_scale / jnp.sqrt(1.0 - self.signal_persistence**2)

    def run(
        self, policy: ExecutionPolicy, quantity: float | Float[Array, ""], *, key: PRNGKeyArray
    ) -> ExecutionPath:
        """One path of an order: pure, differentiable through every slot, for `vmap` over keys.

        The last slot trades what is left, whatever the policy says.
        """
        dtype = self.duration.dtype
        start_key, signal_key, price_key = jax.random.split(key, 3)
        shape = (self.num_steps,)
        shocks = self.signal_scale * jax.random.normal(signal_key, shape, dtype)
        moves = jax.random.normal(price_key, shape, dtype)
        moves = self.volatility * jnp.sqrt(self.slot) * moves
        total = jnp.asarray(quantity, dtype)
        first = self.signal_deviation * jax.random.normal(start_key, (), dtype)

        def advance(state: ExecutionState, draw: tuple[Array, Array]):
            share = jnp.where(state.slot == self.num_steps - 1, 1.0, policy(state))
            trade = share * state.remaining
            left = state.remaining - trade
            paid = (
                self.permanent * (total - state.remaining)
                + state.impact
                + (0.5 * self.transient + self.temporary / self.slot) * trade
                + self.fixed_cost * jnp.sign(trade)
            )
            # What is bought later pays the move of this slot.
            cost, risk = trade * paid + left * state.signal, left * draw[1]
            impact = self.kept * (state.impact + self.transient * trade)
            signal = self.signal_persistence * state.signal + draw[0]
            later = ExecutionState(state.slot + 1, left, impact, signal)
            return later, (state, trade, left, cost + risk, risk)

        start = ExecutionState(jnp.asarray(0), total, jnp.zeros((), dtype), first)
        _, rows = jax.lax.scan(advance, start, (shocks, moves))
        states, trades, holdings, costs, risks = rows
        return ExecutionPath(states, trades, holdings, jnp.sum(costs), jnp.sum(risks))

    def running_risk(self, holdings: Float[Array, " slots"]) -> Float[Array, ""]:
        """sigma^2 tau sum x^2: the variance of the cost of a schedule, and of its martingale part
        for one that adapts."""
        return self.volatility**2 * self.slot * jnp.sum(holdings**2)
