"""Comparing many forecasts at once: block bootstrap, model confidence set, superior ability.

Losses are (cases, models), in the order of time; a case in which any loss is NaN is not counted,
for any model. Bootstrap draws are arrays of indices (draws, cases): the same ones for all models,
made from a key or taken from elsewhere. Pure functions: `jax.vmap` runs them over data sets.
"""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray

Losses = Float[Array, "cases models"] | Float[np.ndarray, "cases models"]
Series = Float[Array, " cases"] | Float[np.ndarray, " cases"]
Indices = Int[Array, "draws cases"] | Int[np.ndarray, "draws cases"]
BlockKind = Literal["stationary", "circular", "moving"]


class ModelConfidenceSet(eqx.Module):
    """`p_values` of the models, who is `included` at the size asked for, and `elimination_order`:
    the step at which a model left, 0 for the worst; the best stays, with p-value 1."""

    p_values: Float[Array, " models"]
    included: Bool[Array, " models"]
    elimination_order: Int[Array, " models"]


class SuperiorAbility(eqx.Module):
    """The largest statistic of all models, `best` (the model that has it), and three p-values.

    `p_upper` takes all models as being as good as the benchmark (White's reality check), `p_lower`
    the worse ones as being as bad as they were, `p_consistent` those that are far worse only.
    """

    statistic: Float[Array, ""]
    best: Int[Array, ""]
    p_lower: Float[Array, ""]
    p_consistent: Float[Array, ""]
    p_upper: Float[Array, ""]
    statistics: Float[Array, " models"]


def block_indices(
    num_cases: int,
    num_draws: int,
    block_length: float | int,
    kind: BlockKind = "stationary",
    *,
    key: PRNGKeyArray,
) -> Int[Array, "draws cases"]:
    """Indices of bootstrap draws that keep the dependence inside blocks of cases.

    "stationary": blocks of geometric length with mean `block_length`, around the end (Politis and
    Romano 1994); "circular": blocks of that length, around the end (Politis and Romano 1992);
    "moving": blocks of that length inside the sample (Kunsch 1989). The last block is cut. Draw i
    uses `fold_in(key, i)`, so that more draws do not change the first ones.

    **Raises:** `ValueError` for an unknown kind, and for a block length that is below 1, beyond the
    number of cases, or, but for "stationary", not whole.
    """
    if kind not in ("stationary", "circular", "moving"):
        raise ValueError(f"kind must be 'stationary', 'circular' or 'moving', got {kind!r}.")
    if not 1 <= block_length <= num_cases or (kind != "stationary" and block_length % 1 != 0):
        raise ValueError(
            f"block_length must be a number of cases between 1 and {num_cases}, whole unless the "
            f"kind is 'stationary'; got {block_length}."
        )
    if kind == "stationary":
        stop = jnp.asarray(1.0 / block_length)
        return stationary_draws(stop, num_cases=num_cases, num_draws=num_draws, key=key)
    length = int(block_length)
    num_starts = num_cases if kind == "circular" else num_cases - length + 1
    return fixed_draws(num_starts, num_cases=num_cases, num_draws=num_draws, length=length, key=key)


def model_confidence_set(
    losses: Losses,
    indices: Indices,
    *,
    size: float | Array = 0.05,
    statistic: Literal["range", "max"] = "range",
) -> ModelConfidenceSet:
    """The models that may be the best, by leaving out the worst one at a time (Hansen, Lunde and
    Nason 2011).

        range: max_{i,j} (Lbar_i - Lbar_j) / s_ij      max: max_i (Lbar_i - Lbar) / s_i

    over the models still in the set; s from the draws (for "max" again after every step). The
    p-value of a step is the share of draws whose centred statistic is at least as large; that of a
    model is the largest up to its step, and models above `size` are included. Models with equal
    losses do not count as different. Costs draws models^3 (range) or draws models^2 (max), and
    memory for draws models^2 (range).

    **Raises:** `ValueError` for fewer than 2 models or an unknown statistic.
    """
    losses = jnp.asarray(losses)
    num_models = losses.shape[1]
    if num_models < 2:
        raise ValueError(f"a confidence set needs at least 2 models, got {num_models}.")
    if statistic not in ("range", "max"):
        raise ValueError(f"statistic must be 'range' or 'max', got {statistic!r}.")
    mean, errors = mean_and_draws(losses, indices)
    step = range_step(mean, errors) if statistic == "range" else max_step(mean, errors)

    def leave(state, number):
        included, largest = state
        worst, share = step(included)
        largest = jnp.maximum(largest, share)
        return (included.at[worst].set(False), largest), (worst, largest)

    start = (jnp.ones(num_models, dtype=bool), jnp.zeros((), dtype=losses.dtype))
    (left, _), (gone, p_values) = jax.lax.scan(leave, start, jnp.arange(num_models - 1))
    p_value = jnp.ones_like(mean).at[gone].set(p_values)
    order = jnp.full(num_models, num_models - 1).at[gone].set(jnp.arange(num_models - 1))
    known = jnp.all(jnp.isfinite(mean))
    return ModelConfidenceSet(
        p_values=jnp.where(known, p_value, jnp.nan),
        included=known & (left | (p_value > size)),
        elimination_order=order,
    )


