"""The study of recursion: its worlds against loops and simulation, its rivals, a small run."""

import dataclasses
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import recursion, recursion_real
from experiments.recursion_answers import holm, paired, write_tables
from experiments.recursion_models import (
    HALF_LIVES,
    NETWORKS,
    Anchor,
    Span,
    constant_anchor,
    weighted_anchor,
)
from experiments.recursion_training import Days, features_in_units, trained_and_scored
from experiments.recursion_worlds import filtered_mixture, make_world, normal_loss, simulate
from jaxfc.datasets import us_stocks
from jaxfc.recursive import GaussianHead, Training

RNG = np.random.default_rng(9)
RESULTS = Path(__file__).parents[1] / "experiments" / "results"


@pytest.fixture(scope="module")
def draw():
    return jax.jit(simulate, static_argnums=1)


@pytest.fixture(scope="module")
def path_of_a(draw):
    return draw(make_world("A"), 40_000, key=jax.random.key(2))


@pytest.mark.parametrize(
    "implementation", ["sequential", pytest.param("parallel", marks=pytest.mark.slow)]
)
def test_the_exact_filter_is_that_of_a_plain_loop(path_of_a, implementation):
    world = make_world("A")
    values = np.asarray(path_of_a.values[:60])
    law = world.stationary, world.transition, world.means, world.covs
    got = filtered_mixture(jnp.asarray(values), *law, implementation)
    chance, transition, means, covs = (np.asarray(part) for part in law)
    for day, row in enumerate(values):
        mean = chance @ means
        variances = np.diagonal(covs, axis1=1, axis2=2)
        square = chance @ (variances + means**2) - mean**2
        np.testing.assert_allclose(got.means[day], mean, atol=1e-12)
        np.testing.assert_allclose(got.stds[day], np.sqrt(square), rtol=1e-10)
        each = stats.norm.pdf(row, means, np.sqrt(variances))
        np.testing.assert_allclose(got.log_densities[day], np.log(chance @ each), rtol=1e-9)
        joint = [stats.multivariate_normal.pdf(row, *own) for own in zip(means, covs, strict=True)]
        chance = chance * joint
        chance = chance / chance.sum() @ transition


def test_world_a_has_the_moments_it_says(path_of_a):
    world, path = make_world("A"), path_of_a
    share = np.asarray(world.stationary)
    np.testing.assert_allclose(share @ np.asarray(world.transition), share, atol=1e-12)
    own = np.diagonal(world.covs, axis1=1, axis2=2) + np.asarray(world.means) ** 2
    np.testing.assert_allclose(share @ own - (share @ np.asarray(world.means)) ** 2, 1.0)
    for regime in range(3):
        rows = np.asarray(path.values)[np.asarray(path.regimes) == regime]
        assert abs(len(rows) / 40_000 - share[regime]) < 0.06  # stays last for weeks
        stds = np.sqrt(np.diagonal(world.covs[regime]))
        errors = (rows.mean(axis=0) - world.means[regime]) / stds * np.sqrt(len(rows))
        assert np.max(np.abs(errors)) < 4.0
        corr = np.cov(rows.T) / stds / stds[:, None]
        expected = np.asarray(world.covs[regime]) / stds / stds[:, None]
        assert np.max(np.abs(corr - expected)) * np.sqrt(len(rows)) < 6.0


@pytest.mark.slow
def test_the_true_moments_of_world_b_are_those_of_its_returns(draw, path_of_a):
    """Standardised by them, returns have mean 0 and variance 1 whatever the day before was."""
    path = draw(make_world("B"), 40_000, key=jax.random.key(3))
    units = np.asarray((path.values - path.means) / path.stds)
    assert np.max(np.abs(units.mean(axis=0))) * 200 < 4.0
    assert np.max(np.abs((units**2).mean(axis=0) - 1.0)) < 0.05
    assert (stats.kurtosis(units) > 0.3).all()  # Student's, thinned by the sum
    level = np.log(np.asarray(path.stds))
    known = [path.means, level, np.roll(units, 1, axis=0), np.roll(units[:, :1] + 0 * units, 1, 0)]
    for reason in known:
        for what in (units, units**2):
            for asset in range(8):
                corr = np.corrcoef(np.asarray(reason)[1:, asset], what[1:, asset])[0, 1]
                assert abs(corr) * 200 < 5.0
    raw = np.asarray(path.values)
    leads = [np.corrcoef(raw[:-1, 0], raw[1:, asset])[0, 1] for asset in range(8)]
    assert min(leads[1:4]) > max(leads[4:])  # one asset leads the next three
    # Regimes alone leave volatility clustered; here it is by more than they can explain.
    assert np.std(level) > 1.2 * np.std(np.log(np.asarray(path_of_a.stds)))


