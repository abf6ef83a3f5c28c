"""Files that exchanges publish: round trips, and every kind of bad line with its place."""

import gzip
import json
import re

import jax
import numpy as np
import pytest

from jaxfc.microstructure import (
    EventKind,
    empty_book,
    level_changes,
    read_binance,
    read_binance_quotes,
    read_event_table,
    read_lobster,
    read_lobster_book,
    read_lobster_messages,
    replay,
    synthetic_orders,
    write_binance,
    write_event_table,
    write_lobster_book,
    write_lobster_messages,
)
from microstructure.book_loop import table_of

NUM_EVENTS = 300
UNITS = {"tick_size": 0.01, "lot_size": 1.0}
FIELDS = ("gap", "kind", "side", "price", "size", "last")


@pytest.fixture(scope="module")
def orders():
    return synthetic_orders(NUM_EVENTS, key=jax.random.key(0))


@pytest.fixture(scope="module")
def changes(orders):
    return level_changes(orders, rows_a_message=3)


def assert_same_events(log, other):
    for name in FIELDS:
        own = np.asarray(getattr(log.events, name))
        assert np.array_equal(own, np.asarray(getattr(other.events, name))), name
    assert np.array_equal(log.time, other.time)


def rewrite(path, edit):
    """The lines of a file after an edit of their list, each with its line end."""
    lines = path.read_text().splitlines()
    edit(lines)
    path.write_text("".join(f"{line}\n" for line in lines))


def put(line, text):
    """An edit: this text as that line (from 1)."""

    def edit(lines):
        lines[line - 1] = text

    return edit


def swap(lines):
    lines[99], lines[100] = lines[100], lines[99]


# LOBSTER


@pytest.fixture
def lobster_files(orders, tmp_path):
    states = replay(orders, 5, start=empty_book(40, known=True))
    write_lobster_messages(orders, tmp_path / "message.csv")
    write_lobster_book(states, tmp_path / "book.csv")
    return tmp_path / "message.csv", tmp_path / "book.csv"


def test_lobster_files_come_back_and_books_rebuild_the_book_file(orders, lobster_files):
    log, books = read_lobster(*lobster_files)
    assert_same_events(log, orders)
    assert (log.tick_size, log.lot_size, log.faults) == (1e-4, 1.0, ())
    rebuilt = replay(log, 5, start=empty_book(40, known=True))
    assert np.array_equal(table_of(rebuilt), table_of(books))
    assert np.array_equal(np.asarray(rebuilt.valid), np.asarray(books.valid))


def test_lobster_lines_as_documented(tmp_path):
    """Lines written by hand from the description of the format, with a halt and dummy prices."""
    message, book = tmp_path / "m.csv", tmp_path / "b.csv"
    message.write_text(
        "34200.004241176,1,16113575,18,5853300,1\n"
        "34200.025551909,5,0,7,5853350,-1\n"
        "34713.685155243,7,0,0,-1,-1\n"
        "57599.999999999,4,16113575,18,5853300,1\n"
    )
    book.write_text("5853900,10,5853300,18\n" * 3 + "5853900,10,-9999999999,0\n")
    log, states = read_lobster(message, book)
    assert log.time.tolist() == [34200004241176, 34200025551909, 34713685155243, 57599999999999]
    assert np.asarray(log.events.kind).tolist() == [1, 5, 7, 4]
    assert np.asarray(log.events.side).tolist() == [1, -1, 0, 1]
    assert np.asarray(log.events.gap)[1] == pytest.approx(0.021310733, abs=1e-12)
    assert np.asarray(states.mid)[0] == 5853600
    assert np.asarray(states.valid).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("line", "text", "reason"),
    [
        (7, "34201.0,8,1,5,9990,1", "unknown event type 8"),
        (7, "34201.0,1,1,-5,9990,1", "the size is negative: -5"),
        (7, "34201.0,1,1,0,9990,1", "the size is 0"),
        (7, "34201.0,1,1,5,-9990,1", "the price is negative"),
        (7, "34201.0,1,1,5,9990.5,1", "the price 9990.5 is no multiple"),
        (7, "34201.0,1,1,5,nan,1", "the price is 'nan', expected a finite number"),
        (7, "34201.0,1,1,5,99900000000,1", "the price 99900000000 is 9.99e"),
        (7, "34201.0,1,1,5,9990,0", "the direction is 0"),
        (7, "34201.0,1,1,5,9990", "5 columns, expected 6"),
        (7, "34201.0,one,1,5,9990,1", "the type is 'one', expected a whole number"),
        (7, "noon,1,1,5,9990,1", "the time is 'noon'"),
        (200, "34200.0,1,1,5,9990,1", "the clock goes backwards, from .* to 34200.0 s"),
    ],
)
def test_a_bad_message_is_named(lobster_files, line, text, reason):
    path = lobster_files[0]
    rewrite(path, put(line, text))
    where = re.escape(f"{path}, line {line}: ")
    with pytest.raises(ValueError, match=where + reason):
        read_lobster_messages(path)
    log = read_lobster_messages(path, faults="quarantine")
    assert [fault.line for fault in log.faults] == [line]
    assert int(log.events.kind[line - 1]) == EventKind.GAP and len(log) == NUM_EVENTS
    start = empty_book(40, known=True)
    with pytest.raises(ValueError, match=f"line {line}: messages are missing here"):
        replay(log, 1, start=start)
    valid = np.asarray(replay(log, 1, start=start, faults="quarantine").valid)
    assert not valid[line - 1 :].any()


