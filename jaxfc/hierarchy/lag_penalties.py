"""Penalties that let lags of a VAR end: nested groups, their exact proximal maps, and FISTA."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxfc.hierarchy.accelerated_em import at_fixed_point
from jaxfc.hierarchy.levels import product
from jaxfc.typing import Array, Bool, Float, Int

STRUCTURES = ("component", "own_other", "element")
# Halvings of the interval in which the smallest penalty without any lag lies.
NUM_HALVINGS = 50

# Lags as (equations, lags, series).
Lags = Float[Array, "series lags series"]


def proximal(structure: str, lags: Lags, size: Float[Array, ""]) -> Lags:
    """argmin_X |X - lags|^2 / 2 + size * penalty(X), exactly.

    Penalties of one equation i are sums of Euclidean norms of nested groups; Phi_l is the row of
    lag l, Phi_l+ those of lags l, ..., p:

    - "component" (HLAGC): sum_l |Phi_l+|: all series end at the same lag;
    - "own_other" (HLAGOO): sum_l (|Phi_l+| + |(Phi_l without i, Phi_{l+1}+)|): at each lag the
      series' own comes first;
    - "element" (HLAGELEM): sum_j sum_l |Phi_{l+, j}|: each series ends at its own lag.

    For nested groups the map is one sweep of group shrinkage, from the innermost group outwards.

    Source: Nicholson, Wilms, Bien and Matteson (2020), section 3; Jenatton, Mairal, Obozinski and
    Bach (2011).
    """
    num_series, num_lags, _ = lags.shape
    others = ~jnp.eye(num_series, dtype=bool)
    for lag in reversed(range(num_lags)):
        later = jnp.arange(num_lags)[None, :, None] > lag
        here = jnp.arange(num_lags)[None, :, None] == lag
        if structure == "own_other":
            lags = shrunk(lags, later | (here & others[:, None, :]), (1, 2), size)
        axes = (1,) if structure == "element" else (1, 2)
        lags = shrunk(lags, later | here, axes, size)
    return lags


def shrunk(
    values: Lags, group: Bool[Array, "#series lags #series"], axes: tuple[int, ...], size: Array
) -> Lags:
    """Group shrinkage: the entries of a group times max(0, 1 - size / their norm)."""
    squares = jnp.sum(jnp.where(group, values, 0.0) ** 2, axis=axes, keepdims=True)
    norms = jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0))
    keep = jnp.where(squares > 0.0, jnp.maximum(1.0 - size / norms, 0.0), 1.0)
    return jnp.where(group, keep * values, values)


def penalty_of(structure: str, lags: Lags) -> Float[Array, ""]:
    """The penalty that `proximal` is the map of, all equations."""
    squares = lags**2
    tails = jnp.flip(jnp.cumsum(jnp.flip(squares, 1), axis=1), 1)
    if structure == "element":
        return jnp.sum(jnp.sqrt(tails))
    rows = jnp.sum(tails, axis=2)
    total = jnp.sum(jnp.sqrt(rows))
    if structure == "own_other":
        own = jnp.einsum("ili->il", squares)
        total = total + jnp.sum(jnp.sqrt(jnp.maximum(rows - own, 0.0)))
    return total


class Problem(NamedTuple):
    """1 / (2 T) sum over known cells of (y_ti - x_t' b_i)^2, with x_t = (1, r_{t-1}', ...)'."""

    columns: Float[Array, "time columns"]
    targets: Float[Array, "time series"]
    known: Bool[Array, "time series"]

    @property
    def curvature(self) -> Float[Array, ""]:
        """The largest eigenvalue of X'X / T over rows with any known cell."""
        used = jnp.any(self.known, axis=1)
        rows = jnp.where(used[:, None], self.columns, 0.0)
        wide = rows.shape[1] > rows.shape[0]
        gram = product("ta,sa->ts", rows, rows) if wide else product("ta,tb->ab", rows, rows)
        return jnp.linalg.eigvalsh(gram)[-1] / self.num_rows

    @property
    def num_rows(self) -> Float[Array, ""]:
        """T: rows with any known cell."""
        return jnp.maximum(jnp.sum(jnp.any(self.known, axis=1)), 1).astype(self.columns.dtype)

    def gradient(self, coefficients: Float[Array, "series columns"]) -> Array:
        """Slope of the sum of squares."""
        errors = product("ta,ia->ti", self.columns, coefficients) - self.targets
        errors = jnp.where(self.known, errors, 0.0)
        return product("ti,ta->ia", errors, self.columns) / self.num_rows


class Penalised(NamedTuple):
    """Coefficients (intercept first), steps taken, and whether they converged."""

    coefficients: Float[Array, "series columns"]
    num_steps: Int[Array, ""]
    converged: Bool[Array, ""]


