"""Out-of-sample accuracy of reconciled forecasts, ours and hierarchicalforecast's.

    python -m experiments.hierarchies [--quick] [--data FOLDER] [--base FOLDER] [--out FOLDER]

Every method gets the same base forecasts. Two parts. "split": the last season of the four public
benchmarks, forecast once, as the published figures of hierarchicalforecast's baselines are made;
with its AutoARIMA base forecasts if --base holds them (`hierarchies_base.py` makes them), and with
an autoregression. "rolling": windows of fixed length, re-estimated at every origin,
autoregressions, with Diebold-Mariano tests against the base forecasts; also weekly returns of
stocks, sectors and a market with drifting weights.
"""

import argparse
import dataclasses
import functools
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.hierarchies_base import Base, autoregression, saved
from experiments.hierarchies_data import BENCHMARKS, STOCKS, World, load
from experiments.hierarchies_methods import (
    OURS,
    PEER,
    TWINS,
    Law,
    base_law,
    our_laws,
    peer_laws,
)
from experiments.hierarchies_tables import answers
from jaxfc.evaluation import (
    crps_gaussian,
    diebold_mariano,
    energy_score,
    joint_log_score,
    scaled_crps,
)
from jaxfc.evaluation.hierarchy_scores import level_nodes, squared_scale

BASE = "base"
# The levels of hierarchicalforecast's baselines: 0, 2, .., 98 %, so that the median counts twice.
PROBABILITIES = np.sort(np.concatenate([0.5 - np.arange(50) / 100, 0.5 + np.arange(50) / 100]))

# Fewer origins than so many horizons, whose outcomes overlap, leave nothing to test.
FEWEST_SEASONS = 5
NUM_SHIFTS = 10
OUR_NAMES = {theirs: ours for ours, theirs in TWINS.items()}


@dataclasses.dataclass(frozen=True)
class Config:
    """Data sets of the rolling part, its largest number of origins (the last ones, evenly
    spaced), draws of the energy score, and folders."""

    worlds: tuple[str, ...] = (*BENCHMARKS, STOCKS)
    splits: tuple[str, ...] = BENCHMARKS
    max_origins: int = 65
    max_origins_of_returns: int = 600
    num_draws: int = 100
    seed: int = 7
    data: str | None = None
    base: str | None = None
    out: str = "hierarchies"


QUICK = Config(
    worlds=(STOCKS,),
    splits=("tourismsmall",),
    max_origins_of_returns=10,
    num_draws=20,
)


@dataclasses.dataclass
class Record:
    """What came out of one method at every origin: (origins, horizon, nodes), scores (origins,)."""

    mean: list[np.ndarray] = dataclasses.field(default_factory=list)
    std: list[np.ndarray] = dataclasses.field(default_factory=list)
    energy: list[float] = dataclasses.field(default_factory=list)
    log_score: list[float] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def add(self, law: Law, realised: np.ndarray, scale: np.ndarray, split: int, noise: np.ndarray):
        """Keep what an origin gave; the energy score is of nodes in units of their scale."""
        self.mean.append(law.mean)
        self.std.append(law.std)
        energy, log_score = np.nan, np.nan
        if law.factors is not None:
            # Row by row of the horizon: noise (horizon, draws, columns).
            draws = np.swapaxes(noise @ np.swapaxes(law.factors, 1, 2), 0, 1) + law.mean
            unit = np.sqrt(scale)
            energy = float(np.mean(joint_energy(draws / unit, realised / unit)))
            if law.regular:
                low = law.factors[:, split:]
                cov = low @ np.swapaxes(low, 1, 2)
                log_score = float(
                    np.mean(bottom_score(law.mean[:, split:], cov, realised[:, split:]))
                )
        self.energy.append(energy)
        self.log_score.append(log_score)


# A few shifts of the draws are unbiased, too, and all draws are the same for all methods.
joint_energy = jax.jit(functools.partial(energy_score, num_shifts=NUM_SHIFTS))
bottom_score = jax.jit(joint_log_score)


def fitted_base(world: World, origin: int, window: int) -> Base:
    """The autoregressions of all nodes from the window before an origin."""
    spec = world.spec
    rows = world.values[origin - window : origin]
    return autoregression(rows, spec.horizon, spec.order, spec.period, spec.differences)


