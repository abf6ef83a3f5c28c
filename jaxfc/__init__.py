"""jaxfc: differentiable forecasts of panels of financial and macroeconomic time series, in JAX."""

from jaxfc.factors import (
    EM,
    PCA,
    PPCA,
    ClosedForm,
    DynamicFactorModel,
    FittedFactorModel,
    KalmanMoments,
    News,
    Nowcasts,
    TwoStepEM,
    bootstrap,
    conditional_forecast,
    contributions,
    factor_contributions,
    factor_criteria,
    forecast_with_uncertainty,
    hessian_draws,
    historical_decomposition,
    identify,
    impulse_responses,
    news,
    news_batch,
    nowcast,
    outliers,
    predict,
    r_squared,
    residual_corr,
    residual_tests,
    select_model,
    standard_errors,
    standardised_errors,
)
from jaxfc.forecast import FactorForecast, Forecast, GaussianForecast, SampleForecast
from jaxfc.frames import read_table
from jaxfc.fredmd import read_fredmd
from jaxfc.inversion import invert
from jaxfc.model import Fitted, Model
from jaxfc.panel import Panel
from jaxfc.panel_padding import pad_panel, pad_panels
from jaxfc.release_calendar import ReleaseCalendar
from jaxfc.results import RESULTS
from jaxfc.running import Rolling, backtest
from jaxfc.serialisation import load, save
from jaxfc.state_space import Posterior, StateSpace, TimeVarying
from jaxfc.transform_rules import (
    Difference,
    Growth,
    Level,
    Log,
    LogDifference,
    Standardise,
)
from jaxfc.transforms import transform
from jaxfc.vintages import VintageStore, pseudo_vintages

__version__ = "0.1.0"

__all__ = [
    "EM",
    "PCA",
    "PPCA",
    "RESULTS",
    "ClosedForm",
    "Difference",
    "DynamicFactorModel",
    "FactorForecast",
    "Fitted",
    "FittedFactorModel",
    "Forecast",
    "GaussianForecast",
    "Growth",
    "KalmanMoments",
    "Level",
    "Log",
    "LogDifference",
    "Model",
    "News",
    "Nowcasts",
    "Panel",
    "Posterior",
    "ReleaseCalendar",
    "Rolling",
    "SampleForecast",
    "Standardise",
    "StateSpace",
    "TimeVarying",
    "TwoStepEM",
    "VintageStore",
    "backtest",
    "bootstrap",
    "conditional_forecast",
    "contributions",
    "factor_contributions",
    "factor_criteria",
    "forecast_with_uncertainty",
    "hessian_draws",
    "historical_decomposition",
    "identify",
    "impulse_responses",
    "invert",
    "load",
    "news",
    "news_batch",
    "nowcast",
    "outliers",
    "pad_panel",
    "pad_panels",
    "predict",
    "pseudo_vintages",
    "r_squared",
    "read_fredmd",
    "read_table",
    "residual_corr",
    "residual_tests",
    "save",
    "select_model",
    "standard_errors",
    "standardised_errors",
    "transform",
]
