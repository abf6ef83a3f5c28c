"""Maps of the two directions of a cross-temporal hierarchy, each from the errors it concerns."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxfc.hierarchy.cross_temporal import SEPARATOR, Pairs
from jaxfc.hierarchy.labels import Labels
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.method import Method, Sample, Step
from jaxfc.hierarchy.structure import Hierarchy
from jaxfc.typing import Array, Float

Pooling = Literal["order", "position"]


class DirectionMaps(eqx.Module):
    """The maps of both directions: over time one for each series (batched); over series one for
    each order, or batched over positions."""

    over_time_maps: Mapping
    across_maps: tuple[Mapping, ...]
    orders: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def over_time(self, table: Float[Array, "series periods *rest"]) -> Array:
        """Every series with its own map."""
        return eqx.filter_vmap(lambda one, row: one.apply(row))(self.over_time_maps, table)

    def across(self, table: Float[Array, "series periods *rest"]) -> Array:
        """Every period with the map of its order, or its own."""
        if not self.orders:
            apply = eqx.filter_vmap(lambda one, rows: one.apply(rows), in_axes=(0, 1), out_axes=1)
            return apply(self.across_maps[0], table)
        parts = [
            one.apply(table[:, np.array(places)])
            for one, places in zip(self.across_maps, self.orders, strict=True)
        ]
        order = np.argsort(np.concatenate([np.array(places) for places in self.orders]))
        return jnp.concatenate(parts, axis=1)[:, order]


def direction_maps(
    pairs: Pairs, step: Step, across_method: Method, over_time_method: Method, pooling: str
) -> DirectionMaps:
    """Maps of both directions from the errors of each series, and of each order or position."""
    errors = folded_errors(pairs, step)
    across, over_time = pairs.across, pairs.over_time
    labels = over_time.labels
    orders = tuple(labels.at_level(level) for level in labels.level_names)
    if errors is None:
        one = over_time_method.mapping(step_of(over_time, None))
        arrays, static = eqx.partition(one, eqx.is_array)
        num_series = len(across.names)
        batch = jax.tree.map(lambda a: jnp.broadcast_to(a, (num_series, *a.shape)), arrays)
        same = across_method.mapping(step_of(across, None))
        return DirectionMaps(eqx.combine(batch, static), (same,) * len(orders), orders)

    def of_series(rows: Array) -> Mapping:
        return over_time_method.mapping(step_of(over_time, rows))

    def of_period(rows: Array) -> Mapping:
        return across_method.mapping(step_of(across, rows))

    over_time_maps = eqx.filter_vmap(of_series, in_axes=1)(errors)
    if pooling == "position":
        return DirectionMaps(over_time_maps, (eqx.filter_vmap(of_period, in_axes=2)(errors),), ())
    rows = jnp.swapaxes(errors, 1, 2)
    maps = tuple(of_period(as_rows(rows[:, list(places)])) for places in orders)
    return DirectionMaps(over_time_maps, maps, orders)


def folded_errors(pairs: Pairs, step: Step) -> Float[Array, "rows series periods"] | None:
    """Errors in sample as tables, NaN where missing; None where none are given."""
    errors = step.sample.residuals
    return None if errors is None else jnp.moveaxis(pairs.fold(errors.T), -1, 0)


def as_rows(errors: Float[Array, "a b c"]) -> Float[Array, "ab c"]:
    """The first two axes as dates."""
    return errors.reshape(-1, errors.shape[-1])


def step_of(hierarchy: Hierarchy, errors: Float[Array, "rows nodes"] | None) -> Step:
    """What a method needs in one direction."""
    mean, sample = jnp.zeros(len(hierarchy.names)), Sample(errors, None)
    return Step(hierarchy.summing, mean, None, sample, None, None, hierarchy.labels)


def check_methods(pairs: Pairs, methods: tuple[Method, ...]) -> None:
    """Refuses maps that depend on the base forecast or the step."""
    for hierarchy in (pairs.across, pairs.over_time):
        if hierarchy.num_steps is not None:
            raise ValueError(
                "one direction at a time needs weights that are the same for all steps; reconcile "
                "the hierarchy of cross_temporal with WLS or MinT instead."
            )
    for method in methods:
        if method.by_step or method.needs_forecast_cov or not method.is_linear:
            raise ValueError(
                f"{type(method).__name__} depends on the base forecast; over series and over time "
                f"use OLS, WLS, MinT from residuals, TemporalGLS or BottomUp."
            )


def check_pairs(pairs: Pairs, labels: Labels) -> None:
    """Refuses a hierarchy that is not the product of the two."""
    names = (pairs.across.names[0], pairs.over_time.names[0])
    if len(labels.names) != pairs.num_nodes or labels.names[0] != SEPARATOR.join(names):
        raise ValueError(
            "the hierarchy is not cross_temporal(across, over_time) of the hierarchies of the "
            "method; make it so."
        )
