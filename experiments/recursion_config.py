"""Settings of the study of recursion: the part for two cores, the whole, and the smallest."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp

from experiments.recursion_models import NETWORKS, Span
from jaxfc.recursive import Training

WORLDS = ("A", "B")


def all_steps(num_steps: int, batch_size: int, learning_rate: float, round_length: int) -> Training:
    """All steps are taken and the best averaged weights are kept."""
    return Training(
        num_steps,
        batch_size,
        learning_rate,
        warm_up=min(100, num_steps // 10),
        round_length=round_length,
        patience=num_steps,
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Days to learn from (`sizes`, in the order of the run), of which the last quarter, at most
    `held_back`, is held back; days tested on; what networks look back to and how they train."""

    worlds: tuple[str, ...] = WORLDS
    sizes: tuple[int, ...] = (4_000,)
    num_paths: int = 10
    num_seeds: int = 1
    models: tuple[str, ...] = tuple(NETWORKS)
    num_steps: int = 1_500
    batch_size: int = 128
    learning_rate: float = 2e-3
    round_length: int = 100
    window: int = 32
    held_back: int = 2_000
    test_days: int = 10_000
    past: int = 250
    num_regimes: int = 3
    seed: int = 9
    minutes: float | None = None
    out: str = "recursion"

    @property
    def num_days(self) -> int:
        """Days of a path: those before any training, the longest training, the test."""
        return self.past + max(self.sizes) + self.test_days

    def bounds(self, size: int) -> tuple[int, int, int]:
        """First day trained on, first held back, first tested on."""
        stop = self.past + max(self.sizes)
        return stop - size, stop - min(size // 4, self.held_back), stop

    def span(self, size: int) -> Span:
        """The same as arrays."""
        first, split, stop = self.bounds(size)
        return Span(*(jnp.asarray(day) for day in (first, split, stop, stop)))

    def training(self) -> Training:
        """All steps are taken and the best averaged weights are kept."""
        return all_steps(self.num_steps, self.batch_size, self.learning_rate, self.round_length)


FULL = Config(sizes=(4_000, 40_000, 1_000, 10_000), num_paths=20, num_seeds=5)
QUICK = Config(
    sizes=(400, 800),
    num_paths=3,
    num_seeds=2,
    models=("recurrence, recursion", "recurrence, net once", "HMM anchor, recurrence"),
    num_steps=20,
    round_length=10,
    held_back=100,
    test_days=300,
)
SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Config)
    if field.name not in ("worlds", "models", "num_seeds", "minutes", "out")
)


def check_settings(config: Config, path: Path) -> None:
    """Raise `ValueError` if the folder holds scores of other settings.

    Cells may have different numbers of seeds: seed 0 is the same whatever their number.
    """
    unknown = [name for name in config.models if name not in NETWORKS]
    if unknown:
        raise ValueError(f"unknown models {unknown}; there are {list(NETWORKS)}.")
    own = {name: getattr(config, name) for name in SETTINGS}
    text = json.dumps(own, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path} is of other settings than {own}; choose another --out.")
    path.write_text(text)
