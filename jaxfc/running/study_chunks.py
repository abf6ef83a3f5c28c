"""Chunks of a study computed on one machine: panels sampled once, then given to every estimator.

Three kinds of programs: a world and positions of paths -> panels; panels and an estimation ->
metrics, steps, result code. Arrays of worlds and estimations are arguments of the programs, so
cells of one shape share them.
"""

import gc
import os
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.results import RESULTS, SUCCESSFUL, is_okay, usable_codes
from jaxfc.running.replicate import Device, Program, compile_chunk, free_memory, shapes_key
from jaxfc.running.study_cells import Cell, build_cell, cell_text
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Array, PyTree

if TYPE_CHECKING:
    from jaxfc.running.study import Study

# Compiled programs that are kept: those of many cells would exhaust the mappings of a process.
NUM_KEPT = 64
MAX_MAPPINGS = 20_000
MAPPINGS = Path("/proc/self/maps")


class StudyJob(NamedTuple):
    """A study and its key as plain words: what another process needs to compute a chunk of it."""

    study: "Study"
    key_data: np.ndarray
    key_impl: str
    memory_budget: int | None

    @property
    def key(self) -> Array:
        """The key, typed."""
        return jax.random.wrap_key_data(jnp.asarray(self.key_data), impl=self.key_impl)

    def runner(self, devices: Sequence[Device] | None = None) -> "ChunkRunner":
        """What computes the chunks, on these devices (default: all local ones)."""
        return ChunkRunner(self, devices)

    def place(self, cell: int, chunk: int) -> str:
        """Cell, settings and chunk."""
        return f"{cell_text(cell, self.study.grid[cell])}, chunk {chunk}"


class Part(NamedTuple):
    """What a chunk gives: one row per path and estimator, and notes on how it went."""

    table: pd.DataFrame
    notes: dict[str, Any]


class Split(NamedTuple):
    """A module taken apart into its arrays and what a program is compiled for."""

    arrays: PyTree
    static: PyTree

    @property
    def key(self) -> Hashable:
        """Equal for modules that can share a program."""
        leaves, structure = jax.tree.flatten(self.static)
        return structure, tuple(leaves), shapes_key(self.arrays)


class ChunkRunner:
    """Computes chunks of a study on the local devices, keeping compiled programs for later ones."""

    def __init__(self, job: StudyJob, devices: Sequence[Device] | None = None):
        self.study, self.key = job.study, job.key
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        given = job.memory_budget
        self.memory_budget = free_memory(self.devices) // 4 if given is None else given
        self.programs: OrderedDict[Hashable, Program] = OrderedDict()
        self.cell: Cell | None = None

    def compute(self, cell: int, chunk: int) -> Part:
        """All estimators on the paths of a chunk.

        **Raises:** `ValueError` for a cell that cannot be built, or whose programs need more memory
        than the budget, before any of them runs.
        """
        if self.cell is None or self.cell.position != cell:
            self.cell = build_cell(self.study, cell)
        sampler, samples, world_compiling = self.prepare_world(self.cell)
        prepared = {
            name: self.prepare_estimator(self.cell, name, sampler) for name in self.cell.bound
        }
        seconds = dict.fromkeys(prepared, 0.0)
        answers: dict[str, list[PyTree]] = {name: [] for name in prepared}
        world_seconds, num_computed, valid = 0.0, 0, []
        paths = self.study.paths_of(chunk)
        for start in range(paths.start, paths.stop, sampler.size):
            ids = np.minimum(np.arange(start, start + sampler.size), paths.stop - 1)
            placed = jax.device_put(ids.astype(np.uint32), sampler.sharding)
            panels, spent = timed(sampler.run, placed, *samples)
            world_seconds, num_computed = world_seconds + spent, num_computed + len(ids)
            valid.append(np.asarray(getattr(panels, "is_valid", np.ones(len(ids), bool))))
            for name, (program, arrays, _) in prepared.items():
                answer, spent = timed(program.run, panels, arrays)
                answers[name].append(jax.tree.map(np.asarray, answer))
                seconds[name] += spent
        world_valid = np.concatenate(valid)[: len(paths)]
        tables = [
            table_of(name, paths, parts, world_valid, self.study.metrics)
            for name, parts in answers.items()
        ]
        table = pd.concat(tables, ignore_index=True)
        return Part(
            table,
            {
                "seconds": seconds,
                "compile_seconds": {name: spent for name, (*_, spent) in prepared.items()},
                "world_seconds": world_seconds,
                "world_compile_seconds": world_compiling,
                "num_computed": num_computed,
                "num_failed": {t.estimator[0]: count_failed(t) for t in tables},
                "num_invalid": int((~world_valid).sum()),
                "device": f"{len(self.devices)} x {self.devices[0].device_kind}",
                "process": f"{platform.node()}:{os.getpid()}",
            },
        )

    def prepare_world(self, cell: Cell) -> tuple[Program, tuple[PyTree, ...], float]:
        """The program that samples, its shared arguments, and the seconds of its compilation."""
        source = split(cell.sampler)

        def sample(path: Array, arrays: PyTree, key: Array) -> PyTree:
            return eqx.combine(arrays, source.static).sample(key=jax.random.fold_in(key, path))

        shared = (source.arrays, jax.random.fold_in(self.key, cell.position))
        ids = jax.ShapeDtypeStruct((1,), np.uint32)
        program, spent = self.program(("world", source.key), sample, ids, shared)
        self.check_memory(program, cell, "the world")
        return program, jax.device_put(shared, program.everywhere), spent

    def prepare_estimator(
        self, cell: Cell, name: str, sampler: Program
    ) -> tuple[Program, PyTree, float]:
        """The program of an estimator, the arrays of its estimation, seconds of compilation."""
        bound, metrics = split(cell.bound[name]), self.study.metrics

        def evaluate(panel: PyTree, arrays: PyTree) -> PyTree:
            return outcome(panel, eqx.combine(arrays, bound.static)(panel), metrics)

        key = ("estimator", bound.key, shapes_key(sampler.answers))
        program, spent = self.program(key, evaluate, sampler.answers, (bound.arrays,))
        self.check_memory(program, cell, f"estimator {name!r}")
        return program, jax.device_put(bound.arrays, program.everywhere), spent

    def program(
        self, key: Hashable, function: Callable[..., PyTree], cases: PyTree, shared: tuple
    ) -> tuple[Program, float]:
        """A compiled program and the seconds that took: 0 for one that is there."""
        spent = 0.0
        if key not in self.programs:
            start = time.perf_counter()
            size = self.study.batch_size
            self.programs[key] = compile_chunk(function, cases, size, self.devices, shared)
            spent = time.perf_counter() - start
        self.programs.move_to_end(key)
        if spent > 0.0:
            self.forget()
        return self.programs[key], spent

    def forget(self) -> None:
        """Let go of the programs that were not used for longest, if there are many or if they have
        taken many memory mappings, of which Linux allows a process 65,530: the compiler crashes
        without one."""
        needed, most = 1 + len(self.study.estimators), NUM_KEPT
        if num_mappings() > MAX_MAPPINGS:
            most = len(self.programs) // 2
        while len(self.programs) > max(most, needed):
            self.programs.popitem(last=False)
        if most < NUM_KEPT:
            gc.collect()

    def check_memory(self, program: Program, cell: Cell, what: str) -> None:
        """Raise `ValueError` for a program that needs more than the budget."""
        if program.num_bytes is not None and program.num_bytes > self.memory_budget:
            raise ValueError(
                f"{cell_text(cell.position, cell.settings)}, {what}: {self.study.batch_size} paths "
                f"side by side need {program.num_bytes:,} bytes on a device, the budget is "
                f"{self.memory_budget:,}. Raise memory_budget, or use a smaller batch_size with "
                "another store: it decides on rounding, so it is never changed for you."
            )


