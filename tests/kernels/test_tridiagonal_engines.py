"""Engines of the block-tridiagonal posterior: every one against dense algebra and one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc_kernels import block_tridiagonal, odd_even, prefix_scan
from jaxfc_kernels.reference.block_tridiagonal import DensePosterior
from jaxfc_kernels.reference.block_tridiagonal import posterior as dense_posterior
from jaxfc_kernels.tridiagonal_engines import ENGINES, posterior
from jaxfc_kernels.var_precision import path_precision

pytestmark = pytest.mark.slow

# (blocks, size of a block): one, two, three, odd numbers, powers of two and their neighbours; 13 is
# above the size up to which small matrices are unrolled.
SHAPES = [(1, 2), (2, 1), (3, 2), (5, 3), (7, 1), (8, 2), (9, 2), (16, 1), (33, 1), (6, 13)]


def loose_blocks(num_blocks, size, seed=0):
    """Diagonally dominant blocks."""
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=(num_blocks, size, size))
    roots = rng.normal(size=(num_blocks, size, size))
    diagonal = roots @ roots.swapaxes(1, 2) + 5 * size * np.eye(size)
    return diagonal, lower, rng.normal(size=(num_blocks, size))


def persistent_path(num_blocks, size, seed=0, root=0.98):
    """The posterior of a persistent VAR(1) of which every third period is seen."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    transition = (basis @ np.diag(np.linspace(0.5, root, size)) @ basis.T)[None]
    prior = path_precision(
        jnp.asarray(transition),
        jnp.asarray(0.1 * np.eye(size) + 0.02),
        jnp.ones(size),
        2.0 * jnp.eye(size),
        num_blocks,
    )
    seen = (np.arange(num_blocks) % 3 == 0)[:, None, None]
    design = rng.normal(size=(num_blocks, size, size))
    diagonal = np.asarray(prior.diagonal) + seen * (design @ design.swapaxes(1, 2))
    linear = seen[:, 0] * rng.normal(size=(num_blocks, size))
    linear[0] += prior.linear
    return diagonal, np.array(prior.lower), linear


BLOCKS = {"loose": loose_blocks, "persistent": persistent_path}


compiled = jax.jit(posterior, static_argnames=("engine", "implementation"))


def solved(blocks, engine, implementation=None):
    """Moments and log-determinant."""
    arrays = map(jnp.asarray, blocks)
    return compiled(*arrays, engine=engine, implementation=implementation)


