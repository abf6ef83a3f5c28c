"""A learned policy comes back from disk bit for bit, and its network is that of equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.factors import PPCA, DynamicFactorModel
from jaxfc.microstructure import ExecutionMarket, FeedbackPolicy, TrainedPolicy, train_policy
from jaxfc.microstructure.execution_policy import ShareNetwork
from jaxfc.serialisation import load, save

MARKET = ExecutionMarket(4, duration=4.0, transient=1.0, resilience=0.3, signal_scale=0.1)


@pytest.fixture(scope="module")
def trained():
    policy = FeedbackPolicy(MARKET, 2.0, width=3, key=jax.random.key(0))
    learn = eqx.filter_jit(
        lambda key: train_policy(policy, MARKET, 2.0, key=key, num_steps=3, num_paths=4)
    )
    return learn(jax.random.key(1))


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_learned_policy_comes_back_bit_for_bit(trained, tmp_path):
    path = tmp_path / "policy.jaxfc"
    save(trained.policy, path)
    loaded = load(path, FeedbackPolicy)
    assert float(jnp.abs(loaded.network.weights[-1]).max()) > 0.0  # something was learned
    assert_same(loaded, trained.policy)
    key = jax.random.key(2)
    assert_same(MARKET.run(loaded, 2.0, key=key), MARKET.run(trained.policy, 2.0, key=key))
    slope = jax.grad(lambda policy: MARKET.run(policy, 2.0, key=key).cost)
    assert_same(slope(loaded), slope(trained.policy))


def test_training_comes_back_with_its_verdict(trained, tmp_path):
    save(trained, tmp_path / "trained")
    loaded = load(tmp_path / "trained", TrainedPolicy)
    assert_same(loaded, trained)


def test_another_kind_is_refused_and_named(trained, tmp_path):
    path = tmp_path / "policy.jaxfc"
    save(trained.policy, path)
    with pytest.raises(ValueError, match=r"FeedbackPolicy, not a fitted model.*load\(path, Feed"):
        load(path)
    with pytest.raises(ValueError, match="FeedbackPolicy, not a TrainedPolicy"):
        load(path, TrainedPolicy)
    with pytest.raises(TypeError, match="DynamicFactorModel"):
        save(DynamicFactorModel(num_factors=1, num_lags=1, method=PPCA()), path)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_network_starts_and_answers_as_equinox_does(depth):
    key, inputs = jax.random.key(3), jnp.asarray([0.2, -1.0, 0.5, 2.0])
    ours = ShareNetwork(4, 5, depth, jnp.float64, key=key)
    theirs = eqx.nn.MLP(4, "scalar", 5, depth, jnp.tanh, dtype=jnp.float64, key=key)
    assert ours(inputs) == 0.0
    learned = eqx.tree_at(
        lambda net: (net.weights[-1], net.biases[-1]),
        ours,
        (theirs.layers[-1].weight, theirs.layers[-1].bias),
    )
    assert_same(learned(inputs), theirs(inputs))
    slopes = jax.tree.leaves(jax.grad(lambda net: net(inputs))(learned).weights)
    expected = eqx.filter_grad(lambda net: net(inputs))(theirs)
    for slope, layer in zip(slopes, expected.layers, strict=True):
        np.testing.assert_array_equal(slope, layer.weight)
