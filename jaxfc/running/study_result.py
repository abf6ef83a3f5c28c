"""What a study found, read from its store: rows of paths, tables by cell, how far it is."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxfc.results import RESULTS, usable_codes
from jaxfc.running.store import ResultStore, read_manifest

OWN_COLUMNS = (
    "cell",
    "path",
    "estimator",
    "num_steps",
    "result",
    "is_okay",
    "is_usable",
    "world_valid",
    "num_paths",
    "num_failed",
    "num_stopped",
    "num_invalid",
    "seconds_per_fit",
)


@dataclasses.dataclass(frozen=True, eq=False)
class StudyResult:
    """The results of a study, or of the part of it that is there.

    `paths`: one row per cell, path and estimator, with the settings of the cell, the metrics,
    `num_steps`, `result` (a code), `is_okay` (converged), `is_usable` (converged, or stopped at the
    bound on steps), and `world_valid` (whether the world drew what it should). `notes`: one row per
    cell, chunk and estimator, with seconds of running and compiling and the number of fits
    computed. `config` and `facts` are those of the store.
    """

    paths: pd.DataFrame
    notes: pd.DataFrame
    config: dict[str, Any]
    facts: dict[str, Any]

    @property
    def settings(self) -> pd.DataFrame:
        """The settings of every cell, by its position in the grid."""
        return settings_frame(self.config)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.config["metrics"])

    @property
    def estimators(self) -> tuple[str, ...]:
        """Names of the estimators."""
        return tuple(self.config["estimators"])

    @property
    def is_complete(self) -> bool:
        """Whether every path of every cell is there."""
        each = self.paths.groupby("cell")["path"].nunique()
        num_cells, num_paths = len(self.config["grid"]), self.config["num_paths"]
        return len(each) == num_cells and bool((each == num_paths).all())

    def table(self) -> pd.DataFrame:
        """One row per cell and estimator: counts, means of the metrics with standard errors.

        Means, standard errors (`*_se`) and the median of `num_steps` are over the usable fits of
        valid worlds: those that converged, and the `num_stopped` that stopped at their bound on
        steps. To leave these out would be to choose the easy paths. `num_failed` counts the other
        fits of valid worlds, `num_invalid` the paths whose world is not. A metric that is NaN for a
        usable fit makes its mean NaN.
        `seconds_per_fit`: of a fit within a full batch, compilation apart.
        """
        valid, usable = self.paths["world_valid"], self.paths["is_usable"]
        stopped = valid & usable & ~self.paths["is_okay"]
        marked = self.paths.assign(failed=valid & ~usable, stopped=stopped, invalid=~valid)
        by = ["cell", "estimator"]
        table = marked.groupby(by, sort=False).agg(
            num_paths=("path", "size"),
            num_failed=("failed", "sum"),
            num_stopped=("stopped", "sum"),
            num_invalid=("invalid", "sum"),
        )
        chosen = self.paths[valid & usable].groupby(by, sort=False)
        for name in self.metrics:
            table[name] = chosen[name].agg(mean)
            table[f"{name}_se"] = chosen[name].agg(standard_error)
        table["num_steps"] = chosen["num_steps"].median()
        seconds = pd.DataFrame(self.timings()).set_index(by)
        table["seconds_per_fit"] = seconds["seconds_per_fit"]
        return self.with_settings(table.reset_index())

    def compare(self, metric: str, first: str, second: str) -> pd.DataFrame:
        """By cell: the mean of `metric` of `first` minus that of `second`, on the same paths.

        Over the paths where both are usable (`num_pairs`), with the standard error of the paired
        difference, which is far below that of two separate means; `ratio` is that of the two
        means. Cells where one of them is not defined have no row.

        **Raises:** `ValueError` for names that the study does not have.
        """
        check_name(metric, self.metrics, "metric")
        for name in (first, second):
            check_name(name, self.estimators, "estimator")
        good = self.paths[self.paths.is_usable & self.paths.world_valid]
        left, right = (
            pd.DataFrame(good.loc[good.estimator == name, ["cell", "path", metric]])
            for name in (first, second)
        )
        pairs = left.merge(right, on=["cell", "path"], suffixes=("_first", "_second"))
        pairs["difference"] = pairs[f"{metric}_first"] - pairs[f"{metric}_second"]
        grouped = pairs.groupby("cell", sort=False)
        table = grouped.agg(
            num_pairs=("difference", "size"),
            difference=("difference", mean),
            difference_se=("difference", standard_error),
        )
        both = [grouped[f"{metric}_{side}"].agg(mean) for side in ("first", "second")]
        table["ratio"] = both[0] / both[1]
        return self.with_settings(table.reset_index())

    def timings(self) -> pd.DataFrame:
        """By cell and estimator: seconds of running, of compiling, fits computed, seconds per fit.

        Fits include the copies that fill up the last batch of a chunk: they cost the same.
        """
        grouped = self.notes.groupby(["cell", "estimator"], sort=False)
        sums = grouped[["seconds", "compile_seconds", "num_computed"]].sum()
        table = pd.DataFrame(sums).reset_index()
        table["seconds_per_fit"] = table["seconds"] / table["num_computed"]
        return table

    def failures(self) -> pd.DataFrame:
        """Failed fits of valid worlds by cell, estimator and reason; not those that stopped."""
        failed = self.paths[self.paths.world_valid & ~self.paths.is_usable]
        grouped = failed.groupby(["cell", "estimator", "result"], sort=False)
        table = grouped.agg(num_failed=("path", "size")).reset_index()
        table["message"] = [message_of(code) for code in table["result"]]
        return table

    def with_settings(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table by cell with the settings of the cells behind the column `cell`."""
        joined = self.settings.loc[table["cell"]].reset_index(drop=True)
        rest = table.drop(columns="cell")
        return pd.concat([table[["cell"]].reset_index(drop=True), joined, rest], axis=1)


