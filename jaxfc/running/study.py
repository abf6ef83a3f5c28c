"""Monte Carlo studies: worlds x estimators over a grid, into a store that can be continued.

Path i of cell c is drawn with fold_in(fold_in(key, c), i), whatever chunk, device or machine
computes it, and all estimators see the same panel.
"""

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.running.describe import describe
from jaxfc.running.engines import Engine, Local, Plan
from jaxfc.running.progress import follow
from jaxfc.running.store import ResultStore, check_config, read_manifest
from jaxfc.running.study_cells import Estimator, Settings, cell_text, check_cells
from jaxfc.running.study_chunks import StudyJob
from jaxfc.running.study_result import (
    OWN_COLUMNS,
    StudyResult,
    read_study,
    total,
)
from jaxfc.running.study_status import StudyStatus, read_status
from jaxfc.serialisation import write_atomically
from jaxfc.typing import PRNGKeyArray

SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Estimators compared on simulated panels, over a grid of settings.

    **Arguments:** `world(**cell)` makes what draws panels with `sample(key=)`, such as
    `jaxfc.FactorWorld`; if it has `sampler()`, what that answers draws them. `estimators` by name,
    see `Estimator`. `grid`: settings of every cell, see `product_grid`. `metrics` by name:
    functions of panel and estimate that answer a scalar. `num_paths` in every cell. `batch_size`:
    paths side by side on a device; it decides on rounding and is part of what a store is for.
    `paths_per_chunk`: paths in one file of the store, rounded up to whole batches.

    **Raises:** `ValueError` for no cell, estimator, metric or path, cells that are there twice, and
    names that mean something else in the tables.
    """

    world: Callable[..., Any]
    estimators: Mapping[str, Estimator]
    grid: Sequence[Settings]
    metrics: Mapping[str, Callable[[Any, Any], Any]]
    _: dataclasses.KW_ONLY
    num_paths: int
    batch_size: int = 32
    paths_per_chunk: int = 128
    name: str = "study"

    def __post_init__(self):
        for what in ("grid", "estimators", "metrics"):
            if not getattr(self, what):
                raise ValueError(f"a study needs one of its {what} at least, got none.")
        check_counts(
            num_paths=self.num_paths,
            batch_size=self.batch_size,
            paths_per_chunk=self.paths_per_chunk,
        )
        settings = {name for cell in self.grid for name in cell}
        taken = {*OWN_COLUMNS, *(f"{name}_se" for name in self.metrics)}
        clashes = (settings | set(self.metrics)) & taken | (settings & set(self.metrics))
        if clashes:
            raise ValueError(
                f"{', '.join(sorted(clashes))}: settings and metrics need names of their own, "
                f"other than {', '.join(OWN_COLUMNS)}."
            )
        seen: dict[str, int] = {}
        for i, cell in enumerate(self.grid):
            first = seen.setdefault(json.dumps(describe(cell), sort_keys=True), i)
            if first != i:
                raise ValueError(f"{cell_text(i, cell)} is in the grid twice, first at {first}.")

    @property
    def chunk_size(self) -> int:
        """Paths of one file: whole batches."""
        return -(-self.paths_per_chunk // self.batch_size) * self.batch_size

    @property
    def num_chunks(self) -> int:
        """Files of every cell."""
        return -(-self.num_paths // self.chunk_size)

    def paths_of(self, chunk: int) -> range:
        """Positions of the paths of a chunk."""
        start = chunk * self.chunk_size
        return range(start, min(start + self.chunk_size, self.num_paths))

    def run(
        self,
        store: str | Path,
        *,
        key: PRNGKeyArray,
        engine: Engine | None = None,
        progress: bool | None = None,
        memory_budget: int | None = None,
    ) -> StudyResult:
        """Compute what the folder `store` does not hold yet, and read all of it.

        **Arguments:** `engine`: `Local()` (the default) or `Ray()`. `progress` None: shown if
        stderr is a terminal. `memory_budget`: bytes that one program may take on a device, default
        a quarter of what is free.

        Failed fits do not raise: they are kept with their code and counted. Several processes may
        run the same study on the same folder; they share the work.

        **Raises:** before anything is computed, `ValueError` for cells or estimators that cannot
        be, naming them, and for a store of another study; `OSError` for a folder that cannot be
        written to. Later, `ValueError` for a program larger than the budget. What was kept stays.
        """
        check_key(key)
        check_cells(self)
        kept = ResultStore(store, self.config(key), facts())
        data = np.asarray(jax.random.key_data(key))
        job = StudyJob(self, data, str(jax.random.key_impl(key)), memory_budget)
        parts = [(c, k) for c in range(len(self.grid)) for k in range(self.num_chunks)]
        with follow(self.name, len(self.grid), self.num_paths, progress) as bar:

            def tell(cell: int, chunk: int, was_there: bool) -> None:
                bar(cell, len(self.paths_of(chunk)), was_there)

            for cell, chunk, part in Plan(kept, parts, tell).follow(engine or Local(), job):
                kept.write(cell, chunk, part.table, part.notes)
        result = read_study(store)
        write_summary(result, Path(store))
        return result

    def status(self, store: str | Path) -> StudyStatus:
        """How far the study is; nothing is computed or written.

        **Raises:** `FileNotFoundError` for no store, `ValueError` for that of another study.
        """
        self.check_store(store)
        return read_status(store)

    def collect(self, store: str | Path) -> StudyResult:
        """What the store holds so far; nothing is computed or written.

        **Raises:** as `status`.
        """
        self.check_store(store)
        return read_study(store)

    def check_store(self, store: str | Path) -> None:
        """Raise `ValueError` for the store of another study; keys may differ."""
        theirs = read_manifest(Path(store))["config"].get("key")
        own = json.loads(json.dumps(self.config(None)))
        check_config(Path(store), {**own, "key": theirs})

    def config(self, key: PRNGKeyArray | None) -> dict[str, Any]:
        """All that the results depend on, as JSON values."""
        key_words = None if key is None else np.asarray(jax.random.key_data(key)).tolist()
        return {
            "name": self.name,
            "world": describe(self.world),
            "estimators": describe(self.estimators),
            "grid": [describe(cell) for cell in self.grid],
            "metrics": describe(self.metrics),
            "num_paths": self.num_paths,
            "batch_size": self.batch_size,
            "paths_per_chunk": self.chunk_size,
            "dtype": str(jnp.result_type(float)),
            "key": {
                "words": key_words,
                "impl": None if key is None else str(jax.random.key_impl(key)),
                "partitionable": is_partitionable(),
            },
        }


def check_key(key: Any) -> None:
    """Raise `ValueError` for anything but one typed key."""
    is_key = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.shape != ():
        raise ValueError("key must be one key of jax.random.key(seed).")


def is_partitionable() -> bool:
    """Which of two ways of drawing JAX uses: they give other numbers."""
    return bool(jax.config.jax_threefry_partitionable)  # pyright: ignore[reportAttributeAccessIssue]


def facts() -> dict[str, Any]:
    """Versions and device, recorded with a new store and never compared."""
    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "jaxfc", "numpy")}
    return {
        **packages,
        "python": platform.python_version(),
        "platform": device.platform,
        "device": device.device_kind,
        "num_devices": jax.local_device_count(),
    }


def write_summary(result: StudyResult, folder: Path) -> None:
    """Totals of a study beside its results."""
    names = ["cell", "estimator", "num_paths", "num_failed", "num_stopped", "num_invalid"]
    content = {
        "name": result.config["name"],
        "is_complete": result.is_complete,
        "num_cells": len(result.settings),
        "num_paths": int(result.config["num_paths"]) * len(result.settings),
        "seconds": total(result.notes, "seconds"),
        "compile_seconds": total(result.notes, "compile_seconds"),
        "devices": sorted(set(result.notes["device"])),
        "facts": result.facts,
        "fits": json.loads(str(result.table()[names].to_json(orient="records"))),
    }
    write_atomically(folder / SUMMARY, json.dumps(content, indent=1).encode())
