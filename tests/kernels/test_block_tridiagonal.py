"""Block-tridiagonal precision, small inverses, Lyapunov: every implementation against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from jaxfc_kernels import block_tridiagonal
from jaxfc_kernels.lyapunov import companion, stationary_cov
from jaxfc_kernels.reference.block_tridiagonal import dense_precision, posterior
from jaxfc_kernels.small_matrix import batch_matmul, matmul, spd_inverse

IMPLEMENTATIONS = ["gauss_jordan", "cholesky"]


def random_precision(num_blocks, size, seed=0):
    rng = np.random.default_rng(seed)
    diagonal = np.empty((num_blocks, size, size))
    lower = rng.normal(size=(num_blocks, size, size))
    for s in range(num_blocks):
        root = rng.normal(size=(size, size))
        diagonal[s] = root @ root.T + 5 * size * np.eye(size)
    return diagonal, lower, rng.normal(size=(num_blocks, size))


def factorise(diagonal, lower, linear, **options):
    arrays = map(jnp.asarray, (diagonal, lower, linear))
    return block_tridiagonal.factorise(*arrays, **options)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("num_blocks", "size"), [(1, 2), (5, 1), (6, 2), (5, 3), (4, 5), (3, 13)])
def test_moments_equal_dense_inverse(num_blocks, size, implementation):
    diagonal, lower, linear = random_precision(num_blocks, size)
    expected = posterior(diagonal, lower, linear)
    factorisation = jax.jit(lambda d, e, h: factorise(d, e, h, implementation=implementation))(
        diagonal, lower, linear
    )
    moments = block_tridiagonal.moments(factorisation)
    np.testing.assert_allclose(moments.means, expected.means, atol=1e-12)
    np.testing.assert_allclose(moments.covs, expected.covs, atol=1e-12)
    np.testing.assert_allclose(moments.cross_covs[1:], expected.cross_covs[1:], atol=1e-12)
    np.testing.assert_allclose(factorisation.log_det, expected.log_det, rtol=1e-12)


def test_first_lower_block_is_never_read():
    diagonal, lower, linear = random_precision(4, 2)
    answers = []
    for first in (0.0, 1e6):
        lower[0] = first
        factorisation = factorise(diagonal, lower, linear)
        answers.append(block_tridiagonal.moments(factorisation).means)
    np.testing.assert_array_equal(answers[0], answers[1])


def test_solve_reuses_the_factorisation():
    diagonal, lower, linear = random_precision(6, 3)
    factorisation = factorise(diagonal, lower, jnp.zeros_like(linear))
    dense = dense_precision(diagonal, lower)
    expected = np.linalg.solve(dense, linear.ravel()).reshape(linear.shape)
    answer = block_tridiagonal.solve(factorisation, jnp.asarray(linear))
    np.testing.assert_allclose(answer, expected, atol=1e-13)


def test_sample_is_an_affine_map_with_the_right_covariance():
    """Draws are mean + L z: feeding unit vectors recovers L, and L L' must be the covariance."""
    diagonal, lower, linear = random_precision(4, 2)
    expected = posterior(diagonal, lower, linear)
    factorisation = factorise(diagonal, lower, linear)
    units = jnp.eye(8).reshape(4, 2, 8)
    draws = jnp.moveaxis(block_tridiagonal.sample_many(factorisation, units), -1, 0)
    root = (draws - expected.means).reshape(8, 8).T
    np.testing.assert_allclose(root @ root.T, expected.dense_cov, atol=1e-13)
    one = block_tridiagonal.sample(factorisation, units[..., 3])
    np.testing.assert_allclose(one, draws[3], atol=1e-15)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_small_inverse(size, implementation):
    rng = np.random.default_rng(size)
    roots = rng.normal(size=(6, size, size))
    matrices = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(size)
    inverses, pivots = spd_inverse(jnp.asarray(matrices), implementation)
    np.testing.assert_allclose(
        inverses @ matrices, np.broadcast_to(np.eye(size), roots.shape), atol=1e-9
    )
    np.testing.assert_allclose(np.prod(pivots, axis=1), np.linalg.det(matrices), rtol=1e-9)


def test_unknown_small_inverse():
    with pytest.raises(ValueError, match="unknown implementation 'qr'"):
        spd_inverse(jnp.eye(2), "qr")


def test_matmul_below_and_above_the_unrolled_size():
    rng = np.random.default_rng(0)
    for size in (3, 20):
        a, b = rng.normal(size=(2, size, size))
        for product in (matmul, batch_matmul):
            np.testing.assert_allclose(product(jnp.asarray(a), jnp.asarray(b)), a @ b, atol=1e-12)


@pytest.mark.parametrize("radius", [0.5, 0.99, 0.9999])
def test_stationary_cov(radius):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4))
    matrix *= radius / np.abs(np.linalg.eigvals(matrix)).max()
    noise = np.eye(4) + 0.3
    expected = solve_discrete_lyapunov(matrix, noise)
    answer = stationary_cov(jnp.asarray(matrix), jnp.asarray(noise))
    np.testing.assert_allclose(answer, expected, rtol=1e-8)


@pytest.mark.parametrize("radius", [1.0, 1.2])
def test_stationary_cov_of_an_unstable_system_is_nan(radius):
    assert np.all(np.isnan(stationary_cov(radius * jnp.eye(2), jnp.eye(2))))


def test_derivative_of_stationary_cov():
    rng = np.random.default_rng(0)
    matrix, direction = 0.3 * rng.normal(size=(2, 3, 3))
    noise = np.eye(3) + 0.1
    weights = rng.normal(size=(3, 3))

    @jax.jit
    def total(matrix, noise):
        return jnp.sum(weights * stationary_cov(matrix, noise))

    gradient = jax.grad(total)(matrix, noise)
    step = 1e-6
    difference = total(matrix + step * direction, noise) - total(matrix - step * direction, noise)
    np.testing.assert_allclose(jnp.sum(gradient * direction), difference / (2 * step), rtol=1e-6)


def test_companion_moves_a_path():
    rng = np.random.default_rng(0)
    transition = rng.normal(size=(2, 2, 2))
    newest, older = rng.normal(size=(2, 2))
    moved = companion(jnp.asarray(transition)) @ np.concatenate([newest, older])
    np.testing.assert_allclose(moved[:2], transition[0] @ newest + transition[1] @ older)
    np.testing.assert_allclose(moved[2:], newest)