def read_study(folder: str | Path) -> StudyResult:
    """The results in a store, whoever computed them.

    **Raises:** `FileNotFoundError` for a folder without a manifest, `ValueError` for the store of
    something else.
    """
    store, manifest = study_store(folder)
    tables, notes = [], []
    for cell, chunk, table, note in store.parts():
        tables.append(with_usable(table).assign(cell=cell))
        for name, seconds in note["seconds"].items():
            row = {"cell": cell, "chunk": chunk, "estimator": name, "seconds": seconds}
            row["compile_seconds"] = note["compile_seconds"][name]
            notes.append(row | {name: note[name] for name in ("num_computed", "device", "process")})
    columns = ["cell", "chunk", "estimator", "seconds", "compile_seconds", "num_computed", "device"]
    result = StudyResult(
        paths=pd.concat(tables, ignore_index=True) if tables else empty_paths(store.config),
        notes=pd.DataFrame(notes, columns=pd.Index([*columns, "process"])),
        config=store.config,
        facts=manifest["facts"],
    )
    return dataclasses.replace(result, paths=result.with_settings(result.paths))


def with_usable(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a part with the column `is_usable` behind `is_okay`."""
    usable = table["result"].isin(usable_codes()).to_numpy()
    marked = table.copy()
    marked.insert(list(table.columns).index("is_okay") + 1, "is_usable", usable)
    return marked


def study_store(folder: str | Path) -> tuple[ResultStore, dict[str, Any]]:
    """The store of a study, opened for reading, and its manifest."""
    store, manifest = ResultStore(folder), read_manifest(Path(folder))
    missing = {"grid", "estimators", "metrics", "num_paths", "name"} - set(store.config)
    if missing:
        raise ValueError(
            f"{folder} is a store, but of no study: {', '.join(sorted(missing))} lack."
        )
    return store, manifest


def settings_frame(config: dict[str, Any]) -> pd.DataFrame:
    """The grid as a table; lists as tuples, so that cells can be grouped by them."""
    rows = [{name: hashable(v) for name, v in cell.items()} for cell in config["grid"]]
    return pd.DataFrame(rows)


def hashable(value: Any) -> Any:
    """Lists, of whatever depth, as tuples."""
    return tuple(hashable(v) for v in value) if isinstance(value, list) else value


def empty_paths(config: dict[str, Any]) -> pd.DataFrame:
    """The table of no path."""
    names = ["path", "estimator", *config["metrics"], "num_steps", "result", "is_okay", "is_usable"]
    table = pd.DataFrame(columns=pd.Index([*names, "world_valid", "cell"]))
    numbers = dict.fromkeys(("path", "num_steps", "result", "cell"), int)
    flags = dict.fromkeys(("is_okay", "is_usable", "world_valid"), bool)
    return table.astype({**numbers, **flags, **dict.fromkeys(config["metrics"], float)})


def total(table: pd.DataFrame, name: str) -> float:
    """The sum of a column."""
    return float(table[name].to_numpy().sum())


def mean(values: pd.Series) -> float:
    """The mean; NaN if a value is."""
    return float(np.mean(values.to_numpy()))


def standard_error(values: pd.Series) -> float:
    """Of a mean over independent paths; NaN for a single one."""
    array = values.to_numpy()
    return float(np.std(array, ddof=1) / np.sqrt(array.size)) if array.size > 1 else np.nan


@functools.cache
def message_of(code: int) -> str:
    """The text of a result code."""
    return RESULTS._index_to_message[int(code)]


def check_name(name: str, names: Sequence[str], kind: str) -> None:
    """Raise `ValueError` for a name that is not among `names`."""
    if name not in names:
        raise ValueError(f"the study has no {kind} {name!r}; it has {', '.join(names)}.")
