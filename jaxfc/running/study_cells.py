"""The cells of a study: settings made into worlds, and every estimator tied to them."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jaxfc.running.study import Study

Settings = Mapping[str, Any]
MOST_FAULTS = 10  # of a grid, that one message lists


@runtime_checkable
class Estimator(Protocol):
    """What a study compares.

    `bind(world)` answers an `equinox.Module` that takes one panel of the world to an estimate,
    purely; it raises `ValueError` where the estimator cannot be used. The estimate may have
    `num_steps` and `result` (of `jaxfc.RESULTS`); without them it counts as 0 steps, successful.
    An estimator may also have `applies(world) -> bool`: where it says no, the study has no rows of
    it.
    """

    def bind(self, world: Any) -> Callable[[Any], Any]:
        """The estimation of one panel of `world`."""
        ...


class Cell(NamedTuple):
    """A cell of the grid: its position, settings, what draws its panels, and their estimations."""

    position: int
    settings: Settings
    sampler: Any
    bound: dict[str, Callable[[Any], Any]]


def product_grid(
    *, where: Callable[[Settings], bool] | None = None, **settings: Sequence[Any]
) -> list[dict[str, Any]]:
    """All combinations of the settings, the last one varying fastest: the grid of a study.

    `where` says of a cell whether it is wanted; without it none is left out.

    **Example:** `product_grid(num_series=[10, 35], missing=[0.0, 0.2])` has four cells.

    **Raises:** `ValueError` for a setting that is no list of values, or is empty, and if no cell is
    left.
    """
    for name, values in settings.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} must be a list of one value or more, got {values!r}.")
    combinations = itertools.product(*settings.values())
    cells = [dict(zip(settings, values, strict=True)) for values in combinations]
    wanted = [cell for cell in cells if where is None or where(cell)]
    if not settings or not wanted:
        raise ValueError(f"no cell is left of {len(cells) if settings else 0}.")
    return wanted


def settings_text(settings: Settings) -> str:
    """num_series=10, missing=0.2"""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def cell_text(index: int, settings: Settings) -> str:
    """Position and settings, for messages."""
    return f"cell {index} ({settings_text(settings)})"


def build_cell(study: "Study", index: int) -> Cell:
    """World and estimations of a cell.

    **Raises:** `ValueError` naming the cell and the estimator.
    """
    cell, faults = try_cell(study, index)
    if cell is None:
        raise ValueError("; ".join(faults))
    return cell


def try_cell(study: "Study", index: int) -> tuple[Cell | None, list[str]]:
    """A cell, or None and what is wrong with it."""
    settings = study.grid[index]
    where = cell_text(index, settings)
    unknown = unknown_settings(study.world, settings)
    if unknown:
        return None, [f"{where}: {unknown}"]
    try:
        world = study.world(**settings)
    except (ValueError, TypeError) as error:
        return None, [f"{where}: {error}"]
    bound, faults = {}, []
    for name, estimator in study.estimators.items():
        try:
            if getattr(estimator, "applies", always)(world):
                bound[name] = estimator.bind(world)
        except ValueError as error:
            faults.append(f"{where}, estimator {name!r}: {error}")
    if not bound and not faults:
        faults.append(f"{where}: no estimator applies")
    if faults:
        return None, faults
    sampler = world.sampler() if hasattr(world, "sampler") else world
    return Cell(index, settings, sampler, bound), []


def always(world: Any) -> bool:
    """An estimator without `applies` is used everywhere."""
    return True


def unknown_settings(world: Callable[..., Any], settings: Settings) -> str:
    """What is wrong with the names of the settings, "" if nothing is."""
    parameters = inspect.signature(world).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return ""
    unknown = [name for name in settings if name not in parameters]
    if not unknown:
        return ""
    return f"the world has no setting {', '.join(unknown)}; it has {', '.join(parameters)}"


def check_cells(study: "Study") -> None:
    """Every world is built and every estimator tied to it, before anything is computed.

    **Raises:** `ValueError` that lists what is wrong, by cell and estimator.
    """
    faults = [fault for i in range(len(study.grid)) for fault in try_cell(study, i)[1]]
    if faults:
        more = len(faults) - MOST_FAULTS
        shown = faults[:MOST_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise ValueError("the study cannot be run:\n  " + "\n  ".join(shown))
