"""Covariances of hundreds of assets: dynamic factors whose innovations have dynamic covariances,
and errors of every series with variances of their own."""

import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxfc.arguments import refuse_sums
from jaxfc.compose.factor_forecast import FactorVolatilityForecast
from jaxfc.compose.surprises import Surprises, gaussian_densities, read_surprises
from jaxfc.counts import check_counts
from jaxfc.factors import AutoregressiveErrors, DynamicFactorModel, FittedFactorModel
from jaxfc.factors.dynamics import extended_path
from jaxfc.forecast import Forecast, SampleForecast
from jaxfc.model import Fitted, Model
from jaxfc.results import RESULTS, SUCCESSFUL, select
from jaxfc.typing import Array, Bool, Float, Int, PRNGKeyArray
from jaxfc.volatility import (
    CorrelationModel,
    FittedCorrelationModel,
    FittedVarianceModel,
    VarianceModel,
    Varma,
    VolatilityForecast,
    ZeroMean,
    mean_path,
)
from jaxfc_kernels.aggregation import AggregationRows
from jaxfc_kernels.lyapunov import companion
from jaxfc_kernels.semidefinite import semidefinite_chol

if TYPE_CHECKING:
    from jaxfc.panel import Panel

BURN_IN = 200


def innovation_covariances() -> CorrelationModel:
    """DCC with GARCH(1, 1) variances around zero."""
    return CorrelationModel(margins=VarianceModel(mean=ZeroMean()))


class FactorDCC(Model):
    """Covariances of many series from few factors (a factor GARCH).

        x_t = mu + L f_t + e_t,     f_t = sum_{l=1..p} A_l f_{t-l} + u_t
        Var(u_t | past) = H^f_t,    Var(e_t | past) = diag(s_t),
        H_t = L H^f_t L' + diag(s_t)

    mu, L, A by `factors`, with its own treatment of holes; H^f by `correlations`, fitted to the
    innovations of the factors (of one factor: the variance of its `margins`); s by
    `idiosyncratic`, series by series. Errors of different series are taken as uncorrelated.

    The three are estimated one after the other. Innovations and errors are generated regressors:
    what the Kalman filter of the factor model makes of row t and the rows before (no later row),
    brought to the variances that the model gives them (see `Surprises`); they differ from the true
    ones by O(1 / N) in variance. The filter's gain is that of the mean covariances: factors are
    the best linear ones, not the best given H_t.

    Costs O(time series K^2), one likelihood of K series, one variance model for each series; no
    matrix of all series is formed before a forecast asks for it.

    **Raises:** `ValueError` for errors with memory or correlations in the factor model (give
    `idiosyncratic` an `AutoregressiveMean`), for a mean in `correlations.margins` (the factors'
    VAR is theirs); from `fit` also what the parts raise.

    Source: Alessi, Barigozzi and Capasso (2009); the orthogonal one with observed factors is that
    of Engle, Ng and Rothschild (1990).
    """

    factors: DynamicFactorModel
    correlations: CorrelationModel = eqx.field(default_factory=innovation_covariances)
    idiosyncratic: VarianceModel = eqx.field(
        default_factory=lambda: VarianceModel(mean=ZeroMean()), kw_only=True
    )

    def __check_init__(self):
        if isinstance(self.factors.errors, AutoregressiveErrors):
            raise ValueError(
                "the factor model has errors=AutoregressiveErrors(); leave them independent there "
                "and use idiosyncratic=VarianceModel(mean=AutoregressiveMean(1))."
            )
        if self.factors.idiosyncratic == "full":
            raise ValueError(
                "idiosyncratic='full' correlates the errors of the series, which have variances "
                "of their own here; use 'diagonal' or more factors."
            )
        if not isinstance(self.correlations.margins.mean, ZeroMean):
            raise ValueError(
                "the mean of the factors is that of the factor model; use "
                "correlations=CorrelationModel(margins=VarianceModel(mean=ZeroMean()))."
            )

    @property
    def common(self) -> CorrelationModel | VarianceModel:
        """The model of the factors' innovations."""
        return self.correlations if self.factors.num_factors > 1 else self.correlations.margins

    def resolved(self, panel: "Panel") -> "FactorDCC":
        return dataclasses.replace(self, factors=self.factors.resolved(panel))

    def check(self, panel: "Panel") -> None:
        models = self.idiosyncratic, self.correlations.margins
        max(models, key=lambda model: len(model.specification.names)).check(panel)
        self.factors.check(panel)

    def estimate(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
        key: PRNGKeyArray | None = None,
    ) -> "FittedFactorDCC":
        refuse_sums(aggregation, "FactorDCC")
        factors = self.factors.estimate(values, observed)
        surprises = read_surprises(factors, values, observed)
        common = self.common.estimate(surprises.innovations, surprises.known)
        own = self.idiosyncratic.estimate(surprises.errors, observed)
        result = select(common.result != SUCCESSFUL, common.result, own.result)
        result = select(factors.result != SUCCESSFUL, factors.result, result)
        steps = jnp.stack([factors.num_steps, common.num_steps, own.num_steps])
        fitted = FittedFactorDCC(
            model=self,
            factors=factors,
            common=common,
            own=own,
            surprises=surprises,
            loglik=jnp.zeros((), values.dtype),
            num_steps=jnp.max(steps),
            result=result,
        )
        return fitted.with_loglik()


