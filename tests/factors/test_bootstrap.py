"""The bootstrap: a batch equals a loop, spreads grow by it, failures are counted."""

import dataclasses
import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfc.batching import map_in_batches
from jaxfc.factors import EM, PCA, PPCA, DynamicFactorModel, TwoStepEM
from jaxfc.factors.bootstrap import (
    BootstrapDraws,
    aligned,
    bootstrap,
    forecast_with_uncertainty,
    in_units_of,
    jitted_bootstrap,
    path_given,
)
from jaxfc.factors.condition import fitted_data
from jaxfc.factors.identify import rotate_parameters
from jaxfc.factors.scaling import Scaling
from jaxfc.panel import Panel
from jaxfc.results import RESULTS
from jaxfc_kernels.aggregation import AggregationRows

pytestmark = pytest.mark.slow

module = importlib.import_module("jaxfc.factors.bootstrap")

NUM_TIMES, NUM_SERIES = 24, 6
KEY = jax.random.key(3)
ONE_STEP = DynamicFactorModel(1, 1, method=EM(rtol=1e-3, max_steps=100))
TWO_STEP = DynamicFactorModel(1, 0, method=TwoStepEM(rtol=1e-2, max_steps=20))


def averages_of_three() -> AggregationRows:
    """The last two series are averages over three rows, the others values of their row."""
    times = np.arange(NUM_TIMES)
    return AggregationRows(
        group=jnp.asarray([0] * (NUM_SERIES - 2) + [1, 1]),
        own_row=jnp.asarray(np.stack([times, times // 3 * 3 + 2])),
        own_weight=jnp.asarray(np.stack([np.ones(NUM_TIMES), np.full(NUM_TIMES, 1 / 3)])),
        next_row=jnp.full((2, NUM_TIMES), NUM_TIMES),
        next_weight=jnp.zeros((2, NUM_TIMES)),
    )


def averaged(values: np.ndarray) -> np.ndarray:
    """What `averages_of_three` says, by blocks."""
    values = np.array(values)
    blocks = values[:, -2:].reshape(-1, 3, 2).mean(axis=1)
    values[:, -2:] = 0.0
    values[2::3, -2:] = blocks
    return values


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    factors = np.zeros((NUM_TIMES + 20, 1))
    for t in range(1, len(factors)):
        factors[t] = 0.7 * factors[t - 1] + rng.normal(size=1)
    noise = 0.6 * rng.normal(size=(NUM_TIMES, NUM_SERIES))
    return 2.0 + factors[20:] @ rng.normal(size=(1, NUM_SERIES)) + noise


@pytest.fixture(scope="module")
def panel(values):
    seen = np.random.default_rng(1).uniform(size=values.shape) > 0.1
    index = pd.date_range("2020-01-03", periods=NUM_TIMES, freq="W-FRI")
    names = [f"s{i}" for i in range(NUM_SERIES)]
    return Panel.from_frame(pd.DataFrame(np.where(seen, values, np.nan), index, names))


@pytest.fixture(scope="module")
def fitted(panel):
    return ONE_STEP.fit(panel)


@pytest.fixture(scope="module")
def draws(fitted):
    return jitted_bootstrap(fitted, 24, key=KEY)


def loop(fitted, aggregation, index):
    """One draw by the public verbs, in data units: mean, common covariance, error variances."""
    simulated = np.asarray(fitted.simulate(NUM_TIMES, key=jax.random.fold_in(KEY, index)))
    simulated = simulated if aggregation is None else averaged(simulated)
    simulated = np.where(fitted.observed, simulated, 0.0)
    refit = eqx.filter_jit(fitted.model.estimate)(
        jnp.asarray(simulated), fitted.observed, aggregation=aggregation
    )
    return in_data_units(refit.parameters, refit.scaling), int(refit.num_steps)


def in_data_units(parameters, scaling):
    loadings = np.asarray(scaling.scale)[:, None] * np.asarray(parameters.loadings)
    return {
        "mean": np.asarray(scaling.restore(parameters.intercept)),
        "common": loadings @ np.asarray(parameters.factor_cov) @ loadings.T,
        "variances": np.asarray(scaling.scale) ** 2 * np.asarray(parameters.variances),
    }


def assert_same_as_loop(fitted, draws, aggregation):
    for index in range(2):
        expected, num_steps = loop(fitted, aggregation, index)
        parameters = jax.tree.map(lambda leaf, i=index: leaf[i], draws.parameters)
        found = in_data_units(parameters, fitted.scaling)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-10)
        assert int(draws.num_steps[index]) == num_steps


def test_a_batch_of_draws_equals_a_loop(fitted, draws):
    assert_same_as_loop(fitted, draws, None)


def test_simulated_flows_are_aggregated_before_estimation(values):
    rows = averages_of_three()
    observed = np.ones(values.shape, bool)
    observed[:, -2:] = np.arange(NUM_TIMES)[:, None] % 3 == 2
    fitted = eqx.filter_jit(TWO_STEP.estimate)(
        jnp.asarray(averaged(values)), jnp.asarray(observed), aggregation=rows
    )
    draws = jitted_bootstrap(fitted, 2, key=KEY, aggregation=rows, batch_size=1)
    assert_same_as_loop(fitted, draws, rows)


def test_chunks_cover_every_draw_once():
    """Also with a rest, with empty leaves, and with chunks larger than the whole."""
    inputs = jnp.arange(7.0)
    for batch_size in (None, 1, 3, 7, 9):
        squares, empty = map_in_batches(lambda x: (x**2, jnp.zeros((0, 2))), inputs, batch_size)
        np.testing.assert_array_equal(squares, inputs**2)
        assert empty.shape == (7, 0, 2)


def test_draws_lie_around_the_fit(fitted, draws):
    assert int(draws.num_failed) == 0 and bool(jnp.all(draws.usable))
    loadings = np.asarray(draws.parameters.loadings)[:, :, 0]
    spread = loadings.std(axis=0)
    assert (spread > 0.01).all()
    distance = np.abs(loadings.mean(axis=0) - np.asarray(fitted.parameters.loadings)[:, 0])
    assert (distance < 0.5).all()


def test_a_warm_start_goes_its_own_way_to_the_same_place(fitted, draws):
    warm = jitted_bootstrap(fitted, 2, key=KEY, start="fitted")
    assert int(warm.num_failed) == 0
    assert not np.array_equal(warm.parameters.loadings, draws.parameters.loadings[:2])
    # The tolerance 1e-3 of the fit decides how near the two end.
    np.testing.assert_allclose(
        warm.parameters.loadings, draws.parameters.loadings[:2], rtol=0, atol=0.1
    )


def test_alignment_undoes_a_turn(fitted):
    rng = np.random.default_rng(5)
    model = DynamicFactorModel(3, 1, method=PPCA())
    values = rng.normal(size=(NUM_TIMES, 8)).cumsum(axis=1)
    three = eqx.filter_jit(model.estimate)(jnp.asarray(values), jnp.ones(values.shape, bool))
    turn = jnp.asarray(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    back = aligned(rotate_parameters(three.parameters, turn), three.parameters.loadings)
    for found, expected in zip(
        jax.tree.leaves(back), jax.tree.leaves(three.parameters), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("full", [False, True])
def test_units_are_those_of_the_other_scaling(fitted, full):
    parameters = fitted.parameters
    if full:
        cov = jnp.diag(parameters.variances) + 0.01
        parameters = dataclasses.replace(parameters, idiosyncratic_cov=cov)
    other = Scaling(fitted.scaling.centre + 1.0, fitted.scaling.scale * 3.0)
    moved = in_units_of(parameters, fitted.scaling, other)
    before, after = (
        in_data_units(*pair) for pair in ((parameters, fitted.scaling), (moved, other))
    )
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-12)


def test_the_forecast_is_wider_than_with_known_parameters(fitted, panel):
    """The same random numbers drive both, so the comparison is sharp with few draws."""
    num_draws, horizon = 200, 2
    found = forecast_with_uncertainty(fitted, panel, horizon, num_draws, key=KEY)
    assert found.draws.shape == (num_draws, horizon, NUM_SERIES)
    _, path_key = jax.random.split(KEY)
    data = fitted_data(fitted)

    @jax.jit
    @jax.vmap
    def known(index):
        key = jax.random.fold_in(path_key, index)
        return path_given(fitted, fitted.parameters, data, horizon, key=key)

    spread = np.asarray(known(jnp.arange(num_draws))).std(axis=0)
    ratio = np.asarray(found.std) / spread
    assert ratio.mean() > 1.0
    np.testing.assert_allclose(spread, fitted.forecast(horizon).std, rtol=0.2)


def faked(usable):
    """`jitted_paths` with some draws failed."""

    def paths(fitted, horizon, num_draws, **options):
        return jnp.zeros((num_draws, horizon, NUM_SERIES)), jnp.asarray(usable)

    return paths


def test_failed_draws_are_left_out_and_told(fitted, panel, monkeypatch):
    monkeypatch.setattr(module, "jitted_paths", faked([True, False, True]))
    with pytest.warns(UserWarning, match="1 of 3 bootstrap estimations failed"):
        found = forecast_with_uncertainty(fitted, panel, 1, 3, key=KEY)
    assert found.draws.shape[0] == 2
    monkeypatch.setattr(module, "jitted_paths", faked([True, False, False]))
    with pytest.raises(RuntimeError, match="2 of 3 bootstrap estimations failed"):
        forecast_with_uncertainty(fitted, panel, 1, 3, key=KEY)


def test_codes_and_values_decide_what_is_usable(draws):
    codes = jax.vmap(lambda f: RESULTS.where(f, RESULTS.diverged, RESULTS.successful))(
        jnp.arange(24) < 2
    )
    loadings = draws.parameters.loadings.at[5, 0, 0].set(jnp.nan)
    parameters = eqx.tree_at(lambda p: p.loadings, draws.parameters, loadings)
    other = BootstrapDraws(parameters, draws.num_steps, codes)
    assert np.flatnonzero(~np.asarray(other.usable)).tolist() == [0, 1, 5]
    assert int(other.num_failed) == 3


def test_bad_arguments_are_refused(fitted, panel):
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        bootstrap(fitted, 0, key=KEY)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        bootstrap(fitted, 2, key=KEY, batch_size=0)
    with pytest.raises((ValueError, TypeError), match="lukewarm"):
        bootstrap(fitted, 2, key=KEY, start="lukewarm")
    with pytest.raises(ValueError, match="at least 2 to have a spread"):
        forecast_with_uncertainty(fitted, panel, 1, 1, key=KEY)
    with pytest.raises(ValueError, match="not the one that was fitted"):
        forecast_with_uncertainty(fitted, panel.extend(1), 1, 5, key=KEY)
    components = DynamicFactorModel(1, 1, method=PCA()).fit(panel)
    with pytest.raises(ValueError, match="least-squares regressions"):
        forecast_with_uncertainty(components, panel, 1, 5, key=KEY)
    with pytest.raises(ValueError, match="takes no start"):
        bootstrap(components, 2, key=KEY, start="fitted")


@pytest.mark.slow
def test_intervals_cover_near_their_level(fitted):
    """60 panels of 24 rows from a known model: share of next rows inside the 80% interval.

    Both fall a little short: estimated error variances are too small, in the bootstrap once more.
    """
    inside = {"known": [], "uncertain": []}
    index = pd.date_range("2020-01-03", periods=NUM_TIMES, freq="W-FRI")
    names = [f"s{i}" for i in range(NUM_SERIES)]
    for seed in range(60):
        path = np.asarray(fitted.simulate(NUM_TIMES + 1, key=jax.random.key(seed)))
        host = Panel.from_frame(pd.DataFrame(path[:-1], index, names))
        refit = ONE_STEP.fit(host)
        laws = {
            "known": refit.forecast(1),
            "uncertain": forecast_with_uncertainty(refit, host, 1, 200, key=jax.random.key(seed)),
        }
        for name, law in laws.items():
            low, high = law.quantile(jnp.asarray([0.1, 0.9]))
            inside[name].append(np.mean((path[-1] >= low[0]) & (path[-1] <= high[0])))
    shares = {name: float(np.mean(part)) for name, part in inside.items()}
    assert 0.7 < shares["uncertain"] < 0.9, shares
    assert 0.7 < shares["known"] < 0.9, shares
