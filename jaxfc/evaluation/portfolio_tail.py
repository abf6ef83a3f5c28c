"""Tail risk of a portfolio of the bottom series of a hierarchy, and how it did."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.evaluation.scores import known
from jaxfc.evaluation.tail_risk import (
    expected_shortfall,
    joint_tail_score,
    quantile_score,
    tail_violations,
    value_at_risk,
)
from jaxfc.forecast import Forecast
from jaxfc.typing import Array, Float

Outcomes = Float[Array, "cases bottom"] | Float[np.ndarray, "cases bottom"]


class PortfolioTail(eqx.Module):
    """Tail of a portfolio case by case: its two risk measures, violations and scores."""

    realised: Float[Array, " cases"]
    value_at_risk: Float[Array, " cases"]
    expected_shortfall: Float[Array, " cases"]
    violations: Float[Array, " cases"]
    quantile_score: Float[Array, " cases"]
    joint_score: Float[Array, " cases"]


def portfolio_tail(
    forecast: Forecast,
    weights: Float[Array, " held"] | Float[np.ndarray, " held"],
    realised: Outcomes,
    probability: float,
) -> PortfolioTail:
    """Value at risk and shortfall of a weighting of series, and how they did; see `tail_risk`.

    **Arguments:** `forecast` of the bottom series, its horizon being the cases: the steps of one
    origin, or one step of many origins stacked, `SampleForecast(draws)` with draws (draws, origins,
    bottom). `realised` (cases, bottom); the portfolio of a case is known if every series with a
    weight was realised, else NaN.

    **Raises:** `ValueError` for a probability outside (0, 0.5], or other shapes.
    """
    weights = jnp.asarray(weights)
    if realised.shape != forecast.mean.shape or weights.shape[0] != realised.shape[1]:
        raise ValueError(
            f"the forecast is {forecast.mean.shape}, realised {realised.shape}, weights "
            f"{weights.shape}; they must be (cases, bottom) twice, and (bottom,)."
        )
    held = weights != 0.0
    outcome = jnp.sum(jnp.where(held, known(realised), 0.0) * weights, axis=1)
    complete = jnp.all(jnp.isfinite(realised) | ~held, axis=1)
    outcome = jnp.where(complete, outcome, jnp.nan)
    law = forecast.aggregate(weights[None, :])
    quantile = value_at_risk(law, probability)[:, 0]
    shortfall = expected_shortfall(law, probability)[:, 0]
    return PortfolioTail(
        realised=outcome,
        value_at_risk=quantile,
        expected_shortfall=shortfall,
        violations=tail_violations(quantile, outcome),
        quantile_score=quantile_score(quantile, outcome, probability),
        joint_score=joint_tail_score(quantile, shortfall, outcome, probability),
    )
