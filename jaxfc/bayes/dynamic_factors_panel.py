"""A panel in standard units, and what it must satisfy before a factor model can be sampled."""

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Bool, Float

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Observations of a series below which its mean and scale say nothing.
FEWEST_OBSERVATIONS = 4


class SeriesScale(eqx.Module):
    """x = centre + scale * z, series by series."""

    centre: Float[Array, " series"]
    scale: Float[Array, " series"]

    def restore(self, standard: Float[Array, "*batch series"]) -> Float[Array, "*batch series"]:
        """Back to data units."""
        return self.centre + self.scale * standard


class StandardPanel(eqx.Module):
    """Centred series of unit scale: `values` (time, series), zero where not `observed`."""

    values: Float[Array, "time series"]
    observed: Bool[Array, "time series"]
    units: SeriesScale

    @property
    def weights(self) -> Float[Array, "time series"]:
        """One where observed, else zero."""
        return self.observed.astype(self.values.dtype)


def standard_panel(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    units: SeriesScale | None = None,
) -> StandardPanel:
    """The panel in `units`; by default those of its own means and standard deviations."""
    masked = jnp.where(observed, values, 0.0)
    if units is None:
        count = jnp.maximum(jnp.sum(observed, axis=0), 1)
        centre = jnp.sum(masked, axis=0) / count
        gaps = jnp.where(observed, masked - centre, 0.0)
        variance = jnp.sum(gaps**2, axis=0) / count
        # `fit` refuses a constant series by name; a batch of windows may meet one.
        level = jnp.sum(masked**2, axis=0) / count
        rounding = (8.0 * jnp.finfo(values.dtype).eps) ** 2 * level
        units = SeriesScale(centre, jnp.sqrt(jnp.where(variance > rounding, variance, 1.0)))
    standard = jnp.where(observed, (masked - units.centre) / units.scale, 0.0)
    return StandardPanel(standard, observed, units)


def check_size(num_factors: int, num_series: int, num_times: int, rows_needed: int) -> None:
    """Raise `ValueError` for more factors than a panel of this shape can tell apart."""
    if num_factors >= num_series:
        raise ValueError(
            f"num_factors={num_factors} needs more than {num_factors} series, got {num_series}; "
            "lower num_factors or add series."
        )
    if num_times < rows_needed:
        raise ValueError(
            f"the model needs at least {rows_needed} rows, got {num_times}; lengthen the window, "
            "or ask for fewer factors or lags."
        )


def check_series(panel: "Panel") -> None:
    """Raise `ValueError` for series that are empty, nearly empty or constant, by name."""
    for i, name in enumerate(panel.names):
        values = panel.values[panel.observed[:, i], i]
        if values.size == 0:
            raise ValueError(
                f"series {name!r} has no observation in {panel.index[0]:%Y-%m-%d}.."
                f"{panel.index[-1]:%Y-%m-%d}; drop it or change the window."
            )
        if values.size < FEWEST_OBSERVATIONS:
            raise ValueError(
                f"series {name!r} has {values.size} observations, at least {FEWEST_OBSERVATIONS} "
                "are needed for its mean and scale; drop it or lengthen the window."
            )
        if float(np.std(values)) <= 1e-12 * max(float(np.max(np.abs(values))), 1e-300):
            raise ValueError(
                f"series {name!r} is constant ({values[0]:g}) in this panel; drop it or change "
                "the window."
            )
