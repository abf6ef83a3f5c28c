"""How aggregates are made of bottom series: a sparse weighted sum, never a matrix.

Every bottom series j belongs to at most L aggregates g_lj with weights w_lj, so that

    u_i = sum_{l, j : g_lj = i} w_lj b_j = (A b)_i,        A (aggregates x bottom),

and a vector over the nodes is y = (u, b), coherent when C y = u - A b = 0, C = [I, -A]. With
S = [A; I] it is y = S b. Everything costs O(L bottom) for each row of data. L is the number of
levels of a tree, and at most the number of aggregates for constraints of any kind.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Float, Int

# Sums must add up to the last digit: accelerators would round the factors of a product.
EXACT = jax.lax.Precision.HIGHEST


class Summing(eqx.Module):
    """The sum u = A b; `groups` holds num_aggregates where a series has no l-th aggregate."""

    groups: Int[Array, "levels bottom"]
    weights: Float[Array, "*steps levels bottom"]
    num_aggregates: int = eqx.field(static=True)

    @property
    def num_bottom(self) -> int:
        """How many bottom series there are."""
        return self.groups.shape[1]

    @property
    def num_nodes(self) -> int:
        """Aggregates and bottom series."""
        return self.num_aggregates + self.num_bottom

    def scatter(self, contributions: Float[Array, "levels bottom *rest"]) -> Array:
        """Sums contributions into the aggregates: (aggregates, ...)."""
        shape = (self.num_aggregates + 1, *contributions.shape[2:])
        rows = contributions.reshape(-1, *contributions.shape[2:])
        sums = jnp.zeros(shape, contributions.dtype).at[self.groups.reshape(-1)].add(rows)
        return sums[: self.num_aggregates]

    def aggregates(self, bottom: Float[Array, "bottom *rest"]) -> Float[Array, "aggregates *rest"]:
        """A b; series lead, so that rows of other axes lie together."""
        if self.matrix_is_smaller(bottom):
            return jnp.tensordot(self.matrix(), bottom, axes=1, precision=EXACT)
        weights = self.weights.reshape(*self.weights.shape, *(1,) * (bottom.ndim - 1))
        return self.scatter(weights * bottom)

    def spread(self, upper: Float[Array, "aggregates *rest"]) -> Float[Array, "bottom *rest"]:
        """A' u."""
        if self.matrix_is_smaller(upper):
            return jnp.tensordot(self.matrix().T, upper, axes=1, precision=EXACT)
        padded = jnp.concatenate([upper, jnp.zeros((1, *upper.shape[1:]), upper.dtype)])
        total = None
        for groups, weights in zip(self.groups, self.weights, strict=True):
            one = weights.reshape(-1, *(1,) * (upper.ndim - 1)) * padded[groups]
            total = one if total is None else total + one
        if total is None:
            return jnp.zeros((self.num_bottom, *upper.shape[1:]), upper.dtype)
        return total

    def coherent(self, bottom: Float[Array, "bottom *rest"]) -> Float[Array, "nodes *rest"]:
        """S b: all nodes from the bottom series."""
        return jnp.concatenate([self.aggregates(bottom), bottom])

    def incoherence(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "aggregates *rest"]:
        """C y = u - A b."""
        split = self.num_aggregates
        return nodes[:split] - self.aggregates(nodes[split:])

    def constraint_rows(
        self, multipliers: Float[Array, "aggregates *rest"]
    ) -> Float[Array, "nodes *rest"]:
        """C' m = (m, -A' m)."""
        return jnp.concatenate([multipliers, -self.spread(multipliers)])

    def summed_rows(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "bottom *rest"]:
        """S' y = A' u + b."""
        return self.spread(nodes[: self.num_aggregates]) + nodes[self.num_aggregates :]

    def weighted_product(
        self, variances: Float[Array, " bottom"]
    ) -> Float[Array, "aggregates aggregates"]:
        """A diag(v) A', in O(L^2 bottom)."""
        size = self.num_aggregates + 1
        left = self.weights[:, None, :] * self.weights[None, :, :] * variances
        cells = self.groups[:, None, :] * size + self.groups[None, :, :]
        sums = jnp.zeros(size * size, left.dtype).at[cells.reshape(-1)].add(left.reshape(-1))
        return sums.reshape(size, size)[:-1, :-1]

    def row_squares(self) -> Float[Array, " nodes"]:
        """diag(S S'): variances of the nodes if bottom series are independent with variance 1."""
        return jnp.concatenate([self.scatter(self.weights**2), jnp.ones(self.num_bottom)])

    def matrix_is_smaller(self, data: Array) -> bool:
        """Whether A is no larger than the data: then a product beats scattered sums."""
        return data.ndim > 1 and math.prod(data.shape[1:]) >= self.num_aggregates > 0

    def matrix(self) -> Float[Array, "aggregates bottom"]:
        """A as a matrix, where it is no larger than the data that it multiplies."""
        empty = jnp.zeros((self.num_aggregates + 1, self.num_bottom), self.weights.dtype)
        columns = jnp.broadcast_to(jnp.arange(self.num_bottom), self.groups.shape)
        return empty.at[self.groups, columns].add(self.weights)[:-1]


def averaging(
    groups: Int[Array, "levels bottom"],
    weights: Float[Array, "*steps levels bottom"],
    num_aggregates: int,
) -> Float[Array, "*steps levels bottom"]:
    """Weights divided by their sum within each aggregate, so that aggregates are averages."""

    def one(weights: Float[Array, "levels bottom"]) -> Array:
        totals = Summing(groups, weights, num_aggregates).scatter(weights)
        padded = jnp.concatenate([totals, jnp.ones(1, totals.dtype)])
        return weights / padded[groups]

    if weights.ndim == 2:
        return one(weights)
    lead = weights.shape[:-2]
    flat = jax.vmap(one)(weights.reshape(-1, *weights.shape[-2:]))
    return flat.reshape(*lead, *weights.shape[-2:])


def over_steps(
    summing: Summing, verb: Callable[[Summing, Array], Array], rows: Float[Array, "*rows columns"]
) -> Array:
    """A verb of sums on data whose last axis are series; one set of weights, or one per row."""
    if summing.weights.ndim == 2:
        return jnp.moveaxis(verb(summing, jnp.moveaxis(rows, -1, 0)), 0, -1)
    if summing.weights.shape[0] != rows.shape[0]:
        raise ValueError(
            f"the hierarchy has weights for {summing.weights.shape[0]} steps, the data have "
            f"{rows.shape[0]} rows."
        )

    def one(weights: Array, row: Array) -> Array:
        single = Summing(summing.groups, weights, summing.num_aggregates)
        return jnp.moveaxis(verb(single, jnp.moveaxis(row, -1, 0)), 0, -1)

    return jax.vmap(one)(summing.weights, rows)
