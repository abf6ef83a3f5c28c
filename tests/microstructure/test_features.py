"""Features against loops over rows, on books with missing messages; units; look-ahead."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure import (
    BilinearNormalisation,
    EventKind,
    accumulate,
    empty_book,
    event_marks,
    ewma_intensity,
    feature_table,
    fit_micro_price,
    order_flow_imbalance,
    queue_imbalance,
    realised_volatility,
    replay,
    signed_flow,
    strikes,
    synthetic_orders,
    weighted_mid_from_mid,
)
from jaxfc.microstructure.book import BookStates
from jaxfc.microstructure.micro_price import limit_of_moves
from microstructure.book_loop import table_of

NUM_EVENTS = 300
HOLE = range(120, 140)


@pytest.fixture(scope="module")
def orders():
    return synthetic_orders(NUM_EVENTS, key=jax.random.key(1))


@pytest.fixture(scope="module")
def states(orders):
    """Books of which some rows in the middle are not valid."""
    whole = replay(orders, 3, start=empty_book(40, known=True))
    row = jnp.arange(NUM_EVENTS)
    hole = (row >= HOLE.start) & (row < HOLE.stop)
    return dataclasses.replace(whole, fault=jnp.where(hole, 1, whole.fault))


def test_order_flow_imbalance(states):
    table, valid = table_of(states), np.asarray(states.valid)
    expected = np.full((NUM_EVENTS, 3), np.nan)
    for t in range(1, NUM_EVENTS):
        if not (valid[t] and valid[t - 1]):
            continue
        for level in range(3):
            flow = 0
            for column, sign in ((0, 1), (2, -1)):
                worst = -sign * math.inf
                (p0, q0), (p1, q1) = table[t - 1 : t + 1, level, column : column + 2].tolist()
                p0, p1 = (p0 if q0 else worst), (p1 if q1 else worst)
                if sign * p1 >= sign * p0:
                    flow += sign * q1
                if sign * p1 <= sign * p0:
                    flow -= sign * q0
            expected[t, level] = flow
    assert np.isfinite(expected[:, 0]).sum() > 250
    np.testing.assert_array_equal(order_flow_imbalance(states), expected)


def test_order_flow_imbalance_of_single_orders():
    """Cont, Kukanov and Stoikov's cases: at the best bid, through it, and the bid withdrawn."""
    bids = jnp.array([[100, 5], [100, 8], [101, 2], [100, 8]])
    ask = jnp.full((4, 1), 105), jnp.full((4, 1), 9)
    states = BookStates(bids[:, :1], bids[:, 1:], *ask, jnp.zeros(4, int))
    assert order_flow_imbalance(states)[1:, 0].tolist() == [3.0, 2.0, -2.0]


def test_imbalance_spread_and_weighted_mid(states):
    table, valid = table_of(states), np.asarray(states.valid)
    one, deep = queue_imbalance(states), queue_imbalance(states, 3)
    for t in range(NUM_EVENTS):
        numbers = [x[t] for x in (one, deep, states.spread, states.mid)]
        numbers.append(weighted_mid_from_mid(states)[t])
        if not valid[t]:
            assert all(np.isnan(numbers))
            continue
        bid, bid_size, ask, ask_size = table[t, 0].tolist()
        held = table[t].sum(axis=0)
        expected = [
            (bid_size - ask_size) / (bid_size + ask_size),
            (held[1] - held[3]) / (held[1] + held[3]),
            ask - bid,
            (bid + ask) / 2,
            (bid * ask_size + ask * bid_size) / (bid_size + ask_size) - (bid + ask) / 2,
        ]
        np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="num_levels=4, but the states have 3 levels"):
        queue_imbalance(states, 4)


