"""Factor models with given factors whose alphas and betas are shrunk to sector and market."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.forecast import FactorForecast
from jaxfc.hierarchy.exposure_moments import (
    FactorMoments,
    exposure_forecast,
    factor_moments,
    with_constant,
)
from jaxfc.hierarchy.panel_checks import check_horizon, check_sectors
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.shrunk_regression import (
    ShrunkRegression,
    regressions_of,
    shrunk_regression,
)
from jaxfc.hierarchy.three_levels import sectors_of
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS
from jaxfc.state_forecast import StateForecast
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel


def shrunk_exposures(
    values: Float[Array, "time series"],
    observed: Bool[Array, "time series"],
    factors: Float[Array, "time factors"],
    factors_observed: Bool[Array, "time factors"],
    sectors: Int[Array, " series"],
    num_sectors: int,
    *,
    characteristics: Float[Array, "series characteristics"] | None = None,
    shrinkage: Shrinkage | None = None,
    pseudo_rows: Float[Array, ""] | float = 4.0,
) -> ShrunkRegression:
    """Alphas and betas of returns on given factors, shrunk from asset to sector to market.

        R_it = alpha_i + beta_i' f_t + e_it,     e_it ~ N(0, v_i)
        (alpha_i, beta_i')' ~ N(B_s z_i, Lam_s),     B_s ~ N(B_0, Om)

    A return that is not observed, and a row in which a factor is not, says nothing; an asset with a
    short history is drawn to its sector by as much as its own errors are large, one without any has
    the coefficients of its sector (Vasicek's (1973) adjustment is the scalar case with one sector).

    **Arguments:** `values` (time, series) and `factors` (time, factors) in any units; `sectors`
    (series,) from 0 to `num_sectors` - 1; `characteristics` z_i (series, characteristics), a
    constant included (left out: z_i = 1); `shrinkage` and `pseudo_rows` as in `Shrinkage` and
    `shrunk_regression`. Coefficients are ordered (alpha, beta').

    Source: Swamy (1970); Vasicek (1973).
    """
    complete = jnp.all(factors_observed, axis=1)
    columns = with_constant(jnp.where(complete[:, None], factors, 0.0))
    found = regressions_of(values, observed & complete[:, None], columns)
    structure = sectors_of(sectors, num_sectors, columns.shape[1], characteristics)
    how = Shrinkage() if shrinkage is None else shrinkage
    return shrunk_regression(found, structure, how, as_scalar(pseudo_rows))


class ExposureModel(Model):
    """Returns on given factors, alphas and betas shrunk from asset to sector to market.

    See `shrunk_exposures` for the equations. The last `num_factors` columns of the panel are the
    factors, the columns before are the returns of the assets, in the order of `sectors`; forecasts
    are of the returns. Ahead, factors are independent over time with the mean and covariance that
    they had (`half_life` in rows: with weights that halve so often; left out: equal weights).

    **Raises** (from `fit`): `ValueError` for sectors that do not fit the panel, naming the series;
    factors that are constant or have fewer than factors + 2 common rows; panels with sums over
    periods.
    """

    sectors: Int[Array, " series"] = eqx.field(converter=jnp.asarray)
    num_sectors: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    characteristics: Float[Array, "series characteristics"] | None = eqx.field(
        default=None, kw_only=True
    )
    shrinkage: Shrinkage = eqx.field(default_factory=Shrinkage, kw_only=True)
    pseudo_rows: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0, kw_only=True)
    half_life: Float[Array, ""] | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_counts(num_sectors=self.num_sectors, num_factors=self.num_factors)

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names[: len(names) - self.num_factors]

    def check(self, panel: "Panel") -> None:
        check_sectors(panel, self.sectors, self.num_sectors, self.num_factors)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedExposures":
        assets = values.shape[1] - self.num_factors
        factors, seen = values[:, assets:], observed[:, assets:]
        found = shrunk_exposures(
            values[:, :assets],
            observed[:, :assets],
            factors,
            seen,
            self.sectors,
            self.num_sectors,
            characteristics=self.characteristics,
            shrinkage=self.shrinkage,
            pseudo_rows=self.pseudo_rows,
        )
        return FittedExposures(
            model=self,
            regression=found,
            factors=factor_moments(factors, seen, self.half_life),
            loglik=found.law.loglik,
            num_steps=found.num_steps,
            result=found.result,
        )


class FittedExposures(Fitted):
    """Estimated exposures: `regression.law` holds means and covariances of all three levels."""

    model: ExposureModel
    regression: ShrunkRegression
    factors: FactorMoments
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def alphas(self) -> Float[Array, " series"]:
        """Intercepts of the assets, in units of the returns per row."""
        return self.regression.law.means[:, 0]

    @property
    def betas(self) -> Float[Array, "series factors"]:
        """Exposures of the assets."""
        return self.regression.law.means[:, 1:]

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.model.forecast_names(names)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> FactorForecast:
        """The next `horizon` rows of the returns, given the estimated exposures.

        See `forecast_with_uncertainty` for the error of the exposures.

        **Raises:** `ValueError` for a horizon below 1, or a key: the law has a closed form.
        """
        check_horizon(horizon, key)
        steps = jnp.eye(horizon, dtype=self.betas.dtype)
        mean = self.alphas + self.betas @ self.factors.mean
        return FactorForecast(
            mean=jnp.broadcast_to(mean, (horizon, len(mean))),
            loadings=self.betas,
            factor_cov=steps[:, None, :, None] * self.factors.cov[:, None, :],
            idiosyncratic_cov=self.regression.variances,
            mixing=steps,
        )

    def forecast_with_uncertainty(self, horizon: int) -> StateForecast:
        """As `forecast`, with the covariance of each asset's exposures (not that between assets,
        which share the error of their sector's)."""
        check_counts(horizon=horizon)
        means, covs = self.regression.law.means, self.regression.law.covs
        size = (len(means), horizon, means.shape[1], horizon, means.shape[1])
        return exposure_forecast(
            jnp.broadcast_to(means, (horizon, *means.shape)),
            jnp.broadcast_to(covs[:, None, :, None, :], size),
            self.regression.variances,
            self.factors,
        )

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of the returns, factors drawn from a normal law."""
        return self.forecast(1).sample(num_steps, key=key)[:, 0]

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedExposures":
        """The same exposures; moments of the factors are parameters, unless they have a
        `half_life`: then they are those of these data."""
        if self.model.half_life is None:
            return self
        assets = values.shape[1] - self.model.num_factors
        moments = factor_moments(values[:, assets:], observed[:, assets:], self.model.half_life)
        return dataclasses.replace(self, factors=jax.tree.map(jnp.asarray, moments))
