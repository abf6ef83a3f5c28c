"""The hybrid against a filter by hand, no look at later rows, gates, training, forecasts, draws."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import jaxfc
from jaxfc.compose.hybrid import Hybrid
from jaxfc.compose.hybrid_cells import DiagonalCell, GatedCell
from jaxfc.compose.hybrid_laws import MomentAnchor, RegimeExperts
from jaxfc.compose.hybrid_network import HybridNetwork, Recursion
from jaxfc.compose.hybrid_regimes import RegimeAttention
from jaxfc.compose.hybrid_train import train
from jaxfc.regimes import DiagonalCovariance, RegimeModel, StudentTails
from jaxfc.regimes.masked import as_rows
from jaxfc.results import is_okay

NUM_TIMES = 160
CHAIN = RegimeModel(2, DiagonalCovariance(), max_steps=30, tolerance=1e-6)


@pytest.fixture(scope="module")
def world():
    """Calm and turbulent rows of three series with an autoregressive scale, some cells hidden."""
    rng = np.random.default_rng(0)
    regime, level, rows = 0, 0.0, []
    for _ in range(NUM_TIMES):
        regime = rng.choice(2, p=[[0.97, 0.03], [0.06, 0.94]][regime])
        level = 0.9 * level + 0.2 * rng.normal()
        common = rng.normal() * np.array([1.0, 0.8, 0.5])
        rows.append((1.0 + 2.0 * regime) * np.exp(level) * (common + 0.7 * rng.normal(size=3)))
    values, observed = np.array(rows), rng.random((NUM_TIMES, 3)) > 0.08
    observed[50], observed[-1] = False, True
    return jnp.asarray(np.where(observed, values, np.nan)), jnp.asarray(observed)


@eqx.filter_jit
def predicted(fitted, values, observed):
    return fitted.predictions(values, observed)


def hybrid(**options):
    """A small one, trained for a few steps."""
    common = {"width": 4, "num_steps": 30, "learning_rate": 0.02, "attention_width": 3}
    return Hybrid(CHAIN, MomentAnchor(), **(common | options))


@pytest.fixture(scope="module")
def anchor(world):
    """Attention, gated recurrence, normal law, trained jointly."""
    return eqx.filter_jit(hybrid().estimate)(*world, key=jax.random.key(0))


@pytest.fixture(scope="module")
def experts(world, anchor):
    """Student's experts on a diagonal recurrence and a recursive net, the head drawn at random."""
    network = HybridNetwork(
        dataclasses.replace(anchor.network.regimes, tails=StudentTails(5.0)),
        RegimeExperts(),
        attention_width=0,
        cell=DiagonalCell,
        refine=functools.partial(Recursion, num_inner=1),
        width=4,
        key=jax.random.key(1),
    )
    head = 0.3 * jax.random.normal(jax.random.key(5), network.head.shape)
    network = eqx.tree_at(lambda net: net.head, network, head)
    return eqx.filter_jit(lambda f: f.given(*world))(dataclasses.replace(anchor, network=network))


def untrained(fitted):
    """Its head at zero again, in units of the data."""
    bare = dataclasses.replace(
        fitted, centre=jnp.zeros_like(fitted.centre), scale=jnp.ones_like(fitted.scale)
    )
    return eqx.tree_at(lambda f: f.network.head, bare, jnp.zeros_like(fitted.network.head))


def filter_by_hand(regimes, density, cov_factor, values, observed):
    """Hamilton's filter with scipy's densities: law of the regime, moments and density by row."""
    law = np.exp(np.asarray(jax.nn.log_softmax(regimes.initial_logits)))
    mus, scatters = np.asarray(regimes.means), np.asarray(regimes.scatters)
    means, covs, terms = [], [], []
    for row, seen in zip(np.asarray(values), np.asarray(observed), strict=True):
        means.append(law @ mus)
        gaps = mus - means[-1]
        within = cov_factor * np.einsum("k,kab->ab", law, scatters)
        covs.append(within + np.einsum("k,ka,kb", law, gaps, gaps))
        densities = np.ones(2)
        if seen.any():
            for k in range(2):
                block = scatters[k][np.ix_(seen, seen)]
                densities[k] = density(row[seen], mus[k][seen], block)
        terms.append(np.log(law @ densities))
        law = (law * densities / (law @ densities)) @ np.asarray(regimes.transition)
    return np.array(means), np.array(covs), np.array(terms), law


