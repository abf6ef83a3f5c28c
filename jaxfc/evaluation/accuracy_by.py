"""How good forecasts are under different conditions: regime, volatility, time of day.

Conditions are known before the outcome, so that a model could have acted on them; a condition made
of the outcome itself (large moves) favours whoever cries wolf.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.evaluation.comparison import EqualAbility, diebold_mariano
from jaxfc.typing import Array, Bool, Float, Int

if TYPE_CHECKING:
    import pandas as pd

Series = Float[Array, " cases"] | Float[np.ndarray, " cases"]
Labels = Sequence[str] | np.ndarray
ALL = "all"
TERCILES = ("calm", "middling", "turbulent")


def accuracy_by(
    losses: Mapping[str, Series],
    labels: Labels,
    *,
    benchmark: str,
    horizon: int = 1,
) -> "pd.DataFrame":
    """Mean losses by condition, and whether they differ from a benchmark's there.

    One row a condition in order of appearance, and one for all cases: `cases`, the mean loss of
    each model, then for each but the benchmark the `difference` of its mean, the `statistic` of
    Diebold and Mariano and its `p_value` (`diebold_mariano` with the Bartlett kernel: cases outside
    the condition are left out and the others keep their distance in time).

    **Arguments:** `losses` by model, case by case in the order of time, smaller better (for a rate
    of hits take 1 - hit), NaN where missing; the label of each case, "" for one that has no
    condition and counts in "all" alone; `horizon` in cases.

    **Raises:** `ValueError` for no model, an unknown benchmark, losses or labels of another length,
    a condition called "all".
    """
    import pandas as pd

    if benchmark not in losses:
        raise ValueError(f"benchmark {benchmark!r} is none of the models {list(losses)}.")
    conditions = np.asarray(labels, dtype=str)
    lengths = {name: len(series) for name, series in losses.items()}
    if {len(conditions), *lengths.values()} != {len(conditions)}:
        raise ValueError(
            f"{len(conditions)} labels for losses of lengths {lengths}; give one label a case."
        )
    names = [str(name) for name in dict.fromkeys(conditions.tolist()) if name]
    if ALL in names:
        raise ValueError(f"a condition cannot be called {ALL!r}, which stands for all cases.")
    inside = np.stack([conditions == name for name in names] + [np.ones(len(conditions), bool)], 1)
    models = [benchmark, *(name for name in losses if name != benchmark)]
    table = jnp.stack([jnp.asarray(losses[name]) for name in models], axis=1)
    means, cases, test = measured(table, jnp.asarray(inside), horizon)
    columns = {("", "cases"): np.asarray(cases)}
    columns |= {("loss", name): np.asarray(means)[:, i] for i, name in enumerate(models)}
    for what, values in {
        "difference": test.mean_difference,
        "statistic": test.statistic,
        "p_value": test.p_value,
    }.items():
        columns |= {(what, name): np.asarray(values)[:, i] for i, name in enumerate(models[1:])}
    return pd.DataFrame(columns, index=pd.Index([*names, ALL], name="condition"))


@functools.partial(jax.jit, static_argnums=2)
def measured(
    losses: Float[Array, "cases models"], inside: Bool[Array, "cases conditions"], horizon: int
) -> tuple[Float[Array, "conditions models"], Int[Array, " conditions"], EqualAbility]:
    """Mean losses and cases by condition, and the test of every model against the first."""
    # A case counts where every model has one, so that means are of the same cases.
    counted = inside & ~jnp.any(jnp.isnan(losses), axis=1, keepdims=True)
    split = jnp.where(counted[:, :, None], losses[:, None, :], jnp.nan)
    others = split[:, :, 1:]
    against = jnp.broadcast_to(split[:, :, :1], others.shape)
    test = diebold_mariano(others, against, horizon=horizon, kernel="bartlett")
    return jnp.nanmean(split, axis=0), jnp.sum(counted, axis=0), test


def volatility_terciles(volatility: Series) -> np.ndarray:
    """The label of each case by the tercile of a volatility known before it ("calm", "middling",
    "turbulent"), e.g. that of `ewma_volatility`; "" where it is NaN.

    The limits are those of the cases themselves: they cut a sample for a report, not for a trade.
    """
    values = np.asarray(volatility)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no volatility is known; nothing can be cut in terciles.")
    limits = np.quantile(values[known], [1.0 / 3.0, 2.0 / 3.0])
    found = np.asarray(TERCILES)[np.searchsorted(limits, np.where(known, values, 0.0))]
    return np.where(known, found, "")


def likely_regimes(
    predicted: Float[Array, "cases regimes"] | Float[np.ndarray, "cases regimes"],
) -> np.ndarray:
    """The label of each case by its most probable regime, "regime 1", "regime 2", ..., given the
    cases before it (`RegimeProbabilities.predicted`; smoothed ones look ahead)."""
    return np.char.add("regime ", (np.argmax(np.asarray(predicted), axis=1) + 1).astype(str))


def times_of_day(index: "pd.DatetimeIndex", width: str = "1h") -> np.ndarray:
    """The label of each case by the part of the day it lies in, named by its beginning: "09:30".

    **Raises:** `ValueError` for a width that does not divide a day.
    """
    import pandas as pd

    length = pd.to_timedelta(width)
    if not length.value > 0 or pd.to_timedelta("1D").value % length.value:
        raise ValueError(f"width must divide a day, got {width!r}; take e.g. '30min' or '1h'.")
    since = (index - index.normalize()).floor(length)
    return np.asarray((pd.Timestamp(0) + since).strftime("%H:%M"))
