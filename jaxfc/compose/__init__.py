"""Models made of several families."""

from jaxfc.compose.decomposition import DecomposedForecast
from jaxfc.compose.factor_dcc import FactorDCC, FittedFactorDCC
from jaxfc.compose.factor_forecast import FactorVolatilityForecast
from jaxfc.compose.regression import Sizes
from jaxfc.compose.residuals import (
    EmpiricalResiduals,
    NormalResiduals,
    Residuals,
    VolatilityScaled,
)
from jaxfc.compose.returns import FactorARX, FittedFactorARX, SizeSelection
from jaxfc.compose.switching_corr import FittedSwitchingCorrelation, SwitchingCorrelation
from jaxfc.compose.trajectories import Trajectories

__all__ = [
    "DecomposedForecast",
    "EmpiricalResiduals",
    "FactorARX",
    "FactorDCC",
    "FactorVolatilityForecast",
    "FittedFactorARX",
    "FittedFactorDCC",
    "FittedSwitchingCorrelation",
    "NormalResiduals",
    "Residuals",
    "SizeSelection",
    "Sizes",
    "SwitchingCorrelation",
    "Trajectories",
    "VolatilityScaled",
]