class FittedFactorDCC(Fitted):
    """An estimated `FactorDCC`.

    `factors` is the factor model as estimated; `common` the covariances of its innovations and
    `own` the variances of the errors, on the data that were fitted or `given`; `surprises` what the
    filter made of these. `loglik` is the sum of `log_densities`; `num_steps` the most that one of
    the three searches took; `result` that of the first that failed (`own.results` has every
    series').
    """

    model: FactorDCC
    factors: FittedFactorModel
    common: FittedCorrelationModel | FittedVarianceModel
    own: FittedVarianceModel
    surprises: Surprises
    loglik: Float[Array, ""]  # pyright: ignore
    num_steps: Int[Array, ""]  # pyright: ignore
    result: RESULTS  # pyright: ignore

    @property
    def level(self) -> Float[Array, " series"]:
        """mu in data units."""
        return self.factors.scaling.restore(self.factors.parameters.intercept)

    @property
    def loadings(self) -> Float[Array, "series factors"]:
        """L in data units."""
        return self.factors.scaling.scale[:, None] * self.factors.parameters.loadings

    @property
    def factor_covs(self) -> Float[Array, "next factors factors"]:
        """H^f of every row, and of the next one."""
        if isinstance(self.common, FittedCorrelationModel):
            return self.common.covs
        return self.common.variances[:, :, None]

    @property
    def variances(self) -> Float[Array, "next series"]:
        """s of every row, and of the next one, in squared units of the data."""
        return self.own.variances

    def log_densities(self) -> Float[Array, " time"]:
        """ln f(x_t | rows before) of the observed block of every row, of a normal law with
        covariance H_t (a quasi-likelihood if innovations are not normal). Given the parameters no
        later row enters, but for the level that variances start from.
        """
        filtered = self.own.filtered()
        surprises, known = self.surprises, filtered.known
        means = self.own.values - filtered.residuals
        errors = jnp.where(known, surprises.prediction_errors - means, 0.0)
        covs = self.factor_covs[:-1] + surprises.uncertainty
        return gaussian_densities(errors, known, self.loadings, covs, filtered.past)

    def with_loglik(self) -> "FittedFactorDCC":
        """With the log-likelihood of the data that it holds."""
        return dataclasses.replace(self, loglik=jnp.sum(self.log_densities()))

    def forecast(
        self,
        horizon: int,
        *,
        key: PRNGKeyArray | None = None,
        method: str = "iterated",
        num_draws: int = 2000,
    ) -> Forecast:
        """The next `horizon` rows: moments without a key, `num_draws` paths with one.

        `method`: how correlations of several factors run on, see
        `FittedCorrelationModel.forecast`. That the last factors are known with an error is counted.

        **Raises:** `ValueError` for a horizon below 1, an unknown method, and moments that do not
        exist (see `FittedVarianceModel.forecast`).
        """
        check_counts(horizon=horizon)
        if key is not None:
            return SampleForecast(draw_ahead(self, horizon, num_draws, key=key))
        if isinstance(self.common, FittedCorrelationModel):
            common = self.common.forecast(horizon, method=method)
        else:
            common = self.common.forecast(horizon)
        assert isinstance(common, VolatilityForecast)
        factors = factors_ahead(self, common.innovation_covs)
        shift = jnp.broadcast_to(self.level, (horizon, self.level.size))
        own = self.own.moments_ahead(horizon).affine(jnp.ones_like(self.level), shift)
        return FactorVolatilityForecast(self.loadings, factors, own)

    def simulate(self, num_steps: int, *, key: PRNGKeyArray) -> Float[Array, "time series"]:
        common_key, own_key = jax.random.split(key)
        innovations = self.common.simulate(BURN_IN + num_steps, key=common_key)
        start = jnp.zeros_like(self.surprises.last_factors)
        path = extended_path(self.factors.parameters.transition, start, innovations)[-num_steps:]
        return self.level + path @ self.loadings.T + self.own.simulate(num_steps, key=own_key)

    def given(
        self,
        values: Float[Array, "time series"],
        observed: Bool[Array, "time series"],
        *,
        aggregation: AggregationRows | None = None,
    ) -> "FittedFactorDCC":
        refuse_sums(aggregation, "FactorDCC")
        surprises = read_surprises(self.factors, values, observed)
        moved = dataclasses.replace(
            self,
            common=self.common.given(surprises.innovations, surprises.known),
            own=self.own.given(surprises.errors, observed),
            surprises=surprises,
        )
        return moved.with_loglik()


