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

    def system(
        self, rates: Float[Array, " rows"], hessian: Float[Array, "series series"]
    ) -> "System":
        """Newton's system where the ratios of multipliers to slacks are `rates`; see `System`."""
        size, dtype = self.num_series, hessian.dtype
        matrix = hessian + jnp.diag(rates[:size] + rates[size : 2 * size])
        sums, give = [], []
        if self.net is not None:
            sums.append(jnp.ones(size, dtype))
            pinned = self.net_range is None
            give.append(jnp.zeros((), dtype) if pinned else 1.0 / (rates[-2] + rates[-1]))
        if self.gross is not None:
            sizes = Sizes(rates[2 * size : 3 * size], rates[3 * size : 4 * size], rates[4 * size])
            matrix = matrix + jnp.diag(4.0 * sizes.plus * (sizes.minus / sizes.both))
            sums.append(-sizes.tilt)
            give.append(1.0 / sizes.total + jnp.sum(1.0 / sizes.both))
        else:
            sizes = None
        if not sums:
            return System(self, rates, cholesky(matrix), None, None)
        border = Border.of(jnp.stack(sums, axis=1), jnp.stack(give))
        chol = cholesky(matrix + (border.sums * border.stiffness) @ border.sums.T)
        return System(self, rates, chol, border, sizes)


class Sizes(eqx.Module):
    """Rates of the rows u + w, u - w and of the gross limit."""

    plus: Float[Array, " series"]
    minus: Float[Array, " series"]
    total: Float[Array, ""]

    @property
    def both(self) -> Float[Array, " series"]:
        """The diagonal of the block of the sizes."""
        return self.plus + self.minus

    @property
    def tilt(self) -> Float[Array, " series"]:
        """What a size loses where its weight gains one: 1 for a short position, -1 for a long."""
        return (self.plus - self.minus) / self.both

    def crossed(self, plus: Array, minus: Array) -> Float[Array, " series"]:
        """minus - plus + tilt (minus + plus), without taking differences."""
        return 2.0 * (self.plus * minus - self.minus * plus) / self.both

    def step(
        self, free: Array, pull: Array, weights: Array
    ) -> tuple[Float[Array, " series"], list[Float[Array, " series"]]]:
        """The step du that follows a step dw of the weights; du + dw and du - dw."""
        common = (free - pull) / self.both
        both_ways = [
            common + 2.0 * (self.minus / self.both) * weights,
            common - 2.0 * (self.plus / self.both) * weights,
        ]
        return common - self.tilt * weights, both_ways


class Border(eqx.Module):
    """Sums of weights V' w whose multipliers stay unknowns: V' dw - give multipliers = -missed.

    A limit that binds gives nothing. Eliminated, it would add V V' / give to the matrix, many
    orders of magnitude more than the objective, whose digits would be lost. Eliminated last, it
    would leave a matrix that may be singular. So the matrix gets a `stiffness` of order one, and
    the rest is left to the border.
    """

    sums: Float[Array, "series limits"]
    give: Float[Array, " limits"]
    stiffness: Float[Array, " limits"]

    @classmethod
    def of(cls, sums: Float[Array, "series limits"], give: Float[Array, " limits"]) -> "Border":
        """The border with as much stiffness as the limits have, at most one."""
        return cls(sums, give, 1.0 / jnp.maximum(give, 1.0))

    def solve(
        self, chol: Float[Array, "series series"], right: Array, missed: Array
    ) -> tuple[Float[Array, " series"], Float[Array, " limits"]]:
        """Weights and multipliers with matrix w + V multipliers = right."""
        left = 1.0 - self.stiffness * self.give
        weights = cho_solve((chol, True), right - self.sums @ (self.stiffness * missed))
        towards = cho_solve((chol, True), self.sums) * left
        small = jnp.diag(self.give) + self.sums.T @ towards
        multipliers = eliminated(small, self.sums.T @ weights + missed)
        return weights - towards @ multipliers, multipliers


class System(eqx.Module):
    """H on the weights + J' diag(rates) J on the point, J being the rows, factorised.

    Sizes are eliminated by hand: their block is diagonal, and what is left of a pair of rates
    p, q of the rows u + w and u - w is 4 p q / (p + q), a sum of positive terms where their
    difference would cancel. The sums of weights and of sizes are the `border`.
    """

    room: Room
    rates: Float[Array, " rows"]
    chol: Float[Array, "series series"]
    border: Border | None
    sizes: Sizes | None

    def solve(
        self,
        force: Float[Array, "sides series"],
        pressed: Float[Array, " rows"],
        excess: Float[Array, ""],
    ) -> tuple[Float[Array, "sides series"], Float[Array, " rows"], Float[Array, ""]]:
        """The step of the point with (H + J' diag(rates) J) step = -force - J' pressed and, for a
        pinned net exposure, its sum -excess; J step; and the step of that exposure's multiplier.

        Rows that are differences or sums of the step are found without taking them, so that a
        row's product with its rate is as precise as the forces.
        """
        size, sizes, ranged = self.room.num_series, self.sizes, self.room.net_range is not None
        right = -force[0] + pressed[:size] - pressed[size : 2 * size]
        net_rate = self.rates[-2] + self.rates[-1]
        net_missed = (pressed[-1] - pressed[-2]) / net_rate if ranged else excess
        missed = [] if self.room.net is None else [net_missed]
        free, nothing = jnp.zeros_like(right), jnp.zeros_like(excess)
        if sizes is not None:
            plus, minus = pressed[2 * size : 3 * size], pressed[3 * size : 4 * size]
            free = -force[1] - plus - minus
            right = right + sizes.tilt * force[1] + sizes.crossed(plus, minus)
            missed.append(jnp.sum(free / sizes.both) - pressed[4 * size] / sizes.total)
        if self.border is None:
            weights, pulls = cho_solve((self.chol, True), right), nothing[None]
        else:
            weights, pulls = self.border.solve(self.chol, right, jnp.stack(missed))
        point, rows = [weights], [-weights, weights]
        if sizes is not None:
            changes, both_ways = sizes.step(free, pulls[-1], weights)
            point.append(changes)
            rows += [*both_ways, -(pulls[-1] + pressed[4 * size])[None] / sizes.total]
        if ranged:
            change = pulls[0] / net_rate - net_missed
            rows.append(jnp.stack([-change, change]))
        pull = pulls[0] if self.room.pinned_net is not None else nothing
        return jnp.stack(point), jnp.concatenate(rows), pull


def eliminated(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """The solution of at most two equations whose diagonal is safe to divide by."""
    if right.shape[0] == 1:
        return right / matrix[0]
    ratio = matrix[1, 0] / matrix[0, 0]
    second = (right[1] - ratio * right[0]) / (matrix[1, 1] - ratio * matrix[0, 1])
    return jnp.stack([(right[0] - matrix[0, 1] * second) / matrix[0, 0], second])


def cholesky(matrix: Float[Array, "series series"]) -> Float[Array, "series series"]:
    """The Cholesky factor of a matrix whose units are of order one, with a ridge of rounding.

    A covariance of fewer draws than series is singular, and rates of limits that do not bind
    vanish: the ridge is what the factorisation may then miss. Limits that bind need none.
    """
    eps = jnp.finfo(matrix.dtype).eps
    ridge = 10.0 * eps + matrix.shape[0] * eps * jnp.minimum(jnp.diag(matrix), 1.0)
    return jnp.linalg.cholesky(matrix + jnp.diag(ridge))