def num_mappings() -> int:
    """Memory mappings of this process; 0 where the system does not say."""
    return len(MAPPINGS.read_bytes().splitlines()) if MAPPINGS.exists() else 0


def split(module: Any) -> Split:
    """Arrays of a module, in the precision of JAX, apart from the rest; Python numbers stay with
    the rest."""
    module = in_precision_of_jax(module)
    arrays, static = eqx.partition(module, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return Split(jax.tree.map(strong, arrays), static)


def strong(leaf: Any) -> Array:
    """An array of a type of its own, not one that adapts to what it meets."""
    array = jnp.asarray(leaf)
    return array.astype(array.dtype)


def outcome(panel: PyTree, estimate: Any, metrics: Mapping[str, Callable]) -> dict[str, PyTree]:
    """Metrics, steps and result code of one path."""
    result = getattr(estimate, "result", SUCCESSFUL)
    if not isinstance(result, RESULTS):
        result = RESULTS.promote(result)
    values = {name: jnp.asarray(metric(panel, estimate)) for name, metric in metrics.items()}
    for name, value in values.items():
        if value.shape:
            raise ValueError(f"metric {name!r} must answer a scalar, got shape {value.shape}.")
    return {
        "metrics": {name: value.astype(float) for name, value in values.items()},
        "num_steps": jnp.asarray(getattr(estimate, "num_steps", 0), jnp.int32),
        "result": jnp.asarray(result._value, jnp.int32),
        "is_okay": is_okay(result),
    }


def timed(run: Callable[..., PyTree], *arguments: PyTree) -> tuple[PyTree, float]:
    """What a program answers and the seconds until it is there."""
    start = time.perf_counter()
    answer = jax.block_until_ready(run(*arguments))
    return answer, time.perf_counter() - start


def count_failed(table: pd.DataFrame) -> int:
    """Failed fits of valid worlds."""
    return int((table["world_valid"] & ~table["result"].isin(usable_codes())).to_numpy().sum())


def table_of(
    name: str,
    paths: range,
    parts: list[PyTree],
    world_valid: np.ndarray,
    metrics: Mapping[str, Callable],
) -> pd.DataFrame:
    """The rows of one estimator; copies of the last path, which filled up a batch, are left out."""
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(paths)], *parts)
    columns: dict[str, Any] = {"path": np.asarray(paths), "estimator": name}
    columns |= {metric: joined["metrics"][metric].astype(np.float64) for metric in metrics}
    columns |= {key: joined[key] for key in ("num_steps", "result", "is_okay")}
    return pd.DataFrame({**columns, "world_valid": world_valid})
