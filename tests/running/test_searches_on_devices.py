"""Searches by optimistix and lineax, spread over devices, give what one device gives."""

import numpy as np
import pytest

from processes import run_python, with_devices

SEARCH = """
import jax.numpy as jnp
import numpy as np
from jaxfc.running.replicate import replicate
from jaxfc.volatility.search import minimise

def fitted(key):
    data = jax.random.normal(key, (20,)) + 2.0
    losses = lambda free, data: jnp.logaddexp(0.0, data * free[0] + free[1]) - 0.3 * data * free[0]
    found = minimise(losses, jnp.zeros((1, 2)).at[0, 1].set(-1.0), data, jnp.asarray(1e-6), 20)
    return found.parameters, found.num_steps, data

keys = jax.random.split(jax.random.key(0), 5)
devices = jax.local_devices()
assert len(devices) == 2
spread = replicate(fitted, keys, batch_size=2)
alone = replicate(fitted, keys, batch_size=2, devices=devices[:1])
assert all(np.array_equal(a, b) for a, b in zip(spread, alone)), (spread, alone)
assert spread[1].min() > 1 and len(set(spread[0][:, 0])) == 5
print("same")
"""

BACKTEST = """
import numpy as np
import pandas as pd
from jaxfc.panel import Panel
from jaxfc.running import Rolling, backtest
from jaxfc.volatility import GARCH, VarianceModel, ZeroMean

rng = np.random.default_rng(0)
scale = np.where(np.arange(70) // 10 % 2 == 0, 1.0, 2.0)[:, None]
index = pd.date_range("2000-01-07", periods=70, freq="W-FRI")
panel = Panel.from_frame(pd.DataFrame(scale * rng.normal(size=(70, 2)), index, ["a", "b"]))
model = VarianceModel(GARCH(1, 0), mean=ZeroMean())
done = backtest(model, panel, Rolling(window=60, num_origins=4), 2, batch_size=2, progress=False)
assert done.okay.all()
print(*np.ravel(done.std).tolist())
"""


def test_a_search_is_that_of_one_device():
    assert run_python(SEARCH, **with_devices(2)).endswith("same\n")


@pytest.mark.slow
def test_variances_are_those_of_one_device():
    """To the last digits, which XLA rounds otherwise when there are more devices."""
    printed = [run_python(BACKTEST, **with_devices(count)).split() for count in (1, 2)]
    one, two = (np.array(words, float) for words in printed)
    assert one.shape == (16,)
    np.testing.assert_allclose(two, one, rtol=1e-12)
