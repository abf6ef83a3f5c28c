"""Level-conditional coherence: one level at a time with the bottom series, then their mean."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.error_cov import StructuredCov
from jaxfc.hierarchy.mapping import AverageMap, BottomUpMap, Mapping, Projection, projection
from jaxfc.hierarchy.method import Method, Step
from jaxfc.hierarchy.sample_cov import mean_squares
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float, Int


class LevelMap(Mapping):
    """Coherence with the nodes of one level only; other aggregates follow from the bottom."""

    summing: Summing
    nodes: Int[Array, " chosen"]
    inner: Projection

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        split = self.summing.num_aggregates
        part = jnp.concatenate([nodes[self.nodes], nodes[split:]])
        return self.summing.coherent(self.inner.apply(part)[self.nodes.shape[0] :])


class LevelConditional(Method):
    """Level-conditional coherent forecasts, and their combination (Hollyman, Petropoulos and
    Tipping 2021; Di Fonzo and Girolimetto 2024).

    For level l the bottom forecasts are moved, in the metric of their error variances, until they
    sum to the forecasts of the level, which are kept (`exogenous=True`) or reconciled with their
    own variances. `level=None` is the mean over all levels and bottom-up (combined conditional
    coherence). To use other bottom forecasts (averages in sample, say), shift the forecast first.
    """

    level: str | None = eqx.field(static=True, default=None)
    exogenous: bool = eqx.field(static=True, default=True)

    def mapping(self, step: Step) -> Mapping:
        if self.level is not None:
            return self.conditional(step, self.level)
        levels = [level for level in step.labels.level_names if level != step.labels.levels[-1]]
        maps = [self.conditional(step, level) for level in levels]
        return AverageMap((*maps, BottomUpMap(step.summing)))

    def conditional(self, step: Step, level: str) -> Mapping:
        """The map of one level."""
        variances = mean_squares(step.errors("LevelConditional"))
        summing = step.summing
        chosen = np.array(step.labels.at_level(level))
        if chosen[0] >= summing.num_aggregates:
            return BottomUpMap(summing)
        place = np.full(summing.num_aggregates + 1, len(chosen))
        place[chosen] = np.arange(len(chosen))
        small = Summing(jnp.asarray(place)[summing.groups], summing.weights, len(chosen))
        upper = variances[chosen]
        if self.exogenous:
            upper = jnp.zeros_like(upper)
        cov = StructuredCov(jnp.concatenate([upper, variances[summing.num_aggregates :]]))
        return LevelMap(summing, jnp.asarray(chosen), projection(small, cov))
