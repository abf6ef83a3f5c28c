"""What the tables of `results/` compare: which column is ours, which a peer's.

A ratio is the peer's time over ours: above one, ours is faster. Titles and cases are written by
hand; every figure of the page comes out of a table.
"""

from collections.abc import Mapping
from typing import NamedTuple

from result_tables import Row, Table, number


class Peer(NamedTuple):
    """A package, and the columns of the ratio and of its time; a table may lack one of them."""

    name: str
    ratio: str | None
    time: str | None = None

    def ratio_in(self, row: Row, ours: float) -> float:
        """Its time over ours."""
        if self.ratio is not None:
            return number(row, self.ratio)
        return self.time_in(row, ours) / ours

    def time_in(self, row: Row, ours: float) -> float:
        """Its time."""
        if self.time is not None:
            return number(row, self.time)
        return self.ratio_in(row, ours) * ours


class Comparison(NamedTuple):
    """Rows of one table: `case` is a template that names a row, `ours` the column of our time.

    `note` says what is not as everywhere; it may name cells of the first row (`calls`: how many of
    a long run; tables made before there was such a column had one).
    """

    table: str
    title: str
    case: str
    ours: str
    peers: tuple[Peer, ...]
    only: Mapping[str, str] = {}
    compiling: str | None = None
    note: str = ""

    @property
    def unit(self) -> str:
        """Of the times."""
        return "ms" if "_ms" in self.ours else "s"

    def rows(self, tables: Mapping[str, Table]) -> list[dict[str, str]]:
        """Its rows, none if the table is not there."""
        return tables[self.table].where(**self.only) if self.table in tables else []

    def named(self, row: Row) -> str:
        """The case of a row in words."""
        cells = {name: " × ".join(cell.split("x")) for name, cell in row.items() if name == "size"}
        return self.case.format(**{**row, **cells})

    def noted(self, row: Row) -> str:
        """The note with the cells of a row."""
        return self.note.format(**{"calls": "1", **row})
