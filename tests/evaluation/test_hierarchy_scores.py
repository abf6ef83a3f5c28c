"""Scores of hierarchies against definitions, another program, and laws that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxfc.evaluation import (
    basis_log_score,
    expected_shortfall,
    joint_log_score,
    joint_tail_score,
    level_table,
    pit_by_level,
    pit_gaussian,
    portfolio_tail,
    quantile_score,
    rmsse,
    scaled_crps,
    scaled_crps_by_level,
    squared_scale,
)
from jaxfc.forecast import GaussianForecast, SampleForecast
from jaxfc.hierarchy import Hierarchy

RNG = np.random.default_rng(3)
TREE = Hierarchy.from_paths(
    ["T/A/AA", "T/A/AB", "T/B/BA", "T/B/BB"], weights=np.array([0.4, 0.1, 0.3, 0.2])
)
SUMS = np.asarray(TREE.to_frame())
HISTORY = RNG.normal(size=(30, 7)).cumsum(axis=0)
HISTORY[4:9, 1] = np.nan
MEAN = RNG.normal(size=(12, 7))
REALISED = RNG.normal(size=(12, 7))
REALISED[3, 2] = REALISED[5, 6] = np.nan


@pytest.mark.parametrize(
    ("benchmark", "period", "plain"),
    [
        ("naive", 1, lambda y: pd.Series(y).diff()),
        ("naive", 4, lambda y: pd.Series(y).diff(4)),
        ("zero", 1, lambda y: pd.Series(y)),
        ("mean", 1, lambda y: pd.Series(y) - pd.Series(y).mean()),
    ],
)
def test_scaled_errors_are_their_definition(benchmark, period, plain):
    scale = squared_scale(jnp.asarray(HISTORY), benchmark, period=period)
    got = rmsse(jnp.asarray(MEAN), jnp.asarray(REALISED), scale)
    for node in range(7):
        expected = np.nanmean(plain(HISTORY[:, node]) ** 2)
        np.testing.assert_allclose(scale[node], expected, rtol=1e-12)
        error = np.nanmean((MEAN[:, node] - REALISED[:, node]) ** 2)
        np.testing.assert_allclose(got[node], np.sqrt(error / expected), rtol=1e-12)


def test_scaled_errors_know_no_units_and_no_scale_of_constants():
    base = rmsse(jnp.asarray(MEAN), jnp.asarray(REALISED), squared_scale(jnp.asarray(HISTORY)))
    for unit in (1e-6, 1e6):
        scale = squared_scale(unit * jnp.asarray(HISTORY))
        got = rmsse(unit * jnp.asarray(MEAN), unit * jnp.asarray(REALISED), scale)
        np.testing.assert_allclose(got, base, rtol=1e-10)
    assert np.isnan(squared_scale(jnp.ones((5, 1)))[0])
    by_case = jnp.broadcast_to(squared_scale(jnp.asarray(HISTORY)), (12, 7))
    np.testing.assert_allclose(rmsse(jnp.asarray(MEAN), jnp.asarray(REALISED), by_case), base)


def test_white_noise_has_the_scaled_errors_that_the_docstring_says():
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(40_000, 1)))
    zero = jnp.zeros_like(noise)
    for benchmark, expected in (("naive", np.sqrt(0.5)), ("zero", 1.0), ("mean", 1.0)):
        got = rmsse(zero, noise, squared_scale(noise, benchmark))
        np.testing.assert_allclose(got, expected, atol=0.01)


def test_scaled_crps_is_the_definition_of_the_baselines():
    """Mean over all quantiles and cells, times cells and two, over the sum of |y|; the other
    pooling is utilsforecast's."""
    levels = np.sort(RNG.uniform(0.01, 0.99, size=9))
    quantiles = np.sort(RNG.normal(size=(9, 12, 7)), axis=0)
    full = np.nan_to_num(REALISED)
    gap = full - quantiles
    loss = np.maximum(levels[:, None, None] * gap, (levels[:, None, None] - 1) * gap)
    expected = 2 * loss.mean() * full.size / np.abs(full).sum()
    got = scaled_crps(jnp.asarray(quantiles), jnp.asarray(levels), jnp.asarray(full))
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    each = 2 * loss.mean(axis=(0, 1)) * 12 / np.abs(full).sum(axis=0)
    got = scaled_crps(
        jnp.asarray(quantiles), jnp.asarray(levels), jnp.asarray(full), pooling="series"
    )
    np.testing.assert_allclose(got, each.mean(), rtol=1e-12)
    table = scaled_crps_by_level(quantiles, levels, full, TREE)
    assert list(table.index) == ["level 0", "level 1", "bottom", "all"]
    np.testing.assert_allclose(table["all"], expected, rtol=1e-12)
    low = loss[:, :, 3:].mean() * 48 * 2 / np.abs(full[:, 3:]).sum()
    np.testing.assert_allclose(table["bottom"], low, rtol=1e-12)


