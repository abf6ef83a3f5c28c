"""Running models many times in one compiled program: any function over cases, rolling backtests,
real-time trackers."""

from jaxfc.running.backtest import Backtest, Rolling, backtest
from jaxfc.running.replicate import replicate
from jaxfc.running.tracker import Track, track

__all__ = ["Backtest", "Rolling", "Track", "backtest", "replicate", "track"]
