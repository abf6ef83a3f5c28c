"""The training loop: one scan of steps in rounds, early stopping, the last good weights kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxfc.batching import map_in_batches
from jaxfc.recursive.nets import Answer, Dropout, Network
from jaxfc.recursive.optimiser import global_norm, moved_average, with_noise
from jaxfc.recursive.training import (
    Slots,
    Task,
    Trace,
    Training,
    TrainingState,
    start_training,
)
from jaxfc.trees import all_finite, chosen
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, PyTree

# Examples evaluated side by side.
EVALUATION_BATCH = 512
# Weight of the halting head's cross-entropy, and share of examples that stay for a random time.
HALTING_WEIGHT = 0.5
EXPLORATION = 0.1


class StepResult(NamedTuple):
    """What one step reports: loss an entry, norm of the gradients, steps that examples stayed."""

    loss: Float[Array, ""]
    gradient: Float[Array, ""]
    supervision: Float[Array, ""]


class Batch(NamedTuple):
    """Inputs, what answers are compared with, and the slots they stand in."""

    inputs: PyTree
    truth: PyTree
    slots: Slots
    fresh: Bool[Array, " batch"]


def train(network: Network, task: Task, validation: Task | None, training: Training, *, key):
    """All rounds of training from the start, pure."""
    state = start_training(network, task, training)
    return advance(state, task, validation, training, training.num_rounds, key=key)


def advance(
    state: TrainingState,
    task: Task,
    validation: Task | None,
    training: Training,
    num_rounds: int,
    *,
    key: PRNGKeyArray,
) -> TrainingState:
    """`num_rounds` more rounds; those after training has stopped cost nothing (except in a batch).

    The key of step i is `fold_in(key, i)`, so that training in parts is training at once.
    """

    def one(state: TrainingState, _: None) -> tuple[TrainingState, None]:
        def go_on(state: TrainingState) -> TrainingState:
            return train_round(state, task, validation, training, key=key)

        return jax.lax.cond(state.stopped, lambda state: state, go_on, state), None

    return jax.lax.scan(one, state, None, length=num_rounds)[0]


def train_round(
    state: TrainingState,
    task: Task,
    validation: Task | None,
    training: Training,
    *,
    key: PRNGKeyArray,
) -> TrainingState:
    """`round_length` steps and an evaluation of the averaged weights."""

    def one(state: TrainingState, _: None) -> tuple[TrainingState, StepResult]:
        return train_step(state, task, training, key=jax.random.fold_in(key, state.step))

    number = state.step // training.round_length
    state, results = jax.lax.scan(one, state, None, length=training.round_length)
    loss = jnp.mean(results.loss)
    if validation is None:
        # The last averaged weights are the best ones.
        validation_loss, variation = jnp.full_like(loss, jnp.nan), jnp.full_like(loss, jnp.nan)
        improved = all_finite(state.averaged) & jnp.isfinite(loss)
    else:
        validation_loss, variation = evaluate(state.averaged, validation)
        improved = validation_loss < state.best_loss
    finite = jnp.isfinite(loss) & all_finite(state.averaged)
    improved = improved & finite
    waited = jnp.where(improved, 0, state.waited + 1)
    values = Trace(
        loss,
        validation_loss,
        jnp.mean(results.gradient),
        variation,
        jnp.mean(results.supervision),
    )
    return state._replace(
        best=chosen(improved, state.averaged, state.best),
        best_loss=jnp.where(improved, validation_loss, state.best_loss),
        waited=waited,
        stopped=(waited >= training.patience) | ~finite,
        diverged=~finite,
        trace=jax.tree.map(lambda path, value: path.at[number].set(value), state.trace, values),
    )


def train_step(
    state: TrainingState, task: Task, training: Training, *, key: PRNGKeyArray
) -> tuple[TrainingState, StepResult]:
    """One step of the optimiser: every slot refines its answer once."""
    batch_key, drop_key, noise_key, halt_key = jax.random.split(key, 4)
    batch = next_batch(state, task, training, key=batch_key)

    def objective(network: Network) -> tuple[Array, tuple[Array, Array, Answer]]:
        answers = refine_all(network, batch, training, key=drop_key)
        scores = jax.vmap(lambda outputs, truth: task.score(outputs, truth, state.step))(
            answers.outputs, batch.truth
        )
        each = scores.loss / jnp.maximum(scores.num_entries, 1.0)
        loss = jnp.sum(scores.loss) / jnp.maximum(jnp.sum(scores.num_entries), 1.0)
        total = loss + training.variance_penalty * jnp.var(each)
        if training.halting and network.num_supervision > 1:
            total = total + halting_loss(network, batch, answers, each, scores.solved, training)
        return total, (loss, each, answers)

    (_, (loss, each, answers)), grads = jax.value_and_grad(objective, has_aux=True)(state.network)
    norm = global_norm(grads)
    if training.gradient_noise > 0:
        size = jnp.asarray(training.gradient_noise, norm.dtype)
        grads = with_noise(grads, size, state.step, key=noise_key)
    updates, moments = training.transformation().update(grads, state.moments, state.network)  # pyright: ignore
    network = optax.apply_updates(state.network, updates)  # pyright: ignore
    taken = batch.slots.taken + 1
    slots = Slots(
        example=batch.slots.example,
        state=answers.state,
        taken=taken,
        loss=each,
        done=finished(taken, answers.halt_logit, state.network, training, key=halt_key),
    )
    moved = state._replace(
        network=network,
        averaged=moved_average(state.averaged, network, training.average),
        moments=moments,
        slots=slots,
        step=state.step + 1,
    )
    return moved, StepResult(loss, norm, jnp.mean(taken.astype(loss.dtype)))


def next_batch(state: TrainingState, task: Task, training: Training, *, key: PRNGKeyArray) -> Batch:
    """The slots, those that are done with a new example and a network state from its start."""
    draw_key, key = jax.random.split(key)
    slots, fresh = state.slots, state.slots.done
    drawn = task.draw(training.batch_size, state.step, key=draw_key)
    index = jnp.where(fresh, drawn.astype(slots.example.dtype), slots.example)
    inputs, truth = jax.vmap(task.example)(index)
    keys = jax.random.split(key, training.batch_size)
    inputs = jax.vmap(lambda one, key: task.disturb(one, state.step, key=key))(inputs, keys)
    first = jax.vmap(state.network.start)(inputs)
    return Batch(
        inputs,
        truth,
        Slots(
            example=index,
            state=chosen(fresh, first, slots.state),
            taken=jnp.where(fresh, 0, slots.taken),
            loss=slots.loss,
            done=fresh,
        ),
        fresh,
    )


def refine_all(network: Network, batch: Batch, training: Training, *, key: PRNGKeyArray) -> Answer:
    """One step of supervision in every slot."""
    if training.dropout == 0:
        return jax.vmap(network.refine)(batch.inputs, batch.slots.state)

    def one(inputs: PyTree, state: PyTree, key: PRNGKeyArray) -> Answer:
        rate = jnp.asarray(training.dropout, jnp.result_type(float))
        return network.refine(inputs, state, Dropout(rate, key))

    keys = jax.random.split(key, training.batch_size)
    return jax.vmap(one)(batch.inputs, batch.slots.state, keys)


def halting_loss(
    network: Network,
    batch: Batch,
    answers: Answer,
    each: Float[Array, " batch"],
    solved: Bool[Array, " batch"] | None,
    training: Training,
) -> Float[Array, ""]:
    """Cross-entropy of the halting head, times its weight.

    Where answers can be exactly right the target is whether this one is. Else it is, for the answer
    before this step, whether this step lowered the loss by no more than the margin: known now
    without another pass, and the head is linear in the state that was carried.
    """
    if solved is not None:
        terms = cross_entropy(answers.halt_logit, solved)
        return HALTING_WEIGHT * jnp.mean(terms)
    logits = jax.vmap(network.halt_logit)(batch.slots.state)
    useless = jax.lax.stop_gradient(batch.slots.loss - each <= training.halt_margin)
    terms = jnp.where(batch.fresh, 0.0, cross_entropy(logits, useless))
    return HALTING_WEIGHT * jnp.sum(terms) / jnp.maximum(jnp.sum(~batch.fresh), 1)


def cross_entropy(logits: Float[Array, " batch"], target: Bool[Array, " batch"]) -> Array:
    """-log P(target) of log-odds."""
    return jax.nn.softplus(jnp.where(target, -logits, logits))


def finished(
    taken: Int[Array, " batch"],
    logits: Float[Array, " batch"],
    network: Network,
    training: Training,
    *,
    key: PRNGKeyArray,
) -> Bool[Array, " batch"]:
    """Which examples leave: after all steps of supervision, or earlier by the halting head."""
    most = network.num_supervision
    if not training.halting or most == 1:
        return taken >= most
    which_key, key = jax.random.split(key)
    explores = jax.random.uniform(which_key, taken.shape) < EXPLORATION
    fewest = jnp.where(explores, jax.random.randint(key, taken.shape, 2, most + 1), 0)
    return (taken >= most) | ((logits > 0) & (taken >= fewest))


def evaluate(network: Network, task: Task) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Loss an entry over all examples, and how much the context varies between them: its variance
    over its mean square, 0 for a network that gives all windows the same answer."""
    losses, counts, contexts = map_in_batches(
        lambda index: last_scores(network, task, index),
        jnp.arange(task.num_examples),
        EVALUATION_BATCH,
    )
    square = jnp.sum(jnp.mean(contexts**2, axis=0))
    variation = jnp.sum(jnp.var(contexts, axis=0)) / jnp.where(square > 0, square, 1.0)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1.0), variation


def last_scores(network: Network, task: Task, index: Array) -> tuple[Array, Array, Array]:
    """Loss, count and context of one example after the last step of supervision."""
    inputs, truth = task.example(index)
    answers = network.think(inputs)
    score = task.score(answers.outputs[-1], truth, None)
    return score.loss, score.num_entries, answers.context[-1]


def thinking_curve(network: Network, task: Task) -> Float[Array, " supervision"]:
    """Loss an entry after each step of supervision: does thinking help?"""

    def one(index: Array) -> tuple[Array, Array]:
        inputs, truth = task.example(index)
        outputs = network.think(inputs).outputs
        scores = jax.vmap(lambda outputs: task.score(outputs, truth, None))(outputs)
        return scores.loss, scores.num_entries

    losses, counts = map_in_batches(one, jnp.arange(task.num_examples), EVALUATION_BATCH)
    return jnp.sum(losses, axis=0) / jnp.maximum(jnp.sum(counts, axis=0), 1.0)