@pytest.mark.parametrize("name", ["anchor", "experts"])
def test_the_anchor_alone_is_the_exact_filter(name, world, request):
    """Moments of both laws at every row, normal and Student; log densities of the experts."""
    fitted = untrained(request.getfixturevalue(name))
    regimes, student = fitted.network.regimes, name == "experts"

    def density(row, mean, scatter):
        if student:
            return stats.multivariate_t(mean, scatter, df=5.0).pdf(row)
        return stats.multivariate_normal(mean, scatter).pdf(row)

    factor = 5.0 / 3.0 if student else 1.0
    means, covs, terms, law = filter_by_hand(regimes, density, factor, *world)
    found = predicted(fitted, *world)
    assert_allclose(found.means[:-1], means, rtol=1e-9, atol=1e-11)
    assert_allclose(found.covs[:-1], covs, rtol=1e-9, atol=1e-11)
    assert_allclose(found.probabilities[-1], law, rtol=1e-9)
    assert_allclose(found.regime_log_densities, terms, rtol=1e-9, atol=1e-10)
    if student:
        assert_allclose(found.log_densities, terms, rtol=1e-9, atol=1e-10)


def test_densities_of_the_anchor_are_normal(world, anchor):
    values, observed = map(np.asarray, world)
    found = predicted(anchor, *world)
    assert float(anchor.loglik) == pytest.approx(float(np.sum(found.log_densities)), rel=1e-12)
    for t in (0, 49, 50, 120):
        seen = observed[t]
        expected = 0.0
        if seen.any():
            cov = np.asarray(found.covs[t])[np.ix_(seen, seen)]
            law = stats.multivariate_normal(np.asarray(found.means[t])[seen], cov)
            expected = law.logpdf(values[t, seen])
        assert float(found.log_densities[t]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["anchor", "experts"])
def test_the_past_is_the_same_bits_whatever_the_future(name, world, request):
    """A wild value, values of other size and new holes after row 100."""
    fitted = request.getfixturevalue(name)
    values, observed = world
    before = predicted(fitted, values, observed)
    later = (jnp.arange(NUM_TIMES) > 100)[:, None]
    changes = (
        (jnp.where(later, 1e8, values), observed),
        (jnp.where(later, -3.0 * values, values), observed & ~(later & (values > 0.0))),
        (values, observed & ~later),
    )
    for other, mask in changes:
        after = predicted(fitted, other, mask)
        for old, new in zip(before, after, strict=True):
            assert_array_equal(old[:101], new[:101])
        assert np.abs(np.asarray(before.means - after.means)[102:]).max() > 0.0


def test_whole_rows_have_the_bits_of_a_panel_without_holes(world, anchor):
    """A hole later on switches formulas for its own row alone."""
    whole = jnp.where(world[1], world[0], 0.3)
    full = jnp.ones_like(world[1])
    before, after = (predicted(anchor, whole, mask) for mask in (full, full.at[130, 1].set(False)))
    assert_array_equal(before.log_densities[:130], after.log_densities[:130])
    assert float(before.log_densities[130]) != float(after.log_densities[130])


