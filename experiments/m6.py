"""The M6 competition replayed: 12 submissions and the pilot, each from what was known at its date.

    python -m experiments.m6 [--quick] [--only NAME ...] [--folder FOLDER] [--out FOLDER]

Every forecaster gets the four-week periods up to the start of a round and is scored as the
organisers score: RPS of quintile probabilities of all 100 assets, information ratio of daily
returns of portfolios that are made from the same draws. An asset that was taken over before a round
began returns zero in every draw. Lines of `scores.csv` are kept as they are made, so that a killed
run goes on; `rounds.csv`, `equal_weights.csv`, `portfolios.csv` and `answers.md` are written from
all, and keep the forecasters that an earlier run of the same settings left there. Runs in float64.
"""

import dataclasses
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.m6_answers import replay_answers
from experiments.m6_baselines import Forecaster, Law, baselines, key_of
from experiments.m6_batch import batch_forecasters
from experiments.m6_command import checked_folder, chosen, with_earlier
from experiments.m6_data import DELISTED, ROUND_ENDS, Assets, m6_assets, official_prices
from experiments.m6_models import m6_forecasters
from jaxfc.evaluation.rank_scores import (
    information_ratio,
    mean_ranked_probability_score,
    quantile_classes,
    rank_probabilities,
)
from jaxfc.trading.portfolio_limits import Limits
from jaxfc.trading.portfolio_weights import (
    KellyPortfolio,
    MeanVariance,
    MinimumVariance,
    PortfolioRule,
    RiskParity,
)

WINNER_RPS = 0.15645
PERIODS_BEFORE = 222  # from 2005 to the pilot: later windows are as long and compile no more
ROUNDS = ("pilot", *(f"round {i}" for i in range(1, 13)))
PERIODS = {
    **{name: (i, i + 1) for i, name in enumerate(ROUNDS)},
    **{f"quarter {q}": (3 * q - 2, 3 * q + 1) for q in range(1, 5)},
    "all rounds": (1, 13),
}  # first round, and the one after the last
PUBLISHED_IRS = {
    **{"pilot": -1.9614021234064, "round 1": 3.9903564609733, "round 2": -5.9722173226963},
    **{"round 3": 1.2145320363376, "round 4": -4.1388868911261, "round 5": 0.5773235167058},
    **{"round 6": 6.0600597491225, "round 7": -5.2729971072543, "round 8": -4.8344538836069},
    **{"round 9": 7.8388772064327, "round 10": -0.0172969537949, "round 11": 0.5700101716407},
    **{"round 12": 5.1218135718675, "quarter 1": -0.0535575574803, "quarter 2": -0.6266772403319},
    **{"quarter 3": -1.9005861782153, "quarter 4": 4.7232275769016, "all rounds": 0.4534698057912},
}  # of the benchmark, 0.01 in each asset (the organisers' workbook)
RULES = ("minimum variance", "risk parity", "mean-variance", "Kelly")


@dataclasses.dataclass(frozen=True)
class Config:
    """Draws of the forecasts, and of them those that portfolios are made from. The noise of the
    draws in a common factor is most of that of a mean RPS: about 1e-4 with 20,000."""

    num_draws: int = 40_000
    num_draws_of_portfolios: int = 4000
    rounds: tuple[int, ...] = tuple(range(13))
    rules: tuple[str, ...] = RULES
    only: tuple[str, ...] = ()  # names of forecasters; none: all
    batch: bool = False  # all rounds of the M6 model in one program
    seed: int = 6
    folder: str | None = None
    out: str = "m6"


QUICK = Config(num_draws=2000, num_draws_of_portfolios=500, only=("PCA-1", "independent"))


def daily_returns(prices: pd.DataFrame, first: int, stop: int) -> pd.DataFrame:
    """Simple returns of the days of rounds `first`..`stop` - 1; no trade is no return."""
    carried = prices.ffill()
    days = carried / carried.shift(1) - 1.0
    inside = (days.index > ROUND_ENDS[first]) & (days.index <= ROUND_ENDS[stop])
    return days[inside]