def largest_error(moments, log_det, expected: DensePosterior):
    """In units of posterior standard deviations; the log-determinant relative to its size."""
    std = np.sqrt(np.einsum("sii->si", expected.covs))
    own, cross = std[:, :, None] * std[:, None], std[1:, :, None] * std[:-1, None]
    errors = [
        np.abs(moments.means - expected.means) / std,
        np.abs(moments.covs - expected.covs) / own,
        np.abs(moments.cross_covs[1:] - expected.cross_covs[1:]) / cross,
        np.abs(log_det - expected.log_det) / max(1.0, abs(expected.log_det)),
    ]
    return max(np.max(error, initial=0.0) for error in errors)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_engine_equals_the_dense_reference(shape, kind, engine):
    blocks = BLOCKS[kind](*shape)
    moments, log_det = solved(blocks, engine)
    assert largest_error(moments, log_det, dense_posterior(*blocks)) < 1e-11
    np.testing.assert_array_equal(moments.covs, np.swapaxes(moments.covs, 1, 2))
    np.testing.assert_array_equal(moments.cross_covs[0], 0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_library_pivots(engine):
    blocks = persistent_path(11, 3)
    moments, log_det = solved(blocks, engine, "cholesky")
    assert largest_error(moments, log_det, dense_posterior(*blocks)) < 1e-11


@functools.partial(jax.jit, static_argnames="sequential_blocks")
def reduced(blocks, sequential_blocks):
    return odd_even.factorise(*map(jnp.asarray, blocks), sequential_blocks=sequential_blocks)


@pytest.mark.parametrize("sequential_blocks", [1, 2, 5, 11, 40])
def test_where_the_reduction_stops_does_not_matter(sequential_blocks):
    blocks = persistent_path(11, 2)
    reduction = reduced(blocks, sequential_blocks)
    left = reduction.remainder.reduced.shape[0]
    assert left <= sequential_blocks
    assert len(reduction.levels) == np.ceil(np.log2(11 / left))
    moments = jax.jit(odd_even.moments)(reduction)
    assert largest_error(moments, reduction.log_det, dense_posterior(*blocks)) < 1e-11


def test_a_reduction_leaves_a_block():
    with pytest.raises(ValueError, match="sequential_blocks must be at least 1, got 0"):
        odd_even.factorise(*map(jnp.asarray, loose_blocks(3, 1)), sequential_blocks=0)


def loop_lengths(jaxpr):
    """Number of steps of every loop in a program (NaN where it is not known)."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            found.append(np.nan)
        elif equation.primitive.name == "scan":
            found.append(equation.params["length"])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found.extend(loop_lengths(inner))
    return found


@pytest.mark.parametrize(
    ("engine", "steps"),
    [
        ("sequential", [64] * 3),
        ("odd_even", [odd_even.SEQUENTIAL_BLOCKS] * 3),
        ("prefix_scan", []),
    ],
)
def test_steps_that_follow_one_another(engine, steps):
    """Only the sequential engine has loops as long as the path."""
    program = jax.make_jaxpr(lambda *blocks: posterior(*blocks, engine=engine))
    assert loop_lengths(program(*map(jnp.asarray, loose_blocks(64, 2))).jaxpr) == steps


@pytest.mark.parametrize("engine", ENGINES)
def test_first_lower_block_is_never_read(engine):
    diagonal, lower, linear = loose_blocks(11, 2)
    answer = solved((diagonal, lower, linear), engine)
    lower[0] = 1e6
    again = solved((diagonal, lower, linear), engine)
    for first, second in zip(jax.tree.leaves(answer), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("engine", ["odd_even", "prefix_scan"])
def test_gradients_equal_those_of_the_sequential_engine(engine):
    blocks = tuple(map(jnp.asarray, persistent_path(13, 2)))
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=b.shape) for b in (blocks[2], blocks[0], blocks[1])]

    def total(blocks, engine):
        diagonal, lower, linear = blocks
        # Only along symmetric matrices do the engines have to agree.
        diagonal = 0.5 * (diagonal + jnp.swapaxes(diagonal, 1, 2))
        moments, log_det = posterior(diagonal, lower, linear, engine=engine)
        sums = (jnp.sum(w * m) for w, m in zip(weights, moments, strict=True))
        return log_det + sum(sums)

    gradients = {e: jax.jit(jax.grad(lambda b, e=e: total(b, e)))(blocks) for e in ENGINES}
    for own, expected in zip(gradients[engine], gradients["sequential"], strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["odd_even", "prefix_scan"])
def test_gradient_of_the_log_determinant_is_the_covariance(engine):
    """d log det H / d D_s = V_s and d log det H / d E_s = 2 V_{s,s-1}."""
    blocks = tuple(map(jnp.asarray, persistent_path(7, 2)))
    expected = dense_posterior(*map(np.asarray, blocks))

    def log_det(diagonal, lower):
        return posterior(diagonal, lower, blocks[2], engine=engine)[1]

    by_diagonal, by_lower = jax.jit(jax.grad(log_det, (0, 1)))(*blocks[:2])
    # Entries (i, j) and (j, i) of a diagonal block are the same number.
    symmetric = 0.5 * (by_diagonal + jnp.swapaxes(by_diagonal, 1, 2))
    np.testing.assert_allclose(symmetric, expected.covs, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(by_lower, 2.0 * expected.cross_covs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_equals_loop(engine):
    members = [persistent_path(9, 2, seed) for seed in range(3)]
    stacked = [jnp.asarray(np.stack(arrays)) for arrays in zip(*members, strict=True)]
    batch, log_dets = jax.jit(jax.vmap(lambda *b: posterior(*b, engine=engine)))(*stacked)
    for i, blocks in enumerate(members):
        moments = block_tridiagonal.Moments(*(array[i] for array in batch))
        assert largest_error(moments, log_dets[i], dense_posterior(*blocks)) < 1e-11


@pytest.mark.parametrize("num_blocks", [3, 8, 13])
def test_solve_reuses_the_reduction(num_blocks):
    diagonal, lower, linear = persistent_path(num_blocks, 2)
    expected = dense_posterior(diagonal, lower, linear)
    reduction = reduced((diagonal, lower, np.zeros_like(linear)), 2)
    answer = jax.jit(odd_even.solve)(reduction, jnp.asarray(linear))
    np.testing.assert_allclose(answer, expected.means, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("num_blocks", [4, 7])
def test_draws_are_an_affine_map_with_the_right_covariance(num_blocks):
    """Draws are mean + L z: feeding unit vectors recovers L, and L L' must be the covariance."""
    blocks = persistent_path(num_blocks, 2)
    expected = dense_posterior(*blocks)
    reduction = reduced(blocks, 1)
    size = 2 * num_blocks
    units = jnp.eye(size).reshape(size, num_blocks, 2)
    draws = jax.jit(jax.vmap(odd_even.sample, in_axes=(None, 0)))(reduction, units)
    root = (draws - expected.means).reshape(size, size).T
    np.testing.assert_allclose(root @ root.T, expected.dense_cov, rtol=1e-11, atol=1e-12)


def test_prefix_scan_gives_the_sequential_factorisation():
    blocks = tuple(map(jnp.asarray, persistent_path(10, 2)))
    answers = [jax.jit(m.factorise)(*blocks) for m in (prefix_scan, block_tridiagonal)]
    for own, expected in zip(*answers, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-11, atol=1e-12)


def test_unknown_engine():
    with pytest.raises(ValueError, match="unknown engine 'cyclic'; use one of 'sequential', 'odd_"):
        posterior(*map(jnp.asarray, loose_blocks(2, 1)), engine="cyclic")