def test_derivatives(world, anchor):
    """By later and hidden cells zero, by earlier ones not; by the chain that of differences."""
    values, observed = world
    floats, fixed = eqx.partition(anchor.network.regimes, eqx.is_inexact_array)
    keys = iter(jax.random.split(jax.random.key(2), 9))
    way = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), floats)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def width(values, step):
        moved = jax.tree.map(lambda leaf, way: leaf + step * way, floats, way)
        at = lambda fitted: fitted.network.regimes  # noqa: E731
        fitted = eqx.tree_at(at, anchor, eqx.combine(moved, fixed))
        return fitted.predictions(values, observed).covs[80, 0, 0]

    filled = jnp.where(observed, values, 0.0)
    _, (slope, by_chain) = width(filled, 0.0)
    assert_array_equal(slope[80:], 0.0)
    assert_array_equal(slope[~np.asarray(observed)], 0.0)
    assert np.abs(slope[60:80]).max() > 0.0
    after, before = (float(width(filled, step)[0]) for step in (1e-5, -1e-5))
    assert float(by_chain) == pytest.approx((after - before) / 2e-5, rel=1e-6)


def test_attention_without_evidence_is_the_prior():
    attention = RegimeAttention(3, 5, 4, key=jax.random.key(0))
    law, hidden = jnp.array([0.2, 0.5, 0.3]), jnp.arange(4.0)
    assert_allclose(attention.weights(hidden, jnp.log(law)), law, rtol=1e-15)
    query = jax.random.normal(jax.random.key(1), (5, 4))
    moved = eqx.tree_at(lambda a: a.query, attention, query)
    evidence = np.exp(np.asarray(attention.keys @ query @ hidden) / np.sqrt(5.0))
    expected = law * evidence / np.sum(law * evidence)
    assert_allclose(moved.weights(hidden, jnp.log(law)), expected, rtol=1e-12)
    assert_allclose(moved(hidden, jnp.log(law)), expected @ attention.values, rtol=1e-12)
    impossible = moved.weights(hidden, jnp.log(jnp.array([0.0, 0.5, 0.5])))
    assert float(impossible[0]) == 0.0


def test_a_recursion_is_its_loop():
    recursion, hidden = Recursion(4, key=jax.random.key(0)), jnp.array([0.3, -1.0, 0.5, 2.0])
    net = recursion.net

    @jax.jit
    def loop(hidden):
        y, z, x = net.first_answer[None], net.first_latent[None], hidden[None]
        for _ in range(2):
            for _ in range(3):
                z = net.apply(z + y + x)
            y = net.apply(y + z)
        return y[0]

    assert_allclose(eqx.filter_jit(recursion)(hidden), loop(hidden), rtol=1e-12)


def test_training_keeps_the_best_on_rows_held_out(world, anchor):
    assert bool(is_okay(anchor.result))
    held = np.asarray(anchor.held_out_path)
    assert int(anchor.num_steps) == held.argmin() > 0
    assert float(anchor.path[-1]) < float(anchor.path[0]) - 0.005
    found = predicted(anchor, *world)
    rows = slice(int(0.8 * NUM_TIMES), None)
    seen = np.asarray(world[1])[rows]
    loss = -np.sum(found.log_densities[rows]) - np.sum(seen @ np.log(np.asarray(anchor.scale)))
    assert loss / seen.sum() == pytest.approx(held.min(), rel=1e-10)


@pytest.mark.slow
def test_staged_training_leaves_the_chain_and_a_divergence_keeps_the_best(world, experts):
    network = untrained(experts).network
    rows = as_rows((world[0] - experts.centre) / experts.scale, world[1])
    held_out = (jnp.arange(NUM_TIMES) >= 128) * 1.0

    @eqx.filter_jit
    def trained(rate, joint):
        return train(network, rows, held_out, learning_rate=rate, num_steps=12, joint=joint)

    staged, joint = (trained(jnp.asarray(0.03), joint) for joint in (False, True))
    for name in ("initial_logits", "transition_logits", "means", "roots"):
        before = getattr(network.regimes, name)
        assert_array_equal(getattr(staged.network.regimes, name), before)
        assert np.abs(getattr(joint.network.regimes, name) - before).max() > 1e-3
    assert float(joint.network.regimes.tails.degrees) == 5.0
    assert np.abs(np.asarray(staged.network.head)).max() > 0.0
    assert_allclose(staged.path[0], joint.path[0], rtol=1e-12)
    assert float(joint.path[-1]) < float(staged.path[-1]) < float(staged.path[0])
    lost = trained(jnp.asarray(jnp.nan), False)
    assert not bool(is_okay(lost.result)) and int(lost.num_steps) == 0
    assert_array_equal(lost.network.head, network.head)


