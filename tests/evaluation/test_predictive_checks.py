"""Checks by class against plain loops, clustered errors against simulated ones."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxfc.evaluation.intervals import pit_draws
from jaxfc.evaluation.predictive_checks import (
    calibration_by_class,
    clustered_mean,
    pit_weighted,
    reliability,
)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 1)) + rng.normal(size=(12, 7))
    x[0, 3:] = np.nan
    x[5] = np.nan
    return x


def clustered(x):
    """Mean and clustered error by loops."""
    periods = [row[~np.isnan(row)] for row in x]
    periods = [row for row in periods if len(row)]
    flat = np.concatenate(periods)
    total = sum(np.sum(row - flat.mean()) ** 2 for row in periods)
    factor = len(periods) / (len(periods) - 1)
    return flat.mean(), np.sqrt(factor * total) / len(flat), len(flat), len(periods)


def test_clustered_means(cells):
    found = clustered_mean(cells)
    np.testing.assert_allclose(np.asarray(found), clustered(cells), rtol=1e-12)
    both = clustered_mean(np.stack([cells, 2 * cells], axis=2))
    np.testing.assert_allclose(both.error, [found.error, 2 * found.error])
    one = clustered_mean(cells[:, :1])  # one cell a period: the usual error of a mean
    known = cells[~np.isnan(cells[:, 0]), 0]
    np.testing.assert_allclose(one.error, stats.sem(known), rtol=1e-12)
    assert np.isnan(clustered_mean(cells[:1]).error)


def test_clustered_errors_are_those_of_dependent_series():
    """5,000 samples of 20 periods of 8 dependent series: the sd of the mean is the mean error."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5000, 20, 1)) + 0.5 * rng.normal(size=(5000, 20, 8))
    errors = jax.jit(jax.vmap(lambda cells: clustered_mean(cells).error))(x)
    spread = x.mean((1, 2)).std()
    np.testing.assert_allclose(np.sqrt(np.mean(np.asarray(errors) ** 2)), spread, rtol=0.04)
    naive = np.sqrt(x.var((1, 2)) / 160).mean()
    assert naive < 0.5 * spread


def test_weighted_transforms():
    rng = np.random.default_rng(2)
    draws = np.round(rng.normal(size=(40, 5)), 1)
    realised = np.array([0.1, -0.4, np.nan, 9.0, draws[3, 4]])
    equal = pit_weighted(draws, np.full(40, 1 / 40), realised)
    np.testing.assert_allclose(equal, pit_draws(draws, realised), rtol=1e-12)
    # Weights that are multiplicities are repeated draws of the same number of effective ones.
    weights = rng.dirichlet(np.ones(40))
    found = pit_weighted(draws, weights, realised)
    count = 1 / np.sum(weights**2)
    for column in (0, 1, 3, 4):
        below = weights[draws[:, column] < realised[column]].sum()
        ties = weights[draws[:, column] == realised[column]].sum()
        by_hand = (count * below + 0.5 * (count * ties + 1)) / (count + 1)
        np.testing.assert_allclose(found[column], by_hand, rtol=1e-12)
    assert np.isnan(found[2])


def test_randomised_transforms_of_discrete_outcomes_are_uniform():
    """Counts have ties; weighted draws of q stand for the law p by their importance weights."""
    rng = np.random.default_rng(3)
    values, p, q = np.arange(4), np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, 0.25)
    draws = np.broadcast_to(np.repeat(values, 100)[:, None] * 1.0, (400, 2000))
    weights = np.repeat(p / q, 100) / 400
    realised = rng.choice(values, size=2000, p=p) * 1.0
    u = pit_weighted(draws, weights, realised, key=jax.random.key(0))
    assert stats.kstest(np.asarray(u), stats.uniform.cdf).pvalue > 1e-3
    plain = pit_weighted(draws, np.ones(400), realised, key=jax.random.key(0))
    assert stats.kstest(np.asarray(plain), stats.uniform.cdf).pvalue < 1e-6


