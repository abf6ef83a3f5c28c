"""What each series, and each cell, of a panel adds to a forecast, by differentiation: any model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.model import Fitted
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel


class Contributions(eqx.Module):
    """forecast[h] = base[h] + sum_{t, i} cells[h, t, i] + remainder[h], in the units of the target.

    `base` is the forecast if every cell had shown its reference value. `cells` are exactly zero
    where nothing was observed.
    """

    base: Float[Array, " horizon"]
    cells: Float[Array, "horizon time series"]
    forecast: Float[Array, " horizon"]

    @property
    def by_series(self) -> Float[Array, "horizon series"]:
        """Sums over time."""
        return jnp.sum(self.cells, axis=1)

    @property
    def remainder(self) -> Float[Array, " horizon"]:
        """What the parts miss: rounding for a forecast that is affine in the data, the error of the
        quadrature for another."""
        return self.forecast - self.base - jnp.sum(self.cells, axis=(1, 2))

    def to_frame(
        self, names: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
    ) -> "pd.DataFrame":
        """One row for each step ahead: the base, each series (or group of series), the forecast.

        `groups` says which series make up a group, e.g. `{"prices": ["CPI", "PPI"]}`.

        **Raises:** `ValueError` if the number of names differs from that of the series, or if the
        groups do not hold every series exactly once (the parts would not add up).
        """
        frame = parts_table(np.asarray(self.by_series), names, groups)
        frame.insert(0, "base", np.asarray(self.base))
        frame["forecast"] = np.asarray(self.forecast)
        return frame


def parts_table(
    parts: Float[np.ndarray, "horizon series"],
    names: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None,
) -> "pd.DataFrame":
    """One row for each step ahead, one column for each series or group of series."""
    import pandas as pd

    names = list(names)
    if len(names) != parts.shape[1]:
        raise ValueError(f"{len(names)} names for {parts.shape[1]} series.")
    index = pd.RangeIndex(1, len(parts) + 1, name="horizon")
    frame = pd.DataFrame(parts, index, names)
    if groups is None:
        return frame
    members = [name for group in groups.values() for name in group]
    if sorted(members) != sorted(names):
        odd = sorted({n for n in {*members, *names} if members.count(n) != names.count(n)})
        raise ValueError(f"the groups must hold every series exactly once; check {', '.join(odd)}.")
    return pd.DataFrame({g: frame[list(of)].sum(axis=1) for g, of in groups.items()})


def impact(
    fitted: Fitted,
    panel: "Panel",
    horizon: int = 1,
    *,
    target: str,
    reference: Mapping[str, float] | None = None,
    num_nodes: int = 1,
    key: PRNGKeyArray | None = None,
) -> Contributions:
    """The mean forecast of `target` from the end of `panel`, split by the cells of the panel.

    With parameters held fixed the forecast is a function g of the observed cells x. Along the line
    from reference values r to x,

        g(x) - g(r) = sum_{t, i} (x_ti - r_ti) int_0^1 (d g / d x_ti)(r + u (x - r)) du

    (integrated gradients, Sundararajan, Taly, Yan 2017, equation 1), the integral by Gauss-Legendre
    at `num_nodes` points: one is exact where g is affine, as in linear Gaussian models; raise it
    until `remainder` is small for others.

    **Arguments:** `panel` is any panel of the fitted series (the next vintage, say). `reference`:
    value of every cell of a series, in its units; series without one take the mean of their
    observed cells. `key` for models that answer with draws: one key, one set of draws for all.

    **Raises:** `ValueError` for an unknown target, an unknown or infinite reference, a horizon or
    `num_nodes` below 1, and for methods that tie their state to the fitted data (`Fitted.given`).
    """
    names = fitted.forecast_names(panel.names)
    if target not in names:
        raise ValueError(
            f"the model has no forecast of {target!r}; it forecasts {', '.join(names)}."
        )
    if horizon < 1 or num_nodes < 1:
        raise ValueError(
            f"horizon and num_nodes must be at least 1, got {horizon} and {num_nodes}."
        )
    given = {} if reference is None else dict(reference)
    unknown = sorted(set(given) - set(panel.names))
    if unknown:
        raise ValueError(f"reference names series that the panel lacks: {', '.join(unknown)}.")
    if not all(np.isfinite(value) for value in given.values()):
        raise ValueError(f"reference values must be finite, got {given}.")
    values, observed = panel.arrays()
    counts = np.maximum(panel.observed.sum(axis=0), 1)
    start = np.where(panel.observed, panel.values, 0.0).sum(axis=0) / counts
    for name, value in given.items():
        start[panel.names.index(name)] = value
    return jitted_contributions(
        fitted,
        values,
        observed,
        panel.aggregation,
        jnp.asarray(start, values.dtype),
        names.index(target),
        horizon,
        num_nodes,
        key,
    )


def data_impact(
    fitted: Fitted,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
    reference: Float[Array, " series"],
    column: int,
    horizon: int,
    num_nodes: int,
    key: PRNGKeyArray | None,
) -> Contributions:
    """`impact` on arrays: pure."""
    start = jnp.where(observed, reference, 0.0)
    change = jnp.where(observed, values - reference, 0.0)

    def forecast(cells: Array) -> Float[Array, " horizon"]:
        now = fitted.given(cells, observed, aggregation=aggregation)
        return now.forecast(horizon, key=key).mean[:, column]

    def slopes(node: Array) -> Float[Array, "horizon time series"]:
        _, pullback = jax.vjp(forecast, start + node * change)
        return jax.vmap(lambda unit: pullback(unit)[0])(jnp.eye(horizon, dtype=values.dtype))

    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    points = jnp.asarray(0.5 * (nodes + 1.0), values.dtype)
    each = jax.lax.map(slopes, points)
    mean = jnp.tensordot(jnp.asarray(0.5 * weights, values.dtype), each, axes=1)
    return Contributions(base=forecast(start), cells=mean * change, forecast=forecast(values))


jitted_contributions = eqx.filter_jit(data_impact)
