"""Studies: equal to a loop by hand, whatever computes them; stopped, killed, shared, refused."""

import json
import os
import signal
import subprocess
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.factors import EM, DynamicFactorModel, FactorWorld
from jaxfc.results import RESULTS
from jaxfc.running.engines import Local
from jaxfc.running.progress import follow
from jaxfc.running.study import SUMMARY, Study
from jaxfc.running.study_cells import product_grid
from jaxfc.running.study_result import read_study
from jaxfc.running.study_status import read_status
from processes import run_python, start_python, with_devices
from toy_study import (
    GRID,
    TRACES,
    PlainMean,
    SampledWorld,
    Shrinkage,
    ToyWorld,
    squared_error,
    toy_study,
)

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)
SETTINGS = ["num_times", "missing"]
# 180 files.
SIZE = {"num_paths": 120, "paths_per_chunk": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    TRACES.clear()
    folder = tmp_path_factory.mktemp("study") / "toy"
    toy_study().run(folder, key=KEY)
    assert sorted(set(TRACES)) == ["mean", "shrinkage", "world"]
    return folder


@pytest.fixture(scope="module")
def result(folder):
    return read_study(folder)


def parts_in(folder):
    return {path.name for path in folder.glob("cell*.parquet")}


def same_paths(left, right):
    pd.testing.assert_frame_equal(left.paths, right.paths, check_exact=True)


def test_it_equals_a_loop_by_hand(result):
    rows = []
    for c, cell in enumerate(GRID):
        world = ToyWorld(**cell)
        estimators = {"shrunken": Shrinkage(0.5), "slow": Shrinkage(0.05), "mean": PlainMean()}
        for name, estimator in estimators.items():
            if name == "mean" and cell["missing"] == 0.6:
                continue
            run = eqx.filter_jit(estimator.bind(world))
            for i in range(14):
                key = jax.random.fold_in(jax.random.fold_in(KEY, c), i)
                panel = world.sample(key=key)
                estimate = run(panel)
                code = getattr(estimate, "result", RESULTS.successful)
                rows.append(
                    {
                        "cell": c,
                        **cell,
                        "path": i,
                        "estimator": name,
                        "error": float(squared_error(panel, estimate)),
                        "first": float(estimate.means[0]),
                        "num_steps": int(getattr(estimate, "num_steps", 0)),
                        "result": int(code._value),
                        "is_okay": bool(code == RESULTS.successful),
                        "is_usable": bool(code == RESULTS.successful),
                        "world_valid": bool(panel.is_valid),
                    }
                )
    order = ["cell", "estimator", "path"]
    expected = pd.DataFrame(rows).sort_values(order, ignore_index=True)
    ours = result.paths.sort_values(order, ignore_index=True)
    assert list(ours.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(ours, expected, rtol=1e-12, check_dtype=False)
    assert 0 < (~ours.is_okay).sum() < 20 and ours.loc[~ours.is_okay, "error"].isna().all()


def test_cells_of_one_shape_share_programs(tmp_path):
    """Shares of missing values and the speed of an estimator are arguments, not other programs."""
    TRACES.clear()
    study = toy_study(grid=product_grid(num_times=[6], missing=[0.0, 0.2, 0.4]))
    study.run(tmp_path / "a", key=KEY)
    assert [TRACES.count(name) for name in ("world", "shrinkage", "mean")] == [3, 1, 1]
    same = study.run(tmp_path / "a", key=KEY)
    assert len(TRACES) == 5
    sampled = toy_study(grid=study.grid, world=SampledWorld).run(tmp_path / "b", key=KEY)
    assert [TRACES.count(name) for name in ("world", "shrinkage", "mean")] == [4, 2, 2]
    same_paths(sampled, same)


def test_tables(result):
    table = result.table()
    assert list(table.columns[:6]) == ["cell", *SETTINGS, "estimator", "num_paths", "num_failed"]
    assert len(table) == 6 * 3 - 2 and result.is_complete
    paths = result.paths
    one = table[(table.cell == 1) & (table.estimator == "slow")].iloc[0]
    rows = paths[(paths.cell == 1) & (paths.estimator == "slow")]
    good = rows[rows.is_okay]
    assert one.num_paths == 14 and one.num_failed == 14 - len(good)
    np.testing.assert_allclose(one.error, good.error.mean(), rtol=1e-14)
    np.testing.assert_allclose(one.error_se, good.error.sem(), rtol=1e-12)
    assert one.num_steps == good.num_steps.median() and one.seconds_per_fit > 0

    paired = result.compare("error", "shrunken", "mean")
    assert list(paired.cell) == [0, 1, 3, 4]
    wide = paths[paths.cell == 1].pivot(index="path", columns="estimator", values="error")
    difference = (wide["shrunken"] - wide["mean"]).dropna()
    row = paired[paired.cell == 1].iloc[0]
    assert row.num_pairs == len(difference)
    np.testing.assert_allclose(row.difference, difference.mean(), rtol=1e-13)
    np.testing.assert_allclose(row.difference_se, difference.sem(), rtol=1e-12)
    both = wide[["shrunken", "mean"]].dropna().mean()
    np.testing.assert_allclose(row.ratio, both["shrunken"] / both["mean"], rtol=1e-13)
    with pytest.raises(ValueError, match="no estimator 'median'; it has shrunken, slow, mean"):
        result.compare("error", "median", "mean")
    with pytest.raises(ValueError, match="no metric 'mse'; it has error, first"):
        result.compare("mse", "slow", "mean")

    failures = result.failures()
    assert failures.num_failed.sum() == table.num_failed.sum() > 0
    assert failures.message.str.contains("became NaN").all()
    timings = result.timings()
    # 14 paths in chunks of 8 = two batches of 4, the last batch filled up.
    assert (timings.num_computed == 16).all() and (timings.seconds > 0).all()
    assert timings.compile_seconds.sum() > 0


def test_invalid_worlds_count_for_no_mean(result):
    paths = result.paths.assign(world_valid=result.paths.path != 3)
    marked = type(result)(paths, result.notes, result.config, result.facts)
    table, before = marked.table(), result.table()
    assert (table.num_invalid == 1).all() and (before.num_invalid == 0).all()
    assert (table.num_failed <= before.num_failed).all() and (table.error != before.error).any()
    kept = result.paths[(result.paths.cell == 0) & (result.paths.path != 3)]
    kept = kept[(kept.estimator == "mean")]
    np.testing.assert_allclose(table.error[2], kept.error.mean(), rtol=1e-14)
    assert (marked.compare("error", "slow", "mean").num_pairs <= 13).all()


@pytest.mark.parametrize("paths_per_chunk", [4, 12, 100])
def test_chunks_change_no_bit(tmp_path, result, paths_per_chunk):
    grid = GRID[:2]
    study = toy_study(paths_per_chunk=paths_per_chunk, grid=grid)
    ours = study.run(tmp_path, key=KEY).paths
    theirs = result.paths[result.paths.cell < 2]
    order = ["cell", "estimator", "path"]
    pd.testing.assert_frame_equal(
        ours.sort_values(order, ignore_index=True),
        theirs.sort_values(order, ignore_index=True),
        check_exact=True,
    )


ON_DEVICES = """
from toy_study import toy_study
assert len(jax.devices()) == int(sys.argv[2])
toy_study().run(sys.argv[1], key=jax.random.key(7), progress=True)
"""


def test_devices_change_no_bit(tmp_path, result):
    run_python(ON_DEVICES, tmp_path, 2, **with_devices(2))
    same_paths(read_study(tmp_path), result)


def test_it_goes_on_where_it_stopped_and_mends_what_is_damaged(tmp_path, result):
    study = toy_study()
    for path in sorted(read_folder(study, tmp_path))[::3]:
        path.unlink()
    cut = sorted(tmp_path.glob("cell*.parquet"))[2]
    cut.write_bytes(cut.read_bytes()[:-7])
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cell*.parquet")}
    del kept[cut]
    same_paths(study.run(tmp_path, key=KEY), result)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.glob("*.damaged"))) == 1


