"""Regimes: Markov-switching means and structured covariances."""

from jaxfc.regimes.correlation_structure import FreeCorrelation, ScaledCorrelation
from jaxfc.regimes.factor_structure import MarketSectorCovariance, market_covariance
from jaxfc.regimes.fitted import FittedRegimes, RegimeProbabilities
from jaxfc.regimes.forecast import RegimeForecast
from jaxfc.regimes.model import RegimeModel
from jaxfc.regimes.prior import Prior, no_prior
from jaxfc.regimes.select import (
    RegimeCriteria,
    RollingDensity,
    compare_regimes,
    regime_criteria,
    rolling_density,
)
from jaxfc.regimes.structure import DiagonalCovariance, FullCovariance, Structure
from jaxfc.regimes.tails import GaussianTails, StudentTails, Tails

__all__ = [
    "DiagonalCovariance",
    "FittedRegimes",
    "FreeCorrelation",
    "FullCovariance",
    "GaussianTails",
    "MarketSectorCovariance",
    "Prior",
    "RegimeCriteria",
    "RegimeForecast",
    "RegimeModel",
    "RegimeProbabilities",
    "RollingDensity",
    "ScaledCorrelation",
    "Structure",
    "StudentTails",
    "Tails",
    "compare_regimes",
    "market_covariance",
    "no_prior",
    "regime_criteria",
    "rolling_density",
]
