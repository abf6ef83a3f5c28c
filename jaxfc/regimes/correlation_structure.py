"""Scatter matrices of rows with mean zero and unit variances: correlations, free or scaled."""

import jax
import jax.numpy as jnp

from jaxfc.regimes.masked import Rows, complete_scatter, masked_scatter
from jaxfc.regimes.prior import PriorMoments
from jaxfc.regimes.structure import FullCovariance, Structure
from jaxfc.typing import Array, Float, PyTree

FULL = FullCovariance()
# Shares of the way to the new correlations that are tried, the first that is better taken.
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
# Places where the scaled form is looked at before the best neighbourhood is searched.
GRID = 33
HALVINGS = 60
# How close the scaled form may come to a singular matrix.
CLOSEST = 1e-3


class FreeCorrelation(Structure):
    """S = Gamma_k, any correlation matrix for each regime.

    The update takes the expected second moments V of an unrestricted one and brings them to a unit
    diagonal, Gamma = diag(V)^{-1/2} V diag(V)^{-1/2}, going only part of the way where the expected
    log-likelihood would fall, so that the objective never does. Where the ascent ends, V need not
    have a unit diagonal, and the likelihood may be a little below its maximum.

    Source: Pelletier (2006), section 3.2.
    """

    def check(self, num_series: int) -> None:
        pass

    def num_parameters(self, num_series: int) -> int:
        return num_series * (num_series - 1) // 2

    def around(self, base: Float[Array, "series series"]) -> "FreeCorrelation":
        """The structure, which needs no `base`."""
        return self

    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        return as_corr(scatter)

    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        return scatter

    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        return FULL.distances(mean, scatter, rows)

    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        moments = second_moments(mean, scatter, rows, weights, precisions, prior)
        shares = jnp.array(SHARES, scatter.dtype)
        tried = scatter + shares[:, None, None] * (as_corr(moments) - scatter)
        gains = jax.vmap(lambda corr: expected_density(corr, moments))(tried)
        better = gains >= gains[-1]
        return mean, tried[jnp.argmax(better)]

    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        return FULL.log_prior(mean, scatter, prior)


class ScaledCorrelation(Structure):
    """S = I + l_k (R - I): one matrix R of correlations, nearer to or farther from none.

    `base` R is the sample's, the l_k >= 0 are free as long as S is regular. With l the largest of
    them this is Gamma lambda_k + I (1 - lambda_k), Gamma = I + l (R - I), lambda_k = l_k / l. The
    update is exact: with the eigenvalues e_i of R and v_i the diagonal of the expected second
    moments in its eigenvectors, it maximises

        -1/2 sum_i [ln(1 + l (e_i - 1)) + v_i / (1 + l (e_i - 1))]

    Source: Pelletier (2006), equation 8.
    """

    base: Float[Array, "series series"] | None = None

    def check(self, num_series: int) -> None:
        pass

    def num_parameters(self, num_series: int) -> int:
        return 1

    def around(self, base: Float[Array, "series series"]) -> "ScaledCorrelation":
        """The structure with R = `base` unless it has one."""
        return self if self.base is not None else ScaledCorrelation(base)

    @property
    def matrix(self) -> Float[Array, "series series"]:
        """R."""
        if self.base is None:
            raise ValueError("ScaledCorrelation has no base yet; it is set when it is estimated.")
        return self.base

    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        return jnp.ones((), scatter.dtype)

    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        identity = jnp.eye(self.matrix.shape[0], dtype=self.matrix.dtype)
        return identity + scatter * (self.matrix - identity)

    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        return FULL.distances(mean, self.dense(scatter), rows)

    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        dense = self.dense(scatter)
        moments = second_moments(mean, dense, rows, weights, precisions, prior)
        eigenvalues, vectors = jnp.linalg.eigh(self.matrix)
        spread = jnp.einsum("ai,ab,bi->i", vectors, moments, vectors, precision="highest")
        gaps = eigenvalues - 1.0

        def density(scale: Array) -> Array:
            own = 1.0 + scale * gaps
            return -0.5 * jnp.sum(jnp.log(own) + spread / own)

        slope = jax.grad(density)
        largest = (1.0 - CLOSEST) / jnp.maximum(-jnp.min(gaps), CLOSEST)
        grid = largest * jnp.linspace(0.0, 1.0, GRID)
        best = jnp.argmax(jax.vmap(density)(grid))
        low, high = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, GRID - 1)]

        def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            middle = 0.5 * (ends[0] + ends[1])
            rising = slope(middle) > 0
            low = jnp.where(rising, middle, ends[0])
            return (low, jnp.where(rising, ends[1], middle)), None

        low, high = jax.lax.scan(halve, (low, high), None, length=HALVINGS)[0]
        found = jax.lax.stop_gradient(0.5 * (low + high))
        # A Newton step of length zero carries the derivative where the maximum is inside.
        bend = jax.lax.stop_gradient(jax.grad(slope)(found))
        inside = (found > 0) & (found < largest) & (bend < 0)
        step = jnp.where(inside, slope(found) / jnp.where(inside, bend, 1.0), 0.0)
        found = found - (step - jax.lax.stop_gradient(step))
        return mean, jnp.where(density(found) >= density(scatter), found, scatter)

    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        return FULL.log_prior(mean, self.dense(scatter), prior)


def second_moments(
    mean: Float[Array, " series"],
    corr: Float[Array, "series series"],
    rows: Rows,
    weights: Float[Array, " time"],
    precisions: Float[Array, " time"],
    prior: PriorMoments,
) -> Float[Array, "series series"]:
    """Expected squares around `mean`, which stays, with the prior's rows, over their number."""
    weights = weights * rows.any_seen
    given = mean, corr, rows, weights, precisions, None
    total = jax.lax.cond(rows.are_whole, complete_scatter, masked_scatter, *given)[1]
    strength = FULL.strength(prior, mean.size)
    total = total + strength * prior.scatter
    return 0.5 * (total + total.T) / (strength + jnp.sum(weights))


def expected_density(
    corr: Float[Array, "series series"], moments: Float[Array, "series series"]
) -> Float[Array, ""]:
    """-1/2 (ln |Gamma| + tr Gamma^{-1} V): what an update gains, a row."""
    chol = jnp.linalg.cholesky(corr)
    solved = jax.scipy.linalg.cho_solve((chol, True), moments)
    return -jnp.sum(jnp.log(jnp.diagonal(chol))) - 0.5 * jnp.trace(solved)


def as_corr(matrix: Float[Array, "series series"]) -> Float[Array, "series series"]:
    """With unit diagonal, exactly."""
    stds = jnp.sqrt(jnp.diagonal(matrix))
    corr = matrix / (stds[:, None] * stds)
    off_diagonal = 1.0 - jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return off_diagonal * corr + jnp.eye(matrix.shape[0], dtype=matrix.dtype)