def read_folder(study, folder):
    study.run(folder, key=KEY)
    return folder.glob("cell*.parquet")


def test_status(tmp_path, folder):
    study = toy_study()
    assert study.status(folder).is_complete
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json"):
        study.status(tmp_path / "nothing")
    for path in read_folder(study, tmp_path):
        if path.name.startswith(("cell00001", "cell00003-chunk000001")):
            path.unlink()
    status = study.status(tmp_path)
    assert list(status.cells.num_paths) == [14, 0, 14, 8, 14, 14]
    assert (status.num_cells, status.num_cells_done, status.is_complete) == (6, 4, False)
    said = status.to_dict()
    assert said["num_paths_done"] == 64 and said["num_paths"] == 84 and said["seconds"] > 0
    assert json.loads(json.dumps(said)) == said
    part = study.collect(tmp_path)
    assert not part.is_complete and set(part.table().cell) == {0, 2, 3, 4, 5}
    with pytest.raises(ValueError, match=r"differ \(batch_size: 4 there, 8 now"):
        toy_study(batch_size=8).status(folder)


def test_nothing_yet(tmp_path):
    class Nowhere:
        def compute(self, job, todo):
            return iter(())

    result = toy_study().run(tmp_path, key=KEY, engine=Nowhere())
    assert not result.is_complete and len(result.table()) == 0 == len(result.failures())
    assert len(result.compare("error", "slow", "mean")) == 0 and len(result.timings()) == 0
    assert read_status(tmp_path).num_cells_done == 0


