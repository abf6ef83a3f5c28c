"""What each series, and each cell, adds to a forecast: the forecast is affine in the data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.condition import check_fitted_panel, condition, fitted_data
from jaxfc.factors.coupled import centred_values
from jaxfc.factors.em import PanelData
from jaxfc.factors.model import FittedFactorModel
from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class Contributions(eqx.Module):
    """forecast[h] = base[h] + sum_{t, i} cells[h, t, i], in the units of the target.

    `base` is the forecast if every cell had shown its mean. `cells` are exactly zero where nothing
    was observed.
    """

    base: Float[Array, " horizon"]
    cells: Float[Array, "horizon time series"]
    forecast: Float[Array, " horizon"]

    @property
    def by_series(self) -> Float[Array, "horizon series"]:
        """Sums over time."""
        return jnp.sum(self.cells, axis=1)

    def to_frame(
        self, names: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
    ) -> "pd.DataFrame":
        """One row for each step ahead: the base, each series (or group of series), the forecast.

        `groups` says which series make up a group, e.g. `{"prices": ["CPI", "PPI"]}`.

        **Raises:** `ValueError` if the number of names differs from that of the series, or if the
        groups do not hold every series exactly once (the parts would not add up).
        """
        import pandas as pd

        parts = np.asarray(self.by_series)
        names = list(names)
        if len(names) != parts.shape[1]:
            raise ValueError(f"{len(names)} names for {parts.shape[1]} series.")
        index = pd.RangeIndex(1, len(parts) + 1, name="horizon")
        frame = pd.DataFrame(parts, index, names)
        if groups is not None:
            members = [name for group in groups.values() for name in group]
            if sorted(members) != sorted(names):
                odd = sorted({n for n in {*members, *names} if members.count(n) != names.count(n)})
                raise ValueError(
                    f"the groups must hold every series exactly once; check {', '.join(odd)}."
                )
            frame = pd.DataFrame({g: frame[list(of)].sum(axis=1) for g, of in groups.items()})
        frame.insert(0, "base", np.asarray(self.base))
        frame["forecast"] = np.asarray(self.forecast)
        return frame


def contributions(
    fitted: FittedFactorModel,
    panel: "Panel",
    horizon: int = 1,
    *,
    target: str | Sequence[float],
) -> Contributions:
    """The forecast of a series, or of a linear combination of series, split by cells of the panel.

        E[w' x_{T+h} | panel] = base_h + sum_{t, i} (d E[w' x_{T+h}] / d x_ti) (x_ti - mean_i)

    exact, because the mean is affine in the data given the parameters (which are held fixed, and
    with them centre and scale of the series). `target` is the name of a series, or a weight w_i for
    each series, in data units. One reverse pass for each step ahead, of the cost of a smoother.

    With two-step methods the data are the panel that the estimation rebuilt (`fitted.completed`),
    as in the source: cells between low-frequency observations then have contributions of their own.

    **Raises:** `ValueError` if `panel` is not the one that was fitted, if the target is unknown,
    for a horizon below 1, and for principal components, whose factors are not moments of the model.

    Source: Defend et al. (2021), section 5, the factor impact; by differentiation.
    """
    check_fitted_panel(fitted, panel)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}.")
    if isinstance(target, str):
        if target not in panel.names:
            raise ValueError(f"there is no series {target!r} in the panel.")
        weights = np.eye(len(panel.names))[panel.names.index(target)]
    else:
        weights = np.asarray(target, float)
        if weights.shape != (len(panel.names),) or not np.all(np.isfinite(weights)):
            raise ValueError(
                f"target must be a name or {len(panel.names)} finite weights, got {target!r}."
            )
    return jitted_contributions(fitted, jnp.asarray(weights), horizon)


def data_contributions(
    fitted: FittedFactorModel, weights: Float[Array, " series"], horizon: int
) -> Contributions:
    """`contributions` on arrays: pure."""
    data = fitted_data(fitted)
    intercept = fitted.parameters.intercept
    deviations = centred_values(data.values, data.observed, intercept, data.coupling)
    means = data.values - deviations
    weights = weights.astype(data.values.dtype)

    def forecast(values: Array) -> Float[Array, " horizon"]:
        return conditional_forecast(fitted, data, values, weights, horizon)

    mean, pullback = jax.vjp(forecast, data.values)
    (slopes,) = jax.vmap(pullback)(jnp.eye(horizon, dtype=mean.dtype))
    cells = jnp.where(data.observed > 0, slopes * deviations, 0.0)
    return Contributions(base=forecast(means), cells=cells, forecast=mean)


jitted_contributions = eqx.filter_jit(data_contributions)


def conditional_forecast(
    fitted: FittedFactorModel,
    data: PanelData,
    values: Float[Array, "time series"],
    weights: Float[Array, " series"],
    horizon: int,
) -> Float[Array, " horizon"]:
    """Forecast means of w'x as a function of the standardised panel."""
    given = condition(fitted, dataclasses.replace(data, values=values))
    factors, _ = given.forecast_factors(horizon)
    standardised = fitted.parameters.intercept + factors @ fitted.parameters.loadings.T
    return fitted.scaling.restore(standardised) @ weights
