"""Simulated worlds: what they draw has the law, the gaps and the truth that they say."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors import sampler
from jaxfc.factors.coupled import plan_flows
from jaxfc.factors.dynamics import simulate_paths
from jaxfc.factors.sampler import orthonormal
from jaxfc.factors.worlds import FactorWorld

KEY = jax.random.key(3)
STOCKS = FactorWorld(40, 6, 2, 2, missing=0.3)


def draw(world, num_paths=1, key=KEY):
    keys = jax.random.split(key, num_paths)
    return jax.jit(jax.vmap(lambda k: world.sample(key=k)))(keys)


def roots(parameters):
    """Moduli of the eigenvalues of the companion matrix."""
    transition = np.asarray(parameters.transition)
    lags, size, _ = transition.shape
    companion = np.eye(lags * size, k=-size)
    companion[:size] = np.concatenate(list(transition), axis=1)
    return np.abs(np.linalg.eigvals(companion))


def test_parameters_lie_in_their_ranges():
    drawn = draw(STOCKS, 20)
    assert np.all(drawn.is_valid)
    for i in range(20):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], drawn.parameters)
        assert roots(own).max() < 1
        for matrix, (low, high) in (
            (own.idiosyncratic_cov, STOCKS.idiosyncratic_range),
            (own.innovation_cov, STOCKS.innovation_range),
            (2 * own.transition[0], STOCKS.transition_range),
            (2 * own.transition[1], STOCKS.transition_range),
        ):
            np.testing.assert_array_equal(matrix, np.asarray(matrix).T)
            values = np.linalg.eigvalsh(matrix)
            assert low - 1e-12 < values.min() and values.max() < high + 1e-12
    assert np.abs(drawn.parameters.idiosyncratic_cov[:, 0, 1]).max() > 0.01


def test_orthonormal_matrices_have_haar_s_law():
    """Moments of Haar's measure: E q^2 = 1/n, E q^4 = 3 / (n (n + 2)), E q11 q22 q12 q21 =
    -1 / ((n - 1) n (n + 2)), and E tr(q)^2 = 1."""
    n, count = 4, 20_000
    q = np.asarray(jax.vmap(lambda k: orthonormal(k, n))(jax.random.split(KEY, count)))
    np.testing.assert_allclose(
        np.swapaxes(q, 1, 2) @ q, np.broadcast_to(np.eye(n), q.shape), atol=1e-14
    )
    crossed = q[:, 0, 0] * q[:, 1, 1] * q[:, 0, 1] * q[:, 1, 0]
    traces = np.trace(q, axis1=1, axis2=2)
    for draws, moment in [
        (q**2, 1 / n),
        (q**4, 3 / (n * (n + 2))),
        (crossed, -1 / ((n - 1) * n * (n + 2))),
        (traces**2, 1.0),
        (q, 0.0),
    ]:
        error = np.abs(draws.mean(axis=0) - moment) / (draws.std(axis=0) / np.sqrt(count))
        assert np.max(error) < 4.5


def test_transitions_are_drawn_again_until_stationary():
    wild = dataclasses.replace(STOCKS, num_lags=1, transition_range=(0.5, 1.4))
    drawn = draw(wild, 30)
    assert np.all(drawn.is_valid)
    assert max(roots(jax.tree.map(lambda x, i=i: x[i], drawn.parameters)).max() for i in range(30))
    never = dataclasses.replace(STOCKS, num_lags=1, transition_range=(1.1, 1.2))
    assert not np.any(draw(never, 2).is_valid)


def test_stocks_lose_their_share_and_rows_are_never_empty(monkeypatch):
    few = FactorWorld(25, 3, 1, 1, missing=0.4)
    drawn = draw(few, 50)
    observed = np.asarray(drawn.observed)
    assert np.all(drawn.is_valid) and observed.any(axis=2).all()
    np.testing.assert_array_equal((~observed).sum(axis=1), 10)
    assert len(np.unique(observed.reshape(50, -1), axis=0)) == 50
    # Most first draws have an empty row, so the redraws did something.
    monkeypatch.setattr(sampler, "MAX_REDRAWS", 0)
    first = draw(few, 50)
    empty = ~np.asarray(first.observed).any(axis=2).all(axis=1)
    assert empty.mean() > 0.5
    np.testing.assert_array_equal(first.is_valid, ~empty)


def test_values_are_the_series_themselves_without_flows():
    drawn = draw(STOCKS)
    seen = np.asarray(drawn.observed[0])
    np.testing.assert_array_equal(drawn.values[0][seen], drawn.complete[0][seen])
    assert np.all(drawn.values[0][~seen] == 0) and STOCKS.aggregation is None
    full = draw(dataclasses.replace(STOCKS, missing=0.0))
    assert full.observed.all()


@pytest.mark.parametrize("kind", ["flow_average", "change_in_flow"])
def test_flows_are_sums_over_blocks_of_unequal_length(kind):
    world = FactorWorld(43, 5, 1, 1, missing=0.4, flows=kind)
    assert world.num_flows == 2
    ends = world.block_ends
    np.testing.assert_array_equal(ends[:6], [1, 3, 4, 6, 8, 9])  # t = 2, 4, 5, 7, 9, 10
    assert set(np.diff(ends)) == {1, 2} and ends.size == 25 and ends[-1] == 41
    drawn = draw(world)
    complete, values, seen = (
        np.asarray(leaf[0]) for leaf in (drawn.complete, drawn.values, drawn.observed)
    )
    for i in (3, 4):
        blocks = np.split(complete[: ends[-1] + 1, i], ends[:-1] + 1)
        if kind == "flow_average":
            expected, rows = [block.mean() for block in blocks], ends
        else:
            levels = np.split(np.cumsum(complete[: ends[-1] + 1, i]), ends[:-1] + 1)
            expected, rows = np.diff([block.mean() for block in levels]), ends[1:]
        np.testing.assert_array_equal(np.flatnonzero(seen[:, i]), rows)
        np.testing.assert_allclose(values[rows, i], expected, atol=1e-12)
    np.testing.assert_array_equal(values[seen[:, 0], 0], complete[seen[:, 0], 0])


def test_paths_have_the_law_of_the_parameters():
    """Second moments over many paths of one set of parameters, within five standard errors."""
    world = FactorWorld(7, 4, 2, 2)
    parameters, _ = world.draw_parameters(key=KEY)
    keys = jax.random.split(KEY, 20_000)
    panels, factors = jax.jit(
        jax.vmap(lambda k: simulate_paths(parameters, world.num_times, key=k))
    )(keys)
    sample = np.asarray(factors)
    blocks = np.concatenate([sample[:, 4], sample[:, 5]], axis=1)
    cov, bound = np.asarray(parameters.initial_cov), 5 * np.sqrt(2.0 / len(keys))
    spread = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    assert np.abs(np.cov(blocks.T, bias=True) - cov).max() < bound * spread.max()
    errors = np.asarray(panels - parameters.intercept - factors @ parameters.loadings.T)
    actual = np.cov(errors.reshape(-1, 4).T, bias=True)
    np.testing.assert_allclose(actual, parameters.idiosyncratic_cov, atol=bound)


def test_a_key_says_everything():
    alone = jax.jit(lambda k: STOCKS.sample(key=k))(jax.random.split(KEY, 3)[1])
    batch = draw(STOCKS, 3)
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(one, many[1], rtol=1e-12, atol=1e-13)
    assert not np.array_equal(batch.values[0], batch.values[1])


def draws_of_samplers(worlds):
    """Draws of every world by one program of samplers, and how often it was traced."""
    traces = []

    @jax.jit
    def run(sampler, keys):
        traces.append(1)
        return jax.vmap(lambda key: sampler.sample(key=key))(keys)

    keys = jax.random.split(KEY, 3)
    return [run(world.sampler(), keys) for world in worlds], len(traces)


@pytest.mark.parametrize(
    "gaps",
    [
        [("stock", 0.0), ("stock", 0.2), ("stock", 0.4)],
        pytest.param(
            [(kind, share) for kind in ("flow_average", "change_in_flow") for share in (0.2, 0.4)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_gaps_are_arrays_of_the_sampler(gaps):
    """One program for all of them, which draws the same bits as one for each."""
    worlds = [dataclasses.replace(STOCKS, flows=flows, missing=share) for flows, share in gaps]
    drawn, num_traces = draws_of_samplers(worlds)
    assert num_traces == 1
    for world, ours in zip(worlds, drawn, strict=True):
        own = draw(world, 3)
        assert jax.tree.structure(own) == jax.tree.structure(ours)
        for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(ours), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["flow_average", "change_in_flow"])
def test_estimators_of_flows_share_programs_below_one_half(kind):
    """Their plan is static."""
    shares = (0.1, 0.2, 0.4, 0.6)
    worlds = [dataclasses.replace(STOCKS, flows=kind, missing=share) for share in shares]
    plans = [plan_flows(world.aggregation) for world in worlds]
    assert plans[0] == plans[1] == plans[2] != plans[3]


def test_static_factors():
    drawn = draw(FactorWorld(20, 4, 2, 0), 2)
    assert np.all(drawn.is_valid) and drawn.parameters.transition.shape == (2, 0, 2, 2)
    np.testing.assert_array_equal(drawn.parameters.innovation_cov[0], np.eye(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_factors": 6}, "num_factors must be from 1 to 5 for 6 series, got 6"),
        ({"num_lags": 39}, "times at least lags"),
        ({"num_lags": 14}, "28 coefficients of every factor cannot be estimated from 26"),
        ({"missing": 1.0}, r"missing must be in \[0, 1\), got 1.0"),
        ({"flows": "change_in_flow", "missing": 0.0}, "need missing > 0"),
        ({"innovation_range": (0.5, 0.4)}, r"innovation_range must be 0 < low <= high"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STOCKS, **options)


def test_it_lowers_for_cuda():
    world = dataclasses.replace(STOCKS, flows="change_in_flow")
    exported = jax.export.export(jax.jit(lambda k: world.sample(key=k)), platforms=["cuda"])(KEY)
    assert exported.platforms == ("cuda",)
    assert exported.out_avals[0].dtype == jnp.float64
