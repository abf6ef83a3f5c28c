"""The scatter matrix of a regime: what structures can do; full and diagonal ones."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.regimes.masked import (
    Rows,
    complete_distances,
    complete_scatter,
    masked_distances,
    masked_scatter,
)
from jaxfc.regimes.prior import PriorMoments
from jaxfc.typing import Array, Float, PyTree


class Structure(eqx.Module):
    """How the scatter matrix S of one regime is built from its parameters.

    All functions are of one regime; mean and parameters of several are mapped over by the caller.
    """

    @abc.abstractmethod
    def check(self, num_series: int) -> None:
        """Raise `ValueError` if it is not a structure of so many series."""

    @abc.abstractmethod
    def num_parameters(self, num_series: int) -> int:
        """Free parameters of mean and matrix."""

    @abc.abstractmethod
    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        """Parameters close to a given matrix."""

    @abc.abstractmethod
    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        """S."""

    @abc.abstractmethod
    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        """(y - mu)' S^{-1} (y - mu) and ln |S| of the observed entries of every row."""

    @abc.abstractmethod
    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        """The M-step: mean and parameters that maximise what is expected of

            sum_t w_t [-1/2 ln |S| - 1/2 u_t (y_t - mu)' S^{-1} (y_t - mu)] + ln prior

        given the observed entries under the old ones; w = `weights`, u = `precisions`.
        """

    @abc.abstractmethod
    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        """ln of the prior density up to a constant."""


class FullCovariance(Structure):
    """Any positive definite S (series, series).

    Rows observed whole or not at all cost O(N^2) each; if any row misses an entry, each has a
    Cholesky factor of its own, O(N^3).
    """

    def check(self, num_series: int) -> None:
        pass

    def num_parameters(self, num_series: int) -> int:
        return num_series + num_series * (num_series + 1) // 2

    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        return scatter

    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        return scatter

    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        return jax.lax.cond(
            rows.are_whole, complete_distances, masked_distances, mean, scatter, rows
        )

    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        weights = weights * rows.any_seen
        strength = self.strength(prior, mean.size)
        new_mean, total = jax.lax.cond(
            rows.are_whole,
            complete_scatter,
            masked_scatter,
            mean,
            scatter,
            rows,
            weights,
            precisions,
            prior,
        )
        total = total + strength * prior.scatter
        total = 0.5 * (total + total.T)
        return new_mean, total / (strength + jnp.sum(weights))

    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        chol = jnp.linalg.cholesky(scatter)
        both = jnp.concatenate([prior.scatter, (mean - prior.mean)[:, None]], axis=1)
        solved = jax.scipy.linalg.cho_solve((chol, True), both)
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
        spread = log_det + jnp.trace(solved[:, :-1])
        pull = jnp.dot(mean - prior.mean, solved[:, -1])
        strength = self.strength(prior, mean.size)
        return -0.5 * (strength * spread + prior.mean_strength * pull)

    def strength(self, prior: PriorMoments, num_series: int) -> Array | float:
        """c of the prior."""
        return num_series + 2.0 if prior.cov_strength is None else prior.cov_strength


class DiagonalCovariance(Structure):
    """S = diag(d): series are independent given the regime. Missing entries are left out."""

    def check(self, num_series: int) -> None:
        pass

    def num_parameters(self, num_series: int) -> int:
        return 2 * num_series

    def start(self, scatter: Float[Array, "series series"]) -> PyTree:
        return jnp.diagonal(scatter)

    def dense(self, scatter: PyTree) -> Float[Array, "series series"]:
        return jnp.diag(scatter)

    def distances(
        self, mean: Float[Array, " series"], scatter: PyTree, rows: Rows
    ) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
        residuals = rows.seen * (rows.values - mean)
        return residuals**2 @ (1.0 / scatter), rows.seen @ jnp.log(scatter)

    def update(
        self,
        mean: Float[Array, " series"],
        scatter: PyTree,
        rows: Rows,
        weights: Float[Array, " time"],
        precisions: Float[Array, " time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, " series"], PyTree]:
        # Given u and the regime, entries are independent: missing ones need no filling in.
        pulls = weights * precisions
        strength = variance_strength(prior)
        mass = prior.mean_strength + pulls @ rows.seen
        new = (prior.mean_strength * prior.mean + pulls @ rows.values) / mass
        squares = pulls @ (rows.seen * (rows.values - new) ** 2)
        squares = squares + prior.mean_strength * (new - prior.mean) ** 2
        squares = squares + strength * jnp.diagonal(prior.scatter)
        return new, squares / (strength + weights @ rows.seen)

    def log_prior(
        self, mean: Float[Array, " series"], scatter: PyTree, prior: PriorMoments
    ) -> Float[Array, ""]:
        spread = jnp.log(scatter) + jnp.diagonal(prior.scatter) / scatter
        pull = (mean - prior.mean) ** 2 / scatter
        strength = variance_strength(prior)
        return -0.5 * jnp.sum(strength * spread + prior.mean_strength * pull)


def variance_strength(prior: PriorMoments) -> Array | float:
    """c of the prior of single variances."""
    return 4.0 if prior.cov_strength is None else prior.cov_strength
