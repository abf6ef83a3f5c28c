"""The simple forecasts that a model has to beat: zero, random walk, historical mean, AR(1).

All are one first-order autoregression of every series by itself,

    y_t = c + phi y_{t-1} + e_t,  e_t ~ N(0, s^2)

with c and phi known or estimated by least squares, and s^2 the mean squared one-step error.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import GaussianForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class FirstOrder(Model):
    """y_t = c + phi y_{t-1} + e_t, series by series, over the pairs of rows that are observed.

    `intercept` c is "zero" or "estimated"; `slope` phi is "zero", "one" or "estimated" (least
    squares). Zero forecast: ("zero", "zero"); random walk: ("zero", "one"); historical mean:
    ("estimated", "zero"); AR(1): ("estimated", "estimated").
    """

    intercept: Literal["zero", "estimated"] = eqx.field(static=True)
    slope: Literal["zero", "one", "estimated"] = eqx.field(static=True)

    def __check_init__(self):
        if self.intercept not in ("zero", "estimated"):
            raise ValueError(f"intercept must be 'zero' or 'estimated', got {self.intercept!r}.")
        if self.slope not in ("zero", "one", "estimated"):
            raise ValueError(f"slope must be 'zero', 'one' or 'estimated', got {self.slope!r}.")

    def check(self, panel: "Panel") -> None:
        for i, (name, frequency) in enumerate(zip(panel.names, panel.frequencies, strict=True)):
            if frequency != panel.frequency:
                raise ValueError(
                    f"series {name!r} ({frequency}) has no consecutive rows on the calendar "
                    f"{panel.frequency}; use panel.select(...) of the series of that frequency."
                )
            pairs = int((panel.observed[1:, i] & panel.observed[:-1, i]).sum())
            if pairs < 3:
                raise ValueError(
                    f"series {name!r} has {pairs} pairs of consecutive observations in "
                    f"{panel.index[0]:%Y-%m-%d}..{panel.index[-1]:%Y-%m-%d}, an autoregression "
                    "needs 3; drop it or lengthen the window."
                )

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedFirstOrder":
        if aggregation is not None:
            raise ValueError(
                "an autoregression of single rows cannot read sums or averages over several; use "
                "panel.select(...) of the series at the panel's own frequency."
            )
        values = jnp.where(observed, values, 0.0)
        pairs = (observed[1:] & observed[:-1]).astype(values.dtype)
        count = jnp.sum(pairs, axis=0)
        after, before = pairs * values[1:], pairs * values[:-1]
        intercept, slope = self.coefficients(pairs, before, after)
        errors = pairs * (after - intercept - slope * before)
        variance = jnp.sum(errors**2, axis=0) / count
        mean = jnp.sum(after, axis=0) / count
        unknown = jnp.zeros_like(mean)
        loglik = -0.5 * jnp.sum(count * (jnp.log(2 * jnp.pi * variance) + 1.0))
        okay = jnp.isfinite(loglik)
        return FittedFirstOrder(
            intercept=intercept,
            slope=slope,
            variance=variance,
            mean=mean,
            last_mean=unknown,
            last_var=unknown,
            loglik=loglik,
            num_steps=jnp.asarray(0),
            result=select(okay, SUCCESSFUL, RESULTS.diverged),
        ).given(values, observed)

    def coefficients(
        self, pairs: Array, before: Array, after: Array
    ) -> tuple[Float[Array, " series"], Float[Array, " series"]]:
        """c and phi of every series."""
        count = jnp.sum(pairs, axis=0)
        estimated = self.intercept == "estimated"
        before_mean = jnp.sum(before, axis=0) / count if estimated else jnp.zeros_like(count)
        after_mean = jnp.sum(after, axis=0) / count if estimated else jnp.zeros_like(count)
        if self.slope == "estimated":
            centred = pairs * (before - before_mean)
            slope = jnp.sum(centred * after, axis=0) / jnp.sum(centred**2, axis=0)
        else:
            slope = jnp.full_like(count, 1.0 if self.slope == "one" else 0.0)
        return after_mean - slope * before_mean, slope


class FittedFirstOrder(Fitted):
    """Coefficients by series; `mean` of the fitted targets; `last_mean`, `last_var` the law of the
    last row given the data."""

    intercept: Float[Array, " series"]
    slope: Float[Array, " series"]
    variance: Float[Array, " series"]
    mean: Float[Array, " series"]
    last_mean: Float[Array, " series"]
    last_var: Float[Array, " series"]
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> GaussianForecast:
        if key is not None:
            raise ValueError("forecast of an autoregression is exact; omit `key`.")
        check_counts(horizon=horizon)
        steps = jnp.arange(1, horizon + 1)
        # powers[h, j] = phi^(h - j) for the innovation of step j <= h.
        lags = jnp.maximum(steps[:, None] - steps, 0)
        reach = (steps[:, None] >= steps)[..., None]
        powers = jnp.where(reach, self.slope ** lags[..., None], 0.0)
        first = self.slope ** steps[:, None]
        mean = jnp.sum(powers, axis=1) * self.intercept + first * self.last_mean
        own = jnp.einsum("hji,kji->ihk", powers, powers) * self.variance[:, None, None]
        own = own + jnp.einsum("hi,ki->ihk", first, first) * self.last_var[:, None, None]
        unit = jnp.eye(self.slope.size, dtype=own.dtype)
        return GaussianForecast(mean, jnp.einsum("ihk,ij->hikj", own, unit))

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedFirstOrder":
        def carry_on(state, row):
            value, seen = row
            mean, var = state
            mean = jnp.where(seen, value, self.intercept + self.slope * mean)
            var = jnp.where(seen, 0.0, self.slope**2 * var + self.variance)
            return (mean, var), None

        # Before the first observation: the mean of the targets and the variance of one step.
        values = jnp.where(observed, values, 0.0)
        first = (self.mean, self.variance)
        (last_mean, last_var), _ = jax.lax.scan(carry_on, first, (values, observed))
        return dataclasses.replace(self, last_mean=last_mean, last_var=last_var)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        noise = jax.random.normal(key, (num_steps, self.slope.size), self.variance.dtype)

        def advance(value, error):
            new = self.intercept + self.slope * value + error
            return new, new

        # A random walk has no unconditional law: paths start from the mean, or from zero.
        gap = 1.0 - self.slope
        start = jnp.where(gap == 0.0, 0.0, self.intercept / jnp.where(gap == 0.0, 1.0, gap))
        _, path = jax.lax.scan(advance, start, noise * jnp.sqrt(self.variance))
        return path


BENCHMARKS: dict[str, tuple[Literal["zero", "estimated"], Literal["zero", "one", "estimated"]]] = {
    "zero": ("zero", "zero"),
    "random walk": ("zero", "one"),
    "historical mean": ("estimated", "zero"),
    "AR(1)": ("estimated", "estimated"),
}


def benchmark_models() -> dict[str, FirstOrder]:
    """The four benchmarks by name."""
    return {name: FirstOrder(*options) for name, options in BENCHMARKS.items()}
