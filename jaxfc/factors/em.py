"""One step of expectation maximisation for the factor model, and its iteration to a fixed point.

E-step: moments of the factors given the panel. M-step: regressions on those moments,

    W_i = (sum_{t in O_i} x_it E[f_t']) (sum_{t in O_i} E[f_t f_t'])^{-1}
    A   = (sum_t E[f_t g_t']) (sum_t E[g_t g_t'])^{-1},   g_t = (f_{t-1}', ..., f_{t-p}')'
    Q   = sum_t E[(f_t - A g_t)(f_t - A g_t)'] / T'

over the observed times O_i of each series (Shumway and Stoffer 1982; Banbura and Modugno 2014).
Exact EM, hence monotone, for initial="estimated"; with initial="stationary" the M-step of A and Q
leaves out the dependence of the initial law on them.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxfc.factors.components import FactorParameters
from jaxfc.factors.coupled import (
    Coupling,
    centred_values,
    collapse_coupled,
    coupled_misfit,
    factors_only,
    residuals_of,
)
from jaxfc.factors.coupled_step import coupled_step
from jaxfc.factors.diagonal_step import diagonal_step
from jaxfc.factors.errors import Errors, IndependentErrors
from jaxfc.factors.full_covariance import complete_step, missing_step
from jaxfc.factors.identify import rotate_parameters, second_moment
from jaxfc.factors.moments import (
    FactorPosterior,
    Moments,
    collapsed_misfit,
    expected_factor_loglik,
)
from jaxfc.factors.regression import Regression
from jaxfc.factors.restrictions import Restrictions
from jaxfc.factors.shrinkage import DataUnits, intercept_precision, path_mean, recentred
from jaxfc.factors.var_step import var_step
from jaxfc.factors.weighting import Weighting, weights_on
from jaxfc.typing import Array, Bool, Float, Int
from jaxfc_kernels.collapse import (
    Collapsed,
    collapse_complete,
    collapse_diagonal,
    collapse_full,
)

IDIOSYNCRATIC = ("diagonal", "isotropic", "shrunk", "full")
INITIAL = ("stationary", "estimated")
INTERCEPT = ("sample", "estimated", "random")
CRITERIA = ("loglik", "expected_loglik")


class PanelData(eqx.Module):
    """A panel in standardised units as the E- and M-step read it.

    `values` hold zeros where `observed` (0.0 or 1.0) is zero. `complete` says at trace time that
    each row is observed whole or not at all. `imputed_share` (series,), if given, is the share of
    each series' values that were filled in by their conditional mean: the M-step then adds their
    variance. `coupling` is what the mask and the calendar say where errors have memory or series
    are flows; `units`, what priors across series need to know of the data's own units.
    """

    values: Float[Array, "time series"]
    observed: Float[Array, "time series"]
    imputed_share: Float[Array, " series"] | None = None
    complete: bool = eqx.field(static=True, default=False)
    coupling: Coupling | None = None
    units: DataUnits | None = None

    @property
    def num_times(self) -> Float[Array, ""]:
        """Number of rows up to the last one with an observation."""
        return jnp.sum(rows_with_data(self.observed))


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
    stopping rule looks at, `end` the period after the last observation. `states` are the moments of
    (F, s) where flows share scalars s (else those of F); the scaled misfit is in `loglik`."""

    posterior: FactorPosterior
    loglik: Float[Array, ""]
    criterion: Float[Array, ""]
    series_misfit: Float[Array, " series"]
    end: Int[Array, ""]
    states: FactorPosterior


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
    random_intercept: bool = eqx.field(static=True, default=False)
    missing_as_latent: bool = eqx.field(static=True, default=False)
    criterion: str = eqx.field(static=True, default="loglik")
    normalise: bool = eqx.field(static=True, default=False)
    errors: Errors = eqx.field(default_factory=IndependentErrors)
    restrictions: Restrictions | None = None
    weighting: Weighting | None = None

    def __call__(
        self, parameters: FactorParameters, data: PanelData
    ) -> tuple[FactorParameters, Float[Array, ""]]:
        expectation = self.expect(parameters, data)
        updated = self.maximise(parameters, data, expectation)
        if self.normalise and parameters.num_lags > 0:
            updated = normalised(updated, expectation, self.restrictions)
        return updated, expectation.criterion

    def expect(self, parameters: FactorParameters, data: PanelData) -> Expectation:
        """E-step."""
        coupling = data.coupling
        centred = centred_values(data.values, data.observed, parameters.intercept, coupling)
        collapsed = self.collapse(parameters, data, centred)
        states = self.moments.posterior(parameters, collapsed, presample=self.presample)
        posterior = states
        means = states.means[self.presample :]
        series_misfit = jnp.zeros_like(parameters.intercept)
        if coupling is not None:
            posterior = factors_only(states, parameters.num_factors)
            left = residuals_of(parameters, coupling, centred, data.observed, means)
            weights = weights_on(parameters.error_weights, centred.shape[0])
            misfit = coupled_misfit(parameters, coupling, left, data.observed, weights)
        elif self.idiosyncratic == "full":
            misfit = collapsed_misfit(collapsed, means)
        else:
            residuals = centred - data.observed * (means @ parameters.loadings.T)
            series_misfit = jnp.sum(residuals**2, axis=0)
            misfit = jnp.sum(series_misfit / parameters.idiosyncratic_cov)
        # Periods after the last observation add nothing to the data and would only slow the
        # regressions down; without them a masked tail equals a shorter panel, step by step.
        end = self.presample + jnp.sum(rows_with_data(data.observed)).astype(int)
        criterion = loglik = states.evidence - 0.5 * misfit
        if self.weighting is not None and coupling is not None:
            seen = data.observed * coupling.stocks
            weights = weights_on(parameters.error_weights, centred.shape[0])
            weights = jnp.ones_like(seen) if weights is None else weights
            criterion = loglik = loglik + self.weighting.bound(weights, seen)
        if self.criterion == "expected_loglik":
            spread = jnp.sum(collapsed.information * states.covs[self.presample :])
            measurement = -0.5 * (collapsed.log_normaliser + misfit + spread)
            criterion = measurement + expected_factor_loglik(parameters, posterior, end)
        if self.restrictions is not None and self.restrictions.penalty is not None:
            size = jnp.sum(jnp.abs(parameters.loadings))
            criterion = criterion - self.restrictions.penalty.astype(size.dtype) * size
        return Expectation(posterior, loglik, criterion, series_misfit, end, states)

    def collapse(
        self, parameters: FactorParameters, data: PanelData, centred: Float[Array, "time series"]
    ) -> Collapsed:
        """Sufficient statistics of the panel at these parameters."""
        loadings, cov = parameters.loadings, parameters.idiosyncratic_cov
        if data.coupling is not None:
            return collapse_coupled(parameters, data.coupling, centred, data.observed)
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
            centred = centred_values(
                data.values, data.observed, parameters.intercept, data.coupling
            )
            data = eqx.tree_at(lambda d: d.values, data, centred)
        regression = Regression(
            posterior.means[self.presample :],
            posterior.covs[self.presample :],
            self.estimate_intercept,
            self.active_factors,
            self.restrictions,
            parameters.variances if data.coupling is None else None,
            self.intercept_prior(parameters, data, expectation),
        )
        if data.coupling is not None:
            updated = coupled_step(self, parameters, data, regression, expectation)
            loadings, intercept = updated.loadings, updated.intercept
            parameters, cov = updated, updated.idiosyncratic_cov
        elif self.idiosyncratic == "full":
            update = complete_step if data.complete else missing_step
            floor = self.variance_floor.astype(data.values.dtype)
            loadings, intercept, cov = update(parameters, data, regression, floor)
        else:
            loadings, intercept, cov = diagonal_step(
                self, parameters, data, regression, expectation.series_misfit
            )
        if self.restrictions is not None and self.restrictions.observed_factors:
            cov = self.restrictions.floored(cov, self.variance_floor)
        transition, innovation_cov, initial_mean, initial_cov = var_step(
            self, parameters, posterior, expectation.end
        )
        updated = dataclasses.replace(
            parameters,
            loadings=loadings,
            intercept=intercept,
            idiosyncratic_cov=cov,
            transition=transition,
            innovation_cov=innovation_cov,
            initial_mean=initial_mean,
            initial_cov=initial_cov,
        )
        if regression.intercept_prior is None:
            return updated
        _, precision = regression.intercept_prior
        return recentred(updated, posterior, data, expectation.end, precision)

    def intercept_prior(
        self, parameters: FactorParameters, data: PanelData, expectation: Expectation
    ) -> tuple[Float[Array, " series"], Float[Array, ""]] | None:
        """Mean and precision of random intercepts, at the old parameters."""
        if not self.random_intercept:
            return None
        assert data.units is not None
        path = path_mean(parameters, expectation.posterior.means, expectation.end)
        return data.units.zero, intercept_precision(parameters, data, path)


def normalised(
    parameters: FactorParameters, expectation: Expectation, restrictions: Restrictions | None
) -> FactorParameters:
    """Parameters of factors with second moment I, or, under zero restrictions, unit second moments
    (a change of scale keeps zeros); equations and penalties leave no freedom, so nothing is
    changed."""
    if restrictions is not None and restrictions.fixes_scale:
        return parameters
    moment = second_moment(expectation.posterior, expectation.end)
    if restrictions is None:
        scale = jnp.linalg.cholesky(moment)
        identity = jnp.eye(parameters.num_factors, dtype=scale.dtype)
        matrix = solve_triangular(scale, identity, lower=True)
        return rotate_parameters(parameters, matrix, scale)
    scale = jnp.sqrt(jnp.diagonal(moment))
    for _, factor in restrictions.observed_factors:
        scale = scale.at[factor].set(1.0)
    return rotate_parameters(parameters, jnp.diag(1.0 / scale), jnp.diag(scale))
