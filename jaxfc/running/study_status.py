"""How far a study is, by the files of its store."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxfc.running.study_result import settings_frame, study_store, total, with_usable

# Columns beside the settings.
OWN = (
    "num_paths",
    "num_failed",
    "num_stopped",
    "failed_share",
    "seconds",
    "compile_seconds",
)


@dataclasses.dataclass(frozen=True, eq=False)
class StudyStatus:
    """How far a study is. `cells`: by cell, its settings, paths that are there, fits that failed
    and that stopped at their bound on steps, share of the fits that failed, seconds."""

    name: str
    num_paths: int
    cells: pd.DataFrame

    @property
    def varying(self) -> list[str]:
        """Settings that tell the cells apart; all of them for a single cell."""
        names = [str(name) for name in self.cells.columns if name not in OWN]
        varying = [name for name in names if len(set(self.cells[name].map(str))) > 1]
        return varying or names

    @property
    def num_cells(self) -> int:
        """How many cells the grid has."""
        return len(self.cells)

    @property
    def num_cells_done(self) -> int:
        """How many are complete."""
        return int(np.sum(self.cells["num_paths"].to_numpy() == self.num_paths))

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to compute."""
        return self.num_cells_done == self.num_cells

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "num_cells": self.num_cells,
            "num_cells_done": self.num_cells_done,
            "num_paths": self.num_paths * self.num_cells,
            "num_paths_done": int(total(self.cells, "num_paths")),
            "num_failed": int(total(self.cells, "num_failed")),
            "num_stopped": int(total(self.cells, "num_stopped")),
            "seconds": total(self.cells, "seconds"),
            "compile_seconds": total(self.cells, "compile_seconds"),
            "is_complete": self.is_complete,
        }


def read_status(folder: str | Path) -> StudyStatus:
    """How far the study in a store is, by its files alone; nothing is written.

    **Raises:** as `read_study`.
    """
    store, _ = study_store(folder)
    counts = np.zeros((len(store.config["grid"]), 4), int)
    seconds = np.zeros((len(counts), 2))
    for cell, _, table, note in store.parts():
        marked = with_usable(table)
        valid, usable = marked["world_valid"], marked["is_usable"]
        failed, stopped = valid & ~usable, valid & usable & ~marked["is_okay"]
        counts[cell] += [table["path"].nunique(), failed.sum(), stopped.sum(), len(table)]
        seconds[cell] += [sum(note["seconds"].values()) + note["world_seconds"], compiling(note)]
    cells = settings_frame(store.config).assign(
        num_paths=counts[:, 0],
        num_failed=counts[:, 1],
        num_stopped=counts[:, 2],
        failed_share=counts[:, 1] / np.maximum(counts[:, 3], 1),
        seconds=seconds[:, 0],
        compile_seconds=seconds[:, 1],
    )
    return StudyStatus(store.config["name"], store.config["num_paths"], cells)


def compiling(note: dict[str, Any]) -> float:
    """Seconds of compilation that a part reports."""
    return sum(note["compile_seconds"].values()) + note["world_compile_seconds"]
