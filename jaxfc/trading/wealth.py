"""The wealth of a strategy over time: one scan over the steps, no look-ahead.

A step starts with wealth V and the exposure e that was left by the last step. The strategy sees the
view of the coming return and this state, trades to its target pi and pays a cost in proportion to
the traded value; then the return comes:

    V' = V - cost |pi V' - e V|,      V_{t+1} = V' (1 + pi (exp(r) - 1) + (1 - pi) i)

with r the log return of the asset and i the simple cash rate of the step. The first equation is
solved exactly, so that pi is the exposure after costs. The exposure then drifts to
pi exp(r) V' / V_{t+1}. Everything starts in cash, so the first purchase is paid for too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.trading.strategies import Strategy, WealthState
from jaxfc.trading.view import View
from jaxfc.typing import Array, Float, PyTree

Rate = Float[Array, ""] | Float[Array, " steps"] | float


class WealthPath(eqx.Module):
    """What happened to a strategy, step by step.

    `wealth` has the initial wealth first and so one entry more than the others. `exposure` is held
    over the step (after trading); `turnover` is the traded value over wealth before the trade;
    `costs` are in units of wealth; `log_returns` are net of costs, NaN where nothing was realised.
    """

    wealth: Float[Array, "*paths periods"]
    exposure: Float[Array, "*paths steps"]
    turnover: Float[Array, "*paths steps"]
    costs: Float[Array, "*paths steps"]
    log_returns: Float[Array, "*paths steps"]


class Rules(NamedTuple):
    """How trades are made, each entry an array: cost, rebalancing interval, limits, initial V."""

    cost: Array
    interval: Array
    lower: Array
    upper: Array
    initial_wealth: Array


def run_strategy(
    strategy: Strategy,
    returns: Float[Array, " steps"],
    view: View | None = None,
    *,
    cash_rate: Rate = 0.0,
    cost: float | Array = 0.0,
    interval: int | Array = 1,
    limits: tuple[float | Array, float | Array] | None = None,
    initial_wealth: float | Array = 1.0,
) -> WealthPath:
    """The wealth of one strategy over the returns of one asset; pure: jit, vmap, grad.

    **Arguments:** `returns`: log returns (steps,). `view`: what is known before each of them, its
    leaves led by the steps. `cash_rate`: simple rate per step, a number or (steps,). `cost`: share
    of the traded value that is lost. `interval`: trade at steps 0, k, 2k, ...; in between the
    exposure drifts. `limits`: the lowest and highest exposure that is traded to.

    No trade is made where the target is NaN (no forecast). A step whose return is NaN is left out:
    no trade, no interest, unchanged wealth, log return NaN. Wealth that a leveraged or short
    position brings to zero or below is zero for ever, with exposure 0: the log return of that step
    is -inf, of later ones NaN.

    **Raises:** `ValueError` if the view lacks what the strategy reads or has another number of
    steps, for a cost below 0, an interval below 1, or limits in the wrong order.
    """
    view = View() if view is None else view
    check_inputs(strategy, returns, view, cost, interval, limits, initial_wealth)
    lower, upper = (-jnp.inf, jnp.inf) if limits is None else limits
    dtype = returns.dtype
    cost, lower, upper, initial = (
        jnp.asarray(number, dtype=dtype) for number in (cost, lower, upper, initial_wealth)
    )
    rules = Rules(cost, jnp.asarray(interval), lower, upper, initial)
    rates = jnp.broadcast_to(jnp.asarray(cash_rate, dtype=dtype), returns.shape)
    state = WealthState(
        wealth=initial,
        initial_wealth=initial,
        exposure=jnp.zeros((), dtype),
        cash_rate=jnp.zeros((), dtype),
        cash_account=jnp.ones((), dtype),
        step=jnp.asarray(0),
    )

    def advance(carry, row):
        return one_step(strategy, rules, *carry, *row)

    _, steps = jax.lax.scan(advance, (state, strategy.start()), (view, returns, rates))
    wealth, *rest = steps
    return WealthPath(jnp.concatenate([initial[None], wealth]), *rest)


def one_step(
    strategy: Strategy,
    rules: Rules,
    state: WealthState,
    memory: PyTree,
    view: View,
    log_return: Array,
    cash_rate: Array,
) -> tuple[tuple[WealthState, PyTree], tuple[Array, ...]]:
    """Trade, then live through one return."""
    realised = ~jnp.isnan(log_return)
    ruined = state.wealth <= 0.0
    state = eqx.tree_at(lambda s: s.cash_rate, state, cash_rate)
    target, new_memory = strategy.decide(view, state, memory)
    target = jnp.clip(target.astype(log_return.dtype), rules.lower, rules.upper)
    trades = realised & ~ruined & (state.step % rules.interval == 0) & ~jnp.isnan(target)
    memory = jax.tree.map(lambda new, old: jnp.where(trades, new, old), new_memory, memory)
    target = jnp.where(trades, target, state.exposure)

    # The traded value |pi V' - e V| has the sign of pi - e on either side of the cost.
    change = target - state.exposure
    direction = jnp.sign(change)
    kept = (1.0 + direction * rules.cost * state.exposure) / (1.0 + direction * rules.cost * target)
    turnover = direction * change / (1.0 + direction * rules.cost * target)
    costs = rules.cost * turnover * state.wealth

    known = jnp.where(realised, log_return, 0.0)
    rate = jnp.where(realised, cash_rate, 0.0)
    growth = 1.0 + target * jnp.expm1(known) + (1.0 - target) * rate
    alive = ~ruined & (growth > 0.0) & (kept > 0.0)
    factor = jnp.where(alive, kept * growth, 1.0)
    wealth = jnp.where(alive, state.wealth * factor, 0.0)
    drifted = target * jnp.exp(known) / jnp.where(alive, growth, 1.0)
    new = WealthState(
        wealth=wealth,
        initial_wealth=state.initial_wealth,
        exposure=jnp.where(alive, drifted, 0.0),
        cash_rate=cash_rate,
        cash_account=state.cash_account * (1.0 + rate),
        step=state.step + 1,
    )
    earned = jnp.where(alive, jnp.log(factor), -jnp.inf)
    earned = jnp.where(realised & ~ruined, earned, jnp.nan)
    return (new, memory), (wealth, target, turnover, costs, earned)


def check_inputs(strategy, returns, view, cost, interval, limits, initial_wealth) -> None:
    """Raises `ValueError` for what can be seen before the program runs."""
    strategy.check(view)
    for leaf in jax.tree.leaves(view):
        if leaf.shape[:1] != returns.shape:
            raise ValueError(
                f"the view has {leaf.shape[0] if leaf.ndim else 'no axis of'} steps, the returns "
                f"have {returns.shape[0]}; give one view for each return (see views_of)."
            )
    wrong = [
        (cost, lambda c: c >= 0.0, "cost must not be negative"),
        (interval, lambda k: k >= 1, "interval must be at least 1"),
        (initial_wealth, lambda v: v > 0.0, "initial_wealth must be positive"),
    ]
    for number, holds, message in wrong:
        if not isinstance(number, Tracer) and not np.all(holds(np.asarray(number))):
            raise ValueError(f"{message}, got {number}.")
    if limits is not None and not any(isinstance(end, Tracer) for end in limits):
        if not np.all(np.asarray(limits[0]) <= np.asarray(limits[1])):
            raise ValueError(f"limits are (lowest, highest) exposure, got {limits}.")


@eqx.filter_jit
def run_stack(stack: Strategy, returns: Array, view: View, options: dict[str, Any]) -> WealthPath:
    """Strategies of one class, stacked along a leading axis of their leaves, in one `vmap`."""
    return jax.vmap(lambda one: run_strategy(one, returns, view, **options))(stack)


def run_strategies(
    strategies: Mapping[str, Strategy],
    returns: Float[Array, " steps"] | Float[np.ndarray, " steps"],
    view: View | None = None,
    **options,
) -> dict[str, WealthPath]:
    """The paths of several strategies by name, on the host; `options` are those of `run_strategy`.

    Strategies of one class (and one static setting) run in one `vmap`. Other numbers in them or in
    the options do not compile again.

    **Raises:** as `run_strategy`; `ValueError` for no strategy.
    """
    if not strategies:
        raise ValueError("no strategy was given; name at least one.")
    returns = jnp.asarray(returns)
    view = View() if view is None else view
    check_options = {"cost": 0.0, "interval": 1, "limits": None, "initial_wealth": 1.0} | options
    check_options.pop("cash_rate", None)
    for strategy in strategies.values():
        check_inputs(strategy, returns, view, **check_options)
    options = {name: jax.tree.map(jnp.asarray, value) for name, value in options.items()}
    groups: dict[Any, list[str]] = {}
    for name, strategy in strategies.items():
        groups.setdefault(jax.tree.structure(strategy), []).append(name)
    found: dict[str, WealthPath] = {}
    for names in groups.values():
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[strategies[n] for n in names])
        paths = jax.tree.map(np.asarray, run_stack(stack, returns, view, options))
        for place, name in enumerate(names):
            found[name] = jax.tree.map(lambda leaf, i=place: leaf[i], paths)
    return {name: found[name] for name in strategies}
