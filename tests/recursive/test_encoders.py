"""Recurrences against textbook loops, gaps cut in two, networks that start at the anchor."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.recursive import baselines
from jaxfc.recursive.encoders import Decaying, Gated
from jaxfc.recursive.heads import GaussianHead
from jaxfc.recursive.nets import Inputs, Sizes

SIZES = Sizes(window=8, num_series=3, num_channels=2, horizon=2, targets=(0, 2), num_outputs=2)
ARCHITECTURES = (
    baselines.ConstantNet(),
    baselines.LinearNet(),
    baselines.MultilayerNet(4, 1),
    baselines.MixerNet(4, num_blocks=1),
    baselines.GatedNet(4),
    baselines.DecayingNet(4),
    baselines.PatchAttentionNet(4, num_blocks=1, num_heads=2),
    baselines.RecursiveNet(4, num_blocks=1, num_inner=1),
)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    features, gaps = rng.normal(size=(8, 3, 2)), rng.uniform(0.2, 3.0, 8)
    return Inputs(jnp.asarray(features), jnp.asarray(gaps))


def test_decaying_states_are_the_recursion(inputs):
    encoder = Decaying(SIZES, 5, key=jax.random.key(0))
    rates = np.exp(np.asarray(encoder.log_rates))
    np.testing.assert_allclose(1.0 / rates[[0, -1]], [1.0, 8.0])
    state = np.zeros(5)
    for row, gap in zip(np.asarray(inputs.features), np.asarray(inputs.gaps), strict=True):
        driven = np.asarray(encoder.inputs.weight) @ row.ravel()
        state = np.exp(-rates * gap) * state + np.sqrt(1 - np.exp(-2 * rates)) * driven
    np.testing.assert_allclose(encoder.states(inputs), state, rtol=1e-10)


def test_a_gap_cut_in_two_changes_nothing(inputs):
    encoder = Decaying(SIZES, 5, key=jax.random.key(0))
    gap = inputs.gaps[3]
    gaps = jnp.concatenate([inputs.gaps[:3], jnp.stack([0.3 * gap, 0.7 * gap]), inputs.gaps[4:]])
    empty = jnp.zeros((1, 3, 2))
    features = jnp.concatenate([inputs.features[:3], empty, inputs.features[3:]])
    np.testing.assert_allclose(encoder(Inputs(features, gaps)), encoder(inputs), rtol=1e-10)


def test_gated_states_are_the_recursion(inputs):
    encoder = Gated(SIZES, 4, key=jax.random.key(0))

    def sigmoid(x):
        return 1.0 / (1.0 + np.exp(-x))

    outer, inner = np.asarray(encoder.inputs.weight), np.asarray(encoder.hidden.weight)
    state = np.zeros(4)
    for row in np.asarray(inputs.features):
        driven, own = outer @ row.ravel(), inner @ state
        reset, keep = sigmoid(driven[:4] + own[:4]), sigmoid(driven[4:8] + own[4:8])
        state = (1 - keep) * np.tanh(driven[8:] + reset * own[8:]) + keep * state
    np.testing.assert_allclose(encoder(inputs)[0], state, rtol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: type(a).__name__)
def test_outputs_start_at_zero_and_every_weight_of_the_readout_learns(architecture, inputs):
    network = architecture.build(SIZES, GaussianHead(), key=jax.random.key(0))
    outputs = eqx.filter_jit(network.outputs)(inputs)
    assert outputs.shape == SIZES.outputs
    np.testing.assert_array_equal(outputs, 0.0)
    slopes = eqx.filter_jit(eqx.filter_grad(lambda net: jnp.sum(net.outputs(inputs))))(network)
    assert np.abs(slopes.readout.linear.bias).min() > 0