def test_signed_flow_and_marks(orders):
    events = orders.events
    rows = zip(
        *(np.asarray(c).tolist() for c in (events.kind, events.side, events.size)), strict=True
    )
    flow, marks = [], []
    for kind, side, size in rows:
        flow.append(-side * size if kind == EventKind.EXECUTE else 0)
        of_kind = {EventKind.ADD: 0, EventKind.REDUCE: 2, EventKind.DELETE: 2}
        # An executed bid is a seller's trade.
        place = 4 + (side == 1) if kind == EventKind.EXECUTE else of_kind[kind] + (side == -1)
        marks.append(np.eye(6)[place])
    assert signed_flow(events).tolist() == flow and {np.sign(x) for x in flow} == {-1, 0, 1}
    np.testing.assert_array_equal(event_marks(events), marks)


@pytest.mark.parametrize("every", [1.0, 7.0, 40.0])
def test_clocks_and_bars(orders, every):
    volume = jnp.abs(signed_flow(orders.events))
    struck = np.asarray(strikes(volume, every))
    values = np.random.default_rng(0).normal(size=(NUM_EVENTS, 2))
    values[50] = np.nan
    sums = np.asarray(accumulate(jnp.asarray(values), jnp.asarray(struck)))
    held, bar = 0.0, np.zeros(2)
    for t in range(NUM_EVENTS):
        held += float(volume[t])
        bar = bar + np.nan_to_num(values[t])
        assert struck[t] == (held >= every)
        np.testing.assert_allclose(sums[t], bar, rtol=1e-12, atol=1e-12)
        if held >= every:
            held, bar = held - every * (held // every), np.zeros(2)
    assert struck.sum() <= volume.sum() / every
    assert np.isnan(values).sum() == 2 and np.isfinite(sums).all()


def test_intensities_are_sums_over_the_past(orders):
    half_lives = np.array([0.1, 2.0])
    gap, marks = np.asarray(orders.events.gap), np.asarray(event_marks(orders.events))
    time = orders.time / 1e9
    result = ewma_intensity(orders.events.gap, event_marks(orders.events), jnp.asarray(half_lives))
    rate = math.log(2) / half_lives
    for t in (0, 1, 77, NUM_EVENTS - 1):
        age = (time[t] - time[: t + 1])[:, None, None]
        expected = (rate * np.exp(-rate * age) * marks[: t + 1, :, None]).sum(axis=0)
        np.testing.assert_allclose(result[t], expected, rtol=1e-8)
    # A gap cut in two without an event changes nothing.
    cut = np.insert(gap, 77, 0.3 * gap[77])
    cut[78] = 0.7 * gap[77]
    more = np.insert(marks, 77, 0.0, axis=0)
    split = ewma_intensity(jnp.asarray(cut), jnp.asarray(more), jnp.asarray(half_lives))
    np.testing.assert_allclose(np.delete(split, 77, axis=0), result, rtol=1e-12)


def test_intensity_of_a_steady_stream_is_its_rate():
    ones = jnp.ones((4000, 1))
    level = ewma_intensity(jnp.full(4000, 0.01), ones, jnp.array([1.0]))[-1, 0, 0]
    assert float(level) == pytest.approx(100.0, rel=0.005)


def test_realised_volatility():
    price = 6e6 + np.cumsum(np.random.default_rng(0).integers(-3, 4, size=60)).astype(float)
    price[20] = np.nan
    result = np.asarray(realised_volatility(jnp.asarray(price), 5))
    returns = np.diff(np.log(price))
    for t in range(60):
        past = returns[t - 5 : t]
        expected = math.sqrt(np.sum(past**2)) if t >= 5 else math.nan
        np.testing.assert_allclose(result[t], expected, rtol=1e-6)
    assert np.isnan(result).sum() == 5 + 6
    # Changes of a tick in six million survive float32.
    single = realised_volatility(jnp.asarray(price, jnp.float32), 5)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, result, rtol=1e-5)


# Micro-price


def states_of(imbalance, spread, mid):
    """One-level books with these imbalances (of 10 lots a book), spreads and mids."""
    bids = np.rint(5 * (1 + np.asarray(imbalance))).astype(int)
    low = np.rint(np.asarray(mid) - np.asarray(spread) / 2).astype(int)
    columns = (low, bids, low + np.asarray(spread), 10 - bids)
    columns = (jnp.asarray(column, jnp.int32)[:, None] for column in columns)
    return BookStates(*columns, jnp.zeros(len(low), jnp.int32))


