"""The vocabulary of array annotations.

Axis words, used in every annotation and docstring: ``time series factors states lags horizon draws
origins paths levels bottom``. Time is the first axis of data; ``origins``, ``paths`` and ``draws``
lead it.
"""

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "PyTree", "UInt", "as_scalar"]


def as_scalar(value: float | Array) -> Float[Array, ""]:
    """A float option as an array, so that another value of it does not recompile a program."""
    import jax.numpy as jnp

    return jnp.asarray(value, dtype=jnp.result_type(float))
