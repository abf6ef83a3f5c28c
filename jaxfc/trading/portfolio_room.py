"""The weights within limits as a set with an interior, and the systems of Newton's steps in it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from jaxfc.typing import Array, Float

# By how much limits are loosened inside the solver, in units of the precision's power 0.6: sets
# without interior (a pinned asset, a net exposure equal to the gross one) then have one.
PRECISION_POWER = 0.6


def without_forced_signs(
    lower: Array, upper: Array, gross: Array, net: Array | None, loose: float
) -> tuple[Array, Array, Array, Array]:
    """The same limits without a gross limit that only forces signs, which has no interior.

    From the smallest weights within the bounds (sum e, sizes g) a net exposure s needs sizes
    g + |s - e| at least, hence |s - e| <= gross - g. Where all weights have one sign, that is the
    whole of the gross limit; where the least s asked for uses it up (fully invested, gross 1),
    weights can only lie on that side of the smallest. In both cases sizes get room to spare.
    """
    smallest = jnp.clip(0.0, lower, upper)
    sum_smallest, left = jnp.sum(smallest), gross - jnp.sum(jnp.abs(smallest))
    ends = jnp.asarray([-jnp.inf, jnp.inf], gross.dtype) if net is None else net
    asked = jnp.clip(sum_smallest, ends.reshape(-1)[0], ends.reshape(-1)[-1])
    tight = jnp.abs(asked - sum_smallest) >= left - loose * gross
    lower = jnp.where(tight & (asked >= sum_smallest), smallest, lower)
    upper = jnp.where(tight & (asked <= sum_smallest), smallest, upper)
    implied = tight | jnp.all(lower >= 0.0) | jnp.all(upper <= 0.0)
    roomy = jnp.where(implied, 2.0, 1.0 + loose) * gross
    if ends.ndim == 0:
        return lower, upper, roomy, ends
    least, most = sum_smallest - left, sum_smallest + left
    return lower, upper, roomy, jnp.stack([jnp.maximum(ends[0], least), jnp.minimum(ends[1], most)])


class Room(eqx.Module):
    """The weights within limits, as the points with slacks > 0.

    With a gross limit a point is (2, series), the weights and their sizes u >= |w|, so that
    sum u <= gross is affine; without it is (1, series), the weights.
    """

    lower: Float[Array, " series"]
    upper: Float[Array, " series"]
    gross: Float[Array, ""] | None
    net: Float[Array, "*ends"] | None

    @property
    def num_series(self) -> int:
        return self.lower.shape[0]

    @property
    def pinned_net(self) -> Float[Array, ""] | None:
        """The number that the weights have to sum to, None where there is none."""
        return self.net if self.net is not None and self.net.ndim == 0 else None

    @property
    def net_range(self) -> Float[Array, "2"] | None:
        """The range that the weights have to sum to, None where there is none."""
        return self.net if self.net is not None and self.net.ndim == 1 else None

    def start(self) -> Float[Array, "sides series"]:
        """The point without weights; sizes use up half the gross limit if there is one."""
        nothing = jnp.zeros((1, self.num_series), self.lower.dtype)
        if self.gross is None:
            return nothing
        return jnp.concatenate([nothing, nothing + 0.5 * self.gross / self.num_series])

    def rows(self, point: Float[Array, "sides series"]) -> Float[Array, " rows"]:
        """The linear part of the slacks."""
        weights = point[0]
        parts = [-weights, weights]
        if self.gross is not None:
            sizes = point[1]
            parts += [sizes + weights, sizes - weights, -jnp.sum(sizes)[None]]
        if self.net_range is not None:
            parts.append(jnp.sum(weights) * jnp.asarray([-1.0, 1.0], point.dtype))
        return jnp.concatenate(parts)

    def slacks(self, point: Float[Array, "sides series"]) -> Float[Array, " rows"]:
        """How far a point is inside each constraint."""
        parts = [self.upper, -self.lower]
        if self.gross is not None:
            parts += [jnp.zeros(2 * self.num_series, point.dtype), self.gross[None]]
        if self.net_range is not None:
            parts.append(self.net_range[::-1] * jnp.asarray([1.0, -1.0], point.dtype))
        return jnp.concatenate(parts) + self.rows(point)

    def transposed(self, multipliers: Float[Array, " rows"]) -> Float[Array, "sides series"]:
        """The transpose of `rows`."""
        (point,) = jax.linear_transpose(self.rows, self.start())(multipliers)
        return point

    def factored(
        self, rates: Float[Array, " rows"], hessian: Float[Array, "series series"]
    ) -> "Factored":
        """H on the weights + J' diag(rates) J on the point, J being `rows`, factorised.

        Sizes are eliminated by hand: their block is diagonal plus a multiple of ones, and what is
        left of a pair of rates p, q of the rows u + w and u - w is 4 p q / (p + q), a sum of
        positive terms where their difference would cancel.
        """
        size = self.num_series
        own = hessian + jnp.diag(rates[:size] + rates[size : 2 * size])
        if self.net_range is not None:
            own = own + rates[-2] + rates[-1]
        if self.gross is None:
            return Factored(cholesky(own), None)
        plus, minus = rates[2 * size : 3 * size], rates[3 * size : 4 * size]
        both, total = plus + minus, rates[4 * size]
        tilt, shared = (plus - minus) / both, total / (1.0 + total * jnp.sum(1.0 / both))
        own = own + jnp.diag(4.0 * plus * (minus / both)) + shared * jnp.outer(tilt, tilt)
        return Factored(cholesky(own), Sizes(both, tilt, shared))


class Factored(eqx.Module):
    """A matrix of points, ready to solve with; see `Room.factored`."""

    chol: Float[Array, "series series"]
    sizes: "Sizes | None"

    def solve(self, right: Float[Array, "sides series"]) -> Float[Array, "sides series"]:
        """The point that the matrix maps to `right`."""
        if self.sizes is None:
            return cho_solve((self.chol, True), right[0])[None]
        coupling = self.sizes.both * self.sizes.tilt
        own = right[0] - coupling * self.sizes.solve(right[1])
        weights = cho_solve((self.chol, True), own)
        return jnp.stack([weights, self.sizes.solve(right[1] - coupling * weights)])


class Sizes(eqx.Module):
    """The block of the sizes, diag(both) + total 11', which meets that of the weights in
    diag(both tilt); `shared` is total / (1 + total sum 1 / both)."""

    both: Float[Array, " series"]
    tilt: Float[Array, " series"]
    shared: Float[Array, ""]

    def solve(self, right: Float[Array, " series"]) -> Float[Array, " series"]:
        """The sizes that the block maps to `right` (Sherman and Morrison)."""
        return (right - self.shared * jnp.sum(right / self.both)) / self.both


def cholesky(matrix: Float[Array, "series series"]) -> Float[Array, "series series"]:
    """The Cholesky factor of a matrix whose units are of order one, with a ridge of rounding."""
    ridge = 10.0 * jnp.finfo(matrix.dtype).eps
    return jnp.linalg.cholesky(matrix + ridge * jnp.eye(matrix.shape[0], dtype=matrix.dtype))