def counted_chain(states, num_imbalances, num_spreads):
    """Q, T and r by counting pairs of rows, each with its mirror image, in dictionaries."""
    table, valid = table_of(states)[:, 0], np.asarray(states.valid)
    size = num_imbalances * num_spreads
    stays, moves, mean = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    visits = np.zeros(size)

    def cell(row, mirrored):
        bid, bid_size, ask, ask_size = row
        share = (ask_size if mirrored else bid_size) / (bid_size + ask_size)
        place = min(int(share * num_imbalances), num_imbalances - 1)
        if mirrored:
            place = (
                num_imbalances
                - 1
                - min(int(bid_size / (bid_size + ask_size) * num_imbalances), num_imbalances - 1)
            )
        return place * num_spreads + min(ask - bid - 1, num_spreads - 1)

    for t in range(1, len(table)):
        if not (valid[t] and valid[t - 1]):
            continue
        move = (table[t, 0] + table[t, 2] - table[t - 1, 0] - table[t - 1, 2]) / 2
        for mirrored in (False, True):
            x, y = cell(table[t - 1], mirrored), cell(table[t], mirrored)
            (moves if move else stays)[x, y] += 1
            mean[x] += -move if mirrored else move
            visits[x] += 1
    weight = np.maximum(visits, 1)
    return stays / weight[:, None], moves / weight[:, None], mean / weight


def test_micro_price_is_the_series_of_its_paper(states):
    price = fit_micro_price(states, 4, 3)
    stays, moves, mean = counted_chain(states, 4, 3)
    first = np.linalg.solve(np.eye(12) - stays, mean)
    later = np.linalg.solve(np.eye(12) - stays, moves)
    total, power = np.zeros(12), first
    for _ in range(2000):
        total, power = total + power, later @ power
    assert np.abs(power).max() < 1e-12 < 0.1 < np.abs(total).max()
    np.testing.assert_allclose(price.adjustment, total.reshape(4, 3), atol=1e-9)
    np.testing.assert_allclose(price.adjustment, -price.adjustment[::-1], atol=1e-12)
    table, valid = table_of(states)[:, 0], np.asarray(states.valid)
    result = np.asarray(price.from_mid(states))
    for t in np.flatnonzero(valid)[::17]:
        bid, bid_size, ask, ask_size = table[t]
        place = min(int(4 * bid_size / (bid_size + ask_size)), 3), min(ask - bid - 1, 2)
        assert result[t] == pytest.approx(total.reshape(4, 3)[place], abs=1e-9)
    assert np.isnan(result[~valid]).all()


def test_micro_price_of_a_chain_that_is_known():
    """Two classes, low and high. From high the mid rises a tick with probability p and the class
    is drawn anew: each move is followed by a fresh class, so G(high) = 1."""
    p = 0.3
    stays = jnp.array([[1 - p, 0.0], [0.0, 1 - p]])
    moves = jnp.array([[p / 2, p / 2], [p / 2, p / 2]])
    mean = jnp.array([-p, p])
    np.testing.assert_allclose(limit_of_moves(stays, moves, mean), [-1.0, 1.0], rtol=1e-12)


def test_a_mid_that_does_not_move_is_refused():
    still = states_of([0.2, -0.4, 0.2, -0.4], [2] * 4, [100] * 4)
    with pytest.raises(ValueError, match="does not move often enough"):
        fit_micro_price(still, 2, 2)


# Bilinear normalisation


def test_bilinear_normalisation_is_its_equation():
    window = jax.random.normal(jax.random.key(0), (6, 4)) * 3.0 + 2.0
    layer = BilinearNormalisation(6, 4)
    keys = jax.random.split(jax.random.key(1), 5)
    leaves, tree = jax.tree.flatten(layer)
    leaves = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    layer = eqx.tree_at(lambda x: x.weights, tree.unflatten(leaves), jnp.array([0.7, 0.2]))
    x = np.asarray(window)
    for t in range(6):
        for d in range(4):
            rows = (x[t, d] - x[t].mean()) / x[t].std()
            columns = (x[t, d] - x[:, d].mean()) / x[:, d].std()
            expected = 0.7 * (layer.time_scale[t] * rows + layer.time_shift[t])
            expected += 0.2 * (layer.feature_scale[d] * columns + layer.feature_shift[d])
            assert float(layer(window)[t, d]) == pytest.approx(float(expected), abs=1e-12)


