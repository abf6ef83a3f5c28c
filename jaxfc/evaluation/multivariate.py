"""Scores and calibration of joint forecasts: several series, or several steps, at once.

Cases are the leading axis and series the last; draws lead both. What was not realised (NaN) is
left out: a case is then judged by the joint law of its realised series, which is proper as long as
what is missing does not depend on the outcome, and is NaN where nothing was realised. A joint law
over steps and series is one over steps * series: reshape the last two axes into one. Of scores,
lower is better.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.evaluation.intervals import pit_draws
from jaxfc.evaluation.scores import check_draws, known
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray

Draws = Float[Array, "draws cases series"] | Float[np.ndarray, "draws cases series"]
Outcomes = Float[Array, "cases *outcome"] | Float[np.ndarray, "cases *outcome"]
PairWeights = Float[Array, "rows columns"] | Float[np.ndarray, "rows columns"]
Covs = Float[Array, "cases series series"] | Float[np.ndarray, "cases series series"]
PreRank = Literal["average", "band_depth", "multivariate"]


def energy_score(
    draws: Draws, realised: Outcomes, *, fair: bool = True, num_shifts: int | None = None
) -> Float[Array, " cases"]:
    """Energy score of an ensemble, case by case: the CRPS of a vector.

        mean_i |x_i - y| - (1/2) mean_{i,j} |x_i - x_j|          (Euclidean norm)

    in the units of the data, so that series of large values count most: scale them first where
    they should not. `fair` takes the mean over i != j, which is unbiased for the law the draws
    come from; otherwise over all i, j, which is the score of the empirical law itself.

    Costs draws^2 series / 2 operations and the memory of the draws, also for its derivative (pairs
    are visited by cyclic shifts). `num_shifts` K visits K draws pairs only: of independent draws
    that is unbiased, too, with little more noise from a few dozen on.

    Source: Gneiting and Raftery (2007, equation 22); Ferro (2014) for the fair one.

    **Raises:** `ValueError` for fewer than 2 draws, shapes that do not fit, `num_shifts` outside
    1..draws - 1.
    """
    # scoringrules forms all pairs of draws at once: draws^2 series numbers for every case.
    draws, realised = jnp.asarray(draws), jnp.asarray(realised)
    check_joint(draws, realised)
    num_draws = draws.shape[0]
    if num_shifts is not None and not 1 <= num_shifts < num_draws:
        raise ValueError(
            f"num_shifts must be in 1..{num_draws - 1} for {num_draws} draws, got {num_shifts}."
        )
    seen = jnp.isfinite(realised)
    draws = jnp.where(seen, draws, 0.0)
    error = jnp.mean(length(draws - known(realised)), axis=0)
    # Shifts k and M - k give the same pairs; half of M, if M is even, gives each twice.
    shifts = num_draws // 2 if num_shifts is None else num_shifts
    weights = jnp.ones(shifts, draws.dtype)
    if num_shifts is None and num_draws % 2 == 0:
        weights = weights.at[-1].set(0.5)

    @jax.checkpoint
    def add(total: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        shift, weight = step
        apart = length(draws - jnp.roll(draws, shift, axis=0))
        return total + weight * jnp.mean(apart, axis=0), None

    steps = (jnp.arange(1, shifts + 1), weights)
    total, _ = jax.lax.scan(add, jnp.zeros_like(error), steps)
    spread = total / jnp.sum(weights)
    if not fair:
        spread = spread * ((num_draws - 1) / num_draws)
    return jnp.where(jnp.any(seen, axis=-1), error - 0.5 * spread, jnp.nan)


def variogram_score(
    draws: Draws,
    realised: Outcomes,
    *,
    power: float | Array = 0.5,
    weights: PairWeights | None = None,
    fair: bool = False,
) -> Float[Array, " cases"]:
    """Variogram score of an ensemble, case by case: whether series differ as much as they do.

        sum_{i<j} w_ij (|y_i - y_j|^p - mean_m |x_mi - x_mj|^p)^2

    It sees wrong dependence where the energy score hardly does, and does not see a bias common to
    all series. Each pair counts once: sums over all i, j, as in other programs, are twice that.
    `fair` subtracts the variance of each mean over the draws, so that the expected score does not
    depend on their number.

    Costs draws series^2 operations and the memory of the draws.

    **Arguments:** `power` p, 0.5 by default; `weights` w symmetric, ones by default: inverse
    distances, or zero for pairs that do not matter. Pairs with a series that was not realised are
    left out.

    Source: Scheuerer and Hamill (2015).

    **Raises:** `ValueError` for fewer than 2 draws or shapes that do not fit.
    """
    # scoringrules forms draws series^2 numbers for every case, and its derivative at x_i = x_j is
    # NaN.
    draws, realised = jnp.asarray(draws), jnp.asarray(realised)
    check_joint(draws, realised)
    num_draws, _, num_series = draws.shape
    pairs = jnp.ones((num_series, num_series), draws.dtype)
    if weights is not None:
        if weights.shape != pairs.shape:
            raise ValueError(f"weights of shape {weights.shape} for {num_series} series.")
        pairs = 0.5 * (jnp.asarray(weights) + jnp.asarray(weights).T)
    pairs = jnp.triu(pairs, 1)
    seen = jnp.isfinite(realised)
    values, draws = known(realised), jnp.where(seen, draws, 0.0)

    @jax.checkpoint
    def add(total: Array, i: Array) -> tuple[Array, None]:
        apart = raised(jnp.take(draws, i, axis=2)[..., None] - draws, power)
        outcome = raised(jnp.take(values, i, axis=1)[:, None] - values, power)
        loss = (outcome - jnp.mean(apart, axis=0)) ** 2
        if fair:
            loss = loss - jnp.var(apart, axis=0, ddof=1) / num_draws
        both = seen & jnp.take(seen, i, axis=1)[:, None]
        return total + jnp.sum(jnp.where(both, pairs[i] * loss, 0.0), axis=1), None

    start = jnp.zeros(draws.shape[1], draws.dtype)
    total, _ = jax.lax.scan(add, start, jnp.arange(num_series))
    return jnp.where(jnp.sum(seen, axis=-1) > 1, total, jnp.nan)


def joint_log_score(mean: Outcomes, cov: Covs, realised: Outcomes) -> Float[Array, " cases"]:
    """- log density of a joint normal law at the realised values, case by case.

        (1/2) [ k log(2 pi) + log det V + (y - m)' V^{-1} (y - m) ]

    over the k series that were realised. V must be regular; of a hierarchy it never is on all
    nodes: see `basis_log_score`. A singular V gives NaN (or, by rounding, anything: refuse it).

    **Arguments:** mean (cases, series), cov (cases, series, series) of each case by itself.
    """
    seen = jnp.isfinite(realised)
    both = seen[:, :, None] & seen[:, None, :]
    unit = jnp.eye(seen.shape[1], dtype=jnp.asarray(cov).dtype)
    # A series that was not realised gets a unit variance of its own, which adds nothing.
    lower = jnp.linalg.cholesky(jnp.where(both, cov, unit))
    gap = jnp.where(seen, known(realised) - mean, 0.0)
    white = jax.scipy.linalg.solve_triangular(lower, gap[..., None], lower=True)[..., 0]
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)), axis=1)
    count = jnp.sum(seen, axis=1)
    score = 0.5 * (count * jnp.log(2.0 * jnp.pi) + log_det + jnp.sum(white**2, axis=1))
    return jnp.where(count > 0, score, jnp.nan)


def joint_pit(
    draws: Draws,
    realised: Outcomes,
    *,
    kind: PreRank = "average",
    key: PRNGKeyArray | None = None,
) -> Float[Array, " cases"]:
    """Place of the outcome among the draws by a pre-rank, in (0, 1): uniform if the law is right.

    All M + 1 vectors (outcome and draws) get a number that treats them alike, and the outcome's
    number gets its place among them as in `pit_draws`:

    - "average": mean over the series of the rank of the component; small and large together say
      that all series were over- or underestimated, or too narrow a law;
    - "band_depth": mean over the series of the number of pairs of vectors that enclose the
      component; small: the outcome lies outside, so that the law is too narrow or dependence too
      strong; large: too wide, or too weak;
    - "multivariate": the number of vectors that are nowhere larger; sees dependence in
      orthants, few values in many dimensions (costs draws^2 series).

    Give a `key` to break ties at random: with it the transform is exactly uniform, ties or not.
    Test it with `pit_uniformity` or `pit_kolmogorov`; `rank_histogram` counts it.

    Source: Thorarinsdottir, Scheuerer and Heinz (2016); Gneiting, Stanberry, Grimit, Held and
    Johnson (2008) for the multivariate rank.

    **Raises:** `ValueError` for an unknown kind, fewer than 2 draws, shapes that do not fit.
    """
    draws, realised = jnp.asarray(draws), jnp.asarray(realised)
    check_joint(draws, realised)
    if kind not in ("average", "band_depth", "multivariate"):
        raise ValueError(f"kind must be average, band_depth or multivariate, got {kind!r}.")
    seen = jnp.isfinite(realised)
    pool = jnp.concatenate([known(realised)[None], draws])
    numbers = dominance(pool, seen) if kind == "multivariate" else depth(pool, seen, kind)
    outcome = jnp.where(jnp.any(seen, axis=1), numbers[0], jnp.nan)
    return pit_draws(numbers[1:], outcome, key=key)


def rank_histogram(
    transforms: Float[Array, "cases *rest"] | Float[np.ndarray, "cases *rest"], num_bins: int = 10
) -> Float[Array, "bins *rest"]:
    """Share of the transforms in each of `num_bins` equal bins; cases that are NaN do not count.

    **Raises:** `ValueError` for fewer than 2 bins.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}.")
    transforms = jnp.asarray(transforms)
    place = jnp.clip(jnp.floor(transforms * num_bins), 0.0, num_bins - 1.0)
    bins = jnp.arange(num_bins, dtype=transforms.dtype).reshape((-1,) + (1,) * transforms.ndim)
    counts = jnp.sum(place == bins, axis=1).astype(transforms.dtype)
    return counts / jnp.sum(counts, axis=0)


