"""Volatility and covariance forecasts."""

from jaxfc.volatility.correlation import DCC
from jaxfc.volatility.dcc import CorrelationModel, FittedCorrelationModel
from jaxfc.volatility.inference import parameter_cov, standard_errors
from jaxfc.volatility.innovations import GED, Innovations, Normal, SkewedT, StudentT
from jaxfc.volatility.mean import AutoregressiveMean, ConstantMean, MeanProcess, ZeroMean
from jaxfc.volatility.other_variance import APARCH, EGARCH, HAR, RiskMetrics
from jaxfc.volatility.targets import SampleTarget, Target
from jaxfc.volatility.univariate import FittedVarianceModel, VarianceModel
from jaxfc.volatility.variance import GARCH, VarianceProcess

__all__ = [
    "APARCH",
    "DCC",
    "EGARCH",
    "GARCH",
    "GED",
    "HAR",
    "AutoregressiveMean",
    "ConstantMean",
    "CorrelationModel",
    "FittedCorrelationModel",
    "FittedVarianceModel",
    "Innovations",
    "MeanProcess",
    "Normal",
    "RiskMetrics",
    "SampleTarget",
    "SkewedT",
    "StudentT",
    "Target",
    "VarianceModel",
    "VarianceProcess",
    "ZeroMean",
    "parameter_cov",
    "standard_errors",
]