def test_shuffled_messages_are_named(lobster_files):
    rewrite(lobster_files[0], swap)
    with pytest.raises(ValueError, match=r"message.csv, line 101: the clock goes backwards"):
        read_lobster_messages(lobster_files[0])


def test_cut_files_are_named(lobster_files, tmp_path):
    path = lobster_files[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="line 300: the file ends without a line end"):
        read_lobster_messages(path)
    assert len(read_lobster_messages(path, faults="quarantine").faults) == 1
    archive = tmp_path / "message.csv.gz"
    archive.write_bytes(gzip.compress(content)[:-200])
    with pytest.raises(ValueError, match=r"message.csv.gz, line \d+: the archive is cut"):
        read_lobster_messages(archive)
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:250]))
    with pytest.raises(ValueError, match=r"has 250 messages and .* 300 books"):
        read_lobster(*lobster_files)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no event was read"):
        read_lobster_messages(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10005,-3,9990,2", "4 columns, expected 20"),
        ("10005,-3,9990,2" + ",0" * 16, "a size is negative"),
        ("9990,3,9990,2" + ",0" * 16, "the book is crossed"),
        ("10005,3,9990,2,10004,1" + ",0" * 14, "prices of a side are not in order"),
        ("-10005,3,9990,2" + ",0" * 16, "a price is no price"),
        ("10005,3x,9990,2" + ",0" * 16, "a price or size is '3x'"),
    ],
)
def test_a_bad_book_is_named(lobster_files, text, reason):
    path = lobster_files[1]
    rewrite(path, put(12, text))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 12: ") + reason):
        read_lobster_book(path)


# Binance


@pytest.fixture
def stream(changes, tmp_path):
    path = tmp_path / "stream.txt"
    write_binance(changes, path)
    return path


def test_a_stream_comes_back(changes, stream):
    log = read_binance(stream, **UNITS)
    assert_same_events(log, changes)
    assert np.array_equal(log.sequence, changes.sequence)
    archive = stream.with_suffix(".gz")
    archive.write_bytes(gzip.compress(stream.read_bytes()))
    assert_same_events(read_binance(archive, **UNITS), changes)


def depth_lines(path):
    lines = path.read_text().splitlines()
    return [i + 1 for i, line in enumerate(lines) if "depthUpdate" in line]


def edited(path, line, **fields):
    """A line of the stream with other fields of its message (`None` removes one)."""
    stamp, _, body = path.read_text().splitlines()[line - 1].partition(" ")
    message = json.loads(body)
    content = message.get("data", message)
    content.update(fields)
    for name in [name for name, value in fields.items() if value is None]:
        del content[name]
    return f"{stamp} {json.dumps(message)}"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"e": "liquidation"}, "unknown event type 'liquidation'"),
        ({"b": [["100.00", "-1"]]}, "a size is negative: -1"),
        ({"b": [["100.005", "1"]]}, "a price 100.005 is no multiple of 0.01"),
        ({"b": [["100.00", "NaN"]]}, "a size is 'NaN', expected a finite number"),
        ({"b": [["100.00"]]}, r"a level is \['100.00'\]"),
        ({"a": None}, "depthUpdate has no field 'a'"),
        ({"s": "OTHER"}, "a message of OTHER among those of TEST"),
        ({"u": 1.5}, "u is 1.5|U is"),
    ],
)
def test_a_bad_depth_message_is_named_and_breaks_the_book(stream, fields, reason):
    line, after = depth_lines(stream)[20:22]
    rewrite(stream, put(line, edited(stream, line, **fields)))
    with pytest.raises(ValueError, match=re.escape(f"{stream}, line {line}: ")):
        read_binance(stream, **UNITS)
    log = read_binance(stream, **UNITS, faults="quarantine")
    assert [fault.line for fault in log.faults] == [line, after]
    assert re.match(reason, log.faults[0].reason)
    assert "depth messages are missing" in log.faults[1].reason
    valid = np.asarray(replay(log, 1, capacity=40, faults="quarantine").valid)
    assert valid[log.line < line][20:].all() and not valid[log.line >= after].any()