def test_scaled_crps_of_another_program():
    losses = pytest.importorskip("utilsforecast.losses", reason="hierarchicalforecast's scores")
    levels = np.array([0.1, 0.3, 0.5, 0.9])
    quantiles = np.sort(RNG.normal(size=(4, 6, 3)), axis=0)
    values = RNG.normal(size=(6, 3))
    names = [f"m{q}" for q in range(4)]
    frame = pd.DataFrame({"unique_id": np.repeat(["a", "b", "c"], 6), "y": values.T.ravel()})
    for q, name in enumerate(names):
        frame[name] = quantiles[q].T.ravel()
    table = losses.scaled_crps(frame, {"m": names}, levels)
    got = [scaled_crps(quantiles[..., i : i + 1], levels, values[:, i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(np.array(got), table["m"], rtol=1e-12)
    both = scaled_crps(quantiles, levels, values, pooling="series")
    np.testing.assert_allclose(both, table["m"].mean(), rtol=1e-12)


def test_many_quantiles_approach_the_crps():
    levels = np.arange(1, 2000) / 2000
    value = jnp.array([[0.0]])
    quantiles = stats.norm.ppf(levels)[:, None, None] + 1.0
    got = scaled_crps(quantiles, levels, value + 1.0)
    np.testing.assert_allclose(got, 0.23369497725510913, rtol=2e-3)


def test_what_was_not_realised_does_not_count():
    levels = np.array([0.25, 0.5, 0.75])
    quantiles = np.sort(RNG.normal(size=(3, 12, 7)), axis=0)
    kept = np.delete(np.arange(12), 3)
    got = scaled_crps(quantiles[..., 2:3], levels, REALISED[:, 2:3])
    expected = scaled_crps(quantiles[:, kept, 2:3], levels, REALISED[kept, 2:3])
    np.testing.assert_allclose(got, expected, rtol=1e-12)

    def total(quantiles):
        return scaled_crps(quantiles, jnp.asarray(levels), jnp.asarray(REALISED))

    gradient = np.asarray(jax.grad(total)(jnp.asarray(quantiles)))
    assert np.all(np.isfinite(gradient)) and np.all(gradient[:, ~np.isfinite(REALISED)] == 0.0)


def test_levels_are_averaged_with_weights_and_without():
    scores = {"ours": np.array([1.0, 2, 4, 1, 2, 3, np.nan])}
    table = level_table(scores, TREE)
    np.testing.assert_allclose(table["ours"], [1, 3, 2, 2])
    weighted = level_table(scores, TREE, weights=np.array([1.0, 3, 1, 2, 0, 2, 5]))
    np.testing.assert_allclose(weighted["ours"], [1, 2.5, 2, 5.5 / 3])
    with pytest.raises(ValueError, match="negative"):
        level_table(scores, TREE, weights=-np.ones(7))
    with pytest.raises(ValueError, match="3 nodes were scored, the hierarchy has 7"):
        level_table({"ours": np.ones(3)}, TREE)


def coherent_law(seed):
    """Means and covariances of all nodes that add up, for three cases."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(3, 4, 6))
    mean, cov = rng.normal(size=(3, 4)), roots @ np.swapaxes(roots, 1, 2)
    return jnp.asarray(mean @ SUMS.T), jnp.asarray(SUMS @ cov @ SUMS.T)


def test_bases_give_the_same_differences_of_coherent_laws():
    outcome = jnp.asarray(RNG.normal(size=(3, 4)) @ SUMS.T)
    scores = {}
    for basis in (None, ["T", "T/A", "T/A/AA", "T/B/BB"]):
        one, two = (basis_log_score(*coherent_law(s), outcome, TREE, basis=basis) for s in (0, 1))
        scores[basis is None] = one, one - two
    np.testing.assert_allclose(scores[True][1], scores[False][1], rtol=1e-9)
    # They differ by log |det| of the change of basis.
    rows = SUMS[[0, 1, 3, 6]]
    change = scores[False][0] - scores[True][0]
    np.testing.assert_allclose(change, np.log(abs(np.linalg.det(rows))), rtol=1e-9)
    mean, cov = coherent_law(0)
    expected = joint_log_score(mean[:, 3:], cov[:, 3:, 3:], outcome[:, 3:])
    np.testing.assert_allclose(scores[True][0], expected, rtol=1e-12)


def test_a_density_on_all_nodes_is_refused():
    mean, cov = coherent_law(0)
    with pytest.raises(ValueError, match=r"7 nodes of the basis follow from 4"):
        basis_log_score(mean, cov, mean, TREE, basis=TREE.names)
    with pytest.raises(ValueError, match=r"leave out aggregates such as \['T/A'\]"):
        basis_log_score(mean, cov, mean, TREE, basis=["T/A", "T/A/AA", "T/A/AB"])
    with pytest.raises(ValueError, match="no node 'X'"):
        basis_log_score(mean, cov, mean, TREE, basis=["X"])


WEIGHTS = np.array([0.5, 0.0, 0.3, 0.2])
BOTTOM = REALISED[:, 3:]


def test_tail_of_a_portfolio_of_draws():
    draws = jnp.asarray(RNG.normal(size=(400, 12, 4)))
    got = portfolio_tail(SampleForecast(draws), WEIGHTS, BOTTOM, 0.05)
    returns = np.asarray(draws) @ WEIGHTS
    np.testing.assert_allclose(got.value_at_risk, np.quantile(returns, 0.05, axis=0), rtol=1e-10)
    worst = np.sort(returns, axis=0)[:20].mean(axis=0)
    np.testing.assert_allclose(got.expected_shortfall, worst, rtol=1e-10)
    realised = BOTTOM @ WEIGHTS
    assert np.isnan(got.realised[5])  # BB was not realised and has a weight
    np.testing.assert_allclose(got.realised, realised, rtol=1e-12)
    score = np.where(realised < got.value_at_risk, 0.95, -0.05) * (got.value_at_risk - realised)
    np.testing.assert_allclose(got.quantile_score, score, rtol=1e-10)
    joint = joint_tail_score(got.value_at_risk, got.expected_shortfall, realised, 0.05)
    np.testing.assert_allclose(got.joint_score, joint, rtol=1e-12)
    assert np.array_equal(got.violations[:5], realised[:5] < got.value_at_risk[:5])


def test_tail_of_a_normal_portfolio_and_series_without_a_weight():
    roots = RNG.normal(size=(4, 4))
    cov = np.einsum("hk,ij->hikj", np.eye(12), roots @ roots.T)
    law = GaussianForecast(jnp.asarray(MEAN[:, 3:]), jnp.asarray(cov))
    missing = BOTTOM.copy()
    missing[:, 1] = np.nan
    got = portfolio_tail(law, WEIGHTS, missing, 0.01)
    std = np.sqrt(WEIGHTS @ roots @ roots.T @ WEIGHTS)
    mean = MEAN[:, 3:] @ WEIGHTS
    np.testing.assert_allclose(got.value_at_risk, stats.norm(mean, std).ppf(0.01), rtol=1e-9)
    shortfall = expected_shortfall(law.aggregate(jnp.asarray(WEIGHTS)[None]), 0.01)[:, 0]
    np.testing.assert_allclose(got.expected_shortfall, shortfall, rtol=1e-12)
    assert np.array_equal(np.isfinite(got.realised), np.arange(12) != 5)
    expected = quantile_score(got.value_at_risk, got.realised, 0.01)
    np.testing.assert_allclose(got.quantile_score, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="the forecast is"):
        portfolio_tail(law, WEIGHTS[:3], missing, 0.01)


def test_calibration_by_level_finds_the_level_that_is_wrong():
    """400 cases; the sectors' laws are half as wide as they should be."""
    outcome = np.random.default_rng(1).normal(size=(400, 7))
    std = np.where(np.arange(7) % 7 == 1, 0.5, np.where(np.arange(7) == 2, 0.5, 1.0))
    pits = pit_gaussian(jnp.zeros((400, 7)), jnp.asarray(np.tile(std, (400, 1))), outcome)
    table = pit_by_level(pits, TREE)
    assert list(table["nodes"]) == [1, 2, 4, 7]
    assert table.loc["level 1", "rejected"] == 1.0 and table.loc["level 1", "p_value"] < 1e-4
    assert table.loc["bottom", "p_value"] > 0.01 and table.loc["all", "p_value"] < 1e-4
    assert table.loc["level 1", "std"] > 0.33 and abs(table.loc["bottom", "std"] - 0.289) < 0.02


def test_bad_options_are_named():
    history = jnp.asarray(HISTORY)
    with pytest.raises(ValueError, match=r"period must be in 1\.\.29"):
        squared_scale(history, period=30)
    with pytest.raises(ValueError, match="benchmark must be"):
        getattr(squared_scale, "__wrapped__", squared_scale)(history, "drift")
    with pytest.raises(ValueError, match="pooling must be"):
        unchecked = getattr(scaled_crps, "__wrapped__", scaled_crps)
        unchecked(history[None], np.array([0.5]), history, pooling="all")
