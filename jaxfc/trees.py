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
