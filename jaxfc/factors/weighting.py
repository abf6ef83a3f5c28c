"""Errors that are not equally reliable: Student-t tails, and stretches of time with larger
variances.

Both multiply the precision of single errors (of single quasi-differences u = e_t - r^g e_{t-g}
where errors have memory, v = Var u), and both weights have a closed form given the other
quantities:

    Student-t      w_ti = (n + 1) / (n + E u_ti^2 / v_ti)
    periods        1 / w_t = mean over the series observed at t of E u_ti^2 / v_ti, at least 1

n the degrees of freedom. For Student-t errors the iteration is variational: q(F) q(w) in place of
the joint law, so the likelihood that it reports and raises is a lower bound (Svensen and Bishop
2005).
"""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln

from jaxfc.typing import Array, Bool, Float, as_scalar

if TYPE_CHECKING:
    import pandas as pd


class Weighting(eqx.Module):
    """How reliable single errors are."""

    def resolved(self, index: "pd.DatetimeIndex") -> "Weighting":
        """The strategy with dates turned into rows (host side)."""
        return self

    @abc.abstractmethod
    def weights(
        self, squares: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, "time series"]:
        """Weights from E u^2 / v of the observed cells; 1 where nothing is observed."""

    @abc.abstractmethod
    def bound(
        self, weights: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, ""]:
        """What the criterion adds to the likelihood given these weights."""


class StudentT(Weighting):
    """Errors with Student-t tails of `degrees` > 0 degrees of freedom (variance v n / (n - 2)).

    **Raises:** `ValueError` (from `fit`) unless `degrees` is positive.
    """

    degrees: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0)

    def weights(
        self, squares: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, "time series"]:
        degrees = self.degrees.astype(squares.dtype)
        return jnp.where(observed > 0, (degrees + 1.0) / (degrees + squares), 1.0)

    def bound(
        self, weights: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, ""]:
        # q(w) = Gamma(a, b), a = (n + 1) / 2, mean a / b = weight, against Gamma(n / 2, n / 2).
        prior = 0.5 * self.degrees.astype(weights.dtype)
        shape = prior + 0.5
        rate = shape / weights
        log_mean = digamma(shape) - jnp.log(rate)
        divergence = (
            (shape - prior) * digamma(shape)
            - gammaln(shape)
            + gammaln(prior)
            + prior * jnp.log(rate / prior)
            + shape * (prior - rate) / rate
        )
        return jnp.sum(observed * (0.5 * (log_mean - jnp.log(weights)) - divergence))


class VolatilePeriods(Weighting):
    """Variances of all errors larger by one factor, at least 1, in each row from `start` to `stop`.

    For a pandemic or a crisis whose level breaks the scale of every series: those months inform
    the parameters in proportion to how unusual they were (in the spirit of Lenza and Primiceri
    2022). Dates are those of the panel's calendar, both included.

    **Raises:** `ValueError` (from `fit`) if no row of the panel lies between them.
    """

    start: str = eqx.field(static=True)
    stop: str = eqx.field(static=True)
    rows: Bool[Array, " time"] | None = None

    def resolved(self, index: "pd.DatetimeIndex") -> "VolatilePeriods":
        import pandas as pd

        first, last = pd.Timestamp(self.start), pd.Timestamp(self.stop)
        rows = np.asarray((index >= first) & (index <= last))
        if not rows.any():
            raise ValueError(
                f"VolatilePeriods({self.start!r}, {self.stop!r}) holds no row of the panel "
                f"({index[0]:%Y-%m-%d}..{index[-1]:%Y-%m-%d}); change the dates or leave it out."
            )
        return VolatilePeriods(self.start, self.stop, jnp.asarray(rows))

    def weights(
        self, squares: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, "time series"]:
        if self.rows is None:
            raise ValueError("VolatilePeriods needs its panel; use fit, or model.resolved(panel).")
        counts = jnp.sum(observed, axis=1)
        mean = jnp.sum(observed * squares, axis=1) / jnp.maximum(counts, 1.0)
        scale = jnp.where(self.rows & (counts > 0), jnp.maximum(mean, 1.0), 1.0)
        return jnp.broadcast_to(1.0 / scale[:, None], squares.shape)

    def bound(
        self, weights: Float[Array, "time series"], observed: Float[Array, "time series"]
    ) -> Float[Array, ""]:
        return jnp.zeros((), weights.dtype)


def weights_on(
    weights: Float[Array, "time series"] | None, num_times: int
) -> Float[Array, "rows series"] | None:
    """Weights of an estimation for a panel with another number of rows: rows that the estimation
    did not have count fully."""
    if weights is None or weights.shape[0] == num_times:
        return weights
    extra = max(num_times - weights.shape[0], 0)
    return jnp.pad(weights[:num_times], ((0, extra), (0, 0)), constant_values=1.0)


def expected_squares(
    residuals: Float[Array, "time series"],
    spread: Float[Array, "time series"],
    lagged_spread: Float[Array, "orders time series"],
    at: Float[Array, "gaps time series"],
    coefficients: Float[Array, "gaps series"],
    variances: Float[Array, "gaps series"],
) -> Float[Array, "time series"]:
    """E u^2 / v of every cell: `spread` and `lagged_spread` are w'Cov(F_t)w and w'Cov(F_t,
    F_{t-g})w, `at` marks the gap before each observed cell, the tables hold r^g and Var u by
    gap."""
    squares = residuals**2 + spread
    total = at[0] * squares / variances[0]
    for gap in range(1, at.shape[0]):
        earlier = jnp.pad(squares[:-gap], ((gap, 0), (0, 0)))
        products = residuals * jnp.pad(residuals[:-gap], ((gap, 0), (0, 0)))
        products = products + lagged_spread[gap - 1]
        power = coefficients[gap]
        expected = squares - 2.0 * power * products + power**2 * earlier
        total = total + at[gap] * expected / variances[gap]
    return total
