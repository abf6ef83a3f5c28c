"""Training that can be interrupted: its state on disk after every few rounds."""

import hashlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.counts import check_counts
from jaxfc.recursive.fitted import FittedNetwork
from jaxfc.recursive.model import NetworkModel, Prepared
from jaxfc.recursive.train import advance
from jaxfc.recursive.training import TrainingState, start_training
from jaxfc.results import throw_if_failed
from jaxfc.serialisation import PathLike, write_atomically
from jaxfc.serialisation_tree import encode
from jaxfc.trees import in_precision_of_jax
from jaxfc.typing import PRNGKeyArray

if TYPE_CHECKING:
    from jaxfc.panel import Panel

FORMAT = "jaxfc training"
FORMAT_VERSION = 1


def train_with_checkpoints(
    model: NetworkModel,
    panel: "Panel",
    path: PathLike,
    *,
    key: PRNGKeyArray,
    rounds_each: int = 1,
    max_rounds: int | None = None,
    throw: bool = True,
) -> FittedNetwork:
    """`model.fit` in parts: the state goes to `path` after every `rounds_each` rounds, and a run
    that finds the file there goes on from it, bit for bit as if it had never stopped.

    At most `max_rounds` more rounds are run (None: to the end); the answer is then that of the
    training so far. One seed; the file is a line of JSON and the arrays of the state.

    **Raises:** `ValueError` as `fit`; for several seeds; for a file that is none of this kind, is
    damaged, or belongs to another model, other data, another key or other versions.
    """
    if model.training.num_seeds != 1:
        raise ValueError("checkpoints are of one network; set num_seeds=1 and run seeds apart.")
    check_counts(rounds_each=rounds_each)
    model = in_precision_of_jax(model.resolved(panel))
    model.check(panel)
    refuse_sums(panel.aggregation, "NetworkModel")
    key = jax.random.fold_in(required_key(key, "networks start from random weights"), 0)
    values, observed = panel.arrays()
    prepared, state = begin(model, values, observed, key)
    header = header_of(model, values, observed, key)
    if Path(path).exists():
        state = read_state(path, header, state)
    done = int(state.step) // model.training.round_length
    last = model.training.num_rounds if max_rounds is None else done + max_rounds
    last = min(last, model.training.num_rounds)
    while done < last and not bool(state.stopped):
        num_rounds = min(rounds_each, last - done)
        state = go_on(model, prepared, state, key, num_rounds)
        write_state(path, header, state)
        done += num_rounds
    fitted = end(model, prepared, state)
    if throw:
        throw_if_failed(fitted.result, "train_with_checkpoints")
    return fitted


@eqx.filter_jit
def begin(model: NetworkModel, values, observed, key) -> tuple[Prepared, TrainingState]:
    """The examples and the state before the first step, from the keys that `estimate` uses."""
    prepared = model.prepare(values, observed)
    network = model.build(prepared, key=jax.random.split(key)[0])
    return prepared, start_training(network, prepared.task, model.training)


@eqx.filter_jit
def go_on(
    model: NetworkModel, prepared: Prepared, state: TrainingState, key, num_rounds: int
) -> TrainingState:
    """Some more rounds."""
    key = jax.random.split(key)[1]
    task, held_back = prepared.task, prepared.validation
    return advance(state, task, held_back, model.training, num_rounds, key=key)


@eqx.filter_jit
def end(model: NetworkModel, prepared: Prepared, state: TrainingState) -> FittedNetwork:
    """The fitted model of a training."""
    return model.finish(prepared, jax.tree.map(lambda leaf: leaf[None], state))


def header_of(model: NetworkModel, values, observed, key) -> dict[str, Any]:
    """What a file must agree with: model, data, key, versions (the key as a digest)."""
    arrays: list[Any] = []
    tree = encode(model, arrays, type(model).__name__)
    data = hashlib.sha256()
    for array in (values, observed):
        data.update(repr((array.shape, str(array.dtype))).encode())
        data.update(np.ascontiguousarray(array).tobytes())
    secret = np.asarray(jax.random.key_data(key))
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "libraries": {name: version(name) for name in ("jaxfc", "jax", "equinox", "optax")},
        "model": tree,
        "options": [np.asarray(array).tolist() for array in arrays],
        "data": data.hexdigest(),
        "key": hashlib.sha256(secret.tobytes()).hexdigest(),
    }


def write_state(path: PathLike, header: dict[str, Any], state: TrainingState) -> None:
    """The file, complete or not at all."""
    body = io.BytesIO()
    eqx.tree_serialise_leaves(body, state)
    digest = hashlib.sha256(body.getvalue()).hexdigest()
    line = json.dumps({**header, "body": digest}).encode()
    write_atomically(Path(path), line + b"\n" + body.getvalue())


def read_state(path: PathLike, header: dict[str, Any], like: TrainingState) -> TrainingState:
    """The state of a file whose header agrees with `header`."""
    line, _, body = Path(path).read_bytes().partition(b"\n")
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no checkpoint of a training.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is no checkpoint of a training.")
    expected = json.loads(json.dumps(header))
    others = [name for name in expected if found.get(name) != expected[name]]
    if others:
        raise ValueError(
            f"{str(path)!r} is the checkpoint of another training: it differs in "
            f"{', '.join(others)}. Give another path, or delete the file to start anew."
        )
    if hashlib.sha256(body).hexdigest() != found.get("body"):
        raise ValueError(f"{str(path)!r} is damaged; delete it to start anew.")
    return eqx.tree_deserialise_leaves(io.BytesIO(body), like)
