"""Orders behind changed levels: against the orders they were made of, and books kept by hand."""

import jax
import numpy as np
import pytest

from jaxfc.microstructure.calibrate_flow import level_flow
from jaxfc.microstructure.events import EventKind, event_log
from jaxfc.microstructure.replay import replay
from jaxfc.microstructure.synthetic import level_changes, synthetic_orders

NUM_EVENTS = 400
SET, TRADE, CLEAR = int(EventKind.SET), int(EventKind.TRADE), int(EventKind.CLEAR)
ADD, DELETE, EXECUTE = int(EventKind.ADD), int(EventKind.DELETE), int(EventKind.EXECUTE)


def rows_of(log):
    """Kind, side, price, size of each row."""
    events = log.events
    columns = (events.kind, events.side, events.price, events.size)
    return np.stack([np.asarray(column) for column in columns], axis=1)


@pytest.fixture(scope="module")
def orders():
    return synthetic_orders(NUM_EVENTS, key=jax.random.key(5))


@pytest.fixture(scope="module")
def netted(orders):
    return level_changes(orders, rows_a_message=4)


def test_orders_are_found_again(orders):
    """With one order a message nothing is netted: the flow is what the levels were made of."""
    flow = level_flow(level_changes(orders))
    found, expected = rows_of(flow.log)[1:], rows_of(orders)
    expected[expected[:, 0] == EventKind.REDUCE, 0] = DELETE
    assert np.array_equal(found, expected)
    assert np.array_equal(flow.log.time[1:], orders.time)
    executed = expected[expected[:, 0] == EXECUTE, 3].sum()
    assert flow.traded == flow.explained == executed > 0


def test_the_book_is_that_of_the_levels(netted):
    """Messages with several orders: the book after each is the same."""
    flow = level_flow(netted).log
    before, after = replay(netted, 3), replay(flow, 3)
    ends = np.asarray(flow.events.last)
    place = {
        (int(line), int(number)): i
        for i, (line, number) in enumerate(zip(netted.line, netted.sequence, strict=True))
    }
    same = [place[pair] for pair in zip(flow.line[ends], flow.sequence[ends], strict=True)]
    for name in ("bid_price", "bid_size", "ask_price", "ask_size", "fault"):
        ours, theirs = np.asarray(getattr(after, name))[ends], np.asarray(getattr(before, name))
        assert np.array_equal(ours, theirs[same]), name
    assert len(same) > 80


def test_a_coarse_book_is_the_sum_of_its_ticks(netted):
    grid = 3
    flow = level_flow(netted, grid=grid).log
    assert flow.tick_size == pytest.approx(3 * netted.tick_size)
    states = replay(flow, 2)
    levels, ends = {}, iter(np.flatnonzero(np.asarray(flow.events.last))[1:])
    last = np.asarray(netted.events.last)
    message, checked = {}, 0
    for i, (kind, side, price, size) in enumerate(rows_of(netted).tolist()):
        if kind != SET:
            continue
        message[side, price] = size
        if not last[i]:
            continue
        changed = any(levels.get(place, 0) != left for place, left in message.items())
        levels, message = levels | message, {}
        if not changed:
            continue
        row = next(ends)
        for own, name in ((1, "bid"), (-1, "ask")):
            sums = {}
            for (side, price), left in levels.items():
                if side == own and left:
                    bucket = price // grid if side > 0 else -(-price // grid)
                    sums[bucket] = sums.get(bucket, 0) + left
            best = sorted(sums, reverse=own > 0)[:2]
            sizes = np.asarray(getattr(states, f"{name}_size")[row])
            prices = np.asarray(getattr(states, f"{name}_price")[row])
            assert [sums[b] for b in best] == sizes[: len(best)].tolist()
            assert best == prices[: len(best)].tolist()
        checked += 1
    assert checked > 60


def small_log(*rows):
    """Seconds, kind, side, price, size: one message each."""
    return event_log(
        [
            (round(seconds * 1e9), i + 1, i + 1, kind, side, price, size, True)
            for i, (seconds, kind, side, price, size) in enumerate(rows)
        ],
        "a small log",
        tick_size=0.5,
        lot_size=1.0,
    )


def test_trades_explain_changes_that_follow_soon():
    log = small_log(
        (0.0, CLEAR, 0, 0, 0),
        (0.0, SET, 1, 10, 8),
        (0.1, TRADE, 1, 10, 3),
        (0.2, SET, 1, 10, 4),  # 3 traded, 1 cancelled
        (0.3, TRADE, 1, 10, 2),
        (0.4, SET, 1, 10, 7),  # 2 traded, 5 added
        (0.5, TRADE, 1, 10, 6),
        (3.0, SET, 1, 10, 5),  # the trade is too old
        (3.1, TRADE, -1, 12, 1),  # nothing follows
    )
    flow = level_flow(log, patience=1.0)
    expected = [
        [CLEAR, 0, 0, 0],
        [ADD, 1, 10, 8],
        [DELETE, 1, 10, 1],
        [EXECUTE, 1, 10, 3],
        [ADD, 1, 10, 5],
        [EXECUTE, 1, 10, 2],
        [DELETE, 1, 10, 2],
    ]
    assert rows_of(flow.log).tolist() == expected
    assert np.asarray(flow.log.events.last).tolist() == [True, True, False, True, False, True, True]
    assert (flow.traded, flow.explained) == (12, 5)


def test_snapshots_and_gaps_stay():
    snapshot = [(CLEAR, 0, 0, 0), (SET, 1, 10, 4), (SET, 1, 9, 2), (SET, -1, 13, 5)]
    snapshot += [(int(EventKind.EDGE), 1, 9, 0), (int(EventKind.EDGE), -1, 13, 0)]
    rows = [(0, 1, 1, *row, i == len(snapshot) - 1) for i, row in enumerate(snapshot)]
    rows += [(1, 2, 2, SET, 1, 10, 0, True), (2, 3, 3, int(EventKind.GAP), 0, 0, 0, True)]
    log = event_log(rows, "a snapshot", tick_size=1.0, lot_size=1.0)
    found = rows_of(level_flow(log, grid=2).log).tolist()
    assert found == [
        [CLEAR, 0, 0, 0],
        [SET, 1, 5, 4],
        [SET, 1, 4, 2],
        [SET, -1, 7, 5],
        # Ticks 8 and 13 of the last buckets: 8 lies beyond what is known, 13 does not fill 7.
        [int(EventKind.EDGE), 1, 5, 0],
        [int(EventKind.EDGE), -1, 6, 0],
        [DELETE, 1, 5, 4],
        [int(EventKind.GAP), 0, 0, 0],
    ]


def test_orders_are_refused(orders):
    with pytest.raises(ValueError, match=r"synthetic orders, line 1: ADD rows are orders"):
        level_flow(orders)
    with pytest.raises(ValueError, match="grid must be at least 1"):
        level_flow(level_changes(orders), grid=0)
    with pytest.raises(ValueError, match="patience must be positive"):
        level_flow(level_changes(orders), patience=0.0)
