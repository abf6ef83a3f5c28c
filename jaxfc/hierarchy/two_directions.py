"""Cross-temporal reconciliation in two steps, over series and over time.

`Separable` is optimal where W = W_cs (x) W_te. `TwoStep` reconciles every series over time and then
all periods over series, or the reverse. Neither solves the large system of all pairs.
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp

from jaxfc.hierarchy.cross_temporal import Pairs
from jaxfc.hierarchy.direction_maps import (
    DirectionMaps,
    as_rows,
    check_methods,
    check_pairs,
    direction_maps,
    folded_errors,
    step_of,
)
from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import AverageMap, Mapping
from jaxfc.hierarchy.method import Method, Step
from jaxfc.hierarchy.sample_cov import mean_squares
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float


class Separable(Method):
    """Over series and over time with one map each, in either order: M = M_cs (x) M_te.

    The optimal combination where W = W_cs (x) W_te: with given covariances, `OLS()`, or `WLS()`
    (structural variances are separable). Methods that take residuals get, over series, the errors
    of the base periods; over time, those of all series, each divided by its root mean square in the
    base periods.
    """

    pairs: Pairs
    across_method: Method
    over_time_method: Method

    def __init__(
        self,
        across: Hierarchy,
        over_time: Hierarchy,
        *,
        across_method: Method,
        over_time_method: Method,
    ):
        self.pairs = Pairs(across, over_time)
        self.across_method, self.over_time_method = across_method, over_time_method
        check_methods(self.pairs, (across_method, over_time_method))

    def check(self, summing: Summing, labels: Labels) -> None:
        check_pairs(self.pairs, labels)

    def mapping(self, step: Step) -> Mapping:
        across, over_time = self.pairs.across, self.pairs.over_time
        errors = folded_errors(self.pairs, step)
        own, scaled = None, None
        if errors is not None:
            finest = errors[:, :, over_time.labels.num_aggregates :]
            own = as_rows(jnp.swapaxes(finest, 1, 2))
            known = ~jnp.isnan(errors)
            units = jnp.where(known, errors, 0.0) / jnp.sqrt(mean_squares(own))[:, None]
            scaled = as_rows(jnp.where(known, units, jnp.nan))
        return SeparableMap(
            self.pairs,
            self.across_method.mapping(step_of(across, own)),
            self.over_time_method.mapping(step_of(over_time, scaled)),
        )


class SeparableMap(Mapping):
    """M_cs Y M_te'."""

    pairs: Pairs
    across_map: Mapping
    over_time_map: Mapping

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        table = self.across_map.apply(self.pairs.fold(nodes))
        table = self.over_time_map.apply(jnp.swapaxes(table, 0, 1))
        return self.pairs.unfold(jnp.swapaxes(table, 0, 1))


class TwoStep(Method):
    """First one direction, each series (or order) with its own W, then the other with mean maps.

    - `first="time"`: every series over time with W_te of its own errors, then every period over
      series with the mean over orders of M_cs,k, each from the errors of order k;
    - `first="series"`: every period over series with M_cs,k of its order, then every series over
      time with the mean over series of M_te,i.

    The mean maps keep what the first step has made coherent. Not optimal unless all maps of the
    second step are the same, but robust where the covariance of all pairs cannot be estimated.

    Source: Kourentzes and Athanasopoulos (2019); Di Fonzo and Girolimetto (2023), tcs and cst.
    """

    pairs: Pairs
    across_method: Method
    over_time_method: Method
    first: Literal["time", "series"] = eqx.field(static=True)

    def __init__(
        self,
        across: Hierarchy,
        over_time: Hierarchy,
        *,
        across_method: Method,
        over_time_method: Method,
        first: Literal["time", "series"] = "time",
    ):
        if first not in ("time", "series"):
            raise ValueError(f"first is 'time' or 'series', got {first!r}.")
        self.pairs, self.first = Pairs(across, over_time), first
        self.across_method, self.over_time_method = across_method, over_time_method
        check_methods(self.pairs, (across_method, over_time_method))

    def check(self, summing: Summing, labels: Labels) -> None:
        check_pairs(self.pairs, labels)

    def mapping(self, step: Step) -> Mapping:
        maps = direction_maps(self.pairs, step, self.across_method, self.over_time_method, "order")
        return TwoStepMap(self.pairs, maps, self.first)


class TwoStepMap(Mapping):
    """The two steps on a table of series and periods."""

    pairs: Pairs
    maps: DirectionMaps
    first: str = eqx.field(static=True)

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        table = self.pairs.fold(nodes)
        if self.first == "time":
            table = self.maps.over_time(table)
            table = AverageMap(self.maps.across_maps).apply(table)
        else:
            table = self.maps.across(table)
            size = len(self.pairs.over_time.names)
            each = eqx.filter_vmap(lambda one: one.matrix(size))(self.maps.over_time_maps)
            table = jnp.einsum("st,it...->is...", jnp.mean(each, axis=0), table)
        return self.pairs.unfold(table)
