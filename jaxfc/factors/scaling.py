"""Units: every estimation runs on centred series of unit scale, every answer is in data units."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Float
from jaxfc_kernels.aggregation import AggregationRows, row_sums


class Scaling(eqx.Module):
    """x = centre + scale * z, series by series, at the panel's own frequency."""

    centre: Float[Array, " series"]
    scale: Float[Array, " series"]

    def standardise(
        self,
        values: Float[Array, "time series"],
        observed: Float[Array, "time series"],
        rows: AggregationRows | None,
    ) -> Float[Array, "time series"]:
        """Data in standardised units, zero where not observed. An aggregate y = Q x becomes
        (y - centre * row sum) / scale = Q z."""
        totals = 1.0 if rows is None else row_sums(rows, values.dtype)[0]
        return jnp.where(observed > 0, (values - self.centre * totals) / self.scale, 0.0)

    def restore(self, standardised: Float[Array, "*batch series"]) -> Float[Array, "*batch series"]:
        """Back to data units."""
        return self.centre + self.scale * standardised


def fit_scaling(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    rows: AggregationRows | None,
    standardise: bool,
) -> Scaling:
    """Mean and standard deviation (divisor: number of observations) of each series.

    For aggregates y_j = q_j' x of serially independent x, the mean by least squares on the row sums
    r_j and the variance as the mean of (y_j - mean r_j)^2 / q_j' q_j.
    """
    if rows is None:
        totals = squares = jnp.ones_like(values)
    else:
        totals, squares = row_sums(rows, values.dtype)
    masked = jnp.where(observed > 0, values, 0.0)
    weight = jnp.sum(observed * totals**2, axis=0)
    centre = jnp.sum(masked * totals, axis=0) / jnp.maximum(weight, jnp.finfo(values.dtype).tiny)
    if not standardise:
        return Scaling(centre, jnp.ones_like(centre))
    divisor = jnp.where(squares > 0, squares, 1.0)
    count = jnp.maximum(jnp.sum(observed, axis=0), 1.0)
    variance = jnp.sum(observed * (masked - centre * totals) ** 2 / divisor, axis=0) / count
    # A constant series leaves the rounding of its mean; scaled up, that would pass for data. (`fit`
    # refuses constant series by name; batches of windows may meet them.)
    level = jnp.sum(observed * masked**2 / divisor, axis=0) / count
    rounding = (8.0 * jnp.finfo(values.dtype).eps) ** 2 * level
    return Scaling(centre, jnp.sqrt(jnp.where(variance > rounding, variance, 1.0)))
