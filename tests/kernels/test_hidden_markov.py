"""Hidden Markov kernels: all implementations against textbook loops and against enumeration."""

import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc_kernels.hidden_markov import (
    IMPLEMENTATIONS,
    hidden_markov_filter,
    hidden_markov_smoother,
    most_likely_path,
)
from jaxfc_kernels.reference.hidden_markov import forward_backward


@jax.jit
def answers(initial, transition, log_densities):
    found = {}
    for name in IMPLEMENTATIONS:
        filtered = hidden_markov_filter(initial, transition, log_densities, implementation=name)
        found[name] = filtered, hidden_markov_smoother(filtered, transition, implementation=name)
    return found, most_likely_path(initial, transition, log_densities)


def chain(num_times, num_states, seed, *, varies=False, zeros=False, scale=2.0):
    rng = np.random.default_rng(seed)
    shape = (num_times - 1, num_states, num_states) if varies else (num_states, num_states)
    transition = rng.random(shape) + 2 * np.eye(num_states)
    if zeros:  # a chain that only climbs, and the first state out of reach at first
        transition = np.triu(transition)
    transition /= transition.sum(axis=-1, keepdims=True)
    initial = rng.random(num_states)
    if zeros:
        initial[-1] = 0.0
    return initial / initial.sum(), transition, scale * rng.normal(size=(num_times, num_states))


CASES = {
    "2 states": chain(12, 2, 0),
    "2 states, changing": chain(12, 2, 1, varies=True),
    "3 states, zeros": chain(12, 3, 2, zeros=True),
    "3 states, zeros, changing": chain(12, 3, 3, zeros=True, varies=True),
    "3 states, densities to e^-100000": chain(12, 3, 4, zeros=True, scale=4e4),
    "2 states, one row": chain(1, 2, 5),
    "2 states, one row, far out": chain(1, 2, 6, scale=1e5),
    "1 state": chain(12, 1, 7),
}


@pytest.mark.parametrize("name", CASES)
def test_all_implementations_against_the_loops(name):
    expected = forward_backward(*CASES[name])
    found, path = answers(*map(jnp.asarray, CASES[name]))
    np.testing.assert_array_equal(path, expected.path)
    for filtered, smoothed in found.values():
        close = {"rtol": 1e-10, "atol": 1e-12}
        np.testing.assert_allclose(np.exp(filtered.log_predicted), expected.predicted, **close)
        np.testing.assert_allclose(np.exp(filtered.log_filtered), expected.filtered, **close)
        np.testing.assert_allclose(filtered.loglik_terms, expected.loglik_terms, **close)
        np.testing.assert_allclose(smoothed.probabilities, expected.smoothed, **close)
        np.testing.assert_allclose(smoothed.pairs, expected.pairs, **close)


def test_the_loops_against_all_paths():
    initial, transition, log_densities = chain(5, 3, 8)
    total, smoothed, best = 0.0, np.zeros((5, 3)), (-np.inf, ())
    for path in itertools.product(range(3), repeat=5):
        weight = initial[path[0]] * np.exp(log_densities[0, path[0]])
        for t in range(1, 5):
            weight *= transition[path[t - 1], path[t]] * np.exp(log_densities[t, path[t]])
        total += weight
        smoothed[np.arange(5), path] += weight
        best = max(best, (weight, path))
    expected = forward_backward(initial, transition, log_densities)
    assert expected.loglik_terms.sum() == pytest.approx(np.log(total), rel=1e-13)
    np.testing.assert_allclose(expected.smoothed, smoothed / total, rtol=1e-12)
    assert tuple(expected.path) == best[1]


def test_a_state_that_a_row_rules_out_may_come_back():
    """The states never change; row 1 speaks for the first, row 2 more loudly for the second."""
    initial, transition = jnp.array([0.5, 0.5]), jnp.eye(2)
    densities = jnp.array([[0.0, -1e5], [-2e5, 0.0]])
    found, path = answers(initial, transition, densities)
    for filtered, smoothed in found.values():
        assert float(filtered.loglik_terms.sum()) == pytest.approx(-1e5 + np.log(0.5), rel=1e-15)
        np.testing.assert_allclose(smoothed.probabilities, [[0, 1], [0, 1]], atol=1e-15)
    assert path.tolist() == [1, 1]


