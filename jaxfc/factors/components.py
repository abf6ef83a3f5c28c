"""Parameters of the factor model, and the closed-form estimates that start everything else.

The approximate dynamic factor model, in standardised units,

    x_t = W f_t + mu + e_t,  e_t ~ N(0, S);    f_t = sum_{l=1..p} A_l f_{t-l} + u_t,  u_t ~ N(0, Q)

(Defend et al. 2021, equations 1 and 2). p = 0 is the static model, f_t ~ N(0, I).
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.typing import Array, Bool, Float
from jaxfc_kernels.collapse import collapse_diagonal
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse
from jaxfc_kernels.var_precision import stationary_block_cov


class FactorParameters(eqx.Module):
    """Parameters in standardised units; `initial_*` is the law of the first p factors, ascending.

    `idiosyncratic_cov` is (series,) when diagonal, else (series, series). For p = 0, `transition`
    has no lags and the initial law is that of one period, N(0, I). `idiosyncratic_ar` (None: errors
    are independent over time) holds r_i of e_it = r_i e_i,t-1 + v_it, |r_i| < 1; the idiosyncratic
    covariance is then that of e_t, and Var(v_i) = (1 - r_i^2) S_i. `error_weights` (None: 1)
    multiply the precision of single errors of the panel that was estimated.
    """

    loadings: Float[Array, "series factors"]
    intercept: Float[Array, " series"]
    idiosyncratic_cov: Float[Array, " series"] | Float[Array, "series series"]
    transition: Float[Array, "lags factors factors"]
    innovation_cov: Float[Array, "factors factors"]
    initial_mean: Float[Array, " states"]
    initial_cov: Float[Array, "states states"]
    idiosyncratic_ar: Float[Array, " series"] | None = None
    error_weights: Float[Array, "time series"] | None = None

    @property
    def num_lags(self) -> int:
        return self.transition.shape[0]

    @property
    def num_factors(self) -> int:
        return self.loadings.shape[1]

    @property
    def variances(self) -> Float[Array, " series"]:
        """Diagonal of the idiosyncratic covariance."""
        cov = self.idiosyncratic_cov
        return cov if cov.ndim == 1 else jnp.diagonal(cov)

    @property
    def factor_cov(self) -> Float[Array, "factors factors"]:
        """Stationary covariance of the factors (NaN if the VAR is not stationary)."""
        if self.num_lags == 0:
            return self.innovation_cov
        num_factors = self.num_factors
        block = stationary_block_cov(self.transition, self.innovation_cov)
        return block[:num_factors, :num_factors]


def pairwise_cov(
    values: Float[Array, "time series"], observed: Float[Array, "time series"]
) -> Float[Array, "series series"]:
    """Second moments over the times at which both series are observed; 0 where there are none."""
    return (values.T @ values) / jnp.maximum(observed.T @ observed, 1.0)


def principal_loadings(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    num_factors: int,
    active: Bool[Array, " factors"] | None = None,
) -> tuple[Float[Array, "series factors"], Float[Array, " factors"], Float[Array, ""]]:
    """Leading eigenvectors and eigenvalues of the pairwise covariance, and the noise variance.

    The noise variance is that of probabilistic principal components, (N - K)^{-1} sum of the
    remaining eigenvalues (Tipping and Bishop 1999), where K counts the `active` factors, which must
    lead. Costs 2 T N^2 + 9 N^3 flops.
    """
    num_series = values.shape[1]
    eigenvalues, vectors = jnp.linalg.eigh(pairwise_cov(values, observed))
    leading = eigenvalues[::-1][:num_factors]
    counted = jnp.ones(num_factors, bool) if active is None else active
    remaining = jnp.sum(eigenvalues) - jnp.sum(jnp.where(counted, leading, 0.0))
    floor = 1e-3 * jnp.mean(eigenvalues)
    noise = jnp.maximum(remaining / (num_series - jnp.sum(counted)), floor)
    return vectors[:, ::-1][:, :num_factors], leading, noise


def ppca_loadings(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    num_factors: int,
    active: Bool[Array, " factors"] | None = None,
) -> tuple[Float[Array, "series factors"], Float[Array, ""]]:
    """W = U (L - s^2 I)^{1/2} and s^2 (Tipping and Bishop 1999, equation 7)."""
    vectors, leading, noise = principal_loadings(values, observed, num_factors, active)
    scale = jnp.sqrt(jnp.maximum(leading - noise, 1e-3 * jnp.abs(leading) + 1e-12))
    return mask_factors(vectors * scale, active), noise


def static_factors(
    values: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    loadings: Float[Array, "series factors"],
    variances: Float[Array, " series"],
    prior_precision: float | Float[Array, ""] = 1.0,
) -> Float[Array, "time factors"]:
    """E[f_t | x_t] of the static model with prior covariance I / `prior_precision`."""
    collapsed = collapse_diagonal(values, observed, loadings, variances)
    num_factors = loadings.shape[1]
    precision = collapsed.information + prior_precision * jnp.eye(num_factors, dtype=values.dtype)
    inverse, _ = spd_inverse(precision, fastest_implementation(num_factors))
    return jnp.einsum("tij,tj->ti", inverse, collapsed.vectors)


def yule_walker(
    factors: Float[Array, "time factors"],
    num_lags: int,
    active_lags: Bool[Array, " lags"] | None = None,
    active_factors: Bool[Array, " factors"] | None = None,
) -> tuple[Float[Array, "lags factors factors"], Float[Array, "factors factors"]]:
    """VAR(p) coefficients and innovation covariance from autocovariances with divisor T.

    Unlike least squares these are always stationary, so they can start an estimation whose initial
    law is the stationary one. Lags and factors that are not active get coefficients of zero.
    """
    num_times, num_factors = factors.shape
    # Rows without data have factors of exactly zero: a masked tail must not change the divisor.
    count = jnp.maximum(jnp.sum(jnp.any(factors != 0, axis=1)), 1)
    autocov = [factors[lag:].T @ factors[: num_times - lag] / count for lag in range(num_lags + 1)]
    rows = [
        [autocov[j - i] if j >= i else autocov[i - j].T for j in range(num_lags)]
        for i in range(num_lags)
    ]
    regressors = jnp.block(rows)
    cross = jnp.concatenate(autocov[1:], axis=1)
    size = num_lags * num_factors
    lags = jnp.ones(num_lags, bool) if active_lags is None else active_lags
    among = jnp.ones(num_factors, bool) if active_factors is None else active_factors
    mean_variance = jnp.sum(jnp.where(among, jnp.diagonal(autocov[0]), 0.0)) / jnp.sum(among)
    ridge = 1e-8 * mean_variance * jnp.eye(size, dtype=factors.dtype)
    if active_lags is not None or active_factors is not None:
        on = (lags[:, None] & among).reshape(-1)
        regressors = jnp.where(on[:, None] & on, regressors, jnp.eye(size, dtype=factors.dtype))
        cross = jnp.where(on, cross, 0.0)
    coefficients = jnp.linalg.solve(regressors + ridge, cross.T).T
    innovation_cov = autocov[0] - coefficients @ cross.T
    innovation_cov = 0.5 * (innovation_cov + innovation_cov.T)
    transition = coefficients.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)
    return transition, innovation_cov


def with_dynamics(
    loadings: Float[Array, "series factors"],
    idiosyncratic_cov: Array,
    factors: Float[Array, "time factors"],
    num_lags: int,
    active_lags: Bool[Array, " lags"] | None = None,
    active_factors: Bool[Array, " factors"] | None = None,
) -> FactorParameters:
    """Parameters with a VAR(p) fitted to `factors` by Yule-Walker, stationary initial law."""
    num_series, num_factors = loadings.shape
    if num_lags == 0:
        transition = jnp.zeros((0, num_factors, num_factors), loadings.dtype)
        innovation_cov = initial_cov = jnp.eye(num_factors, dtype=loadings.dtype)
    else:
        transition, innovation_cov = yule_walker(factors, num_lags, active_lags, active_factors)
        initial_cov = stationary_block_cov(transition, innovation_cov)
    return FactorParameters(
        loadings=loadings,
        intercept=jnp.zeros(num_series, loadings.dtype),
        idiosyncratic_cov=idiosyncratic_cov,
        transition=transition,
        innovation_cov=innovation_cov,
        initial_mean=jnp.zeros(initial_cov.shape[0], loadings.dtype),
        initial_cov=initial_cov,
    )


def mask_factors(
    loadings: Float[Array, "series factors"], active: Bool[Array, " factors"] | None
) -> Float[Array, "series factors"]:
    """Loadings with inactive factors switched off."""
    return loadings if active is None else jnp.where(active, loadings, 0.0)


@jax.jit
def trace_r_squared(
    truth: Float[Array, "time factors"], estimate: Float[Array, "time other"]
) -> Float[Array, ""]:
    """Share of the true factors' variance that lies in the span of the estimated ones.

    tr(F' Fh (Fh' Fh)^{-1} Fh' F) / tr(F' F), in [0, 1], invariant to Fh -> Fh R (Stock and Watson
    2002).
    """
    return jnp.sum((orthonormal_columns(estimate).T @ truth) ** 2) / jnp.sum(truth**2)


def orthonormal_columns(matrix: Float[Array, "time columns"]) -> Float[Array, "time columns"]:
    """An orthonormal basis of the columns, zero for a column that the ones before it span.

    Gram and Schmidt's method, twice for every column, which makes it as accurate as reflections
    (Giraud, Langou, Rozloznik and van den Eshof 2005). No call of LAPACK: batches of several at
    once can stop a process with few threads.
    """
    tolerance = 10.0 * jnp.finfo(matrix.dtype).eps

    def add(basis: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
        position, vector = column
        size = jnp.sqrt(jnp.sum(vector**2))
        left = vector - basis @ (basis.T @ vector)
        left = left - basis @ (basis.T @ left)
        length = jnp.sqrt(jnp.sum(left**2))
        # `not <=` lets NaN through: a fit that was lost must not look like one without factors.
        counts = ~(length <= tolerance * size)
        unit = jnp.where(counts, left / jnp.where(counts, length, 1.0), 0.0)
        return basis.at[:, position].set(unit), None

    columns = jnp.arange(matrix.shape[1]), matrix.T
    return jax.lax.scan(add, jnp.zeros_like(matrix), columns)[0]
