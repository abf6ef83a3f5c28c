"""How good forecasts are: scores, and the simple forecasts that a model has to beat."""

from jaxfc.evaluation.benchmarks import FirstOrder, FittedFirstOrder, benchmark_models
from jaxfc.evaluation.scores import (
    coverage,
    crps_draws,
    crps_gaussian,
    difference_t_statistic,
    mae,
    rmse,
)

__all__ = [
    "FirstOrder",
    "FittedFirstOrder",
    "benchmark_models",
    "coverage",
    "crps_draws",
    "crps_gaussian",
    "difference_t_statistic",
    "mae",
    "rmse",
]
