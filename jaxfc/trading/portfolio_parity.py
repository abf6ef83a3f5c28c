"""Long positions whose contributions to the variance are in proportion to budgets.

With C the correlations and positions y in units of standard deviations they minimise

    f(y) = y' C y / 2 - sum_i b_i ln y_i,    so that    y_i (C y)_i = b_i,    sum b = 1

(Spinu 2013), which is strictly convex: Newton's method, the step shortened to stay positive and
halved until f has fallen enough (Armijo).
"""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trading.portfolio_interior import MOST_HALVINGS, TO_THE_BORDER, Solution, longest
from jaxfc.typing import Array, Float, Int


class Parity(eqx.Module):
    """The problem: correlations and budgets that sum to 1."""

    corr: Float[Array, "series series"]
    budgets: Float[Array, " series"]

    def value(self, positions: Float[Array, " series"]) -> Float[Array, ""]:
        return 0.5 * positions @ self.corr @ positions - self.budgets @ jnp.log(positions)

    def gradient(self, positions: Float[Array, " series"]) -> Float[Array, " series"]:
        return self.corr @ positions - self.budgets / positions

    def newton(self, positions: Float[Array, " series"], gradient: Array) -> Array:
        """Newton's step for a gradient, the matrix held fixed."""
        matrix = self.corr + jnp.diag(self.budgets / positions**2)
        factor = cho_factor(jax.lax.stop_gradient(matrix), lower=True)
        return -cho_solve(factor, gradient)

    def is_converged(self, positions: Float[Array, " series"]) -> Array:
        """Whether all contributions are those of the budgets, relative to them."""
        missed = jnp.abs(positions * self.gradient(positions)) / self.budgets
        return jnp.max(missed) <= jnp.finfo(positions.dtype).eps ** 0.6


def equal_contributions(
    cov: Float[Array, "series series"], budgets: Float[Array, " series"], max_steps: int
) -> Solution:
    """Positive positions with w_i (cov w)_i = b_i, of unit variance."""
    std = jnp.sqrt(jnp.diag(cov))
    problem = Parity(cov / jnp.outer(std, std), budgets / jnp.sum(budgets))
    held = jax.lax.stop_gradient(problem)
    positions, num_steps = search(held, max_steps)
    positions = jax.lax.stop_gradient(positions)
    # The derivative of a step with Newton's matrix held is that of the solution.
    step = held.newton(positions, problem.gradient(positions))
    weights = (positions + step - jax.lax.stop_gradient(step)) / std
    unfinished = cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
    result = select(held.is_converged(positions), SUCCESSFUL, unfinished)
    lost = cast(RESULTS, RESULTS.nonlinear_divergence)
    return Solution(weights, num_steps, select(jnp.all(jnp.isfinite(weights)), result, lost))


def search(problem: Parity, max_steps: int) -> tuple[Float[Array, " series"], Int[Array, ""]]:
    """Newton steps until convergence, at most `max_steps`, and their number."""
    start = jnp.sqrt(problem.budgets)
    start = start / jnp.sqrt(start @ problem.corr @ start)

    def unfinished(carry):
        positions, num_steps = carry
        running = ~problem.is_converged(positions) & jnp.all(jnp.isfinite(positions))
        return running & (num_steps < max_steps)

    def advance(carry):
        positions, num_steps = carry
        gradient = problem.gradient(positions)
        step = problem.newton(positions, gradient)
        before, slope = problem.value(positions), gradient @ step
        rounding = 10.0 * jnp.finfo(before.dtype).eps * jnp.abs(before)

        def too_long(trial):
            length, halvings = trial
            allowed = before + 0.01 * length * slope + rounding
            return ~(problem.value(positions + length * step) <= allowed) & (
                halvings < MOST_HALVINGS
            )

        length = jnp.minimum(1.0, TO_THE_BORDER * longest(positions, step))
        length, _ = jax.lax.while_loop(
            too_long, lambda trial: (0.5 * trial[0], trial[1] + 1), (length, jnp.asarray(0))
        )
        return positions + length * step, num_steps + 1

    return jax.lax.while_loop(unfinished, advance, (start, jnp.asarray(0)))
