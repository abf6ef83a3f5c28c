"""The cell of `bench_study.py`: its study, and the programs of the study taken apart."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.factors.estimators import ModelEstimator, trace_r2
from jaxfc.factors.methods import EM
from jaxfc.factors.model import DynamicFactorModel
from jaxfc.factors.worlds import FactorWorld
from jaxfc.running.study import Study
from jaxfc.running.study_cells import build_cell
from jaxfc.running.study_chunks import ChunkRunner, StudyJob

NUM_FACTORS, NUM_LAGS, MISSING = 3, 1, 0.2
METRICS = {"trace_r2": trace_r2}
KEY = 20210208


def bm(rtol: float = 1e-4, max_steps: int = 100) -> ModelEstimator:
    """The estimator of the cell."""
    method = EM(rtol=rtol, max_steps=max_steps)
    return ModelEstimator(DynamicFactorModel(1, 1, method=method, standardise=False))


def make_study(
    batch_size: int,
    num_paths: int,
    num_series: int = 35,
    num_times: int = 100,
    chunk: int | None = None,
) -> Study:
    """A study of one cell and one estimator; a chunk holds all paths unless it is given."""
    cell = {
        "num_series": num_series,
        "num_times": num_times,
        "num_factors": NUM_FACTORS,
        "num_lags": NUM_LAGS,
        "missing": MISSING,
    }
    return Study(
        FactorWorld,
        {"BM": bm()},
        [cell],
        METRICS,
        num_paths=num_paths,
        batch_size=batch_size,
        paths_per_chunk=num_paths if chunk is None else chunk,
    )


def make_runner(study: Study) -> ChunkRunner:
    """What computes its chunks."""
    key = jax.random.key(KEY)
    words, name = np.asarray(jax.random.key_data(key)), str(jax.random.key_impl(key))
    return ChunkRunner(StudyJob(study, words, name, None))


class Parts:
    """Programs of a study's cell taken apart, and the panels of its paths."""

    def __init__(self, study: Study):
        self.study, self.runner = study, make_runner(study)
        self.cell = build_cell(study, 0)
        start = time.process_time()
        self.sampler, self.samples, _ = self.runner.prepare_world(self.cell)
        self.program, self.arrays, _ = self.runner.prepare_estimator(self.cell, "BM", self.sampler)
        self.compiling = time.process_time() - start
        self.starts = range(0, study.num_paths, self.sampler.size)
        self.panels = self.draw()

    @property
    def num_fits(self) -> int:
        """Fits computed, those that fill up the last batch among them."""
        return len(self.starts) * self.sampler.size

    def draw(self) -> list[Any]:
        """All panels, a batch each."""
        size = self.sampler.size
        ids = [np.arange(start, start + size, dtype=np.uint32) for start in self.starts]
        return [self.sampler.run(i, *self.samples) for i in ids]

    def fit(self, panels: list[Any] | None = None) -> list[Any]:
        """The estimator of all panels."""
        return [self.program.run(batch, self.arrays) for batch in panels or self.panels]

    def path(self, i: int) -> Any:
        """The panel of one path."""
        batch, row = divmod(i, self.sampler.size)
        return jax.tree.map(lambda leaf: leaf[row], self.panels[batch])

    def steps(self) -> np.ndarray:
        """Steps that every path took."""
        return np.concatenate([np.asarray(answer["num_steps"]) for answer in self.fit()])

    def sorted(self) -> list[Any]:
        """The panels again, in batches of alike numbers of steps."""
        order, size = np.argsort(self.steps(), kind="stable"), self.sampler.size
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *self.panels)
        rows = [order[start : start + size] for start in self.starts]
        return [jax.tree.map(lambda leaf, at=at: leaf[at], joined) for at in rows]
