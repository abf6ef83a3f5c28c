"""Transforms to stationarity as small frozen objects: what is done to one series, and its inverse.

Every transform is one chain: a pointwise or growth step, then differences, then an affine step,

    z = scale * D^order g(y) + shift,      g(y)_t = y_t,  log y_t,  or  y_t / y_{t-1} - 1.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, final

import numpy as np

from jaxfc.typing import Float


class Steps(NamedTuple):
    """z = scale * D^order g(y) + shift, with `first` the name of g."""

    first: Literal["level", "log", "growth"]
    order: int
    scale: float = 1.0
    shift: float = 0.0

    @property
    def memory(self) -> int:
        """How many earlier levels a transformed value depends on."""
        return self.order + (self.first == "growth")


class Transform(abc.ABC):
    """One way to make a series stationary."""

    @property
    @abc.abstractmethod
    def steps(self) -> Steps:
        """The chain; raises `ValueError` while a constant is not estimated."""


@final
@dataclasses.dataclass(frozen=True)
class Level(Transform):
    """z_t = y_t."""

    @property
    def steps(self) -> Steps:
        return Steps("level", 0)


@final
@dataclasses.dataclass(frozen=True)
class Log(Transform):
    """z_t = log y_t."""

    @property
    def steps(self) -> Steps:
        return Steps("log", 0)


@final
@dataclasses.dataclass(frozen=True)
class Difference(Transform):
    """z_t = y_t - y_{t-1}, or the difference of differences (`order=2`)."""

    order: int = 1

    def __post_init__(self):
        if self.order not in (1, 2):
            raise ValueError(f"the order of a difference is 1 or 2, got {self.order}.")

    @property
    def steps(self) -> Steps:
        return Steps("level", self.order)


@final
@dataclasses.dataclass(frozen=True)
class LogDifference(Transform):
    """z_t = scale * (log y_t - log y_{t-1}); `scale=100` gives percent."""

    scale: float | int = 1.0

    @property
    def steps(self) -> Steps:
        return Steps("log", 1, self.scale)


@final
@dataclasses.dataclass(frozen=True)
class SecondLogDifference(Transform):
    """z_t = scale * (log y_t - 2 log y_{t-1} + log y_{t-2})."""

    scale: float | int = 1.0

    @property
    def steps(self) -> Steps:
        return Steps("log", 2, self.scale)


@final
@dataclasses.dataclass(frozen=True)
class Growth(Transform):
    """z_t = scale * (y_t / y_{t-1} - 1), in percent by default."""

    scale: float | int = 100.0

    @property
    def steps(self) -> Steps:
        return Steps("growth", 0, self.scale)


@final
@dataclasses.dataclass(frozen=True)
class DifferenceOfGrowth(Transform):
    """z_t = scale * (y_t / y_{t-1} - y_{t-1} / y_{t-2}), in percentage points by default."""

    scale: float | int = 100.0

    @property
    def steps(self) -> Steps:
        return Steps("growth", 1, self.scale)


@final
@dataclasses.dataclass(frozen=True)
class Standardise(Transform):
    """z_t = (x_t - mean) / std of the series x = `of`(y), over the observed values.

    `mean` and `std` (divisor: number of values) are estimated when a panel is transformed, unless
    given, and kept by its vintages and windows: transform after `as_of` or `window` to avoid
    look-ahead.
    """

    of: Transform = dataclasses.field(default_factory=Level)
    mean: float | int | None = None
    std: float | int | None = None

    @property
    def steps(self) -> Steps:
        if self.mean is None or self.std is None:
            raise ValueError("Standardise has no mean and std yet: transform a panel with it.")
        inner = self.of.steps
        shift = (inner.shift - self.mean) / self.std
        return inner._replace(scale=inner.scale / self.std, shift=shift)


def fitted(rule: Transform, values: Float[np.ndarray, " time"]) -> Transform:
    """`rule` with its missing constants estimated from one series, NaN where not observed."""
    if not isinstance(rule, Standardise):
        return rule
    of = fitted(rule.of, values)
    seen = applied(of, values)
    seen = seen[~np.isnan(seen)]
    if len(seen) < 2 or np.all(seen == seen[0]):
        raise ValueError(f"cannot be standardised: it has no variance after {of}.")
    mean = float(np.mean(seen)) if rule.mean is None else rule.mean
    std = float(np.std(seen)) if rule.std is None else rule.std
    return Standardise(of, mean, std)


def applied(rule: Transform, values: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """The transformed series over neighbouring values; NaN where one that it needs is NaN."""
    steps = rule.steps
    start = first_step(values, steps.first)
    padding = np.full(min(steps.order, len(values)), np.nan)
    return steps.scale * np.concatenate([padding, np.diff(start, steps.order)]) + steps.shift


def first_step(values: np.ndarray, first: Literal["level", "log", "growth"]) -> np.ndarray:
    """Levels, logarithms, or growth as a share of the value before."""
    if first == "log":
        return np.log(values)
    if first == "growth":
        return np.concatenate([[np.nan], values[1:] / values[:-1] - 1.0])
    return values


# Codes of FRED-MD and FRED-QD (McCracken and Ng 2016, section 2).
FREDMD_CODES: Mapping[int, Transform] = {
    1: Level(),
    2: Difference(1),
    3: Difference(2),
    4: Log(),
    5: LogDifference(),
    6: SecondLogDifference(),
    7: DifferenceOfGrowth(scale=1.0),
}