def equal_weights(prices: pd.DataFrame) -> pd.DataFrame:
    """Information ratios of 0.01 in each asset beside the published ones."""
    weights = np.full(prices.shape[1], 0.01)
    lines = []
    for name, (first, stop) in PERIODS.items():
        days = daily_returns(prices, first, stop)
        ratio = float(information_ratio(days.to_numpy(), weights))
        lines.append((name, ratio, abs(ratio - PUBLISHED_IRS[name])))
    return pd.DataFrame(lines, columns=pd.Index(["period", "information ratio", "distance"]))


def submitted(law: Law, names: list[str], origin: pd.Timestamp) -> np.ndarray:
    """The draws, with zero for the assets that were taken over before the origin."""
    draws = law.draws.copy()
    for name, day in DELISTED.items():
        if origin >= day and name in names:
            draws[:, names.index(name)] = 0.0
    return draws


def round_rps(draws: np.ndarray, realised: np.ndarray) -> float:
    """The organisers' score of a round."""
    return float(rank_score(draws, realised))


@jax.jit
def rank_score(draws: jax.Array, realised: jax.Array) -> jax.Array:
    """The mean over the assets."""
    return mean_ranked_probability_score(rank_probabilities(draws), quantile_classes(realised))


def portfolio_rules(names: tuple[str, ...]) -> dict[str, PortfolioRule]:
    """Those of `RULES` by name: long, and no less invested than the organisers ask for."""
    invested = Limits(gross=None, net=(0.25, 1.0))
    made = MinimumVariance(), RiskParity(), MeanVariance(5.0, invested)
    known = dict(zip(RULES, (*made, KellyPortfolio(limits=invested)), strict=True))
    return {name: known[name] for name in names}


def portfolio(rule: PortfolioRule, draws: np.ndarray) -> np.ndarray:
    """Weights of all assets, NaN if the rule finds none; what never moves gets none."""
    moving = np.std(draws, axis=0) > 0.0
    weights = np.zeros(draws.shape[1])
    with jax.default_device(jax.devices("cpu")[0]):  # many short steps: an accelerator is slower
        weights[moving] = np.asarray(found_weights(rule, jnp.asarray(draws[:, moving])))
    return weights


@eqx.filter_jit
def found_weights(rule: PortfolioRule, draws: jax.Array) -> jax.Array:
    """The weights of a rule, compiled once for each number of assets."""
    return rule.weights(draws)


def one_round(
    assets: Assets,
    prices: pd.DataFrame,
    place: int,
    name: str,
    forecaster: Forecaster,
    config: Config,
) -> dict[str, object]:
    """The line of a forecaster in a round: RPS, and of every portfolio the days' log returns, their
    sum and that of their squares, from which ratios of any rounds together follow."""
    origin, end = ROUND_ENDS[place], ROUND_ENDS[place + 1]
    panel = assets.known_at(origin).panel(assets.names)
    start = time.process_time()
    law = forecaster(panel, key_of(config.seed, name, place))
    seconds = time.process_time() - start
    draws = submitted(law, assets.names, origin)
    closes = prices.ffill()
    realised = (closes.loc[end] / closes.loc[origin] - 1.0).to_numpy()
    line: dict[str, object] = {"round": ROUNDS[place], "forecaster": name}
    line |= {"RPS": round_rps(draws, realised), "seconds": seconds, **law.noted()}
    few = draws[: config.num_draws_of_portfolios]
    if law.mean is not None:  # no noise of draws in means that are known
        few = few - few.mean(axis=0) + submitted(Law(law.mean[None]), assets.names, origin)
    days = daily_returns(prices, place, place + 1).to_numpy()
    line["days"] = len(days)
    for rule_name, rule in portfolio_rules(config.rules).items():
        logs = np.log1p(days @ portfolio(rule, few))
        line |= {f"sum {rule_name}": np.sum(logs), f"squares {rule_name}": np.sum(logs**2)}
    return line


