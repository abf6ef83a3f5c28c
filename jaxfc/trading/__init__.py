"""Strategies that trade on forecasts, and the wealth they lead to."""

from jaxfc.trading.portfolio_limits import Limits
from jaxfc.trading.portfolio_weights import (
    Allocation,
    KellyPortfolio,
    MeanVariance,
    MinimumVariance,
    PortfolioRule,
    RiskParity,
    scaled_to_gross,
    weighted_moments,
)
from jaxfc.trading.strategies import (
    CPPI,
    BuyAndHold,
    ConstantMix,
    Kelly,
    LeveragedLevel,
    LinearLevel,
    PredictionLevel,
    Strategy,
    VolatilityTarget,
    WealthState,
)
from jaxfc.trading.tables import paths_frame, strategy_table
from jaxfc.trading.view import View, view_of, views_of
from jaxfc.trading.wealth import WealthPath, run_strategies, run_strategy

__all__ = [
    "CPPI",
    "Allocation",
    "BuyAndHold",
    "ConstantMix",
    "Kelly",
    "KellyPortfolio",
    "LeveragedLevel",
    "Limits",
    "LinearLevel",
    "MeanVariance",
    "MinimumVariance",
    "PortfolioRule",
    "PredictionLevel",
    "RiskParity",
    "Strategy",
    "View",
    "VolatilityTarget",
    "WealthPath",
    "WealthState",
    "paths_frame",
    "run_strategies",
    "run_strategy",
    "scaled_to_gross",
    "strategy_table",
    "view_of",
    "views_of",
    "weighted_moments",
]
