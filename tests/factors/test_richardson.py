"""The linear solver behind implicit derivatives, on systems with known answers."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxfc.factors.richardson import Richardson

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def contraction():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 5))
    return matrix * 0.9 / np.abs(np.linalg.eigvals(matrix)).max(), rng.normal(size=5)


def test_solves_the_system_and_its_transpose(contraction):
    matrix, vector = contraction
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix - np.eye(5)))
    for each, dense in ((operator, matrix - np.eye(5)), (operator.T, (matrix - np.eye(5)).T)):
        solution = lx.linear_solve(each, jnp.asarray(vector), Richardson(1e-13))
        np.testing.assert_allclose(solution.value, np.linalg.solve(dense, vector), atol=1e-10)


def test_leaves_free_directions_alone(contraction):
    """An eigenvalue 1 (a fixed point that is not isolated) with a consistent right-hand side."""
    matrix, vector = contraction
    wide = np.zeros((6, 6))
    wide[:5, :5], wide[5, 5] = matrix, 1.0
    operator = lx.MatrixLinearOperator(jnp.asarray(wide - np.eye(6)))
    solution = lx.linear_solve(operator, jnp.append(jnp.asarray(vector), 0.0), Richardson(1e-13))
    np.testing.assert_allclose(
        solution.value[:5], np.linalg.solve(matrix - np.eye(5), vector), atol=1e-10
    )
    assert solution.value[5] == 0.0


def test_stops_after_max_steps():
    """Without contraction the answer is a failure after a bounded number of steps, not a hang."""
    operator = lx.MatrixLinearOperator(0.1 * jnp.eye(2))
    solver = Richardson(1e-13, max_steps=7)
    solution = lx.linear_solve(operator, jnp.ones(2), solver, throw=False)
    assert int(solution.stats["num_steps"]) == 7
    assert solution.result == lx.RESULTS.max_steps_reached


def test_differentiates(contraction):
    matrix, vector = contraction

    def total(matrix):
        operator = lx.MatrixLinearOperator(matrix - jnp.eye(5))
        return jnp.sum(lx.linear_solve(operator, jnp.asarray(vector), Richardson(1e-14)).value)

    gradient = jax.grad(total)(jnp.asarray(matrix))
    inverse = np.linalg.inv(matrix - np.eye(5))
    expected = -np.outer(inverse.T @ np.ones(5), inverse @ vector)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