def test_bilinear_normalisation_ignores_units_and_survives_constants():
    window = jax.random.normal(jax.random.key(0), (6, 4))
    layer = BilinearNormalisation(6, 4)
    np.testing.assert_allclose(layer(window * 1e3 + 5.0), layer(window), atol=1e-9)
    constant = window.at[:, 1].set(2.0)

    def total(x):
        return jnp.sum(layer(x) ** 2)

    assert jnp.isfinite(layer(constant)).all() and jnp.isfinite(jax.grad(total)(constant)).all()
    off = eqx.tree_at(lambda x: x.weights, layer, jnp.array([-1.0, 0.0]))
    assert not np.asarray(off(window)).any()
    with pytest.raises(ValueError, match="floor must be positive"):
        BilinearNormalisation(6, 4, floor=0.0)


# All of them


def all_features(events, states, price):
    """Every feature of a log, side by side."""
    struck = strikes(events.last.astype(float), 10.0)
    flow = order_flow_imbalance(states)
    intensity = ewma_intensity(events.gap, event_marks(events), jnp.array([0.5, 5.0]))
    columns = [
        *flow.T,
        queue_imbalance(states),
        queue_imbalance(states, 3),
        states.spread,
        states.mid,
        weighted_mid_from_mid(states),
        price.from_mid(states),
        signed_flow(events),
        struck.astype(float),
        *accumulate(flow, struck).T,
        *intensity.reshape(intensity.shape[0], -1).T,
        realised_volatility(states.mid, 5),
    ]
    return jnp.stack(columns, axis=1)


def test_changed_future_rows_leave_past_features_bit_identical(orders, states):
    cut = 200
    price = fit_micro_price(states, 4, 3)
    features = eqx.filter_jit(all_features)
    before = np.asarray(features(orders.events, states, price))
    late = jnp.arange(NUM_EVENTS) >= cut

    def other(leaf):
        mixed = jnp.roll(leaf, 37, axis=0)
        return jnp.where(late.reshape(-1, *(1,) * (leaf.ndim - 1)), mixed, leaf)

    after = features(jax.tree.map(other, orders.events), jax.tree.map(other, states), price)
    np.testing.assert_array_equal(np.asarray(after)[:cut], before[:cut])
    changed = ~np.all((np.asarray(after) == before) | np.isnan(before), axis=0)
    # The test has power for every column but the clock of messages, whose ends did not change.
    assert np.flatnonzero(~changed).tolist() == [10]
    exported = jax.export.export(jax.jit(all_features), platforms=["cuda"])
    assert exported(orders.events, states, price).platforms == ("cuda",)


def test_features_for_models_and_nan_with_its_line(orders, states):
    columns = {"flow": order_flow_imbalance(states)[:, 0], "spread": states.spread}
    values, observed = feature_table(orders, columns, states.continued)
    rows = np.asarray(states.continued)
    assert np.array_equal(np.asarray(observed), np.stack([rows, rows], axis=1))
    assert not np.asarray(values)[~rows].any() and np.isfinite(values).all()
    np.testing.assert_array_equal(values[rows, 1], states.spread[rows])
    first = HOLE.stop + 1  # valid, but the change from the row before it is not known
    with pytest.raises(ValueError, match=f"synthetic orders, line {first}: feature 'flow' is nan"):
        feature_table(orders, columns, states.valid & (jnp.arange(NUM_EVENTS) >= HOLE.start))
    broken = {**columns, "spread": states.spread.at[200].set(jnp.inf)}
    with pytest.raises(ValueError, match="line 201: feature 'spread' is inf"):
        feature_table(orders, broken, states.continued)
    with pytest.raises(ValueError, match=r"feature 'flow' has shape \(5,\)"):
        feature_table(orders, {"flow": jnp.ones(5)}, states.continued)
