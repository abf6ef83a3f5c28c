"""Estimation methods of the factor model: strategies passed to `DynamicFactorModel(method=...)`."""

import abc
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.factors.candidate import Candidate
from jaxfc.factors.components import (
    FactorParameters,
    mask_factors,
    principal_loadings,
    static_factors,
    with_dynamics,
)
from jaxfc.factors.em import CRITERIA, EMStep, PanelData
from jaxfc.factors.iterate import iterate
from jaxfc.factors.moments import FactorPosterior
from jaxfc.factors.start import ppca_start, starting_values, switch_off
from jaxfc.fixed_point import Outcome
from jaxfc.results import RESULTS, SUCCESSFUL
from jaxfc.typing import Array, Float, Int, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.factors.model import DynamicFactorModel


class Estimate(eqx.Module):
    """What a method hands back: parameters, the panel they were estimated on (completed by two-step
    methods), and how the iteration ended. `posterior` overrides the model's own moments."""

    parameters: FactorParameters
    data: PanelData
    num_steps: Int[Array, ""]
    path: Float[Array, " steps"]
    result: RESULTS
    posterior: FactorPosterior | None = None


class Method(eqx.Module):
    """How the parameters are estimated from a standardised panel."""

    # Whether flows observed at a lower frequency than the panel's can be read.
    reads_flows: ClassVar[bool] = False
    # Whether the estimation completes the panel, whose moments are then those of the fit.
    rebuilds_panel: ClassVar[bool] = False
    # Whether errors with memory and restrictions can be estimated.
    is_general: ClassVar[bool] = False

    @abc.abstractmethod
    def run(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        rows: AggregationRows | None,
        start: FactorParameters | None,
        candidate: Candidate,
    ) -> Estimate:
        """Parameters from data; `start` warms an iteration up where there is one."""


def with_intercept(parameters: FactorParameters, intercept: Array) -> FactorParameters:
    """The parameters with another intercept."""
    return eqx.tree_at(lambda p: p.intercept, parameters, intercept)


def not_iterated(parameters: FactorParameters, data: PanelData, **extra) -> Estimate:
    """An estimate in closed form."""
    path = jnp.full(1, jnp.nan, data.values.dtype)
    return Estimate(parameters, data, jnp.asarray(0), path, SUCCESSFUL, **extra)


class PCA(Method):
    """Principal components of the pairwise covariance; factors by least squares on observed cells.

    Residual variances are those of the least-squares fit; the factors are treated as known. A row
    without any observation has factors of zero, so a panel must not end with one.
    """

    def run(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        rows: AggregationRows | None,
        start: FactorParameters | None,
        candidate: Candidate,
    ) -> Estimate:
        refuse_start(self, start)
        if model.idiosyncratic == "full":
            raise ValueError(
                "the residual covariance of principal components is singular along the loadings, "
                "so PCA() has no full idiosyncratic covariance; use idiosyncratic='diagonal', or "
                "method=EM()."
            )
        vectors, leading, _ = principal_loadings(data.values, data.observed, model.num_factors)
        loadings = vectors * jnp.sqrt(jnp.maximum(leading, 0.0))
        loadings = mask_factors(loadings, candidate.factors)
        num_series = loadings.shape[0]
        # A small ridge: a row with fewer observations than factors has no least-squares solution.
        ridge = jnp.finfo(loadings.dtype).eps ** 0.5 * jnp.sum(loadings**2) / model.num_factors
        factors = static_factors(
            data.values, data.observed, loadings, jnp.ones(num_series, loadings.dtype), ridge
        )
        residuals = data.values - data.observed * (factors @ loadings.T)
        cov = residual_cov(model, residuals, data.observed)
        active = candidate.factors
        parameters = with_dynamics(loadings, cov, factors, model.num_lags, candidate.lags, active)
        parameters = switch_off(parameters, active)
        num_times, num_factors = factors.shape
        zeros = jnp.zeros((model.num_lags + 1, num_times, num_factors, num_factors), cov.dtype)
        posterior = FactorPosterior(factors, zeros, jnp.asarray(jnp.nan, cov.dtype))
        return not_iterated(parameters, data, posterior=posterior)


def residual_cov(
    model: "DynamicFactorModel",
    residuals: Float[Array, "time series"],
    observed: Float[Array, "time series"],
) -> Array:
    """Diagonal or isotropic idiosyncratic variances from residuals, over observed cells."""
    counts = jnp.maximum(jnp.sum(observed, axis=0), 1.0)
    floor = model.variance_floor.astype(residuals.dtype)
    variances = jnp.maximum(jnp.sum(residuals**2, axis=0) / counts, floor)
    if model.idiosyncratic == "isotropic":
        pooled = jnp.sum(residuals**2) / jnp.sum(observed)
        return jnp.full_like(variances, jnp.maximum(pooled, floor))
    return variances


