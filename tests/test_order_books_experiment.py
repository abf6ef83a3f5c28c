"""The study of order books: its columns against loops, a small run on made-up recordings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import order_books
from experiments.order_books import explained, r_squared
from experiments.order_books_answers import compared
from experiments.order_books_data import (
    CAPACITY,
    INSTRUMENTS,
    NANOSECONDS,
    NUM_LEVELS,
    Clock,
    clock_of,
    clock_table,
    recording,
    write_made_up,
)
from experiments.order_books_facts import Path, facts_of, weighted_quantile
from experiments.order_books_forecasts import (
    baseline_losses,
    columns_of,
    ewma,
    split_of,
)
from experiments.order_books_hawkes import event_times
from experiments.order_books_scores import Scores
from jaxfc.microstructure import EventKind, replay
from jaxfc.microstructure.calibrate_flow import level_flow

MADE_UP = order_books.MADE_UP[0]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    write_made_up(folder, (MADE_UP,), 600)
    return recording(MADE_UP, folder)


def cut(one, until):
    """What was received up to a time (ns)."""
    num, seen = (int(np.sum(log.time <= until)) for log in (one.log, one.quotes))
    return dataclasses.replace(
        one,
        log=one.log.window(0, num),
        books=jax.tree.map(lambda part: part[:num], one.books),
        quotes=one.quotes.window(0, seen),
        best=jax.tree.map(lambda part: part[:seen], one.best),
    )


def test_a_row_knows_what_was_received_until_then(made_up):
    clock = clock_of([made_up], 0.5)
    table = clock_table(made_up, clock, 20)
    assert np.isfinite(table.drop(columns="volatility").to_numpy()).all()
    known = Clock(clock.ticks[:31])
    early = clock_table(cut(made_up, int(clock.ticks[30])), known, 20)
    np.testing.assert_array_equal(early.to_numpy(), table.iloc[:30].to_numpy())


def test_columns_of_a_clock_are_those_of_a_loop(made_up):
    clock = clock_of([made_up], 0.5)
    table = clock_table(made_up, clock, 20)
    assert table.index[0].value == clock.ticks[1] and clock.ticks[1] % (NANOSECONDS // 2) == 0
    bid, ask = (np.asarray(a)[:, 0] for a in (made_up.best.bid_price, made_up.best.ask_price))
    kind, side, size = (
        np.asarray(getattr(made_up.log.events, name)) for name in ("kind", "side", "size")
    )
    for row in (3, 17, 40):
        start, end = clock.ticks[row : row + 2]
        mids = [(t, 0.5 * (b + a)) for t, b, a in zip(made_up.quotes.time, bid, ask, strict=True)]
        first, last = ([m for t, m in mids if t <= tick][-1] for tick in (start, end))
        assert table["move"].iloc[row] == pytest.approx(last - first, abs=1e-9)
        path = [first] + [m for t, m in mids if start < t <= end]
        assert table["squares"].iloc[row] == pytest.approx(np.sum(np.diff(path) ** 2))
        within = (made_up.log.time > start) & (made_up.log.time <= end) & (kind == EventKind.TRADE)
        assert table["trade"].iloc[row] == np.sum(-side[within] * size[within])
        before = (kind == EventKind.TRADE) & (made_up.log.time <= end) & (side < 0)
        ages = (end - made_up.log.time[before]) / NANOSECONDS
        assert table["buys"].iloc[row] == pytest.approx(np.sum(np.log(2) * 0.5**ages))


def test_facts_of_a_small_path():
    one = Path(
        gap=np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        kind=np.array([0, EventKind.ADD, EventKind.EXECUTE, EventKind.DELETE, EventKind.ADD]),
        bid=np.array([9, 9, 9, 10, 10]),
        ask=np.array([10, 10, 11, 11, 11]),
        bid_queue=np.array([4.0, 1.0, 5.0, 2.0, 2.0]),
        ask_queue=np.array([1.0, 1.0, 5.0, 2.0, 3.0]),
        known=np.ones(5, bool),
    )
    # Books stand for 1, 2, 3, 4 and 0 seconds.
    facts = facts_of([one])
    assert facts["limit orders a second"] == pytest.approx(0.2)
    assert facts["market orders a second"] == facts["cancel orders a second"] == pytest.approx(0.1)
    assert (facts["spread of 1"], facts["spread of 2"]) == pytest.approx((0.7, 0.3))
    assert facts["mean best queue"] == pytest.approx((2.5 + 2 * 1 + 3 * 5 + 4 * 2) / 10)
    assert facts["mid moves a second"] == pytest.approx(0.2)
    assert facts["variance of the mid a second"] == pytest.approx(0.05)
    assert facts["next move in the same direction"] == 1.0
    assert facts["up after imbalance +0.6 to +1.0"] == 1.0
    assert np.isnan(facts["up after imbalance -1.0 to -0.6"])
    assert weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.5) == 2.0


def test_fills_of_one_order_are_one_event(made_up):
    log, start = made_up.log, made_up.quotes.time[0]
    time, kind = event_times(made_up, "market orders")
    assert np.all(np.diff(time) >= 0) and set(kind) == {0, 1}
    events = log.events
    for place, side in ((0, -1), (1, 1)):
        fills = log.time[np.asarray((events.kind == EventKind.TRADE) & (events.side == side))]
        fills = fills[fills >= start]
        assert np.sum(kind == place) == 1 + np.sum(np.diff(fills) > 1_000_000)
    time, kind = event_times(made_up, "mid moves")
    bid, ask = (np.asarray(a)[:, 0] for a in (made_up.best.bid_price, made_up.best.ask_price))
    rises = made_up.quotes.time[1:][np.diff(bid + ask) > 0]
    assert np.sum(kind == 0) == 1 + np.sum(np.diff(rises) > 1_000_000)
    assert time[kind == 0][0] == pytest.approx((rises[0] - start) / NANOSECONDS)


def test_shares_explained_are_squared_correlations(made_up):
    table = clock_table(made_up, clock_of([made_up], 0.5), 20)
    found = explained(table)
    corr = np.corrcoef(table["move"], table["flow"])[0, 1]
    assert found["best flow"] == pytest.approx(corr**2)
    ahead = np.corrcoef(table["move"].iloc[1:], table["imbalance"].iloc[:-1])[0, 1]
    assert found["imbalance, next"] == pytest.approx(ahead**2)
    assert found["best flow and trades"] >= found["best flow"]
    exact = r_squared(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 3.0]))
    assert exact == pytest.approx(1.0)


def test_baselines_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    path = rng.integers(-1, 2, 80).astype(float)
    split = split_of(80, 4)
    assert split == (60, 64)
    base = np.array([(np.sum(path[:60] == c) + 1) / 63 for c in (-1, 0, 1)])
    got = baseline_losses("seasonal", path, split)
    for i, row in enumerate(range(64, 80)):
        own = path[:60][np.arange(60) % 10 == row % 10]
        share = (np.sum(own == path[row]) + 20 * base[int(path[row]) + 1]) / (len(own) + 20)
        assert got[i] == pytest.approx(-np.log(share))
    weights = 0.5 ** ((np.arange(5)[::-1]) / 3.0) * (1 - 0.5 ** (1 / 3.0))
    means = ewma(path[:, None], np.zeros(1), 3.0)
    assert means[5, 0] == pytest.approx(weights @ path[:5])
    # What is tested changes neither baseline before it is known.
    other = path.copy()
    other[70:] = 1.0
    for name in ("seasonal", "EWMA"):
        pair = [baseline_losses(name, one, split) for one in (path, other)]
        np.testing.assert_array_equal(pair[0][:6], pair[1][:6])
        # After ten rows of one class, that class is the likelier the better they are remembered.
        assert pair[1][-1] < pair[1][6] or name == "seasonal"


def test_columns_are_scaled_by_the_rows_fitted(made_up):
    table = clock_table(made_up, clock_of([made_up], 0.5), 20)
    split = split_of(len(table), 4)
    columns = columns_of(table, "direction", split)
    assert list(columns)[:3] == ["target", "direction", "volatility"]
    assert columns["target"].equals(columns["direction"])
    moved, fitted = table["squares"].to_numpy(), table["squares"].iloc[: split.num_fit].to_numpy()
    middle = np.median(fitted[fitted > 0])
    expected = [-1.0 if square == 0 else float(square > middle) for square in moved]
    assert columns["volatility"].tolist() == expected
    assert columns["direction"].tolist() == np.sign(table["move"]).tolist()
    assert np.isfinite(columns.to_numpy()).all()
    later = table.copy()
    later.iloc[split.num_fit :] *= 3.0
    changed = columns_of(later, "direction", split)
    np.testing.assert_array_equal(
        changed.iloc[: split.num_fit].to_numpy(), columns.iloc[: split.num_fit].to_numpy()
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    config = dataclasses.replace(order_books.QUICK, out=str(tmp_path_factory.mktemp("order_books")))
    stopped = order_books.run(dataclasses.replace(config, minutes=0.0))
    assert not stopped
    return config, order_books.run(config)


def test_a_quick_run_writes_tables_and_answers(quick, tmp_path):
    config, done = quick
    assert done
    folder = tmp_path.__class__(config.out)
    scores = pd.read_csv(folder / "scores.csv")
    expected = 2 * (2 + 2 * config.num_seeds)
    assert len(scores) == expected and scores["loss"].notna().all()
    assert scores["loss"].between(0.0, 20.0).all()
    table = pd.read_csv(folder / "compared.csv")
    rivals = table[table["model"] != "linear"]
    assert rivals["p"].between(0, 1).all()
    assert table.loc[table["model"] == "linear", "change"].eq(0).all()
    facts = pd.read_csv(folder / "facts.csv")
    assert facts["recorded"].notna().any() and facts["queue-reactive"].notna().any()
    text = (folder / "answers.md").read_text()
    for title in ("Recordings", "Simulators of books", "Hawkes", "Forecasts", "What helped"):
        assert f"## {title}" in text
    assert "- direction, recursive: better in" in text


def test_a_run_goes_on_where_it_was(quick, monkeypatch):
    config, _ = quick

    def refuse(*_):
        raise AssertionError("this score is known")

    monkeypatch.setattr(order_books, "net_program", lambda *_: refuse)
    monkeypatch.setattr(order_books, "baseline_losses", refuse)
    assert order_books.run(config)


def test_losses_are_averaged_over_seeds_and_recordings(tmp_path):
    scores = Scores(tmp_path, np.inf)
    rng = np.random.default_rng(1)
    losses = rng.normal(size=(2, 2, 2, 40)).astype(np.float32)
    for i, model in enumerate(("linear", "recursive")):
        for j, instrument in enumerate(("a", "b")):
            for seed in range(2):
                scores.add((instrument, 0.1, "direction", model, seed), losses[i, j, seed])
    table = compared(scores.known(), scores.case_file)
    every = table[(table["instrument"] == "all") & (table["model"] == "recursive")].iloc[0]
    difference = (losses[1] - losses[0]).mean(axis=(0, 1), dtype=np.float64)
    assert every["change"] == pytest.approx(difference.mean(), rel=1e-5)
    assert every["cases"] == 40
    assert every["seed sd"] == pytest.approx(losses[1].mean(axis=(0, 2)).std(ddof=1), rel=1e-3)
    assert jnp.isfinite(every["dm"])


@pytest.mark.slow
def test_a_real_recording(shared_data):
    """Nothing is set aside, the order flow rebuilds the book, and trades explain what left it."""
    folder = shared_data / "lob_crypto"
    if not folder.is_dir():
        pytest.skip("no lob_crypto among the real data")
    one = recording(INSTRUMENTS[1], folder)
    assert len(one.log.faults) == 0 and bool(one.best.valid.all())
    flow = level_flow(one.log)
    assert flow.explained > 0.95 * flow.traded
    books = replay(flow.log, NUM_LEVELS, capacity=CAPACITY)
    valid = np.asarray(books.valid & flow.log.events.last)
    theirs = {}
    for row in np.flatnonzero(np.asarray(one.books.valid & one.log.events.last)):
        theirs[one.log.line[row], one.log.sequence[row]] = row
    rows = [
        theirs[pair] for pair in zip(flow.log.line[valid], flow.log.sequence[valid], strict=True)
    ]
    assert len(rows) > 1000
    for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
        ours = np.asarray(getattr(books, name))[valid]
        np.testing.assert_array_equal(ours, np.asarray(getattr(one.books, name))[rows])
    table = clock_table(one, clock_of([one], 0.5), 300)
    found = explained(table)
    assert 0.2 < found["best flow"] < 0.7 and found["imbalance, next"] < 0.15
