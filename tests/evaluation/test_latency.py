"""Latency: what is timed is the compiled call, answers included, and nothing is traced again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxfc.evaluation.latency import latency


class Line(eqx.Module):
    slope: jax.Array
    name: str = eqx.field(static=True, default="line")

    def __call__(self, x, power):
        TRACES.append(1)
        return {"y": self.slope * x**power, "name": self.name}


TRACES: list[int] = []


def test_one_trace_and_ordered_numbers():
    found = latency(Line(jnp.asarray(2.0)), jnp.ones(4), 3, num_calls=20)
    assert len(TRACES) == 1 and found.num_calls == 20
    assert 0.0 < found.best <= found.median <= found.tail
    assert found.tracing > 0.0 and found.compiling > 0.0 and "cpu" in found.device.lower()


def test_work_takes_time():
    """Four hundred products in a row take longer than none, whatever else the machine does."""

    def chain(x):
        return jax.lax.fori_loop(0, 400, lambda _, y: jnp.tanh(y @ x), x)

    matrix = jnp.eye(64)
    assert latency(chain, matrix, num_calls=5).best > 5.0 * latency(jnp.tanh, matrix).best


def test_no_call_is_refused():
    with pytest.raises(ValueError, match="num_calls must be at least 1, got 0"):
        latency(jnp.sin, jnp.ones(2), num_calls=0)
