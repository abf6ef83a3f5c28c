"""The recursive net against loops in NumPy, its gradients, its sizes."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.recursive.layers import Attention, SwiGLU
from jaxfc.recursive.network import Thought, TinyRecursiveNet, num_parameters
from jaxfc.recursive.optimiser import moved_average
from recursive.numpy_recursion import refinement

MIXINGS = ("tokens", "attention", "none")
WIDTH, TOKENS = 8, 5


def net_of(mixing, **options):
    options = {"num_heads": 2, "num_inner": 2, "num_cycles": 2} | options
    return TinyRecursiveNet(TOKENS, WIDTH, mixing=mixing, key=jax.random.key(0), **options)


def filled(net):
    """The net with weights from cosines, so that stored numbers depend on no random generator."""
    leaves, tree = jax.tree.flatten(net)
    numbers = [
        np.cos(1.0 + 1.7 * number + 0.9 * np.arange(leaf.size)).reshape(leaf.shape) * 0.4
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in numbers])


def plain(net):
    """The weights of the blocks as the oracle takes them."""
    found = []
    for block in net.blocks:
        weights = {"channels": (block.channels.gate_up.weight, block.channels.down.weight)}
        if isinstance(block.mix, Attention):
            weights |= {
                "query_key_value": block.mix.query_key_value.weight,
                "output": block.mix.output.weight,
                "num_heads": block.mix.num_heads,
            }
        elif isinstance(block.mix, SwiGLU):
            weights["mix"] = (block.mix.gate_up.weight, block.mix.down.weight)
        found.append(jax.tree.map(lambda x: x if isinstance(x, int) else np.asarray(x), weights))
    return found


@pytest.fixture(scope="module")
def embedded():
    return jnp.asarray(np.sin(0.7 * np.arange(TOKENS * WIDTH)).reshape(TOKENS, WIDTH))


# The first two and the last number of y after two refinements of the `filled` nets, from
# numpy_recursion.refinement under NumPy 2 (float64).
STORED = {
    "tokens": (-1.1542213309771572, 0.9630421366303025, 1.1494440403729613),
    "attention": (-0.054256072068518436, 1.0159638390004644, 0.4555512171378219),
    "none": (-0.24719064908397384, -0.2357835675920066, 1.2138851119389495),
}


@pytest.mark.parametrize("mixing", MIXINGS)
def test_parity_with_the_published_recursion(mixing, embedded):
    net = filled(net_of(mixing))
    start = net.start(TOKENS)
    refine = eqx.filter_jit(net.refine)
    found = refine(embedded, refine(embedded, start))
    expected = tuple(np.asarray(part) for part in start)
    for _ in range(2):
        expected = refinement(np.asarray(embedded), *expected, plain(net), 2, 2)
    np.testing.assert_allclose(found.answer, expected[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.latent, expected[1], rtol=1e-10, atol=1e-12)
    stored = np.asarray(found.answer).ravel()[[0, 1, -1]]
    np.testing.assert_allclose(stored, STORED[mixing], rtol=1e-9)
    logit = net.halting.weight[0] @ found.answer[0] + net.halting.bias[0]
    np.testing.assert_allclose(net.halt_logit(found.answer), logit, rtol=1e-12)


def test_one_cycle_has_the_full_gradient(embedded):
    """T = 1: weights' gradients are those of the recursion written out."""
    net = net_of("tokens", num_cycles=1)

    def by_scan(net):
        return jnp.sum(net.refine(embedded, net.start(TOKENS)).answer ** 3)

    def unrolled(net):
        answer, latent = net.start(TOKENS)
        for _ in range(2):
            latent = net.apply(latent + answer + embedded)
        return jnp.sum(net.apply(answer + latent) ** 3)

    one, other = (jax.jit(jax.grad(function))(net) for function in (by_scan, unrolled))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one.blocks)) > 1e-3


