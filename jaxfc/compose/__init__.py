"""Models made of several families."""

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.compose.factor_dcc import FactorDCC, FittedFactorDCC
from jaxfc.compose.factor_forecast import FactorVolatilityForecast
from jaxfc.compose.held_portfolio import HeldPortfolio, hold
from jaxfc.compose.hybrid import FittedHybrid, Hybrid
from jaxfc.compose.hybrid_cells import DiagonalCell, GatedCell
from jaxfc.compose.hybrid_laws import MomentAnchor, RegimeExperts
from jaxfc.compose.hybrid_network import Recursion
from jaxfc.compose.hybrid_regimes import RegimeAttention, TrainableRegimes
from jaxfc.compose.portfolio_chain import (
    ChainPath,
    ChainStep,
    MomentRule,
    PortfolioChain,
    origins_of,
    period_returns,
    rows_of,
)
from jaxfc.compose.regime_reconciliation import reconcile_regimes
from jaxfc.compose.regression import Sizes
from jaxfc.compose.residuals import (
    EmpiricalResiduals,
    NormalResiduals,
    Residuals,
    VolatilityScaled,
)
from jaxfc.compose.returns import FactorARX, FittedFactorARX, SizeSelection
from jaxfc.compose.rolling_tuning import Tuned, tune
from jaxfc.compose.switching_corr import FittedSwitchingCorrelation, SwitchingCorrelation
from jaxfc.compose.trajectories import Trajectories

__all__ = [
    "ChainPath",
    "ChainStep",
    "DecomposedForecast",
    "DiagonalCell",
    "EmpiricalResiduals",
    "FactorARX",
    "FactorDCC",
    "FactorVolatilityForecast",
    "FittedFactorARX",
    "FittedFactorDCC",
    "FittedHybrid",
    "FittedSwitchingCorrelation",
    "GatedCell",
    "HeldPortfolio",
    "Hybrid",
    "MomentAnchor",
    "MomentRule",
    "NormalResiduals",
    "PortfolioChain",
    "Recursion",
    "RegimeAttention",
    "RegimeExperts",
    "Residuals",
    "SizeSelection",
    "Sizes",
    "SwitchingCorrelation",
    "TrainableRegimes",
    "Trajectories",
    "Tuned",
    "VolatilityScaled",
    "hold",
    "origins_of",
    "period_returns",
    "reconcile_regimes",
    "rows_of",
    "tune",
]
