"""Training of a hybrid by the likelihood of its one-step predictions."""

from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from jaxfc.compose.hybrid_network import HybridNetwork
from jaxfc.regimes.masked import Rows
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.trees import chosen
from jaxfc.typing import Array, Float, Int, PyTree

LARGEST_GRADIENT = 1.0


class Trained(NamedTuple):
    """The best network met, and after how many steps; mean losses before the first and after each
    step, in nats per observed entry: of the rows that train, and of those held out (NaN without
    any)."""

    network: HybridNetwork
    num_steps: Int[Array, ""]
    path: Float[Array, " steps"]
    held_out_path: Float[Array, " steps"]
    result: RESULTS


def train(
    network: HybridNetwork,
    rows: Rows,
    held_out: Float[Array, " time"],
    *,
    learning_rate: Float[Array, ""],
    num_steps: int,
    joint: bool,
) -> Trained:
    """Adam on minus the log-likelihood of the rows before those `held_out` (1.0 or 0.0 by row).

    Every step runs over all rows once, which gives both losses: the network kept is that of the
    smallest loss on the rows held out (or on all if none is), the untrained one included. With
    `joint` the parameters of the chain are trained too, else they stay as they are. A loss that is
    no number ends in the result `diverged`, with the best network before it.
    """
    where = eqx.tree_at(
        lambda net: net.regimes,
        jax.tree.map(eqx.is_inexact_array, network),
        chain_filter(network, joint),
    )
    trained, fixed = eqx.partition(network, where)
    # The bound keeps one extreme row from throwing the parameters away.
    optimiser = optax.chain(optax.clip_by_global_norm(LARGEST_GRADIENT), optax.adam(learning_rate))

    def losses(trained: PyTree) -> tuple[Array, Array]:
        terms = eqx.combine(trained, fixed).run(rows).terms
        before = mean_loss(terms, rows.counts, 1.0 - held_out)
        return before, mean_loss(terms, rows.counts, held_out)

    def step(state: tuple[PyTree, PyTree, Best], number: Array):
        trained, memory, best = state
        (loss, held), slopes = jax.value_and_grad(losses, has_aux=True)(trained)
        score = jnp.where(some_held_out, held, loss)
        # NaN is never better.
        better = (score < best.score) & jnp.isfinite(loss)
        best = chosen(better, Best(trained, score, number), best)
        change, memory = optimiser.update(slopes, memory, trained)
        return (optax.apply_updates(trained, change), memory, best), (loss, held)

    some_held_out = jnp.sum(held_out * rows.counts) > 0.0
    infinite = jnp.asarray(jnp.inf, rows.values.dtype)
    start = trained, optimiser.init(trained), Best(trained, infinite, jnp.asarray(0))
    (_, _, best), paths = jax.lax.scan(step, start, jnp.arange(num_steps + 1))
    finite = jnp.all(jnp.isfinite(paths[0]))
    return Trained(
        network=eqx.combine(best.trained, fixed),
        num_steps=best.step,
        path=paths[0],
        held_out_path=paths[1],
        result=select(finite, SUCCESSFUL, cast(RESULTS, RESULTS.diverged_training)),
    )


class Best(NamedTuple):
    """The parameters of the smallest loss so far."""

    trained: PyTree
    score: Float[Array, ""]
    step: Int[Array, ""]


def chain_filter(network: HybridNetwork, joint: bool) -> PyTree:
    """Which arrays of the chain are trained: all of a joint training but the tails, or none."""
    none = jax.tree.map(lambda _: False, network.regimes)
    if not joint:
        return none
    chain = lambda regimes: (  # noqa: E731
        regimes.initial_logits,
        regimes.transition_logits,
        regimes.means,
        regimes.roots,
    )
    return eqx.tree_at(chain, none, (True,) * 4)


def mean_loss(
    terms: Float[Array, " time"], counts: Float[Array, " time"], weights: Float[Array, " time"]
) -> Float[Array, ""]:
    """Minus the weighted sum over the number of observed entries, NaN without any."""
    return -jnp.sum(jnp.where(weights > 0.0, terms, 0.0)) / jnp.sum(weights * counts)
