"""Tests of Sharpe ratios against loops, another package, derivatives, and laws known by simulation.

Sizes: a 5 % test of true equality must reject in 5 % of the simulated pairs, within three standard
deviations of a binomial count.
"""

import itertools
import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from numpy.testing import assert_allclose
from scipy import stats

from jaxfc.evaluation import kernel_cov, sharpe

RNG = np.random.default_rng(8)
STEPS = 120


def simulated_pairs(num_pairs, steps, *, persistent, seed):
    """Correlated pairs with equal Sharpe ratios 0.1 and volatilities 1 and 2; `persistent`:
    a common volatility that follows an ARCH-like recursion of the first return."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps + 50, num_pairs, 2))
    noise[..., 1] = 0.5 * noise[..., 0] + math.sqrt(0.75) * noise[..., 1]
    if persistent:
        variance = np.ones(num_pairs)
        for t in range(steps + 50):
            noise[t] *= np.sqrt(variance)[:, None]
            variance = 0.1 + 0.25 * noise[t, :, 0] ** 2 + 0.65 * variance
    returns = 0.1 + noise[50:]
    return np.moveaxis(returns * np.array([1.0, 2.0]), 1, 0)


PAIRS = simulated_pairs(6, STEPS, persistent=True, seed=1)


def circular_indices(rng, num_draws, num_steps, length):
    """Rows of consecutive blocks that start anywhere and run around the end."""
    starts = rng.integers(0, num_steps, (num_draws, -(-num_steps // length)))
    places = (starts[..., None] + np.arange(length)) % num_steps
    return places.reshape(num_draws, -1)[:, :num_steps]


def ratio_of(moments):
    a, b, c, d = moments
    return a / jnp.sqrt(c - a**2) - b / jnp.sqrt(d - b**2)


GRADIENT = jax.jit(jax.grad(ratio_of))


def moments_of(pair):
    return np.concatenate([pair.mean(axis=0), (pair**2).mean(axis=0)])


def rows_of(pair):
    return np.hstack([pair, pair**2]) - moments_of(pair)


def loop_long_run(rows, kernel, width):
    """sum_j k(j / S) Gamma_j with the kernels as printed by Andrews (1991, equation 2.7)."""
    n = len(rows)
    total = rows.T @ rows / n
    for j in range(1, n):
        x = j / width
        if kernel == "parzen":
            weight = 1 - 6 * x**2 + 6 * x**3 if x <= 0.5 else 2 * (1 - x) ** 3 if x <= 1 else 0.0
        else:
            z = 6 * math.pi * x / 5
            weight = 25 / (12 * math.pi**2 * x**2) * (math.sin(z) / z - math.cos(z))
        gamma = sum(np.outer(rows[t], rows[t - j]) for t in range(j, n)) / n
        total = total + weight * (gamma + gamma.T)
    return total


def loop_bandwidth(rows, kernel):
    top = bottom = 0.0
    for y in rows.T:
        rho = y[1:] @ y[:-1] / (y[:-1] @ y[:-1])
        variance = np.mean((y[1:] - rho * y[:-1]) ** 2)
        top += 4 * rho**2 * variance**2 / (1 - rho) ** 8
        bottom += variance**2 / (1 - rho) ** 4
    constant = {"parzen": 2.6614, "quadratic_spectral": 1.3221}[kernel]
    return constant * (top / bottom * len(rows)) ** 0.2


def loop_prewhitened(rows, kernel):
    slope = np.linalg.lstsq(rows[:-1], rows[1:], rcond=None)[0].T
    u, s, v = np.linalg.svd(slope)
    slope = u @ np.diag(np.minimum(s, 0.97)) @ v
    errors = np.array([rows[t] - slope @ rows[t - 1] for t in range(1, len(rows))])
    colour = np.linalg.inv(np.eye(4) - slope)
    return colour @ loop_long_run(errors, kernel, loop_bandwidth(errors, kernel)) @ colour.T


def loop_error(pair, kernel, prewhiten):
    rows, n = rows_of(pair), len(pair)
    plain = prewhiten or loop_long_run(rows, kernel, loop_bandwidth(rows, kernel))
    psi = loop_prewhitened(rows, kernel) if prewhiten else plain
    g = np.asarray(GRADIENT(jnp.asarray(moments_of(pair))))
    return math.sqrt(g @ psi @ g / (n - 4))


# Compiled once for the tests that share them.
DIFFERENCES = {
    (kernel, prewhiten): jax.jit(
        lambda pair, kernel=kernel, prewhiten=prewhiten: sharpe.sharpe_difference(
            *pair.T, kernel=kernel, prewhiten=prewhiten
        )
    )
    for kernel in kernel_cov.KERNELS
    for prewhiten in (False, True)
}
JOBSON_KORKIE = jax.jit(jax.vmap(lambda pair: sharpe.jobson_korkie(*pair.T)))


@pytest.mark.parametrize("kernel", kernel_cov.KERNELS)
@pytest.mark.parametrize("prewhiten", [False, True])
def test_difference_and_error_are_those_of_a_loop(kernel, prewhiten):
    for pair in PAIRS[:2]:
        got = DIFFERENCES[kernel, prewhiten](jnp.asarray(pair))
        difference = float(ratio_of(moments_of(pair)))
        error = loop_error(pair, kernel, prewhiten)
        assert_allclose(got.difference, difference, rtol=1e-12)
        assert_allclose(got.standard_error, error, rtol=1e-9)
        assert_allclose(got.p_value, 2 * stats.norm.sf(abs(difference / error)), rtol=1e-8)


def test_kernel_covariances_are_those_of_arch():
    kernels = pytest.importorskip("arch.covariance.kernel")
    rows = rows_of(PAIRS[0])
    run = jax.jit(kernel_cov.kernel_cov, static_argnums=1)
    ours = run(jnp.asarray(rows), "quadratic_spectral", bandwidth=3.7)
    assert_allclose(ours, kernels.QuadraticSpectral(rows, 3.7).cov.long_run, rtol=1e-10)
    # That package puts the last weight of the Parzen kernel at bandwidth + 1.
    ours = run(jnp.asarray(rows), "parzen", bandwidth=6.0)
    assert_allclose(ours, kernels.Parzen(rows, 5.0).cov.long_run, rtol=1e-10)


def test_the_gradient_is_that_of_the_ratios():
    moments = jnp.asarray(moments_of(PAIRS[1]))
    assert_allclose(sharpe.sharpe_gradient(moments), GRADIENT(moments), rtol=1e-12)


def test_jobson_korkie_is_the_delta_method_for_gaussian_returns():
    """The law of sample moments of independent Gaussian pairs is known: its covariance by hand."""
    pair = PAIRS[2]
    cov = np.cov(pair.T, bias=True)
    mean = pair.mean(axis=0)
    joint = np.zeros((4, 4))
    for i, j in itertools.product(range(2), range(2)):
        joint[i, j] = cov[i, j]
        joint[i, 2 + j] = joint[2 + j, i] = 2 * mean[j] * cov[i, j]
        joint[2 + i, 2 + j] = 2 * cov[i, j] ** 2 + 4 * mean[i] * mean[j] * cov[i, j]
    g = np.asarray(GRADIENT(jnp.asarray(moments_of(pair))))
    got = jax.tree.map(lambda leaf: leaf[0], JOBSON_KORKIE(jnp.asarray(pair)[None]))
    assert_allclose(got.standard_error, math.sqrt(g @ joint @ g / STEPS), rtol=1e-12)
    assert_allclose(got.difference, ratio_of(moments_of(pair)), rtol=1e-12)


def test_the_bootstrap_is_that_of_a_loop():
    length, pair = 5, PAIRS[3]
    indices = circular_indices(np.random.default_rng(4), 49, STEPS, length)
    difference = float(ratio_of(moments_of(pair)))
    observed = abs(difference) / loop_error(pair, "parzen", False)
    exceed = 0
    for row in indices:
        again = pair[row]
        rows = rows_of(again)
        g = np.asarray(GRADIENT(jnp.asarray(moments_of(again))))
        psi = np.zeros((4, 4))
        for block in range(STEPS // length):
            zeta = rows[block * length : (block + 1) * length].sum(axis=0) / math.sqrt(length)
            psi += np.outer(zeta, zeta) / (STEPS // length)
        theirs = float(ratio_of(moments_of(again)))
        exceed += abs(theirs - difference) / math.sqrt(g @ psi @ g / STEPS) >= observed
    run = jax.jit(
        lambda pair, indices: sharpe.bootstrap_sharpe_difference(
            *pair.T, indices, length, kernel="parzen", prewhiten=False, batch_size=20
        )
    )
    got = run(jnp.asarray(pair), jnp.asarray(indices))
    assert 0 < exceed < 49
    assert float(got.p_value) == pytest.approx((exceed + 1) / 50)


def binomial_band(num_cases):
    return 3.0 * math.sqrt(0.05 * 0.95 / num_cases)


def test_sizes_for_independent_gaussian_returns():
    pairs = simulated_pairs(2000, STEPS, persistent=False, seed=2)
    rejected = np.mean(np.asarray(JOBSON_KORKIE(jnp.asarray(pairs)).p_value) <= 0.05)
    assert abs(rejected - 0.05) < binomial_band(2000)


@pytest.mark.parametrize("persistent", [False, True])
def test_size_of_the_bootstrap(persistent):
    num_pairs, length = 600, 5
    pairs = simulated_pairs(num_pairs, STEPS, persistent=persistent, seed=3)

    def one(case):
        pair, key = case
        starts = jax.random.randint(key, (199, STEPS // length, 1), 0, STEPS)
        indices = ((starts + jnp.arange(length)) % STEPS).reshape(199, STEPS)
        return sharpe.bootstrap_sharpe_difference(*pair.T, indices, length).p_value

    keys = jax.random.split(jax.random.key(7), num_pairs)
    p_values = jax.jit(lambda cases: jax.lax.map(one, cases, batch_size=50))
    rejected = np.mean(np.asarray(p_values((jnp.asarray(pairs), keys))) <= 0.05)
    assert abs(rejected - 0.05) < binomial_band(num_pairs)


def test_steps_that_are_missing_are_not_counted():
    """In the moments they are left out; in the long-run covariance they are rows of zeros."""
    pair = PAIRS[4]
    holed = pair.copy()
    holed[40, 1] = np.nan
    kept = np.delete(pair, 40, axis=0)
    got = JOBSON_KORKIE(jnp.asarray(holed)[None])
    expected = JOBSON_KORKIE(jnp.asarray(kept)[None])
    assert_allclose(got.p_value, expected.p_value, rtol=1e-12)
    rows = np.insert(rows_of(kept), 40, 0.0, axis=0)
    g = np.asarray(GRADIENT(jnp.asarray(moments_of(kept))))
    total = STEPS * loop_long_run(rows, "parzen", loop_bandwidth(rows, "parzen"))
    error = math.sqrt(g @ total @ g / (STEPS - 5) / (STEPS - 1))
    got = DIFFERENCES["parzen", False](jnp.asarray(holed))
    assert_allclose(got.difference, ratio_of(moments_of(kept)), rtol=1e-12)
    assert_allclose(got.standard_error, error, rtol=1e-9)


def test_equal_or_constant_series_have_no_p_value():
    one, flat = PAIRS[0][:, 0], np.full(STEPS, 0.01)
    for pair in ((one, flat), (flat, flat), (one, one), (one, 3.0 * one)):
        both = jnp.asarray(np.stack(pair, axis=1))
        assert np.isnan(DIFFERENCES["quadratic_spectral", True](both).p_value)
        assert np.isnan(JOBSON_KORKIE(both[None]).p_value)


def test_bad_input_of_the_bootstrap_is_refused():
    pair = jnp.asarray(PAIRS[0].T)
    indices = jnp.zeros((3, STEPS), int)
    for length in (0, STEPS // 2 + 1):
        with pytest.raises(ValueError, match="block_length must be between"):
            sharpe.bootstrap_sharpe_difference(*pair, indices, length)
    with pytest.raises((ValueError, TypeCheckError), match="indices"):
        sharpe.bootstrap_sharpe_difference(*pair, indices[:, :50], 5)
    with pytest.raises((ValueError, TypeCheckError), match="kernel"):
        kernel_cov.kernel_weights(jnp.zeros(3), "bartlett")  # pyright: ignore


def test_half_of_an_asset_differs_in_log_returns_only():
    """Its simple returns are half, so the ratios are equal; its log returns lose less to variance,
    and two series that move together leave little doubt about a small difference."""
    simple = 0.02 * PAIRS[5][:, 0]
    half = jnp.asarray(np.stack([0.5 * simple, simple], axis=1))
    in_logs = DIFFERENCES["quadratic_spectral", True](jnp.log1p(half))
    assert np.isnan(DIFFERENCES["quadratic_spectral", True](half).p_value)
    assert 0.0 < in_logs.difference < 0.02 and in_logs.p_value < 1e-6


def both_tests(pair):
    indices = jnp.arange(STEPS)[None] + jnp.zeros((3, 1), int)
    return (
        sharpe.jobson_korkie(*pair.T),
        sharpe.bootstrap_sharpe_difference(*pair.T, indices, 5),
    )


def test_programs_lower_for_cuda():
    exported = jax.export.export(jax.jit(both_tests), platforms=["cuda"])(jnp.asarray(PAIRS[0]))
    assert exported.platforms == ("cuda",)


def test_float32_agrees_with_float64():
    run = jax.jit(both_tests)
    single = run(jnp.asarray(PAIRS[0], dtype=jnp.float32))
    double = run(jnp.asarray(PAIRS[0]))
    for ours, exact in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert_allclose(ours, exact, rtol=2e-4, atol=2e-5)
    assert single[1].standard_error.dtype == jnp.float32
