"""The test of constant correlations: a plain loop, two other programs, holes, size and power."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.volatility.constant_correlation import constant_correlation_test

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(11)
CORR = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]])
# Constant mean and GARCH(1, 1) of the first five series of dji30ret in percent, 5521 days: the
# maximum with rugarch's start and its bound of 0.999 on alpha + beta, which the fifth reaches.
DOW_MARGINS = np.array(
    [
        [0.06486397, 0.04723194, 0.05179464, 0.93927874],
        [0.08684229, 0.03472080, 0.08644553, 0.91151849],
        [0.07744433, 0.03536775, 0.04135037, 0.95015870],
        [0.07795172, 0.03167977, 0.07274408, 0.92353881],
        [0.07102101, 0.03577239, 0.07725752, 0.92174248],
    ]
)


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**-0.5) @ vectors.T


def textbook(units, known, num_lags, corr):
    """Row by row and pair by pair: statistic and number of rows of the regression."""
    whitened = np.zeros_like(units)
    for t, seen in enumerate(known):
        here = np.flatnonzero(seen)
        whitened[t, here] = inverse_root(corr[np.ix_(here, here)]) @ units[t, here]
    rows, target = [], []
    for i in range(units.shape[1]):
        for j in range(i + 1, units.shape[1]):
            product, both = whitened[:, i] * whitened[:, j], known[:, i] & known[:, j]
            for t in range(num_lags, len(units)):
                if both[t - num_lags : t + 1].all():
                    rows.append([1.0, *product[t - num_lags : t][::-1]])
                    target.append(product[t])
    rows, target = np.array(rows), np.array(target)
    slopes = np.linalg.lstsq(rows, target)[0]
    error = np.mean((target - rows @ slopes) ** 2)
    return slopes @ rows.T @ rows @ slopes / error, len(target)


@pytest.fixture(scope="module")
def statistic():
    """The test with two lags and a given correlation, compiled once for each shape."""
    return jax.jit(
        lambda units, known, corr: constant_correlation_test(units, known, num_lags=2, corr=corr)
    )


@pytest.fixture(scope="module")
def holed():
    units = RNG.multivariate_normal(np.zeros(3), CORR, size=80)
    known = RNG.uniform(size=units.shape) > 0.1
    known[20:30, 1] = False
    known[40] = False
    return units, known


def test_the_plain_loop_with_and_without_holes(statistic, holed):
    units, known = holed
    for mask in (known, np.ones_like(known)):
        # What stands in a cell that is not known is never read.
        result = statistic(np.where(mask, units, np.nan), mask, CORR)
        expected, count = textbook(units, mask, 2, CORR)
        assert float(result.statistic) == pytest.approx(expected, rel=1e-10)
        assert float(result.p_value) == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-10)
        assert float(result.num_cases) == count
        assert float(result.degrees) == 3
    estimated = constant_correlation_test(jnp.asarray(units), jnp.asarray(mask), num_lags=2)
    expected, _ = textbook(units, mask, 2, np.corrcoef(units, rowvar=False))
    assert float(estimated.statistic) == pytest.approx(expected, rel=1e-10)


def test_order_of_series_empty_rows_and_an_empty_series_change_nothing(statistic, holed):
    units, known = holed
    whole = float(statistic(units, known, CORR).statistic)
    order = [2, 0, 1]
    turned = statistic(units[:, order], known[:, order], CORR[np.ix_(order, order)])
    assert float(turned.statistic) == pytest.approx(whole, rel=1e-10)
    late = known.copy()
    late[60:] = False
    shorter = textbook(units[:60], known[:60], 2, CORR)[0]
    assert float(statistic(units, late, CORR).statistic) == pytest.approx(shorter, rel=1e-10)
    alone = known.copy()
    alone[:, 1] = False
    kept = [0, 2]
    expected = textbook(units[:, kept], known[:, kept], 2, CORR[np.ix_(kept, kept)])[0]
    assert float(statistic(units, alone, CORR).statistic) == pytest.approx(expected, rel=1e-10)


def test_derivative_with_respect_to_residuals(holed):
    units, known = jnp.asarray(holed[0]), jnp.asarray(holed[1])

    def value(units):
        return constant_correlation_test(units, known, num_lags=2).statistic

    both = jax.jit(jax.value_and_grad(value))
    slope = np.asarray(both(units)[1])
    assert np.all(slope[~holed[1]] == 0.0) and np.isfinite(slope).all()
    for cell in ((3, 0), (50, 2)):
        step = 1e-5
        up, down = (both(units.at[cell].add(change))[0] for change in (step, -step))
        assert slope[cell] == pytest.approx(float(up - down) / (2 * step), rel=1e-5)


def test_size_under_constant_correlation():
    """Exact for a known correlation; with an estimated one the constant has no freedom left."""
    num_paths, num_times, num_lags, size = 1000, 250, 2, 0.05
    chol = jnp.asarray(np.linalg.cholesky(CORR))

    def one(key):
        normal_key, hole_key = jax.random.split(key)
        units = jax.random.normal(normal_key, (num_times, 3)) @ chol.T
        known = jax.random.uniform(hole_key, units.shape) > 0.05
        given = constant_correlation_test(units, known, num_lags=num_lags, corr=chol @ chol.T)
        own = constant_correlation_test(units, known, num_lags=num_lags)
        return given.statistic, own.statistic, given.p_value < size

    keys = jax.random.split(jax.random.key(3), num_paths)
    given, own, rejected = (np.asarray(x) for x in jax.jit(jax.vmap(one))(keys))
    band = 3.5 * np.sqrt(size * (1 - size) / num_paths)
    assert rejected.mean() == pytest.approx(size, abs=band)
    assert np.mean(stats.chi2.sf(own, num_lags) < size) == pytest.approx(size, abs=band)
    for values, degrees in ((given, num_lags + 1), (own, num_lags)):
        spread = 3.5 * np.sqrt(2 * degrees / num_paths)
        assert values.mean() == pytest.approx(degrees, abs=spread)


def test_moving_correlations_are_found_and_nothing_to_test_is_nan(statistic):
    quasi, rows = CORR, []
    for _ in range(80):
        scale = np.sqrt(np.diag(quasi))
        unit = np.linalg.cholesky(quasi / np.outer(scale, scale)) @ RNG.normal(size=3)
        rows.append(unit)
        quasi = 0.05 * CORR + 0.45 * np.outer(unit, unit) + 0.5 * quasi
    known = np.ones((80, 3), dtype=bool)
    assert float(statistic(np.array(rows), known, CORR).p_value) < 1e-3
    nothing = statistic(np.array(rows), np.zeros_like(known), CORR)
    assert np.isnan(nothing.statistic) and float(nothing.num_cases) == 0
    collinear = np.ones((3, 3))
    assert np.isnan(statistic(np.array(rows), known, collinear).p_value)


@pytest.mark.parametrize(
    ("shape", "num_lags", "message"),
    [((10, 1), 1, "two series"), ((10, 2), 0, "num_lags"), ((10, 2), 10, "num_lags")],
)
def test_what_cannot_be_tested_is_refused(shape, num_lags, message):
    with pytest.raises(ValueError, match=message):
        constant_correlation_test(jnp.ones(shape), jnp.ones(shape, bool), num_lags=num_lags)


def test_it_lowers_for_cuda_and_keeps_single_precision(holed):
    units, known = jnp.asarray(holed[0], jnp.float32), jnp.asarray(holed[1])
    exported = jax.export.export(jax.jit(constant_correlation_test), platforms=["cuda"])
    assert exported(units, known).platforms == ("cuda",)
    result = jax.eval_shape(constant_correlation_test, units, known)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}


@pytest.fixture(scope="module")
def dow_margins(shared_data):
    """Residuals and standard deviations of five Dow stocks at given parameters, in plain NumPy."""
    rdata = pytest.importorskip("rdata")
    table = rdata.read_rda(shared_data / "garch_refs" / "dji30ret.rda")["dji30ret"]
    mean, omega, alpha, beta = DOW_MARGINS.T
    residuals = 100.0 * table.iloc[:, :5].to_numpy() - mean
    variances = np.empty_like(residuals)
    variances[0] = np.mean(residuals**2, axis=0)
    for t in range(1, len(residuals)):
        variances[t] = omega + alpha * residuals[t - 1] ** 2 + beta * variances[t - 1]
    return residuals, np.sqrt(variances)


def test_the_numbers_of_multiarch(dow_margins):
    """multiarch 0.2.0, constant_correlation_test(std_resid=z, lags=...); textbook convention."""
    units = dow_margins[0] / dow_margins[1]
    known = jnp.ones(units.shape, dtype=bool)
    for num_lags, expected in ((1, 8.60432), (5, 43.95531)):
        result = constant_correlation_test(jnp.asarray(units), known, num_lags=num_lags)
        assert float(result.statistic) == pytest.approx(expected, abs=1e-5)
        assert float(result.num_cases) == 10 * (5521 - num_lags)


def test_the_number_of_multiarch_on_the_residuals_of_rmgarch(dow_margins):
    """41.08 in its README, where rmgarch's own statistic is 65.34: five lags. rmgarch's residuals
    are e_t (D_t R D_t)^{-1/2}, R the correlation of normal scores of probabilities up to 0.99999.
    """
    residuals, stds = dow_margins
    tails = np.minimum(stats.norm.cdf(residuals / stds), 0.99999)
    scores = stats.norm.ppf(np.where(tails < np.finfo(float).eps, np.finfo(float).eps, tails))
    covs = stds[:, :, None] * np.corrcoef(scores, rowvar=False) * stds[:, None, :]
    values, vectors = np.linalg.eigh(covs)
    whitened = np.einsum("tia,ta,tja,tj->ti", vectors, values**-0.5, vectors, residuals)
    known = jnp.ones(whitened.shape, dtype=bool)
    result = constant_correlation_test(jnp.asarray(whitened), known, corr=jnp.eye(5))
    assert float(result.statistic) == pytest.approx(41.08, abs=0.005)
