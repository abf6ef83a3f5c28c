"""Reconciliation within bounds: non-negative counts, simple returns above -1, limits of desks."""

from collections.abc import Mapping as Names

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxfc.batching import map_in_batches
from jaxfc.hierarchy.box import Box, nearest_in_box
from jaxfc.hierarchy.error_cov import DenseCov, ErrorCov
from jaxfc.hierarchy.held import Metric, compressed, metric_of
from jaxfc.hierarchy.labels import Labels, marked, shown
from jaxfc.hierarchy.mapping import Mapping
from jaxfc.hierarchy.method import Method, Step
from jaxfc.hierarchy.methods import GLS, MinT
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Bool, Float

Limits = float | int | Array | np.ndarray | Names[str, float] | None
CELLS_AT_ONCE = 2**25


class Limit(eqx.Module):
    """Bounds of one side: of all bottom series, of all nodes, or of those named."""

    values: Float[Array, "*nodes"]
    names: tuple[str, ...] | None = eqx.field(static=True)

    def of_nodes(self, labels: Labels, missing: float) -> Float[Array, " nodes"]:
        """The bound of each node, `missing` where there is none."""
        num_nodes = len(labels.names)
        empty = jnp.full(num_nodes, missing, dtype=self.values.dtype)
        if self.names is not None:
            if not self.names:
                return empty
            places = jnp.asarray([labels.index(name) for name in self.names])
            return empty.at[places].set(self.values)
        if self.values.shape == (num_nodes,):
            return self.values
        if self.values.ndim and self.values.shape != (labels.num_bottom,):
            raise ValueError(
                f"bounds are one number, an array of {labels.num_bottom} bottom series or of all "
                f"{num_nodes} nodes, or a mapping of names; got shape {self.values.shape}."
            )
        return empty.at[labels.num_aggregates :].set(self.values)


def limit_of(limits: Limits) -> Limit:
    """Bounds in any of their forms."""
    if limits is None:
        limits = {}
    if isinstance(limits, Names):
        values = jnp.asarray(list(limits.values()), dtype=jnp.result_type(float))
        return Limit(values, tuple(str(name) for name in limits))
    return Limit(jnp.asarray(limits, dtype=jnp.result_type(float)), None)


class Bounded(Method):
    """The nearest coherent point within bounds, in the metric of a projection.

        min over b of (y^ - S b)' W^-1 (y^ - S b)   with   lower <= S b <= upper

    W is that of `method` (OLS, WLS, MinT). Solved for each step and draw by itself; every draw of
    the result is coherent and within the bounds (bottom series to the last digit, aggregates up to
    rounding). The map is not linear: a Gaussian law is refused, reconcile its draws
    (`SampleForecast`), or means by `reconcile_means`. The reconciled mean of draws is the mean of
    reconciled draws, not the bounded mean.

    **Arguments:** `lower`, `upper` in the units of the forecast: one number for all bottom series
    (0 for counts, -1 for simple returns), an array of the bottom series or of all nodes, or a
    mapping from names of any nodes to bounds; None and infinities: no bound. Equal bounds fix a
    node. Immutable nodes keep their base forecasts even beyond their bounds.

    Costs a few systems of `aggregates` equations for each step and draw, and of as many as W has
    factors (at most `nodes`); draws that are within the bounds need one. Differentiable with
    respect to base forecasts, W, weights and bounds.

    **Raises:** `ValueError` for bounds that cannot be met, naming the nodes; nodes that the
    hierarchy lacks; missing base forecasts. Where bounds contradict immutable forecasts of a step,
    or under `jit` each other, the result is NaN.

    Source: Wickramasuriya, Turlach and Hyndman (2020) for non-negative forecasts.
    """

    method: GLS
    lower: Limit
    upper: Limit

    def __init__(self, method: GLS, *, lower: Limits = None, upper: Limits = None):
        if not isinstance(method, GLS):
            raise ValueError(
                f"bounds need a projection with a metric (OLS, WLS, MinT), got "
                f"{type(method).__name__}."
            )
        self.method = method
        self.lower, self.upper = limit_of(lower), limit_of(upper)

    @property
    def leaves_by_step(self) -> tuple[Array, ...]:
        return self.method.leaves_by_step

    @property
    def by_step(self) -> bool:
        return self.method.by_step

    @property
    def is_linear(self) -> bool:
        return False

    @property
    def takes_fixed(self) -> bool:
        return True

    @property
    def needs_forecast_cov(self) -> bool:
        return self.method.needs_forecast_cov

    def box(self, labels: Labels) -> Box:
        """Bounds of all nodes."""
        lower = self.lower.of_nodes(labels, -jnp.inf)
        return Box(lower, self.upper.of_nodes(labels, jnp.inf))

    def check(self, summing: Summing, labels: Labels) -> None:
        box = self.box(labels)
        arrays = (box.lower, box.upper, summing.weights)
        if not any(isinstance(array, Tracer) for array in arrays):
            check_bounds(summing, labels, np.asarray(box.lower), np.asarray(box.upper))

    def mapping(self, step: Step) -> Mapping:
        if step.missing is not None:
            raise ValueError(
                "Bounded takes base forecasts of all nodes: reconcile the missing ones without "
                "bounds first, and give the result."
            )
        cov: ErrorCov = self.method.error_cov(step)
        if isinstance(self.method, MinT) and self.method.kind == "sample":
            cov = DenseCov(cov.dense())
        box = self.box(step.labels)
        kept = jnp.zeros(step.summing.num_nodes, dtype=bool)
        if step.immutable is not None:
            kept = kept.at[step.immutable].set(True)
        metric = metric_of(step.summing, cov)
        own = metric.variances
        floored = jnp.where((own > 0) | jnp.isnan(own), own, floor_of(metric))
        metric = eqx.tree_at(lambda m: m.variances, metric, floored)
        return BoundedMap(metric, compressed(metric), box, kept)


