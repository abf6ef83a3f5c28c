"""Which entries of symmetric matrices a recursion carries: all of them, or those of some pairs."""

import abc
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jaxfc.typing import Array, Bool, Float, Int
from jaxfc.volatility.targets import unit_diagonal


class Entries(eqx.Module):
    """A choice of entries of a matrix (series, series), in a shape of its own (`*entries`)."""

    @abc.abstractmethod
    def of(self, matrix: Float[Array, "series series"]) -> Float[Array, "*entries"]:
        """The chosen entries."""

    @abc.abstractmethod
    def products(
        self, vector: Float[Array, " series"] | Bool[Array, " series"]
    ) -> Float[Array, "*entries"] | Bool[Array, "*entries"]:
        """v_i v_j (v_i and v_j)."""

    @abc.abstractmethod
    def diagonal(self, chosen: Float[Array, "*entries"]) -> Float[Array, " series"]:
        """The entries i = j, which every choice includes."""

    @abc.abstractmethod
    def to_corr(self, cov: Float[Array, "*entries"]) -> Float[Array, "*entries"]:
        """C_ij / (C_ii C_jj)^{1/2}, and exactly one for i = j."""

    @abc.abstractmethod
    def on_diagonal(self, num_series: int) -> Bool[Array, "*entries"]:
        """Whether i = j."""


@final
class WholeMatrix(Entries):
    """All entries, as the matrix itself."""

    def of(self, matrix: Float[Array, "series series"]) -> Float[Array, "*entries"]:
        return matrix

    def products(
        self, vector: Float[Array, " series"] | Bool[Array, " series"]
    ) -> Float[Array, "*entries"] | Bool[Array, "*entries"]:
        return vector[:, None] & vector if vector.dtype == bool else jnp.outer(vector, vector)

    def diagonal(self, chosen: Float[Array, "*entries"]) -> Float[Array, " series"]:
        return jnp.diagonal(chosen)

    def to_corr(self, cov: Float[Array, "*entries"]) -> Float[Array, "*entries"]:
        return unit_diagonal(cov)

    def on_diagonal(self, num_series: int) -> Bool[Array, "*entries"]:
        return jnp.eye(num_series, dtype=bool)


WHOLE = WholeMatrix()


@final
class Pairs(Entries):
    """The diagonal, then the entries (first_k, second_k) of the pairs, as one vector."""

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    num_series: int = eqx.field(static=True)

    @classmethod
    def contiguous(cls, num_series: int) -> "Pairs":
        """(0, 1), (1, 2), ...: every series with the next."""
        return cls(np.arange(num_series - 1), np.arange(1, num_series), num_series)

    @classmethod
    def all(cls, num_series: int) -> "Pairs":
        """Every series with every other."""
        return cls(*np.triu_indices(num_series, 1), num_series)

    @property
    def num_pairs(self) -> int:
        """How many."""
        return self.first.size

    def both_sides(self, vector: Array) -> tuple[Array, Array]:
        """v_i and v_j of the pairs."""
        if self.num_pairs == self.num_series - 1:  # slices are faster than gathers
            return vector[:-1], vector[1:]
        return vector[self.first], vector[self.second]

    def of(self, matrix: Float[Array, "series series"]) -> Float[Array, "*entries"]:
        return jnp.concatenate([jnp.diagonal(matrix), matrix[self.first, self.second]])

    def products(
        self, vector: Float[Array, " series"] | Bool[Array, " series"]
    ) -> Float[Array, "*entries"] | Bool[Array, "*entries"]:
        left, right = self.both_sides(vector)
        return jnp.concatenate([vector * vector, left * right])

    def diagonal(self, chosen: Float[Array, "*entries"]) -> Float[Array, " series"]:
        return chosen[: self.num_series]

    def to_corr(self, cov: Float[Array, "*entries"]) -> Float[Array, "*entries"]:
        left, right = self.both_sides(1.0 / jnp.sqrt(self.diagonal(cov)))
        return jnp.concatenate(
            [jnp.ones(self.num_series, cov.dtype), self.cross(cov) * left * right]
        )

    def cross(self, chosen: Float[Array, "*entries"]) -> Float[Array, " pairs"]:
        """The entries of the pairs."""
        return chosen[self.num_series :]

    def on_diagonal(self, num_series: int) -> Bool[Array, "*entries"]:
        return jnp.arange(num_series + self.num_pairs) < num_series
