"""What panels and classes the M6 model refuses."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxfc.bayes.asset_features import (
    EARNINGS_AHEAD,
    RECENT_RETURN,
    RECENT_VOLATILITY,
    feature_columns,
)

if TYPE_CHECKING:
    from jaxfc.bayes.m6 import M6Model
    from jaxfc.panel import Panel

MIN_ROWS = 4


def check_classes(classes: Mapping[str, str], num_factors: int) -> None:
    """Refuses an empty mapping, names that are no strings, and a negative number of factors."""
    if not classes:
        raise ValueError("`classes` names no asset; give a mapping of each asset to its class.")
    for asset, name in classes.items():
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"the class of asset {asset!r} is {name!r}; give the name of an asset class, the "
                "same for all assets that should learn from each other."
            )
    if num_factors < 0:
        raise ValueError(f"num_factors must be at least 0, got {num_factors}.")
    if num_factors > len(classes):
        raise ValueError(
            f"{num_factors} factors of {len(classes)} assets; give num_factors of at most as many."
        )


def check_asset_panel(model: "M6Model", panel: "Panel") -> None:
    """Refuses panels without an asset, with columns of no asset, and series that tell nothing."""
    feature_columns(panel.names, model.assets)
    suffixes = ("", RECENT_RETURN, RECENT_VOLATILITY, EARNINGS_AHEAD)
    known = {f"{asset}{suffix}" for asset in model.assets for suffix in suffixes}
    strange = [name for name in panel.names if name not in known]
    if strange:
        raise ValueError(
            f"column {strange[0]!r} is neither an asset of `classes` nor a feature of one; give "
            "the asset its class, or drop the column with panel.select."
        )
    num_rows = panel.values.shape[0]
    if num_rows < max(MIN_ROWS, model.num_factors + 2):
        raise ValueError(
            f"the panel has {num_rows} rows; {model.num_factors} factors need at least "
            f"{max(MIN_ROWS, model.num_factors + 2)}."
        )
    weights = np.asarray(model.past.weights(num_rows))
    if not np.all(np.isfinite(weights)) or np.any(weights < 0.0) or not np.any(weights > 0.0):
        raise ValueError(
            f"the weights of {type(model.past).__name__} on the past must be finite, not negative "
            "and not all zero."
        )
    check_asset_values(model.assets, panel)


def check_asset_values(assets: tuple[str, ...], panel: "Panel") -> None:
    """Refuses assets that are never observed and those whose returns tell no scale."""
    for asset in assets:
        place = panel.names.index(asset)
        seen = np.asarray(panel.observed)[:, place]
        found = np.asarray(panel.values)[seen, place]
        if found.size == 0:
            raise ValueError(
                f"asset {asset!r} has no return in the panel: nothing can be learnt of it; drop it "
                "from `classes` and the panel."
            )
        if found.size > 1 and np.ptp(found) == 0.0:
            raise ValueError(
                f"the returns of asset {asset!r} are constant ({found[0]:g}); drop it, or mark the "
                "stale prices as missing."
            )
        if np.median(np.abs(found)) == 0.0:
            raise ValueError(
                f"more than half of the returns of asset {asset!r} are zero, so they have no "
                "robust scale; mark the stale prices as missing."
            )