def evaluate(
    world: World, bases: dict[int, Base], config: Config
) -> tuple[dict[tuple[str, str], Record], np.ndarray, np.ndarray]:
    """Every method at every origin; what was realised (origins, horizon, nodes) and the squared
    scales (origins, nodes)."""
    records: dict[tuple[str, str], Record] = defaultdict(Record)
    outcomes, scales = [], []
    split = len(world.hierarchy.aggregates)
    rng = np.random.default_rng(config.seed)
    for origin, base in bases.items():
        hierarchy = world.at(origin)
        realised = world.values[origin : origin + world.spec.horizon]
        history = jnp.asarray(base.history)
        scale = np.asarray(squared_scale(history, "zero" if world.spec.returns else "naive"))
        noise = rng.normal(size=(world.spec.horizon, config.num_draws, base.mean.shape[1]))
        outcomes.append(realised)
        scales.append(scale)
        law = base_law(base)
        records[OURS, BASE].add(law, realised, scale, split, noise)
        made = [(OURS, *pair) for pair in our_laws(world, base, law, hierarchy)]
        made += [(PEER, *pair) for pair in peer_laws(world, base, hierarchy)]
        for package, name, found in made:
            if isinstance(found, Exception):
                records[package, name].errors.append(f"{type(found).__name__}: {found}")
            else:
                records[package, name].add(found, realised, scale, split, noise)
    return records, np.array(outcomes), np.array(scales)


def score(
    world: World, part: str, source: str, bases: dict[int, Base], config: Config
) -> pd.DataFrame:
    """One line for each method: scores by level and of all, tests against the base forecasts."""
    records, outcomes, scales = evaluate(world, bases, config)
    levels = {k: v for k, v in level_nodes(world.hierarchy).items() if k != "all"}
    losses = {
        key: level_losses(np.array(record.mean), outcomes, scales, levels)
        for key, record in records.items()
        if not record.errors
    }
    naive = np.array([world.values[origin - 1] for origin in bases])[:, None]
    lines = []
    for (package, method), record in records.items():
        line = {"data": world.name, "part": part, "base": source, "origins": len(bases)}
        line |= {"package": package, "method": method}
        if record.errors:
            lines.append({**line, "failed": len(record.errors), "error": record.errors[0]})
            continue
        own = losses[package, method]
        line |= {f"RMSSE {name}": np.sqrt(np.mean(loss)) for name, loss in own.items()}
        line |= probabilistic(record, outcomes, scales)
        if world.spec.returns:
            line["sCRPS"] = np.nan  # a sum of |returns| scales nothing
        mean = np.array(record.mean)
        line["relative MSE"] = np.mean((mean - outcomes) ** 2) / np.mean((naive - outcomes) ** 2)
        twin = records.get((OURS, OUR_NAMES.get(method, "")))
        if package == PEER and twin is not None and not twin.errors:
            gap = np.abs(mean - np.array(twin.mean)) / np.sqrt(scales)[:, None]
            line["gap"] = np.max(gap)
        if len(bases) >= FEWEST_SEASONS * world.spec.horizon and method != BASE:
            line |= tests(own, losses[OURS, BASE], world.spec.horizon)
        lines.append({**line, "failed": 0})
    return pd.DataFrame(lines)


