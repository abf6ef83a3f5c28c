"""The laws of a row in all regimes: one structure for all of them, or each its own."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.regimes.masked import Rows
from jaxfc.regimes.prior import PriorMoments
from jaxfc.regimes.structure import Structure
from jaxfc.regimes.tails import Tails
from jaxfc.typing import Array, Float, PyTree


class Emissions(eqx.Module):
    """Structures and tails, and what they say of all regimes at once.

    `structures` holds one structure for all regimes, whose parameters are stacked and computed in
    one batch, or one for each. `scatters` below is a tuple to match.
    """

    structures: tuple[Structure, ...]
    tails: Tails
    num_regimes: int = eqx.field(static=True)

    @property
    def is_shared(self) -> bool:
        """Whether regimes have one structure, so that their labels are free."""
        return len(self.structures) == 1

    def each(self, call: Callable[..., Any], scatters: tuple[PyTree, ...], *rest: PyTree) -> Any:
        """`call(structure, scatter, *rest)` of every regime, answers stacked; `rest` leads with
        regimes."""
        if self.is_shared:
            function = lambda scatter, *rest: call(self.structures[0], scatter, *rest)  # noqa: E731
            return jax.vmap(function)(scatters[0], *rest)
        found = [
            call(structure, scatter, *jax.tree.map(lambda leaf, k=k: leaf[k], rest))
            for k, (structure, scatter) in enumerate(zip(self.structures, scatters, strict=True))
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def start(self, scatter: Float[Array, "series series"]) -> tuple[PyTree, ...]:
        """The same matrix in all regimes."""
        starts = [structure.start(scatter) for structure in self.structures]
        if not self.is_shared:
            return tuple(starts)
        size = self.num_regimes
        return (jax.tree.map(lambda leaf: jnp.stack([leaf] * size), starts[0]),)

    def dense(self, scatters: tuple[PyTree, ...]) -> Float[Array, "regimes series series"]:
        """Scatter matrices."""
        return self.each(lambda structure, scatter: structure.dense(scatter), scatters)

    def covs(self, scatters: tuple[PyTree, ...]) -> Float[Array, "regimes series series"]:
        """Covariances within the regimes."""
        dense = self.dense(scatters)
        return self.tails.cov_factor.astype(dense.dtype) * dense

    def distances(
        self, means: Float[Array, "regimes series"], scatters: tuple[PyTree, ...], rows: Rows
    ) -> tuple[Float[Array, "regimes time"], Float[Array, "regimes time"]]:
        """Squared distances of the rows and log-determinants, regime by regime."""

        def one(structure: Structure, scatter: PyTree, mean: Array) -> tuple[Array, Array]:
            return structure.distances(mean, scatter, rows)

        return self.each(one, scatters, means)

    def log_densities(
        self, means: Float[Array, "regimes series"], scatters: tuple[PyTree, ...], rows: Rows
    ) -> Float[Array, "time regimes"]:
        """ln f(y_t | s_t = k) of the observed entries, zero for rows without any."""
        distances, log_dets = self.distances(means, scatters, rows)
        return self.tails.log_densities(distances, log_dets, rows.counts).T

    def update(
        self,
        means: Float[Array, "regimes series"],
        scatters: tuple[PyTree, ...],
        rows: Rows,
        weights: Float[Array, "time regimes"],
        distances: Float[Array, "regimes time"],
        prior: PriorMoments,
    ) -> tuple[Float[Array, "regimes series"], tuple[PyTree, ...]]:
        """The M-step of every regime, given the probabilities `weights` of the regimes."""
        precisions = self.tails.precisions(distances, rows.counts)

        def one(structure: Structure, scatter: PyTree, *rest: Array) -> tuple[Array, PyTree]:
            mean, weights, precisions = rest
            return structure.update(mean, scatter, rows, weights, precisions, prior)

        if self.is_shared:
            new_means, new = self.each(one, scatters, means, weights.T, precisions)
            return new_means, (new,)
        found = [
            one(structure, scatters[k], means[k], weights[:, k], precisions[k])
            for k, structure in enumerate(self.structures)
        ]
        return jnp.stack([mean for mean, _ in found]), tuple(new for _, new in found)

    def log_prior(
        self,
        means: Float[Array, "regimes series"],
        scatters: tuple[PyTree, ...],
        prior: PriorMoments,
    ) -> Float[Array, ""]:
        """Sum over regimes."""

        def one(structure: Structure, scatter: PyTree, mean: Array) -> Array:
            return structure.log_prior(mean, scatter, prior)

        return jnp.sum(self.each(one, scatters, means))

    def num_parameters(self, num_series: int) -> int:
        """Free parameters of means and scatter matrices."""
        each = self.structures * (self.num_regimes if self.is_shared else 1)
        return sum(structure.num_parameters(num_series) for structure in each)
