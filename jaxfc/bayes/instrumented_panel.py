"""Panels of returns and characteristics: how the columns stand, and what is refused.

The columns are the N returns, then for each characteristic one block of N columns named
"<asset> <characteristic>" in the order of the returns, then the given factors.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxfc.typing import Array, Bool, Float

if TYPE_CHECKING:
    import pandas as pd

    from jaxfc.panel import Panel

# Directions of the characteristics with less than this share of their variance are said to be none.
SMALLEST_SHARE = 1e-10


class Blocks(NamedTuple):
    """The columns taken apart: returns, characteristics and given factors, and what is observed."""

    returns: Float[Array, "time assets"]
    returns_observed: Bool[Array, "time assets"]
    characteristics: Float[Array, "time assets characteristics"]
    characteristics_observed: Bool[Array, "time assets characteristics"]
    given: Float[Array, "time given"]
    given_observed: Bool[Array, "time given"]


def num_assets(num_series: int, num_characteristics: int, num_given: int) -> int:
    """N of N (1 + L) + M columns.

    **Raises:** `ValueError` if the number of columns fits no N.
    """
    count, rest = divmod(num_series - num_given, 1 + num_characteristics)
    if rest or count < 1:
        raise ValueError(
            f"{num_series} series are not N returns, {num_characteristics} x N characteristics and "
            f"{num_given} given factors; build the panel with jaxfc.bayes.instrumented_panel."
        )
    return count


def blocks(values, observed, num_characteristics: int, num_given: int) -> Blocks:
    """The columns of a panel taken apart, numpy or JAX."""
    rows, num_series = values.shape
    count = num_assets(num_series, num_characteristics, num_given)
    stop = count * (1 + num_characteristics)

    def parts(table):
        middle = table[:, count:stop].reshape(rows, num_characteristics, count)
        return table[:, :count], middle.swapaxes(1, 2), table[:, stop:]

    (returns, held, given), (paid, seen, known) = parts(values), parts(observed)
    return Blocks(returns, paid, held, seen, given, known)


def instrumented_panel(
    returns: "pd.DataFrame",
    characteristics: "Mapping[str, pd.DataFrame]",
    given: "pd.DataFrame | None" = None,
    *,
    frequency: str | None = None,
) -> "Panel":
    """The panel that `InstrumentedPCA` reads: returns, then "<asset> <characteristic>", then given
    factors (host side).

    Frames are dates x assets; the row of a date holds what is known at its end, so a characteristic
    stands in the row before the return that it explains. Characteristics are looked up at the dates
    and assets of `returns`; what a frame lacks is not observed.

    **Raises:** `ValueError` for a characteristic without any of the assets, and as
    `Panel.from_frame` (constant columns are allowed).
    """
    import pandas as pd

    from jaxfc.panel import Panel

    tables = [returns]
    for name, frame in characteristics.items():
        absent = [asset for asset in returns.columns if asset not in frame.columns]
        if absent:
            raise ValueError(
                f"characteristic {name!r} has no column for asset {absent[0]!r}; add it (NaN where "
                "not known) or drop the asset from the returns."
            )
        table = frame.reindex(index=returns.index, columns=returns.columns)
        table.columns = [f"{asset} {name}" for asset in returns.columns]
        tables.append(table)
    if given is not None:
        tables.append(given.reindex(returns.index))
    return Panel.from_frame(pd.concat(tables, axis=1), frequency=frequency, allow_constant=True)


def check_names(
    names: tuple[str, ...], characteristics: tuple[str, ...], given: tuple[str, ...]
) -> tuple[str, ...]:
    """The assets, if the columns stand as they should.

    **Raises:** `ValueError` naming an unknown characteristic, an unknown given factor, or the first
    column that stands elsewhere.
    """
    for name in characteristics:
        if not any(column.endswith(f" {name}") for column in names):
            raise ValueError(
                f"the panel has no characteristic {name!r}: no column is called '<asset> {name}'. "
                "Build it with jaxfc.bayes.instrumented_panel(returns, {...})."
            )
    for name in given:
        if name not in names:
            raise ValueError(
                f"the panel has no given factor {name!r}; its last columns must be it."
            )
    count = num_assets(len(names), len(characteristics), len(given))
    assets = names[:count]
    wanted = (*assets, *(f"{a} {c}" for c in characteristics for a in assets), *given)
    for place, (found, due) in enumerate(zip(names, wanted, strict=True)):
        if found != due:
            raise ValueError(
                f"column {place} of the panel is {found!r} where {due!r} is due: the returns come "
                "first, then '<asset> <characteristic>' block by block in their order, then the "
                f"given factors {given}. Use panel.select(...) or jaxfc.bayes.instrumented_panel."
            )
    return assets


def check_cells(
    characteristics: np.ndarray,
    usable: np.ndarray,
    assets: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Raise `ValueError` for an asset without a usable cell, and for a characteristic that is
    constant beside the constant, zero, or a combination of others."""
    for place, asset in enumerate(assets):
        if not usable[:, place].any():
            raise ValueError(
                f"asset {asset!r} has no return with all characteristics of the row before; drop "
                "it, or fill its characteristics."
            )
    cells = characteristics[usable]
    spread = np.std(cells, axis=0) > 1e-12 * np.max(np.abs(cells), axis=0)
    flat = [name for name, varies in zip(names, spread, strict=True) if not varies]
    if len(flat) > 1:
        culprit = next(name for name in flat if name != "constant")
        raise ValueError(
            f"characteristic {culprit!r} is the same for all assets and rows, which is collinear "
            "with the constant or another such characteristic; drop it."
        )
    scale = np.sqrt(np.mean(cells**2, axis=0))
    if np.any(scale == 0):
        culprit = names[int(np.argmin(scale))]
        raise ValueError(
            f"characteristic {culprit!r} is zero in all usable cells (as are ranks of equal "
            "values); drop it."
        )
    scaled = cells / scale
    shares, vectors = np.linalg.eigh(scaled.T @ scaled / len(cells))
    if shares[0] < SMALLEST_SHARE:
        involved = [n for n, v in zip(names, vectors[:, 0], strict=True) if abs(v) > 1e-3]
        raise ValueError(
            f"characteristics {', '.join(map(repr, involved))} are collinear; drop one of them."
        )
