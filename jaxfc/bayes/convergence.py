"""Whether chains agree and how many independent draws they are worth.

Rank-normalised split R-hat, bulk and tail effective sample size after Vehtari, Gelman, Simpson,
Carpenter and Bürkner (2021, Bayesian Analysis 16), with the conventions of ArviZ, whose numbers
they equal (where ArviZ refuses a single chain, its halves are compared). Everything is a pure
function of arrays (chains, draws, ...), one number per quantity; what is not finite in any draw
has the diagnostic NaN.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jaxfc.batching import map_in_batches
from jaxfc.typing import Array, Float

NUM_TOGETHER = 256
"""Quantities that are looked at together: memory is that many copies of the draws of one."""
FEWEST_DRAWS = 4
TAIL = 0.05


def split_rhat(draws: Float[Array, "chains draws *shape"]) -> Float[Array, "*shape"]:
    """How much wider the law of all chains is than that of one: 1 where they agree.

        R-hat = max over z of sqrt((B/W + n - 1)/n),   z = normal scores of the draws, and of
                                                           their distances from the median

    B and W are the variances between and within half chains of length n. NaN for a constant.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    return each_quantity(lambda one: jnp.fmax(*rhats(one)), draws)


def bulk_ess(draws: Float[Array, "chains draws *shape"]) -> Float[Array, "*shape"]:
    """Effective sample size of the normal scores of half chains, for the centre of the law.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    return each_quantity(lambda one: effective_size(normal_scores(half_chains(one))), draws)


def tail_ess(draws: Float[Array, "chains draws *shape"]) -> Float[Array, "*shape"]:
    """The smaller of the effective sample sizes of the 5% and the 95% quantile.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    return each_quantity(ess_of_tails, draws)


