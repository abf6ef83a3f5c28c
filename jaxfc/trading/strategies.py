"""Strategies between one risky asset and cash: what is known -> target exposure.

The exposure is the share of wealth in the risky asset; the rest is in cash. A strategy is a small
frozen module whose numbers are array fields: another number does not recompile, and strategies of
one class stack, so that many run in one `vmap` (`run_strategies` does it).
"""

import abc
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.trading.view import View
from jaxfc.typing import Array, Bool, Float, Int, PyTree, as_scalar

Scalar = Float[Array, ""]


class WealthState(eqx.Module):
    """What is known at the start of a step, before trading.

    `exposure` is the share of wealth that the last trade and the returns since have left in the
    risky asset; `cash_rate` the simple rate of the coming step; `cash_account` the value of one
    unit held in cash since the start.
    """

    wealth: Scalar
    initial_wealth: Scalar
    exposure: Scalar
    cash_rate: Scalar
    cash_account: Scalar
    step: Int[Array, ""]


class Strategy(eqx.Module):
    """A rule for the target exposure. `needs` names the fields of the view that it reads."""

    needs: ClassVar[tuple[str, ...]] = ()

    def start(self) -> PyTree:
        """The memory of the strategy before the first step; most need none."""
        return ()

    @abc.abstractmethod
    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        """Target exposure and new memory; a target of NaN means: do not trade."""

    def check(self, view: View) -> None:
        """Raises `ValueError` if the view lacks what the strategy needs."""
        for name in self.needs:
            if getattr(view, name) is None:
                raise ValueError(
                    f"{type(self).__name__} reads `{name}` of the forecast and the view has none; "
                    "build the view with view_of or views_of and give it to run_strategy."
                )


class ConstantMix(Strategy):
    """A fixed exposure, restored at every rebalancing."""

    exposure: Scalar = eqx.field(converter=as_scalar)

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        return self.exposure, memory


class BuyAndHold(Strategy):
    """A purchase at the first step that is never touched again: the exposure drifts."""

    exposure: Scalar = eqx.field(converter=as_scalar, default=1.0)

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        return jnp.where(state.step == 0, self.exposure, state.exposure), memory


class CPPI(Strategy):
    """Constant proportion portfolio insurance: m times the cushion above a floor, no more than b.

        exposure = min(m C, b V) / V,  C = max(V - F, 0),  F = floor V_0

    (Black and Perold 1992, without discounting as in Defend et al. 2021, section 6). With
    `floor_grows` the floor earns the cash rate, F_t = floor V_0 prod(1 + i). Once a rebalancing
    finds no cushion, everything stays in cash for ever, even if interest lifts wealth above the
    floor again. `max_exposure` is b.
    """

    multiplier: Scalar = eqx.field(converter=as_scalar)
    floor: Scalar = eqx.field(converter=as_scalar)
    max_exposure: Scalar = eqx.field(converter=as_scalar, default=1.0)
    floor_grows: bool = eqx.field(static=True, default=False)

    def start(self) -> Bool[Array, ""]:
        return jnp.asarray(False)

    def decide(
        self, view: View, state: WealthState, memory: Bool[Array, ""]
    ) -> tuple[Scalar, Bool[Array, ""]]:
        floor = self.floor * state.initial_wealth
        if self.floor_grows:
            floor = floor * state.cash_account
        cushion = state.wealth - floor
        spent = memory | (cushion <= 0.0)
        wealth = jnp.where(state.wealth > 0.0, state.wealth, 1.0)
        wanted = jnp.minimum(self.multiplier * cushion / wealth, self.max_exposure)
        return jnp.where(spent, 0.0, wanted), spent


class IntervalStrategy(Strategy):
    """A rule that reads the central prediction interval at `level`."""

    needs: ClassVar[tuple[str, ...]] = ("quantiles",)
    level: eqx.AbstractVar[Scalar]

    def check(self, view: View) -> None:
        super().check(view)
        check_level(self.level, view)

    def share(self, view: View) -> Scalar:
        """The share of the interval that lies above zero."""
        return share_above_zero(*view.interval(self.level))


class PredictionLevel(IntervalStrategy):
    """The share of the prediction interval [lo, hi] at `level` that lies above zero.

        pi = 1 if lo >= 0;  0 if hi <= 0;  else hi / (hi - lo)

    (Defend et al. 2021, equation 24). An interval centred at zero gives 1/2, whatever its width;
    with half width h and centre s, pi = 1/2 + s / (2h).
    """

    level: Scalar = eqx.field(converter=as_scalar)  # pyright: ignore

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        return self.share(view), memory


