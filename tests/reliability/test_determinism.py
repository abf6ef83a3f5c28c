"""The same data and key give the same bits, in one process and in another; single precision gives
the same numbers to its digits."""

import json

import numpy as np
import pytest

from processes import run_python
from reliability.fits import checksum, numbers

# Models are made in the precision that is set when their module is imported.
PROGRAM = """
jax.config.update("jax_enable_x64", sys.argv[1] == "64")
from reliability.fits import main
main()
"""


def test_a_second_time_gives_the_same_bits():
    first = numbers(0, whole=False)
    assert checksum(numbers(0, whole=False)) == checksum(first)
    assert checksum(numbers(1, whole=False)) != checksum(first)


def program(bits: int, **environment: str) -> dict:
    return json.loads(run_python(PROGRAM, bits, 0, **environment).splitlines()[-1])


@pytest.mark.slow
def test_other_processes_give_the_same_bits_and_single_precision_the_same_numbers():
    """Whatever the order of sets, the number of threads and the cache of compiled programs."""
    ours = program(64, PYTHONHASHSEED="1")
    other = program(64, PYTHONHASHSEED="2", NPROC="17", JAX_ENABLE_COMPILATION_CACHE="false")
    assert ours["checksum"] == other["checksum"] and ours["dtypes"] == ["float64"]
    single = program(32)
    assert single["dtypes"] == ["float32"]
    for name, values in ours["values"].items():
        if "draws" in name:  # another precision draws other numbers
            continue
        scale = np.abs(values).max()
        np.testing.assert_allclose(
            single["values"][name], values, rtol=2e-5, atol=2e-5 * scale, err_msg=name
        )
