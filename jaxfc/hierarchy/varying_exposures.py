"""Factor models with given factors whose alphas and betas move, pooled by sector."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.counts import check_counts
from jaxfc.hierarchy.exposure_moments import (
    FactorMoments,
    exposure_forecast,
    factor_moments,
    with_constant,
)
from jaxfc.hierarchy.exposure_search import search
from jaxfc.hierarchy.exposure_states import (
    ExposureDynamics,
    ExposurePaths,
    ExposureRows,
    exposure_paths,
)
from jaxfc.hierarchy.exposures import shrunk_exposures
from jaxfc.hierarchy.late_factors import LATE_FACTORS, completed_factors
from jaxfc.hierarchy.levels import product
from jaxfc.hierarchy.panel_checks import check_horizon, check_sectors
from jaxfc.hierarchy.shrinkage import Shrinkage
from jaxfc.hierarchy.shrunk_regression import ShrunkRegression
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS
from jaxfc.state_forecast import StateForecast
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray, as_scalar
from jaxfc_kernels.aggregation import AggregationRows

if TYPE_CHECKING:
    from jaxfc.panel import Panel

DYNAMICS = ("random walk", "mean reverting")
# Where EM starts: how much of a coefficient's spread over assets it moves in a row.
SHARE_OF_SPREAD = 0.01
START_PERSISTENCE = 0.95
# Steps and precision of the static exposures that EM starts from.
START = {"rtol": 1e-3, "max_steps": 100}


class VaryingExposureModel(Model):
    """Returns on given factors, with alphas and betas that move over time.

        R_it = alpha_it + beta_it' f_t + e_it,     e_it ~ N(0, v_i)
        b_it = B_s + Phi_s (b_i,t-1 - B_s) + u_it,     u_it ~ N(0, Q_s),     b_i0 ~ N(B_s, P_0)

    with b = (alpha, beta')', Phi_s, Q_s and P_0 diagonal; `dynamics` "random walk": Phi = I. B_s,
    Phi_s and Q_s are shared by the assets of a sector, P_0 by all assets; an asset without data
    moves about its sector's B_s. v_i is drawn to the sector's by `pseudo_rows` (see
    `shrunk_regression`). Estimated by EM: each M-step averages smoothed moments over the assets of
    a sector. It ends when the likelihood gains less than `rtol` per asset in a step.

    The last `num_factors` columns of the panel are the factors, the columns before are the returns,
    in the order of `sectors`; forecasts are of the returns. A return that is not observed is a step
    without update. `late_factors`, for a factor that is not observed on a date: "drop" leaves its
    column out on that date (its part of the returns then counts as zero), "integrate" puts its
    AR(1) forecast there (see `completed_factors`) and adds E[beta^2] times the forecast's variance
    to the errors of that date, with beta as in the static exposures. That error is common to all
    assets, which the sum over assets of log-likelihoods does not know.

    **Raises** (from `fit`): `ValueError` as `ExposureModel`.

    Source: Durbin and Koopman (2012), chapters 4 and 7; Mergner and Bulla (2008) for betas of
    sectors.
    """

    sectors: Int[Array, " series"] = eqx.field(converter=jnp.asarray)
    num_sectors: int = eqx.field(static=True)
    num_factors: int = eqx.field(static=True)
    dynamics: str = eqx.field(static=True, default="random walk", kw_only=True)
    late_factors: str = eqx.field(static=True, default="drop", kw_only=True)
    pseudo_rows: Float[Array, ""] = eqx.field(converter=as_scalar, default=4.0, kw_only=True)
    half_life: Float[Array, ""] | None = eqx.field(default=None, kw_only=True)
    rtol: Float[Array, ""] = eqx.field(converter=as_scalar, default=1e-4, kw_only=True)
    max_steps: int = eqx.field(static=True, default=500, kw_only=True)

    def __check_init__(self):
        check_counts(
            num_sectors=self.num_sectors, num_factors=self.num_factors, max_steps=self.max_steps
        )
        if self.dynamics not in DYNAMICS:
            raise ValueError(f"dynamics must be one of {DYNAMICS}, got {self.dynamics!r}.")
        if self.late_factors not in LATE_FACTORS:
            raise ValueError(
                f"late_factors must be one of {LATE_FACTORS}, got {self.late_factors!r}."
            )

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names[: len(names) - self.num_factors]

    def check(self, panel: "Panel") -> None:
        check_sectors(panel, self.sectors, self.num_sectors, self.num_factors)

    def rows(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        static: ShrunkRegression,
    ) -> ExposureRows:
        """Returns, regressors, and variances added by factors that are not observed."""
        assets = values.shape[1] - self.num_factors
        factors, seen = values[:, assets:], observed[:, assets:]
        if self.late_factors == "drop":
            columns = with_constant(jnp.where(seen, factors, 0.0))
            added = jnp.zeros((len(values), assets), values.dtype)
        else:
            means, spreads = completed_factors(factors, seen)
            columns, law = with_constant(means), static.law
            squares = law.means**2 + jnp.diagonal(law.covs, axis1=1, axis2=2)
            added = product("tf,if->ti", spreads, squares[:, 1:])
        return ExposureRows(values[:, :assets], observed[:, :assets], columns, added)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedVaryingExposures":
        assets = values.shape[1] - self.num_factors
        factors, seen = values[:, assets:], observed[:, assets:]
        static = shrunk_exposures(
            values[:, :assets],
            observed[:, :assets],
            factors,
            seen,
            self.sectors,
            self.num_sectors,
            shrinkage=Shrinkage(**START),
            pseudo_rows=self.pseudo_rows,
        )
        static = jax.lax.stop_gradient(static)
        rows = self.rows(values, observed, static)
        moves = self.dynamics == "mean reverting"
        found = search(
            rows,
            self.sectors,
            self.start(static),
            self.pseudo_rows,
            self.rtol,
            self.max_steps,
            moves,
        )
        dynamics, variances = found.parameters
        paths = exposure_paths(rows, self.sectors, dynamics, variances)
        return FittedVaryingExposures(
            model=self,
            static=static,
            dynamics=dynamics,
            variances=variances,
            paths=paths,
            factors=factor_moments(factors, seen, self.half_life),
            loglik=jnp.sum(paths.logliks),
            num_steps=found.num_steps,
            result=found.result,
        )

    def start(self, static: ShrunkRegression) -> tuple[ExposureDynamics, Float[Array, " series"]]:
        """Static exposures that are let move a little."""
        law = static.law
        spread = jnp.diagonal(static.spreads.within[0]) + jnp.diagonal(static.spreads.between)
        shape = law.sector_means.shape
        walks = self.dynamics == "random walk"
        persistence = jnp.full(shape, 1.0 if walks else START_PERSISTENCE, spread.dtype)
        innovations = jnp.broadcast_to(SHARE_OF_SPREAD * spread, shape)
        dynamics = ExposureDynamics(law.sector_means, persistence, innovations, spread)
        return dynamics, static.variances


class FittedVaryingExposures(Fitted):
    """Estimated dynamics and paths of exposures.

    `paths` (series, time, coefficients) holds what is known of alpha and beta at each row:
    `filtered_*` from the rows up to it, `smoothed_*` from all; `static` are the constant exposures
    that EM started from.
    """

    model: VaryingExposureModel
    static: ShrunkRegression
    dynamics: ExposureDynamics
    variances: Float[Array, " series"]
    paths: ExposurePaths
    factors: FactorMoments
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    def forecast_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self.model.forecast_names(names)

    def forecast(self, horizon: int, *, key: PRNGKeyArray | None = None) -> StateForecast:
        """The next `horizon` rows of the returns, exposures and factors both uncertain.

        Means and covariances are exact given the parameters (see `exposure_forecast`). **Raises:**
        `ValueError` for a horizon below 1, or a key: the law has a closed form.
        """
        check_horizon(horizon, key)
        centres, persistence, innovations = (
            field[self.model.sectors] for field in self.dynamics[:3]
        )

        def step(state, _):
            mean, cov = state
            following = centres + persistence * (mean - centres)
            spread = persistence[:, :, None] * cov * persistence[:, None, :]
            return (following, spread + jax.vmap(jnp.diag)(innovations)), (mean, cov)

        start = self.paths.predicted_means[:, -1], self.paths.predicted_covs[:, -1]
        _, (means, covs) = jax.lax.scan(step, start, None, length=horizon)
        ages = jnp.arange(horizon)
        lags = ages[:, None] - ages
        # Cov(b_h, b_k) = Phi^{h - k} Cov(b_k) for h >= k, and its transpose.
        powers = jnp.where(
            (lags >= 0)[:, :, None, None],
            persistence ** jnp.maximum(lags, 0)[:, :, None, None],
            0.0,
        )
        below = product("hkia,kiab->ihakb", powers, covs)
        above = product("khib,hiab->ihakb", powers, covs)
        is_below = (lags >= 0)[None, :, None, :, None]
        joint = jnp.where(is_below, below, above)
        return exposure_forecast(means, joint, self.variances, self.factors)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        """One path of the returns: exposures start from the law of the first row of the data (a
        random walk has no unconditional one), factors are drawn from a normal law."""
        centres, persistence, innovations = (
            field[self.model.sectors] for field in self.dynamics[:3]
        )
        keys = jax.random.split(key, 4)
        shape, dtype = centres.shape, centres.dtype
        start = jnp.sqrt(self.dynamics.initial_variances) * jax.random.normal(keys[0], shape, dtype)
        noise = jax.random.normal(keys[1], (num_steps, *shape), dtype) * jnp.sqrt(innovations)

        def step(gap, shock):
            return persistence * gap + shock, centres + gap

        _, exposures = jax.lax.scan(step, start, noise)
        factors = jax.random.multivariate_normal(
            keys[2], self.factors.mean, self.factors.cov, (num_steps,), method="svd"
        )
        errors = jax.random.normal(keys[3], (num_steps, shape[0]), dtype)
        explained = product("ta,tia->ti", with_constant(factors), exposures)
        return explained + jnp.sqrt(self.variances) * errors

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedVaryingExposures":
        """The same dynamics on other data, whose first row has the law of the first row of those
        that were fitted."""
        rows = self.model.rows(values, observed, self.static)
        paths = exposure_paths(rows, self.model.sectors, self.dynamics, self.variances)
        fitted = dataclasses.replace(self, paths=paths)
        if self.model.half_life is None:
            return fitted
        assets = values.shape[1] - self.model.num_factors
        moments = factor_moments(values[:, assets:], observed[:, assets:], self.model.half_life)
        return dataclasses.replace(fitted, factors=moments)
