"""Distances and expected moments of rows under one normal law, whole rows and rows with holes.

Given the observed part o of a row and G = S_mo S_oo^{-1}, the missing part m is normal with mean
mu_m + G (y_o - mu_o) and covariance C = S_mm - G S_om (divided by u where the row is scaled, see
`Tails`); the sums of an M-step take these in place of the squares that are not known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.regimes.prior import PriorMoments
from jaxfc.typing import Array, Bool, Float

# Rows whose swept matrices are held at once, (series, series) each: bounds the memory.
CHUNK = 32


class Rows(NamedTuple):
    """The panel as the updates read it: `values` are zero and `seen` is 0.0 where not observed."""

    values: Float[Array, "time series"]
    seen: Float[Array, "time series"]

    @property
    def counts(self) -> Float[Array, " time"]:
        """Observed entries of every row."""
        return jnp.sum(self.seen, axis=1)

    @property
    def any_seen(self) -> Float[Array, " time"]:
        """1.0 for rows with an observation."""
        return jnp.max(self.seen, axis=1)

    @property
    def are_whole(self) -> Bool[Array, ""]:
        """Whether each row is observed whole or not at all."""
        return jnp.all(jnp.max(self.seen, axis=1) == jnp.min(self.seen, axis=1))


def as_rows(values: Float[Array, "time series"], observed: Bool[Array, "time series"]) -> Rows:
    """Rows of a panel; hidden cells are replaced before any arithmetic."""
    return Rows(jnp.where(observed, values, 0.0), observed.astype(values.dtype))


def complete_distances(mean: Array, scatter: Array, rows: Rows) -> tuple[Array, Array]:
    """Whole rows: one Cholesky factor for all."""
    chol = jnp.linalg.cholesky(scatter)
    inverse = solve_triangular(chol, jnp.eye(mean.size, dtype=mean.dtype), lower=True)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
    units = (rows.values - mean) @ inverse.T
    seen = rows.seen[:, 0]
    return seen * jnp.sum(units**2, axis=1), seen * log_det


def complete_scatter(
    mean: Array,
    scatter: Array,
    rows: Rows,
    weights: Array,
    precisions: Array,
    prior: PriorMoments | None,
) -> tuple[Array, Array]:
    """New mean and the weighted sum of squares around it, with the prior's pull of the mean;
    `prior` None keeps the mean."""
    pulls = weights * precisions
    new = moved_mean(mean, pulls @ rows.values, jnp.sum(pulls), prior)
    residuals = rows.values - new
    return new, (pulls[:, None] * residuals).T @ residuals + mean_square(new, prior)


def moved_mean(mean: Array, total: Array, mass: Array, prior: PriorMoments | None) -> Array:
    """(k m_0 + sum w u y) / (k + sum w u); without a prior the mean is not free and stays."""
    if prior is None:
        return mean
    strength = prior.mean_strength
    return (strength * prior.mean + total) / (strength + mass)


def mean_square(mean: Array, prior: PriorMoments | None) -> Array | float:
    """k (mu - m_0)(mu - m_0)'."""
    if prior is None:
        return 0.0
    gap = mean - prior.mean
    return prior.mean_strength * gap[:, None] * gap


def swept(scatter: Array, seen: Array) -> tuple[Array, Array]:
    """S (series, series) swept on the observed entries of many rows, (series, series, rows), and
    ln |S_oo| (rows,); `seen` (rows, series).

    Sweeping entry i takes A_jk to A_jk - A_ji A_ik / A_ii, A_ij to A_ij / A_ii and A_ii to
    -1 / A_ii. After all observed ones A_oo = -S_oo^{-1}, A_mo = S_mo S_oo^{-1} and A_mm is the
    covariance of the missing ones given the others. Rows come last: every step is one pass over
    contiguous arrays, far cheaper than as many small factorisations.

    Source: Goodnight (1979).
    """
    size = scatter.shape[0]
    place = jnp.arange(size)
    # A step reads a row where the formula has a column: the derivative is to be symmetric too.
    scatter = 0.5 * (scatter + scatter.T)
    start = jnp.broadcast_to(scatter[:, :, None], (size, size, seen.shape[0]))

    def step(given: tuple[Array, Array], inputs: tuple[Array, Array]):
        matrix, log_det = given
        i, used = inputs
        row = matrix[i]
        pivot = jnp.where(used, row[i], 1.0)
        scaled = jnp.where(used, row / pivot, 0.0)
        # One product over the whole, then the row and the column of the entry.
        moved = matrix - row[:, None] * scaled[None]
        line = jnp.where(used, scaled, row).at[i].set(jnp.where(used, -1.0 / pivot, row[i]))
        return (moved.at[i].set(line).at[:, i].set(line), log_det + jnp.log(pivot)), None

    nothing = jnp.zeros(seen.shape[0], scatter.dtype)
    return jax.lax.scan(step, (start, nothing), (place, seen.T > 0))[0]


def in_chunks(function, rows: Rows, *rest: Array):
    """`function` over chunks of rows, answers joined; rows added to fill the last are unseen."""
    num_times = rows.values.shape[0]
    chunk = min(CHUNK, num_times)
    extra = -num_times % chunk

    def split(array: Array) -> Array:
        padded = jnp.pad(array, ((0, extra),) + ((0, 0),) * (array.ndim - 1))
        return padded.reshape(-1, chunk, *array.shape[1:])

    chunks = jax.tree.map(split, (rows, *rest))
    return jax.lax.map(jax.checkpoint(lambda given: function(*given)), chunks)


def masked_distances(mean: Array, scatter: Array, rows: Rows) -> tuple[Array, Array]:
    """Rows with holes: S swept for each."""

    def of_chunk(rows: Rows) -> tuple[Array, Array]:
        matrices, log_dets = swept(scatter, rows.seen)
        residuals = (rows.seen * (rows.values - mean)).T
        return -jnp.sum(residuals * jnp.sum(matrices * residuals, axis=1), axis=0), log_dets

    num_times = rows.values.shape[0]
    distances, log_dets = in_chunks(of_chunk, rows)
    return distances.reshape(-1)[:num_times], log_dets.reshape(-1)[:num_times]


def masked_scatter(
    mean: Array,
    scatter: Array,
    rows: Rows,
    weights: Array,
    precisions: Array,
    prior: PriorMoments | None,
) -> tuple[Array, Array]:
    """As `complete_scatter`, missing entries by their conditional moments."""

    def of_chunk(rows: Rows, weights: Array) -> tuple[Array, Array]:
        matrices, _ = swept(scatter, rows.seen)
        residuals = (rows.seen * (rows.values - mean)).T
        missing = 1.0 - rows.seen.T
        filled = residuals + missing * jnp.sum(matrices * residuals, axis=1)
        hidden = weights * missing[:, None] * missing[None]
        return filled.T, jnp.sum(hidden * matrices, axis=2)

    filled, covs = in_chunks(of_chunk, rows, weights)
    filled = filled.reshape(-1, mean.size)[: rows.values.shape[0]]
    pulls = weights * precisions
    mass = jnp.sum(pulls)
    new = moved_mean(mean, mass * mean + pulls @ filled, mass, prior)
    residuals = filled + (mean - new)
    total = (pulls[:, None] * residuals).T @ residuals + jnp.sum(covs, axis=0)
    return new, total + mean_square(new, prior)
