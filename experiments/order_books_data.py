"""Recordings of order books, and what they say at every tick of a clock; host side.

Two streams of each recording: depth and trades (`read_binance`, books rebuilt with checks) and best
quotes (`read_binance_quotes`, in real time). A row of a clock's table knows what was received until
then and nothing later.
"""

import dataclasses
import functools
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.microstructure import (
    BookEvents,
    BookFault,
    BookStates,
    EventKind,
    EventLog,
    ewma_intensity,
    fit_micro_price,
    level_changes,
    order_flow_imbalance,
    queue_imbalance,
    read_binance,
    read_binance_quotes,
    realised_volatility,
    replay,
    signed_flow,
    synthetic_orders,
    write_binance,
)
from jaxfc.typing import Array

NANOSECONDS = 1_000_000_000
NUM_LEVELS = 5
# Levels of a side that are kept in mind: those of a snapshot, a thousand, and new ones.
CAPACITY = 1500
# Seconds in which an intensity of trades halves, and rows of the clock of a realised volatility.
HALF_LIFE = 1.0
VOLATILITY_ROWS = 10
# Classes of the micro-price.
NUM_IMBALANCES = 10


@dataclasses.dataclass(frozen=True)
class Instrument:
    """A recording, the units of its exchange, and the `grid` (ticks) of the simulators."""

    name: str
    file: str
    tick_size: float
    lot_size: float
    grid: int


# Lots of the spot market a tenth of the present ones: with these, levels that hold old orders are
# refused as faulty, and the books after them are unknown.
INSTRUMENTS = (
    Instrument("spot BTCUSDT", "spot_btcusdt_20240808.gz", 0.01, 1e-6, 100),
    Instrument("spot ETHUSDT", "spot_ethusdt_20240808.gz", 0.01, 1e-5, 10),
    Instrument("BTCUSD perpetual", "cm_btcusd_perp_20240808.gz", 0.1, 1.0, 10),
)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Depth and trades with their books, and best quotes with theirs."""

    instrument: Instrument
    log: EventLog
    books: BookStates
    quotes: EventLog
    best: BookStates

    @functools.cached_property
    def columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What every row of the depth and of the quotes says."""
        found = row_columns(self.log.events, self.books, self.best)
        return jax.tree.map(np.asarray, found)