def mean_ess(draws: Float[Array, "chains draws *shape"]) -> Float[Array, "*shape"]:
    """Effective sample size for the mean: that of half chains without normal scores.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    return each_quantity(lambda one: effective_size(half_chains(one)), draws)


def monte_carlo_error(draws: Float[Array, "chains draws *shape"]) -> Float[Array, "*shape"]:
    """Standard error of the mean of all draws, their sd over the root of their `mean_ess`.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """
    return jnp.std(draws, axis=(0, 1), ddof=1) / jnp.sqrt(mean_ess(draws))


def convergence(
    draws: Float[Array, "chains draws *shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """`split_rhat`, `bulk_ess` and `tail_ess` in one pass over the quantities.

    **Raises:** `ValueError` if there are fewer than four draws a chain.
    """

    def one(draws: Array) -> Array:
        centre, spread = rhats(draws)
        bulk = effective_size(normal_scores(half_chains(draws)))
        return jnp.stack([jnp.fmax(centre, spread), bulk, ess_of_tails(draws)])

    found = each_quantity(one, draws)
    return found[..., 0], found[..., 1], found[..., 2]


def energy_bfmi(energy: Float[Array, "chains draws"]) -> Float[Array, " chains"]:
    """By chain, how much of the variation of the energy one new momentum brings about.

        E-BFMI = sum (E_t - E_{t-1})² / (n - 1) / var E

    Below 0.3 the tails of the posterior are hardly visited (Betancourt 2016).
    """
    steps = jnp.mean(jnp.diff(energy, axis=1) ** 2, axis=1)
    return steps / jnp.var(energy, axis=1, ddof=1)


def each_quantity(
    function: Callable[[Array], Array], draws: Float[Array, "chains draws *shape"]
) -> Array:
    """`function` of the (chains, draws) array of every quantity, in memory-sized batches."""
    num_chains, num_draws, *shape = draws.shape
    if num_draws < FEWEST_DRAWS:
        raise ValueError(
            f"diagnostics need at least {FEWEST_DRAWS} draws a chain, got {num_draws}: draw more."
        )
    flat = jnp.moveaxis(draws.reshape(num_chains, num_draws, -1), -1, 0)
    if flat.shape[0] == 0:
        one = jax.ShapeDtypeStruct((num_chains, num_draws), draws.dtype)
        return jnp.zeros((*shape, *jax.eval_shape(function, one).shape), draws.dtype)

    def finite_or_nan(one: Array) -> Array:
        return jnp.where(jnp.all(jnp.isfinite(one)), function(one), jnp.nan)

    found = map_in_batches(finite_or_nan, flat, NUM_TOGETHER)
    return found.reshape(*shape, *found.shape[1:])


def half_chains(draws: Float[Array, "chains draws"]) -> Float[Array, "halves half_draws"]:
    """Each chain as two: a drift is then a difference between chains. An odd middle is dropped."""
    half = draws.shape[1] // 2
    return jnp.concatenate([draws[:, :half], draws[:, draws.shape[1] - half :]])


def normal_scores(draws: Float[Array, "chains draws"]) -> Float[Array, "chains draws"]:
    """Normal quantiles at (rank - 3/8)/(n + 1/4) of all draws together; ties share their rank."""
    flat = draws.ravel()
    order = jnp.argsort(flat)
    ordered, places = flat[order], jnp.arange(flat.size)
    differ = ordered[1:] != ordered[:-1]
    first = jax.lax.cummax(jnp.where(jnp.append(True, differ), places, 0))
    last = jax.lax.cummin(jnp.where(jnp.append(differ, True), places, flat.size), reverse=True)
    ranks = 1 + (first + last).astype(draws.dtype) / 2
    scores = ndtri((ranks - 0.375) / (flat.size + 0.25))
    return jnp.zeros_like(flat).at[order].set(scores).reshape(draws.shape)


def rhats(draws: Float[Array, "chains draws"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """R-hat of the centre and of the spread of the law."""
    halves = half_chains(draws)
    folded = jnp.abs(halves - jnp.median(halves))
    return rhat(normal_scores(halves)), rhat(normal_scores(folded))


def rhat(chains: Float[Array, "chains draws"]) -> Float[Array, ""]:
    """Root of the pooled variance over that within chains, NaN of a constant."""
    num_draws = chains.shape[1]
    within = jnp.mean(jnp.var(chains, axis=1, ddof=1))
    between = num_draws * jnp.var(jnp.mean(chains, axis=1), ddof=1)
    # Of a constant, both variances are rounding errors.
    varies = jnp.max(chains) > jnp.min(chains)
    return jnp.where(varies, jnp.sqrt((between / within + num_draws - 1) / num_draws), jnp.nan)


def ess_of_tails(draws: Float[Array, "chains draws"]) -> Float[Array, ""]:
    """The smaller effective size of the events that a draw is below either quantile."""

    def of_event(level: float) -> Array:
        below = draws <= jnp.quantile(draws, level)
        return effective_size(half_chains(below.astype(draws.dtype)))

    return jnp.minimum(of_event(TAIL), of_event(1 - TAIL))


def effective_size(chains: Float[Array, "chains draws"]) -> Float[Array, ""]:
    """How many independent draws have a mean as exact as that of these; all if constant.

        ESS = mn / tau,   tau = -1 + 2 sum of autocorrelations, at least 1/log10(mn)

    The autocorrelations, of m chains of n draws combined, enter by neighbouring pairs as long as
    these are positive, each at most as large as the one before (Geyer 1992's initial monotone
    sequence), and the even lag after the last pair if positive.
    """
    num_chains, num_draws = chains.shape
    autocovs = jnp.mean(autocovariances(chains), axis=0)
    within = autocovs[0] * num_draws / (num_draws - 1)
    total = autocovs[0]
    if num_chains > 1:
        total = total + jnp.var(jnp.mean(chains, axis=1), ddof=1)
    corrs = (1 - (within - autocovs) / total).at[0].set(1)
    num_pairs = max(1, (num_draws - 1) // 2)
    even, odd = corrs[0 : 2 * num_pairs : 2], corrs[1 : 2 * num_pairs : 2]
    pairs = even + odd
    ended = pairs <= 0
    last = jnp.where(jnp.any(ended), jnp.argmax(ended), num_pairs - 1)
    kept = jnp.where(jnp.arange(num_pairs) < last, jax.lax.cummin(pairs), 0)
    single = jnp.where((even[last] > 0) | (pairs[last] >= 0), even[last], 0)
    size = num_chains * num_draws
    inflation = jnp.maximum(-1 + 2 * jnp.sum(kept) + single, 1 / jnp.log10(size))
    return jnp.where(jnp.max(chains) == jnp.min(chains), size, size / inflation)


def autocovariances(chains: Float[Array, "chains draws"]) -> Float[Array, "chains draws"]:
    """Autocovariances (1/n) sum_t x_t x_{t+lag} of each centred chain, all lags, by one FFT."""
    num_draws = chains.shape[1]
    centred = chains - jnp.mean(chains, axis=1, keepdims=True)
    padded = 1 << (2 * num_draws - 1).bit_length()
    spectrum = jnp.abs(jnp.fft.rfft(centred, padded)) ** 2
    return jnp.fft.irfft(spectrum, padded)[:, :num_draws] / num_draws
