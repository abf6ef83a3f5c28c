"""What a process of conditional correlations answers, and the density of a row given its matrix."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float
from jaxfc.volatility.entries import WHOLE, Entries


class Targets(NamedTuple):
    """What a recursion returns to: E zz', and E nn' of the falls n = min(z, 0)."""

    both: Float[Array, "*entries"]
    falls: Float[Array, "*entries"]

    def of(self, entries: Entries) -> "Targets":
        """The chosen entries of both matrices."""
        return Targets(entries.of(self.both), entries.of(self.falls))


# What is read off a row: of Q_t, its standardised residuals and which of them are known.
Read = Callable[[Array, Array, Array], Any]


class CorrelationProcess(eqx.Module):
    """How the matrix R_t = Var(z_t | past) of standardised residuals z follows from earlier ones.

    A recursion carries a matrix Q_t, or only some of its entries, and `corr` makes R_t of it. A
    product that is not observed is replaced by its expectation, so that the same recursion over
    unobserved rows forecasts.
    """

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""

    @property
    def has_falls(self) -> bool:
        """Whether falls count apart, so that a target for them is needed."""
        return False

    @property
    def moves_target(self) -> bool:
        """Whether the target is a moment of residuals that the parameters change (`driving`)."""
        return False

    @property
    def works_on_pairs(self) -> bool:
        """Whether R_ij depends on the entries i and j of Q alone."""
        return True

    @abc.abstractmethod
    def starts(self, dtype: Any) -> Float[Array, "starts p"]:
        """Free coordinates to start from."""

    @abc.abstractmethod
    def natural(self, free: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        """Parameters of coordinates without bounds."""

    @abc.abstractmethod
    def free(self, parameters: Float[Array, " p"], targets: Targets | None) -> Float[Array, " p"]:
        """The inverse of `natural`."""

    @abc.abstractmethod
    def persistence(self, parameters: Float[Array, " p"], targets: Targets) -> Float[Array, ""]:
        """What of a deviation is left a row later; below one if stationary."""

    @abc.abstractmethod
    def decay(self, parameters: Float[Array, " p"]) -> Float[Array, ""] | None:
        """l of the forecasts of Engle and Sheppard (2001), where a row's deviation is l times the
        last one's; None where the recursion has no such number."""

    @abc.abstractmethod
    def begin(self, targets: Targets) -> Any:
        """The state before the first row."""

    @abc.abstractmethod
    def quasi(
        self, parameters: Float[Array, " p"], state: Any, targets: Targets
    ) -> Float[Array, "*entries"]:
        """Q_t."""

    @abc.abstractmethod
    def corr(self, quasi: Float[Array, "*entries"], entries: Entries = WHOLE) -> Array:
        """R_t."""

    @abc.abstractmethod
    def advance(
        self,
        state: Any,
        quasi: Float[Array, "*entries"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
        targets: Targets,
        entries: Entries = WHOLE,
    ) -> Any:
        """The state after a row with standardised residuals `units`, zero where not `seen`."""

    def driving(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
    ) -> Float[Array, "time series"]:
        """What the target is the second moment of."""
        return units

    def run(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
        targets: Targets,
        read: Read,
        entries: Entries = WHOLE,
    ) -> tuple[Any, Any]:
        """State after the last row, and what is `read` off every row. Sequential; O(entries) a
        row, and what `read` costs; nothing but its answers is kept."""

        def step(state, row):
            (unit, seen), quasi = row, self.quasi(parameters, state, targets)
            later = self.advance(state, quasi, unit, seen, targets, entries)
            return later, read(quasi, unit, seen)

        return jax.lax.scan(step, self.begin(targets), (units, known))

    def filter(
        self,
        parameters: Float[Array, " p"],
        units: Float[Array, "time series"],
        known: Bool[Array, "time series"],
        targets: Targets,
    ) -> tuple[Any, Float[Array, "time series series"]]:
        """State after the last row, and Q_0..Q_{T-1}."""
        return self.run(parameters, units, known, targets, lambda quasi, unit, seen: quasi)

    def log_det_and_square(
        self,
        quasi: Float[Array, "series series"],
        units: Float[Array, " series"],
        seen: Bool[Array, " series"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """ln det R and z' R^{-1} z of the observed block."""
        return log_det_and_quadratic(self.corr(quasi), units, seen)


def log_det_and_quadratic(
    cov: Float[Array, "series series"],
    units: Float[Array, " series"],
    seen: Bool[Array, " series"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """ln det C and z' C^{-1} z of the observed block: the others stand apart with unit variance."""
    both = seen[:, None] & seen
    block = jnp.where(both, cov, jnp.eye(seen.size, dtype=cov.dtype))
    return whole_log_det_and_quadratic(block, jnp.where(seen, units, 0.0))


@jax.custom_jvp
def whole_log_det_and_quadratic(
    cov: Float[Array, "series series"], units: Float[Array, " series"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """ln det C and z' C^{-1} z."""
    chol = jnp.linalg.cholesky(cov)
    whitened = jax.scipy.linalg.solve_triangular(chol, units, lower=True)
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol))), whitened @ whitened


# d ln det C = <W, dC> and d z'Wz = 2 w'dz - w'dC w with W = C^{-1}, w = Wz. One inverse serves all
# directions, each then costs two products with dC; through the factor each would cost a factor.
@whole_log_det_and_quadratic.defjvp
def whole_log_det_and_quadratic_jvp(primals, tangents):
    """The derivative derived above."""
    (cov, units), (cov_slope, units_slope) = primals, tangents
    chol = jnp.linalg.cholesky(cov)
    root = jax.scipy.linalg.solve_triangular(chol, jnp.eye(len(cov), dtype=cov.dtype), lower=True)
    whitened = root @ units
    inverse, weighted = root.T @ root, root.T @ whitened
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(chol)))
    square_slope = 2.0 * weighted @ units_slope - weighted @ (cov_slope @ weighted)
    return (log_det, whitened @ whitened), (jnp.sum(inverse * cov_slope), square_slope)
