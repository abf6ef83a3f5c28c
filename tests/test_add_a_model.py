"""The tutorial that adds a model: its blocks run, its model is short, and keeps every contract."""

import contextlib
import io
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import jaxfc
from jaxfc.results import is_okay
from test_readme import REPOSITORY, blocks
from test_site_pages import assert_shown

PAGE = (REPOSITORY / "docs" / "add-a-model.md").read_text()
BLOCKS = blocks(PAGE, ("python",))
MAX_LINES = 60


@pytest.fixture(scope="module")
def space():
    """The names that the first block defines."""
    names: dict[str, object] = {"__name__": "add_a_model"}
    exec(compile(BLOCKS[0], "docs/add-a-model.md, block 1", "exec"), names)
    return names


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(4)
    levels = np.cumsum(rng.normal(size=(40, 2)), axis=0)
    values = levels + 0.7 * rng.normal(size=(40, 2))
    values[rng.random((40, 2)) < 0.15] = np.nan
    values[-2:, 1] = np.nan
    index = pd.date_range("2010-01-31", periods=40, freq="ME")
    return jaxfc.Panel.from_frame(pd.DataFrame(values, index, ["A", "B"]))


@pytest.fixture(scope="module")
def fitted(space, panel):
    return space["LocalLevel"]().fit(panel)


def test_the_model_has_fewer_than_sixty_lines_of_code():
    code = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(code) < MAX_LINES + 1, len(code)
    assert all(len(line) <= 100 for block in BLOCKS for line in block.splitlines())


def test_the_page_runs_and_prints_what_it_shows():
    names: dict[str, object] = {"__name__": "add_a_model"}
    printed = ""
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, "docs/add-a-model.md", "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert_shown(printed, block)


def dense_loglik(space, values, observed):
    """log p(observed cells) by the joint covariance of all of them."""
    num_times, num_series = values.shape
    first, spread = np.asarray(space.initial_mean), np.diag(space.initial_cov)
    drift, noise = np.diag(space.innovation_cov), np.asarray(space.observation_cov)
    total = 0.0
    for i in range(num_series):
        seen = np.asarray(observed[:, i])
        steps = np.minimum.outer(np.arange(num_times), np.arange(num_times))
        cov = spread[i] + drift[i] * steps + noise[i] * np.eye(num_times)
        law = multivariate_normal(np.full(seen.sum(), first[i]), cov[np.ix_(seen, seen)])
        total += law.logpdf(np.asarray(values)[seen, i])
    return total


def test_the_likelihood_is_that_of_dense_algebra(fitted, panel):
    assert bool(is_okay(fitted.result))
    values, observed = panel.arrays()
    expected = dense_loglik(fitted.space, values, observed)
    np.testing.assert_allclose(float(fitted.loglik), expected, rtol=1e-10)


def test_variances_follow_from_moments_of_the_changes(fitted, panel):
    frame = panel.to_frame()
    for i, name in enumerate(frame):
        change = frame[name].diff()
        square = (change**2).mean()
        product = (change * change.shift()).mean()  # over rows where both were seen
        noise = np.clip(-product, 0.05 * square, 0.45 * square)
        np.testing.assert_allclose(fitted.space.observation_cov[i], noise, rtol=1e-12)
        drift = fitted.space.innovation_cov[i, i]
        np.testing.assert_allclose(drift, square - 2.0 * noise, rtol=1e-12)


def test_variances_are_those_of_a_long_path(space):
    truth = space["level_space"](jnp.zeros(2), jnp.ones(2), jnp.array([1.0, 2.0]), jnp.ones(2))
    _, path = truth.simulate(20_000, key=jax.random.key(1))
    change = np.diff(path, axis=0)
    noise = -(change[1:] * change[:-1]).mean(axis=0)
    np.testing.assert_allclose(noise, 1.0, rtol=0.1)
    np.testing.assert_allclose((change**2).mean(axis=0) - 2.0 * noise, [1.0, 2.0], rtol=0.1)


def test_fit_is_estimate_and_a_batch_is_a_loop(space, fitted, panel):
    estimate = space["LocalLevel"]().estimate
    values, observed = panel.arrays()
    later = jnp.where(observed, values + jnp.sin(jnp.arange(40.0))[:, None], 0.0)
    stacked = jnp.stack([values, later]), jnp.stack([observed, observed])
    batch = eqx.filter_jit(eqx.filter_vmap(estimate))(*stacked)
    np.testing.assert_allclose(batch.loglik[0], fitted.loglik, rtol=1e-8)
    alone = eqx.filter_jit(estimate)(later, observed)
    np.testing.assert_allclose(batch.loglik[1], alone.loglik, rtol=1e-8)


def test_forecasts_depend_on_nothing_that_is_not_observed(space, panel):
    values, observed = panel.arrays()

    def mean(values):
        return jnp.sum(space["LocalLevel"]().estimate(values, observed).forecast(2).mean)

    value, slope = jax.jit(jax.value_and_grad(mean))(values)
    assert jnp.all(jnp.where(observed, 0.0, slope) == 0.0) and jnp.all(jnp.isfinite(slope))
    assert jnp.any(slope[observed] != 0.0)
    spoiled = jnp.where(observed, values, jnp.nan)
    np.testing.assert_allclose(jax.jit(mean)(spoiled), value, rtol=1e-12)
    cell = (3, 0)
    assert bool(observed[cell])
    up, down = (jax.jit(mean)(values.at[cell].add(step)) for step in (1e-4, -1e-4))
    np.testing.assert_allclose(slope[cell], (up - down) / 2e-4, rtol=1e-5)


def test_other_data_and_a_short_panel(fitted, panel, space):
    values, observed = panel.arrays()
    shorter = fitted.given(values[:30], observed[:30]).forecast(1).mean
    expected = fitted.space.forecast(values[:30], observed[:30], 1).mean
    np.testing.assert_array_equal(shorter, expected)
    short = jaxfc.Panel.from_frame(panel.to_frame().iloc[:8])
    with pytest.raises(ValueError, match=r"'A' was seen three times in a row \d times"):
        space["LocalLevel"]().fit(short)
    assert fitted.simulate(5, key=jax.random.key(0)).shape == (5, 2)