@pytest.mark.parametrize("name", ["anchor", "experts"])
def test_one_row_is_exact_and_more_are_drawn(name, world, request):
    fitted = request.getfixturevalue(name)
    found, law = predicted(fitted, *world), fitted.forecast(1)
    assert_allclose(law.mean[0], found.means[-1], rtol=1e-10, atol=1e-12)
    assert_allclose(law.cov[0, :, 0], found.covs[-1], rtol=1e-10)
    paths = eqx.filter_jit(fitted.forecast)(2, key=jax.random.key(3), num_draws=3000)
    assert paths.draws.shape == (3000, 2, 3)
    errors = np.asarray(law.std[0]) / np.sqrt(3000)
    assert np.all(np.abs(np.asarray(paths.mean[0] - law.mean[0])) < 4.0 * errors)
    assert_allclose(paths.std[0], law.std[0], rtol=0.1)


def test_a_drawn_row_is_fed_back_as_a_seen_one(world, anchor):
    """From the state before the last row, and that row, to the state after it."""
    run, _ = eqx.filter_jit(anchor.ran)(*world)
    units = (world[0][-1] - anchor.centre) / anchor.scale

    @jax.jit
    def advanced(hidden, law):
        law = anchor.network.regimes.after(law, units)
        return anchor.network.advance(hidden, law, units, jnp.ones(3)), law

    hidden, law = advanced(run.hidden[-2], run.log_probabilities[-2])
    assert_allclose(law, anchor.log_predicted, rtol=1e-10)
    assert_allclose(hidden, anchor.hidden, rtol=1e-10)
    path = eqx.filter_jit(anchor.simulate)(100, key=jax.random.key(4))
    assert path.shape == (100, 3)
    spread = np.std(np.asarray(path), axis=0) / np.asarray(anchor.scale)
    assert np.all((spread > 0.2) & (spread < 5.0))


def test_checks_and_lowering_for_cuda(world, anchor):
    index = pd.bdate_range("2020-01-01", periods=NUM_TIMES)
    panel = jaxfc.Panel.from_frame(pd.DataFrame(np.asarray(world[0]), index, list("ABC")))
    model = hybrid()
    with pytest.raises(ValueError, match="Hybrid draws weights: pass key"):
        model.fit(panel)
    with pytest.raises(ValueError, match="horizon of 2 rows is drawn path by path"):
        anchor.forecast(2)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        anchor.forecast(0)
    for options, message in (
        ({"width": 0}, "width must be at least 1"),
        ({"attention_width": -1}, "attention_width must be 0 or more"),
        ({"held_out": 1.0}, "share of the rows"),
    ):
        with pytest.raises(ValueError, match=message):
            hybrid(**options)
    program = jax.jit(lambda v, o, k: model.estimate(v, o, key=k).forecast(1).cov)
    exported = jax.export.export(program, platforms=["cuda"])(*world, jax.random.key(0))
    assert exported.platforms == ("cuda",)


def test_the_gated_cell_is_equinox_own():
    key, inputs, hidden = jax.random.key(5), jnp.arange(3.0) - 1.0, jnp.linspace(-1.0, 1.0, 4)
    ours, theirs = GatedCell(3, 4, key=key), eqx.nn.GRUCell(3, 4, key=key)
    np.testing.assert_allclose(ours(inputs, hidden), theirs(inputs, hidden), rtol=1e-12)