def test_earlier_cycles_have_no_gradient(embedded):
    """T = 3: gradients are those of the last full recursion from a constant, and none reach the
    state or the start vectors."""
    net = net_of("tokens", num_cycles=3)
    start = net.start(TOKENS)
    before = Thought(*(part for part in start))
    for _ in range(2):
        before = net.full_recursion(embedded, before)

    def whole(net, embedded, state):
        return jnp.sum(net.refine(embedded, state).answer ** 3)

    def last(net, embedded, state):
        return jnp.sum(net.full_recursion(embedded, state).answer ** 3)

    slopes = jax.jit(jax.grad(whole, argnums=(0, 1, 2)))
    found, by_input, by_state = slopes(net, embedded, start)
    expected, expected_input = jax.jit(jax.grad(last, argnums=(0, 1)))(net, embedded, before)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(by_input, expected_input, rtol=1e-8, atol=1e-11)
    for slope in (*by_state, found.first_answer, found.first_latent):
        np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_number_of_parameters(mixing):
    net = net_of(mixing)
    trained = sum(leaf.size for leaf in jax.tree.leaves((net.blocks, net.halting)))
    assert trained == num_parameters(TOKENS, WIDTH, mixing=mixing)
    assert net.depth == 2 * 3 * 2


def test_number_of_parameters_as_published():
    """Sudoku: 81 tokens behind 16, width 512: 5 million with token mixing, 7 million with
    attention (table 1 of the paper), depth 42."""
    published = {"tokens": 5, "attention": 7}
    for mixing, millions in published.items():
        assert round(num_parameters(97, 512, mixing=mixing, multiple=256) / 1e6) == millions
    shape = jax.eval_shape(lambda key: TinyRecursiveNet(97, 512, key=key), jax.random.key(0))
    assert shape.depth == 42


def test_shapes_that_each_mixing_takes(embedded):
    """Token mixing is made for one number of tokens; attention and vectors take any."""
    for mixing in ("attention", "none"):
        net = net_of(mixing)
        assert net.refine(embedded[:3], net.start(3)).answer.shape == (3, WIDTH)
    net = net_of("tokens")
    with pytest.raises(Exception, match=r"dot_general|shape|dimension"):
        net.refine(embedded[:3], net.start(3))
    alone = net_of("none")
    together = alone.refine(embedded, alone.start(TOKENS)).answer
    single = alone.refine(embedded[2:3], alone.start(1)).answer
    np.testing.assert_allclose(together[2], single[0], rtol=1e-12)


def test_attention_knows_positions_and_their_differences_alone(embedded):
    net = net_of("attention", num_inner=1, num_cycles=1)
    attention = net.blocks[0].mix
    assert isinstance(attention, Attention)
    order = jnp.asarray([1, 0, 2, 3, 4])
    swapped = attention(embedded[order])[order]
    assert np.abs(swapped - attention(embedded)).max() > 1e-3
    same = jnp.broadcast_to(embedded[:1], embedded.shape)
    np.testing.assert_allclose(attention(same), attention(same)[::-1], rtol=1e-9)


def test_average_of_weights():
    """EMA by recursion is the weighted sum of all weights passed."""
    decay, path = 0.9, np.random.default_rng(0).normal(size=(6, 3))
    average = {"w": jnp.asarray(path[0])}
    for row in path[1:]:
        average = moved_average(average, {"w": jnp.asarray(row)}, jnp.asarray(decay))
    weights = (1 - decay) * decay ** np.arange(5)[::-1]
    np.testing.assert_allclose(average["w"], decay**5 * path[0] + weights @ path[1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inner": 0}, "num_inner must be at least 1, got 0"),
        ({"num_cycles": 0}, "num_cycles must be at least 1, got 0"),
        ({"mixing": "attention", "num_heads": 3}, "width 8 is no multiple of 2 . num_heads = 6"),
    ],
)
def test_impossible_nets_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TinyRecursiveNet(TOKENS, WIDTH, key=jax.random.key(0), **options)


def test_lowers_for_cuda(embedded):
    net = net_of("attention")
    exported = jax.export.export(jax.jit(lambda *given: net.refine(*given)), platforms=["cuda"])(
        embedded, net.start(TOKENS)
    )
    assert exported.platforms == ("cuda",)


def test_leaves_are_arrays():
    """Everything of a net can be saved, averaged and put under vmap."""
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(net_of("attention")))
