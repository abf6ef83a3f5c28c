"""Volatility and covariance forecasts."""

from jaxfc.volatility.constant_correlation import constant_correlation_test
from jaxfc.volatility.correlation import DCC, DECO, ConstantCorrelation, ScalarBEKK
from jaxfc.volatility.correlation_process import CorrelationProcess
from jaxfc.volatility.dcc import CorrelationModel, FittedCorrelationModel
from jaxfc.volatility.forecast import VolatilityForecast, simple_moments, varma_forecast
from jaxfc.volatility.horizon import Varma, cumulative_moments, joint_moments, mean_path
from jaxfc.volatility.inference import parameter_cov, standard_errors
from jaxfc.volatility.innovations import GED, Innovations, Normal, SkewedT, StudentT
from jaxfc.volatility.joint_likelihood import CompositeLikelihood, FullLikelihood, Likelihood
from jaxfc.volatility.mean import AutoregressiveMean, ConstantMean, MeanProcess, ZeroMean
from jaxfc.volatility.mean_first import (
    FittedMeanFirst,
    MeanFirst,
    mean_cov,
    mean_standard_errors,
)
from jaxfc.volatility.other_variance import APARCH, EGARCH, HAR, RiskMetrics
from jaxfc.volatility.targets import (
    LinearShrinkage,
    NonlinearShrinkage,
    SampleTarget,
    Target,
    is_positive_definite,
    nearest_corr,
)
from jaxfc.volatility.two_step_inference import correlation_cov, correlation_standard_errors
from jaxfc.volatility.univariate import FittedVarianceModel, VarianceModel
from jaxfc.volatility.variance import GARCH, VarianceProcess
from jaxfc.volatility.vector_mean import VectorMean

__all__ = [
    "APARCH",
    "DCC",
    "DECO",
    "EGARCH",
    "GARCH",
    "GED",
    "HAR",
    "AutoregressiveMean",
    "CompositeLikelihood",
    "ConstantCorrelation",
    "ConstantMean",
    "CorrelationModel",
    "CorrelationProcess",
    "FittedCorrelationModel",
    "FittedMeanFirst",
    "FittedVarianceModel",
    "FullLikelihood",
    "Innovations",
    "Likelihood",
    "LinearShrinkage",
    "MeanFirst",
    "MeanProcess",
    "NonlinearShrinkage",
    "Normal",
    "RiskMetrics",
    "SampleTarget",
    "ScalarBEKK",
    "SkewedT",
    "StudentT",
    "Target",
    "VarianceModel",
    "VarianceProcess",
    "Varma",
    "VectorMean",
    "VolatilityForecast",
    "ZeroMean",
    "constant_correlation_test",
    "correlation_cov",
    "correlation_standard_errors",
    "cumulative_moments",
    "is_positive_definite",
    "joint_moments",
    "mean_cov",
    "mean_path",
    "mean_standard_errors",
    "nearest_corr",
    "parameter_cov",
    "simple_moments",
    "standard_errors",
    "varma_forecast",
]
