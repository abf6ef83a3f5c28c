"""Forecasts of the next interval of a clock, and their log loss case by case.

Both targets have three classes. Direction: the mid goes down, stays or goes up. Volatility: the mid
does not move, or the sum of its squared moves is below or above the median of the intervals in
which it moves (of the rows fitted). Rows are in the order of time: training, validation, an embargo
of one window, test. Every target is that of the next interval alone, so that none of the training
rows is known later than the validation rows begin.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.order_books_data import NUM_LEVELS
from jaxfc.recursive import (
    Architecture,
    CategoricalHead,
    DecayingNet,
    LinearNet,
    MultilayerNet,
    NetworkModel,
    RecursiveNet,
    Training,
)
from jaxfc.typing import Array, PRNGKeyArray

CLASSES = (-1.0, 0.0, 1.0)
TARGETS = ("direction", "volatility")
BASELINES = ("seasonal", "EWMA")
BENCHMARK, ONCE, RECURSIVE = "linear", "same net once", "recursive"
# Rows of the cycle of the seasonal baseline, and cases that its averages are shrunk by.
CYCLE = 10
PRIOR_CASES = 20.0
# Share of the rows fitted that is held back for early stopping.
VALIDATION = 0.2
HALF_LIVES = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
HEAVY = ("move", "flow", "trade", "buys", "sells", "micro", "spread", "flow_deep")
FEATURES = (*HEAVY, "imbalance", "imbalance_5", "realised")
LARGEST = 5.0


@dataclasses.dataclass(frozen=True)
class Nets:
    """Sizes of the networks and of their training."""

    window: int = 10
    width: int = 16
    num_steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 2e-3
    round_length: int = 50
    names: tuple[str, ...] | None = None  # None: all networks

    def architectures(self) -> dict[str, Architecture]:
        """The networks by name."""
        every = {
            BENCHMARK: LinearNet(),
            "multilayer": MultilayerNet(self.width, 2),
            "recurrence": DecayingNet(self.width),
            # The recursion with one step in all: one new scratch pad, one new answer.
            ONCE: RecursiveNet(self.width, "none", num_inner=1, num_cycles=1, num_supervision=1),
            RECURSIVE: RecursiveNet(self.width, "none"),
        }
        return every if self.names is None else {name: every[name] for name in self.names}

    def training(self) -> Training:
        """How they are trained."""
        return Training(
            self.num_steps,
            self.batch_size,
            self.learning_rate,
            round_length=self.round_length,
            validation=VALIDATION,
        )


class Split(NamedTuple):
    """Rows trained on and held back (the first `num_fit`), and the first row that is tested."""

    num_fit: int
    first_test: int

    @property
    def num_training(self) -> int:
        """Rows trained on."""
        return self.num_fit - round(VALIDATION * self.num_fit)


def split_of(num_rows: int, window: int) -> Split:
    """The first three quarters to fit (a fifth of them held back), the rest to test."""
    num_fit = round(0.75 * num_rows)
    return Split(num_fit, num_fit + window)


def columns_of(table: pd.DataFrame, target: str, split: Split) -> pd.DataFrame:
    """The target first, then the features; heavy tails by asinh in units of the rows fitted."""
    squares = table["squares"]
    seen = squares.iloc[: split.num_fit]
    moved = np.where(squares > seen[seen > 0].median(), 1.0, 0.0)
    classes = {
        "direction": np.sign(table["move"]),
        "volatility": pd.Series(np.where(squares > 0, moved, -1.0), table.index),
    }
    deep = table[[f"flow_{i + 1}" for i in range(NUM_LEVELS)]].sum(axis=1)
    past = table["volatility"].fillna(0.0)
    fitted = past.iloc[: split.num_fit]
    smallest = fitted[fitted > 0].median() / 10.0
    features = table.assign(flow_deep=deep, realised=np.log(past + smallest))
    # The target's own past comes first, that of both targets is among the features.
    chosen = {"target": classes[target], **classes}
    for name in FEATURES:
        column = features[name]
        if name in HEAVY:
            size = column.iloc[: split.num_fit].abs().mean()
            column = np.arcsinh(column / (size if size > 0 else 1.0))
        chosen[name] = within_bounds(column, split)
    return pd.DataFrame(chosen)


def within_bounds(column: pd.Series, split: Split) -> pd.Series:
    """Standard units of the rows trained on, cut at `LARGEST`; zero where those are constant.

    A spread that is hardly ever more than a tick would else be hundreds of deviations away.
    """
    fitted = column.iloc[: split.num_training]
    std = fitted.std()
    if std < 1e-6:
        return 0.0 * column
    return ((column - fitted.mean()) / std).clip(-LARGEST, LARGEST)


def model_of(architecture: Architecture, nets: Nets) -> NetworkModel:
    """A network for the classes in the first column of a table."""
    return NetworkModel(
        architecture,
        1,
        nets.window,
        head=CategoricalHead(CLASSES),
        training=nets.training(),
        targets=("target",),
        log_squares=False,
        places=(0,),
    )


class NetLosses(NamedTuple):
    """Log loss of each test row, of the rows held back, whether the net says the same of all of
    them, the steps it was trained for and the numbers that it holds."""

    cases: Array
    validation: Array
    collapsed: Array
    steps: Array
    weights: Array


def net_program(model: NetworkModel, split: Split) -> Callable[..., NetLosses]:
    """Fit on the first rows, losses of the last ones: one compiled program for all seeds, targets
    and recordings of one length."""

    def run(values: Array, key: PRNGKeyArray) -> NetLosses:
        seen = jnp.ones(values.shape, bool)
        fitted = model.estimate(values[: split.num_fit], seen[: split.num_fit], key=key)
        size = model.window

        def loss(row: Array) -> Array:
            window = jax.lax.dynamic_slice_in_dim(values, row - size, size)
            outputs = fitted.outputs(window, seen[:size])
            moments = fitted.moments(window, seen[:size])
            one = jnp.ones((1, 1), bool)
            return fitted.head.loss(outputs, moments, values[row, :1][None], one)

        rows = jnp.arange(split.first_test, values.shape[0])
        leaves = jax.tree.leaves(fitted.network)
        return NetLosses(
            cases=jax.vmap(loss)(rows),
            validation=fitted.validation_loss,
            collapsed=fitted.collapsed,
            steps=fitted.num_steps,
            weights=jnp.asarray(sum(leaf.size for leaf in leaves)),
        )

    return jax.jit(run)


def baseline_losses(name: str, path: np.ndarray, split: Split) -> np.ndarray:
    """Log loss of each test row under frequencies of the classes in the target's own past: by row
    of the cycle, or exponentially weighted."""
    hits = (path[:, None] == np.array(CLASSES)).astype(float)
    base = (hits[: split.num_fit].sum(axis=0) + 1.0) / (split.num_fit + len(CLASSES))
    if name == "seasonal":
        probabilities = seasonal_means(hits, base, split)
    else:
        # A tenth of the base rates, so that no class is impossible.
        candidates = [0.9 * ewma(hits, base, life) + 0.1 * base for life in HALF_LIVES]
        losses = [-np.log(one[hits > 0])[: split.num_fit].mean() for one in candidates]
        probabilities = candidates[int(np.argmin(losses))]
    return -np.log(probabilities[hits > 0])[split.first_test :]


def seasonal_means(columns: np.ndarray, base: np.ndarray, split: Split) -> np.ndarray:
    """Means of the rows fitted by row of the cycle, shrunk to those of all."""
    place = np.arange(len(columns)) % CYCLE
    found = np.empty_like(columns)
    for i in range(CYCLE):
        own = columns[: split.num_fit][place[: split.num_fit] == i]
        mean = (own.sum(axis=0) + PRIOR_CASES * base) / (len(own) + PRIOR_CASES)
        found[place == i] = mean
    return found


def ewma(columns: np.ndarray, start: np.ndarray, half_life: float) -> np.ndarray:
    """Exponentially weighted means of the rows before each row."""
    keep = 0.5 ** (1.0 / half_life)
    found, level = np.empty_like(columns), start
    for t in range(len(columns)):
        found[t] = level
        level = keep * level + (1.0 - keep) * columns[t]
    return found
