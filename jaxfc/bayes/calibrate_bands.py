"""Bands within which the ranks of a right posterior stay, all at once.

Of n ranks uniform on 0..L, the number c_k of those not above k is binomial with share
z_k = (k + 1)/(L + 1). The statistic of a whole sample is its most improbable count,

    gamma = 2 min_k min(P(C_k <= c_k), P(C_k >= c_k)),

and its law under uniformity is simulated. Counts that are pointwise inside their binomial interval
of tail probability gamma*/2 each side, gamma* the quantile of that law at 1 - level, stay inside
all at once with probability `level`.

Source: Säilynoja, Bürkner and Vehtari (2022), Statistics and Computing 32, section 3.1.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from jaxfc.batching import map_in_batches
from jaxfc.typing import Array, Float, Int, PRNGKeyArray

# Samples that are simulated together.
NUM_TOGETHER = 256


def rank_counts(ranks: Int[Array, " cases"], num_ranks: int) -> Int[Array, " ranks"]:
    """How many ranks are 0, at most 1, ..., at most num_ranks - 1."""
    return jnp.cumsum(jnp.bincount(ranks, length=num_ranks + 1))[:-1]


def rank_shares(num_ranks: int) -> Float[Array, " ranks"]:
    """Probabilities of a rank of at most 0, 1, ..., num_ranks - 1."""
    return jnp.arange(1, num_ranks + 1) / (num_ranks + 1.0)


def tail_table(num_cases: int, num_ranks: int) -> Float[Array, "counts ranks"]:
    """2 min(P(C_k <= c), P(C_k >= c)) for all counts c = 0..num_cases and ranks k."""
    count = jnp.arange(num_cases + 1.0)[:, None]
    shares = rank_shares(num_ranks)
    choices = gammaln(num_cases + 1.0) - gammaln(count + 1.0) - gammaln(num_cases - count + 1.0)
    log_mass = choices + count * jnp.log(shares) + (num_cases - count) * jnp.log1p(-shares)
    mass = jnp.exp(log_mass)
    below = jnp.cumsum(mass, axis=0)
    above = jnp.cumsum(mass[::-1], axis=0)[::-1]
    return 2.0 * jnp.minimum(below, above)


def band_statistic(
    counts: Int[Array, " ranks"], tails: Float[Array, "counts ranks"]
) -> Float[Array, ""]:
    """gamma: twice the probability of the most improbable count."""
    return jnp.min(tails[counts, jnp.arange(counts.shape[0])])


@partial(jax.jit, static_argnums=(0, 1, 2))
def simulated_statistics(
    num_cases: int, num_ranks: int, num_simulations: int, key: PRNGKeyArray
) -> Float[Array, " simulations"]:
    """Draws of gamma under uniform ranks."""
    tails = tail_table(num_cases, num_ranks)

    def one(key: PRNGKeyArray) -> Array:
        ranks = jax.random.randint(key, (num_cases,), 0, num_ranks + 1)
        return band_statistic(rank_counts(ranks, num_ranks), tails)

    keys = jax.random.split(key, num_simulations)
    return map_in_batches(one, keys, NUM_TOGETHER)


def count_band(
    statistics: Float[Array, " simulations"], num_cases: int, num_ranks: int, level: float
) -> tuple[Int[Array, " ranks"], Int[Array, " ranks"]]:
    """The least and the largest counts c_k that are inside, for all k at once."""
    inside = tail_table(num_cases, num_ranks) >= jnp.quantile(statistics, 1.0 - level)
    return jnp.argmax(inside, axis=0), num_cases - jnp.argmax(inside[::-1], axis=0)
