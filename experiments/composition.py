"""A whole chain against its parts: monthly minimum-variance portfolios of 20 US stocks.

    python -m experiments.composition [--quick] [--only METHOD ...] [--out FOLDER]

At the end of every 21st day the covariance of the returns of the next 21 days is forecast from the
`window` days before, and the long-only portfolio of least variance with at most `most` in a stock
is bought and held, net of `cost` per unit of traded value. Methods:

    equal weights            no covariance; the benchmark of the Sharpe ratios
    sample, shrunk, EWMA     second moments of the window; Ledoit and Wolf (2004); decay 0.97
    DCC                      GARCH of every stock, DCC, shrunk target, composite likelihood
    factors                  static factors by principal components, constant variances
    factor DCC               factors with GARCH and DCC, errors of stocks with GARCH
    chain                    factor DCC of market, sectors and stocks, shrunk correlations of the
                             errors, sums over the month, MinT in their covariance
    tuned chain, Sharpe      the chain with exponentially smoothed variances; their half-life and
    tuned chain, CRPS        the shrinkage by gradient on the months before, through the estimation

Each method writes `periods_METHOD.csv` and is not computed again where that is there; then
`table.csv` and `answers.md` are made of the methods that are there and the months they all have.
The stocks were chosen with hindsight (all survived), so that levels of returns flatter; differences
are what counts.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from experiments.composition_answers import BENCHMARK, WHOLE, answers, compared
from experiments.composition_methods import (
    QUICK,
    Config,
    Period,
    chain_of,
    laws_of,
    period_of,
    returns_of,
    seen,
)
from jaxfc.compose.held_portfolio import hold
from jaxfc.compose.portfolio_chain import origins_of
from jaxfc.compose.rolling_tuning import tune
from jaxfc.evaluation import crps_gaussian
from jaxfc.results import is_okay
from jaxfc.running import replicate
from jaxfc.typing import Array
from jaxfc.volatility import LinearShrinkage, RiskMetrics, VarianceModel, ZeroMean

METHODS = (
    *("equal weights", "sample", "shrunk", "EWMA", "DCC", "factors", "factor DCC", "chain"),
    *("tuned chain, Sharpe", "tuned chain, CRPS"),
)
# Where the search for hyperparameters begins: ln of days, logit of the intensity.
START = {"log_half_life": float(np.log(40.0)), "logit_intensity": -1.5}


def fixed_periods(config: Config, name: str, returns: pd.DataFrame) -> Period:
    """All months of a method without hyperparameters that are chosen."""
    values = jnp.asarray(returns.to_numpy())
    law = laws_of(config, list(returns.columns))[name]
    origins = origins_of(len(values), config.window, config.horizon)

    def one(origin: Array) -> Period:
        return period_of(config, law, values, origin, name == "equal weights")

    return replicate(one, origins, batch_size=config.batch_size)


def tuned_periods(
    config: Config, name: str, returns: pd.DataFrame
) -> tuple[Period, pd.DataFrame, int]:
    """Months of the chain with hyperparameters from the months before, and what these were."""
    values = jnp.asarray(returns.to_numpy())
    names = list(returns.columns)
    origins = origins_of(len(values), config.window, config.horizon)

    def outcome(theta: Any, origin: Array) -> Period:
        decay = 0.5 ** jnp.exp(-theta["log_half_life"])
        margins = VarianceModel(RiskMetrics(decay), mean=ZeroMean())
        errors = LinearShrinkage(jax.nn.sigmoid(theta["logit_intensity"]))

        def law(past: Array) -> tuple[Array, Array]:
            step = chain_of(config, names, margins, errors).step(past, seen(past))
            return step.cov, is_okay(step.result)

        return period_of(config, law, values, origin, False)

    objective = minus_sharpe if name.endswith("Sharpe") else mean_crps
    found = jax.jit(
        lambda origins: tune(
            outcome,
            START,
            origins,
            lookback=config.lookback,
            block=config.block,
            num_steps=config.num_steps,
            objective=lambda periods: objective(periods, config.cost),
            optimiser=optax.adam(config.learning_rate),
            batch_size=config.batch_size,
        )
    )(origins)
    theta = {key: np.asarray(value) for key, value in found.hyperparameters.items()}
    chosen = pd.DataFrame(
        {
            "from": returns.index[np.asarray(origins)[found.first :: config.block]],
            "half_life": np.exp(theta["log_half_life"]),
            "intensity": 1.0 / (1.0 + np.exp(-theta["logit_intensity"])),
            "loss_before": np.asarray(found.losses)[:, 0],
            "loss_after": np.asarray(found.losses)[:, -1],
        }
    )
    return found.outcomes, chosen, found.first


def minus_sharpe(periods: Period, cost: float) -> Array:
    """Minus the Sharpe ratio of the months, net of costs."""
    net = hold(periods.weights, periods.returns, cost).net
    return -jnp.mean(net) / jnp.std(net)


def mean_crps(periods: Period, cost: float) -> Array:
    """The mean CRPS of the portfolio's return in per cent, under a normal law around zero: low for
    a small variance that was foreseen."""
    del cost
    earned = jnp.sum(periods.weights * periods.returns, axis=1)
    scores = crps_gaussian(jnp.zeros_like(earned), jnp.sqrt(periods.variance), earned)
    return jnp.mean(scores) * 100.0


def table_of(config: Config, name: str, returns: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The months of a method, as they will be read back."""
    first = 0
    if name.startswith("tuned"):
        periods, chosen, first = tuned_periods(config, name, returns)
        chosen.to_csv(folder / f"hyperparameters_{slug(name)}.csv", index=False)
    else:
        periods = fixed_periods(config, name, returns)
    earned = hold(jnp.asarray(periods.weights), jnp.asarray(periods.returns), config.cost)
    origins = np.asarray(origins_of(len(returns), config.window, config.horizon))[first:]
    columns = {"date": returns.index[origins], "gross": earned.gross, "net": earned.net}
    columns["turnover"] = earned.turnover
    for field in Period._fields[2:]:
        columns[field] = getattr(periods, field)
    return pd.DataFrame({key: np.asarray(value) for key, value in columns.items()})


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return name.replace(",", "").replace(" ", "_").lower()


