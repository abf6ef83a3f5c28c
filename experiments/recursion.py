"""Does recursion help to forecast? Small networks against simple models and the exact answer.

    python -m experiments.recursion [--quick | --full] [--world A|B] [--out FOLDER] [--minutes M]

Daily returns of eight assets are simulated in two worlds (`recursion_worlds`). From `size` days,
the last of which are held back from every model for the early stopping of the networks, each model
forecasts the same test days one step ahead. The score is the Gaussian negative log-likelihood in
nats per asset and day, lower is better. In world A the exact Bayes filter gives the smallest
expected score that there is; in world B what is known only with the hidden volatility and regime of
the same day is a bound that no forecast reaches.

Networks have about equal numbers of parameters, and the same optimiser, steps and batches; the
numbers are those of float32. All paths and seeds of a network are one compiled program, which
serves all sizes and both worlds. Scores of each cell (world, size, model) go to `scores.csv` as
they are made, so that a killed run goes on where it stopped; with `--minutes` no cell is begun
later. A cell that is there with fewer seeds counts as done: `--full --seeds 1` fills a study on a
processor. `table.csv`, `pairs.csv` and `answers.md` are made from all cells that there are.

The default takes a part of the paths and one size, for two cores; `--full` is the whole study, for
an accelerator.
"""

import argparse
import dataclasses
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.recursion_answers import CELL, file_name, write_tables
from experiments.recursion_config import FULL, QUICK, WORLDS, Config, check_settings
from experiments.recursion_models import (
    NETWORKS,
    Anchor,
    Span,
    chain_mixture,
    constant_anchor,
    estimated_chain,
    regime_model,
    weighted_anchor,
)
from experiments.recursion_training import Scores, trained_and_scored
from experiments.recursion_worlds import (
    NUM_ASSETS,
    filtered_mixture,
    make_world,
    normal_loss,
    simulate,
)
from experiments.recursion_worlds import Path as World_Path
from jaxfc.batching import numbered_keys
from jaxfc.typing import Array

COLUMNS = [*CELL, "path", "seed", "score", "held_back", "diverged", "variation"]


class Study:
    """A run: its paths, its programs (compiled in threads, ahead of their use) and its files."""

    def __init__(self, config: Config):
        self.config = config
        self.folder = Path(config.out)
        (self.folder / "daily").mkdir(parents=True, exist_ok=True)
        check_settings(config, self.folder / "settings.json")
        self.on_accelerator = jax.default_backend() != "cpu"
        self.implementation = "parallel" if self.on_accelerator else "sequential"
        self.started = time.monotonic()
        self.pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2))
        self.programs: dict[str, Future] = {}
        self.taken: dict[str, float] = {}
        scored = self.folder / "scores.csv"
        done = pd.read_csv(scored) if scored.exists() else pd.DataFrame()
        self.done = set() if done.empty else set(map(tuple, done[CELL].to_numpy()))

    def seconds_left(self) -> float:
        """Until no further cell is begun."""
        if self.config.minutes is None:
            return float("inf")
        return 60.0 * self.config.minutes - (time.monotonic() - self.started)

    def keys(self, name: str, *shape: int) -> Array:
        """Keys that depend on what they are for and their number alone."""
        key = jax.random.key(self.config.seed)
        for letter in name.encode():
            key = jax.random.fold_in(key, letter)
        keys = numbered_keys(key, shape[0])
        return keys if len(shape) == 1 else jax.vmap(lambda k: numbered_keys(k, shape[1]))(keys)

    def paths(self, world: str) -> World_Path:
        """All paths of a world."""
        keys = self.keys(f"paths of {world}", self.config.num_paths)
        draw = lambda key: simulate(make_world(world), self.config.num_days, key=key)  # noqa: E731
        return jax.jit(jax.vmap(draw))(keys)

    def compile_ahead(self, values: Array, anchor: Anchor, span: Span) -> None:
        """Asks for the programs of all networks; their shapes are those of any cell."""
        config = self.config
        keys = self.keys("networks", config.num_paths, config.num_seeds)
        for name in config.models:
            if name in self.programs or all(
                (world, size, name) in self.done for world in config.worlds for size in config.sizes
            ):
                continue
            run = trained_and_scored(
                NETWORKS[name],
                config.training(),
                window=config.window,
                held_back=config.held_back,
                test_days=config.test_days,
                together=self.on_accelerator,
            )
            given = values, anchor, span, keys
            self.programs[name] = self.pool.submit(compiled, run, given)

    def record(
        self, world: str, size: int, model: str, daily: np.ndarray, rows: pd.DataFrame
    ) -> None:
        """Scores by path and seed, and the daily losses by path."""
        np.save(self.folder / "daily" / f"{file_name(world, size, model)}.npy", daily)
        rows = rows.assign(world=world, size=size, model=model).reindex(columns=COLUMNS)
        append(self.folder / "scores.csv", rows)
        self.done.add((world, size, model))
        print(f"{world} {size} {model}: {rows['score'].mean():.4f}", flush=True)


def compiled(run: Any, given: tuple) -> Any:
    """The program for arguments like these."""
    return jax.jit(run).lower(*given).compile()


def append(path: Path, rows: pd.DataFrame) -> None:
    """More lines of a table."""
    rows.to_csv(path, mode="a", header=not path.exists(), index=False, float_format="%.8g")


