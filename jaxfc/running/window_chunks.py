"""The windows of a backtest as a job: chunks of cases, computed here or on other machines."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from jaxfc.model import Model
from jaxfc.running.backtest_result import window_fits, window_table
from jaxfc.running.engines import Engine, Local, Plan
from jaxfc.running.replicate import CPU_BATCH, Device, chunks_of, run_chunk
from jaxfc.running.store import ResultStore
from jaxfc.running.windows import (
    WindowFit,
    Windows,
    answer_shapes,
    origins_first,
    window_program,
)


class WindowJob(NamedTuple):
    """A backtest as plain arrays: what another process needs to compute a chunk of it.

    `size`: cases of a chunk, 0 until an engine is chosen (`sized`). `origins`: their dates.
    """

    model: Model
    windows: Windows
    horizon: int
    impl: str | None
    batch_size: int | None
    memory_budget: int | None
    origins: pd.DatetimeIndex
    size: int = 0

    @property
    def chunks(self) -> list[slice]:
        """The cases of every chunk."""
        return chunks_of(len(self.windows.values), self.size)

    def sized(self, engine: Engine) -> tuple["WindowJob", WindowFit]:
        """The job with a size of chunks, and the shapes of their answers.

        On this machine a chunk is one batch on every device, as large as memory allows. A task on
        another is one batch on one device: there `batch_size` is taken as it is.
        """
        if isinstance(engine, Local):
            program = self.runner(engine.places).program
            return self._replace(size=program.size), program.answers
        size = min(self.batch_size or CPU_BATCH, len(self.windows.values))
        answers = answer_shapes(self.model, self.windows, self.horizon, self.impl, size)
        return self._replace(batch_size=size, size=size), answers

    def runner(self, devices: Sequence[Device] | None = None) -> "WindowRunner":
        """What computes the chunks, on these devices (default: one)."""
        return WindowRunner(self, tuple(jax.local_devices()[:1] if devices is None else devices))

    def place(self, cell: int, chunk: int) -> str:
        """The first and the last origin of a chunk."""
        cases, refit = self.chunks[chunk], self.windows.values.shape[1]
        last = min(cases.stop * refit, len(self.origins)) - 1
        ends = (f"{self.origins[i]:%Y-%m-%d}" for i in (cases.start * refit, last))
        return f"the chunk of the origins {'..'.join(ends)}"


class WindowRunner:
    """Computes chunks of a backtest by one compiled program, kept for the next of its shapes."""

    def __init__(self, job: WindowJob, devices: tuple[Device, ...]):
        self.job = job
        self.program, self.arrays = window_program(
            job.model,
            job.windows,
            job.horizon,
            job.impl,
            job.batch_size,
            job.memory_budget,
            devices,
        )

    def compute(self, cell: int, chunk: int) -> WindowFit:
        """The answers of the origins of a chunk."""
        cases = self.job.chunks[chunk]
        return origins_first(run_chunk(self.program, self.job.windows, cases, self.arrays))


def computed(
    job: WindowJob,
    answers: WindowFit,
    engine: Engine,
    store: ResultStore | None,
    bar: Callable[[int, int, bool], None],
) -> WindowFit:
    """The answers of all origins in order; what a store holds is read, the rest kept there."""

    def tell(cell: int, chunk: int, was_there: bool) -> None:
        cases = job.chunks[chunk]
        for case in range(cases.start, cases.stop):
            bar(case, 1, was_there)

    parts = [(0, chunk) for chunk in range(len(job.chunks))]
    found: dict[int, WindowFit] = {}
    if store is None:
        for cell, chunk, found[chunk] in engine.compute(job, iter(parts)):
            tell(cell, chunk, False)
    else:
        for cell, chunk, fits in Plan(store, parts, tell).follow(engine, job):
            store.write(cell, chunk, window_table(fits))
            found[chunk] = fits
        for cell, chunk in parts:
            if chunk not in found:
                found[chunk] = window_fits(kept_table(store, cell, chunk), answers)
    ordered = [found[chunk] for _, chunk in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(job.origins)], *ordered)


def kept_table(store: ResultStore, cell: int, chunk: int) -> pd.DataFrame:
    """A part that was there a moment ago."""
    table = store.read(cell, chunk)
    if table is None:
        raise FileNotFoundError(
            f"chunk {chunk} was taken out of {store.folder} or damaged while the backtest ran; run "
            "it again."
        )
    return table
