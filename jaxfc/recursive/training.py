"""How a network is trained, the task it is trained for, and where training stands."""

import abc
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxfc.counts import check_counts
from jaxfc.recursive.nets import Network
from jaxfc.recursive.optimiser import OPTIMISERS, Optimiser, make_optimiser
from jaxfc.recursive.schedules import Curriculum
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree, as_scalar


class Scored(NamedTuple):
    """Loss of one example, summed over `num_entries`, and whether its answer is exactly right
    (None: a question that has no exact answer)."""

    loss: Float[Array, ""]
    num_entries: Float[Array, ""]
    solved: Bool[Array, ""] | None = None


class Task(eqx.Module):
    """Examples and their loss."""

    @property
    @abc.abstractmethod
    def num_examples(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def example(self, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """Inputs of one example and what its answer is compared with."""

    @abc.abstractmethod
    def score(
        self, outputs: Float[Array, "..."], truth: PyTree, step: Int[Array, ""] | None
    ) -> Scored:
        """Loss of the outputs; at training step `step`, or in an evaluation."""

    def draw(self, num: int, step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, " examples"]:
        """Indices of `num` examples, uniform with replacement unless a curriculum says other."""
        return jax.random.randint(key, (num,), 0, self.num_examples)

    def disturb(self, inputs: PyTree, step: Int[Array, ""], *, key: PRNGKeyArray) -> PyTree:
        """Inputs of one example as training sees them."""
        return inputs


class Training(eqx.Module):
    """How a network is trained: at most `num_steps` steps on `batch_size` examples each.

    After every `round_length` steps the averaged weights are evaluated on the last `validation`
    share of the sample (0: none, and all steps are taken); training stops after `patience` rounds
    without a better loss, or once a number is not finite, and keeps the best averaged weights.
    `average` is their decay. A run that diverged carries its own result code.

    `optimiser`: "adamw", or "adam_atan2", which has no epsilon. `dropout` (rate on the encoding),
    `gradient_noise` and `variance_penalty` (times the variance of losses over a batch) regularise.
    `halting`: an example leaves the batch when the halting head says that another step of
    supervision would not lower its loss by `halt_margin` an entry; a tenth of the examples stays
    for a random number of steps. `num_seeds` networks from different starts are trained, side by
    side (`vmap`, for accelerators) or in turn, and their outputs averaged.

    **Raises:** `ValueError` for options out of range.

    Source: the loop, Jolicoeur-Martineau (2025).
    """

    num_steps: int = eqx.field(static=True, default=2000)
    batch_size: int = eqx.field(static=True, default=128)
    learning_rate: Float[Array, ""] = eqx.field(converter=as_scalar, default=2e-3)
    warm_up: int = eqx.field(static=True, default=100, kw_only=True)
    optimiser: Optimiser = eqx.field(static=True, default="adamw", kw_only=True)
    weight_decay: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.1, kw_only=True)
    largest_norm: Float[Array, ""] = eqx.field(converter=as_scalar, default=1.0, kw_only=True)
    average: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.99, kw_only=True)
    validation: float = eqx.field(static=True, default=0.2, kw_only=True)
    round_length: int = eqx.field(static=True, default=100, kw_only=True)
    patience: int = eqx.field(static=True, default=5, kw_only=True)
    dropout: float = eqx.field(static=True, default=0.0, kw_only=True)
    gradient_noise: float = eqx.field(static=True, default=0.0, kw_only=True)
    variance_penalty: float = eqx.field(static=True, default=0.0, kw_only=True)
    halting: bool = eqx.field(static=True, default=False, kw_only=True)
    halt_margin: Float[Array, ""] = eqx.field(converter=as_scalar, default=0.0, kw_only=True)
    curriculum: Curriculum = eqx.field(default_factory=Curriculum, kw_only=True)
    num_seeds: int = eqx.field(static=True, default=1, kw_only=True)
    side_by_side: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self):
        check_counts(
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            round_length=self.round_length,
            patience=self.patience,
            num_seeds=self.num_seeds,
        )
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {OPTIMISERS}, got {self.optimiser!r}.")
        for name in ("validation", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}.")
        for name in ("gradient_noise", "variance_penalty", "warm_up"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")

    @property
    def num_rounds(self) -> int:
        """Rounds that hold `num_steps` steps; the last one may be longer than asked for."""
        return -(-self.num_steps // self.round_length)

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser."""
        return make_optimiser(
            self.optimiser,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            largest_norm=self.largest_norm,
            warm_up=self.warm_up,
            num_steps=self.num_rounds * self.round_length,
        )


class Slots(NamedTuple):
    """The batch: which example each slot holds, the state of its network, steps taken with it, its
    last loss, and whether it is done."""

    example: Int[Array, " batch"]
    state: PyTree
    taken: Int[Array, " batch"]
    loss: Float[Array, " batch"]
    done: Bool[Array, " batch"]


class Trace(NamedTuple):
    """By round, NaN where none was run: training and validation loss an entry, the norm of the
    gradients, variation of the context over the validation examples (0: all windows look alike),
    steps of supervision that an example stayed."""

    loss: Float[Array, " rounds"]
    validation: Float[Array, " rounds"]
    gradient: Float[Array, " rounds"]
    variation: Float[Array, " rounds"]
    supervision: Float[Array, " rounds"]


class TrainingState(NamedTuple):
    """Where training stands; with the same key it goes on bit for bit."""

    network: Network
    averaged: Network
    best: Network
    moments: PyTree
    slots: Slots
    step: Int[Array, ""]
    best_loss: Float[Array, ""]
    waited: Int[Array, ""]
    stopped: Bool[Array, ""]
    diverged: Bool[Array, ""]
    trace: Trace


def result_of(diverged: Bool[Array, ""]) -> RESULTS:
    """The code of a training."""
    return select(diverged, cast(RESULTS, RESULTS.diverged_training), SUCCESSFUL)


def start_training(network: Network, task: Task, training: Training) -> TrainingState:
    """The state before the first step; the first batch is drawn by that step."""
    size = training.batch_size
    index = jnp.zeros(size, jnp.int32)
    inputs, _ = jax.vmap(task.example)(index)
    dtype = jax.tree.leaves(network)[0].dtype
    zeros = jnp.zeros(size, dtype)
    slots = Slots(index, jax.vmap(network.start)(inputs), index, zeros, jnp.ones(size, dtype=bool))
    empty = jnp.full(training.num_rounds, jnp.nan, dtype)
    return TrainingState(
        network=network,
        averaged=network,
        best=network,
        moments=training.transformation().init(network),  # pyright: ignore
        slots=slots,
        step=jnp.zeros((), jnp.int32),
        best_loss=jnp.asarray(jnp.inf, dtype),
        waited=jnp.zeros((), jnp.int32),
        stopped=jnp.zeros((), bool),
        diverged=jnp.zeros((), bool),
        trace=Trace(empty, empty, empty, empty, empty),
    )
