"""What a panel must satisfy before regimes are estimated: every refusal names the culprit."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxfc.panel import Panel
    from jaxfc_kernels.aggregation import AggregationRows

# Observations that a series needs for each regime.
ROWS_A_REGIME = 5


def refuse_flows(aggregation: "AggregationRows | None") -> None:
    """Raise `ValueError` for sums and averages over several rows."""
    if aggregation is not None:
        raise ValueError(
            "a regime gives every row its law; the panel has sums or averages over several rows. "
            "Select the other series or bring them to one frequency."
        )


def check_panel(panel: "Panel", num_regimes: int) -> None:
    """Raise `ValueError` for flows, constant series and series with too few observations."""
    refuse_flows(panel.aggregation)
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
