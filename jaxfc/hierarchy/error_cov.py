"""Covariances of the errors of base forecasts, kept in the form they have: never nodes x nodes.

`StructuredCov` is W = diag(v) + k F F' with F (nodes x q): variances alone (OLS, WLS), shrunk
sample covariances (F: the residuals), factor covariances. `DenseCov` is a matrix that was given.
"""

import abc

import equinox as eqx
import jax.numpy as jnp

from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Bool, Float


class ErrorCov(eqx.Module):
    """A covariance W of the errors of all nodes, as far as a projection needs it."""

    @abc.abstractmethod
    def times(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        """W y."""

    @abc.abstractmethod
    def times_rows(self, rows: Float[Array, "rows nodes"]) -> Float[Array, "rows nodes"]:
        """W y for every row of data."""

    @abc.abstractmethod
    def of_constraints(self, summing: Summing) -> Float[Array, "aggregates aggregates"]:
        """C W C', the covariance of the incoherence."""

    @abc.abstractmethod
    def without(self, missing: Bool[Array, " nodes"]) -> "ErrorCov":
        """W with zero rows and columns at the places of nodes: the covariance of the others."""

    @abc.abstractmethod
    def diagonal(self) -> Float[Array, " nodes"]:
        """Variances."""

    @property
    @abc.abstractmethod
    def may_be_singular(self) -> bool:
        """Whether errors may add up without any variance of their own."""

    @abc.abstractmethod
    def dense(self) -> Float[Array, "nodes nodes"]:
        """W as a matrix, for small hierarchies and tests."""


class StructuredCov(ErrorCov):
    """W = diag(variances) + factor_weight F F'."""

    variances: Float[Array, " nodes"]
    factors: Float[Array, "nodes columns"] | None = None
    factor_weight: Float[Array, ""] | None = None

    def times(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        own = self.variances.reshape(-1, *(1,) * (nodes.ndim - 1)) * nodes
        if self.factors is None:
            return own
        scores = self.weight * jnp.tensordot(self.factors.T, nodes, axes=1)
        return own + jnp.tensordot(self.factors, scores, axes=1)

    def times_rows(self, rows: Float[Array, "rows nodes"]) -> Float[Array, "rows nodes"]:
        own = rows * self.variances
        if self.factors is None:
            return own
        return own + (self.weight * (rows @ self.factors)) @ self.factors.T

    @property
    def weight(self) -> Array:
        """k, one by default."""
        return jnp.ones(()) if self.factor_weight is None else self.factor_weight

    def of_constraints(self, summing: Summing) -> Float[Array, "aggregates aggregates"]:
        split = summing.num_aggregates
        own = jnp.diag(self.variances[:split])
        own = own + summing.weighted_product(self.variances[split:])
        if self.factors is None:
            return own
        gaps = summing.incoherence(self.factors)
        return own + self.weight * gaps @ gaps.T

    def without(self, missing: Bool[Array, " nodes"]) -> "StructuredCov":
        factors = self.factors
        if factors is not None:
            factors = jnp.where(missing[:, None], 0.0, factors)
        return StructuredCov(jnp.where(missing, 0.0, self.variances), factors, self.factor_weight)

    def diagonal(self) -> Float[Array, " nodes"]:
        if self.factors is None:
            return self.variances
        return self.variances + self.weight * jnp.sum(self.factors**2, axis=1)

    @property
    def may_be_singular(self) -> bool:
        return self.factors is not None and self.factor_weight is None

    def dense(self) -> Float[Array, "nodes nodes"]:
        own = jnp.diag(self.variances)
        return own if self.factors is None else own + self.weight * self.factors @ self.factors.T


class DenseCov(ErrorCov):
    """A covariance matrix of all nodes."""

    matrix: Float[Array, "nodes nodes"]

    def times(self, nodes: Float[Array, "nodes *rest"]) -> Float[Array, "nodes *rest"]:
        return jnp.tensordot(self.matrix, nodes, axes=1)

    def times_rows(self, rows: Float[Array, "rows nodes"]) -> Float[Array, "rows nodes"]:
        return rows @ self.matrix

    def of_constraints(self, summing: Summing) -> Float[Array, "aggregates aggregates"]:
        return summing.incoherence(summing.incoherence(self.matrix).T)

    def without(self, missing: Bool[Array, " nodes"]) -> "DenseCov":
        return DenseCov(jnp.where(missing[:, None] | missing[None, :], 0.0, self.matrix))

    def diagonal(self) -> Float[Array, " nodes"]:
        return jnp.diagonal(self.matrix)

    @property
    def may_be_singular(self) -> bool:
        return True

    def dense(self) -> Float[Array, "nodes nodes"]:
        return self.matrix
