"""Forecasts of rank classes (quintiles of returns among assets) and portfolios, scored as in the M6
forecasting competition.

Assets are ranked in ascending order, so class 1 holds the lowest returns. Of n ranked assets, class
k of C takes the places above floor((k - 1) n / C) up to floor(k n / C). Assets with equal returns
share their places, so each belongs to a class by the share of these places that lies in it: four
assets on places 19 to 22 of 100 are half in class 1, half in class 2. What is NaN is not ranked.

This is the organisers' R script; their Python script loses part of a tie that straddles a border
and puts the borders too low when the last places are tied.

Source: Makridakis, Gaba, Hollyman, Petropoulos, Spiliotis and Swanson (2022), The M6 financial
duathlon competition: guidelines.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.evaluation.performance import ratio
from jaxfc.typing import Array, Bool, Float

Returns = Float[Array, "*cases series"] | Float[np.ndarray, "*cases series"]
Classes = Float[Array, "*cases series classes"] | Float[np.ndarray, "*cases series classes"]
Draws = Float[Array, "draws series"] | Float[np.ndarray, "draws series"]
DrawWeights = Float[Array, " draws"] | Float[np.ndarray, " draws"]
DailyReturns = Float[Array, "days series"] | Float[np.ndarray, "days series"]
Weights = (
    Float[Array, " series"]
    | Float[Array, "days series"]
    | Float[np.ndarray, " series"]
    | Float[np.ndarray, "days series"]
)

LEAST_INVESTED, MOST_INVESTED = 0.25, 1.0
ROUNDING = 1e-6


def quantile_classes(
    returns: Returns, num_classes: int = 5
) -> Float[Array, "*cases series {num_classes}"]:
    """Membership of each asset in the classes of equal size that its return falls in.

    1 for its class and 0 for the others; a share of each where a tie straddles a border. NaN for
    assets without return, which do not count as assets.

    **Raises:** `ValueError` for fewer than 2 classes or more classes than assets.
    """
    returns = jnp.asarray(returns)
    check_classes(num_classes, returns.shape[-1])
    cumulative = jnp.moveaxis(cumulative_membership(returns, num_classes), -2, -1)
    return jnp.where(jnp.isnan(returns)[..., None], jnp.nan, from_cumulative(cumulative))


def rank_probabilities(
    draws: Draws,
    num_classes: int = 5,
    *,
    weights: DrawWeights | None = None,
    smoothing: float | Array = 0.0,
) -> Float[Array, "series {num_classes}"]:
    """Probabilities of the rank classes from joint draws of returns: ranked within each draw.

        p_ik = sum_d w_d m_dik / sum_d w_d,    then    (n p_ik + s / C) / (n + s)

    with m_d the membership in draw d (`quantile_classes`), n = (sum w)^2 / sum w^2 the effective
    number of draws, s = `smoothing` a number of draws of which each asset is in all C classes
    alike. A draw in which an asset is NaN does not count for it.

    Costs a sort of each draw, draws series ln(series).

    **Raises:** `ValueError` for fewer than 2 classes or more classes than assets, weights that are
    negative or all zero, negative smoothing.
    """
    draws = jnp.asarray(draws)
    check_classes(num_classes, draws.shape[1])
    check_smoothing(smoothing)
    cumulative, weights, _ = weighted_membership(draws, num_classes, weights)
    total, squares = jnp.sum(weights, axis=0), jnp.sum(weights**2, axis=0)
    probabilities = from_cumulative(jnp.einsum("ds,dcs->sc", weights, cumulative) / total[:, None])
    effective = (total**2 / squares)[:, None]
    return (effective * probabilities + smoothing / num_classes) / (effective + smoothing)


def rank_probability_error(
    draws: Draws,
    num_classes: int = 5,
    *,
    weights: DrawWeights | None = None,
    num_blocks: int | None = None,
) -> Float[Array, "series {num_classes}"]:
    """Monte Carlo standard error of `rank_probabilities` (without smoothing), by blocks of draws.

        sqrt( B / (B - 1) sum_b (sum_{d in b} w_d (m_dik - p_ik))^2 ) / sum_d w_d

    The B = `num_blocks` blocks of consecutive draws are taken as independent of each other. By
    default each draw is one; draws of Markov chains, or several from one state of a chain, need
    blocks that are longer than their memory, e.g. 20 in all.

    **Raises:** `ValueError` as `rank_probabilities`, for fewer than 2 blocks and for draws that are
    not a multiple of the blocks.
    """
    draws = jnp.asarray(draws)
    num_draws = draws.shape[0]
    num_blocks = num_draws if num_blocks is None else num_blocks
    check_classes(num_classes, draws.shape[1])
    if num_blocks < 2 or num_draws % num_blocks:
        raise ValueError(
            f"{num_draws} draws do not make {num_blocks} blocks of equal length; give num_blocks "
            "of at least 2 that divides the number of draws."
        )
    cumulative, weights, known = weighted_membership(draws, num_classes, weights)
    total = jnp.sum(weights, axis=0)
    membership = from_cumulative(jnp.moveaxis(cumulative, 1, 2))
    probabilities = jnp.einsum("ds,dsc->sc", weights, membership) / total[:, None]
    surprises = jnp.where(known[..., None], membership - probabilities, 0.0) * weights[..., None]
    blocks = jnp.sum(surprises.reshape(num_blocks, -1, *surprises.shape[1:]), axis=1)
    variance = jnp.sum(blocks**2, axis=0) * num_blocks / (num_blocks - 1)
    return jnp.sqrt(variance) / total[:, None]


def ranked_probability_score(probabilities: Classes, membership: Classes) -> Returns:
    """Ranked probability score of each asset, lower is better.

        (1/C) sum_k (sum_{j <= k} p_j - sum_{j <= k} m_j)^2

    with p the probabilities of the C classes and m the membership in them (`quantile_classes`).
    Equal probabilities of five classes score 0.24, 0.12, 0.08, 0.12, 0.24 by class, 0.16 on
    average. NaN where the membership is.

    Source: Epstein (1969); divided by the number of classes as in M6.

    **Raises:** `ValueError` for probabilities that are negative or do not sum to 1.
    """
    probabilities, membership = jnp.asarray(probabilities), jnp.asarray(membership)
    check_probabilities(probabilities)
    gap = jnp.cumsum(probabilities, axis=-1) - jnp.cumsum(membership, axis=-1)
    return jnp.mean(gap**2, axis=-1)


def mean_ranked_probability_score(
    probabilities: Classes, membership: Classes
) -> Float[Array, "*cases"]:
    """Mean of `ranked_probability_score` over the assets that were ranked; NaN if none was, and if
    one of them has no probabilities."""
    membership = jnp.asarray(membership)
    scores = ranked_probability_score(probabilities, membership)
    counted = ~jnp.any(jnp.isnan(membership), axis=-1)
    return jnp.sum(jnp.where(counted, scores, 0.0), axis=-1) / jnp.sum(counted, axis=-1)


def information_ratio(returns: DailyReturns, weights: Weights) -> Float[Array, ""]:
    """Information ratio of a portfolio as in M6: not annualised, so it grows with the days.

        sum_t r_t / sd(r),    r_t = ln(1 + sum_i w_i R_it)

    with R the simple returns of the assets per day (0.01: one per cent), w the weights after
    trading at the start of each day, the same for all days or (days, series); what is not invested
    earns nothing, and sd divides by days - 1. NaN if a return is missing (carry the price forward
    first: a day without trade has return 0), if the portfolio loses all, or if sd is zero.
    """
    log_returns = jnp.log1p(jnp.sum(jnp.asarray(returns) * jnp.asarray(weights), axis=1))
    spread = jnp.std(log_returns, ddof=1)
    equal = jnp.max(log_returns) == jnp.min(log_returns)
    return ratio(jnp.sum(log_returns), jnp.where(equal, 0.0, spread))


def check_weights(
    weights: Float[Array, " series"] | Float[np.ndarray, " series"],
    *,
    least: float = LEAST_INVESTED,
    most: float = MOST_INVESTED,
) -> None:
    """Raises `ValueError` unless `least` <= sum_i |w_i| <= `most`, the rule of M6 (host side)."""
    invested = float(np.sum(np.abs(np.asarray(weights, dtype=float))))
    if not least - ROUNDING <= invested <= most + ROUNDING:
        raise ValueError(
            f"the absolute weights sum to {invested:.6g}, outside [{least:g}, {most:g}]; scale "
            "the weights, or give the limits that hold as `least` and `most`."
        )


def cumulative_membership(
    values: Float[Array, "*cases series"], num_classes: int
) -> Float[Array, "*cases borders series"]:
    """Membership in the first k classes, k = 1..C - 1; 0 for NaN.

    Only the values on the last places of the classes have to be known: what is smaller is in, what
    is larger is not, what is equal is in by its share of the places it is tied on.
    """
    values = values.astype(jnp.result_type(values, float))  # shares of ties are no integers
    known = ~jnp.isnan(values)
    num_known = jnp.sum(known, axis=-1, keepdims=True)
    places = num_known * jnp.arange(1, num_classes) // num_classes
    ordered = jnp.sort(jnp.where(known, values, jnp.inf), axis=-1)
    border = jnp.take_along_axis(ordered, jnp.maximum(places - 1, 0), axis=-1)
    border = jnp.where(places > 0, border, -jnp.inf)[..., None]
    below, tied = values[..., None, :] < border, values[..., None, :] == border
    free = places - jnp.sum(below, axis=-1)
    share = free / jnp.maximum(jnp.sum(tied, axis=-1), 1)
    share = share.astype(values.dtype)[..., None]
    return jnp.where(below, 1.0, jnp.where(tied, share, 0.0))


def weighted_membership(
    draws: Float[Array, "draws series"], num_classes: int, weights: DrawWeights | None
) -> tuple[
    Float[Array, "draws borders series"], Float[Array, "draws series"], Bool[Array, "draws series"]
]:
    """Cumulative membership by draw, the weight of each draw for each asset, and what is known."""
    known = ~jnp.isnan(draws)
    weights = jnp.ones(draws.shape[0], draws.dtype) if weights is None else jnp.asarray(weights)
    if not isinstance(weights, Tracer):
        numbers = np.asarray(weights)
        if not (np.all(numbers >= 0.0) and 0.0 < numbers.sum() < np.inf):
            raise ValueError(
                "weights of draws must be finite, not negative and not all zero; got "
                f"{numbers.min():g} to {numbers.max():g}."
            )
    cumulative = cumulative_membership(draws, num_classes)
    return cumulative, jnp.where(known, weights[:, None], 0.0), known


def from_cumulative(cumulative: Float[Array, "*cases borders"]) -> Float[Array, "*cases classes"]:
    """Shares of all classes from those of the first 1, 2, ..., C - 1."""
    lowest, highest = jnp.zeros_like(cumulative[..., :1]), jnp.ones_like(cumulative[..., :1])
    return jnp.diff(jnp.concatenate([lowest, cumulative, highest], axis=-1), axis=-1)


def check_classes(num_classes: int, num_series: int) -> None:
    """Raises `ValueError` for a number of classes that cannot be filled."""
    if not 2 <= num_classes <= num_series:
        raise ValueError(
            f"{num_classes} classes of {num_series} assets; num_classes lies between 2 and the "
            "number of assets."
        )


def check_smoothing(smoothing: float | Array) -> None:
    """Raises `ValueError` for a negative number of draws."""
    if not isinstance(smoothing, Tracer) and not np.all(np.asarray(smoothing) >= 0.0):
        raise ValueError(f"smoothing is a number of draws, zero or more, got {smoothing}.")


def check_probabilities(probabilities: Array) -> None:
    """Raises `ValueError` for what is no law over classes; NaN (no forecast) passes."""
    if isinstance(probabilities, Tracer):
        return
    numbers = np.asarray(probabilities)
    off = np.abs(numbers.sum(axis=-1) - 1.0) > ROUNDING * numbers.shape[-1]
    wrong = np.argwhere(off | np.any(numbers < -ROUNDING, axis=-1))
    if wrong.size:
        place = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"the probabilities at {place} are {numbers[place].tolist()}; they must not be "
            "negative and sum to 1 over the classes."
        )