def split_intercept(coefficients: Float[Array, "series columns"]) -> tuple[Array, Array]:
    """Intercepts (series, 1) and lags (series, lags, series)."""
    num_series = coefficients.shape[0]
    return coefficients[:, :1], coefficients[:, 1:].reshape(num_series, -1, num_series)


def joined(intercepts: Array, lags: Array) -> Float[Array, "series columns"]:
    """The inverse of `split_intercept`."""
    return jnp.concatenate([intercepts, lags.reshape(lags.shape[0], -1)], axis=1)


def penalised(
    problem: Problem,
    structure: str,
    size: Float[Array, ""],
    start: Float[Array, "series columns"],
    curvature: Float[Array, ""],
    tolerance: Float[Array, ""],
    max_steps: int,
) -> Penalised:
    """The minimum by accelerated proximal gradients, momentum restarted equation by equation.

    Ends when no coefficient moves by more than `tolerance`. O(time columns series) a step.

    Source: Beck and Teboulle (2009); O'Donoghue and Candes (2015) for restarts.
    """

    def unfinished(state):
        count, _, _, _, change = state
        return (count < max_steps) & (change > tolerance)

    def advance(state):
        count, point, ahead, momentum, _ = state
        moved = ahead - problem.gradient(ahead) / curvature
        intercepts, lags = split_intercept(moved)
        following = joined(intercepts, proximal(structure, lags, size / curvature))
        change = following - point
        uphill = jnp.sum((ahead - following) * change, axis=1) > 0.0
        momentum = jnp.where(uphill, 1.0, momentum)
        larger = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2))
        push = jnp.where(uphill, 0.0, (momentum - 1.0) / larger)
        ahead = following + push[:, None] * change
        return count + 1, following, ahead, larger, jnp.max(jnp.abs(change))

    ones = jnp.ones(start.shape[0], start.dtype)
    state = (jnp.asarray(0), start, start, ones, jnp.asarray(jnp.inf, start.dtype))
    count, point, _, _, change = jax.lax.while_loop(unfinished, advance, state)
    return Penalised(point, count, change <= tolerance)


def without_lags(problem: Problem) -> Float[Array, "series columns"]:
    """Means of the known cells as intercepts, no lags."""
    known = problem.known
    counts = jnp.maximum(jnp.sum(known, axis=0), 1)
    means = jnp.sum(jnp.where(known, problem.targets, 0.0), axis=0) / counts
    zeros = jnp.zeros((len(means), problem.columns.shape[1] - 1), means.dtype)
    return jnp.concatenate([means[:, None], zeros], axis=1)


def largest_penalty(problem: Problem, structure: str) -> Float[Array, ""]:
    """The smallest penalty at which no lag enters.

    Zero is the minimum where the proximal map takes the slope there to zero: found by halving.
    """
    _, slopes = split_intercept(problem.gradient(without_lags(problem)))
    high = jnp.max(jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2))))

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        empty = jnp.all(proximal(structure, slopes, middle) == 0.0)
        return jnp.where(empty, low, middle), jnp.where(empty, middle, high)

    return jax.lax.fori_loop(0, NUM_HALVINGS, halve, (jnp.zeros_like(high), high))[1]


def penalty_path(
    problem: Problem,
    structure: str,
    sizes: Float[Array, " penalties"],
    tolerance: Float[Array, ""],
    max_steps: int,
    reader: Callable[[Array], Array] | None = None,
) -> tuple[Array, Penalised]:
    """Minima at decreasing `sizes`, each started from the one before, and what `reader` (left out:
    the coefficients) makes of each."""
    curvature = problem.curvature

    def one(start, size):
        found = penalised(problem, structure, size, start, curvature, tolerance, max_steps)
        kept = found.coefficients if reader is None else reader(found.coefficients)
        return found.coefficients, (kept, found._replace(coefficients=jnp.zeros((0, 0))))

    _, (kept, found) = jax.lax.scan(one, without_lags(problem), sizes)
    return kept, found


def at_minimum(
    problem: Problem, structure: str, size: Float[Array, ""], found: Float[Array, "series columns"]
) -> Float[Array, "series columns"]:
    """The minimum `found` as a function of the data, by the implicit function theorem: it stays
    where a proximal step leads to itself. Derivatives are those with the same lags at zero."""
    curvature = jax.lax.stop_gradient(problem.curvature)

    def step(coefficients: Array, arguments: tuple[Problem, Array, Array]) -> tuple[Array, None]:
        problem, size, curvature = arguments
        moved = coefficients - problem.gradient(coefficients) / curvature
        intercepts, lags = split_intercept(moved)
        return joined(intercepts, proximal(structure, lags, size / curvature)), None

    return at_fixed_point(found, (problem, size, curvature), step=step)
