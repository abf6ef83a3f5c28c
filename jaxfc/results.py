"""Result codes of an estimation: an enumeration whose members are the error messages.

A batch of fits carries one code per member, so that a failing member neither stops nor spoils the
others; the host verb ``fit`` raises on a code that is not okay unless ``throw=False``.
"""

from typing import cast

import jax
import optimistix as optx


class RESULTS(optx.RESULTS):  # pyright: ignore
    """What became of an estimation."""

    diverged = (
        "The likelihood or a parameter became NaN or infinite. Usual causes, most likely first: a "
        "series that is (nearly) constant or a copy of another, more factors than the panel "
        "supports, an idiosyncratic variance going to zero (raise `variance_floor`), float32 on an "
        "ill-scaled panel."
    )
    nonstationary = (
        "The estimated factor VAR is not stationary, so the stationary initial law does not exist. "
        "Difference or detrend the series, use fewer lags, or pass initial='estimated'."
    )
    likelihood_decreased = (
        "The likelihood fell by more than rounding can explain before the tolerance was met. Usual "
        "causes: a tolerance below the precision of the dtype, or an approximate M-step near a "
        "unit root (initial='stationary'); loosen `rtol` or pass initial='estimated'."
    )
    integrated_variance = (
        "The estimated variance process is not stationary: shocks to the variance do not die out, "
        "so no long-run variance exists. Usual causes: a break in the level of volatility, a "
        "series whose observations are few, or an outlier; use a shorter window, targeting=True, "
        "or RiskMetrics() if that is what is wanted."
    )
    indefinite_target = (
        "The target of the correlations is not positive definite: more series than rows, a series "
        "that is a combination of others, or pairs of series with few common dates. Use "
        "target=LinearShrinkage() or NonlinearShrinkage(), where cells are missing "
        "LinearShrinkage(intensity) with a larger intensity, drop series, or lengthen the sample."
    )
    empty_regime = (
        "A regime holds fewer than two rows in expectation, so its mean and covariance are those "
        "of its prior, or of an outlier. Ask for fewer regimes, more starts (num_starts), heavier "
        "tails (StudentTails()) or a stronger prior."
    )
    frozen_chain = (
        "A chain hardly moves: its step size collapsed or its proposals are refused, which float32 "
        "and starts far from the posterior bring about. Its draws are worthless. Sample in "
        "float64, start nearer (less jitter, a warm start), lengthen the warm-up, or change the "
        "key."
    )
    divergent_transitions = (
        "Too many transitions left the path of constant energy (divergences), so draws miss a part "
        "of the posterior, mostly a narrow neck of a hierarchical scale. Raise `target_accept`, "
        "move the block with few data per group to its non-centred form, or tighten the prior of "
        "its scale."
    )
    not_mixed = (
        "The chains do not agree (R-hat above its limit): they have not reached the posterior, or "
        "it has several modes. Lengthen the warm-up, draw more, start nearer, or look whether the "
        "quantity named in the table is identified (align loadings first)."
    )
    few_effective_draws = (
        "The draws are so dependent that they are worth fewer independent ones than asked for "
        "(`limits=Limits(ess=...)`). Draw more, warm up longer, or parametrise the quantity named "
        "in the table differently (centred where data are many, non-centred where few)."
    )
    energy_not_explored = (
        "The momentum moves the energy too slowly through its range (E-BFMI below its limit): the "
        "tails are hardly visited, mostly those of a hierarchical scale. Use the non-centred form "
        "of that block, a tighter prior of its scale, or more draws."
    )
    mode_not_found = (
        "The search for the mode ended where the density still rises: at an edge of its support, "
        "or where its curvatures differ too much for the line search. Use MeanFieldNormal(), "
        "Pathfinder() or NUTS(), or start elsewhere."
    )
    diverged_training = (
        "Training met a number that is not finite; the best earlier weights are kept. Lower the "
        "learning rate, lengthen its warm-up, or clip the gradient harder."
    )
    indefinite_curvature = (
        "The log density is not curved downwards in every direction where the search for its "
        "mode ended, so no normal law fits there: a hierarchical scale near zero, a flat direction "
        "(rotations of loadings), or too few steps. Use MeanFieldNormal(), Pathfinder() or NUTS()."
    )
    poor_approximation = (
        "The approximation misses a part of the posterior (Pareto k above its limit). In hundreds "
        "of dimensions this is the rule for all parameters together: compare the quantities of "
        "interest with draws of NUTS (`gap_to`), raise `rank`, or sample the posterior."
    )


def is_okay(result: RESULTS) -> jax.Array:
    """True where an estimation converged (elementwise for a batch of results)."""
    return result == RESULTS.successful


def usable_codes() -> tuple[int, int]:
    """Codes of estimations whose numbers can be used: converged, or stopped at the bound on steps
    (host side)."""
    usable = RESULTS.successful, RESULTS.nonlinear_max_steps_reached
    return int(usable[0]._value), int(usable[1]._value)  # pyright: ignore


def throw_if_failed(result: RESULTS, what: str) -> None:
    """Raise ``RuntimeError`` with the text of ``result`` unless it is successful (host side)."""
    if not bool(is_okay(result)):
        raise RuntimeError(f"{what}: {RESULTS[result]}")


SUCCESSFUL = cast(RESULTS, RESULTS.successful)


def select(pred: jax.Array, if_true: RESULTS, if_false: RESULTS) -> RESULTS:
    """``if_true`` where ``pred`` else ``if_false``."""
    return RESULTS.where(pred, if_true, if_false)


__all__ = ["RESULTS", "SUCCESSFUL", "is_okay", "select", "throw_if_failed", "usable_codes"]
