"""A study as a TOML file: what `jaxfc study run` reads. Every error names file and key."""

import difflib
import inspect
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxfc.running.study import Study
from jaxfc.running.study_cells import Estimator, product_grid

NEEDED = ("name", "world", "estimators", "num_paths", "seed")
OPTIONAL = ("metrics", "batch_size", "paths_per_chunk")
MANY_NAMES = 4  # of a list in the template
MOST_CELLS = 1_000_000
COUNTS = ("num_paths", "batch_size", "paths_per_chunk")

TEMPLATE = """\
# A Monte Carlo study of factor estimators. Run it, stop it, run it again:
#   jaxfc study run {file} --store results

[study]
name = "missing values"
world = "factor"          # jaxfc.FactorWorld: an approximate dynamic factor model with gaps
estimators = {estimators}
metrics = {metrics}
num_paths = 100           # in every cell
seed = 1
batch_size = 32           # paths side by side; decides on rounding, so a store is for one of them
paths_per_chunk = 128     # paths in one file of the store

# All combinations are cells; a single value is the same in all of them. Several [[grid]] tables
# instead of one [grid] are put one after the other.
[grid]
num_times = 100
num_series = [10, 35]
num_factors = 1
num_lags = 1
missing = [0.0, 0.2, 0.4] # share of every series that is not observed
flows = "stock"           # or "flow_average", "change_in_flow": half of the series, by blocks
"""


class Names(NamedTuple):
    """What the names in a file stand for."""

    worlds: Mapping[str, Callable[..., Any]]
    estimators: Mapping[str, Estimator]
    metrics: Mapping[str, Callable[[Any, Any], Any]]


class StudyFile(NamedTuple):
    """A study and the seed of its key."""

    study: Study
    seed: int


def factor_names() -> Names:
    """Worlds, estimators and metrics of the factor family."""
    from jaxfc.factors import FactorWorld
    from jaxfc.factors.estimators import METRICS, factor_estimators

    return Names({"factor": FactorWorld}, factor_estimators(), METRICS)


def template(names: Names, file: str) -> str:
    """A file to start from, with comments."""
    return TEMPLATE.format(
        file=file,
        estimators=toml_list(list(names.estimators)),
        metrics=toml_list(list(names.metrics)),
    )


def toml_list(texts: Iterable[str]) -> str:
    """Names as TOML, one to a line if they are many."""
    names = [f'"{text}"' for text in texts]
    if len(names) <= MANY_NAMES:
        return "[" + ", ".join(names) + "]"
    return "[\n" + "".join(f"    {name},\n" for name in names) + "]"


def read_study_file(path: Path, names: Names) -> StudyFile:
    """The study that a file describes.

    **Raises:** `FileNotFoundError`; `ValueError` naming file and key for everything that is
    missing, unknown or of another type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `jaxfc study init` writes one.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is no text, and long numbers
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    for key in content:
        known(key, ("study", "grid"), f"{path}: the table [{key}]")
    for key in ("study", "grid"):
        if key not in content:
            raise ValueError(f"{path}: the table [{key}] is missing.")
    options = read_options(content["study"], names, f"{path}: [study]")
    seed, world = options.pop("seed"), options.pop("world")
    grid = read_grid(content["grid"], world, f"{path}: [grid]")
    try:
        return StudyFile(Study(world, grid=grid, **options), seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_options(table: Any, names: Names, where: str) -> dict[str, Any]:
    """The table [study] with its names looked up."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, got {table!r}.")
    for key in table:
        known(key, (*NEEDED, *OPTIONAL), f"{where} {key}")
    missing = [key for key in NEEDED if key not in table]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    options: dict[str, Any] = {key: table[key] for key in COUNTS if key in table}
    for key, value in options.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f"{where} {key} must be a whole number of 1 or more, got {value!r}.")
    if not is_whole(table["seed"]) or not 0 <= table["seed"] < 2**32:
        raise ValueError(
            f"{where} seed must be a whole number from 0 to 2^32 - 1, got {table['seed']!r}."
        )
    if not isinstance(table["name"], str) or not table["name"]:
        raise ValueError(f"{where} name must be a text, got {table['name']!r}.")
    known(table["world"], names.worlds, f"{where} world")
    return options | {
        "name": table["name"],
        "seed": table["seed"],
        "world": names.worlds[table["world"]],
        "estimators": looked_up(table["estimators"], names.estimators, f"{where} estimators"),
        "metrics": looked_up(
            table.get("metrics", list(names.metrics)), names.metrics, f"{where} metrics"
        ),
    }


def looked_up(listed: Any, names: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a list of names stands for."""
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{where} must be a list of one name or more, got {listed!r}.")
    for name in listed:
        known(name, names, where)
        if listed.count(name) > 1:
            raise ValueError(f"{where} has {name!r} twice.")
    return {name: names[name] for name in listed}


def read_grid(tables: Any, world: Callable[..., Any], where: str) -> list[dict[str, Any]]:
    """The cells of [grid], or of every [[grid]]."""
    settings = tuple(inspect.signature(world).parameters)
    cells = []
    for table in tables if isinstance(tables, list) else [tables]:
        if not isinstance(table, dict) or not table:
            raise ValueError(f"{where} must be a table of settings, got {table!r}.")
        for key, values in table.items():
            known(key, settings, f"{where} {key}")
            if values == [] or isinstance(values, dict):
                raise ValueError(
                    f"{where} {key} must be a value or a list of them, got {values!r}."
                )
        lists = {key: v if isinstance(v, list) else [v] for key, v in table.items()}
        num_cells = math.prod(map(len, lists.values())) + len(cells)
        if num_cells > MOST_CELLS:
            raise ValueError(f"{where} has {num_cells:,} cells, more than {MOST_CELLS:,}.")
        values = {key: [as_tuple(v) for v in listed] for key, listed in lists.items()}
        cells += product_grid(where=None, **values)
    return cells


def as_tuple(value: Any) -> Any:
    """A list within a list of values, such as a range, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def is_whole(value: Any) -> bool:
    """Whether a value of a file is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def known(name: Any, names: Iterable[str], where: str) -> None:
    """Raise `ValueError` for a name that is not among `names`, with the likeliest one."""
    names = list(names)
    if name in names:
        return
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{where}: {name!r} is not known.{hint} Known are: {', '.join(names)}.")
