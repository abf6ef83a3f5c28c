"""Targets of correlation models against loops, published formulas in fifty digits, scikit-learn."""

import decimal
from decimal import Decimal

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize

from jaxfc.volatility.targets import (
    LinearShrinkage,
    NonlinearShrinkage,
    SampleTarget,
    epanechnikov_transform,
    is_positive_definite,
    linear_shrinkage,
    nearest_corr,
    nonlinear_shrinkage,
    shrunk_eigenvalues,
    smallest_eigenvalue,
    with_eigenvalues,
)

NUM_DATES, NUM_SERIES = 40, 5
TARGETS = [
    SampleTarget(),
    SampleTarget(centred=True),
    SampleTarget(unit_diagonal=False),
    SampleTarget(centred=True, unit_diagonal=False),
    LinearShrinkage(),
    LinearShrinkage(0.3),
    NonlinearShrinkage(),
]
NAMES = ["moment", "cov", "raw_moment", "raw_cov", "linear", "linear_given", "nonlinear"]
EVERY = pytest.mark.parametrize("target", TARGETS, ids=NAMES)
DIRECTION = np.random.default_rng(8).normal(size=(NUM_SERIES, NUM_SERIES))


def draw(num_dates: int = NUM_DATES, num_series: int = NUM_SERIES, seed: int = 0) -> np.ndarray:
    """Correlated residuals with a mean of a tenth and unlike scales."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(num_dates, 1))
    scales = np.linspace(0.7, 1.4, num_series)
    return 0.1 + (0.6 * common + rng.normal(size=(num_dates, num_series))) * scales


def holes(num_dates: int = NUM_DATES, num_series: int = NUM_SERIES) -> np.ndarray:
    """A mask without a fifth of the cells, a late start and an early end."""
    observed = np.random.default_rng(5).random((num_dates, num_series)) > 0.2
    observed[:9, 1] = False
    observed[-7:, 3] = False
    return observed


@eqx.filter_jit
def run(function, *arguments):
    return function(*arguments)


@eqx.filter_jit
def value_and_slope(function, weights, residuals, observed):
    """A number that depends on every entry of a matrix, and its derivative by the residuals."""
    number = jax.value_and_grad(lambda values: jnp.sum(weights * function(values, observed)))
    return number(residuals)


def estimate(function, residuals, observed=None) -> np.ndarray:
    observed = np.ones(residuals.shape, bool) if observed is None else observed
    return np.asarray(run(function, jnp.asarray(residuals), jnp.asarray(observed)))


def looped(residuals, observed, centred: bool, unit_diagonal: bool) -> np.ndarray:
    """The pairwise-complete matrix, cell by cell."""
    size = residuals.shape[1]
    cov = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            both = observed[:, i] & observed[:, j]
            x, y = residuals[both, i], residuals[both, j]
            if centred:
                cov[i, j] = np.sum((x - x.mean()) * (y - y.mean())) / (both.sum() - 1)
            else:
                cov[i, j] = np.sum(x * y) / both.sum()
    scale = np.sqrt(np.diag(cov)) if unit_diagonal else np.ones(size)
    return cov / scale / scale[:, None]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("unit_diagonal", [False, True])
def test_sample_targets_are_the_loop_over_pairs(centred, unit_diagonal):
    residuals, observed = draw(), holes()
    target = SampleTarget(centred=centred, unit_diagonal=unit_diagonal)
    found = estimate(target.corr, np.where(observed, residuals, np.nan), observed)
    expected = looped(residuals, observed, centred, unit_diagonal)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found, found.T)
    if unit_diagonal:
        np.testing.assert_array_equal(np.diag(found), 1.0)


def test_nothing_missing_is_the_textbook_formula():
    residuals = draw()
    moment = estimate(SampleTarget(unit_diagonal=False).corr, residuals)
    values = jnp.asarray(residuals)
    np.testing.assert_array_equal(moment, np.asarray(values.T @ values) / NUM_DATES)
    far = residuals + 1e4  # the mean must not cost digits of the covariance
    cov = estimate(SampleTarget(centred=True, unit_diagonal=False).corr, far)
    np.testing.assert_allclose(cov, np.cov(far.T), rtol=1e-11)
    corr = estimate(SampleTarget(centred=True).corr, residuals)
    np.testing.assert_allclose(corr, np.corrcoef(residuals.T), rtol=1e-12)


@EVERY
def test_rows_without_observations_change_nothing(target):
    residuals, observed = draw(), holes()
    longer = np.concatenate([residuals, np.full((6, NUM_SERIES), np.nan)])
    mask = np.concatenate([observed, np.zeros((6, NUM_SERIES), bool)])
    np.testing.assert_allclose(
        estimate(target.corr, longer, mask), estimate(target.corr, residuals, observed), rtol=1e-12
    )


@EVERY
def test_a_weight_of_two_is_a_row_twice(target):
    residuals, observed = draw(), holes()
    weights = np.arange(NUM_DATES) % 3
    weights[0] = 1  # 40 rows in all, so that both sides share a compiled program
    assert weights.sum() == NUM_DATES
    twice = np.repeat(np.arange(NUM_DATES), weights)
    found = run(
        target.corr, jnp.asarray(residuals), jnp.asarray(observed), jnp.asarray(weights, float)
    )
    expected = estimate(target.corr, residuals[twice], observed[twice])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


@EVERY
def test_what_is_missing_is_never_read(target):
    residuals, observed, weights = draw(), jnp.asarray(holes()), jnp.asarray(DIRECTION)
    value, slope = value_and_slope(target.corr, weights, jnp.asarray(residuals), observed)
    for filler in (np.nan, np.inf, 1e6):
        filled = jnp.where(observed, residuals, filler)
        again, slope_again = value_and_slope(target.corr, weights, filled, observed)
        assert float(again) == float(value)
        np.testing.assert_array_equal(slope_again, slope)
    seen = np.asarray(observed)
    np.testing.assert_array_equal(np.asarray(slope)[~seen], 0.0)
    assert np.all(np.isfinite(slope)) and np.all(np.asarray(slope)[seen] != 0.0)


def check_slope(function, residuals, observed, step: float, accuracy: float) -> None:
    """The derivative along a random direction against a central difference."""
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.normal(size=(residuals.shape[1], residuals.shape[1])))
    direction = rng.normal(size=residuals.shape)
    _, slope = value_and_slope(function, weights, jnp.asarray(residuals), observed)
    ahead, behind = (
        float(value_and_slope(function, weights, jnp.asarray(moved), observed)[0])
        for moved in (residuals + step * direction, residuals - step * direction)
    )
    difference = (ahead - behind) / (2 * step)
    assert np.sum(np.asarray(slope) * direction) == pytest.approx(difference, rel=accuracy)


@EVERY
def test_derivatives_are_those_of_finite_differences(target):
    check_slope(target.corr, draw(), jnp.asarray(holes()), 1e-5, 2e-7)


def test_a_pair_without_a_common_date_is_not_a_number():
    residuals, observed = draw(), holes()
    observed[:20, 0], observed[20:, 4] = False, False
    missing = np.zeros((NUM_SERIES, NUM_SERIES), bool)
    missing[0, 4] = missing[4, 0] = True
    corr = estimate(SampleTarget().corr, residuals, observed)
    np.testing.assert_array_equal(np.isnan(corr), missing)
    assert not bool(is_positive_definite(jnp.asarray(corr), -1e9))
    # The derivatives of the other moments are not spoilt.
    target = SampleTarget(unit_diagonal=False)
    _, slope = value_and_slope(
        lambda z, seen: jnp.where(jnp.asarray(missing), 0.0, target.corr(z, seen)),
        jnp.asarray(DIRECTION),
        jnp.asarray(residuals),
        jnp.asarray(observed),
    )
    assert np.all(np.isfinite(slope)) and np.any(np.asarray(slope) != 0.0)


# Linear shrinkage


def shrunk_linearly(residuals, observed):
    return linear_shrinkage(residuals, observed, None)


@pytest.mark.parametrize(("num_dates", "num_series"), [(NUM_DATES, NUM_SERIES), (15, 20)])
def test_linear_shrinkage_is_that_of_scikit_learn(num_dates, num_series):
    covariance = pytest.importorskip("sklearn.covariance")
    residuals = draw(num_dates, num_series)
    expected, intensity = covariance.ledoit_wolf(residuals, assume_centered=True)
    assert 0.0 < intensity < 1.0
    found = estimate(shrunk_linearly, residuals)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    scale = np.sqrt(np.diag(expected))
    corr = estimate(LinearShrinkage().corr, residuals)
    np.testing.assert_allclose(corr, expected / scale / scale[:, None], rtol=1e-12)


def test_linear_shrinkage_with_holes_is_the_loop_over_pairs():
    residuals, observed = draw(), holes()
    moment = looped(residuals, observed, False, False)
    noise = 0.0
    for i in range(NUM_SERIES):
        for j in range(NUM_SERIES):
            both = observed[:, i] & observed[:, j]
            products = residuals[both, i] * residuals[both, j]
            noise += np.sum((products - products.mean()) ** 2) / both.sum() ** 2
    target = np.trace(moment) / NUM_SERIES * np.eye(NUM_SERIES)
    share = noise / np.sum((moment - target) ** 2)
    assert 0.0 < share < 1.0
    found = estimate(shrunk_linearly, residuals, observed)
    np.testing.assert_allclose(found, (1 - share) * moment + share * target, rtol=1e-12)


def test_a_given_intensity_replaces_the_estimate():
    residuals, observed = draw(), holes()
    np.testing.assert_array_equal(estimate(LinearShrinkage(1.0).corr, residuals), np.eye(5))
    np.testing.assert_array_equal(
        estimate(LinearShrinkage(0.0).corr, residuals, observed),
        estimate(SampleTarget().corr, residuals, observed),
    )
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        LinearShrinkage(1.5)
    # No signal at all: the intensity stops at one.
    noise = np.random.default_rng(2).normal(size=(20, 60))
    corr = estimate(LinearShrinkage().corr, noise)
    assert 0.0 < np.abs(corr - np.eye(60)).max() < 0.1


# Nonlinear shrinkage

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def published_formula(eigenvalues: np.ndarray, num_rows: int) -> np.ndarray:
    """The analytical formula of Ledoit and Wolf as printed, with its case N > n, in fifty digits:
    its terms cancel, so that in double precision it is not an oracle for spread eigenvalues."""
    with decimal.localcontext(prec=50):
        size, root = eigenvalues.size, Decimal(5).sqrt()
        bandwidth = Decimal(num_rows) ** (Decimal(-1) / 3)
        kept = [Decimal(float(level)) for level in eigenvalues[-min(size, num_rows) :]]
        ratio, shrunk = Decimal(size) / num_rows, []
        for own in kept:
            density = transform = Decimal(0)
            for other in kept:
                width = bandwidth * other
                x = (own - other) / width
                density += 3 / (4 * root) * max(1 - x**2 / 5, Decimal(0)) / width
                log = abs((root - x) / (root + x)).ln()
                inner = -3 * x / (10 * PI) + 3 / (4 * root * PI) * (1 - x**2 / 5) * log
                transform += inner / width
            density, transform = density / len(kept), transform / len(kept)
            if size <= num_rows:
                imaginary = PI * ratio * own * density
                real = 1 - ratio - PI * ratio * own * transform
                shrunk.append(own / (imaginary**2 + real**2))
            else:
                shrunk.append(own / (PI**2 * own**2 * (density**2 + transform**2)))
        if size > num_rows:
            log = ((1 + root * bandwidth) / (1 - root * bandwidth)).ln()
            bend = 3 / (4 * root * bandwidth) * (1 - 1 / (5 * bandwidth**2)) * log
            mean_inverse = sum(1 / level for level in kept) / len(kept)
            at_zero = (3 / (10 * bandwidth**2) + bend) / PI * mean_inverse
            null = 1 / (PI * (size - num_rows) / num_rows * at_zero)
            shrunk = [null] * (size - num_rows) + shrunk
        return np.asarray([float(level) for level in shrunk])


@pytest.mark.parametrize(("num_dates", "num_series"), [(40, 8), (14, 8), (16, 16), (14, 20)])
def test_nonlinear_shrinkage_is_the_published_formula(num_dates, num_series):
    residuals = draw(num_dates, num_series)
    eigenvalues, vectors = np.linalg.eigh(residuals.T @ residuals / num_dates)
    expected = (vectors * published_formula(eigenvalues, num_dates)) @ vectors.T
    found = estimate(nonlinear_shrinkage, residuals)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    assert np.linalg.eigvalsh(found)[0] > 0.01


def test_the_nonlinear_target_is_the_shrunk_matrix_with_unit_diagonal():
    cov = estimate(nonlinear_shrinkage, draw(14, 20))
    scale = np.sqrt(np.diag(cov))
    corr = estimate(NonlinearShrinkage().corr, draw(14, 20))
    np.testing.assert_allclose(corr, cov / scale / scale[:, None], rtol=1e-12)


@pytest.mark.parametrize(("num_null", "num_rows"), [(0, 200), (3, 12)])
def test_the_formula_keeps_its_digits_for_spread_eigenvalues(num_null, num_rows):
    spread = np.asarray([3e-7, 4e-5, 0.2, 0.21, 0.4, 0.5, 0.6, 0.8, 0.9, 2.0, 14.0, 1e3])
    eigenvalues = np.concatenate([np.zeros(num_null), spread])
    found = jax.jit(shrunk_eigenvalues)(jnp.asarray(eigenvalues), jnp.asarray(float(num_rows)))
    np.testing.assert_allclose(found, published_formula(eigenvalues, num_rows), rtol=1e-11)


def test_the_transform_is_the_principal_value():
    root = np.sqrt(5.0)

    def kernel(u):
        return 0.75 / root * (1 - u**2 / 5)

    points = np.asarray([-30.0, -9.9, -3.0, -1.2, 0.0, 0.4, 2.2, 2.3, 10.1, 400.0])
    expected = []
    for x in points:
        if abs(x) < root:
            value = integrate.quad(kernel, -root, root, weight="cauchy", wvar=x)[0]
        else:
            value = integrate.quad(lambda u, x=x: kernel(u) / (u - x), -root, root)[0]
        expected.append(value / np.pi)
    # At the kernel's ends only the first term is left.
    points = np.append(points, [-root, root])
    expected += [0.3 * root / np.pi, -0.3 * root / np.pi]
    found = jax.jit(epanechnikov_transform)(jnp.asarray(points))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)


def test_nonlinear_shrinkage_turns_with_the_data_and_keeps_the_trace():
    residuals = draw(60, 12, seed=3)
    sample = residuals.T @ residuals / 60
    found = estimate(nonlinear_shrinkage, residuals)
    np.testing.assert_allclose(found @ sample, sample @ found, atol=1e-12)
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(12, 12)))[0]
    turned = estimate(nonlinear_shrinkage, residuals @ rotation)
    np.testing.assert_allclose(turned, rotation.T @ found @ rotation, atol=1e-11)
    assert np.trace(found) == pytest.approx(np.trace(sample), rel=0.05)
    scaled = estimate(nonlinear_shrinkage, 7.0 * residuals)
    np.testing.assert_allclose(scaled, 49.0 * found, rtol=1e-11)


@eqx.filter_jit
def batch(target, draws):
    seen = jnp.ones(draws.shape[1:], bool)
    return jax.vmap(lambda residuals: target.corr(residuals, seen))(draws)


def test_shrinkage_is_closer_to_the_truth_than_the_sample():
    groups = np.repeat(np.arange(4), 10)
    population = 0.1 + 0.5 * (groups[:, None] == groups) + 0.4 * np.eye(40)
    normals = np.random.default_rng(11).normal(size=(20, 25, 40))
    draws = jnp.asarray(normals @ np.linalg.cholesky(population).T)
    losses = []
    for target in (SampleTarget(), LinearShrinkage(), NonlinearShrinkage()):
        corrs = np.asarray(batch(target, draws))
        losses.append(np.mean(np.sum((corrs - population) ** 2, axis=(1, 2))))
    assert losses[1] < 0.95 * losses[0]
    assert losses[2] < 0.8 * losses[0]
    assert losses[2] < losses[1]
    one = estimate(NonlinearShrinkage().corr, draws[3])
    np.testing.assert_allclose(corrs[3], one, rtol=1e-10, atol=1e-12)


def test_of_an_identity_little_but_the_identity_is_left():
    noise = np.random.default_rng(6).normal(size=(200, 50))
    sample = np.linalg.eigvalsh(noise.T @ noise / 200)
    shrunk = np.linalg.eigvalsh(estimate(nonlinear_shrinkage, noise))
    assert np.std(sample) > 0.4
    assert np.std(shrunk) < 0.1
    assert np.mean(shrunk) == pytest.approx(1.0, abs=0.03)


def test_more_series_than_dates_has_exact_derivatives():
    # The eigenvalues of zero are equal: a plain eigendecomposition has no finite derivative here.
    check_slope(NonlinearShrinkage().corr, draw(14, 20), jnp.ones((14, 20), bool), 1e-6, 1e-6)


def test_equal_eigenvalues_have_exact_derivatives():
    rotation = jnp.asarray(np.linalg.qr(DIRECTION)[0])

    @jax.jit
    def along(step, levels):
        matrix = (rotation * levels) @ rotation.T + step * (DIRECTION + DIRECTION.T)
        return with_eigenvalues(shrunk_eigenvalues, matrix, jnp.asarray(30.0))

    slope_of = jax.jit(jax.jacfwd(along))
    for levels in ([0.5, 0.9, 0.9, 0.9, 2.0], [1.0] * 5, [0.4, 0.8, 0.9, 1.3, 2.0]):
        step, levels = 1e-5, jnp.asarray(levels)
        difference = (along(step, levels) - along(-step, levels)) / (2 * step)
        np.testing.assert_allclose(slope_of(0.0, levels), difference, atol=2e-8)


def test_collinear_series_and_few_dates_are_finite():
    residuals = draw()
    residuals[:, 4] = residuals[:, 0]
    corr = estimate(NonlinearShrinkage().corr, residuals)
    assert np.all(np.isfinite(corr))
    assert corr[0, 4] == pytest.approx(1.0, abs=1e-12)
    assert not bool(is_positive_definite(jnp.asarray(corr), 1e-8))
    # Five dates a pair, below the twelve that the bandwidth needs, of more series than dates.
    observed = np.random.default_rng(3).random((14, 20)) > 0.25
    corr = estimate(NonlinearShrinkage().corr, draw(14, 20), observed)
    assert np.all(np.isfinite(corr)) and np.linalg.eigvalsh(corr)[0] > 0.01
    with pytest.raises(ValueError, match="12 dates or more, got 11"):
        NonlinearShrinkage().corr(jnp.zeros((11, 3)), jnp.ones((11, 3), bool))


# Repair


def indefinite() -> np.ndarray:
    """A pairwise-complete correlation matrix with negative eigenvalues."""
    observed = np.random.default_rng(2).random((12, 5)) > 0.5
    return looped(draw(12, 5, seed=7), observed, False, True)


def test_the_nearest_correlation_of_a_published_example():
    # The example of Higham (2002), to the four digits in print.
    matrix = jnp.asarray([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    expected = [[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]]
    np.testing.assert_allclose(nearest_corr(matrix, floor=0.0), expected, atol=5e-5)


def test_the_nearest_correlation_is_that_of_a_direct_search():
    matrix = indefinite()
    assert np.linalg.eigvalsh(matrix)[0] < -0.1

    def corr(flat):
        rows = flat.reshape(5, 5)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    found = np.asarray(nearest_corr(jnp.asarray(matrix), floor=0.0))
    search = optimize.minimize(
        lambda flat: np.sum((corr(flat) - matrix) ** 2),
        np.random.default_rng(0).normal(size=25),
        options={"gtol": 1e-9, "maxiter": 5000},
        method="BFGS",
    )
    np.testing.assert_allclose(found, corr(search.x), atol=1e-5)
    assert np.sum((found - matrix) ** 2) == pytest.approx(search.fun, rel=1e-9)


def test_no_steps_are_clipping_and_rescaling():
    matrix = indefinite()
    levels, vectors = np.linalg.eigh(matrix)
    clipped = (vectors * np.maximum(levels, 0.05)) @ vectors.T
    scale = np.sqrt(np.diag(clipped))
    found = nearest_corr(jnp.asarray(matrix), floor=0.05, num_steps=0)
    np.testing.assert_allclose(found, clipped / scale / scale[:, None], rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="got -1"):
        nearest_corr(jnp.asarray(matrix), num_steps=-1)


def test_repair_is_told_from_what_needs_none():
    matrix = jnp.asarray(indefinite())
    lowest = float(np.linalg.eigvalsh(np.asarray(matrix))[0])
    assert float(smallest_eigenvalue(matrix)) == pytest.approx(lowest, abs=1e-14)
    check = jax.jit(is_positive_definite)
    assert check(matrix, lowest - 1e-9) and not check(matrix, lowest + 1e-9)
    assert not check(matrix.at[0, 1].set(jnp.nan), -1e9)
    repaired = nearest_corr(matrix, floor=0.05)
    assert check(repaired, 0.05 - 1e-6)
    np.testing.assert_array_equal(np.diag(repaired), 1.0)
    np.testing.assert_array_equal(repaired, repaired.T)
    sound = jnp.asarray(looped(draw(), holes(), False, True))
    np.testing.assert_allclose(nearest_corr(sound), sound, atol=1e-13)


def test_derivatives_of_the_repair():
    matrix = jnp.asarray(indefinite())
    direction = jnp.asarray(DIRECTION + DIRECTION.T)

    def function(values):
        return jnp.sum(jnp.asarray(DIRECTION) * nearest_corr(values, floor=0.01))

    slope = np.asarray(jax.jit(jax.grad(function))(matrix))
    np.testing.assert_allclose(slope, slope.T, atol=1e-13)
    step = 1e-6
    ahead, behind = (jax.jit(function)(matrix + sign * step * direction) for sign in (1, -1))
    difference = float(ahead - behind) / (2 * step)
    assert np.sum(slope * np.asarray(direction)) == pytest.approx(difference, rel=1e-6)


# Everywhere


def all_of_it(residuals, observed):
    corrs = [target.corr(residuals, observed) for target in (TARGETS[1], *TARGETS[4:])]
    repaired = nearest_corr(corrs[0], num_steps=2)
    return corrs, repaired, is_positive_definite(repaired, 0.0)


def test_single_precision_stays_single():
    residuals, observed = draw(), jnp.asarray(holes())
    single = run(all_of_it, jnp.asarray(residuals, jnp.float32), observed)
    double = run(all_of_it, jnp.asarray(residuals), observed)
    for found, expected in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True):
        assert found.dtype in (jnp.float32, jnp.bool_)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_it_lowers_for_cuda():
    def program(residuals, observed):
        slope = jax.grad(lambda z: jnp.sum(all_of_it(z, observed)[1]))(residuals)
        return all_of_it(residuals, observed), slope

    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(
        jnp.asarray(draw()), jnp.asarray(holes())
    )
    assert exported.platforms == ("cuda",)
