"""Joint scores against their definitions, another program and published numbers; calibration of
laws that are right and wrong."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules
from scipy import stats

from jaxfc.evaluation import (
    energy_score,
    joint_log_score,
    joint_pit,
    pit_kolmogorov,
    pit_uniformity,
    rank_histogram,
    variogram_score,
)

RNG = np.random.default_rng(4)
DRAWS = RNG.normal(size=(8, 5, 3)) * [1.0, 2.0, 0.5]
REALISED = RNG.normal(size=(5, 3))
HOLES = np.where([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], REALISED, np.nan)


def plain_energy(draws, outcome, *, fair):
    """The definition, pair by pair."""
    error = np.mean([np.linalg.norm(x - outcome) for x in draws])
    spread = sum(np.linalg.norm(x - z) for x in draws for z in draws)
    return error - spread / (2 * len(draws) * (len(draws) - (1 if fair else 0)))


def plain_variogram(draws, outcome, power, weights, *, fair):
    """The definition, pair by pair."""
    total = 0.0
    for i, j in itertools.combinations(range(len(outcome)), 2):
        apart = np.abs(draws[:, i] - draws[:, j]) ** power
        loss = (np.abs(outcome[i] - outcome[j]) ** power - apart.mean()) ** 2
        total += weights[i, j] * (loss - (apart.var(ddof=1) / len(draws) if fair else 0.0))
    return total


def test_published_numbers_of_an_ensemble_of_four():
    draws = jnp.array([[0.0, 0], [1, 0], [0, 2], [2, 1]])[:, None]
    outcome = jnp.ones((1, 2))
    got = [
        energy_score(draws, outcome, fair=False),
        energy_score(draws, outcome),
        variogram_score(draws, outcome),
    ]
    expected = [0.5119556877570184, 0.28023865661384206, 0.7285533905932737]
    np.testing.assert_allclose(np.concatenate(got), expected, rtol=1e-14)


@pytest.mark.parametrize("fair", [True, False])
@pytest.mark.parametrize("num_draws", [7, 8, 2])
def test_scores_are_their_definitions_also_with_holes(fair, num_draws):
    draws = DRAWS[:num_draws]
    weights = np.array([[0, 1.0, 0.2], [1, 0, 3], [0.2, 3, 0]])
    energy = energy_score(jnp.asarray(draws), jnp.asarray(HOLES), fair=fair)
    variogram = variogram_score(
        jnp.asarray(draws), jnp.asarray(HOLES), power=1.5, weights=jnp.asarray(weights), fair=fair
    )
    for case, outcome in enumerate(HOLES):
        seen = np.isfinite(outcome)
        some, inner = draws[:, case, seen], weights[np.ix_(seen, seen)]
        if not seen.any():
            assert np.isnan(energy[case]) and np.isnan(variogram[case])
            continue
        expected = plain_energy(some, outcome[seen], fair=fair)
        np.testing.assert_allclose(energy[case], expected, rtol=1e-12)
        if seen.sum() > 1:
            expected = plain_variogram(some, outcome[seen], 1.5, inner, fair=fair)
            np.testing.assert_allclose(variogram[case], expected, rtol=1e-11)
        else:
            assert np.isnan(variogram[case])


def test_scores_of_another_program():
    moved = np.moveaxis(DRAWS, 0, 1)
    for fair, name in ((True, "fair"), (False, "nrg")):
        expected = scoringrules.es_ensemble(REALISED, moved, estimator=name, backend="numpy")
        got = energy_score(jnp.asarray(DRAWS), jnp.asarray(REALISED), fair=fair)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        twice = scoringrules.vs_ensemble(REALISED, moved, estimator=name, backend="numpy")
        got = variogram_score(jnp.asarray(DRAWS), jnp.asarray(REALISED), fair=fair)
        np.testing.assert_allclose(got, twice / 2, rtol=1e-11)


def test_energy_score_of_one_series_is_its_crps():
    one = energy_score(jnp.asarray(DRAWS[..., :1]), jnp.asarray(REALISED[:, :1]), fair=False)
    moved = np.moveaxis(DRAWS[..., 0], 0, 1)
    expected = scoringrules.crps_ensemble(REALISED[:, 0], moved, estimator="nrg", backend="numpy")
    np.testing.assert_allclose(one, expected, rtol=1e-12)


def test_few_shifts_are_unbiased():
    """The mean over 2000 cases differs by noise: less than 4 standard errors of the differences."""
    rng = np.random.default_rng(0)
    draws, outcome = rng.normal(size=(10, 2000, 2)), rng.normal(size=(2000, 2))
    every = energy_score(jnp.asarray(draws), jnp.asarray(outcome))
    some = energy_score(jnp.asarray(draws), jnp.asarray(outcome), num_shifts=2)
    gap = np.asarray(some - every)
    assert 0 < np.std(gap) and abs(gap.mean()) < 4 * gap.std() / np.sqrt(2000)
    most = energy_score(jnp.asarray(draws), jnp.asarray(outcome), num_shifts=9)
    np.testing.assert_allclose(most, every, rtol=1e-12)


def test_scores_change_with_units_and_not_with_order():
    draws, outcome = jnp.asarray(DRAWS), jnp.asarray(REALISED)
    turned = jnp.asarray(np.linalg.qr(RNG.normal(size=(3, 3)))[0])
    base = energy_score(draws, outcome)
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(energy_score(scale * draws, scale * outcome), scale * base)
        got = variogram_score(scale * draws, scale * outcome)
        np.testing.assert_allclose(got, scale * variogram_score(draws, outcome), rtol=1e-10)
    np.testing.assert_allclose(energy_score(draws @ turned, outcome @ turned), base, rtol=1e-11)
    np.testing.assert_allclose(energy_score(draws[::-1], outcome), base, rtol=1e-12)
    got = variogram_score(draws + 3.0, outcome + 3.0)  # blind to what all series share
    np.testing.assert_allclose(got, variogram_score(draws, outcome), rtol=1e-10)


def test_derivatives_are_finite_differences_and_never_nan():
    """Also where draws repeat each other, and blind to values that were not realised."""
    repeated = jnp.asarray(np.concatenate([DRAWS[:4], DRAWS[:2]]))
    outcome = jnp.asarray(HOLES)

    def total(draws):
        one = energy_score(draws, outcome)
        return jnp.nansum(one) + jnp.nansum(variogram_score(draws, outcome))

    value = jax.jit(total)
    gradient = np.asarray(jax.jit(jax.grad(total))(repeated))
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[:, ~np.isfinite(HOLES)] == 0.0)
    for place in [(2, 0, 1), (3, 4, 2), (2, 1, 0)]:
        step = jnp.zeros_like(repeated).at[place].set(1e-6)
        difference = (value(repeated + step) - value(repeated - step)) / 2e-6
        np.testing.assert_allclose(gradient[place], difference, rtol=1e-6)


def test_log_score_is_that_of_scipy_on_what_was_realised():
    roots = RNG.normal(size=(5, 3, 4))
    cov = roots @ np.swapaxes(roots, 1, 2)
    got = np.asarray(joint_log_score(jnp.asarray(DRAWS[0]), jnp.asarray(cov), jnp.asarray(HOLES)))
    for case, outcome in enumerate(HOLES):
        seen = np.isfinite(outcome)
        if not seen.any():
            assert np.isnan(got[case])
            continue
        law = stats.multivariate_normal(DRAWS[0, case, seen], cov[case][np.ix_(seen, seen)])
        np.testing.assert_allclose(got[case], -law.logpdf(outcome[seen]), rtol=1e-10)

    def of_mean(mean):
        return jnp.nansum(joint_log_score(mean, jnp.asarray(cov), jnp.asarray(HOLES)))

    gradient = np.asarray(jax.grad(of_mean)(jnp.asarray(DRAWS[0])))
    assert np.all(np.isfinite(gradient)) and np.all(gradient[~np.isfinite(HOLES)] == 0.0)


def plain_prerank(pool, kind):
    """Pre-ranks of all vectors of one case by counting."""
    size, series = pool.shape
    numbers = np.zeros(size)
    for i, vector in enumerate(pool):
        if kind == "multivariate":
            numbers[i] = sum(np.all(other <= vector) for other in pool)
            continue
        for k in range(series):
            column = pool[:, k]
            if kind == "average":
                numbers[i] += stats.rankdata(column)[i]
            else:
                numbers[i] += sum(
                    min(a, b) <= vector[k] <= max(a, b)
                    for a, b in itertools.combinations(column, 2)
                )
    return numbers


@pytest.mark.parametrize("kind", ["average", "band_depth", "multivariate"])
def test_preranks_are_counted_also_with_ties_and_holes(kind):
    draws, outcome = np.round(DRAWS), np.where(np.isfinite(HOLES), np.round(HOLES), np.nan)
    got = np.asarray(joint_pit(jnp.asarray(draws), jnp.asarray(outcome), kind=kind))
    for case, values in enumerate(outcome):
        seen = np.isfinite(values)
        if not seen.any():
            assert np.isnan(got[case])
            continue
        pool = np.concatenate([values[None, seen], draws[:, case, seen]])
        numbers = plain_prerank(pool, kind)
        below, ties = np.sum(numbers[1:] < numbers[0]), np.sum(numbers[1:] == numbers[0])
        np.testing.assert_allclose(got[case], (below + 0.5 * (ties + 1)) / (len(draws) + 1))


def joint_transforms(draw_corr, draw_std, kind, num_cases=600):
    """Transforms of outcomes with correlation 0.6 by draws of another law."""
    rng = np.random.default_rng(8)
    truth = np.linalg.cholesky(0.4 * np.eye(4) + 0.6)
    law = draw_std * np.linalg.cholesky((1 - draw_corr) * np.eye(4) + draw_corr)
    outcome = jnp.asarray(rng.normal(size=(num_cases, 4)) @ truth.T)
    draws = jnp.asarray(rng.normal(size=(39, num_cases, 4)) @ law.T)
    return joint_pit(draws, outcome, kind=kind, key=jax.random.key(0))


@pytest.mark.parametrize("kind", ["average", "band_depth", "multivariate"])
def test_the_right_law_is_uniform_and_wrong_ones_are_not(kind):
    right = joint_transforms(0.6, 1.0, kind)
    assert pit_uniformity(right, num_bins=10).p_value > 0.05
    assert pit_kolmogorov(right).p_value > 0.05
    assert pit_kolmogorov(joint_transforms(0.6, 0.6, kind)).p_value < 1e-3
    # Margins that are right with dependence that is not: what a joint test is for.
    assert pit_uniformity(joint_transforms(0.0, 1.0, kind), num_bins=10).p_value < 1e-3


def test_histogram_counts():
    transforms = jnp.array([0.05, 0.15, 0.17, 0.95, 1.0, jnp.nan])
    got = np.asarray(rank_histogram(transforms, 10))
    np.testing.assert_allclose(got, [0.2, 0.4, 0, 0, 0, 0, 0, 0, 0, 0.4])
    with pytest.raises(ValueError, match="num_bins"):
        rank_histogram(transforms, 1)


def test_bad_input_is_named():
    draws, outcome = jnp.asarray(DRAWS), jnp.asarray(REALISED)
    with pytest.raises(ValueError, match="at least 2 draws"):
        energy_score(draws[:1], outcome)
    with pytest.raises(ValueError, match="draws are"):
        energy_score(draws, outcome[:, :2])
    with pytest.raises(ValueError, match="num_shifts"):
        energy_score(draws, outcome, num_shifts=8)
    with pytest.raises(ValueError, match="weights of shape"):
        variogram_score(draws, outcome, weights=jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="kind must be"):
        getattr(joint_pit, "__wrapped__", joint_pit)(draws, outcome, kind="depth")


def test_memory_is_not_that_of_all_pairs():
    """Temporary memory of the score and of its derivative, by the compiler: a few times the
    draws, far below draws^2 x series."""
    draws, outcome = jnp.zeros((200, 2, 50)), jnp.zeros((2, 50))

    def total(draws):
        return jnp.sum(energy_score(draws, outcome))

    for function in (total, jax.grad(total)):
        compiled = jax.jit(function).lower(draws).compile()
        used = compiled.memory_analysis()
        assert used is not None and used.temp_size_in_bytes < 12 * draws.nbytes


def test_scores_lower_for_cuda():
    draws, outcome = jnp.asarray(DRAWS), jnp.asarray(REALISED)

    def everything(draws, outcome):
        pits = [
            joint_pit(draws, outcome, kind=k) for k in ("average", "band_depth", "multivariate")
        ]
        return energy_score(draws, outcome), variogram_score(draws, outcome), pits

    exported = jax.export.export(jax.jit(everything), platforms=["cuda"])(draws, outcome)
    assert "cuda" in exported.platforms
