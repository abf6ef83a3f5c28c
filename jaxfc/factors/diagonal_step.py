"""M-step of loadings and variances with errors independent over time and series."""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.regression import Regression
from jaxfc.factors.shrinkage import shrunk_variances
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import packed_outer, unpack

if TYPE_CHECKING:
    from jaxfc.factors.em import EMStep, PanelData


def diagonal_step(
    step: "EMStep",
    parameters: FactorParameters,
    data: "PanelData",
    regression: Regression,
    series_misfit: Float[Array, " series"],
) -> tuple[Array, Array, Float[Array, " series"]]:
    """Loadings, intercept and variances, series by series over their observed times.

    The expected squared residuals at the new coefficients come from those at the old ones,
    Q(new) = Q(old) - d' S d with d = new - old, which loses no digits where the fit is close; where
    a prior keeps the coefficients from the least squares, Q(old) - 2 d' (c - S old) + d' S d with c
    the cross products.
    """
    regressors = regression.regressors
    size = regressors.shape[1]
    packed_covs = regression.packed_covs
    both = jnp.concatenate([packed_covs, packed_outer(regressors)], axis=1)
    sums = data.observed.T @ both
    cov_sums = unpack(sums[:, : packed_covs.shape[1]], size)
    moments = cov_sums + unpack(sums[:, packed_covs.shape[1] :], size)
    counts = jnp.sum(data.observed, axis=0)
    unseen = counts == 0  # only inside batches; `fit` refuses a series never observed
    identity = jnp.eye(size, dtype=moments.dtype)
    moments = jnp.where(unseen[:, None, None], identity, moments)
    old = regression.augment(parameters.loadings, parameters.intercept)
    cross = data.values.T @ regressors
    new = regression.solve(moments, cross)
    change = new - old
    gain = jnp.einsum("ni,nij,nj->n", change, moments, change)
    if regression.intercept_prior is not None:
        slope = cross - jnp.einsum("nij,nj->ni", moments, old)
        gain = 2.0 * jnp.sum(change * slope, axis=1) - gain
    expected = series_misfit + jnp.einsum("ni,nij,nj->n", old, cov_sums, old) - gain
    variances = parameters.idiosyncratic_cov
    if step.missing_as_latent:
        num_times = data.num_times
        variances = (expected + (num_times - counts) * variances) / num_times
    else:
        variances = jnp.where(unseen, variances, expected / jnp.maximum(counts, 1.0))
    if data.imputed_share is not None:
        variances = variances + data.imputed_share * parameters.idiosyncratic_cov
    if step.idiosyncratic == "isotropic":
        weights = jnp.ones_like(counts) if step.missing_as_latent else counts
        pooled = jnp.sum(weights * variances) / jnp.sum(weights)
        variances = jnp.full_like(variances, pooled)
    if step.idiosyncratic == "shrunk":
        assert data.units is not None
        variances = shrunk_variances(variances, counts, size, data.units.log_variance)
    variances = jnp.maximum(variances, step.variance_floor.astype(variances.dtype))
    return *regression.split(new, parameters.intercept), variances
