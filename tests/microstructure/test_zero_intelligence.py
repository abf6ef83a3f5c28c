"""Simulated books against a book kept as a dictionary, exact probabilities and known rates."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure.events import EventKind
from jaxfc.microstructure.simulate_rates import OrderFlow, estimate_flow
from jaxfc.microstructure.simulate_zero_intelligence import (
    exposures,
    queue_book,
    simulate_zero_intelligence,
)
from jaxfc.microstructure.up_moves import up_move_probabilities

FLOW = OrderFlow(
    jnp.array([1.85, 1.51, 1.09, 0.88, 0.77]),
    jnp.array([0.71, 0.81, 0.68, 0.56, 0.47]),
    jnp.asarray(0.94),
)
DEPTHS = jnp.array([2, 3, 3, 2, 2])
# Few distances and many trades: the mid goes far within a small window.
SHORT = OrderFlow(FLOW.limit[:3], FLOW.cancel[:3], jnp.asarray(3.0))
NUM_LEVELS, NUM_EVENTS, NUM_BOOKS = 16, 400, 48


@pytest.fixture(scope="module")
def start():
    return queue_book(DEPTHS, DEPTHS, num_levels=NUM_LEVELS)


@pytest.fixture(scope="module")
def run():
    def books(flow, start, keys, num_events):
        one = lambda key: simulate_zero_intelligence(flow, start, num_events, key=key)  # noqa: E731
        return jax.vmap(one)(keys)

    return jax.jit(books, static_argnums=3)


@pytest.fixture(scope="module")
def simulated(run, start):
    return run(SHORT, start, jax.random.split(jax.random.key(0), NUM_BOOKS), NUM_EVENTS)


def replayed(events, num_levels):
    """Quotes after each event of a book kept as two dictionaries, and the depth before it at
    distances 1 .. 3 of both sides."""
    depth = {1: {-i: int(n) for i, n in enumerate(DEPTHS)}}
    depth[-1] = {1 + i: int(n) for i, n in enumerate(DEPTHS)}
    best = {1: 0, -1: 1}
    quotes, depths, sides = [], [], []
    for kind, side, price in zip(*map(np.asarray, events), strict=True):
        row = [depth[1].get(best[-1] - i, 0) + depth[-1].get(best[1] + i, 0) for i in range(1, 4)]
        depths.append(row)
        sides.append(sum(bool(queues) for queues in depth.values()))
        own = depth[int(side)]
        if kind == EventKind.ADD:
            assert side * price < side * best[-side]
            own[int(price)] = own.get(int(price), 0) + 1
        else:
            if kind == EventKind.EXECUTE:
                assert price == best[side]
            own[int(price)] -= 1  # a price without orders is a KeyError
            if not own[int(price)]:
                del own[int(price)]
        if own:
            best[int(side)] = max(own) if side > 0 else min(own)
        first = ((best[1] + best[-1]) >> 1) - num_levels // 2 + 1
        for queues in depth.values():
            for far in [p for p in queues if not first <= p < first + num_levels]:
                del queues[far]
        quotes.append((best[1], best[-1]))
    return np.array(quotes), np.array(depths), np.array(sides)


def test_events_are_those_of_a_book_of_dictionaries(simulated, start):
    columns = jax.jit(jax.vmap(lambda events: exposures(start, events, 3)))(simulated.events)
    kinds = set()
    for book in range(6):
        rows = [x[book] for x in jax.tree.leaves(simulated.events)]
        quotes, depths, sides = replayed(rows[1:4], NUM_LEVELS)
        np.testing.assert_array_equal(simulated.bid[book], quotes[:, 0])
        np.testing.assert_array_equal(simulated.ask[book], quotes[:, 1])
        np.testing.assert_array_equal(columns.depth[book], depths)
        np.testing.assert_array_equal(columns.num_sides[book], sides)
        kinds |= set(np.asarray(rows[1]).tolist())
    assert kinds == {EventKind.ADD, EventKind.DELETE, EventKind.EXECUTE}
    assert bool(jnp.all(simulated.bid < simulated.ask))
    assert bool(jnp.all(simulated.last.depth >= 0))
    # The window moved with the price, past orders that were dropped.
    assert int(jnp.max(jnp.abs(simulated.bid))) > NUM_LEVELS // 2


def test_rates_are_found_again(simulated, start):
    """Maximum likelihood within four standard errors of the truth, and these near each other."""
    columns = jax.vmap(lambda events: exposures(start, events, 3))(simulated.events)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (simulated.events, columns))
    events, (distance, depth, sides) = flat
    found = jax.jit(estimate_flow)(events.gap, events.kind, distance, depth, sides)
    scores = np.concatenate(
        [
            (found.flow.limit - SHORT.limit) / found.limit_error,
            (found.flow.cancel - SHORT.cancel) / found.cancel_error,
            [(found.flow.market - SHORT.market) / found.market_error],
        ]
    )
    assert np.abs(scores).max() < 4.0
    assert 0.3 < scores.std() < 2.0
    assert found.limit_error[0] < 0.04 * SHORT.limit[0]


@pytest.mark.parametrize(("bid", "ask"), [(1, 2), (3, 1), (2, 2)])
def test_up_moves_within_three_standard_errors_of_the_linear_solve(run, bid, ask):
    """Orders at one tick only; deeper queues of one order that nothing touches."""
    num_books = 4000
    flow = OrderFlow(FLOW.limit[:1], FLOW.cancel[:1], FLOW.market)
    start = queue_book(jnp.array([bid, 1]), jnp.array([ask, 1]), num_levels=8)
    keys = jax.random.split(jax.random.key(10 * bid + ask), num_books)
    found = run(flow, start, keys, 250)
    moves = np.asarray(found.bid + found.ask) - 1
    assert (moves != 0).any(axis=1).all()
    first = np.take_along_axis(moves, np.argmax(moves != 0, axis=1)[:, None], axis=1)[:, 0]
    truth = float(up_move_probabilities(flow)[bid - 1, ask - 1])
    error = np.sqrt(truth * (1 - truth) / num_books)
    assert np.mean(first > 0) == pytest.approx(truth, abs=3 * error)


def test_waits_are_exponential_at_the_sum_of_rates(run):
    """The first event of a known book: its wait, its kind and its place."""
    num_books = 20_000
    start = queue_book(DEPTHS, DEPTHS)
    first = run(FLOW, start, jax.random.split(jax.random.key(5), num_books), 1).events
    counts = np.asarray(DEPTHS)
    parts = {
        EventKind.ADD: 2 * float(jnp.sum(FLOW.limit)),
        EventKind.DELETE: 2 * float(counts @ FLOW.cancel),
        EventKind.EXECUTE: 2 * float(FLOW.market),
    }
    total = sum(parts.values())
    gap = np.asarray(first.gap)
    assert gap.mean() == pytest.approx(1 / total, abs=4 / total / num_books**0.5)
    assert gap.std() == pytest.approx(1 / total, rel=0.05)
    for kind, rate in parts.items():
        share = rate / total
        error = np.sqrt(share * (1 - share) / num_books)
        assert np.mean(first.kind == kind) == pytest.approx(share, abs=4 * error)
    at = np.asarray((first.kind == EventKind.DELETE) & (first.side > 0))
    share = np.bincount(-np.asarray(first.price)[at], minlength=5) / num_books
    expected = counts * np.asarray(FLOW.cancel) / total
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(expected.max() / num_books))


def test_a_book_in_a_batch_is_the_book_alone_and_it_lowers_for_cuda(simulated, start):
    key = jax.random.split(jax.random.key(0), NUM_BOOKS)[7]
    one = jax.jit(lambda key: simulate_zero_intelligence(SHORT, start, NUM_EVENTS, key=key))
    alone = one(key)
    np.testing.assert_array_equal(alone.bid, simulated.bid[7])
    np.testing.assert_allclose(alone.events.gap, simulated.events.gap[7], rtol=1e-12)
    assert jax.export.export(one, platforms=["cuda"])(key).platforms == ("cuda",)


def test_bad_books_are_refused(start):
    with pytest.raises(ValueError, match="power of two"):
        queue_book(DEPTHS, DEPTHS, num_levels=24)
    with pytest.raises(ValueError, match="at least 11"):
        queue_book(DEPTHS, DEPTHS, num_levels=8)
    with pytest.raises(ValueError, match="at least 20"):
        simulate_zero_intelligence(FLOW, start, 5, key=jax.random.key(0))
    with pytest.raises(ValueError, match="num_events"):
        simulate_zero_intelligence(FLOW, start, 0, key=jax.random.key(0))