def test_rivals_have_equal_numbers_of_parameters():
    counts = [rival.num_trained(32, 8) for rival in NETWORKS.values()]
    linear = 32 * 8 * 3 * 16 + 16
    assert counts[list(NETWORKS).index("linear")] == linear
    assert max(abs(count / linear - 1.0) for count in counts) < 0.1
    rival = NETWORKS["recurrence, recursion"]
    network = rival.architecture.build(rival.sizes(32, 8), rival.head, key=jax.random.key(0))
    leaves = jax.tree.leaves(network)
    assert sum(leaf.size for leaf in leaves) == 11_417 + 2 * 24  # the start is not trained


def test_anchors_are_those_of_a_loop_and_look_back_alone():
    values = RNG.normal(size=(300, 2)) * np.exp(np.sin(np.arange(300) / 30.0))[:, None]
    span = Span(*(jnp.asarray(day) for day in (50, 200, 220, 220)))
    rows = values[50:200]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    constant = constant_anchor(jnp.asarray(values), span)
    np.testing.assert_allclose(constant.means[7], mean, rtol=1e-12)
    np.testing.assert_allclose(constant.stds[299], std, rtol=1e-12)
    best, least = None, np.inf
    for half_life in HALF_LIVES:
        decay, variance, stds = 0.5 ** (1 / half_life), std**2, []
        for row in values:
            stds.append(np.sqrt(variance))
            variance = decay * variance + (1 - decay) * (row - mean) ** 2
        loss = normal_loss(values, mean, np.array(stds))[50:200].mean()
        if loss < least:
            best, least = np.array(stds), loss
    got = weighted_anchor(jnp.asarray(values), span)
    np.testing.assert_allclose(got.stds, best, rtol=1e-9)
    later = values.copy()
    later[250:] *= 3.0
    again = weighted_anchor(jnp.asarray(later), span)
    np.testing.assert_array_equal(got.stds[:251], again.stds[:251])
    assert np.all(got.stds[251:] != again.stds[251:])


def test_days_show_the_window_before_them_and_count_once():
    values = jnp.asarray(RNG.normal(size=(100, 2)))
    span = Span(*(jnp.asarray(day) for day in (40, 60, 70, 70)))
    anchor = constant_anchor(values, span)
    features = features_in_units(values, span)
    task = Days(features, values, anchor, span.split, span.stop - span.split, GaussianHead(), 8, 25)
    inputs, truth = task.example(jnp.asarray(3))
    np.testing.assert_array_equal(inputs.features, features[55:63])
    np.testing.assert_array_equal(truth.target[0], values[63])
    units = (values[50] - values[40:60].mean(axis=0)) / values[40:60].std(axis=0)
    np.testing.assert_allclose(features[50, :, 0], units, rtol=1e-12)
    zeros = jnp.zeros((1, 2, 2))
    scores = jax.vmap(lambda i: task.score(zeros, task.example(i)[1], None))(jnp.arange(25))
    np.testing.assert_array_equal(scores.num_entries, [2.0] * 10 + [0.0] * 15)
    expected = normal_loss(values, anchor.means, anchor.stds)[60:70].sum()
    np.testing.assert_allclose(scores.loss.sum(), expected, rtol=1e-12)
    drawn = task.draw(500, jnp.asarray(0), key=jax.random.key(0))
    assert int(drawn.min()) == 0 and int(drawn.max()) == 9


def test_tests_are_those_of_scipy():
    gaps = RNG.normal(0.1, 0.2, size=20)
    expected = stats.ttest_1samp(gaps, 0.0)
    got = paired(gaps)
    assert got["t"] == pytest.approx(expected.statistic) and got["p"] == pytest.approx(
        expected.pvalue
    )
    p_values = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p_values), [0.03, 0.06, np.nan, 0.06, 0.02])


