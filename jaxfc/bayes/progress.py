"""Sampling with a bar on the terminal: how far it is, how often it moves, how long it will take.

Nothing is called back from compiled programs. The host runs a block of transitions after the other,
and looks on in between; the draws are those of the one program that `sample` and `fit` compile.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.bayes.blockwise import BlockwiseInference, Trace
from jaxfc.bayes.draws import Inference, PosteriorDraws
from jaxfc.bayes.program import Program
from jaxfc.model import Fitted, Model
from jaxfc.results import throw_if_failed
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import Array, Int, PRNGKeyArray, PyTree
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

FEWEST_BLOCKS, MOST_BLOCKS = 20, 100
Tell = Callable[[int, Trace], None]


def sample_with_progress(
    program: Program, inference: Inference, *, key: PRNGKeyArray, shown: bool | None = None
) -> PosteriorDraws:
    """`inference.sample(program, key=key)`, number by number, with a bar on stderr (host side).

    The bar gives the phase, the transitions done, the share of the last ones that led elsewhere,
    the divergences after the warm-up and the time left. Memory is less than that of `sample`, which
    keeps the positions of the warm-up until it ends.

    **Arguments:** `inference`: `PooledHMC` or `NUTS`; `shown` None: if stderr is a terminal.

    **Raises:** `ValueError` for an inference that does not move in transitions.
    """
    if not isinstance(inference, BlockwiseInference):
        raise ValueError(
            f"{type(inference).__name__} has no transitions to follow; take PooledHMC() or NUTS(), "
            "or sample without a bar."
        )
    state = begun(inference, program, key)
    kept = []
    with followed(inference, shown) as tell:
        for numbers in blocks(inference.num_steps):
            state, trace = advanced(inference, program, state, jnp.asarray(numbers))
            early = int(np.sum(numbers < inference.num_warmup))
            tell(len(numbers), trace)
            if early < len(numbers):
                kept.append(jax.tree.map(lambda x, early=early: x[:, early:], trace))
    trace = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *kept)
    return concluded(inference, program, state, trace)


def fit_with_progress(
    model: Model,
    panel: "Panel",
    *,
    key: PRNGKeyArray,
    throw: bool = True,
    shown: bool | None = None,
) -> Fitted:
    """`model.fit(panel, key=key)` of a Bayesian model, with a bar on stderr (host side).

    Arguments and errors as of `Model.fit` and `sample_with_progress`.
    """
    inference = getattr(model, "inference", None)
    if not isinstance(inference, Inference):
        raise ValueError(
            f"{type(model).__name__} does not draw from a posterior: it has no `inference`; use "
            "fit."
        )
    model = in_precision_of_jax(model.resolved(panel))
    model.check(panel)
    data = *panel.arrays(), panel.aggregation
    program, own_key = question(model, data, key)
    draws = sample_with_progress(program, inference, key=own_key, shown=shown)
    fitted = answer(model, data, key, draws)
    if throw:
        throw_if_failed(fitted.result, f"{type(model).__name__}.fit")
    return fitted


def blocks(num_steps: int) -> list[np.ndarray]:
    """The numbers of all transitions, cut into blocks of one length, which compile once.

    If no length divides them into 20 to 100 blocks, the last of 20 is shorter than the others.
    """
    lengths = range(-(-num_steps // MOST_BLOCKS), num_steps // FEWEST_BLOCKS + 1)
    fitting = [length for length in lengths if num_steps % length == 0]
    length = fitting[-1] if fitting else -(-num_steps // FEWEST_BLOCKS)
    numbers = np.arange(num_steps)
    return [numbers[first : first + length] for first in range(0, num_steps, length)]


@contextlib.contextmanager
def followed(inference: BlockwiseInference, shown: bool | None) -> Iterator[Tell]:
    """A function to be told of every block: how many transitions it had, and what they left."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda number, trace: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    name, divergent, done = type(inference).__name__, 0, 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{name} compiles", total=inference.num_steps, said="")

        def tell(number: int, trace: Trace) -> None:
            nonlocal divergent, done
            numbers = done + np.arange(number)
            done += number
            kept = numbers >= inference.num_warmup
            divergent += int(np.asarray(trace.divergent)[:, kept].sum())
            phase = "draws" if done >= inference.num_warmup else "warms up"
            said = f"{np.mean(trace.moved):.0%} moved, {divergent} divergent"
            progress.update(task, description=f"{name} {phase}", advance=number, said=said)

        yield tell


@eqx.filter_jit
def begun(inference: BlockwiseInference, program: Program, key: PRNGKeyArray) -> PyTree:
    """The state before the first transition."""
    return inference.begun(program, key=key)


@eqx.filter_jit
def advanced(
    inference: BlockwiseInference, program: Program, state: PyTree, numbers: Int[Array, " steps"]
) -> tuple[PyTree, Trace]:
    """One block of transitions."""
    return inference.advanced(program, state, numbers)


@eqx.filter_jit
def concluded(
    inference: BlockwiseInference, program: Program, state: PyTree, trace: Trace
) -> PosteriorDraws:
    """The draws of all blocks."""
    return inference.concluded(program, state, trace)


class Asked(Exception):
    """What a model wanted to have sampled."""

    def __init__(self, program: Program, key: PRNGKeyArray):
        super().__init__("a program is to be sampled")
        self.question = program, key


@final
class Asking(Inference):
    """Stops an estimation where it samples."""

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        raise Asked(program, key)


@final
class Given(Inference):
    """Draws that are there already."""

    draws: PosteriorDraws

    def sample(self, program: Program, *, key: PRNGKeyArray) -> PosteriorDraws:
        return self.draws


Data = tuple[Array, Array, AggregationRows | None]


@eqx.filter_jit
def question(model: Model, data: Data, key: PRNGKeyArray) -> tuple[Program, PRNGKeyArray]:
    """The program that `model.estimate` samples from, and its key."""
    try:
        estimated(model, Asking(), data, key)
    except Asked as asked:
        return asked.question
    raise ValueError(f"{type(model).__name__} has an `inference` and does not use it.")


@eqx.filter_jit
def answer(model: Model, data: Data, key: PRNGKeyArray, draws: PosteriorDraws) -> Fitted:
    """`model.estimate` with draws that are there already."""

    def is_given(node: PyTree) -> bool:
        return isinstance(node, Given)

    fitted = estimated(model, Given(draws), data, key)
    own = model.inference  # pyright: ignore[reportAttributeAccessIssue]
    return jax.tree.map(lambda x: own if is_given(x) else x, fitted, is_leaf=is_given)


def estimated(model: Model, inference: Inference, data: Data, key: PRNGKeyArray) -> Fitted:
    """`model.estimate` by another inference."""
    values, observed, aggregation = data
    own = eqx.tree_at(lambda m: m.inference, model, inference)
    return own.estimate(values, observed, aggregation=aggregation, key=key)
