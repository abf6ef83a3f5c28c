"""A store of results: killed, damaged, shared and full, it loses nothing that it said it kept."""

import os
import random
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from jaxfc.running.store import MANIFEST, ResultStore
from processes import start_python

CONFIG = {"world": {"num_series": 10}, "num_paths": 500}


def table(cell, chunk):
    rng = np.random.default_rng([cell, chunk])
    return pd.DataFrame({"path": np.arange(40), "r2": rng.random(40)})


def test_parts_come_back_as_they_were(tmp_path):
    store = ResultStore(tmp_path / "new" / "study", CONFIG, {"device": "cpu"})
    assert store.read(0, 0) is None and store.notes(0, 0) is None and store.done() == set()
    store.write(3, 7, table(3, 7), {"seconds": 1.5, "failed": 2})
    again = ResultStore(store.folder, {"num_paths": 500, "world": {"num_series": 10}})
    pd.testing.assert_frame_equal(again.read(3, 7), table(3, 7))
    assert again.notes(3, 7) == {"seconds": 1.5, "failed": 2} and again.done() == {(3, 7)}


def test_another_configuration_is_refused(tmp_path):
    ResultStore(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"another configuration: num_paths differ .*500 there, 6"):
        ResultStore(tmp_path, {**CONFIG, "num_paths": 600})
    with pytest.raises(ValueError, match=r"world differ \(world.num_series: 10 there, 35 now\)"):
        ResultStore(tmp_path, {**CONFIG, "world": {"num_series": 35}})
    with pytest.raises(ValueError, match="key, world differ"):
        ResultStore(tmp_path, {"key": 1, "num_paths": 500})


def test_folders_of_other_things_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex' and no manifest.json"):
        ResultStore(tmp_path, CONFIG)
    other = tmp_path / "other"
    other.mkdir()
    (other / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="is no manifest of a store"):
        ResultStore(other, CONFIG)


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_damage_is_seen_and_set_aside(tmp_path, damage):
    store = ResultStore(tmp_path, CONFIG)
    path = store.write(0, 1, table(0, 1))
    store.write(0, 2, table(0, 2))
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content[: {"cut": -1, "changed": None, "emptied": 0}[damage]]))
    assert store.done() == {(0, 2)} and store.read(0, 1) is None
    assert [p.suffix for p in tmp_path.glob("cell00000-chunk000001*")] == [".damaged"]
    store.write(0, 1, table(0, 1))
    pd.testing.assert_frame_equal(store.read(0, 1), table(0, 1))


def test_two_answers_for_a_part_are_one(tmp_path):
    store, other = ResultStore(tmp_path, CONFIG), ResultStore(tmp_path, CONFIG)
    first = store.write(1, 1, table(1, 1), {"seconds": 1.0})
    second = other.write(1, 1, table(1, 1), {"seconds": 2.0})
    assert first != second and store.done() == {(1, 1)}
    first.write_bytes(b"")
    pd.testing.assert_frame_equal(store.read(1, 1), table(1, 1))


def test_claims_are_seen_by_other_processes_and_end(tmp_path):
    store, other = ResultStore(tmp_path, CONFIG), ResultStore(tmp_path, CONFIG)
    assert store.claim(0, 1) and not other.claim(0, 1) and other.claim(0, 2)
    store.release(0, 1)
    store.release(0, 1)
    assert other.claim(0, 1) and store.done() == set()


def test_a_store_is_read_without_its_configuration(tmp_path):
    ResultStore(tmp_path, CONFIG).write(0, 1, table(0, 1), {"seconds": 1.0})
    before = sorted(tmp_path.iterdir())
    read = ResultStore(tmp_path)
    assert read.config == CONFIG and sorted(tmp_path.iterdir()) == before
    ((cell, chunk, rows, notes),) = read.parts()
    assert (cell, chunk, notes) == (0, 1, {"seconds": 1.0})
    pd.testing.assert_frame_equal(rows, table(0, 1))
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json"):
        ResultStore(tmp_path / "nothing")


def test_unwritable_folders_are_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        ResultStore(tmp_path / "file" / "study", CONFIG)
    if os.geteuid() == 0:
        with pytest.raises(OSError, match="no file can be written to /proc/self"):
            ResultStore("/proc/self", CONFIG)
    else:
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match="no file can be written"):
            ResultStore(tmp_path, CONFIG)


WRITER = """
from running.test_store import CONFIG, table
from jaxfc.running.store import ResultStore
store = ResultStore(sys.argv[1], CONFIG)
missing = [(c, k) for c in range(3) for k in range(60) if (c, k) not in store.done()]
print("ready", flush=True)
for cell, chunk in missing:
    store.write(cell, chunk, table(cell, chunk))
print("done", flush=True)
"""


def test_killed_at_random_it_loses_nothing(tmp_path):
    """Two processes share the folder; one of them is killed again and again while it writes."""
    rng, kept = random.Random(0), set()
    for _ in range(6):
        writer = start_python(WRITER, tmp_path)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        now = ResultStore(tmp_path, CONFIG).done()
        assert kept <= now
        kept = now
    assert not list(tmp_path.glob("*.damaged"))
    writers = [start_python(WRITER, tmp_path) for _ in range(2)]
    outputs = [writer.communicate()[0] for writer in writers]
    assert all(output.endswith("done\n") for output in outputs)
    store = ResultStore(tmp_path, CONFIG)
    assert store.done() == {(c, k) for c in range(3) for k in range(60)}
    for cell, chunk in store.done():
        pd.testing.assert_frame_equal(store.read(cell, chunk), table(cell, chunk))


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """On a file system of 512 KiB, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        store, written = ResultStore(disk / "study", CONFIG), 0
        rng = np.random.default_rng(0)
        with pytest.raises(OSError, match=r"chunk \d+ could not be kept .*No space left"):
            for chunk in range(100):
                store.write(0, chunk, pd.DataFrame({"x": rng.random(4000)}))
                written += 1
        assert written > 3 and store.done() == {(0, k) for k in range(written)}
        assert not [p for p in store.folder.iterdir() if p.name.startswith(".")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