@pytest.mark.slow
def test_side_by_side_is_one_after_the_other(draw):
    paths = [draw(make_world("A"), 260, key=jax.random.key(i)).values for i in range(2)]
    values = jnp.stack(paths)
    span = Span(*(jnp.asarray(day) for day in (40, 140, 160, 160)))
    anchor = jax.vmap(constant_anchor, (0, None))(values, span)
    keys = jax.random.split(jax.random.key(5), (2, 2))
    training = Training(20, 16, warm_up=2, round_length=10, patience=20)
    options = {"window": 32, "held_back": 20, "test_days": 100}
    found = [
        jax.jit(trained_and_scored(NETWORKS[name], training, together=both, **options))(
            values, Anchor(*anchor), span, keys
        )
        for name in ("recurrence, recursion",)
        for both in (True, False)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_the_tables_are_those_of_the_scores(tmp_path):
    """Tables made again from the committed scores are the committed ones."""
    committed = RESULTS / "recursion"
    for name in ("scores", "cells", "thinking", "diebold_mariano"):
        shutil.copy(committed / f"{name}.csv", tmp_path)
    write_tables(tmp_path)
    assert (tmp_path / "answers.md").read_text() == (committed / "answers.md").read_text()
    for name in ("table", "pairs", "thinking_table"):
        got, kept = (pd.read_csv(folder / f"{name}.csv") for folder in (tmp_path, committed))
        pd.testing.assert_frame_equal(got, kept, rtol=1e-4, atol=1e-12)


def test_folds_of_stocks_are_in_order_and_purged():
    config = dataclasses.replace(recursion_real.QUICK, num_folds=3)
    folds = recursion_real.folds_of(config)
    closes = us_stocks().iloc[:, :4]
    returns = (100.0 * np.log(closes).diff()).iloc[1:]
    span = config.span
    for fold in folds:
        assert fold.values.shape == (250 + 500 + 1 + 200, 4)
        last = returns.index.get_loc(fold.dates[-1])
        np.testing.assert_array_equal(fold.values, returns.to_numpy()[last - 950 : last + 1])
        assert fold.dates[0] == returns.index[last - 199]
    assert int(span.test) == int(span.stop) + 1 == 751  # one day purged
    for one, other in pairwise(folds):
        assert returns.index.get_loc(other.dates[0]) == returns.index.get_loc(one.dates[-1]) + 1


@pytest.mark.slow
def test_laws_of_stocks_look_back_alone():
    values = jnp.asarray(recursion_real.folds_of(recursion_real.QUICK)[0].values[:400, :2])
    laws = jax.jit(partial(recursion_real.simple_laws, first=50, split=300))
    got, again = laws(values), laws(values.at[350:].multiply(3.0))
    for name in got:
        np.testing.assert_array_equal(got[name].stds[:351], again[name].stds[:351])
        np.testing.assert_array_equal(got[name].means[:351], again[name].means[:351])
    assert np.all(got["GARCH"].stds[351:] != again["GARCH"].stds[351:])


@pytest.mark.slow
def test_a_quick_run_on_stocks_goes_on_where_it_stopped(tmp_path):
    config = dataclasses.replace(recursion_real.QUICK, out=str(tmp_path))
    table = recursion_real.run(config).set_index("model")
    assert np.isfinite(table["score"]).all() and table.loc["constant", "score"] > 0
    with np.load(tmp_path / "daily" / "GARCH_anchor_recursion.npz") as kept:
        assert kept["daily"].shape == (2, 400)
        assert table.loc["GARCH anchor, recursion", "score"] == pytest.approx(kept["daily"].mean())
    assert "| GARCH anchor, recursion | GARCH |" in (tmp_path / "answers.md").read_text()
    pd.testing.assert_frame_equal(recursion_real.run(config).set_index("model"), table)


@pytest.mark.slow
def test_a_quick_run_goes_on_where_it_stopped(tmp_path):
    config = dataclasses.replace(
        recursion.QUICK, sizes=(400,), num_paths=2, test_days=200, out=str(tmp_path / "whole")
    )
    config = dataclasses.replace(config, models=config.models[:1], worlds=("A",))
    table = recursion.run(config)
    scores = pd.read_csv(tmp_path / "whole" / "scores.csv")
    networks = scores[scores["model"].isin(config.models)]
    assert len(networks) == 2 * 2 and (networks["diverged"] == 0).all()
    means = table.set_index("model")
    exact = means.loc["exact Bayes filter"]
    assert exact["gap"] == 0.0
    assert means.loc["exact Bayes filter, mixture density", "score"] < exact["score"]
    assert (means["score"].drop("exact Bayes filter, mixture density") >= exact["score"]).all()
    assert means.loc["constant", "gap"] > 0.05
    daily = np.load(tmp_path / "whole" / "daily" / "A_400_recurrence_recursion.npy")
    own = networks[networks["model"] == "recurrence, recursion"]
    np.testing.assert_allclose(daily.mean(axis=1), own.groupby("path")["score"].mean(), rtol=1e-6)
    curve = pd.read_csv(tmp_path / "whole" / "thinking.csv")
    fourth = curve[curve["step"] == 4].set_index("path")["score"]
    np.testing.assert_allclose(fourth, daily.mean(axis=1), rtol=1e-6)
    assert curve["step"].max() == 8
    text = (tmp_path / "whole" / "answers.md").read_text()
    assert "| recurrence, recursion | HMM | A | 400 |" in text and f"{exact['score']:.4f}" in text
    before = (tmp_path / "whole" / "scores.csv").read_text()
    pd.testing.assert_frame_equal(recursion.run(config), table)
    assert (tmp_path / "whole" / "scores.csv").read_text() == before
    with pytest.raises(ValueError, match="other settings"):
        recursion.run(dataclasses.replace(config, num_steps=10))
    with pytest.raises(ValueError, match="unknown models"):
        recursion.run(dataclasses.replace(config, models=("oracle",)))
