"""Queue-reactive books against closed forms, a loop over events, and known rates."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure.events import EventKind
from jaxfc.microstructure.queue_reactive import (
    QueueReactive,
    draw_queues,
    estimate_queue_rates,
    simulate_queue_reactive,
)

SIZES = np.arange(9)
LIMIT = np.stack([1.5 * np.exp(-0.1 * SIZES), 1.2 + 0.0 * SIZES])
LIMIT[:, -1] = 0.0
TABLES = {
    "limit": jnp.asarray(LIMIT),
    "cancel": jnp.asarray(np.stack([0.2 * SIZES, 0.3 * SIZES])),
    "market": jnp.asarray(np.stack([0.6 * (SIZES > 0), 0.0 * SIZES])),
}
NUM_EVENTS, NUM_BOOKS = 500, 64


@pytest.fixture(scope="module")
def run():
    def books(law, key):
        keys = jax.random.split(key, NUM_BOOKS)

        def one(key):
            start_key, key = jax.random.split(key)
            start = draw_queues(law, key=start_key)
            return simulate_queue_reactive(law, start, NUM_EVENTS, key=key)

        return jax.vmap(one)(keys)

    return jax.jit(books)


@pytest.fixture(scope="module")
def fixed(run):
    """The reference stays where it is."""
    return run(QueueReactive(**TABLES, move=0.0, redraw=0.0), jax.random.key(0))


@pytest.fixture(scope="module")
def moving(run):
    return run(QueueReactive(**TABLES, move=0.7, redraw=0.4), jax.random.key(1))


def test_stationary_law_balances_and_is_that_of_simulated_queues(fixed):
    law = QueueReactive(**TABLES, move=0.0, redraw=0.0)
    exact = np.asarray(law.stationary)
    np.testing.assert_allclose(exact.sum(axis=1), 1.0, rtol=1e-12)
    flow_up = exact[:, :-1] * LIMIT[:, :-1]
    flow_down = exact[:, 1:] * np.asarray(law.cancel + law.market)[:, 1:]
    np.testing.assert_allclose(flow_up, flow_down, rtol=1e-12)
    gap, sizes = np.asarray(fixed.events.gap), np.asarray(fixed.before.sizes)
    for distance in range(2):
        here = sizes[:, :, :, distance]
        shares = np.stack([(gap[..., None] * (here == s)).sum(axis=1) for s in SIZES], axis=-1)
        shares = shares / gap.sum(axis=1)[:, None, None]
        error = shares.reshape(-1, len(SIZES)).std(axis=0) / (2 * NUM_BOOKS) ** 0.5
        mean = shares.reshape(-1, len(SIZES)).mean(axis=0)
        assert np.all(np.abs(mean - exact[distance]) < 4 * error + 1e-3)
    assert bool(jnp.all(fixed.before.reference == 0))


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_rates_are_found_again(which, request):
    simulated = request.getfixturevalue(which)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (simulated.events, simulated.before))
    found = jax.jit(lambda *rows: estimate_queue_rates(*rows, num_sizes=len(SIZES)))(*flat)
    scores = []
    for name, truth in TABLES.items():
        rate = np.asarray(getattr(found, name))
        expected = np.asarray(truth) * np.asarray(found.exposure)
        assert np.all(rate[np.asarray(truth) == 0] == 0)
        seen = expected > 30
        counts = rate * np.asarray(found.exposure)
        scores.append(((counts - expected) / np.sqrt(np.maximum(expected, 1)))[seen])
    scores = np.concatenate(scores)
    assert len(scores) > 20
    assert np.abs(scores).max() < 4.2
    assert 0.6 < scores.std() < 1.4


def test_moves_follow_the_rules(moving):
    """Each step against the rules in words; shares of moves and redraws against their odds."""
    moves = chances = shifts = 0
    for book in range(NUM_BOOKS):
        events = [np.asarray(x[book]) for x in jax.tree.leaves(moving.events)]
        sizes = np.asarray(moving.before.sizes[book])
        reference = np.asarray(moving.before.reference[book])
        for t in range(NUM_EVENTS - 1):
            kind, side, price = (int(events[i][t]) for i in (1, 2, 3))
            row = 0 if side > 0 else 1
            distance = reference[t] - 1 - price if side > 0 else price - reference[t]
            after = sizes[t].copy()
            after[row, distance] += 1 if kind == EventKind.ADD else -1
            assert after.min() >= 0
            first = [next((i for i, n in enumerate(q) if n), 2) for q in after]
            before = [next((i for i, n in enumerate(q) if n), 2) for q in sizes[t]]
            change = (first[1] - first[0]) - (before[1] - before[0])
            step = int(np.sign(change)) if after[1 if change > 0 else 0, 0] == 0 else 0
            moved = reference[t + 1] - reference[t]
            assert moved in (0, step)
            chances += step != 0
            moves += moved != 0
            if moved == 0:
                np.testing.assert_array_equal(sizes[t + 1], after)
                continue
            up, down = (1, 0) if moved > 0 else (0, 1)
            kept = sizes[t + 1][up, 0] == after[up, 1] and sizes[t + 1][down, 0] == 0
            shifts += bool(kept and sizes[t + 1][down, 1] == after[down, 0])
    assert moves / chances == pytest.approx(0.7, abs=4 * 0.5 / chances**0.5)
    # Some books drawn anew look like shifted ones.
    assert 0.6 - 4 * 0.5 / moves**0.5 < shifts / moves < 0.72


def test_lowers_for_cuda():
    law = QueueReactive(**TABLES, move=0.5, redraw=0.5)
    one = jax.jit(
        lambda key: simulate_queue_reactive(law, draw_queues(law, key=key), 4, key=key).last
    )
    exported = jax.export.export(one, platforms=["cuda"])(jax.random.key(0))
    assert exported.platforms == ("cuda",)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"limit": jnp.ones((2, 9))}, "limit must be zero at the largest"),
        ({"cancel": jnp.ones((2, 9))}, "nothing is there"),
        ({"move": 1.5}, "probabilities"),
        ({"market": -TABLES["market"]}, "market must be finite"),
    ],
)
def test_impossible_tables_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        QueueReactive(**{**TABLES, "move": 0.5, "redraw": 0.5, **change})