def length(vectors: Float[Array, "*rest series"]) -> Float[Array, "*rest"]:
    """Euclidean norm with derivative zero where it is zero."""
    squares = jnp.sum(vectors**2, axis=-1)
    positive = squares > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def raised(gap: Float[Array, "..."], power: float | Array) -> Float[Array, "..."]:
    """|gap|^p with derivative zero where it is zero."""
    size = jnp.abs(gap)
    positive = size > 0.0
    return jnp.where(positive, jnp.where(positive, size, 1.0) ** power, 0.0)


def depth(
    pool: Float[Array, "vectors cases series"], seen: Bool[Array, "cases series"], kind: PreRank
) -> Float[Array, "vectors cases"]:
    """Mean over the realised series of mid-ranks, or of the pairs that enclose a component."""
    columns = pool.reshape(pool.shape[0], -1)

    def count(column: Array) -> tuple[Array, Array]:
        ordered = jnp.sort(column)
        below = jnp.searchsorted(ordered, column, side="left")
        return below, column.shape[0] - jnp.searchsorted(ordered, column, side="right")

    below, above = jax.vmap(count, in_axes=1, out_axes=1)(columns)
    below, above = (x.reshape(pool.shape).astype(pool.dtype) for x in (below, above))
    if kind == "average":
        numbers = below - above
    else:
        # All pairs less those entirely below or entirely above; integers, so that ties are ties.
        numbers = -(below * (below - 1.0) + above * (above - 1.0))
    return jnp.sum(jnp.where(seen, numbers, 0.0), axis=2)


def dominance(
    pool: Float[Array, "vectors cases series"], seen: Bool[Array, "cases series"]
) -> Float[Array, "vectors cases"]:
    """How many vectors are nowhere larger, over the realised series."""

    def one(vector: Array) -> Array:
        return jnp.sum(jnp.all((pool <= vector) | ~seen, axis=2), axis=0)

    return jax.lax.map(one, pool).astype(pool.dtype)


def check_joint(draws: Array, realised: Array) -> None:
    """Refuses an ensemble of one, and outcomes of other series or cases."""
    check_draws(draws)
    if draws.shape[1:] != realised.shape:
        raise ValueError(
            f"draws are {draws.shape} and realised {realised.shape}; they must be (draws, cases, "
            "series) and (cases, series)."
        )
