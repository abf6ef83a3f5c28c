"""Several batched factorisations of LAPACK at once: they need more threads than there are cores."""

import os
import subprocess
import sys

import pytest

MANY = """
import jax
import jax.numpy as jnp

def factorise(matrices):
    squares = [a @ a.swapaxes(1, 2) + 50 * jnp.eye(a.shape[-1]) for a in matrices]
    chols = [jnp.linalg.cholesky(square) for square in squares]
    return [jnp.linalg.qr(a)[0].sum() for a in matrices] + [chol.sum() for chol in chols]

shapes = [(200, 30 + i, 30 + i) for i in range(6)]
matrices = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
run = jax.jit(factorise)
for _ in range(100):
    jax.block_until_ready(run(matrices))
print("done")
"""


@pytest.mark.slow
def test_twelve_factorisations_at_once_end():
    """With NPROC=16 as the command line sets it; with few they stop on two cores."""
    words = {**os.environ, "NPROC": "16", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", MANY]
    done = subprocess.run(command, env=words, capture_output=True, text=True, timeout=300)
    assert done.stdout == "done\n", done.stderr