def settle(path: Path, config: Config) -> None:
    """Writes the settings, or refuses a folder that holds tables of other ones."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k != "out"}
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{path} has other settings; give another folder with --out.")
    path.write_text(json.dumps(settings, indent=1) + "\n")


def run(config: Config, only: tuple[str, ...] = ()) -> pd.DataFrame | None:
    """Computes what is missing; with the benchmark and the chain there, writes `table.csv` and
    `answers.md`."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    settle(folder / "settings.json", config)
    returns = returns_of(config)
    for name in only or METHODS:
        path = folder / f"periods_{slug(name)}.csv"
        if not path.exists():
            table = table_of(config, name, returns, folder)
            table.to_csv(path, index=False, float_format="%.8g")
            print(f"{name}: {len(table)} months", flush=True)
    paths = {name: folder / f"periods_{slug(name)}.csv" for name in METHODS}
    paths = {name: path for name, path in paths.items() if path.exists()}
    if not {BENCHMARK, WHOLE} <= set(paths):
        return None
    periods = {name: pd.read_csv(path, parse_dates=["date"]) for name, path in paths.items()}
    table = compared(periods, 252.0 / config.horizon)
    table.to_csv(folder / "table.csv", index=False, float_format="%.5g")
    text = answers(table, config.cost)
    (folder / "answers.md").write_text(text)
    print(text)
    return table


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="six stocks, a year")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=(), help="these methods")
    parser.add_argument("--out", help="folder of the tables")
    options = parser.parse_args()
    config = QUICK if options.quick else Config()
    if options.out is not None:
        config = dataclasses.replace(config, out=options.out)
    jax.config.update("jax_enable_x64", True)
    run(config, tuple(options.only))


if __name__ == "__main__":
    main()
