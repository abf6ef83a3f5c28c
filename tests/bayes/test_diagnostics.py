"""Diagnostics of chains against ArviZ's numbers, and chains that must be found wanting."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes.known_posteriors import CorrelatedNormal
from jaxfc.bayes.arviz_export import to_arviz
from jaxfc.bayes.convergence import (
    bulk_ess,
    convergence,
    energy_bfmi,
    mean_ess,
    monte_carlo_error,
    split_rhat,
    tail_ess,
)
from jaxfc.bayes.diagnostics import Limits, diagnose, frozen_chains, judged
from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.pareto import effective_share, pareto_k, pareto_smoothed
from jaxfc.results import RESULTS, SUCCESSFUL, throw_if_failed


@jax.jit
def numbers(draws):
    """What the goldens hold, in their order."""
    own = mean_ess(draws), monte_carlo_error(draws)
    return jnp.stack([*convergence(draws), *own, *energy_bfmi(draws)])


def autoregressive(chains, draws, persistence=0.6, shift=0.05):
    """Chains that any program can make again: noise is the fraction of a sine of the place."""
    place = np.arange(1, draws + 1)
    found = []
    for chain in range(chains):
        noise = np.sin(12.9898 * place + 78.233 * (chain + 1)) * 43758.5453
        noise = noise - np.floor(noise) - 0.5
        state, path = 0.0, np.zeros(draws)
        for t in range(draws):
            state = persistence * state + noise[t]
            path[t] = state
        found.append(path + shift * chain)
    return np.array(found)


CASES = {
    "plain": autoregressive(4, 100),
    "anti": autoregressive(4, 100, -0.8),
    "drift": autoregressive(4, 100) + np.linspace(0, 1, 100),
    "ties": np.round(autoregressive(4, 100), 1),
    "odd": autoregressive(3, 51, 0.9, 0.0),
    "short": autoregressive(4, 9),
    "shortest": autoregressive(2, 4),
    "one": autoregressive(1, 30),
}
# arviz 0.23.4: rhat, ess of bulk, tail and mean, mcse of the mean (all defaults), bfmi by chain. It
# refuses the R-hat of one chain.
GOLDEN = {
    "plain": (
        1.050904328581604,
        115.19187470768891,
        253.109742235117,
        117.97187352209882,
        0.03026613558310469,
        1.38819720194475,
        0.910551687841716,
        0.7734957527745273,
        0.9730686306482879,
    ),
    "anti": (
        1.0268308170055782,
        1040.823996531185,
        151.50169187656985,
        1040.823996531185,
        0.015330682994288091,
        3.5568471842611573,
        3.5463929477732967,
        3.496347895526922,
        3.7489919236219476,
    ),
    "drift": (
        1.3758768967340986,
        9.9607578269985,
        115.54781584950086,
        9.749101369947487,
        0.1468782813027477,
        0.6897178191609273,
        0.42227394986600647,
        0.37137652669567595,
        0.6158559594336996,
    ),
    "ties": (
        1.0546165026755692,
        112.22590657311073,
        217.97045911134992,
        117.28640275017177,
        0.03072553847620417,
        1.4004028556159993,
        0.9010489414729002,
        0.8052085166285414,
        0.9914548641542504,
    ),
    "odd": (
        1.2734527477450657,
        9.505220954914414,
        33.867982726711894,
        9.027404417122762,
        0.19992052151757642,
        0.798336177174154,
        0.2764982303323087,
        0.2343860120122603,
    ),
    "short": (
        1.2626594585336475,
        48.16479930623699,
        48.16479930623699,
        48.16479930623699,
        0.042735064109237206,
        1.5682987462815887,
        0.5430573616306084,
        1.4881444297806143,
        1.1732106282946497,
    ),
    "shortest": (
        1.9603451644512397,
        7.224719895935548,
        7.224719895935548,
        7.224719895935548,
        0.10482411412434764,
        0.776270639572506,
        1.3082706573431864,
    ),
    "one": (
        jnp.nan,
        23.62811853703361,
        16.14280833618039,
        22.830503807717697,
        0.05602958591350384,
        1.4734421213736617,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_arviz(name):
    found = numbers(jnp.asarray(CASES[name]))
    first = 0 if len(CASES[name]) > 1 else 1
    np.testing.assert_allclose(found[first:], GOLDEN[name][first:], rtol=1e-10)


def test_numbers_are_those_of_the_installed_arviz():
    arviz = pytest.importorskip("arviz")
    draws = np.random.default_rng(0).standard_t(3, size=(4, 200)).cumsum(1) * 0.1
    draws[1] += np.random.default_rng(1).normal(size=200)
    data = arviz.convert_to_dataset(draws)
    expected = [
        arviz.rhat(data),
        arviz.ess(data, method="bulk"),
        arviz.ess(data, method="tail"),
        arviz.ess(data, method="mean"),
        arviz.mcse(data, method="mean"),
    ]
    found = numbers(jnp.asarray(draws))[:5]
    np.testing.assert_allclose(found, [float(one.x) for one in expected], rtol=1e-8)


def test_many_quantities_are_those_one_by_one():
    """More than are looked at together, with axes, under jit, in the order of the quantities."""
    shifts = np.random.default_rng(2).normal(size=(20, 15, 4, 1))
    draws = np.random.default_rng(3).normal(size=(20, 15, 4, 40)) + 0.3 * shifts
    many = jnp.moveaxis(jnp.asarray(draws), (0, 1), (2, 3))
    found = jax.jit(convergence)(many)
    each = jax.jit(lambda one: (split_rhat(one), bulk_ess(one), tail_ess(one)))
    for place in ((0, 0), (3, 7), (19, 14)):
        expected = each(many[:, :, place[0], place[1]])
        np.testing.assert_allclose([x[place] for x in found], expected, rtol=1e-12)


def test_constants_and_what_is_not_finite():
    draws = np.stack([np.ones((2, 20)), autoregressive(2, 20)], axis=2)
    each = jax.jit(convergence)
    rhat, bulk, _ = each(jnp.asarray(draws))
    assert np.isnan(rhat[0]) and bulk[0] == 40
    draws[1, 3, 1] = np.inf
    rhat, bulk, tail = each(jnp.asarray(draws))
    assert bulk[0] == 40
    assert np.isnan([rhat[1], bulk[1], tail[1]]).all()
    assert [x.shape for x in convergence(jnp.zeros((2, 20, 0, 3)))] == [(0, 3)] * 3
    with pytest.raises(ValueError, match="at least 4 draws a chain, got 3"):
        split_rhat(jnp.zeros((2, 3)))


def some_draws(chains=4, draws=500, **changed):
    """Independent draws of three numbers with the log density of their law."""
    x = jnp.asarray(np.random.default_rng(4).normal(size=(chains, draws, 3)))
    log_density = -0.5 * jnp.sum(x**2, axis=2)
    shape = chains, draws
    momentum = np.random.default_rng(5).normal(size=(chains, draws, 3))
    found = PosteriorDraws(
        parameters={"x": x},
        log_density=log_density,
        energy=0.5 * jnp.sum(momentum**2, axis=2) - log_density,
        divergent=jnp.zeros(shape, bool),
        moved=jnp.ones(shape, bool),
        step_size=jnp.full(chains, 0.5),
        num_leapfrogs=jnp.full(chains, 7.0),
        pareto_k=jnp.asarray(jnp.nan),
        num_steps=jnp.asarray(1000),
        result=SUCCESSFUL,
    )
    for name, value in changed.items():
        found = eqx.tree_at(lambda d, name=name: getattr(d, name), found, value)
    return found


def moved_by(shift):
    return {"x": some_draws().parameters["x"].at[0].add(shift)}


def slow(strength):
    """Draws that hardly change from one to the next."""
    path = np.random.default_rng(6).normal(size=(4, 500, 3))
    for t in range(1, 500):
        path[:, t] = strength * path[:, t - 1] + np.sqrt(1 - strength**2) * path[:, t]
    return {"x": jnp.asarray(path)}


FINDINGS = {
    "successful": ({}, None),
    "not_mixed": ({}, moved_by(0.6)),
    "few_effective_draws": ({}, slow(0.8)),
    "divergent_transitions": ({"divergent": jnp.zeros((4, 500), bool).at[0, :3].set(True)}, None),
    "frozen_chain": ({"step_size": jnp.asarray([0.5, 0.4, 1e-9, 0.5])}, None),
    "energy_not_explored": (
        {"energy": jnp.cumsum(some_draws().energy - jnp.mean(some_draws().energy), axis=1)},
        None,
    ),
    "poor_approximation": ({"pareto_k": jnp.asarray(0.9)}, None),
    "diverged": ({}, {"x": some_draws().parameters["x"].at[0, 0, 0].set(jnp.nan)}),
}


@pytest.fixture(scope="module")
def examine():
    return eqx.filter_jit(diagnose)


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_has_its_code(name, examine):
    changed, identified = FINDINGS[name]
    draws = some_draws(**changed)
    # Draws so dependent also have a larger R-hat, which is the more serious finding.
    limits = Limits(rhat=1.1 if name == "few_effective_draws" else 1.01)
    quantities = draws.parameters if identified is None else identified
    found = examine(draws, quantities, limits=limits)
    assert found.result == getattr(RESULTS, name)
    if name == "successful":
        assert found.max_rhat < 1.01 and found.min_bulk_ess > 1500 and found.min_tail_ess > 1000
    else:
        with pytest.raises(RuntimeError, match="sampling"):
            throw_if_failed(found.result, "sampling")


def test_chains_that_stand_still_are_found():
    """By refused transitions, or by a log density that does not vary, also if all do."""
    still = some_draws(moved=jnp.ones((4, 500), bool).at[2].set(False))
    assert frozen_chains(still, Limits()).tolist() == [False, False, True, False]
    flat = some_draws(log_density=1e-7 * some_draws().log_density)
    assert frozen_chains(flat, Limits()).all()


def test_limits_are_arguments_and_a_constant_counts_for_nothing(examine):
    draws = some_draws()
    quantities = {**moved_by(0.6), "unit": jnp.ones((4, 500))}
    assert examine(draws, quantities, limits=Limits()).result == RESULTS.not_mixed
    assert examine(draws, quantities, limits=Limits(rhat=1.1, ess=50.0)).result == SUCCESSFUL
    assert examine(draws, quantities, limits=Limits(rhat=1.1, ess=1e6)).result == (
        RESULTS.few_effective_draws
    )


def test_table_says_where_the_worst_number_is(examine):
    x = slow(0.5)["x"].at[:, :, 1].set(slow(0.95)["x"][:, :, 1])
    found = examine(some_draws(), {"x": x, "one": x[:, :, 0], "none": x[:, :, :0]})
    table = found.table()
    assert set(table.index) == {"x", "one"}
    assert table.loc["x", "numbers"] == 3 and table.loc["x", "fewest_at"] == "1"
    assert table.loc["x", "min_bulk_ess"] == float(found.min_bulk_ess)
    np.testing.assert_allclose(table.loc["one", "max_rhat"], found.rhat["x"][0], rtol=1e-12)


def test_judged_draws_carry_the_verdict_and_keep_an_earlier_one():
    program = CorrelatedNormal(jnp.zeros(3), jnp.eye(3))
    judge = eqx.filter_jit(judged)
    assert judge(some_draws(), program).result == SUCCESSFUL
    apart = eqx.tree_at(lambda d: d.parameters, some_draws(), moved_by(0.6))
    assert judge(apart, program).result == RESULTS.not_mixed
    before = eqx.tree_at(lambda d: d.result, apart, RESULTS.diverged)
    assert judge(before, program).result == RESULTS.diverged


def log_ratios(index, size=1000):
    """Ratios whose tail has exactly this index, in an order that is not theirs."""
    ratios = -index * np.log1p(-(np.arange(size) + 0.5) / size)
    return jnp.asarray(ratios[(np.arange(size) * 387) % size])


# arviz 0.23.4, psislw of `log_ratios(index)`: k, log of the sum of squared weights, log weights
# 0, 500 and 999, and k with reff=0.5.
SMOOTHED = {
    0.4: (0.4103202088048329, -6.48946743019243, -7.415595805563475, -7.138136783222738,
          -7.035546491198284, 0.4074989692103009),
    0.9: (0.8442664334030683, -3.641375510550976, -8.624262339384284, -7.999979539117623,
          -7.769151382062605, 0.859421016130485),
    1.3: (1.1914657192664775, -1.7671828800021914, -10.372464881434647, -9.470723058827247,
          -9.137304609747776, 1.2209105145128814),
}  # fmt: skip


@pytest.mark.parametrize("index", SMOOTHED)
def test_smoothed_weights_are_those_of_arviz(index):
    ratios = log_ratios(index)
    weights, k = jax.jit(pareto_smoothed)(ratios)
    squares = jnp.log(jnp.sum(jnp.exp(2 * weights)))
    dependent = jax.jit(lambda x: pareto_k(x, relative_efficiency=0.5))(ratios)
    found = (k, squares, weights[0], weights[500], weights[999], dependent)
    np.testing.assert_allclose(found, SMOOTHED[index], rtol=1e-10)
    np.testing.assert_allclose(effective_share(weights), np.exp(-squares) / 1000, rtol=1e-12)


def test_tails_with_ties_of_few_and_of_equal_ratios():
    """Ties shorten the tail (arviz 0.23.4 as above)."""
    tied = jnp.round(3 * jnp.sin(jnp.arange(200.0) * 1.7) ** 3, 1)
    smooth = jax.jit(pareto_smoothed)
    weights, k = smooth(tied)
    np.testing.assert_allclose(k, -1.0725529612453986, rtol=1e-10)
    np.testing.assert_allclose(jnp.log(jnp.sum(jnp.exp(2 * weights))), -4.0039074845077, rtol=1e-10)
    assert pareto_k(jnp.arange(20.0)) == jnp.inf
    assert smooth(jnp.zeros(200))[1] == -jnp.inf
    assert jnp.isnan(smooth(jnp.zeros(200).at[3].set(jnp.nan))[1])
    with pytest.raises(ValueError, match="relative_efficiency must be positive, got 0"):
        pareto_k(jnp.zeros(200), relative_efficiency=0.0)


def test_smoothed_weights_of_the_installed_arviz():
    arviz = pytest.importorskip("arviz")
    if not hasattr(arviz, "psislw"):
        pytest.skip("ArviZ 1.x has no psislw at its top")
    ratios = np.random.default_rng(7).standard_t(4, size=777)
    expected, expected_k = arviz.psislw(ratios.copy())
    weights, k = pareto_smoothed(jnp.asarray(ratios))
    np.testing.assert_allclose(k, expected_k, rtol=1e-8)
    np.testing.assert_allclose(weights, expected, rtol=1e-8)


def test_a_batch_of_ratios_is_the_ratios_one_by_one():
    many = jnp.stack([log_ratios(0.4), log_ratios(0.9), jnp.round(log_ratios(1.3), 1)])
    each = [jax.jit(pareto_k)(one) for one in many]
    np.testing.assert_allclose(jax.vmap(pareto_k)(many), each, rtol=1e-12)


def test_export_has_groups_names_and_labels():
    pytest.importorskip("arviz")
    draws = some_draws(draws=20)
    total = {"total": jnp.sum(draws.parameters["x"], axis=2)}
    found = to_arviz(draws, total, dims={"x": ["asset"]}, coords={"asset": ["A", "B", "C"]})
    assert found.posterior["x"].dims == ("chain", "draw", "asset")
    np.testing.assert_array_equal(
        found.posterior["x"].sel(asset="B").values, draws.parameters["x"][:, :, 1]
    )
    np.testing.assert_array_equal(found.posterior["total"].values, total["total"])
    np.testing.assert_array_equal(found.sample_stats["lp"].values, draws.log_density)
    assert found.sample_stats["step_size"].shape == (4, 20)
    assert {"energy", "diverging", "accepted"} <= set(found.sample_stats.data_vars)


@pytest.mark.parametrize(
    ("dims", "coords", "message"),
    [
        ({"y": ["asset"]}, {}, "names 'y', which is not among the draws: x"),
        ({"x": ["asset", "factor"]}, {}, "has 1 axes after chains and draws, dims names 2"),
        ({"x": ["asset"]}, {"asset": ["A"]}, "3 numbers on axis 'asset', coords has 1 labels"),
    ],
)
def test_export_refuses_what_does_not_fit(dims, coords, message):
    with pytest.raises(ValueError, match=message):
        to_arviz(some_draws(draws=20), dims=dims, coords=coords)


def test_export_without_arviz_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxfc\[bayes\]'"):
        to_arviz(some_draws(draws=20))