def test_calibration_by_class_is_a_table_of_loops():
    rng = np.random.default_rng(4)
    u = rng.uniform(size=(30, 5))
    u[:4, 1] = np.nan
    classes = ("stock", "bond", "stock", "bond", "gold")
    table = calibration_by_class(u, classes)
    assert list(table.index) == ["stock", "bond", "gold", "all"]
    for name in table.index:
        columns = [i for i in range(5) if name in (classes[i], "all")]
        part = u[:, columns]
        for level in (50, 80, 95):
            inside = np.where(np.isnan(part), np.nan, np.abs(part - 0.5) <= level / 200)
            mean, error, count, periods = clustered(inside)
            row = table.loc[name]
            np.testing.assert_allclose(row[f"cover_{level}"], mean)
            np.testing.assert_allclose(row[f"cover_{level}_error"], error)
            assert (row["cells"], row["periods"]) == (count, periods)
        np.testing.assert_allclose(table.loc[name, "spread"], clustered(12 * (part - 0.5) ** 2)[0])
        np.testing.assert_allclose(table.loc[name, "mean_error"], clustered(part)[1])
    with pytest.raises(ValueError, match="4 classes for 5 series"):
        calibration_by_class(u, classes[:4])
    with pytest.raises(ValueError, match="cannot be called 'all'"):
        calibration_by_class(u, ("all", *classes[1:]))
    with pytest.raises(ValueError, match="levels are probabilities"):
        calibration_by_class(u, levels=(50.0,))


def test_forecasts_that_are_too_narrow_cover_too_little_and_spread_too_far():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(400, 6))
    right = calibration_by_class(stats.norm.cdf(z)).loc["all"]
    narrow = calibration_by_class(stats.norm.cdf(z / 0.7)).loc["all"]
    for level in (50, 80, 95):
        assert abs(right[f"cover_{level}"] - level / 100) < 4 * right[f"cover_{level}_error"]
        exact = 2 * stats.norm.cdf(0.7 * stats.norm.ppf(0.5 + level / 200)) - 1
        assert abs(narrow[f"cover_{level}"] - exact) < 4 * narrow[f"cover_{level}_error"]
    assert abs(right["spread"] - 1) < 4 * right["spread_error"]
    assert narrow["spread"] > 1 + 8 * narrow["spread_error"]


def test_reliability_by_bins():
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.ones(5), size=(60, 4))
    outcome = np.array([[rng.multinomial(1, p[t, i]) for i in range(4)] for t in range(60)])
    outcome = outcome.astype(float)
    p[3, 2], outcome[3, 2] = np.nan, np.nan
    table = reliability(p, outcome, num_bins=5)
    for row in table.itertuples():
        inside = (p >= row[1]) & ((p < row[2]) | (row[2] == 1.0))
        assert row.cells == inside.sum()
        np.testing.assert_allclose(row.forecast, p[inside].mean())
        np.testing.assert_allclose(row.frequency, outcome[inside].mean())
        gaps = np.where(inside, outcome - p, np.nan).reshape(60, -1)
        binomial = np.sqrt(np.sum((p * (1 - p))[inside])) / inside.sum()
        np.testing.assert_allclose(row.error, max(clustered(gaps)[1], binomial))
    assert table["cells"].sum() == 60 * 4 * 5 - 5
    assert np.all(np.abs(table["z"]) < 4)
    overconfident = reliability(np.clip(2 * p - 0.2, 0, 1), outcome, num_bins=4)
    assert np.abs(overconfident["z"]).max() > 4
    edges = reliability(p, outcome, edges=(0.0, 0.2, 1.0))
    assert list(edges["from"]) == [0.0, 0.2]
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        reliability(2 * p, outcome)
    with pytest.raises(ValueError, match="edges must increase"):
        reliability(p, outcome, edges=(0.0, 0.5, 0.5))
    with pytest.raises(ValueError, match="for outcomes"):
        reliability(p, outcome[:, :2])


def test_clustered_means_lower_for_cuda():
    exported = jax.export.export(jax.jit(lambda x: clustered_mean(x).error), platforms=["cuda"])
    assert exported(jnp.zeros((3, 2))).platforms == ("cuda",)
