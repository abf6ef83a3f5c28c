"""Criteria for the number of factors against their definitions, and where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors.criteria import CRITERIA, criteria_from, factor_criteria

pytestmark = pytest.mark.slow

MAX_FACTORS = 5
jitted = jax.jit(
    factor_criteria, static_argnums=2, static_argnames=("residual", "standardise", "multiplier")
)


def standardised(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


def oracle(values: np.ndarray, max_factors: int, multiplier: float, residual: str) -> dict:
    """Each criterion from least-squares fits of 0..Kmax + 1 principal components."""
    num_times, num_series = values.shape
    left, singular, right = np.linalg.svd(values, full_matrices=False)

    def rest(k):
        return np.sum((values - (left[:, :k] * singular[:k]) @ right[:k]) ** 2) / num_times

    v = {k: rest(k) / num_series for k in range(max_factors + 2)}
    own = {k: rest(k) / (num_series - k) for k in range(1, max_factors + 1)}
    smaller, cells = min(values.shape), num_series * num_times
    g = [
        (num_series + num_times) / cells * np.log(cells / (num_series + num_times)),
        (num_series + num_times) / cells * np.log(smaller),
        np.log(smaller) / smaller,
    ]
    numbers = range(1, max_factors + 1)
    expected = {}
    for j in range(3):
        expected[f"pc{j + 1}"] = [v[k] + k * v[max_factors] * g[j] for k in numbers]
        expected[f"ic{j + 1}"] = [np.log(v[k]) + k * g[j] for k in numbers]
    slope = multiplier * (own[1] - own[max_factors])
    fit = own if residual == "ppca" else v
    expected["modified"] = [fit[k] + k * slope * g[1] for k in numbers]
    shares = singular**2
    expected["eigenvalue_ratio"] = [shares[k - 1] / shares[k] for k in numbers]
    growth = {k: np.log(1 + shares[k - 1] / shares[k:].sum()) for k in range(1, max_factors + 2)}
    expected["growth_ratio"] = [growth[k] / growth[k + 1] for k in numbers]
    return expected


@pytest.mark.parametrize("shape", [(30, 9), (9, 30)])
@pytest.mark.parametrize(("residual", "multiplier"), [("ppca", None), ("pca", 0.7)])
def test_criteria_equal_their_definitions(shape, residual, multiplier):
    values = np.random.default_rng(0).normal(size=shape).cumsum(axis=1) + 5.0
    found = jitted(
        values, np.ones(shape, bool), MAX_FACTORS, residual=residual, multiplier=multiplier
    )
    factor = 1 / (MAX_FACTORS - 1) if multiplier is None else multiplier
    expected = oracle(standardised(values), MAX_FACTORS, factor, residual)
    assert set(expected) == set(CRITERIA)
    for name, values_by_number in expected.items():
        np.testing.assert_allclose(getattr(found, name), values_by_number, rtol=1e-9)
        pick = np.argmax if name.endswith("ratio") else np.argmin
        assert int(found.selected(name)) == pick(values_by_number) + 1


def simulated(seed, num_times, num_series, num_factors, missing=0.0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_times, num_factors))
    values = factors @ rng.normal(size=(num_factors, num_series))
    values = values + 0.5 * rng.normal(size=values.shape)
    return values, rng.uniform(size=values.shape) >= missing


def shares_of_the_truth(missing, standardise):
    """Share of 40 panels, (T, N) = (100, 35), K = 3 of at most 10, by criterion."""
    panels = [simulated(seed, 100, 35, 3, missing) for seed in range(40)]
    values, observed = (jnp.asarray(np.stack(part)) for part in zip(*panels, strict=True))

    @jax.jit
    def choose(values, observed):
        criteria = factor_criteria(values, observed, 10, standardise=standardise)
        return {name: criteria.selected(name) for name in CRITERIA}

    together = jax.vmap(choose)(values, observed)
    assert choose(values[7], observed[7]) == {k: chosen[7] for k, chosen in together.items()}
    return {name: float(jnp.mean(chosen == 3)) for name, chosen in together.items()}


def test_criteria_find_the_number_under_equal_noise():
    """Complete panels in their own units. PC_1 and PC_3 need more than 35 series."""
    shares = shares_of_the_truth(missing=0.0, standardise=False)
    assert all(share >= 0.9 for name, share in shares.items() if name not in ("pc1", "pc3")), shares


def test_ratios_find_the_number_with_pairwise_moments():
    """Here the noise shares of the series differ, and the small eigenvalues are inflated."""
    shares = shares_of_the_truth(missing=0.1, standardise=True)
    assert shares["eigenvalue_ratio"] >= 0.9 and shares["growth_ratio"] >= 0.9


def test_an_incomplete_panel_uses_pairwise_moments():
    values, observed = simulated(0, 60, 8, 2, missing=0.3)
    seen = np.where(observed, values, np.nan)
    z = (values - np.nanmean(seen, axis=0)) / np.nanstd(seen, axis=0)
    cov = np.empty((8, 8))
    for i in range(8):
        for j in range(8):
            both = observed[:, i] & observed[:, j]
            cov[i, j] = np.mean(z[both, i] * z[both, j])
    ratios = np.linalg.eigvalsh(cov)[::-1]
    found = jitted(values, observed, 3)
    np.testing.assert_allclose(found.eigenvalue_ratio, ratios[:3] / ratios[1:4], rtol=1e-9)


def test_what_is_not_observed_is_never_read():
    values, observed = simulated(1, 40, 8, 2, missing=0.2)
    found = jitted(np.where(observed, values, 0.0), observed, 3)
    other = jitted(np.where(observed, values, 1e9), observed, 3)
    np.testing.assert_array_equal(found.ic2, other.ic2)


def test_the_scale_of_a_series_matters_only_without_standardising():
    values, observed = simulated(2, 40, 8, 2)
    larger = values * np.asarray([9.0] + [1.0] * 7)
    np.testing.assert_allclose(
        jitted(larger, observed, 3).pc1, jitted(values, observed, 3).pc1, rtol=1e-9
    )
    raw = [jitted(x, observed, 3, standardise=False).pc1 for x in (larger, values)]
    assert float(jnp.max(jnp.abs(raw[0] - raw[1]))) > 0.1


def test_a_criterion_that_is_nowhere_finite_selects_none():
    criteria = criteria_from(jnp.full((3, 6), jnp.nan), 20, None, "ppca")
    assert [int(criteria.selected(name)) for name in CRITERIA] == [0] * len(CRITERIA)


def test_the_table_has_all_criteria():
    values, observed = simulated(3, 40, 8, 2)
    found = jitted(values, observed, 3)
    frame = found.to_frame()
    assert list(frame.columns) == list(CRITERIA) and list(frame.index) == [1, 2, 3]
    np.testing.assert_array_equal(frame["ic1"], found.ic1)


@pytest.mark.parametrize("max_factors", [0, 1, 7])
def test_sizes_without_criteria_are_refused(max_factors):
    with pytest.raises(ValueError, match="max_factors must be from 2 to 6"):
        factor_criteria(jnp.ones((20, 8)), jnp.ones((20, 8), bool), max_factors)


def test_unknown_names_are_refused():
    values, observed = jnp.ones((20, 8)), jnp.ones((20, 8), bool)
    with pytest.raises((ValueError, TypeError), match="bayes"):
        factor_criteria(values, observed, 3, residual="bayes")
    with pytest.raises((ValueError, TypeError), match="bic"):
        jitted(*simulated(4, 40, 8, 2), 3).selected("bic")
