"""Running models many times in one compiled program: any function over cases, rolling backtests,
real-time trackers, Monte Carlo studies."""

from jaxfc.running.backtest import backtest
from jaxfc.running.backtest_result import Backtest, load_backtest
from jaxfc.running.cluster import Ray
from jaxfc.running.engines import Local
from jaxfc.running.federated import FederatedFit, federated_averaging
from jaxfc.running.origins import Expanding, Rolling
from jaxfc.running.replicate import replicate
from jaxfc.running.study import Study
from jaxfc.running.study_cells import Estimator, product_grid
from jaxfc.running.study_result import StudyResult, read_study
from jaxfc.running.study_status import StudyStatus, read_status
from jaxfc.running.tracker import Track, track

__all__ = [
    "Backtest",
    "Estimator",
    "Expanding",
    "FederatedFit",
    "Local",
    "Ray",
    "Rolling",
    "Study",
    "StudyResult",
    "StudyStatus",
    "Track",
    "backtest",
    "federated_averaging",
    "load_backtest",
    "product_grid",
    "read_status",
    "read_study",
    "replicate",
    "track",
]
