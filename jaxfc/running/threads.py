"""One thread for every factorisation of a batch.

On a CPU, JAX hands factorisations to the BLAS library that scipy brings. It may spread each of the
small ones of a batch over all cores, whose threads then wait for each other, while the batch keeps
the cores busy by itself: an EM step of 32 panels with 35 series and correlated errors took 2.6 ms
with one thread and 110 to 180 ms with two (two cores). One thread also makes the bits independent
of the number of cores.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from threadpoolctl import ThreadpoolController


@functools.cache
def controller() -> ThreadpoolController:
    """The process's thread pools, looked for once: that takes a millisecond, a limit does not."""
    # The BLAS library that JAX calls is loaded with it; on first use, as it takes 0.2 s.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()


def with_one_blas_thread(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, finished on return, during which the process's BLAS has one thread."""

    def limited(*arguments: Any) -> Any:
        with controller().limit(limits=1, user_api="blas"):
            return jax.block_until_ready(run(*arguments))

    return limited
