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
    alone if b has no part along them; what rounding puts there adds a constant to every change.
    Stops when the largest change is below `tolerance` times the largest entry of b, or has not
    become smaller for `patience` steps, or after `max_steps`. Unless the change is then below the
    square root of `tolerance`, that is a failure, which lineax raises: an iteration that has not
    converged, or hardly contracts, has no derivative here.
    """

    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True, default=100_000)
    patience: int = eqx.field(static=True, default=500)

    def init(
        self, operator: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> lx.AbstractLinearOperator:
        return operator

    def compute(
        self, state: lx.AbstractLinearOperator, vector: PyTree, options: dict[str, Any]
    ) -> tuple[PyTree, lx.RESULTS, dict[str, Any]]:
        size = largest(vector)

        def unfinished(carry):
            step, since_best, best, _ = carry
            improving = since_best < self.patience
            return (step < self.max_steps) & improving & (best > self.tolerance * size)

        def advance(carry):
            step, since_best, best, x = carry
            residual = jax.tree.map(jnp.subtract, state.mv(x), vector)
            change = largest(residual)
            since_best = jnp.where(change < best, 0, since_best + 1)
            x = jax.tree.map(jnp.add, x, residual)
            return step + 1, since_best, jnp.minimum(change, best), x

        zeros = jax.tree.map(jnp.zeros_like, vector)
        start = (jnp.asarray(0), jnp.asarray(0), jnp.full_like(size, jnp.inf), zeros)
        steps, _, best, solution = jax.lax.while_loop(unfinished, advance, start)
        ended, bounded = lx.RESULTS.successful, lx.RESULTS.max_steps_reached
        result = lx.RESULTS.where(best <= self.tolerance**0.5 * size, ended, bounded)
        return solution, result, {"num_steps": steps}

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
