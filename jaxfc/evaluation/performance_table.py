"""The performance of several strategies as a table, with bootstrap intervals."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import map_in_batches
from jaxfc.evaluation.performance import Performance, performance
from jaxfc.typing import Array, Float, Int

Named = Mapping[str, Float[Array, "_"] | Float[np.ndarray, "_"]]


def performance_table(
    log_returns: Named,
    *,
    exposures: Named | None = None,
    turnovers: Named | None = None,
    indices: Int[Array, "draws steps"] | Int[np.ndarray, "draws steps"] | None = None,
    size: float | int = 0.05,
    periods_per_year: float | int = 1.0,
    risk_free: float | int | Float[Array, " steps"] | Float[np.ndarray, " steps"] = 0.0,
    threshold: float | int = 0.0,
    confidence: float | int = 0.95,
    batch_size: int = 100,
):
    """One row per strategy, one column per measure (see `Performance`), as a data frame.

    With bootstrap `indices` (a block bootstrap, since returns depend on each other) every measure
    has three columns, estimate, lower and upper, the bounds being the size / 2 and 1 - size / 2
    quantiles over the draws (percentile interval; Efron 1979). All strategies are redrawn with the
    same indices; `batch_size` draws run side by side. A drawdown is that of the redrawn path.

    **Raises:** `ValueError` for no strategy, names that differ between arguments, series of
    different lengths, indices outside the series, or indices with a `risk_free` of every step (it
    would have to be redrawn too: pass returns in excess of it).
    """
    names = list(log_returns)
    data = {"log_returns": stacked(log_returns, names, "log_returns")}
    for label, named in (("exposure", exposures), ("turnover", turnovers)):
        if named is not None:
            data[label] = stacked(named, names, label)
            if data[label].shape != data["log_returns"].shape:
                raise ValueError(
                    f"{label} has {data[label].shape[1]} steps, the log returns have "
                    f"{data['log_returns'].shape[1]}; give one value for each return."
                )
    options = {
        "periods_per_year": periods_per_year,
        "risk_free": risk_free,
        "threshold": threshold,
        "confidence": confidence,
    }
    options = {name: jnp.asarray(value, dtype=float) for name, value in options.items()}
    estimate = measured(data, options)
    if indices is None:
        return frame(estimate, names)
    if not 0.0 < size < 1.0:
        raise ValueError(f"size is the share outside the interval, in (0, 1), got {size}.")
    if np.ndim(risk_free):
        raise ValueError(
            "risk_free of every step with bootstrap indices is not available; pass log returns in "
            "excess of it, or one number."
        )
    places = check_indices(np.asarray(indices), data["log_returns"].shape[1])
    draws = measured_draws(data, options, jnp.asarray(places), batch_size)
    return frame(estimate, names, draws, size)


@jax.jit
def measured(data: dict[str, Array], options: dict[str, Array]) -> Performance:
    """The measures of every strategy."""
    return jax.vmap(lambda one: performance(**one, **options))(data)


@functools.partial(jax.jit, static_argnums=3)
def measured_draws(
    data: dict[str, Array], options: dict[str, Array], indices: Array, batch_size: int
) -> Performance:
    """The measures of every strategy in every draw, led by the draws."""

    def one_draw(places):
        redrawn = jax.tree.map(lambda leaf: leaf[:, places], data)
        return jax.vmap(lambda one: performance(**one, **options))(redrawn)

    return map_in_batches(one_draw, indices, batch_size)


def stacked(named: Named, names: list[str], label: str) -> Float[Array, "strategies steps"]:
    """The series of all names as one array."""
    if not names:
        raise ValueError("no strategy was given; name at least one.")
    if set(named) != set(names):
        raise ValueError(
            f"{label} is given for {sorted(named)}, the log returns for {sorted(names)}; use the "
            "same names."
        )
    series = [np.asarray(named[name]) for name in names]
    if len({len(one) for one in series}) != 1:
        lengths = {name: len(one) for name, one in zip(names, series, strict=True)}
        raise ValueError(f"{label} has series of different lengths, {lengths}; align them first.")
    return jnp.asarray(np.stack(series))


def check_indices(indices: Int[np.ndarray, "draws steps"], num_steps: int) -> np.ndarray:
    """The indices, if they are inside series of `num_steps`."""
    if indices.ndim != 2 or indices.min() < 0 or indices.max() >= num_steps:
        raise ValueError(
            f"indices of shape {indices.shape} between {indices.min()} and {indices.max()} for "
            f"series of {num_steps} steps; give (draws, steps) with entries 0..{num_steps - 1}."
        )
    return indices


def frame(
    estimate: Performance, names: list[str], draws: Performance | None = None, size: float = 0.05
):
    """Measures as a data frame."""
    import pandas as pd

    columns = {}
    for measure, values in vars(estimate).items():
        if values is None:
            continue
        if draws is None:
            columns[measure] = np.asarray(values)
            continue
        redrawn = np.asarray(getattr(draws, measure))
        columns[measure, "estimate"] = np.asarray(values)
        columns[measure, "lower"] = np.quantile(redrawn, size / 2.0, axis=0)
        columns[measure, "upper"] = np.quantile(redrawn, 1.0 - size / 2.0, axis=0)
    return pd.DataFrame(columns, index=pd.Index(names, name="strategy"))
