"""Intervals corrected online by how often they failed: adaptive conformal inference.

Case by case, with nothing but what is known before the case: the outcome of case t is known when
case t + `delay` is predicted (the horizon of the forecast). Intervals are moved by a threshold q,

    [l_t - q_t s_t, u_t + q_t s_t]   score "bounds":  max(l_t - r_t, r_t - u_t) / s_t
    [c_t - q_t s_t, c_t + q_t s_t]   score "centre":  |r_t - c_t| / s_t,  c_t = (l_t + u_t) / 2

(conformalised quantile regression, Romano, Patterson and Candes 2019; scaled residuals), and never
beyond their middle, to which they collapse. A case whose outcome is NaN teaches nothing. One whose
scale is NaN or not positive keeps the given interval.
"""

import abc
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.discounting import discounted_sums
from jaxfc.evaluation.intervals import Bounds, Level, Outcomes, beside, level_beside, outside
from jaxfc.evaluation.scores import known
from jaxfc.typing import Array, Float, as_scalar

Score = Literal["bounds", "centre"]


class Calibrator(eqx.Module):
    """A rule that moves intervals: the threshold for the next case, and what an outcome changes."""

    score: eqx.AbstractVar[Score]
    delay: eqx.AbstractVar[int]

    @abc.abstractmethod
    def start(self, alpha: Array) -> Any:
        """What is known before the first case, for target rates `alpha` of violations."""

    @abc.abstractmethod
    def absorb(self, state: Any, alpha: Array, error: Array, score: Array) -> Any:
        """The state after an outcome; NaN: no such outcome, or no interval to judge by it."""

    @abc.abstractmethod
    def threshold(self, state: Any) -> Array:
        """The threshold q of the next case; NaN keeps the given interval."""

    def calibrate(
        self,
        lower: Bounds,
        upper: Bounds,
        realised: Outcomes,
        level: Level,
        *,
        scale: Outcomes | float | int = 1.0,
    ) -> tuple[Float[Array, "cases *rest"], Float[Array, "cases *rest"]]:
        """Calibrated bounds of all cases, in one pass; every element by itself.

        **Arguments:** bounds (cases, ...), `realised` of the same shape or without the last axis,
        which is then that of the levels; `level` in (0, 1), one number or one for each. `scale` s,
        known before the case, in the units of the data (a predicted standard deviation or
        `ewma_volatility`): shaped like `realised`, or one number.

        **Raises:** `ValueError` for a level outside (0, 1) or shapes that do not fit.
        """
        dtype = jnp.result_type(lower, upper, realised)
        low, high = jnp.asarray(lower, dtype=dtype), jnp.asarray(upper, dtype=dtype)
        value = beside(jnp.asarray(realised, dtype=dtype), low)
        width = scale if jnp.ndim(scale) == 0 else beside(jnp.asarray(scale), low)
        width = jnp.broadcast_to(jnp.asarray(width, dtype=low.dtype), low.shape)
        alpha = 1.0 - level_beside(level, low)
        middle = 0.5 * (low + high)
        base = (low, high) if self.score == "bounds" else (middle, middle)
        usable = jnp.isfinite(base[0]) & jnp.isfinite(base[1]) & (width > 0.0)
        # Harmless numbers where there is nothing: NaN would spoil derivatives.
        base = jnp.where(usable, base[0], 0.0), jnp.where(usable, base[1], 0.0)
        safe = jnp.where(usable, width, 1.0)
        miss = jnp.maximum(base[0] - known(value), known(value) - base[1]) / safe
        scores = jnp.where(usable & jnp.isfinite(value), miss, jnp.nan)
        # The score of a case arrives when the one `delay` later is predicted.
        nothing = jnp.full((self.delay, *low.shape[1:]), jnp.nan, dtype=low.dtype)
        arriving = jnp.concatenate([nothing, scores])[: low.shape[0]]

        def one_case(carry, case):
            state, pending = carry
            given, (floor, top), size, okay, outcome, arrived = case
            state = self.absorb(state, alpha, pending[0], arrived)
            q = self.threshold(state)
            moved = okay & ~jnp.isnan(q)
            q = jnp.maximum(jnp.where(moved, q, 0.0), -0.5 * (top - floor) / size)
            new = (
                jnp.where(moved, floor - q * size, given[0]),
                jnp.where(moved, top + q * size, given[1]),
            )
            error = jnp.where(moved, outside(*new, outcome), jnp.nan)
            return (state, jnp.concatenate([pending[1:], error[None]])), new

        cases = ((low, high), base, safe, usable, value, arriving)
        _, bounds = jax.lax.scan(one_case, (self.start(alpha), nothing), cases)
        return bounds


