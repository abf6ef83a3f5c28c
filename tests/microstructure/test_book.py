"""Books rebuilt by the scan against dictionaries; what a book does not know; look-ahead."""

import dataclasses

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfc.microstructure import (
    BookFault,
    EventKind,
    book_at,
    empty_book,
    level_changes,
    reconstruct,
    replay,
    synthetic_orders,
)
from jaxfc.microstructure.events import event_log
from microstructure.book_loop import dictionary_books, table_of

NUM_EVENTS = 300
CAPACITY = 40


@pytest.fixture(scope="module")
def orders():
    return synthetic_orders(NUM_EVENTS, key=jax.random.key(0))


@pytest.fixture(scope="module")
def states(orders):
    return replay(orders, 5, start=empty_book(CAPACITY, known=True))


def log_of(*rows, source="rows"):
    """A log of (kind, side, price, size) rows, one a message, a second apart."""
    full = [(i * 10**9, i + 1, 0, int(k), s, p, z, True) for i, (k, s, p, z) in enumerate(rows)]
    return event_log(full, source, tick_size=1.0, lot_size=1.0)


SNAPSHOT = (
    (EventKind.CLEAR, 0, 0, 0),
    (EventKind.SET, 1, 99, 5),
    (EventKind.SET, 1, 98, 7),
    (EventKind.SET, -1, 101, 4),
    (EventKind.SET, -1, 103, 6),
)
COMPLETE = len(SNAPSHOT) - 2  # first row with both sides


def faults_of(*rows, num_levels=1, capacity=8):
    return np.asarray(
        replay(log_of(*rows), num_levels, capacity=capacity, faults="quarantine").fault
    )


def test_the_scan_is_the_dictionary(orders, states):
    expected, _ = dictionary_books(orders, 5, known=True)
    assert np.array_equal(table_of(states), expected)
    two_sided = (expected[:, 0, 1] > 0) & (expected[:, 0, 3] > 0)
    assert np.array_equal(np.asarray(states.valid), two_sided)
    assert two_sided[20:].all()


def test_levels_and_trades_give_the_same_books_as_orders(orders, states):
    changes = level_changes(orders)
    rebuilt = replay(changes, 5, capacity=CAPACITY)
    expected, _ = dictionary_books(changes, 5, known=False)
    assert np.array_equal(table_of(rebuilt), expected)
    # After the message of an order both logs hold the same book.
    last = {int(line): row for row, line in enumerate(changes.line) if row > 0}
    rows = [last[line] for line in range(1, NUM_EVENTS + 1)]
    assert np.array_equal(table_of(rebuilt)[rows], table_of(states))


def test_within_a_message_the_last_complete_book_stays(orders):
    changes = level_changes(orders, rows_a_message=7)
    assert not np.asarray(changes.events.last).all()
    rebuilt = replay(changes, 3, capacity=CAPACITY, faults="quarantine")
    expected, _ = dictionary_books(changes, 3, known=False)
    assert np.array_equal(table_of(rebuilt), expected)


def test_capacity_costs_only_what_lies_deep(orders, states):
    """A side that is too small says so where it does not know, and is right elsewhere."""
    small = replay(orders, 2, start=empty_book(4, known=True))
    valid = np.asarray(small.valid)
    codes = np.asarray(small.fault)[~valid & np.asarray(states.valid)]
    assert (codes == BookFault.SHALLOW).all() and 0 < len(codes) < NUM_EVENTS / 2
    assert np.array_equal(table_of(small)[valid], table_of(states)[valid, :2])


def test_levels_beyond_a_snapshot_are_not_reported_as_known():
    edge = ((EventKind.EDGE, 1, 98, 0), (EventKind.EDGE, -1, 103, 0))
    gone = ((EventKind.SET, 1, 99, 0), (EventKind.SET, 1, 97, 3))
    codes = faults_of(*SNAPSHOT, *edge, *gone, num_levels=2)
    assert list(codes[-3:]) == [BookFault.NONE, BookFault.SHALLOW, BookFault.SHALLOW]
    # An order that joins a level beyond the edge does not make it known.
    joins = (EventKind.ADD, 1, 97, 3)
    log = log_of(*SNAPSHOT, *edge, joins, gone[0])
    states = replay(log, 1, capacity=8)
    assert np.asarray(states.valid)[-1] and int(states.bid_price[-1, 0]) == 98
    deep = replay(log, 2, capacity=8, faults="quarantine")
    assert int(deep.fault[-1]) == BookFault.SHALLOW and int(deep.bid_size[-1, 1]) == 0


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ((EventKind.GAP, 0, 0, 0), BookFault.UNKNOWN),
        ((EventKind.EXECUTE, 1, 99, 6), BookFault.NEGATIVE),
        ((EventKind.REDUCE, -1, 102, 1), BookFault.NEGATIVE),
        ((EventKind.SET, 1, 101, 1), BookFault.CROSSED),
        ((EventKind.SET, -1, 98, 1), BookFault.CROSSED),
    ],
)
def test_a_fault_is_an_error_with_its_line_or_a_code(row, code):
    rows = (*SNAPSHOT, row, (EventKind.SET, 1, 90, 1))
    line = len(SNAPSHOT) + 1
    with pytest.raises(ValueError, match=rf"^rows, line {line}: "):
        replay(log_of(*rows), 1, capacity=8)
    codes = faults_of(*rows)
    assert codes[line - 1] == code and (codes[COMPLETE : line - 1] == BookFault.NONE).all()
    assert codes[line] == code  # nothing has mended the book
    mended = faults_of(*rows, *SNAPSHOT)
    assert mended[-1] == BookFault.NONE