def test_missing_and_shuffled_messages_are_named(stream):
    original = stream.read_text()
    line = depth_lines(stream)[20]
    rewrite(stream, lambda lines: lines.pop(line - 1))
    after = next(number for number in depth_lines(stream) if number >= line)
    with pytest.raises(ValueError, match=f"line {after}: update .* should come before this one"):
        read_binance(stream, **UNITS)
    stream.write_text(original)
    trades = [i for i, text in enumerate(original.splitlines()) if '"trade"' in text]
    rewrite(stream, lambda lines: lines.pop(trades[5]))
    with pytest.raises(ValueError, match="trade 7 follows trade 5: trades are missing"):
        read_binance(stream, **UNITS)
    stream.write_text(original)
    rewrite(stream, swap)
    with pytest.raises(ValueError, match="line 101: the clock goes backwards"):
        read_binance(stream, **UNITS)


def test_lines_that_are_no_messages_are_named(stream):
    original = stream.read_text()
    for text, reason in [
        ("12 {", "the message is no JSON"),
        ("12 [1]", "the message is a list"),
        ("soon {}", "the receive time is 'soon'"),
        ("12 {}", "unknown event type"),
    ]:
        rewrite(stream, put(3, text))
        with pytest.raises(ValueError, match=f"line 3: {reason}"):
            read_binance(stream, **UNITS)
        stream.write_text(original)
    with pytest.raises(ValueError, match="tick_size must be positive"):
        read_binance(stream, tick_size=0.0, lot_size=1.0)
    with pytest.raises(ValueError, match=r"no multiple of 0\.03"):
        read_binance(stream, tick_size=0.03, lot_size=1.0)


def depth(number, first, last, bids, asks, **more):
    data = {"e": "depthUpdate", "s": "X", "U": first, "u": last, "b": bids, "a": asks, **more}
    return f"{number} {json.dumps({'stream': 'x@depth', 'data': data})}"


def snapshot(number, last, bids, asks):
    return f"{number} {json.dumps({'lastUpdateId': last, 'bids': bids, 'asks': asks})}"


def test_differences_wait_for_their_snapshot(tmp_path):
    """Those that the snapshot holds are dropped, the others applied with it; a gap waits for the
    next snapshot; an old snapshot says nothing."""
    path = tmp_path / "stream.txt"
    lines = [
        depth(1, 11, 12, [["9", "1"]], []),  # in the snapshot
        depth(2, 13, 16, [["8", "2"]], [["11", "0"]]),  # reaches beyond it
        snapshot(3, 14, [["9", "5"]], [["11", "5"], ["12", "5"]]),
        depth(4, 17, 17, [["9", "4"]], []),
        snapshot(5, 15, [["1", "1"]], [["2", "1"]]),  # older than the book
        depth(6, 20, 21, [["9", "3"]], []),  # 18 and 19 are missing
        depth(7, 22, 22, [["7", "3"]], []),
        snapshot(8, 21, [["9", "6"]], [["12", "6"]]),
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match=r"line 6: update 19 .* the last one was 17"):
        read_binance(path, tick_size=1.0, lot_size=1.0)
    log = read_binance(path, tick_size=1.0, lot_size=1.0, faults="quarantine")
    states = replay(log, 1, capacity=8, faults="quarantine")
    last = np.asarray(log.events.last)
    assert log.line[last].tolist() == [3, 2, 4, 6, 8, 7]
    assert log.time[last].tolist() == [3, 3, 4, 6, 8, 8]
    best = np.stack([states.bid_price[:, 0], states.bid_size[:, 0], states.ask_price[:, 0]], 1)
    assert best[last].tolist() == [
        [9, 5, 11],
        [9, 5, 12],
        [9, 4, 12],
        [9, 4, 12],
        [9, 6, 12],
        [9, 6, 12],
    ]
    assert np.asarray(states.valid)[last].tolist() == [True, True, True, False, True, True]