def portfolio_ratios(lines: pd.DataFrame) -> pd.DataFrame:
    """Information ratios by forecaster and rule: of each round, and of rounds 1 to 12 together."""
    found = []
    for name in dict.fromkeys(lines["forecaster"]):
        own = lines[lines["forecaster"] == name].set_index("round")
        whole = own.drop("pilot", errors="ignore").sum(numeric_only=True, skipna=False)
        for rule in [name for name in RULES if f"sum {name}" in own]:
            ratios = {label: ratio_of(own.loc[label], rule) for label in own.index}
            row = {"forecaster": name, "portfolio": rule, "all rounds": ratio_of(whole, rule)}
            found.append({**row, **ratios})
    return pd.DataFrame(found)


def ratio_of(line: pd.Series, rule: str) -> float:
    """S / sd from the sum S, the squares and the number of days."""
    total, squares, days = line[f"sum {rule}"], line[f"squares {rule}"], line["days"]
    return float(total / np.sqrt((squares - total**2 / days) / (days - 1)))


def forecasters_of(assets: Assets, config: Config) -> dict[str, Forecaster]:
    """Those that were asked for, in their order."""
    known = baselines(config.num_draws)
    if config.batch:
        panels = [assets.known_at(ROUND_ENDS[i]).panel(assets.names) for i in config.rounds]
        windows = [panel.window(panel.num_times - PERIODS_BEFORE, None) for panel in panels]
        known |= batch_forecasters(
            assets.classes,
            windows,
            config.num_draws,
            only=config.only,
            keys=lambda name: [key_of(config.seed, name, i) for i in config.rounds],
        )
    else:
        known |= m6_forecasters(assets.classes, PERIODS_BEFORE, config.num_draws)
    unknown = [name for name in config.only if name not in known]
    if unknown:
        raise ValueError(f"unknown forecasters {unknown}; there are {list(known)}.")
    return {name: known[name] for name in config.only or known}


SETTINGS = ("num_draws", "num_draws_of_portfolios", "rounds", "rules", "seed")


def run(config: Config) -> pd.DataFrame:
    """RPS by round (rows) and forecaster; writes the tables and the answers."""
    folder = checked_folder(config, SETTINGS)
    path = folder / "scores.csv"
    assets = m6_assets(config.folder)
    prices = official_prices(config.folder)[assets.names]
    lines = pd.read_csv(path) if path.exists() else pd.DataFrame()
    done = set() if lines.empty else set(zip(lines["round"], lines["forecaster"], strict=True))
    for name, forecaster in forecasters_of(assets, config).items():
        for place in config.rounds:
            if (ROUNDS[place], name) in done:
                continue
            line = pd.DataFrame([one_round(assets, prices, place, name, forecaster, config)])
            line.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.10g")
        print(f"{name}: {len(config.rounds)} rounds", flush=True)
    return written(pd.read_csv(path), equal_weights(prices), folder)


def written(lines: pd.DataFrame, equal: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The tables, kept in the folder."""
    order = list(dict.fromkeys(lines["forecaster"]))
    rounds = lines.pivot(index="round", columns="forecaster", values="RPS")[order]
    rounds = rounds.loc[[name for name in ROUNDS if name in rounds.index]]
    if (path := folder / "rounds.csv").exists():
        earlier = pd.read_csv(path, index_col="round")
        rounds = pd.concat([earlier[earlier.columns.difference(order, sort=False)], rounds], axis=1)
    rounds = rounds.reset_index()
    ratios = with_earlier(portfolio_ratios(lines), folder / "portfolios.csv")
    for name, table in (("rounds", rounds), ("equal_weights", equal), ("portfolios", ratios)):
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.8g")
    (folder / "answers.md").write_text(replay_answers(rounds, ratios, equal, WINNER_RPS))
    return rounds


def main() -> None:
    """Read the command line and run."""
    run(chosen(__doc__, Config(), QUICK))


if __name__ == "__main__":
    main()
