"""Studies and backtests on a Ray cluster of two machines, one of which is killed: the bits of one.

Ray runs in a process of its own, whose warnings are none of ours.
"""

import importlib.util
import json
import os

import jax
import pandas as pd
import pytest

from jaxfc.running import cluster
from jaxfc.running.cluster import Ray, settings
from jaxfc.running.study_result import read_study
from processes import run_python
from toy_study import toy_study

pytestmark = pytest.mark.slow

ON_RAY = """
import json
import numpy as np
import ray
from jaxfc.running.cluster import Ray
from toy_study import toy_study
from two_machines import connected

# Chunks long enough to be killed in.
STUDY = toy_study(grid=[{"num_times": 20_000, "missing": 0.2}, {"num_times": 20_000}], num_paths=48,
                  paths_per_chunk=4)
KEY = jax.random.key(7)


class Killing:
    def compute(self, job, todo):
        for answer in Ray().compute(job, todo):
            seen.append(answer[2].notes["process"])
            yield answer
            if len(set(seen)) == 2 and not killed:
                killed.append(len(seen))
                machines.remove_node(second, allow_graceful=False)


if __name__ == "__main__":
    seen, killed = [], []
    machines, second = connected()
    result = STUDY.run(sys.argv[1], key=KEY, engine=Killing())
    said = {"killed": killed, "seen": seen}
    for name, engine, budget in (("large", Ray(num_cpus=9), None), ("failing", Ray(), 1000)):
        try:
            STUDY.run(f"{sys.argv[1]}-{name}", key=KEY, engine=engine, memory_budget=budget)
        except (ValueError, RuntimeError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    ray.shutdown()
    machines.shutdown()
    STUDY.run(sys.argv[2], key=KEY)
    print(json.dumps(said))
"""

BACKTEST_ON_RAY = """
import json
import numpy as np
import ray
from jaxfc import Panel, Ray, Rolling, backtest
from jaxfc.factors import EM, DynamicFactorModel
from reliability.fits import frame_of
from two_machines import connected

MODEL = DynamicFactorModel(1, 1, method=EM(max_steps=2_000))
PANEL = Panel.from_frame(frame_of(0))
ORIGINS = Rolling(window=30, num_origins=24, refit=2)


class Killing:
    def compute(self, job, todo):
        for answer in Ray().compute(job, todo):
            seen.append(answer[1])
            yield answer
            if len(seen) == 3:
                machines.remove_node(second, allow_graceful=False)


def numbers(store, engine=None, **options):
    done = backtest(MODEL, PANEL, ORIGINS, 2, batch_size=1, store=store, engine=engine, **options)
    return [np.asarray(a).tobytes().hex() for a in (done.mean, done.std, done.loglik)]


if __name__ == "__main__":
    seen, said = [], {}
    machines, second = connected()
    spread = numbers(sys.argv[1], Killing())
    try:
        numbers(sys.argv[2], Ray(), memory_budget=1000)
    except RuntimeError as error:
        said["failing"] = str(error)
    ray.shutdown()
    machines.shutdown()
    said |= {"seen": sorted(seen), "same": spread == numbers(None)}
    said["read"] = spread == numbers(sys.argv[1])
    print(json.dumps(said))
"""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def test_a_backtest_loses_a_machine_and_no_bit_changes(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra cluster is not installed")
    folder, other = tmp_path / "cluster", tmp_path / "failing"
    said = json.loads(run_python(BACKTEST_ON_RAY, folder, other, **QUIET).splitlines()[-1])
    assert said["seen"] == list(range(12)) and said["same"] and said["read"]
    assert said["failing"].startswith("the chunk of the origins 2015-")
    assert "failed on the cluster: 1 cases side by side need" in said["failing"]


def test_one_of_two_machines_is_killed_and_no_bit_changes(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra cluster is not installed")
    folder, alone = tmp_path / "cluster", tmp_path / "alone"
    printed = run_python(ON_RAY, folder, alone, **QUIET)
    said = json.loads(printed.splitlines()[-1])
    (before,), seen = said["killed"], said["seen"]
    # Both were at work, the killed one no more; its tasks were done by the other.
    assert len(seen) == 24 and 2 <= before < 16
    assert len(set(seen[:before])) == 2 and len(set(seen[-6:])) == 1
    order = ["cell", "estimator", "path"]
    ours, theirs = (
        read_study(where).paths.sort_values(order, ignore_index=True) for where in (folder, alone)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert "ValueError: a task needs {'CPU': 9}, and no machine" in said["large"]
    assert said["failing"].startswith("RuntimeError: cell 0 (num_times=20000, missing=0.2), chunk ")
    assert "failed on the cluster: cell 0" in said["failing"] and "budget" in said["failing"]


def test_workers_are_set_as_this_process_is():
    words = settings()
    assert words["JAX_ENABLE_X64"] == "True"
    assert words["JAX_COMPILATION_CACHE_DIR"] == jax.config.jax_compilation_cache_dir
    assert words["XLA_FLAGS"] == os.environ["XLA_FLAGS"]
    assert words["NPROC"] == os.environ["NPROC"]


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(cluster.import_ray.__globals__["__builtins__"], "__import__", no_ray)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxfc\[cluster\]'"):
        toy_study().run(tmp_path, key=jax.random.key(7), engine=Ray())


def no_ray(name, *arguments, imported=__import__):
    if name == "ray":
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    return imported(name, *arguments)
