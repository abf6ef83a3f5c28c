"""One step of expectation maximisation for the factor model, and its iteration to a fixed point.

E-step: moments of the factors given the panel. M-step: regressions on those moments,

    W_i = (sum_{t in O_i} x_it E[f_t']) (sum_{t in O_i} E[f_t f_t'])^{-1}
    A   = (sum_t E[f_t g_t']) (sum_t E[g_t g_t'])^{-1},   g_t = (f_{t-1}', ..., f_{t-p}')'
    Q   = sum_t E[(f_t - A g_t)(f_t - A g_t)'] / T'

over the observed times O_i of each series (Shumway and Stoffer 1982; Banbura and Modugno 2014).
Exact EM, hence monotone, for initial="estimated"; with initial="stationary" the M-step of A and Q
leaves out the dependence of the initial law on them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.full_covariance import complete_step, missing_step
from jaxfc.factors.identify import rotate_parameters, second_moment
from jaxfc.factors.moments import (
    FactorPosterior,
    Moments,
    collapsed_misfit,
    expected_factor_loglik,
    window_moments,
)
from jaxfc.factors.regression import Regression
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.collapse import (
    Collapsed,
    collapse_complete,
    collapse_diagonal,
    collapse_full,
    packed_outer,
    unpack,
)
from jaxfc_kernels.var_precision import inverse_and_log_det, stationary_block_cov

IDIOSYNCRATIC = ("diagonal", "isotropic", "full")
INITIAL = ("stationary", "estimated")
CRITERIA = ("loglik", "expected_loglik")


class PanelData(eqx.Module):
    """A panel in standardised units as the E- and M-step read it.

    `values` hold zeros where `observed` (0.0 or 1.0) is zero. `complete` says at trace time that
    each row is observed whole or not at all. `imputed_share` (series,), if given, is the share of
    each series' values that were filled in by their conditional mean: the M-step then adds their
    variance.
    """

    values: Float[Array, "time series"]
    observed: Float[Array, "time series"]
    imputed_share: Float[Array, " series"] | None = None
    complete: bool = eqx.field(static=True, default=False)


def rows_with_data(observed: Float[Array, "time series"]) -> Float[Array, " time"]:
    """1.0 up to the last row with an observation, 0.0 after it."""
    seen = jnp.any(observed > 0, axis=1)
    return jax.lax.cummax(seen.astype(observed.dtype), axis=0, reverse=True)


def completed_data(
    panel: Float[Array, "time series"],
    observed: Float[Array, "time series"],
    imputed_share: Float[Array, " series"] | None = None,
) -> PanelData:
    """A rebuilt panel as data, up to the last row with an observation: what was filled in after
    that is a forecast, no information."""
    mask = jnp.broadcast_to(rows_with_data(observed)[:, None], panel.shape)
    return PanelData(mask * panel, mask, imputed_share, complete=True)


class Expectation(eqx.Module):
    """What the E-step hands to the M-step; `series_misfit` are sums over time of squared residuals
    at the factors' posterior means, `loglik` the observed-data log-likelihood, `criterion` what the
    stopping rule looks at, `end` the period after the last observation."""

    posterior: FactorPosterior
    loglik: Float[Array, ""]
    criterion: Float[Array, ""]
    series_misfit: Float[Array, " series"]
    end: Int[Array, ""]


class EMStep(eqx.Module):
    """parameters -> (parameters, criterion): one exact iteration, a pure function of the data.

    `criterion` is "loglik" or "expected_loglik", E[ln p(x, F) | x], the paper's stopping quantity.

    `presample` periods precede the panel when the initial law is estimated: p of them (the law of
    the state before the first row, as in Banbura-Modugno and dfms) unless said otherwise; p - 1 is
    the convention of statsmodels (the state at the first row). `missing_as_latent` counts missing
    cells as latent data in the variance update (Banbura and Modugno 2014, the slower EM with the
    same fixed point). `active_factors` and `active_lags` switch components off, so that candidates
    of several sizes share one shape. `normalise` keeps the factors' second moment at I: the law of
    the panel does not change, but without it the iteration may drift along F -> R F to badly
    conditioned parameters.
    """

    moments: Moments
    variance_floor: Float[Array, ""]
    active_factors: Bool[Array, " factors"] | None = None
    active_lags: Bool[Array, " lags"] | None = None
    idiosyncratic: str = eqx.field(static=True, default="diagonal")
    initial: str = eqx.field(static=True, default="stationary")
    presample: int = eqx.field(static=True, default=0)
    estimate_intercept: bool = eqx.field(static=True, default=False)
    missing_as_latent: bool = eqx.field(static=True, default=False)
    criterion: str = eqx.field(static=True, default="loglik")
    normalise: bool = eqx.field(static=True, default=False)

    def __call__(
        self, parameters: FactorParameters, data: PanelData
    ) -> tuple[FactorParameters, Float[Array, ""]]:
        expectation = self.expect(parameters, data)
        updated = self.maximise(parameters, data, expectation)
        if self.normalise and parameters.num_lags > 0:
            moment = second_moment(expectation.posterior, expectation.end)
            scale = jnp.linalg.cholesky(moment)
            identity = jnp.eye(parameters.num_factors, dtype=scale.dtype)
            matrix = solve_triangular(scale, identity, lower=True)
            updated = rotate_parameters(updated, matrix, scale)
        return updated, expectation.criterion

    def expect(self, parameters: FactorParameters, data: PanelData) -> Expectation:
        """E-step."""
        centred = data.values - data.observed * parameters.intercept
        collapsed = self.collapse(parameters, data, centred)
        posterior = self.moments.posterior(parameters, collapsed, presample=self.presample)
        means = posterior.means[self.presample :]
        residuals = centred - data.observed * (means @ parameters.loadings.T)
        series_misfit = jnp.sum(residuals**2, axis=0)
        if self.idiosyncratic == "full":
            misfit = collapsed_misfit(collapsed, means)
        else:
            misfit = jnp.sum(series_misfit / parameters.idiosyncratic_cov)
        # Periods after the last observation add nothing to the data and would only slow the
        # regressions down; without them a masked tail equals a shorter panel, step by step.
        end = self.presample + jnp.sum(rows_with_data(data.observed)).astype(int)
        criterion = loglik = posterior.evidence - 0.5 * misfit
        if self.criterion == "expected_loglik":
            spread = jnp.sum(collapsed.information * posterior.covs[self.presample :])
            measurement = -0.5 * (collapsed.log_normaliser + misfit + spread)
            criterion = measurement + expected_factor_loglik(parameters, posterior, end)
        return Expectation(posterior, loglik, criterion, series_misfit, end)

    def collapse(
        self, parameters: FactorParameters, data: PanelData, centred: Float[Array, "time series"]
    ) -> Collapsed:
        """Sufficient statistics of the panel at these parameters."""
        loadings, cov = parameters.loadings, parameters.idiosyncratic_cov
        if self.idiosyncratic != "full":
            return collapse_diagonal(centred, data.observed, loadings, cov)
        if data.complete:
            return collapse_complete(centred, data.observed[:, 0], loadings, cov)
        return collapse_full(centred, data.observed, loadings, cov)

    def maximise(
        self, parameters: FactorParameters, data: PanelData, expectation: Expectation
    ) -> FactorParameters:
        """M-step."""
        posterior = expectation.posterior
        if not self.estimate_intercept:
            centred = data.values - data.observed * parameters.intercept
            data = eqx.tree_at(lambda d: d.values, data, centred)
        regression = Regression(
            posterior.means[self.presample :],
            posterior.covs[self.presample :],
            self.estimate_intercept,
            self.active_factors,
        )
        if self.idiosyncratic == "full":
            update = complete_step if data.complete else missing_step
            floor = self.variance_floor.astype(data.values.dtype)
            loadings, intercept, cov = update(parameters, data, regression, floor)
        else:
            loadings, intercept, cov = diagonal_step(
                self, parameters, data, regression, expectation.series_misfit
            )
        transition, innovation_cov, initial_mean, initial_cov = self.dynamics(
            parameters, posterior, expectation.end
        )
        return FactorParameters(
            loadings=loadings,
            intercept=intercept,
            idiosyncratic_cov=cov,
            transition=transition,
            innovation_cov=innovation_cov,
            initial_mean=initial_mean,
            initial_cov=initial_cov,
        )

    def dynamics(
        self, parameters: FactorParameters, posterior: FactorPosterior, end: Int[Array, ""] | None
    ) -> tuple[Array, Array, Array, Array]:
        """VAR coefficients, innovation covariance and initial law from periods before `end`."""
        num_lags, num_factors = parameters.num_lags, parameters.num_factors
        if num_lags == 0:
            return (
                parameters.transition,
                parameters.innovation_cov,
                parameters.initial_mean,
                parameters.initial_cov,
            )
        # Periods before the panel are no innovations of the VAR: then every candidate has them all.
        lags = self.active_lags if self.initial == "stationary" else None
        used = None if lags is None else jnp.sum(lags)
        moments, count = window_moments(posterior, num_lags, used, end)
        regressors, cross = moments[num_factors:, num_factors:], moments[:num_factors, num_factors:]
        switched_on = self.active_states(num_lags, num_factors)
        if switched_on is not None:
            identity = jnp.eye(regressors.shape[0], dtype=moments.dtype)
            regressors = jnp.where(switched_on[:, None] & switched_on, regressors, identity)
            cross = jnp.where(switched_on, cross, 0.0)
        inverse, _ = inverse_and_log_det(regressors)
        coefficients = cross @ inverse
        innovation_cov = (moments[:num_factors, :num_factors] - coefficients @ cross.T) / count
        innovation_cov = 0.5 * (innovation_cov + innovation_cov.T)
        if self.active_factors is not None:
            both = self.active_factors[:, None] & self.active_factors
            coefficients = jnp.where(self.active_factors[:, None], coefficients, 0.0)
            identity = jnp.eye(num_factors, dtype=moments.dtype)
            innovation_cov = jnp.where(both, innovation_cov, identity)
        transition = coefficients.reshape(num_factors, num_lags, num_factors).swapaxes(0, 1)
        if self.initial == "stationary":
            initial_cov = stationary_block_cov(transition, innovation_cov)
            return transition, innovation_cov, jnp.zeros_like(parameters.initial_mean), initial_cov
        initial_mean = posterior.means[:num_lags].reshape(-1)
        return transition, innovation_cov, initial_mean, posterior.joint_cov(range(num_lags))

    def active_states(self, num_lags: int, num_factors: int) -> Bool[Array, " states"] | None:
        """Which regressors of the VAR are switched on (None: all)."""
        if self.active_factors is None and self.active_lags is None:
            return None
        factors = self.active_factors
        lags = self.active_lags
        factors = jnp.ones(num_factors, bool) if factors is None else factors
        lags = jnp.ones(num_lags, bool) if lags is None else lags
        return (lags[:, None] & factors).reshape(-1)


def diagonal_step(
    step: EMStep,
    parameters: FactorParameters,
    data: PanelData,
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
        num_times = jnp.sum(rows_with_data(data.observed))
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