def test_a_crossed_book_mends_itself_when_the_stale_level_goes():
    codes = faults_of(*SNAPSHOT, (EventKind.SET, 1, 101, 1), (EventKind.SET, 1, 101, 0))
    assert list(codes[-2:]) == [BookFault.CROSSED, BookFault.NONE]


def test_rows_that_change_no_book_change_none():
    quiet = [(kind, 1, 99, 1) for kind in (EventKind.TRADE, EventKind.HIDDEN, EventKind.NOTHING)]
    quiet += [(EventKind.CROSS, 1, 99, 1), (EventKind.HALT, 0, 0, 0)]
    table = table_of(replay(log_of(*SNAPSHOT, *quiet), 2, capacity=8))
    assert (table[len(SNAPSHOT) :] == table[len(SNAPSHOT) - 1]).all()


def test_a_log_without_snapshot_is_refused(orders):
    with pytest.raises(ValueError, match=r"no row has a valid book .*300 UNKNOWN.*start="):
        replay(orders, 5)


def test_a_book_goes_on_from_a_row(orders, states):
    """The rest of the day from one row's levels: right wherever it says that it knows."""
    row = 150
    rest = replay(orders.window(row + 1, NUM_EVENTS), 3, start=book_at(states, row, CAPACITY))
    valid = np.asarray(rest.valid)
    assert 20 < valid.sum() < len(valid)
    assert (np.asarray(rest.fault)[~valid] == BookFault.SHALLOW).all()
    assert np.array_equal(table_of(rest)[valid], table_of(states)[row + 1 :, :3][valid])


def test_changed_future_rows_leave_past_books_bit_identical(orders, states):
    cut = 200
    events = orders.events
    other = jnp.where(jnp.arange(NUM_EVENTS) < cut, events.size, 1)
    changed = dataclasses.replace(orders, events=eqx.tree_at(lambda e: e.size, events, other))
    later = replay(changed, 5, start=empty_book(CAPACITY, known=True), faults="quarantine")
    assert np.array_equal(table_of(later)[:cut], table_of(states)[:cut])
    assert not np.array_equal(table_of(later), table_of(states))


def test_padding_batches_and_lowers_for_cuda(orders, states):
    cut = orders.window(0, 250).events.padded(NUM_EVENTS)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), orders.events, cut)
    start = empty_book(CAPACITY, known=True)

    def both(batch):
        return jax.vmap(lambda events: reconstruct(events, start, 5)[1])(batch)

    rebuilt = table_of(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), both(batch)))
    expected = table_of(states)
    assert np.array_equal(rebuilt[:NUM_EVENTS], expected)
    assert np.array_equal(rebuilt[NUM_EVENTS : NUM_EVENTS + 250], expected[:250])
    assert (rebuilt[NUM_EVENTS + 250 :] == expected[249]).all()
    assert jax.export.export(jax.jit(both), platforms=["cuda"])(batch).platforms == ("cuda",)
    with pytest.raises(ValueError, match="300 events do not fit into num_events=200"):
        orders.events.padded(200)


def test_arguments_are_checked(orders, states):
    with pytest.raises(ValueError, match="num_levels=50 exceeds the capacity 40"):
        replay(orders, 50, start=empty_book(CAPACITY, known=True))
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        empty_book(0, known=True)
    with pytest.raises(ValueError, match="do not fit into capacity=2"):
        book_at(states, 150, 2)
    with pytest.raises(ValueError, match="is UNKNOWN"):
        log = log_of((EventKind.GAP, 0, 0, 0), *SNAPSHOT)
        book_at(replay(log, 1, capacity=8), 0, 8)