def factors_ahead(
    fitted: FittedFactorDCC, covs: Float[Array, "horizon factors factors"]
) -> VolatilityForecast:
    """The law of the next factors with innovation covariances `covs`. The error of the last p
    factors, of covariance P, is one more innovation of the first step:

        f_{T+k} - E f_{T+k} = sum_{s <= k} Phi_{k-s} u_{T+s} + (first K rows of F^k) error

    with the companion matrix F and Phi_j the first block of F^j.
    """
    horizon, num_factors, _ = covs.shape
    transition, surprises = fitted.factors.parameters.transition, fitted.surprises
    if transition.shape[0] == 0:
        return VolatilityForecast(jnp.zeros((horizon, num_factors), covs.dtype), covs)
    nothing = jnp.zeros((0, num_factors, num_factors), covs.dtype)
    varma = Varma(jnp.zeros(num_factors, covs.dtype), transition, nothing)
    mean = mean_path(varma, surprises.last_factors, nothing[:, 0], horizon)
    step = companion(transition)
    first = jnp.eye(num_factors, len(step), dtype=covs.dtype)
    later = jax.lax.scan(lambda row, _: (row @ step, row @ step), first, None, length=horizon)[1]
    now = jnp.concatenate([first[None], later[:-1]])[:, :, :num_factors]
    innovation_covs = jnp.pad(covs, ((0, 0), (0, len(step)), (0, len(step))))
    innovation_covs = innovation_covs.at[0, num_factors:, num_factors:].set(surprises.last_cov)
    return VolatilityForecast(mean, innovation_covs, jnp.concatenate([now, later], axis=2))


def draw_ahead(
    fitted: FittedFactorDCC, horizon: int, num_draws: int, *, key: PRNGKeyArray
) -> Float[Array, "draws horizon series"]:
    """Paths of the next rows: last factors, their innovations and the errors drawn."""
    last_key, common_key, own_key = jax.random.split(key, 3)
    surprises, transition = fitted.surprises, fitted.factors.parameters.transition
    size = surprises.last_cov.shape[0]
    noise = jax.random.normal(last_key, (num_draws, size), surprises.last_cov.dtype)
    # The covariance has the newest factors first, the path has them last.
    noise = (noise @ semidefinite_chol(surprises.last_cov).T).reshape(
        num_draws, *surprises.last_factors.shape
    )
    last = surprises.last_factors + noise[:, ::-1]
    innovations = fitted.common.forecast(horizon, key=common_key, num_draws=num_draws)
    assert isinstance(innovations, SampleForecast)
    paths = jax.vmap(lambda start, u: extended_path(transition, start, u)[-horizon:])(
        last, innovations.draws
    )
    own = fitted.own.draw_ahead(horizon, num_draws, key=own_key)
    return fitted.level + paths @ fitted.loadings.T + own
