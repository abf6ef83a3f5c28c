"""How good forecasts are: scores, and the simple forecasts that a model has to beat."""

from jaxfc.evaluation.benchmarks import FirstOrder, FittedFirstOrder, benchmark_models
from jaxfc.evaluation.calibration import (
    berkowitz,
    conditional_coverage,
    pit_kolmogorov,
    pit_uniformity,
    unconditional_coverage,
    violation_independence,
)
from jaxfc.evaluation.comparison import (
    ConditionalAbility,
    EqualAbility,
    automatic_lags,
    diebold_mariano,
    giacomini_white,
    long_run_cov,
)
from jaxfc.evaluation.conformal import (
    AdaptiveConformal,
    QuantileTracker,
    ewma_volatility,
    volatility_scaled,
)
from jaxfc.evaluation.coverage_table import coverage_table
from jaxfc.evaluation.hypothesis import HypothesisTest
from jaxfc.evaluation.intervals import (
    interval_outliers,
    interval_score,
    log_score_draws,
    log_score_gaussian,
    mean_interval_score,
    outliers,
    pit_draws,
    pit_gaussian,
)
from jaxfc.evaluation.multiple import (
    ModelConfidenceSet,
    SuperiorAbility,
    block_indices,
    model_confidence_set,
    superior_predictive_ability,
)
from jaxfc.evaluation.overfitting import Overfitting, backtest_overfitting
from jaxfc.evaluation.performance import (
    Performance,
    max_drawdown,
    omega_ratio,
    performance,
    sharpe_ratio,
    sortino_ratio,
)
from jaxfc.evaluation.performance_table import performance_table
from jaxfc.evaluation.scores import (
    coverage,
    crps_draws,
    crps_gaussian,
    difference_t_statistic,
    mae,
    rmse,
)
from jaxfc.evaluation.sharpe import (
    SharpeDifference,
    bootstrap_sharpe_difference,
    jobson_korkie,
    sharpe_difference,
)
from jaxfc.evaluation.track_record import (
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
)

__all__ = [
    "AdaptiveConformal",
    "ConditionalAbility",
    "EqualAbility",
    "FirstOrder",
    "FittedFirstOrder",
    "HypothesisTest",
    "ModelConfidenceSet",
    "Overfitting",
    "Performance",
    "QuantileTracker",
    "SharpeDifference",
    "SuperiorAbility",
    "automatic_lags",
    "backtest_overfitting",
    "benchmark_models",
    "berkowitz",
    "block_indices",
    "bootstrap_sharpe_difference",
    "conditional_coverage",
    "coverage",
    "coverage_table",
    "crps_draws",
    "crps_gaussian",
    "deflated_sharpe",
    "diebold_mariano",
    "difference_t_statistic",
    "ewma_volatility",
    "expected_maximum_sharpe",
    "giacomini_white",
    "interval_outliers",
    "interval_score",
    "jobson_korkie",
    "log_score_draws",
    "log_score_gaussian",
    "long_run_cov",
    "mae",
    "max_drawdown",
    "mean_interval_score",
    "minimum_track_record",
    "model_confidence_set",
    "omega_ratio",
    "outliers",
    "performance",
    "performance_table",
    "pit_draws",
    "pit_gaussian",
    "pit_kolmogorov",
    "pit_uniformity",
    "probabilistic_sharpe",
    "rmse",
    "sharpe_difference",
    "sharpe_ratio",
    "sortino_ratio",
    "superior_predictive_ability",
    "unconditional_coverage",
    "violation_independence",
    "volatility_scaled",
]
