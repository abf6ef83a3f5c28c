"""Unconditional correlations that dynamic ones return to."""

import abc

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float


class Target(eqx.Module):
    """How the unconditional matrix is estimated from standardised residuals."""

    @abc.abstractmethod
    def corr(
        self,
        residuals: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        weights: Float[Array, " time"] | None = None,
    ) -> Float[Array, "series series"]:
        """The matrix; what stands where not `observed` is never read. Rows count by `weights`
        (None: alike), whose derivative at one is the influence of a row."""


class SampleTarget(Target):
    """Second moments of the standardised residuals, each over the rows at which both are observed.

    - Z'Z / T with neither option (multiarch);
    - `unit_diagonal`: brought to unit diagonal (pymgarch, multigarch, the MFE toolbox);
    - `centred`: covariance about the sample means, divided by T - 1 (rmgarch, tsmarch).

    With cells missing the matrix may be indefinite; a likelihood that is not a number says so.
    """

    centred: bool = eqx.field(static=True, default=False)
    unit_diagonal: bool = eqx.field(static=True, default=True)

    def corr(
        self,
        residuals: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        weights: Float[Array, " time"] | None = None,
    ) -> Float[Array, "series series"]:
        mask = observed.astype(residuals.dtype)
        weighted = mask if weights is None else mask * weights[:, None]
        values = jnp.where(observed, residuals, 0.0)
        counts = mask.T @ weighted
        if self.centred:
            means = jnp.sum(weighted * values, axis=0) / jnp.sum(weighted, axis=0)
            values = mask * (values - means)
            counts = counts - 1.0
        cov = values.T @ (weighted * values) / counts
        if not self.unit_diagonal:
            return cov
        return unit_diagonal(cov)


def unit_diagonal(cov: Float[Array, "series series"]) -> Float[Array, "series series"]:
    """A covariance as a correlation."""
    scale = 1.0 / jnp.sqrt(jnp.diagonal(cov))
    return scale[:, None] * cov * scale