class AdaptiveConformal(Calibrator):
    """Adaptive conformal inference: the rate of violations that is asked for follows the errors.

        a_{t+1} = a_t + step (a - err_t),  a_1 = a = 1 - level,  err_t = 1{r_t outside}

    (Gibbs and Candes 2021, equation 2), and q_t is the empirical (1 - a_t) quantile of the last
    `window` known scores, the smallest one that a share of at least 1 - a_t does not exceed. Until
    `window_min` scores are known, the given intervals are kept and a_t stays. For a_t >= 1 the
    interval is its middle. For a_t <= 0 it reaches as far as the largest score so far
    (`beyond="largest"`), or everywhere (`beyond="infinite"`), which their proposition 4.1 needs:
    with delay 1, over T cases after the first ones,

        |mean err - a| <= (max(a, 1 - a) + step) / (step T)

    The largest score so far leaves intervals finite and gives up this bound for series whose
    scores keep growing. Costs O(window log window) per case and element.
    """

    step: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.01)
    window: int = eqx.field(static=True, default=250)
    window_min: int = eqx.field(static=True, default=20)
    delay: int = eqx.field(static=True, default=1)
    score: Score = eqx.field(static=True, default="bounds")
    beyond: Literal["largest", "infinite"] = eqx.field(static=True, default="largest")

    def __check_init__(self):
        check_options(self.score, self.delay)
        if not 1 <= self.window_min <= self.window:
            raise ValueError(
                f"window_min must be between 1 and window, got {self.window_min} and "
                f"{self.window}; a quantile needs scores to be taken from."
            )
        if self.beyond not in ("largest", "infinite"):
            raise ValueError(f"beyond must be 'largest' or 'infinite', got {self.beyond!r}.")

    def start(self, alpha: Array) -> tuple[Array, Array, Array]:
        empty = jnp.full((self.window, *alpha.shape), jnp.inf, dtype=alpha.dtype)
        return alpha, empty, jnp.full_like(alpha, -jnp.inf)

    def absorb(
        self, state: tuple[Array, Array, Array], alpha: Array, error: Array, score: Array
    ) -> tuple[Array, Array, Array]:
        rate, scores, largest = state
        rate = jnp.where(jnp.isnan(error), rate, rate + self.step * (alpha - error))
        came = ~jnp.isnan(score)
        scores = jnp.where(came, jnp.concatenate([score[None], scores[:-1]]), scores)
        largest = jnp.where(came, jnp.maximum(largest, score), largest)
        return rate.astype(alpha.dtype), scores, largest

    def threshold(self, state: tuple[Array, Array, Array]) -> Array:
        rate, scores, largest = state
        count = jnp.sum(scores < jnp.inf, axis=0)
        # The rate adds up rounding: it must not lift a rank that is whole, or miss 0 and 1.
        slack = jnp.sqrt(jnp.finfo(rate.dtype).eps)
        rank = jnp.clip(jnp.ceil(count * (1.0 - rate - slack)).astype(int), 1, None)
        place = jnp.minimum(rank, self.window)[None] - 1
        q = jnp.take_along_axis(jnp.sort(scores, axis=0), place, axis=0)[0]
        q = jnp.where(rate >= 1.0 - slack, -jnp.inf, q)
        farthest = largest if self.beyond == "largest" else jnp.full_like(largest, jnp.inf)
        q = jnp.where(rate <= slack, farthest, q)
        return jnp.where(count >= self.window_min, q, jnp.nan)


