"""The demo of returns: a backtest of weekly S&P 500 returns on packaged data, and its page."""

import dataclasses
from pathlib import Path

import jax

from jaxfc.compose import FactorARX, SizeSelection, Trajectories
from jaxfc.factors import EM, DynamicFactorModel, TwoStepEM
from jaxfc.index_panel import TARGET, IndexPanel
from jaxfc.report.backtest import write_backtest_report
from jaxfc.running import Backtest, Rolling, backtest


@dataclasses.dataclass(frozen=True)
class ReturnsConfig:
    """Sizes are the largest that each of the last `num_origins` windows may choose."""

    window: int = 364
    num_origins: int = 104
    max_factors: int = 2
    max_lags: int = 1
    max_own_lags: int = 2
    num_draws: int = 300
    incomplete: bool = True
    seed: int = 0


QUICK = ReturnsConfig(window=104, num_origins=16, num_draws=50, incomplete=False)


def run_returns_demo(
    config: ReturnsConfig, data: IndexPanel, *, progress: bool | None = None
) -> Backtest:
    """Every window chooses its sizes, estimates, and draws its intervals."""
    method = EM(rtol=1e-3)
    if config.incomplete:
        inner = EM(rtol=1e-3, max_steps=10)
        method = TwoStepEM(restart=False, conditional_cov=True, max_steps=10, inner=inner)
    model = FactorARX(
        TARGET,
        DynamicFactorModel(config.max_factors, config.max_lags, method=method),
        config.max_own_lags,
        config.max_lags,
        selection=SizeSelection(),
        intervals=Trajectories(config.num_draws),
    )
    return backtest(
        model,
        data.panel,
        Rolling(config.window, num_origins=config.num_origins),
        batch_size=8,
        progress=progress,
        key=jax.random.key(config.seed),
    )


def write_returns_demo(
    done: Backtest, config: ReturnsConfig, data: IndexPanel, folder: Path
) -> Path:
    """The page of the demo and the backtest beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    done.save(folder / "backtest")
    return write_backtest_report(
        done,
        folder,
        groups=data.groups,
        title="Weekly returns of the S&P 500",
        key=jax.random.key(config.seed),
    )