def superior_predictive_ability(
    benchmark_losses: Series,
    losses: Losses,
    indices: Indices,
    *,
    block_length: float | int | Array | None = None,
    studentise: bool = True,
) -> SuperiorAbility:
    """Whether any model beats the benchmark, given that many were tried (Hansen 2005).

        T = max_k sqrt(n) dbar_k / w_k,  d = benchmark losses - losses
        T* = max_k sqrt(n) (dbar*_k - g_k) / w_k,  p = share of draws with T* >= T
        g_k = dbar_k (upper), dbar_k 1{dbar_k >= -w_k sqrt(2 log log n / n)} (consistent),
              max(dbar_k, 0) (lower)

    with w_k = 1 unless `studentise`: the upper p-value is then that of White's (2000) reality
    check. T may be negative here, where Hansen's is cut at zero; that only matters if no model has
    a smaller mean loss than the benchmark.

    **Arguments:** `block_length` of a stationary bootstrap gives w_k^2 in closed form (Politis and
    Romano 1994); None takes n times the variance over the draws.

    **Raises:** `ValueError` for fewer than 3 cases, whose log log n is not positive.
    """
    differences = jnp.asarray(benchmark_losses)[:, None] - jnp.asarray(losses)
    if differences.shape[0] < 3:
        raise ValueError(f"superior ability needs at least 3 cases, got {differences.shape[0]}.")
    mean, errors = mean_and_draws(differences, indices)
    counted = jnp.all(jnp.isfinite(differences), axis=1)
    count = jnp.sum(counted).astype(mean.dtype)
    if block_length is None:
        variance = count * jnp.var(errors, axis=0)
    else:
        centred = jnp.where(counted[:, None], differences - mean, 0.0)
        variance = stationary_variance(centred, count, jnp.asarray(block_length, mean.dtype))
    threshold = -jnp.sqrt(variance / count * 2.0 * jnp.log(jnp.log(count)))
    scale = jnp.sqrt(variance / count) if studentise else jnp.ones_like(variance)
    statistics = divided(mean, scale)
    largest = jnp.max(statistics)

    def share(kept):
        # Errors are centred at the mean: what the recentring leaves out is added again.
        simulated = divided(errors + (mean - kept), scale)
        return share_of_draws(jnp.max(simulated, axis=1), largest)

    return SuperiorAbility(
        statistic=largest,
        best=jnp.argmax(statistics),
        p_lower=share(jnp.maximum(mean, 0.0)),
        p_consistent=share(jnp.where(mean >= threshold, mean, 0.0)),
        p_upper=share(mean),
        statistics=statistics,
    )


@functools.partial(jax.jit, static_argnames=("num_cases", "num_draws"))
def stationary_draws(
    stop: Float[Array, ""], *, num_cases: int, num_draws: int, key: PRNGKeyArray
) -> Int[Array, "draws cases"]:
    """Draws of blocks that end at every case with probability `stop`."""
    place = jnp.arange(num_cases)

    def one_draw(number):
        first, ends = jax.random.split(jax.random.fold_in(key, number))
        starts = jax.random.randint(first, (num_cases,), 0, num_cases)
        new_block = jax.random.uniform(ends, (num_cases,)) < stop
        begin = jax.lax.cummax(jnp.where(new_block, place, 0))
        return (starts[begin] + place - begin) % num_cases

    return jax.vmap(one_draw)(jnp.arange(num_draws))


