"""Approximate dynamic factor models for incomplete, mixed-frequency panels."""

from jaxfc.factors.components import FactorParameters, trace_r_squared
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.methods import EM, PCA, PPCA
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.moments import ClosedForm
from jaxfc.factors.two_step import TwoStepEM

__all__ = [
    "EM",
    "PCA",
    "PPCA",
    "ClosedForm",
    "DynamicFactorModel",
    "FactorParameters",
    "FittedFactorModel",
    "KalmanMoments",
    "TwoStepEM",
    "trace_r_squared",
]
