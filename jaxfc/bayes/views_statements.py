"""Subjective views in the user's words, and the arrays they stand for.

A view is about a number that the forecast has a law of: the return of an asset, of a class (the
mean of its assets), of a portfolio (a mapping from names to weights), at one step of the horizon
or, with `cumulative`, summed up to it. Names are resolved on the host; what enters traced functions
are `Statements`.
"""

import difflib
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float

if TYPE_CHECKING:
    from jaxfc.panel import Panel

Target = str | Mapping[str, float]
"""The name of an asset or of a class, or weights by such names."""


class ReturnView(eqx.Module):
    """`of` returns `mean`, give or take `sd`, in the units of the forecast.

    An infinite `sd` says nothing; a zero one is exact (`EntropyPooling` only).
    """

    of: Target
    mean: float = eqx.field(converter=float)
    sd: float = eqx.field(converter=float)
    step: int = 1
    cumulative: bool = False


class BeatsView(eqx.Module):
    """`of` returns `by` more than `against`, give or take `sd`."""

    of: Target
    against: Target
    by: float = eqx.field(converter=float)
    sd: float = eqx.field(converter=float)
    step: int = 1
    cumulative: bool = False


class ProbabilityView(eqx.Module):
    """P(return of `of` > `above`) = `probability`."""

    of: Target
    above: float = eqx.field(converter=float)
    probability: float = eqx.field(converter=float)
    step: int = 1
    cumulative: bool = False


class QuantileView(eqx.Module):
    """The quantile of `of` at `level` is `value`: P(return > value) = 1 - level."""

    of: Target
    level: float = eqx.field(converter=float)
    value: float = eqx.field(converter=float)
    step: int = 1
    cumulative: bool = False


class SpreadView(eqx.Module):
    """The standard deviation of `of` is `sd`, about `mean`.

    None: about the mean of the forecast, which then stays where it is, also where views on other
    series would move it. With a view on the same return give the mean here too.
    """

    of: Target
    sd: float = eqx.field(converter=float)
    mean: float | None = None
    step: int = 1
    cumulative: bool = False


View = ReturnView | BeatsView | ProbabilityView | QuantileView | SpreadView


class Statements(eqx.Module):
    """Views as arrays: a'r ~ mean give or take sd; P(a'r > threshold) = probability; the standard
    deviation of a'r is `spread_sds` about `spread_means` (NaN: the forecast's)."""

    directions: Float[Array, "views horizon series"]
    means: Float[Array, " views"]
    sds: Float[Array, " views"]
    tail_directions: Float[Array, "tails horizon series"]
    thresholds: Float[Array, " tails"]
    probabilities: Float[Array, " tails"]
    spread_directions: Float[Array, "spreads horizon series"]
    spread_means: Float[Array, " spreads"]
    spread_sds: Float[Array, " spreads"]

    @property
    def num_laws(self) -> int:
        """Views that are about more than the place of a return."""
        return self.thresholds.shape[0] + self.spread_sds.shape[0]


class Universe(NamedTuple):
    """Names of the series, and the class of each (empty: no classes)."""

    names: tuple[str, ...]
    classes: tuple[str, ...] = ()

    def weights(self, target: Target) -> np.ndarray:
        """What stands before each series in the return of `target`."""
        if isinstance(target, str):
            return self.named(target)
        total = np.zeros(len(self.names))
        for name, weight in target.items():
            total = total + weight * self.named(name)
        if not np.all(np.isfinite(total)) or not np.any(total):
            raise ValueError(
                f"the weights {dict(target)} are no portfolio: they must be finite, and not all "
                "zero."
            )
        return total

    def named(self, name: str) -> np.ndarray:
        """One for an asset, equal weights that sum to one for a class."""
        if name in self.names:
            return np.eye(len(self.names))[self.names.index(name)]
        members = np.array([label == name for label in self.classes], float)
        if members.any():
            return members / members.sum()
        raise unknown_name(name, (*self.names, *sorted(set(self.classes))), "asset or class")


