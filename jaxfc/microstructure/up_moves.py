"""Which way the mid price moves next, from the queues at the best prices, by one linear solve."""

import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.microstructure.simulate_rates import OrderFlow
from jaxfc.typing import Array, Float

# Queues are cut here; those of known order flows hardly ever get that long.
LONGEST_QUEUE = 60


def up_move_probabilities(
    flow: OrderFlow, *, spread: int = 1, num_queues: int = 5, longest: int = LONGEST_QUEUE
) -> Float[Array, "bids asks"]:
    """Probabilities that the next mid price move is up, for queues of 1 .. `num_queues` orders.

    At a spread of S ticks the two best queues are independent birth-death chains: births at
    lambda(S), deaths at mu + theta(S) q. The mid moves up when the ask queue empties or a buy order
    comes inside the spread, at rate L = sum_{i < S} lambda(i). With Q the generator of a queue on
    1 .. `longest`, killed at zero, the probabilities P solve

        Q P + P Q' - 2 L P = -(L + mu_1 [a = 1]),  mu_1 = mu + theta(S).

    Q is similar to a symmetric matrix, whose eigenvectors solve the system in O(longest^3).

    **Raises:** `ValueError` for a spread at which the flow has no rates, and for fewer states than
    queues asked for.

    Source: Cont, Stoikov and Talreja (2010), propositions 2 and 3, who invert Laplace transforms.
    """
    check_counts(spread=spread, num_queues=num_queues)
    if spread > flow.num_distances:
        raise ValueError(
            f"spread={spread}, but the order flow has rates for distances up to "
            f"{flow.num_distances}; give it more of them."
        )
    if longest < num_queues:
        raise ValueError(f"longest={longest} must be at least num_queues={num_queues}.")
    birth = flow.limit[spread - 1]
    inside = jnp.sum(flow.limit[: spread - 1])
    death = flow.market + flow.cancel[spread - 1] * jnp.arange(1, longest + 1)
    # sqrt(birth * death) beside the diagonal: similar to Q by the root of the stationary weights.
    beside = jnp.sqrt(birth * death[1:])
    leaving = -(death + birth * (jnp.arange(longest) < longest - 1))
    symmetric = jnp.diag(leaving) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    values, vectors = jnp.linalg.eigh(symmetric)
    steps = 0.5 * (jnp.log(birth) - jnp.log(death[1:]))
    root = jnp.exp(jnp.concatenate([jnp.zeros(1, death.dtype), jnp.cumsum(steps)]))
    gains = jnp.zeros((longest, longest), death.dtype).at[:, 0].set(death[0]) + inside
    turned = vectors.T @ (root[:, None] * gains * root) @ vectors
    solved = turned / (2.0 * inside - values[:, None] - values)
    table = vectors[:num_queues] @ solved @ vectors[:num_queues].T
    return table / (root[:num_queues, None] * root[:num_queues])
