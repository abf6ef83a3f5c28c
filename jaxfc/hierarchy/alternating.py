"""Cross-temporal reconciliation by alternating projections over time and over series."""

from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfc.counts import check_counts
from jaxfc.hierarchy.checks import sample_array
from jaxfc.hierarchy.cross_temporal import Pairs
from jaxfc.hierarchy.direction_maps import (
    DirectionMaps,
    Pooling,
    check_methods,
    check_pairs,
    direction_maps,
)
from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.method import Method, Sample, Step
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.hierarchy.summing import Summing
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Float, Int


class Alternating(Method):
    """Over time, over series, again and again: alternating projections.

    Comes to the optimal combination where every step is orthogonal in the metric of one covariance
    of all pairs: W diagonal with the same variances in both directions (`WLS("variance")` over
    series with `TemporalGLS("order_variance")` over time; with `pooling="position"`,
    `WLS("variance")` for both). Else the result is coherent, but depends on which direction is
    first. `num_steps` sweeps are made, then bottom nodes are summed; `alternate` stops by a
    tolerance and says how many sweeps it took.

    **Arguments:** `pooling`: W over series from the errors of each "order" or each "position".

    Source: Di Fonzo and Girolimetto (2023), iterative; von Neumann (1950) for the limit.
    """

    pairs: Pairs
    across_method: Method
    over_time_method: Method
    num_steps: int = eqx.field(static=True)
    pooling: Pooling = eqx.field(static=True)

    def __init__(
        self,
        across: Hierarchy,
        over_time: Hierarchy,
        *,
        across_method: Method,
        over_time_method: Method,
        num_steps: int = 100,
        pooling: Pooling = "order",
    ):
        check_counts(num_steps=num_steps)
        self.pairs, self.num_steps, self.pooling = Pairs(across, over_time), num_steps, pooling
        self.across_method, self.over_time_method = across_method, over_time_method
        check_methods(self.pairs, (across_method, over_time_method))

    def check(self, summing: Summing, labels: Labels) -> None:
        check_pairs(self.pairs, labels)

    def mapping(self, step: Step) -> "AlternatingMap":
        maps = direction_maps(
            self.pairs, step, self.across_method, self.over_time_method, self.pooling
        )
        return AlternatingMap(self.pairs, step.summing, maps, self.num_steps)


class AlternatingMap(Mapping):
    """Sweeps over both directions, then sums of the bottom."""

    pairs: Pairs
    summing: Summing
    maps: DirectionMaps
    num_steps: int = eqx.field(static=True)

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        return self.run(nodes, None)[0]

    def run(
        self, nodes: Float[Array, "nodes *rest"], rtol: Float[Array, ""] | None
    ) -> tuple[Array, Array, Array]:
        """Reconciled nodes, sweeps made, and the largest incoherence left relative to the nodes."""
        table = self.pairs.fold(nodes)
        size = jnp.max(jnp.abs(table))
        size = jnp.where(size > 0, size, 1.0)

        def sweep(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple, None]:
            now, count, gap = carry
            new = self.maps.across(self.maps.over_time(now))
            left = jnp.swapaxes(new, 0, 1)
            new_gap = jnp.max(jnp.abs(self.pairs.over_time.summing.incoherence(left))) / size
            go = jnp.asarray(True) if rtol is None else gap > rtol
            return (
                jnp.where(go, new, now),
                count + go,
                jnp.where(go, new_gap, gap),
            ), None

        start = (table, jnp.zeros((), dtype=jnp.int32), jnp.full((), jnp.inf, table.dtype))
        (table, count, gap), _ = jax.lax.scan(sweep, start, None, length=self.num_steps)
        found = self.pairs.unfold(table)
        return self.summing.coherent(found[self.summing.num_aggregates :]), count, gap


class Alternation(NamedTuple):
    """Coherent means (cycles, nodes), sweeps made, the incoherence left before the last sums
    relative to the largest node, and what became of it."""

    mean: Float[Array, "cycles nodes"]
    num_steps: Int[Array, ""]
    gap: Float[Array, ""]
    result: RESULTS


def alternate(
    mean: Float[Array, "cycles nodes"],
    hierarchy: Hierarchy,
    method: Alternating,
    *,
    residuals: Float[Array, "rows nodes"] | np.ndarray | pd.DataFrame | None = None,
    rtol: float | Array = 1e-10,
) -> Alternation:
    """Alternating projections until the incoherence over time is below `rtol`; pure.

    `hierarchy` is the cross-temporal one; arguments as `reconcile_means`. Not reaching the
    tolerance in `method.num_steps` sweeps is the result `nonlinear_max_steps_reached`.
    """
    check_pairs(method.pairs, hierarchy.labels)
    sample = Sample(sample_array(residuals, hierarchy, "residuals"), None)
    step = Step(hierarchy.summing, mean[0], None, sample, None, None, hierarchy.labels)
    tolerance = jnp.asarray(rtol, dtype=mean.dtype)
    found, count, gap = method.mapping(step).run(mean.T, tolerance)
    stopped = cast(RESULTS, RESULTS.nonlinear_max_steps_reached)
    return Alternation(found.T, count, gap, select(gap <= tolerance, SUCCESSFUL, stopped))
