"""Results of studies that nobody ran: numbers of a given law, for tests of tables and reports."""

import numpy as np
import pandas as pd

from jaxfc.results import RESULTS
from jaxfc.running.study_result import StudyResult

CODES = {
    name: int(getattr(RESULTS, name)._value)
    for name in ("successful", "nonlinear_max_steps_reached", "diverged")
}


def made_result(grid, estimators=("plain", "better"), metrics=("score",), num_paths=6, absent=()):
    """Scores near 0.5, better ones 0.1 above on the same paths; the last path of all is stopped.

    `absent`: pairs of cell and estimator that are not defined.
    """
    rng = np.random.default_rng(0)
    rows, notes = [], []
    for c in range(len(grid)):
        base = 0.5 + 0.05 * rng.normal(size=num_paths)
        for k, name in enumerate(estimators):
            if (c, name) in absent:
                continue
            scores = base + 0.1 * k + 0.005 * rng.normal(size=num_paths)
            for path in range(num_paths):
                stopped = path == num_paths - 1
                code = CODES["nonlinear_max_steps_reached" if stopped else "successful"]
                row = {"path": path, "estimator": name}
                row |= {metric: scores[path] - 0.6 * j for j, metric in enumerate(metrics)}
                row |= {"num_steps": 7 + k, "result": code, "is_okay": not stopped}
                rows.append(row | {"is_usable": True, "world_valid": True, "cell": c})
            note = {"cell": c, "chunk": 0, "estimator": name, "seconds": 1e-3 * (k + 1) * num_paths}
            note |= {"compile_seconds": 0.1, "num_computed": num_paths}
            notes.append(note | {"device": "1 x cpu", "process": "here:1"})
    config = {
        "name": "made",
        "grid": [{n: list(v) if isinstance(v, tuple) else v for n, v in c.items()} for c in grid],
        "estimators": dict.fromkeys(estimators),
        "metrics": dict.fromkeys(metrics),
        "num_paths": num_paths,
        "batch_size": 4,
        "dtype": "float64",
        "key": {"words": [0, 1]},
    }
    facts = {"jaxfc": "0", "jax": "1", "platform": "cpu", "device": "cpu"}
    result = StudyResult(pd.DataFrame(rows), pd.DataFrame(notes), config, facts)
    return changed(result, paths=result.with_settings(result.paths))


def changed(result, **parts):
    """The same with another part."""
    own = {name: getattr(result, name) for name in ("paths", "notes", "config", "facts")}
    return StudyResult(**{**own, **parts})


def failing(result, cell, estimator, num_failed=None):
    """The first fits of a cell and estimator failed (default: all), without a score."""
    paths = result.paths.copy()
    at = paths.index[(paths.cell == cell) & (paths.estimator == estimator)][:num_failed]
    paths.loc[at, ["is_okay", "is_usable"]] = False
    paths.loc[at, "result"] = CODES["diverged"]
    paths.loc[at, list(result.metrics)] = np.nan
    return changed(result, paths=paths)


def only_cells(result, cells):
    """What a store holds of it that is not complete."""
    keep = result.paths.cell.isin(cells)
    paths, notes = result.paths[keep], result.notes[result.notes.cell.isin(cells)]
    return changed(result, paths=paths.reset_index(drop=True), notes=notes.reset_index(drop=True))
