"""The forecast of a return as the sum of what it is made of, draw by draw."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxfc.forecast import Forecast, Levels, SampleForecast
from jaxfc.impact import parts_table
from jaxfc.typing import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("ar_nature", "factor_impact", "factor_risk", "ar_risk")


class DecomposedForecast(Forecast):
    """Draws of a return in four parts that add up (Defend et al. 2021, equation 23):

    - `ar_nature`: alpha + sum_i beta_i r_{t-i}, what the own past says;
    - `factor_impact`: sum_i gamma_i' E[f_{t-i} | panel], what the panel says;
    - `factor_risk`: sum_i gamma_i' (f_{t-i} - E[f_{t-i} | panel]), the factors' uncertainty;
    - `ar_risk`: the residual.

    Beyond one step each part is carried on by the own lags. `impact_by_series` (horizon, series of
    the panel) splits the mean factor impact, together with `impact_base` (what it would be if every
    cell had shown its mean; zero unless the initial law of the factors has a mean). Units: those of
    the return.
    """

    ar_nature: Float[Array, "draws horizon target"]
    factor_impact: Float[Array, "draws horizon target"]
    factor_risk: Float[Array, "draws horizon target"]
    ar_risk: Float[Array, "draws horizon target"]
    impact_by_series: Float[Array, "horizon series"]
    impact_base: Float[Array, " horizon"]

    @property
    def draws(self) -> Float[Array, "draws horizon target"]:
        """Draws of the return: the sum of the parts."""
        return self.ar_nature + self.factor_impact + self.factor_risk + self.ar_risk

    @property
    def law(self) -> SampleForecast:
        """The forecast without its decomposition."""
        return SampleForecast(self.draws)

    @property
    def mean(self) -> Float[Array, "horizon target"]:  # pyright: ignore
        return self.law.mean

    @property
    def cov(self) -> Float[Array, "horizon target horizon target"]:
        return self.law.cov

    @property
    def std(self) -> Float[Array, "horizon target"]:
        return self.law.std

    def quantile(self, q: Levels) -> Float[Array, "... horizon target"]:
        return self.law.quantile(q)

    def sample(self, num_draws: int, *, key: PRNGKeyArray) -> Float[Array, "draws horizon target"]:
        return self.law.sample(num_draws, key=key)

    def cumulative(self) -> SampleForecast:
        return self.law.cumulative()

    def aggregate(self, weights: Float[Array, "out target"]) -> SampleForecast:
        return self.law.aggregate(weights)

    def affine(
        self, scale: Float[Array, " target"], shift: Float[Array, "horizon target"]
    ) -> SampleForecast:
        return self.law.affine(scale, shift)

    def mean_parts(self) -> Float[Array, "parts horizon"]:
        """Means over the draws of AR nature, factor impact, factor risk and AR risk."""
        parts = [getattr(self, name) for name in PARTS]
        return jnp.stack([jnp.mean(part, axis=0)[:, 0] for part in parts])

    def to_frame(
        self, names: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
    ) -> "pd.DataFrame":
        """One row for each step ahead: AR nature, each series (or group) and the base of the factor
        impact, factor risk, AR risk, and the forecast, their sum.

        **Raises:** `ValueError` for a wrong number of names, or groups that do not hold every
        series exactly once (the parts would not add up).
        """
        frame = parts_table(np.asarray(self.impact_by_series), names, groups)
        nature, _, risk, residual = np.asarray(self.mean_parts())
        frame.insert(0, "AR nature", nature)
        frame["impact base"] = np.asarray(self.impact_base)
        frame["factor risk"], frame["AR risk"] = risk, residual
        frame["forecast"] = np.asarray(self.mean)[:, 0]
        return frame