def test_impossible_data_are_told():
    transition = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    never = jnp.array([[0.0, 0.0], [-jnp.inf, 0.0], [0.0, 0.0]])
    found, _ = answers(jnp.array([0.0, 1.0]), transition, never)
    for filtered, _ in found.values():
        assert not np.isfinite(float(filtered.loglik_terms.sum()))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_derivatives(name):
    """Against central differences; by the densities, the smoothed probabilities (Fisher)."""
    initial, transition, densities = map(jnp.asarray, chain(9, 3, 9, scale=1.0))

    def loglik(initial, transition, densities):
        filtered = hidden_markov_filter(initial, transition, densities, implementation=name)
        return jnp.sum(filtered.loglik_terms)

    value = jax.jit(loglik)
    slopes = jax.jit(jax.grad(loglik, (0, 1, 2)))(initial, transition, densities)
    smoothed = forward_backward(*map(np.asarray, (initial, transition, densities))).smoothed
    np.testing.assert_allclose(slopes[2], smoothed, rtol=1e-10, atol=1e-13)
    rng = np.random.default_rng(0)
    for place in range(2):
        given = [initial, transition, densities]
        direction = jnp.asarray(rng.normal(size=given[place].shape))
        ends = []
        for sign in (1, -1):
            moved = list(given)
            moved[place] = given[place] + sign * 1e-5 * direction
            ends.append(float(value(*moved)))
        difference = (ends[0] - ends[1]) / 2e-5
        assert float(jnp.sum(slopes[place] * direction)) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_derivatives_with_zeros_are_finite(name):
    """No NaN where a probability is zero, and none from rows far out."""
    initial, transition, densities = map(jnp.asarray, CASES["3 states, densities to e^-100000"])

    def total(initial, transition, densities):
        filtered = hidden_markov_filter(initial, transition, densities, implementation=name)
        smoothed = hidden_markov_smoother(filtered, transition, implementation=name)
        return jnp.sum(filtered.loglik_terms) + jnp.sum(smoothed.pairs[:, 0])

    for slope in jax.jit(jax.grad(total, (0, 1, 2)))(initial, transition, densities):
        assert bool(jnp.all(jnp.isfinite(slope)))


def test_a_transition_of_probability_zero_has_its_slope():
    """d loglik / d P[0, 1] at P[0, 1] = 0, sequential filter, against a one-sided difference."""
    initial, transition = jnp.array([0.6, 0.4]), jnp.array([[1.0, 0.0], [0.3, 0.7]])
    densities = jnp.asarray(chain(6, 2, 3, scale=1.0)[2])

    def loglik(entry):
        filtered = hidden_markov_filter(initial, transition.at[0, 1].set(entry), densities)
        return jnp.sum(filtered.loglik_terms)

    slope = float(jax.grad(loglik)(0.0))
    assert slope == pytest.approx(float(loglik(1e-7) - loglik(0.0)) / 1e-7, rel=1e-5)
    assert slope > 0.1


def test_batch_equals_loop_and_lowers_for_cuda():
    cases = [chain(12, 2, seed) for seed in (0, 20)]
    stacked = [jnp.stack([jnp.asarray(case[i]) for case in cases]) for i in range(3)]
    batch, paths = jax.jit(jax.vmap(answers))(*stacked)
    for i, case in enumerate(cases):
        expected = forward_backward(*case)
        np.testing.assert_array_equal(paths[i], expected.path)
        for _, smoothed in batch.values():
            np.testing.assert_allclose(smoothed.pairs[i], expected.pairs, atol=1e-12)
    exported = jax.export.export(answers, platforms=["cuda"])(*map(jnp.asarray, cases[0]))
    assert exported.platforms == ("cuda",)


def test_float32_keeps_its_digits():
    case = chain(40, 2, 11)
    expected = forward_backward(*case)
    found, _ = answers(*[jnp.asarray(x, jnp.float32) for x in case])
    for _, smoothed in found.values():
        assert smoothed.pairs.dtype == jnp.float32
        np.testing.assert_allclose(smoothed.pairs, expected.pairs, atol=3e-6)


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="unknown implementation 'fast'; use one of"):
        hidden_markov_filter(*map(jnp.asarray, chain(3, 2, 0)), implementation="fast")
