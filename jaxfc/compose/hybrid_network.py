"""The network of a hybrid: regimes, attention over them, a recurrence, a head on their law."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.compose.hybrid_laws import LARGEST_LOG_SCALE, LARGEST_SHIFT, PredictiveLaw
from jaxfc.compose.hybrid_regimes import Predicted, RegimeAttention, TrainableRegimes
from jaxfc.recursive.network import TinyRecursiveNet
from jaxfc.regimes.masked import Rows
from jaxfc.typing import Array, Float, PRNGKeyArray

# A cell takes inputs and hidden state to the next hidden state, as `GatedCell`.
Cell = Callable[[Array, Array], Array]
# Of the square of a standardised value, so that its logarithm is bounded below.
SMALLEST_SQUARE = 0.01


class Recursion(eqx.Module):
    """The hidden state as the one token of a `TinyRecursiveNet`, answered after one refinement."""

    net: TinyRecursiveNet

    def __init__(self, width: int, *, num_inner: int = 3, num_cycles: int = 2, key: PRNGKeyArray):
        self.net = TinyRecursiveNet(
            1, width, num_inner=num_inner, num_cycles=num_cycles, mixing="none", key=key
        )

    def __call__(self, hidden: Float[Array, " hidden"]) -> Float[Array, " hidden"]:
        return self.net.refine(hidden[None], self.net.start(1)).answer[0]


class Run(NamedTuple):
    """What is known before row t, for t = 0..T: the law of the regime, the hidden state and the
    outputs; the log-likelihood terms of the chain alone and of the whole, for t = 0..T - 1."""

    log_probabilities: Float[Array, "later regimes"]
    hidden: Float[Array, "later hidden"]
    outputs: Float[Array, "later 2 *rest"]
    regime_terms: Float[Array, " time"]
    terms: Float[Array, " time"]


class HybridNetwork(eqx.Module):
    """Rows (standardised) to the predictive law of the next one.

        q_{t+1} = P' a_{t|t}                                     the chain's filter
        c_{t+1} = attention(h_t, q_{t+1})                        if there is one
        h_{t+1} = cell([x_t, ln(x_t^2 + .01), seen_t, c_{t+1}], h_t),   h_0 = 0
        y_{t+1} ~ law(q_{t+1}, bound tanh(W refine(h_{t+1})))

    W starts at zero, so that the network starts as the chain.
    """

    regimes: TrainableRegimes
    law: PredictiveLaw
    attention: RegimeAttention | None
    cell: Cell
    refine: Callable[[Array], Array] | None
    head: Float[Array, "2 *rest"]
    width: int = eqx.field(static=True)

    def __init__(
        self,
        regimes: TrainableRegimes,
        law: PredictiveLaw,
        *,
        attention_width: int,
        cell: Callable[..., Cell],
        refine: Callable[..., Callable[[Array], Array]] | None,
        width: int,
        key: PRNGKeyArray,
    ):
        num_regimes, num_series = regimes.means.shape
        keys = jax.random.split(key, 3)
        self.regimes, self.law, self.width = regimes, law, width
        self.attention = None
        if attention_width:
            self.attention = RegimeAttention(num_regimes, attention_width, width, key=keys[0])
        self.cell = cell(3 * num_series + attention_width, width, key=keys[1])
        self.refine = None if refine is None else refine(width, key=keys[2])
        shape = law.output_shape(num_regimes, num_series)
        self.head = jnp.zeros((*shape, width), regimes.means.dtype)

    def advance(
        self,
        hidden: Float[Array, " hidden"],
        log_predicted: Float[Array, " regimes"],
        row: Float[Array, " series"],
        seen: Float[Array, " series"],
    ) -> Float[Array, " hidden"]:
        """The hidden state once a row is known; `log_predicted` is the law of the regime after."""
        parts = [row, seen * jnp.log(row**2 + SMALLEST_SQUARE), seen]
        if self.attention is not None:
            parts.append(self.attention(hidden, log_predicted))
        return self.cell(jnp.concatenate(parts), hidden)

    def outputs(self, hidden: Float[Array, " hidden"]) -> Float[Array, "2 *rest"]:
        """Bounded outputs, which the law reads."""
        found = hidden if self.refine is None else self.refine(hidden)
        # One dot product for each output: the same operations wherever the row stands.
        bounded = jnp.tanh(jnp.sum(self.head * found, axis=-1))
        bounds = jnp.array([LARGEST_SHIFT, LARGEST_LOG_SCALE], bounded.dtype)
        return bounds.reshape(2, *(1,) * (bounded.ndim - 1)) * bounded

    def run(self, rows: Rows) -> Run:
        """Everything that is said of every row from the rows before it."""
        regimes: Predicted = self.regimes.predicted(rows)

        def step(hidden: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            hidden = self.advance(hidden, *given)
            return hidden, hidden

        start = jnp.zeros(self.width, rows.values.dtype)
        _, later = jax.lax.scan(
            step, start, (regimes.log_probabilities[1:], rows.values, rows.seen)
        )
        hidden = jnp.concatenate([start[None], later])
        outputs = jax.vmap(self.outputs)(hidden)
        terms = self.law.log_densities(
            self.regimes, regimes.log_probabilities[:-1], outputs[:-1], rows
        )
        return Run(regimes.log_probabilities, hidden, outputs, regimes.loglik_terms, terms)
