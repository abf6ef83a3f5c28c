"""Bayesian models of panels of returns: hierarchies, factors, inference, views, calibration."""

from jaxfc.bayes.approximation import Gap, gap_to
from jaxfc.bayes.arviz_export import to_arviz
from jaxfc.bayes.asset_features import (
    EARNINGS_AHEAD,
    RECENT_RETURN,
    RECENT_VOLATILITY,
    asset_panel,
    asset_panel_from_periods,
    feature_columns,
    period_ends,
)
from jaxfc.bayes.asset_paths import AssetPaths
from jaxfc.bayes.asset_returns import AssetFactorProgram
from jaxfc.bayes.calibrate import RankCalibration, simulation_based_calibration
from jaxfc.bayes.calibrate_predictive import PredictiveCheck, posterior_predictive_check
from jaxfc.bayes.coefficient_drift import Drift, DriftingCoefficients
from jaxfc.bayes.coefficient_fitted import FittedHierarchicalRegression
from jaxfc.bayes.coefficient_levels import GaussianCoefficients, StudentCoefficients
from jaxfc.bayes.coefficient_prior import CoefficientPrior
from jaxfc.bayes.coefficient_regression import (
    GaussianErrors,
    HierarchicalRegression,
    StudentErrors,
)
from jaxfc.bayes.convergence import bulk_ess, energy_bfmi, monte_carlo_error, split_rhat, tail_ess
from jaxfc.bayes.diagnostics import Diagnostics, Limits, diagnose, judged
from jaxfc.bayes.draws import Inference, PosteriorDraws, Tuned
from jaxfc.bayes.dynamic_factors import BayesianFactorModel, FittedBayesianFactors
from jaxfc.bayes.dynamic_factors_gibbs import FactorGibbs
from jaxfc.bayes.dynamic_factors_program import DynamicFactorProgram, FactorPrior
from jaxfc.bayes.editing import (
    with_added,
    with_capped,
    with_frozen,
    with_path,
    with_scaled,
    with_zero_return,
)
from jaxfc.bayes.factor_dynamics import FactorDynamics, FirstOrder, Momentum, VectorFirstOrder
from jaxfc.bayes.factor_scales import ConstantScale, FactorScale, RecentScale, StochasticScale
from jaxfc.bayes.factor_volatility import (
    CovariancePath,
    FactorVolatilityModel,
    FittedFactorVolatility,
)
from jaxfc.bayes.factor_volatility_loadings import NormalGamma
from jaxfc.bayes.factor_volatility_program import FactorVolatilityProgram, VolatilityPrior
from jaxfc.bayes.instrumented import InstrumentedPCA
from jaxfc.bayes.instrumented_als import AlternatingLeastSquares, InstrumentedEstimate
from jaxfc.bayes.instrumented_bayes import (
    InstrumentedData,
    InstrumentedProgram,
    instrumented_data,
    instrumented_draws,
)
from jaxfc.bayes.instrumented_bootstrap import (
    BootstrapTest,
    NoCharacteristic,
    NoGivenFactor,
    NoIntercept,
    instrumented_test,
    wild_bootstrap,
)
from jaxfc.bayes.instrumented_dynamics import (
    AutoregressiveFactors,
    MeanFactors,
    VectorAutoregressiveFactors,
)
from jaxfc.bayes.instrumented_fitted import FittedInstrumentedPCA
from jaxfc.bayes.instrumented_panel import instrumented_panel
from jaxfc.bayes.instrumented_portfolios import (
    ManagedPortfolios,
    RSquared,
    managed_portfolios,
    r_squared,
    ranked_characteristics,
)
from jaxfc.bayes.laplace import DenseHessian, DiagonalHessian, Laplace
from jaxfc.bayes.loading_priors import (
    FixedScale,
    Horseshoe,
    LearnedScale,
    LoadingPrior,
    MultiplicativeGamma,
)
from jaxfc.bayes.loadings import Aligned, align_loadings
from jaxfc.bayes.m6 import FittedM6, M6Model
from jaxfc.bayes.nuts import NUTS
from jaxfc.bayes.pareto import effective_share, pareto_k, pareto_smoothed
from jaxfc.bayes.past_weights import (
    EqualWeights,
    GivenWeights,
    HalfLife,
    LinearRamp,
    PastWeights,
    effective_num_periods,
)
from jaxfc.bayes.pathfinder import Pathfinder
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.bayes.program import Program
from jaxfc.bayes.switching_fitted import FittedSwitchingHierarchy
from jaxfc.bayes.switching_hierarchy import SwitchingHierarchy
from jaxfc.bayes.switching_levels import SwitchingLevels, SwitchingPrior
from jaxfc.bayes.variational import LowRankNormal, MeanFieldNormal
from jaxfc.bayes.views import view_log_odds, with_views
from jaxfc.bayes.views_likelihood import ViewedProgram, viewed_program
from jaxfc.bayes.views_methods import EntropyPooling, ExpectedReturn, ReturnDensity
from jaxfc.bayes.views_statements import (
    BeatsView,
    ProbabilityView,
    QuantileView,
    ReturnView,
    SpreadView,
)
from jaxfc.bayes.views_weighted import WeightedForecast
from jaxfc.bayes.warm import warm_start

