"""Law of the factors given the panel: closed-form (precision) and Kalman engines, one answer.

The closed form is the posterior F | x ~ N(H^{-1} h, H^{-1}), H = Omega + blkdiag(C_t), with Omega
the banded prior precision of the VAR path and (C_t, b_t) the collapsed panel (Defend et al. 2021,
equation 4, in the equivalent precision form). The Kalman engine runs on the companion form.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.path_blocks import lag_covs_from_blocks, path_blocks
from jaxfc.typing import Array, Float, Int, PRNGKeyArray
from jaxfc_kernels import block_tridiagonal, tridiagonal_engines
from jaxfc_kernels.banded import band_product
from jaxfc_kernels.collapse import Collapsed
from jaxfc_kernels.constants import LOG_2PI
from jaxfc_kernels.small_matrix import fastest_implementation, spd_inverse
from jaxfc_kernels.var_precision import inverse_and_log_det


class FactorPosterior(eqx.Module):
    """Moments of the factors given the panel, over `presample` + time periods.

    `means` (periods, factors); `lag_covs`[l, t] = Cov[F_t, F_{t-l} | x] for l = 0..p (or as far as
    the panel couples periods), centred (zero where t - l is before the first period). `evidence` is
    the log-likelihood plus half the misfit sum_t e_t' S_oo^{-1} e_t at the posterior mean: the
    misfit is added by who knows the residuals, because forming it from them keeps digits that the
    collapsed form loses in float32.
    """

    means: Float[Array, "periods factors"]
    lag_covs: Float[Array, "orders periods factors factors"]
    evidence: Float[Array, ""]

    @property
    def covs(self) -> Float[Array, "periods factors factors"]:
        """Cov[F_t | x]."""
        return self.lag_covs[0]

    def after(self, num_periods: int) -> "FactorPosterior":
        """The same without the first `num_periods` periods."""
        return FactorPosterior(
            self.means[num_periods:], self.lag_covs[:, num_periods:], self.evidence
        )

    def cov_between(self, first: int, second: int) -> Float[Array, "factors factors"]:
        """Cov[F_first, F_second | x] for periods at most p apart."""
        if first >= second:
            return self.lag_covs[first - second, first]
        return self.lag_covs[second - first, second].T

    def joint_cov(self, periods: range) -> Float[Array, "states states"]:
        """Covariance of a few consecutive periods, ascending, at most p + 1 of them."""
        return jnp.block([[self.cov_between(i, j) for j in periods] for i in periods])


def collapsed_misfit(collapsed: Collapsed, means: Float[Array, "time factors"]) -> Float[Array, ""]:
    """sum_t (x - W f)' S_oo^{-1} (x - W f) from collapsed statistics."""
    bands = collapsed.information[None]
    if collapsed.lagged_information is not None:
        bands = jnp.concatenate([bands, collapsed.lagged_information])
    fitted = band_product(bands, means)
    return collapsed.quadratic + jnp.sum(means * (fitted - 2.0 * collapsed.vectors))


class Moments(eqx.Module):
    """How the law of the factors given the panel is computed."""

    @abc.abstractmethod
    def posterior(
        self, parameters: FactorParameters, collapsed: Collapsed, *, presample: int = 0
    ) -> FactorPosterior:
        """Exact moments of F | x. `presample` periods without data precede the panel."""


class ClosedForm(Moments):
    """Block-tridiagonal posterior precision in super-blocks of p periods (the default).

    Cost about 9 T K^3 p^2 flops, depth 2 T / p with `engine` "sequential"; "odd_even" is
    2 log2(T / p) deep at 2.5 times the work, "prefix_scan" 4 log2(T / p) at 4 times: for machines
    on which depth is what costs. `implementation` of the pivots: "gauss_jordan", "cholesky", or
    None for the faster one at the size at hand (see kernels/README.md).
    """

    implementation: str | None = eqx.field(static=True, default=None)
    engine: str = eqx.field(static=True, default="sequential")

    def __check_init__(self):
        tridiagonal_engines.check_engine(self.engine)

    def posterior(
        self, parameters: FactorParameters, collapsed: Collapsed, *, presample: int = 0
    ) -> FactorPosterior:
        if parameters.num_lags == 0 and collapsed.lagged_information is None:
            return static_posterior(parameters, collapsed)
        num_periods = collapsed.vectors.shape[0] + presample
        blocks = path_blocks(parameters, collapsed, presample)
        moments, log_det = tridiagonal_engines.posterior(
            blocks.diagonal,
            blocks.lower,
            blocks.linear,
            engine=self.engine,
            implementation=self.implementation,
        )
        num_states = collapsed.vectors.shape[1]
        means = moments.means.reshape(-1, num_states)[:num_periods]
        lag_covs = lag_covs_from_blocks(moments.covs, moments.cross_covs, blocks.length, num_states)
        lag_covs = lag_covs[:, :num_periods]
        log_dets = collapsed.log_normaliser + log_det - blocks.prior_log_det
        misfit = path_misfit(parameters, means[:, : parameters.num_factors])
        evidence = -0.5 * (log_dets + misfit)
        return FactorPosterior(means, lag_covs, evidence)


