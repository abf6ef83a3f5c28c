"""Panels of one length: vintages that grow by a row a month share one compiled program.

JAX compiles once per shape. Rows without observations at the end change neither estimates nor the
moments of the rows before them (the mask is the information set), so panels can be brought to one
length at no cost but the arithmetic of the rows added.
"""

from collections.abc import Sequence

from jaxfc.counts import check_counts
from jaxfc.panel import Panel


def pad_panel(panel: Panel, num_rows: int) -> Panel:
    """The panel with unobserved rows at its end up to `num_rows` rows; its calendar goes on.

    A fitted model's `factors` and `common`, and `nowcast`, then run over the rows added as well,
    where they are forecasts; `forecast` starts after the last of them.

    **Raises:** `ValueError` if the panel is longer than `num_rows`.
    """
    if panel.num_times > num_rows:
        raise ValueError(
            f"a panel of {panel.num_times} rows cannot be padded to num_rows = {num_rows}; "
            "padding adds rows, `window` takes them away."
        )
    return panel.extend(num_rows - panel.num_times)


def pad_panels(panels: Sequence[Panel], *, multiple: int = 1) -> tuple[Panel, ...]:
    """Panels of the same series brought to the length of the longest, by `pad_panel`.

    `multiple`: the common length is the next multiple of this number of rows, so that batches that
    come later, a little longer, still have the same one.

    **Raises:** `ValueError` for no panel, `multiple` below one, or panels whose series, frequencies
    or kinds differ (they would need a program each).
    """
    if not panels:
        raise ValueError("pad_panels takes at least one panel, got none.")
    check_counts(multiple=multiple)
    first = panels[0]
    for i, panel in enumerate(panels):
        for what in ("names", "frequency", "frequencies", "kinds"):
            own, expected = getattr(panel, what), getattr(first, what)
            if own != expected:
                raise ValueError(
                    f"panel {i} has {what} {own}, panel 0 has {expected}; pad panels of the same "
                    "series (`select` puts them in order)."
                )
    longest = max(panel.num_times for panel in panels)
    num_rows = -(-longest // multiple) * multiple
    return tuple(pad_panel(panel, num_rows) for panel in panels)
