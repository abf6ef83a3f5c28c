"""Order book files: any log that a format can say comes back from it, and a line that is damaged is
the only one that is lost."""

import gzip
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfc.microstructure import (
    EventKind,
    level_changes,
    read_binance,
    read_event_table,
    read_lobster_book,
    read_lobster_messages,
    synthetic_orders,
    write_binance,
    write_event_table,
    write_lobster_book,
    write_lobster_messages,
)
from jaxfc.microstructure.book import BookStates
from jaxfc.microstructure.events import event_log

NANOSECONDS_OF_A_DAY = 86_400 * 10**9
LARGEST = 2**31 - 2
FIELDS = ("kind", "side", "price", "size", "last")
MOVING = (EventKind.ADD, EventKind.REDUCE, EventKind.DELETE, EventKind.EXECUTE)
UNITS = {"tick_size": 0.01, "lot_size": 0.001}


@st.composite
def log_rows(draw, kinds, latest):
    """Rows of a log of these kinds, one message each."""
    num_rows = draw(st.integers(1, 8))
    times = sorted(draw(st.lists(st.integers(0, latest), min_size=num_rows, max_size=num_rows)))
    rows = []
    for i, time in enumerate(times):
        kind = draw(st.sampled_from(kinds))
        halt = kind == EventKind.HALT
        side = 0 if halt else draw(st.sampled_from((1, -1)))
        price = 0 if halt else draw(st.integers(0, LARGEST))
        size = 0 if halt else draw(st.integers(1 if kind in MOVING else 0, LARGEST))
        rows.append((time, i + 1, 0, int(kind), side, price, size, True))
    return rows


def log_of(rows):
    return event_log(rows, "drawn", **UNITS)


def assert_same(log, other):
    for name in FIELDS:
        ours, theirs = (np.asarray(getattr(each.events, name)) for each in (log, other))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    np.testing.assert_array_equal(log.time, other.time)
    assert other.faults == ()


# Half the clock's digits are lost when seconds are read as a float64; 5 digits before the point
# leave whole nanoseconds.
@given(rows=log_rows(list(EventKind)[1:8], NANOSECONDS_OF_A_DAY - 1), zipped=st.booleans())
def test_lobster_messages_come_back(rows, zipped):
    log = log_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.csv"
        write_lobster_messages(log, path)
        if zipped:
            (path := path.with_suffix(".csv.gz")).write_bytes(
                gzip.compress((Path(folder) / "messages.csv").read_bytes())
            )
        assert_same(log, read_lobster_messages(path))


SIDED = {kind.name: kind for kind in EventKind}


# A reader takes no number of 2^62 or more.
@given(rows=log_rows(list(EventKind), 2**62 - 1))
def test_tables_of_any_events_come_back(rows):
    log = log_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.parquet"
        write_event_table(log, path)
        names = {name: name for name in ("time", "kind", "side", "price", "size")}
        sides = {"bid": 1, "ask": -1, "both": 0}
        again = read_event_table(path, names, kinds=SIDED, sides=sides, **UNITS)
    assert_same(log, again)


@st.composite
def books(draw):
    """Books of a few levels whose prices are in order and do not cross."""
    num_rows, num_levels = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = rng.integers(1, 1000, (2, num_rows, num_levels)).cumsum(axis=2)
    held = rng.integers(0, num_levels + 1, (2, num_rows, 1)) > np.arange(num_levels)
    size = np.where(held, rng.integers(1, LARGEST, held.shape), 0)
    price = np.where(held, 10**6 + np.array([-1, 1])[:, None, None] * steps, 0)
    fault = np.where(held[:, :, 0].all(axis=0), 0, 4)
    parts = (price[0], size[0], price[1], size[1], fault)
    return [part.astype(np.int32) for part in parts]


@given(parts=books())
def test_lobster_books_come_back(parts):
    states = BookStates(*map(jnp.asarray, parts))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.csv"
        write_lobster_book(states, path)
        again = read_lobster_book(path)
    for ours, theirs in zip(jax.tree.leaves(states), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(seed=st.integers(0, 2**32 - 1), rows_a_message=st.integers(1, 4))
def test_streams_come_back(seed, rows_a_message):
    log = level_changes(
        synthetic_orders(24, key=jax.random.key(seed)), rows_a_message=rows_a_message
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.jsonl"
        write_binance(log, path)
        again = read_binance(path, tick_size=log.tick_size, lot_size=log.lot_size)
    assert_same(log, again)
    np.testing.assert_array_equal(log.sequence, again.sequence)


@pytest.fixture(scope="module")
def orders():
    return synthetic_orders(24, key=jax.random.key(3))


UNREADABLE = st.one_of(
    st.binary(max_size=20).filter(lambda raw: b"\n" not in raw and raw.count(b",") != 5),
    st.sampled_from([b"", b"1,1", b",,,,,", b"nan,1,1,1,1,1", b"\xff" * 9, b"1e999,1,1,1,1,1"]),
)


@given(line=st.integers(1, 24), raw=UNREADABLE)
def test_a_damaged_line_is_the_only_one_that_is_lost(orders, line, raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.csv"
        write_lobster_messages(orders, path)
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line - 1] = raw + b"\n"
        path.write_bytes(b"".join(lines))
        with pytest.raises(ValueError, match=rf"messages\.csv, line {line}: "):
            read_lobster_messages(path)
        found = read_lobster_messages(path, faults="quarantine")
    assert [fault.line for fault in found.faults] == [line]
    kept = np.arange(24) != line - 1
    assert np.asarray(found.events.kind)[line - 1] == EventKind.GAP
    for name in FIELDS:
        ours, theirs = (np.asarray(getattr(each.events, name)) for each in (orders, found))
        np.testing.assert_array_equal(ours[kept], theirs[kept], err_msg=name)
    np.testing.assert_array_equal(orders.time[kept], found.time[kept])
