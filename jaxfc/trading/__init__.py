"""Strategies that trade on forecasts, and the wealth they lead to."""

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
    "BuyAndHold",
    "ConstantMix",
    "Kelly",
    "LeveragedLevel",
    "LinearLevel",
    "PredictionLevel",
    "Strategy",
    "View",
    "VolatilityTarget",
    "WealthPath",
    "WealthState",
    "paths_frame",
    "run_strategies",
    "run_strategy",
    "strategy_table",
    "view_of",
    "views_of",
]
