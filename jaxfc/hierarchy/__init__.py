"""Hierarchies of weighted sums, and forecasts that add up."""

from jaxfc.hierarchy.bounds import Bounded
from jaxfc.hierarchy.coherent import CoherentForecast
from jaxfc.hierarchy.conditional import LevelConditional
from jaxfc.hierarchy.method import Method
from jaxfc.hierarchy.methods import ERM, GLS, OLS, WLS, BottomUp, MinT
from jaxfc.hierarchy.proportions import MiddleOut, TopDown
from jaxfc.hierarchy.reconcile import reconcile, reconcile_means
from jaxfc.hierarchy.structure import Hierarchy

__all__ = [
    "ERM",
    "GLS",
    "OLS",
    "WLS",
    "BottomUp",
    "Bounded",
    "CoherentForecast",
    "Hierarchy",
    "LevelConditional",
    "Method",
    "MiddleOut",
    "MinT",
    "TopDown",
    "reconcile",
    "reconcile_means",
]
