"""Running models many times: rolling backtests in one compiled program."""

from jaxfc.running.backtest import Backtest, Rolling, backtest

__all__ = ["Backtest", "Rolling", "backtest"]
