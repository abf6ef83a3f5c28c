"""Stylised facts of books, recorded or simulated, from the book after every event; host side.

Laws are over time: a book counts for as long as it stood.
"""

import dataclasses
import itertools

import numpy as np

from jaxfc.microstructure import BookEvents, BookStates, EventKind

# Classes of the imbalance of the best queues.
IMBALANCES = np.array([-1.0, -0.6, -0.2, 0.2, 0.6, 1.0])
KINDS = {"limit": EventKind.ADD, "cancel": EventKind.DELETE, "market": EventKind.EXECUTE}


@dataclasses.dataclass(frozen=True)
class Path:
    """Events, the best quotes and queues (orders of one unit) after each of them, and which of
    these are known."""

    gap: np.ndarray
    kind: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    bid_queue: np.ndarray
    ask_queue: np.ndarray
    known: np.ndarray

    def cut(self, first: int) -> "Path":
        """Without the first rows: what a simulation needs to forget its start."""
        parts = (getattr(self, field.name)[first:] for field in dataclasses.fields(self))
        return Path(*parts)


def path_of(events: BookEvents, states: BookStates, unit: float) -> Path:
    """One book and its events, queues in orders of `unit` lots."""
    columns = (events.gap, events.kind, states.bid_price[:, 0], states.ask_price[:, 0])
    queues = (np.asarray(size)[:, 0] / unit for size in (states.bid_size, states.ask_size))
    return Path(*(np.asarray(column) for column in columns), *queues, np.asarray(states.valid))


def facts_of(paths: list[Path]) -> dict[str, float]:
    """Facts of all paths together."""
    held = [np.where(one.known, np.append(one.gap[1:], 0.0), 0.0) for one in paths]
    total = sum(float(weights.sum()) for weights in held)
    facts = {
        f"{name} orders a second": sum(int(np.sum(one.kind == kind)) for one in paths) / total
        for name, kind in KINDS.items()
    }
    weights = np.concatenate(held) / total
    spread = np.concatenate([one.ask - one.bid for one in paths])
    facts |= {f"spread of {s}": float(weights @ (spread == s)) for s in (1, 2)}
    facts["spread of 3 or more"] = float(weights @ (spread >= 3))
    queue = np.concatenate([np.concatenate([one.bid_queue, one.ask_queue]) for one in paths])
    twice = np.concatenate([np.concatenate([part, part]) for part in held]) / (2.0 * total)
    facts["mean best queue"] = float(twice @ queue)
    for share in (0.25, 0.5, 0.75):
        facts[f"best queue, {share:.0%} quantile"] = weighted_quantile(queue, twice, share)
    return facts | moves_of(paths, held, total)


def moves_of(paths: list[Path], held: list[np.ndarray], total: float) -> dict[str, float]:
    """Moves of the mid, and the probability that the next one is up by the imbalance."""
    num_moves, square, same, pairs = 0, 0.0, 0, 0
    ups, times = np.zeros(len(IMBALANCES) - 1), np.zeros(len(IMBALANCES) - 1)
    for one, weights in zip(paths, held, strict=True):
        mid = np.where(one.known, 0.5 * (one.bid + one.ask), np.nan)
        change = np.nan_to_num(np.diff(mid, prepend=np.nan))
        rows = np.flatnonzero(change)
        signs = np.sign(change[rows])
        num_moves += len(rows)
        square += float(np.sum(change**2))
        same += int(np.sum(signs[1:] == signs[:-1]))
        pairs += max(len(rows) - 1, 0)
        following = np.searchsorted(rows, np.arange(len(mid)), side="right")
        seen = one.known & (following < len(rows))
        is_up = np.append(signs, 0.0)[following] > 0
        queues = one.bid_queue + one.ask_queue
        imbalance = (one.bid_queue - one.ask_queue) / np.where(queues > 0, queues, 1.0)
        place = np.clip(np.digitize(imbalance, IMBALANCES) - 1, 0, len(ups) - 1)
        np.add.at(times, place, weights * seen)
        np.add.at(ups, place, weights * seen * is_up)
    facts = {
        "mid moves a second": num_moves / total,
        "variance of the mid a second": square / total,
        "next move in the same direction": same / max(pairs, 1),
    }
    for i, (low, high) in enumerate(itertools.pairwise(IMBALANCES)):
        name = f"up after imbalance {low:+.1f} to {high:+.1f}"
        facts[name] = ups[i] / times[i] if times[i] > 0 else np.nan
    return facts


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value whose weight and that of all smaller ones reach `share`."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])
