"""What a strategy is told of the next return: its quantiles, mean and standard deviation."""

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jaxfc.forecast import Forecast
from jaxfc.typing import Array, Float


class View(eqx.Module):
    """The marginal law of the coming log return, as far as it is known; None: not known.

    One step has scalars `mean` and `std` and vectors `levels` and `quantiles`; several steps lead
    every leaf by one more axis, which `run_strategy` scans. Levels ascend and lie in (0, 1). NaN at
    a step means that there is no forecast for it: strategies that need one then do not trade.
    """

    mean: Float[Array, "*steps"] | None = None
    std: Float[Array, "*steps"] | None = None
    levels: Float[Array, "*steps levels"] | None = None
    quantiles: Float[Array, "*steps levels"] | None = None

    def __check_init__(self):
        if (self.levels is None) != (self.quantiles is None):
            raise ValueError("quantiles need their levels, and levels their quantiles; give both.")

    def quantile(self, level: Float[Array, ""]) -> Float[Array, ""]:
        """The quantile of one step at a level between the first and the last of `levels`, else NaN.

        Between two levels it is linear in the normal score of the level, which is exact for a
        Gaussian law.
        """
        if self.levels is None or self.quantiles is None:
            raise ValueError("the view has no quantiles; build it with view_of or views_of.")
        scores = ndtri(self.levels)
        # (1 - 0.9) / 2 is not exactly 0.05: a level that misses an end by rounding is that end.
        slack = 32 * jnp.finfo(scores.dtype).eps
        known = (level >= self.levels[0] - slack) & (level <= self.levels[-1] + slack)
        inside = jnp.clip(level, self.levels[0], self.levels[-1])
        return jnp.where(known, jnp.interp(ndtri(inside), scores, self.quantiles), jnp.nan)

    def interval(self, level: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The quantiles at (1 - level) / 2 and (1 + level) / 2 of one step."""
        return self.quantile((1.0 - level) / 2.0), self.quantile((1.0 + level) / 2.0)


def view_of(
    forecast: Forecast, levels: Float[Array, " levels"], *, row: int = 0, series: int = 0
) -> View:
    """The view of one series of a forecast at one row of its horizon, row 0 the next step.

    Under `jax.vmap` over the forecasts of a backtest it gives the view of every origin.

    **Raises:** `ValueError` if the forecast has no such row or series.
    """
    horizon, num_series = forecast.mean.shape
    if not 0 <= row < horizon or not 0 <= series < num_series:
        raise ValueError(
            f"the forecast has {horizon} rows and {num_series} series, asked for row {row}, series "
            f"{series}; count from 0."
        )
    levels = jnp.asarray(levels, dtype=forecast.mean.dtype)
    return View(
        mean=forecast.mean[row, series],
        std=forecast.std[row, series],
        levels=levels,
        quantiles=forecast.quantile(levels)[:, row, series],
    )


def views_of(
    quantiles: Float[Array, "steps levels"],
    levels: Float[Array, " levels"],
    *,
    mean: Float[Array, " steps"] | None = None,
    std: Float[Array, " steps"] | None = None,
) -> View:
    """The views of several steps from the arrays of a backtest, one row of quantiles a step."""
    quantiles = jnp.asarray(quantiles)
    levels = jnp.broadcast_to(jnp.asarray(levels, dtype=quantiles.dtype), quantiles.shape)
    return View(mean=mean, std=std, levels=levels, quantiles=quantiles)
