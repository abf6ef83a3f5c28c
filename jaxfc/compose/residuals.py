"""Laws of the residuals that trajectories add: normal, empirical, scaled by recent volatility."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxfc.compose.regression import Regression
from jaxfc.discounting import discounted_sums
from jaxfc.lags import lagged
from jaxfc.typing import Array, Float, PRNGKeyArray, as_scalar


class Residuals(eqx.Module):
    """What e_{T+1}, ..., e_{T+h} are drawn from, given one regression."""

    @abc.abstractmethod
    def draw(
        self,
        regression: Regression,
        weights: Float[Array, " time"],
        horizon: int,
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, " horizon"]:
        """One path of future residuals; `weights` are one in the rows of the regression."""


class NormalResiduals(Residuals):
    """e ~ N(0, v) with the regression's variance v (the source's)."""

    def draw(self, regression, weights, horizon, *, key):
        noise = jax.random.normal(key, (horizon,), regression.residuals.dtype)
        return jnp.sqrt(regression.variance) * noise


class EmpiricalResiduals(Residuals):
    """e drawn with replacement from the residuals, rescaled to the regression's variance v: keeps
    skewness and fat tails."""

    def draw(self, regression, weights, horizon, *, key):
        return draw_rows(regression.residuals, weights, regression.variance, horizon, key=key)


class VolatilityScaled(Residuals):
    """e = s_{T+1} u with an exponentially weighted volatility of the residuals,

        s_t^2 = sum_{j>=1} d^{j-1} e_{t-j}^2 / sum_{j>=1} d^{j-1},  d = `decay` (RiskMetrics: 0.94)

    over the rows of the regression, held constant over the horizon. u is standard normal, or, with
    `empirical`, drawn from e_t / s_t, centred and rescaled to variance one: the band widens in a
    crisis. The volatility is that of the rows that were fitted: between estimations it stays.
    """

    decay: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.94)
    empirical: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.decay, Tracer) and not 0.0 < float(self.decay) <= 1.0:
            raise ValueError(f"decay must lie in (0, 1], got {float(self.decay):g}.")

    def draw(self, regression, weights, horizon, *, key):
        squares = regression.residuals**2
        totals, masses = discounted_sums(squares, weights > 0, self.decay.astype(weights.dtype))
        # In the units of the regression's variance, which allows for its coefficients.
        free = regression.variance * jnp.sum(weights) / jnp.sum(squares)
        variance = free * totals[-1] / masses[-1]
        if not self.empirical:
            noise = jax.random.normal(key, (horizon,), weights.dtype)
            return jnp.sqrt(variance) * noise
        known = lagged(totals, 1) / jnp.maximum(lagged(masses, 1), jnp.finfo(weights.dtype).tiny)
        # The first rows have next to no volatility before them.
        count = jnp.cumsum(weights)
        settled = weights * (count > jnp.minimum(20.0, 0.5 * count[-1]))
        scaled = settled * regression.residuals / jnp.sqrt(jnp.where(known > 0, known, 1.0))
        # Residuals have mean zero, scaled ones need not: they would move the point forecast.
        centred = settled * (scaled - jnp.sum(scaled) / jnp.sum(settled))
        return draw_rows(centred, settled, variance, horizon, key=key)


def draw_rows(
    residuals: Float[Array, " time"],
    weights: Float[Array, " time"],
    variance: Float[Array, ""],
    horizon: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, " horizon"]:
    """Rows of weight one with replacement, rescaled to mean square `variance`."""
    mean_square = jnp.sum(residuals**2) / jnp.sum(weights)
    scale = jnp.sqrt(variance / mean_square)
    rows = jax.random.categorical(key, jnp.log(weights), shape=(horizon,))
    return scale * residuals[rows]
