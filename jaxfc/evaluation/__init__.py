"""How good forecasts are: scores, and the simple forecasts that a model has to beat."""

from jaxfc.evaluation.accuracy_by import (
    accuracy_by,
    likely_regimes,
    times_of_day,
    volatility_terciles,
)
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
from jaxfc.evaluation.durations import christoffersen_pelletier
from jaxfc.evaluation.folds import Folds, combinatorial_purged, purged_k_fold, walk_forward
from jaxfc.evaluation.hierarchy_scores import (
    basis_log_score,
    level_table,
    pit_by_level,
    rmsse,
    scaled_crps,
    scaled_crps_by_level,
    squared_scale,
)
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
from jaxfc.evaluation.latency import Latency, latency
from jaxfc.evaluation.multiple import (
    ModelConfidenceSet,
    SuperiorAbility,
    block_indices,
    model_confidence_set,
    superior_predictive_ability,
)
from jaxfc.evaluation.multivariate import (
    energy_score,
    joint_log_score,
    joint_pit,
    rank_histogram,
    variogram_score,
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
from jaxfc.evaluation.portfolio_tail import PortfolioTail, portfolio_tail
from jaxfc.evaluation.predictive_checks import (
    calibration_by_class,
    clustered_mean,
    pit_weighted,
    reliability,
)
from jaxfc.evaluation.rank_scores import (
    check_weights,
    information_ratio,
    mean_ranked_probability_score,
    quantile_classes,
    rank_probabilities,
    rank_probability_error,
    ranked_probability_score,
)
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
from jaxfc.evaluation.tail_calibration import (
    acerbi_szekely,
    engle_manganelli,
    mcneil_frey,
)
from jaxfc.evaluation.tail_risk import (
    expected_shortfall,
    joint_tail_score,
    quantile_score,
    tail_violations,
    value_at_risk,
)
from jaxfc.evaluation.track_record import (
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
)
from jaxfc.hypothesis import HypothesisTest

__all__ = [
    "AdaptiveConformal",
    "ConditionalAbility",
    "EqualAbility",
    "FirstOrder",
    "FittedFirstOrder",
    "Folds",
    "HypothesisTest",
    "Latency",
    "ModelConfidenceSet",
    "Overfitting",
    "Performance",
    "PortfolioTail",
    "QuantileTracker",
    "SharpeDifference",
    "SuperiorAbility",
    "accuracy_by",
    "acerbi_szekely",
    "automatic_lags",
    "backtest_overfitting",
    "basis_log_score",
    "benchmark_models",
    "berkowitz",
    "block_indices",
    "bootstrap_sharpe_difference",
    "calibration_by_class",
    "check_weights",
    "christoffersen_pelletier",
    "clustered_mean",
    "combinatorial_purged",
    "conditional_coverage",
    "coverage",
    "coverage_table",
    "crps_draws",
    "crps_gaussian",
    "deflated_sharpe",
    "diebold_mariano",
    "difference_t_statistic",
    "energy_score",
    "engle_manganelli",
    "ewma_volatility",
    "expected_maximum_sharpe",
    "expected_shortfall",
    "giacomini_white",
    "information_ratio",
    "interval_outliers",
    "interval_score",
    "jobson_korkie",
    "joint_log_score",
    "joint_pit",
    "joint_tail_score",
    "latency",
    "level_table",
    "likely_regimes",
    "log_score_draws",
    "log_score_gaussian",
    "long_run_cov",
    "mae",
    "max_drawdown",
    "mcneil_frey",
    "mean_interval_score",
    "mean_ranked_probability_score",
    "minimum_track_record",
    "model_confidence_set",
    "omega_ratio",
    "outliers",
    "performance",
    "performance_table",
    "pit_by_level",
    "pit_draws",
    "pit_gaussian",
    "pit_kolmogorov",
    "pit_uniformity",
    "pit_weighted",
    "portfolio_tail",
    "probabilistic_sharpe",
    "purged_k_fold",
    "quantile_classes",
    "quantile_score",
    "rank_histogram",
    "rank_probabilities",
    "rank_probability_error",
    "ranked_probability_score",
    "reliability",
    "rmse",
    "rmsse",
    "scaled_crps",
    "scaled_crps_by_level",
    "sharpe_difference",
    "sharpe_ratio",
    "sortino_ratio",
    "squared_scale",
    "superior_predictive_ability",
    "tail_violations",
    "times_of_day",
    "unconditional_coverage",
    "value_at_risk",
    "variogram_score",
    "violation_independence",
    "volatility_scaled",
    "volatility_terciles",
    "walk_forward",
]
