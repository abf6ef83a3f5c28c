"""From the panel of returns and features to what the density reads: units, lags, gaps."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.asset_features import feature_columns
from jaxfc.bayes.asset_returns import AssetRows
from jaxfc.bayes.past_weights import PastWeights
from jaxfc.typing import Array, Bool, Float

# The median of |x| is this share of the standard deviation of a normal x.
NORMAL_MEDIAN = 1.4826


class AssetColumns(eqx.Module):
    """Where the returns and each feature stand in a panel; -1 where an asset has no such column."""

    returns: tuple[int, ...] = eqx.field(static=True)
    features: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The effects that have a column."""
        return tuple(name for name, _ in self.features)


class NextRow(eqx.Module):
    """What is known of the first row to be forecast, (series,) each, standardised."""

    recent_return: Float[Array, " series"]
    recent_volatility: Float[Array, " series"]
    earnings: Float[Array, " series"]
    market_signal: Float[Array, ""]


class Standardised(NamedTuple):
    """Rows for the density, the row ahead, and the scale of each asset's returns."""

    rows: AssetRows
    ahead: NextRow
    scale: Float[Array, " series"]


def columns_of(names: tuple[str, ...], assets: tuple[str, ...]) -> AssetColumns:
    """The columns of `assets` and of their features among `names`.

    **Raises:** `ValueError` for an asset without returns.
    """
    found = feature_columns(names, assets)
    features = {
        "return_effect": found.recent_return,
        "volatility_effect": found.recent_volatility,
        "earnings_effect": found.earnings_ahead,
    }
    known = {effect: places for effect, places in features.items() if np.any(places >= 0)}
    return AssetColumns(
        tuple(found.returns.tolist()),
        tuple((effect, tuple(places.tolist())) for effect, places in known.items()),
    )


def standardised(
    values: Float[Array, "time columns"],
    observed: Bool[Array, "time columns"],
    columns: AssetColumns,
    past: PastWeights,
) -> Standardised:
    """Everything in the units of the model, from the rows given and no others.

    Returns are divided by 1.4826 times the median of their absolute values. What row t - 1 knows of
    the days before row t is standardised by its mean and standard deviation over the rows; where it
    is missing it counts as the mean. Whether earnings are due counts as it stands. The market's
    signal is the mean volatility over the assets that have one, over its root mean square.
    """
    places = np.asarray(columns.returns)
    seen = observed[:, places]
    returns = jnp.where(seen, values[:, places], jnp.nan)
    scale = NORMAL_MEDIAN * jnp.nanmedian(jnp.abs(returns), axis=0)
    usable = scale > 0.0
    scale = jnp.where(usable, scale, 1.0)
    dtype = scale.dtype
    weights = past.weights(values.shape[0]).astype(dtype)[:, None] * (seen & usable)
    known = dict(columns.features)
    blank = jnp.zeros((values.shape[0] + 1, places.size), dtype)
    x, _ = lagged(values, observed, known.get("return_effect"), blank, standard=True)
    v, v_known = lagged(values, observed, known.get("volatility_effect"), blank, standard=True)
    due, _ = lagged(values, observed, known.get("earnings_effect"), blank, standard=False)
    signal = jnp.sum(v, axis=1) / jnp.maximum(jnp.sum(v_known, axis=1), 1)
    unit = jnp.sqrt(jnp.mean(signal[:-1] ** 2))
    signal = signal / jnp.where(unit > 0.0, unit, 1.0)
    filled = jnp.where(seen & usable, jnp.nan_to_num(returns) / scale, 0.0)
    rows = AssetRows(filled, weights, x[:-1], v[:-1], due[:-1], signal[:-1])
    return Standardised(rows, NextRow(x[-1], v[-1], due[-1], signal[-1]), scale)


def lagged(
    values: Float[Array, "time columns"],
    observed: Bool[Array, "time columns"],
    positions: tuple[int, ...] | None,
    blank: Float[Array, "rows series"],
    *,
    standard: bool,
) -> tuple[Float[Array, "rows series"], Bool[Array, "rows series"]]:
    """A feature as it is known before each row and the row after the last, zero where it is not,
    and where it is."""
    nowhere = jnp.zeros(blank.shape, bool)
    if positions is None:
        return blank, nowhere
    places = np.asarray(positions)
    known = observed[:, places] & jnp.asarray(places >= 0)
    found = jnp.where(known, values[:, places], 0.0)
    if standard:
        count = jnp.maximum(jnp.sum(known, axis=0), 1)
        mean = jnp.sum(found, axis=0) / count
        gap = jnp.where(known, found - mean, 0.0)
        spread = jnp.sqrt(jnp.sum(gap**2, axis=0) / count)
        found = gap / jnp.where(spread > 0.0, spread, 1.0)
    return blank.at[1:].set(found), nowhere.at[1:].set(known)
