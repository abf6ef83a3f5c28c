"""Order books of three recordings: simulators fitted to them, what explains moves, what forecasts.

    python -m experiments.order_books [--quick] [--out FOLDER] [--data FOLDER] [--minutes M]

Part "simulators": zero-intelligence, queue-reactive and Hawkes models fitted to each recording
(`order_books_simulators`, `order_books_hawkes`), and what they simulate beside what was recorded.

Part "explain": R2 of mid moves on what happened in the same interval, and of the next move on the
queues before it, on clocks from 100 ms to 5 s.

Part "forecast": direction and volatility of the next interval (`order_books_forecasts`) by two
baselines and five networks, several seeds; log loss, Diebold-Mariano against the linear network
(losses averaged over seeds, Bartlett). Each score is written as it is known: a run that was
stopped goes on where it was, and `--minutes` stops it before a fit that would begin later.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.order_books_answers import answers, compared
from experiments.order_books_data import (
    INSTRUMENTS,
    NUM_LEVELS,
    Instrument,
    Recording,
    quarantine_table,
    recording,
    write_made_up,
)
from experiments.order_books_forecasts import (
    BASELINES,
    TARGETS,
    Nets,
    baseline_losses,
    columns_of,
    model_of,
    net_program,
    split_of,
)
from experiments.order_books_hawkes import hawkes_table
from experiments.order_books_scores import OutOfTime, Scores, Tables, written
from experiments.order_books_simulators import simulator_facts
from experiments.shared_data import shared_folder


@dataclasses.dataclass(frozen=True)
class Config:
    """Recordings, clocks (seconds), sizes of the simulations, networks and seeds."""

    instruments: tuple[Instrument, ...] = INSTRUMENTS
    clocks: tuple[float, ...] = (0.1, 0.5, 1.0, 5.0)
    forecast_clocks: tuple[float, ...] = (0.1, 0.5, 1.0)
    num_distances: int = 10
    num_queues: int = 3
    num_sizes: int = 25
    num_books: int = 16
    num_events: int = 4000
    nets: Nets = dataclasses.field(default_factory=Nets)
    num_seeds: int = 5
    own_decays: tuple[bool, ...] = (False, True)  # of the Hawkes processes
    made_up: int | None = None  # orders of made-up recordings, in place of real ones
    data: str | None = None
    out: str = "order_books"
    minutes: float | None = None


MADE_UP = (Instrument("made up", "made_up.jsonl", 0.01, 1.0, 2),)
QUICK = Config(
    instruments=MADE_UP,
    clocks=(0.5, 2.0),
    forecast_clocks=(0.5,),
    num_distances=4,
    num_queues=2,
    num_sizes=6,
    num_books=4,
    num_events=400,
    nets=Nets(4, 8, num_steps=20, batch_size=16, round_length=10, names=("linear", "recursive")),
    own_decays=(False,),
    num_seeds=2,
    made_up=1500,
)


def recordings_of(config: Config) -> list[Recording]:
    """The recordings, made up ones written first."""
    if config.made_up is None:
        folder = shared_folder(config.data, "lob_crypto")
    else:
        folder = Path(config.out) / "made_up"
        folder.mkdir(parents=True, exist_ok=True)
        write_made_up(folder, config.instruments, config.made_up)
    return [recording(one, folder) for one in config.instruments]


def simulators(config: Config, recordings: list[Recording], folder: Path) -> None:
    """`facts.csv`, `parameters.csv` and `hawkes.csv`; what is there stays."""
    if (folder / "hawkes.csv").exists():
        return
    facts, parameters, laws = [], [], []
    for place, one in enumerate(recordings):
        key = jax.random.fold_in(jax.random.key(0), place)
        table, fitted = simulator_facts(
            one,
            num_distances=config.num_distances,
            num_queues=config.num_queues,
            num_sizes=config.num_sizes,
            num_books=config.num_books,
            num_events=config.num_events,
            key=key,
        )
        name = one.instrument.name
        facts.append(table.rename_axis("fact").reset_index().assign(instrument=name))
        parameters.append({"instrument": name, "grid": one.instrument.grid, **fitted})
        laws.append(hawkes_table(one, config.own_decays, key=key).assign(instrument=name))
    written(pd.concat(facts), folder / "facts.csv")
    written(pd.DataFrame(parameters), folder / "parameters.csv")
    written(pd.concat(laws), folder / "hawkes.csv")


def r_squared(target: np.ndarray, *columns: np.ndarray) -> float:
    """Share of the variance that a regression on the columns (and a constant) explains."""
    design = np.column_stack([np.ones(len(target)), *columns])
    fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return 1.0 - np.sum((target - fitted) ** 2) / np.sum((target - target.mean()) ** 2)


def explained(table: pd.DataFrame) -> dict[str, float]:
    """R2 of the moves of one clock."""
    move = table["move"].to_numpy()
    levels = table[[f"flow_{i + 1}" for i in range(NUM_LEVELS)]].to_numpy()
    column = {name: table[name].to_numpy() for name in ("flow", "trade", "imbalance", "micro")}
    later = move[1:]
    return {
        "intervals": len(table),
        "moved": float(np.mean(move != 0)),
        "best flow": r_squared(move, column["flow"]),
        "flow of 5 levels": r_squared(move, levels),
        "signed trades": r_squared(move, column["trade"]),
        "best flow and trades": r_squared(move, column["flow"], column["trade"]),
        "imbalance, next": r_squared(later, column["imbalance"][:-1]),
        "micro-price, next": r_squared(later, column["micro"][:-1]),
        "best flow, next": r_squared(later, column["flow"][:-1]),
    }


def explain(config: Config, tables: Tables, folder: Path) -> None:
    """`explain.csv`."""
    lines = [
        {"instrument": name, "clock": seconds, **explained(tables.of(seconds, place))}
        for seconds in config.clocks
        for place, name in enumerate(tables.names)
    ]
    written(pd.DataFrame(lines), folder / "explain.csv")


def forecast(config: Config, tables: Tables, scores: Scores) -> None:
    """All scores that are not known yet; each program serves all recordings, targets and seeds."""
    nets = config.nets
    for seconds in config.forecast_clocks:
        split = split_of(len(tables.of(seconds, 0)), nets.window)

        def values_of(place: int, target: str, seconds=seconds, split=split) -> np.ndarray:
            return columns_of(tables.of(seconds, place), target, split).to_numpy()

        for name in BASELINES:
            for own, place, target, _ in unknown(config, tables, scores, seconds, name, 1):
                cases = baseline_losses(name, values_of(place, target)[:, 0], split)
                scores.add(own, cases)
        for name, architecture in nets.architectures().items():
            model = model_of(architecture, nets)
            program = net_program(model, split)
            seeds = config.num_seeds
            for own, place, target, seed in unknown(config, tables, scores, seconds, name, seeds):
                values = jnp.asarray(values_of(place, target))
                begin = time.process_time()
                found = program(values, jax.random.fold_in(jax.random.key(seed), place))
                cases = np.asarray(found.cases)
                scores.add(
                    own,
                    cases,
                    validation=float(found.validation),
                    collapsed=float(found.collapsed),
                    steps=int(found.steps),
                    weights=float(found.weights),
                    seconds=time.process_time() - begin,
                )


def unknown(
    config: Config, tables: Tables, scores: Scores, seconds: float, model: str, num_seeds: int
) -> Iterator[tuple[tuple, int, str, int]]:
    """Fits of one model and clock without a score, as long as there is time."""
    for place, name in enumerate(tables.names):
        for target in TARGETS:
            for seed in range(num_seeds):
                own = (name, seconds, target, model, seed)
                if not scores.has(*own):
                    scores.check()
                    yield own, place, target, seed


def run(config: Config) -> bool:
    """All parts; whether everything is known. Writes tables and, at the end, `answers.md`."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    limit = np.inf if config.minutes is None else 60.0 * config.minutes
    scores = Scores(folder, time.process_time() + limit)
    recordings = recordings_of(config)
    written(quarantine_table(recordings), folder / "quarantine.csv")
    simulators(config, recordings, folder)
    tables = Tables(recordings, config.nets.window)
    explain(config, tables, folder)
    try:
        forecast(config, tables, scores)
    except OutOfTime:
        print(f"{len(scores.known())} scores are known; run again to go on")
        return False
    written(compared(scores.known(), scores.case_file), folder / "compared.csv")
    text = answers(folder)
    (folder / "answers.md").write_text(text)
    print(text)
    return True


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="made-up recordings, small networks")
    parser.add_argument("--out", help="folder of the tables")
    parser.add_argument("--data", help="folder that holds lob_crypto")
    parser.add_argument("--minutes", type=float, help="CPU minutes after which no fit begins")
    options = parser.parse_args()
    config = QUICK if options.quick else Config()
    given = {name: value for name, value in vars(options).items() if name != "quick"}
    given = {name: value for name, value in given.items() if value is not None}
    jax.config.update("jax_enable_x64", True)
    run(dataclasses.replace(config, **given))


if __name__ == "__main__":
    main()
