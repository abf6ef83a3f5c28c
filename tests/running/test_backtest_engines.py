"""A backtest whose chunks other processes compute, in another order: the bits of one process."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest

from jaxfc.panel import Panel
from jaxfc.running import Local, Rolling, backtest
from jaxfc.running.store import ResultStore
from reliability.fits import FACTORS, frame_of

ORIGINS = Rolling(window=40, step=2, num_origins=5, refit=2)
OPTIONS = {"horizon": 2, "batch_size": 1, "progress": False}


@dataclasses.dataclass
class Elsewhere:
    """Takes the job apart into bytes, as a cluster does, and answers the last part first."""

    asked: list[int]

    def compute(self, job, todo):
        runner = pickle.loads(pickle.dumps(job)).runner()
        for cell, chunk in list(todo)[::-1]:
            self.asked.append(chunk)
            yield cell, chunk, runner.compute(cell, chunk)


class Failing(Local):
    """The runner breaks at the second chunk."""

    def compute(self, job, todo):
        class Broken:
            def runner(self, devices):
                return self

            def compute(self, cell, chunk):
                if chunk == 1:
                    raise FloatingPointError("the disk is on fire")
                return job.runner().compute(cell, chunk)

            place = staticmethod(job.place)

        return super().compute(Broken(), todo)


@pytest.fixture(scope="module")
def panel():
    return Panel.from_frame(frame_of(0))


@pytest.fixture(scope="module")
def here(panel):
    return backtest(FACTORS, panel, ORIGINS, **OPTIONS)


def check_same(done, there):
    assert list(done.origins) == list(there.origins)
    for name in ("mean", "std", "loglik", "num_steps"):
        np.testing.assert_array_equal(getattr(done, name), getattr(there, name))


def test_chunks_computed_elsewhere_give_the_same_bits(panel, here):
    engine = Elsewhere([])
    check_same(backtest(FACTORS, panel, ORIGINS, **OPTIONS, engine=engine), here)
    assert engine.asked == [2, 1, 0]


def test_a_store_is_shared_by_engines_and_processes(panel, here, tmp_path):
    """What one engine has kept the other reads; what another process is at is left to it, and
    computed in the end if it has died."""
    with pytest.raises(FloatingPointError, match="on fire") as failed:
        backtest(FACTORS, panel, ORIGINS, **OPTIONS, store=tmp_path, engine=Failing())
    first, last = (f"{here.origins[i]:%Y-%m-%d}" for i in (2, 3))
    assert failed.value.__notes__ == [f"This was the chunk of the origins {first}..{last}."]
    assert not list(tmp_path.glob(".claim*"))
    ResultStore(tmp_path).claim(0, 1)
    engine = Elsewhere([])
    done = backtest(FACTORS, panel, ORIGINS, **OPTIONS, store=tmp_path, engine=engine)
    assert engine.asked == [1, 2]
    check_same(done, here)
    assert not list(tmp_path.glob(".claim*"))
    check_same(backtest(FACTORS, panel, ORIGINS, **OPTIONS, store=tmp_path), here)


def test_a_part_that_vanishes_is_named(panel, here, tmp_path):
    backtest(FACTORS, panel, ORIGINS, **OPTIONS, store=tmp_path)

    class Thief:
        def compute(self, job, todo):
            for path in tmp_path.glob("cell00000-chunk000001-*.parquet"):
                path.unlink()
            return iter(())

    with pytest.raises(FileNotFoundError, match=r"chunk 1 was taken out of .* run it again"):
        backtest(FACTORS, panel, ORIGINS, **OPTIONS, store=tmp_path, engine=Thief())


def test_a_batch_beyond_the_budget_is_refused(panel):
    with pytest.raises(ValueError, match=r"1 cases side by side need .* the budget is 1,000"):
        backtest(FACTORS, panel, ORIGINS, **OPTIONS, memory_budget=1000)


def test_an_empty_batch_is_refused_by_every_engine(panel):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        backtest(FACTORS, panel, ORIGINS, batch_size=0, engine=Elsewhere([]))


def test_chosen_devices(panel, here):
    engine = Local(jax.local_devices()[:1])
    check_same(backtest(FACTORS, panel, ORIGINS, **OPTIONS, engine=engine), here)
