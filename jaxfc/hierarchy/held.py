"""Nearest coherent points with some nodes held, in the metric of an error covariance.

    min over y of (y - a)' W^-1 (y - a)   subject to   C y = 0,  y_i = c_i where i is held

with W = D + k F F', D diagonal and positive, F (nodes x q). With latent w and multipliers l

    y = f where free,  f = a + k F w - D C' l,  C y = 0,  w = F' D^-1 (y - a - k F w)

so that w and l solve systems of q and of `aggregates` equations, and nothing of size bottom x
bottom is formed.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.hierarchy.error_cov import ErrorCov, StructuredCov
from jaxfc.hierarchy.summing import Summing
from jaxfc.typing import Array, Float
from jaxfc_kernels.semidefinite import semidefinite_chol


class Pull(eqx.Module):
    """How nodes are held: the share of its own value f that a node keeps, y = free f + pulled.

    `free` 0 holds a node at its target, 1 lets it go; values between come from penalties
    t_i (y_i - target_i)^2 / 2, with free_i = 1 / (1 + d_i t_i). `held` = 1 - free, given for its
    precision, and `pulled` = held * target.
    """

    free: Float[Array, " nodes"]
    held: Float[Array, " nodes"]
    pulled: Float[Array, " nodes"]


class Metric(eqx.Module):
    """Sums and W = diag(variances) + weight F F'; nodes of zero variance stay at their base."""

    summing: Summing
    variances: Float[Array, " nodes"]
    factors: Float[Array, "nodes columns"] | None
    weight: Float[Array, ""]

    def near(
        self,
        base: Float[Array, " nodes"],
        pull: Pull,
    ) -> tuple[Float[Array, " nodes"], Float[Array, " nodes"]]:
        """The coherent point y = free f + pulled, and the free values f of all nodes."""
        free, held, pulled = pull.free, pull.held, pull.pulled
        own = self.variances
        safe = jnp.where(own > 0, own, 1.0)
        gap = self.summing.incoherence(free * base + pulled)
        system = diagonal_system(self.summing, own * free)
        full = jnp.diagonal(diagonal_system(self.summing, own))
        shift = jnp.zeros_like(base)
        if self.factors is None:
            multipliers = solve(system, gap, full)
        else:
            factors = self.factors
            rate = held / safe
            inner = jnp.eye(factors.shape[1]) + self.weight * factors.T @ (rate[:, None] * factors)
            sums = self.summing.incoherence(free[:, None] * factors)
            full = full + self.weight * jnp.sum(self.summing.incoherence(factors) ** 2, axis=1)
            drawn = factors.T @ (pulled / safe - rate * base)
            chol = jnp.linalg.cholesky(inner)
            right = jnp.concatenate([sums.T, drawn[:, None]], axis=1)
            solved = jax.scipy.linalg.cho_solve((chol, True), right)
            system = system + self.weight * sums @ solved[:, :-1]
            multipliers = solve(system, gap + self.weight * sums @ solved[:, -1], full)
            latent = solved[:, -1] - solved[:, :-1] @ multipliers
            shift = self.weight * factors @ latent
        value = base + shift - own * self.summing.constraint_rows(multipliers)
        return free * value + pulled, value


def diagonal_system(
    summing: Summing, variances: Float[Array, " nodes"]
) -> Float[Array, "aggregates aggregates"]:
    """C diag(v) C'."""
    return StructuredCov(variances).of_constraints(summing)


def solve(
    system: Float[Array, "size size"], right: Float[Array, " size"], sizes: Float[Array, " size"]
) -> Float[Array, " size"]:
    """K^-1 r, for sums of which all nodes may be held: K is then singular, and r is in its range.

    `sizes` is the diagonal of K with all nodes free. A ridge at the level of rounding keeps the
    factor finite; refinement takes its effect away again where K is regular.
    """
    scale = 1.0 / jnp.sqrt(sizes)
    scaled = scale[:, None] * system * scale
    ridge = 1e3 * jnp.finfo(system.dtype).eps
    chol = jnp.linalg.cholesky(scaled + ridge * jnp.eye(system.shape[0], dtype=system.dtype))
    goal = scale * right

    def refine(_: Array, answer: Array) -> Array:
        return answer + jax.scipy.linalg.cho_solve((chol, True), goal - scaled @ answer)

    return scale * jax.lax.fori_loop(0, 3, refine, jnp.zeros_like(goal))


def metric_of(summing: Summing, cov: ErrorCov) -> Metric:
    """The metric of a covariance, with a positive diagonal part split off a dense one.

    W = s diag(W) + (W - s diag(W)) for any s below the smallest eigenvalue of the correlations.
    Variances that are zero stay zero: these nodes do not move.
    """
    one = jnp.ones(())
    if isinstance(cov, StructuredCov):
        return Metric(summing, cov.variances, cov.factors, cov.weight)
    matrix = cov.dense()
    sizes = jnp.diagonal(matrix)
    moves = sizes > 0
    scale = jnp.where(moves, 1.0 / jnp.sqrt(jnp.where(moves, sizes, 1.0)), 1.0)
    corr = scale[:, None] * matrix * scale + jnp.diag(jnp.where(moves, 0.0, 1.0))
    smallest = jnp.linalg.eigvalsh(jax.lax.stop_gradient(corr))[0]
    regular = smallest > 1e2 * jnp.finfo(matrix.dtype).eps * matrix.shape[0]
    share = jnp.where(regular, 0.5 * smallest, jnp.nan)
    root = jnp.linalg.cholesky(corr - share * jnp.eye(corr.shape[0], dtype=corr.dtype))
    factors = jnp.where(moves[:, None], root / scale[:, None], 0.0)
    return Metric(summing, share * sizes, factors, one)


def compressed(metric: Metric) -> Metric:
    """The same metric with at most as many factors as nodes; without derivatives."""
    metric = jax.lax.stop_gradient(metric)
    factors = metric.factors
    if factors is None or factors.shape[1] <= factors.shape[0]:
        return metric
    small = semidefinite_chol(factors @ factors.T)
    return eqx.tree_at(lambda m: m.factors, metric, small)
