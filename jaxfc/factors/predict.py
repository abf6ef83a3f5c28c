"""Nowcasts and forecasts of every series at its own frequency, given all that a vintage holds."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.batching import map_in_batches
from jaxfc.factors.bootstrap import BootstrapDraws
from jaxfc.factors.components import FactorParameters
from jaxfc.factors.model import FittedFactorModel
from jaxfc.factors.news import check_panel_law
from jaxfc.factors.news_arrays import native_expectation
from jaxfc.factors.panel_law import covering, sample_panel
from jaxfc.native_rows import check_quantiles, native_tables
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows, aggregate

if TYPE_CHECKING:
    from jaxfc.panel import Panel


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Nowcasts:
    """The law of all series in all rows, in data units, as each series reports them.

    `mean` (time, series) is E[y | vintage]; `draws` (draws, time, series) joint draws, or `None`.
    A sum or an average stands in the row in which its period ends; a cell that was observed is its
    value. `panel` is the vintage with the rows that were asked for: `native` reads its names.
    """

    panel: "Panel"
    mean: Float[Array, "time series"]
    draws: Float[Array, "draws time series"] | None

    def __repr__(self) -> str:
        draws = "no draws" if self.draws is None else f"{self.draws.shape[0]} draws"
        return f"Nowcasts({draws}; {self.panel!r})"

    @property
    def std(self) -> Float[Array, "time series"]:
        """Standard deviations of the draws, exactly 0 where a cell was observed."""
        spread = jnp.std(self.checked_draws(), axis=0, ddof=1)
        return jnp.where(jnp.asarray(self.panel.observed), 0.0, spread)

    def quantile(self, q: float) -> Float[Array, "time series"]:
        """A quantile of the draws, 0 < q < 1."""
        check_quantiles([q])
        return jnp.quantile(self.checked_draws(), q, axis=0)

    def native(self, quantiles: Sequence[float] | None = None) -> dict[str, pd.DataFrame]:
        """One table for each frequency: rows are the ends of its periods, dated by their last day.

        Without `quantiles` the mean, one column a series; with them (there may be none) the columns
        are (series, statistic), the statistics `"mean"`, `"std"`, `"q0.05"`, ...

        **Raises:** `ValueError` for quantiles of nowcasts without draws, or not between 0 and 1.
        """
        statistics = {"mean": np.asarray(self.mean)}
        if quantiles is not None:
            check_quantiles(quantiles)
            statistics["std"] = np.asarray(self.std)
            statistics.update({f"q{q:g}": np.asarray(self.quantile(q)) for q in quantiles})
        return native_tables(self.panel, statistics)

    def checked_draws(self) -> Float[Array, "draws time series"]:
        """The draws, if there are any."""
        if self.draws is None:
            raise ValueError(
                "these nowcasts have means only; pass num_draws=... and key=... to predict."
            )
        return self.draws


def predict(
    fitted: FittedFactorModel,
    panel: "Panel",
    *,
    horizon: int = 0,
    num_draws: int = 0,
    parameters: BootstrapDraws | None = None,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Nowcasts:
    """Every series in every row given the whole vintage, and `horizon` rows more.

        E[y_i | all observed cells of the panel],   y_i = Q_i x_i

    The parameters are those of `fitted`, the data those of `panel`: any vintage with the same
    series, shorter or longer than the fitted one. Data of the same month count, whichever series
    they come from.

    **Arguments:** `num_draws`: joint draws that carry what the data leave open about factors and
    errors (0: means only); `parameters`: sets of parameters (from `bootstrap`), so that the draws
    also carry what is not known about those: draw i uses set i modulo their number. The mean is
    always that of the fitted parameters. `batch_size`: such draws at a time.

    **Raises:** `ValueError` for other series than the model's, a negative `horizon`, 1 draw, a key
    without draws or draws without a key, and no usable set of parameters.

    Source: Banbura and Modugno (2014), section 2.
    """
    check_draws(num_draws, parameters, key)
    check_panel_law(fitted, panel)
    panel = panel.extend(horizon)
    fitted = covering(fitted, panel.observed)
    data = (*panel.arrays(), panel.aggregation)
    mean = jitted_expectation(fitted, *data)
    if num_draws == 0 or key is None:
        return Nowcasts(panel, mean, None)
    if parameters is None:
        draws = jitted_draws(fitted, *data, num_draws, key=key)
    else:
        sets = usable_sets(parameters)
        draws = jitted_draws_over(fitted, sets, *data, num_draws, batch_size, key=key)
    return Nowcasts(panel, mean, draws)


def check_draws(
    num_draws: int, parameters: BootstrapDraws | None, key: PRNGKeyArray | None
) -> None:
    """Draws and what they need come together."""
    if num_draws < 0 or num_draws == 1:
        raise ValueError(
            f"num_draws must be 0 (means only) or at least 2 to have a spread, got {num_draws}."
        )
    if num_draws and key is None:
        raise ValueError("draws need randomness: pass key=jax.random.key(...).")
    if not num_draws and (key is not None or parameters is not None):
        raise ValueError("means use neither a key nor draws of parameters: pass num_draws=... too.")


def usable_sets(parameters: BootstrapDraws) -> FactorParameters:
    """The sets of parameters whose estimation succeeded."""
    usable = np.flatnonzero(np.asarray(parameters.usable))
    if not len(usable):
        raise ValueError("no set of parameters is usable: all their estimations failed.")
    return jax.tree.map(lambda leaf: leaf[usable], parameters.parameters)


def native_draws(
    fitted: FittedFactorModel,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
    num_draws: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws time series"]:
    """Joint draws of all series as they report, parameters known: pure."""
    draws = sample_panel(fitted, values, observed, num_draws, key=key, aggregation=aggregation)
    if aggregation is not None:
        draws = jax.vmap(lambda draw: aggregate(aggregation, draw))(draws)
    return jnp.where(observed, values, draws)


def native_draws_over(
    fitted: FittedFactorModel,
    sets: FactorParameters,
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    aggregation: AggregationRows | None,
    num_draws: int,
    batch_size: int | None,
    *,
    key: PRNGKeyArray,
) -> Float[Array, "draws time series"]:
    """Draws whose parameters change from one to the next: pure."""
    num_sets = sets.loadings.shape[0]

    def draw(index: Int[Array, ""]) -> Float[Array, "time series"]:
        own = jax.tree.map(lambda leaf: leaf[index % num_sets], sets)
        model = dataclasses.replace(fitted, parameters=own)
        own_key = jax.random.fold_in(key, index)
        return native_draws(model, values, observed, aggregation, 1, key=own_key)[0]

    return map_in_batches(draw, jnp.arange(num_draws), batch_size)


jitted_expectation = eqx.filter_jit(native_expectation)
jitted_draws = eqx.filter_jit(native_draws)
jitted_draws_over = eqx.filter_jit(native_draws_over)
