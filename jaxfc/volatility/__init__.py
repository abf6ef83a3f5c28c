"""Volatility and covariance forecasts."""

from jaxfc.volatility.inference import parameter_cov, standard_errors
from jaxfc.volatility.innovations import GED, Innovations, Normal, SkewedT, StudentT
from jaxfc.volatility.mean import AutoregressiveMean, ConstantMean, MeanProcess, ZeroMean
from jaxfc.volatility.other_variance import APARCH, EGARCH, HAR, RiskMetrics
from jaxfc.volatility.univariate import FittedVarianceModel, VarianceModel
from jaxfc.volatility.variance import GARCH, VarianceProcess

__all__ = [
    "APARCH",
    "EGARCH",
    "GARCH",
    "GED",
    "HAR",
    "AutoregressiveMean",
    "ConstantMean",
    "FittedVarianceModel",
    "Innovations",
    "MeanProcess",
    "Normal",
    "RiskMetrics",
    "SkewedT",
    "StudentT",
    "VarianceModel",
    "VarianceProcess",
    "ZeroMean",
    "parameter_cov",
    "standard_errors",
]
