"""Estimators of factors to compare in a Monte Carlo study, their bounds, and how they are judged.

    jaxfc.Study(FactorWorld, factor_estimators(), grid, METRICS, num_paths=500)

The bounds know the world's parameters: E[F | x] at the true ones (`Oracle()`), and the same with
the intercepts unknown, or known in law only. With mu ~ N(m, V) the panel's law gives, for the
precision H of mu | x and the score s(mu) of the likelihood, both exact,

    E[mu | x] = m + H^{-1} s(m),      E[F | x] = E[F | x, mu = E[mu | x]]

because E[F | x, mu] is affine in mu.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from jaxfc.factors.components import FactorParameters, trace_r_squared
from jaxfc.factors.coupled import plan_flows
from jaxfc.factors.kalman_moments import KalmanMoments
from jaxfc.factors.methods import EM, PCA, PPCA
from jaxfc.factors.model import DynamicFactorModel, FittedFactorModel
from jaxfc.factors.moments import ClosedForm
from jaxfc.factors.two_step import TwoStepEM
from jaxfc.factors.worlds import FactorWorld, SimulatedPanel
from jaxfc.typing import Array, Float, as_scalar
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.collapse import Collapsed

Known = Literal["value", "law", "nothing"]


class ModelEstimator(eqx.Module):
    """A factor model with the world's true numbers of factors and lags.

    `model` gives all options; its own numbers are replaced.
    """

    model: DynamicFactorModel

    def applies(self, world: FactorWorld) -> bool:
        """Whether the model can read the world's series: not every one reads flows."""
        model = self.model
        if not world.num_flows or model.method.rebuilds_panel:
            return True
        one_step = model.method.reads_flows and model.idiosyncratic in ("diagonal", "shrunk")
        return one_step and not isinstance(model.moments, KalmanMoments)

    def bind(self, world: FactorWorld) -> "BoundModel":
        """The estimation of one panel.

        **Raises:** `ValueError` for numbers that the model does not allow.
        """
        rows = world.aggregation
        model = dataclasses.replace(
            self.model,
            num_factors=world.num_factors,
            num_lags=world.num_lags,
            flows=None if self.model.method.rebuilds_panel else plan_flows(rows),
        )
        return BoundModel(model, rows)


class BoundModel(eqx.Module):
    """A model and what the entries of its panels stand for."""

    model: DynamicFactorModel
    aggregation: AggregationRows | None

    def __call__(self, panel: SimulatedPanel) -> FittedFactorModel:
        return self.model.estimate(panel.values, panel.observed, aggregation=self.aggregation)


class Oracle(eqx.Module):
    """The smoother at the true parameters: a bound for every estimator, for stocks.

    `intercept` says what is known of mu: its "value"; its "law", N(0, intercept_scale^2) of the
    world; or "nothing", which is the bound of estimators that take every mean for itself. Cost
    about 3 T N^3 flops with gaps.
    """

    intercept: Known = eqx.field(static=True, default="value")

    def applies(self, world: FactorWorld) -> bool:
        """Stocks only: flows with correlated errors have no short exact form."""
        return world.num_flows == 0

    def bind(self, world: FactorWorld) -> "BoundOracle":
        """The smoother of one panel."""
        known, precision = self.intercept == "value", 0.0
        if self.intercept == "law":
            known = world.intercept_scale == 0.0
            precision = 0.0 if known else 1.0 / world.intercept_scale**2
        return BoundOracle(as_scalar(precision), known, world.missing == 0.0)


class KnownFactors(eqx.Module):
    """What an oracle says."""

    factors: Float[Array, "time factors"]


class BoundOracle(eqx.Module):
    """`precision` of the law of the intercepts around zero, unless they are `known`."""

    precision: Float[Array, ""]
    known: bool = eqx.field(static=True)
    complete: bool = eqx.field(static=True)

    def __call__(self, panel: SimulatedPanel) -> KnownFactors:
        parameters, precision = panel.parameters, self.precision.astype(panel.values.dtype)
        cells = error_precisions(panel, self.complete)
        if self.known:
            return KnownFactors(smoothed(parameters, panel, cells, parameters.intercept))

        def score(intercept: Array) -> Array:
            factors = smoothed(parameters, panel, cells, intercept)
            residuals = panel.values - factors @ parameters.loadings.T - intercept
            return jnp.sum(times(cells, panel.observed * residuals), axis=0) - precision * intercept

        zero = jnp.zeros_like(parameters.intercept)
        intercept = jnp.linalg.solve(-jax.jacfwd(score)(zero), score(zero))
        return KnownFactors(smoothed(parameters, panel, cells, intercept))


