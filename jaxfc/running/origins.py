"""Where forecasts of a backtest start, and what a forecaster has there."""

import abc
import dataclasses
import warnings

import numpy as np
import pandas as pd

from jaxfc.calendar import Date, day_at, naive, shift_periods
from jaxfc.panel import Panel
from jaxfc.typing import Int


@dataclasses.dataclass(frozen=True)
class Origins(abc.ABC):
    """Rows at whose ends forecasts are made; `window` rows at least precede each.

    They end `step` rows apart. The first is the first row at or after `start`, which must have
    `window` rows up to it, or such that there are `num_origins` of them (not both); the last leaves
    `horizon` rows after it. Models are estimated at every `refit`-th origin; in between their
    parameters stay and forecasts start from the data of the day (`Fitted.given`).
    """

    window: int
    step: int = 1
    start: Date | None = None
    num_origins: int | None = None
    refit: int = 1

    def __post_init__(self):
        if min(self.window, self.step, self.refit) < 1:
            raise ValueError(
                f"window, step and refit must be at least 1, got {self.window}, {self.step} and "
                f"{self.refit}."
            )
        if self.num_origins is not None and self.num_origins < 1:
            raise ValueError(f"num_origins must be at least 1, got {self.num_origins}.")
        if self.start is not None and self.num_origins is not None:
            raise ValueError("give start or num_origins, not both.")

    def rows(self, index: pd.DatetimeIndex, horizon: int) -> Int[np.ndarray, " origins"]:
        """Rows of the origins in a calendar, ascending.

        **Raises:** `ValueError` if the calendar is too short for them, or `start` lies before the
        first row that has a whole window.
        """
        first, last = self.window - 1, len(index) - 1 - horizon
        if self.start is None:
            rows = np.arange(last, first - 1, -self.step)[: self.num_origins][::-1]
        else:
            wanted = int(np.searchsorted(index.to_numpy(), naive(self.start).to_datetime64()))
            if wanted < first:
                raise ValueError(
                    f"start={self.start} has {wanted + 1} rows up to it and the window needs "
                    f"{self.window}; start at {index[min(first, len(index) - 1)]:%Y-%m-%d} or "
                    "later, or shorten the window."
                )
            rows = np.arange(wanted, last + 1, self.step)
        if not len(rows) or (self.num_origins is not None and len(rows) < self.num_origins):
            raise ValueError(
                f"{len(index)} rows ({index[0]:%Y-%m-%d}..{index[-1]:%Y-%m-%d}) hold {len(rows)} "
                f"origins with a window of {self.window} rows before and {horizon} rows after "
                f"them, wanted {self.num_origins or 'at least 1'}; shorten the window or the "
                "horizon, or ask for fewer origins."
            )
        return rows

    @abc.abstractmethod
    def panel_at(self, panel: Panel, row: int, longest: int) -> Panel:
        """What a forecaster at the end of `row` has, in as many rows for every origin; `longest`
        rows lead up to the last origin."""


@dataclasses.dataclass(frozen=True)
class Rolling(Origins):
    """Every estimation on the last `window` rows."""

    __doc__ = f"{__doc__}\n\n{Origins.__doc__}"

    def panel_at(self, panel: Panel, row: int, longest: int) -> Panel:
        return window_panel(panel, row, self.window)


@dataclasses.dataclass(frozen=True)
class Expanding(Origins):
    """Every estimation on all rows up to the origin, at least `window` of them.

    So that all origins share one program, unobserved rows stand before the data of the earlier
    ones. What is estimated row by row does not notice. A factor model's likelihood is the same; its
    estimates may differ in the third digit from those without these rows where the M-step leaves
    the initial law out (`initial="stationary"`). Two-step methods and selections of the number of
    factors would fill these rows, and refuse them.
    """

    __doc__ = f"{__doc__}\n\n{Origins.__doc__}"

    def panel_at(self, panel: Panel, row: int, longest: int) -> Panel:
        return preceded(window_panel(panel, row, row + 1), longest - row - 1)


def window_panel(panel: Panel, row: int, window: int) -> Panel:
    """What a forecaster at the end of `row` has: `window` rows, published values only."""
    vintage = panel.as_of(panel.index[row])  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        # Every window cuts some period at its beginning; the docstring of `backtest` says so.
        warnings.filterwarnings("ignore", message=".*the window cuts", category=UserWarning)
        return vintage.window(row + 1 - window, row + 1)


def preceded(panel: Panel, num_rows: int) -> Panel:
    """The panel with unobserved rows before its first."""
    if num_rows == 0:
        return panel
    first = day_at(panel.index, 0)
    earlier = shift_periods(first, panel.frequency, np.arange(-num_rows, 0))
    pad = ((num_rows, 0), (0, 0))
    return dataclasses.replace(
        panel,
        values=np.pad(panel.values, pad),
        observed=np.pad(panel.observed, pad),
        index=earlier.append(panel.index),
        levels=None if panel.levels is None else preceded(panel.levels, num_rows),
    )