def test_summary_and_manifest(folder):
    summary = json.loads((folder / SUMMARY).read_text())
    assert summary["is_complete"] and summary["num_paths"] == 84 and len(summary["fits"]) == 16
    assert summary["facts"]["jax"] == jax.__version__ and summary["devices"] == ["1 x cpu"]
    config = json.loads((folder / "manifest.json").read_text())["config"]
    assert config["estimators"]["slow"] == {
        "class": "toy_study.Shrinkage",
        "weight": 0.05,
        "fails_above": 2.0,
    }
    assert config["metrics"] == {
        "error": "toy_study.squared_error",
        "first": "toy_study.first_mean",
    }
    assert config["grid"] == GRID and config["key"]["words"] == [0, 7]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"estimators": {"shrunken": Shrinkage(0.4)}}, "estimators differ"),
        ({"num_paths": 15}, r"num_paths differ .*14 there, 15"),
        ({"grid": GRID[:-1]}, "grid differ"),
        ({"metrics": {"error": squared_error}}, "metrics differ"),
    ],
)
def test_another_study_is_refused(folder, changes, text):
    with pytest.raises(ValueError, match=text):
        toy_study(**changes).run(folder, key=KEY)


def test_another_key_is_refused(folder):
    with pytest.raises(ValueError, match=r"key differ \(key.words\[1\]: 7 there, 8 now\)"):
        toy_study().run(folder, key=jax.random.key(8))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"grid": []}, "one of its grid"),
        ({"estimators": {}}, "one of its estimators"),
        ({"metrics": {}}, "one of its metrics"),
        ({"num_paths": 0}, "num_paths must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"grid": [{"num_times": 5}, {"num_times": 6}, {"num_times": 5}]}, "cell 2 .* first at 0"),
        ({"metrics": {"path": squared_error}}, "names of their own"),
        ({"metrics": {"missing": squared_error}}, "missing: settings and metrics"),
    ],
)
def test_impossible_studies(changes, text):
    with pytest.raises(ValueError, match=text):
        toy_study(**changes)


