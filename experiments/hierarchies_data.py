"""Hierarchies of real data: four public benchmarks, and stocks in sectors of a market."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.shared_data import shared_folder
from jaxfc import datasets
from jaxfc.hierarchy import Hierarchy

BENCHMARKS = ("labour", "tourismsmall", "traffic", "wiki2")
STOCKS = "stocks"
# hierarchicalforecast's experiments/hierarchical_baselines/README.md, AutoARIMA forecasts, Gaussian
# laws ("normality"), the best of MinTrace. TourismSmall prints 0.6830, which its neighbours (0.0680
# and 0.0703) make a slip for 0.0683.
PUBLISHED_SCRPS = {"labour": 0.0069, "tourismsmall": 0.0683, "traffic": 0.0630, "wiki2": 0.3385}
PUBLISHED_BOTTOM_UP = {"labour": 0.0076, "tourismsmall": 0.0649, "traffic": 0.0845, "wiki2": 0.3914}
# Mean squared errors relative to the naive forecast: bottom-up and the best of MinTrace.
PUBLISHED_RELATIVE_MSE = {
    "labour": (0.5382, 0.3547),
    "tourismsmall": (0.1002, 0.1235),
    "traffic": (0.1394, 0.0744),
    "wiki2": (1.0163, 1.0068),
}
# Its data end before the pandemic.
LABOUR_END = "2020-01-01"


@dataclasses.dataclass(frozen=True)
class Spec:
    """How a data set is forecast: horizon and season as its benchmark has them; the autoregression
    (`differences`, `order`, means of the season); the window of rolling origins."""

    horizon: int
    period: int
    window: int
    order: int
    differences: int = 0
    returns: bool = False


SPECS = {
    "labour": Spec(horizon=12, period=12, window=360, order=12, differences=1),
    "tourismsmall": Spec(horizon=4, period=4, window=24, order=1),
    "traffic": Spec(horizon=7, period=7, window=240, order=7),
    "wiki2": Spec(horizon=7, period=7, window=240, order=7),
    STOCKS: Spec(horizon=1, period=1, window=520, order=1, returns=True),
}


@dataclasses.dataclass(frozen=True)
class World:
    """Values (time, nodes) in the order of the hierarchy, whose weights may differ by date."""

    name: str
    spec: Spec
    hierarchy: Hierarchy
    values: np.ndarray
    dates: pd.Index

    def at(self, date: int) -> Hierarchy:
        """The hierarchy with the weights of a date."""
        return self.hierarchy.step(date)

    def columns_of(self, names: list[str]) -> np.ndarray:
        """Positions of named nodes in the order of the hierarchy."""
        place = {name: i for i, name in enumerate(names)}
        return np.array([place[name] for name in self.hierarchy.names])


def load(name: str, data: str | None = None) -> World:
    """A data set by name.

    **Raises:** `FileNotFoundError` where the shared data are not there.
    """
    return stocks(data) if name == STOCKS else benchmark(name, data)


def benchmark(name: str, data: str | None) -> World:
    """One of `BENCHMARKS`, with levels from the order of its rows."""
    table = read(shared_folder(data, "hierarchies"), f"{name}_data")
    sums = read(shared_folder(data, "hierarchies"), f"{name}_agg_mat")
    num_bottom = sums.shape[1]
    # Labour names the columns of its matrix in another order than that of its data; their places
    # are right, as the test of coherence shows.
    sums = sums.set_axis(table.columns[-num_bottom:], axis=1)
    if name == "labour":
        table = table[table.index < LABOUR_END]
    hierarchy = Hierarchy.from_levels(level_frame(sums))
    values = table[list(hierarchy.names)]
    hierarchy.check(values)
    return World(name, SPECS[name], hierarchy, values.to_numpy(np.float64), table.index)


def read(folder: Path, stem: str) -> pd.DataFrame:
    """A table of the folder, packed or not."""
    path = next(p for p in (folder / f"{stem}.csv", folder / f"{stem}.csv.gz") if p.exists())
    table = pd.read_csv(path, index_col=0)
    return table.set_axis([str(c) for c in table.columns], axis=1)


def level_frame(sums: pd.DataFrame) -> pd.DataFrame:
    """A row per series and a column per level: rows of the matrix that cover each series once."""
    ends = np.flatnonzero(np.cumsum(sums.to_numpy().sum(axis=1)) % sums.shape[1] == 0) + 1
    columns = {}
    for level, rows in enumerate(np.split(np.arange(len(sums)), ends[:-1])):
        owner = sums.iloc[rows].to_numpy().argmax(axis=0)
        columns[f"level {level}"] = [sums.index[rows[i]] for i in owner]
    return pd.DataFrame(columns)


def stocks(data: str | None) -> World:
    """Weekly simple returns of 20 US stocks, of their sectors and of all, bought in equal parts in
    1990 and held: weights of the start of each week, which drift."""
    prices = datasets.weekly_closes(datasets.us_stocks())
    members = pd.read_csv(shared_folder(data, "equities") / "constituents.csv")
    sectors = dict(zip(members["Symbol"], members["GICS Sector"], strict=True))
    sectors["RRC"] = "Energy"  # no member of the index any more
    named = pd.Series([sectors[ticker] for ticker in prices.columns])
    # A sector of one stock is that stock: it hangs under the market itself.
    frame = pd.DataFrame(
        {
            "market": "market",
            "sector": named.where(named.duplicated(keep=False)),
            "stock": prices.columns,
        }
    )
    relative = (prices / prices.iloc[0]).to_numpy()
    returns, held = relative[1:] / relative[:-1] - 1.0, relative[:-1]
    hierarchy = Hierarchy.from_levels(frame, weights=held, average=True)
    values = hierarchy.aggregate(returns)
    return World(STOCKS, SPECS[STOCKS], hierarchy, np.asarray(values), prices.index[1:])
