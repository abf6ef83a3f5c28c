"""Simulators fitted to recordings, and how what they simulate differs from what was recorded."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.order_books_data import Recording
from experiments.order_books_facts import Path, facts_of, path_of
from jaxfc.microstructure import (
    BookEvents,
    BookFault,
    BookStates,
    EventKind,
    OrderFlow,
    QueueBook,
    QueueReactive,
    Queues,
    draw_queues,
    empty_book,
    queue_book,
    reconstruct,
    replay,
    simulate_queue_reactive,
    simulate_zero_intelligence,
)
from jaxfc.microstructure.calibrate_flow import level_flow
from jaxfc.microstructure.calibrate_rates import (
    CalibratedFlow,
    CalibratedQueues,
    books_before,
    calibrate_flow,
    calibrate_queues,
    depth_by_distance,
)
from jaxfc.typing import Array, PRNGKeyArray

# Levels of a simulated window, and probabilities tried for moved and redrawn references.
WINDOW = 64
ODDS = (0.0, 0.25, 0.5, 0.75, 1.0)
# What the odds are chosen for: both in logarithms of their ratio to the recorded figure.
AIMS = ("variance of the mid a second", "next move in the same direction")


def simulator_facts(
    one: Recording,
    *,
    num_distances: int,
    num_queues: int,
    num_sizes: int,
    num_books: int,
    num_events: int,
    key: PRNGKeyArray,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Facts (rows) of the recording and the simulators fitted to it (columns), and the parameters.

    All in prices of the instrument's grid and orders of the average limit order.
    """
    flow = level_flow(one.log, grid=one.instrument.grid)
    states = replay(flow.log, num_distances, faults="quarantine")
    events = flow.log.events
    fitted = calibrate_flow(events, states, num_distances=num_distances)
    queues = calibrate_queues(events, states, num_distances=num_queues, num_sizes=num_sizes)
    unit = float(fitted.unit)
    recorded = near_rows(events, states, num_distances)
    facts = {"recorded": facts_of([path_of(recorded, states, unit)])}
    flow_key, queue_key = jax.random.split(key)
    depth = mean_depth(events, states, num_distances) / unit
    facts["zero intelligence"] = facts_of(
        flow_paths(fitted.estimate.flow, depth, num_books, num_events, key=flow_key)
    )
    scale = float(queues.unit) / unit
    odds, found = best_odds(queues, scale, facts["recorded"], num_books, num_events, key=queue_key)
    facts["queue-reactive"] = found
    parameters = {
        "lots an order": unit,
        "lots an order, queues": float(queues.unit),
        "traded lots explained": flow.explained / max(flow.traded, 1),
        "seconds known": float(jnp.sum(jnp.where(books_before(states).valid, events.gap, 0.0))),
        "move": odds[0],
        "redraw": odds[1],
    } | flow_parameters(fitted)
    return pd.DataFrame(facts), parameters


def flow_parameters(fitted: CalibratedFlow) -> dict[str, float]:
    """Rates of the zero-intelligence flow by name."""
    flow = fitted.estimate.flow
    found = {"market": float(flow.market)}
    for name in ("limit", "cancel"):
        rates = np.asarray(getattr(flow, name))
        found |= {f"{name} {i + 1}": float(rate) for i, rate in enumerate(rates)}
    return found


def near_rows(events: BookEvents, states: BookStates, num_distances: int) -> BookEvents:
    """The events, those beyond the distances of the simulators made nothing."""
    bid, ask = (
        jnp.concatenate([side[:1], side[:-1]])[:, 0]
        for side in (states.bid_price, states.ask_price)
    )
    distance = jnp.where(events.side > 0, ask - events.price, events.price - bid)
    near = (distance <= num_distances) | (events.kind == int(EventKind.EXECUTE))
    kind = jnp.where(near, events.kind, int(EventKind.NOTHING))
    return eqx.tree_at(lambda rows: rows.kind, events, kind)


def mean_depth(events: BookEvents, states: BookStates, num_distances: int) -> np.ndarray:
    """Lots at each distance, averaged over time and sides."""
    held = jnp.where(states.valid, jnp.append(events.gap[1:], 0.0), 0.0)
    depth = jnp.mean(depth_by_distance(states, num_distances), axis=1)
    return np.asarray(held @ depth / jnp.sum(held))


