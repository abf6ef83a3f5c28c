"""Hierarchies of weighted sums, and forecasts that add up."""

from jaxfc.hierarchy.alternating import Alternating, Alternation, alternate
from jaxfc.hierarchy.bootstrap import bootstrap_forecast
from jaxfc.hierarchy.bounds import Bounded
from jaxfc.hierarchy.calendar_cycles import CalendarCycles, calendar_cycles
from jaxfc.hierarchy.coherent import CoherentForecast
from jaxfc.hierarchy.conditional import LevelConditional
from jaxfc.hierarchy.conformal import Conformal, conformal
from jaxfc.hierarchy.copula import copula_forecast
from jaxfc.hierarchy.cross_temporal import cross_temporal, split_pairs, stack_pairs
from jaxfc.hierarchy.exposures import ExposureModel, FittedExposures, shrunk_exposures
from jaxfc.hierarchy.lag_lasso import FittedLagLassoVAR, LagLassoVAR
from jaxfc.hierarchy.method import Method
from jaxfc.hierarchy.methods import ERM, GLS, OLS, WLS, BottomUp, MinT
from jaxfc.hierarchy.profits import (
    profits,
    profits_of,
    returns_from_profits,
    returns_of,
    second_order_gap,
)
from jaxfc.hierarchy.proportions import MiddleOut, TopDown
from jaxfc.hierarchy.reconcile import reconcile, reconcile_means
from jaxfc.hierarchy.regime_weights import RegimeMinT
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.hierarchy.student import StudentForecast
from jaxfc.hierarchy.temporal import split_orders, stack_orders, temporal_hierarchy
from jaxfc.hierarchy.temporal_cov import TemporalGLS
from jaxfc.hierarchy.three_levels import three_levels
from jaxfc.hierarchy.two_directions import Separable, TwoStep
from jaxfc.hierarchy.uncertain_cov import reconcile_student
from jaxfc.hierarchy.var import FittedHierarchicalVAR, HierarchicalVAR
from jaxfc.hierarchy.varying_exposures import FittedVaryingExposures, VaryingExposureModel

__all__ = [
    "ERM",
    "GLS",
    "OLS",
    "WLS",
    "Alternating",
    "Alternation",
    "BottomUp",
    "Bounded",
    "CalendarCycles",
    "CoherentForecast",
    "Conformal",
    "ExposureModel",
    "FittedExposures",
    "FittedHierarchicalVAR",
    "FittedLagLassoVAR",
    "FittedVaryingExposures",
    "HierarchicalVAR",
    "Hierarchy",
    "LagLassoVAR",
    "LevelConditional",
    "Method",
    "MiddleOut",
    "MinT",
    "RegimeMinT",
    "Separable",
    "Shrinkage",
    "StudentForecast",
    "TemporalGLS",
    "TopDown",
    "TwoStep",
    "VaryingExposureModel",
    "alternate",
    "bootstrap_forecast",
    "calendar_cycles",
    "conformal",
    "copula_forecast",
    "cross_temporal",
    "profits",
    "profits_of",
    "reconcile",
    "reconcile_means",
    "reconcile_student",
    "returns_from_profits",
    "returns_of",
    "second_order_gap",
    "shrunk_exposures",
    "split_orders",
    "split_pairs",
    "stack_orders",
    "stack_pairs",
    "temporal_hierarchy",
    "three_levels",
]
