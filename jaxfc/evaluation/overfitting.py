"""Whether choosing the best backtest means anything: combinatorially symmetric cross-validation."""

import itertools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Float, Int


class Overfitting(eqx.Module):
    """What happens out of sample to the strategy that is best in sample, over all splits.

    `probability` of overfitting: share of splits in which it ranks in the lower half out of sample
    (logit <= 0). `logits` of its relative rank; `selected`: which strategy it was; `in_sample` and
    `out_of_sample`: its scores. `degradation_slope` and `degradation_intercept`: least squares line
    of the second on the first. `loss_probability`: share of splits in which it scores below zero
    out of sample.
    """

    probability: Float[Array, "*batch"]
    logits: Float[Array, "*batch splits"]
    selected: Int[Array, "*batch splits"]
    in_sample: Float[Array, "*batch splits"]
    out_of_sample: Float[Array, "*batch splits"]
    degradation_slope: Float[Array, "*batch"]
    degradation_intercept: Float[Array, "*batch"]
    loss_probability: Float[Array, "*batch"]


def backtest_overfitting(
    returns: Float[Array, "steps strategies"],
    num_blocks: int = 16,
    *,
    score: Literal["sharpe", "mean"] = "sharpe",
) -> Overfitting:
    """Probability of backtest overfitting by CSCV (Bailey, Borwein, Lopez de Prado, Zhu 2017).

    The steps are cut into S = `num_blocks` consecutive blocks (of equal length, or one step apart).
    For each of the C(S, S/2) halves the best strategy in it is ranked among all N in the other:

        logit = log(w / (1 - w)),  w = rank / (N + 1),  rank 1 the worst (ties: the middle rank)

    NaN returns are not counted; a strategy without a score (no returns, zero variance) is last.
    Scores come from sums over blocks, so that the cost is splits x S x N (12,870 splits for S=16).

    **Raises:** `ValueError` for an odd number of blocks, fewer than 2, more than the steps, fewer
    than 2 strategies, or another score.
    """
    num_steps, num_strategies = returns.shape
    if num_blocks < 2 or num_blocks % 2 or num_blocks > num_steps:
        raise ValueError(
            f"num_blocks must be even and between 2 and the {num_steps} steps, got {num_blocks}."
        )
    if num_strategies < 2:
        raise ValueError("overfitting is a matter of choice: give at least 2 strategies.")
    if score not in ("sharpe", "mean"):
        raise ValueError(f"score must be 'sharpe' or 'mean', got {score!r}.")
    known = ~jnp.isnan(returns)
    values = jnp.where(known, returns, 0.0)
    # Squares of what is left after each strategy's mean lose no digits; the score adds it again.
    centre = jnp.sum(values, axis=0) / jnp.sum(known, axis=0)
    deviation = jnp.where(known, values - centre, 0.0)
    block = np.arange(num_steps) * num_blocks // num_steps
    rows = jnp.stack([known.astype(values.dtype), deviation, deviation**2])
    sums = jax.vmap(lambda row: jax.ops.segment_sum(row, block, num_blocks))(rows)
    total = jnp.sum(sums, axis=1)

    def one_split(inside):
        mine = jnp.einsum("s,ksn->kn", inside, sums)
        chosen_on = scores_of(mine, centre, score)
        judged_on = scores_of(total - mine, centre, score)
        best = jnp.argmax(chosen_on)
        below = jnp.sum(judged_on < judged_on[best], dtype=values.dtype)
        equal = jnp.sum(judged_on == judged_on[best], dtype=values.dtype)
        share = (below + 0.5 * (equal + 1.0)) / (num_strategies + 1.0)
        return jnp.log(share / (1.0 - share)), best, chosen_on[best], judged_on[best]

    splits = jnp.asarray(halves(num_blocks), dtype=values.dtype)
    logits, selected, inside, outside = jax.vmap(one_split)(splits)
    slope, intercept = line(inside, outside)
    return Overfitting(
        probability=jnp.mean((logits <= 0.0).astype(values.dtype)),
        logits=logits,
        selected=selected,
        in_sample=inside,
        out_of_sample=outside,
        degradation_slope=slope,
        degradation_intercept=intercept,
        loss_probability=jnp.mean((outside < 0.0).astype(values.dtype)),
    )


def scores_of(
    sums: Float[Array, "3 strategies"], centre: Float[Array, " strategies"], score: str
) -> Float[Array, " strategies"]:
    """Scores from counts, sums and sums of squares of the deviations from `centre`."""
    count, first, second = sums
    shift = first / jnp.maximum(count, 1.0)
    square = second / jnp.maximum(count, 1.0)
    variance = square - shift**2
    mean = centre + shift
    if score == "mean":
        return jnp.where(count > 0.0, mean, -jnp.inf)
    tiny = 8.0 * jnp.finfo(mean.dtype).eps * (square + mean**2)
    positive = (count > 0.0) & (variance > tiny)
    return jnp.where(positive, mean / jnp.sqrt(jnp.where(positive, variance, 1.0)), -jnp.inf)


def halves(num_blocks: int) -> np.ndarray:
    """All choices of half of the blocks, as rows of zeros and ones."""
    chosen = np.array(list(itertools.combinations(range(num_blocks), num_blocks // 2)))
    rows = np.zeros((len(chosen), num_blocks))
    np.put_along_axis(rows, chosen, 1.0, axis=1)
    return rows


def line(x: Float[Array, " splits"], y: Float[Array, " splits"]) -> tuple[Array, Array]:
    """Slope and intercept of the least squares line of y on x; NaN if x is constant."""
    centred = x - jnp.mean(x)
    slope = jnp.sum(centred * (y - jnp.mean(y))) / jnp.sum(centred**2)
    return slope, jnp.mean(y) - slope * jnp.mean(x)
