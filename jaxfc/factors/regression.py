"""Regression of the series on the factors, given the factors' posterior moments."""

import equinox as eqx
import jax.numpy as jnp

from jaxfc.factors.restrictions import Restrictions, impose, soft_descent, without_fixed
from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.collapse import packed_indices
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse


class Regression(eqx.Module):
    """Posterior moments of the regressors z_t = f_t, or (f_t', 1)' with an intercept.

    `variances` are those of the errors if the normal equations handed to `solve` are not divided by
    them; restrictions across series and penalties need the scale.
    """

    means: Float[Array, "time factors"]
    covs: Float[Array, "time factors factors"]
    with_intercept: bool = eqx.field(static=True)
    active_factors: Bool[Array, " factors"] | None
    restrictions: Restrictions | None = None
    variances: Float[Array, " series"] | None = None
    # Mean (series,) and precision of a normal prior of the intercepts.
    intercept_prior: tuple[Float[Array, " series"], Float[Array, ""]] | None = None

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
        inactive factors switched off, restrictions imposed."""
        if self.intercept_prior is not None:
            mean, precision = self.intercept_prior
            weight = precision * (1.0 if self.variances is None else self.variances)
            weight = jnp.broadcast_to(weight, mean.shape)
            size = moments.shape[-1]
            moments = jnp.broadcast_to(moments, (*mean.shape, size, size))
            moments = moments.at[:, -1, -1].add(weight)
            cross = cross.at[:, -1].add(weight * mean)
        free = self.free(cross.shape)
        if free is not None:
            moments, cross = without_fixed(moments, cross, free)
        size = moments.shape[-1]
        inverse, _ = spd_inverse(moments, fastest_implementation(size))
        solution = jnp.sum(inverse * cross[..., None, :], axis=-1)
        rules = self.restrictions
        if rules is None:
            return solution
        if rules.penalty is not None:
            loaded = jnp.ones((cross.shape[0], self.means.shape[1]), cross.dtype)
            penalties = self.over_regressors(rules.penalty.astype(cross.dtype) * loaded)
            solution = soft_descent(solution, moments, cross, self.scales(penalties))
        if rules.on_loadings is None:
            return rules.with_unit_rows(solution)

        def inverse_times(row: Array) -> Array:
            wide = self.over_regressors(row)
            wide = wide if free is None else jnp.where(free, wide, 0.0)
            return self.scales(jnp.sum(inverse * wide[..., None, :], axis=-1))

        wide = self.over_regressors(rules.on_loadings.coefficients)
        solution = impose(solution, inverse_times, wide, rules.on_loadings.values)
        return rules.with_unit_rows(solution)

    def free(self, shape: tuple[int, ...]) -> Bool[Array, "series regressors"] | None:
        """Which coefficients are free (None: all)."""
        rules = self.restrictions
        if self.active_factors is None and (rules is None or rules.loadings is None):
            return None
        allowed = jnp.ones((shape[0], self.means.shape[1]), bool)
        if self.active_factors is not None:
            allowed = allowed & self.active_factors
        if rules is not None and rules.loadings is not None:
            allowed = allowed & rules.loadings
        if self.with_intercept:
            allowed = jnp.pad(allowed, ((0, 0), (0, 1)), constant_values=True)
        return allowed

    def over_regressors(self, loadings: Float[Array, "*batch factors"]) -> Array:
        """An array over factors as one over regressors, zero for the intercept."""
        if not self.with_intercept:
            return loadings
        return jnp.pad(loadings, [(0, 0)] * (loadings.ndim - 1) + [(0, 1)])

    def scales(self, array: Float[Array, "series regressors"]) -> Array:
        """Times the error variances, where the normal equations are per unit of them."""
        return array if self.variances is None else self.variances[:, None] * array

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
