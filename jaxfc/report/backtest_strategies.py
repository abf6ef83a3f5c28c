"""What strategies would have made of the forecasts of a backtest: paths, measures, tests."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.calendar import day_at
from jaxfc.evaluation.multiple import block_indices
from jaxfc.evaluation.sharpe import (
    SharpeDifference,
    bootstrap_sharpe_difference,
    jobson_korkie,
    sharpe_difference,
)
from jaxfc.report.backtest_data import LEVELS, OneStep, bounds_of
from jaxfc.running.backtest_result import Backtest
from jaxfc.trading import (
    CPPI,
    BuyAndHold,
    ConstantMix,
    PredictionLevel,
    Strategy,
    WealthPath,
    paths_frame,
    run_strategies,
    strategy_table,
    views_of,
)
from jaxfc.typing import Array, Float, PRNGKeyArray

BENCHMARK = "buy and hold"
LEAST_CASES = 30  # for tests of Sharpe ratios, whose laws hold in long samples
NUM_DRAWS = 499
LARGEST_TYPICAL = 0.2  # of a log return per step; more looks like percent


@dataclasses.dataclass(frozen=True, eq=False)
class Trading:
    """Paths of strategies by name, the strategies, the simple cash rate per step, and the dates."""

    paths: dict[str, WealthPath]
    strategies: dict[str, Strategy]
    cash_rate: Float[np.ndarray, " steps"]
    cost: float
    dates: pd.DatetimeIndex
    start: pd.Timestamp
    num_returns: int

    def wealth(self) -> pd.DataFrame:
        """By date: the value of 1 unit, from the first origin on."""
        table = paths_frame(self.paths, self.dates, "wealth")
        first = pd.DataFrame(1.0, index=[self.start], columns=table.columns)
        return pd.concat([first, table]).rename_axis("date")

    def exposure(self) -> pd.DataFrame:
        """By end of the step: the share of wealth held in the asset over it."""
        return paths_frame(self.paths, self.dates, "exposure").rename_axis("date")


def why_not(step: OneStep, strategies: Mapping[str, Strategy] | None, scale: float) -> str:
    """Why nothing can be traded on the forecasts; "" if it can."""
    if strategies is not None and not strategies:
        return "No strategies were asked for."
    if not step.is_consecutive:
        return (
            "Strategies need a forecast for every period: here some origins do not follow on the "
            "period before (a backtest with step=1 has them all)."
        )
    size = np.abs(scale * step.outcome[np.isfinite(step.outcome)])
    if not size.size:
        return "Strategies need realised returns, and there is none."
    if np.median(size) > LARGEST_TYPICAL:
        return (
            f"Half of the outcomes of {step.name} are beyond {np.median(size):.3g} in size, which "
            "is not what log returns per period look like; if they are in percent, give scale=0.01."
        )
    return ""


def trade(
    backtest: Backtest,
    step: OneStep,
    strategies: Mapping[str, Strategy] | None,
    *,
    cash_rate: float | Float[np.ndarray, " origins"],
    cost: float,
    scale: float,
) -> Trading:
    """Run strategies on the one-step forecasts; no trade is made where there is no usable one.

    Default: the prediction levels 50 to 90 %, a constant mix with the mean exposure of each, CPPI
    2/80 and 3/60. Buy and hold is always there.
    """
    given = {} if strategies is None else dict(strategies)
    levels = sorted({*LEVELS, *(level_of(strategy) for strategy in given.values())} - {0.0})
    lower, upper = bounds_of(backtest, step.column, levels)
    tails = 0.5 * (1.0 - np.asarray(levels))
    quantiles = np.concatenate([lower[:, ::-1], upper], axis=1)
    quantiles = np.where(step.usable[:, None], scale * quantiles, np.nan)
    view = views_of(
        jnp.asarray(quantiles),
        jnp.asarray(np.concatenate([tails[::-1], 1.0 - tails])),
        mean=jnp.asarray(scale * step.mean),
        std=jnp.asarray(scale * step.std),
    )
    returns = scale * step.outcome
    rates = np.broadcast_to(np.asarray(cash_rate, float), returns.shape)
    options = {"cash_rate": jnp.asarray(rates), "cost": cost}
    if strategies is None:
        own = {f"PL {level:.0%}": PredictionLevel(level) for level in LEVELS}
        paths = run_strategies(own, returns, view, **options)
        counted = np.isfinite(returns)
        given = {
            **own,
            **{
                f"mix as {name}": ConstantMix(float(path.exposure[counted].mean()))
                for name, path in paths.items()
            },
            "CPPI 2/80": CPPI(2.0, 0.8),
            "CPPI 3/60": CPPI(3.0, 0.6),
        }
    given.setdefault(BENCHMARK, BuyAndHold())
    paths = run_strategies(given, returns, view, **options)
    num_returns = int(np.isfinite(returns).sum())
    start = day_at(step.origins, 0)
    return Trading(paths, given, rates, cost, step.dates, start, num_returns)


def level_of(strategy: Strategy) -> float:
    """The level of the interval that a strategy reads; 0 where it reads none."""
    return float(getattr(strategy, "level", 0.0))


def measures(trading: Trading, periods_per_year: float) -> pd.DataFrame:
    """`strategy_table` with the last wealth; Sharpe and Sortino in excess of cash."""
    rates = jnp.asarray(np.log1p(trading.cash_rate))
    table = strategy_table(trading.paths, periods_per_year=periods_per_year, risk_free=rates)
    last = [float(np.asarray(path.wealth)[-1]) for path in trading.paths.values()]
    table.insert(0, "final_wealth", last)
    return table


def sharpe_table(
    trading: Trading, periods_per_year: float, key: PRNGKeyArray | None
) -> pd.DataFrame | None:
    """By strategy: difference of its Sharpe ratio to that of buy and hold, and its p-values; None
    for too few returns.

    Ratios are per year, of simple returns in excess of cash. Tests: Ledoit and Wolf by kernel, and
    with a `key` by their bootstrap; Jobson and Korkie as corrected by Memmel.
    """
    names = [name for name in trading.paths if name != BENCHMARK]
    if trading.num_returns < LEAST_CASES or not names:
        return None
    simple = {
        name: np.expm1(np.asarray(path.log_returns)) - trading.cash_rate
        for name, path in trading.paths.items()
    }
    returns = jnp.asarray(np.stack([simple[name] for name in names]))
    benchmark = jnp.asarray(simple[BENCHMARK])
    robust, plain = kernel_tests(returns, benchmark)
    columns = {
        "difference a year": np.sqrt(periods_per_year) * np.asarray(robust.difference),
        "standard error": np.sqrt(periods_per_year) * np.asarray(robust.standard_error),
        "p (Ledoit-Wolf)": np.asarray(robust.p_value),
        "p (Jobson-Korkie-Memmel)": np.asarray(plain.p_value),
    }
    if key is not None:
        length = max(1, round(returns.shape[1] ** (1 / 3)))
        indices = block_indices(returns.shape[1], NUM_DRAWS, length, "circular", key=key)
        columns["p (bootstrap)"] = bootstrap_tests(returns, benchmark, indices, length)
    return pd.DataFrame(columns, index=pd.Index(names, name="strategy")).reset_index()


@eqx.filter_jit
def kernel_tests(returns: Array, benchmark: Array) -> tuple[SharpeDifference, SharpeDifference]:
    """The tests without draws, strategy by strategy."""
    robust = jax.vmap(lambda own: sharpe_difference(own, benchmark))(returns)
    return robust, jax.vmap(lambda own: jobson_korkie(own, benchmark))(returns)


def bootstrap_tests(
    returns: Array, benchmark: Array, indices: Array, block_length: int
) -> Float[np.ndarray, " strategies"]:
    """p-values of the bootstrap, one strategy after the other in one program."""

    @jax.jit
    def p_value(own):
        test = bootstrap_sharpe_difference(own, benchmark, indices, block_length, batch_size=100)
        return test.p_value

    return np.array([float(p_value(own)) for own in returns])
