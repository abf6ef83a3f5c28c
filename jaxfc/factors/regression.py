"""Regression of the series on the factors, given the factors' posterior moments."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.collapse import packed_indices
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse


class Regression(eqx.Module):
    """Posterior moments of the regressors z_t = f_t, or (f_t', 1)' with an intercept."""

    means: Float[Array, "time factors"]
    covs: Float[Array, "time factors factors"]
    with_intercept: bool = eqx.field(static=True)
    active_factors: Bool[Array, " factors"] | None

    @property
    def regressors(self) -> Float[Array, "time regressors"]:
        """E[z_t]."""
        if not self.with_intercept:
            return self.means
        ones = jnp.ones((self.means.shape[0], 1), self.means.dtype)
        return jnp.concatenate([self.means, ones], axis=1)

    @property
    def packed_covs(self) -> Float[Array, "time packed"]:
        """Cov[z_t], lower triangles."""
        covs = self.covs
        if self.with_intercept:
            covs = jnp.pad(covs, ((0, 0), (0, 1), (0, 1)))
        rows, columns, _ = packed_indices(covs.shape[-1])
        return covs[:, rows, columns]

    def solve(
        self, moments: Float[Array, "*batch regressors regressors"], cross: Array
    ) -> Float[Array, "series regressors"]:
        """Coefficients of every series from normal equations (`moments` one for all, or one each),
        inactive factors switched off."""
        size = moments.shape[-1]
        if self.active_factors is not None:
            active = self.active_factors
            if self.with_intercept:
                active = jnp.concatenate([active, jnp.ones(1, bool)])
            identity = jnp.eye(size, dtype=moments.dtype)
            moments = jnp.where(active[:, None] & active, moments, identity)
            cross = jnp.where(active, cross, 0.0)
        inverse, _ = spd_inverse(moments, fastest_implementation(size))
        return jnp.sum(inverse * cross[..., None, :], axis=-1)

    def augment(self, loadings: Array, intercept: Array) -> Float[Array, "series regressors"]:
        """[W mu] or W."""
        if not self.with_intercept:
            return loadings
        return jnp.concatenate([loadings, intercept[:, None]], axis=1)

    def split(self, coefficients: Array, intercept: Array) -> tuple[Array, Array]:
        """W and mu (the old one if it is not estimated)."""
        if not self.with_intercept:
            return coefficients, intercept
        return coefficients[:, :-1], coefficients[:, -1]