def level_losses(
    mean: np.ndarray, outcomes: np.ndarray, scales: np.ndarray, levels: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Mean squared scaled errors of each origin by level, and "all": their mean over levels."""
    errors = np.mean((mean - outcomes) ** 2, axis=1) / scales
    found = {name: np.mean(errors[:, nodes], axis=1) for name, nodes in levels.items()}
    return {**found, "all": np.mean(list(found.values()), axis=0)}


def probabilistic(record: Record, outcomes: np.ndarray, scales: np.ndarray) -> dict[str, float]:
    """Mean CRPS in units of the scale, sCRPS of all nodes, energy and log scores."""
    mean, std = np.array(record.mean), np.array(record.std)
    scores = {"energy": np.mean(record.energy), "log score": np.mean(record.log_score)}
    if not np.all(np.isfinite(std)):
        return {**scores, "CRPS": np.nan, "sCRPS": np.nan}
    # A node that a method knows for certain (no variance) scores its absolute error.
    std = np.maximum(std, 1e-12 * np.sqrt(scales)[:, None])
    crps = np.asarray(crps_gaussian(jnp.asarray(mean), jnp.asarray(std), jnp.asarray(outcomes)))
    normal = np.asarray(jax.scipy.special.ndtri(PROBABILITIES))
    cells = (-1, mean.shape[-1])
    quantiles = mean.reshape(cells) + normal[:, None, None] * std.reshape(cells)
    scores["CRPS"] = np.mean(crps / np.sqrt(scales)[:, None])
    scores["sCRPS"] = float(scaled_crps(quantiles, PROBABILITIES, outcomes.reshape(cells)))
    return scores


def tests(
    own: dict[str, np.ndarray], benchmark: dict[str, np.ndarray], horizon: int
) -> dict[str, float]:
    """Diebold-Mariano statistics and two-sided p-values, by level; negative: better than base."""
    names = list(own)
    found = diebold_mariano(
        np.stack([own[name] for name in names], axis=1),
        np.stack([benchmark[name] for name in names], axis=1),
        horizon=horizon,
        kernel="bartlett" if horizon > 1 else "rectangular",
    )
    statistics = {f"DM {n}": float(s) for n, s in zip(names, found.statistic, strict=True)}
    return {**statistics, **{f"p {n}": float(p) for n, p in zip(names, found.p_value, strict=True)}}


def split_bases(world: World, config: Config) -> dict[str, Base]:
    """Base forecasts of the last season, by who made them."""
    origin = len(world.values) - world.spec.horizon
    found = {"autoregression": fitted_base(world, origin, origin)}
    path = Path(config.base or "") / f"{world.name}.npz"
    if config.base and path.exists():
        with np.load(path) as stored:
            columns = world.columns_of(stored["names"].tolist())
        found["AutoARIMA"] = saved(path, world.values[:origin], columns)
    return found


def rolling_origins(world: World, config: Config) -> list[int]:
    """First dates that are forecast: the last ones, evenly spaced."""
    first, last = world.spec.window, len(world.values) - world.spec.horizon
    most = config.max_origins_of_returns if world.spec.returns else config.max_origins
    count = min(most, last - first + 1)
    step = max((last - first) // count, 1)
    return list(range(last, first - 1, -step))[:count][::-1]


def run(config: Config) -> pd.DataFrame:
    """The table of all methods; written with the answers to `config.out`."""
    parts: list[pd.DataFrame] = []
    for name in dict.fromkeys((*config.splits, *config.worlds)):
        world = load(name, config.data)
        if name in config.splits:
            origin = len(world.values) - world.spec.horizon
            for source, base in split_bases(world, config).items():
                parts.append(score(world, "split", source, {origin: base}, config))
                write(parts, config, f"{name}: split, {source}")
        if name in config.worlds:
            origins = rolling_origins(world, config)
            bases = {o: fitted_base(world, o, world.spec.window) for o in origins}
            parts.append(score(world, "rolling", "autoregression", bases, config))
            write(parts, config, f"{name}: {len(origins)} origins")
    return pd.concat(parts, ignore_index=True)


def write(parts: list[pd.DataFrame], config: Config, news: str) -> None:
    """Everything there is so far, so that a run can be stopped."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.concat(parts, ignore_index=True)
    table.to_csv(folder / "table.csv", index=False, float_format="%.6g")
    (folder / "answers.md").write_text("\n\n".join(answers(table)) + "\n")
    print(news, flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few origins of two data sets")
    parser.add_argument("--data", help="the folder of real data")
    parser.add_argument("--base", help="the folder of saved AutoARIMA forecasts")
    parser.add_argument("--out", help="the folder of the table and the answers")
    options = parser.parse_args()
    chosen = QUICK if options.quick else Config()
    given = {k: v for k, v in vars(options).items() if k != "quick" and v is not None}
    jax.config.update("jax_enable_x64", True)
    run(dataclasses.replace(chosen, **given))


if __name__ == "__main__":
    main()
