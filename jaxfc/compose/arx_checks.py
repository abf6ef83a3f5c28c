"""What an ARX model can be estimated on, and which options go together."""

from typing import TYPE_CHECKING

import numpy as np

from jaxfc.factors.checks import refuse_empty_start
from jaxfc.factors.select import check_selection

if TYPE_CHECKING:
    from jaxfc.compose.returns import FactorARX
    from jaxfc.panel import Panel


def check_target(model: "FactorARX", panel: "Panel", place: int) -> None:
    """Raise `ValueError` for a target that the regression cannot start from."""
    name, seen = panel.names[place], panel.observed[:, place]
    if panel.frequencies[place] != panel.frequency:
        raise ValueError(
            f"series {name!r} ({panel.frequencies[place]}) is not at the panel's frequency "
            f"({panel.frequency}); an autoregression needs a value in every row."
        )
    missing = np.flatnonzero(~seen[len(seen) - model.num_own_lags :])
    if len(missing):
        dates = panel.index[len(seen) - model.num_own_lags + missing]
        raise ValueError(
            f"series {name!r} has no value on {', '.join(f'{d:%Y-%m-%d}' for d in dates)}; its "
            f"last {model.num_own_lags} rows are where forecasts start: end the window there."
        )
    longest = max(model.num_own_lags, model.num_factor_lags)
    usable = seen[longest:].copy()
    for lag in range(1, model.num_own_lags + 1):
        usable &= seen[longest - lag : len(seen) - lag]
    needed = 1 + model.num_own_lags + model.num_factor_lags * model.max_factors
    if usable.sum() <= needed + 1:
        raise ValueError(
            f"series {name!r} has {usable.sum()} usable rows in {panel.index[0]:%Y-%m-%d}.."
            f"{panel.index[-1]:%Y-%m-%d} for {needed} coefficients; lengthen the window or "
            "lower the numbers of lags and factors."
        )


def check_minima(model: "FactorARX") -> None:
    """Raise `ValueError` for smallest numbers of lags that no window could choose."""
    assert model.selection is not None
    bounds = {
        "min_own_lags": (model.selection.min_own_lags, model.num_own_lags),
        "min_factor_lags": (model.selection.min_factor_lags, min(model.num_factor_lags, 1)),
    }
    for name, (least, most) in bounds.items():
        if not 0 <= least <= most:
            raise ValueError(
                f"{name} must lie between 0 and {most}, got {least}: an autoregression has no "
                "factor lags, and a window whose factors have one lag can choose no more than one."
            )


def check_column(target: int, num_series: int) -> None:
    """Raise `ValueError` for a target that is no column."""
    if not 0 <= target < num_series:
        raise ValueError(f"target={target} is no column of {num_series} series; count from 0.")


def check_arx_selection(model: "FactorARX", panel: "Panel") -> None:
    """Raise `ValueError` for a selection of the factors' numbers that is not defined."""
    if model.selection is None or model.selection.factors is None or model.factors is None:
        return
    rule, factors = model.selection.factors, model.factors
    check_selection(factors, rule, factors.num_factors, factors.num_lags, len(panel.names))
    refuse_empty_start(panel, "a selection of the number of factors")
