"""The batch of `experiments.distributed_batch` over two processes: the bits of one."""

import json
import socket

import pytest

from processes import run_python, start_python

pytestmark = pytest.mark.slow

EXPERIMENT = """
import runpy
runpy.run_module("experiments.distributed_batch", run_name="__main__")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_two_processes_give_the_bits_of_one():
    address = f"localhost:{free_port()}"
    options = ["--quick", "--num-processes", 2, "--address", address, "--process-id"]
    processes = [start_python(EXPERIMENT, *options, number) for number in range(2)]
    (printed, errors), (other, _) = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    several = json.loads(printed.splitlines()[-1])
    alone = json.loads(run_python(EXPERIMENT, "--quick").splitlines()[-1])
    assert (several.pop("num_processes"), several.pop("num_devices")) == (2, 2)
    assert (alone.pop("num_processes"), alone.pop("num_devices")) == (1, 1)
    assert several == alone and alone["num_paths"] == 32
    assert "{" not in other  # process 0 speaks for all