def path_innovations(
    transition: Float[Array, "lags factors factors"], means: Float[Array, "periods factors"]
) -> Float[Array, "innovations factors"]:
    """f_t - sum_l A_l f_{t-l} for the periods that have p predecessors."""
    num_lags, num_periods = transition.shape[0], means.shape[0]
    innovations = means[num_lags:]
    for lag in range(1, num_lags + 1):
        innovations = (
            innovations - means[num_lags - lag : num_periods - lag] @ transition[lag - 1].T
        )
    return innovations


def path_misfit(
    parameters: FactorParameters, means: Float[Array, "periods factors"]
) -> Float[Array, ""]:
    """(f - E f)' Omega (f - E f) as a sum of squares of innovations."""
    if parameters.num_lags == 0:
        return jnp.sum(means**2)
    innovation_precision, _ = inverse_and_log_det(parameters.innovation_cov)
    initial_precision, _ = inverse_and_log_det(parameters.initial_cov)
    innovations = path_innovations(parameters.transition, means)
    first = means[: parameters.num_lags].reshape(-1) - parameters.initial_mean
    return jnp.sum((innovations @ innovation_precision) * innovations) + first @ (
        initial_precision @ first
    )


def static_posterior(parameters: FactorParameters, collapsed: Collapsed) -> FactorPosterior:
    """p = 0: every period by itself, (I + C_t)^{-1} b_t; no sequence, one batched inverse."""
    num_factors = parameters.num_factors
    precision = collapsed.information + jnp.eye(num_factors, dtype=collapsed.vectors.dtype)
    covs, pivots = spd_inverse(precision, fastest_implementation(num_factors))
    means = jnp.einsum("tij,tj->ti", covs, collapsed.vectors)
    evidence = -0.5 * (collapsed.log_normaliser + jnp.sum(jnp.log(pivots)) + jnp.sum(means**2))
    return FactorPosterior(means, covs[None], evidence)


def factor_means(
    parameters: FactorParameters, collapsed: Collapsed, *, presample: int = 0
) -> Float[Array, "periods factors"]:
    """E[F | x] alone: one elimination and two substitutions, no covariance. Linear in the panel
    given what is observed, and its derivative costs two substitutions more."""
    num_times, num_factors = collapsed.vectors.shape
    if parameters.num_lags == 0 and collapsed.lagged_information is None:
        return static_posterior(parameters, collapsed).means
    blocks = path_blocks(parameters, collapsed, presample)
    factorisation = block_tridiagonal.factorise(blocks.diagonal, blocks.lower, blocks.linear)
    means = block_tridiagonal.solve(factorisation, blocks.linear)
    return means.reshape(-1, num_factors)[: num_times + presample]


def sample_factors(
    parameters: FactorParameters,
    collapsed: Collapsed,
    num_draws: int,
    *,
    key: PRNGKeyArray,
    presample: int = 0,
) -> Float[Array, "draws periods factors"]:
    """Exact joint draws of the factor path given the panel (one factorisation, many draws)."""
    num_factors = collapsed.vectors.shape[1]
    num_times = collapsed.vectors.shape[0]
    if parameters.num_lags == 0 and collapsed.lagged_information is None:
        posterior = static_posterior(parameters, collapsed)
        noise = jax.random.normal(key, (num_times, num_factors, num_draws), posterior.means.dtype)
        chol = jnp.linalg.cholesky(posterior.covs)
        return posterior.means + jnp.einsum("tij,tjd->dti", chol, noise)
    blocks = path_blocks(parameters, collapsed, presample)
    factorisation = block_tridiagonal.factorise(blocks.diagonal, blocks.lower, blocks.linear)
    noise = jax.random.normal(
        key, (*factorisation.reduced.shape, num_draws), collapsed.vectors.dtype
    )
    draws = block_tridiagonal.sample_many(factorisation, noise)
    draws = jnp.moveaxis(draws.reshape(-1, num_factors, num_draws), -1, 0)
    return draws[:, : num_times + presample]


