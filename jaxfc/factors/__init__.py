"""Approximate dynamic factor models for incomplete, mixed-frequency panels."""

from jaxfc.factors.augmented import (
    AugmentedParameters,
    ar_error_space,
    augmented_parameters,
    augmented_space,
)
from jaxfc.factors.augmented_em import AugmentedEM, augmented_em, run_augmented_em
from jaxfc.factors.blocks import Blocks, ObservedFactors
from jaxfc.factors.bootstrap import bootstrap, forecast_with_uncertainty
from jaxfc.factors.components import FactorParameters, trace_r_squared
from jaxfc.factors.consecutive_news import consecutive_news
from jaxfc.factors.contributions import contributions
from jaxfc.factors.criteria import factor_criteria
from jaxfc.factors.diagnostics import (
    outliers,
    r_squared,
    residual_corr,
    residual_tests,
    standardised_errors,
)
from jaxfc.factors.errors import AutoregressiveErrors, IndependentErrors
from jaxfc.factors.history import factor_contributions, historical_decomposition
from jaxfc.factors.identify import identify
from jaxfc.factors.impulse import impulse_responses
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.likelihood import loglik
from jaxfc.factors.methods import EM, PCA, PPCA
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.moments import ClosedForm
from jaxfc.factors.news import News, news
from jaxfc.factors.news_arrays import NewsArrays, news_arrays, news_batch
from jaxfc.factors.nowcasts import nowcast
from jaxfc.factors.parameter_draws import hessian_draws
from jaxfc.factors.predict import Nowcasts, predict
from jaxfc.factors.restrictions import LinearEquations, Restrictions
from jaxfc.factors.scenarios import conditional_forecast
from jaxfc.factors.select import select_model
from jaxfc.factors.selection import Selection, SelectionRule
from jaxfc.factors.shocks import shock_criteria, with_num_shocks
from jaxfc.factors.standard_errors import standard_errors
from jaxfc.factors.two_step import TwoStepEM
from jaxfc.factors.weighting import StudentT, VolatilePeriods
from jaxfc.factors.worlds import FactorWorld, SimulatedPanel

__all__ = [
    "EM",
    "PCA",
    "PPCA",
    "AugmentedEM",
    "AugmentedParameters",
    "AutoregressiveErrors",
    "Blocks",
    "ClosedForm",
    "DynamicFactorModel",
    "FactorParameters",
    "FactorWorld",
    "FittedFactorModel",
    "IndependentErrors",
    "KalmanMoments",
    "LinearEquations",
    "News",
    "NewsArrays",
    "Nowcasts",
    "ObservedFactors",
    "Restrictions",
    "Selection",
    "SelectionRule",
    "SimulatedPanel",
    "StudentT",
    "TwoStepEM",
    "VolatilePeriods",
    "ar_error_space",
    "augmented_em",
    "augmented_parameters",
    "augmented_space",
    "bootstrap",
    "conditional_forecast",
    "consecutive_news",
    "contributions",
    "factor_contributions",
    "factor_criteria",
    "forecast_with_uncertainty",
    "hessian_draws",
    "historical_decomposition",
    "identify",
    "impulse_responses",
    "loglik",
    "news",
    "news_arrays",
    "news_batch",
    "nowcast",
    "outliers",
    "predict",
    "r_squared",
    "residual_corr",
    "residual_tests",
    "run_augmented_em",
    "select_model",
    "shock_criteria",
    "standard_errors",
    "standardised_errors",
    "trace_r_squared",
    "with_num_shocks",
]