def error_precisions(panel: SimulatedPanel, complete: bool) -> Array:
    """S_oo^{-1} of every row, zero in rows and columns that are not observed; one if complete."""
    cov = panel.parameters.idiosyncratic_cov
    identity = jnp.eye(cov.shape[0], dtype=cov.dtype)

    def of_row(seen: Array) -> Array:
        both = seen[:, None] & seen
        chol = jnp.linalg.cholesky(jnp.where(both, cov, identity))
        return jnp.where(both, cho_solve((chol, True), identity), 0.0)

    if complete:
        return of_row(jnp.ones(cov.shape[0], bool))
    return jax.lax.map(of_row, panel.observed)


def times(cells: Array, values: Float[Array, "time *columns"]) -> Array:
    """The precisions times what is there in every row."""
    return values @ cells if cells.ndim == 2 else jnp.einsum("tij,tj->ti", cells, values)


def smoothed(
    parameters: FactorParameters, panel: SimulatedPanel, cells: Array, intercept: Array
) -> Float[Array, "time factors"]:
    """E[F | x] at these intercepts."""
    loadings = parameters.loadings
    gram = jnp.einsum("...ij,ik,jl->...kl", cells, loadings, loadings)
    centred = jnp.where(panel.observed, panel.values - intercept, 0.0)
    zero = jnp.zeros((), centred.dtype)
    collapsed = Collapsed(
        information=jnp.broadcast_to(gram, (centred.shape[0], *gram.shape[-2:])),
        vectors=times(cells, centred) @ loadings,
        quadratic=zero,
        log_normaliser=zero,
    )
    return ClosedForm().posterior(parameters, collapsed).means


def demeaned_trace_r_squared(
    truth: Float[Array, "time factors"], estimate: Float[Array, "time other"]
) -> Float[Array, ""]:
    """Trace R^2 of the factors less their means over the panel, which intercepts may absorb."""
    return trace_r_squared(truth - jnp.mean(truth, axis=0), estimate - jnp.mean(estimate, axis=0))


def trace_r2(panel: SimulatedPanel, estimate: Any) -> Float[Array, ""]:
    """Trace R^2 of the estimated factors."""
    return trace_r_squared(panel.factors, estimate.factors)


def trace_r2_demeaned(panel: SimulatedPanel, estimate: Any) -> Float[Array, ""]:
    """Trace R^2 of the estimated factors, both demeaned."""
    return demeaned_trace_r_squared(panel.factors, estimate.factors)


def factor_estimators(rtol: float = 1e-2, max_steps: int = 100) -> dict[str, Any]:
    """The estimators by name, iterations with one tolerance and one bound on their steps.

    None standardises: all series of a world are in one unit.

    "CFM" and "KF/KS" are the paper's two-step estimation with a full error covariance, by closed
    form and by Kalman filter and smoother; "BM" is Banbura and Modugno (2014); "EM full" the exact
    EM with a full covariance; "EB" draws error variances and intercepts from common laws, which are
    estimated (empirical Bayes); "EB variances" only the variances. The oracles are bounds.
    """
    one_step = EM(rtol=rtol, max_steps=max_steps)
    two_step = TwoStepEM(rtol=rtol, max_steps=max_steps, inner=one_step)

    def estimator(method: Any, **options: Any) -> ModelEstimator:
        return ModelEstimator(DynamicFactorModel(1, 1, method=method, standardise=False, **options))

    return {
        "PCA": estimator(PCA()),
        "PPCA": estimator(PPCA()),
        "CFM": estimator(two_step, idiosyncratic="full"),
        "KF/KS": estimator(two_step, idiosyncratic="full", moments=KalmanMoments()),
        "BM": estimator(one_step),
        "EM full": estimator(one_step, idiosyncratic="full"),
        "EB variances": estimator(one_step, idiosyncratic="shrunk"),
        "EB": estimator(one_step, idiosyncratic="shrunk", intercept="random"),
        "oracle but mean": Oracle("nothing"),
        "oracle mean law": Oracle("law"),
        "oracle": Oracle(),
    }


METRICS: Mapping[str, Callable[[SimulatedPanel, Any], Array]] = {
    "trace_r2": trace_r2,
    "trace_r2_demeaned": trace_r2_demeaned,
}
