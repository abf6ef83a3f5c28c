"""How long a compiled function takes from call to answer (host side)."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxfc.counts import check_counts
from jaxfc.typing import PyTree

# Calls before any is counted: the first ones allocate buffers and fill caches.
WARM_UP = 10


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds of one call: the median, the 99th percentile, the best; apart from them the seconds
    of tracing and of compiling, once. `num_calls` were timed, on `device`."""

    median: float
    tail: float
    best: float
    tracing: float
    compiling: float
    num_calls: int
    device: str


def latency(function: Callable[..., PyTree], *arguments: PyTree, num_calls: int = 200) -> Latency:
    """Times calls of `function`, compiled once for these arguments, until each answer is there.

    What is timed is one call from Python with arguments that lie on the device already: dispatch
    and program, not the transfer of data. Arrays in `function` (an `equinox` module) and in the
    arguments are inputs of the program. A persistent compilation cache makes `compiling` the time
    of a look-up. A batch: pass a `vmap` of the function, and divide.

    **Raises:** `ValueError` for fewer than 1 call.
    """
    check_counts(num_calls=num_calls)
    arrays, static = eqx.partition((function, arguments), eqx.is_array_like)
    arrays = jax.device_put(arrays)

    def run(arrays: PyTree) -> PyTree:
        call, given = eqx.combine(arrays, static)
        return eqx.filter(call(*given), eqx.is_array)

    start = time.perf_counter()
    lowered = jax.jit(run).lower(arrays)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    seconds = timed(compiled, arrays, WARM_UP + num_calls)[WARM_UP:]
    return Latency(
        median=float(np.median(seconds)),
        tail=float(np.quantile(seconds, 0.99)),
        best=float(seconds.min()),
        tracing=traced - start,
        compiling=ready - traced,
        num_calls=num_calls,
        device=str(jax.devices()[0]),
    )


def timed(run: Callable[[Any], Any], arrays: PyTree, num_calls: int) -> np.ndarray:
    """Seconds of each of so many calls."""
    stamps = np.zeros(num_calls)
    for i in range(num_calls):
        start = time.perf_counter()
        jax.block_until_ready(run(arrays))
        stamps[i] = time.perf_counter() - start
    return stamps
