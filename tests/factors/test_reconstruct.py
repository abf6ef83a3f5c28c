"""Aggregation rows and reconstruction against dense projections, on an irregular calendar."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxfc.factors.reconstruct import (
    imputed_share,
    interpolate_constant,
    reconstruct_jointly,
    reconstruct_series,
    reconstruction_draws,
)
from jaxfc.factors.scaling import fit_scaling
from jaxfc_kernels.aggregation import (
    AggregationRows,
    aggregate,
    aggregate_transpose,
    identity_rows,
    row_sums,
    solve_rows,
)
from jaxfc_kernels.reference.aggregation import dense_rows

pytestmark = pytest.mark.slow

NUM_TIMES = 23
ENDS = [3, 7, 12, 16, 20]  # blocks of 4 and 5, two incomplete times at the end


@pytest.fixture(scope="module")
def case():
    """Stock, flow sum, flow average and change in flow; one block of two series unobserved."""
    shape = (4, NUM_TIMES)
    own_row, next_row = np.full(shape, NUM_TIMES), np.full(shape, NUM_TIMES)
    own_weight, next_weight = np.zeros(shape), np.zeros(shape)
    own_row[0], own_weight[0] = np.arange(NUM_TIMES), 1.0
    starts = [0, *(e + 1 for e in ENDS[:-1])]
    for j, (start, end) in enumerate(zip(starts, ENDS, strict=True)):
        length = end - start + 1
        block, position = slice(start, end + 1), np.arange(1, length + 1)
        own_row[1:, block] = end
        own_weight[1, block], own_weight[2, block] = 1.0, 1.0 / length
        own_weight[3, block] = (length - position + 1) / length
        if j + 1 < len(ENDS):
            next_row[3, block], next_weight[3, block] = ENDS[j + 1], (position - 1) / length
    group = np.array([0, 1, 2, 3, 3])
    rows = AggregationRows(*map(jnp.asarray, (group, own_row, own_weight, next_row, next_weight)))
    rng = np.random.default_rng(0)
    observed = np.zeros((NUM_TIMES, 5))
    observed[:, 0] = rng.random(NUM_TIMES) > 0.3
    observed[ENDS, 1] = observed[ENDS, 2] = 1.0
    observed[ENDS[1:], 3] = observed[ENDS[1:], 4] = 1.0
    observed[12, 2] = observed[12, 3] = 0.0
    truth = rng.normal(size=(NUM_TIMES, 5))
    dense = [dense_rows(rows, i) for i in range(5)]
    values = np.stack([dense[i] @ truth[:, i] for i in range(5)], axis=1) * observed
    common = rng.normal(size=truth.shape)
    return rows, dense, jnp.asarray(values), jnp.asarray(observed), jnp.asarray(common), truth


def test_aggregate_and_its_transpose(case):
    rows, dense, _, _, common, _ = case
    expected = np.stack([dense[i] @ common[:, i] for i in range(5)], axis=1)
    np.testing.assert_allclose(aggregate(rows, common), expected, atol=1e-14)
    expected = np.stack([dense[i].T @ common[:, i] for i in range(5)], axis=1)
    np.testing.assert_allclose(aggregate_transpose(rows, common), expected, atol=1e-14)


def test_row_sums(case):
    rows, dense, *_ = case
    totals, squares = row_sums(rows, jnp.float64)
    np.testing.assert_allclose(totals.T, [q.sum(axis=1) for q in dense], atol=1e-14)
    np.testing.assert_allclose(squares.T, [(q**2).sum(axis=1) for q in dense], atol=1e-14)


def test_solve_rows(case):
    rows, dense, values, observed, *_ = case
    answer = jax.jit(solve_rows)(rows, observed, values)
    for i in range(5):
        seen = np.asarray(observed[:, i]) > 0
        q = dense[i][seen]
        expected = np.linalg.solve(q @ q.T, values[seen, i])
        np.testing.assert_allclose(answer[seen, i], expected, atol=1e-12)
        assert np.all(answer[~seen, i] == 0.0)


def test_series_by_series_equals_pseudo_inverse(case):
    rows, dense, values, observed, common, _ = case
    answer = jax.jit(reconstruct_series)(rows, values, observed, common)
    for i in range(5):
        q = dense[i][np.asarray(observed[:, i]) > 0]
        y = values[np.asarray(observed[:, i]) > 0, i]
        expected = common[:, i] + np.linalg.pinv(q) @ (y - q @ common[:, i])
        np.testing.assert_allclose(answer[:, i], expected, atol=1e-12)
        np.testing.assert_allclose(q @ answer[:, i], y, atol=1e-12)


def test_joint_reconstruction_equals_dense_conditioning(case):
    rows, dense, values, observed, common, _ = case
    root = np.random.default_rng(1).normal(size=(5, 5))
    cov = root @ root.T + np.eye(5)
    answer = jax.jit(reconstruct_jointly)(rows, values, observed, common, jnp.asarray(cov))
    seen = [np.asarray(observed[:, i]) > 0 for i in range(5)]
    q = scipy.linalg.block_diag(*(dense[i][seen[i]] for i in range(5)))
    y = np.concatenate([values[seen[i], i] for i in range(5)])
    mean, total = np.asarray(common).T.ravel(), np.kron(cov, np.eye(NUM_TIMES))
    expected = mean + total @ q.T @ np.linalg.solve(q @ total @ q.T, y - q @ mean)
    np.testing.assert_allclose(answer.T.ravel(), expected, atol=1e-9)


def test_joint_reconstruction_can_be_differentiated(case):
    rows, _, values, observed, common, _ = case
    rng = np.random.default_rng(2)
    weights, direction = rng.normal(size=(2, NUM_TIMES, 5))
    cov = jnp.eye(5) + 0.4

    @jax.jit
    def total(common):
        return jnp.sum(weights * reconstruct_jointly(rows, values, observed, common, cov))

    gradient = jax.grad(total)(common)
    step = 1e-5
    difference = total(common + step * direction) - total(common - step * direction)
    np.testing.assert_allclose(jnp.sum(gradient * direction), difference / (2 * step), rtol=1e-6)


def test_joint_equals_single_for_uncorrelated_errors(case):
    rows, _, values, observed, common, _ = case
    cov = jnp.diag(jnp.array([0.5, 1.0, 2.0, 3.0, 0.1]))
    joint = jax.jit(reconstruct_jointly)(rows, values, observed, common, cov)
    single = reconstruct_series(rows, values, observed, common)
    np.testing.assert_allclose(joint, single, atol=1e-9)


def test_without_rows_missing_stocks_take_the_common_component(case):
    _, _, _, observed, common, truth = case
    values = observed * truth
    expected = np.where(np.asarray(observed) > 0, truth, common)
    np.testing.assert_allclose(reconstruct_series(None, values, observed, common), expected)
    rows = identity_rows(NUM_TIMES, 5, jnp.float64)
    np.testing.assert_allclose(
        reconstruct_series(rows, values, observed, common), expected, atol=1e-14
    )


def test_draws_have_the_conditional_law(case):
    rows, dense, values, observed, common, _ = case
    num_draws, std = 20_000, 0.7
    errors = std * jax.random.normal(jax.random.key(0), (num_draws, NUM_TIMES, 5))
    common_draws = jnp.broadcast_to(common, errors.shape)
    draws = np.asarray(jax.jit(reconstruction_draws)(rows, values, observed, common_draws, errors))
    mean = reconstruct_series(rows, values, observed, common)
    for i in range(5):
        q = dense[i][np.asarray(observed[:, i]) > 0]
        cov = std**2 * (np.eye(NUM_TIMES) - np.linalg.pinv(q) @ q)
        # 5 standard errors of a sample covariance are at most 5 s^2 sqrt(2 / n).
        bound = 5 * std**2 * np.sqrt(2 / num_draws)
        assert np.abs(np.cov(draws[:, :, i].T) - cov).max() < bound
        error = np.abs(draws[:, :, i].mean(0) - mean[:, i])
        assert error.max() < 5 * std / np.sqrt(num_draws)


def test_imputed_share_is_the_trace_of_the_projection(case):
    _, dense, _, observed, *_ = case
    for i in range(5):
        q = dense[i][np.asarray(observed[:, i]) > 0]
        expected = np.trace(np.eye(NUM_TIMES) - np.linalg.pinv(q) @ q) / NUM_TIMES
        np.testing.assert_allclose(imputed_share(observed)[i], expected, atol=1e-12)


def test_constant_interpolation(case):
    rows, _, values, observed, *_ = case
    filled = np.asarray(interpolate_constant(rows, values, observed))
    totals, _ = row_sums(rows, jnp.float64)
    np.testing.assert_allclose(filled[0:4, 1], values[3, 1] / 4)  # a sum over four weeks
    np.testing.assert_allclose(filled[4:8, 2], values[7, 2])  # an average
    np.testing.assert_allclose(filled[8:13, 3], values[16, 3] / totals[16, 3])  # 12 is missing
    np.testing.assert_allclose(filled[21:, 1], values[20, 1] / 4)  # the last one carried on


def test_scaling_of_aggregates():
    """An aggregate of unit-variance noise around a mean is scaled as the noise is."""
    num_times = 4000
    times = np.arange(num_times)
    own_row = np.stack([times, times // 4 * 4 + 3])
    rows = AggregationRows(
        jnp.array([0, 1]),
        jnp.asarray(own_row),
        jnp.ones((2, num_times)),
        jnp.full((2, num_times), num_times),
        jnp.zeros((2, num_times)),
    )
    series = 5.0 + 2.0 * np.random.default_rng(0).normal(size=(num_times, 2))
    observed = jnp.ones((num_times, 2)).at[:, 1].set(times % 4 == 3)
    values = aggregate(rows, jnp.asarray(series)) * observed
    scaling = fit_scaling(values, observed, rows, True)
    np.testing.assert_allclose(scaling.centre, 5.0, atol=5 * 2 / np.sqrt(num_times))
    np.testing.assert_allclose(scaling.scale, 2.0, atol=5 * 2 / np.sqrt(2 * num_times / 4))
    restored = scaling.restore(scaling.standardise(values, observed, None))
    np.testing.assert_allclose(restored[:, 0], values[:, 0], atol=1e-12)
