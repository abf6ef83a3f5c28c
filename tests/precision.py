"""Float32 for a while, in a test run that is in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def single_precision() -> Iterator[None]:
    """JAX in float32; `jax.enable_x64(False)` for versions before it was public."""
    jax.config.update("jax_enable_x64", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", True)
