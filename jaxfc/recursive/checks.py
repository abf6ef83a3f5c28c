"""What a panel must satisfy before a network is trained: every refusal names the culprit."""

from typing import TYPE_CHECKING

import numpy as np

from jaxfc.arguments import refuse_sums
from jaxfc.recursive.draw_heads import CategoricalHead
from jaxfc.recursive.heads import Head

if TYPE_CHECKING:
    from jaxfc.panel import Panel

# Observed training rows that the moments of a series need.
FEWEST_ROWS = 10


def check_rows(num_rows: int, look_back: int, horizon: int, num_training: int) -> None:
    """Raise `ValueError` unless both the training and the validation rows hold an example."""
    needed = look_back + horizon
    if num_training < needed:
        raise ValueError(
            f"{num_training} training rows of {num_rows} hold no example: {look_back} rows to look "
            f"back and {horizon} ahead need {needed}. Lengthen the sample, shorten the window, or "
            "lower the share of validation."
        )
    if num_training < num_rows < num_training + horizon:
        raise ValueError(
            f"{num_rows - num_training} validation rows hold no example of {horizon} steps ahead; "
            "raise the share of validation or set it to zero."
        )


def check_network_panel(
    panel: "Panel", places: tuple[int, ...], head: Head, num_training: int
) -> None:
    """Raise `ValueError` for flows, series hardly observed or constant in the training rows, and
    values that are none of a categorical head."""
    refuse_sums(panel.aggregation, "NetworkModel")
    for i, name in enumerate(panel.names):
        seen = panel.observed[:num_training, i]
        values = panel.values[:num_training, i][seen]
        if values.size < FEWEST_ROWS:
            raise ValueError(
                f"series {name!r} has {values.size} observations in the {num_training} training "
                f"rows, its moments need at least {FEWEST_ROWS}; drop it or lengthen the sample."
            )
        if float(np.std(values)) <= 1e-12 * max(float(np.max(np.abs(values))), 1e-300):
            raise ValueError(
                f"series {name!r} is constant in the {num_training} training rows; drop it."
            )
        if isinstance(head, CategoricalHead) and i in places:
            taken = panel.values[panel.observed[:, i], i]
            strangers = taken[~np.isin(taken, head.values)]
            if strangers.size:
                raise ValueError(
                    f"series {name!r} takes the value {float(strangers[0]):g}, which is none of "
                    f"the classes {head.values}; name the series with classes in `targets`."
                )