def test_impossible_cells_are_all_named_before_anything_is_computed(tmp_path):
    grid = [{"num_times": 1}, {"num_times": 5, "num_series": 1}, {"num_times": 5, "gaps": 0.1}]
    TRACES.clear()
    with pytest.raises(ValueError) as caught:
        toy_study(grid=grid).run(tmp_path / "store", key=KEY)
    message = str(caught.value)
    assert "cell 0 (num_times=1): num_times must be at least 2, got 1." in message
    for name in ("shrunken", "slow"):
        assert f"num_series=1), estimator {name!r}: one series cannot be shrunken" in message
    assert "no setting gaps; it has num_times, num_series, missing" in message
    assert not TRACES and not (tmp_path / "store").exists()
    many = [{"num_times": 1, "missing": i / 100} for i in range(30)]
    with pytest.raises(ValueError, match="and 20 more"):
        toy_study(grid=many).run(tmp_path / "store", key=KEY)
    with pytest.raises(ValueError, match="no estimator applies"):
        only = {"mean": PlainMean()}
        toy_study(grid=[GRID[2]], estimators=only).run(tmp_path / "store", key=KEY)


def test_memory_and_keys_are_checked_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"cell 0 .*: 4 paths side by side need .* is 1,000"):
        toy_study().run(tmp_path, key=KEY, memory_budget=1000)
    assert not list(tmp_path.glob("cell*")) and not list(tmp_path.glob(".claim*"))
    with pytest.raises(ValueError, match="one key of jax"):
        toy_study().run(tmp_path, key=jnp.zeros(2, jnp.uint32))


def test_metrics_answer_scalars(tmp_path):
    study = toy_study(metrics={"all": lambda panel, estimate: estimate.means})
    text = r"metric 'all' must answer a scalar, got shape \(3,\)"
    with pytest.raises(ValueError, match=text) as caught:
        study.run(tmp_path, key=KEY)
    assert "This was cell 0 (num_times=5, missing=0.0), chunk 0." in caught.value.__notes__


def test_grids():
    assert product_grid(a=[1, 2], b=("x",)) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert product_grid(where=lambda c: c["a"] < c["b"], a=[1, 2], b=range(3)) == [{"a": 1, "b": 2}]
    with pytest.raises(ValueError, match="a must be a list of one value or more, got 'stock'"):
        product_grid(a="stock")
    with pytest.raises(ValueError, match=r"a must be a list of one value or more, got \[\]"):
        product_grid(a=[])
    with pytest.raises(ValueError, match="no cell is left of 2"):
        product_grid(where=lambda c: False, a=[1, 2])


def test_processes_share_the_work(tmp_path, result):
    """What one has claimed is left to it; claims of the dead are taken over in the end."""
    study, computed = toy_study(), []

    class Watching(Local):
        def compute(self, job, todo):
            for cell, chunk, part in super().compute(job, todo):
                computed.append((cell, chunk))
                if len(computed) == 2:  # another process, in the middle of this one
                    other = study.run(tmp_path, key=KEY, engine=Stopping())
                    assert not other.is_complete
                yield cell, chunk, part

    class Stopping(Local):
        def compute(self, job, todo):
            for i, answer in enumerate(super().compute(job, todo)):
                others.append(answer[:2])
                yield answer
                if i == 3:
                    return

    others: list[tuple[int, int]] = []
    same_paths(study.run(tmp_path, key=KEY, engine=Watching()), result)
    assert len(others) == 4 and not set(others) & set(computed)
    assert len(computed) == 12 - 4


BESIDE = """
from toy_study import toy_study
sys.stdin.readline()
toy_study(**SIZE).run(sys.argv[1], key=jax.random.key(7))
"""