def window_moments(
    posterior: FactorPosterior,
    num_lags: int,
    num_predecessors: Int[Array, ""] | None = None,
    end: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "window window"], int | Int[Array, ""]]:
    """sum_t E[(F_t, F_{t-1}, ..., F_{t-p})(.)' | x] over the periods with p predecessors before
    period `end` (None: all), and their number.

    `num_predecessors` < p: a model with fewer lags in arrays for p takes the periods that have that
    many; lags before the first period, which such a model does not use, count as zero.
    """
    first_window = num_lags
    if num_predecessors is not None:
        posterior = after_empty_periods(posterior, num_lags)
        first_window = 0
    num_periods = posterior.means.shape[0]
    windows = first_window + jnp.arange(num_periods - num_lags)
    keep = None
    if num_predecessors is not None:
        keep = windows >= num_predecessors
    if end is not None:
        keep = windows < end if keep is None else keep & (windows < end)

    def used(terms: Array) -> Array:
        if keep is None:
            return terms
        return jnp.where(keep.reshape(-1, *[1] * (terms.ndim - 1)), terms, 0.0)

    stacked = jnp.concatenate(
        [posterior.means[num_lags - lag : num_periods - lag] for lag in range(num_lags + 1)], axis=1
    )
    stacked = used(stacked)
    total = stacked.T @ stacked
    rows = []
    for i in range(num_lags + 1):
        row = []
        for j in range(num_lags + 1):
            newer, lag = min(i, j), abs(i - j)
            covs = posterior.lag_covs[lag, num_lags - newer : num_periods - newer]
            cov = jnp.sum(used(covs), axis=0)
            row.append(cov if i <= j else cov.T)
        rows.append(row)
    count = num_periods - num_lags if keep is None else jnp.sum(keep)
    return total + jnp.block(rows), count


def after_empty_periods(posterior: FactorPosterior, num_periods: int) -> FactorPosterior:
    """Moments preceded by periods in which all of them are zero."""
    return FactorPosterior(
        jnp.pad(posterior.means, ((num_periods, 0), (0, 0))),
        jnp.pad(posterior.lag_covs, ((0, 0), (num_periods, 0), (0, 0), (0, 0))),
        posterior.evidence,
    )


def expected_factor_loglik(
    parameters: FactorParameters, posterior: FactorPosterior, end: Int[Array, ""] | None = None
) -> Float[Array, ""]:
    """E[ln p(F) | x] of the factor path before period `end` (Defend et al. 2021, equation 20).

    Not invariant to F -> R F: it shifts by -T ln |det R|. Compare runs only on one normalisation.
    """
    num_periods, num_factors = posterior.means.shape
    num_lags = parameters.num_lags
    used = num_periods if end is None else end
    constant = used * num_factors * LOG_2PI
    if num_lags == 0:
        seconds = jnp.sum(posterior.means**2, axis=1) + jnp.einsum("tii->t", posterior.covs)
        trace = jnp.sum(jnp.where(jnp.arange(num_periods) < used, seconds, 0.0))
        return -0.5 * (constant + trace)
    innovation_precision, innovation_log_det = inverse_and_log_det(parameters.innovation_cov)
    initial_precision, initial_log_det = inverse_and_log_det(parameters.initial_cov)
    moments, count = window_moments(posterior, num_lags, end=end)
    residual = jnp.concatenate(
        [jnp.eye(num_factors, dtype=moments.dtype), *(-a for a in parameters.transition)], axis=1
    )
    dynamics = jnp.sum(innovation_precision * (residual @ moments @ residual.T))
    first = posterior.means[:num_lags].reshape(-1) - parameters.initial_mean
    second = jnp.outer(first, first) + posterior.joint_cov(range(num_lags))
    start = jnp.sum(initial_precision * second)
    return -0.5 * (constant + initial_log_det + start + count * innovation_log_det + dynamics)
