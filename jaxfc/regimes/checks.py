"""What a panel must satisfy before regimes are estimated: every refusal names the culprit."""

from typing import TYPE_CHECKING

import numpy as np

from jaxfc.arguments import refuse_sums

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Observations that a series needs for each regime.
ROWS_A_REGIME = 5


def check_panel(panel: "Panel", num_regimes: int) -> None:
    """Raise `ValueError` for flows, constant series and series with too few observations."""
    refuse_sums(panel.aggregation, "RegimeModel")
    needed = ROWS_A_REGIME * num_regimes
    for i, name in enumerate(panel.names):
        values = panel.values[panel.observed[:, i], i]
        if values.size < needed:
            raise ValueError(
                f"series {name!r} has {values.size} observations, {num_regimes} regimes need at "
                f"least {needed}; drop it, lengthen the sample or ask for fewer regimes."
            )
        if float(np.std(values)) <= 1e-12 * max(float(np.max(np.abs(values))), 1e-300):
            raise ValueError(f"series {name!r} is constant; drop it.")
