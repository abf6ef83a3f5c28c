"""Eight devices of a process, and four processes of `jax.distributed`, give the numbers of one."""

import json

import numpy as np
import pytest

from processes import run_python, start_python, with_devices
from running.test_distributed import EXPERIMENT, free_port

pytestmark = pytest.mark.slow

ON_DEVICES = """
import hashlib, json, tempfile
import numpy as np
from reliability.fits import FACTORS, frame_of
from jaxfc.panel import Panel
from jaxfc.running import Rolling, backtest, replicate
from toy_study import toy_study

def bits(*arrays):
    content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(content).hexdigest()

key = jax.random.key(3)
panel = Panel.from_frame(frame_of(0))
origins = Rolling(window=40, num_origins=19)
done = backtest(FACTORS, panel, origins, 2, batch_size=2, progress=False)
paths = toy_study(num_paths=20, batch_size=2).run(sys.argv[1], key=key, progress=False).paths
paths = paths.sort_values(["cell", "estimator", "path"])
keys = jax.random.split(key, 37)
draws = replicate(lambda k: jax.random.normal(k, (3,)).cumsum(), keys, batch_size=2)
print(json.dumps({
    "devices": jax.device_count(),
    "num_steps": done.num_steps.tolist(),
    "backtest": [done.mean.tolist(), done.std.tolist()],
    "loglik": done.loglik.tolist(),
    "study": bits(*(paths[name] for name in ("path", "error", "first", "num_steps", "result"))),
    "replicate": bits(draws),
}))
"""


def test_eight_devices_give_the_numbers_of_one(tmp_path):
    """To the bit, but for the last digits of an EM: XLA rounds its matrix products otherwise when
    there are more devices."""
    said = [
        json.loads(run_python(ON_DEVICES, tmp_path / str(count), **with_devices(count)))
        for count in (1, 8)
    ]
    assert [each.pop("devices") for each in said] == [1, 8]
    for name, size in (("backtest", 1.0), ("loglik", 100.0)):
        one, eight = (each.pop(name) for each in said)
        np.testing.assert_allclose(eight, one, rtol=1e-12, atol=1e-13 * size)
    assert said[0] == said[1]


def test_four_processes_give_the_bits_of_one():
    address = f"localhost:{free_port()}"
    options = ["--quick", "--num-processes", 4, "--address", address, "--process-id"]
    processes = [start_python(EXPERIMENT, *options, number) for number in range(4)]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers[0][1]
    several = json.loads(answers[0][0].splitlines()[-1])
    alone = json.loads(run_python(EXPERIMENT, "--quick").splitlines()[-1])
    assert (several.pop("num_processes"), several.pop("num_devices")) == (4, 4)
    assert (alone.pop("num_processes"), alone.pop("num_devices")) == (1, 1)
    assert several == alone
