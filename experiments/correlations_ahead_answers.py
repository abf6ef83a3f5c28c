"""What the errors of correlations ahead say, in words from the numbers."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.monte_carlo import rows
from jaxfc.volatility.correlation_ahead import METHODS

CELL = ["process", "law", "num_series", "state", "horizon"]
# Fewer cells than these are named one by one.
MOST_NAMED = 6


def root_mean_square(values: np.ndarray) -> float:
    """Over all entries."""
    return float(np.sqrt(np.mean(values**2)))


def pooled(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Root mean square errors by method, and noise, over the cells of each group."""
    squares = table.assign(rms=table["rms"] ** 2, rms_noise=table["rms_noise"] ** 2)
    wide = squares.pivot_table(index=by, columns="method", values="rms", sort=False)
    wide = wide.reindex(columns=list(METHODS)).apply(np.sqrt)
    noise = pd.DataFrame(squares.groupby(by, sort=False)[["rms_noise"]].mean())
    wide["noise"] = noise["rms_noise"].apply(np.sqrt)
    largest = table.pivot_table(index=by, columns="method", values="max", aggfunc="max", sort=False)
    for method in METHODS:
        if method in largest:
            wide[f"max {method}"] = largest[method]
    return wide.reset_index()


class Duel(NamedTuple):
    """Cells in which the first has the smaller root mean square error by more than two standard
    errors of the reference, those in which the second has (`lost`, by name), and all."""

    first: int
    second: int
    lost: tuple[tuple, ...]
    num_cells: int
    ratio: float

    def text(self, first: str, second: str) -> str:
        """In words."""
        return (
            f"{first} is closer in {self.first} of {self.num_cells} cells, {second} in "
            f"{self.second}, the others are within the noise; the error of {first} is "
            f"{self.ratio:.2f} times that of {second}."
        )


def duel(table: pd.DataFrame, first: str, second: str) -> Duel:
    """`first` against `second`, cell by cell; `ratio` that of the pooled errors."""
    wide = table.pivot(index=CELL, columns="method", values="rms").dropna()
    noise = table[table["method"] == first].set_index(CELL)["rms_noise"].loc[wide.index]
    difference = (wide[second] - wide[first]).to_numpy()
    clear = np.abs(difference) > 2.0 * noise.to_numpy()
    ratio = root_mean_square(wide[first].to_numpy()) / root_mean_square(wide[second].to_numpy())
    better, worse = clear & (difference > 0), clear & (difference < 0)
    lost = tuple(wide.index[worse])
    return Duel(int(np.sum(better)), len(lost), lost, len(wide), ratio)


def answers(table: pd.DataFrame, num_paths: int) -> list[str]:
    """What the table says, in words from the numbers."""
    plain = rows(table, table["process"].str.startswith("DCC"))
    ours = METHODS[0]
    texts = [
        f"{len(table.groupby(CELL))} cells (process, law, number of series, state, horizon), "
        f"{num_paths} paths for three series, 3/N of them for N. Errors of E_t[R] are root mean "
        "squares over pairs of series; cells in which two formulas differ by less than two "
        "standard errors of the reference count for none.",
        "DCC. " + " ".join(duel(plain, ours, other).text(ours, other) for other in METHODS[1:]),
    ]
    for name in dict.fromkeys(plain["process"]):
        own = rows(plain, plain["process"] == name)
        texts.append(f"{name}, by state. {grouped_text(own, 'state')}.")
    for column in ("horizon", "num_series", "law"):
        what = column.replace("num_", "number of ")
        texts.append(f"DCC, by {what}. {grouped_text(plain, column)}.")
    texts.append(exceptions_text(plain))
    corrected = rows(table, table["process"].str.startswith("cDCC"))
    if len(corrected):
        gap = pooled(corrected, ["process"]).iloc[0]
        texts.append(
            f"cDCC. E_t[Q] is exact and {ours} and ES-Q are one formula: error {gap[ours]:.4f}, "
            f"of E corr(Q) alone; ES-R {gap['ES-R']:.4f}; noise {gap['noise']:.4f}."
        )
    falls = rows(table, table["process"].str.startswith("ADCC"))
    if len(falls):
        parts = [
            f"{line['state']} {line[ours]:.4f} (max {line['max ' + ours]:.4f})"
            for line in pooled(falls, ["state"]).to_dict("records")
        ]
        distance = root_mean_square(falls["distance"].to_numpy())
        texts.append(
            f"ADCC, for which only {ours} is defined: {'; '.join(parts)}; the correlations are "
            f"{distance:.4f} from their long-run level."
        )
    return [*texts, verdict(plain)]


def grouped_text(own: pd.DataFrame, column: str) -> str:
    """Errors of the formulas by one column."""
    parts = []
    for line in pooled(own, [column]).to_dict("records"):
        errors = ", ".join(f"{method} {line[method]:.4f}" for method in METHODS)
        parts.append(f"{line[column]}: {errors} (noise {line['noise']:.4f})")
    return "; ".join(parts)


def exceptions_text(plain: pd.DataFrame) -> str:
    """Where another formula is closer than the default by more than twice the pooled noise, and
    in which cells."""
    ours, texts = METHODS[0], []
    lines = pooled(plain, ["process", "state", "horizon"]).to_dict("records")
    for other in METHODS[1:]:
        parts = [
            f"{line['process']}, {line['state']}, k = {line['horizon']} ({line[other]:.4f} against "
            f"{line[ours]:.4f})"
            for line in lines
            if line[other] < line[ours] - 2.0 * line["noise"]
        ]
        lost = duel(plain, ours, other).lost
        places = CELL.index("horizon")
        counts = [
            f"{sum(cell[places] == horizon for cell in lost)} at k = {horizon}"
            for horizon in dict.fromkeys(plain["horizon"])
        ]
        names = [
            f"{process} with {law} innovations, {size} series, {state}, k = {horizon}"
            for process, law, size, state, horizon in lost
        ]
        few = f" ({'; '.join(names)})" if 0 < len(names) <= MOST_NAMED else ""
        texts.append(
            f"{other} is clearly closer than {ours} over laws and numbers of series in: "
            f"{'; '.join(parts) or 'none'}. Of the single cells: {', '.join(counts)}{few}."
        )
    return "DCC, exceptions. " + " ".join(texts)


def verdict(plain: pd.DataFrame) -> str:
    """Whether the default is justified."""
    ours = METHODS[0]
    total = pooled(plain.assign(all="all"), ["all"]).iloc[0]
    best = min(METHODS, key=lambda method: total[method])
    safest = min(METHODS, key=lambda method: total[f"max {method}"])
    errors = ", ".join(
        f"{name} {total[name]:.4f} (max {total['max ' + name]:.4f})" for name in METHODS
    )
    winners = [
        (line["horizon"], min(METHODS, key=lambda method: line[method]))
        for line in pooled(plain, ["horizon"]).to_dict("records")
    ]
    lost = [f"k = {horizon} ({winner})" for horizon, winner in winners if winner != ours]
    is_justified = "is" if best == safest == ours else "is not"
    return (
        f"The default, {ours}, {is_justified} justified for DCC: over all cells {errors}; {best} "
        f"has the smallest root mean square, {safest} the smallest maximum. Over states, another "
        f"formula has the smallest error at: {', '.join(lost) or 'no horizon'}."
    )