def test_two_processes_at_once(tmp_path):
    """They compute little twice, and harm nothing."""
    processes = [
        start_python(BESIDE.replace("SIZE", repr(SIZE)), tmp_path / "both", stdin=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    study = toy_study(**SIZE)
    both = study.collect(tmp_path / "both")
    same_paths(both, study.run(tmp_path / "alone", key=KEY))
    num_parts = 6 * study.num_chunks
    assert num_parts <= len(parts_in(tmp_path / "both")) <= num_parts + 10
    assert both.notes.process.nunique() == 2


KILLED = """
import os
from toy_study import toy_study

# Children of a process that has imported everything and started nothing.
for line in sys.stdin:
    child = os.fork()
    if not child:
        toy_study(**SIZE).run(line.strip(), key=jax.random.key(7))
        os._exit(0)
    print(child, flush=True)
    print("ended by", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_random_it_loses_nothing(tmp_path):
    """While it starts, compiles, computes and writes."""
    rng, folder = np.random.default_rng(0), tmp_path / "killed"
    parent = start_python(KILLED.replace("SIZE", repr(SIZE)), stdin=True)
    assert parent.stdin is not None and parent.stdout is not None
    kept: set[str] = set()
    for number in range(12):
        parent.stdin.write(f"{folder}\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        if number % 3 == 0:
            time.sleep(rng.uniform(0.0, 0.5))
        else:
            while not parts_in(folder) - kept:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert parent.stdout.readline() == "ended by -9\n"
        assert kept <= parts_in(folder)
        kept = parts_in(folder)
    parent.communicate()
    study = toy_study(**SIZE)
    assert 8 <= len(kept) < 6 * study.num_chunks
    same_paths(study.run(folder, key=KEY), study.run(tmp_path / "whole", key=KEY))
    left = [path.name for path in folder.iterdir()]
    assert not [name for name in left if name.endswith(".damaged") or name.startswith(".claim")]


def test_a_full_disk_loses_nothing(tmp_path, result):
    """On a file system of its own, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        study, folder = toy_study(), disk / "study"
        with pytest.raises(OSError, match=r"cell \d+, chunk \d+ could not be kept .*No space left"):
            study.run(folder, key=KEY)
        kept = parts_in(folder)
        assert 0 < len(kept) < 12 and not list(folder.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        same_paths(study.run(folder, key=KEY), result)
        assert kept <= parts_in(folder)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class BoundModel(eqx.Module):
    model: DynamicFactorModel

    def __call__(self, panel):
        TRACES.append("factor model")
        return self.model.estimate(panel.values, panel.observed)


class FactorEstimator(eqx.Module):
    max_steps: int = eqx.field(static=True)

    def bind(self, world):
        method = EM(max_steps=self.max_steps)
        return BoundModel(DynamicFactorModel(world.num_factors, world.num_lags, method=method))


def own_variance(panel, estimate):
    return jnp.mean(estimate.parameters.variances)


def test_factor_models_on_factor_worlds(tmp_path):
    TRACES.clear()
    study = Study(
        FactorWorld,
        {"EM": FactorEstimator(20), "few steps": FactorEstimator(3)},
        product_grid(
            num_times=[30], num_series=[5], num_factors=[1], num_lags=[1], missing=[0.0, 0.2]
        ),
        {"variance": own_variance},
        num_paths=5,
        batch_size=3,
    )
    result = study.run(tmp_path, key=KEY)
    assert TRACES == ["factor model"] * 2
    world = FactorWorld(30, 5, 1, 1, missing=0.2)
    panel = world.sample(key=jax.random.fold_in(jax.random.fold_in(KEY, 1), 4))
    fitted = FactorEstimator(20).bind(world)(panel)
    paths = result.paths
    row = paths[(paths.cell == 1) & (paths.path == 4) & (paths.estimator == "EM")].iloc[0]
    np.testing.assert_allclose(row.variance, own_variance(panel, fitted), rtol=1e-10)
    assert row.num_steps == fitted.num_steps and row.result == int(fitted.result._value)
    # Three steps do not converge: counted apart, and part of the mean.
    few = result.table().set_index(["cell", "estimator"]).loc[(0, "few steps")]
    assert (few.num_failed, few.num_stopped) == (0, 5)
    stopped = paths[(paths.estimator == "few steps") & (paths.cell == 0)]
    assert not stopped.is_okay.any() and stopped.is_usable.all()
    np.testing.assert_allclose(few.variance, stopped.variance.mean(), rtol=1e-14)
    assert (result.compare("variance", "EM", "few steps").num_pairs == 5).all()
    assert result.failures().empty and read_status(tmp_path).to_dict()["num_stopped"] >= 10


def test_progress(capsys):
    with follow("toy", 2, 10, None) as tell:
        tell(0, 10, False)
    assert capsys.readouterr().err == ""
    with follow("toy", 2, 10, True) as tell:
        tell(0, 10, True)
        tell(1, 4, False)
        tell(1, 6, False)
    assert "2/2 cells" in capsys.readouterr().err
