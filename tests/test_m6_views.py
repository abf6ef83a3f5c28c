"""The study of views: the row ahead among the rows of the factors, views in units of the data, a
small run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments import m6_views
from experiments.m6_data import ROUND_ENDS, m6_assets
from experiments.m6_models import RAMP
from experiments.m6_views import NO_VIEW, QUICK, VIEWED, World, expected_next, viewed
from experiments.m6_views_answers import EXPECTED, LIKELIHOOD, NONE, QUINTILES, RETURN
from jaxfc.bayes.m6 import M6Model
from jaxfc.bayes.past_weights import LinearRamp


@pytest.fixture(scope="module")
def config(shared_data):
    return dataclasses.replace(QUICK, folder=str(shared_data))


@pytest.fixture(scope="module")
def world(config):
    return World.of(config)


@pytest.fixture(scope="module")
def parameters(world):
    return world.program.sample_prior(key=jax.random.key(0))


def test_the_next_row_knows_what_forecasts_know(config, world):
    panel = m6_assets(config.folder).known_at(ROUND_ENDS[12]).panel(world.names, config.window)
    classes = dict.fromkeys(world.names, "asset")
    model = M6Model(classes, num_factors=2, past=LinearRamp(float(RAMP))).resolved(panel)
    data, rows = model.data(*panel.arrays()), world.program.rows
    np.testing.assert_array_equal(world.scale, data.scale)
    np.testing.assert_array_equal(rows.returns[:-1], data.rows.returns)
    assert not rows.weights[-1].any() and (rows.weights[:-1] > 0.0).mean() > 0.9
    for name in ("recent_return", "recent_volatility", "earnings"):
        np.testing.assert_allclose(getattr(rows, name)[-1], getattr(data.ahead, name), rtol=1e-14)
    unit = rows.market_signal[-1] / rows.market_signal[-2]
    assert unit == pytest.approx(float(data.ahead.market_signal / data.rows.market_signal[-1]))


def test_a_view_is_a_normal_density_in_units_of_the_data(world, parameters):
    program = world.program
    expected = np.asarray(world.scale * expected_next(program, parameters)[0])
    plain = program.log_likelihood(parameters)
    with_view = viewed(program, world.scale, world.names, (0.05, 0.02))
    got = with_view.log_likelihood(parameters) - plain
    place = world.names.index(VIEWED)
    assert got == pytest.approx(scipy.stats.norm.logpdf(0.05, expected[place], 0.02), rel=1e-9)
    silent = viewed(program, world.scale, world.names, NO_VIEW)
    start, named = program.flat()
    slopes = [jax.grad(lambda x, p=p: p.log_density(named(x)))(start) for p in (silent, program)]
    np.testing.assert_array_equal(slopes[0], slopes[1])


def test_lines_are_weighted_means_and_counted_ranks(world):
    rng = np.random.default_rng(0)
    returns = jnp.asarray(rng.normal(size=(30, 2, 10)))
    weights = rng.dirichlet(np.ones(60))
    found = world.lines(RETURN, (0.05, 0.02), returns, jnp.asarray(weights)).set_index("asset")
    flat, place = np.asarray(returns).reshape(60, 10), world.names.index("XLF")
    line = found.loc["XLF"]
    assert line["mean"] == pytest.approx(weights @ flat[:, place])
    influence = (weights * (flat[:, place] - line["mean"])).reshape(30, 2).sum(1)
    assert line["error"] == pytest.approx(np.linalg.norm(influence))
    ranks = (flat < flat[:, [place]]).sum(1)  # 0..9, two in each class
    counted = [weights[ranks // 2 == k].sum() for k in range(5)]
    np.testing.assert_allclose(line[list(QUINTILES)].astype(float), counted, atol=1e-12)


@pytest.mark.slow
def test_a_quick_run_moves_bonds_by_the_view_and_goes_on(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, out=str(tmp_path))
    lines = m6_views.run(config)
    tlt = lines[lines["asset"] == "TLT"].set_index(["how", "view"])
    np.testing.assert_allclose(tlt[list(QUINTILES)].sum(axis=1), 1.0, atol=1e-5)
    views = ["0.02 +- 0.1", "0.05 +- 0.02", "0.08 +- 0.01"]
    for how in (RETURN, EXPECTED):
        kept, means = (tlt.loc[how].loc[views, name].to_numpy() for name in ("kept", "mean"))
        assert np.all(np.diff(kept) < 0) and kept[0] > 0.9
        assert np.all(np.diff(means) > 0) and means[0] > tlt.loc[(NONE, "none"), "mean"]
    assert tlt.loc[(RETURN, views[1]), "mean"] == pytest.approx(0.05, abs=0.015)
    # In the likelihood and by weights the view says the same, up to the noise of 200 draws.
    sampled, weighted = tlt.loc[(LIKELIHOOD, views[1])], tlt.loc[(EXPECTED, views[1])]
    gap = sampled["mean"] - weighted["mean"]
    assert abs(gap) < 5 * np.hypot(sampled["error"], weighted["error"])
    text = (tmp_path / "answers.md").read_text()
    assert f"{tlt.loc[(RETURN, views[1]), 'kept']:.1%}" in text and "| 35% |" in text

    monkeypatch.setattr(World, "sampled", None)  # nothing is sampled again
    pd.testing.assert_frame_equal(m6_views.run(config), lines)