def unknown_name(name: object, known: Sequence[str], what: str) -> ValueError:
    """The error for a name that is not known, with the nearest ones."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return ValueError(f"there is no {what} {name!r}; {hint or f'known are {listed}.'}")


def listed(names: "Panel | Sequence[str]") -> tuple[str, ...]:
    """Names as given, or those of a panel."""
    if isinstance(names, str):
        raise TypeError(f"names are a panel or a sequence of names, got the string {names!r}.")
    from jaxfc.panel import Panel

    return names.names if isinstance(names, Panel) else tuple(names)


def names_of(names: "Panel | Sequence[str]", num_series: int) -> tuple[str, ...]:
    """Names of the series of a forecast, from a panel or as given.

    **Raises:** `ValueError` if they are not one for each series, or not distinct.
    """
    given = listed(names)
    if len(given) != num_series:
        raise ValueError(f"{len(given)} names for a forecast of {num_series} series.")
    if len(set(given)) != len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands for several series; give distinct names.")
    return given


def resolve(
    views: View | Sequence[View],
    names: "Panel | Sequence[str]",
    classes: Sequence[str] | None = None,
    *,
    horizon: int,
) -> Statements:
    """The arrays that `views` stand for, by the names of a panel (host side).

    **Arguments:** `classes`: the class of each series, where views are about classes.

    **Raises:** `ValueError` for an unknown asset or class (naming the nearest), a step outside the
    horizon, numbers that are no standard deviation, probability or level, weights that are no
    portfolio, a spread without mean of a return that another view moves, or no view at all.
    """
    views = list(views) if isinstance(views, Sequence) else [views]
    if not views:
        raise ValueError("no view was given; without one the forecast stays as it is.")
    given = listed(names)
    universe = Universe(names_of(given, len(given)), tuple(classes or ()))
    check_classes(universe)
    rows: dict[str, list[tuple[np.ndarray, float, float]]] = {
        "return": [],
        "tail": [],
        "spread": [],
    }
    for view in views:
        kind, weights, first, second = reading(view, universe)
        rows[kind].append((placed(view, weights, horizon), first, second))
    check_spreads(rows["spread"], rows["return"])
    shape = (-1, horizon, len(given))
    arrays = []
    for kind in ("return", "tail", "spread"):
        arrays.append(jnp.asarray(np.reshape([row[0] for row in rows[kind]], shape)))
        arrays.extend(jnp.asarray([row[i] for row in rows[kind]], float) for i in (1, 2))
    return Statements(*arrays)


def reading(view: View, universe: Universe) -> tuple[str, np.ndarray, float, float]:
    """The kind of a view, its weights, and its two numbers."""
    weights = universe.weights(view.of)
    what = f"the view on {view.of!r}"
    match view:
        case ReturnView(mean=mean, sd=sd):
            check_numbers(what, mean=mean)
            return "return", weights, mean, checked_sd(what, sd)
        case BeatsView(against=against, by=by, sd=sd):
            check_numbers(what, by=by)
            weights = weights - universe.weights(against)
            if not weights.any():
                raise ValueError(f"{what} compares it with itself.")
            return "return", weights, by, checked_sd(what, sd)
        case ProbabilityView(above=above, probability=probability):
            check_numbers(what, above=above)
            return "tail", weights, above, inside(what, "probability", probability)
        case QuantileView(level=level, value=value):
            check_numbers(what, value=value)
            return "tail", weights, value, 1.0 - inside(what, "level", level)
        case SpreadView(mean=mean, sd=sd):
            if not 0.0 < sd < np.inf:
                raise ValueError(f"{what}: a spread is positive and finite, got {sd}.")
            if mean is not None:
                check_numbers(what, mean=mean)
            return "spread", weights, np.nan if mean is None else mean, sd
    raise TypeError(f"a view is one of {View}, got {type(view).__name__}.")


def placed(view: View, weights: np.ndarray, horizon: int) -> np.ndarray:
    """Weights on the steps that a view is about, (horizon, series)."""
    try:
        step = operator.index(view.step)
    except TypeError:
        raise ValueError(
            f"the view on {view.of!r} is about step {view.step!r}; steps are whole numbers."
        ) from None
    if not 1 <= step <= horizon:
        raise ValueError(
            f"the view on {view.of!r} is about step {view.step}; the forecast has 1..{horizon}."
        )
    steps = np.arange(1, horizon + 1)
    about = steps <= step if view.cumulative else steps == step
    return about[:, None] * weights


def check_spreads(
    spreads: Sequence[tuple[np.ndarray, float, float]],
    returns: Sequence[tuple[np.ndarray, float, float]],
) -> None:
    """Refuse a spread without mean of a return that another view moves: it would hold the mean
    where the forecast has it, exactly."""
    held = [row.ravel() for row, mean, _ in spreads if np.isnan(mean)]
    moved = [row.ravel() for row, _, sd in returns if np.isfinite(sd)]
    if any(np.linalg.matrix_rank([one, other]) == 1 for one in held for other in moved):
        raise ValueError(
            "a spread without `mean` holds the mean where the forecast has it, and a view on the "
            "same return moves it; give SpreadView(..., mean=...)."
        )


def check_classes(universe: Universe) -> None:
    """Refuse classes that do not fit the series, or share a name with one."""
    names, classes = universe
    if classes and len(classes) != len(names):
        raise ValueError(f"{len(classes)} classes for {len(names)} series; give one for each.")
    both = sorted(set(names) & set(classes))
    if both:
        raise ValueError(f"{both[0]!r} is the name of a series and of a class; rename the class.")


def check_numbers(what: str, **numbers: float) -> None:
    """Refuse numbers that are not finite."""
    for name, value in numbers.items():
        if not np.isfinite(value):
            raise ValueError(f"{what}: {name} must be finite, got {value}.")


def checked_sd(what: str, sd: float) -> float:
    """A standard deviation: not negative, and infinite where nothing is known."""
    if np.isnan(sd) or sd < 0.0:
        raise ValueError(f"{what}: sd must be 0 or more (inf: no view), got {sd}.")
    return sd


def inside(what: str, name: str, value: float) -> float:
    """A probability in (0, 1)."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{what}: {name} must be in (0, 1), got {value}.")
    return value