class LeveragedLevel(IntervalStrategy):
    """The exposure pi of `PredictionLevel`, amplified or damped by a factor c between two limits.

        max(lower, min(upper, term(pi)))

    (Defend et al. 2021, equation 25, strategies named c/upper/lower such as 2/1/-1). The paper does
    not print enough to settle the term; the readings offered are

    - "centred", 1/2 + c (pi - 1/2): neutral at 50 %, c > 1 amplifies; a definition of this library;
    - "shifted", c pi - (c - 1): equal to pi at 1, always below it elsewhere for c > 1; with 2/1/-1
      and 1.5/1/-0.5 the limits are reached exactly at pi = 1 and pi = 0.

    A third reading, in which c is the upper limit, is the strategy `LinearLevel`.
    """

    level: Scalar = eqx.field(converter=as_scalar)  # pyright: ignore
    factor: Scalar = eqx.field(converter=as_scalar)
    upper: Scalar = eqx.field(converter=as_scalar, default=1.0)
    lower: Scalar = eqx.field(converter=as_scalar, default=0.0)
    term: Literal["centred", "shifted"] = eqx.field(static=True, default="centred")

    def __check_init__(self):
        if self.term not in ("centred", "shifted"):
            raise ValueError(
                f"term must be 'centred' or 'shifted', got {self.term!r}; for a line between the "
                "limits use LinearLevel."
            )

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        share = self.share(view)
        neutral = 0.5 if self.term == "centred" else 1.0
        return jnp.clip(neutral + self.factor * (share - neutral), self.lower, self.upper), memory


class LinearLevel(IntervalStrategy):
    """The line from `lower` at pi = 0 to `upper` at pi = 1, pi the exposure of `PredictionLevel`.

        lower + (upper - lower) pi

    The reading of equation 25 of Defend et al. (2021) in which the first number of a name such as
    2/1/-1 is the upper limit: upper = 2, lower = -1. The middle number then has no part in it.
    """

    level: Scalar = eqx.field(converter=as_scalar)  # pyright: ignore
    upper: Scalar = eqx.field(converter=as_scalar)
    lower: Scalar = eqx.field(converter=as_scalar)

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        share = self.share(view)
        return self.lower + (self.upper - self.lower) * share, memory


class VolatilityTarget(Strategy):
    """The exposure whose predicted standard deviation is `volatility` (per step), at most a limit.

    min(volatility / std, max_exposure)
    """

    needs: ClassVar[tuple[str, ...]] = ("std",)
    volatility: Scalar = eqx.field(converter=as_scalar)
    max_exposure: Scalar = eqx.field(converter=as_scalar, default=1.0)

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        assert view.std is not None
        return jnp.minimum(self.volatility / view.std, self.max_exposure), memory


class Kelly(Strategy):
    """A fraction of the exposure that maximises expected log growth, between two limits.

        fraction (m + s^2 / 2 - i) / s^2

    with m and s the mean and standard deviation of the log return and i the cash rate: the excess
    mean of the simple return over its variance, exact in continuous time (Merton 1969, log
    utility).
    """

    needs: ClassVar[tuple[str, ...]] = ("mean", "std")
    fraction: Scalar = eqx.field(converter=as_scalar, default=1.0)
    upper: Scalar = eqx.field(converter=as_scalar, default=1.0)
    lower: Scalar = eqx.field(converter=as_scalar, default=0.0)

    def decide(self, view: View, state: WealthState, memory: PyTree) -> tuple[Scalar, PyTree]:
        assert view.mean is not None and view.std is not None
        variance = view.std**2
        wanted = self.fraction * (view.mean + 0.5 * variance - state.cash_rate) / variance
        return jnp.clip(wanted, self.lower, self.upper), memory


def share_above_zero(lower: Float[Array, "*any"], upper: Float[Array, "*any"]):
    """Share of [lower, upper] above zero; 1 for the single point zero, NaN for a missing bound."""
    across = (lower < 0.0) & (upper > 0.0)
    share = upper / jnp.where(across, upper - lower, 1.0)
    share = jnp.where(lower >= 0.0, 1.0, jnp.where(upper <= 0.0, 0.0, share))
    return jnp.where(jnp.isnan(lower) | jnp.isnan(upper), jnp.nan, share)


def check_level(level: Array, view: View) -> None:
    """Raises `ValueError` if the quantiles of a view do not reach the interval at `level`.

    Only numbers that are known can be checked; inside a traced function the exposure is NaN.
    """
    assert view.levels is not None
    if isinstance(level, Tracer) or isinstance(view.levels, Tracer):
        return
    known, wanted = np.asarray(view.levels), np.asarray(level, dtype=float)
    outside = (1.0 - wanted.max()) / 2.0 < known.min() - 1e-6
    outside |= (1.0 + wanted.max()) / 2.0 > known.max() + 1e-6
    if not np.all((wanted > 0.0) & (wanted < 1.0)) or outside:
        raise ValueError(
            f"an interval at level {wanted.max():g} needs the quantiles at "
            f"{(1 - wanted.max()) / 2:g} and {(1 + wanted.max()) / 2:g}; the view has levels "
            f"{known.min():g} to {known.max():g}. Levels lie in (0, 1); add those that are missing."
        )
