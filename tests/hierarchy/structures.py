"""Hierarchies and oracles shared by the tests of the family."""

import numpy as np
import pandas as pd

from jaxfc.hierarchy import Hierarchy

# Rows total, A, B, AA, AB, BA, BB.
H7_LEVELS = pd.DataFrame(
    {
        "total": ["total"] * 4,
        "group": ["A", "A", "B", "B"],
        "series": ["AA", "AB", "BA", "BB"],
    }
)
# Residuals (6 dates x 7 nodes), whose mean squares are 35, 11, 11, 5, 7, 5, 11 sixtieths of 0.1.
H7_RESIDUALS = (
    np.array(
        [
            [3, -2, 1, -4, 2, 1],
            [1, -1, 2, -2, 1, 0],
            [2, 0, -1, -1, 2, -1],
            [1, 1, -1, -1, 0, 1],
            [0, -1, 2, -1, 1, 0],
            [1, -1, 0, 1, 1, -1],
            [2, 1, -2, -1, 1, 0],
        ]
    ).T
    / 10.0
)


def h7() -> Hierarchy:
    """Total, two groups, four series."""
    return Hierarchy.from_levels(H7_LEVELS)


def equities(weights: np.ndarray | None = None) -> Hierarchy:
    """A market of three sectors with 3, 2 and 1 assets and one asset without a sector; averages."""
    frame = pd.DataFrame(
        {
            "market": ["M"] * 7,
            "sector": ["Tech"] * 3 + ["Energy"] * 2 + ["Gold", None],
            "asset": list("abcdefg"),
        }
    )
    values = np.array([3.0, 1.0, 2.0, 2.0, 0.5, 1.0, 0.5]) if weights is None else weights
    return Hierarchy.from_levels(frame, weights=values, average=True)


def dense_summing(hierarchy: Hierarchy) -> np.ndarray:
    """S from the frame of the hierarchy."""
    return hierarchy.to_frame().to_numpy()


def dense_gls(summing: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """S (S' W^-1 S)^-1 S' W^-1, the primal form."""
    inverse = np.linalg.inv(cov)
    return summing @ np.linalg.solve(summing.T @ inverse @ summing, summing.T @ inverse)
