"""Draws of loadings rotated to one another."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.bayes import align_loadings


def rotated_draws(noise=0.05):
    """Loadings with columns of different lengths, factors, and draws of both that are rotated,
    reflected and permuted at random."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(12, 3)) * [2.0, 1.0, 0.5] + [1.0, 0.0, 0.0]
    loadings = np.linalg.qr(loadings)[0] * [4.0, 2.0, 1.0]
    loadings *= np.sign(loadings.sum(0))
    factors = rng.normal(size=(9, 3))
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(50)]
    draws = [(loadings + noise * rng.normal(size=loadings.shape)) @ t for t in turns]
    paths = [factors @ t for t in turns]
    return loadings, factors, jnp.asarray(np.stack(draws)), jnp.asarray(np.stack(paths))


def test_planted_rotations_are_found():
    loadings, factors, draws, paths = rotated_draws()
    aligned = align_loadings(draws, paths)
    # Means of 50 draws with an error of 0.05.
    np.testing.assert_allclose(aligned.loadings.mean(0), loadings, atol=0.06)
    np.testing.assert_allclose(aligned.factors.mean(0), factors, atol=0.06)
    assert float(aligned.distance) < 2 * 0.05 * np.sqrt(loadings.size)


def test_common_components_and_covariances_stay():
    _, _, draws, paths = rotated_draws()
    aligned = align_loadings(draws, paths)
    assert aligned.factors is not None
    before = jnp.einsum("dtk,dik->dti", paths, draws)
    after = jnp.einsum("dtk,dik->dti", aligned.factors, aligned.loadings)
    np.testing.assert_allclose(after, before, atol=1e-10)
    turned = aligned.rotations
    identity = jnp.einsum("dab,dac->dbc", turned, turned)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-10)


def test_anchors_are_positive():
    _, _, draws, _ = rotated_draws()
    aligned = align_loadings(draws, anchors=(3, 5, 7))
    mean = np.asarray(aligned.loadings.mean(0))
    assert np.all(mean[[3, 5, 7], [0, 1, 2]] > 0.0)


@pytest.mark.parametrize("anchors, message", [((1,), "as many anchors"), ((0, 1, 99), "anchor 99")])
def test_bad_anchors_are_named(anchors, message):
    with pytest.raises(ValueError, match=message):
        align_loadings(rotated_draws()[2], anchors=anchors)
