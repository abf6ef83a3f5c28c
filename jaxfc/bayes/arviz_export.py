"""Posterior draws as ArviZ's data, for its plots, tables and comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.program import Parameters


def to_arviz(
    draws: PosteriorDraws,
    identified: Parameters | None = None,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
) -> Any:
    """Draws as `arviz.InferenceData` (ArviZ 0.x) or `xarray.DataTree` (ArviZ 1.x).

    The group `posterior` has the parameters and what is `identified`, which replaces a parameter of
    the same name; `sample_stats` has ArviZ's `lp`, `energy`, `diverging` and `step_size`, and
    `accepted`: whether a transition led elsewhere.

    **Arguments:** `identified` by name, each (chains, draws, ...), e.g.
    `draws.map(program.identified)`; `dims` by name of a quantity the names of its axes, e.g.
    `{"loadings": ("asset", "factor")}`; `coords` by name of an axis its labels, e.g.
    `{"asset": panel.names}`.

    **Raises:** `ImportError` if arviz is not installed; `ValueError` if `dims` names an unknown
    quantity or not all its axes, or if an axis has another number of labels than numbers.
    """
    posterior = {
        name: np.asarray(value)
        for name, value in {**draws.parameters, **(identified or {})}.items()
    }
    dims = {name: list(axes) for name, axes in (dims or {}).items()}
    coords = {name: list(labels) for name, labels in (coords or {}).items()}
    check_axes(posterior, dims, coords)
    shape = draws.log_density.shape
    stats = {
        "lp": np.asarray(draws.log_density),
        "energy": np.asarray(draws.energy),
        "diverging": np.asarray(draws.divergent),
        "step_size": np.broadcast_to(np.asarray(draws.step_size)[:, None], shape),
        "accepted": np.asarray(draws.moved),
    }
    arviz = imported_arviz()
    groups = {"posterior": posterior, "sample_stats": stats}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups, dims=dims, coords=coords)
    return arviz.from_dict(**groups, dims=dims, coords=coords)


def check_axes(
    posterior: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence],
) -> None:
    """Refuses names of axes and labels that do not fit the draws."""
    for name, axes in dims.items():
        if name not in posterior:
            known = ", ".join(sorted(posterior))
            raise ValueError(f"dims names {name!r}, which is not among the draws: {known}.")
        sizes = posterior[name].shape[2:]
        if len(axes) != len(sizes):
            raise ValueError(
                f"{name!r} has {len(sizes)} axes after chains and draws, dims names {len(axes)}: "
                f"{tuple(axes)}."
            )
        for axis, size in zip(axes, sizes, strict=True):
            if axis in coords and len(coords[axis]) != size:
                raise ValueError(
                    f"{name!r} has {size} numbers on axis {axis!r}, coords has "
                    f"{len(coords[axis])} labels for it."
                )


def imported_arviz() -> Any:
    """The package, which only this file needs."""
    try:
        import arviz  # pyright: ignore
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install 'jaxfc[bayes]'.") from error
    return arviz