class QuantileTracker(Calibrator):
    """The threshold itself follows the errors: the quantile tracker of conformal PID control.

        q_{t+1} = q_t + step (err_t - a),  a = 1 - level,  q_1 = initial

    (Angelopoulos, Candes and Tibshirani 2023, quantile tracking). `step` and `initial` are in units
    of the score: of the data, or of `scale` where one is given. With delay 1 and scores in [-b, b],

        |mean err - a| <= (|initial| + b + step) / (step T)

    From `initial` 0 the score "bounds" starts with the given intervals, the score "centre" with
    their middles.
    """

    step: Float[Array, ""] = eqx.field(converter=as_scalar)
    initial: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0)
    delay: int = eqx.field(static=True, default=1)
    score: Score = eqx.field(static=True, default="bounds")

    def __check_init__(self):
        check_options(self.score, self.delay)

    def start(self, alpha: Array) -> Array:
        return jnp.full_like(alpha, self.initial)

    def absorb(self, state: Array, alpha: Array, error: Array, score: Array) -> Array:
        moved = state + self.step * (error - alpha)
        return jnp.where(jnp.isnan(error), state, moved).astype(alpha.dtype)

    def threshold(self, state: Array) -> Array:
        return state


def ewma_volatility(
    residuals: Outcomes, decay: float | Array = 0.94, *, delay: int = 1
) -> Float[Array, "cases *outcome"]:
    """Volatility known before each case: exponentially weighted mean square of the residuals.

        s_t^2 = sum_{i>=0} decay^i e_{t-delay-i}^2 / sum_{i>=0} decay^i,  over the known residuals

    in the units of the residuals (RiskMetrics 1996, weights that add up to one from the start).
    NaN before the first residual is known; a missing residual changes nothing.

    **Raises:** `ValueError` for a delay below 1.
    """
    check_delay(delay)
    residuals = jnp.asarray(residuals)
    rate = jnp.asarray(decay, dtype=residuals.dtype)
    nothing = jnp.full((delay, *residuals.shape[1:]), jnp.nan, dtype=residuals.dtype)
    arriving = jnp.concatenate([nothing, residuals])[: residuals.shape[0]]
    squares, weight = discounted_sums(known(arriving) ** 2, jnp.isfinite(arriving), rate)
    some = (weight > 0.0) & (squares > 0.0)
    root = jnp.sqrt(jnp.where(some, squares / jnp.where(some, weight, 1.0), 1.0))
    return jnp.where(some, root, jnp.where(weight > 0.0, 0.0, jnp.nan))


def volatility_scaled(
    residuals: Outcomes, decay: float | Array = 0.94, *, delay: int = 1
) -> Float[Array, "cases *outcome"]:
    """Residuals over the volatility known before them (`ewma_volatility`); NaN where it is not
    known or zero."""
    volatility = ewma_volatility(residuals, decay, delay=delay)
    positive = volatility > 0.0
    return jnp.where(positive, residuals / jnp.where(positive, volatility, 1.0), jnp.nan)


def check_options(score: str, delay: int) -> None:
    """Refuses an unknown score and a delay of nothing."""
    if score not in ("bounds", "centre"):
        raise ValueError(f"score must be 'bounds' or 'centre', got {score!r}.")
    check_delay(delay)


def check_delay(delay: int) -> None:
    """Refuses to use an outcome before its case."""
    if delay < 1:
        raise ValueError(
            f"delay must be at least 1, got {delay}; it is the horizon of the forecasts, since an "
            "outcome is not known before its own case."
        )
