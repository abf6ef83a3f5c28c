"""Networks that forecast: an encoder of the window, a readout, and what stands between them."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.recursive.layers import Linear
from jaxfc.recursive.network import Thought, TinyRecursiveNet
from jaxfc.typing import Array, Float, PRNGKeyArray, PyTree


class Inputs(eqx.Module):
    """One window, oldest row first: `features` (zero where nothing was observed) and `gaps`, the
    time from the row before to each row."""

    features: Float[Array, "time series channels"]
    gaps: Float[Array, " time"]

    @property
    def elapsed(self) -> Float[Array, " time"]:
        """Time from each row to the last."""
        return jnp.cumsum(self.gaps[::-1])[::-1] - self.gaps


class Sizes(NamedTuple):
    """What a network is built for; `targets` are the places of the series that it forecasts."""

    window: int
    num_series: int
    num_channels: int
    horizon: int
    targets: tuple[int, ...]
    num_outputs: int

    @property
    def num_inputs(self) -> int:
        """Numbers in one row of a window."""
        return self.num_series * self.num_channels

    @property
    def outputs(self) -> tuple[int, int, int]:
        """Shape of the outputs (horizon, targets, outputs)."""
        return self.horizon, len(self.targets), self.num_outputs


class Dropout(NamedTuple):
    """Share of an encoding that is set to zero in training, and the key that says which."""

    rate: Float[Array, ""]
    key: PRNGKeyArray


class Answer(NamedTuple):
    """What one step of supervision gives: outputs for the head, the state that the next one starts
    from, the log-odds of halting, and what the outputs were read from."""

    outputs: Float[Array, "..."]
    state: PyTree
    halt_logit: Float[Array, ""]
    context: Float[Array, " width"]


class Network(eqx.Module):
    """What training asks of a network; one of a single pass has no state."""

    @property
    @abc.abstractmethod
    def num_supervision(self) -> int:
        """Steps of supervision of each example."""

    @abc.abstractmethod
    def start(self, inputs: PyTree) -> PyTree:
        """The state before the first step."""

    @abc.abstractmethod
    def refine(self, inputs: PyTree, state: PyTree, dropout: Dropout | None = None) -> Answer:
        """One step of supervision for one example."""

    def halt_logit(self, state: PyTree) -> Float[Array, ""]:
        """The log-odds of halting that the halting head gives a state."""
        return jnp.asarray(jnp.inf)

    def think(self, inputs: PyTree) -> Answer:
        """All steps of supervision, along the leading axis."""

        def step(state: PyTree, _: None) -> tuple[PyTree, Answer]:
            answer = self.refine(inputs, state)
            return answer.state, answer

        return jax.lax.scan(step, self.start(inputs), None, length=self.num_supervision)[1]

    def outputs(self, inputs: PyTree) -> Float[Array, "..."]:
        """The outputs after the last step of supervision."""

        def step(state: PyTree, _: None) -> tuple[PyTree, None]:
            return self.refine(inputs, state).state, None

        state = self.start(inputs)
        state, _ = jax.lax.scan(step, state, None, length=self.num_supervision - 1)
        return self.refine(inputs, state).outputs


class Encoder(eqx.Module):
    """A window as tokens."""

    @abc.abstractmethod
    def __call__(self, inputs: Inputs) -> Float[Array, "tokens width"]:
        """The tokens of a window."""


class Readout(eqx.Module):
    """Outputs, linear in the mean token (`joint`) or, series by series, in the token of each; all
    weights start at zero, so that an untrained network answers with the anchor."""

    linear: Linear
    shape: tuple[int, int, int] = eqx.field(static=True)
    joint: bool = eqx.field(static=True)

    def __init__(self, width: int, shape: tuple[int, int, int], *, joint: bool = True):
        horizon, num_series, num_outputs = shape
        size = horizon * num_outputs * (num_series if joint else 1)
        self.linear = Linear(width, size, bias=True, key=None)
        self.shape, self.joint = shape, joint

    def __call__(
        self, tokens: Float[Array, "tokens width"]
    ) -> Float[Array, "horizon series outputs"]:
        if self.joint:
            return self.linear(jnp.mean(tokens, axis=0)).reshape(self.shape)
        horizon, num_series, num_outputs = self.shape
        rows = self.linear(tokens).reshape(num_series, horizon, num_outputs)
        return rows.transpose(1, 0, 2)


class SinglePass(Network):
    """outputs = readout(encoder(window))."""

    encoder: Encoder
    readout: Readout

    @property
    def num_supervision(self) -> int:
        return 1

    def start(self, inputs: PyTree) -> PyTree:
        return ()

    def refine(self, inputs: PyTree, state: PyTree, dropout: Dropout | None = None) -> Answer:
        tokens = dropped(self.encoder(inputs), dropout)
        halt = jnp.asarray(jnp.inf, tokens.dtype)
        return Answer(self.readout(tokens), (), halt, jnp.mean(tokens, axis=0))


class Recursive(Network):
    """The encoding as x of a `TinyRecursiveNet`, outputs read from y."""

    encoder: Encoder
    core: TinyRecursiveNet
    readout: Readout
    num_steps: int = eqx.field(static=True)

    @property
    def num_supervision(self) -> int:
        return self.num_steps

    def start(self, inputs: PyTree) -> Thought:
        tokens = jax.eval_shape(self.encoder, inputs)
        return self.core.start(tokens.shape[0])

    def refine(self, inputs: PyTree, state: Thought, dropout: Dropout | None = None) -> Answer:
        thought = self.core.refine(dropped(self.encoder(inputs), dropout), state)
        halt = self.core.halt_logit(thought.answer)
        outputs, context = self.readout(thought.answer), jnp.mean(thought.answer, axis=0)
        return Answer(outputs, jax.lax.stop_gradient(thought), halt, context)

    def halt_logit(self, state: Thought) -> Float[Array, ""]:
        return self.core.halt_logit(state.answer)


class Ensemble(Network):
    """Networks of one kind from several starts, along the leading axis of every array: the mean of
    their outputs, so that the law stays in its family."""

    members: Network

    @property
    def num_supervision(self) -> int:
        return self.members.num_supervision

    def start(self, inputs: PyTree) -> PyTree:
        return jax.vmap(lambda member: member.start(inputs))(self.members)

    def refine(self, inputs: PyTree, state: PyTree, dropout: Dropout | None = None) -> Answer:
        def one(member: Network, state: PyTree) -> Answer:
            return member.refine(inputs, state, dropout)

        answers = jax.vmap(one)(self.members, state)
        averages = (jnp.mean(part, axis=0) for part in (answers.outputs, answers.halt_logit))
        outputs, halt = averages
        return Answer(outputs, answers.state, halt, jnp.mean(answers.context, axis=0))


def dropped(
    tokens: Float[Array, "tokens width"], dropout: Dropout | None
) -> Float[Array, "tokens width"]:
    """Entries zero at the rate of `dropout`, the others scaled up (Srivastava et al. 2014)."""
    if dropout is None:
        return tokens
    kept = jax.random.uniform(dropout.key, tokens.shape, tokens.dtype) >= dropout.rate
    return jnp.where(kept, tokens / (1.0 - dropout.rate), 0.0)