@jax.jit
def row_columns(
    events: BookEvents, books: BookStates, best: BookStates
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Features of the rows of the depth and of those of the quotes, as one program."""
    flow = signed_flow(events)
    marks = jnp.stack([flow > 0, flow < 0], axis=1).astype(flow.dtype)
    depth = {
        "flow": order_flow_imbalance(books),
        "trade": flow,
        "rates": ewma_intensity(events.gap, marks, jnp.array([HALF_LIFE]))[:, :, 0],
        "imbalance": queue_imbalance(books, NUM_LEVELS),
    }
    quotes = {
        "flow": order_flow_imbalance(best)[:, 0],
        "move": jnp.diff(best.mid, prepend=jnp.nan),
        "mid": best.mid,
        "spread": best.spread,
        "imbalance": queue_imbalance(best),
    }
    return depth, quotes


def recording(instrument: Instrument, folder: Path) -> Recording:
    """Read one file; lines that are wrong are set aside and counted (`quarantine_table`)."""
    path = folder / instrument.file
    units = {"tick_size": instrument.tick_size, "lot_size": instrument.lot_size}
    log = read_binance(path, faults="quarantine", **units)
    books = replay(log, NUM_LEVELS, capacity=CAPACITY, faults="quarantine")
    quotes, best = read_binance_quotes(path, **units)
    return Recording(instrument, log, books, quotes, best)


def quarantine_table(recordings: list[Recording]) -> pd.DataFrame:
    """Rows of each recording, lines set aside, and rows by the fault of their book."""
    lines = []
    for one in recordings:
        codes, kinds = np.asarray(one.books.fault), np.asarray(one.log.events.kind)
        line = {
            "instrument": one.instrument.name,
            "seconds": (one.log.time[-1] - one.log.time[0]) / NANOSECONDS,
            "rows of levels": int(np.sum(kinds == EventKind.SET)),
            "trades": int(np.sum(kinds == EventKind.TRADE)),
            "best quotes": len(one.quotes),
            "lines set aside": len(one.log.faults),
        }
        line |= {f"book {code.name.lower()}": int(np.sum(codes == code)) for code in BookFault}
        line["quotes not valid"] = int(np.sum(~np.asarray(one.best.valid)))
        lines.append(line)
    return pd.DataFrame(lines)


def common_span(recordings: list[Recording], seconds: float) -> tuple[int, int]:
    """First and last time (ns), multiples of `seconds`, at which all books are known."""
    step = round(seconds * NANOSECONDS)
    starts, ends = [], []
    for one in recordings:
        for log, states in ((one.log, one.books), (one.quotes, one.best)):
            starts.append(int(log.time[int(np.argmax(np.asarray(states.valid)))]))
            ends.append(int(log.time[-1]))
    return -(-max(starts) // step) * step, min(ends) // step * step


@dataclasses.dataclass(frozen=True)
class Clock:
    """Ticks (ns) of a clock, and rows of a log at or before each of them."""

    ticks: np.ndarray

    def last(self, log: EventLog) -> np.ndarray:
        """The last row received at each tick."""
        return np.searchsorted(log.time, self.ticks, side="right") - 1

    def value(self, log: EventLog, values: Array) -> np.ndarray:
        """What a column of rows was at each tick; rows without a valid book repeat the last one."""
        filled = pd.Series(np.asarray(values)).ffill().to_numpy()
        return filled[self.last(log)]

    def total(self, log: EventLog, values: Array) -> np.ndarray:
        """Sums over the rows since the tick before (0 at the first); NaN rows count as nothing."""
        values = np.nan_to_num(np.asarray(values, np.float64))
        start = np.zeros((1, *values.shape[1:]))
        sums = np.concatenate([start, np.cumsum(values, axis=0)])[self.last(log) + 1]
        return np.diff(sums, axis=0, prepend=sums[:1])


def clock_of(recordings: list[Recording], seconds: float) -> Clock:
    """The clock that all recordings share."""
    first, last = common_span(recordings, seconds)
    return Clock(np.arange(first, last + 1, round(seconds * NANOSECONDS)))


def clock_table(one: Recording, clock: Clock, num_training: int) -> pd.DataFrame:
    """Features at each tick, and what happened since the tick before.

    `move` of the mid (ticks), `squares` of its moves (ticks squared), `flow` of best quotes,
    `flow_1` .. `flow_5` of the levels of the book, `trade` signed lots traded; `imbalance` and
    `imbalance_5` of queues, `micro` the micro-price less the mid (ticks, estimated on the first
    `num_training` intervals), `spread` (ticks), `buys` and `sells` a second (EWMA), `volatility`
    of the last ten intervals (log return).
    """
    quotes, log = one.quotes, one.log
    depth, best = one.columns
    levels = clock.total(log, depth["flow"])
    mid = clock.value(quotes, best["mid"])
    last = clock.last(log)
    waited = (clock.ticks - log.time[last]) / NANOSECONDS
    rates = depth["rates"][last] * 0.5 ** (waited / HALF_LIFE)[:, None]
    columns = {
        "move": np.diff(mid, prepend=mid[0]),
        "squares": clock.total(quotes, best["move"] ** 2),
        "flow": clock.total(quotes, best["flow"]),
        **{f"flow_{i + 1}": levels[:, i] for i in range(NUM_LEVELS)},
        "trade": clock.total(log, depth["trade"]),
        "imbalance": clock.value(quotes, best["imbalance"]),
        "imbalance_5": clock.value(log, depth["imbalance"]),
        "micro": clock.value(quotes, micro_price(one, int(clock.ticks[num_training]))),
        "spread": clock.value(quotes, best["spread"]),
        "buys": rates[:, 0],
        "sells": rates[:, 1],
        "volatility": np.asarray(realised_volatility(jnp.asarray(mid), VOLATILITY_ROWS)),
    }
    return pd.DataFrame(columns, index=pd.to_datetime(clock.ticks)).iloc[1:]


def micro_price(one: Recording, until: int) -> np.ndarray:
    """Micro-price less mid (ticks) of every quote, estimated on those received until then (ns)."""
    later = jnp.asarray(one.quotes.time > until)
    unknown = jnp.asarray(int(BookFault.UNKNOWN), one.best.fault.dtype)
    fault = jnp.where(later, unknown, one.best.fault)
    seen = eqx.tree_at(lambda states: states.fault, one.best, fault)
    return np.asarray(fit_micro_price(seen, NUM_IMBALANCES, 1).from_mid(one.best))


def write_made_up(folder: Path, instruments: tuple[Instrument, ...], num_orders: int) -> None:
    """A made-up recording for each instrument: orders as levels, trades and best quotes."""
    for i, one in enumerate(instruments):
        orders = synthetic_orders(num_orders, key=jax.random.key(i))
        path = folder / one.file
        write_binance(level_changes(orders, rows_a_message=2), path)
        books = replay(level_changes(orders), 1)
        lines = path.read_text().splitlines()
        lines += quote_lines(level_changes(orders), books, one)
        lines.sort(key=lambda line: int(line.partition(" ")[0]))
        path.write_text("".join(f"{line}\n" for line in lines))


def quote_lines(log: EventLog, books: BookStates, one: Instrument) -> list[str]:
    """Best quotes as Binance writes them, one for each row with a valid book."""
    valid, lines = np.asarray(books.valid), []
    parts = (books.bid_price, books.bid_size, books.ask_price, books.ask_size)
    table = np.stack([np.asarray(part)[:, 0] for part in parts], axis=1)
    for i in np.flatnonzero(valid):
        bid, bid_size, ask, ask_size = table[i].tolist()
        quote = {"u": int(i), "s": "TEST", "b": f"{bid * one.tick_size:.2f}", "B": str(bid_size)}
        quote |= {"a": f"{ask * one.tick_size:.2f}", "A": str(ask_size)}
        lines.append(f"{int(log.time[i])} {json.dumps(quote)}")
    return lines