@functools.partial(jax.jit, static_argnums=2)
def simulated_flow(
    flow: OrderFlow, start: QueueBook, num_events: int, keys: Array
) -> tuple[BookEvents, BookStates]:
    """Events of many books and the books after them, those of the start placed before."""
    places, depth = start.prices, start.depth
    order = jnp.argsort(places)
    placed = BookEvents(
        gap=jnp.zeros(WINDOW, flow.limit.dtype),
        kind=jnp.full(WINDOW, int(EventKind.ADD), jnp.int32),
        side=jnp.where(places[order] <= start.bid, 1, -1).astype(jnp.int32),
        price=places[order],
        size=depth[order],
        last=jnp.arange(WINDOW) == WINDOW - 1,
    )

    def one(key: PRNGKeyArray) -> tuple[BookEvents, BookStates]:
        events = simulate_zero_intelligence(flow, start, num_events, key=key).events
        rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), placed, events)
        return rows, reconstruct(rows, empty_book(2 * WINDOW, known=True), 1)[1]

    return jax.vmap(one)(keys)


def flow_paths(
    flow: OrderFlow, depth: np.ndarray, num_books: int, num_events: int, *, key: PRNGKeyArray
) -> list[Path]:
    """Paths of zero-intelligence books, without their first quarter."""
    sizes = jnp.asarray(np.maximum(np.round(depth), [1] + [0] * (len(depth) - 1)), jnp.int32)
    start = queue_book(sizes, sizes, num_levels=WINDOW)
    events, states = simulated_flow(flow, start, num_events, jax.random.split(key, num_books))
    return unstacked(events, states, num_books, num_events // 4 + WINDOW)


def unstacked(events: BookEvents, states: BookStates, num_books: int, first: int) -> list[Path]:
    """One path a book."""
    books = (jax.tree.map(lambda leaf, i=i: leaf[i], (events, states)) for i in range(num_books))
    return [path_of(*book, 1.0).cut(first) for book in books]


@functools.partial(jax.jit, static_argnums=1)
def simulated_queues(
    law: QueueReactive, num_events: int, keys: Array
) -> tuple[BookEvents, BookStates]:
    """Events of many books of queues and the books after them."""

    def one(key: PRNGKeyArray) -> tuple[BookEvents, BookStates]:
        start_key, key = jax.random.split(key)
        path = simulate_queue_reactive(law, draw_queues(law, key=start_key), num_events, key=key)
        after = jax.tree.map(
            lambda rows, last: jnp.concatenate([rows[1:], last[None]]), path.before, path.last
        )
        return path.events, states_of_queues(after)

    return jax.vmap(one)(keys)


def states_of_queues(queues: Queues) -> BookStates:
    """Best quotes of queues around a reference; a side without orders is not valid."""
    sizes, reference = queues.sizes, queues.reference
    first = jnp.argmax(sizes > 0, axis=-1)
    best = jnp.take_along_axis(sizes, first[..., None], axis=-1)
    fault = jnp.where(jnp.min(best[..., 0], axis=-1) > 0, BookFault.NONE, BookFault.EMPTY)
    return BookStates(
        bid_price=(reference - 1 - first[:, 0])[:, None].astype(jnp.int32),
        bid_size=best[:, 0],
        ask_price=(reference + first[:, 1])[:, None].astype(jnp.int32),
        ask_size=best[:, 1],
        fault=fault.astype(jnp.int32),
    )


def best_odds(
    queues: CalibratedQueues,
    scale: float,
    recorded: dict[str, float],
    num_books: int,
    num_events: int,
    *,
    key: PRNGKeyArray,
) -> tuple[tuple[float, float], dict[str, float]]:
    """Odds of a moved and a redrawn reference whose books come nearest to the recorded `AIMS`.

    Huang, Lehalle and Rosenbaum (2015), section 3.2.2, who choose them in the same way.
    """
    tried = {}
    for move in ODDS[1:]:
        for redraw in ODDS:
            keys = jax.random.split(key, num_books)
            events, states = simulated_queues(queues.law(move, redraw), num_events, keys)
            paths = unstacked(events, states, num_books, num_events // 4)
            facts = facts_of([in_units(path, scale) for path in paths])
            miss = sum(
                float(np.log(max(facts[aim], 1e-9) / max(recorded[aim], 1e-9))) ** 2 for aim in AIMS
            )
            tried[move, redraw] = miss, facts
    odds = min(tried, key=lambda pair: tried[pair][0])
    return odds, tried[odds][1]


def in_units(path: Path, scale: float) -> Path:
    """Queues in other units."""
    return Path(
        path.gap,
        path.kind,
        path.bid,
        path.ask,
        path.bid_queue * scale,
        path.ask_queue * scale,
        path.known,
    )
