"""jaxfc: differentiable forecasts of panels of financial and macroeconomic time series, in JAX."""

from jaxfc.factors import (
    EM,
    PCA,
    PPCA,
    ClosedForm,
    DynamicFactorModel,
    FittedFactorModel,
    KalmanMoments,
    TwoStepEM,
    bootstrap,
    contributions,
    factor_criteria,
    forecast_with_uncertainty,
    identify,
    nowcast,
    select_model,
)
from jaxfc.forecast import FactorForecast, Forecast, GaussianForecast, SampleForecast
from jaxfc.frames import read_table
from jaxfc.fredmd import read_fredmd
from jaxfc.inversion import invert
from jaxfc.model import Fitted, Model
from jaxfc.panel import Panel
from jaxfc.panel_padding import pad_panel, pad_panels
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
    "Panel",
    "Posterior",
    "Rolling",
    "SampleForecast",
    "Standardise",
    "StateSpace",
    "TimeVarying",
    "TwoStepEM",
    "backtest",
    "bootstrap",
    "contributions",
    "factor_criteria",
    "forecast_with_uncertainty",
    "identify",
    "invert",
    "load",
    "nowcast",
    "pad_panel",
    "pad_panels",
    "read_fredmd",
    "read_table",
    "save",
    "select_model",
    "transform",
]
