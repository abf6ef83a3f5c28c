"""One function over many cases equals the loop, within memory and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.running.replicate import (
    compile_chunk,
    fitting_program,
    replicate,
    replicate_in_chunks,
)
from processes import run_python, with_devices

KEYS = jax.random.split(jax.random.key(0), 11)
TRACES: list[int] = []


def newton(key):
    """A loop whose length depends on the case, and arrays of several shapes."""
    TRACES.append(1)
    wanted = 1.0 + jax.random.uniform(key)

    def go_on(state):
        return jnp.abs(state[0] ** 2 - wanted) > 1e-12

    def step(state):
        return 0.5 * (state[0] + wanted / state[0]), state[1] + 1

    root, steps = jax.lax.while_loop(go_on, step, (wanted, 0))
    return {"root": root, "steps": steps, "draws": jax.random.normal(key, (3,))}


def by_hand():
    answers = [newton(key) for key in KEYS]
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def check(answers, expected):
    assert set(answers) == set(expected)
    for name, values in answers.items():
        assert isinstance(values, np.ndarray)
        np.testing.assert_allclose(values, expected[name], rtol=1e-14)


@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"batch_size": 1}, {"batch_size": 99}])
def test_it_equals_the_loop(options):
    check(replicate(newton, KEYS, **options), by_hand())


def test_one_by_one_when_asked():
    TRACES.clear()
    check(replicate(newton, KEYS, sequential=True), by_hand())
    assert len(TRACES) == 1 + len(KEYS)  # one compiled function, and the loop by hand


def test_chunks_share_one_program_and_come_when_asked():
    TRACES.clear()
    chunks = replicate_in_chunks(newton, KEYS, batch_size=3)
    assert not TRACES
    rows = [(at.start, at.stop, len(answer["root"])) for at, answer in chunks]
    assert rows == [(0, 3, 3), (3, 6, 3), (6, 9, 3), (9, 11, 2)]
    assert len(TRACES) == 1


def test_bits_depend_on_the_batch_size_alone():
    """Whatever other cases there are."""
    few = replicate(newton, KEYS[2:7], batch_size=4)
    many = replicate(newton, KEYS, batch_size=4)
    for name, values in few.items():
        np.testing.assert_array_equal(values, many[name][2:7])


def test_memory_budget_sets_the_size():
    def wide(key):
        return jnp.sort(jax.random.normal(key, (64, 64)), axis=0)

    device = (jax.devices()[0],)
    one, all_at_once = (compile_chunk(wide, KEYS, size, device).num_bytes for size in (1, 11))
    assert one is not None and all_at_once is not None and all_at_once > 5 * one > 64 * 64 * 8
    budget = all_at_once // 2
    program = fitting_program(wide, KEYS, None, budget, device)
    assert 2 <= program.size < 11 and program.num_bytes <= budget
    within = replicate(wide, KEYS, memory_budget=budget)
    np.testing.assert_allclose(within, replicate(wide, KEYS), rtol=1e-12)
    with pytest.raises(ValueError, match=r"a single case needs .* bytes on a device, the"):
        replicate(wide, KEYS, memory_budget=1000)


def test_what_cases_share_is_an_argument():
    """Another value of it is no other program."""
    TRACES.clear()

    def shifted(key, shift, scale):
        return newton(key)["root"] * scale["of"] + shift

    device = (jax.devices()[0],)
    shared = (jnp.arange(3.0), {"of": jnp.asarray(2.0)})
    program = compile_chunk(shifted, KEYS, 11, device, shared)
    assert program.answers.shape == (11, 3)
    for factor in (1.0, 3.0):
        own = jax.device_put((shared[0], {"of": jnp.asarray(factor)}), program.everywhere)
        answer = program.run(jax.device_put(KEYS, program.sharding), *own)
        expected = by_hand()["root"][:, None] * factor + np.arange(3.0)
        np.testing.assert_allclose(answer, expected, rtol=1e-14)
    assert len(TRACES) == 1 + 2 * len(KEYS)


def test_refusals():
    with pytest.raises(ValueError, match="leading axis of length 1 or more"):
        replicate(newton, KEYS[:0])
    with pytest.raises(ValueError, match=r"got lengths \[3, 4\]"):
        replicate(lambda case: case[0], (jnp.zeros(3), jnp.zeros(4)))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        replicate(newton, KEYS, batch_size=0)


ON_DEVICES = """
import numpy as np
from running.test_replicate import KEYS, newton
from jaxfc.running.replicate import replicate
assert len(jax.devices()) == int(sys.argv[1])
answer = replicate(newton, KEYS, batch_size=2)
print(" ".join(value.tobytes().hex() for _, value in sorted(answer.items())))
"""


def test_devices_change_no_bit():
    printed = [run_python(ON_DEVICES, count, **with_devices(count)) for count in (1, 4)]
    assert printed[0] == printed[1] and len(printed[0]) > 500