@functools.partial(jax.jit, static_argnames=("num_cases", "num_draws", "length"))
def fixed_draws(
    num_starts: int | Array, *, num_cases: int, num_draws: int, length: int, key: PRNGKeyArray
) -> Int[Array, "draws cases"]:
    """Draws of blocks of equal length that begin at one of the first `num_starts` cases."""
    num_blocks = -(-num_cases // length)

    def one_draw(number):
        own = jax.random.fold_in(key, number)
        starts = jax.random.randint(own, (num_blocks,), 0, num_starts)
        places = starts[:, None] + jnp.arange(length)
        return places.reshape(-1)[:num_cases] % num_cases

    return jax.vmap(one_draw)(jnp.arange(num_draws))


def mean_and_draws(
    losses: Float[Array, "cases models"], indices: Indices
) -> tuple[Float[Array, " models"], Float[Array, "draws models"]]:
    """Mean losses, and how far those of every draw are from them.

    How often a draw has every case is a matrix, so no (draws, cases, models) array is formed.
    """
    indices = jnp.asarray(indices)
    if indices.shape[1] != losses.shape[0]:
        raise ValueError(
            f"indices are for {indices.shape[1]} cases, losses have {losses.shape[0]}; make them "
            "with block_indices of as many cases."
        )
    counted = jnp.all(jnp.isfinite(losses), axis=1)
    kept = jnp.where(counted[:, None], losses, 0.0)
    mean = jnp.sum(kept, axis=0) / jnp.sum(counted)
    centred = jnp.where(counted[:, None], kept - mean, 0.0)
    draw = jnp.arange(indices.shape[0])[:, None]
    times = jnp.zeros(indices.shape, dtype=losses.dtype).at[draw, indices].add(1.0)
    times = times * counted
    total = jnp.matmul(times, centred, precision=jax.lax.Precision.HIGHEST)
    return mean, total / jnp.sum(times, axis=1, keepdims=True)


def range_step(mean: Float[Array, " models"], errors: Float[Array, "draws models"]):
    """The step of the range statistic: who leaves, with which p-value."""
    spread = errors[:, :, None] - errors[:, None, :]
    scale = jnp.sqrt(jnp.mean(spread**2, axis=0))
    simulated = divided(spread, scale)
    statistics = divided(mean[:, None] - mean, scale)

    def step(included):
        pairs = included[:, None] & included
        inside = jnp.where(pairs, statistics, -jnp.inf)
        largest = jnp.max(jnp.where(pairs, simulated, -jnp.inf), axis=(1, 2))
        worst = jnp.argmax(jnp.max(jnp.where(jnp.eye(mean.size) > 0, -jnp.inf, inside), axis=1))
        return worst, share_of_draws(largest, jnp.max(inside))

    return step


def max_step(mean: Float[Array, " models"], errors: Float[Array, "draws models"]):
    """The step of the max statistic: who leaves, with which p-value."""

    def step(included):
        average = jnp.mean(errors, axis=1, keepdims=True, where=included)
        gap = errors - average
        scale = jnp.sqrt(jnp.mean(gap**2, axis=0))
        excess = mean - jnp.mean(mean, where=included)
        inside = jnp.where(included, divided(excess, scale), -jnp.inf)
        largest = jnp.max(jnp.where(included, divided(gap, scale), -jnp.inf), axis=1)
        return jnp.argmax(inside), share_of_draws(largest, jnp.max(inside))

    return step


def stationary_variance(
    centred: Float[Array, "cases models"], count: Array, block_length: Array
) -> Float[Array, " models"]:
    """n times the variance of the mean under the stationary bootstrap, in closed form.

        c_0 + 2 sum_i k_i c_i,  k_i = (1 - i/n) (1 - p)^i + (i/n) (1 - p)^{n - i},  p = 1 / length

    (Politis and Romano 1994, lemma 1), with the autocovariances by a Fourier transform.
    """
    number = centred.shape[0]
    spectrum = jnp.abs(jnp.fft.rfft(centred, n=2 * number, axis=0)) ** 2
    products = jnp.fft.irfft(spectrum, n=2 * number, axis=0)[1:number]
    lag = jnp.arange(1, number, dtype=centred.dtype)
    stay = 1.0 - 1.0 / block_length
    weights = (1.0 - lag / number) * stay**lag + lag / number * stay ** (number - lag)
    total = jnp.sum(centred**2, axis=0) + 2.0 * weights @ products
    return jnp.maximum(total, 0.0) / count


def divided(numerator: Array, scale: Array) -> Array:
    """numerator / scale, zero where both are: equal losses are no evidence."""
    return jnp.where(numerator == 0.0, 0.0, numerator / scale)


def share_of_draws(simulated: Float[Array, " draws"], statistic: Array) -> Float[Array, ""]:
    """Share of the simulated statistics that are at least as large; NaN for a statistic of NaN."""
    share = jnp.mean((simulated >= statistic).astype(statistic.dtype))
    return jnp.where(jnp.isnan(statistic), jnp.nan, share)