__all__ = [
    "EARNINGS_AHEAD",
    "NUTS",
    "RECENT_RETURN",
    "RECENT_VOLATILITY",
    "Aligned",
    "AlternatingLeastSquares",
    "AssetFactorProgram",
    "AssetPaths",
    "AutoregressiveFactors",
    "BayesianFactorModel",
    "BeatsView",
    "BootstrapTest",
    "CoefficientPrior",
    "ConstantScale",
    "CovariancePath",
    "DenseHessian",
    "Diagnostics",
    "DiagonalHessian",
    "Drift",
    "DriftingCoefficients",
    "DynamicFactorProgram",
    "EntropyPooling",
    "EqualWeights",
    "ExpectedReturn",
    "FactorDynamics",
    "FactorGibbs",
    "FactorPrior",
    "FactorScale",
    "FactorVolatilityModel",
    "FactorVolatilityProgram",
    "FirstOrder",
    "FittedBayesianFactors",
    "FittedFactorVolatility",
    "FittedHierarchicalRegression",
    "FittedInstrumentedPCA",
    "FittedM6",
    "FittedSwitchingHierarchy",
    "FixedScale",
    "Gap",
    "GaussianCoefficients",
    "GaussianErrors",
    "GivenWeights",
    "HalfLife",
    "HierarchicalRegression",
    "Horseshoe",
    "Inference",
    "InstrumentedData",
    "InstrumentedEstimate",
    "InstrumentedPCA",
    "InstrumentedProgram",
    "Laplace",
    "LearnedScale",
    "Limits",
    "LinearRamp",
    "LoadingPrior",
    "LowRankNormal",
    "M6Model",
    "ManagedPortfolios",
    "MeanFactors",
    "MeanFieldNormal",
    "Momentum",
    "MultiplicativeGamma",
    "NoCharacteristic",
    "NoGivenFactor",
    "NoIntercept",
    "NormalGamma",
    "PastWeights",
    "Pathfinder",
    "PooledHMC",
    "PosteriorDraws",
    "PredictiveCheck",
    "ProbabilityView",
    "Program",
    "QuantileView",
    "RSquared",
    "RankCalibration",
    "RecentScale",
    "ReturnDensity",
    "ReturnView",
    "SpreadView",
    "StochasticScale",
    "StudentCoefficients",
    "StudentErrors",
    "SwitchingHierarchy",
    "SwitchingLevels",
    "SwitchingPrior",
    "Tuned",
    "VectorAutoregressiveFactors",
    "VectorFirstOrder",
    "ViewedProgram",
    "VolatilityPrior",
    "WeightedForecast",
    "align_loadings",
    "asset_panel",
    "asset_panel_from_periods",
    "bulk_ess",
    "diagnose",
    "effective_num_periods",
    "effective_share",
    "energy_bfmi",
    "feature_columns",
    "gap_to",
    "instrumented_data",
    "instrumented_draws",
    "instrumented_panel",
    "instrumented_test",
    "judged",
    "managed_portfolios",
    "monte_carlo_error",
    "pareto_k",
    "pareto_smoothed",
    "period_ends",
    "posterior_predictive_check",
    "r_squared",
    "ranked_characteristics",
    "simulation_based_calibration",
    "split_rhat",
    "tail_ess",
    "to_arviz",
    "view_log_odds",
    "viewed_program",
    "warm_start",
    "wild_bootstrap",
    "with_added",
    "with_capped",
    "with_frozen",
    "with_path",
    "with_scaled",
    "with_views",
    "with_zero_return",
]
