"""A fitted factor model and its answers as tables with dates and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.factors import FittedFactorModel
from jaxfc.factors.reconstruct import Nowcast
from jaxfc.panel import Panel
from jaxfc.results import RESULTS, is_okay
from jaxfc.typing import Array, Float


def factor_names(num_factors: int) -> list[str]:
    """factor_1, factor_2, ..."""
    return [f"factor_{k + 1}" for k in range(num_factors)]


def factor_stds(fitted: FittedFactorModel) -> Float[np.ndarray, "time factors"]:
    """Standard deviations of the factors given the panel; 0 where they are taken as known."""
    variances = np.einsum("tkk->tk", np.asarray(fitted.factor_covs))
    return np.sqrt(np.maximum(variances, 0.0))


def factors_table(fitted: FittedFactorModel, panel: Panel) -> pd.DataFrame:
    """By date: mean and standard deviation of every factor given the whole panel."""
    names = factor_names(fitted.parameters.num_factors)
    means = pd.DataFrame(np.asarray(fitted.factors), index=panel.index, columns=names)
    stds = pd.DataFrame(factor_stds(fitted), index=panel.index, columns=[f"{n}_std" for n in names])
    return pd.concat([means, stds], axis=1).rename_axis("date")


def factor_effects(fitted: FittedFactorModel) -> Float[Array, "series factors"]:
    """Loadings in standard deviations of the series per standard deviation of the factor."""
    spread = jnp.sqrt(jnp.diagonal(fitted.parameters.factor_cov))
    return fitted.parameters.loadings * spread


def loadings_table(fitted: FittedFactorModel, panel: Panel) -> pd.DataFrame:
    """By series: effect of every factor, own variance (standardised), centre and scale.

    The model is x = centre + scale (loadings f + intercept + e); the effects are the loadings times
    the factors' standard deviations.
    """
    names = factor_names(fitted.parameters.num_factors)
    table = pd.DataFrame(np.asarray(factor_effects(fitted)), index=list(panel.names), columns=names)
    table["own_variance"] = np.asarray(fitted.parameters.variances)
    table["centre"] = np.asarray(fitted.scaling.centre)
    table["scale"] = np.asarray(fitted.scaling.scale)
    return table.rename_axis("series")


def nowcast_table(cells: Nowcast, panel: Panel) -> pd.DataFrame:
    """One row per date and series: mean, standard deviation, and what was observed in that row."""
    num_times, num_series = panel.observed.shape
    return pd.DataFrame(
        {
            "date": np.repeat(panel.index.to_numpy(), num_series),
            "series": np.tile(np.array(panel.names, dtype=object), num_times),
            "mean": np.asarray(cells.mean).reshape(-1),
            "std": np.asarray(cells.std).reshape(-1),
            "observed": panel.to_frame().to_numpy().reshape(-1),
        }
    )


def convergence(fitted: FittedFactorModel) -> dict[str, str | int | float]:
    """How the estimation ended: status, steps, last log-likelihood."""
    okay = bool(is_okay(fitted.result))
    return {
        "status": "converged" if okay else str(RESULTS[fitted.result]),
        "num_steps": int(fitted.num_steps),
        "loglik": float(fitted.loglik),
    }


def likelihood_path(fitted: FittedFactorModel) -> pd.Series:
    """The stopping criterion by step (empty for methods in closed form)."""
    path = np.asarray(fitted.loglik_path)[: int(fitted.num_steps)]
    steps = pd.RangeIndex(1, len(path) + 1, name="step")
    return pd.Series(path, index=steps, name="criterion")


def reported_figures(panel: Panel, name: str) -> pd.DataFrame:
    """The observations of a series by period: first and last row, and the figure per row.

    The figure per row is the reported one divided by the sum of its weights: a monthly sum over 4
    weeks counts a quarter of it a week, an average itself.
    """
    column = panel.names.index(name)
    rows = panel.aggregation
    num_times = panel.num_times
    own, totals = np.arange(num_times), np.ones(num_times)
    if rows is not None:
        group = int(np.asarray(rows.group)[column])
        own = np.asarray(rows.own_row)[group]
        sums = np.zeros(num_times + 1)
        np.add.at(sums, own, np.asarray(rows.own_weight)[group])
        np.add.at(sums, np.asarray(rows.next_row)[group], np.asarray(rows.next_weight)[group])
        totals = sums[:-1]
    seen = np.flatnonzero(panel.observed[:, column])
    first = [int(np.flatnonzero(own == row)[0]) for row in seen]
    return pd.DataFrame(
        {
            "first": panel.index[first],
            "last": panel.index[seen],
            "value": panel.values[seen, column] / totals[seen],
        }
    )


def coverage_table(panel: Panel) -> pd.DataFrame:
    """By series: kind, frequency, delay, number of observations, first and last of them."""
    rows = []
    for i, name in enumerate(panel.names):
        seen = np.flatnonzero(panel.observed[:, i])
        rows.append(
            {
                "series": name,
                "frequency": panel.frequencies[i],
                "kind": panel.kinds[i],
                "delay": delay_text(panel.delays[i]),
                "observations": len(seen),
                "first": panel.index[seen[0]],
                "last": panel.index[seen[-1]],
            }
        )
    return pd.DataFrame(rows)


def delay_text(delay: object) -> str:
    """A publication delay in days where it is one."""
    return f"{delay.days} days" if isinstance(delay, pd.Timedelta) else str(delay)


def software() -> dict[str, str]:
    """Versions of what computed the numbers, precision and device."""
    import platform
    from importlib.metadata import version

    packages = ("jaxfc", "jax", "equinox", "optimistix", "numpy", "pandas", "scoringrules")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "precision": str(jnp.result_type(float)),
        "device": jax.devices()[0].device_kind,
    }
