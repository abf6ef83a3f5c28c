"""Rates fitted to order flow: against loops over the rows, and simulated books of known rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure.book import BookStates, empty_book, reconstruct
from jaxfc.microstructure.calibrate_flow import level_flow
from jaxfc.microstructure.calibrate_rates import (
    calibrate_flow,
    calibrate_queues,
    reference_prices,
    shrunk_tables,
)
from jaxfc.microstructure.events import BookEvents, EventKind
from jaxfc.microstructure.queue_reactive import (
    QueueRates,
    QueueReactive,
    draw_queues,
    simulate_queue_reactive,
)
from jaxfc.microstructure.replay import replay
from jaxfc.microstructure.simulate_rates import OrderFlow
from jaxfc.microstructure.simulate_zero_intelligence import queue_book, simulate_zero_intelligence
from jaxfc.microstructure.synthetic import level_changes, synthetic_orders

NUM_DISTANCES = 4
ADD, DELETE, EXECUTE = int(EventKind.ADD), int(EventKind.DELETE), int(EventKind.EXECUTE)


@pytest.fixture(scope="module")
def recorded():
    orders = synthetic_orders(500, key=jax.random.key(2))
    flow = level_flow(level_changes(orders, rows_a_message=3), grid=2)
    return flow.log, replay(flow.log, NUM_DISTANCES, capacity=64)


def rows_and_books(log, states):
    """Gap, kind, side, price, size of each row whose book before is valid, with that book as
    (bid levels, ask levels), each a dictionary."""
    events = log.events
    columns = (events.gap, events.kind, events.side, events.price, events.size)
    table = list(zip(*(np.asarray(column).tolist() for column in columns), strict=True))
    names = ("bid_price", "bid_size", "ask_price", "ask_size")
    parts = {name: np.asarray(getattr(states, name)) for name in names}
    valid = np.asarray(states.valid)
    for t in range(1, len(table)):
        if valid[t - 1]:
            yield (
                table[t],
                {
                    side: {
                        int(price): int(size)
                        for price, size in zip(
                            parts[f"{name}_price"][t - 1], parts[f"{name}_size"][t - 1], strict=True
                        )
                        if size > 0
                    }
                    for side, name in ((1, "bid"), (-1, "ask"))
                },
            )


def test_flow_is_that_of_a_loop(recorded):
    log, states = recorded
    counts = {ADD: np.zeros(NUM_DISTANCES), DELETE: np.zeros(NUM_DISTANCES), EXECUTE: 0.0}
    lots = {ADD: [], DELETE: [], EXECUTE: []}
    time, exposure = 0.0, np.zeros(NUM_DISTANCES)
    for (gap, kind, side, price, size), book in rows_and_books(log, states):
        bid, ask = max(book[1]), min(book[-1])
        time += gap
        for i in range(NUM_DISTANCES):
            exposure[i] += gap * (book[1].get(ask - 1 - i, 0) + book[-1].get(bid + 1 + i, 0))
        if kind == EXECUTE:
            counts[EXECUTE] += 1
            lots[EXECUTE].append(size)
            continue
        distance = max(ask - price if side > 0 else price - bid, 1)
        if distance <= NUM_DISTANCES and kind in counts:
            counts[kind][distance - 1] += 1
            lots[kind].append(size)
    unit, gone, traded = (np.mean(lots[kind]) for kind in (ADD, DELETE, EXECUTE))
    found = calibrate_flow(log.events, states, num_distances=NUM_DISTANCES)
    flow = found.estimate.flow
    assert float(found.unit) == pytest.approx(unit, rel=1e-12)
    np.testing.assert_allclose(flow.limit, counts[ADD] / (2 * time), rtol=1e-10)
    cancel = counts[DELETE] / (exposure / unit) * gone / unit
    np.testing.assert_allclose(flow.cancel, cancel, rtol=1e-10)
    assert float(flow.market) == pytest.approx(counts[EXECUTE] / (2 * time) * traded / unit)
    assert float(found.estimate.market_error / flow.market) == pytest.approx(
        counts[EXECUTE] ** -0.5
    )
    assert counts[ADD].min() > 3 and counts[DELETE].min() > 3


def test_rates_of_a_simulated_book_are_found_again():
    flow = OrderFlow(
        jnp.array([5.0, 4.0, 3.0, 2.0]), jnp.array([0.7, 0.8, 0.7, 0.6]), jnp.asarray(1.5)
    )
    depths = jnp.array([6, 5, 4, 3])
    start = queue_book(depths, depths, num_levels=32)
    rows = jnp.arange(4)
    placed = BookEvents(
        gap=jnp.zeros(8),
        kind=jnp.full(8, ADD, jnp.int32),
        side=jnp.repeat(jnp.array([1, -1], jnp.int32), 4),
        price=jnp.concatenate([-rows, 1 + rows]).astype(jnp.int32),
        size=jnp.concatenate([depths, depths]).astype(jnp.int32),
        last=jnp.arange(8) == 7,
    )

    @jax.jit
    def run(key):
        events = simulate_zero_intelligence(flow, start, 4000, key=key).events
        events = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), placed, events)
        return events, reconstruct(events, empty_book(32, known=True), 4)[1]

    events, states = run(jax.random.key(1))
    # The book is thick, so that the mid comes nowhere near the ends of the simulator's window.
    assert int(jnp.max(jnp.abs(states.bid_price[:, 0]))) < 8
    found = calibrate_flow(events, states, num_distances=4)
    assert float(found.unit) == 1.0
    for name in ("limit", "cancel", "market"):
        error = getattr(found.estimate, f"{name}_error")
        gap = (getattr(found.estimate.flow, name) - getattr(flow, name)) / error
        assert np.all(np.abs(np.asarray(gap)) < 4.0), name
        assert np.all(np.asarray(error) < 0.2)


def states_of(bid, ask, valid=None):
    """Books with one order on each side."""
    bid, ask = (np.asarray(price, np.int32)[:, None] for price in (bid, ask))
    ones = np.ones_like(bid)
    fault = np.zeros(len(bid), np.int32) if valid is None else np.where(valid, 0, 1)
    return BookStates(*(jnp.asarray(a) for a in (bid, ones, ask, ones, fault.astype(np.int32))))


def test_references_stay_in_the_middle():
    #            odd  even stays     wide  not valid  back, even from above
    bid = [10, 10, 11, 11, 20, 0, 16]
    ask = [11, 12, 12, 15, 21, 0, 18]
    valid = [True, True, True, True, True, False, True]
    got = reference_prices(states_of(bid, ask, valid))
    assert np.asarray(got).tolist() == [11, 11, 12, 13, 21, 21, 18]
    mirrored = reference_prices(states_of([-a for a in ask], [-b for b in bid], valid))
    assert np.asarray(mirrored)[:5].tolist() == [1 - r for r in np.asarray(got)[:5].tolist()]


def test_queues_are_those_of_a_loop(recorded):
    log, states = recorded
    num_sizes = 5
    found = calibrate_queues(log.events, states, num_distances=2, num_sizes=num_sizes)
    unit = float(found.unit)
    shape = 2, num_sizes
    exposure, reference = np.zeros(shape), None
    counts = {kind: np.zeros(shape) for kind in (ADD, DELETE, EXECUTE)}
    lots = []
    for (gap, kind, side, price, size), book in rows_and_books(log, states):
        bid, ask = max(book[1]), min(book[-1])
        near = [r for r in range(bid, ask + 2) if abs((r - 0.5) - 0.5 * (bid + ask)) <= 0.5]
        start = reference if reference is not None else near[0]
        reference = min(near, key=lambda r, start=start: abs(r - start))
        places = {1: [reference - 1, reference - 2], -1: [reference, reference + 1]}
        sizes = {
            own: [min(int(np.ceil(book[own].get(p, 0) / unit)), num_sizes - 1) for p in where]
            for own, where in places.items()
        }
        for own in (1, -1):
            for i in range(2):
                exposure[i, sizes[own][i]] += gap
        if kind in counts and price in places[side]:
            i = places[side].index(price)
            counts[kind][i, sizes[side][i]] += 1
            lots.append(size)
    assert unit == pytest.approx(np.mean(lots), rel=1e-12)
    np.testing.assert_allclose(found.rates.exposure, exposure, rtol=1e-10, atol=1e-12)
    for name, kind in (("limit", ADD), ("cancel", DELETE), ("market", EXECUTE)):
        rate = getattr(found.rates, name)
        np.testing.assert_allclose(rate * exposure, counts[kind], atol=1e-9, err_msg=name)
    law = found.law(0.5, 0.25)
    np.testing.assert_allclose(np.asarray(law.stationary).sum(axis=1), 1.0, rtol=1e-12)


def test_tables_of_simulated_queues_are_found_again():
    """Queues around a reference that never moves, as long as the first of them are not empty."""
    sizes = np.arange(7)
    limit = np.stack([3.0 - 0.3 * sizes, 1.0 + 0.0 * sizes])
    limit[:, -1] = 0.0
    tables = {
        "limit": jnp.asarray(limit),
        "cancel": jnp.asarray(np.stack([0.15 * sizes, 0.3 * sizes])),
        "market": jnp.asarray(np.stack([0.25 * (sizes > 0), 0.0 * sizes])),
    }
    law = QueueReactive(**tables, move=0.0, redraw=0.0)

    @jax.jit
    def run(key):
        start = draw_queues(law, key=key)
        return simulate_queue_reactive(law, start, 8000, key=key)

    path = run(jax.random.key(4))
    after = jax.tree.map(lambda a: np.asarray(a)[1:], path.before)
    held = np.asarray(after.sizes)
    places = np.arange(2)
    states = BookStates(
        bid_price=jnp.broadcast_to(-1 - places, (7999, 2)).astype(jnp.int32),
        bid_size=jnp.asarray(held[:, 0]),
        ask_price=jnp.broadcast_to(places, (7999, 2)).astype(jnp.int32),
        ask_size=jnp.asarray(held[:, 1]),
        fault=jnp.asarray(np.where(held[:, :, 0].min(axis=1) > 0, 0, 4).astype(np.int32)),
    )
    events = jax.tree.map(lambda a: a[:-1], path.events)
    found = calibrate_queues(events, states, num_distances=2, num_sizes=7)
    assert float(found.unit) == 1.0
    scores = []
    for name, table in tables.items():
        expected = np.asarray(table) * np.asarray(found.rates.exposure)
        counts = np.asarray(getattr(found.rates, name)) * np.asarray(found.rates.exposure)
        seen = (expected > 30) & (np.arange(7) > (name != "limit"))
        scores.append(((counts - expected) / np.sqrt(np.maximum(expected, 1)))[seen])
    scores = np.concatenate(scores)
    assert len(scores) > 15 and np.abs(scores).max() < 4.0


def test_seldom_sizes_take_the_average_rate():
    exposure = jnp.array([[10.0, 10.0, 0.0]])
    rates = QueueRates(
        limit=jnp.array([[2.0, 1.0, 0.0]]),
        cancel=jnp.array([[0.5, 0.4, 0.0]]),
        market=jnp.zeros((1, 3)),
        exposure=exposure,
    )
    found = shrunk_tables(rates)
    # 30 orders in 20 seconds: one more in 2/3 of a second; the last size takes none.
    np.testing.assert_allclose(found.limit, [[21 / (10 + 2 / 3), 11 / (10 + 2 / 3), 0.0]])
    # 4 cancellations in the 10 seconds with an order; the others were of nothing.
    np.testing.assert_allclose(found.cancel, [[0.0, 5 / 12.5, 0.4]])
    np.testing.assert_array_equal(found.market, 0.0)


def test_bad_input_is_refused(recorded):
    log, states = recorded
    with pytest.raises(ValueError, match="states have 4 levels"):
        calibrate_flow(log.events, states, num_distances=5)
    with pytest.raises(ValueError, match="num_sizes must be at least 2"):
        calibrate_queues(log.events, states, num_distances=2, num_sizes=1)
    nothing = QueueRates(*(jnp.zeros((1, 3)) for _ in range(3)), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="no limit event 1 ticks from the reference"):
        shrunk_tables(nothing)
