"""Linear solver for the derivative of a contraction's fixed point: the contraction, linearised."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from jaxfc.typing import Array, PyTree


class Richardson(lx.AbstractLinearSolver[lx.AbstractLinearOperator]):
    """Solves (J - I) x = b by x <- x + ((J - I) x - b), that is x <- J x - b.

    Converges as fast as the fixed-point iteration whose Jacobian J is, for any number of unknowns,
    in matrix-free products. Directions with J v = v (a fixed point that is not isolated) are left
    alone if b has no part along them. Stops when the largest change is below `tolerance` times the
    largest entry of b, or after `max_steps`.
    """

    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True, default=20_000)

    def init(
        self, operator: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> lx.AbstractLinearOperator:
        return operator

    def compute(
        self, state: lx.AbstractLinearOperator, vector: PyTree, options: dict[str, Any]
    ) -> tuple[PyTree, lx.RESULTS, dict[str, Any]]:
        bound = self.tolerance * largest(vector)

        def unfinished(carry):
            step, change, _ = carry
            return (step < self.max_steps) & (change > bound)

        def advance(carry):
            step, _, x = carry
            residual = jax.tree.map(jnp.subtract, state.mv(x), vector)
            return step + 1, largest(residual), jax.tree.map(jnp.add, x, residual)

        zeros = jax.tree.map(jnp.zeros_like, vector)
        start = (jnp.asarray(0), jnp.full_like(bound, jnp.inf), zeros)
        steps, _, solution = jax.lax.while_loop(unfinished, advance, start)
        return solution, lx.RESULTS.successful, {"num_steps": steps}

    def transpose(
        self, state: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        return state.T, options

    def conj(
        self, state: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        return lx.conj(state), options

    def assume_full_rank(self) -> bool:
        return True


def largest(tree: PyTree) -> Array:
    """Largest absolute entry of a tree of arrays."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
