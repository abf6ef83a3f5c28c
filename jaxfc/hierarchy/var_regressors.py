"""Own, market and sector returns as regressors, and the recursion that they drive: no n x n matrix.

For asset i of sector s, with weights w of the row and all sums over observed assets,

    market = sum_{j not in s} w_j R_j / sum_{j not in s} w_j
    sector = sum_{j in s, j != i} w_j R_j / sum_{j in s, j != i} w_j

so that none of the three contains another. Where a sum is empty the average does not exist.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxfc.hierarchy.levels import product
from jaxfc.lags import lagged, push
from jaxfc.typing import Array, Bool, Float, Int

# Own, market and sector returns.
NUM_KINDS = 3


class Membership(eqx.Module):
    """Which sector each asset is in."""

    members: Int[Array, " series"]
    num_sectors: int = eqx.field(static=True)

    def sums(self, values: Float[Array, "series *rest"]) -> Float[Array, "sectors *rest"]:
        """Sums over the assets of each sector."""
        return jax.ops.segment_sum(values, self.members, self.num_sectors)


class OthersAverages(NamedTuple):
    """The averages `market` and `sector`, zero where they do not exist, and where they do."""

    market: Float[Array, "series *rest"]
    sector: Float[Array, "series *rest"]
    has_market: Bool[Array, "series *rest"]
    has_sector: Bool[Array, "series *rest"]


def averages_of_others(
    values: Float[Array, "series *rest"],
    weights: Float[Array, "series *rest"],
    membership: Membership,
) -> OthersAverages:
    """Averages over the others of the sector, and over other sectors, of assets along the first
    axis; assets with weight zero (not observed) do not count. O(size of `values`)."""
    weighted = weights * values
    present = (weights != 0.0).astype(values.dtype)
    of_sector = [membership.sums(each) for each in (weighted, weights, present)]
    own = [each[membership.members] for each in of_sector]
    outside = [jnp.sum(each, axis=0) - mine for each, mine in zip(of_sector, own, strict=True)]
    beside = [mine - each for mine, each in zip(own, (weighted, weights, present), strict=True)]

    def ratio(sums: list[Array]) -> tuple[Array, Array]:
        exists = sums[2] > 0.5  # a count, which rounding cannot make positive
        return jnp.where(exists, sums[0] / jnp.where(exists, sums[1], 1.0), 0.0), exists

    market, has_market = ratio(outside)
    sector, has_sector = ratio(beside)
    return OthersAverages(market, sector, has_market, has_sector)


def regressors_of(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    weights: Float[Array, "time series"],
    membership: Membership,
    num_lags: int,
) -> tuple[Float[Array, "time series coefficients"], Bool[Array, "time series"]]:
    """Regressors 1, own lags, market lags, sector lags of every cell, and where all are known.

    An average that no date has (the sector of its only asset, the market beside the only sector)
    is a column of zeros and counts as known.
    """
    values = jnp.where(observed, values, 0.0).T
    shares = jnp.where(observed, weights, 0.0).T
    found = averages_of_others(values, shares, membership)
    ever = averages_of_others(values, weights.T, membership)
    market_known = found.has_market.T | ~jnp.any(ever.has_market, axis=1)
    sector_known = found.has_sector.T | ~jnp.any(ever.has_sector, axis=1)
    kinds = values.T, found.market.T, found.sector.T
    usable = observed & market_known & sector_known
    columns = [jnp.ones_like(kinds[0])]
    columns += [lagged(kind, lag) for kind in kinds for lag in range(1, num_lags + 1)]
    known = jnp.ones_like(observed)
    for lag in range(1, num_lags + 1):
        known = known & lagged(usable, lag)
    return jnp.stack(columns, axis=2), known


class Recursion(eqx.Module):
    """R_t = intercepts + sum_l (own_l R + market_l M R + sector_l S R)_{t-l}, M and S the averages.

    `lags` (lags, kinds, series): coefficients on own, market and sector returns of lag l; `weights`
    (series,) of the averages. One step costs O(series lags), no matrix is formed.
    """

    intercepts: Float[Array, " series"]
    lags: Float[Array, "lags kinds series"]
    weights: Float[Array, " series"]
    membership: Membership

    def kinds(self, row: Float[Array, "series *rest"]) -> Float[Array, "kinds series *rest"]:
        """A row, its market and its sector averages."""
        weights = self.weights.reshape((-1,) + (1,) * (row.ndim - 1))
        found = averages_of_others(row, jnp.broadcast_to(weights, row.shape), self.membership)
        return jnp.stack([row, found.market, found.sector])

    def explained(
        self, history: Float[Array, "lags kinds series *rest"]
    ) -> Float[Array, "series *rest"]:
        """What the lags of `history` (newest first) add to the intercepts."""
        return product("lki,lki...->i...", self.lags, history)

    def responses(
        self, shocks: Float[Array, "series shocks"], horizon: int
    ) -> Float[Array, "horizon series shocks"]:
        """What shocks of one row do to it and to the rows that follow: Psi_0 x, Psi_1 x, ..."""

        def step(history, _):
            row = self.explained(history)
            return push(history, self.kinds(row)), row

        start = jnp.zeros((*self.lags.shape, shocks.shape[1]), shocks.dtype)
        start = push(start, self.kinds(shocks))
        _, rows = jax.lax.scan(step, start, None, length=horizon - 1)
        return jnp.concatenate([shocks[None], rows])

    def path(
        self,
        history: Float[Array, "lags kinds series"],
        shocks: Float[Array, "time series"],
    ) -> Float[Array, "time series"]:
        """The rows that follow `history` when these shocks arrive; zeros: their expectations."""

        def step(history, shock):
            row = self.intercepts + self.explained(history) + shock
            return push(history, self.kinds(row)), row

        return jax.lax.scan(step, history, shocks)[1]

    def completed(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        weights: Float[Array, "time series"],
    ) -> Float[Array, "lags kinds series"]:
        """The history after the last row: a return that is not observed stands at its expectation
        given the rows before it, one before the first row at its mean."""
        counts = jnp.maximum(jnp.sum(observed, axis=0), 1)
        start = jnp.sum(jnp.where(observed, values, 0.0), axis=0) / counts

        def step(history, row):
            value, seen, weight = row
            value = jnp.where(seen, value, self.intercepts + self.explained(history))
            recursion = eqx.tree_at(lambda r: r.weights, self, weight)
            return push(history, recursion.kinds(value)), None

        history = jnp.broadcast_to(self.kinds(start), self.lags.shape)
        return jax.lax.scan(step, history, (values, observed, weights))[0]

    def spectral_radius(self, num_iterations: int = 1000) -> Float[Array, ""]:
        """The largest modulus of the roots; below one, shocks die out. See `dominant_modulus`."""
        frozen = jax.lax.stop_gradient(self)

        def advance(rows: Array) -> Array:
            # Own returns are the state: their averages follow from them.
            new = frozen.explained(jax.vmap(frozen.kinds)(rows))
            return jnp.concatenate([new[None], rows[:-1]])

        num_lags, _, num_series = self.lags.shape
        return dominant_modulus(advance, num_lags, num_series, self.lags.dtype, num_iterations)


def dominant_modulus(
    advance: Callable[[Array], Array],
    num_lags: int,
    num_series: int,
    dtype: DTypeLike,
    num_iterations: int,
) -> Float[Array, ""]:
    """The largest modulus of the eigenvalues of a linear map of (lags, series), given as a function
    of (lags, series, columns).

    Orthogonal iteration with two vectors, then the eigenvalues of its 2 x 2 section, real or a
    complex pair. The error shrinks with the ratio of the third to the first modulus.
    """

    def floor(norm: Array) -> Array:
        return jnp.where(norm > 0.0, norm, 1.0)

    def orthonormal(columns: Array) -> Array:
        first, second = columns[..., 0], columns[..., 1]
        first = first / floor(jnp.linalg.norm(first))
        for _ in range(2):  # twice is enough for full orthogonality
            second = second - jnp.sum(first * second) * first
            second = second / floor(jnp.linalg.norm(second))
        return jnp.stack([first, second], axis=-1)

    angles = jnp.arange(num_lags * num_series, dtype=dtype).reshape(num_lags, num_series)
    start = jnp.stack([1.0 + 0.5 * jnp.sin(1.7 * angles), jnp.cos(0.9 * angles)], axis=-1)
    basis = jax.lax.fori_loop(
        0, num_iterations, lambda _, basis: orthonormal(advance(basis)), orthonormal(start)
    )
    return largest_modulus(product("lia,lib->ab", basis, advance(basis)))


def largest_modulus(matrix: Float[Array, "2 2"]) -> Float[Array, ""]:
    """The larger modulus of the eigenvalues of a 2 x 2 matrix."""
    half_trace = 0.5 * (matrix[0, 0] + matrix[1, 1])
    det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    gap = half_trace**2 - det
    real = jnp.abs(half_trace) + jnp.sqrt(jnp.maximum(gap, 0.0))
    return jnp.where(gap >= 0.0, real, jnp.sqrt(jnp.maximum(det, 0.0)))
