"""Linear maps from base forecasts of all nodes to coherent ones, applied without their matrix.

A map M takes y (nodes) to y~ = M y with C y~ = 0, usually M = S G. Each costs a few passes over
the nodes; `matrix` forms M for small hierarchies.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.error_cov import ErrorCov
from jaxfc.hierarchy.summing import EXACT, Summing
from jaxfc.typing import Array, Float, Int


class Mapping(eqx.Module):
    """A linear map to coherent forecasts."""

    @abc.abstractmethod
    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        """M y; nodes lead, other axes are carried along."""

    def apply_rows(self, rows: Float[Array, "rows nodes"]) -> Float[Array, "rows nodes"]:
        """M y for every row of data."""
        return self.apply(rows.T).T

    def matrix(self, num_nodes: int) -> Float[Array, "nodes nodes"]:
        """M as a matrix."""
        return self.apply(jnp.eye(num_nodes))


class BottomUpMap(Mapping):
    """y~ = S b^: the bottom forecasts, summed."""

    summing: Summing

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        return self.summing.coherent(nodes[self.summing.num_aggregates :])


class ShareMap(Mapping):
    """b~_j = p_j y^_s(j), then y~ = S b~: top-down (s(j) is the top) and middle-out."""

    summing: Summing
    sources: Int[Array, " bottom"]
    shares: Float[Array, " bottom"]

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        shares = self.shares.reshape(-1, *(1,) * (nodes.ndim - 1))
        return self.summing.coherent(shares * nodes[self.sources])


class RegressionMap(Mapping):
    """y~ = S (G y^) with a matrix G (bottom x nodes): ERM."""

    summing: Summing
    coefficients: Float[Array, "bottom nodes"]

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        return self.summing.coherent(jnp.tensordot(self.coefficients, nodes, axes=1))


class AverageMap(Mapping):
    """The mean of several maps, with equal weights or given ones that sum to one."""

    maps: tuple[Mapping, ...]
    weights: Float[Array, " maps"] | None = None

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        results = jnp.stack([one.apply(nodes) for one in self.maps])
        if self.weights is None:
            return jnp.mean(results, axis=0)
        return jnp.tensordot(self.weights, results, axes=1)


class ChainMap(Mapping):
    """One map after the other: constraints across series, then over time."""

    maps: tuple[Mapping, ...]

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        for one in self.maps:
            nodes = one.apply(nodes)
        return nodes


class Projection(Mapping):
    """y~ = y^ - W C' (C W C')^-1 C y^: the coherent point next to y^ in the metric W^-1.

    The same as S (S' W^-1 S)^-1 S' W^-1 y^ where W is regular, but it needs no inverse of W. Base
    forecasts of `immutable` nodes I are kept: constraints y~_I = y^_I with multipliers m. Nodes
    without base forecasts (`missing`, infinite variance; columns C_z) take values z; W and C have
    zeros at their places. Multipliers solve

        [ C W C'   (C W)_I   C_z ] [  l ]   [ C y^ ]
        [ (W C')_I   W_II     0  ] [  m ] = [  0   ],    y~ = y^ - W (C' l + E_I m).
        [ C_z'       0        0  ] [ -z ]   [  0   ]

    Source: Wickramasuriya, Athanasopoulos and Hyndman (2019); immutable nodes as constraints, as in
    Girolimetto and Di Fonzo (FoReco). Costs O(L nodes) for each column of y^ and
    O((aggregates + immutable + missing)^3) once.
    """

    summing: Summing
    cov: ErrorCov
    factor: Float[Array, "size size"]
    scale: Float[Array, " size"]
    immutable: Int[Array, " fixed"]
    missing: Int[Array, " missing"]

    def multipliers(self, gaps: Float[Array, "aggregates *rest"]) -> Array:
        """The solution (l, m, -z) for incoherences C y^."""
        size = self.scale.shape[0]
        rows = gaps.reshape(gaps.shape[0], -1)
        extra = jnp.zeros((size - rows.shape[0], rows.shape[1]), rows.dtype)
        rows = self.scale[:, None] * (jnp.concatenate([rows, extra]) if len(extra) else rows)
        if self.missing.shape[0] == 0:
            solved = jax.scipy.linalg.cho_solve((self.factor, True), rows)
        else:
            solved = jnp.linalg.solve(self.factor, rows)
        return (self.scale[:, None] * solved).reshape(size, *gaps.shape[1:])

    def apply(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        if self.missing.shape[0]:
            nodes = nodes.at[self.missing].set(0.0)
        solved = self.multipliers(self.summing.incoherence(nodes))
        split = self.summing.num_aggregates
        kept = split + self.immutable.shape[0]
        pull = self.summing.constraint_rows(solved[:split])
        if self.immutable.shape[0]:
            pull = pull.at[self.immutable].add(solved[split:kept])
        moved = nodes - self.cov.times(pull)
        if self.missing.shape[0]:
            moved = moved.at[self.missing].set(-solved[kept:])
        # Aggregates are summed once more, so that they add up to the last digit.
        return self.summing.coherent(moved[split:])

    def apply_rows(self, rows: Float[Array, "rows nodes"]) -> Float[Array, "rows nodes"]:
        # A matrix A that is no larger than the data beats scattered sums, and needs no transposes.
        split, fixed = self.summing.num_aggregates, self.immutable.shape[0]
        if rows.shape[0] < split or fixed or self.missing.shape[0]:
            return self.apply(rows.T).T
        matrix = self.summing.matrix()
        gaps = rows[:, :split] - jnp.matmul(rows[:, split:], matrix.T, precision=EXACT)
        solved = self.multipliers(gaps.T).T
        pull = jnp.concatenate([solved, -jnp.matmul(solved, matrix, precision=EXACT)], axis=1)
        bottom = (rows - self.cov.times_rows(pull))[:, split:]
        return jnp.concatenate([jnp.matmul(bottom, matrix.T, precision=EXACT), bottom], axis=1)


def projection(
    summing: Summing,
    cov: ErrorCov,
    *,
    immutable: Int[Array, " fixed"] | None = None,
    missing: Int[Array, " missing"] | None = None,
) -> Projection:
    """The projection in the metric of a covariance; see `Projection`."""
    fixed = jnp.zeros(0, dtype=jnp.int32) if immutable is None else immutable
    absent = jnp.zeros(0, dtype=jnp.int32) if missing is None else missing
    if absent.shape[0]:
        cov = cov.without(jnp.zeros(summing.num_nodes, dtype=bool).at[absent].set(True))
    system = refused_if_rounding(summing, cov, cov.of_constraints(summing))
    if fixed.shape[0]:
        columns = cov.times(unit_columns(summing.num_nodes, fixed))
        cross = summing.incoherence(columns)
        system = jnp.block([[system, cross], [cross.T, columns[fixed]]])
    if absent.shape[0] == 0:
        scale = 1.0 / jnp.sqrt(jnp.diagonal(system))
        factor = jnp.linalg.cholesky(scale[:, None] * system * scale)
        return Projection(summing, cov, factor, scale, fixed, absent)
    columns = summing.incoherence(unit_columns(summing.num_nodes, absent))
    columns = jnp.concatenate([columns, jnp.zeros((fixed.shape[0], absent.shape[0]))])
    size = jnp.sqrt(jnp.diagonal(system))
    # A constraint all of whose nodes are missing has no variance of its own.
    size = jnp.where(size > 0, size, jnp.max(size))
    scale = jnp.concatenate([1.0 / size, jnp.full(absent.shape[0], jnp.max(size))])
    zeros = jnp.zeros((absent.shape[0],) * 2, system.dtype)
    whole = jnp.block([[system, columns], [columns.T, zeros]])
    return Projection(summing, cov, scale[:, None] * whole * scale, scale, fixed, absent)


def refused_if_rounding(summing: Summing, cov: ErrorCov, system: Array) -> Array:
    """C W C', NaN where the variance of a constraint is what rounding left of its terms.

    Errors that add up themselves (a group of one series; linear forecasts) have no incoherence: a
    sample covariance then has nothing to weigh by, and dividing by noise would not show.
    """
    if not cov.may_be_singular:
        return system
    split = summing.num_aggregates
    variances = cov.diagonal()
    terms = variances[:split] + summing.scatter(summing.weights**2 * variances[split:])
    own = jnp.diagonal(system)
    noise = (own <= 1e4 * jnp.finfo(own.dtype).eps ** 2 * terms) & (terms > 0)
    return jnp.where(jnp.any(noise), jnp.nan, system)


def unit_columns(num_nodes: int, nodes: Int[Array, " chosen"]) -> Float[Array, "nodes chosen"]:
    """Columns of the identity."""
    return jnp.zeros((num_nodes, nodes.shape[0])).at[nodes, jnp.arange(nodes.shape[0])].set(1.0)


def mapped_variances(
    mapping: Mapping, variances: Float[Array, " nodes"], *, width: int = 256
) -> Float[Array, " nodes"]:
    """diag(M diag(v) M'), in blocks of columns of M: O(L nodes^2) time, O(width nodes) memory."""
    num_nodes = variances.shape[0]
    width = min(width, num_nodes)
    starts = jnp.arange(0, num_nodes, width)
    rows = jnp.arange(num_nodes)[:, None]

    def add(total: Array, start: Array) -> tuple[Array, None]:
        columns = start + jnp.arange(width)
        inside = columns < num_nodes
        units = jnp.where((rows == columns) & inside, 1.0, 0.0)
        sizes = jnp.where(inside, variances[jnp.minimum(columns, num_nodes - 1)], 0.0)
        return total + jnp.sum(mapping.apply(units) ** 2 * sizes, axis=1), None

    return jax.lax.scan(add, jnp.zeros_like(variances), starts)[0]