def test_futures_name_the_message_before(tmp_path):
    path = tmp_path / "stream.txt"
    lines = [
        snapshot(1, 14, [["9", "5"]], [["11", "5"]]),
        depth(2, 20, 25, [["9", "4"]], [], pu=12),
        depth(3, 31, 35, [["9", "3"]], [], pu=25),
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    log = read_binance(path, tick_size=1.0, lot_size=1.0)
    states = replay(log, 1, capacity=8)
    assert np.asarray(states.bid_size)[-2:, 0].tolist() == [4, 3]


def test_best_quotes(tmp_path):
    path = tmp_path / "stream.txt"
    quote = {"u": 5, "s": "X", "b": "9.5", "B": "2", "a": "10", "A": "3"}
    path.write_text(f"1 {json.dumps(quote)}\n2 {json.dumps({**quote, 'u': 6, 'b': '9'})}\n")
    log, states = read_binance_quotes(path, tick_size=0.5, lot_size=1.0)
    assert log.sequence.tolist() == [5, 6]
    assert np.asarray(states.mid).tolist() == [19.5, 19.0]
    assert np.asarray(states.spread).tolist() == [1.0, 2.0]
    path.write_text(f"1 {json.dumps({**quote, 'b': '10'})}\n")
    with pytest.raises(ValueError, match="line 1: the quote is crossed"):
        read_binance_quotes(path, tick_size=0.5, lot_size=1.0)


# Parquet

COLUMNS = {name: name for name in ("time", "kind", "side", "price", "size")}
CODES = {
    "kinds": {kind.name: kind for kind in EventKind},
    "sides": {"bid": 1, "ask": -1, "both": 0},
}


def test_a_table_comes_back(orders, tmp_path):
    path = tmp_path / "events.parquet"
    write_event_table(orders, path)
    assert_same_events(read_event_table(path, COLUMNS, **CODES, **UNITS), orders)


def test_a_table_of_another_layout(tmp_path):
    """Whole numbers as time, codes as letters, rows of one number as one message."""
    import pyarrow
    import pyarrow.parquet as parquet

    path = tmp_path / "events.parquet"
    cells = {
        "ts": [5, 5, 6, 9],
        "n": [7, 7, 8, 10],
        "what": ["S", "S", "T", "S"],
        "s": ["B", "A", "A", "B"],
        "px": [1.5, 2.0, 2.0, 1.0],
        "qty": [10, 20, 5, 30],
    }
    parquet.write_table(pyarrow.table(cells), path)
    columns = {"time": "ts", "sequence": "n", "kind": "what", "side": "s"}
    columns |= {"price": "px", "size": "qty"}
    options = {
        "kinds": {"S": EventKind.SET, "T": EventKind.TRADE},
        "sides": {"B": 1, "A": -1},
        "tick_size": 0.5,
        "lot_size": 5.0,
        "time_unit": "ms",
    }
    with pytest.raises(ValueError, match=r"events.parquet, line 4: number 10 follows 8"):
        read_event_table(path, columns, **options)
    log = read_event_table(path, columns, **options, faults="quarantine")
    events = log.events
    assert log.time.tolist() == [5_000_000, 5_000_000, 6_000_000, 9_000_000, 9_000_000]
    kinds = [EventKind.SET, EventKind.SET, EventKind.TRADE, EventKind.GAP, EventKind.SET]
    assert np.asarray(events.kind).tolist() == kinds
    assert np.asarray(events.price).tolist() == [3, 4, 4, 0, 2]
    assert np.asarray(events.size).tolist() == [2, 4, 1, 0, 6]
    assert np.asarray(events.last).tolist() == [False, True, True, True, True]
    with pytest.raises(ValueError, match=r"no column \['volume'\]; it has \['ts'"):
        read_event_table(path, {**columns, "size": "volume"}, **options)
    with pytest.raises(ValueError, match=r"missing \['time'\], unknown \['when'\]"):
        odd = {("when" if name == "time" else name): value for name, value in columns.items()}
        read_event_table(path, odd, **options)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("kind", "SPLIT", "unknown event type 'SPLIT'"),
        ("side", "middle", "unknown side 'middle'"),
        ("side", "both", ".* needs a side"),
        ("price", float("nan"), "the price is nan, expected a finite number"),
        ("price", None, "the price is None, expected a number"),
        ("size", -2.0, "the size is negative"),
        ("time", 0, "the clock goes backwards"),
        ("time", None, "the time is None"),
    ],
)
def test_a_bad_row_is_named(orders, tmp_path, column, value, reason):
    import pyarrow
    import pyarrow.parquet as parquet

    path = tmp_path / "events.parquet"
    write_event_table(orders, path)
    table = parquet.read_table(path).to_pydict()
    table["time"] = orders.time.tolist()
    table[column][9] = value
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, line 10: {reason}"):
        read_event_table(path, COLUMNS, **CODES, **UNITS)
    log = read_event_table(path, COLUMNS, **CODES, **UNITS, faults="quarantine")
    assert int(log.events.kind[9]) == EventKind.GAP and len(log.faults) == 1


def test_an_unknown_policy_is_refused(stream):
    with pytest.raises(Exception, match="faults"):
        read_binance(stream, **UNITS, faults="ignore")


def test_writers_refuse_what_a_format_cannot_say(orders, changes, tmp_path):
    with pytest.raises(ValueError, match="CLEAR, which LOBSTER has no type for"):
        write_lobster_messages(changes, tmp_path / "m.csv")
    with pytest.raises(ValueError, match="a ADD row has no message"):
        write_binance(orders, tmp_path / "s.txt")
