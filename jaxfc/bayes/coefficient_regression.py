"""Regressions of returns on given regressors, shrunk from asset to sector to market, Bayesian."""

import abc
import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums, required_key
from jaxfc.bayes.coefficient_drift import Drift, DriftingCoefficients
from jaxfc.bayes.coefficient_fitted import FittedHierarchicalRegression, posterior_summary
from jaxfc.bayes.coefficient_levels import (
    CoefficientProgram,
    GaussianCoefficients,
    StudentCoefficients,
)
from jaxfc.bayes.coefficient_places import (
    Places,
    check_rows,
    data_in_units,
    places_of,
    units_of,
)
from jaxfc.bayes.coefficient_prior import CoefficientData, CoefficientPrior, CoefficientScales
from jaxfc.bayes.coefficient_regressors import regressor_law
from jaxfc.bayes.diagnostics import Limits, judged
from jaxfc.bayes.draws import Inference
from jaxfc.bayes.pooled_hmc import PooledHMC
from jaxfc.model import Model
from jaxfc.typing import Array, Bool, Float, PRNGKeyArray
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


class CoefficientErrors(eqx.Module):
    """The law of the errors of a regression, and where coefficients may move."""

    @abc.abstractmethod
    def program(self, data: CoefficientData, prior: CoefficientPrior) -> CoefficientProgram:
        """The posterior given `data`."""


class GaussianErrors(CoefficientErrors):
    """u_it ~ N(0, 1): coefficients are integrated out. With a `drift` they move over time."""

    drift: Drift | None = None

    def program(self, data: CoefficientData, prior: CoefficientPrior) -> CoefficientProgram:
        if self.drift is None:
            return GaussianCoefficients(data, prior)
        return DriftingCoefficients(data, self.drift, prior)


class StudentErrors(CoefficientErrors):
    """u_it ~ t(nu_i) with degrees of freedom of each asset, shrunk to each other's."""

    def program(self, data: CoefficientData, prior: CoefficientPrior) -> CoefficientProgram:
        return StudentCoefficients(data, prior)


class HierarchicalRegression(Model):
    """Alphas and betas on given regressors from market to sector to asset, as draws.

        r_it = alpha_i + beta_i' x_t + noise_i u_it
        (alpha, beta)_i ~ N(sector mean_s(i), Lam),  sector mean_s ~ N(market mean, Om)

    The series named in `factors` are the regressors x, the others are returns, in any order and in
    any unit per row; `sectors` names the sector of each. Returns may be missing anywhere; a row in
    which a regressor is missing says nothing on coefficients. `errors`: `GaussianErrors()`
    (coefficients integrated out exactly), `GaussianErrors(drift=Drift())` (they move) or
    `StudentErrors()`. `prior` is in units of the data's own scales (see `CoefficientPrior`).

    Forecasts are joint draws of all series, one for each draw of the posterior; regressors follow
    a law of their own, independent rows or a VAR(1) (`regressor_lags` 0 or 1, see `RegressorLaw`)
    that goes on over rows at the end in which a regressor is missing.
    The result is the verdict of `diagnose` on the draws, by `limits`.

    **Raises** (from `fit`): `ValueError` for unknown or missing names, constant or never observed
    series, too few rows of the regressors, sums over periods, and a missing key.

    Source: Lindley and Smith (1972); Swamy (1970); Vasicek (1973).
    """

    factors: tuple[str, ...] = eqx.field(
        static=True, converter=lambda names: (names,) if isinstance(names, str) else tuple(names)
    )
    sectors: tuple[tuple[str, str], ...] = eqx.field(
        static=True, converter=lambda sectors: tuple(dict(sectors).items())
    )
    errors: CoefficientErrors = eqx.field(default_factory=GaussianErrors, kw_only=True)
    prior: CoefficientPrior = eqx.field(default_factory=CoefficientPrior, kw_only=True)
    regressor_lags: int = eqx.field(static=True, default=0, kw_only=True)
    inference: Inference = eqx.field(
        default_factory=lambda: PooledHMC(num_leapfrogs=16), kw_only=True
    )
    limits: Limits = eqx.field(default_factory=Limits, kw_only=True)
    places: Places | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self):
        if not self.factors or len(set(self.factors)) < len(self.factors):
            raise ValueError(
                f"`factors` is a tuple of one or more distinct names, got {self.factors}."
            )
        if self.regressor_lags not in (0, 1):
            raise ValueError(f"regressor_lags must be 0 or 1, got {self.regressor_lags}.")

    def resolved(self, panel: "Panel") -> "HierarchicalRegression":
        places = places_of(panel, self.factors, dict(self.sectors))
        return dataclasses.replace(self, places=places)

    def check(self, panel: "Panel") -> None:
        check_rows(panel, self.known_places, self.regressor_lags)

    @property
    def known_places(self) -> Places:
        """Where the series are; known once the model has met a panel."""
        if self.places is None:
            raise ValueError(
                "the model does not know yet which columns its names are; use fit(panel), or "
                "model.resolved(panel) before estimate."
            )
        return self.places

    def program(
        self, values: Float[Array, "time series"], observed: Bool[Array, "time series"]
    ) -> tuple[CoefficientProgram, CoefficientScales]:
        """The posterior in units of the model, and the units."""
        places = self.known_places
        scales = units_of(values, observed, places)
        data = data_in_units(values, observed, places, scales)
        return self.errors.program(data, self.prior), scales

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> FittedHierarchicalRegression:
        key = required_key(key, "the posterior is drawn from")
        refuse_sums(aggregation, "HierarchicalRegression")
        sample_key, level_key = jax.random.split(key)
        program, scales = self.program(values, observed)
        draws = self.inference.sample(program, key=sample_key)
        draws = judged(draws, program, limits=self.limits)
        places = list(self.known_places.factors)
        law = regressor_law(values[:, places], observed[:, places], self.regressor_lags)
        summary = posterior_summary(program, draws, scales, key=level_key)
        return FittedHierarchicalRegression(
            model=self,
            draws=draws,
            posterior=summary,
            scales=scales,
            regressors=law,
            loglik=jnp.mean(summary.logliks),
            num_steps=draws.num_steps,
            result=draws.result,
        )