def score_baselines(study: Study, world: str, size: int, path: World_Path) -> dict[str, Anchor]:
    """Scores of the models without a network and of the bound; the anchors of the networks."""
    config, implementation = study.config, study.implementation
    values, span = path.values, config.span(size)
    first, split, stop = config.bounds(size)
    over = partial(jax.vmap, in_axes=(0, None))
    anchors = {
        "constant": jax.jit(over(constant_anchor))(values, span),
        "EWMA": jax.jit(over(weighted_anchor))(values, span),
    }
    model = regime_model(config.num_regimes, implementation)
    chains = jax.jit(jax.vmap(partial(estimated_chain, model)))(values[:, first:split])
    mixture = partial(chain_mixture, implementation=implementation)
    found = jax.jit(jax.vmap(mixture))(values, chains)
    anchors["HMM"] = Anchor(found.means, found.stds)
    laws = dict(anchors)
    losses = {"HMM, mixture density": -found.log_densities}
    if world == "A":
        true = make_world("A")
        law = true.stationary, true.transition, true.means, true.covs
        exact = jax.jit(jax.vmap(lambda v: filtered_mixture(v, *law, implementation)))(values)
        laws["exact Bayes filter"] = Anchor(exact.means, exact.stds)
        losses["exact Bayes filter, mixture density"] = -exact.log_densities
    else:
        laws["true moments"] = Anchor(path.means, path.stds)
    losses |= {name: normal_loss(values, *law) for name, law in laws.items()}
    for name, loss in losses.items():
        if (world, size, name) not in study.done:
            daily = np.asarray(jnp.mean(loss[:, stop:], axis=2))
            rows = pd.DataFrame({"path": range(len(daily)), "seed": 0, "score": daily.mean(axis=1)})
            study.record(world, size, name, daily, rows)
    return anchors


def score_network(
    study: Study, world: str, size: int, name: str, path: World_Path, anchors: dict[str, Anchor]
) -> None:
    """Trains and scores a network on all paths from all seeds."""
    config, anchor = study.config, NETWORKS[name].anchor
    waiting = time.monotonic()
    program = study.programs[name].result()
    begun = time.monotonic()
    keys = study.keys(f"{name} {size}", config.num_paths, config.num_seeds)
    found = program(path.values, anchors[anchor], config.span(size), keys)
    found = Scores(*(np.asarray(part) for part in found))
    study.taken[name] = time.monotonic() - begun
    steps = getattr(NETWORKS[name].architecture, "num_supervision", 1)
    places = np.indices(found.held_back.shape).reshape(2, -1)
    rows = pd.DataFrame(
        {
            "path": places[0],
            "seed": places[1],
            "score": found.by_step[:, :, steps - 1].ravel(),
            "held_back": found.held_back.ravel(),
            "diverged": found.diverged.ravel().astype(int),
            "variation": found.variation.ravel(),
        }
    )
    cell: dict[str, Any] = dict(zip(CELL, (world, size, name), strict=True))
    by_step = found.by_step.mean(axis=1)
    if by_step.shape[1] > 1:
        number = np.indices(by_step.shape).reshape(2, -1)
        curve = {"path": number[0], "step": number[1] + 1, "score": by_step.ravel()}
        append(study.folder / "thinking.csv", pd.DataFrame(curve).assign(**cell))
    cell |= {"parameters": NETWORKS[name].num_trained(config.window, NUM_ASSETS)}
    cell |= {"seconds": study.taken[name], "waited": begun - waiting}
    cell |= {"device": jax.default_backend()}
    append(study.folder / "cells.csv", pd.DataFrame([cell]))
    study.record(world, size, name, found.daily, rows)


def run(config: Config) -> pd.DataFrame:
    """All cells that are not there yet, in order of importance; writes the tables."""
    study = Study(config)
    for size in config.sizes:
        for world in config.worlds:
            left = [name for name in config.models if (world, size, name) not in study.done]
            if not left or study.seconds_left() < 0:
                continue
            path = study.paths(world)
            anchor = Anchor(path.means, path.stds)
            study.compile_ahead(path.values, anchor, config.span(size))
            anchors = score_baselines(study, world, size, path)
            for name in left:
                if study.seconds_left() > study.taken.get(name, 0.0):
                    score_network(study, world, size, name, path, anchors)
    study.pool.shutdown(wait=False, cancel_futures=True)
    return write_tables(study.folder)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three paths, few steps")
    parser.add_argument("--full", action="store_true", help="20 paths, 5 seeds, four sizes")
    parser.add_argument("--world", choices=WORLDS, help="one of the worlds")
    parser.add_argument("--sizes", nargs="+", type=int, help="days to learn from")
    parser.add_argument("--paths", type=int, dest="num_paths")
    parser.add_argument("--seeds", type=int, dest="num_seeds")
    parser.add_argument("--steps", type=int, dest="num_steps")
    parser.add_argument("--models", nargs="+", help="names of networks")
    parser.add_argument("--minutes", type=float, help="after these no cell is begun")
    parser.add_argument("--out", help="folder of the tables")
    options = vars(parser.parse_args())
    base = QUICK if options.pop("quick") else Config()
    base = FULL if options.pop("full") else base
    world = options.pop("world")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if v is not None}
    given |= {"worlds": (world,)} if world else {}
    # Products of float32 in full, as on a processor, not in the short form of accelerators.
    jax.config.update("jax_default_matmul_precision", "highest")
    run(dataclasses.replace(base, **given))


if __name__ == "__main__":
    main()