def refuse_start(method: Method, start: FactorParameters | None) -> None:
    """Methods in closed form have nothing to warm up."""
    if start is not None:
        raise ValueError(
            f"{type(method).__name__} is a closed form and takes no start; use method=EM(), or "
            "leave `start` out."
        )


class PPCA(Method):
    """Probabilistic principal components (Tipping and Bishop 1999), isotropic noise.

    Exact maximum likelihood of the static isotropic model on complete panels; on incomplete ones
    the covariance is the pairwise one. A VAR is fitted to the factors afterwards.
    """

    def run(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        rows: AggregationRows | None,
        start: FactorParameters | None,
        candidate: Candidate,
    ) -> Estimate:
        refuse_start(self, start)
        return not_iterated(ppca_start(model, data, candidate), data)


class EM(Method):
    """One-step expectation maximisation on the incomplete panel.

    With `idiosyncratic="diagonal"` this is Banbura and Modugno (2014); with "full" the exact EM for
    missing stock values and correlated errors (costs T N^3 / 3 an iteration). Stops when
    `criterion` changes by less than `rtol`, relatively, or after `max_steps`: "loglik", or
    "expected_loglik", the paper's, which settles much more slowly at tight tolerances.
    `missing_as_latent` selects the slower variance update of Banbura and Modugno.
    """

    reads_flows: ClassVar[bool] = True
    is_general: ClassVar[bool] = True

    rtol: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-6)
    max_steps: int = eqx.field(static=True, default=500)
    criterion: str = eqx.field(static=True, default="loglik")
    missing_as_latent: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_counts(max_steps=self.max_steps)
        if self.criterion not in CRITERIA:
            raise ValueError(f"unknown criterion {self.criterion!r}; use one of {CRITERIA}.")

    def step(self, model: "DynamicFactorModel", candidate: Candidate) -> EMStep:
        """The iteration's step for a model."""
        return EMStep(
            moments=model.moments,
            variance_floor=model.variance_floor,
            active_factors=candidate.factors,
            active_lags=candidate.lags,
            idiosyncratic=model.idiosyncratic,
            initial=model.initial,
            presample=model.presample,
            estimate_intercept=model.intercept != "sample",
            random_intercept=model.intercept == "random",
            missing_as_latent=self.missing_as_latent,
            criterion=self.criterion,
            normalise=True,
            errors=model.errors,
            restrictions=model.rules,
            weighting=model.weighting,
        )

    def iterate(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        start: FactorParameters | None,
        candidate: Candidate,
        rows: AggregationRows | None = None,
    ) -> Outcome:
        """Parameters at the fixed point of the step."""
        if start is None:
            start = starting_values(model, data, rows, candidate)
        # A fixed point does not depend on the start, so it is not differentiated through it. An
        # intercept that is not estimated is no unknown of it: it travels with the data.
        level, estimated = start.intercept, model.intercept != "sample"
        if not estimated:
            start = with_intercept(start, jnp.zeros_like(level))
        start = jax.lax.stop_gradient(start)
        step = self.step(model, candidate)

        def advance(parameters: FactorParameters, args: tuple[PanelData, Array]) -> tuple:
            data, level = args
            if estimated:
                return step(parameters, data)
            parameters, criterion = step(with_intercept(parameters, level), data)
            return with_intercept(parameters, jnp.zeros_like(level)), criterion

        # EM raises the likelihood; the expected one lacks an entropy term and may fall by design,
        # and so may the likelihood where priors pull.
        pulled = model.idiosyncratic == "shrunk" or model.intercept == "random"
        outcome = iterate(
            advance,
            start,
            (data, level),
            rtol=self.rtol,
            max_steps=self.max_steps,
            ascending=self.criterion == "loglik" and not pulled,
        )
        if estimated:
            return outcome
        value = with_intercept(outcome.value, level)
        return Outcome(value, outcome.num_steps, outcome.path, outcome.result)

    def run(
        self,
        model: "DynamicFactorModel",
        data: PanelData,
        rows: AggregationRows | None,
        start: FactorParameters | None,
        candidate: Candidate,
    ) -> Estimate:
        outcome = self.iterate(model, data, start, candidate, rows)
        return Estimate(outcome.value, data, outcome.num_steps, outcome.path, outcome.result)
