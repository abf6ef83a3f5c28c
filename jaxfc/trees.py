"""What is asked of all arrays of a tree at once."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, PyTree


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no number of a tree is NaN or infinite; leaves that are no floats do not count."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.all(jnp.asarray([True, *(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)]))


def chosen(condition: Bool[Array, "*batch"], if_true: PyTree, if_false: PyTree) -> PyTree:
    """One tree or the other, member by member along the leading axes that `condition` has."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(pick, if_true, if_false)


def in_precision_of_jax(tree: PyTree) -> PyTree:
    """The floats of a tree in the precision that JAX is set to now.

    A model made before `jax_enable_x64` was switched on holds its options in float32, and a loop
    may refuse to mix them with data in float64. Their digits remain those of float32.
    """
    dtype = jnp.result_type(float)
    of_jax = (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64))  # half precision is meant

    def cast(leaf: PyTree) -> PyTree:
        other = isinstance(leaf, jax.Array) and leaf.dtype in of_jax and leaf.dtype != dtype
        return leaf.astype(dtype) if other else leaf

    return jax.tree.map(cast, tree)
