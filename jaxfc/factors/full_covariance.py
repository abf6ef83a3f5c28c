"""M-step with a full idiosyncratic covariance, on complete and on incomplete panels.

Complete: W = S_xz S_zz^{-1} and S = (S_xx - W S_xz') / T. With missing stock values, given f_t and
the observed part x_o, and G = S_mo S_oo^{-1}, the panel row is

    x_t | f_t, x_o ~ N(c + D z_t, C),   c_m = G x_o, D_m = [W mu]_m - G [W mu]_o,
    C_mm = S_mm - G S_om,   c_o = x_o, D_o = 0, C_oo = C_om = 0

and the same formulas apply to the expected sums (factors.md section 5; exact EM, monotone).
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.regression import Regression
from jaxfc.typing import Array, Float
from jaxfc_kernels.collapse import unpack

if TYPE_CHECKING:
    from jaxfc.factors.em import PanelData

Step = tuple[Float[Array, "series factors"], Float[Array, " series"], Float[Array, "series series"]]


def complete_step(
    parameters: FactorParameters, data: "PanelData", regression: Regression, floor: Array
) -> Step:
    """Rows observed whole or not at all; 2 T N^2 + 2 T N K flops."""
    rows = data.observed[:, :1]
    regressors = rows * regression.regressors
    num_times, size = jnp.sum(rows), regressors.shape[1]
    cov_sum = unpack(jnp.sum(rows * regression.packed_covs, axis=0), size)
    moments = cov_sum + regressors.T @ regressors
    new = regression.solve(moments, data.values.T @ regressors)
    residuals = data.values - regressors @ new.T
    cov = (residuals.T @ residuals + new @ cov_sum @ new.T) / num_times
    if data.imputed_share is not None:
        cov = cov + jnp.diag(data.imputed_share * parameters.variances)
    loadings, intercept = regression.split(new, parameters.intercept)
    return loadings, intercept, regular(cov, floor)


def regular(cov: Array, floor: Array) -> Float[Array, "series series"]:
    """Symmetric, and with `floor` added to the diagonal: keeps the factorisation defined."""
    return 0.5 * (cov + cov.T) + floor * jnp.eye(cov.shape[0], dtype=cov.dtype)


def missing_step(
    parameters: FactorParameters, data: "PanelData", regression: Regression, floor: Array
) -> Step:
    """Cells missing anywhere: one Cholesky factor a time, sums accumulated in sequence.

    Rows without any observation are left out: they say nothing and would only slow EM down.
    """
    seen = jnp.any(data.observed > 0, axis=1).astype(data.values.dtype)
    regressors = seen[:, None] * regression.regressors
    size = regressors.shape[1]
    covs = unpack(seen[:, None] * regression.packed_covs, size)
    seconds = covs + regressors[:, :, None] * regressors[:, None, :]
    coefficients = regression.augment(parameters.loadings, parameters.intercept)
    cov = parameters.idiosyncratic_cov

    def accumulate(sums, row):
        sum_xz, sum_xx = sums
        x, o, mean, second, used = row
        constant, slope, spread = conditional_row(x, o, coefficients, cov)
        sum_xz = sum_xz + jnp.outer(constant, mean) + slope @ second
        cross = jnp.outer(constant, slope @ mean)
        sum_xx = sum_xx + jnp.outer(constant, constant) + cross + cross.T
        sum_xx = sum_xx + slope @ second @ slope.T + used * spread
        return (sum_xz, sum_xx), None

    start = (jnp.zeros_like(coefficients), jnp.zeros_like(cov))
    rows = (data.values, data.observed, regressors, seconds, seen)
    (sum_xz, sum_xx), _ = jax.lax.scan(accumulate, start, rows)
    new = regression.solve(jnp.sum(seconds, axis=0), sum_xz)
    cov = (sum_xx - new @ sum_xz.T) / jnp.sum(seen)
    loadings, intercept = regression.split(new, parameters.intercept)
    return loadings, intercept, regular(cov, floor)


def conditional_row(
    x: Float[Array, " series"],
    o: Float[Array, " series"],
    coefficients: Float[Array, "series regressors"],
    cov: Float[Array, "series series"],
) -> tuple[
    Float[Array, " series"], Float[Array, "series regressors"], Float[Array, "series series"]
]:
    """c, D, C of x_t | f_t, x_o as in the module's head; zeros in `x` where `o` is zero."""
    identity = jnp.eye(cov.shape[0], dtype=cov.dtype)
    missing = 1.0 - o
    chol = jnp.linalg.cholesky(jnp.where(o[:, None] * o > 0, cov, identity))
    masked_cov = o[:, None] * cov * missing
    gain = cho_solve((chol, True), masked_cov).T
    constant = x + gain @ x
    slope = missing[:, None] * coefficients - gain @ (o[:, None] * coefficients)
    spread = missing[:, None] * cov * missing - gain @ masked_cov
    return constant, slope, spread
