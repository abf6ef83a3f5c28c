"""Does recursion help on real data? Variances of 20 stocks, one day ahead.

    python -m experiments.recursion_real [--quick] [--seeds N] [--steps N] [--out FOLDER]

Walk-forward folds of equal length, one day purged between training and test. In every fold each
model learns from the same days (the last of which are held back for the early stopping of the
networks) and forecasts the test days one after the other with these parameters. Returns are 100
times differences of log closes of skfolio's stocks, 1990 to 2022.

Scores are Gaussian negative log-likelihoods in nats per asset and day. A network refines the
moments of its anchor. Folds and seeds of a network are one compiled program, and its losses are
kept in a file of their own, so that a killed run goes on. Diebold-Mariano tests are of the daily
losses (means over assets and seeds) of all folds, Bartlett.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.recursion_config import all_steps
from experiments.recursion_models import (
    Anchor,
    Contender,
    DecayingOnceNet,
    Span,
    constant_anchor,
    weighted_anchor,
)
from experiments.recursion_real_answers import write_real_tables
from experiments.recursion_training import Days, features_in_units, mapped
from experiments.recursion_worlds import normal_loss
from jaxfc.batching import map_in_batches, numbered_keys
from jaxfc.datasets import us_stocks
from jaxfc.evaluation import walk_forward
from jaxfc.recursive import DecayingNet, GatedNet, RecursiveNet, Training
from jaxfc.recursive.nets import Network
from jaxfc.recursive.train import train
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc.volatility import GARCH, VarianceModel, ZeroMean

RECURSION = RecursiveNet(24, "none", num_inner=3, num_cycles=2, num_supervision=4)
RECURRENCE, ONCE = DecayingNet(57), DecayingOnceNet(24)
# Widths give about 12,000 numbers each with two outputs a stock.
NETWORKS = {
    "recurrence": Contender(RECURRENCE, "constant"),
    "recurrence, recursion": Contender(RECURSION, "constant"),
    "GRU": Contender(GatedNet(38), "constant"),
    "EWMA anchor, recurrence": Contender(RECURRENCE, "EWMA"),
    "EWMA anchor, net once": Contender(ONCE, "EWMA"),
    "EWMA anchor, recursion": Contender(RECURSION, "EWMA"),
    "GARCH anchor, recurrence": Contender(RECURRENCE, "GARCH"),
    "GARCH anchor, net once": Contender(ONCE, "GARCH"),
    "GARCH anchor, recursion": Contender(RECURSION, "GARCH"),
}
SCORE_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Config:
    """Days that a fold learns from, of which `held_back` are held back, and days it tests."""

    num_stocks: int = 20
    num_folds: int | None = None  # the last ones; None: all that there are
    train_size: int = 4_000
    held_back: int = 800
    test_size: int = 800
    past: int = 250
    window: int = 32
    models: tuple[str, ...] = tuple(NETWORKS)
    num_seeds: int = 5
    num_steps: int = 1_000
    batch_size: int = 128
    learning_rate: float = 2e-3
    round_length: int = 100
    seed: int = 9
    out: str = "recursion_real"

    @property
    def split(self) -> int:
        """The first day of a fold that is held back."""
        return self.past + self.train_size - self.held_back

    @property
    def span(self) -> Span:
        """The same in every fold: one day between training and test is purged."""
        stop = self.past + self.train_size
        return Span(*(jnp.asarray(day) for day in (self.past, self.split, stop, stop + 1)))

    def training(self) -> Training:
        """All steps are taken and the best averaged weights are kept."""
        return all_steps(self.num_steps, self.batch_size, self.learning_rate, self.round_length)


QUICK = Config(
    num_stocks=4,
    num_folds=2,
    train_size=500,
    held_back=100,
    test_size=200,
    models=("GARCH anchor, recurrence", "GARCH anchor, recursion"),
    num_seeds=2,
    num_steps=20,
    round_length=10,
)


class Fold(NamedTuple):
    """The dates tested, and the returns of all days, those to look back to included."""

    dates: pd.Index
    values: np.ndarray


def folds_of(config: Config) -> list[Fold]:
    """Rolling walk-forward folds."""
    closes = us_stocks().iloc[:, : config.num_stocks]
    returns = (100.0 * np.log(closes).diff()).iloc[1:]
    # The first days are there to look back to.
    masks = walk_forward(
        len(returns) - config.past,
        train_size=config.train_size,
        test_size=config.test_size,
        horizon=1,
    )
    found = []
    for trained, tested in zip(masks.train, masks.test, strict=True):
        first, last = int(np.argmax(trained)), int(np.flatnonzero(tested)[-1])
        rows = returns.iloc[first : config.past + last + 1]
        found.append(Fold(rows.index[-config.test_size :], rows.to_numpy()))
    return found if config.num_folds is None else found[-config.num_folds :]


def variance_model(process: GARCH) -> VarianceModel:
    """Of returns around the mean of the training days, from the variance of the very first days:
    what precedes the first row would else be an average over days to come."""
    return VarianceModel(process, mean=ZeroMean(), start="arch")


def simple_laws(values: Float[Array, "time series"], first: int, split: int) -> dict[str, Anchor]:
    """Moments of every day from the days before it, with the parameters of the days from `first`
    to `split`."""
    span = Span(*(jnp.asarray(day) for day in (first, split, split, split)))
    seen = jnp.ones(values.shape, bool)

    mean = jnp.mean(values[first:split], axis=0)
    centred = values - mean

    def conditional(process: GARCH) -> Anchor:
        fitted = (
            variance_model(process)
            .estimate(centred[first:split], seen[first:split])
            .given(centred, seen)
        )
        return Anchor(jnp.broadcast_to(mean, values.shape), jnp.sqrt(fitted.filtered().past))

    return {
        "constant": constant_anchor(values, span),
        "EWMA": weighted_anchor(values, span),
        "GARCH": conditional(GARCH()),
        "asymmetric GARCH": conditional(GARCH(num_asymmetric=1)),
    }


class Predicted(NamedTuple):
    """Losses per asset of the test days of all folds and seeds; whether training diverged."""

    losses: Float[Array, "*batch days"]
    diverged: Bool[Array, "*batch"]


def trained_and_predicted(
    contender: Contender, config: Config, *, together: bool
) -> Callable[[tuple[Array, Anchor, Array]], Predicted]:
    """The program: values (folds, time, series), an anchor of each, keys (folds, seeds)."""

    def one_fold(given: tuple[Array, Anchor, Array]) -> Predicted:
        values, anchor, keys = given
        span = config.span
        features = features_in_units(values, span)

        def days(first: Array, count: int) -> Days:
            size = jnp.asarray(count)
            head, window = contender.head, config.window
            return Days(features, values, anchor, first, size, head, window, count)

        task = days(span.first, config.train_size - config.held_back)
        held, test = days(span.split, config.held_back), days(span.test, config.test_size)

        def one_seed(key: PRNGKeyArray) -> Predicted:
            build_key, key = jax.random.split(key)
            sizes = contender.sizes(config.window, values.shape[1])
            network = contender.architecture.build(sizes, contender.head, key=build_key)
            state = train(network, task, held, config.training(), key=key)
            return Predicted(losses_of(state.best, test), state.diverged)

        return mapped(one_seed, together)(keys)

    return mapped(one_fold, together)


def losses_of(network: Network, task: Days) -> Float[Array, " days"]:
    """Loss per asset of every day."""

    def one(index: Array) -> Array:
        inputs, truth = task.example(index)
        return task.score(network.outputs(inputs), truth, None).loss / task.values.shape[1]

    return map_in_batches(one, jnp.arange(task.num_examples), SCORE_BATCH)


class Losses(NamedTuple):
    """Of one model by seed and day, and its number of parameters."""

    daily: np.ndarray
    parameters: int


def simple_losses(truth: Array, laws: dict[str, Anchor]) -> dict[str, Losses]:
    """Those of the models without a network."""
    days = slice(-truth.shape[1], None)
    daily = {
        name: normal_loss(truth, law.means[:, days], law.stds[:, days]).mean(axis=2)
        for name, law in laws.items()
    }
    return {name: Losses(np.asarray(losses).reshape(1, -1), 0) for name, losses in daily.items()}


def network_losses(
    name: str,
    networks: Mapping[str, Contender],
    values: Array,
    laws: dict[str, Anchor],
    config: Config,
) -> tuple[Losses, int]:
    """Those of a network trained in all folds, and how many trainings diverged."""
    contender = networks[name]
    key = jax.random.fold_in(jax.random.key(config.seed), list(networks).index(name))
    keys = jax.vmap(lambda k: numbered_keys(k, config.num_seeds))(numbered_keys(key, len(values)))
    together = jax.default_backend() != "cpu"
    run = jax.jit(trained_and_predicted(contender, config, together=together))
    got = run((values, laws[contender.anchor], keys))
    daily = np.asarray(got.losses).swapaxes(0, 1).reshape(config.num_seeds, -1)
    parameters = contender.num_trained(config.window, values.shape[2])
    return Losses(daily, parameters), int(got.diverged.sum())


def networks_found(
    networks: Mapping[str, Contender],
    values: Array,
    laws: dict[str, Anchor],
    config: Config,
    folder: Path,
) -> dict[str, Losses]:
    """Losses of the networks of the study, each kept in `daily/` when it is there."""
    (folder / "daily").mkdir(parents=True, exist_ok=True)
    found = {}
    for name in config.models:
        path = folder / "daily" / f"{name.replace(',', '').replace(' ', '_')}.npz"
        if not path.exists():
            losses, diverged = network_losses(name, networks, values, laws, config)
            np.savez(path, **losses._asdict())
            print(f"{name}: {losses.daily.mean():.4f}, {diverged} diverged", flush=True)
        with np.load(path) as kept:
            found[name] = Losses(kept["daily"], int(kept["parameters"]))
    return found


def stacked(folds: list[Fold]) -> tuple[Array, pd.DatetimeIndex]:
    """Returns (folds, time, series) and the dates tested."""
    values = jnp.asarray(np.stack([fold.values for fold in folds]), jnp.result_type(float))
    return values, pd.DatetimeIndex(np.concatenate([fold.dates for fold in folds]))


def run(config: Config) -> pd.DataFrame:
    """Losses of all models in `daily/`; `table.csv`, `pairs.csv` and `answers.md` from them."""
    folder, folds = Path(config.out), folds_of(config)
    values, dates = stacked(folds)
    truth = values[:, -config.test_size :]
    laws_of = jax.jit(partial(simple_laws, first=config.past, split=config.split))
    laws = jax.tree.map(lambda *parts: jnp.stack(parts), *(laws_of(rows) for rows in values))
    found = simple_losses(truth, laws)
    found |= networks_found(NETWORKS, values, laws, config, folder)
    return write_real_tables(folder, found, dates, len(folds))


def settings(doc: str | None, full: Config, quick: Config) -> Config:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four stocks, two folds, few steps")
    parser.add_argument("--seeds", type=int, dest="num_seeds")
    parser.add_argument("--steps", type=int, dest="num_steps")
    parser.add_argument("--models", nargs="+", help="names of networks")
    parser.add_argument("--out", help="folder of the tables")
    options = vars(parser.parse_args())
    base = quick if options.pop("quick") else full
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if v is not None}
    jax.config.update("jax_default_matmul_precision", "highest")
    return dataclasses.replace(base, **given)


def main() -> None:
    """Read the command line and run."""
    run(settings(__doc__, Config(), QUICK))


if __name__ == "__main__":
    main()
