"""The covariances that the study of the whole chain compares, and what a month makes of one."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.temporal_returns import SECTORS
from jaxfc import DynamicFactorModel
from jaxfc.compose.factor_dcc import FactorDCC
from jaxfc.compose.portfolio_chain import PortfolioChain, period_returns, rows_of
from jaxfc.datasets import us_stocks
from jaxfc.factors import PPCA
from jaxfc.hierarchy import Hierarchy
from jaxfc.results import is_okay
from jaxfc.trading import Limits, MinimumVariance
from jaxfc.typing import Array
from jaxfc.volatility import (
    DCC,
    CompositeLikelihood,
    CorrelationModel,
    LinearShrinkage,
    VarianceModel,
    ZeroMean,
)
from jaxfc.volatility.targets import linear_shrinkage

GARCHS = VarianceModel(mean=ZeroMean())
DECAY = 0.97


@dataclasses.dataclass(frozen=True)
class Config:
    """Days of a window and of a month; stocks, factors, limits and costs; how the tuning goes."""

    window: int = 500
    horizon: int = 21
    first_day: str = "2006-01-03"
    num_stocks: int = 20
    num_factors: int = 3
    most: float = 0.2
    cost: float = 0.001
    lookback: int = 24
    block: int = 24
    num_steps: int = 2
    learning_rate: float = 0.4
    batch_size: int = 12
    out: str = "composition"


QUICK = Config(
    window=250,
    first_day="2020-10-01",
    num_stocks=6,
    num_factors=2,
    most=0.4,
    lookback=6,
    block=3,
    num_steps=1,
    batch_size=3,
)


class Period(NamedTuple):
    """One month: weights and returns of the stocks; predicted and realised variance of the
    portfolio and of equal weights; the joint score of the covariance; whether searches ended."""

    weights: Array
    returns: Array
    variance: Array
    realised: Array
    equal_variance: Array
    equal_realised: Array
    joint: Array
    okay: Array


# The covariance of the month from the days before, and whether the searches ended.
Law = Callable[[Array], tuple[Array, Array]]


def returns_of(config: Config) -> pd.DataFrame:
    """Simple daily returns."""
    closes = us_stocks().iloc[:, : config.num_stocks]
    returns = closes.pct_change().iloc[1:]
    return returns[returns.index >= config.first_day]


def groups_of(names: list[str]) -> Hierarchy:
    """The market and the sectors with two stocks or more, as averages of their stocks."""
    rows = {"market": np.ones(len(names))}
    for sector, stocks in SECTORS.items():
        member = np.asarray([name in stocks for name in names], float)
        if 1 < member.sum() < len(names):
            rows[sector] = member
    matrix = pd.DataFrame([row / row.sum() for row in rows.values()], list(rows), names)
    return Hierarchy.from_matrix(matrix)


def rule_of(config: Config) -> MinimumVariance:
    """Long-only, fully invested, no stock above the limit."""
    return MinimumVariance(Limits(0.0, config.most, gross=None, net=1.0))


def seen(values: Array) -> Array:
    """Every cell is there."""
    return jnp.ones(values.shape, bool)


def laws_of(config: Config, names: list[str]) -> dict[str, Law]:
    """The covariances by method."""
    horizon, fine = config.horizon, jnp.asarray(True)
    garch_factors = factor_model(config, GARCHS)

    def smoothed(values: Array) -> tuple[Array, Array]:
        ages = jnp.arange(values.shape[0] - 1, -1, -1)
        weights = DECAY**ages / jnp.sum(DECAY**ages)
        return horizon * (values.T * weights) @ values, fine

    def correlations(values: Array) -> tuple[Array, Array]:
        model = CorrelationModel(
            margins=GARCHS, target=LinearShrinkage(), likelihood=CompositeLikelihood()
        )
        fitted = model.estimate(values, seen(values))
        return fitted.forecast(horizon).cumulative().horizon_cov[-1], is_okay(fitted.result)  # pyright: ignore

    def factors(values: Array) -> tuple[Array, Array]:
        fitted = DynamicFactorModel(config.num_factors, 0, method=PPCA()).estimate(
            values, seen(values)
        )
        return horizon * fitted.forecast(1).cov[0, :, 0], is_okay(fitted.result)

    def factor_dcc(values: Array) -> tuple[Array, Array]:
        fitted = garch_factors.estimate(values, seen(values))
        return fitted.forecast(horizon).cumulative().horizon_cov[-1], is_okay(fitted.result)  # pyright: ignore

    def chain(values: Array) -> tuple[Array, Array]:
        step = chain_of(config, names, GARCHS, LinearShrinkage()).step(values, seen(values))
        return step.cov, is_okay(step.result)

    return {
        "equal weights": lambda values: (horizon * moments(values), fine),
        "sample": lambda values: (horizon * moments(values), fine),
        "shrunk": lambda values: (horizon * linear_shrinkage(values, seen(values), None), fine),
        "EWMA": smoothed,
        "DCC": correlations,
        "factors": factors,
        "factor DCC": factor_dcc,
        "chain": chain,
    }


def moments(values: Array) -> Array:
    """Second moments of the window."""
    return values.T @ values / values.shape[0]


def factor_model(config: Config, margins: VarianceModel) -> FactorDCC:
    """Factors by principal components, DCC of their innovations, one variance model for all."""
    factors = DynamicFactorModel(config.num_factors, 1, method=PPCA())
    return FactorDCC(factors, CorrelationModel(DCC(), margins=margins), idiosyncratic=margins)


def chain_of(
    config: Config, names: list[str], margins: VarianceModel, errors: LinearShrinkage
) -> PortfolioChain:
    """The whole chain."""
    model, groups = factor_model(config, margins), groups_of(names)
    return PortfolioChain(model, groups, rule_of(config), errors, horizon=config.horizon)


def period_of(config: Config, law: Law, values: Array, origin: Array, equal: bool) -> Period:
    """What a covariance leads to in the month after an origin."""
    horizon, window = config.horizon, config.window
    past = rows_of((values,), origin - window + 1, window)[0]
    later = rows_of((values,), origin + 1, horizon)[0]
    cov, okay = law(past)
    num_stocks = values.shape[1]
    even = jnp.full(num_stocks, 1.0 / num_stocks)
    found = even if equal else rule_of(config).from_moments(jnp.zeros(num_stocks), cov).weights
    scale = jnp.sqrt(jnp.diag(cov))
    factor = jnp.linalg.cholesky(cov / jnp.outer(scale, scale))
    units = jax.scipy.linalg.solve_triangular(factor, (later / scale).T, lower=True)
    log_det = 2.0 * jnp.sum(jnp.log(scale)) + 2.0 * jnp.sum(jnp.log(jnp.diag(factor)))
    return Period(
        weights=found,
        returns=period_returns(values, seen(values), origin, horizon),
        variance=found @ cov @ found,
        realised=jnp.sum((later @ found) ** 2),
        equal_variance=even @ cov @ even,
        equal_realised=jnp.sum((later @ even) ** 2),
        joint=(log_det + jnp.sum(units**2)) / num_stocks,
        okay=okay,
    )
