"""M-step of loadings and variances with errors independent over time and series."""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.regression import Regression
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
    Q(new) = Q(old) - d' S d with d = new - old, which loses no digits where the fit is close.
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
    new = regression.solve(moments, data.values.T @ regressors)
    change = new - old
    expected = (
        series_misfit
        + jnp.einsum("ni,nij,nj->n", old, cov_sums, old)
        - jnp.einsum("ni,nij,nj->n", change, moments, change)
    )
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
    variances = jnp.maximum(variances, step.variance_floor.astype(variances.dtype))
    return *regression.split(new, parameters.intercept), variances
