"""The tables in `results/`: csv files under a line that says machine, versions and day."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parent / "results"
Row = Mapping[str, str]


class Table(NamedTuple):
    """One file: its name, the line on the machine, its rows as they were written."""

    name: str
    machine: str
    rows: list[dict[str, str]]

    @property
    def day(self) -> str:
        """The day it was made."""
        return self.machine.split("; ")[-1]

    @property
    def processor(self) -> str:
        """The processor it was made on."""
        return self.machine.split("; ")[0]

    @property
    def versions(self) -> dict[str, str]:
        """Versions by package, Python's among them."""
        parts = [part.rpartition(" ") for part in self.machine.split("; ")[3:-1]]
        return {name: version for name, _, version in parts}

    def where(self, **cells: str) -> list[dict[str, str]]:
        """The rows with these cells."""
        return [row for row in self.rows if all(row[k] == v for k, v in cells.items())]


def read_tables(folder: Path = RESULTS) -> dict[str, Table]:
    """All tables of a folder by name, in the order of their names."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        first, *lines = path.read_text().splitlines()
        if not first.startswith("# ") or len(lines) < 2:
            raise ValueError(
                f"{path.name} needs a line '# machine', a line of columns and rows; write it with "
                "timing.report."
            )
        found[path.stem] = Table(path.stem, first.removeprefix("# "), list(csv.DictReader(lines)))
    return found


def number(row: Row, column: str) -> float:
    """A cell as a number."""
    return float(row[column])


def shown(value: float) -> str:
    """Three digits, without an exponent where one can do without; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0.0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}"
    value = float(f"{value:.3g}")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def span(values: Iterable[float]) -> str:
    """The smallest and the largest of some numbers, or the one that they all are."""
    ends = sorted(values)
    low, high = shown(ends[0]), shown(ends[-1])
    return low if low == high else f"{low} to {high}"


def markdown(columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    """The lines of a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
