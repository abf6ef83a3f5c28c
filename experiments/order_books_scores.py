"""What the study of order books keeps: tables of the clocks, and scores as they become known."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.order_books_data import Recording, clock_of, clock_table
from experiments.order_books_forecasts import split_of

PLACE = ("instrument", "clock", "target", "model", "seed")


class OutOfTime(Exception):
    """The minutes are over; what is known is written."""


def written(table: pd.DataFrame, path: Path) -> None:
    """One table as a file."""
    table.to_csv(path, index=False, float_format="%.5g")


@dataclasses.dataclass
class Tables:
    """Tables of all clocks and recordings, made when they are first asked for."""

    recordings: list[Recording]
    window: int
    made: dict[tuple[float, int], pd.DataFrame] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The instruments."""
        return [one.instrument.name for one in self.recordings]

    def of(self, seconds: float, place: int) -> pd.DataFrame:
        """One table; its micro-price has seen the training rows alone."""
        if (seconds, place) not in self.made:
            clock = clock_of(self.recordings, seconds)
            split = split_of(len(clock.ticks) - 1, self.window)
            made = clock_table(self.recordings[place], clock, split.num_training)
            self.made[seconds, place] = made
        return self.made[seconds, place]


@dataclasses.dataclass
class Scores:
    """Lines of `scores.csv` and, by case, files beside it."""

    folder: Path
    deadline: float

    @property
    def path(self) -> Path:
        return self.folder / "scores.csv"

    def known(self) -> pd.DataFrame:
        """The lines so far."""
        if not self.path.exists():
            return pd.DataFrame(
                columns=pd.Index(["instrument", "clock", "target", "model", "seed"])
            )
        return pd.read_csv(self.path)

    def has(self, *place) -> bool:
        """Whether a score is known."""
        return self.case_file(*place).exists()

    def case_file(self, instrument: str, clock: float, target: str, model: str, seed: int) -> Path:
        """Where the losses of one fit lie."""
        name = f"{instrument} {clock:g} {target} {model} {seed}".replace(" ", "_")
        return self.folder / "cases" / f"{name}.npy"

    def add(self, place: tuple, losses: np.ndarray, **more: float) -> None:
        """One more line."""
        line = pd.DataFrame([dict(zip(PLACE, place, strict=True)) | more])
        line["loss"], line["cases"] = losses.mean(), len(losses)
        known = self.known()
        written(pd.concat([known, line], ignore_index=True) if len(known) else line, self.path)
        file = self.case_file(*place)
        file.parent.mkdir(exist_ok=True)
        np.save(file, losses.astype(np.float32))

    def check(self) -> None:
        """Stop before the next fit if the time is over."""
        if time.process_time() > self.deadline:
            raise OutOfTime
