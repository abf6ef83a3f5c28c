"""BLAS has one thread while a batch runs, and as many as before afterwards."""

import jax.numpy as jnp
import pytest
from threadpoolctl import threadpool_info

from jaxfc.running.threads import controller, with_one_blas_thread


def num_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_one_thread_within_and_all_after():
    seen = []

    def run(x):
        seen.append(num_threads())
        return x + 1

    with controller().limit(limits=2, user_api="blas"):
        before = num_threads()
        assert before and set(before) == {2}
        assert float(with_one_blas_thread(run)(jnp.asarray(1.0))) == 2.0
        assert num_threads() == before
        with pytest.raises(ZeroDivisionError):
            with_one_blas_thread(lambda: 1 // 0)()
        assert num_threads() == before
    assert set(seen[0]) == {1}
