"""Weekly S&P 500: intervals, drivers and strategies of the ARX model with factors, out of sample.

    python -m experiments.sp500 [--quick] [--data FOLDER] [--out FOLDER] [--only NAME]

Every window selects (K, p, q, s), estimates and draws its intervals; 527 windows of 364 weeks, from
30 December 2005 on, as in Defend et al. (2021), section 6, on the panel of `sp500_panel`. Written
for each backtest: a store to go on from, the backtest itself; for all: tables, answers, pages.
"""

import argparse
import dataclasses
from pathlib import Path

import jax

import jaxfc
from experiments.sp500_answers import write_answers
from experiments.sp500_panel import WINDOW, returns_panel
from jaxfc.compose import FactorARX, SizeSelection, Trajectories, VolatilityScaled
from jaxfc.factors.selection import Padding
from jaxfc.index_panel import TARGET, IndexPanel, index_panel
from jaxfc.running import Backtest


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes are the largest that each window may choose."""

    window: int = WINDOW
    num_origins: int | None = None  # None: all
    max_factors: int = 5
    max_lags: int = 2
    max_own_lags: int = 3
    max_factor_lags: int = 2
    num_draws: int = 500
    rtol: float = 1e-3
    max_steps: int = 15  # of the alternation between panel and model
    inner_steps: int = 10
    batch_size: int = 1
    padding: Padding = "class"  # "largest" compiles sooner, see select_model
    seed: int = 0
    packaged: bool = False  # only data that ship inside packages
    data: str | None = None
    out: str = "sp500"


QUICK = Config(
    num_origins=12,
    max_factors=2,
    max_lags=1,
    max_own_lags=2,
    max_factor_lags=1,
    num_draws=60,
    max_steps=4,
    batch_size=4,
    padding="largest",
    packaged=True,
)
# Backtests by name: whether the incomplete series are in the panel, whether residuals are scaled.
BACKTESTS = {"all": (True, False), "complete": (False, False), "scaled": (False, True)}


def arx_model(config: Config, *, two_step: bool, scaled: bool) -> FactorARX:
    """The model of every window. Incomplete series are rebuilt as in the source, with the variance
    of what is rebuilt; without them the panel is read as it is."""
    method = jaxfc.EM(rtol=config.rtol)
    if two_step:
        method = jaxfc.TwoStepEM(
            restart=False,
            conditional_cov=True,
            max_steps=config.max_steps,
            inner=jaxfc.EM(rtol=config.rtol, max_steps=config.inner_steps),
        )
    intervals = Trajectories(config.num_draws)
    if scaled:
        intervals = Trajectories(config.num_draws, residuals=VolatilityScaled(empirical=True))
    return FactorARX(
        TARGET,
        jaxfc.DynamicFactorModel(config.max_factors, config.max_lags, method=method),
        config.max_own_lags,
        config.max_factor_lags,
        selection=SizeSelection(padding=config.padding),
        intervals=intervals,
    )


def panel_of(config: Config, name: str) -> IndexPanel:
    """The data of a backtest."""
    incomplete = BACKTESTS[name][0]
    if config.packaged:
        return index_panel(incomplete=incomplete)
    return returns_panel(config.data, incomplete=incomplete)


def origins_of(config: Config) -> jaxfc.Rolling:
    """All origins, or the last so many."""
    return jaxfc.Rolling(config.window, num_origins=config.num_origins)


def run_backtest(config: Config, name: str) -> Backtest:
    """One backtest, gone on with where it was stopped."""
    incomplete, scaled = BACKTESTS[name]
    folder = Path(config.out) / name
    model = arx_model(config, two_step=incomplete, scaled=scaled)
    done = jaxfc.backtest(
        model,
        panel_of(config, name).panel,
        origins_of(config),
        batch_size=config.batch_size,
        store=folder / "store",
        key=jax.random.key(config.seed),
    )
    done.save(folder / "backtest")
    return done


def run(config: Config, only: str | None = None) -> dict[str, Backtest]:
    """The backtests, then tables and answers from all of them."""
    names = list(BACKTESTS) if only is None else [only]
    done = {name: run_backtest(config, name) for name in names}
    if only is None:
        data = panel_of(config, "all")
        write_answers(done, data, Path(config.out), window=config.window, seed=config.seed)
    return done


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", default=None)
    parser.add_argument("--out", default=None)
    parser.add_argument("--only", choices=list(BACKTESTS), default=None)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    config = QUICK if given.quick else Config()
    config = dataclasses.replace(config, data=given.data, out=given.out or config.out)
    run(config, given.only)


if __name__ == "__main__":
    main()
