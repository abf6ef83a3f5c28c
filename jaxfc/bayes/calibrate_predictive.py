"""Posterior predictive checks: do data simulated from the fitted model look like the data?"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.batching import map_in_batches, numbered_keys
from jaxfc.bayes.calibrate import evenly_spaced, labels
from jaxfc.bayes.draws import PosteriorDraws
from jaxfc.bayes.program import Parameters, Program
from jaxfc.counts import check_counts
from jaxfc.typing import Array, Float, PRNGKeyArray

if TYPE_CHECKING:
    import pandas as pd

Statistics = Callable[[Program], Parameters]


class PredictiveCheck(eqx.Module):
    """Statistics of the data, of data simulated from posterior draws, and how they compare.

    `p_value` is the share of simulated data whose statistic is as large or larger (ties count
    half): near 0 or 1 the model does not produce what the data show. It is not uniform under a
    right model, but rather nearer to 1/2 (Meng 1994).
    """

    observed: Parameters
    replicated: Parameters

    @property
    def p_value(self) -> dict[str, Float[Array, "..."]]:
        """By name, P(T(simulated) >= T(data))."""
        return {
            name: jnp.mean(
                (self.replicated[name] > value) + 0.5 * (self.replicated[name] == value), axis=0
            )
            for name, value in self.observed.items()
        }

    def table(self) -> "pd.DataFrame":
        """One row a number: that of the data, 5%, 50% and 95% of the simulated, p-value."""
        import pandas as pd

        rows = []
        for name, value in self.observed.items():
            low, middle, high = np.quantile(self.replicated[name], [0.05, 0.5, 0.95], axis=0)
            each = [np.ravel(x) for x in (value, low, middle, high, self.p_value[name])]
            rows.extend(np.column_stack(each))
        columns = ["observed", "5%", "50%", "95%", "p_value"]
        index = pd.Index(labels(self.observed), name="statistic")
        return pd.DataFrame(np.asarray(rows), index, columns)


def posterior_predictive_check(
    program: Program,
    draws: PosteriorDraws,
    statistics: Statistics,
    *,
    num_replicates: int = 200,
    batch_size: int | None = None,
    key: PRNGKeyArray,
) -> PredictiveCheck:
    """Statistics of `program`'s data against those of data simulated from its posterior draws.

    **Arguments:** `statistics` of a program, by name: functions of its data, e.g. standard
    deviations, largest values, autocorrelations, what the model does not fit by construction;
    `num_replicates` draws, evenly spaced over all chains, with one simulated data set each;
    `batch_size` of them side by side.

    Source: Gelman, Meng and Stern (1996).

    **Raises:** `ValueError` for more replicates than draws.
    """
    check_counts(num_replicates=num_replicates)
    if num_replicates > draws.num_draws:
        raise ValueError(f"num_replicates={num_replicates} of {draws.num_draws} draws.")
    places = evenly_spaced(num_replicates, draws.num_draws)
    picked = jax.tree.map(lambda x: x[places], draws.pooled())
    keys = numbered_keys(key, num_replicates)
    replicated = replicated_statistics(program, picked, statistics, keys, batch_size)
    return PredictiveCheck(observed=dict(statistics(program)), replicated=replicated)


@eqx.filter_jit
def replicated_statistics(
    program: Program,
    parameters: Parameters,
    statistics: Statistics,
    keys: Array,
    batch_size: int | None,
) -> Parameters:
    """The statistics of one simulated data set for each draw of the parameters."""

    def one(case: tuple[Parameters, PRNGKeyArray]) -> Parameters:
        return statistics(program.simulated(case[0], key=case[1]))

    return map_in_batches(one, (parameters, keys), batch_size)