def floor_of(metric: Metric) -> Float[Array, " nodes"]:
    """Variances for nodes that have none of their own, so small that it does not show.

    A node without errors then stays at its base forecast, or at the bound next to it; one with
    nothing but common factors is given a share that keeps its systems regular.
    """
    least = 1e-12 * jnp.max(metric.variances) * jnp.ones_like(metric.variances)
    if metric.factors is None:
        return least
    return jnp.maximum(least, 1e-8 * metric.weight * jnp.sum(metric.factors**2, axis=1))


class BoundedMap(Mapping):
    """The nearest coherent point in a box, column by column; not a linear map.

    Nodes that are `kept` have their base forecasts as both bounds.
    """

    metric: Metric
    small: Metric
    box: Box
    kept: Bool[Array, " nodes"]

    def nearest(self, base: Float[Array, " nodes"]) -> Float[Array, " nodes"]:
        """The point of one column."""
        lower = jnp.where(self.kept, base, self.box.lower)
        upper = jnp.where(self.kept, base, self.box.upper)
        return nearest_in_box(self.metric, self.small, base, Box(lower, upper))

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        columns = nodes.reshape(nodes.shape[0], -1).T
        num_nodes, width = self.metric.summing.num_nodes, self.metric.summing.num_aggregates
        factors = self.metric.factors
        depth = 0 if factors is None else factors.shape[1]
        cells = num_nodes * (depth + 32) + width**2 + depth**2
        moved = map_in_batches(
            self.nearest,
            columns,
            max(1, min(columns.shape[0], CELLS_AT_ONCE // cells)),
        )
        return moved.T.reshape(nodes.shape)


def check_bounds(summing: Summing, labels: Labels, lower: np.ndarray, upper: np.ndarray) -> None:
    """Refuses bounds that no coherent point meets; weights of each step are checked in turn."""
    bad = np.isnan(lower) | np.isnan(upper)
    if np.any(bad):
        raise ValueError(
            f"bounds of {marked(labels.names, bad)} are NaN; leave them out for no bound."
        )
    crossed = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
    if np.any(crossed):
        node = int(np.flatnonzero(crossed)[0])
        raise ValueError(
            f"bounds of {marked(labels.names, crossed)} leave nothing between them: "
            f"{labels.names[node]!r} has lower {lower[node]:.6g} and upper {upper[node]:.6g}. "
            f"Exchange or widen them."
        )
    split = labels.num_aggregates
    limited = np.flatnonzero(np.isfinite(lower[:split]) | np.isfinite(upper[:split]))
    if len(limited) == 0:
        return
    weights = summing.weights
    for one in weights.reshape(-1, *weights.shape[-2:]):
        matrix = np.asarray(Summing(summing.groups, one, split).matrix())[limited]
        wrong = unmet(matrix, lower[limited], upper[limited], lower[split:], upper[split:])
        if np.any(wrong):
            names = shown(labels.names[i] for i in limited[wrong])
            raise ValueError(
                f"bounds of the aggregates {names} cannot be met by series within their own "
                f"bounds; widen those of these aggregates or of the series below them."
            )


def unmet(
    matrix: np.ndarray, lower: np.ndarray, upper: np.ndarray, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Which of the rows lower <= A b <= upper cannot be met with least <= b <= most.

    The smallest excess in sum, by linear programming: b and the excesses p, q >= 0 with
    lower - p <= A b <= upper + q.
    """
    import scipy.optimize  # only where aggregates are bounded: it takes long to load

    rows, columns = matrix.shape
    finite = np.concatenate([part[np.isfinite(part)] for part in (lower, upper, least, most)])
    unit = max(float(np.max(np.abs(finite), initial=0.0)), 1e-300)
    excess = np.eye(rows)
    above, below = np.isfinite(upper), np.isfinite(lower)
    left = np.vstack(
        [
            np.hstack([matrix, np.zeros((rows, rows)), -excess])[above],
            np.hstack([-matrix, -excess, np.zeros((rows, rows))])[below],
        ]
    )
    right = np.concatenate([upper[above], -lower[below]]) / unit
    box = [*zip(least / unit, most / unit, strict=True), *[(0.0, None)] * (2 * rows)]
    cost = np.concatenate([np.zeros(columns), np.ones(2 * rows)])
    answer = scipy.optimize.linprog(cost, A_ub=left, b_ub=right, bounds=box)
    if answer.x is None:
        return np.zeros(rows, dtype=bool)
    down, up = np.split(answer.x[columns:], 2)
    return (down > 1e-7) | (up > 1e-7)
