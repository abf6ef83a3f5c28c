"""What is expected of the factors of instrumented PCA: their mean, or autoregressions.

    phi_t = offset + transition phi_{t-1} + u_t,    u_t ~ N(0, innovation_cov)

The factors count as known in the rows that have enough cells to tell them, and as unknown in the
others.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float, PRNGKeyArray


class FactorLaw(eqx.Module):
    """An autoregression of order one, with the sample mean and covariance that it starts from."""

    offset: Float[Array, " factors"]
    transition: Float[Array, "factors factors"]
    innovation_cov: Float[Array, "factors factors"]
    mean: Float[Array, " factors"]
    cov: Float[Array, "factors factors"]

    def filtered(
        self, path: Float[Array, "time factors"], known: Bool[Array, " time"]
    ) -> tuple[
        Float[Array, "time factors"], Float[Array, " factors"], Float[Array, "factors factors"]
    ]:
        """What was expected of each row before it, and mean and covariance of the last row: the
        factors themselves and zero, if they are known."""

        def advance(state, row):
            expected, cov, (values, seen) = state[0], state[1], row
            mean = jnp.where(seen, values, expected)
            cov = jnp.where(seen, 0.0, cov)
            return self.next(mean, cov), (expected, mean, cov)

        rows = advance, (self.mean, self.cov), (path, known)
        _, (expected, means, covs) = jax.lax.scan(*rows)
        return expected, means[-1], covs[-1]

    def next(self, mean: Array, cov: Array) -> tuple[Array, Array]:
        """Mean and covariance one row later."""
        spread = self.transition @ cov @ self.transition.T + self.innovation_cov
        return self.offset + self.transition @ mean, spread

    def ahead(
        self, mean: Float[Array, " factors"], cov: Float[Array, "factors factors"], horizon: int
    ) -> tuple[Float[Array, "horizon factors"], Float[Array, "horizon factors horizon factors"]]:
        """Means and joint covariance of the next rows: cov(phi_h, phi_k) = A^(h-k) P_k, h >= k."""

        def advance(state, _):
            state = self.next(*state)
            return state, state

        _, (means, covs) = jax.lax.scan(advance, (mean, cov), None, length=horizon)

        def multiply(power, _):
            return self.transition @ power, power

        identity = jnp.eye(len(mean), dtype=mean.dtype)
        _, powers = jax.lax.scan(multiply, identity, None, length=horizon)
        steps = jnp.arange(horizon)
        gap = steps[:, None] - steps
        lower = jnp.einsum("hkab,kbc->hakc", powers[jnp.abs(gap)], covs)
        upper = jnp.einsum("hakc->kcha", lower)
        return means, jnp.where((gap >= 0)[:, None, :, None], lower, upper)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time factors"]:
        """A path from the sample law of the factors on."""
        noise = jax.random.normal(key, (num_steps, len(self.mean)), self.mean.dtype)

        def root(cov: Array) -> Array:
            eigenvalues, vectors = jnp.linalg.eigh(cov)
            return vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0.0))

        first = self.mean + root(self.cov) @ noise[0]
        shocks = noise[1:] @ root(self.innovation_cov).T

        def advance(value, shock):
            value = self.offset + self.transition @ value + shock
            return value, value

        _, path = jax.lax.scan(advance, first, shocks)
        return jnp.concatenate([first[None], path])

    @property
    def is_stable(self) -> Bool[Array, ""]:
        """Whether shocks die out: a high power of the transition vanishes (no eigenvalues needed).

        True for the largest root up to about 1 - 1e-5, in 22 squarings.
        """
        power = self.transition
        for _ in range(22):
            power = jnp.clip(power @ power, -1e30, 1e30)
        return jnp.max(jnp.abs(power), initial=0.0) < 1e-6


class FactorExpectation(eqx.Module):
    """Which law of the factors is estimated from their path."""

    @abc.abstractmethod
    def estimate(
        self, path: Float[Array, "time factors"], known: Bool[Array, " time"]
    ) -> FactorLaw:
        """The law by the rows that are known (autoregressions: with the row before known too)."""


class MeanFactors(FactorExpectation):
    """Rows are independent: the expectation is the sample mean (Kelly, Pruitt and Su)."""

    def estimate(
        self, path: Float[Array, "time factors"], known: Bool[Array, " time"]
    ) -> FactorLaw:
        mean, cov = sample_moments(path, known)
        return FactorLaw(mean, jnp.zeros_like(cov), cov, mean, cov)


class AutoregressiveFactors(FactorExpectation):
    """Each factor on its own last value, by least squares; innovations are correlated."""

    def estimate(
        self, path: Float[Array, "time factors"], known: Bool[Array, " time"]
    ) -> FactorLaw:
        return regressed(path, known, own_only=True)


class VectorAutoregressiveFactors(FactorExpectation):
    """Each factor on the last values of all, by least squares."""

    def estimate(
        self, path: Float[Array, "time factors"], known: Bool[Array, " time"]
    ) -> FactorLaw:
        return regressed(path, known, own_only=False)


def sample_moments(
    path: Float[Array, "time factors"], known: Bool[Array, " time"]
) -> tuple[Float[Array, " factors"], Float[Array, "factors factors"]]:
    """Mean and covariance (by count - 1) of the known rows."""
    count = jnp.sum(known).astype(path.dtype)
    held = jnp.where(known[:, None], path, 0.0)
    mean = jnp.sum(held, axis=0) / count
    deviations = jnp.where(known[:, None], held - mean, 0.0)
    return mean, deviations.T @ deviations / jnp.maximum(count - 1.0, 1.0)


def regressed(
    path: Float[Array, "time factors"], known: Bool[Array, " time"], own_only: bool
) -> FactorLaw:
    """Least squares of rows on the rows before, over the pairs that are known."""
    mean, cov = sample_moments(path, known)
    pair = known[1:] & known[:-1]
    count = jnp.sum(pair).astype(path.dtype)

    def centred(rows: Array) -> tuple[Array, Array]:
        held = jnp.where(pair[:, None], rows, 0.0)
        centre = jnp.sum(held, axis=0) / count
        return centre, jnp.where(pair[:, None], held - centre, 0.0)

    (before, lags), (after, values) = centred(path[:-1]), centred(path[1:])
    if own_only:
        transition = jnp.diag(jnp.sum(values * lags, axis=0) / jnp.sum(lags**2, axis=0))
        used = 2.0
    else:
        transition = jnp.linalg.solve(lags.T @ lags, lags.T @ values).T
        used = 1.0 + path.shape[1]
    errors = values - lags @ transition.T
    innovation_cov = errors.T @ errors / jnp.maximum(count - used, 1.0)
    return FactorLaw(after - transition @ before, transition, innovation_cov, mean, cov)
