"""Which series of a panel are assets, of which sector, and which are regressors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfc.arguments import refuse_sums
from jaxfc.bayes.coefficient_prior import CoefficientData, CoefficientScales
from jaxfc.typing import Array, Bool, Float

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class Places(NamedTuple):
    """Columns of the panel of `assets` and `factors`, `members`: each asset's place in
    `sector_names`; all plain numbers and names, for `jit`."""

    assets: tuple[int, ...]
    factors: tuple[int, ...]
    members: tuple[int, ...]
    sector_names: tuple[str, ...]
    asset_names: tuple[str, ...]

    def joined(
        self,
        assets: Float[Array, "draws horizon assets"],
        factors: Float[Array, "draws horizon factors"],
    ) -> Float[Array, "draws horizon series"]:
        """Draws of all series in the order of the panel."""
        both = jnp.concatenate([assets, factors], axis=2)
        return both[:, :, np.argsort(self.assets + self.factors)]


def places_of(panel: "Panel", factors: tuple[str, ...], sectors: Mapping[str, str]) -> Places:
    """Assets are the series that are no factors.

    **Raises:** `ValueError` for factors that are not in the panel, assets without a sector, and
    sectors of series that are not assets of the panel.
    """
    absent = [name for name in factors if name not in panel.names]
    if absent:
        raise ValueError(f"factors {absent} are not among the series {list(panel.names)}.")
    assets = tuple(name for name in panel.names if name not in factors)
    if not assets:
        raise ValueError("all series of the panel are factors; add the returns of the assets.")
    without = [name for name in assets if name not in sectors]
    if without:
        raise ValueError(
            f"series {without} have no sector; name it in `sectors`, or name them in `factors`."
        )
    unknown = [name for name in sectors if name not in assets]
    if unknown:
        raise ValueError(f"`sectors` names {unknown}, which are not assets of the panel.")
    names = tuple(sorted({sectors[name] for name in assets}))
    return Places(
        assets=tuple(panel.names.index(name) for name in assets),
        factors=tuple(panel.names.index(name) for name in factors),
        members=tuple(names.index(sectors[name]) for name in assets),
        sector_names=names,
        asset_names=assets,
    )


def check_rows(panel: "Panel", places: Places, num_lags: int) -> None:
    """Raise `ValueError` for sums over periods, constant or empty series, too few rows."""
    refuse_sums(panel.aggregation, "HierarchicalRegression")
    complete = np.all(panel.observed[:, list(places.factors)], axis=1)
    known = complete[1:] & complete[:-1] if num_lags else complete
    count = len(places.factors)
    needed = count * (1 + num_lags) + 2
    if known.sum() < needed:
        raise ValueError(
            f"the factors have {known.sum()} rows in common{' with their lags' * num_lags}; at "
            f"least {needed} are needed. Drop the one that starts last."
        )
    for place in places.assets + places.factors:
        seen = panel.values[panel.observed[:, place], place]
        if place in places.factors:
            seen = panel.values[complete, place]
        if seen.size == 0:
            raise ValueError(
                f"series {panel.names[place]!r} is never observed; drop it until it has a row."
            )
        if seen.size > 1 and np.ptp(seen) <= 1e-12 * np.max(np.abs(seen)):
            raise ValueError(f"series {panel.names[place]!r} is constant; drop it.")


def units_of(
    values: Float[Array, "time series"], observed: Bool[Array, "time series"], places: Places
) -> CoefficientScales:
    """The median over assets of the root mean square of returns, one unit for all of them so that
    coefficients stay comparable, and the root mean square of each regressor."""
    complete, seen = usable(observed, places)
    returns = jnp.where(seen, values[:, list(places.assets)], 0.0)
    squares = jnp.sum(returns**2, axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1)
    scale = jnp.sqrt(jnp.nanmedian(jnp.where(squares > 0.0, squares, jnp.nan)))
    columns = jnp.where(complete[:, None], values[:, list(places.factors)], 0.0)
    sizes = jnp.sqrt(jnp.sum(columns**2, axis=0) / jnp.maximum(jnp.sum(complete), 1))
    return CoefficientScales(scale, jnp.concatenate([jnp.ones_like(sizes[:1]), sizes]))


def data_in_units(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    places: Places,
    scales: CoefficientScales,
) -> CoefficientData:
    """The panel in units of the model. A row without one of the regressors says nothing."""
    complete, seen = usable(observed, places)
    returns = jnp.where(seen, values[:, list(places.assets)], 0.0)
    columns = jnp.where(complete[:, None], values[:, list(places.factors)], 0.0)
    ones = jnp.ones_like(columns[:, :1])
    return CoefficientData(
        values=returns / scales.values,
        observed=seen,
        columns=jnp.concatenate([ones, columns], axis=1) / scales.columns,
        members=jnp.asarray(places.members),
        num_sectors=len(places.sector_names),
    )


def usable(
    observed: Bool[Array, "time series"], places: Places
) -> tuple[Bool[Array, " time"], Bool[Array, "time assets"]]:
    """Rows with all regressors, and returns observed in them."""
    complete = jnp.all(observed[:, list(places.factors)], axis=1)
    return complete, observed[:, list(places.assets)] & complete[:, None]
