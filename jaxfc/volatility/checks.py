"""What a panel of returns must satisfy before variances are estimated: every refusal names the
culprit."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from jaxfc.arguments import refuse_sums

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# A variance that moves needs this many observations for each parameter to be told from noise.
ROWS_A_PARAMETER = 10
# Decimals beside percent differ by 100; markets' volatilities hardly by 30.
LARGEST_RATIO = 30.0


def check_returns(panel: "Panel", num_parameters: int, num_lags: int) -> None:
    """Raise `ValueError` for flows, constant and short series; warn where units seem mixed."""
    refuse_sums(panel.aggregation, "a variance model")
    stds = {}
    needed = ROWS_A_PARAMETER * max(num_parameters, 1) + num_lags
    for i, name in enumerate(panel.names):
        values = panel.values[panel.observed[:, i], i]
        if values.size < needed:
            raise ValueError(
                f"series {name!r} has {values.size} observations for {num_parameters} parameters; "
                f"at least {needed} are needed. Use a longer sample or fewer parameters."
            )
        std = float(np.std(values))
        if std <= 1e-12 * max(float(np.max(np.abs(values))), 1e-300):
            raise ValueError(f"series {name!r} is constant; drop it.")
        stds[name] = std
    smallest, largest = min(stds, key=stds.__getitem__), max(stds, key=stds.__getitem__)
    if stds[largest] > LARGEST_RATIO * stds[smallest]:
        warnings.warn(
            f"series {largest!r} is {stds[largest] / stds[smallest]:.0f} times as volatile as "
            f"{smallest!r}: are some returns in percent and others in decimals? Estimates do not "
            "depend on units, sums over series do.",
            stacklevel=4,
        )
